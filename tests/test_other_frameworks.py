"""InceptionNeXt in the other frameworks that stand on mmengine: registries, classification with MMPretrain, detection
with MMDetection where mmcv has its ops, and MMPose where it is installed."""
import importlib
import json
import pickle
import runpy
import subprocess
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import timm
import timm.optim
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import load_checkpoint
from mmengine.structures import InstanceData
from PIL import Image
from torch.nn.modules.batchnorm import _BatchNorm

import inceptionnext_seg
from inceptionnext_seg.engine.launch import load_config
from inceptionnext_seg.engine.optim import metanext_layer_id
from inceptionnext_seg.errors import SettingError, UserError
from inceptionnext_seg.zoo import find_config

ROOT = Path(__file__).resolve().parents[1]
LETTERS = dict(a='atto', t='tiny', s='small', b='base')
DETECTORS = ('mask_rcnn', 'cascade_mask_rcnn', 'retinanet')

# Blocks of docs/other_frameworks.md, word for word.
FEW_IMAGES = """\
model = dict(backbone=dict(frozen_stages=1, norm_eval=True, out_norm_cfg=dict(type='LN2d', eps=1e-6)))
"""
LINEAR_PROBE = """\
model = dict(
    backbone=dict(
        frozen_stages=4,
        init_cfg=dict(type='Pretrained', checkpoint='timm://inception_next_tiny.sail_in1k')),
    head=dict(num_classes=37))
"""
POSE = """\
_base_ = 'mmpose::body_2d_keypoint/topdown_heatmap/coco/td-hm_res50_8xb64-210e_coco-256x192.py'
custom_imports = dict(imports=['inceptionnext_seg'], allow_failed_imports=False)
model = dict(
    backbone=dict(
        _delete_=True,
        type='InceptionNeXt',
        arch='tiny',
        out_indices=(3, ),
        drop_path_rate=0.1,
        init_cfg=dict(type='Pretrained', checkpoint='timm://inception_next_tiny.sail_in1k')),
    head=dict(in_channels=768))
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=5e-4, weight_decay=0.01),
    paramwise_cfg=dict(flat_decay_mult=0.))
"""


@pytest.fixture
def mmpretrain():
    try:
        return importlib.import_module('mmpretrain.models')
    except (ImportError, TypeError) as error:   # TypeError: transformers 5 and pycocotools beside mmpretrain 1.3
        pytest.skip(f'mmpretrain cannot be imported: {error}')


@pytest.fixture
def mmdet():
    pytest.importorskip('mmdet', reason='onedl-mmdetection is not installed')
    try:
        import mmcv.ops  # noqa: F401
    except ImportError as error:
        pytest.skip(f'mmdet needs the compiled ops of mmcv, and this mmcv has none: {error}')
    return importlib.import_module('mmdet')


@pytest.fixture(scope='module')
def classifier_of_timm(tmp_path_factory):
    """timm's InceptionNeXt-A, its statistics and layer scales such that they matter, and a file of its weights."""
    torch.manual_seed(0)
    network = timm.create_model('inception_next_atto')
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith('gamma'):
                parameter.fill_(0.5)
        network(torch.randn(4, 3, 64, 64))
    checkpoint = tmp_path_factory.mktemp('weights') / 'inceptionnext_atto.pth'
    torch.save(network.state_dict(), checkpoint)
    return network.eval(), checkpoint


def train_one_step(model, optim_wrapper, data):
    """Returns the losses and every gradient, which mmengine clears after the step."""
    gradients = {}
    handles = [
        parameter.register_post_accumulate_grad_hook(lambda p, name=name: gradients.update({name: p.grad.clone()}))
        for name, parameter in model.named_parameters() if parameter.requires_grad]
    losses = model.train().train_step(data, optim_wrapper)
    for handle in handles:
        handle.remove()
    return losses, gradients


