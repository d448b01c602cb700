"""Replacing depthwise convolutions: against dense convolutions, counts by hand, and models of timm and mmpretrain."""
import copy
import json
import sys

import pytest
import timm
import torch
import torch.nn as nn
from mmengine.config import Config
from mmengine.model import BaseModule
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from timm.layers import Conv2dSame, StdConv2d

from inceptionnext_seg import InceptionDWConv2d, accelerate, replace_depthwise
from inceptionnext_seg.errors import SettingError, UserError
from inceptionnext_seg.models.replace_depthwise import StridedInceptionDWConv2d
from studies import replacement_report

TIMM_MODELS = ['convnext_atto', 'efficientnet_b0', 'mobilenetv3_small_100', 'tf_efficientnet_b0']
CONFIGS = ['upernet_timm_mobilenetv3_small_mini', 'upernet_timm_mobilenetv3_small_inception_mini']


def depthwise(channels, kernel_size, conv=nn.Conv2d, **settings):
    settings.setdefault('padding', kernel_size // 2)
    return conv(channels, channels, kernel_size, groups=channels, **settings)


def inceptions(model):
    return {name: module for name, module in model.named_modules()
            if isinstance(module, InceptionDWConv2d | StridedInceptionDWConv2d)}


def dense(inception, **settings):
    """The one depthwise 11×11 convolution that does what the four branches do: their kernels amid zeros."""
    convs = list(inception.children())
    identity, branch = inception.split_sizes[:2]
    channels = identity + 3 * branch
    weight = torch.zeros(channels, 1, 11, 11, dtype=convs[0].weight.dtype)
    weight[:identity, 0, 5, 5] = 1
    weight[identity:identity + branch, :, 4:7, 4:7] = inception.dwconv_hw.weight
    weight[identity + branch:identity + 2 * branch, :, 5:6, :] = inception.dwconv_w.weight
    weight[identity + 2 * branch:, :, :, 5:6] = inception.dwconv_h.weight
    conv = depthwise(channels, 11, **settings).to(weight.dtype)
    conv.weight = nn.Parameter(weight)
    if conv.bias is not None:
        conv.bias = nn.Parameter(torch.cat([weight.new_zeros(identity), *(c.bias for c in convs)]))
    return conv


# Models


@pytest.mark.parametrize('name', TIMM_MODELS)
def test_a_timm_model_keeps_its_shapes_and_paths_and_trains_in_every_branch(name):
    model = timm.create_model(name, pretrained=False, num_classes=7)
    x = torch.randn(2, 3, 64, 64)
    shapes = {}

    def note(module_name):
        return lambda module, inputs, output: shapes.setdefault(module_name, []).append(output.shape)

    wanted = {path: module.stride for path, module in model.named_modules()
              if isinstance(module, nn.Conv2d) and 1 < module.groups == module.in_channels}
    hooks = [model.get_submodule(path).register_forward_hook(note(path)) for path in wanted]
    assert model(x).shape == (2, 7)
    for hook in hooks:
        hook.remove()
    report = replace_depthwise(model, (3, 64, 64))

    assert [replacement.name for replacement in report.replaced] == list(wanted) == list(inceptions(model))
    assert not report.refused
    for path in wanted:
        model.get_submodule(path).register_forward_hook(note(path))
    output = model(x)
    assert output.shape == (2, 7)
    assert all(before == after for before, after in shapes.values())
    output.square().sum().backward()
    for path, inception in inceptions(model).items():
        for parameter, value in inception.named_parameters():
            assert value.grad is not None and value.grad.abs().sum() > 0, f'{path}.{parameter}'


@pytest.mark.parametrize('name', TIMM_MODELS)
def test_a_second_call_replaces_nothing(name):
    model = timm.create_model(name, pretrained=False)
    replace_depthwise(model, input_size=None)
    modules = list(model.modules())
    again = replace_depthwise(model, (3, 64, 64), min_kernel_size=1)
    assert not again.replaced and not again.refused and again.before == again.after
    assert all(a is b for a, b in zip(modules, model.modules(), strict=True))


def test_mmpretrains_convnext_keeps_its_outputs_and_its_names():
    backbones = pytest.importorskip('mmpretrain.models.backbones', reason='onedl-mmpretrain is not installed')
    model = backbones.ConvNeXt('atto', out_indices=(0, 1, 2, 3), gap_before_final_norm=False)
    x = torch.randn(1, 3, 64, 64)
    shapes = [feature.shape for feature in model(x)]
    others = {name for name in model.state_dict() if 'depthwise_conv' not in name}
    report = replace_depthwise(model, (3, 64, 64))
    assert [replacement.name.split('.')[-1] for replacement in report.replaced] == ['depthwise_conv'] * 12
    assert all(type(inception) is InceptionDWConv2d for inception in inceptions(model).values())
    assert [feature.shape for feature in model(x)] == shapes
    assert {name for name in model.state_dict() if 'depthwise_conv' not in name} == others


def test_a_report_has_the_parameters_and_macs_that_one_counts_by_hand():
    report = replace_depthwise(timm.create_model('convnext_atto', pretrained=False), (3, 64, 64))
    # ConvNeXt-A: stem 4×4 stride 4 and LayerNorm; block: 7×7 depthwise, LayerNorm, C to 4C to C, layer scale;
    # downsampling: LayerNorm and 2×2 stride 2; head: LayerNorm and 1000 classes.
    depths, dims, sides = (2, 2, 6, 2), (40, 80, 160, 320), (16, 8, 4, 2)
    parameters = (3 * 16 * 40 + 40 + 2 * 40) + (2 * 320 + 320 * 1000 + 1000)
    macs = 3 * 16 * 40 * 16 * 16 + 320 * 1000
    saved_parameters = saved_macs = 0
    counted = []
    for i, (depth, c, side) in enumerate(zip(depths, dims, sides, strict=True)):
        if i:
            parameters += 2 * (c // 2) + 4 * (c // 2) * c + c
            macs += 4 * (c // 2) * c * side * side
        parameters += depth * ((49 * c + c) + 2 * c + (c * 4 * c + 4 * c) + (4 * c * c + c) + c)
        macs += depth * (49 * c + 8 * c * c) * side * side
        branch = c // 8
        after = (branch * (9 + 11 + 11 + 3), branch * (9 + 11 + 11) * side * side)
        counted += [((50 * c, 49 * c * side * side), after)] * depth
        saved_parameters += depth * (50 * c - after[0])
        saved_macs += depth * (49 * c * side * side - after[1])
    assert [(replacement.before, replacement.after) for replacement in report.replaced] == counted
    assert report.before == (parameters, macs)
    assert report.after == (parameters - saved_parameters, macs - saved_macs)


# The arithmetic


@pytest.mark.parametrize('size', [(16, 16), (15, 17), (13, 12)])
@pytest.mark.parametrize(('stride', 'dilation', 'bias'), [
    (1, 1, True), (1, 1, False), (2, 1, True), (1, 2, False), (2, 2, True), (3, 1, False), ((2, 1), (1, 2), True)])
@pytest.mark.parametrize('conv', [nn.Conv2d, Conv2dSame])
def test_the_branches_are_one_dense_convolution_of_that_stride_and_dilation(conv, stride, dilation, bias, size):
    height, width = (dilation, dilation) if isinstance(dilation, int) else dilation
    settings = dict(stride=stride, dilation=dilation, bias=bias)
    original = depthwise(16, 5, conv, padding=(2 * height, 2 * width), **settings)
    model = nn.Sequential(original).double()
    replace_depthwise(model, (16, *size))
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    reference = dense(model[0], conv=conv, padding=(5 * height, 5 * width), **settings)
    x = torch.randn(2, 16, *size, dtype=torch.float64)
    assert original(x).shape == model(x).shape
    torch.testing.assert_close(model(x), reference(x), rtol=1e-12, atol=1e-12)


def test_stride_and_dilation_of_one_with_biases_is_the_convolution_of_inceptionnext_itself():
    model = nn.Sequential(depthwise(16, 7), depthwise(16, 7, padding='same'), depthwise(16, 7, stride=2))
    replace_depthwise(model, (16, 32, 32), branch_ratio=0.25, band_kernel_size=9, square_kernel_size=5)
    assert [type(module) for module in model] == [InceptionDWConv2d, InceptionDWConv2d, StridedInceptionDWConv2d]
    for module in model:
        assert module.split_sizes == (4, 4, 4, 4)
        assert [conv.kernel_size for conv in module.children()] == [(5, 5), (1, 9), (9, 1)]


def test_without_a_bias_in_the_original_there_is_none_to_train_or_to_save():
    model = nn.Sequential(depthwise(16, 3, bias=False), depthwise(16, 3, stride=2, bias=False))
    replace_depthwise(model, None)
    model(torch.randn(1, 16, 8, 8)).sum().backward()
    names = {f'{i}.dwconv_{branch}.weight' for i in range(2) for branch in ('hw', 'w', 'h')}
    assert set(model.state_dict()) == {name for name, _ in model.named_parameters()} == names
    assert not list(model.buffers())    # what is in no state_dict is garbage after to_empty


@pytest.mark.parametrize('training', [False, True], ids=['eval', 'train'])
def test_accelerated_a_convolution_without_biases_is_the_same(training):
    plain = nn.Sequential(depthwise(16, 3, bias=False)).double()
    replace_depthwise(plain, None)
    fast = copy.deepcopy(plain)
    assert 'FastInceptionDWConv2d' in accelerate(fast).swapped.values()
    x = torch.randn(2, 16, 32, 24, dtype=torch.float64)
    results = []
    for model in (plain, fast):
        image = x.clone().requires_grad_(training)
        with torch.set_grad_enabled(training):
            y = model(image)
        if training:
            y.square().sum().backward()
        results.append([y, *(t.grad for t in (image, *model.parameters()) if training)])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_new_weights_are_a_truncated_normal_of_002_and_biases_zero():
    torch.manual_seed(0)
    model = nn.Sequential(depthwise(1024, 7), depthwise(1024, 7, stride=2))
    replace_depthwise(model, None)
    for name, parameter in model.named_parameters():
        if name.endswith('bias'):
            assert not parameter.any()
        else:
            assert parameter.std().item() == pytest.approx(0.02, rel=0.1)


# What is kept


def test_type_mode_layout_and_frozen_state_stay():
    model = nn.Sequential(depthwise(16, 3), nn.Conv2d(16, 16, 1), depthwise(16, 3, stride=2, bias=False))
    model.to(torch.bfloat16).to(memory_format=torch.channels_last)
    model[0].eval()
    model[2].requires_grad_(False)
    replace_depthwise(model, (16, 8, 8))
    assert all(parameter.dtype == torch.bfloat16 for parameter in model.parameters())
    assert not model[0].dwconv_w.training and model[2].dwconv_w.training and model.training
    assert model[0].dwconv_w.weight.requires_grad and not model[2].dwconv_w.weight.requires_grad
    assert model[0].dwconv_hw.bias is not None and model[2].dwconv_hw.bias is None
    assert model[0].dwconv_hw.weight.stride() == (9, 1, 3, 1)
    assert model(torch.randn(1, 16, 8, 8, dtype=torch.bfloat16)).shape == (1, 16, 4, 4)


def test_a_model_on_meta_tensors_stays_there():
    with torch.device('meta'):
        model = nn.Sequential(depthwise(16, 3), depthwise(16, 3, stride=2))
    replace_depthwise(model, (16, 8, 8))
    assert {parameter.device.type for parameter in model.parameters()} == {'meta'}


def test_a_shared_convolution_stays_shared_and_its_macs_count_as_often_as_it_runs():
    shared = depthwise(8, 3, bias=False)
    model = nn.Sequential(shared, nn.ReLU(), shared)
    report = replace_depthwise(model, (8, 4, 4))
    assert model[0] is model[2] and isinstance(model[0], InceptionDWConv2d)
    (replacement, ) = report.replaced
    assert replacement.name == '0, 2'
    assert replacement.before == report.before == (8 * 9, 2 * 8 * 9 * 16)
    assert replacement.after == report.after == (9 + 11 + 11, 2 * (9 + 11 + 11) * 16)


def test_other_convolutions_and_those_not_selected_are_left_alone():
    left = [depthwise(16, 1), nn.Conv2d(16, 16, 3, padding=1, groups=4), nn.Conv2d(16, 16, 3, padding=1),
            nn.Conv2d(1, 1, 3, padding=1, groups=1), nn.Conv1d(16, 16, 3, groups=16), nn.Conv3d(16, 16, 3, groups=16),
            depthwise(16, 3)]
    model = nn.ModuleList([*left, depthwise(16, 5), depthwise(16, 7)])
    report = replace_depthwise(model, None, min_kernel_size=4, select=lambda name, module: module.kernel_size[0] != 7)
    assert [replacement.name for replacement in report.replaced] == ['7']
    assert all(a is b for a, b in zip(model, left, strict=False))
    assert isinstance(model[8], nn.Conv2d)


# Refusals


def hooked():
    conv = depthwise(16, 3)
    conv.register_forward_hook(lambda module, inputs, output: output)
    return conv


@pytest.mark.parametrize(('conv', 'reason'), [
    (lambda: depthwise(7, 3), 'branch_ratio 0.125 of 7 channels gives 0 channels a branch'),
    (lambda: nn.Conv2d(8, 16, 3, padding=1, groups=8), 'it makes 16 channels of 8'),
    (lambda: depthwise(16, 3, padding=0), 'its padding is 0×0; expected: 1×1'),
    (lambda: depthwise(16, 3, padding='valid'), 'its padding is valid; expected: 1×1'),
    (lambda: depthwise(16, 3, padding=1, dilation=2), 'its padding is 1×1; expected: 2×2'),
    (lambda: depthwise(16, 3, padding_mode='reflect'), "its padding_mode is 'reflect'"),
    (lambda: depthwise(16, 4), 'its kernel is 4×4'),
    (lambda: nn.Conv2d(16, 16, (1, 7), padding=(0, 3), groups=16), 'its kernel is 1×7'),
    (lambda: nn.ConvTranspose2d(16, 16, 3, groups=16), 'it is transposed'),
    (lambda: depthwise(16, 3, StdConv2d), 'it is a StdConv2d'),
    (lambda: depthwise(16, 3, Conv2dSame, stride=4), 'its stride 4×4 skips pixels'),
    (lambda: nn.utils.parametrizations.weight_norm(depthwise(16, 3)), 'it has a parametrization or hooks'),
    (hooked, 'it has a parametrization or hooks'),
])
def test_what_cannot_be_replaced_is_refused_by_name_and_reason(conv, reason):
    model = nn.ModuleDict(dict(good=depthwise(16, 3), stem=nn.Sequential(nn.ReLU(), conv())))
    with pytest.raises(UserError, match='1 of 2 depthwise convolutions') as error:
        replace_depthwise(model, None)
    assert f'\n  stem.1: {reason}' in str(error.value)
    assert 'strict=False' in str(error.value)
    report = replace_depthwise(model, None, strict=False)
    assert list(report.refused) == ['stem.1'] and report.refused['stem.1'].startswith(reason)
    assert 'Not replaced: `stem.1`: ' + reason in str(report)
    assert list(inceptions(model)) == ['good']


def test_a_model_that_is_the_convolution_is_refused():
    with pytest.raises(UserError, match='it is the model itself'):
        replace_depthwise(depthwise(16, 3), None)


class ReadsTheWeight(nn.Module):
    """Takes the weight of its convolution, which an Inception one has not, and never calls it."""

    def __init__(self):
        super().__init__()
        self.conv = depthwise(16, 3)

    def forward(self, x):
        return nn.functional.conv2d(x, self.conv.weight, padding=1, groups=16)


@pytest.mark.parametrize(('build', 'settings', 'message'), [
    (lambda: nn.Sequential(depthwise(16, 3), depthwise(4, 3), depthwise(6, 3)), dict(), r'\n  1: .*\n  2: '),
    (lambda: nn.Sequential(depthwise(16, 3)), dict(input_size=(3, 8, 8)), 'cannot be run on an image'),
    (lambda: nn.Sequential(depthwise(16, 3)), dict(input_size=8), 'cannot be run on an image of 8'),
    (ReadsTheWeight, dict(), "no attribute 'weight'"),
    (lambda: nn.Sequential(depthwise(16, 3)), dict(band_kernel_size=10), 'band_kernel_size is 10; expected: an odd'),
])
def test_an_error_leaves_the_model_and_the_random_state_as_they_were(build, settings, message):
    model = build().train()
    modules, state, random = list(model.modules()), copy.deepcopy(model.state_dict()), torch.get_rng_state()
    with pytest.raises(UserError, match=message):
        replace_depthwise(model, **dict(dict(input_size=(16, 8, 8)), **settings))
    assert all(a is b for a, b in zip(modules, model.modules(), strict=True))
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert all(module.training for module in model.modules())


def test_counting_macs_moves_no_statistics():
    model = nn.Sequential(depthwise(16, 3), nn.BatchNorm2d(16)).train()
    replace_depthwise(model, (16, 8, 8))
    assert model[1].num_batches_tracked == 0 and not model[1].running_mean.any() and model[1].training


# The report


def test_a_report_reads_as_a_table():
    report = replace_depthwise(nn.Sequential(depthwise(16, 5, stride=2, bias=False)), (16, 8, 8))
    header, _, row, total = str(report).splitlines()
    assert '16×8×8' in header
    assert row == ('| `0` | 16 channels, 5×5, stride 2 | 10 identity, 2 each of 3×3, 1×11, 11×1 '
                   '| 400 | 62 | 6,400 | 992 |')
    assert total == '| the whole model |  | 1 replaced | 400 | 62 | 6,400 | 992 |'
    assert '| – | – |' in str(replace_depthwise(nn.Sequential(depthwise(16, 3)), None))


def test_the_command_writes_tables_and_counts_of_each_model(tmp_path, monkeypatch, capsys):
    files = [tmp_path / 'report.md', tmp_path / 'report.json']
    arguments = ['mobilenetv2_050', '--shape', '64', '64', '--out', *map(str, files)]
    monkeypatch.setattr(sys, 'argv', ['replacement_report.py', *arguments])
    replacement_report.main()
    printed = capsys.readouterr().out
    assert '| `mobilenetv2_050` | 17 |' in printed
    assert files[0].read_text().endswith(printed)
    assert 'python -m studies.replacement_report mobilenetv2_050 --shape 64 64' in files[0].read_text()
    report = json.loads(files[1].read_text())['models']['mobilenetv2_050']
    assert len(report['replaced']) == 17 and report['after']['macs'] < report['before']['macs']

    monkeypatch.setattr(sys, 'argv', ['replacement_report.py', 'no_such_model'])
    with pytest.raises(SystemExit):
        replacement_report.main()
    assert "error: timm cannot build 'no_such_model'" in capsys.readouterr().err


def test_the_table_of_the_page_is_that_of_the_result_file(root):
    written = (root / 'docs/results/replacement.md').read_text()
    rows = [line for line in (root / 'docs/generalization.md').read_text().splitlines() if line.startswith('| ')]
    assert len(rows) == 2 + len(TIMM_MODELS) and all(row in written for row in rows)
    report = replacement_report.replace_in('mobilenetv3_small_100', (224, 224))
    assert str(report) in written


# In configs


class Recorder(BaseModule):
    def __init__(self, init_cfg=None):
        super().__init__(init_cfg)
        self.mixer = depthwise(16, 3)
        self.point = nn.Conv2d(16, 16, 1)

    def train(self, mode=True):
        super().train(mode)
        self.point.eval()
        return self

    def forward(self, x):
        return x, self.point(self.mixer(x))


@pytest.fixture
def recorder():
    MODELS.register_module('Recorder', module=Recorder)
    yield 'Recorder'
    del MODELS._module_dict['Recorder']


def test_in_a_config_the_model_keeps_its_class_names_initialization_mode_and_outputs(recorder):
    constant = dict(type='Constant', layer='Conv2d', val=2.)
    model = MODELS.build(dict(
        type='DepthwiseReplaced', model=dict(type=recorder, init_cfg=constant), input_size=(16, 8, 8),
        branch_ratio=0.25))
    assert type(model) is Recorder and model.mixer.split_sizes == (4, 4, 4, 4)
    assert model.state_dict().keys() >= {'point.weight', 'mixer.dwconv_w.weight'}
    assert len(model(torch.randn(1, 16, 8, 8))) == 2
    model.train()
    assert model.mixer.training and not model.point.training
    model.init_weights()
    assert (model.point.weight == 2).all() and (model.mixer.dwconv_w.weight == 2).all()


def test_a_run_that_resumes_can_take_the_pretrained_weights_away(recorder):
    pretrained = dict(type='Pretrained', checkpoint='nowhere.pth')
    model = MODELS.build(dict(
        type='DepthwiseReplaced', model=dict(type=recorder, init_cfg=pretrained), input_size=None, init_cfg=None))
    model.init_weights()
    assert model.init_cfg is None


def test_a_setting_of_the_network_beside_those_of_the_replacement_is_one_message(recorder):
    with pytest.raises(SettingError, match=r"'drop_path_rate'; expected: in_channels, init_cfg, band_kernel_size"):
        MODELS.build(dict(type='DepthwiseReplaced', model=dict(type=recorder), drop_path_rate=0.1))


@pytest.mark.parametrize('name', CONFIGS)
def test_a_config_builds_and_takes_a_training_step(root, name):
    cfg = Config.fromfile(root / f'configs/generalization/{name}.py')
    init_default_scope(cfg.default_scope)
    torch.manual_seed(0)
    with torch.device('meta'):
        MODELS.build(cfg.model)
    model = MODELS.build(cfg.model)
    # mmengine logs every parameter otherwise.
    model._dump_init_info = lambda *args, **kwargs: None
    model.init_weights()
    model.train()
    samples = [SegDataSample(gt_sem_seg=PixelData(data=torch.randint(0, 18, (1, 64, 64)))) for _ in range(2)]
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    before = copy.deepcopy(model.state_dict())
    losses = model.train_step(
        dict(inputs=[torch.randint(0, 255, (3, 64, 64)) for _ in range(2)], data_samples=samples), wrapper)
    assert torch.isfinite(losses['loss'])
    mixers = {key for key in before if 'conv_dw' in key}
    assert len(mixers) == (33 if 'inception' in name else 11)
    assert all(not torch.equal(before[key], value) for key, value in model.state_dict().items() if key in mixers)


def test_the_two_configs_differ_in_the_wrapper_alone(root):
    original, inception = (Config.fromfile(root / f'configs/generalization/{name}.py') for name in CONFIGS)
    assert inception.model.backbone.pop('type') == 'DepthwiseReplaced'
    assert inception.model.backbone.pop('model') == original.model.backbone
    assert not inception.model.backbone
    inception.model.backbone = original.model.backbone
    assert inception.to_dict() == original.to_dict()
