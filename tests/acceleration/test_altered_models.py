"""Models that someone altered, before ``accelerate`` or after it, compute what the plain model, so altered, does."""
import copy

import pytest
import torch
import torch.nn as nn
from helpers import assert_close, draw
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.parametrize import remove_parametrizations

from inceptionnext_seg import InceptionNeXt, accelerate, restore
from inceptionnext_seg._fast import Fast
from inceptionnext_seg.errors import SettingError
from inceptionnext_seg.ops import _native as native
from inceptionnext_seg.ops import batch_norm_act, norm_mlp
from inceptionnext_seg.ops.upsampled_cross_entropy import upsampled_argmax, upsampled_cross_entropy

ARCH = dict(depths=(1, 1, 2, 1), dims=(16, 24, 32, 40))
PYRAMID = dict(in_channels=[8, 12, 16, 20], in_index=[0, 1, 2, 3], channels=16)
HEADS = dict(
    upernet=dict(type='UPerHead', **PYRAMID), psp=dict(type='PSPHead', in_channels=20, in_index=3, channels=16),
    fcn=dict(type='FCNHead', in_channels=8, in_index=0, channels=16, num_convs=2, concat_input=True),
    fpn=dict(type='FPNHead', **PYRAMID, feature_strides=[4, 8, 16, 32]))


@pytest.fixture(autouse=True)
def small_maps_too(monkeypatch):
    monkeypatch.setattr(norm_mlp, 'LEAST_HIDDEN', 0)


def backbone(**settings):
    torch.manual_seed(0)
    model = InceptionNeXt(ARCH, **{'layer_scale_init_value': 0.5, **settings}).double()
    for name, parameter in model.named_parameters():
        if name.endswith('bias'):
            nn.init.uniform_(parameter, -0.5, 0.5)
    return model


def head(name, **settings):
    init_default_scope('mmseg')
    torch.manual_seed(0)
    return MODELS.build(dict(
        dict(HEADS[name], num_classes=5, norm_cfg=dict(type='BN'), align_corners=False, dropout_ratio=0.5,
             loss_decode=dict(type='CrossEntropyLoss')), **settings)).double()


def maps():
    return [draw(2, channels, size, size + 8, seed=i) for i, (channels, size) in enumerate(
        zip(PYRAMID['in_channels'], (32, 16, 8, 4), strict=True))]


def run(model, inputs):
    """Outputs, gradients and buffers, by name, with one seed for what is drawn; ``model`` stays as it is."""
    model = copy.deepcopy(model)
    torch.manual_seed(1)
    outputs = model(inputs)
    outputs = dict(enumerate(outputs if isinstance(outputs, tuple) else [outputs]))
    sum((y * draw(*y.shape, seed=2)).sum() for y in outputs.values()).backward()
    return dict(
        outputs, **{name: p.grad for name, p in model.named_parameters() if p.grad is not None},
        **{f'{name} after': value.double() for name, value in model.named_buffers()})


def assert_same_when_accelerated(build, change, inputs, training=True):
    """Altered before the call and after it; the alteration itself must move the output."""
    plain = build().train(training)
    before = run(plain, inputs)
    change(plain)
    expected = run(plain, inputs)
    assert any(not torch.allclose(before[i], expected[i]) for i in expected if isinstance(i, int))
    for accelerate_first in (False, True):
        fast = build().train(training)
        if accelerate_first:
            accelerate(fast)
        change(fast)
        if not accelerate_first:
            accelerate(fast)
        assert_close(run(fast, inputs), expected, 1e-10, floor=1e-4)


# Token mixers and blocks


def replicate(model):
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.padding_mode = 'replicate'


def dilate(model):
    conv = model.stages[0].blocks[0].token_mixer.dwconv_w
    conv.dilation, conv.padding = (1, 2), (0, 2 * conv.padding[1])


def remove_bias(model):
    model.stages[2].blocks[0].token_mixer.dwconv_h.bias = None


def widen_fc1(model):
    torch.manual_seed(3)
    model.stages[1].blocks[0].mlp.fc1 = nn.Conv2d(24, 96, 3, padding=1).double()


def group_fc2(model):
    torch.manual_seed(3)
    model.stages[1].blocks[0].mlp.fc2 = nn.Conv2d(96, 24, 1, groups=4).double()


class ChannelSoftmax(nn.Module):
    def forward(self, x):
        return x.softmax(1)


def activate_across_channels(model):
    for stage in model.stages:
        for block in stage.blocks:
            block.mlp.act = ChannelSoftmax()


