"""InceptionNeXt for semantic segmentation. Importing this package registers the backbones with every mm framework, and
with timm as feature extractors."""
from . import _requirements as _requirements  # isort: skip  (first: an old torch is one clear message)
import importlib
from typing import TYPE_CHECKING

from . import zoo as zoo  # the configs have names for mmengine, too
from ._version import __version__
from .acceleration import accelerate, restore
from .acceleration.precision import fuse_for_inference
from .models import timm_models as timm_models  # registers them
from .models.metanext import ConvNeXt, InceptionNeXt, MetaNeXt
from .models.replace_depthwise import replace_depthwise
from .models.token_mixers import InceptionDWConv2d, PartialInceptionDWConv2d
from .ops.measured import choices, measuring

if TYPE_CHECKING:
    from .api import (
        Prediction,
        Predictor,
        SegmentationModel,
        create_backbone,
        create_model,
        cuda_graph,
        list_configs,
        list_models,
        load,
    )

# Of mmseg, which the backbones do without: imported when they are asked for.
FROM_API = (
    'Prediction', 'Predictor', 'SegmentationModel', 'create_backbone', 'create_model', 'cuda_graph', 'list_configs',
    'list_models', 'load')

__all__ = [
    'ConvNeXt', 'InceptionDWConv2d', 'InceptionNeXt', 'MetaNeXt', 'PartialInceptionDWConv2d', 'Prediction', 'Predictor',
    'SegmentationModel', '__version__', 'accelerate', 'choices', 'create_backbone', 'create_model', 'cuda_graph',
    'fuse_for_inference', 'list_configs', 'list_models', 'load', 'measuring', 'replace_depthwise', 'restore'
]


def __getattr__(name):
    if name in FROM_API:
        return getattr(importlib.import_module(f'{__name__}.api'), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__():
    return sorted({*globals(), *FROM_API})
