"""Training and inference: loops, optimizer, hooks, command line to runner. Importing it registers what configs name.

It also puts this package's reading of weights in place of mmengine's, which unpickles freely, its ``CheckpointHook`` in
place of mmengine's, which writes over its files, and lays the state of fused optimizers out as the parameters: a
checkpoint may come from a model of the other layout.

It works under every mm framework. What needs mmseg is in modules of its own that configs import: ``settings_hook`` and
``visualization``.
"""
from ..acceleration.optimizers import watch_fused_optimizers
from . import (
    accelerate_hook,
    budget,
    checkpoints,
    compiling,
    cuda_graph,
    ddp,
    finite,
    hooks,
    loops,
    optim,
    report,
    strict,
    weights,
)

__all__ = [
    'accelerate_hook', 'budget', 'checkpoints', 'compiling', 'cuda_graph', 'ddp', 'finite', 'hooks', 'loops', 'optim',
    'report', 'strict', 'weights'
]

watch_fused_optimizers()
