"""Every config loads, builds and names only what is registered; the recipe is MMSegmentation's own for ConvNeXt."""
import functools
import re
from pathlib import Path

import mmseg
import mmseg.registry
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import Registry, init_default_scope

from inceptionnext_seg.data.checks import datasets_of
from inceptionnext_seg.models.layers import NORMS

ROOT = Path(__file__).resolve().parents[1]
# Those of classification and detection are other frameworks': tests/test_other_frameworks.py.
CONFIGS = sorted(path for path in (ROOT / 'configs').rglob('*.py')
                 if path.parent.name not in ('_base_', 'classification', 'detection'))
MMSEG_CONFIG = Path(mmseg.__file__).with_name('.mim') / (
    'configs/convnext/convnext-tiny_upernet_8xb2-amp-160k_ade20k-512x512.py')
REGISTRIES = [value for value in vars(mmseg.registry).values() if isinstance(value, Registry)]


def load(name):
    return Config.fromfile(ROOT / f'configs/{name}.py')


def flatten(value, path=''):
    """(path, leaf) of every setting; an empty dict or list is a leaf."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    found = [leaf for key, child in items for leaf in flatten(child, f'{path}.{key}'.lstrip('.'))]
    return found or [(path, value)]


def differences(a, b):
    """Paths of the settings that two configs do not share."""
    a, b = (dict(flatten(cfg.to_dict())) for cfg in (a, b))
    return {path for path in a.keys() | b.keys() if path not in a or path not in b or a[path] != b[path]}


def training_sets(cfg):
    """The configs of the training data, one or several, inside mmengine's wrappers."""
    return [part for _, part in datasets_of(cfg.train_dataloader)]


@functools.cache
def built(path):
    """The config and its model on meta tensors."""
    cfg = Config.fromfile(path)
    init_default_scope(cfg.default_scope)
    with torch.device('meta'):
        return cfg, mmseg.registry.MODELS.build(cfg.model)


def count_parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.fixture(scope='module')
def mmseg_recipe():
    if not MMSEG_CONFIG.is_file():
        pytest.skip(f'this mmsegmentation has no configs: {MMSEG_CONFIG}')
    return Config.fromfile(MMSEG_CONFIG, import_custom_modules=False)


# Every config


