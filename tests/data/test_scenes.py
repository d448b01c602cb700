"""The mini-ADE20K data set: the same pixels everywhere, in ADE20K's layout, and whole or not there at all."""
import ast
import csv
import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from mmseg.datasets import ADE20KDataset
from mmseg.datasets.transforms import LoadAnnotations
from PIL import Image

from inceptionnext_seg.data import scenes
from inceptionnext_seg.data.scenes import (
    CLASSES_USED,
    KINDS,
    Random,
    draw_scene,
    make_mini_ade20k,
    noise,
    read_manifest,
)
from inceptionnext_seg.errors import UserError

TINY = dict(num_train=3, num_val=2, size=(32, 48))
OBJECT_INFO = Path(__file__).resolve().parents[3] / 'shared/data/ade20k_sample/objectInfo150.csv'


@pytest.fixture(scope='module')
def tiny_root(tmp_path_factory):
    return make_mini_ade20k(tmp_path_factory.mktemp('data') / 'mini', **TINY)


@pytest.fixture(scope='module')
def splits():
    """(image, annotation) of the first 40 training scenes and of the 64 validation scenes of the default data set."""
    return {'training': [draw_scene(seed) for seed in range(40)],
            'validation': [draw_scene(2**19 + index) for index in range(64)]}


def pixels_of(root, split):
    """Image and annotation arrays of a split, in the order of the file names."""
    for path in sorted((root / 'images' / split).iterdir()):
        yield np.array(Image.open(path)), np.array(Image.open(root / 'annotations' / split / path.name))


# --- The pixels are the same on every machine ------------------------------------------------------------------------


def test_random_words_are_those_of_numpys_own_test_set():
    # numpy/random/tests/data/pcg64-testset-1.csv, seed 0xdeadbeaf.
    assert Random(0xDEADBEAF).integer(0, 2**64 - 1) == 0x60D24054E17A0698
    assert Random(0xDEADBEAF).integers(0, 99, 1).tolist() == [0x60D24054E17A0698 % 100]


# A change here is a change of every figure measured on the data set: raise FORMAT_VERSION with it.
@pytest.mark.parametrize(('seed', 'size', 'sha256'), [
    (0, (160, 224), '68ac33aa7a7c9f9b208cf4f6d355fbea2c9c220304d9522eb8796f4022952a51'),
    (1, (160, 224), 'c0ea408cdec11a6b5cf4cb88395fc47dabe8df32f03c1cd8be4879225524b60f'),
    (2, (160, 224), '6657c23b03c7e6b2f9b447ec35e8fc2db6ed5442c1ae2cb54735aaaeec91d268'),
    (3, (160, 224), '1f72205dafee3fa847ed5bcc2e9415dd8592cb2971ef1030dbafbbf8b6d4f39d'),
    (2**19, (64, 96), 'a845061e4253e309934a70c75bce160d3b6fc1eb35c225f7b56dd35b01c38050'),
])
def test_pixels_of_format_version_1_are_pinned(seed, size, sha256):
    assert scenes.FORMAT_VERSION == 1
    image, annotation = draw_scene(seed, size)
    assert hashlib.sha256(image.tobytes() + annotation.tobytes()).hexdigest() == sha256


def test_drawing_code_has_no_floating_point():
    tree = ast.parse(Path(scenes.__file__).read_text(encoding='utf-8'))
    names = [node.name if isinstance(node, ast.FunctionDef | ast.ClassDef) else None for node in tree.body]
    drawing = tree.body[: names.index('make_mini_ade20k')]  # what follows divides paths, not numbers
    for node in (node for statement in drawing for node in ast.walk(statement)):
        assert not isinstance(node, ast.Div), f'true division in line {node.lineno}'
        assert not (isinstance(node, ast.Constant) and isinstance(node.value, float)), f'float in line {node.lineno}'
        if isinstance(node, ast.Attribute):
            assert node.attr not in ('mean', 'sqrt', 'sin', 'cos', 'exp', 'linspace', 'Generator', 'default_rng')
            assert not node.attr.startswith('float')


