"""mIoU against a hand-worked example and the ADE20K development kit's definition, on the real annotations."""
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.logging import MessageHub, MMLogger
from mmengine.structures import PixelData
from mmseg.evaluation import IoUMetric
from mmseg.structures import SegDataSample
from PIL import Image

from inceptionnext_seg.engine.hooks import MetricsFileHook
from inceptionnext_seg.errors import UserError
from inceptionnext_seg.segmentation.metrics import CrossEntropyMetric, RecordingIoUMetric, result_of


def evaluate(metric_class, pairs, classes):
    """Metrics of (prediction, label) pairs, 255 being ignored, through a metric of mmseg's kind, two images a batch."""
    MessageHub.get_instance('test_evaluation')
    MMLogger.get_instance('test_evaluation')
    metric = metric_class(iou_metrics=['mIoU'])
    metric.dataset_meta = dict(classes=classes)
    samples = [SegDataSample(
        pred_sem_seg=PixelData(data=torch.as_tensor(prediction)[None]),
        gt_sem_seg=PixelData(data=torch.as_tensor(label)[None]),
        metainfo=dict(img_path=f'folder/image{i}.jpg')).to_dict() for i, (prediction, label) in enumerate(pairs)]
    for start in range(0, len(samples), 2):
        metric.process({}, samples[start:start + 2])
    return metric.evaluate(len(samples))


def record(pairs, classes):
    """mmseg's metrics of :class:`RecordingIoUMetric`, and what it leaves in the message hub."""
    metrics = evaluate(RecordingIoUMetric, pairs, classes)
    hub = MessageHub.get_current_instance()
    return metrics, hub.get_info('segmentation_result'), hub.get_info('per_image_counts')


# Two images, classes a, b, c, d. d occurs nowhere. Where the label is 255 nothing counts.
HAND_WORKED = [
    (np.array([[0, 0, 1], [1, 1, 2]]), np.array([[0, 0, 1], [1, 2, 255]])),
    (np.array([[0, 2, 2, 0]]), np.array([[1, 2, 2, 255]]))]
# Both images together, without the two ignored pixels; 6 of the 8 others are right.
#    label  prediction  both  IoU        Acc
# a    2        3         2   2 / 3      2 / 2
# b    3        3         2   2 / 4      2 / 3
# c    3        2         2   2 / 3      2 / 3


def test_the_hand_worked_example_is_reproduced_per_class_and_in_the_mean():
    metrics, result, counts = record(HAND_WORKED, 'abcd')
    assert result['per_class']['a'] == dict(IoU=pytest.approx(200 / 3), Acc=100)
    assert result['per_class']['b'] == dict(IoU=50, Acc=pytest.approx(200 / 3))
    assert result['per_class']['c'] == dict(IoU=pytest.approx(200 / 3), Acc=pytest.approx(200 / 3))
    assert result['mIoU'] == pytest.approx(100 * 11 / 18)
    assert result['mAcc'] == pytest.approx(100 * 7 / 9)
    assert result['aAcc'] == 75
    assert metrics == dict(aAcc=75, mIoU=61.11, mAcc=77.78)  # mmseg rounds
    for name, wanted in dict(
            label=[[2, 2, 1, 0], [0, 1, 2, 0]], prediction=[[2, 3, 0, 0], [1, 0, 2, 0]],
            intersect=[[2, 2, 0, 0], [0, 0, 2, 0]], union=[[2, 3, 1, 0], [1, 1, 2, 0]]).items():
        np.testing.assert_array_equal(counts[name], wanted)
    assert list(counts['image']) == ['image0.jpg', 'image1.jpg']
    assert list(counts['classes']) == list('abcd')


def test_a_class_that_occurs_nowhere_has_no_figure_and_is_in_no_mean():
    _, result, _ = record(HAND_WORKED, 'abcd')
    assert result['per_class']['d'] == dict(IoU=None, Acc=None)
    _, without, _ = record(HAND_WORKED, 'abc')
    assert [result[key] for key in ('mIoU', 'mAcc', 'aAcc')] == [without[key] for key in ('mIoU', 'mAcc', 'aAcc')]


def test_a_class_that_is_only_predicted_counts_as_zero_in_miou_and_not_in_macc():
    _, result, _ = record([(np.array([[0, 1]]), np.array([[0, 0]]))], 'ab')
    assert result['per_class']['b'] == dict(IoU=0, Acc=None)
    assert (result['mIoU'], result['mAcc']) == (25, 50)