def test_the_configs_are_every_variant_and_its_baseline_for_each_data_set():
    families = ('inceptionnext', 'convnext')
    wanted = {f'upernet_{family}_{arch}_{data}'
              for family in families for arch in 'atsb' for data in ('ade20k', 'mini')}
    wanted |= {f'upernet_{family}_t_{data}' for family in families
               for data in ('cityscapes', 'voc12aug', 'cocostuff164k')}
    wanted |= {f'upernet_{family}_a_camvid' for family in families}
    wanted |= {f'upernet_inceptionnext_{arch}_own' for arch in ('a', 'a_pretrained', 't')}
    wanted |= {f'fpn_{family}_{arch}_mini' for family in families for arch in 'at'}
    wanted |= {f'fpn_inceptionnext_{arch}_ade20k' for arch in 'tsb'} | {'fpn_convnext_t_ade20k'}
    wanted |= {'upernet_inceptionnext_b_384pre_ade20k'}
    wanted |= {f'upernet_inceptionnext_{arch}_swin_recipe_ade20k' for arch in 'tsb'}
    wanted |= {f'upernet_convnext_t_{kernel}_ade20k' for kernel in ('k5', 'k3', 'k3_par1_2', 'k3_par1_4', 'k3_par1_8')}
    assert {path.stem for path in CONFIGS if path.parent.name == 'configs'} == wanted


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_a_config_loads_from_any_folder_and_names_only_what_is_registered(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = Config.fromfile(path)
    init_default_scope(cfg.default_scope)
    types = {value for key, value in flatten(cfg.to_dict()) if key.split('.')[-1] == 'type'}
    assert len(types) > 20
    # Read by MetaNeXt itself.
    types -= {'Pretrained', *NORMS}
    assert not [name for name in sorted(types) if not any(registry.get(name) for registry in REGISTRIES)]


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_a_config_builds_its_model_with_a_class_for_each_of_its_data_set(path):
    cfg, model = built(path)
    classes = {'mini': 18, 'ade20k': 150, 'camvid': 11, 'cityscapes': 19, 'voc12aug': 21,
               'cocostuff164k': 171, 'own': 2}[path.stem.split('_')[-1]]
    with torch.device('meta'):
        features = model.extract_feat(torch.zeros(2, 3, 64, 96))
        assert model.decode_head(features).shape == (2, classes, 16, 24)
        assert not model.with_auxiliary_head or model.auxiliary_head(features).shape == (2, classes, 4, 6)
    known = mmseg.registry.DATASETS.get(training_sets(cfg)[0].type).METAINFO.get('classes')
    # The embedded set names its classes when it is made: 18 of ADE20K's.
    assert known is None or len(known) == classes or path.stem.endswith('mini')
    metainfo = cfg.train_dataloader.dataset.get('metainfo')
    if metainfo:
        assert len(metainfo.classes) == len(metainfo.palette) == classes


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_neck_and_heads_take_the_channels_of_the_backbone(path):
    cfg, model = built(path)
    with torch.device('meta'):
        channels = [feature.shape[1] for feature in model.backbone(torch.zeros(2, 3, 64, 96))]
    first = cfg.model.get('neck') or cfg.model.decode_head
    assert list(first.in_channels) == channels
    assert not model.with_auxiliary_head or cfg.model.auxiliary_head.in_channels == channels[2]


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_the_optimizer_has_every_parameter_once_and_none_trains_faster_than_the_heads(path):
    cfg, model = built(path)
    groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    found = [id(parameter) for group in groups for parameter in group['params']]
    assert len(found) == len(set(found))
    assert set(found) == {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    rate = {id(parameter): group['lr'] for group in groups for parameter in group['params']}
    assert {rate[id(parameter)] for parameter in model.decode_head.parameters()} == {cfg.optim_wrapper.optimizer.lr}
    assert 0 < min(rate.values()) <= max(rate.values()) == cfg.optim_wrapper.optimizer.lr


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_a_config_trains_crops_of_the_size_that_the_model_pads_to(path):
    cfg = Config.fromfile(path)
    for dataset in training_sets(cfg):
        crop = next(step for step in dataset.pipeline if step.type in ('RandomCrop', 'RareClassCrop'))
        assert tuple(crop.crop_size) == tuple(cfg.model.data_preprocessor.size)


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_a_schedule_ends_with_its_training_and_a_validation(path):
    cfg = Config.fromfile(path)
    *warm_up, decay = cfg.param_scheduler
    assert len(warm_up) < 2
    assert [0, *(phase.end for phase in warm_up)] == [*(phase.begin for phase in warm_up), decay.begin]
    assert decay.end == cfg.train_cfg.max_iters
    assert cfg.train_cfg.max_iters % cfg.train_cfg.val_interval == 0
    assert cfg.train_cfg.val_interval == cfg.default_hooks.checkpoint.interval
    assert cfg.auto_scale_lr == dict(enable=True, base_batch_size=cfg.train_cfg.total_batch_size)


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_tta_is_six_scales_with_and_without_flip_and_the_labels_of_the_plain_test(path):
    cfg = Config.fromfile(path)
    resizes, flips, (annotations, ), _ = cfg.tta_pipeline[1].transforms
    ratios = [0.5, 0.75, 1.0, 1.25, 1.5, 1.75]
    if 'scale_factor' in resizes[0]:
        assert [resize.scale_factor for resize in resizes] == ratios
    else:
        height = min(resizes[2].scale)
        assert [min(resize.scale) / height for resize in resizes] == ratios
        width = max(resizes[2].scale)
        assert [max(resize.scale) / width for resize in resizes] == ratios
    assert [flip.prob for flip in flips] == [0, 1]
    assert annotations == next(step for step in cfg.test_dataloader.dataset.pipeline if step.type == 'LoadAnnotations')


def test_every_config_checks_settings_data_and_weights_and_measures_and_records():
    for path in CONFIGS:
        cfg = Config.fromfile(path)
        more = ['TimeBudgetHook', 'EMAHook', 'EarlyStoppingHook', 'ReportHook'] if path.stem.endswith('_own') else []
        more = ['EMAHook'] if path.parent.name == 'powered' else more
        assert [hook.type for hook in cfg.custom_hooks] == ['ThroughputHook', 'MetricsFileHook', *more]
        assert {'SettingsCheckHook', 'DataCheckHook', 'StrictLoadHook'} <= {
            hook.type for hook in cfg.default_hooks.values()}


# The recipe


# 0.2: InceptionNeXt's paper, appendix A.2.
@pytest.mark.parametrize(('name', 'drop_path_rate'), [('convnext', 0.4), ('inceptionnext', 0.2)])
def test_the_ade20k_recipe(name, drop_path_rate):
    cfg = load(f'upernet_{name}_t_ade20k')
    assert cfg.train_dataloader.dataset.type == 'ADE20KDataset'
    assert cfg.crop_size == (512, 512)
    assert (cfg.train_cfg.total_batch_size, cfg.train_cfg.max_iters) == (16, 160000)
    assert cfg.optim_wrapper.optimizer == dict(
        type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05, fused=True)
    assert cfg.optim_wrapper.paramwise_cfg == dict(decay_rate=0.9, decay_type='stage_wise', num_layers=6)
    warm_up, decay = cfg.param_scheduler
    assert (warm_up.type, warm_up.end) == ('LinearLR', 1500)
    assert (decay.type, decay.power, decay.eta_min) == ('PolyLR', 1.0, 0.0)
    assert (cfg.model.backbone.arch, cfg.model.backbone.drop_path_rate) == ('tiny', drop_path_rate)
    assert (cfg.model.decode_head.type, cfg.model.decode_head.channels) == ('UPerHead', 512)
    assert (cfg.model.auxiliary_head.type, cfg.model.auxiliary_head.loss_decode.loss_weight) == ('FCNHead', 0.4)
    assert cfg.model_wrapper_cfg.type == 'AnyDeviceDistributedDataParallel'
    assert cfg.model.backbone.init_cfg.type == 'Pretrained'


@pytest.mark.parametrize(('name', 'parameters'), [('convnext', 60.24), ('inceptionnext', 56.40)])
def test_the_ade20k_segmentors_have_the_parameters_of_the_paper(name, parameters):
    cfg = load(f'upernet_{name}_t_ade20k')
    init_default_scope(cfg.default_scope)
    with torch.device('meta'):
        model = mmseg.registry.MODELS.build(cfg.model)
    assert round(count_parameters(model) / 1e6, 2) == pytest.approx(parameters, abs=0.011)


def test_the_convnext_recipe_is_that_of_mmsegmentation(mmseg_recipe):
    ours = load('upernet_convnext_t_ade20k')
    assert ours.optim_wrapper.optimizer == dict(mmseg_recipe.optim_wrapper.optimizer, fused=True)
    assert ours.optim_wrapper.paramwise_cfg == mmseg_recipe.optim_wrapper.paramwise_cfg
    assert ours.param_scheduler == mmseg_recipe.param_scheduler
    assert ours.train_cfg.max_iters == mmseg_recipe.train_cfg.max_iters
    assert ours.train_cfg.val_interval == mmseg_recipe.train_cfg.val_interval
    assert ours.train_cfg.total_batch_size == 8 * mmseg_recipe.train_dataloader.batch_size
    assert ours.default_hooks.to_dict() == dict(
        mmseg_recipe.default_hooks.to_dict(), accelerate=dict(type='AccelerateHook'), compile=dict(type='CompileHook'),
        finite=dict(type='FiniteHook'), settings=dict(type='SettingsCheckHook'), data=dict(type='DataCheckHook'),
        weights=dict(type='StrictLoadHook'),
        checkpoint=dict(mmseg_recipe.default_hooks.checkpoint, max_keep_ckpts=2))
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        assert ours[name].dataset == mmseg_recipe[name].dataset, name
        assert ours[name].sampler == mmseg_recipe[name].sampler, name
    assert ours.val_evaluator.iou_metrics == mmseg_recipe.val_evaluator.iou_metrics


def test_the_convnext_model_is_that_of_mmsegmentation(mmseg_recipe):
    ours, theirs = load('upernet_convnext_t_ade20k').model, mmseg_recipe.model
    assert ours.data_preprocessor == theirs.data_preprocessor
    assert ours.test_cfg == theirs.test_cfg
    assert ours.backbone.arch == theirs.backbone.arch
    assert ours.backbone.drop_path_rate == theirs.backbone.drop_path_rate
    # BN becomes SyncBN where several GPUs train.
    different = {path for head in ('decode_head', 'auxiliary_head') for path in differences(
        Config(dict(ours[head])), Config(dict(theirs[head])))}
    assert different == {'norm_cfg.type'}


def test_tta_has_the_scales_and_flips_of_mmsegmentation_and_reads_labels_as_the_test_does(mmseg_recipe):
    ours, theirs = (cfg.tta_pipeline[1].transforms for cfg in (load('upernet_convnext_t_ade20k'), mmseg_recipe))
    assert [resize.scale[1] / 512 for resize in ours[0]] == [resize.scale_factor for resize in theirs[0]]
    assert all(resize.keep_ratio for resize in ours[0])
    assert (ours[1], ours[3]) == (theirs[1], theirs[3])
    assert ours[2][0].reduce_zero_label


# The paper's own recipe, Swin's


@pytest.mark.parametrize('arch', ['t', 's', 'b'])
def test_the_papers_own_recipe_changes_the_optimizer_alone(arch):
    found = differences(load(f'upernet_inceptionnext_{arch}_swin_recipe_ade20k'),
                        load(f'upernet_inceptionnext_{arch}_ade20k'))
    assert {path for path in found if not path.startswith('optim_wrapper.')} == set()
    assert {'optim_wrapper.optimizer.lr', 'optim_wrapper.optimizer.weight_decay'} <= found


def test_the_papers_own_recipe_has_the_rates_and_the_schedule_of_mmsegmentations_swin():
    path = MMSEG_CONFIG.parents[1] / 'swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py'
    if not path.is_file():
        pytest.skip(f'this mmsegmentation has no configs: {path}')
    ours, theirs = load('upernet_inceptionnext_t_swin_recipe_ade20k'), Config.fromfile(path)
    assert ours.optim_wrapper.optimizer == dict(theirs.optim_wrapper.optimizer, fused=True)
    custom_keys = ours.optim_wrapper.paramwise_cfg.custom_keys
    assert custom_keys.norm == theirs.optim_wrapper.paramwise_cfg.custom_keys.norm
    assert set(map(str, custom_keys.values())) == {str(custom_keys.norm)}
    assert ours.param_scheduler == theirs.param_scheduler
    assert ours.train_cfg.max_iters == theirs.train_cfg.max_iters
    assert ours.train_cfg.total_batch_size == 8 * theirs.train_dataloader.batch_size


# Worked by hand: norms of the backbone have no weight decay; biases, layer scales and the heads' norms have.
SWIN_DECAYS = {
    'backbone.stem.0.weight': 0.01, 'backbone.stem.0.bias': 0.01,
    'backbone.stem.1.weight': 0., 'backbone.stem.1.bias': 0.,
    'backbone.stages.1.downsample.0.weight': 0., 'backbone.stages.2.downsample.0.bias': 0.,
    'backbone.stages.3.downsample.0.weight': 0., 'backbone.stages.3.downsample.1.weight': 0.01,
    'backbone.stages.3.downsample.1.bias': 0.01, 'backbone.stages.0.blocks.0.norm.weight': 0.,
    'backbone.stages.2.blocks.8.norm.bias': 0., 'backbone.stages.0.blocks.0.gamma': 0.01,
    'backbone.stages.0.blocks.0.token_mixer.dwconv_hw.bias': 0.01, 'backbone.stages.3.blocks.2.mlp.fc2.weight': 0.01,
    'backbone.stages.1.blocks.1.mlp.fc1.bias': 0.01, 'backbone.norm0.weight': 0., 'backbone.norm3.bias': 0.,
    'decode_head.fpn_bottleneck.conv.weight': 0.01, 'decode_head.fpn_bottleneck.bn.weight': 0.01,
    'decode_head.conv_seg.bias': 0.01, 'auxiliary_head.convs.0.bn.bias': 0.01}


def test_the_papers_own_recipe_decays_what_swins_decays_at_one_rate():
    cfg, model = built(ROOT / 'configs/upernet_inceptionnext_t_swin_recipe_ade20k.py')
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    assert {group['lr'] for group in groups} == {6e-5}
    decays = {names[id(parameter)]: group['weight_decay'] for group in groups for parameter in group['params']}
    assert {name: decays[name] for name in SWIN_DECAYS} == SWIN_DECAYS
    norms = {f'backbone.{name}.{kind}' for name, module in model.backbone.named_modules()
             if isinstance(module, torch.nn.BatchNorm2d) for kind in ('weight', 'bias')}
    assert {name for name, decay in decays.items() if decay == 0} == norms
    assert set(decays.values()) == {0., 0.01}


# Model against baseline


WEIGHTS, DROP_PATH = {'model.backbone.init_cfg.checkpoint'}, {'model.backbone.drop_path_rate'}

@pytest.mark.parametrize(('data', 'also'), [
    ('a_ade20k', WEIGHTS), ('t_ade20k', WEIGHTS | DROP_PATH), ('s_ade20k', WEIGHTS), ('b_ade20k', WEIGHTS),
    *((f't_{name}', WEIGHTS | DROP_PATH) for name in ('cityscapes', 'voc12aug', 'cocostuff164k')),
    *((f'{arch}_mini', set()) for arch in 'atsb'), ('a_camvid', set())])
def test_inception_next_differs_from_its_baseline_in_the_backbone_and_its_output_norms_alone(data, also):
    found = differences(load(f'upernet_inceptionnext_{data}'), load(f'upernet_convnext_{data}'))
    assert found == {'model.backbone.type', 'model.backbone.out_norm_cfg.type'} | also


def test_the_deviations_are_named_in_the_config():
    for path in ('upernet_inceptionnext_t_ade20k.py', '_base_/upernet_inceptionnext_t.py'):
        comment = ' '.join(re.findall(r'^# ?(.*)', (ROOT / 'configs' / path).read_text(), re.M))
        for named in ('BatchNorm on each output stage', 'own ImageNet-1k weights', 'drop path'):
            assert named in comment


def test_the_pretrained_weights_are_those_of_the_model():
    checkpoint = load('upernet_inceptionnext_t_ade20k').model.backbone.init_cfg.checkpoint
    assert checkpoint == 'https://github.com/sail-sg/inceptionnext/releases/download/model/inceptionnext_tiny.pth'


# What a baseline may have that MMSegmentation's config has not, and the other way round.
NAMED = {
    'optim_wrapper.type', 'optim_wrapper.loss_scale',       # --amp, docs/model_zoo.md
    'optim_wrapper.optimizer.fused', 'optim_wrapper.constructor',     # the same steps; names of our parameters
    'model.backbone.type', 'model.backbone.init_cfg.prefix', 'model.backbone.gap_before_final_norm',
    *(f'model.backbone.out_indices.{i}' for i in range(4)),
    'model.backbone.layer_scale_init_value',     # is in the weights
    'model.decode_head.norm_cfg.type', 'model.auxiliary_head.norm_cfg.type'}     # SyncBN where several GPUs train


@pytest.mark.parametrize('arch', ['tiny', 'small', 'base'])
def test_a_convnext_baseline_differs_from_mmsegmentations_in_what_is_named_alone(mmseg_recipe, arch):
    ours = load(f'upernet_convnext_{arch[0]}_ade20k')
    theirs = Config.fromfile(MMSEG_CONFIG.with_name(MMSEG_CONFIG.name.replace('tiny', arch)),
                             import_custom_modules=False)
    for cfg in (ours, theirs):      # the host of the same files changed
        cfg.model.backbone.init_cfg.checkpoint = cfg.model.backbone.init_cfg.checkpoint.rpartition('/')[2]
    found = {path for path in differences(ours, theirs)
             if path.startswith(('model.', 'optim_wrapper.', 'param_scheduler.'))}
    assert found == NAMED
    assert (ours.optim_wrapper.type, theirs.optim_wrapper.type) == ('OptimWrapper', 'AmpOptimWrapper')
    page = (ROOT / 'docs/model_zoo.md').read_text()
    assert 'training is in fp32 unless `--amp` is given' in page
    assert 'mixed precision' in (ROOT / 'configs/_base_/schedule_160k.py').read_text()


def test_a_config_that_trains_from_scratch_has_no_recipe_of_fine_tuning():
    for path in CONFIGS:
        cfg = Config.fromfile(path)
        backbone = cfg.model.backbone
        if backbone.type not in ('InceptionNeXt', 'ConvNeXt') or backbone.get('init_cfg'):
            continue
        assert backbone.get('layer_scale_init_value', 1e-6) == 1, path.stem
        assert cfg.optim_wrapper.paramwise_cfg.decay_rate == 1, path.stem
        assert cfg.optim_wrapper.optimizer.lr >= 1e-3, path.stem


def test_camvid_and_the_embedded_set_share_the_recipe_but_for_its_length():
    camvid, mini = load('upernet_inceptionnext_a_camvid'), load('upernet_inceptionnext_a_mini')
    assert (camvid.train_cfg.max_iters, mini.train_cfg.max_iters) == (300, 600)
    for cfg in (camvid, mini):
        assert cfg.param_scheduler[-1].end == cfg.train_cfg.max_iters == 2 * cfg.train_cfg.val_interval
        cfg.train_cfg.update(max_iters=0, val_interval=0)
        cfg.param_scheduler[-1].end = 0
    found = differences(camvid, mini)
    assert not {path for path in found if path.startswith(('optim_wrapper', 'param_scheduler', 'train_cfg', 'env_cfg'))}
    assert not {path for path in found if path.startswith('model.') and not path.endswith('num_classes')
                and not path.startswith('model.data_preprocessor.size')}
