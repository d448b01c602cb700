"""Parameters and MACs against the papers' tables, other ways to count, and hand-worked cases."""
import copy
import json
import runpy
import sys
from collections import Counter
from pathlib import Path

import mmseg
import pytest
import timm
import torch
import torch.nn as nn
import torch.nn.functional as F
from mmengine.analysis import FlopAnalyzer
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch.nn.modules.batchnorm import _BatchNorm

import inceptionnext_seg
from inceptionnext_seg.engine.launch import load_config
from inceptionnext_seg.errors import UserError
from inceptionnext_seg.models.macs import count_macs
from inceptionnext_seg.segmentation import complexity
from inceptionnext_seg.segmentation.complexity import ForwardPass, build_on_meta, count
from studies.paper import SEMANTIC_FPN, UPERNET

ROOT = Path(__file__).parents[2]
SHIPPED = Path(mmseg.__file__).parent / '.mim/configs'
DIMS = dict(
    atto=(40, 80, 160, 320), tiny=(96, 192, 384, 768), small=(96, 192, 384, 768), base=(128, 256, 512, 1024))


def upernet(family, arch):
    """The UperNet config of ``family`` at another size: the channels alone follow."""
    cfg = load_config(ROOT / f'configs/upernet_{family}_t_ade20k.py')
    cfg.merge_from_dict({
        'model.backbone.arch': arch,
        'model.decode_head.in_channels': list(DIMS[arch]),
        'model.auxiliary_head.in_channels': DIMS[arch][2]})
    return cfg


def semantic_fpn(arch):
    """Semantic FPN as MMSegmentation ships it, with PVT's and PoolFormer's FPN of 256 and head of 128 channels."""
    shipped = Config.fromfile(SHIPPED / '_base_/models/fpn_r50.py').model
    return Config(dict(model=dict(
        type='EncoderDecoder',
        backbone=upernet('inceptionnext', arch).model.backbone,
        neck=dict(shipped.neck, in_channels=list(DIMS[arch])),
        decode_head=dict(shipped.decode_head, num_classes=150))))


def operations_by_hooks(model, image):
    """Count in the other way, by hooks on layers: MACs of 'convolutions', elements of 'norms' and 'activations'."""
    counts = Counter()

    def hook(layer, inputs, output):
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            counts['convolutions'] += output.numel() * layer.weight[0].numel()
        elif isinstance(layer, (_BatchNorm, nn.LayerNorm)):
            counts['norms'] += output.numel()
        elif isinstance(layer, (nn.GELU, nn.ReLU)):
            counts['activations'] += output.numel()

    handles = [layer.register_forward_hook(hook) for layer in model.modules()]
    with torch.no_grad():
        model(image)
    for handle in handles:
        handle.remove()
    return counts


def check_against_table(cfg, arch, printed_parameters, printed_macs, parameters, macs):
    """``printed`` are the paper's integers, in M and G; ``parameters`` and ``macs`` a count of the built models."""
    result = count(cfg)
    output_norms = sum(result.modules[f'backbone.norm{i}'].parameters for i in range(4))
    # Weight and bias of the norm on each stage's output, without which the table was made; below its rounding.
    assert output_norms == 2 * sum(DIMS[arch])
    assert f'{(result.parameters - output_norms) / 1e6:.2f} {result.macs / 1e9:.1f}' == f'{parameters} {macs}'

    cfg.model.backbone.out_norm_cfg = None
    cfg.model.auxiliary_head = None
    image = torch.empty(1, 3, *result.shape, device='meta')
    # The paper counts norms too, two operations an element.
    norms = 2 * operations_by_hooks(ForwardPass(build_on_meta(cfg)), image)['norms']
    assert (round(result.parameters / 1e6), round((result.macs + norms) / 1e9)) == (printed_parameters, printed_macs)


# Parameters in M and MACs in G of the built models, to one decimal more than the papers print.
OUR_COUNT = {
    'upernet': {('ConvNeXt', 'tiny'): ('60.24', '938.5'), ('InceptionNeXt', 'tiny'): ('56.40', '932.8'),
                ('ConvNeXt', 'small'): ('81.87', '1026.8'), ('InceptionNeXt', 'small'): ('77.71', '1019.9'),
                ('ConvNeXt', 'base'): ('122.10', '1169.3'), ('InceptionNeXt', 'base'): ('114.98', '1158.5')},
    'fpn': {('InceptionNeXt', 'tiny'): ('28.35', '43.5'), ('InceptionNeXt', 'small'): ('49.67', '65.3'),
            ('InceptionNeXt', 'base'): ('84.94', '99.4')}}


