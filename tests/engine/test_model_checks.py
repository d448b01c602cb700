"""Parts of a segmentor that do not fit each other are told by their settings, before an image is seen."""
from pathlib import Path
from types import SimpleNamespace

import mmseg.registry
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

from inceptionnext_seg.engine.launch import explain_errors, load_config
from inceptionnext_seg.engine.model_checks import channels_by_running, channels_of, check_model
from inceptionnext_seg.engine.settings_hook import SettingsCheckHook
from inceptionnext_seg.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
CAMVID = ROOT / 'configs/upernet_inceptionnext_a_camvid.py'
SMALL = {'model.decode_head.channels': 8, 'model.auxiliary_head.channels': 8,
         'model.backbone.arch': dict(_delete_=True, depths=(1, 1, 1, 1), dims=(8, 16, 24, 32))}
FITTING = {'model.decode_head.in_channels': [8, 16, 24, 32], 'model.auxiliary_head.in_channels': 24}


def build(**options):
    cfg = load_config(CAMVID, {**SMALL, **FITTING, **{f'model.{key}'.replace('__', '.'): value
                                                      for key, value in options.items()}})
    init_default_scope('mmseg')
    with explain_errors():
        return mmseg.registry.MODELS.build(cfg.model)


def test_parts_that_fit_are_no_error_and_stay_as_they_are():
    model = build().train()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    check_model(model)
    assert channels_by_running(model) == channels_of(model) == [8, 16, 24, 32]
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(('options', 'setting', 'expected'), [
    (dict(decode_head__in_channels=[96, 192, 384, 768]), 'model.decode_head.in_channels', r'\[8, 16, 24, 32\]'),
    (dict(auxiliary_head__in_channels=5), 'model.auxiliary_head.in_channels', '24'),
    (dict(decode_head__in_index=[0, 1, 2, 7]), 'model.decode_head.in_index', '0 to 3'),
    (dict(auxiliary_head__in_index=9), 'model.auxiliary_head.in_index', '0 to 3'),
    (dict(backbone__out_indices=(0, 1, 2)), 'model.decode_head.in_index', 'out_indices.*0 to 2'),
    (dict(backbone__in_channels=4), 'model.backbone.in_channels', '3'),
    (dict(decode_head__loss_decode__class_weight=[1, 2, 3]), r'model.decode_head.loss_decode.class_weight', '11'),
    (dict(decode_head__loss_decode__class_weight=[-1] + [1] * 10), r'loss_decode.class_weight', '0 or more'),
    (dict(data_preprocessor__size=(30, 64)), 'model.data_preprocessor.size', '32')])
def test_parts_that_do_not_fit_are_named_by_their_setting(options, setting, expected):
    if 'data_preprocessor__size' in options:
        model = build()
        model.data_preprocessor.size = options['data_preprocessor__size']
    else:
        model = build(**options)
    with pytest.raises(UserError, match=f'{setting}.*{expected}'):
        check_model(model)


@pytest.mark.parametrize(('options', 'named'), [
    (dict(backbone__arch=5), '5'), (dict(backbone__out_indices='abc'), "'abc'"),
    (dict(backbone__out_indices=(0, 9)), '9'), (dict(decode_head__in_channels=[8, 16]), 'in_channels'),
    (dict(data_preprocessor__mean=[1, 2]), '2 values')])
def test_what_a_part_itself_refuses_is_one_message(options, named):
    with pytest.raises(UserError, match=named):
        build(**options)


def test_a_backbone_from_elsewhere_is_asked_by_running_it():
    model = build(backbone=dict(_delete_=True, type='ResNetV1c', depth=18))
    with pytest.raises(UserError, match=r'model.decode_head.in_channels.*\[64, 128, 256, 512\]'):
        check_model(model)


def test_channels_of_a_first_convolution_of_groups_are_counted_once():
    model = torch.nn.Module()
    model.backbone = torch.nn.Conv2d(4, 6, 3, groups=2)
    model.extract_feat = lambda images: [model.backbone(images)]
    assert channels_by_running(model) == [6]


def test_under_any_tool_the_hook_finds_what_the_tools_of_this_package_find():
    cfg = Config.fromfile(CAMVID)
    runner = SimpleNamespace(cfg=cfg, model=build(), _train_loop={}, _val_loop={}, _test_loop={})
    SettingsCheckHook().before_run(runner)
    cfg.train_cfg.val_interval = 0
    with pytest.raises(UserError, match=r'train_cfg\.val_interval is 0'):
        SettingsCheckHook().before_run(runner)
    cfg.train_cfg.val_interval = 5
    cfg.model.test_cfg.mod = 'slide'
    with pytest.raises(UserError, match=r'model\.test_cfg\.mod'):
        SettingsCheckHook().before_run(runner)
    del cfg.model.test_cfg['mod']
    data = SimpleNamespace(dataset=SimpleNamespace(metainfo=dict(classes=('a', 'b'))))
    runner._train_loop = SimpleNamespace(dataloader=data)
    with pytest.raises(UserError, match=r'num_classes is 11, but the data set .* 2 classes'):
        SettingsCheckHook().before_run(runner)
