"""From a source to a data set: pictures, splits, and what is written."""
import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image
from two_images import HEIGHT, NAMES, WIDTH, convert, masks_of, picture, save_coco, save_masks, truth

from inceptionnext_seg.data.description import read_description
from inceptionnext_seg.data.importing import Options, import_dataset
from inceptionnext_seg.errors import UserError


def test_images_of_every_kind_become_upright_rgb_of_8_bits(source, tmp_path):
    upright = picture(source / 'x.png', 1)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(upright).copy()).save(source / 'turned.png', exif=exif)
    cv2.imwrite(str(source / 'deep16.png'), upright[..., ::-1].astype(np.uint16) * 256)
    Image.fromarray(upright).convert('CMYK').save(source / 'ink.tif')
    with_alpha = Image.fromarray(upright)
    with_alpha.putalpha(9)
    with_alpha.save(source / 'alpha.webp', lossless=True, exact=True)
    names = ('a', 'B 2', 'x', 'turned', 'deep16', 'ink', 'alpha')
    save_masks(source, Image.fromarray, tuple(f'masks/{name}.png' for name in names))
    report = convert(source, classes=NAMES, sixteen_bit='high-byte')
    assert report.left_out == []
    for name in names[2:]:
        with Image.open(next((tmp_path / 'out/images').rglob(f'{name}.png'))) as found:
            assert found.mode == 'RGB' and found.size == (WIDTH, HEIGHT) and not found.getexif()
            assert np.abs(np.asarray(found).astype(int) - upright).max() <= (1 if name == 'ink' else 0), name
    for words in ('EXIF orientation 6', 'CMYK', 'an alpha channel: dropped', '16 bits a channel: made 8 bits'):
        assert words in report.text()


def test_photographs_stay_the_bytes_that_they_are_and_a_turned_one_is_stored_upright(tmp_path):
    source = tmp_path / 'source'
    for seed in range(2):
        picture(source / f'IMG_{seed}.JPG', seed)
        Image.fromarray(truth(seed)).save(source / f'IMG_{seed}_mask.png')
    exif = Image.Exif()
    exif[0x0112] = 3
    picture(source / 'IMG_2.JPG', 7, exif=exif)
    exif[0x0112] = 6
    picture(source / 'IMG_3.JPG', 8, (HEIGHT, WIDTH), exif=exif)
    for i in (2, 3):
        Image.fromarray(truth()).save(source / f'IMG_{i}_mask.png')
    report = convert(source, classes=NAMES)
    assert next((tmp_path / 'out').rglob('IMG_0.jpg')).read_bytes() == (source / 'IMG_0.JPG').read_bytes()
    with Image.open(next((tmp_path / 'out').rglob('IMG_3.jpg'))) as found:
        assert found.size == (WIDTH, HEIGHT) and not found.getexif()
    assert '1 image with EXIF orientation 6: stored turned upright' in report.text()
    # After a half turn sizes do not tell, but those of the other do.
    assert report.left_out == [] and '--exif stored' in report.text()
    np.testing.assert_array_equal(masks_of(source)['IMG_2'], truth())


def turned_photographs(source, turns, stored):
    """Photographs with EXIF orientations (1, 3, 6), and masks drawn on what is shown or on stored pixels."""
    exif, pixels_of = Image.Exif(), {1: lambda x: x, 3: lambda x: x[::-1, ::-1], 6: np.rot90}
    for i, turn in enumerate(turns):
        exif[0x0112] = turn
        picture(source / f'IMG_{i}.JPG', i, (HEIGHT, WIDTH) if turn == 6 else (WIDTH, HEIGHT), exif=exif)
        mask = pixels_of[turn](truth(i)) if stored else truth(i)
        Image.fromarray(mask.copy()).save(source / f'IMG_{i}_mask.png')


@pytest.mark.parametrize(('turns', 'stored', 'option'), [
    ((1, 3, 6), True, 'auto'), ((1, 3, 6), False, 'auto'), ((1, 3, 3), True, 'stored'), ((1, 3, 3), False, 'upright')])
def test_masks_of_turned_photographs_fit_what_those_turned_by_90_degrees_or_the_user_say(
        tmp_path, turns, stored, option):
    source = tmp_path / 'source'
    turned_photographs(source, turns, stored)
    report = convert(source, classes=NAMES, exif=option)
    assert report.left_out == []
    for i in range(3):
        np.testing.assert_array_equal(masks_of(source)[f'IMG_{i}'], truth(i))