def test_an_image_that_is_all_ignored_changes_nothing():
    ignored = (np.array([[3, 3, 1]]), np.array([[255, 255, 255]]))
    _, with_it, counts = record([HAND_WORKED[0], ignored, HAND_WORKED[1]], 'abcd')
    assert with_it == record(HAND_WORKED, 'abcd')[1]
    assert not any(counts[name][1].any() for name in ('intersect', 'union', 'prediction', 'label'))


def test_labels_that_are_all_ignored_give_no_figure_at_all():
    _, result, _ = record([(np.array([[0]]), np.array([[255]]))], 'ab')
    assert (result['mIoU'], result['mAcc'], result['aAcc']) == (None, None, None)
    json.dumps(result, allow_nan=False)


# The ADE20K development kit (evaluationCode/utils_eval/intersectionAndUnion.m and pixelAccuracy.m), in numpy: numbers
# 1 to 150, 0 unlabelled, and predictions on unlabelled pixels are set to 0 before anything is counted.


def development_kit(pairs):
    """Per-class IoU and Acc, NaN where a class occurs nowhere, and pixel accuracy over all images."""
    intersection, union, labels = np.zeros(150), np.zeros(150), np.zeros(150)
    for prediction, label in pairs:
        prediction = prediction * (label > 0)
        for number in range(1, 151):
            both = np.count_nonzero((prediction == number) & (label == number))
            intersection[number - 1] += both
            union[number - 1] += np.count_nonzero(prediction == number) + np.count_nonzero(label == number) - both
            labels[number - 1] += np.count_nonzero(label == number)
    with np.errstate(invalid='ignore'):
        return intersection / union, intersection / labels, intersection.sum() / labels.sum()


