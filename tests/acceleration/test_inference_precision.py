"""bfloat16 and 8-bit inference: near the float model, and whatever cannot be lowered stays and is told."""
import copy
import io

import numpy as np
import pytest
import torch
import torch.nn as nn
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

from inceptionnext_seg import ConvNeXt, InceptionNeXt, accelerate, create_model, fuse_for_inference
from inceptionnext_seg.acceleration import precision, quantize
from inceptionnext_seg.acceleration.quantize import Int8Conv2d, Int8Mlp
from inceptionnext_seg.errors import SettingError, UserError
from inceptionnext_seg.models.metanext import ConvMlp
from inceptionnext_seg.ops import int8

needs_int8 = pytest.mark.skipif(bool(int8.why_not()), reason=str(int8.why_not()))
needs_bf16 = pytest.mark.skipif(bool(precision.why_not_bf16()), reason=str(precision.why_not_bf16()))
DIMS = (16, 24, 32, 48)
ROUGHLY = 0.45  # of a model of random weights, whose error grows from layer to layer; what holds a layer is tighter


def randomize(model):
    """Every layer moves the output."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in [*model.named_parameters(), *model.named_buffers()]:
            if value.ndim > 1:
                value.normal_(std=value[0].numel()**-0.5, generator=generator)
            elif name.endswith(('gamma', 'weight', 'running_var')):
                value.uniform_(0.5, 1.5, generator=generator)
            elif value.is_floating_point():
                value.normal_(std=0.2, generator=generator)
    return model


def segmentor(accelerated=True, act='GELU'):
    init_default_scope('mmseg')
    norm = dict(type='BN')
    last = dict(channels=24, num_classes=5, dropout_ratio=0.1, norm_cfg=norm)
    model = randomize(MODELS.build(dict(
        type='EncoderDecoder',
        data_preprocessor=dict(type='SegDataPreProcessor', mean=[120.] * 3, std=[60.] * 3, bgr_to_rgb=True),
        backbone=dict(type='InceptionNeXt', arch=dict(depths=(1, 1, 2, 1), dims=DIMS), out_norm_cfg=norm,
                      act_cfg=dict(type=act)),
        decode_head=dict(type='UPerHead', in_channels=DIMS, in_index=(0, 1, 2, 3), pool_scales=(1, 2),
                         align_corners=False, **last),
        auxiliary_head=dict(type='FCNHead', in_channels=DIMS[2], in_index=2, num_convs=1, concat_input=False, **last),
        test_cfg=ConfigDict(mode='whole')))).eval()
    for name, value in (('mean', 120.), ('std', 60.)):
        getattr(model.data_preprocessor, name).fill_(value)
    if accelerated:
        accelerate(model)
    return model


def images(count=4, size=(64, 96)):
    return list(torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(0)))


@torch.no_grad()
def logits(model, image):
    return model.decode_head.forward(model.extract_feat(image))


def error(model, plain):
    """Relative to the logits' spread, on images that were not calibrated with."""
    image = torch.stack(images(6)[4:])
    found, expected = logits(model, image), logits(plain, image)
    assert found.dtype == torch.float32
    expected = expected - expected.mean((0, 2, 3), keepdim=True)
    return ((found - found.mean((0, 2, 3), keepdim=True) - expected).norm() / expected.norm()).item()


@pytest.fixture(scope='module')
def plain():
    return segmentor()


@pytest.fixture(scope='module')
def lowered(plain):
    """The model in 8 bits, accelerated."""
    return fuse_for_inference(plain, dtype='int8', calibration=images())


@needs_bf16
@pytest.mark.parametrize('has_tiles', [True, False])
def test_a_model_in_bfloat16_is_near_that_in_float_with_either_kind_of_cpu(plain, has_tiles, monkeypatch):
    monkeypatch.setattr(precision.native, 'has_fast_bf16', lambda: has_tiles)
    for accelerated in (True, False):
        model = plain if accelerated else segmentor(False)
        fused = fuse_for_inference(model, dtype=torch.bfloat16 if accelerated else 'bf16')
        assert fused.precision.dtype == torch.bfloat16 and not fused.precision.kept
        assert error(fused, plain) < 0.1
        kinds = {type(m).__name__ for m in fused.modules()
                 for p in m.parameters(recurse=False) if p.dtype == torch.float32}
        assert kinds == ({'FastBatchNorm2d'} if accelerated else {'BatchNorm2d'})
        sample = fused.predict(images(1)[0][None])[0]
        assert sample.pred_sem_seg.data.shape == (1, 64, 96)
        assert next(model.parameters()).dtype == torch.float32


