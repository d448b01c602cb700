"""mIoU as MMSegmentation computes it, with what its table rounds away: per class, and per image for statistics; and the
mean cross-entropy, which it does not have."""
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.evaluator import BaseMetric
from mmengine.logging import MessageHub
from mmseg.evaluation import IoUMetric
from mmseg.registry import METRICS

from ..errors import UserError


@METRICS.register_module()
class RecordingIoUMetric(IoUMetric):
    """mmseg's ``IoUMetric``; its numbers are unchanged, more of them are kept.

    To the message hub go ``segmentation_result``, see :func:`result_of`, and ``per_image_counts``, which
    ``MetricsFileHook`` writes for the paired bootstrap of ``tools/compare.py``: pixels ``intersect``, ``union``,
    ``prediction``, ``label``, each (images, classes), ``image``, the file names, and ``classes``.
    """

    @staticmethod
    def intersect_and_union(pred_label, label, num_classes, ignore_index):
        """On a GPU torch's histogram is not deterministic; where it has to be, the CPU counts."""
        if torch.are_deterministic_algorithms_enabled():
            pred_label, label = pred_label.cpu(), label.cpu()
        return IoUMetric.intersect_and_union(pred_label, label, num_classes, ignore_index)

    def process(self, data_batch, data_samples):
        super().process(data_batch, data_samples)
        if not self.format_only:
            for i, sample in enumerate(data_samples, len(self.results) - len(data_samples)):
                self.results[i] = (*self.results[i], sample['img_path'])

    def compute_metrics(self, results):
        if self.format_only:
            return super().compute_metrics(results)
        metrics = super().compute_metrics([result[:4] for result in results])
        counts = [np.stack([np.asarray(result[i]) for result in results]).astype(np.int64) for i in range(4)]
        classes = list(self.dataset_meta['classes'])
        hub = MessageHub.get_current_instance()
        hub.update_info('segmentation_result', result_of(*counts, classes), resumed=False)
        names = ('intersect', 'union', 'prediction', 'label')
        hub.update_info('per_image_counts', dict(
            zip(names, counts, strict=True), image=np.array([Path(result[4]).name for result in results]),
            classes=np.array(classes)), resumed=False)
        return metrics


@METRICS.register_module()
class CrossEntropyMetric(BaseMetric):
    """``cross_entropy``: the mean of −log of the label's probability over the labelled pixels of all images, in nats.

    Unlike mIoU it changes with every pixel's probability and not only where the most probable class changes, so that it
    varies less from seed to seed. An image counts by its labelled pixels. NaN where none is labelled.

    It reads ``seg_logits`` of the data samples, which the accelerated segmentor leaves out unless
    ``model.test_cfg.keep_logits`` is True; test-time augmentation has none.

    Args:
        ignore_index (int): Label of the pixels that do not count.
        Others: as :class:`mmengine.evaluator.BaseMetric`.

    Raises:
        UserError: A data sample has no logits, or those of a single channel.
    """

    def __init__(self, ignore_index=255, **settings):
        super().__init__(**settings)
        self.ignore_index = ignore_index

    def process(self, data_batch, data_samples):
        for sample in data_samples:
            if 'seg_logits' not in sample:
                raise UserError('CrossEntropyMetric: a prediction has no seg_logits; expected: the logits of each '
                                'class. Next: --cfg-options model.test_cfg.keep_logits=True, and no --tta.')
            logits, label = sample['seg_logits']['data'], sample['gt_sem_seg']['data']
            if len(logits) < 2:
                raise UserError(f'CrossEntropyMetric: the logits have {len(logits)} channel; expected: one for each '
                                'class, at least 2. Next: model.decode_head.out_channels=2.')
            label = label.reshape(logits.shape[1:]).to(logits.device).long()
            total = F.cross_entropy(logits[None].float(), label[None], ignore_index=self.ignore_index, reduction='none')
            self.results.append((total.double().sum().item(), int((label != self.ignore_index).sum())))

    def compute_metrics(self, results):
        total, pixels = (sum(values) for values in zip(*results, strict=True))
        return dict(cross_entropy=total / pixels if pixels else float('nan'))


def result_of(intersect, union, prediction, label, classes):
    """mIoU, mAcc, aAcc and the per-class figures, in per cent, unrounded, from counts (images, classes) or (classes,).

    IoU of a class is its sum of ``intersect`` over its sum of ``union``, over all images; mIoU is the mean over the
    classes that occur in the labels or the predictions, the others have None. Unlabelled pixels are in none of the
    counts (ADE20K development kit).
    """
    intersect, union, label = (np.atleast_2d(count).sum(0) for count in (intersect, union, label))
    with np.errstate(invalid='ignore', divide='ignore'):
        iou, acc = 100 * intersect / union, 100 * intersect / label
    known = np.isfinite(iou)

    def number(value):
        return float(value) if np.isfinite(value) else None

    return dict(
        mIoU=number(iou[known].mean()) if known.any() else None,
        mAcc=number(acc[np.isfinite(acc)].mean()) if np.isfinite(acc).any() else None,
        aAcc=number(100 * intersect.sum() / label.sum()) if label.sum() else None,
        per_class={name: dict(IoU=number(iou[i]), Acc=number(acc[i])) for i, name in enumerate(classes)})
