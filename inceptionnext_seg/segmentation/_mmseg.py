"""Imported before anything of MMSegmentation, so that an old or missing version is one clear message."""
from .._requirements import require

require(mmcv='2.0', mmseg='1.2')
