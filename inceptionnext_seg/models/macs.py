"""Multiply-accumulates (MACs), by module, of one pass through a model, counted as torch dispatches its operations.

A functional call such as ``F.linear(x, layer.weight)``, which forward hooks on layers would miss, counts as well.
"""
import torch
from torch.utils.flop_counter import FlopCounterMode


def macs_of_calls(model, image):
    """MACs of ``model(image)`` in each module that was called, by name as in ``named_modules()``, '' being the whole.

    Args:
        model (nn.Module): On meta tensors, as ``image``; real tensors work too, and are computed with.
    """
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(image)
    # The counter's names begin with the class of the outermost module.
    root = type(model).__name__
    macs = {name.removeprefix(root).removeprefix('.'): sum(by_operator.values()) // 2
            for name, by_operator in counter.get_flop_counts().items() if name.partition('.')[0] == root}
    return dict(macs, **{'': counter.get_total_flops() // 2})


def count_macs(model, image, prefix=''):
    """MACs of each module, its submodules included, in ``model(image)``.

    Args:
        model (nn.Module), image (Tensor): As of :func:`macs_of_calls`.
        prefix (str): Name of the submodule to which the result and its names are limited.

    Returns:
        dict[str, int]: By name as in ``named_modules()``.
    """
    called = macs_of_calls(model, image)
    macs = {}

    def visit(name, module):
        of_children = sum(visit(join(name, child), part) for child, part in module.named_children())
        # A container such as a ModuleList is never called, nor is a layer of which only the weight is used.
        macs[name] = called.get(join(prefix, name), of_children)
        return macs[name]

    visit('', model.get_submodule(prefix))
    return macs


def join(*names):
    return '.'.join(filter(None, names))
