"""Other people's segmentors, with any backbone: after ``accelerate`` they compute what they computed before.

Each is compared with a copy made before the call. float32 is compared where rounding stays rounding: through smooth
activations, since a ReLU may let a pixel through that it stopped, with the backbone in evaluation mode, and with an eps
of 0.1, since BatchNorm divides pooled maps, which are all alike, by next to nothing.
"""
import copy
from types import MethodType

import pytest
import torch
import torch.nn as nn
from helpers import assert_close, draw
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.models.segmentors import EncoderDecoder
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch.nn.utils import parametrizations, prune

from inceptionnext_seg import accelerate, restore
from inceptionnext_seg.acceleration import conv_norm_act

CLASSES = 5
# At stride 4 these have the 128 tiles from which on Winograd's convolution is taken.
BATCH, EVEN, ODD = 6, (64, 96), (69, 91)

# Models. None needs a download.

MM_BACKBONES = dict(
    resnet=dict(type='ResNetV1c', depth=18, stem_channels=8, base_channels=8, norm_cfg=dict(type='BN')),
    swin=dict(type='SwinTransformer', embed_dims=8, depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2), window_size=4))
MM_PYRAMID = dict(in_channels=[8, 16, 32, 64], in_index=[0, 1, 2, 3])
MM_HEADS = dict(
    upernet=dict(type='UPerHead', **MM_PYRAMID),
    fpn=dict(type='FPNHead', **MM_PYRAMID, feature_strides=[4, 8, 16, 32]),
    fcn=dict(type='FCNHead', in_channels=16, in_index=1, num_convs=2, concat_input=True),
    psp=dict(type='PSPHead', in_channels=64, in_index=3))


def mmseg(backbone, head, **settings):
    init_default_scope('mmseg')
    head = dict(dict(MM_HEADS[head], channels=24, num_classes=CLASSES, norm_cfg=dict(type='BN'), align_corners=False,
                     loss_decode=dict(type='CrossEntropyLoss')), **settings)
    return MODELS.build(dict(type='EncoderDecoder', backbone=MM_BACKBONES[backbone], decode_head=head,
                             test_cfg=dict(mode='whole')))


def hugging_face(backbone, **settings):
    transformers = pytest.importorskip('transformers', reason='transformers is not installed')
    out = dict(out_features=['stage1', 'stage2', 'stage3', 'stage4'])
    config = dict(
        convnext=lambda: transformers.ConvNextConfig(hidden_sizes=[8, 16, 24, 32], depths=[1] * 4, **out),
        swin=lambda: transformers.SwinConfig(
            embed_dim=8, depths=[1] * 4, num_heads=[1, 1, 2, 2], window_size=4, image_size=64, **out),
        resnet=lambda: transformers.ResNetConfig(
            embedding_size=8, hidden_sizes=[8, 16, 24, 32], depths=[1] * 4, layer_type='basic', **out))[backbone]()
    settings = dict(dict(hidden_size=24, auxiliary_channels=16, num_labels=CLASSES,
                         auxiliary_in_channels=32 if backbone == 'swin' else 24), **settings)
    return transformers.UperNetForSemanticSegmentation(transformers.UperNetConfig(backbone_config=config, **settings))


def smp(encoder, decoder, **settings):
    library = pytest.importorskip(
        'segmentation_models_pytorch', reason='segmentation_models.pytorch is not installed')
    width = dict(decoder_channels=24) if decoder == 'UPerNet' else dict(
        decoder_pyramid_channels=24, decoder_segmentation_channels=32)
    return getattr(library, decoder)(encoder, encoder_weights=None, classes=CLASSES, **dict(width, **settings))


# By name, how to build a model, the fast classes that it gets, and whether it takes images of any size.
SMALL = 'tu-test_resnet'    # spares time where the encoder is of no interest
FPN_PARTS = dict({f'decoder.seg_blocks.{i}': 'FastSegmentationBlock' for i in range(4)}, **{
    'decoder.merge': 'FastMergeBlock'})