@pytest.mark.parametrize(('device', 'kept'), [('cpu', {'LayerNorm2d', 'GroupNorm', 'BatchNorm2d'}), ('meta', {
    'BatchNorm2d'})])
def test_parameters_of_norms_are_in_the_type_of_the_map_where_torch_mixes_none(device, kept):
    """On a GPU: a LayerNorm or GroupNorm of a bfloat16 map with float32 parameters is an error there."""
    with torch.device(device):
        model = nn.Sequential(ConvNeXt('atto'), nn.GroupNorm(2, 320), nn.BatchNorm2d(320))
    precision.to_bfloat16(model)
    found = {type(module).__name__ for module in model.modules() for parameter in module.parameters(recurse=False)
             if parameter.dtype == torch.float32}
    assert found == kept


@pytest.mark.parametrize('device', ['cpu', 'meta'])
def test_the_hosts_cpu_decides_the_forms_of_a_model_in_bfloat16_only_where_that_is_on_it(device, monkeypatch):
    monkeypatch.setattr(precision.native, 'has_fast_bf16', lambda: False)
    model = segmentor().to(device)
    precision.to_bfloat16(model)
    forms = [module.forms for module in model.modules() if 'forms' in vars(module)]
    assert any('factorized' in found.values() for found in forms) == (device == 'cpu')


@needs_int8
def test_a_model_in_8_bits_is_near_that_in_float(plain, lowered):
    assert error(lowered, plain) < ROUGHLY
    assert isinstance(lowered.decode_head.fpn_bottleneck.conv, Int8Conv2d)
    mlps = [name for name, module in lowered.named_modules() if isinstance(module, Int8Mlp)]
    assert len(mlps) == 5 and set(mlps) <= set(lowered.precision.quantized)
    kept = lowered.precision.kept
    assert kept['decode_head.conv_seg'] == 'it is a classifier' and 'no image' in kept['auxiliary_head.convs.0.conv']
    text = str(lowered.precision)
    assert 'int8' in text and 'classifier' in text and len(text.splitlines()) < 10


def range_of(x):
    return int8.Range(x.amin((0, 2, 3)), x.amax((0, 2, 3)))


@needs_int8
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('sizes', [[(12, 16)], [(12, 16), (6, 8), (3, 4)], [(5, 4), (12, 16), (11, 15)], [(3, 4)]])
def test_a_convolution_of_resized_maps_is_that_of_float_to_rounding(sizes, dtype):
    torch.manual_seed(0)
    conv = nn.Conv2d(20 * len(sizes), 33, 3, padding=1)
    maps = [torch.randn(2, 20, *size).relu() * 3**i for i, size in enumerate(sizes)]
    joined = torch.cat([nn.functional.interpolate(x, (12, 16), mode='bilinear') for x in maps], 1)
    with torch.no_grad():
        ranges = int8.Range(*map(torch.cat, zip(*map(range_of, maps), strict=True)))
        found = Int8Conv2d(conv, ranges).resize_concat([x.to(dtype) for x in maps], (12, 16))
        expected = conv(joined)
    assert found.dtype == dtype and found.shape == expected.shape
    assert (found.float() - expected).norm() / expected.norm() < 0.02


@needs_int8
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_an_mlp_is_that_of_float_to_rounding_in_blocks_of_rows(dtype, monkeypatch):
    monkeypatch.setattr(quantize, 'BLOCK_ROWS', 50)
    torch.manual_seed(0)
    mlp = ConvMlp(24, 72, dict(type='GELU'))
    x = torch.randn(2, 24, 7, 9) * torch.logspace(-1, 1, 24).view(1, -1, 1, 1) + 1
    with torch.no_grad():
        mlp.fc1.weight.div_(torch.logspace(-1, 1, 24).view(1, -1, 1, 1))
        found = Int8Mlp(mlp, range_of(x), range_of(mlp.act(mlp.fc1(x))))(x.to(dtype))
        expected = mlp(x)
    assert found.dtype == dtype
    assert (found.float() - expected).norm() / expected.norm() < 0.02


