"""InceptionNeXt for semantic segmentation. Importing this package registers the backbones with every mm framework."""
from . import _requirements as _requirements  # isort: skip  (first: an old torch is one clear message)
from ._version import __version__
from .acceleration import accelerate, restore
from .acceleration.precision import fuse_for_inference
from .models.metanext import ConvNeXt, InceptionNeXt, MetaNeXt
from .models.replace_depthwise import replace_depthwise
from .models.token_mixers import InceptionDWConv2d, PartialInceptionDWConv2d
from .ops.measured import choices, measuring

__all__ = [
    'ConvNeXt', 'InceptionDWConv2d', 'InceptionNeXt', 'MetaNeXt', 'PartialInceptionDWConv2d', '__version__',
    'accelerate', 'choices', 'fuse_for_inference', 'measuring', 'replace_depthwise', 'restore'
]
