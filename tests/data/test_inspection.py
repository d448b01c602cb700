"""The check of a data set: each thing that can be wrong in a folder of four images."""
import json
import re
import shutil

import cv2
import numpy as np
import pytest
from PIL import Image

from inceptionnext_seg.cli import check_dataset as tool
from inceptionnext_seg.data.description import Description
from inceptionnext_seg.data.inspection import inspect, list_folder
from inceptionnext_seg.data.inspection.page import contact_sheet, page


@pytest.fixture
def folder(tmp_path):
    """A sound data set of three classes: 3 training images, 1 validation image, 1 without a mask."""
    random = np.random.default_rng(0)
    root = tmp_path / 'my <b>set'
    for split, count in (('training', 3), ('validation', 1), ('unlabelled', 1)):
        for i in range(count):
            image = root / 'images' / split / f'{split[0]} {i}.png'
            image.parent.mkdir(parents=True, exist_ok=True)
            # Smooth, as photographs are: fingerprints of noise differ by chance alone.
            small = random.integers(0, 256, (5, 6, 3), dtype=np.uint8)
            Image.fromarray(cv2.resize(small, (64, 48), interpolation=cv2.INTER_CUBIC)).save(image)
            if split != 'unlabelled':
                mask = root / 'annotations' / split / image.name
                mask.parent.mkdir(parents=True, exist_ok=True)
                pixels = random.integers(0, 3, (3, 4)).astype(np.uint8)
                pixels[0, :3] = 0, 1, 2
                pixels[2, 3] = 255
                Image.fromarray(pixels.repeat(16, 0).repeat(16, 1)).save(mask)
    split = dict(images=1, pixels=[1, 1, 1], images_with=[1, 1, 1], ignored=0)
    Description(root, ('road', '<script>', 'sky'), [[1, 2, 3], [4, 5, 6], [7, 8, 9]], '.png', '.png',
                dict(training=split, validation=split), 1, (64, 48), {}).write()
    return root


def findings_of(folder):
    return inspect(list_folder(folder), progress=False)


def test_a_sound_set_has_no_errors_and_its_pixels_are_counted(folder):
    found = findings_of(folder)
    assert found.errors == [] and found.warnings == []
    for split in ('training', 'validation'):
        masks = [np.asarray(Image.open(path)) for path in sorted((folder / 'annotations' / split).iterdir())]
        np.testing.assert_array_equal(found.counts[split], [np.bincount(mask.ravel(), minlength=256) for mask in masks])
    assert found.sizes == {(64, 48): 5}


def save(path, value, **how):
    Image.fromarray(np.full((48, 64), value, np.uint8)).save(path, **how)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (
            lambda f: (f / 'annotations/training/t 1.png').unlink(),
            r'annotations/training/t 1\.png, the mask of .*is not there',
        ),
        (
            lambda f: (f / 'images/training/t 1.png').unlink(),
            r'annotations/training/t 1\.png: is a mask without an image',
        ),
        (lambda f: (f / 'images/training/t 1.png').write_bytes(b'x'), r't 1\.png: cannot be read'),
        (lambda f: save(f / 'annotations/training/t 1.png', 7), r't 1\.png: has the value 7; expected: 0 to 2'),
        (lambda f: Image.new('L', (9, 9)).save(f / 'annotations/training/t 1.png'), r'is 9×9 pixels, its image 64×48'),
        (
            lambda f: shutil.copy(f / 'images/training/t 1.png', f / 'images/validation/v 0.png'),
            r't 1\.png and .*v 0\.png are one image, in training and validation',
        ),
        (
            lambda f: [save(path, 0) for path in (f / 'annotations/training').iterdir()],
            r'2 classes have no pixel in training: <script>, sky',
        ),
        (
            lambda f: cv2.imwrite(str(f / 'images/training/t 1.png'), np.full((48, 64, 3), 900, np.uint16)),
            '16 bits a channel',
        ),
        (lambda f: Image.new('RGB', (64, 48)).save(f / 'images/training/t 9.bmp'), r'does not end in \.png'),
    ],
)
def test_what_has_to_be_corrected_is_an_error_and_the_exit_code(folder, change, message, capsys):
    change(folder)
    assert tool.main([str(folder), '--out', str(folder.parent / 'out')]) == 1
    out = capsys.readouterr().out
    assert re.search(f'error: .*{message}', out), out


def test_what_a_person_should_know_is_a_warning(folder):
    with Image.open(folder / 'images/training/t 0.png') as file:
        file.convert('CMYK').save(folder / 'images/training/t 0.jpg')
        almost = np.asarray(file).copy()
    shutil.copy(folder / 'annotations/training/t 0.png', folder / 'annotations/validation/near.png')
    almost[0, 0] = 255 - almost[0, 0]
    Image.fromarray(almost).save(folder / 'images/validation/near.png')
    save(folder / 'annotations/training/t 2.png', 255)
    (folder / 'dataset.json').unlink()      # other suffixes are allowed then
    (folder / 'images/training/t 0.png').rename(folder / 'images/training/t 3.png')
    shutil.copy(folder / 'annotations/training/t 0.png', folder / 'annotations/training/t 3.png')
    found = findings_of(folder)
    assert found.errors == []
    text = '\n'.join(found.warnings)
    for words in ('1 image with CMYK', r'1 mask has no pixel of a class, such as .*t 2\.png',
                  r'1 of 2 validation images look almost like .*near\.png and .*t [03]\.'):
        assert re.search(words, text), text