@needs_int8
def test_8_bits_do_not_need_the_acceleration(plain):
    """mmseg's own head concatenates the maps before the convolution."""
    model = fuse_for_inference(segmentor(False), dtype=torch.int8, calibration=images())
    assert error(model, plain) < ROUGHLY


@needs_int8
@pytest.mark.parametrize('size', [(33, 47), (32, 32), (128, 64)])
def test_a_model_in_8_bits_takes_images_of_other_sizes(plain, lowered, size):
    image = images(1, size)[0][None]
    agree = logits(lowered, image).argmax(1) == logits(fuse_for_inference(plain), image).argmax(1)
    assert agree.float().mean() > 0.8


@needs_int8
def test_a_model_in_8_bits_can_be_copied_and_its_weights_saved(lowered):
    image = images(1)[0][None]
    expected = logits(lowered, image)
    assert torch.equal(logits(copy.deepcopy(lowered), image), expected)
    file = io.BytesIO()
    torch.save(lowered.state_dict(), file)
    file.seek(0)
    other = fuse_for_inference(segmentor(), dtype='int8', calibration=[torch.zeros(3, 64, 64)])
    other.load_state_dict(torch.load(file))
    assert torch.equal(logits(other, image), expected)


@needs_int8
def test_calibration_takes_images_as_they_are_read(plain):
    """(H, W, 3), 8 bits, BGR: through the model's own preprocessor."""
    picture = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    normalized = (torch.from_numpy(picture[..., ::-1].copy()).permute(2, 0, 1).float() - 120) / 60
    one, two = (fuse_for_inference(plain, dtype='int8', calibration=[image]) for image in (picture, normalized))
    assert torch.equal(one.decode_head.fpn_bottleneck.conv.high, two.decode_head.fpn_bottleneck.conv.high)


@needs_int8
def test_parts_without_an_8_bit_form_stay_and_are_told():
    model = segmentor(act='SiLU')
    fused = fuse_for_inference(model, dtype='int8', calibration=images(1))
    assert 'SiLU' in fused.precision.kept['backbone.stages.0.blocks.0.mlp']
    assert 'SiLU' in str(fused.precision)
    assert error(fused, model) < ROUGHLY


def smp_segmentor():
    smp = pytest.importorskip('segmentation_models_pytorch')
    return smp.FPN('resnet18', encoder_weights=None, classes=19)


def hugging_face_segmentor():
    transformers = pytest.importorskip('transformers')
    backbone = transformers.ConvNextConfig(
        hidden_sizes=list(DIMS), depths=[1] * 4, out_features=[f'stage{i}' for i in range(1, 5)])
    return transformers.UperNetForSemanticSegmentation(transformers.UperNetConfig(
        backbone_config=backbone, num_labels=19, hidden_size=24, auxiliary_channels=24, auxiliary_in_channels=DIMS[2]))


@needs_bf16
@pytest.mark.parametrize('build, classifier', [
    (smp_segmentor, 'segmentation_head.0'), (hugging_face_segmentor, 'decode_head.classifier')])
def test_logits_of_other_libraries_are_float32_too_and_their_classifiers_in_no_8_bits(build, classifier):
    model = build().eval()
    for settings in (dict(dtype='bf16'), dict(dtype='int8', calibration=images(1))):
        if settings['dtype'] == 'int8' and int8.why_not():
            continue
        fused = fuse_for_inference(model, **settings)
        with torch.no_grad():
            found = fused(images(1)[0][None])
        assert getattr(found, 'logits', found).dtype == torch.float32
    assert classifier not in fused.precision.quantized


@needs_int8
def test_loras_in_an_mlp_are_not_lost():
    peft = pytest.importorskip('peft')
    model = randomize(InceptionNeXt(dict(depths=(1, 1, 1, 1), dims=DIMS))).eval()
    torch.manual_seed(0)
    model = peft.get_peft_model(model, peft.LoraConfig(
        target_modules=r'.*mlp\.fc[12]', init_lora_weights=False)).base_model.model
    fused = fuse_for_inference(model, dtype='int8', calibration=images())
    assert 'fc1' in fused.precision.kept['stages.0.blocks.0.mlp']
    with torch.no_grad():
        for found, expected in zip(fused(images(1)[0][None]), model(images(1)[0][None]), strict=True):
            assert (found.float() - expected).norm() / expected.norm() < 0.05


class NegatedMlp(ConvMlp):
    def forward(self, x):
        return -super().forward(x)


