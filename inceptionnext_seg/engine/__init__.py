"""Training and inference: loops, optimizer, hooks, command line to runner. Importing it registers what configs name."""
from . import hooks, optim

__all__ = ['hooks', 'optim']
