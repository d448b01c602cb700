"""MMSegmentation's decode heads and segmentor without logits of the image's size: the same losses and predictions.

A UperNet for 150 classes upsamples its logits from a quarter of the image's size, and in stock MMSegmentation these are
the largest tensors of a step. See ``upsampled_loss.py`` for how they are avoided.
"""
import torch
import torch.nn as nn
from mmengine.structures import PixelData

from .._requirements import require
from ..ops.upsampled_cross_entropy import upsampled_argmax, upsampled_cross_entropy

require(mmcv='2.0', mmseg='1.2')

from mmseg.models.decode_heads.decode_head import BaseDecodeHead  # noqa: E402
from mmseg.models.losses import CrossEntropyLoss  # noqa: E402
from mmseg.models.segmentors import EncoderDecoder, SegTTAModel  # noqa: E402
from mmseg.registry import MODELS  # noqa: E402
from mmseg.structures import SegDataSample  # noqa: E402

EPS = torch.finfo(torch.float32).eps  # what mmseg adds to every number of pixels that it divides by


class UpsampledLossMixin:
    """For a decode head: ``class Head(UpsampledLossMixin, UPerHead)`` has the losses of ``UPerHead``, made from sums.

    Where a loss is not mmseg's softmax ``CrossEntropyLoss`` with the reduction 'mean' or 'sum', or where pixels are
    sampled, the losses are those of the head itself. With autocast the logits are upsampled in float32, not rounded to
    half precision as in stock. With ``class_weight`` and ``avg_non_ignore`` together, where mmseg 1.2 raises
    IndexError, the mean is over the weights of the pixels that are not ignored, which is what it is without the latter.

    Args:
        upsampled_loss (bool): False takes the head's own losses everywhere.
    """

    def __init__(self, *args, upsampled_loss=True, **kwargs):
        super().__init__(*args, **kwargs)
        self.upsampled_loss = upsampled_loss

    def loss_by_feat(self, seg_logits, batch_data_samples):
        """As mmseg's: losses by name, and ``acc_seg`` in per cent, from logits (B, classes, h, w).

        Raises:
            UserError: A label is neither a class nor ``ignore_index``.
        """
        losses = self.loss_decode if isinstance(self.loss_decode, nn.ModuleList) else [self.loss_decode]
        if not (self.upsampled_loss and self.sampler is None and self.ignore_index is not None
                and self.out_channels > 1 and all(map(is_softmax_cross_entropy, losses))):
            return super().loss_by_feat(seg_logits, batch_data_samples)
        labels = self._stack_batch_gt(batch_data_samples).squeeze(1)
        result = {}
        for loss in losses:
            sums = upsampled_cross_entropy(
                seg_logits, labels, loss.class_weight, self.ignore_index, align_corners=self.align_corners)
            value = loss.loss_weight * reduce(loss, sums, labels.numel())
            result[loss.loss_name] = result[loss.loss_name] + value if loss.loss_name in result else value
        result['acc_seg'] = ((sums.correct + EPS) * (100 / (sums.pixels + EPS))).reshape(1)
        return result


def is_softmax_cross_entropy(loss):
    """Whether a loss is mmseg's cross-entropy over classes, reduced to a number."""
    return (type(loss) is CrossEntropyLoss and not loss.use_sigmoid and not loss.use_mask
            and loss.reduction in ('mean', 'sum'))


def reduce(loss, sums, pixels):
    """``UpsampledLoss`` of a batch of ``pixels``, ignored ones included, as mmseg's ``CrossEntropyLoss`` reduces it."""
    if loss.reduction == 'sum':
        return sums.loss
    if loss.class_weight is not None:
        return sums.loss / (sums.weight + EPS)
    return sums.loss / ((sums.pixels if loss.avg_non_ignore else pixels) + EPS)


