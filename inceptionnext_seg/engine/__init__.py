"""Training and inference: loops, optimizer, hooks, command line to runner. Importing it registers what configs name.

It also puts this package's reading of weights in place of mmengine's, which unpickles freely.
"""
from . import accelerate_hook, ddp, finite, hooks, loops, optim, weights

__all__ = ['accelerate_hook', 'ddp', 'finite', 'hooks', 'loops', 'optim', 'weights']
