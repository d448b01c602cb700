"""Heads and segmentors without logits of the image's size, against mmseg's own."""
import copy

import numpy as np
import pytest
import torch
import torch.nn as nn
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.apis import inference_model
from mmseg.models import FCNHead
from mmseg.models.segmentors import SegTTAModel
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from mmseg.visualization import SegLocalVisualizer

from inceptionnext_seg import accelerate
from inceptionnext_seg.errors import UserError
from inceptionnext_seg.segmentation import heads
from inceptionnext_seg.segmentation.metrics import RecordingIoUMetric

CLASSES = 7
WEIGHTS = [0.5, 2., 1., 1., 0., 3., 1.5]
CE = dict(type='CrossEntropyLoss')


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmseg')


@MODELS.register_module()
class StridedConv(nn.Module):
    """A backbone of one convolution with stride 4."""

    def __init__(self, channels=8):
        super().__init__()
        self.conv = nn.Conv2d(3, channels, 4, 4)

    def forward(self, x):
        return [self.conv(x)]


def head_config(head='FCNHead', **settings):
    return dict(type=head, in_channels=8, channels=8, in_index=0, num_convs=1, concat_input=False, dropout_ratio=0,
                norm_cfg=dict(type='BN'), **{'num_classes': CLASSES, 'loss_decode': CE, **settings})


def samples(labels):
    return [SegDataSample(gt_sem_seg=PixelData(data=label[None])) for label in labels]


def losses(kind, settings, logits, labels, **parts):
    """``loss_by_feat`` of a stock or accelerated head and the gradient of the sum of its losses."""
    logits = logits.clone().requires_grad_()
    head = MODELS.build(head_config(**settings))
    if kind == 'fast':
        accelerate(head, **parts)
    result = head.loss_by_feat(logits, samples(labels))
    gradient, = torch.autograd.grad(sum(value.sum() for name, value in result.items() if 'loss' in name), logits)
    return {name: value.detach() for name, value in result.items()}, gradient


def draw(size=(21, 34), ignored=0.3, classes=CLASSES, ignore_index=255):
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(classes, (2, *size), generator=generator)
    labels[torch.rand(2, *size, generator=generator) < ignored] = ignore_index
    return 3 * torch.randn(2, classes, 6, 9, dtype=torch.float64, generator=generator), labels


def assert_equal(found, wanted, rtol=1e-6):
    """Losses by name and gradients; mmseg's numbers of pixels, by which it divides, are float32."""
    assert list(found[0]) == list(wanted[0])
    for name, value in wanted[0].items():
        assert found[0][name].shape == value.shape, name
        torch.testing.assert_close(found[0][name].double(), value.double(), rtol=rtol, atol=0, equal_nan=True)
    torch.testing.assert_close(found[1], wanted[1], rtol=0, atol=rtol * wanted[1].abs().max().item(), equal_nan=True)


@pytest.mark.logits_match
@pytest.mark.parametrize('settings', [
    dict(), dict(align_corners=True), dict(ignore_index=0), dict(loss_decode=dict(CE, avg_non_ignore=True)),
    dict(loss_decode=dict(CE, class_weight=WEIGHTS)), dict(loss_decode=dict(CE, loss_weight=0.4)),
    dict(loss_decode=dict(CE, reduction='sum', class_weight=WEIGHTS, loss_weight=2.)),
    dict(loss_decode=[dict(CE), dict(CE, class_weight=WEIGHTS, loss_weight=0.4)]),
    dict(loss_decode=[dict(CE, loss_name='loss_a'), dict(CE, avg_non_ignore=True, loss_name='loss_b')])])
def test_losses_accuracy_and_gradient_are_those_of_mmseg(settings):
    logits, labels = draw(ignore_index=settings.get('ignore_index', 255))
    wanted = losses('stock', settings, logits, labels)
    assert_equal(losses('fast', settings, logits, labels), wanted)
    assert_equal(losses('fast', settings, logits, labels, loss=False), wanted, 1e-15)
    wanted = losses('stock', settings, logits.float(), labels)
    assert_equal(losses('fast', settings, logits.float(), labels), wanted, 1e-5)


@pytest.mark.parametrize('settings', [
    dict(), dict(loss_decode=dict(CE, avg_non_ignore=True)), dict(loss_decode=dict(CE, class_weight=WEIGHTS))])