def use_one_slope_a_channel(model):
    # With as many rows as channels, a slope for each row would be no error.
    block = model.stages[0].blocks[0]
    block.mlp.act = nn.PReLU(64).double()
    with torch.no_grad():
        block.mlp.act.weight.copy_(torch.linspace(0, 1, 64))


@pytest.mark.parametrize('change', [
    replicate, dilate, remove_bias, widen_fc1, group_fc2, activate_across_channels, use_one_slope_a_channel],
    ids=lambda change: change.__name__)
def test_a_backbone_whose_layers_were_altered_computes_as_the_plain_one(change):
    assert_same_when_accelerated(lambda: backbone().eval(), change, draw(2, 3, 256, 64), training=False)


def forget_statistics(model):
    """As test-time adaptation does: normalize by the batch in evaluation, too."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = module.running_var = None


@pytest.mark.parametrize('training', [False, True], ids=['eval', 'train'])
def test_norms_without_running_statistics_normalize_by_the_batch(training):
    plain, fast = (backbone(out_norm_cfg=dict(type='BN')).train(training) for _ in range(2))
    accelerate(fast)
    forget_statistics(plain)
    forget_statistics(fast)
    assert_close(run(fast, draw(2, 3, 64, 64)), run(plain, draw(2, 3, 64, 64)), 1e-10, floor=1e-4)


# Heads


class DoubledPooling(nn.Module):
    def __init__(self, pooling):
        super().__init__()
        self.pooling = pooling

    def forward(self, x):
        return [2 * y for y in self.pooling(x)]

    def __iter__(self):
        return iter(self.pooling)


def double_pooling(module):
    module.psp_modules = DoubledPooling(module.psp_modules)


def double_pooled_by_a_hook(module):
    module.psp_modules.register_forward_hook(lambda _, inputs, outputs: [2 * y for y in outputs])


def negate_convs(module):
    module.convs.register_forward_hook(lambda _, inputs, output: -output)


def negate_scale_heads(module):
    for scale_head in module.scale_heads:
        scale_head.register_forward_hook(lambda _, inputs, output: -output)


def upsample_to_the_nearest(module):
    for layer in module.modules():
        if hasattr(layer, 'scale_factor'):
            layer.mode, layer.align_corners = 'nearest', None


def clip_where_channels_were_dropped(module):
    module.dropout = nn.Hardtanh(-0.1, 0.1)


@pytest.mark.parametrize('name, change', [
    ('upernet', double_pooling), ('upernet', double_pooled_by_a_hook), ('psp', double_pooled_by_a_hook),
    ('fcn', negate_convs), ('fpn', negate_scale_heads), ('fpn', upsample_to_the_nearest),
    ('fcn', clip_where_channels_were_dropped), ('upernet', clip_where_channels_were_dropped)])
def test_a_head_whose_layers_were_altered_computes_as_the_plain_one(name, change):
    assert_same_when_accelerated(lambda: head(name), change, maps())


def test_norms_in_the_place_of_syncbn_run_as_fast_as_batch_norms(monkeypatch):
    """A run of one process turns every SyncBN of a stock config into mmengine's own batch norm."""
    if native.why_not('batch_norm'):
        pytest.skip('no C++ compiler')
    plain = revert_sync_batchnorm(head('fcn', norm_cfg=dict(type='SyncBN')))
    fast = copy.deepcopy(plain)
    accelerate(fast)
    monkeypatch.setattr(batch_norm_act, 'LEAST_VALUES', 0)
    calls, function = [], native.function
    monkeypatch.setattr(native, 'function', lambda *name: calls.append(name) or function(*name))
    found = run(fast, maps())
    assert ('batch_norm', 'transform_f64') in calls
    assert_close(found, run(plain, maps()), 1e-10, floor=1e-4)


# Classes derived from fast ones


@pytest.mark.parametrize('path', ['stem.0', 'stages.1.downsample.0'])
def test_a_layer_that_was_parametrized_after_the_call_survives_another_call_and_restore(path):
    image = draw(2, 3, 64, 64)
    plain, fast = backbone().eval(), backbone().eval()
    accelerate(fast)
    for model in (plain, fast):
        weight_norm(model.get_submodule(path), dim=None)
        with torch.no_grad():
            model.get_submodule(path).parametrizations.weight.original0.mul_(2)
    expected = run(plain, image)
    assert_close(run(fast, image), expected, 1e-10, floor=1e-4)
    accelerate(fast)
    assert_close(run(fast, image), expected, 1e-10, floor=1e-4)
    assert_close(run(restore(fast), image), expected, 1e-10, floor=1e-4)
    for model in (plain, fast):
        remove_parametrizations(model.get_submodule(path), 'weight')
    assert_close(run(restore(fast), image), run(plain, image), 1e-10, floor=1e-4)
    assert not any(isinstance(module, Fast) for module in fast.modules())


