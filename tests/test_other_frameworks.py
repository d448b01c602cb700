"""InceptionNeXt in the other frameworks that stand on mmengine: MMPretrain, and MMDetection where mmcv has its ops."""
import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import InstanceData
from torch.nn.modules.batchnorm import _BatchNorm

import inceptionnext_seg

ROOT = Path(__file__).resolve().parents[1]

# The three blocks of docs/other_frameworks.md, word for word.
MMPRETRAIN = """\
custom_imports = dict(imports=['inceptionnext_seg'], allow_failed_imports=False)
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='InceptionNeXt',
        arch='tiny',
        out_indices=(3, ),
        drop_path_rate=0.1,
        init_cfg=dict(type='Pretrained', checkpoint='timm://inception_next_tiny.sail_in1k')),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=1000, in_channels=768, loss=dict(type='CrossEntropyLoss')))
"""
MASK_RCNN = """\
_base_ = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['inceptionnext_seg'], allow_failed_imports=False)
model = dict(
    backbone=dict(
        _delete_=True,
        type='InceptionNeXt',
        arch='tiny',
        drop_path_rate=0.1,
        out_norm_cfg=dict(type='LN2d', eps=1e-6),
        frozen_stages=1,
        norm_eval=True,
        init_cfg=dict(type='Pretrained', checkpoint='timm://inception_next_tiny.sail_in1k')),
    neck=dict(in_channels=[96, 192, 384, 768]))
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=1e-4, weight_decay=0.05),
    paramwise_cfg=dict(flat_decay_mult=0.))
"""
RETINANET = """\
model = dict(backbone=dict(out_indices=(1, 2, 3)), neck=dict(in_channels=[192, 384, 768], start_level=0))
"""


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
    network = timm.create_model('inception_next_atto', num_classes=10)
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


def test_mmpretrain_keeps_its_own_convnext_and_ours_is_reached_by_its_full_name():
    mmpretrain_models = pytest.importorskip('mmpretrain.models')
    import mmpretrain.registry
    import mmseg.registry
    for registry in (MODELS, mmseg.registry.MODELS, mmpretrain.registry.MODELS):
        assert registry.get('inceptionnext_seg.ConvNeXt') is inceptionnext_seg.ConvNeXt
        assert registry.get('mmpretrain.ConvNeXt') is mmpretrain_models.ConvNeXt
    assert mmpretrain.registry.MODELS.get('ConvNeXt') is mmpretrain_models.ConvNeXt
    assert mmseg.registry.MODELS.get('ConvNeXt') is inceptionnext_seg.ConvNeXt


@pytest.fixture
def classifier(classifier_of_timm):
    """The documented ImageClassifier, as InceptionNeXt-A with 10 classes and weights from a file."""
    pytest.importorskip('mmpretrain')
    cfg = Config.fromstring(MMPRETRAIN + "default_scope = 'mmpretrain'\n", '.py')
    cfg.merge_from_dict({
        'model.backbone.arch': 'atto',
        'model.backbone.init_cfg.checkpoint': str(classifier_of_timm[1]),
        'model.head.in_channels': 320,
        'model.head.num_classes': 10,
        'model.data_preprocessor': dict(mean=[100., 110., 120.], std=[50., 60., 70.], to_rgb=True)})
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
        model.init_weights()
        yield model


def images_with_labels():
    from mmpretrain.structures import DataSample
    torch.manual_seed(1)
    return dict(
        inputs=torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8),
        data_samples=[DataSample().set_gt_label(3), DataSample().set_gt_label(7)])


def test_an_mmpretrain_classifier_takes_a_training_step(classifier):
    before = state(classifier)
    optim_wrapper = build_optim_wrapper(classifier, dict(optimizer=dict(type='AdamW', lr=1e-3)))
    losses, gradients = train_one_step(classifier, optim_wrapper, images_with_labels())
    assert_everything_learns(classifier, before, losses, gradients)


