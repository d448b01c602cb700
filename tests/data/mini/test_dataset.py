"""The data set on disk: in ADE20K's layout, and whole or not there at all."""
import hashlib
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from mmseg.datasets import ADE20KDataset
from mmseg.datasets.transforms import LoadAnnotations
from PIL import Image

from inceptionnext_seg.data.mini import CLASSES_USED, draw_scene, make_mini_ade20k, read_manifest
from inceptionnext_seg.data.mini import dataset as dataset_module
from inceptionnext_seg.errors import UserError

TINY = dict(num_train=3, num_val=2, size=(32, 48))


@pytest.fixture(scope='module')
def tiny_root(tmp_path_factory):
    return make_mini_ade20k(tmp_path_factory.mktemp('data') / 'mini', **TINY)


def pixels_of(root, split):
    """Image and annotation arrays of a split, in the order of the file names."""
    for path in sorted((root / 'images' / split).iterdir()):
        yield np.array(Image.open(path)), np.array(Image.open(root / 'annotations' / split / path.name))


def test_mmseg_loads_the_layout(tiny_root):
    for split, count in (('training', 3), ('validation', 2)):
        dataset = ADE20KDataset(
            data_root=str(tiny_root), img_suffix='.png', pipeline=[],
            data_prefix=dict(img_path=f'images/{split}', seg_map_path=f'annotations/{split}'))
        assert len(dataset) == count
        drawn = draw_scene(0 if split == 'training' else 2**19, TINY['size'])[1]
        loaded = LoadAnnotations()(dataset.get_data_info(0))['gt_seg_map']
        # mmseg subtracts 1 from ADE20K's numbers and turns 0 (unlabelled) into 255 (ignored).
        assert np.array_equal(loaded, drawn - np.uint8(1))


def test_files_hold_the_drawn_pixels_and_the_manifest_their_hash(tiny_root):
    digest = hashlib.sha256()
    for split, first, prefix in (('training', 0, 'ADE_train'), ('validation', 2**19, 'ADE_val')):
        assert (tiny_root / f'images/{split}/{prefix}_00000001.png').exists()
        for index, pair in enumerate(pixels_of(tiny_root, split)):
            for stored, drawn in zip(pair, draw_scene(first + index, TINY['size']), strict=True):
                assert np.array_equal(stored, drawn)
                digest.update(stored.tobytes())
    manifest = read_manifest(tiny_root)
    assert manifest['sha256'] == digest.hexdigest()
    assert (manifest['num_train'], manifest['num_val'], manifest['size']) == (3, 2, [32, 48])
    assert manifest['classes'] == CLASSES_USED


def test_sets_of_two_seeds_and_the_two_splits_share_no_scene(tmp_path):
    seen = set()
    for seed in (0, 1):
        root = make_mini_ade20k(tmp_path / str(seed), **TINY, seed=seed)
        for split in ('training', 'validation'):
            seen |= {image.tobytes() for image, _ in pixels_of(root, split)}
    assert len(seen) == 2 * (3 + 2)


def test_a_second_call_does_not_draw_again(tiny_root, monkeypatch):
    monkeypatch.setattr(dataset_module, 'draw_scene', lambda *args: pytest.fail('drawn again'))
    assert make_mini_ade20k(str(tiny_root), **TINY) == tiny_root


def test_an_interrupted_run_leaves_nothing_behind(tmp_path, monkeypatch):
    def interrupted(seed, size):
        if seed == 2:
            raise KeyboardInterrupt
        return draw_scene(seed, size)

    monkeypatch.setattr(dataset_module, 'draw_scene', interrupted)
    with pytest.raises(KeyboardInterrupt):
        make_mini_ade20k(tmp_path / 'mini', **TINY)
    assert list(tmp_path.iterdir()) == []


def test_the_slower_of_two_runs_discards_its_copy(tmp_path, monkeypatch):
    root, write = tmp_path / 'mini', dataset_module.write_mini_ade20k

    def overtaken(draft, parameters):
        write(draft, parameters)
        monkeypatch.setattr(dataset_module, 'write_mini_ade20k', write)
        make_mini_ade20k(root, **TINY)
        (root / 'winner').touch()

    monkeypatch.setattr(dataset_module, 'write_mini_ade20k', overtaken)
    assert make_mini_ade20k(root, **TINY) == root
    assert (root / 'winner').exists() and list(tmp_path.iterdir()) == [root]


def test_two_runs_may_start_at_once(tmp_path):
    # Threads stand for the processes, which would import torch anew: the two share nothing but the file system.
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(make_mini_ade20k, tmp_path / 'mini', **TINY) for _ in range(2)]
        assert [run.result() for run in runs] == [tmp_path / 'mini'] * 2
    assert list(tmp_path.iterdir()) == [tmp_path / 'mini']


@pytest.mark.parametrize(('change', 'message'), [
    (dict(seed=1), 'with seed 0, expected 1'),
    (dict(num_train=4), 'with num_train 3, expected 4'),
    (dict(size=(48, 48)), r'with size \[32, 48\], expected \[48, 48\]'),
])
def test_a_set_of_other_parameters_is_refused_and_kept(tiny_root, change, message):
    with pytest.raises(UserError, match=message + '.*give another folder, or remove this one'):
        make_mini_ade20k(tiny_root, **{**TINY, **change})
    assert make_mini_ade20k(tiny_root, **TINY) == tiny_root


def test_a_set_of_another_format_version_is_refused(tmp_path):
    root = make_mini_ade20k(tmp_path / 'mini', **TINY)
    manifest = read_manifest(root)
    (root / 'mini.json').write_text(json.dumps({**manifest, 'format_version': 0}), encoding='utf-8')
    with pytest.raises(UserError, match='with format_version 0, expected 1'):
        make_mini_ade20k(root, **TINY)


def test_a_set_that_lost_files_is_refused(tmp_path):
    root = make_mini_ade20k(tmp_path / 'mini', **TINY)
    (root / 'annotations/validation/ADE_val_00000002.png').unlink()
    with pytest.raises(UserError, match=r'lacks 1 of the 10 files .*annotations.validation.ADE_val_00000002\.png'):
        make_mini_ade20k(root, **TINY)


@pytest.mark.parametrize('content', [None, '', '{"format_version": 1', '[1]', '{"format_version": 1}'])
def test_a_folder_of_something_else_is_refused_and_kept(tmp_path, content):
    (tmp_path / 'thesis.txt').write_text('mine')
    if content is not None:
        (tmp_path / 'mini.json').write_text(content)
    assert read_manifest(tmp_path) is None
    with pytest.raises(UserError, match='is no mini-ADE20K data set'):
        make_mini_ade20k(tmp_path, **TINY)
    assert (tmp_path / 'thesis.txt').read_text() == 'mine'


def test_a_folder_that_cannot_be_written_is_a_user_error(tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(UserError, match=r'cannot write the data set to .*give a folder that you may write'):
        make_mini_ade20k(tmp_path / 'file' / 'mini', **TINY)


@pytest.mark.parametrize('parameters', [dict(num_train=0), dict(num_val=-1), dict(seed=-1), dict(size=(16, 300))])
def test_parameters_out_of_range_are_user_errors(tmp_path, parameters):
    with pytest.raises(UserError, match='give'):
        make_mini_ade20k(tmp_path / 'mini', **{**TINY, **parameters})
    assert list(tmp_path.iterdir()) == []
