"""Training and inference: loops, optimizer, hooks, command line to runner. Importing it registers what configs name.

It also puts this package's reading of weights in place of mmengine's, which unpickles freely, its ``CheckpointHook`` in
place of mmengine's, which writes over its files, and lays the state of fused optimizers out as the parameters: a
checkpoint may come from a model of the other layout.
"""
from ..acceleration.optimizers import watch_fused_optimizers
from . import (
    accelerate_hook,
    checkpoints,
    compiling,
    ddp,
    finite,
    hooks,
    loops,
    optim,
    settings_hook,
    strict,
    visualization,
    weights,
)

__all__ = ['accelerate_hook', 'checkpoints', 'compiling', 'ddp', 'finite', 'hooks', 'loops', 'optim', 'settings_hook',
           'strict', 'visualization', 'weights']

watch_fused_optimizers()
