"""Every image and mask is decoded once, before training; what was good and did not change is not decoded again."""
import json
import os
import re
import shutil
import struct
import time
import zlib
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from mmengine.dataset import ConcatDataset
from mmengine.registry import init_default_scope
from mmseg.datasets import BaseSegDataset
from PIL import Image

import inceptionnext_seg
from inceptionnext_seg.data import checked, checks
from inceptionnext_seg.data.checks import DataCheckHook, check_folders_of, check_samples
from inceptionnext_seg.data.decoding import decode_by_opencv
from inceptionnext_seg.data.loading import LoadAnnotations, LoadImageFromFile
from inceptionnext_seg.errors import UserError

PREFIX = dict(img_path='images/training', seg_map_path='annotations/training')
PIPELINE = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'),
            dict(type='RandomResize', scale=(480, 360), ratio_range=(0.75, 1.5), keep_ratio=True)]


@pytest.fixture
def folder(tiny_data, tmp_path):
    """A copy of the tiny data set, to be damaged, below a name with a space and a letter that is not ASCII."""
    shutil.copytree(tiny_data, tmp_path / 'my dätä')
    return tmp_path / 'my dätä'


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(checked, 'cache_folder', lambda: tmp_path / 'cache')
    return tmp_path / 'cache' / f'checked-{os.geteuid()}'


@pytest.fixture
def decoded(monkeypatch):
    """The images that were decoded."""
    names, decode = [], checks.check_sample
    monkeypatch.setattr(checks, 'check_sample', lambda sample, expected: (
        names.append(sample['img_path']), decode(sample, expected))[1])
    return names


def dataset_of(folder, **settings):
    init_default_scope('mmseg')
    classes = tuple('abcdefghijk')
    return BaseSegDataset(**dict(dict(data_root=str(folder), metainfo=dict(classes=classes), data_prefix=PREFIX,
                                      pipeline=PIPELINE), **settings))


def problem_of(folder, **settings):
    with pytest.raises(UserError) as error:
        check_samples(dataset_of(folder), progress=False, **settings)
    return str(error.value)


def image_of(folder, i=0):
    return folder / f'images/training/{i}.jpg'


def mask_of(folder, i=0):
    return folder / f'annotations/training/{i}.png'


def cut(path, share):
    content = path.read_bytes()
    path.write_bytes(content[:int(len(content) * share)])


def write(folder, width, height, mode='RGB'):
    Image.new(mode, (width, height)).save(image_of(folder))
    Image.new('L', (width, height)).save(mask_of(folder))


@pytest.mark.parametrize('share', [0, 0.02, 0.5, 0.8])
@pytest.mark.parametrize('path_of', [image_of, mask_of])
def test_a_file_that_is_cut_short_anywhere_is_named(folder, path_of, share):
    cut(path_of(folder), share)
    assert f'{path_of(folder)}: cannot be read' in problem_of(folder)


def test_a_truncated_png_or_large_jpeg_image_is_named(folder):
    noise = np.random.default_rng(0).integers(0, 255, (400, 300, 3), np.uint8)
    Image.new('L', (300, 400)).save(mask_of(folder))
    for kind, share in (('JPEG', 0.9), ('JPEG', 1), ('PNG', 0.9)):
        Image.fromarray(noise).save(image_of(folder), format=kind)
        cut(image_of(folder), share)
        if share == 1:
            check_samples(dataset_of(folder), progress=False)
        else:
            assert f'{image_of(folder)}: cannot be read' in problem_of(folder)


@pytest.mark.parametrize(('size', 'message'), [
    ((1, 1), 'is 1×1 pixels; expected: at least 4 on each side'), ((3, 900), 'is 3×900 pixels'),
    ((12000, 30), 'is 12000×30 pixels, and 360×1 as the pipeline resizes it; expected: at least 4')])
def test_an_image_that_is_or_becomes_too_small_is_named_with_its_size(folder, size, message):
    write(folder, *size)
    assert f'{image_of(folder)}: {message}' in problem_of(folder)


def test_an_image_of_400_megapixels_is_named_before_it_is_decoded(folder):
    for path, kind in ((image_of(folder), 2), (mask_of(folder), 0)):  # RGB and gray, 8 bit
        chunks = [b'IHDR' + struct.pack('>IIBBBBB', 20000, 20000, 8, kind, 0, 0, 0), b'IDAT' + zlib.compress(b'')]
        path.write_bytes(b'\x89PNG\r\n\x1a\n' + b''.join(
            struct.pack('>I', len(chunk) - 4) + chunk + struct.pack('>I', zlib.crc32(chunk)) for chunk in chunks))
    limit, start = Image.MAX_IMAGE_PIXELS, time.perf_counter()
    message = problem_of(folder)
    assert f'{image_of(folder)}: has 20000×20000 pixels, 1.1 GiB' in message and str(2 * limit) in message
    assert time.perf_counter() - start < 2
    assert limit == Image.MAX_IMAGE_PIXELS


