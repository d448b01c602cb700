import json
import shutil

import numpy as np
import pytest
from PIL import Image

from inceptionnext_seg.data import ade20k
from inceptionnext_seg.errors import UserError

from .common import ANNOTATION, IMAGE, write_pair


def test_a_sound_set_with_the_official_counts_verifies(ade, small_official_set):
    report = ade20k.verify(ade, workers=1)
    assert report.ok
    assert (report.images, report.annotations) == ({'training': 2, 'validation': 1},) * 2
    assert 'bad files: 0' in report.summary()


def test_the_official_counts_are_20210_and_2000(ade):
    report = ade20k.verify(ade, workers=1)
    assert not report.ok
    assert report.wrong_counts == [
        'training: 2 images, expected 20,210', 'training: 2 annotations, expected 20,210',
        'validation: 1 images, expected 2,000', 'validation: 1 annotations, expected 2,000',
    ]
    assert 'wrong count: training: 2 images, expected 20,210' in report.summary()


def test_partial_drops_the_counts_and_nothing_else(ade):
    assert ade20k.verify(ade, partial=True, workers=1).ok
    (ade / ANNOTATION).unlink()
    assert not ade20k.verify(ade, partial=True, workers=1).ok


def test_the_folder_above_the_set_will_do(ade):
    assert ade20k.verify(ade.parent, partial=True, workers=1).ok


@pytest.mark.parametrize('mode', ['L', 'CMYK'])
def test_images_that_decode_to_rgb_are_sound(ade, mode):
    write_pair(ade, IMAGE, mode=mode)
    assert ade20k.verify(ade, partial=True, workers=1).ok


def test_an_annotation_without_a_labelled_pixel_is_sound(ade):
    Image.new('L', (64, 48)).save(ade / ANNOTATION)
    assert ade20k.verify(ade, partial=True, workers=1).ok


def test_hidden_files_are_no_images(ade):
    (ade / 'images/training/._ADE_train_00000001.jpg').write_bytes(b'macOS')
    assert ade20k.verify(ade, partial=True, workers=1).ok


def cut(path, keep):
    path.write_bytes(path.read_bytes()[:keep])


def value_151(root):
    values = np.zeros((48, 64), np.uint8)
    values[3, 4] = 151
    Image.fromarray(values).save(root / ANNOTATION)


BREAKAGES = {
    'an image without annotation': (lambda root: (root / ANNOTATION).unlink(), IMAGE, 'has no annotation'),
    'an annotation without image': (lambda root: (root / IMAGE).unlink(), ANNOTATION, 'has no image'),
    'a transposed annotation': (
        lambda root: Image.new('L', (48, 64)).save(root / ANNOTATION),
        ANNOTATION, 'width x height 48x64, expected 64x48 as its image',
    ),
    'a colour annotation': (
        lambda root: Image.new('RGB', (64, 48)).save(root / ANNOTATION), ANNOTATION,
        '3 channels (mode RGB), expected 1',
    ),
    'an annotation with alpha': (
        lambda root: Image.new('LA', (64, 48)).save(root / ANNOTATION), ANNOTATION, '2 channels (mode LA), expected 1',
    ),
    'value 151': (value_151, ANNOTATION, 'values up to 151 (in 1 pixels), expected 0-150'),
    'a jpeg without its end': (
        lambda root: cut(root / IMAGE, (root / IMAGE).stat().st_size - 20), IMAGE, 'truncated',
    ),
    'a jpeg without its second half': (
        lambda root: cut(root / IMAGE, (root / IMAGE).stat().st_size // 2), IMAGE, 'truncated',
    ),
    'an empty jpeg': (lambda root: cut(root / IMAGE, 0), IMAGE, 'cannot be decoded'),
    'a text that is called jpeg': (lambda root: (root / IMAGE).write_text('<html>'), IMAGE, 'cannot be decoded'),
    'a cut png': (
        lambda root: cut(root / ANNOTATION, (root / ANNOTATION).stat().st_size // 2), ANNOTATION, 'cannot be decoded',
    ),
    'an image of 100 million pixels': (
        lambda root: Image.new('1', (10_000, 10_000)).save(root / IMAGE, 'PNG'), IMAGE, 'DecompressionBomb',
    ),
    'a PostScript program': (
        lambda root: Image.new('L', (64, 48)).save(root / IMAGE, 'EPS'), IMAGE, 'cannot be decoded',
    ),
}


@pytest.mark.parametrize('breakage', BREAKAGES)
def test_a_bad_file_is_named_with_the_reason(ade, small_official_set, breakage):
    break_it, file, reason = BREAKAGES[breakage]
    break_it(ade)
    report = ade20k.verify(ade, workers=1)
    assert list(report.bad_files) == [file]
    assert reason in report.bad_files[file]
    assert not report.ok


def test_a_truncated_jpeg_is_found_where_the_caller_lets_pillow_accept_it(ade, monkeypatch):
    monkeypatch.setattr('PIL.ImageFile.LOAD_TRUNCATED_IMAGES', True)
    cut(ade / IMAGE, (ade / IMAGE).stat().st_size - 20)
    assert list(ade20k.verify(ade, partial=True, workers=1).bad_files) == [IMAGE]


def test_every_reason_for_a_file_is_told(ade):
    Image.new('L', (10, 10), 200).save(ade / ANNOTATION)
    reasons = ade20k.verify(ade, partial=True, workers=1).bad_files[ANNOTATION]
    assert reasons == ('values up to 200 (in 100 pixels), expected 0-150; '
                       'width x height 10x10, expected 64x48 as its image')
    (ade / IMAGE).unlink()
    reasons = ade20k.verify(ade, partial=True, workers=1).bad_files[ANNOTATION]
    assert reasons == f'has no image {IMAGE}; values up to 200 (in 100 pixels), expected 0-150'


def test_the_json_lists_every_bad_file_and_the_printed_report_counts_the_rest(ade):
    bad = [f'images/training/ADE_train_{i:08d}.jpg' for i in range(100, 140)]
    for name in bad:
        (ade / name).write_bytes(b'no image')
        shutil.copy(ade / ANNOTATION, ade / name.replace('images', 'annotations').replace('.jpg', '.png'))
    report = ade20k.verify(ade, partial=True, workers=2)
    assert list(json.loads(report.to_json())['bad_files']) == bad
    summary = report.summary(limit=20)
    assert 'bad files: 40' in summary and 'and 20 more' in summary
    assert sum(name in summary for name in bad) == 20


@pytest.mark.parametrize(('make', 'message'), [
    (lambda path: None, 'is no folder'),
    (lambda path: path.mkdir(), 'holds nothing, expected images/ and annotations/'),
    (lambda path: (path / 'jpgs').mkdir(parents=True), 'holds jpgs, expected images/ and annotations/'),
    (lambda path: (path / 'images/training').mkdir(parents=True), 'holds no image'),
])
@pytest.mark.parametrize('partial', [False, True])
def test_a_folder_without_the_set_is_one_clear_message(tmp_path, make, message, partial):
    make(tmp_path / 'set')
    with pytest.raises(UserError, match=f'set {message}'):
        ade20k.verify(tmp_path / 'set', partial=partial)


def test_no_workers_is_refused(ade):
    with pytest.raises(UserError, match='workers is 0, expected at least 1'):
        ade20k.verify(ade, workers=0)
