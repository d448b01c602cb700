"""Training and inference: loops, optimizer, hooks, command line to runner. Importing it registers what configs name."""
from . import ddp, hooks, loops, optim

__all__ = ['ddp', 'hooks', 'loops', 'optim']
