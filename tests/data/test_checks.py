"""The checks that come before training."""
import shutil
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.datasets import BaseSegDataset
from PIL import Image

from inceptionnext_seg.data.checks import DataCheckHook, check_classes, check_folders, check_samples
from inceptionnext_seg.errors import UserError

PREFIX = dict(img_path='images/training', seg_map_path='annotations/training')
CLASSES = tuple('abcdefghijk')


# Folders


def load_config(root, name, data_root):
    cfg = Config.fromfile(root / f'configs/{name}.py')
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.data_root = str(data_root)
    return cfg


def test_missing_ade20k_is_one_message_with_the_folder_the_prepare_command_and_the_embedded_config(root, tmp_path):
    cfg = load_config(root, 'upernet_inceptionnext_t_ade20k', tmp_path / 'ade')
    with pytest.raises(UserError) as error:
        check_folders(cfg, ('train_dataloader', 'val_dataloader'))
    message = str(error.value)
    assert f'train_dataloader looked for the folder {tmp_path}/ade/images/training' in message
    assert 'python tools/prepare_ade20k.py --download' in message
    assert '--cfg-options train_dataloader.dataset.data_root=PATH' in message
    assert 'python tools/train.py configs/upernet_inceptionnext_a_mini.py' in message
    assert all((root / word).is_file() for word in message.split() if word.endswith('.py'))


def test_a_missing_folder_of_ones_own_is_told_with_how_to_link_it(root, tmp_path):
    cfg = load_config(root, 'upernet_inceptionnext_a_camvid', tmp_path / 'mine')
    with pytest.raises(UserError, match=rf'ln -s /path/to/your/data {tmp_path}/mine'):
        check_folders(cfg, ('test_dataloader', ))


def test_only_the_folder_that_is_missing_is_named(root, tiny_data, tmp_path):
    shutil.copytree(tiny_data, tmp_path / 'data')
    shutil.rmtree(tmp_path / 'data/annotations/validation')
    cfg = load_config(root, 'upernet_inceptionnext_a_camvid', tmp_path / 'data')
    check_folders(cfg, ('train_dataloader', ))
    with pytest.raises(UserError, match=r'val_dataloader looked for the folder \S+/annotations/validation'):
        check_folders(cfg, ('train_dataloader', 'val_dataloader'))


def test_the_embedded_data_set_and_a_config_without_a_loader_need_no_folder(root, tmp_path):
    check_folders(load_config(root, 'upernet_inceptionnext_a_mini', tmp_path / 'none'), ('train_dataloader', ))
    check_folders(Config(dict(val_dataloader=None)), ('val_dataloader', 'test_dataloader'))


def test_a_folder_without_an_image_of_the_suffix_is_told(root, tiny_data):
    cfg = load_config(root, 'upernet_inceptionnext_a_camvid', tiny_data)
    cfg.train_dataloader.dataset.img_suffix = '.tif'
    check_folders(cfg, ('val_dataloader', ))
    with pytest.raises(UserError, match=r"no image with the suffix '\.tif' in \S+images/training.*img_suffix"):
        check_folders(cfg, ('train_dataloader', ))


# Classes


@pytest.mark.parametrize('head', ['decode_head', 'auxiliary_head'])
def test_heads_of_another_number_of_classes_are_an_error_that_says_how_to_change_it(head):
    dataset = SimpleNamespace(metainfo=dict(classes=CLASSES))
    heads = dict(decode_head=SimpleNamespace(num_classes=11), auxiliary_head=SimpleNamespace(num_classes=11))
    check_classes(dataset, SimpleNamespace(**heads))
    heads[head].num_classes = 19
    with pytest.raises(UserError, match=rf'model.{head}.num_classes is 19, .* 11 classes.*num_classes=11'):
        check_classes(dataset, SimpleNamespace(**heads))


def test_a_model_without_an_auxiliary_head_has_no_classes_to_check_there():
    dataset = SimpleNamespace(metainfo=dict(classes=CLASSES))
    check_classes(dataset, SimpleNamespace(decode_head=SimpleNamespace(num_classes=11), auxiliary_head=None))


# Masks


@pytest.fixture
def folder(tiny_data, tmp_path):
    """A copy of the tiny data set, to be damaged."""
    shutil.copytree(tiny_data, tmp_path / 'data')
    return tmp_path / 'data'


def dataset_of(folder, **settings):
    init_default_scope('mmseg')
    settings = dict(dict(metainfo=dict(classes=CLASSES), data_prefix=PREFIX), **settings)
    return BaseSegDataset(data_root=str(folder), **settings)


def mask_path(folder, i=0):
    return folder / f'annotations/training/{i}.png'


def save_mask(folder, array, i=0):
    Image.fromarray(array).save(mask_path(folder, i))


def mask_with(*values):
    mask = np.zeros((96, 96), np.uint8)
    mask[0, :len(values)] = values
    return mask


def test_sound_masks_pass(folder):
    check_samples(dataset_of(folder))


@pytest.mark.parametrize(('mask', 'message'), [
    (mask_with(11), 'has the value 11; expected: 0 to 10, or 255 for pixels that do not count'),
    (mask_with(10, 12, 254, 255), 'has the values 12, 254; expected: 0 to 10'),
    (np.zeros((96, 96, 3), np.uint8), r'has shape \(96, 96, 3\) and type uint8; expected: one channel'),
    (np.zeros((96, 96, 4), np.uint8), r'has shape \(96, 96, 4\)'),
    (np.full((96, 96), 256, np.uint16), r'type uint16; expected: one channel of 8-bit class indices'),
    (np.zeros((96, 95), np.uint8), 'is 95×96 pixels, its image 96×96'),
])
def test_a_mask_that_cannot_be_used_is_named_with_what_was_found_and_expected(folder, mask, message):
    save_mask(folder, mask, 3)
    first = rf'1 of 6 images with their masks cannot be used:\n  {mask_path(folder, 3)}: .*'
    with pytest.raises(UserError, match=f'{first}{message}'):
        check_samples(dataset_of(folder))