def test_an_image_that_a_model_cannot_take_whole_is_named(folder):
    dataset = dataset_of(folder, pipeline=PIPELINE[:2])
    check_samples(dataset, 96, progress=False)
    with pytest.raises(UserError, match='is 96×96 pixels; expected: at least 128'):
        check_samples(dataset, 128, progress=False)


def test_links_to_nowhere_are_named_with_where_they_lead(folder):
    mask_of(folder).unlink()
    mask_of(folder).symlink_to('/nowhere/x.png')
    assert f'{mask_of(folder)}, the mask of the image {image_of(folder)}: is a symbolic link to /nowhere/x.png' \
        in problem_of(folder)
    dataset = dict(type='BaseSegDataset', data_root=str(folder), data_prefix=PREFIX)
    check_folders_of(dataset, 'train_dataloader', [])
    image_of(folder, 1).unlink()
    image_of(folder, 1).symlink_to('/nowhere/y.jpg')  # mmengine passes over it
    with pytest.raises(UserError, match=r'images/training/1\.jpg → /nowhere/y\.jpg'):
        check_folders_of(dataset, 'train_dataloader', [])
    shutil.rmtree(folder / 'images/training')
    (folder / 'images/training').symlink_to('/nowhere')
    with pytest.raises(UserError, match='images/training is a symbolic link to /nowhere'):
        check_folders_of(dataset, 'train_dataloader', [])


def test_an_image_that_a_list_names_and_that_is_not_there_is_named(folder):
    (folder / 'list.txt').write_text('0\nnone\n')
    with pytest.raises(UserError, match=r'1 of 2 .*\n.*training/none.jpg: is not there'):
        check_samples(dataset_of(folder, ann_file='list.txt'), progress=False)


