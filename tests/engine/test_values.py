"""Values that a setting cannot have end a run before anything is built, with the setting's name."""
import importlib.util
from pathlib import Path

import pytest

from inceptionnext_seg.engine.launch import load_config
from inceptionnext_seg.engine.values import add_backends, check_values
from inceptionnext_seg.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
CAMVID = ROOT / 'configs/upernet_inceptionnext_a_camvid.py'
OPTIMIZER, PIPELINE = 'optim_wrapper.optimizer', 'train_dataloader.dataset.pipeline'


@pytest.mark.parametrize(('key', 'values'), [
    (f'{OPTIMIZER}.lr', (-1e-3, float('nan'), float('inf'), 'abc', 0, True)),
    (f'{OPTIMIZER}.weight_decay', (-1, 'abc')),
    (f'{OPTIMIZER}.betas', ((2, 3), 0.9)),
    (f'{OPTIMIZER}.type', ('Adamw', )),
    ('optim_wrapper.clip_grad.max_norm', (-1, 'abc')),
    ('train_cfg.total_batch_size', (0, -2, 1.5, 'abc', None)),
    ('train_cfg.micro_batch_size', (0, 'abc')),
    ('train_cfg.max_iters', (0, -1, 1.5, 'abc')),
    ('train_cfg.val_interval', (0, -1, 1.5, 'abc')),
    ('train_dataloader.num_workers', (-1, 1.5, 'abc')),
    ('val_dataloader.batch_size', (0, )),
    ('randomness.seed', (-5, 2**32, 'abc')),
    ('auto_scale_lr.base_batch_size', (0, )),
    ('default_hooks.checkpoint.interval', (0, 'abc')),
    ('default_hooks.checkpoint.max_keep_ckpts', (0, )),
    ('default_hooks.logger.interval', (0, )),
    ('param_scheduler.0.end', (-3, )),
    ('log_level', ('LOUD', )),
    ('model', (5, None)),
    ('model.test_cfg', (True, )),
    ('visualizer', (True, )),
    ('val_evaluator.type', ('', 'abc')),
    ('test_evaluator', (True, )),
    ('model.decode_head', (None, [], [5])),
    ('model.auxiliary_head', (True, )),
    ('model.data_preprocessor', (True, [1])),
    ('model.backbone.drop_path_rate', (2, 1, 'abc')),
    ('model.decode_head.dropout_ratio', (2, 'abc')),
    ('model.auxiliary_head.channels', (0, )),
    ('model.decode_head.num_classes', (0, 'abc')),
    ('model.decode_head.loss_decode.class_weight', ('no file', ['a'])),
    ('model.data_preprocessor.std', ([0, 0, 0], )),
    ('model.data_preprocessor.size', ('abc', (64, ))),
    ('model.data_preprocessor.size_divisor', (32, )),
    ('model.test_cfg.mode', ('slidee', )),
    ('val_evaluator.iou_metrics', (['mIuO'], [], 'abc')),
    (PIPELINE, (True, )),
    (f'{PIPELINE}.2.scale', ((0, 0), )),
    (f'{PIPELINE}.2.ratio_range', ((-1, 2), )),
    (f'{PIPELINE}.3.crop_size', ((0, 0), 'abc', (16, 16), (512, 512))),
])
def test_a_value_that_a_setting_cannot_have_is_named_with_what_is_expected(key, values):
    for value in values:
        with pytest.raises(UserError) as error:
            load_config(CAMVID, {key: value})
        message = str(error.value)
        assert key in message and repr(value) in message and 'xpected: ' in message and 'Next: ' in message


@pytest.mark.parametrize('options', [
    {'train_dataloader.num_workers': 0, 'train_dataloader.persistent_workers': False},
    {'randomness.seed': 0}, {'default_hooks.checkpoint.max_keep_ckpts': -1}, {'optim_wrapper.clip_grad.max_norm': 1},
    {'model.decode_head.dropout_ratio': -1}, {'model.decode_head.loss_decode.class_weight': [1.] * 11},
    {f'{PIPELINE}.3.crop_size': (64, 64), 'model.data_preprocessor.size': (64, 64)},
    {f'{PIPELINE}.3.crop_size': 256}, {'val_evaluator.iou_metrics': ['mIoU', 'mDice']},
    {'model.test_cfg.mode': 'slide', 'model.test_cfg.crop_size': (256, 256), 'model.test_cfg.stride': (170, 170)}])
def test_a_value_that_a_setting_can_have_is_no_error(options):
    assert check_values(load_config(CAMVID, options)) == []


def test_workers_that_persist_where_there_are_none_are_an_error():
    with pytest.raises(UserError, match=r'train_dataloader.persistent_workers=False'):
        load_config(CAMVID, {'train_dataloader.num_workers': 0})


@pytest.mark.parametrize(('window', 'named'), [
    ({}, 'crop_size is None'), ({'crop_size': (64, 64)}, 'stride is None'),
    ({'crop_size': (64, 64), 'stride': (64, 65)}, r'stride is \(64, 65\)')])
def test_a_sliding_window_that_would_fail_at_the_first_validation_is_an_error(window, named):
    with pytest.raises(UserError, match=f'model.test_cfg.{named}'):
        load_config(CAMVID, {'model.test_cfg.mode': 'slide', **{f'model.test_cfg.{k}': v for k, v in window.items()}})


def test_crops_that_are_smaller_than_the_padded_images_are_said():
    line, = check_values(load_config(CAMVID, {f'{PIPELINE}.3.crop_size': (128, 128)}))
    assert '(128, 128)' in line and '(256, 256)' in line


# Where curves and pictures go


def test_a_backend_whose_package_is_missing_is_named_with_the_package_to_install(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None if name == 'mlflow' else found(name))
    for options in ({'visualizer.vis_backends.0.type': 'MLflowVisBackend'},
                    {'visualizer.vis_backends.1.type': 'MLflowVisBackend'}):
        with pytest.raises(UserError, match=r'MLflowVisBackend.*pip install mlflow'):
            load_config(CAMVID, options)
    with pytest.raises(UserError, match='pip install mlflow'):
        add_backends(load_config(CAMVID), ['mlflow'])


@pytest.mark.parametrize('backends', [
    'TensorboardVisBackend', ['TensorboardVisBackend'], [dict(type='TensorBoardVisBackend')]])
def test_a_backend_that_is_none_is_an_error_with_the_flag_that_is_meant(backends):
    with pytest.raises(UserError, match='--vis-backends TensorboardVisBackend'):
        load_config(CAMVID, {'visualizer.vis_backends': backends})


def test_backends_are_added_by_their_name_or_its_beginning_and_bring_sample_predictions():
    for name in ('tensorboard', 'TensorboardVisBackend'):
        cfg = load_config(CAMVID)
        add_backends(cfg, [name, 'local'])
        assert [backend.type for backend in cfg.visualizer.vis_backends] == ['LocalVisBackend', 'TensorboardVisBackend']
        assert cfg.default_hooks.visualization.type == 'SampleVisualizationHook'
    with pytest.raises(UserError, match=r'--vis-backends tensorbord.*TensorboardVisBackend'):
        add_backends(cfg, ['tensorbord'])