@pytest.mark.parametrize('row', UPERNET, ids=lambda row: f'{row.family}-{row.arch}')
def test_upernet_agrees_with_every_row_of_the_papers_table_5(row):
    check_against_table(upernet(row.family.lower(), row.arch), row.arch, row.parameters, row.macs,
                        *OUR_COUNT['upernet'][row.family, row.arch])


@pytest.mark.parametrize('row', SEMANTIC_FPN, ids=lambda row: row.arch)
def test_semantic_fpn_agrees_with_every_row_of_the_papers_table_6(row):
    check_against_table(
        semantic_fpn(row.arch), row.arch, row.parameters, row.macs, *OUR_COUNT['fpn'][row.family, row.arch])


# The paper's ImageNet results; `also` is what its figure counts beside convolutions and matrix products.
@pytest.mark.parametrize(('arch', 'size', 'parameters', 'macs', 'also'), [
    ('atto', 224, '4.2', '0.51', dict(norms=2, activations=1)),
    ('tiny', 224, '28', '4.2', dict(norms=2)),
    ('small', 224, '49', '8.4', dict(norms=2)),
    ('base', 224, '87', '14.9', dict(norms=2)),
    ('base', 384, '87', '43.6', dict(norms=2))])
def test_the_backbone_and_an_mlp_head_agree_with_every_row_of_the_papers_imagenet_tables(
        arch, size, parameters, macs, also):
    with torch.device('meta'):
        image = torch.empty(1, 3, size, size)
        backbone = inceptionnext_seg.InceptionNeXt(arch).eval().requires_grad_(False)
    # Two linear layers with a norm between: C to 3C, 3C to 1000 classes.
    channels, hidden = DIMS[arch][-1], 3 * DIMS[arch][-1]
    head_macs = channels * hidden + hidden * 1000
    head_parameters = head_macs + hidden + 1000 + 2 * hidden

    counted = sum(parameter.numel() for parameter in backbone.parameters()) + head_parameters
    assert f'{counted / 1e6:.{parameters[::-1].find(".") if "." in parameters else 0}f}' == parameters
    operations = operations_by_hooks(backbone, image)
    total = count_macs(backbone, image)[''] + head_macs + sum(
        weight * operations[kind] for kind, weight in also.items())
    assert f'{total / 1e9:.{macs[::-1].find(".")}f}' == macs


@pytest.mark.logits_match
@pytest.mark.parametrize(('family', 'name'), [
    (inceptionnext_seg.InceptionNeXt, 'inception_next_tiny'), (inceptionnext_seg.ConvNeXt, 'convnext_tiny')])
def test_hooks_on_the_layers_of_timms_network_give_the_same_macs(family, name):
    with torch.device('meta'):
        image = torch.empty(1, 3, 224, 192)
        backbone = family('tiny').eval().requires_grad_(False)
        reference = timm.create_model(name, num_classes=0).eval().requires_grad_(False)
        if hasattr(reference.head, 'fc1'):  # it stays in InceptionNeXt's head where there are no classes
            reference.head = nn.Identity()
    assert count_macs(backbone, image)[''] == operations_by_hooks(reference, image)['convolutions'] > 1e9


def test_mmengines_counter_on_real_tensors_gives_the_same_macs():
    cfg = load_config(ROOT / 'configs/upernet_inceptionnext_a_mini.py')
    cfg.model.auxiliary_head = None
    init_default_scope('mmseg')
    segmentor = MODELS.build(cfg.model).eval()
    by_operator = FlopAnalyzer(segmentor, torch.rand(1, 3, 64, 96)).by_operator()
    assert count(cfg, (64, 96)).macs == by_operator['conv'] + by_operator['linear']


