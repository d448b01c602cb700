"""Which mask is of which image, where several images have one name: its folders tell, and otherwise nothing does."""
import pytest
from PIL import Image
from two_images import convert, masks_of, picture, truth

from inceptionnext_seg.data.importing import import_dataset
from inceptionnext_seg.data.importing.pairing import pair
from inceptionnext_seg.errors import UserError


@pytest.mark.parametrize(('pictures', 'expected'), [
    (['day/1.jpg', 'night/1.jpg', 'night/1_mask.png'], {'night/1.jpg': 'night/1_mask.png'}),
    (['day/1.jpg', 'day/1_mask.png', 'night/1.jpg'], {'day/1.jpg': 'day/1_mask.png'}),
    (['masks/seq2/0.png', 'photos/seq1/0.jpg', 'photos/seq2/0.jpg'], {'photos/seq2/0.jpg': 'masks/seq2/0.png'}),
    (['masks/seq1/0.png', 'photos/seq1/0.jpg', 'photos/seq2/0.jpg'], {'photos/seq1/0.jpg': 'masks/seq1/0.png'}),
    # The folder above is told from the one below it, and a folder of either kind may have any name.
    (['m/0.png', 'masks/0.png', 'masks/deep/0.png', 'm/deep/0.png'], {'m/0.png': 'masks/0.png',
                                                                      'm/deep/0.png': 'masks/deep/0.png'}),
    (['links/1.jpg', 'masks/x/1.png'], {'links/1.jpg': 'masks/x/1.png'}),
    # Another map of an image is none, as in PASCAL VOC.
    (['V/JPEGImages/1.jpg', 'V/SegmentationClass/1.png', 'V/SegmentationObject/1.png'], {
        'V/JPEGImages/1.jpg': 'V/SegmentationClass/1.png'}),
    (['depth/1.png', 'images/1.png', 'labels/1.png'], {'images/1.png': 'labels/1.png'}),
    # One image in two formats has one mask.
    (['a.jpg', 'a.png', 'masks/a.png'], {'a.jpg': 'masks/a.png'})])
def test_a_mask_belongs_to_the_image_whose_folders_agree_best(pictures, expected):
    found = pair(sorted(pictures))
    assert {image: mask for image, mask in found.masks.items() if mask} == expected
    assert not found.doubtful and not found.unpaired


@pytest.mark.parametrize(('pictures', 'mask', 'reason'), [
    (['masks/0.png', 'photos/seq1/0.jpg', 'photos/seq2/0.jpg'], 'masks/0.png',
     'any of photos/seq1/0.jpg, photos/seq2/0.jpg'),
    # That the other image has a mask of its own does not make this one fit.
    (['masks/seq2/0.png', 'masks/seq3/0.png', 'photos/seq1/0.jpg', 'photos/seq2/0.jpg'], 'masks/seq3/0.png', 'any of'),
    (['masks/seq2/0.png', 'photos/seq1/0.jpg'], 'masks/seq2/0.png', 'seq2 is not seq1')])
def test_a_mask_that_may_be_of_several_images_or_is_of_another_sequence_is_of_none(pictures, mask, reason):
    found = pair(pictures)
    assert mask not in found.masks.values() and reason in found.doubtful[mask]


def test_a_doubtful_mask_is_left_out_with_its_reason_and_one_alone_is_an_error(tmp_path):
    source = tmp_path / 'source'
    for i, name in enumerate(('seq1/0', 'seq2/0', 'seq2/1', 'seq2/2')):
        picture(source / f'photos/{name}.png', i)
    for i, name in enumerate(('0', 'seq2/1', 'seq2/2')):
        (source / f'masks/{name}.png').parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(truth(i)).save(source / f'masks/{name}.png')
    report = convert(source)
    assert masks_of(source).keys() == {'1', '2'} and report.description.unlabelled == 2
    [entry] = report.left_out
    assert entry.path == 'masks/0.png' and 'photos/seq1/0.png, photos/seq2/0.png' in entry.reason
    for name in ('1', '2'):
        (source / f'masks/seq2/{name}.png').unlink()
    with pytest.raises(UserError, match=r'masks/0\.png may be the mask of any of'):
        import_dataset(source, tmp_path / 'out2', progress=False)
