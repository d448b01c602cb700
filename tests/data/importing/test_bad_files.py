"""What is wrong with files of others: each is left out with its reason, or ends the import with nothing written."""
import base64
import os
import re
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from two_images import (
    HEIGHT,
    NAMES,
    WIDTH,
    convert,
    masks_of,
    picture,
    save_coco,
    save_cvat,
    save_labelme,
    save_masks,
    truth,
)

from inceptionnext_seg.cli import import_dataset as tool
from inceptionnext_seg.data.exporting import coco_of
from inceptionnext_seg.data.importing.palettes import read_classes
from inceptionnext_seg.data.importing.writing import names_of
from inceptionnext_seg.errors import UserError


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (
            dict(shapes=[dict(label='car', points=[[40, 40], [50, 40], [50, 50]], shape_type='polygon')]),
            'no pixel in its image',
        ),
        (
            dict(shapes=[dict(label='car', points=[[1, 1], [5, 1]], shape_type='polygon')]),
            'of 2 points; expected: at least 3',
        ),
        (dict(shapes=[dict(label='car', points=[[1, 1], [1e99, 1], [4, 4]])]), 'far from its image'),
        (dict(shapes=[dict(label='car', points=[[1, 1], [10**400, 1], [4, 4]])]), 'no numbers'),
        (dict(shapes=[dict(label='car', points=[[1, 1]], shape_type='spiral')]), "is a 'spiral'"),
        (dict(shapes=[dict(label='\ud800', points=[])]), r"a label '\\ud800'"),
        (dict(shapes=[dict(label='', points=[])]), "a label ''"),
        (dict(shapes=[7]), 'shape 1 is a int'),
        (
            dict(shapes=[dict(label='car', points=[[0, 0], [99999, 99999]], shape_type='mask', mask='AAAA')]),
            'far from|cannot be',
        ),
        (dict(imageWidth=10**9, imageHeight=10**9), r'1000000000×1000000000 pixels; it has 16×12'),
        (dict(imagePath='../../../etc/passwd'), "'../../../etc/passwd', which is not in the source"),
        (dict(imagePath='C:\\photos\\none.jpg', imageData='%%%'), 'cannot be decoded'),
        (dict(imagePath='none.jpg', imageData=base64.b64encode(b'no picture').decode()), 'is no picture'),
        ('cut', 'no whole JSON'),
        (b'\xff\xfe\x00', 'is no text'),
        (b'[' * 100_000, 'nested too deeply'),
    ],
)
def test_a_labelme_file_that_cannot_be_used_is_left_out_with_its_reason_and_its_image_is_not_taken_as_unlabelled(
        source, change, message):
    picture(source / 'c.png', 5)
    save_labelme(source, 0, 'c.png')
    save_labelme(source, 1, 'deep/B 2.PNG')
    path = save_labelme(source, 0, 'a.png', **(change if isinstance(change, dict) else {}))
    if not isinstance(change, dict):
        path.write_bytes(path.read_bytes()[:-40] if change == 'cut' else change)
    report = convert(source)
    assert any(re.search(message, entry.reason) for entry in report.left_out), report.left_out
    assert 'a' not in masks_of(source)
    if 'imagePath' not in str(change):
        assert not list((source.parent / 'out').rglob('images/*/a.png'))


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda c: c['images'][0].update(file_name='../../etc/passwd'), 'not in the source'),
        (lambda c: c['images'][0].update(file_name=None), 'not in the source'),
        (lambda c: c['images'][0].update(width=10**8, height=10**8), '100000000×100000000 pixels; it has 16×12'),
        (lambda c: c['annotations'][0].update(category_id=99), 'category 99'),
        (
            lambda c: c['annotations'][0].update(segmentation=dict(size=[10**6, 10**6], counts=[10**12])),
            'run-length code of size',
        ),
        (lambda c: c['annotations'][0].update(segmentation=dict(size=[12, 16], counts='oooo')), 'cut or damaged'),
        (lambda c: c['annotations'][0].update(segmentation=[[1, 2, 3]]), 'no list of x, y'),
        (lambda c: c['annotations'][0].update(segmentation=[[10**400, 5, 9, 5, 9, 9]]), 'no list of x, y'),
        (lambda c: c['annotations'][0].update(segmentation=[[100, 100, 120, 100, 120, 120]]), 'no pixel in its image'),
        (lambda c: c['annotations'][0].update(segmentation=None), 'a box alone'),
    ],
)
def test_a_coco_image_that_cannot_be_used_is_left_out_with_its_reason(source, change, message):
    picture(source / 'c.png', 5)

    def changed(content):
        third = coco_of(truth(), NAMES, 'c.png', 3, 50)
        content['images'] += third['images']
        content['annotations'] += third['annotations']
        change(content)

    save_coco(source, changed)
    report = convert(source)
    assert any(message in entry.reason for entry in report.left_out), report.left_out
    assert masks_of(source).keys() == {'c', 'B 2'}


