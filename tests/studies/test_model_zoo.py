"""The catalogue is what the configs say; what the configs took from elsewhere is what those sources have."""
import copy
import json
import re
import shlex
import shutil
from argparse import ArgumentParser
from pathlib import Path

import mmengine
import mmseg
import pytest
import timm.models.convnext
import torch
import torch.nn as nn
import torch.nn.functional as F
from mmengine.config import Config, DictAction
from mmengine.registry import MODELS, init_default_scope

from inceptionnext_seg.data.checks import check_folders
from inceptionnext_seg.engine.launch import for_tta, load_config
from inceptionnext_seg.errors import UserError
from inceptionnext_seg.models.checkpoint import load_model
from inceptionnext_seg.models.token_mixers import PartialDWConv2d
from studies.model_zoo import PREFACE, catalogue, entries, write_catalogue
from studies.paper import MMSEGMENTATION_CONVNEXT
from studies.throughput.candidates import stock_config

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = Path(mmseg.__file__).with_name('.mim') / 'configs'


def load(name, *options):
    """A config of ours, with ``--cfg-options`` as on a command line."""
    parser = ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    return load_config(ROOT / f'configs/{name}.py', parser.parse_args(options).cfg_options)


def shipped(path):
    """A config of the installed MMSegmentation, without importing what its models need."""
    if not SHIPPED.is_dir():
        pytest.skip(f'this mmsegmentation has no configs: {SHIPPED}')
    return Config.fromfile(SHIPPED / path, import_custom_modules=False)


def options_of_preface():
    """The command-line options in the code blocks of docs/model_zoo.md, in their order."""
    blocks = re.findall(r'```\n(.*?)```', PREFACE, flags=re.DOTALL)
    return [shlex.split(block.replace('\\\n', ' ')) for block in blocks]


