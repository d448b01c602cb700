"""Ablations: their token mixers against plain torch, and configs that change one thing each."""
import functools
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from inceptionnext_seg import InceptionDWConv2d, InceptionNeXt, PartialInceptionDWConv2d

FOLDER = Path(__file__).parents[2] / 'configs/ablations'
CONFIGS = sorted(FOLDER.glob('*.py'))
BASELINES = sorted(FOLDER.glob('*_baseline_*.py'))
ABLATIONS = [path for path in CONFIGS if path not in BASELINES]
SETS = {'t_ade20k': ('band7', 'band9', 'band13', 'ratio1_4', 'ratio1_16'),
        'a_mini': ('band5', 'band7', 'band11', 'band13', 'ratio1_8', 'ratio1_16'),
        't_mini': ('band7', 'band13', 'ratio1_4', 'ratio1_16')}    # for the study of band and ratio alone
COMPLETE = ('t_ade20k', 'a_mini')
SAME_FOR_ALL = ('identity', 'dw3x3', 'no_horizontal', 'no_vertical', 'no_square', 'sequential', 'layernorm',
                'per_stage')


def load(path):
    cfg = Config.fromfile(path)
    init_default_scope(cfg.default_scope)
    return cfg


def backbone_of(path):
    with torch.device('meta'):
        return MODELS.build(load(path).model.backbone)


def mixers_of(backbone):
    """The token mixers of the four stages, of which all blocks of a stage have the same."""
    stages = [[block.token_mixer for block in stage.blocks] for stage in backbone.stages]
    assert all({str(mixer) for mixer in stage} == {str(stage[0])} for stage in stages)
    return [stage[0] for stage in stages]


def flatten(value, path=''):
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    found = [leaf for key, child in items for leaf in flatten(child, f'{path}.{key}'.lstrip('.'))]
    return found or [(path, value)]


# Token mixers