@pytest.mark.parametrize(('path', 'shape', 'printed_parameters', 'printed_macs'), [
    # Swin paper, table 3: 60 M, 945 G. It reads numbers off tensors while it is built, which meta tensors have not.
    ('swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py', (512, 2048), '60', '945'),
    # SegFormer paper, table 1: 3.8 M, 8.4 G. Attention is matrix products without a layer of their own.
    ('segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py', (512, 512), '3.8', '8.4')])
def test_other_segmentors_of_mmsegmentation_cost_what_their_papers_say(path, shape, printed_parameters, printed_macs):
    cfg = Config.fromfile(SHIPPED / path)
    result = count(cfg)
    assert result.shape == shape
    decimals = len(printed_macs.partition('.')[2])
    assert f'{result.parameters / 1e6:.{decimals}f}' == printed_parameters
    cfg.model.auxiliary_head = None
    image = torch.empty(1, 3, *shape, device='meta')
    norms = 2 * operations_by_hooks(ForwardPass(build_on_meta(cfg)), image)['norms']
    assert f'{(result.macs + norms) / 1e9:.{decimals}f}' == printed_macs


def test_every_head_of_a_cascade_is_counted():
    result = count(Config.fromfile(SHIPPED / 'ocrnet/ocrnet_hr18_4xb4-80k_ade20k-512x512.py'), (512, 512))
    # FCNHead: 1×1 convolutions, 270 channels to 270 and to 150 classes, at stride 4. OCRHead follows it.
    assert result.modules['decode_head.0'].macs == 128 * 128 * 270 * (270 + 150)
    assert result.modules['decode_head.1'].macs > 0
    assert result.modules['decode_head'].macs == sum(result.modules[f'decode_head.{i}'].macs for i in range(2))


