"""All that stands on MMSegmentation: heads, segmentor, metric, cost. Importing it registers them."""
from . import heads, metrics, segmentor

__all__ = ['heads', 'metrics', 'segmentor']