@pytest.fixture
def another_user():
    """For whom modes count, where the tests run as root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    yield
    os.seteuid(0)


def test_a_file_and_a_folder_that_must_not_be_read_are_named(folder, request):
    dataset = dataset_of(folder)
    image_of(folder).chmod(0)
    (folder / 'images/validation').chmod(0)
    for part in (folder, *folder.parents[:4]):
        part.chmod(part.stat().st_mode | 0o755)
    request.getfixturevalue('another_user')
    with pytest.raises(UserError, match=f'{image_of(folder)}: cannot be read .*[Pp]ermission'):
        check_samples(dataset, progress=False)
    with pytest.raises(UserError, match='images/validation, which cannot be read: Permission denied'):
        check_folders_of(dict(type='BaseSegDataset', data_root=str(folder), data_prefix=dict(
            img_path='images/validation')), 'val_dataloader', [])
    with pytest.raises(UserError, match='images/validation cannot be read: Permission denied'):
        check_folders_of(dict(type='BaseSegDataset', data_root=str(folder), data_prefix=dict(
            img_path='images')), 'val_dataloader', [])


def test_a_format_that_pillow_does_not_know_is_decoded_as_training_does(folder):
    path = image_of(folder).with_suffix('.hdr')
    cv2.imwrite(str(path), np.ones((96, 96, 3), np.float32))
    assert decode_by_opencv(path) == (96, 96)
    path.rename(image_of(folder))
    check_samples(dataset_of(folder), progress=False)


def test_what_was_good_and_has_not_changed_is_not_decoded_again(folder, decoded, cache):
    check_samples(dataset_of(folder), progress=False)
    assert len(decoded) == 6
    check_samples(dataset_of(folder), progress=False)
    assert len(decoded) == 6
    os.utime(mask_of(folder, 2), ns=(1, 1))
    check_samples(dataset_of(folder), progress=False)
    assert decoded[6:] == [str(image_of(folder, 2))]
    check_samples(dataset_of(folder), 32, progress=False)  # other expectations
    assert len(decoded) == 13
    file, = cache.iterdir()
    assert file.stat().st_size < 1000 and cache.stat().st_mode & 0o077 == 0


def test_what_was_bad_is_looked_at_again_and_the_good_is_not(folder, decoded):
    good = image_of(folder, 3).read_bytes()
    cut(image_of(folder, 3), 0.5)
    for _ in range(2):
        problem_of(folder)
    assert decoded[6:] == [str(image_of(folder, 3))]
    image_of(folder, 3).write_bytes(good)
    check_samples(dataset_of(folder), progress=False)
    assert len(decoded) == 8


@pytest.mark.parametrize('content', [
    b'', b'\xff\xfe', b'[]', b'{"checked": 5}', b'{"checked": [[], {}, 7]}', b'[' * 100000, None])
def test_a_cache_that_is_none_costs_a_check_and_no_more(folder, decoded, cache, content):
    check_samples(dataset_of(folder), progress=False)
    file, = cache.iterdir()
    if content is None:
        file.unlink()
        file.mkdir()
    else:
        file.write_bytes(content)
    check_samples(dataset_of(folder), progress=False)
    assert len(decoded) == 12
    if content is not None:
        assert len(json.loads(file.read_text())['checked']) == 6


def test_a_folder_that_others_own_is_not_used(folder, decoded, monkeypatch, tmp_path):
    monkeypatch.setattr(checked, 'cache_folder', lambda: tmp_path / 'file')
    (tmp_path / 'file').write_text('')
    for _ in range(2):
        check_samples(dataset_of(folder), progress=False)
    assert len(decoded) == 12


def test_caches_that_no_run_has_read_for_long_are_removed(folder, cache):
    check_samples(dataset_of(folder), progress=False)
    old, new = cache / 'old.json', cache / 'new.json'
    old.write_text('{}')
    new.write_text('{}')
    os.utime(old, (0, time.time() - 91 * 24 * 3600))
    os.utime(mask_of(folder), ns=(1, 1))
    check_samples(dataset_of(folder), progress=False)
    assert new.exists() and not old.exists()


def test_processes_share_the_work_and_all_know_what_is_bad(folder, decoded, monkeypatch):
    cut(image_of(folder, 4), 0.5)
    monkeypatch.setattr(checks, 'get_world_size', lambda: 2)
    monkeypatch.setattr(checks, 'get_rank', lambda: 1)
    monkeypatch.setattr(checks, 'all_gather_object', lambda own: [[(str(image_of(folder, 4)), 'from rank 0')], own])
    assert 'from rank 0' in problem_of(folder)
    assert [int(name[-5]) for name in sorted(decoded)] == [1, 3, 5]


def test_the_check_can_be_left_out_and_wrapped_data_sets_are_checked(folder, decoded):
    both = ConcatDataset([dataset_of(folder), dataset_of(folder, data_prefix={
        name: path.replace('training', 'validation') for name, path in PREFIX.items()})])
    runner = SimpleNamespace(train_dataloader=SimpleNamespace(dataset=both), val_loop=None)
    DataCheckHook(enabled=False).before_train(runner)
    assert decoded == []
    DataCheckHook().before_train(runner)
    assert len(decoded) == 10


def test_a_file_that_breaks_after_the_check_is_named_where_it_is_loaded(folder):
    cut(image_of(folder), 0.1)
    cut(mask_of(folder), 0.1)
    sample = dict(img_path=str(image_of(folder)), seg_map_path=str(mask_of(folder)), seg_fields=[],
                  reduce_zero_label=False)
    for transform, path in ((LoadImageFromFile(), image_of(folder)), (LoadAnnotations(), mask_of(folder))):
        with pytest.raises(UserError, match=f'{path}: the (image|mask) cannot be loaded'):
            transform(dict(sample))


@pytest.mark.parametrize('role', ['images', 'annotations'])
def test_a_picture_of_a_kind_that_pillow_has_another_program_read_starts_none(folder, monkeypatch, role):
    started = []
    monkeypatch.setattr('PIL.EpsImagePlugin.Ghostscript', lambda *args, **_: started.append(args))
    name = next((folder / role / 'training').iterdir())
    with Image.open(name) as picture:
        picture.convert('RGB').save(folder / 'x.eps')
    (folder / 'x.eps').replace(name)
    assert f'{name.name}: cannot be read as a picture' in problem_of(folder) and not started


def test_no_file_is_opened_as_a_kind_that_starts_a_program():
    opened = [(path.name, call) for path in Path(inceptionnext_seg.__file__).parent.rglob('*.py')
              for call in re.findall(r'Image\.open\((?:[^()]|\([^()]*\))*\)', path.read_text(encoding='utf-8'))]
    assert len(opened) > 10
    assert [call for call in opened if 'formats=' not in call[1]] == []