def corrupt(annotation):
    """A prediction: the annotation shifted, blocks of it another class, and every unlabelled pixel some class."""
    prediction = np.roll(annotation, (5, 9), (0, 1))
    rows, columns = np.indices(annotation.shape)
    wrong = (rows // 24 + columns // 40) % 3 == 0
    prediction = np.where(wrong, prediction * 7 % 150 + 1, prediction)
    return np.where(prediction == 0, (rows + columns) % 150 + 1, prediction)


@pytest.fixture(scope='module')
def real_pairs(ade20k_sample):
    """(prediction, annotation) in ADE20K's numbers, of the three real annotations."""
    files = sorted((ade20k_sample / 'annotations/validation').glob('*.png'))
    assert len(files) == 3
    annotations = [np.asarray(Image.open(file)).astype(int) for file in files]
    return [(corrupt(annotation), annotation) for annotation in annotations]


@pytest.fixture(scope='module')
def ade20k_classes():
    from mmseg.datasets import ADE20KDataset
    return ADE20KDataset.METAINFO['classes']


def as_trained(pairs):
    """(prediction, label) in training's numbers: 0 to 149, unlabelled 255."""
    return [(prediction - 1, np.where(annotation == 0, 255, annotation - 1)) for prediction, annotation in pairs]


@pytest.mark.logits_match
def test_real_annotations_give_the_figures_of_the_development_kit(real_pairs, ade20k_classes):
    iou, acc, pixel_accuracy = development_kit(real_pairs)
    assert 0.5 < np.nanmax(iou) < 0.7  # neither right everywhere nor nowhere
    _, result, _ = record(as_trained(real_pairs), ade20k_classes)
    for key, wanted in (('IoU', iou), ('Acc', acc)):
        found = [figures[key] for figures in result['per_class'].values()]
        np.testing.assert_allclose(np.array(found, float), 100 * wanted, rtol=1e-12)
    assert result['mIoU'] == pytest.approx(100 * np.nanmean(iou), rel=1e-12)
    assert result['mAcc'] == pytest.approx(100 * np.nanmean(acc), rel=1e-12)
    assert result['aAcc'] == pytest.approx(100 * pixel_accuracy, rel=1e-12)


def test_predictions_on_unlabelled_pixels_never_count(real_pairs, ade20k_classes):
    assert all((annotation == 0).any() for _, annotation in real_pairs)
    other = [(np.where(annotation == 0, 150, prediction), annotation) for prediction, annotation in real_pairs]
    assert record(as_trained(other), ade20k_classes)[1] == record(as_trained(real_pairs), ade20k_classes)[1]


@pytest.mark.logits_match
def test_the_metrics_are_those_of_mmseg(real_pairs, ade20k_classes):
    pairs = as_trained(real_pairs)
    metrics, result, _ = record(pairs, ade20k_classes)
    wanted = evaluate(IoUMetric, pairs, ade20k_classes)
    assert metrics == wanted
    assert {name: round(result[name], 2) for name in wanted} == pytest.approx(wanted)


def test_counts_beyond_the_integers_of_float32_are_exact():
    pixels = 2**24 + 1
    result = result_of(*[np.array([[pixels, 0], [0, 1]])] * 4, classes='ab')
    assert result['aAcc'] == 100
    result = result_of([pixels - 1], [pixels], [pixels], [pixels], classes='a')
    assert result['mIoU'] == 100 * (pixels - 1) / pixels < 100


def test_per_image_npz_sums_to_the_result(real_pairs, ade20k_classes, tmp_path):
    _, result, _ = record(as_trained(real_pairs), ade20k_classes)
    hook = MetricsFileHook()
    hook.before_run(None)
    hook.write(SimpleNamespace(
        message_hub=MessageHub.get_current_instance(), cfg=Config(dict(load_from='iter_1.pth')), log_dir=tmp_path,
        seed=0, iter=0), 'test')
    with np.load(tmp_path / 'per_image.npz', allow_pickle=False) as file:
        counts = dict(file)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['metrics.json', 'per_image.npz']
    assert list(counts['image']) == ['image0.jpg', 'image1.jpg', 'image2.jpg']
    labelled = [np.count_nonzero(annotation) for _, annotation in real_pairs]
    np.testing.assert_array_equal(counts['label'].sum(1), labelled)
    np.testing.assert_array_equal(counts['prediction'].sum(1), labelled)
    np.testing.assert_array_equal(counts['union'], counts['label'] + counts['prediction'] - counts['intersect'])
    sums = {name: counts[name].sum(0) for name in ('intersect', 'union', 'label')}
    with np.errstate(invalid='ignore'):
        assert 100 * np.nanmean(sums['intersect'] / sums['union']) == pytest.approx(result['mIoU'])
    assert 100 * sums['intersect'].sum() / sums['label'].sum() == pytest.approx(result['aAcc'])
    assert json.loads((tmp_path / 'metrics.json').read_text())['mIoU'] == result['mIoU']


def test_predictions_alone_can_be_written_where_there_are_no_labels(tmp_path):
    MMLogger.get_instance('test_evaluation')
    metric = RecordingIoUMetric(iou_metrics=['mIoU'], format_only=True, output_dir=str(tmp_path))
    metric.dataset_meta = dict(classes='abc')
    sample = SegDataSample(pred_sem_seg=PixelData(data=torch.tensor([[[0, 2], [1, 1]]])),
                           metainfo=dict(img_path='folder/image.jpg', reduce_zero_label=True))
    metric.process({}, [sample.to_dict()])
    assert metric.evaluate(1) == {}
    assert np.asarray(Image.open(tmp_path / 'image.png')).tolist() == [[1, 3], [2, 2]]  # as in ADE20K's files


# Cross-entropy


def cross_entropy_of(pairs):
    metric = CrossEntropyMetric()
    for logits, label in pairs:
        metric.process({}, [SegDataSample(
            seg_logits=PixelData(data=logits), gt_sem_seg=PixelData(data=label[None])).to_dict()])
    return metric.evaluate(len(pairs))['cross_entropy']


def test_the_cross_entropy_is_torchs_over_the_labelled_pixels_of_all_images_together():
    generator = torch.Generator().manual_seed(0)
    sizes = [(5, 7), (2, 3), (1, 4)]
    logits = [4 * torch.randn(3, *size, generator=generator) for size in sizes]
    labels = [torch.randint(0, 3, size, generator=generator) for size in sizes]
    labels[0][:2], labels[2][:] = 255, 255    # ignored, in the last image all
    found = cross_entropy_of(list(zip(logits, labels, strict=True)))
    pixels = torch.cat([each.flatten(1).T for each in logits]).double()
    wanted = F.cross_entropy(pixels, torch.cat([each.flatten() for each in labels]), ignore_index=255)
    assert found == pytest.approx(wanted.item(), rel=1e-6)


def test_the_cross_entropy_of_a_hand_worked_pixel():
    # Probabilities 1/4, 1/2, 1/4; the label is the second class: log 2.
    logits = torch.tensor([1., 2., 1.]).log().reshape(3, 1, 1)
    assert cross_entropy_of([(logits, torch.tensor([[1]]))]) == pytest.approx(np.log(2))
    assert np.isnan(cross_entropy_of([(logits, torch.tensor([[255]]))]))


def test_the_cross_entropy_wants_logits_of_each_class():
    sample = dict(gt_sem_seg=dict(data=torch.zeros(1, 1, 1)))
    with pytest.raises(UserError, match='keep_logits'):
        CrossEntropyMetric().process({}, [sample])
    with pytest.raises(UserError, match='1 channel'):
        CrossEntropyMetric().process({}, [dict(sample, seg_logits=dict(data=torch.zeros(1, 1, 1)))])
