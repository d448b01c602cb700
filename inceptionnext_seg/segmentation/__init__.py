"""What needs MMSegmentation: fast heads and segmentor, metrics, complexity. Importing it registers the metrics."""
from . import _mmseg as _mmseg  # isort: skip
from . import finder, metrics

__all__ = ['finder', 'metrics']