SEGMENTORS = {
    **{f'mmseg-{head}-{backbone}': (
        lambda head=head, backbone=backbone: mmseg(backbone, head),
        {'': 'FastEncoderDecoder', 'decode_head': f'Fast{MM_HEADS[head]["type"]}'}, True)
        for head in MM_HEADS for backbone in MM_BACKBONES},
    **{f'hugging_face-{backbone}': (
        lambda backbone=backbone: hugging_face(backbone),
        {'decode_head': 'FastUperNetHead', 'auxiliary_head': 'FastUperNetFCNHead'}, True)
        for backbone in ('convnext', 'swin', 'resnet')},
    **{f'smp-{decoder}-{encoder}': (
        lambda decoder=decoder, encoder=encoder: smp(encoder, decoder),
        {'decoder': 'FastUPerNetDecoder'} if decoder == 'UPerNet' else FPN_PARTS, False)
        for decoder in ('UPerNet', 'FPN') for encoder in ('resnet18', 'tu-inception_next_atto', SMALL)}}
every_segmentor = pytest.mark.parametrize('name', [name for name in SEGMENTORS if SMALL not in name])


def build(name):
    return randomized(SEGMENTORS[name][0]())


def randomized(model, seed=0):
    """With parameters and statistics at which every layer moves the output."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in model.state_dict().items():
        if value.dim() > 1 and value.is_floating_point():
            value.normal_(std=value[0].numel()**-0.5, generator=generator)
        elif value.dim() == 1 and value.is_floating_point():
            value.uniform_(0.5, 1.5, generator=generator)
            if name.endswith(('bias', 'running_mean')):
                value.sub_(1)
    return model


def smooth(model):
    """With GELUs instead of ReLUs, and with norms that magnify no rounding."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU):
                setattr(module, name, nn.GELU())
    for module in model.modules():
        if isinstance(getattr(module, 'layers', None), list):   # transformers keeps them in a list, too
            module.layers = list(module.children())
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 0.1
    return model


def run(model, size=EVEN, seed=3):
    """By name: outputs (losses in mmseg's training), gradients to images and parameters, buffers; ``model`` stays."""
    model = copy.deepcopy(model)
    dtype = next(model.parameters()).dtype
    images = draw(BATCH, 3, *size, seed=1, dtype=dtype).requires_grad_()
    labels = torch.randint(CLASSES, (BATCH, *size), generator=torch.Generator().manual_seed(2))
    torch.manual_seed(seed)     # for dropout and stochastic depth
    outputs = outputs_of(model, images, labels)
    generator = torch.Generator().manual_seed(4)
    sum((output * torch.randn(output.shape, generator=generator).to(dtype)).sum()
        for output in outputs.values() if output.requires_grad).backward()
    gradients = {f'gradient of {name}': parameter.grad for name, parameter in model.named_parameters()
                 if parameter.grad is not None}
    assert len(gradients) > 20
    buffers = {name: value.double() for name, value in model.named_buffers()}
    return dict(outputs, **gradients, **buffers, image=images.grad)


def outputs_of(model, images, labels):
    if isinstance(model, EncoderDecoder) and model.training:
        metainfo = dict.fromkeys(('img_shape', 'ori_shape', 'pad_shape'), tuple(images.shape[2:]))
        losses = model.loss(images, [
            SegDataSample(gt_sem_seg=PixelData(data=label[None]), metainfo=metainfo) for label in labels])
        return {name: value for name, value in losses.items() if 'loss' in name}    # stock's accuracy is in float32
    if isinstance(model, EncoderDecoder):
        return dict(logits=model(images, mode='tensor'))
    if hasattr(model, 'segmentation_head'):
        outputs = model(images)
        return dict(zip(('logits', 'classes'), outputs, strict=True)) if isinstance(outputs, tuple) else dict(
            logits=outputs)
    outputs = model(images, labels=labels)
    return dict(logits=outputs.logits, loss=outputs.loss)


def accelerated(model):
    fast = copy.deepcopy(model)
    return fast, accelerate(fast)


def assert_unchanged(model, size=EVEN, tolerance=1e-10, floor=1e-4):
    """``accelerate`` changes nothing that ``model`` computes; returns its report."""
    fast, report = accelerated(model)
    assert_close(run(fast, size), run(model, size), tolerance, floor)
    return report


@pytest.fixture
def convolutions(monkeypatch):
    """Of each ``resize_concat_conv2d`` that a decoder asked for, the sizes of its maps and of the output."""
    calls, convolve = [], conv_norm_act.resize_concat_conv2d

    def record(features, weight, bias, size, *settings):
        calls.append(([tuple(x.shape[2:]) for x in features], tuple(size)))
        return convolve(features, weight, bias, size, *settings)
    monkeypatch.setattr(conv_norm_act, 'resize_concat_conv2d', record)
    return calls