@MODELS.register_module()
class BlockedEncoderDecoder(EncoderDecoder):
    """mmseg's ``EncoderDecoder`` whose predictions are made a few rows at a time, from logits of low resolution.

    ``pred_sem_seg`` of a data sample is that of stock. ``seg_logits`` are left out, which stock keeps at the image's
    original size, 150 numbers a pixel for ADE20K. ``test_cfg=dict(mode='whole', keep_logits=True)`` has stock's
    predictions; whatever reads ``seg_logits`` needs it, such as mmseg's ``SegTTAModel``. Sliding windows, binary heads
    of one channel, and heads with predictions of their own take the stock way by themselves.

    Args:
        channels_last (bool): Keep weights and images in channels_last, from the first convolution to the loss.
    """

    def __init__(self, *args, channels_last=True, **kwargs):
        super().__init__(*args, **kwargs)
        self.memory_format = torch.channels_last if channels_last else torch.preserve_format
        self.to(memory_format=self.memory_format)

    def extract_feat(self, inputs):
        return super().extract_feat(inputs.to(memory_format=self.memory_format))

    def takes_argmax_by_blocks(self):
        """Whether logits serve for nothing but class numbers, and the head upsamples them as mmseg's base head does."""
        head = type(self.decode_head)
        return (self.test_cfg.get('mode', 'whole') == 'whole' and not self.test_cfg.get('keep_logits', False)
                and self.out_channels > 1 and issubclass(head, BaseDecodeHead)
                and head.predict is BaseDecodeHead.predict and head.predict_by_feat is BaseDecodeHead.predict_by_feat)

    def encode_decode_argmax(self, inputs, batch_img_metas):
        """Class numbers (B, H, W), int64, at the size of ``inputs``: what ``encode_decode`` has the logits of."""
        if not self.takes_argmax_by_blocks():
            logits = self.encode_decode(inputs, batch_img_metas)
            if self.out_channels == 1:
                return (logits.sigmoid() > self.decode_head.threshold).squeeze(1).long()
            return logits.argmax(1)
        logits = self.decode_head.forward(self.extract_feat(inputs))
        return upsampled_argmax(logits, upsampled_size(batch_img_metas[0]), self.align_corners)

    def predict(self, inputs, data_samples=None):
        """As mmseg's, with data samples whose ``pred_sem_seg`` is (1, H, W), int64, and that have no ``seg_logits``."""
        if not self.takes_argmax_by_blocks():
            return super().predict(inputs, data_samples)
        logits = self.decode_head.forward(self.extract_feat(inputs))
        if data_samples is None:
            data_samples = [SegDataSample() for _ in inputs]
            predictions = upsampled_argmax(logits, inputs.shape[2:], self.align_corners)
        else:
            size = upsampled_size(data_samples[0].metainfo)
            predictions = [
                upsampled_argmax(logits[i:i + 1], size, self.align_corners, **postprocessing(sample.metainfo))[0]
                for i, sample in enumerate(data_samples)]
        for sample, prediction in zip(data_samples, predictions, strict=True):
            sample.set_data(dict(pred_sem_seg=PixelData(data=prediction[None])))
        return data_samples


@MODELS.register_module()
class LogitsTTAModel(SegTTAModel):
    """mmseg's ``SegTTAModel``, which averages ``seg_logits``, around a segmentor that leaves them out."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.module.test_cfg['keep_logits'] = True


def upsampled_size(img_meta):
    """The size that ``BaseDecodeHead.predict_by_feat`` upsamples the logits of a batch to, by its first image."""
    shape = img_meta['img_shape']
    return shape if isinstance(shape, torch.Size) else img_meta.get('pad_shape', shape)[:2]


def postprocessing(img_meta):
    """What ``BaseSegmentor.postprocess_result`` does to an image's logits, as arguments of ``upsampled_argmax``."""
    return dict(
        padding=img_meta.get('img_padding_size', img_meta.get('padding_size', [0] * 4)),
        flip=img_meta['flip_direction'] if img_meta.get('flip') else None,
        ori_shape=img_meta['ori_shape'])