def test_a_scene_depends_on_its_seed_and_on_nothing_else():
    first, other = draw_scene(11, (40, 56)), draw_scene(12, (40, 56))
    again = draw_scene(11, (40, 56))
    assert np.array_equal(first[0], again[0]) and np.array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])


def test_noise_interpolates_its_lattice_by_the_hand_worked_smoothstep():
    lattice = np.array([[0], [200]], np.int32)
    # At a quarter, a half and three quarters of a cell the smoothstep 3t^2 - 2t^3 is 5/32, 1/2 and 27/32.
    assert scenes.interpolate(lattice, 4, 4).ravel().tolist() == [0, 31, 100, 168]
    values = noise(Random(0), 50, 70, 16)
    assert values.shape == (50, 70) and -128 <= values.min() < 0 < values.max() <= 127


# --- The scenes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('seed', range(len(KINDS)))
@pytest.mark.parametrize('size', [(32, 32), (33, 75), (96, 40)])
def test_every_kind_of_scene_can_be_drawn_at_any_size(seed, size):
    image, annotation = draw_scene(seed, size)
    assert (image.shape, image.dtype) == ((*size, 3), np.uint8)
    assert (annotation.shape, annotation.dtype) == (size, np.uint8)
    assert set(np.unique(annotation)) <= {0, *CLASSES_USED.values()}


def test_an_integer_size_is_a_square():
    assert draw_scene(0, 40)[0].shape == (40, 40, 3)


def test_things_stand_where_a_pinhole_camera_puts_them():
    feet = []
    for z in (4000, 16000):
        scene = scenes.Scene(Random(0), 400, 400)
        scene.horizon, scene.middle, scene.focal, scene.eye = 150, 200, 400, 1600
        scenes.streetlight(scene, 0, z)
        feet.append(np.flatnonzero((scene.labels == CLASSES_USED['streetlight']).any(1)).max())
    assert feet == [150 + 160, 150 + 40]  # horizon + focal * eye / z


def test_a_near_thing_hides_a_far_one():
    scene = scenes.Scene(Random(0), 100, 100)
    scene.horizon, scene.middle, scene.eye = 40, 50, 1000
    scenes.draw_far_to_near(scene, [(0, 6000, scenes.car), (0, 60000, scenes.person)])
    assert set(np.unique(scene.labels)) == {0, CLASSES_USED['car']}


def test_every_class_is_in_five_percent_of_the_images_of_both_splits(splits):
    for split, pairs in splits.items():
        for name, label in CLASSES_USED.items():
            share = np.mean([(annotation == label).any() for _, annotation in pairs])
            assert share >= 0.05, f'{name} is in {share:.1%} of the {split} images'


def test_classes_are_long_tailed_and_some_pixels_are_unlabelled(splits):
    counts = np.bincount(np.concatenate([annotation.ravel() for _, annotation in splits['validation']]))
    shares = counts / counts.sum()
    used = shares[list(CLASSES_USED.values())]
    assert 0.1 < used.max() < 0.25 and 0.002 < used.min() < 0.02
    assert 0.002 < shares[0] < 0.05


def test_colour_alone_does_not_tell_the_class(splits):
    def colour_bins(image):
        return (image.astype(np.int64) >> 4) @ np.array([256, 16, 1])

    votes, confusion = np.zeros((4096, 151), np.int64), np.zeros((151, 151), np.int64)
    for image, annotation in splits['training']:
        np.add.at(votes, (colour_bins(image), annotation), 1)
    for image, annotation in splits['validation']:
        np.add.at(confusion, (annotation, votes[:, 1:].argmax(1)[colour_bins(image)] + 1), 1)
    hits, confusion = np.diag(confusion)[1:], confusion[1:, 1:]
    iou = hits / np.maximum(1, confusion.sum(0) + confusion.sum(1) - hits)
    # The most frequent label of each colour: about 7 % mIoU, where a small network reaches several times that.
    assert iou[np.array(list(CLASSES_USED.values())) - 1].mean() < 0.12