# What they compute


@every_segmentor
@pytest.mark.logits_match
@pytest.mark.parametrize('training', [True, False], ids=['training', 'evaluation'])
def test_in_float64_outputs_gradients_and_statistics_stay_within_1e10(name, training):
    model = build(name).double().train(training)
    assert_unchanged(model, ODD if SEGMENTORS[name][2] else EVEN)


@every_segmentor
@pytest.mark.logits_match
@pytest.mark.parametrize('training', [True, False], ids=['training', 'evaluation'])
def test_in_float32_outputs_gradients_and_statistics_stay_within_1e5(name, training):
    model = smooth(build(name)).train(training)
    getattr(model, 'backbone', getattr(model, 'encoder', None)).eval()
    assert_unchanged(model, tolerance=1e-5, floor=1e-2)


@every_segmentor
def test_every_decoder_gets_its_fast_class_and_restored_is_bit_for_bit_what_it_was(name):
    model = build(name).eval()
    fast, report = accelerated(model)
    assert report.swapped == SEGMENTORS[name][1]
    assert {path: type(fast.get_submodule(path)).__name__ for path in report.swapped} == report.swapped
    assert fast.state_dict().keys() == model.state_dict().keys()
    restored, expected = run(restore(fast)), run(model)
    assert all(type(a) is type(b) for a, b in zip(fast.modules(), model.modules(), strict=True))
    assert restored.keys() == expected.keys()
    assert all(torch.equal(restored[key], value) for key, value in expected.items())


@pytest.mark.parametrize('build, size', [
    (lambda: hugging_face('convnext', auxiliary_concat_input=True, auxiliary_num_convs=2), ODD),
    (lambda: hugging_face('convnext', auxiliary_num_convs=0, auxiliary_channels=24), ODD),
    (lambda: hugging_face('resnet', use_auxiliary_head=False, pool_scales=(2, 3)), ODD),
    (lambda: smp('tu-test_resnet', 'UPerNet', decoder_use_norm=False), EVEN),
    (lambda: smp('tu-test_resnet', 'UPerNet', encoder_depth=4, decoder_use_norm=dict(
        type='batchnorm', momentum=None)), EVEN),
    (lambda: smp('tu-test_resnet', 'UPerNet', aux_params=dict(classes=3, dropout=None)), EVEN),
    (lambda: smp('tu-test_resnet', 'FPN', decoder_merge_policy='cat', decoder_interpolation='bilinear'), EVEN),
    (lambda: smp('tu-test_resnet', 'FPN', encoder_depth=4, decoder_dropout=0.5), EVEN)], ids=[
    'auxiliary-concat', 'auxiliary-no-convs', 'no-auxiliary', 'no-norm', 'momentum', 'classifier', 'cat', 'dropout'])
def test_settings_of_hugging_face_and_smp_make_no_difference(build, size):
    assert assert_unchanged(randomized(build()).double(), size).swapped


# How they compute it


@pytest.mark.parametrize('name', ['mmseg-upernet-resnet', 'hugging_face-resnet', 'smp-UPerNet-tu-test_resnet'])
def test_a_fast_upernet_convolves_maps_of_all_sizes_without_resizing_them(name, convolutions):
    fast, _ = accelerated(build(name).eval())
    run(fast)
    assert ([(2, 3), (1, 1), (2, 2), (3, 3), (6, 6)], (2, 3)) in convolutions   # pyramid pooling
    assert ([(16, 24), (8, 12), (4, 6), (2, 3)], (16, 24)) in convolutions      # fusion
    for size in ((16, 24), (8, 12), (4, 6)):                                    # each level's own
        assert ([size], size) in convolutions


def test_a_fast_fpn_convolves_upsampled_maps_at_their_own_resolution(convolutions):
    fast, _ = accelerated(build('smp-FPN-tu-test_resnet').eval())
    run(fast)
    assert convolutions == [
        ([(2, 3)], (2, 3)), ([(2, 3)], (4, 6)), ([(4, 6)], (8, 12)),    # stride 32
        ([(4, 6)], (4, 6)), ([(4, 6)], (8, 12)),                        # stride 16
        ([(8, 12)], (8, 12)), ([(16, 24)], (16, 24))]                   # strides 8 and 4


