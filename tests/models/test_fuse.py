"""The deploy form: the function of the model that was trained, with fewer layers, and no way to misuse it.

Weights, statistics and layer scales are drawn far from those of a new model, whose BatchNorms do nothing.
"""
import copy
import io
import logging
import subprocess
import sys

import pytest
import timm
import torch
import torch.nn as nn
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from mmengine.runner.checkpoint import _load_checkpoint_to_model
from mmseg.registry import MODELS
from test_metanext import INCEPTION_NEXT, SMALL, assert_equal_to, draw_image, randomize, timm_features, without_head
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import TorchDispatchMode

from inceptionnext_seg import ConvNeXt, InceptionNeXt, accelerate, fuse_for_inference
from inceptionnext_seg.errors import UserError
from inceptionnext_seg.models.checkpoint import load_pretrained
from inceptionnext_seg.models.folded import Folded
from inceptionnext_seg.models.macs import count_macs
from inceptionnext_seg.models.metanext import ConvMlp, MetaNeXtBlock

DEEP = dict(depths=(2, 1, 2, 1), dims=SMALL['dims'])
BN_OUT = dict(out_norm_cfg=dict(type='BN'))


@pytest.fixture
def log(monkeypatch):
    """What fusing logged."""
    messages = []
    handler = logging.Handler()
    handler.addFilter(lambda record: record.getMessage().startswith('Fused'))
    handler.emit = lambda record: messages.append(record.getMessage())
    monkeypatch.setattr(MMLogger.get_current_instance(), 'handlers', [handler])
    return messages


def segmentor(head='UPerHead', norm='BN', family='InceptionNeXt', **backbone):
    """A small segmentor as in the configs, its head of 8 channels, 5 classes, with random weights."""
    init_default_scope('mmseg')
    norm_cfg, dims = dict(type=norm), SMALL['dims']
    heads = dict(
        UPerHead=dict(in_channels=dims, in_index=(0, 1, 2, 3), pool_scales=(1, 2), align_corners=False),
        FCNHead=dict(in_channels=dims[3], in_index=3, num_convs=2, concat_input=True),
        FPNHead=dict(in_channels=(8, ) * 4, in_index=(0, 1, 2, 3), feature_strides=(4, 8, 16, 32)))
    fpn = dict(type='FPN', in_channels=list(dims), out_channels=8, num_outs=4, norm_cfg=norm_cfg)
    last = dict(channels=8, num_classes=5, dropout_ratio=0.1, norm_cfg=norm_cfg)
    auxiliary = dict(type='FCNHead', in_channels=dims[2], in_index=2, num_convs=1, concat_input=False, **last)
    return randomize(MODELS.build(dict(
        type='EncoderDecoder',
        backbone=dict(type=family, arch=DEEP, drop_path_rate=0.2, **backbone) | dict(
            norm_cfg=norm_cfg, out_norm_cfg=norm_cfg),
        neck=fpn if head == 'FPNHead' else None,
        decode_head=dict(type=head, **heads[head], **last),
        auxiliary_head=None if head == 'FPNHead' else auxiliary)))


def outputs(model, image):
    """Of a backbone the features, of a segmentor the logits of each head."""
    if not hasattr(model, 'extract_feat'):
        return model(image)
    features = model.extract_feat(image)
    heads = [model.decode_head] + ([model.auxiliary_head] if model.with_auxiliary_head else [])
    return [head(features) for head in heads]


def batch_norms(model):
    return [name for name, module in model.named_modules() if isinstance(module, _BatchNorm)]


def number_of_parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


def assert_fused_is_the_same_function(model, tolerance, *image_shape):
    dtype = next(model.parameters()).dtype
    image = draw_image(*image_shape, dtype=dtype)
    fused = fuse_for_inference(model)
    with torch.no_grad():
        assert_equal_to(tolerance, outputs(fused, image), outputs(copy.deepcopy(model).eval(), image))
    return fused


