"""All that stands on MMSegmentation: fast heads and segmentor, metric, cost. Importing it registers the metric."""
from . import _mmseg as _mmseg  # isort: skip
from . import finder, metrics

__all__ = ['finder', 'metrics']
