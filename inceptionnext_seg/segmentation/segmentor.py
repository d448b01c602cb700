"""Fast classes of MMSegmentation's segmentor and of its test-time augmentation: predictions from low-resolution logits.

No logits of an image's size exist: class indices come a few rows at a time.
"""
import torch
from mmengine.structures import PixelData
from mmseg.models.segmentors import EncoderDecoder, SegTTAModel
from mmseg.structures import SegDataSample

from .._fast import Fast
from ..ops.dtypes import compute_dtype
from ..ops.upsampled_cross_entropy import upsampled_argmax
from .heads import upsamples_as_stock
from .windows import Windows, predict_windows


class FastEncoderDecoder(Fast, EncoderDecoder):
    """mmseg's ``EncoderDecoder``; ``pred_sem_seg`` of a data sample is that of stock.

    ``seg_logits`` are left out, which stock keeps at the image's original size, 150 numbers a pixel for ADE20K.
    ``test_cfg=dict(mode='whole', keep_logits=True)`` keeps them, for code that reads ``seg_logits``. Sliding windows go
    through the network ``test_cfg.windows_at_once`` at a time, by default as many as have the pixels of
    :data:`~.windows.PIXELS_AT_ONCE`. Binary heads of one channel, and heads that override ``predict``, always predict
    as in stock.
    """
    plain, parts = EncoderDecoder, ('prediction', )

    def extract_feat(self, inputs):
        if self.forms.get('channels_last', True):
            inputs = inputs.to(memory_format=torch.channels_last)
        return super().extract_feat(inputs)

    def argmax(self, logits, size, **postprocessing):
        form = self.form('prediction', 'native', 'triton', 'blocked')
        return upsampled_argmax(logits, size, self.align_corners, impl=form, **postprocessing)

    def predicts_by_argmax(self):
        """Whether logits are needed for class indices alone, and the head upsamples them as mmseg's base head does."""
        return (self.form('prediction') is not False and self.test_cfg.get('mode', 'whole') in ('whole', 'slide')
                and not self.test_cfg.get('keep_logits', False) and self.out_channels > 1
                and upsamples_as_stock(self.decode_head))

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
        metas = [None if data_samples is None else sample.metainfo for sample in data_samples or inputs]
        if self.test_cfg.get('mode', 'whole') == 'slide':
            predictions = [self.classes_of(image, meta) for image, meta in zip(inputs, metas, strict=True)]
            data_samples = data_samples or [SegDataSample() for _ in inputs]
            return with_predictions(data_samples, predictions)
        logits = self.decode_head.forward(self.extract_feat(inputs))
        if data_samples is None:
            data_samples = [SegDataSample() for _ in inputs]
            predictions = self.argmax(logits, inputs.shape[2:])
        else:
            size = upsampled_size(data_samples[0].metainfo)
            predictions = [self.argmax(logits[i:i + 1], size, **postprocessing(sample.metainfo))[0]
                           for i, sample in enumerate(data_samples)]
        return with_predictions(data_samples, predictions)

    def classes_of(self, image, meta=None, sums=None, first_meta=None):
        """Class indices (H, W) of one image (3, h, w), after the data preprocessor, in the mode of ``test_cfg``.

        Args:
            meta (dict | None): Its meta information; without it the image is neither cropped, flipped nor resized.
            sums (Tensor | None): (*ori_shape, C), sums of probabilities, to which the image's are added; the classes
                are those of the largest sums.
            first_meta (dict | None): Of the first image of its batch, which says what a whole image is upsampled to.
        """
        size = height, width = tuple(image.shape[1:])
        if self.test_cfg.get('mode', 'whole') == 'slide':
            windows = Windows.sliding(size, self.test_cfg.crop_size, self.test_cfg.stride)
            upsampled = height, width = windows.window
        else:
            upsampled = size if meta is None else tuple(upsampled_size(first_meta or meta))
            windows = Windows.whole(upsampled)

        def logits_of(corners):
            crops = [image[:, top:top + height, left:left + width] for top, left in corners]
            return self.decode_head.forward(self.extract_feat(torch.stack(crops)))

        steps = {} if meta is None else postprocessing(meta)
        at_once = self.test_cfg.get('windows_at_once') or windows.at_once(image.device)
        return predict_windows(
            logits_of, windows, at_once, upsampled, self.align_corners, sums=sums,
            impl=self.form('prediction', 'native', 'triton', 'blocked'), **steps)


class FastSegTTAModel(Fast, SegTTAModel):
    """mmseg's ``SegTTAModel``: the classes of the largest mean probability over an image's versions.

    One sum of probabilities of the image's size takes the place of the logits of all versions.
    """
    plain, parts = SegTTAModel, ('prediction', )

    def test_step(self, data):
        module = self.module
        if self.form('prediction') is False or not (
                isinstance(module, FastEncoderDecoder) and module.predicts_by_argmax()) or not isinstance(data, dict):
            return super().test_step(data)
        versions = [{key: value[i] for key, value in data.items()} for i in range(len(data['inputs']))]
        sums, first, predictions, samples = {}, None, None, None
        for version in versions:
            version = module.data_preprocessor(version, False)
            samples = version['data_samples']
            first = first or samples
            predictions = []
            for i, (image, sample) in enumerate(zip(version['inputs'], samples, strict=True)):
                if i not in sums:
                    sums[i] = image.new_zeros(*sample.ori_shape, module.out_channels, dtype=compute_dtype(image.dtype))
                predictions.append(module.classes_of(image, sample.metainfo, sums[i], samples[0].metainfo))
        for sample, original in zip(samples, first, strict=True):   # as mmseg's: the last version's, with the first's
            if hasattr(original, 'gt_sem_seg'):
                sample.set_data(dict(gt_sem_seg=original.gt_sem_seg))
            sample.set_metainfo(dict(img_path=original.img_path))
        return with_predictions(samples, predictions)


def with_predictions(data_samples, predictions):
    """The data samples, with their class indices (H, W) each."""
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
