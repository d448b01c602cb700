"""mIoU as MMSegmentation computes it, with what its table rounds away: per class, and per image for statistics."""
from pathlib import Path

import numpy as np
import torch
from mmengine.logging import MessageHub
from mmseg.evaluation import IoUMetric
from mmseg.registry import METRICS


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