# Backbones


@pytest.mark.logits_match
@pytest.mark.parametrize('arch', INCEPTION_NEXT)
def test_a_fused_inception_next_has_no_norm_left_and_gives_the_features_of_timm(arch):
    # On meta first, which spares the initialization.
    with torch.device('meta'):
        ours, theirs = InceptionNeXt(arch), timm.create_model(f'inception_next_{arch}')
    theirs = randomize(theirs.to_empty(device='cpu')).eval()
    ours.load_state_dict(without_head(theirs), assign=True)
    fused = fuse_for_inference(ours)
    image = draw_image(1, 3, 65, 97)
    with torch.no_grad():
        assert_equal_to(1e-5, fused(image), timm_features(theirs, image))
    assert not batch_norms(fused) and all(block.gamma is None for stage in fused.stages for block in stage.blocks)
    # A norm has a weight and a bias for each channel, a layer scale a factor; every convolution had a bias already.
    c, depths = ours.dims, [len(stage.blocks) for stage in ours.stages]
    less = 2 * c[0] + 2 * sum(c[:3]) + sum(3 * depth * channels for depth, channels in zip(depths, c, strict=True))
    assert number_of_parameters(fused) == number_of_parameters(ours) - less


@pytest.mark.logits_match
def test_a_fused_inception_next_gives_the_features_of_timm_in_float64():
    theirs = randomize(timm.create_model('inception_next_atto').double()).eval()
    ours = InceptionNeXt('atto').double()
    ours.load_state_dict(without_head(theirs))
    image = draw_image(2, 3, 97, 131, dtype=torch.float64)
    with torch.no_grad():
        assert_equal_to(1e-10, fuse_for_inference(ours)(image), timm_features(theirs, image))


SETTINGS = {
    'output norms': BN_OUT,
    'token mixer per stage': dict(token_mixer=[
        dict(type='DWConv2d', kernel_size=5), None, dict(type='InceptionDWConv2d'), dict(type='DWConv2d')]),
    'no layer scale': dict(layer_scale_init_value=0, drop_path_rate=0.3),
    'layer scale None': dict(layer_scale_init_value=None),
    'no affine': dict(norm_cfg=dict(type='BN', affine=False)),
    'eps': dict(norm_cfg=dict(type='BN', eps=0.1)),
    'SyncBN': dict(norm_cfg=dict(type='SyncBN'), out_norm_cfg=dict(type='SyncBN')),
    'no norm': dict(norm_cfg=None),
    'frozen stages': dict(frozen_stages=2, norm_eval=True),
    'two outputs': dict(out_indices=(1, 2), out_norm_cfg=dict(type='LN2d')),
    'activation': dict(act_cfg=dict(type='ReLU', inplace=True), drop_path_rate=0.5),
}