def test_half_turned_photographs_that_nothing_tells_about_are_left_out_with_one_advice(tmp_path):
    source = tmp_path / 'source'
    turned_photographs(source, (1, 1, 3, 3, 3), stored=False)
    report = convert(source, classes=NAMES)
    assert [entry.path for entry in report.left_out] == ['IMG_2.JPG', 'IMG_3.JPG', 'IMG_4.JPG']
    assert all(len(entry.reason) < 120 and 'EXIF orientation 3' in entry.reason for entry in report.left_out)
    assert report.text().count('--exif upright or --exif stored') == 1
    for i in range(2):
        (source / f'IMG_{i}.JPG').unlink()
    with pytest.raises(UserError, match='--exif upright or --exif stored'):
        import_dataset(source, tmp_path / 'out2', Options(classes=NAMES), progress=False)


def test_cocos_shapes_on_stored_pixels_are_turned_with_the_image(source):
    exif = Image.Exif()
    exif[0x0112] = 3
    picture(source / 'a.png', exif=exif)
    save_coco(source)
    report = convert(source, exif='stored')
    order = np.array([report.description.classes.index(name) for name in NAMES])
    np.testing.assert_array_equal(masks_of(source)['a'], order[truth()[::-1, ::-1]])


def test_cocos_shapes_without_a_size_fit_what_the_option_says(source):
    def without_sizes(content):
        for image in content['images']:
            del image['width'], image['height']
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(source / 'a.png', exif=exif)
    save_coco(source, without_sizes)
    report = convert(source, exif='stored')
    order = np.array([report.description.classes.index(name) for name in NAMES])
    np.testing.assert_array_equal(masks_of(source)['a'], order[np.rot90(truth(), -1)])


# Splits


def many(tmp_path, count=24):
    source = tmp_path / 'source'
    for i in range(count):
        picture(source / f'place{i // 6}/frame {i:02}.png', i)
        (source / 'masks').mkdir(exist_ok=True)
        classes = np.zeros((HEIGHT, WIDTH), np.uint8)
        classes[0, :1 + i % 3] = i // 6
        Image.fromarray(classes).save(source / f'masks/frame {i:02}.png')
    return source


def sides(source):
    out = source.parent / 'out/images'
    return [{path.stem for path in (out / split).iterdir()} for split in ('training', 'validation')]


