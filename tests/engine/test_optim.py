"""Learning-rate decay against mmseg's own, and AMP on a CPU."""
import re

import pytest
import torch
import torch.nn as nn
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

from inceptionnext_seg.engine.optim import BFloat16OptimWrapper, check_precision
from inceptionnext_seg.errors import UserError


def build_segmentor(root, family, **backbone):
    init_default_scope('mmseg')
    cfg = Config.fromfile(root / f'configs/upernet_{family}_t_ade20k.py').model
    cfg.backbone.update(init_cfg=None, **backbone)
    cfg.decode_head.channels = cfg.auxiliary_head.channels = 8
    return MODELS.build(cfg)


def settings_by_name(model, constructor, **paramwise_cfg):
    """Parameter name -> (learning rate, weight decay), read from the built torch optimizer. Each is there once."""
    wrapper = build_optim_wrapper(model, dict(
        type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-4, weight_decay=0.05), constructor=constructor,
        paramwise_cfg=dict(decay_rate=0.9, num_layers=6, **paramwise_cfg)))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = [(names[id(parameter)], (group['lr'], group['weight_decay']))
             for group in wrapper.optimizer.param_groups for parameter in group['params']]
    assert len(dict(found)) == len(found)
    return dict(found)


def mmpretrain_name(name):
    """Our parameter's name in mmpretrain's ConvNeXt."""
    for pattern, theirs in (
            (r'backbone\.stem\.(\d)', r'backbone.downsample_layers.0.\1'),
            (r'backbone\.stages\.(\d)\.downsample\.(\d)', r'backbone.downsample_layers.\1.\2'),
            (r'backbone\.stages\.(\d)\.blocks\.(\d+)\.', r'backbone.stages.\1.\2.'),
            (r'\.token_mixer\.', '.depthwise_conv.'), (r'\.mlp\.fc(\d)\.', r'.pointwise_conv\1.')):
        name = re.sub(pattern, theirs, name)
    return name


@pytest.mark.logits_match
@pytest.mark.parametrize('decay_type', ['stage_wise', 'layer_wise'])
def test_convnext_gets_the_rates_and_weight_decays_of_mmseg_parameter_by_parameter(root, decay_type):
    try:
        from mmpretrain.models.backbones import ConvNeXt as MMConvNeXt
    except (ImportError, TypeError) as error:  # TypeError: transformers 5 beside mmpretrain 1.3
        pytest.skip(f'mmpretrain cannot be imported: {error}')
    ours, theirs = build_segmentor(root, 'convnext'), build_segmentor(root, 'convnext', arch='atto')
    theirs.backbone = MMConvNeXt('tiny', out_indices=[0, 1, 2, 3], gap_before_final_norm=False)
    found = settings_by_name(ours, 'MetaNeXtDecayOptimWrapperConstructor', decay_type=decay_type)
    expected = settings_by_name(theirs, 'mmseg.LearningRateDecayOptimizerConstructor', decay_type=decay_type)
    found = {mmpretrain_name(name): setting for name, setting in found.items()}
    assert found.keys() == expected.keys()
    different = {name: (found[name], expected[name]) for name in found if found[name] != pytest.approx(expected[name])}
    assert not different


# Multiplier by parameter, written down from mmseg's rule: 0.9 ** (7 - id), id 0 for the stem.
STAGE_WISE = {
    'backbone.stem.0.weight': 7, 'backbone.stages.1.downsample.1.weight': 7, 'backbone.stages.2.downsample.0.bias': 7,
    'backbone.stages.3.downsample.1.bias': 7,
    'backbone.stages.0.blocks.0.token_mixer.dwconv_hw.weight': 6, 'backbone.stages.0.blocks.2.gamma': 6,
    'backbone.stages.1.blocks.0.norm.weight': 5, 'backbone.stages.2.blocks.8.mlp.fc1.weight': 4,
    'backbone.stages.3.blocks.2.mlp.fc2.bias': 3, 'backbone.norm0.weight': 0, 'backbone.norm3.bias': 0,
    'decode_head.conv_seg.weight': 0, 'decode_head.fpn_bottleneck.bn.weight': 0, 'auxiliary_head.conv_seg.bias': 0}
LAYER_WISE = {
    'backbone.stem.1.bias': 7, 'backbone.stages.0.blocks.0.gamma': 6, 'backbone.stages.1.downsample.0.weight': 5,
    'backbone.stages.1.blocks.2.token_mixer.dwconv_w.weight': 5, 'backbone.stages.2.downsample.1.weight': 4,
    'backbone.stages.2.blocks.2.norm.bias': 4, 'backbone.stages.2.blocks.3.norm.bias': 3,
    'backbone.stages.2.blocks.5.mlp.fc1.weight': 3, 'backbone.stages.2.blocks.6.mlp.fc1.weight': 2,
    'backbone.stages.2.blocks.8.token_mixer.dwconv_h.bias': 2, 'backbone.stages.3.downsample.1.weight': 1,
    'backbone.stages.3.blocks.0.mlp.fc2.weight': 1, 'backbone.norm1.bias': 0, 'decode_head.conv_seg.bias': 0}


