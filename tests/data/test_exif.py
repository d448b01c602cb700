"""Images and masks with an EXIF orientation: both upright, or one message."""
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope
from mmseg.datasets import BaseSegDataset
from PIL import Image, ImageOps

from inceptionnext_seg.data import datasets as datasets  # registers the loading of masks
from inceptionnext_seg.data.ade20k import verify
from inceptionnext_seg.data.checks import check_samples, ignored_files
from inceptionnext_seg.data.exif import ORIENTATION, orientation, upright
from inceptionnext_seg.errors import UserError

PIPELINE = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]


def exif(turn):
    block = Image.Exif()
    block[ORIENTATION] = turn
    return block


def scene(width, height):
    """Pixels that look the same from no two sides, and the mask that is where they are bright."""
    mask = np.zeros((height, width), np.uint8)
    mask[:height // 4, :width // 2] = 1
    mask[:height // 2, :width // 8] = 1
    return Image.fromarray((mask * 200).repeat(3).reshape(height, width, 3)), Image.fromarray(mask)


@pytest.fixture
def write(tmp_path):
    """Write one sample: which turn image and mask are tagged with, and whether the mask is drawn on stored pixels."""

    def write(image_turn=None, mask_turn=None, size=(64, 96), mask_as='stored', suffix='.jpg'):
        image, mask = scene(*size)
        if mask_as == 'seen':
            mask = Image.fromarray(upright(np.asarray(mask), image_turn))
        for folder, picture, ending, turn in (
                ('images', image, suffix, image_turn), ('masks', mask, '.png', mask_turn)):
            (tmp_path / folder).mkdir()
            settings = dict(exif=exif(turn)) if turn else {}
            picture.save(tmp_path / folder / f'a{ending}', **settings)
        init_default_scope('mmseg')
        return BaseSegDataset(
            data_root=str(tmp_path), data_prefix=dict(img_path='images', seg_map_path='masks'), img_suffix=suffix,
            metainfo=dict(classes=('dark', 'bright'), palette=[[0] * 3, [1] * 3]), pipeline=PIPELINE)

    return write


def assert_aligned(sample):
    bright = sample['inputs'].float().mean(0) > 100
    assert torch.equal(bright, sample['data_samples'].gt_sem_seg.data[0] == 1)


@pytest.mark.parametrize('turn', range(1, 9))
def test_pixels_are_turned_as_pillow_turns_them(turn, tmp_path):
    image, _ = scene(8, 12)
    image.save(tmp_path / 'a.png', exif=exif(turn))
    with Image.open(tmp_path / 'a.png') as file:
        assert orientation(file) == turn
        assert np.array_equal(upright(np.asarray(file), turn), np.asarray(ImageOps.exif_transpose(file)))


@pytest.mark.parametrize('turn', range(2, 9))
def test_image_and_mask_that_are_tagged_alike_are_both_turned(write, turn):
    dataset = write(turn, turn)
    check_samples(dataset, progress=False)
    assert_aligned(dataset[0])


@pytest.mark.parametrize('turn', [5, 6, 7, 8])
def test_a_mask_as_viewers_show_the_image_fits_one_that_is_turned_by_90_degrees(write, turn):
    dataset = write(turn, mask_as='seen')
    check_samples(dataset, progress=False)
    assert_aligned(dataset[0])


@pytest.mark.parametrize('mask_as', ['stored', 'seen'])
@pytest.mark.parametrize(('turn', 'size'), [(2, (64, 96)), (3, (64, 96)), (4, (64, 96)), (6, (64, 64))])
def test_a_mask_that_may_or_may_not_be_turned_like_its_image_is_an_error_that_says_how_to_tell(
        write, turn, size, mask_as):
    dataset = write(turn, size=size, mask_as=mask_as)
    for use in (lambda: check_samples(dataset, progress=False), lambda: dataset[0]):
        with pytest.raises(UserError, match=f'a.png: .*EXIF orientation {turn}') as error:
            use()
        image = dataset.get_data_info(0)['img_path']
        assert f'mogrify -auto-orient {image}' in str(error.value)
        assert f'exiftool -Orientation= {image}' in str(error.value)


@pytest.mark.parametrize('turn', [6, 8])
def test_a_mask_on_the_stored_pixels_of_an_image_turned_by_90_degrees_is_named_with_both_sizes(write, turn):
    dataset = write(turn)
    for use in (lambda: check_samples(dataset, progress=False), lambda: dataset[0]):
        with pytest.raises(UserError, match=rf'a\.png: is 64×96 pixels, its image 96×64 .*orientation {turn}'):
            use()


def test_a_format_that_not_every_reader_turns_is_named(write):
    with pytest.raises(UserError, match=r'a\.png: .*PNG with EXIF orientation 6'):
        check_samples(write(6, mask_as='seen', suffix='.png'), progress=False)


@pytest.mark.parametrize('block', [b'Exif\0\0nonsense', b'Exif\0\0MM\0\x2a\0\0\0\x08\xff\xff', b''])
def test_a_damaged_exif_block_is_no_orientation(tmp_path, block):
    scene(8, 8)[0].save(tmp_path / 'a.jpg', exif=block)
    with Image.open(tmp_path / 'a.jpg') as file:
        assert orientation(file) == 1


def test_masks_without_a_tag_are_loaded_as_mmsegmentation_loads_them(write):
    assert_aligned(write()[0])


def test_ade20k_is_verified_by_upright_sizes(tmp_path):
    image, mask = scene(64, 96)
    for split in ('training', 'validation'):
        for folder, picture, name in (('images', image, 'a.jpg'), ('annotations', mask, 'a.png')):
            (tmp_path / folder / split).mkdir(parents=True)
            picture.save(tmp_path / folder / split / name, exif=exif(6) if folder == 'images' else None)
    report = verify(tmp_path, partial=True, workers=1)
    assert report.bad_files == {f'annotations/{split}/a.png': 'width x height 64x96, expected 96x64 as its image'
                                for split in ('training', 'validation')}


# Files that are there and not used


@pytest.fixture
def folder(tiny_data, tmp_path):
    shutil.copytree(tiny_data, tmp_path / 'data')
    return tmp_path / 'data'


def dataset_of(folder, **settings):
    return BaseSegDataset(data_root=str(folder), pipeline=[], metainfo=dict(classes=tuple('abcdefghijk')),
                          data_prefix=dict(img_path='images/training', seg_map_path='annotations/training'), **settings)


def test_where_everything_is_used_nothing_is_said(folder):
    (folder / 'images/training/.hidden.jpg').touch()
    (folder / 'images/training/notes.txt').touch()
    assert ignored_files(dataset_of(folder)) == []


def test_images_with_another_suffix_and_masks_without_an_image_are_counted_and_named(folder):
    for path, suffix in zip(sorted((folder / 'images/training').iterdir()), ('.JPG', '.jfif'), strict=False):
        path.rename(path.with_suffix(suffix))
    images, masks = ignored_files(dataset_of(folder))
    assert images.startswith("2 images") and "'.jpg'" in images and '4 are used' in images
    assert f'{folder}/images/training/0.JPG, {folder}/images/training/1.jfif' in images
    assert masks.startswith('2 masks') and f'{folder}/annotations/training/1.png' in masks


def test_what_a_list_of_files_leaves_out_is_left_out_on_purpose(folder):
    (folder / 'list.txt').write_text('0\n1\n')
    assert ignored_files(dataset_of(folder, ann_file='list.txt')) == []


def test_images_and_masks_may_lie_in_one_folder(folder):
    for mask in sorted(Path(folder / 'annotations/training').iterdir()):
        mask.rename(folder / 'images/training' / mask.name)
    dataset = BaseSegDataset(
        data_root=str(folder), pipeline=[], metainfo=dict(classes=tuple('abcdefghijk')),
        data_prefix=dict(img_path='images/training', seg_map_path='images/training'))
    assert ignored_files(dataset) == []
    (folder / 'images/training/0.jpg').unlink()
    assert [line[:7] for line in ignored_files(BaseSegDataset(
        data_root=str(folder), pipeline=[], metainfo=dict(classes=tuple('abcdefghijk')),
        data_prefix=dict(img_path='images/training', seg_map_path='images/training')))] == ['1 masks']