def test_without_any_label_the_losses_are_those_of_mmseg(settings):
    logits, labels = draw()
    labels[:] = 255
    wanted = losses('stock', settings, logits, labels)
    assert wanted[0]['loss_ce'] == 0 and wanted[0]['acc_seg'] == 100
    assert_equal(losses('fast', settings, logits, labels), wanted)


def test_with_class_weights_and_avg_non_ignore_the_mean_is_torchs_own():
    # mmseg 1.2 raises IndexError for these two together.
    logits, labels = draw()
    settings = dict(loss_decode=dict(CE, class_weight=WEIGHTS, avg_non_ignore=True))
    found, _ = losses('fast', settings, logits, labels)
    upsampled = nn.functional.interpolate(logits, labels.shape[1:], mode='bilinear')
    wanted = nn.functional.cross_entropy(upsampled, labels, logits.new_tensor(WEIGHTS), ignore_index=255)
    torch.testing.assert_close(found['loss_ce'], wanted, rtol=1e-6, atol=0)


@pytest.mark.parametrize('settings', [
    dict(sampler=dict(type='OHEMPixelSampler', thresh=0.7, min_kept=20)), dict(loss_decode=dict(type='DiceLoss')),
    dict(loss_decode=dict(CE, use_sigmoid=True)), dict(loss_decode=dict(CE, reduction='none')),
    dict(loss_decode=[dict(CE), dict(type='DiceLoss', loss_name='loss_dice')]),
    dict(loss_decode=dict(CE, use_sigmoid=True), num_classes=2, out_channels=1, threshold=0.4)])
def test_losses_of_other_kinds_are_the_heads_own(settings):
    logits, labels = draw(ignored=0.1, classes=settings.get('num_classes', CLASSES))
    logits = logits[:, :settings.get('out_channels', CLASSES)]
    assert_equal(losses('fast', settings, logits, labels),
                 losses('stock', settings, logits, labels), 1e-15)


def test_beside_the_cpu_the_loss_is_the_heads_own(monkeypatch):
    """On meta tensors, which stand for any device without a kernel: no loss is made of sums."""
    monkeypatch.setattr(heads, 'losses_from_sums', None)
    head = MODELS.build(head_config())
    accelerate(head)
    logits, labels = draw()
    monkeypatch.setattr(head, '_stack_batch_gt', lambda samples: labels[:, None].to('meta'))
    monkeypatch.setattr(heads.FCNHead, 'loss_by_feat', lambda self, logits, samples: 'stock')
    assert head.loss_by_feat(logits.to('meta'), None) == 'stock'


def test_where_triton_works_the_loss_on_cuda_is_made_of_sums(monkeypatch):
    """On meta tensors, which stand for those on CUDA."""
    monkeypatch.setattr(heads, 'losses_from_sums', lambda head, logits, labels, form: form)
    monkeypatch.setattr(heads, 'why_not_triton', lambda logits: None)
    head = MODELS.build(head_config())
    accelerate(head)
    logits, labels = draw()
    monkeypatch.setattr(head, '_stack_batch_gt', lambda samples: labels[:, None].to('meta'))
    assert head.loss_by_feat(logits.to('meta'), None) == 'auto'


def test_a_label_that_is_no_class_is_an_error_that_names_it():
    logits, labels = draw()
    labels[0, 0, 0] = 41
    with pytest.raises(UserError, match=r'41\b.* 0 to 6, or 255'):
        losses('fast', {}, logits, labels)


# A segmentor


def segmentor(kind, head='FCNHead', test_cfg=None, **settings):
    """A tiny model, stock or accelerated; its weights are the same for every ``kind`` and ``head``."""
    torch.manual_seed(0)
    model = MODELS.build(dict(
        type='EncoderDecoder', backbone=dict(type='StridedConv'), decode_head=head_config(head, **settings),
        data_preprocessor=dict(type='SegDataPreProcessor', mean=[0.] * 3, std=[1.] * 3, size_divisor=32,
                               test_cfg=dict(size_divisor=32)),
        test_cfg=ConfigDict(test_cfg or dict(mode='whole'))))
    nn.init.normal_(model.decode_head.conv_seg.weight)
    if kind == 'fast':
        accelerate(model)
    return model


