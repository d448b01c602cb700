"""InceptionNeXt for semantic segmentation. Importing this package registers the backbones with every mm framework."""
from . import _requirements as _requirements  # isort: skip  (first: an old torch is one clear message)
from ._version import __version__
from .models.ablations import PartialInceptionDWConv2d
from .models.fuse import fuse_for_inference
from .models.metanext import ConvNeXt, InceptionDWConv2d, InceptionNeXt, MetaNeXt
from .models.replace_depthwise import replace_depthwise

__all__ = [
    'ConvNeXt', 'InceptionDWConv2d', 'InceptionNeXt', 'MetaNeXt', 'PartialInceptionDWConv2d', '__version__',
    'fuse_for_inference', 'replace_depthwise'
]