def depthwise(x, weight, bias):
    """A depthwise convolution of odd kernels, zero-padded, written as a sum of shifted images."""
    height, width = weight.shape[2:]
    padded = F.pad(x, (width // 2, width // 2, height // 2, height // 2))
    rows, columns = x.shape[2:]
    return bias[:, None, None] + sum(
        weight[:, 0, i, j][:, None, None] * padded[:, :, i:i + rows, j:j + columns]
        for i in range(height) for j in range(width))


@pytest.mark.parametrize(('branches', 'kept', 'bands'), [
    ((), 24, []), (('hw', ), 18, [['hw']]), (('w', 'h'), 12, [['w'], ['h']]), (('hw', 'h'), 12, [['hw'], ['h']]),
    (('hw', 'w'), 12, [['hw'], ['w']]), (('hw', 'w+h'), 12, [['hw'], ['w', 'h']]), (('h+w', ), 18, [['h', 'w']])])
def test_a_mixer_is_identity_and_its_branches_alone(branches, kept, bands):
    torch.manual_seed(0)
    mixer = MODELS.build(dict(type='PartialInceptionDWConv2d', channels=24, branches=branches, band_kernel_size=7,
                              branch_ratio=1 / 4)).double()
    x = torch.randn(2, 24, 9, 11, dtype=torch.double)
    found = mixer(x)
    assert torch.equal(found[:, :kept], x[:, :kept])
    for i, names in enumerate(bands):
        part = x[:, kept + 6 * i:kept + 6 * (i + 1)]
        for name in names:
            convolution = getattr(mixer, f'dwconv_{name}')
            assert convolution.kernel_size == dict(hw=(3, 3), w=(1, 7), h=(7, 1))[name]
            part = depthwise(part, convolution.weight, convolution.bias)
        torch.testing.assert_close(found[:, kept + 6 * i:kept + 6 * (i + 1)], part)
    assert len(list(mixer.children())) == sum(map(len, bands))


def test_a_mixer_with_all_branches_is_the_inception_one_with_the_same_parameters():
    torch.manual_seed(0)
    settings = dict(channels=40, band_kernel_size=9, branch_ratio=1 / 4)
    whole, partial = InceptionDWConv2d(**settings), PartialInceptionDWConv2d(**settings)
    partial.load_state_dict(whole.state_dict())
    x = torch.randn(2, 40, 12, 10)
    torch.testing.assert_close(partial(x), whole(x))


@pytest.mark.parametrize(('branches', 'message'), [
    (('w', 'w'), r"\('w', 'w'\)"), (('w', 'w+h'), r"\('w', 'w\+h'\)"), (('identity', ), "'identity'"),
    (('w', 'h', 'hw'), '0.4.* 9 .* 8')])
def test_branches_that_cannot_be_are_an_error_with_the_value(branches, message):
    with pytest.raises(ValueError, match=message):
        PartialInceptionDWConv2d(24, branches, branch_ratio=0.4)


def test_too_narrow_a_branch_is_an_error():
    with pytest.raises(ValueError, match='0 channels a branch'):
        PartialInceptionDWConv2d(8, branch_ratio=1 / 16)


# Configs


def test_every_ablation_is_there_for_both_variants():
    assert {path.stem for path in ABLATIONS} == {
        f'upernet_inceptionnext_{data[0]}_{name}_{data[2:]}' for data, own in SETS.items()
        for name in (*(SAME_FOR_ALL if data in COMPLETE else ()), *own)}


@pytest.mark.parametrize('path', ABLATIONS, ids=lambda path: path.stem)
def test_an_ablation_differs_from_its_baseline_in_token_mixer_or_norm_alone(path):
    model, data = path.stem.split('_')[2], path.stem.split('_')[-1]
    baseline = FOLDER / f'upernet_inceptionnext_{model}_baseline_{data}.py'
    ours, theirs = (dict(flatten(load(file).to_dict())) for file in (path, baseline))
    found = {key for key in ours.keys() | theirs.keys() if ours.get(key, '–') != theirs.get(key, '–')}
    changed = {'model.backbone.norm_cfg'} if 'layernorm' in path.stem else {'model.backbone.token_mixer'}
    assert {'.'.join(key.split('.')[:3]) for key in found} == changed
    assert len(path.read_text().splitlines()) <= 15


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_an_ablation_builds_its_model_and_gives_a_map_a_class(path):
    cfg = load(path)
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
        features = model.extract_feat(torch.zeros(2, 3, 64, 96))
        classes = dict(mini=18, ade20k=150)[path.stem.split('_')[-1]]
        assert model.decode_head(features).shape == (2, classes, 16, 24)
    assert type(model.backbone) is InceptionNeXt
    assert cfg.param_scheduler[0].end == cfg.param_scheduler[1].begin
    assert cfg.param_scheduler[1].end == cfg.train_cfg.max_iters
    assert cfg.train_cfg.max_iters % cfg.train_cfg.val_interval == 0
    assert cfg.train_cfg.val_interval == cfg.default_hooks.checkpoint.interval


@pytest.mark.parametrize('path', BASELINES, ids=lambda path: path.stem)
def test_a_baseline_is_the_network_of_its_variant_with_the_same_parameters(path):
    arch = dict(a='atto', t='tiny')[path.stem.split('_')[2]]
    with torch.device('meta'):
        wanted = InceptionNeXt(arch, out_norm_cfg=dict(type='BN'))
    found = backbone_of(path)
    assert {name: value.shape for name, value in found.state_dict().items()} == {
        name: value.shape for name, value in wanted.state_dict().items()}


CHANNELS = dict(a=(40, 80, 160, 320), t=(96, 192, 384, 768))
RATIO_AND_BAND = dict(a=(4, 9), t=(8, 11))


def mixers_in(data, name):
    return mixers_of(backbone_of(FOLDER / f'upernet_inceptionnext_{data[0]}_{name}_{data[2:]}.py'))


def shapes(mixer):
    return {name.split('_')[-1]: tuple(child.weight.shape) for name, child in mixer.named_children()}


@pytest.mark.parametrize(('data', 'name'), [(data, name) for data, names in SETS.items() for name in names])
def test_an_ablation_of_band_or_ratio_is_what_its_name_says(data, name):
    ratio, band = RATIO_AND_BAND[data[0]]
    kind, value = name[:4], name[4:].removeprefix('o1_')
    size, share = (int(value), ratio) if kind == 'band' else (band, int(value))
    for mixer, width in zip(mixers_in(data, name), (c // share for c in CHANNELS[data[0]]), strict=True):
        assert shapes(mixer) == dict(hw=(width, 1, 3, 3), w=(width, 1, 1, size), h=(width, 1, size, 1))


@pytest.mark.parametrize('data', COMPLETE)
def test_each_other_ablation_is_what_its_name_says(data):
    channels = CHANNELS[data[0]]
    ratio, band = RATIO_AND_BAND[data[0]]
    mixers = functools.partial(mixers_in, data)
    widths = [c // ratio for c in channels]
    for name, kept in (('no_horizontal', 'hw h'), ('no_vertical', 'hw w'), ('no_square', 'w h'), ('identity', ''),
                       ('sequential', 'hw w h')):
        for mixer, width in zip(mixers(name), widths, strict=True):
            whole = dict(hw=(width, 1, 3, 3), w=(width, 1, 1, band), h=(width, 1, band, 1))
            assert shapes(mixer) == {part: whole[part] for part in kept.split()}
    assert [tuple(mixer.weight.shape) for mixer in mixers('dw3x3')] == [(c, 1, 3, 3) for c in channels]
    *inception, third, fourth = mixers('per_stage')
    assert [shapes(mixer)['w'] for mixer in inception] == [(width, 1, 1, band) for width in widths[:2]]
    assert [tuple(mixer.weight.shape) for mixer in (third, fourth)] == [(c, 1, 7, 7) for c in channels[2:]]


@pytest.mark.parametrize('data', COMPLETE)
def test_the_layernorm_ablation_has_no_batchnorm_but_on_the_output_stages(data):
    backbone = backbone_of(FOLDER / f'upernet_inceptionnext_{data[0]}_layernorm_{data[2:]}.py')
    norms = {name for name, module in backbone.named_modules() if isinstance(module, torch.nn.BatchNorm2d)}
    assert norms == {'norm0', 'norm1', 'norm2', 'norm3'}


def test_bands_in_sequence_see_a_square_and_in_parallel_a_cross():
    x = torch.zeros(1, 8, 15, 15)
    x[:, :, 7, 7] = 1
    reach = {}
    for branches in (('w', 'h'), ('w+h', )):
        mixer = PartialInceptionDWConv2d(8, branches, band_kernel_size=5, branch_ratio=1 / 4)
        for convolution in mixer.children():
            torch.nn.init.ones_(convolution.weight)
            torch.nn.init.zeros_(convolution.bias)
        reach[branches] = (mixer(x)[0, 4:] != 0).any(0).sum().item()
    assert reach == {('w', 'h'): 9, ('w+h', ): 25}