def fast_and_stock(**settings):
    """Both in float64, in which no two logits are equal to rounding."""
    stock = {key: value for key, value in settings.items() if key != 'test_cfg'}
    if 'test_cfg' in settings:
        stock['test_cfg'] = {k: v for k, v in settings['test_cfg'].items() if k != 'keep_logits'}
    return segmentor('fast', **settings).double().eval(), segmentor('stock', **stock).double().eval()


def predict_both(models, inputs, metas):
    results = []
    with torch.no_grad():
        for model in models:
            data_samples = metas and [SegDataSample(metainfo=copy.deepcopy(meta)) for meta in metas]
            results.append(model.predict(inputs, data_samples))
    return results


def assert_same_predictions(found, wanted, has_logits=False):
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted, strict=True):
        assert a.pred_sem_seg.data.shape == b.pred_sem_seg.data.shape
        assert a.pred_sem_seg.data.dtype == b.pred_sem_seg.data.dtype
        assert torch.equal(a.pred_sem_seg.data, b.pred_sem_seg.data)
        assert len(a.pred_sem_seg.data.unique()) > 1
        assert ('seg_logits' in a) == has_logits


IMAGES = torch.randn(2, 3, 64, 96, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
METAS = dict(
    as_is=[dict(img_shape=(64, 96), pad_shape=(64, 96), ori_shape=(64, 96))] * 2,
    no_pad_shape=[dict(img_shape=(64, 96), ori_shape=(64, 96))] * 2,
    resized=[dict(img_shape=(64, 96), pad_shape=(64, 96), ori_shape=size) for size in ((101, 143), (33, 70))],
    padded=[dict(img_shape=(51, 90), pad_shape=(64, 96), ori_shape=(100, 171), padding_size=[0, 6, 0, 13]),
            dict(img_shape=(60, 71), pad_shape=(64, 96), ori_shape=(60, 71), img_padding_size=[20, 5, 1, 3])],
    flipped=[dict(img_shape=(64, 96), ori_shape=(90, 91), flip=True, flip_direction=direction,
                  padding_size=[0, 16, 0, 2]) for direction in ('horizontal', 'vertical')],
    patch=[dict(img_shape=torch.Size((64, 96)), pad_shape=(1, 1), ori_shape=(64, 96))] * 2,
    other_pad_shape=[dict(img_shape=(64, 96), pad_shape=(80, 112, 3), ori_shape=(70, 60))] * 2)


@pytest.mark.logits_match
@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize('metas', [*METAS.values(), None], ids=[*METAS, 'no_samples'])
def test_predictions_are_those_of_mmseg(metas, align_corners):
    models = fast_and_stock(align_corners=align_corners)
    assert models[0].predicts_by_argmax()
    assert_same_predictions(*predict_both(models, IMAGES, metas))
    if metas is not None:
        with torch.no_grad():
            wanted = models[1].encode_decode(IMAGES, copy.deepcopy(metas)).argmax(1)
            assert torch.equal(models[0].encode_decode_argmax(IMAGES, metas), wanted)


@MODELS.register_module()
class ReversedClassesHead(FCNHead):
    def predict_by_feat(self, seg_logits, batch_img_metas):
        return super().predict_by_feat(seg_logits, batch_img_metas).flip(1)


@pytest.mark.parametrize('settings', [
    dict(test_cfg=dict(mode='slide', crop_size=(40, 40), stride=(24, 24), keep_logits=True)),
    dict(test_cfg=dict(mode='whole', keep_logits=True)),
    dict(num_classes=2, out_channels=1, threshold=0.5, loss_decode=dict(CE, use_sigmoid=True)),
    dict(head='ReversedClassesHead')], ids=['slide', 'keep_logits', 'binary', 'own_predictions'])
def test_where_logits_are_needed_everything_is_stock(settings):
    models = fast_and_stock(**settings)
    assert not models[0].predicts_by_argmax()
    found, wanted = predict_both(models, IMAGES, METAS['padded'])
    assert_same_predictions(found, wanted, has_logits=True)
    for a, b in zip(found, wanted, strict=True):
        # Convolutions in channels_last add in another order.
        torch.testing.assert_close(a.seg_logits.data, b.seg_logits.data, rtol=1e-10, atol=1e-10)
    if settings.get('test_cfg', {}).get('mode') != 'slide':
        numbers = models[0].encode_decode_argmax(IMAGES, METAS['as_is'])
        wanted = predict_both(models[1:], IMAGES, METAS['as_is'])[0]
        assert torch.equal(numbers, torch.cat([sample.pred_sem_seg.data for sample in wanted]).long())


def test_multi_scale_tests_work_where_logits_are_kept():
    def merge(model):
        scales = [dict(img_shape=(64, 96), pad_shape=(64, 96), ori_shape=(70, 80)),
                  dict(img_shape=(64, 96), pad_shape=(64, 96), ori_shape=(70, 80), flip=True,
                       flip_direction='horizontal')]
        data = dict(inputs=[[IMAGES[i].float()] for i in range(2)], data_samples=[
            [SegDataSample(metainfo=dict(meta, img_path='image.jpg'))] for meta in scales])
        with torch.no_grad():
            return SegTTAModel(model.float()).test_step(data)[0].pred_sem_seg.data
    kept, stock = fast_and_stock(test_cfg=dict(mode='whole', keep_logits=True))
    assert torch.equal(merge(kept), merge(stock))


def test_metrics_and_pictures_are_made_from_such_predictions(tmp_path):
    samples = []
    labels = torch.randint(CLASSES, (2, 1, 64, 96), generator=torch.Generator().manual_seed(3))
    for results in predict_both(fast_and_stock(), IMAGES, METAS['as_is']):
        for sample, label in zip(results, labels, strict=True):
            sample.gt_sem_seg = PixelData(data=label)
            sample.set_metainfo(dict(img_path='image.jpg'))
        samples.append(results)
    counts = []
    for results in samples:
        metric = RecordingIoUMetric(iou_metrics=['mIoU'], output_dir=str(tmp_path))
        metric.dataset_meta = dict(classes=list('abcdefg'))
        metric.process({}, [sample.to_dict() for sample in results])
        counts.append(metric.results)
    for a, b in zip(*counts, strict=True):
        assert all(map(torch.equal, a[:4], b[:4]))
    visualizer = SegLocalVisualizer(vis_backends=[dict(type='LocalVisBackend')], save_dir=str(tmp_path), alpha=0.5)
    visualizer.dataset_meta = dict(classes=list('abcdefg'), palette=[[30 * i] * 3 for i in range(CLASSES)])
    pictures = []
    for results in samples:
        visualizer.add_datasample('picture', np.zeros((64, 96, 3), np.uint8), results[0])
        pictures.append(visualizer.get_image())
    np.testing.assert_array_equal(*pictures)


def test_an_image_is_segmented_through_mmsegs_api():
    image = np.random.default_rng(0).integers(0, 256, (45, 70, 3), dtype=np.uint8)
    predictions = []
    for kind in ('fast', 'stock'):
        model = segmentor(kind).eval()
        model.cfg = Config(dict(test_pipeline=[
            dict(type='LoadImageFromFile'), dict(type='Resize', scale=(140, 64), keep_ratio=True),
            dict(type='PackSegInputs')]))
        predictions.append(inference_model(model, image).pred_sem_seg.data)
    assert predictions[0].shape == (1, 45, 70)
    assert (predictions[0] == predictions[1]).float().mean() > 0.999


def test_training_takes_the_same_steps_as_stock_and_checkpoints_go_both_ways():
    generator = torch.Generator().manual_seed(5)
    batches = []
    for _ in range(6):
        labels = torch.randint(CLASSES, (2, 32, 40), generator=generator)
        labels[:, :5] = 255
        batches.append((torch.randn(2, 3, 32, 40, generator=generator), labels))
    curves, models = [], []
    for kind in ('fast', 'stock'):
        model = segmentor(kind)
        optimizer = torch.optim.AdamW(model.parameters(), 0.01)
        curve = []
        for inputs, labels in batches:
            result = model.loss(inputs, samples(labels))
            optimizer.zero_grad()
            result['decode.loss_ce'].backward()
            optimizer.step()
            curve.append([result['decode.loss_ce'].item(), result['decode.acc_seg'].item()])
        curves.append(curve)
        models.append(model)
    np.testing.assert_allclose(*curves, rtol=1e-4)
    assert curves[0][0][0] != curves[0][-1][0]
    models[0].load_state_dict(models[1].state_dict())
    models[1].load_state_dict(models[0].state_dict())

