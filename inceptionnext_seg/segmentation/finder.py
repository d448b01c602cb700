"""The modules of MMSegmentation that :func:`inceptionnext_seg.accelerate` knows."""
from mmengine.model import BaseTTAModel
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.segmentors import BaseSegmentor, EncoderDecoder, SegTTAModel

from .._fast import plain_type
from ..acceleration.swap import Left, Swap
from .heads import FAST_HEADS
from .segmentor import FastEncoderDecoder, FastSegTTAModel


def find(name, module, root):
    """Decode heads and segmentors."""
    kind = plain_type(module)
    if kind in FAST_HEADS:
        yield Swap(name, module, FAST_HEADS[kind])
    elif isinstance(module, BaseDecodeHead):
        yield Left(name, f'no fast form of {kind.__name__} is known')
    elif kind is EncoderDecoder:
        # Test-time augmentation of other kinds needs the logits of an image's versions.
        averaged = any(isinstance(other, BaseTTAModel) and not averages_probabilities(other)
                       for other in root.modules())
        yield Swap(name, module, FastEncoderDecoder, dict(prediction=False) if averaged else {})
    elif averages_probabilities(module):
        yield Swap(name, module, FastSegTTAModel)
    elif isinstance(module, BaseSegmentor):
        yield Left(name, f'no fast form of {kind.__name__} is known; its parts are looked at one by one')


def averages_probabilities(module):
    """Whether a module is mmseg's own test-time augmentation, whose segmentor needs no logits of the image's size."""
    return plain_type(module) is SegTTAModel and not {'forward', 'test_step', 'merge_preds'} & vars(module).keys()