@pytest.fixture(scope='module')
def inception_segmentor(root):
    return build_segmentor(root, 'inceptionnext')


@pytest.mark.parametrize(('decay_type', 'powers'), [('stage_wise', STAGE_WISE), ('layer_wise', LAYER_WISE)])
def test_learning_rate_decay_reaches_inception_next_by_the_same_rule(inception_segmentor, decay_type, powers):
    found = settings_by_name(inception_segmentor, 'MetaNeXtDecayOptimWrapperConstructor', decay_type=decay_type)
    assert found.keys() == dict(inception_segmentor.named_parameters()).keys()
    for name, power in powers.items():
        assert found[name][0] == pytest.approx(1e-4 * 0.9**power), name


def test_every_weight_is_decayed_and_no_norm_bias_or_layer_scale(inception_segmentor):
    found = settings_by_name(inception_segmentor, 'MetaNeXtDecayOptimWrapperConstructor', decay_type='stage_wise')
    layers = dict(inception_segmentor.named_modules())
    for name, (_, weight_decay) in found.items():
        layer, _, kind = name.rpartition('.')
        decayed = kind == 'weight' and isinstance(layers[layer], (nn.Conv2d, nn.Linear))
        assert weight_decay == (0.05 if decayed else 0.), name


def test_frozen_parameters_are_in_no_group_and_every_other_one_in_exactly_one(root):
    model = build_segmentor(root, 'inceptionnext', frozen_stages=2)
    found = settings_by_name(model, 'MetaNeXtDecayOptimWrapperConstructor', decay_type='stage_wise')
    assert found.keys() == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert not any(name.startswith(('backbone.stem', 'backbone.stages.0', 'backbone.stages.1')) for name in found)


@pytest.mark.parametrize('paramwise_cfg', [
    None, dict(decay_rate=0.9), dict(decay_rate=0.9, num_layers=6, decay_type='stages'),
    dict(decay_rate=0.9, num_layers=6, decay_type='stage_wise', norm_decay_mult=0.)])
def test_a_wrong_paramwise_cfg_is_an_error_that_names_what_is_expected(paramwise_cfg):
    with pytest.raises(UserError, match=r"\['decay_rate', 'decay_type', 'num_layers'\].*'stage_wise' or 'layer_wise'"):
        build_optim_wrapper(nn.Linear(1, 1), dict(
            optimizer=dict(type='AdamW', lr=1.), constructor='MetaNeXtDecayOptimWrapperConstructor',
            paramwise_cfg=paramwise_cfg))


@pytest.mark.parametrize(('optimizer', 'default'), [('AdamW', 0.01), ('SGD', 0.)])
def test_an_optimizer_without_weight_decay_keeps_its_own_default(optimizer, default):
    model = nn.Linear(2, 2)
    wrapper = build_optim_wrapper(model, dict(
        optimizer=dict(type=optimizer, lr=1.), constructor='MetaNeXtDecayOptimWrapperConstructor',
        paramwise_cfg=dict(decay_rate=1., decay_type='stage_wise', num_layers=6)))
    model(torch.ones(1, 2)).sum().backward()
    wrapper.step()
    assert sorted(group['weight_decay'] for group in wrapper.optimizer.param_groups) == [0., default]


# AMP


def test_amp_on_a_cpu_computes_in_bfloat16_and_keeps_weights_and_gradients_in_float32():
    model = nn.Conv2d(3, 8, 3)
    wrapper = BFloat16OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1), accumulative_counts=1)
    image = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with wrapper.optim_context(model):
        output = model(image)
        assert output.dtype == torch.bfloat16
        loss = output.float().square().mean()
    torch.testing.assert_close(output.float(), model(image), rtol=0.02, atol=0.02)
    before = model.weight.detach().clone()
    wrapper.update_params(loss)
    assert model.weight.dtype == torch.float32
    assert not torch.equal(model.weight, before)
    assert model(image).dtype == torch.float32


@pytest.mark.parametrize(('asked', 'trained'), [
    ('OptimWrapper', 'BFloat16OptimWrapper'), ('AmpOptimWrapper', 'BFloat16OptimWrapper'),
    ('BFloat16OptimWrapper', 'OptimWrapper'), ('OptimWrapper', 'AmpOptimWrapper')])
def test_a_run_is_resumed_in_its_own_precision_by_what_the_error_says(asked, trained):
    """`--amp` alone is float16 on a GPU without bfloat16."""
    names = {'OptimWrapper': 'float32', 'BFloat16OptimWrapper': 'bfloat16', 'AmpOptimWrapper': 'float16'}
    with pytest.raises(UserError, match=rf'Next: --resume .*optim_wrapper\.type={trained}\b'):
        check_precision([names[asked]], [names[trained]])
    check_precision([names[trained]], [names[trained]])
    check_precision([names[asked]], None)