@pytest.mark.parametrize(('content', 'message'), [
    ('{"images": [], "annotations": [], "categories"', 'no whole JSON'),
    ('{"images": [{}], "annotations": [], "categories": []}', "no whole COCO file: KeyError: 'id'"),
    ('{"images": [], "annotations": [], "categories": [{"id": NaN}]}', 'no number of JSON')])
def test_a_coco_file_that_is_cut_or_none_ends_the_import_with_nothing_written(source, content, message):
    (source / 'a.json').write_text(content)
    with pytest.raises(UserError, match=message):
        convert(source, format='coco')
    assert not (source.parent / 'out').exists()


@pytest.mark.parametrize(('body', 'message'), [
    ('<mask label="car" rle="1, 999999999999" left="0" top="0" width="4" height="4"/>', 'run lengths of'),
    ('<mask label="car" rle="16" left="14" top="0" width="4" height="4"/>', r'mask of 4×4 pixels at \(14, 0\)'),
    ('<mask label="car" rle="1" left="0" top="0" width="999999" height="999999"/>', 'in an image of 16×12'),
    ('<polygon label="car" points="1,1;a,2"/>', 'no "x,y'), ('<box label="car" xtl="1"/>', 'no numbers'),
    ('<polygon label="car" points="90,90;95,90;95,95"/>', 'no pixel')])
def test_a_cvat_shape_that_cannot_be_drawn_leaves_its_image_out(source, body, message):
    picture(source / 'c.png', 5)
    save_cvat(source, body)
    text = (source / 'annotations.xml').read_text()
    (source / 'annotations.xml').write_text(
        text.replace(
            '</annotations>',
            '<image name="c.png" width="16" height="12"><box label="car" xtl="0" ytl="0" xbr="9" ybr="9"/></image>'
            '<image name="../../x.png" width="1" height="1"/></annotations>',
        )
    )
    report = convert(source)
    assert any(re.search(message, entry.reason) for entry in report.left_out), report.left_out
    assert any("'../../x.png', which is not in the source" in entry.reason for entry in report.left_out)


@pytest.mark.parametrize(('text', 'message'), [
    ('<annotations><image', 'no whole XML'),
    ('<!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;">]><annotations>&c;</annotations>', 'document type'),
    ('<annotations><track id="0"/></annotations>', 'tracks of a video')])
def test_a_cvat_file_that_is_cut_or_of_a_video_ends_the_import(source, text, message):
    (source / 'annotations.xml').write_text(text)
    with pytest.raises(UserError, match=message):
        convert(source, format='cvat')


def bomb(path, width=60_000, height=60_000):
    """A PNG that announces more pixels than it has bytes."""
    def chunk(kind, data):
        return len(data).to_bytes(4, 'big') + kind + data + zlib.crc32(kind + data).to_bytes(4, 'big')

    header = width.to_bytes(4, 'big') + height.to_bytes(4, 'big') + bytes((8, 2, 0, 0, 0))
    path.write_bytes(
        b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', zlib.compress(b'')) + chunk(b'IEND', b'')
    )


def test_pictures_that_cannot_be_used_are_left_out_with_their_reasons(source, tmp_path):
    for name in ('c', 'd', 'e', 'f', 'g', 'h'):
        picture(source / f'{name}.png', ord(name))
    save_masks(
        source, Image.fromarray, tuple(f'masks/{name}.png' for name in ('a', 'B 2', 'c', 'd', 'e', 'f', 'g', 'h'))
    )
    bomb(source / 'c.png')
    bomb(source / 'masks/d.png')
    Image.fromarray(truth()[:, :9]).save(source / 'masks/e.png')
    (source / 'f.png').write_bytes((source / 'f.png').read_bytes()[:200])
    cv2.imwrite(str(source / 'g.png'), np.full((HEIGHT, WIDTH, 3), 4000, np.uint16))
    (source / 'h.png').write_text('text')
    (source / 'i.heic').write_bytes(b'x')
    outside = tmp_path / 'outside.png'
    picture(outside, 9)
    (source / 'link.png').symlink_to(outside)
    (source / 'broken.png').symlink_to(tmp_path / 'nowhere')
    (source / 'folder').symlink_to(tmp_path)
    picture(source / 'unlabelled one.png', 77)
    report = convert(source, classes=NAMES)
    reasons = {entry.path: entry.reason for entry in report.left_out}
    for name, words in {
        'c.png': 'announces',
        'd.png': 'mask d.png, which announces',
        'e.png': 'is 9×12 pixels, its image 16×12',
        'f.png': 'cannot be read',
        'g.png': '16 bits',
        'h.png': 'no picture',
        'i.heic': 'convert it',
        'link.png': 'leads out',
        'broken.png': 'not there',
        'folder': 'not followed',
    }.items():
        assert words in reasons[name], reasons
    assert len(reasons) == 10
    assert masks_of(source).keys() == {'a', 'B 2'}
    assert [path.name for path in (tmp_path / 'out/images/unlabelled').iterdir()] == ['unlabelled one.png']
    assert 'left out: 10 files' in (tmp_path / 'out/report.txt').read_text()