@needs_int8
def test_layers_that_someone_altered_stay(plain):
    model = copy.deepcopy(plain)
    model.backbone.stages[0].blocks[0].mlp.__class__ = NegatedMlp
    model.decode_head.lateral_convs[0].conv.register_forward_hook(lambda conv, inputs, output: -output)
    fused = fuse_for_inference(model, dtype='int8', calibration=images())
    assert {'backbone.stages.0.blocks.0.mlp', 'decode_head.lateral_convs.0.conv'} <= set(fused.precision.kept)
    assert error(fused, model) < ROUGHLY


@needs_int8
def test_fusing_a_model_in_8_bits_changes_nothing_and_once_more_to_8_bits_is_one_message(lowered):
    image = images(1)[0][None]
    assert torch.equal(logits(fuse_for_inference(lowered), image), logits(lowered, image))
    with pytest.raises(UserError, match='has 8-bit products already'):
        fuse_for_inference(lowered, dtype='int8', calibration=images())


@needs_int8
def test_a_backbone_alone_has_8_bit_mlps():
    model = randomize(ConvNeXt(dict(depths=(1, 1, 1, 1), dims=DIMS))).eval()
    accelerate(model)
    fused = fuse_for_inference(model, dtype='int8', calibration=torch.stack(images()))
    assert len(fused.precision.quantized) == 4
    with torch.no_grad():
        for found, expected in zip(fused(images(1)[0][None]), model(images(1)[0][None]), strict=True):
            assert (found.float() - expected).norm() / expected.norm() < 0.05


@needs_int8
def test_a_model_of_create_model_is_calibrated_with_8_bit_images_as_it_takes_them():
    model = randomize(create_model('upernet_inceptionnext_a', 5, decode_head=dict(channels=16), backbone=dict(
        arch=dict(depths=(1, 1, 1, 1), dims=(40, 80, 160, 320))))).eval()
    arrays = [np.random.default_rng(seed).integers(0, 256, (64, 96, 3), dtype=np.uint8) for seed in range(2)]
    normalized = [model.normalize(torch.from_numpy(array).permute(2, 0, 1)[None]) for array in arrays]
    found, expected = (fuse_for_inference(model, dtype='int8', calibration=calibration)
                       for calibration in (arrays, normalized))
    assert found.precision.quantized
    with torch.no_grad():
        assert torch.equal(found(normalized[0]), expected(normalized[0]))


def test_a_cpu_that_cannot_keeps_float32_and_says_so(plain, monkeypatch):
    monkeypatch.setattr(precision.native, 'processor', lambda: 'flags : avx2')
    monkeypatch.setattr(precision.int8, 'why_not', lambda: 'no VNNI')
    image = images(1)[0][None]
    for dtype, calibration, told in (('bf16', None, 'bfloat16'), ('int8', images(), 'no VNNI')):
        fused = fuse_for_inference(plain, dtype=dtype, calibration=calibration)
        assert fused.precision.dtype == torch.float32 and told in fused.precision.kept['']
        torch.testing.assert_close(logits(fused, image), logits(plain, image), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize('settings, told', [
    (dict(dtype='int4'), "'int4'"),
    (dict(dtype='int8'), r'no calibration images; expected: both .*Next: .*calibration=images\)'),
    (dict(dtype='bf16', calibration=[torch.zeros(3, 32, 32)]), r"not 'int8'.*; expected: both .*calibration=images\)"),
    (dict(dtype='int8', calibration=[]), 'no images'),
    (dict(dtype='int8', calibration=[torch.zeros(32, 32)]), r'\(32, 32\)'),
    (dict(dtype='int8', calibration=[torch.zeros(32, 32, dtype=torch.uint8)]), r'\(32, 32\) of 8 bits')])
def test_what_does_not_fit_is_told(plain, settings, told):
    if int8.why_not() and settings.get('calibration') is not None:
        pytest.skip(int8.why_not())
    with pytest.raises((SettingError, UserError), match=told):
        fuse_for_inference(plain, **settings)


def test_without_a_dtype_nothing_is_lowered(plain):
    for dtype in (None, 'fp32', torch.float32):
        fused = fuse_for_inference(plain, dtype=dtype)
        assert not hasattr(fused, 'precision')
        assert not any(isinstance(module, Int8Conv2d) for module in fused.modules())
    assert isinstance(plain, nn.Module)