def assert_everything_learns(model, before, losses, gradients):
    """Finite losses and gradients for all that is trainable; all weights moved (a bias before a BatchNorm cannot)."""
    assert torch.isfinite(losses['loss']) and losses['loss'] > 0
    trainable = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert set(gradients) == set(trainable)
    assert [name for name, gradient in gradients.items() if not torch.isfinite(gradient).all()] == []
    assert [name for name, p in trainable.items() if p.ndim > 1 and torch.equal(p, before[name])] == []


def state(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


@pytest.mark.parametrize('framework', ['mmengine', 'mmseg', 'mmpretrain', 'mmdet'])
def test_every_registry_builds_the_backbone_from_a_config_with_custom_imports(framework, request):
    if framework == 'mmdet':
        request.getfixturevalue('mmdet')
    pytest.importorskip(framework)
    cfg = Config.fromstring("custom_imports = dict(imports=['inceptionnext_seg'])\n"
                            "backbone = dict(type='InceptionNeXt', arch='atto')", '.py')
    backbone = importlib.import_module(f'{framework}.registry').MODELS.build(cfg.backbone)
    assert type(backbone) is inceptionnext_seg.InceptionNeXt
    outputs = backbone(torch.rand(1, 3, 64, 96))
    assert [tuple(x.shape) for x in outputs] == [(1, 40, 16, 24), (1, 80, 8, 12), (1, 160, 4, 6), (1, 320, 2, 3)]


def test_custom_imports_registers_the_backbone_and_imports_no_framework():
    program = """if True:
        import sys
        from mmengine.config import Config
        from mmengine.registry import MODELS
        assert MODELS.get('InceptionNeXt') is None
        Config.fromstring("custom_imports = dict(imports=['inceptionnext_seg'])", '.py')
        MODELS.build(dict(type='InceptionNeXt', arch='atto'))
        print(sorted({'mmcv', 'mmseg', 'mmpretrain', 'mmdet'} & set(sys.modules)))"""
    finished = subprocess.run([sys.executable, '-c', program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.strip() == '[]'


def test_mmpretrain_keeps_its_own_convnext_and_ours_is_reached_by_its_full_name(mmpretrain):
    from mmpretrain.registry import MODELS as OF_MMPRETRAIN
    from mmseg.registry import MODELS as OF_MMSEG
    for registry in (MODELS, OF_MMSEG, OF_MMPRETRAIN):
        assert registry.get('inceptionnext_seg.ConvNeXt') is inceptionnext_seg.ConvNeXt
        assert registry.get('mmpretrain.ConvNeXt') is mmpretrain.ConvNeXt
    assert OF_MMPRETRAIN.get('ConvNeXt') is mmpretrain.ConvNeXt
    assert OF_MMSEG.get('ConvNeXt') is inceptionnext_seg.ConvNeXt


# Configs of other frameworks


@pytest.mark.parametrize(('name', 'framework'), [
    ('inceptionnext_t_imagenet', 'MMPretrain'), ('mask_rcnn_convnext_t_coco', 'MMDetection')])
def test_the_commands_of_this_package_name_the_framework_that_such_a_config_is_for(name, framework):
    assert find_config(name).is_file()
    with pytest.raises(UserError, match=rf"{name}.*is one of {framework}.*{framework}'s own tools"):
        load_config(name)


# MMPretrain


def classification_config(arch):
    return Config.fromfile(find_config(f'inceptionnext_{arch}_imagenet'))


def build_classifier(cfg):
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return MODELS.build(cfg.model)


def without_scopes(value):
    """A part of a config without the ``_scope_`` that mmengine adds to what another package's base gives."""
    if isinstance(value, dict):
        return {key: without_scopes(child) for key, child in value.items() if key != '_scope_'}
    return [without_scopes(child) for child in value] if isinstance(value, list | tuple) else value


def images_with_labels():
    from mmpretrain.structures import DataSample
    torch.manual_seed(1)
    return dict(
        inputs=torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8),
        data_samples=[DataSample().set_gt_label(3), DataSample().set_gt_label(7)])


@pytest.mark.parametrize(('arch', 'millions'), [('a', 4.2), ('t', 28), ('s', 49), ('b', 87)])
def test_a_classifier_has_the_parameters_of_timms_and_of_the_paper(arch, millions, mmpretrain):
    with torch.device('meta'):
        network = timm.create_model(f'inception_next_{LETTERS[arch]}')
        model = build_classifier(classification_config(arch))
    expected = {(name if name.startswith('head.') else f'backbone.{name}'): tensor.shape
                for name, tensor in network.state_dict().items()}
    assert {name: tensor.shape for name, tensor in model.state_dict().items()} == expected
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert parameters / 1e6 == pytest.approx(millions, abs=0.6)


@pytest.mark.logits_match
def test_a_classifier_computes_timms_logits_from_timms_and_the_released_weights(mmpretrain, classifier_of_timm):
    network, checkpoint = classifier_of_timm
    torch.manual_seed(3)
    images = torch.randn(2, 3, 96, 64)
    with torch.no_grad():
        expected = network(images)
    # 1. as load_from and the checkpoint of tools/test.py are loaded
    loaded = build_classifier(classification_config('a'))
    load_checkpoint(loaded, str(checkpoint), strict=True)
    # 2. as pretrained weights of both parts
    cfg = classification_config('a')
    cfg.model.backbone.init_cfg = cfg.model.head.init_cfg = dict(type='Pretrained', checkpoint=str(checkpoint))
    initialized = build_classifier(cfg)
    initialized.init_weights()
    for model in (loaded, initialized):
        with torch.no_grad():
            torch.testing.assert_close(model.eval()(images), expected, rtol=0, atol=1e-5)
        assert expected.std() > 0.01


def test_a_classifier_of_other_classes_takes_no_head_of_a_thousand(mmpretrain, classifier_of_timm):
    cfg = classification_config('a')
    cfg.model.head.update(num_classes=37, init_cfg=dict(type='Pretrained', checkpoint=str(classifier_of_timm[1])))
    with pytest.raises(UserError, match=r'of another shape.*fc2\.weight: \(1000, 960\).*\(37, 960\)'):
        build_classifier(cfg).init_weights()
    cfg.model.head.update(num_classes=0, init_cfg=None)
    with pytest.raises(SettingError, match=r'num_classes.* is 0'):
        build_classifier(cfg)


# sail-sg/inceptionnext: README.md, the defaults of train.py, scripts/inceptionnext.
@pytest.mark.parametrize(('arch', 'images', 'rate', 'lowest', 'warm_up', 'epochs', 'drop_path', 'mixup', 'erasing'), [
    ('a', 1280, 1e-3, 5e-7, 5, 600, 0.1, 0.2, 0.1), ('t', 4096, 4e-3, 1e-5, 20, 300, 0.1, 0.8, 0.25),
    ('s', 4096, 4e-3, 1e-5, 20, 300, 0.3, 0.8, 0.25), ('b', 4096, 4e-3, 1e-5, 20, 300, 0.4, 0.8, 0.25)])
def test_classifiers_train_under_the_settings_of_the_official_code(
        arch, images, rate, lowest, warm_up, epochs, drop_path, mixup, erasing, mmpretrain):
    cfg = classification_config(arch)
    gpus = 4 if arch == 'a' else 8
    assert gpus * cfg.train_dataloader.batch_size * cfg.optim_wrapper.accumulative_counts == images
    assert cfg.auto_scale_lr.base_batch_size == images
    assert without_scopes(cfg.optim_wrapper.optimizer) == dict(
        type='AdamW', lr=rate, weight_decay=0.05, eps=1e-8, betas=[0.9, 0.999])
    rise, fall = cfg.param_scheduler
    assert rate * rise.start_factor == pytest.approx(5e-7 if arch == 'a' else 1e-6)
    assert (rise.end, fall.begin, fall.end, fall.eta_min) == (warm_up, warm_up, epochs, lowest)
    assert cfg.train_cfg.max_epochs == epochs + 10
    assert cfg.model.backbone.drop_path_rate == drop_path
    assert [(augment.type, augment.alpha) for augment in cfg.model.train_cfg.augments] == [
        ('Mixup', mixup), ('CutMix', 1.0)]
    steps = {step.type: step for step in cfg.train_dataloader.dataset.pipeline}
    assert (steps['RandomErasing'].erase_prob, steps['RandomErasing'].mode) == (erasing, 'rand')
    magnitude = (steps['RandAugment'].magnitude_level, steps['RandAugment'].magnitude_std)
    assert magnitude == ((5, 'inf') if arch == 'a' else (9, 0.5))
    # The middle 87.5 % of an image, 95 % for B, as timm has them.
    resize, crop = cfg.test_dataloader.dataset.pipeline[1:3]
    assert crop.crop_size / resize.scale == pytest.approx(0.95 if arch == 'b' else 0.875, abs=1e-3)
    assert cfg.val_dataloader.dataset.pipeline == cfg.test_dataloader.dataset.pipeline


def test_weight_decay_of_a_classifier_is_that_of_timms_optimizer(mmpretrain):
    cfg = classification_config('a')
    model = build_classifier(cfg)
    groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    decay = {id(parameter): group['weight_decay'] for group in groups for parameter in group['params']}
    found = {name.removeprefix('backbone.'): decay[id(parameter)] for name, parameter in model.named_parameters()}
    network = timm.create_model('inception_next_atto')
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    optimizer = timm.optim.create_optimizer_v2(network, 'adamw', lr=1e-3, weight_decay=0.05)
    assert found == {names[id(parameter)]: group['weight_decay']
                     for group in optimizer.param_groups for parameter in group['params']}


def test_an_mmpretrain_classifier_takes_a_training_step(mmpretrain):
    cfg = classification_config('a')
    cfg.model.backbone.layer_scale_init_value = 1.0
    cfg.model.head.num_classes = 10
    cfg.model.data_preprocessor = dict(cfg.data_preprocessor, num_classes=10)
    model = build_classifier(cfg)
    before = state(model)
    optim_wrapper = build_optim_wrapper(model, dict(optimizer=dict(type='AdamW', lr=1e-3)))
    losses, gradients = train_one_step(model, optim_wrapper, images_with_labels())
    assert_everything_learns(model, before, losses, gradients)


@pytest.fixture
def mmpretrain_tool(mmpretrain, monkeypatch, tmp_path):
    """``mmpretrain_tool('train', *arguments)``: a tool of the installed MMPretrain, in this process."""
    folder = Path(mmpretrain.__file__).parents[1] / '.mim/tools'
    if not folder.is_dir():
        pytest.skip(f'this mmpretrain has no tools: {folder}')
    monkeypatch.chdir(tmp_path)

    def call(name, *arguments):
        with mock.patch.object(sys, 'argv', [name, *map(str, arguments)]), mock.patch.dict('os.environ'):
            runpy.run_path(str(folder / f'{name}.py'), run_name='__main__')

    return call


@pytest.mark.slow
@pytest.mark.logits_match
def test_mmpretrains_own_tools_train_a_config_and_test_the_released_weights_as_timm_does(
        mmpretrain_tool, classifier_of_timm, tmp_path):
    network, checkpoint = classifier_of_timm
    pixels = np.random.default_rng(0).integers(0, 256, (4, 256, 256, 3), dtype=np.uint8)
    for split in ('train', 'val'):
        for folder in (split, 'meta'):
            (tmp_path / 'imagenet' / folder).mkdir(parents=True, exist_ok=True)
        for i, image in enumerate(pixels):
            Image.fromarray(image).save(tmp_path / f'imagenet/{split}/{i}.png')
        # Which classes its images are of: otherwise there has to be a folder for each of the thousand.
        (tmp_path / f'imagenet/meta/{split}.txt').write_text(''.join(f'{i}.png {i + 5}\n' for i in range(4)))
    config, options = find_config('inceptionnext_a_imagenet'), [
        'train_dataloader.batch_size=2', 'train_cfg.max_epochs=1', *(
            f'{split}_dataloader.{setting}' for split in ('train', 'val', 'test') for setting in (
                'num_workers=0', 'persistent_workers=False', f'dataset.data_root={tmp_path / "imagenet"}'))]

    mmpretrain_tool('train', config, '--work-dir', tmp_path / 'run', '--cfg-options', *options)
    log, = (tmp_path / 'run').glob('*/vis_data/scalars.json')
    assert 0 <= json.loads(log.read_text().splitlines()[-1])['accuracy/top1'] <= 100
    saved = torch.load(tmp_path / 'run/epoch_1.pth', weights_only=False)['state_dict']
    assert {'backbone.stem.0.weight', 'head.fc1.weight', 'head.fc2.bias'} <= set(saved)

    mmpretrain_tool('test', config, checkpoint, '--work-dir', tmp_path / 'test', '--out', tmp_path / 'found.pkl',
                    '--out-item', 'pred', '--cfg-options', *options)
    found = pickle.loads((tmp_path / 'found.pkl').read_bytes())
    # Their short edge is 256 already.
    mean, std = torch.tensor([[123.675, 116.28, 103.53], [58.395, 57.12, 57.375]])
    images = (torch.from_numpy(pixels[:, 16:240, 16:240]).float() - mean) / std
    with torch.no_grad():
        expected = network(images.permute(0, 3, 1, 2)).softmax(1)
    torch.testing.assert_close(torch.stack([sample['pred_score'] for sample in found]), expected, rtol=1e-4, atol=1e-6)


def test_frozen_features_of_the_documented_options_leave_the_head_to_train(mmpretrain, classifier_of_timm):
    cfg = classification_config('a')
    cfg.merge_from_dict(Config.fromstring(LINEAR_PROBE, '.py').to_dict())
    cfg.model.backbone.init_cfg.checkpoint = str(classifier_of_timm[1])
    model = build_classifier(cfg)
    model.init_weights()
    assert {name.split('.')[0] for name, p in model.named_parameters() if p.requires_grad} == {'head'}
    assert torch.equal(model.backbone.stem[0].weight, classifier_of_timm[0].stem[0].weight)


# MMDetection


def detector_config(name, family, checkpoint, options=''):
    """A config of configs/detection in fp32 with an atto backbone, weights from a file, and few boxes, to be fast."""
    cfg = Config.fromfile(find_config(f'{name}_{family}_t_coco'))
    cfg.merge_from_dict(Config.fromstring(options, '.py').to_dict())
    dims = [40, 80, 160, 320][-len(cfg.model.neck.in_channels):]
    if name == 'retinanet':
        cfg.merge_from_dict({'model.test_cfg.score_thr': 0., 'model.test_cfg.max_per_img': 5})
    else:
        cfg.merge_from_dict({
            'model.train_cfg.rpn_proposal.max_per_img': 20,
            'model.test_cfg.rpn.max_per_img': 20,
            'model.test_cfg.rcnn.score_thr': 0.,
            'model.test_cfg.rcnn.max_per_img': 5})
    cfg.merge_from_dict({
        'model.backbone.arch': 'atto',
        'model.backbone.drop_path_rate': 0.,
        'model.backbone.init_cfg.checkpoint': str(checkpoint),
        'model.neck.in_channels': dims,
        'optim_wrapper.type': 'OptimWrapper'})     # AmpOptimWrapper needs a GPU
    return cfg


def image_with_one_object(height=64, width=96):
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    torch.manual_seed(2)
    mask = torch.zeros(1, height, width, dtype=torch.uint8)
    mask[:, 10:50, 20:60] = 1
    sample = DetDataSample(metainfo=dict(
        img_shape=(height, width), ori_shape=(height, width), scale_factor=(1., 1.), img_id=0))
    sample.gt_instances = InstanceData(
        bboxes=torch.tensor([[20., 10., 60., 50.]]),
        labels=torch.tensor([17]),
        masks=BitmapMasks(mask.numpy(), height, width))
    return dict(inputs=[torch.randint(0, 256, (3, height, width), dtype=torch.uint8)], data_samples=[sample])


@pytest.mark.parametrize(('name', 'options'), [*((name, '') for name in DETECTORS), ('mask_rcnn', FEW_IMAGES)])
def test_a_detector_trains_and_detects_with_the_compiled_operators(name, options, mmdet, classifier_of_timm):
    network, checkpoint = classifier_of_timm
    cfg = detector_config(name, 'inceptionnext', checkpoint, options)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
        model.init_weights()
        assert type(model.backbone) is inceptionnext_seg.InceptionNeXt
        own = model.backbone.state_dict()
        loaded = [key for key in network.state_dict() if not key.startswith('head.')]
        assert all(torch.equal(own[key], network.state_dict()[key]) for key in loaded)

        before = state(model)
        losses, gradients = train_one_step(
            model, build_optim_wrapper(model, cfg.optim_wrapper), image_with_one_object())
        assert_everything_learns(model, before, losses, gradients)

        after = state(model)
        statistics = [f'backbone.{norm}.running_mean' for norm, module in model.backbone.named_modules()
                      if isinstance(module, _BatchNorm)]
        frozen = [key for key in before if key.startswith(('backbone.stem.', 'backbone.stages.0.'))]
        moved = [key for key in statistics if not torch.equal(before[key], after[key])]
        if options:     # the stem, the first stage and all statistics stay
            assert statistics and moved == [] and all(torch.equal(before[key], after[key]) for key in frozen)
        else:
            assert statistics == moved

        with mock.patch('mmcv.ops.nms.NMSop.apply', wraps=importlib.import_module('mmcv.ops.nms').NMSop.apply) as nms:
            detections = model.eval().test_step(image_with_one_object())[0].pred_instances
        assert nms.called
    assert detections.bboxes.shape == (5, 4)
    assert (detections.bboxes >= 0).all() and (detections.bboxes <= torch.tensor([96., 64., 96., 64.])).all()
    assert ((detections.scores >= 0) & (detections.scores <= 1)).all()
    assert ((detections.labels >= 0) & (detections.labels < 80)).all()
    if name != 'retinanet':
        assert detections.masks.shape == (5, 64, 96)
        roi_align = importlib.import_module('mmcv.ops').RoIAlign
        extractors = [module for module in model.modules() if isinstance(module, roi_align)]
        assert extractors and not any(layer.use_torchvision for layer in extractors)


@pytest.mark.parametrize('name', DETECTORS)
def test_a_detector_differs_from_its_baseline_in_the_backbone_alone(name, mmdet):
    ours, baseline = (Config.fromfile(find_config(f'{name}_{family}_t_coco')).to_dict()
                      for family in ('inceptionnext', 'convnext'))
    backbones = [cfg['model'].pop('backbone') for cfg in (ours, baseline)]
    assert ours == baseline
    assert {key for key in backbones[0] if backbones[0][key] != backbones[1].get(key)} == {
        'type', 'drop_path_rate', 'norm_cfg', 'out_norm_cfg', 'init_cfg'}
    assert [backbone['init_cfg']['checkpoint'].rpartition('/')[2] for backbone in backbones] == [
        'inceptionnext_tiny.pth', 'convnext-tiny_3rdparty_32xb128-noema_in1k_20220301-795e9634.pth']


def test_a_baseline_detector_is_mmdetections_convnext_with_its_rates(mmdet):
    from mmdet.engine.optimizers.layer_decay_optimizer_constructor import get_layer_id_for_convnext
    theirs = Config.fromfile(Path(mmdet.__file__).with_name('.mim') / (
        'configs/convnext/mask-rcnn_convnext-t-p4-w7_fpn_amp-ms-crop-3x_coco.py'), import_custom_modules=False)
    ours = Config.fromfile(find_config('mask_rcnn_convnext_t_coco'))
    for setting in ('train_dataloader', 'param_scheduler', 'train_cfg'):
        assert without_scopes(ours[setting]) == without_scopes(theirs[setting])
    for setting in ('optimizer', 'paramwise_cfg'):
        assert without_scopes(ours.optim_wrapper[setting]) == without_scopes(theirs.optim_wrapper[setting])
    backbone = inceptionnext_seg.ConvNeXt('tiny')
    layers = {name: metanext_layer_id(f'backbone.{name}', 'layer_wise', 6) for name, _ in backbone.named_parameters()}
    # MMDetection's names: downsample_layers.I.J and stages.I.J. Output norms belong to the last layer in both.
    for name, layer in layers.items():
        parts = name.split('.')
        if parts[0] == 'stem':
            parts[0] = 'downsample_layers.0'
        elif parts[2:3] == ['downsample']:
            parts = ['downsample_layers', parts[1], *parts[3:]]
        elif parts[0] == 'stages':
            parts = ['stages', parts[1], *parts[3:]]
        assert layer == get_layer_id_for_convnext(f'backbone.{".".join(parts)}', 6), name


# MMPose


def test_a_pose_estimator_of_the_documented_config_loads_the_weights_and_learns(classifier_of_timm):
    try:
        import mmpose.models  # noqa: F401
    except (ImportError, AssertionError, TypeError, ValueError) as error:
        pytest.skip(f'mmpose is not installed, or not for these versions of mmcv and numpy: {error}')
    from mmengine.structures import PixelData
    from mmpose.structures import PoseDataSample
    network, checkpoint = classifier_of_timm
    cfg = Config.fromstring(POSE, '.py')
    cfg.merge_from_dict({'model.backbone.arch': 'atto', 'model.backbone.init_cfg.checkpoint': str(checkpoint),
                         'model.head.in_channels': 320})
    torch.manual_seed(4)
    samples = []
    for _ in range(2):
        samples.append(PoseDataSample())
        samples[-1].gt_fields = PixelData(heatmaps=torch.rand(17, 64, 48))
        samples[-1].gt_instance_labels = InstanceData(keypoint_weights=torch.ones(1, 17))
    images = torch.randint(0, 256, (2, 3, 256, 192), dtype=torch.uint8)
    with DefaultScope.overwrite_default_scope('mmpose'):
        model = MODELS.build(cfg.model)
        model.init_weights()
        assert torch.equal(model.backbone.stem[0].weight, network.stem[0].weight)
        before = state(model)
        losses, gradients = train_one_step(
            model, build_optim_wrapper(model, cfg.optim_wrapper), dict(inputs=list(images), data_samples=samples))
    assert torch.isfinite(losses['loss_kpt']) and losses['loss_kpt'] > 0
    assert set(gradients) == {name for name, _ in model.named_parameters()}
    assert not torch.equal(before['backbone.stem.0.weight'], model.backbone.stem[0].weight)


def test_the_documentation_shows_the_config_lines_tested_here():
    text = (ROOT / 'docs/other_frameworks.md').read_text(encoding='utf-8')
    for lines in (FEW_IMAGES, LINEAR_PROBE, POSE):
        assert f'```python\n{lines}```' in text
    for path in [*(ROOT / 'configs/classification').glob('*.py'), *(ROOT / 'configs/detection').glob('*.py')]:
        assert path.stem in text