@pytest.mark.parametrize('settings', SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize('family', [InceptionNeXt, ConvNeXt])
def test_fusing_is_exact_whatever_the_settings_of_the_backbone(family, settings):
    if family is ConvNeXt:
        settings = dict(dict(norm_cfg=dict(type='BN'), out_norm_cfg=None), **settings)
    model = randomize(family(DEEP, **settings).double())
    fused = assert_fused_is_the_same_function(model, 1e-10, 2, 3, 97, 131)
    assert all(name.startswith('norm') for name in batch_norms(fused))
    assert not any(name.endswith('gamma') for name in fused.state_dict())


def test_of_convnext_layer_scale_alone_is_folded_and_each_norm_stays():
    model = randomize(ConvNeXt(DEEP, drop_path_rate=0.1).double())
    fused = assert_fused_is_the_same_function(model, 1e-10, 2, 3, 65, 97)
    assert model.state_dict().keys() - fused.state_dict().keys() == {
        name for name in model.state_dict() if name.endswith('gamma')}
    assert number_of_parameters(fused) == number_of_parameters(model) - (2 * 16 + 32 + 2 * 48 + 64)


def test_a_fused_block_is_its_input_plus_the_mlp_of_the_token_mixer():
    block = fuse_for_inference(randomize(InceptionNeXt(SMALL, drop_path_rate=0.5).double())).stages[3].blocks[0]
    x = draw_image(2, 64, 7, 5, dtype=torch.float64)
    fc1, fc2 = block.mlp.fc1, block.mlp.fc2
    hidden = F.gelu(F.conv2d(block.token_mixer(x), fc1.weight, fc1.bias))
    assert_equal_to(1e-12, [block(x)], [x + F.conv2d(hidden, fc2.weight, fc2.bias)])
    assert {name.split('.')[0] for name in block.state_dict()} == {'token_mixer', 'mlp'}


class Operators(TorchDispatchMode):
    """The names of the operators that run."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        self.names.append(operator.overloadpacket.__name__)
        return operator(*args, **(kwargs or {}))


@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last], ids=['nchw', 'nhwc'])
def test_the_mlp_of_an_accelerated_fused_block_is_two_matrix_products_that_add_the_bias(layout):
    model = fuse_for_inference(InceptionNeXt(SMALL))
    accelerate(model, blocks='torch')
    with torch.no_grad(), Operators() as operators:
        model.stages[0].blocks[0](draw_image(2, 16, 8, 8).contiguous(memory_format=layout))
    # Not 'bmm', to which torch turns for a map that is not contiguous and a weight without gradient: far slower.
    assert [name for name in operators.names if name in ('addmm', 'mm', 'bmm', 'gelu')] == ['addmm', 'gelu', 'addmm']


def test_a_downsampling_worked_by_hand():
    model = InceptionNeXt(dict(depths=(1, 1), dims=(8, 16)), out_indices=(1, ))
    norm, conv = model.stages[1].downsample
    norm.eps = 1.
    for tensor, value in ((norm.running_mean, 1.), (norm.running_var, 3.), (norm.weight, 6.), (norm.bias, 5.),
                          (conv.weight, 0.5), (conv.bias, 7.)):
        nn.init.constant_(tensor, value)
    folded = fuse_for_inference(model).stages[1].downsample[1]
    # The norm is 6 / √(3 + 1) (x - 1) + 5 = 3 x + 2; 8 channels of 2×2 pixels carry its shift of 2 with weight 0.5.
    assert torch.equal(folded.weight, torch.full((16, 8, 2, 2), 1.5))
    assert torch.equal(folded.bias, torch.full((16, ), 7. + 8 * 4 * 0.5 * 2))


# Backbones that someone altered


class NormFirst(MetaNeXtBlock):
    """A block of a subclass, whose forward calls the parts in another order."""

    def forward(self, x):
        return x + self.mlp(self.token_mixer(self.norm(x)))


class GatedMlp(ConvMlp):
    """An MLP that uses the norm's output twice."""

    def forward(self, x):
        return super().forward(x) * x


def blocks(model):
    return [block for stage in model.stages for block in stage.blocks]


def norm_first(model):
    for block in blocks(model):
        block.__class__ = NormFirst


def gate(model):
    for block in blocks(model):
        block.mlp.__class__ = GatedMlp


def overlap(model):
    model.stages[1].downsample[1] = randomize(nn.Conv2d(16, 32, 3, stride=2, padding=1).double())


def widen_fc1(model):
    model.stages[1].blocks[0].mlp.fc1 = randomize(nn.Conv2d(32, 128, 3, padding=1).double())


def group_fc1(model):
    model.stages[1].blocks[0].mlp.fc1 = randomize(nn.Conv2d(32, 128, 1, groups=4).double())


def lengthen_stem(model):
    model.stem.append(nn.GELU())


def negate_norms(model):
    for block in blocks(model):
        block.norm.register_forward_hook(lambda norm, inputs, output: -output)


def negate_convolutions(model):
    model.stem[0].register_forward_hook(lambda conv, inputs, output: -output)


def scale_after_layer_scale(model):
    for block in blocks(model):
        block.drop_path = nn.Hardtanh(-0.1, 0.1)


@pytest.mark.parametrize('change', [
    norm_first, gate, overlap, widen_fc1, group_fc1, lengthen_stem, negate_norms, negate_convolutions,
    scale_after_layer_scale], ids=lambda change: change.__name__)
def test_a_backbone_that_someone_altered_is_the_same_function_fused(change):
    model = randomize(InceptionNeXt(DEEP).double()).eval()
    image = draw_image(2, 3, 65, 97, dtype=torch.float64)
    before = model(image)
    change(model)
    assert not all(torch.allclose(a, b) for a, b in zip(before, model(image), strict=True))
    assert_fused_is_the_same_function(model, 1e-10, 2, 3, 65, 97)


def test_a_stem_with_a_layer_more_is_folded_all_the_same():
    model = InceptionNeXt(DEEP)
    lengthen_stem(model)
    assert isinstance(fuse_for_inference(model).stem[1], Folded)


def test_gradient_checkpointing_with_gradients_on_changes_nothing():
    model = randomize(InceptionNeXt(DEEP, with_cp=True).double())
    image = draw_image(2, 3, 64, 64, dtype=torch.float64).requires_grad_()
    fused = fuse_for_inference(model)
    found, wanted = fused(image), model.eval()(image)
    assert_equal_to(1e-10, found, wanted)
    assert_equal_to(1e-10, *(torch.autograd.grad(sum(f.sum() for f in features), image)
                             for features in (found, wanted)))


@pytest.mark.parametrize('family', [InceptionNeXt, ConvNeXt])
def test_channels_last_is_kept_in_weights_and_features(family):
    model = randomize(family(DEEP)).to(memory_format=torch.channels_last)
    fused = fuse_for_inference(model)
    image = draw_image(2, 3, 97, 131)
    features = fused(image.contiguous(memory_format=torch.channels_last))
    assert_equal_to(1e-5, features, model.eval()(image))
    assert all(feature.is_contiguous(memory_format=torch.channels_last) for feature in features)
    found, wanted = fused.state_dict(), model.state_dict()
    assert all(value.stride() == wanted[name].stride() for name, value in found.items())


@pytest.mark.parametrize('channels_last', [False, True], ids=['nchw', 'nhwc'])
def test_bf16_weights_stay_bf16_and_are_as_near_to_float64_as_before(channels_last):
    model = randomize(InceptionNeXt(DEEP, **BN_OUT)).bfloat16().eval()
    image = draw_image(2, 3, 97, 131).bfloat16()
    if channels_last:
        model, image = (value.to(memory_format=torch.channels_last) for value in (model, image))
    fused = fuse_for_inference(model)
    with torch.no_grad():
        found, before = fused(image), model(image)
        exact = copy.deepcopy(model).double()(image.double())
    assert {value.dtype for value in fused.parameters()} == {torch.bfloat16}
    for a, b, wanted in zip(found, before, exact, strict=True):
        error, error_before = ((features - wanted).norm() / wanted.norm() for features in (a, b))
        assert a.dtype == torch.bfloat16 and error < 1.5 * error_before < 0.03


@pytest.mark.compile
@pytest.mark.filterwarnings('ignore::torch.jit.TracerWarning')
def test_a_fused_model_is_compiled_and_traced_as_any():
    fused = fuse_for_inference(randomize(InceptionNeXt(SMALL)))
    image = draw_image(2, 3, 64, 64)
    wanted = fused(image)
    assert_equal_to(1e-5, torch.compile(fused, fullgraph=True, backend='aot_eager')(image), wanted)
    assert_equal_to(1e-5, torch.jit.trace(fused, image)(image), wanted)


# Segmentors


@pytest.mark.parametrize('norm', ['BN', 'SyncBN'])
@pytest.mark.parametrize('head, folded', [
    # stem 1, downsamplings 3, blocks 6, and of the heads:
    ('UPerHead', 10 + 2 + 1 + 3 + 3 + 1 + 1),   # poolings, bottleneck, laterals, FPN, its bottleneck; auxiliary
    ('FCNHead', 10 + 2 + 1 + 1),                # convolutions, conv_cat; auxiliary
    ('FPNHead', 10 + 8 + 1 + 1 + 2 + 3),        # of the neck: laterals and outputs; scale heads
])
def test_a_fused_segmentor_gives_the_same_logits_and_keeps_the_output_norms_alone(head, folded, norm):
    model = segmentor(head, norm).double()
    fused = assert_fused_is_the_same_function(model, 1e-10, 2, 3, 97, 131)
    assert batch_norms(fused) == [f'backbone.norm{i}' for i in range(4)]
    assert len(batch_norms(model)) == folded + 4
    assert not any(isinstance(module, nn.Dropout2d) for module in fused.modules())
    assert_fused_is_the_same_function(model.float(), 1e-5, 2, 3, 64, 64)


def test_a_fused_convnext_segmentor_has_the_norms_of_its_heads_folded():
    model = segmentor(family='ConvNeXt', norm='BN').double()
    model.backbone = randomize(ConvNeXt(DEEP, drop_path_rate=0.1).double())
    fused = assert_fused_is_the_same_function(model, 1e-10, 2, 3, 65, 97)
    assert not batch_norms(fused) and len(batch_norms(model)) == 11


def test_macs_stay_and_parameters_become_fewer():
    model = segmentor().eval().requires_grad_(False).to('meta')
    fused = fuse_for_inference(model)
    images = torch.empty(1, 3, 64, 64, device='meta')
    macs = [count_macs(candidate.backbone, images) for candidate in (model, fused)]
    assert macs[0][''] == macs[1][''] > 0
    # Norms: two for each channel, but in the heads, whose convolutions get a bias. Layer scales: one.
    norms = 2 * (16 + (16 + 32 + 48) + (2 * 16 + 32 + 2 * 48 + 64))
    assert number_of_parameters(model) - number_of_parameters(fused) == norms + (32 + 32 + 96 + 64) + 8 * 11


CONV_MODULES = {
    'bias': dict(bias=True),
    'activation in place': dict(act_cfg=dict(type='LeakyReLU'), inplace=True),
    'no activation': dict(act_cfg=None),
    'activation first': dict(order=('act', 'conv', 'norm')),
    'reflected padding': dict(padding_mode='reflect'),
    'groups, stride, dilation': dict(groups=3, stride=2, dilation=2),
    'no affine': dict(norm_cfg=dict(type='BN', affine=False)),
    'fused on the fly': dict(efficient_conv_bn_eval=True),
}


@pytest.mark.filterwarnings('ignore:Unnecessary conv bias')
@pytest.mark.parametrize('settings', CONV_MODULES.values(), ids=CONV_MODULES)
def test_each_kind_of_conv_module_is_folded_exactly(settings):
    settings = dict(dict(padding=1, norm_cfg=dict(type='BN')), **settings)
    model = nn.Sequential(randomize(ConvModule(6, 9, 3, **settings).double()))
    image = draw_image(2, 6, 9, 8, dtype=torch.float64)
    fused = fuse_for_inference(model)
    # In place, an activation that comes first changes its input.
    assert_equal_to(1e-12, [fused(image.clone())], [model.eval()(image.clone())])
    assert not batch_norms(fused) and fused[0].conv.bias is not None and fused[0].conv is not model[0].conv


STAYING = {
    'norm first': (dict(order=('norm', 'conv', 'act')), 'not known to stand beside one plain convolution'),
    'activation between': (dict(order=('conv', 'act', 'norm')), 'not known to stand beside one plain convolution'),
    'spectral norm': (dict(with_spectral_norm=True), 'not known to stand beside one plain convolution'),
    'standardized weight': (dict(conv_cfg=dict(type='ConvWS')), 'not known to stand beside one plain convolution'),
    'no statistics': (dict(norm_cfg=dict(type='BN', track_running_stats=False)), 'without running statistics'),
    'instance norm': (dict(norm_cfg=dict(type='IN')), 'InstanceNorm2d, depends on the image'),
    'group norm': (dict(norm_cfg=dict(type='GN', num_groups=3)), 'GroupNorm, depends on the image'),
}


@pytest.mark.parametrize('settings, why', STAYING.values(), ids=STAYING)
def test_a_norm_that_cannot_be_folded_stays_and_the_log_says_which_and_why(log, settings, why):
    settings = dict(dict(padding=1, norm_cfg=dict(type='BN')), **settings)
    model = nn.ModuleDict(dict(head=randomize(ConvModule(6, 6, 3, **settings).double())))
    fused = fuse_for_inference(model)
    image = draw_image(2, 6, 9, 8, dtype=torch.float64)
    assert_equal_to(1e-12, [fused.head(image)], [model.eval().head(image)])
    assert '0 norms and 0 layer scales folded' in log[0] and why in log[0]
    assert log[0].endswith(f': head.{model.head.norm_name}')


def test_a_convolution_with_two_norms_is_folded_with_each():
    first, second = (randomize(ConvModule(6, 6, 3, norm_cfg=dict(type='BN')).double(), seed) for seed in (0, 1))
    second.conv = first.conv
    model = nn.ModuleList([first, second])
    image = draw_image(2, 6, 9, 8, dtype=torch.float64)
    fused = fuse_for_inference(model)
    model.eval()
    assert_equal_to(1e-12, [module(image) for module in fused], [module(image) for module in model])


# What is logged


def test_the_log_counts_what_was_folded_and_names_the_norms_that_stay_and_why(log):
    fuse_for_inference(segmentor())
    assert log == ['Fused for inference: 21 norms and 6 layer scales folded, 2 dropouts taken out; norms that stay: 4 '
                   'on an output, which others pad with zeros: backbone.norm0, backbone.norm1, backbone.norm2, '
                   'backbone.norm3']
    fuse_for_inference(ConvNeXt(dict(depths=(1, ), dims=(16, )), out_indices=(0, )))
    assert log[1].endswith('0 norms and 1 layer scales folded, 0 dropouts taken out; norms that stay: 3 LayerNorm2d, '
                           'depends on the image: stem.1, stages.0.blocks.0.norm, norm0')


# Use


def test_the_model_given_is_not_touched_unless_in_place():
    model = segmentor()
    before, training = copy.deepcopy(model.state_dict()), [module.training for module in model.modules()]
    fused = fuse_for_inference(model)
    after = model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert training == [module.training for module in model.modules()] and all(training)
    assert all(parameter.requires_grad for parameter in model.parameters())
    own = {value.data_ptr() for value in after.values()}
    assert not any(value.data_ptr() in own for value in fused.state_dict().values() if value.numel())
    assert fuse_for_inference(model, inplace=True) is model
    assert all(torch.equal(value, fused.state_dict()[name]) for name, value in model.state_dict().items())


def test_a_fused_model_is_in_eval_mode_and_takes_no_gradients():
    fused = fuse_for_inference(segmentor().train())
    assert not any(module.training for module in fused.modules())
    assert not any(parameter.requires_grad for parameter in fused.parameters())


def test_fusing_twice_is_fusing_once(log):
    once = fuse_for_inference(segmentor(layer_scale_init_value=1.))
    twice = fuse_for_inference(once)
    assert log[0] == log[1] and str(twice) == str(once)
    found, wanted = twice.state_dict(), once.state_dict()
    assert list(found) == list(wanted) and all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert fuse_for_inference(once, inplace=True) is once


FAMILIES = pytest.mark.parametrize('build', [
    segmentor, lambda: randomize(ConvNeXt(SMALL)), lambda: randomize(InceptionNeXt(SMALL, norm_cfg=None))],
    ids=['segmentor', 'ConvNeXt', 'no norm'])


@FAMILIES
def test_training_a_fused_model_is_a_user_error_and_eval_is_not(build):
    fused = fuse_for_inference(build())
    through_a_file = io.BytesIO()
    torch.save(fused, through_a_file)
    through_a_file.seek(0)
    for model in (fused, nn.Sequential(fused), copy.deepcopy(fused), torch.load(through_a_file, weights_only=False),
                  next(module for module in fused.modules() if hasattr(module, 'stages')).stages[1].blocks[0]):
        assert model.eval() is model and model.train(False) is model
        with pytest.raises(UserError, match=r'fused for inference and cannot be trained.* load the original'):
            model.train()


@FAMILIES
def test_a_state_dict_goes_from_one_fused_model_to_another(build):
    fused, other = fuse_for_inference(build()), fuse_for_inference(randomize(build(), seed=5))
    image = draw_image(1, 3, 64, 64)
    wanted = outputs(fused, image)
    assert not torch.allclose(outputs(other, image)[0], wanted[0])
    other.load_state_dict(fused.state_dict())
    assert_equal_to(0, outputs(other, image), wanted)
    assert_equal_to(0, outputs(copy.deepcopy(fused), image), wanted)


@FAMILIES
@pytest.mark.parametrize('load', [
    lambda model, state: model.load_state_dict(state),
    lambda model, state: model.load_state_dict(state, strict=False),
    lambda model, state: copy.deepcopy(model).load_state_dict(state),
    lambda model, state: _load_checkpoint_to_model(model, dict(state_dict=state)),
], ids=['strict', 'not strict', 'copy', 'mmengine'])
def test_loading_the_checkpoint_of_an_unfused_model_is_a_user_error_that_says_to_load_first(build, load):
    fused = fuse_for_inference(build())
    with pytest.raises(UserError, match=r'before fuse_for_inference \(it has .* load the checkpoint first'):
        load(fused, build().state_dict())


def test_a_fused_state_dict_does_not_load_into_an_unfused_model():
    fused = fuse_for_inference(segmentor())
    with pytest.raises(RuntimeError, match=r'Missing key.*gamma'):
        segmentor().load_state_dict(fused.state_dict())


def test_what_was_folded_shows_in_the_printed_model():
    fused = fuse_for_inference(segmentor())
    assert str(fused.backbone.stem[1]) == 'Folded(instead of norm)'
    assert str(fused.decode_head.dropout) == 'Folded(instead of dropout)'
    assert isinstance(fused.decode_head.bottleneck.norm, Folded)


def test_the_package_and_fusing_a_backbone_need_neither_mmcv_nor_mmseg():
    code = ('import sys, inceptionnext_seg as i; i.fuse_for_inference(i.InceptionNeXt("atto")); '
            'assert not {"mmcv", "mmseg"} & set(sys.modules)')
    subprocess.run([sys.executable, '-c', code], check=True)


def test_an_unfused_checkpoint_file_is_refused_by_a_fused_model_with_what_to_do(tmp_path):
    model = InceptionNeXt(SMALL)
    torch.save(model.state_dict(), tmp_path / 'unfused.pth')
    with pytest.raises(UserError, match='fuse then'):
        load_pretrained(fuse_for_inference(model), str(tmp_path / 'unfused.pth'))


def test_the_weights_before_do_not_stay_with_the_process(monkeypatch):
    given = []
    monkeypatch.setattr('inceptionnext_seg.models.fuse.give_back_freed', lambda: given.append(True))
    fuse_for_inference(InceptionNeXt(SMALL), inplace=True)
    assert given