@pytest.mark.parametrize('group', ['folder', r'place\d', r'^(place\d)/'])
def test_a_group_is_on_one_side(tmp_path, group):
    source = many(tmp_path)
    convert(source, group=group, val=0.25)
    training, validation = sides(source)
    assert len(training) == 18 and len(validation) == 6
    assert len({int(name[-2:]) // 6 for name in validation}) == 1


@pytest.mark.parametrize('group', [None, r'place\d'])
def test_copies_of_an_image_are_on_one_side_with_their_groups(tmp_path, group):
    source = many(tmp_path)
    for i in (1, 2, 3, 7, 13):      # in a folder of another place
        copy = source / f'place{5 + i}/frame {i + 50}.png'
        copy.parent.mkdir()
        copy.write_bytes((source / f'place{i // 6}/frame {i:02}.png').read_bytes())
        (source / f'masks/frame {i + 50}.png').write_bytes((source / f'masks/frame {i:02}.png').read_bytes())
    for seed in range(4):
        report = import_dataset(source, tmp_path / f'out{seed}', Options(group=group, seed=seed, val=0.3),
                                progress=False)
        assert sum('are one image' in note for note in report.notes) == 5
        assert not any('in training and in validation' in note for note in report.notes)


def test_without_groups_each_class_is_on_both_sides_and_the_seed_decides(tmp_path):
    source = many(tmp_path)
    convert(source, val=0.25)
    about = read_description(tmp_path / 'out')
    assert about.splits['validation']['images'] == 6
    assert all(about.splits[split]['pixels'][i] for split in about.splits for i in range(4))


def test_a_list_or_folders_named_train_and_val_decide_and_what_fits_nothing_is_an_error(tmp_path):
    source = many(tmp_path)
    names = tmp_path / 'val.txt'
    names.write_text('# held out\nframe 03\nplace1/frame 07.png\n')
    convert(source, val=None, val_list=names)
    assert sides(source)[1] == {'frame 03', 'frame 07'}
    names.write_text('frame 99\n')
    with pytest.raises(UserError, match=r"val\.txt, line 1: .*'frame 99'"):
        import_dataset(source, tmp_path / 'out2', Options(val_list=names), progress=False)
    with pytest.raises(UserError, match='does not fit'):
        import_dataset(source, tmp_path / 'out2', Options(group='nothing'), progress=False)
    with pytest.raises(UserError, match='in 1 group cannot be split'):
        import_dataset(source, tmp_path / 'out2', Options(group='p'), progress=False)
    (source / 'place0').rename(source / 'val')
    (source / 'place1').rename(source / 'train')
    import_dataset(source, tmp_path / 'out2', Options(), progress=False)
    assert {path.stem for path in (tmp_path / 'out2/images/validation').iterdir()} == {f'frame 0{i}' for i in range(6)}


def test_a_list_names_labelled_images_by_their_folders_and_lines_that_name_none_are_reported(tmp_path):
    source, names = tmp_path / 'source', tmp_path / 'val.txt'
    for sequence in ('seq1', 'seq2'):
        (source / 'masks' / sequence).mkdir(parents=True)
        for i in range(3):
            picture(source / f'photos/{sequence}/000{i}.png', 10 * int(sequence[-1]) + i)
            Image.fromarray(truth(i)).save(source / f'masks/{sequence}/000{i}.png')
    (source / 'masks/seq2/0002.png').unlink()

    def held(text, out):
        names.write_text(text)
        report = import_dataset(source, tmp_path / out, Options(val_list=names), progress=False)
        rows = (tmp_path / out / 'sources.csv').read_text().splitlines()
        return {row.split(',')[1] for row in rows if row.startswith('images/validation')}, report.text()

    assert held('seq1/0000\nD:\\x\\photos\\seq2\\0001.png\n', 'out')[0] == {
        'photos/seq1/0000.png', 'photos/seq2/0001.png'}
    # One that has no mask, and one of another sequence, which would fit nothing else.
    found, text = held('seq1/0001\nseq2/0002\nseq7/0002', 'out2')
    assert found == {'photos/seq1/0001.png'} and "2 lines of" in text and "line 2, 'seq2/0002'" in text
    for text, message in (('0000', r'line 1: .0000. may be any of photos/seq1/0000\.png, photos/seq2/0000\.png'),
                          ('seq2/0002', 'names no image with labels')):
        with pytest.raises(UserError, match=message):
            held(text, 'out3')


def with_test_folder(tmp_path):
    source = many(tmp_path, 12)
    (source / 'place1').rename(source / 'test')
    return source


@pytest.mark.parametrize('how', [dict(val=0.5), dict(val=None), dict(val=None, val_list='frame 01\n')])
def test_images_of_a_test_folder_are_for_testing_however_the_others_are_divided(tmp_path, how):
    source = with_test_folder(tmp_path)
    if 'val_list' in how:
        (tmp_path / 'val.txt').write_text(how['val_list'])
        how = how | dict(val_list=tmp_path / 'val.txt')
    convert(source, **how)
    found = {path.stem for path in (tmp_path / 'out/images/test').iterdir()}
    assert found == {f'frame {i:02}' for i in range(6, 12)}
    assert set.union(*sides(source)) == {f'frame {i:02}' for i in range(6)}


def test_a_list_can_name_images_of_a_test_folder_and_such_a_folder_alone_is_explained(tmp_path):
    source = with_test_folder(tmp_path)
    (tmp_path / 'val.txt').write_text('test/frame 07.png\n')
    convert(source, val=None, val_list=tmp_path / 'val.txt')
    assert sides(source)[1] == {'frame 07'}
    shutil.rmtree(source / 'place0')
    with pytest.raises(UserError, match=r'6 labelled images.*test.*--val-list'):
        import_dataset(source, tmp_path / 'out2', Options(val=0.5), progress=False)


@pytest.mark.parametrize(('how', 'message'), [
    (dict(val=0.5), '--val 0.5.*--val-list'), (dict(group='folder'), "--group 'folder'.*--val-list")])
def test_what_a_list_leaves_nothing_to_decide_is_refused_beside_it(tmp_path, how, message):
    with pytest.raises(UserError, match=message):
        Options(val_list=tmp_path / 'val.txt', **how)


def test_groups_are_refused_where_folders_decide(tmp_path):
    source = many(tmp_path, 12)
    (source / 'place0').rename(source / 'val')
    (source / 'place1').rename(source / 'train')
    with pytest.raises(UserError, match=r"--group 'folder'.*folders.*--val 0\.2"):
        convert(source, val=None, group='folder')
    convert(source, val=0.5, group='folder')


# The whole


def test_what_is_there_is_not_written_over_and_a_broken_import_leaves_nothing(source, tmp_path, monkeypatch):
    save_masks(source, Image.fromarray)
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out/mine.txt').touch()
    with pytest.raises(UserError, match='not written over'):
        convert(source)
    with pytest.raises(UserError, match='is in the source'):
        import_dataset(source, source / 'new', Options(), progress=False)
    (tmp_path / 'link').symlink_to(source)
    with pytest.raises(UserError, match='is in the source'):
        import_dataset(tmp_path / 'link', tmp_path / 'link/new', Options(), progress=False)
    (tmp_path / 'link').unlink()
    (tmp_path / 'out/mine.txt').unlink()
    monkeypatch.setattr('shutil.copyfile', lambda *_: (_ for _ in ()).throw(OSError(28, 'No space left on device')))
    with pytest.raises(UserError, match='No space left'):
        convert(source)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['out', 'source']


def test_a_disk_that_is_full_at_the_last_file_is_one_message_and_leaves_nothing(source, tmp_path, monkeypatch):
    save_masks(source, Image.fromarray)
    write_text = Path.write_text

    def full(path, *args, **kwargs):
        if path.name == 'report.txt':
            raise OSError(28, 'No space left on device')
        return write_text(path, *args, **kwargs)

    monkeypatch.setattr(Path, 'write_text', full)
    with pytest.raises(UserError, match='No space left'):
        convert(source)
    assert [path.name for path in tmp_path.iterdir()] == ['source']


def test_a_folder_without_masks_says_what_is_there_and_the_option_to_give(source):
    with pytest.raises(UserError, match=r"2 pictures, such as a\.png.*--mask-suffix '_mask\.png'"):
        convert(source)


def test_renaming_merges_and_misspelled_labels_are_found(source):
    save_masks(source, Image.fromarray)
    report = convert(source, classes=('Car', 'car', 'sky'))
    assert "'Car' and 'car' are told apart" in report.text()
    report = import_dataset(source, source.parent / 'out2', Options(
        classes=('Car', 'car', 'sky'), rename={'Car': 'car', 'sky': 'ignore'}, val=0.5), progress=False)
    assert report.description.classes == ('car', )
    shutil.rmtree(source.parent / 'out')
    with pytest.raises(UserError, match="did you mean 'sky'"):
        convert(source, classes=NAMES, rename={'skyy': 'x'})


@pytest.mark.parametrize('folder', ["""Anna's "{x}" %s '''""", 'back\\slash', 'a """ b'])
@pytest.mark.skipif(os.name != 'posix', reason='folders have no such names here')
def test_the_config_that_is_written_is_read_in_folders_of_any_name(source, tmp_path, folder):
    save_masks(source, Image.fromarray)
    out = tmp_path / folder / f'mine {folder}'
    import_dataset(source, out, Options(val=0.5), progress=False)
    cfg = Config.fromfile(out / 'config.py')
    assert cfg.train_dataloader.dataset.dataset.data_root == cfg.val_dataloader.dataset.data_root == str(out)


def test_the_config_that_is_written_has_the_classes_and_finds_its_data_wherever_it_lies(source, tmp_path):
    save_masks(source, Image.fromarray)
    convert(source, classes=("it's", 'a "class"', 'sky'))
    (tmp_path / 'out').rename(tmp_path / 'moved')
    cfg = Config.fromfile(tmp_path / 'moved/config.py')
    data = cfg.train_dataloader.dataset.dataset
    assert data.data_root == cfg.val_dataloader.dataset.data_root == str(tmp_path / 'moved')
    assert data.img_suffix == '.png'
    assert data.metainfo.classes == ("it's", 'a "class"', 'sky')
    assert cfg.model.decode_head.num_classes == cfg.model.auxiliary_head.num_classes == 3
    assert read_description(tmp_path / 'moved').dataset('training')['metainfo']['classes'] == data.metainfo.classes


@pytest.mark.parametrize(('change', 'message'), [
    (dict(version=9), 'version 9'), (dict(classes=['a', 'a']), 'different names'), (dict(palette=[[0, 0, 999]]), 'RGB'),
    (dict(img_suffix='/../x'), 'suffixes'), (dict(splits=dict(training={})), "no 'pixels'")])
def test_a_description_that_is_damaged_is_one_message(source, tmp_path, change, message):
    save_masks(source, Image.fromarray)
    convert(source)
    path = tmp_path / 'out/dataset.json'
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=message):
        read_description(tmp_path / 'out')