# What others may have done to a module


class LowRank(nn.Module):
    """A convolution with an update of low rank beside it, as peft wraps one."""

    def __init__(self, base):
        super().__init__()
        self.base_layer = base
        self.down = nn.Conv2d(base.in_channels, 2, base.kernel_size, padding=base.padding)
        self.up = nn.Conv2d(2, base.out_channels, 1)

    def forward(self, x):
        return self.base_layer(x) + self.up(self.down(x))


def wrap(model, path):
    name, _, last = path.rpartition('.')
    setattr(model.get_submodule(name), last, randomized(LowRank(model.get_submodule(path))).double())


def negate_what_goes_in(model, path):
    model.get_submodule(path).register_forward_pre_hook(lambda module, inputs: (-inputs[0], ))


def negate_what_the_block_returns(model, path):
    model.get_submodule(path.rpartition('.')[0]).register_forward_hook(lambda module, inputs, output: -output)


def replace_forward(model, path):
    """As Hugging Face's accelerate does, for weights that are elsewhere until the call."""
    def forward(self, x):
        return -type(self).forward(self, x)
    conv = model.get_submodule(path)
    conv.forward = MethodType(forward, conv)


def normalize_weight(model, path):
    conv = parametrizations.weight_norm(model.get_submodule(path))
    conv.parametrizations.weight.original0.data.neg_()


def remove_half(model, path):
    conv = prune.l1_unstructured(model.get_submodule(path), 'weight', 0.5)
    conv.weight = conv.weight.detach()  # which its hook computes again at each call; what has a graph cannot be copied


CHANGES = dict(
    hook=negate_what_goes_in, hook_of_block=negate_what_the_block_returns, lora=wrap, forward=replace_forward,
    parametrized=normalize_weight, pruned=remove_half)
CONVOLUTIONS = {
    'mmseg-upernet-resnet': ('decode_head.fpn_bottleneck.conv', 'decode_head.lateral_convs.0.conv'),
    'hugging_face-resnet': ('decode_head.fpn_bottleneck.conv', 'decode_head.lateral_convs.0.conv',
                            'auxiliary_head.convs.0.conv'),
    'smp-UPerNet-tu-test_resnet': ('decoder.fusion_block.0', 'decoder.fpn_lateral_blocks.0.conv_norm_relu.0'),
    'smp-FPN-tu-test_resnet': ('decoder.seg_blocks.0.block.1.block.0', )}


@pytest.mark.parametrize('change', CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize('name', CONVOLUTIONS)
def test_hooks_parametrizations_pruning_and_wrapped_convolutions_act_as_before(name, change):
    model = build(name).double().eval()
    before = copy.deepcopy(model)
    for path in CONVOLUTIONS[name]:
        change(model, path)
    assert assert_unchanged(model).swapped == SEGMENTORS[name][1]
    with torch.no_grad():
        old, new = (outputs_of(module, draw(1, 3, *EVEN), None)['logits'] for module in (before, model))
    assert not torch.allclose(old, new)


# What is left alone


@pytest.mark.parametrize('name, path', [
    ('hugging_face-resnet', 'decode_head'), ('hugging_face-resnet', 'auxiliary_head'),
    ('smp-UPerNet-tu-test_resnet', 'decoder'), ('smp-FPN-tu-test_resnet', 'decoder.seg_blocks.0')])
def test_a_subclass_is_left_as_it_is_with_its_name_in_the_report(name, path):
    model = build(name).eval()
    plain = type(model.get_submodule(path))
    own = type('Own', (plain, ), dict(forward=lambda self, x: 2 * plain.forward(self, x)))
    model.get_submodule(path).__class__ = own
    before = copy.deepcopy(model)
    report = accelerate(model)
    assert 'Own' in report.left[path] and path not in report.swapped
    assert type(model.get_submodule(path)) is own
    assert_close(run(model.double()), run(before.double()), 1e-10, floor=1e-4)


def test_a_decoder_whose_norms_work_in_place_is_left_as_it_is():
    model = smp('tu-test_resnet', 'UPerNet')
    norm = type('InPlaceABN', (nn.BatchNorm2d, ), dict(__module__='inplace_abn.abn'))
    model.decoder.fusion_block[1].__class__ = norm
    report = accelerate(model)
    assert 'inplace' in report.left['decoder'] and not report.swapped