def test_the_page_is_one_file_in_which_no_name_is_a_tag_and_the_sheet_shows_every_class(folder):
    listing = list_folder(folder)
    found = inspect(listing, progress=False)
    sheet = contact_sheet(listing, found)
    html = page(listing, found, sheet, 'about')
    assert 'data:image/jpeg;base64,' in html and 'my &lt;b&gt;set' in html and '&lt;script&gt;' in html
    assert '<script' not in html and not re.search(r'(src|href)="(?!data:)', html)
    pixels = {tuple(pixel) for pixel in np.asarray(sheet)[-60:].reshape(-1, 3).tolist()}
    assert {(1, 2, 3), (4, 5, 6), (7, 8, 9)} <= pixels


@pytest.mark.parametrize('values', [(1, 2, 3), (0, 5, 7)])
def test_the_legend_has_the_colours_of_the_overlays_where_nothing_names_the_values(folder, values):
    (folder / 'dataset.json').unlink()
    for path in folder.glob('annotations/*/*.png'):
        Image.fromarray(np.array(values, np.uint8)[np.asarray(Image.open(path)) % 3]).save(path)
    for path in folder.glob('images/*/*.png'):
        Image.new('RGB', (64, 48)).save(path)
    listing = list_folder(folder)
    found = inspect(listing, progress=False)
    sheet = np.asarray(contact_sheet(listing, found)).reshape(-1, 3)
    pixels, html = {tuple(color) for color in sheet.tolist()}, page(listing, found, None, '')
    for value in values:
        color = listing.palette[value]
        assert tuple(color.tolist()) in pixels                                              # the legend
        assert tuple((0.5 * color.astype(float)).round().astype(int).tolist()) in pixels    # on black, an overlay
        assert 'rgb({},{},{})"></span>value {}<'.format(*color.tolist(), value) in html


def test_a_config_is_checked_with_its_own_classes_and_suffixes(tiny_data, tmp_path, capsys):
    options = [f'{loader}_dataloader.dataset.data_root={tiny_data}' for loader in ('train', 'val', 'test')]
    assert (
        tool.main(['configs/upernet_inceptionnext_a_camvid.py', '--out', str(tmp_path), '--cfg-options', *options]) == 0
    )
    out = capsys.readouterr().out
    assert '6 training, 4 validation' in out and 'bicyclist' in out
    assert (tmp_path / 'check.html').is_file() and (tmp_path / 'check.png').is_file()


def test_what_is_no_data_set_is_one_message(tmp_path, capsys):
    for content in (None, {}):
        if content is not None:
            (tmp_path / 'images/training').mkdir(parents=True)
            (tmp_path / 'images/training/a.png').touch()
            (tmp_path / 'dataset.json').write_text(json.dumps(content))
        with pytest.raises(SystemExit) as stop:
            tool.main([str(tmp_path)])
        assert stop.value.code == 2
        assert re.search("error: .*(no folder images|has no 'version')", capsys.readouterr().err)


def test_the_sheet_tells_letters_with_accents_apart(folder):
    sheets = []
    for class_name in ('Straße', 'Strałe', 'StraЖe'):
        listing = list_folder(folder)._replace(classes=('road', class_name, 'sky'))
        sheets.append(np.asarray(contact_sheet(listing, inspect(listing, progress=False)))[-30:])
    assert sheets[0].shape != sheets[1].shape or (sheets[0] != sheets[1]).any()
    assert sheets[1].shape != sheets[2].shape or (sheets[1] != sheets[2]).any()


@pytest.mark.parametrize(('source', 'near'), [
    ('nothere', ''), ('some/where', ''), ('upernet_inceptionnext_a_camvd', 'such as upernet_inceptionnext_a_camvid')])
def test_a_source_that_is_not_there_may_have_been_a_folder_or_a_config(capsys, source, near):
    with pytest.raises(SystemExit):
        tool.main([source])
    error = capsys.readouterr().err
    assert source in error and 'a folder of a data set, or a config' in error and near in error


@pytest.mark.parametrize('option', [['--data-root', 'elsewhere'], ['--cfg-options', 'a=b']])
def test_an_option_of_configs_beside_a_folder_is_refused(folder, capsys, option):
    with pytest.raises(SystemExit):
        tool.main([str(folder), *option])
    assert f'{option[0]} is for a config' in capsys.readouterr().err and not (folder / 'check.html').exists()


def test_a_config_that_takes_its_classes_from_the_data_asks_for_the_folder(capsys):
    with pytest.raises(SystemExit):
        tool.main(['upernet_inceptionnext_a_own'])
    assert 'check DIR' in capsys.readouterr().err