def test_a_fast_class_that_is_built_directly_can_be_restored():
    norm = type(accelerated().norm0)(4)
    assert type(restore(norm)) is nn.BatchNorm2d


def accelerated():
    model = backbone(out_norm_cfg=dict(type='BN'))
    accelerate(model)
    return model


# Layouts and devices


def test_parameters_of_five_dimensions_keep_their_layout():
    model = nn.ModuleDict(dict(video=nn.Conv3d(3, 4, 3), backbone=backbone().eval()))
    assert accelerate(model).channels_last
    assert model.video.weight.is_contiguous()
    assert model.backbone.stem[0].weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize('first', ['backbone', 'whole'])
def test_a_model_of_which_a_part_was_accelerated_too_gets_its_layout_back(first):
    model = nn.ModuleDict(dict(backbone=backbone(), other=nn.Conv2d(3, 4, 3)))
    strides = {name: p.stride() for name, p in model.named_parameters()}
    for part in (model.backbone, model) if first == 'backbone' else (model, model.backbone):
        accelerate(part)
    restore(model)
    assert {name: p.stride() for name, p in model.named_parameters()} == strides
    assert not any('_was_contiguous' in vars(module) for module in model.modules())


def test_a_model_that_was_accelerated_in_inference_mode_can_be_trained():
    model = backbone().train()
    with torch.inference_mode():
        accelerate(model)
        model.eval()(draw(2, 3, 64, 64))
    assert_close(run(model.train(), draw(2, 3, 64, 64)), run(backbone().train(), draw(2, 3, 64, 64)), 1e-10, 1e-4)


@pytest.mark.parametrize('training', [False, True], ids=['eval', 'train'])
def test_whatever_the_default_device_a_model_on_the_cpu_runs_there(training):
    """A buffer on a default device that a C++ kernel cannot write to is a crash."""
    plain, fast = (nn.Sequential(backbone(out_norm_cfg=dict(type='BN')), head('upernet', in_channels=ARCH['dims']))
                   for _ in range(2))
    accelerate(fast)
    expected = run(plain.train(training), draw(2, 3, 96, 128))
    image, labels = draw(2, 3, 96, 128), torch.arange(2 * 95 * 127).view(2, 95, 127) % 5
    torch.manual_seed(1)
    with torch.device('meta'):
        logits = fast.train(training)(image)
        loss = upsampled_cross_entropy(logits, labels).loss
        loss.backward()
        classes = upsampled_argmax(logits, (95, 127))
    assert_close(logits, expected[0], 1e-10)
    large = nn.functional.interpolate(expected[0], (95, 127), mode='bilinear')
    assert_close(loss, nn.functional.cross_entropy(large, labels, reduction='sum'), 1e-10)
    assert torch.equal(classes, large.argmax(1))


def test_zero_is_no_setting_of_a_part():
    with pytest.raises(SettingError, match='loss'):
        accelerate(backbone(), loss=0)


# Libraries


def test_a_library_whose_decoders_cannot_be_imported_is_left_and_the_report_says_so(monkeypatch):
    from inceptionnext_seg import acceleration
    monkeypatch.setitem(acceleration.FINDERS, 'mmseg', 'inceptionnext_seg.acceleration.no_such_finder')
    model = nn.ModuleList([backbone(), head('fcn')])
    report = accelerate(model)
    assert 'no_such_finder' in report.left['mmseg'] and '0' not in report.left


# Forwards


def test_a_forward_that_was_wrapped_after_the_call_survives_restore():
    """As Hugging Face's accelerate wraps it, for weights that are elsewhere until the call."""
    plain, fast = backbone().eval(), backbone().eval()
    accelerate(fast)
    for model in (plain, fast):
        block = model.stages[0].blocks[0]
        block.forward = lambda x, forward=block.forward: 2 * forward(x)
    expected = list(plain(draw(2, 3, 64, 64)))
    assert_close(list(fast(draw(2, 3, 64, 64))), expected, 1e-10)
    assert_close(list(restore(fast)(draw(2, 3, 64, 64))), expected, 1e-10)
    report = accelerate(fast)
    assert 'forward' in report.left['stages.0.blocks.0']
    assert_close(list(fast(draw(2, 3, 64, 64))), expected, 1e-10)
