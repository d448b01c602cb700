"""Imported before mmseg: one that is missing or too old is one clear message."""
from .._requirements import require

require(mmcv='2.0', mmseg='1.2')