class Handmade(nn.Module):
    """A grouped and a transposed convolution in a list, and a linear layer of which only the weight is used, twice."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv2d(4, 8, 3, groups=2), nn.ConvTranspose2d(8, 3, 2, stride=2)])
        self.linear = nn.Linear(3, 5)
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x):
        for layer in self.layers:       # (1, 4, 6, 7) to (1, 8, 4, 5) to (1, 3, 8, 10)
            x = layer(x)
        x = self.norm(x).flatten(2).mT  # (1, 80, 3)
        return F.linear(x, self.linear.weight) @ F.linear(x, self.linear.weight).mT


def test_macs_of_a_handmade_module_are_those_worked_out_by_hand_wherever_they_arise():
    model = Handmade().eval()
    macs = count_macs(model, torch.zeros(1, 4, 6, 7))
    grouped = 8 * 4 * 5 * (4 // 2) * 3 * 3
    transposed = 8 * 4 * 5 * 3 * 2 * 2
    functional = 2 * (80 * 3 * 5) + 80 * 5 * 80
    assert macs == {
        '': grouped + transposed + functional, 'layers': grouped + transposed, 'layers.0': grouped,
        'layers.1': transposed, 'linear': 0, 'norm': 0}


def test_two_thirds_of_upernets_arithmetic_is_in_one_convolution_of_its_head():
    result = count(upernet('inceptionnext', 'tiny'))
    # 3×3 over four concatenated maps of 512 channels at stride 4, and a BatchNorm.
    name = 'decode_head.fpn_bottleneck'
    assert result.modules[name] == (2048 * 512 * 9 + 2 * 512, 2048 * 512 * 9 * 128 * 512)
    assert result.largest_layer == f'{name}.conv'
    assert complexity.share(result, name) == pytest.approx(2 / 3, abs=0.01)
    assert result.modules['decode_head'].macs / result.macs == pytest.approx(0.9, abs=0.01)
    assert complexity.share(result, 'auxiliary_head') is None


def test_the_auxiliary_head_is_in_the_parameters_and_not_in_the_macs():
    cfg = upernet('inceptionnext', 'tiny')
    result = count(cfg)
    # 3×3 convolution from 384 to 256 channels with a BatchNorm, 1×1 convolution with bias to 150 classes, at stride 16.
    assert result.auxiliary == (384 * 256 * 9 + 2 * 256 + 256 * 150 + 150, 32 * 128 * (384 * 256 * 9 + 256 * 150))
    cfg.model.auxiliary_head = None
    without = count(cfg)
    assert (without.parameters, without.macs) == (result.parameters - result.auxiliary.parameters, result.macs)


def test_the_rows_of_a_module_add_up_to_it():
    result = count(upernet('convnext', 'tiny'), (64, 64))
    rows = result.at_depth(3)
    for parent in ('backbone', 'backbone.stages', 'decode_head', 'decode_head.fpn_convs', 'auxiliary_head'):
        parts = [cost for name, cost in rows.items() if name.rpartition('.')[0] == parent]
        assert len(parts) > 1
        assert rows[parent] == tuple(map(sum, zip(*parts, strict=True)))


def test_nothing_is_computed_and_the_config_stays_as_it_was():
    cfg = upernet('inceptionnext', 'base')
    before = copy.deepcopy(cfg.to_dict())
    segmentor = build_on_meta(cfg)
    assert all(tensor.is_meta for tensor in (*segmentor.parameters(), *segmentor.buffers()))
    count(cfg, (64, 64))
    assert cfg.to_dict() == before


@pytest.mark.parametrize(('option', 'value', 'message'), [
    ('model.backbone.arch', 'huge', "cannot be built: .*'huge'.*atto"),
    ('model.decode_head.in_channels', [1, 2, 3, 4], r'cannot be run on an image of 512×2048 .*in_channels of neck'),
    ('model', dict(type='BN', num_features=3), r'is a BatchNorm2d; expected: a segmentor')])
def test_a_config_that_cannot_be_counted_is_one_clear_message(option, value, message):
    cfg = load_config(ROOT / 'configs/upernet_inceptionnext_t_ade20k.py')
    if option == 'model':
        cfg = Config(dict(model=value))
    else:
        cfg.merge_from_dict({option: value})
    with pytest.raises(UserError, match=message):
        count(cfg)


def run_tool(monkeypatch, *arguments):
    monkeypatch.setattr(sys, 'argv', ['tools/complexity.py', *map(str, arguments)])
    runpy.run_path(str(ROOT / 'tools/complexity.py'), run_name='__main__')


def test_the_tool_prints_and_writes_what_was_counted_and_how(monkeypatch, capsys, tmp_path):
    config = ROOT / 'configs/upernet_inceptionnext_a_mini.py'
    run_tool(monkeypatch, config, '--shape', 64, '--depth', 3, '--cfg-options', 'model.decode_head.channels=32',
             '--out', tmp_path / 'cost.json', tmp_path / 'cost.md')
    printed = capsys.readouterr().out
    text = (tmp_path / 'cost.md').read_text()
    assert printed in text
    assert 'tools/complexity.py' in text.splitlines()[2]
    assert '--depth 3' in text.splitlines()[2]
    assert 'bilinear resizing do not' in text

    written = json.loads((tmp_path / 'cost.json').read_text())
    assert torch.__version__.startswith(written['environment']['versions']['torch'])
    result, = written['configs'].values()
    assert result['shape'] == [64, 64]
    # 3×3 over four maps of 32 channels, at stride 4.
    bottleneck = result['modules']['decode_head.fpn_bottleneck.conv']
    assert bottleneck['macs'] == 128 * 32 * 9 * 16 * 16
    assert bottleneck['share_of_macs'] == pytest.approx(bottleneck['macs'] / result['macs'])
    assert {path.name for path in tmp_path.iterdir()} == {'cost.json', 'cost.md'}


@pytest.mark.parametrize(('arguments', 'message'), [
    (['missing.py'], 'config not found'),
    (['CONFIG', '--shape', '1', '2', '3'], '--shape is 1 2 3; expected: height and width'),
    (['CONFIG', '--shape', '0'], '--shape is 0; expected'),
    (['CONFIG', '--depth', '0'], '--depth is 0; expected: at least 1'),
    (['CONFIG', '--out', 'cost.csv'], '--out is cost.csv; expected'),
    (['CONFIG', '--shape', '16'], '16×16')])
def test_a_mistake_on_the_command_line_is_one_clear_message(monkeypatch, capsys, arguments, message):
    config = ROOT / 'configs/upernet_inceptionnext_a_mini.py'
    with pytest.raises(SystemExit) as exit_:
        run_tool(monkeypatch, *(config if argument == 'CONFIG' else argument for argument in arguments))
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert exit_.value.code == 2
    assert error.startswith('error: ')
    assert message in error