@pytest.mark.logits_match
def test_an_mmpretrain_classifier_predicts_from_the_features_that_timm_computes(classifier, classifier_of_timm):
    data = images_with_labels()
    mean, std = torch.tensor([100., 110., 120.]), torch.tensor([50., 60., 70.])
    rgb = (data['inputs'].flip(1).float() - mean.reshape(3, 1, 1)) / std.reshape(3, 1, 1)
    with torch.no_grad():
        torch.nn.init.normal_(classifier.head.fc.weight)
        features = classifier_of_timm[0].forward_features(rgb).mean((2, 3))
        expected = (features @ classifier.head.fc.weight.T + classifier.head.fc.bias).softmax(1)
        predictions = classifier.eval().test_step(data)
    torch.testing.assert_close(torch.stack([p.pred_score for p in predictions]), expected, rtol=1e-4, atol=1e-5)
    assert [p.pred_label.item() for p in predictions] == expected.argmax(1).tolist()


def detector_config(name, checkpoint):
    """The documented detector, as InceptionNeXt-A with weights from a file, and few boxes, to be fast."""
    cfg = Config.fromstring(MASK_RCNN, '.py')
    dims = [40, 80, 160, 320]
    if name == 'RetinaNet':
        cfg = Config.fromstring(
            MASK_RCNN.replace('mask_rcnn/mask-rcnn_r50_fpn_1x_coco', 'retinanet/retinanet_r50_fpn_1x_coco'), '.py')
        cfg.merge_from_dict(Config.fromstring(RETINANET, '.py').to_dict())
        cfg.merge_from_dict({'model.test_cfg.score_thr': 0., 'model.test_cfg.max_per_img': 5})
        dims = dims[1:]
    else:
        cfg.merge_from_dict({
            'model.train_cfg.rpn_proposal.max_per_img': 20,
            'model.test_cfg.rpn.max_per_img': 20,
            'model.test_cfg.rcnn.score_thr': 0.,
            'model.test_cfg.rcnn.max_per_img': 5})
    cfg.merge_from_dict({
        'model.backbone.arch': 'atto',
        'model.backbone.init_cfg.checkpoint': str(checkpoint),
        'model.neck.in_channels': dims})
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


@pytest.mark.parametrize('name', ['MaskRCNN', 'RetinaNet'])
def test_an_mmdetection_detector_of_its_shipped_config_trains_and_detects(name, mmdet, classifier_of_timm):
    network, checkpoint = classifier_of_timm
    cfg = detector_config(name, checkpoint)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
        model.init_weights()
        assert type(model).__name__ == name
        assert type(model.backbone) is inceptionnext_seg.InceptionNeXt
        own = model.backbone.state_dict()
        assert all(torch.equal(own[key], value) for key, value in network.state_dict().items()
                   if not key.startswith('head.'))

        before = state(model)
        losses, gradients = train_one_step(
            model, build_optim_wrapper(model, cfg.optim_wrapper), image_with_one_object())
        assert_everything_learns(model, before, losses, gradients)

        # frozen_stages=1 holds the stem and the first stage; norm_eval holds the statistics of every BatchNorm.
        after = state(model)
        frozen = [key for key in before if key.startswith(('backbone.stem.', 'backbone.stages.0.'))]
        statistics = [f'backbone.{norm}.{kind}' for norm, module in model.backbone.named_modules()
                      if isinstance(module, _BatchNorm) for kind in ('running_mean', 'running_var')]
        assert frozen and statistics
        assert [key for key in frozen + statistics if not torch.equal(before[key], after[key])] == []

        detections = model.eval().test_step(image_with_one_object())[0].pred_instances
    assert detections.bboxes.shape == (5, 4)
    assert (detections.bboxes >= 0).all() and (detections.bboxes <= torch.tensor([96., 64., 96., 64.])).all()
    assert ((detections.scores >= 0) & (detections.scores <= 1)).all()
    assert ((detections.labels >= 0) & (detections.labels < 80)).all()
    if name == 'MaskRCNN':
        assert detections.masks.shape == (5, 64, 96)


def test_the_documentation_shows_the_config_lines_tested_here():
    text = (ROOT / 'docs/other_frameworks.md').read_text(encoding='utf-8')
    for lines in (MMPRETRAIN, MASK_RCNN, RETINANET):
        assert f'```python\n{lines}```' in text