def test_an_image_of_16_bits_that_would_be_nearly_black_or_of_floats_is_named_and_a_full_one_passes(folder):
    path, dark = folder / 'images/training/3.png', np.full((96, 96, 3), 4095, np.uint16)
    (folder / 'images/training/3.jpg').unlink()
    cv2.imwrite(str(path), dark)
    with pytest.raises(UserError, match=rf'{path}: has 16 bits a channel and no value above 4095: .* 0 to 15 '):
        check_samples(dataset_of(folder, img_suffix='.png'))
    cv2.imwrite(str(path), dark * 16)
    check_samples(dataset_of(folder, img_suffix='.png'))
    path.unlink()
    Image.fromarray(np.full((96, 96), .5, np.float32)).save(folder / 'images/training/3.tif')
    with pytest.raises(UserError, match='values of mode F, which OpenCV does not load'):
        check_samples(dataset_of(folder, img_suffix='.tif'))


def test_a_missing_mask_is_named_with_its_image(folder):
    mask_path(folder, 2).unlink()
    path = mask_path(folder, 2)
    with pytest.raises(UserError, match=rf'{path}, the mask of the image \S+/training/2.jpg: is not there'):
        check_samples(dataset_of(folder))


@pytest.mark.parametrize('content', [b'', b'no picture', None])
def test_a_mask_that_is_no_picture_or_cut_short_is_named(folder, content):
    path = mask_path(folder, 1)
    path.write_bytes(path.read_bytes()[:80] if content is None else content)
    with pytest.raises(UserError, match=rf'{path}: cannot be read'):
        check_samples(dataset_of(folder))


def test_all_bad_masks_are_counted_and_the_first_ten_named(folder):
    for i in range(6, 14):
        shutil.copy(folder / 'images/training/0.jpg', folder / f'images/training/{i}.jpg')
    for i in range(14):
        save_mask(folder, mask_with(99), i)
    with pytest.raises(UserError) as error:
        check_samples(dataset_of(folder))
    assert str(error.value).startswith('14 of 14 images with their masks cannot be used:')
    assert str(error.value).count('has the value 99') == 10
    assert 'and 4 more' in str(error.value)


def test_a_palette_png_holds_class_numbers_and_passes(folder):
    image = Image.fromarray(mask_with(3, 10, 255), mode='P')
    image.putpalette([7] * 768)
    image.save(mask_path(folder))
    assert Image.open(mask_path(folder)).mode == 'P'
    check_samples(dataset_of(folder))


@pytest.mark.parametrize(('value', 'fits'), [(0, True), (1, True), (11, True), (12, False), (255, True)])
def test_reduce_zero_label_counts_classes_from_one_and_ignores_zero(folder, value, fits):
    for i in range(6):
        save_mask(folder, mask_with(value), i)
    dataset = dataset_of(folder, reduce_zero_label=True)
    if fits:
        check_samples(dataset)
    else:
        with pytest.raises(UserError, match='has the value 12; expected: 1 to 11, or 0 or 255 for pixels that do not'):
            check_samples(dataset)


def test_another_ignore_index_is_accepted(folder):
    save_mask(folder, mask_with(200))
    with pytest.raises(UserError, match='200'):
        check_samples(dataset_of(folder))
    mask = mask_with(200)
    for i in range(6):
        save_mask(folder, mask, i)
    check_samples(dataset_of(folder, ignore_index=200))


def test_the_hook_checks_training_and_validation_before_training_and_the_test_set_before_a_test(folder):
    training = SimpleNamespace(dataset=dataset_of(folder))
    validation = SimpleNamespace(dataset=dataset_of(folder, data_prefix={
        name: value.replace('training', 'validation') for name, value in PREFIX.items()}))
    runner = SimpleNamespace(train_dataloader=training, val_dataloader=validation, val_loop=object(),
                             test_dataloader=training, model=None)
    hook = DataCheckHook()
    hook.before_train(runner)
    Image.fromarray(mask_with(77)).save(folder / 'annotations/validation/1.png')
    hook.before_test(runner)
    with pytest.raises(UserError, match=r'annotations/validation/1\.png: has the value 77'):
        hook.before_train(runner)
    runner.val_loop = None
    hook.before_train(runner)


def test_the_hook_says_what_is_in_the_folders_and_not_used(folder, monkeypatch):
    lines = []
    monkeypatch.setattr('inceptionnext_seg.data.checks.print_log', lambda line, *_: lines.append(line))
    (folder / 'images/training/0.jpg').rename(folder / 'images/training/0.JPG')
    loader = SimpleNamespace(dataset=dataset_of(folder))
    DataCheckHook().before_train(SimpleNamespace(train_dataloader=loader, val_loop=None))
    assert len(lines) == 2 and '0.JPG' in lines[0] and '0.png' in lines[1]


def test_the_real_street_scenes_of_camvid_pass(root, camvid):
    cfg = load_config(root, 'upernet_inceptionnext_a_camvid', camvid)
    for loader, count in ((cfg.train_dataloader, 367), (cfg.val_dataloader, 101)):
        settings = {name: value for name, value in loader.dataset.items() if name not in ('type', 'pipeline')}
        dataset = BaseSegDataset(**settings)
        assert len(dataset) == count
        check_samples(dataset, progress=False)
