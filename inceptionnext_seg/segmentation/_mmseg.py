"""Imported before anything of MMSegmentation: an old or missing one is one clear message."""
from .._requirements import require

require(mmcv='2.0', mmseg='1.2')