@pytest.mark.skipif(os.name != 'posix', reason='names of files are Unicode here')
def test_a_name_that_is_no_utf_8_leaves_its_file_out_and_is_shown(source, tmp_path, capfd):
    for i in range(2):
        picture(source / f'{i}.png', 5 + i)
    save_masks(source, Image.fromarray, tuple(f'masks/{name}.png' for name in ('a', 'B 2', '0', '1')))
    for file, name in (('0.png', b'stra\xdfe.png'), ('masks/0.png', b'masks/stra\xdfe.png')):
        try:
            (source / file).rename(os.fsdecode(os.fsencode(source) + b'/' + name))
        except OSError:
            pytest.skip('this file system takes no such names')
    (source / os.fsdecode(b'\xe4')).mkdir()
    picture(source / os.fsdecode(b'\xe4') / '7.png', 7)
    assert tool.main([str(source), '--out', str(tmp_path / 'out'), '--val', '0.5']) == 1
    said = capfd.readouterr().out
    assert r'stra\xdfe.png' in said and r'\xe4 ' in said and 'left out: 3 files' in said
    assert masks_of(source).keys() == {'a', 'B 2', '1'}
    for arguments in ([str(source), '--out', str(tmp_path / os.fsdecode(b'\xdf'))],
                      [str(source / os.fsdecode(b'\xe4')), '--out', str(tmp_path / 'out2')]):
        with pytest.raises(SystemExit):
            tool.main(arguments)
        assert 'UTF-8' in capfd.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ['out', 'source']


def test_jfif_is_a_picture_and_raw_files_of_cameras_are_said_to_be_unread(source):
    Image.open(source / 'a.png').save(source / 'c.jpg')
    (source / 'c.jpg').rename(source / 'c.jfif')
    for end in ('cr3', 'ARW', 'orf', 'rw2', 'jxl', 'psd', 'heif', 'nef', 'raf'):
        (source / f'x.{end}').write_bytes(b'x')
    save_masks(source, Image.fromarray, ('masks/a.png', 'masks/B 2.png', 'masks/c.png'))
    report = convert(source, classes=NAMES)
    assert masks_of(source).keys() == {'a', 'B 2', 'c'}
    assert len(report.left_out) == 9 and all('convert it' in entry.reason for entry in report.left_out)


def test_many_names_of_classes_are_no_name_of_a_file(source):
    save_masks(source, Image.fromarray)
    names = [f'class name {i}' for i in range(40)]
    assert read_classes(','.join(names)) == (*names, )


def test_a_class_whose_name_is_no_text_is_one_message(source, tmp_path):
    (tmp_path / 'p.json').write_text('{"\\ud800": [0, 0, 0]}')
    save_masks(source, lambda classes: Image.fromarray(classes * 0))
    with pytest.raises(UserError, match='ud800'):
        convert(source, palette=tmp_path / 'p.json')


@pytest.mark.parametrize('folder', ['{source}/masks', '../source/masks'])
def test_a_folder_of_masks_is_named_below_the_source(source, folder):
    save_masks(source, Image.fromarray, ('masks/a.png', 'masks/B 2.PNG'))
    with pytest.raises(UserError, match=r'--masks .* is no folder of .*; did you mean masks\?'):
        convert(source, masks=Path(folder.format(source=source)))


def test_names_of_images_are_as_long_as_a_file_system_takes():
    names = names_of([f'{"写真" * 35}/{"街路" * 35}{k}/i.png' for k in range(2)] + ['i.png'])
    assert len({*names}) == 3 and max(len(name.encode()) for name in names) <= 250
