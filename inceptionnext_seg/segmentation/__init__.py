"""What needs MMSegmentation: fast heads and segmentor, metric, complexity. Importing it registers the metric."""
from . import _mmseg as _mmseg  # isort: skip
from . import finder, metrics

__all__ = ['finder', 'metrics']