# --- ADE20K's numbering and layout -----------------------------------------------------------------------------------


def test_class_names_and_numbers_are_those_of_mmseg():
    classes = ADE20KDataset.METAINFO['classes']
    assert {name: classes.index(name) + 1 for name in CLASSES_USED} == CLASSES_USED


@pytest.mark.skipif(not OBJECT_INFO.exists(), reason='needs ../shared/data/ade20k_sample')
def test_class_names_and_numbers_are_those_of_objectinfo150():
    with OBJECT_INFO.open(encoding='utf-8') as file:
        names = {int(row['Idx']): row['Name'].split(';') for row in csv.DictReader(file)}
    for name, label in CLASSES_USED.items():
        assert name in names[label] or (name == 'streetlight' and 'street' in names[label])


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


# --- Whole, or not there ---------------------------------------------------------------------------------------------


def test_a_second_call_does_not_draw_again(tiny_root, monkeypatch):
    monkeypatch.setattr(scenes, 'draw_scene', lambda *args: pytest.fail('drawn again'))
    assert make_mini_ade20k(str(tiny_root), **TINY) == tiny_root


def test_an_interrupted_run_leaves_nothing_behind(tmp_path, monkeypatch):
    def interrupted(seed, size):
        if seed == 2:
            raise KeyboardInterrupt
        return draw_scene(seed, size)

    monkeypatch.setattr(scenes, 'draw_scene', interrupted)
    with pytest.raises(KeyboardInterrupt):
        make_mini_ade20k(tmp_path / 'mini', **TINY)
    assert list(tmp_path.iterdir()) == []


def test_the_slower_of_two_runs_discards_its_copy(tmp_path, monkeypatch):
    root, write = tmp_path / 'mini', scenes.write_mini_ade20k

    def overtaken(draft, wanted):
        write(draft, wanted)
        monkeypatch.setattr(scenes, 'write_mini_ade20k', write)
        make_mini_ade20k(root, **TINY)
        (root / 'winner').touch()

    monkeypatch.setattr(scenes, 'write_mini_ade20k', overtaken)
    assert make_mini_ade20k(root, **TINY) == root
    assert (root / 'winner').exists() and list(tmp_path.iterdir()) == [root]


def test_two_runs_may_start_at_once(tmp_path):
    # Threads stand for the processes, which would import torch anew: the two share nothing but the file system.
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(make_mini_ade20k, tmp_path / 'mini', **TINY) for _ in range(2)]
        assert [run.result() for run in runs] == [tmp_path / 'mini'] * 2
    assert list(tmp_path.iterdir()) == [tmp_path / 'mini']


@pytest.mark.parametrize(('change', 'message'), [
    (dict(seed=1), 'with seed 0, wanted is 1'),
    (dict(num_train=4), 'with num_train 3, wanted is 4'),
    (dict(size=(48, 48)), r'with size \[32, 48\], wanted is \[48, 48\]'),
])
def test_a_set_of_other_parameters_is_refused_and_kept(tiny_root, change, message):
    with pytest.raises(UserError, match=message + '.*give another folder, or remove this one'):
        make_mini_ade20k(tiny_root, **{**TINY, **change})
    assert make_mini_ade20k(tiny_root, **TINY) == tiny_root


def test_a_set_of_another_format_version_is_refused(tmp_path):
    root = make_mini_ade20k(tmp_path / 'mini', **TINY)
    manifest = read_manifest(root)
    (root / 'mini.json').write_text(json.dumps({**manifest, 'format_version': 0}), encoding='utf-8')
    with pytest.raises(UserError, match='with format_version 0, wanted is 1'):
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


def test_a_negative_seed_of_a_scene_is_a_user_error():
    with pytest.raises(UserError, match='seed -1 is negative'):
        draw_scene(-1)
