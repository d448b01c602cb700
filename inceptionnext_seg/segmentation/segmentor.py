"""Fast class of MMSegmentation's segmentor: predictions a few rows at a time, from logits of low resolution."""
import torch
from mmengine.structures import PixelData
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.segmentors import EncoderDecoder
from mmseg.structures import SegDataSample

from .._fast import Fast
from ..ops.upsampled_cross_entropy import upsampled_argmax


class FastEncoderDecoder(Fast, EncoderDecoder):
    """mmseg's ``EncoderDecoder``; ``pred_sem_seg`` of a data sample is that of stock.

    ``seg_logits`` are left out, which stock keeps at the image's original size, 150 numbers a pixel for ADE20K.
    ``test_cfg=dict(mode='whole', keep_logits=True)`` keeps them, for code that reads ``seg_logits``.
    Sliding windows, binary heads of one channel, and heads that override ``predict`` always predict as in stock.
    """
    plain, parts = EncoderDecoder, ('prediction', )

    def extract_feat(self, inputs):
        if self.forms.get('channels_last', True):
            inputs = inputs.to(memory_format=torch.channels_last)
        return super().extract_feat(inputs)

    def argmax(self, logits, size, **postprocessing):
        return upsampled_argmax(logits, size, self.align_corners, impl=self.form('prediction', 'native', 'blocked'),
                                **postprocessing)

    def predicts_by_argmax(self):
        """Whether logits are needed for class indices alone, and the head upsamples them as mmseg's base head does."""
        head = type(self.decode_head)
        return (self.form('prediction') is not False and self.test_cfg.get('mode', 'whole') == 'whole'
                and not self.test_cfg.get('keep_logits', False) and self.out_channels > 1
                and issubclass(head, BaseDecodeHead) and head.predict is BaseDecodeHead.predict
                and head.predict_by_feat is BaseDecodeHead.predict_by_feat)

    def encode_decode_argmax(self, inputs, batch_img_metas):
        """Class indices (B, H, W), int64, at the size of ``inputs``: what ``encode_decode`` has the logits of."""
        if not self.predicts_by_argmax():
            logits = self.encode_decode(inputs, batch_img_metas)
            if self.out_channels == 1:
                return (logits.sigmoid() > self.decode_head.threshold).squeeze(1).long()
            return logits.argmax(1)
        logits = self.decode_head.forward(self.extract_feat(inputs))
        return self.argmax(logits, upsampled_size(batch_img_metas[0]))

    def predict(self, inputs, data_samples=None):
        """As mmseg's, with data samples whose ``pred_sem_seg`` is (1, H, W), int64, and that have no ``seg_logits``."""
        if not self.predicts_by_argmax():
            return super().predict(inputs, data_samples)
        logits = self.decode_head.forward(self.extract_feat(inputs))
        if data_samples is None:
            data_samples = [SegDataSample() for _ in inputs]
            predictions = self.argmax(logits, inputs.shape[2:])
        else:
            size = upsampled_size(data_samples[0].metainfo)
            predictions = [self.argmax(logits[i:i + 1], size, **postprocessing(sample.metainfo))[0]
                           for i, sample in enumerate(data_samples)]
        for sample, prediction in zip(data_samples, predictions, strict=True):
            sample.set_data(dict(pred_sem_seg=PixelData(data=prediction[None])))
        return data_samples


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
