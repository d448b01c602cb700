"""What a finder yields: a module and the fast class that it can have, or the reason why it stays."""
from typing import NamedTuple

import torch.nn as nn


class Swap(NamedTuple):
    """A module that can be fast.

    Attributes:
        name (str): As in ``named_modules()``.
        fast (type): The class that it gets.
        forms (dict): Forms of parts that this module cannot have as the caller asked, such as ``dict(loss=False)``.
    """
    name: str
    module: nn.Module
    fast: type
    forms: dict = {}


class Left(NamedTuple):
    """A module that a user might expect to become fast, and why it does not."""
    name: str
    reason: str
