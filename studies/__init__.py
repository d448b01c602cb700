"""What was measured with this package, and how: run from a checkout, not installed."""
from . import _requirements as _requirements
