"""Training and inference: loops, optimizer, hooks, command line to runner. Importing it registers what configs name."""
from . import accelerate_hook, ddp, hooks, loops, optim

__all__ = ['accelerate_hook', 'ddp', 'hooks', 'loops', 'optim']