def randomize(model):
    """Draw every weight and statistic, at a scale at which each one moves the output."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in [*model.named_parameters(), *model.named_buffers()]:
            if value.ndim > 1:
                value.normal_(std=value[0].numel()**-0.5, generator=generator)
            elif name.endswith(('gamma', 'weight', 'running_var')):
                value.uniform_(0.5, 1.5, generator=generator)
            elif value.is_floating_point():
                value.normal_(std=0.2, generator=generator)
    return model.eval()


# The catalogue


@pytest.fixture(scope='module')
def found():
    return entries(ROOT)


def test_the_files_of_the_catalogue_are_what_the_command_writes(found):
    for path, text in catalogue(found).items():
        assert (ROOT / path).read_bytes() == text.encode(), f'{path} is out of date; next: python tools/model_zoo.py'


def test_every_config_is_in_the_catalogue_once():
    # Those for one's own images have the classes, sizes and length of these.
    names = {path.stem for path in (ROOT / 'configs').glob('*.py') if not path.stem.endswith('_own')}
    text = (ROOT / 'docs/model_zoo.md').read_text()
    rows = re.findall(r'^\| \[(\w+)\]\(\.\./configs/\1\.py\)', text, flags=re.MULTILINE)
    assert len(rows) == len(names) and set(rows) == names
    models = mmengine.load(ROOT / 'configs/metafile.yml')['Models']
    assert [model['Name'] for model in models] == rows
    assert all((ROOT / model['Config']).is_file() for model in models)
    assert mmengine.load(ROOT / 'model-index.yml') == dict(Import=['configs/metafile.yml'])
    lists = [value for model in models for value in model['Metadata'].values() if isinstance(value, list)]
    assert all(isinstance(value, str | dict) for values in lists for value in values), 'mim search raises at others'


def test_every_file_that_the_catalogue_links_to_is_there():
    links = set(re.findall(r'\]\((?!http)([^)#]+)\)', (ROOT / 'docs/model_zoo.md').read_text()))
    assert len(links) > 38
    assert not [link for link in links if not (ROOT / 'docs' / link).exists()]


# Parameters in M with the auxiliary head, MACs in G without it, mIoU: the paper's tables of UperNet and Semantic FPN.
@pytest.mark.parametrize(('name', 'parameters', 'macs', 'miou'), [
    ('upernet_convnext_t_ade20k', 60, 939, 46.7), ('upernet_inceptionnext_t_ade20k', 56, 933, 47.9),
    ('upernet_convnext_s_ade20k', 82, 1027, 49.6), ('upernet_inceptionnext_s_ade20k', 78, 1020, 50.0),
    ('upernet_convnext_b_ade20k', 122, 1170, 49.9), ('upernet_inceptionnext_b_ade20k', 115, 1159, 50.6),
    ('upernet_inceptionnext_t_swin_recipe_ade20k', 56, 933, 47.9),
    ('fpn_inceptionnext_t_ade20k', 28, 44, 43.1), ('fpn_inceptionnext_s_ade20k', 50, 65, 45.6),
    ('fpn_inceptionnext_b_ade20k', 85, 100, 46.4)])
def test_a_row_of_the_papers_tables_has_its_parameters_macs_and_miou(found, name, parameters, macs, miou):
    entry, = [entry for entry in found if entry.name == name]
    assert round(entry.complexity.parameters / 1e6) == parameters
    # The paper counts two operations for each element of a norm too (tests/segmentation/test_complexity.py).
    assert entry.complexity.macs / 1e9 == pytest.approx(macs, abs=0.7)
    assert entry.paper.miou == miou
    assert f'| {miou} |' in next(line for line in catalogue(found)['docs/model_zoo.md'].splitlines() if name in line)


def test_no_other_config_claims_a_figure_of_the_paper_or_of_mmsegmentation(found):
    assert sum(entry.paper is not None for entry in found) == 9 + 3
    released = {entry.name: entry.released for entry in found if entry.released}
    assert released == {f'upernet_convnext_{arch[0]}_ade20k': row for arch, row in MMSEGMENTATION_CONVNEXT.items()}


def test_the_figures_and_weights_of_mmsegmentation_are_those_of_its_own_catalogue():
    path = SHIPPED / 'convnext/metafile.yaml'
    if not path.is_file():
        pytest.skip(f'this mmsegmentation has no catalogue: {path}')
    models = mmengine.load(path)['Models']
    for arch, row in MMSEGMENTATION_CONVNEXT.items():
        theirs, = [model for model in models if re.match(rf'convnext-{arch}_.*512x512', model['Name'])]
        metrics = theirs['Results']['Metrics']
        assert row == (metrics['mIoU'], metrics['mIoU(ms+flip)'], theirs['Weights'])


def test_the_weights_that_training_starts_from_are_those_of_the_variant(found):
    for entry in found:
        if entry.data_set in ('mini', 'camvid'):
            assert entry.pretrained is None
        else:
            name = Path(entry.pretrained).name
            assert name.replace('-', '_').startswith(f'{entry.family.lower()}_{entry.arch}')
            assert entry.top1 is None if 'noema' in name else entry.top1 > 75
    kernels = {entry.name: Path(entry.pretrained).stem for entry in found if '_t_k' in entry.name}
    assert kernels == {f'upernet_convnext_t_{kernel}_ade20k': f'convnext_tiny_{kernel}' for kernel in (
        'k5', 'k3', 'k3_par1_2', 'k3_par1_4', 'k3_par1_8')}


@pytest.fixture
def small_repository(tmp_path):
    """The bases and one config, and the results of a test of it with and without --tta."""
    shutil.copytree(ROOT / 'configs/_base_', tmp_path / 'configs/_base_')
    shutil.copy(ROOT / 'configs/fpn_convnext_a_mini.py', tmp_path / 'configs')
    for name, seed, command, miou in (('a', 0, '', 30), ('b', 1, '', 32), ('c', 0, ' --tta', 33.333)):
        path = tmp_path / f'docs/results/reproduced/{name}.json'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(dict(
            config='configs/fpn_convnext_a_mini.py', mIoU=miou, mAcc=50, aAcc=50, seed=seed,
            per_class=dict(sky=dict(IoU=miou, Acc=50)),
            environment=dict(command=f'python tools/test.py configs/fpn_convnext_a_mini.py x.pth{command}'))))
    return tmp_path


def test_results_put_beside_the_others_are_in_the_catalogue_single_scale_and_multi_scale(small_repository):
    write_catalogue(small_repository)
    row, = [line for line in (small_repository / 'docs/model_zoo.md').read_text().splitlines() if '| [fpn' in line]
    assert '| 31.00 ± 1.41 (2 seeds) / 33.33 |' in row
    model, = mmengine.load(small_repository / 'configs/metafile.yml')['Models']
    assert model['Results']['Metrics'] == {'mIoU': 31.0, 'mIoU(ms+flip)': 33.33}
    assert (small_repository / 'model-index.yml').read_bytes() == (ROOT / 'model-index.yml').read_bytes()


@pytest.mark.parametrize(('name', 'content', 'message'), [
    ('d', '{', r'd\.json cannot be read'), ('d', '{"mIoU": 3}', r'd\.json: mAcc is None'),
    ('d', None, r'fpn_convnext_a_mini names two results of seed 0, .*a\.json and .*d\.json')])
def test_a_result_that_cannot_be_read_or_is_there_twice_is_one_message(small_repository, name, content, message):
    folder = small_repository / 'docs/results/reproduced'
    (folder / f'{name}.json').write_text(content or (folder / 'a.json').read_text())
    with pytest.raises(UserError, match=message):
        write_catalogue(small_repository)


def test_a_config_that_names_no_data_set_is_one_clear_message(small_repository):
    config = small_repository / 'configs/fpn_convnext_a_mini.py'
    config.rename(config.with_name('fpn_convnext_a_mine.py'))
    with pytest.raises(UserError, match=r"a_mine\.py: the name ends in 'mine'; expected: .*voc12aug.*Next"):
        write_catalogue(small_repository)


# The options that the catalogue names


def test_the_options_of_semantic_fpn_in_80k_iterations_are_those_of_mmsegmentations_pcpvt():
    ours = load('fpn_inceptionnext_t_ade20k', *options_of_preface()[0])
    theirs = shipped('twins/twins_pcpvt-s_fpn_fpnhead_8xb4-80k_ade20k-512x512.py')
    images = ours.train_cfg.total_batch_size
    assert images == 16
    # The runner scales the rate to the images of an iteration.
    rate = ours.optim_wrapper.optimizer.lr * images / ours.auto_scale_lr.base_batch_size
    assert (rate, ours.optim_wrapper.optimizer.weight_decay) == (
        theirs.optim_wrapper.optimizer.lr, theirs.optim_wrapper.optimizer.weight_decay)
    assert ours.param_scheduler[0].end == ours.train_cfg.max_iters == theirs.train_cfg.max_iters
    assert ours.train_cfg.val_interval == ours.default_hooks.checkpoint.interval == theirs.train_cfg.val_interval


def test_the_test_time_options_set_the_mode_that_they_stand_for():
    whole, slide, tta = options_of_preface()[1:]
    assert load('upernet_inceptionnext_t_ade20k', *whole).model.test_cfg.mode == 'whole'
    assert load('fpn_inceptionnext_t_ade20k', *slide).model.test_cfg == load('upernet_convnext_t_ade20k').model.test_cfg
    assert tta == ['--tta']
    cfg = for_tta(load('upernet_inceptionnext_t_ade20k', *whole))
    assert cfg.model.type == 'SegTTAModel' and cfg.model.module.test_cfg.mode == 'whole'


def test_the_default_test_modes_are_those_that_the_catalogue_states(found):
    for entry in found:
        slides = entry.method == 'UperNet' and entry.data_set == 'ade20k'
        assert entry.cfg.model.test_cfg.mode == ('slide' if slides else 'whole')


# The recipes against their sources


@pytest.mark.parametrize('arch', ['small', 'base'])
def test_the_larger_convnexts_are_mmsegmentations(arch):
    ours = load(f'upernet_convnext_{arch[0]}_ade20k')
    theirs = shipped(f'convnext/convnext-{arch}_upernet_8xb2-amp-160k_ade20k-512x512.py')
    for setting in ('arch', 'drop_path_rate'):
        assert ours.model.backbone[setting] == theirs.model.backbone[setting]
    assert ours.model.test_cfg == theirs.model.test_cfg
    assert ours.model.decode_head.in_channels == theirs.model.decode_head.in_channels
    assert ours.model.auxiliary_head.in_channels == theirs.model.auxiliary_head.in_channels
    assert ours.optim_wrapper.optimizer == dict(theirs.optim_wrapper.optimizer, fused=True)
    assert ours.optim_wrapper.paramwise_cfg == theirs.optim_wrapper.paramwise_cfg
    assert ours.param_scheduler == theirs.param_scheduler


def test_drop_path_is_the_papers():
    # arXiv:2303.16900, appendix A.2.
    for method, rates in dict(upernet=(0.2, 0.3, 0.4), fpn=(0.1, 0.2, 0.2)).items():
        assert tuple(load(f'{method}_inceptionnext_{arch}_ade20k').model.backbone.drop_path_rate
                     for arch in 'tsb') == rates


def test_semantic_fpn_is_that_of_mmsegmentations_poolformer():
    ours, theirs = load('fpn_inceptionnext_t_ade20k'), shipped(
        'poolformer/fpn_poolformer_s12_8xb4-40k_ade20k-512x512.py')
    assert dict(ours.optim_wrapper.optimizer) == dict(theirs.optim_wrapper.optimizer, betas=(0.9, 0.999), fused=True)
    assert 'constructor' not in ours.optim_wrapper and 'constructor' not in theirs.optim_wrapper
    assert ours.param_scheduler == theirs.param_scheduler
    assert ours.train_cfg.max_iters == theirs.train_cfg.max_iters
    assert ours.train_cfg.val_interval == theirs.train_cfg.val_interval
    assert ours.train_cfg.total_batch_size == 8 * theirs.train_dataloader.batch_size
    assert ours.val_dataloader.dataset == theirs.val_dataloader.dataset
    assert ours.test_dataloader.dataset == theirs.test_dataloader.dataset
    # There it is repeated, which an endless sampler does too.
    assert ours.train_dataloader.dataset == theirs.train_dataloader.dataset.dataset
    assert ours.model.data_preprocessor == theirs.model.data_preprocessor
    assert ours.model.neck == dict(theirs.model.neck, in_channels=[96, 192, 384, 768])
    for setting in theirs.model.decode_head.keys() - {'type', 'norm_cfg'}:
        assert ours.model.decode_head[setting] == theirs.model.decode_head[setting], setting


@pytest.mark.parametrize(('name', 'base'), [
    ('upernet_convnext_t_cityscapes', 'cityscapes'), ('upernet_convnext_t_voc12aug', 'pascal_voc12_aug'),
    ('upernet_convnext_t_cocostuff164k', 'coco-stuff164k'),
    ('upernet_inceptionnext_b_384pre_ade20k', 'ade20k_640x640')])
def test_a_data_set_is_that_of_mmsegmentations_base_file(name, base):
    ours, theirs = load(name), shipped(f'_base_/datasets/{base}.py')
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        assert ours[loader].dataset == theirs[loader].dataset
        assert ours[loader].sampler == theirs[loader].sampler
    assert ours.val_evaluator.iou_metrics == theirs.val_evaluator.iou_metrics


def test_crops_of_640_are_tested_in_the_windows_of_mmsegmentations_convnext():
    ours, theirs = load('upernet_inceptionnext_b_384pre_ade20k').model, shipped(
        'convnext/convnext-base_upernet_8xb2-amp-160k_ade20k-640x640.py').model
    assert ours.test_cfg == theirs.test_cfg
    assert ours.data_preprocessor == theirs.data_preprocessor


def test_missing_pascal_voc_is_one_message_whose_options_move_both_of_its_parts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        check_folders(load('upernet_inceptionnext_t_voc12aug'), ('train_dataloader', ))
    assert 'looked for the folder data/VOCdevkit/VOC2012/JPEGImages' in str(error.value)
    option, = re.findall(r'--cfg-options .*PATH$', str(error.value), flags=re.MULTILINE)
    cfg = load('upernet_inceptionnext_t_voc12aug', *option.replace('PATH', 'elsewhere').split())
    assert [part.data_root for part in cfg.train_dataloader.dataset.datasets] == ['elsewhere'] * 2


# The kernel variants


def test_a_partial_convolution_leaves_the_first_channels_and_convolves_the_last():
    mixer = PartialDWConv2d(10, kernel_size=3, branch_ratio=0.25)
    x = torch.randn(2, 10, 5, 6)
    y = mixer(x)
    assert torch.equal(y[:, :8], x[:, :8])
    torch.testing.assert_close(y[:, 8:], F.conv2d(x[:, 8:], mixer.conv.weight, mixer.conv.bias, padding=1, groups=2))
    for ratio in (0.05, 1.5):
        with pytest.raises(ValueError, match=rf'branch_ratio {ratio} of 10 channels .* at least 1 and at most 10'):
            PartialDWConv2d(10, branch_ratio=ratio)


class AuthorsPartialConvolution(nn.Module):
    """As sail-sg/inceptionnext's models/convnext.py has it, around timm's convolution."""

    def __init__(self, convolution, ratio):
        super().__init__()
        channels = convolution.in_channels
        self.count = int(channels * ratio)
        self.conv = nn.Conv2d(self.count, self.count, convolution.kernel_size, padding=convolution.padding,
                              groups=self.count)

    def forward(self, x):
        identity, convolved = torch.split(x, (x.shape[1] - self.count, self.count), dim=1)
        return torch.cat((identity, self.conv(convolved)), dim=1)


@pytest.mark.logits_match
@pytest.mark.parametrize(('kernel', 'size', 'ratio'), [
    ('k5', 5, None), ('k3', 3, None), ('k3_par1_2', 3, 1 / 2), ('k3_par1_4', 3, 1 / 4), ('k3_par1_8', 3, 1 / 8)])
def test_a_kernel_variant_takes_weights_of_the_authors_names_and_computes_the_same(tmp_path, kernel, size, ratio):
    settings = dict(depths=(1, 1, 2, 1), dims=(16, 32, 48, 64))
    theirs = timm.models.convnext.ConvNeXt(**settings, kernel_sizes=size, num_classes=10)
    if ratio:
        for stage in theirs.stages:
            for block in stage.blocks:
                block.conv_dw = AuthorsPartialConvolution(block.conv_dw, ratio)
    randomize(theirs)
    state = {}
    for name, value in theirs.state_dict().items():
        name = re.sub(r'^stem', 'downsample_layers.0', name)
        name = re.sub(r'^stages\.(\d+)\.downsample', r'downsample_layers.\1', name)
        name = re.sub(r'^(stages\.\d+)\.blocks', r'\1', name).replace('conv_dw', 'dwconv').replace('mlp.fc', 'pwconv')
        state[name.replace('head.norm', 'norm').replace('head.fc', 'head')] = value
    if ratio:
        assert state['stages.2.1.dwconv.conv.weight'].shape == (48 * ratio, 1, 3, 3)
    torch.save(state, tmp_path / 'weights.pth')

    cfg = load(f'upernet_convnext_t_{kernel}_ade20k').model.backbone
    cfg.update(arch=settings, drop_path_rate=0., out_norm_cfg=None)
    cfg.init_cfg.checkpoint = str(tmp_path / 'weights.pth')
    ours = MODELS.build(cfg)
    ours.init_weights()
    image = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted = theirs.forward_intermediates(image, intermediates_only=True)
        for a, b in zip(ours.eval()(image), wanted, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-5 * b.abs().max().item())


# Baselines that can be evaluated at once


@pytest.mark.logits_match
def test_a_checkpoint_of_mmsegmentations_own_convnext_loads_into_the_baseline_and_gives_the_same_logits(tmp_path):
    stock, origin = stock_config()
    if not origin.startswith('mmpretrain'):
        pytest.skip(f'the backbone is {origin}')
    init_default_scope('mmseg')
    theirs = randomize(MODELS.build(copy.deepcopy(stock.model)))
    torch.save(dict(meta=dict(), state_dict=theirs.state_dict()), tmp_path / 'stock.pth')

    cfg = load('upernet_convnext_t_ade20k')
    ours = MODELS.build(cfg.model).eval()
    load_model(ours, tmp_path / 'stock.pth')
    image = torch.randn(1, 3, 97, 131, generator=torch.Generator().manual_seed(1))
    shape = dict(ori_shape=(97, 131), img_shape=(97, 131), pad_shape=(97, 131), padding_size=[0] * 4)
    with torch.no_grad():
        # As tools/test.py runs it: both configs have a sliding window.
        found, wanted = (model.inference(image, [shape]) for model in (ours, theirs))
    assert found.shape == (1, 150, 97, 131)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4 * wanted.abs().max().item())
