"""Adaptive average pooling to several grids, as matrix products.

``pool(x) = P_h x P_wᵀ``, where row ``i`` of ``P`` averages positions ``⌊i n / s⌋`` to ``⌈(i + 1) n / s⌉`` of ``n``. The
heights of all grids are one product over the map. The backward is products, too, where torch's own operator adds
gradients up in no fixed order on CUDA and raises under deterministic algorithms. And products can be exported for every
size, where adaptive pooling is silently frozen at the size of the example, or cannot be expressed.
"""
import functools

import torch
import torch.nn.functional as F

from . import dispatch
from .dtypes import compute_dtype
from .registration import INTS, TENSORS, gradients_again, register

# Reference


def adaptive_avg_pools2d_torch(x, grids):
    """Of a model that is exported the products, which hold for every size."""
    if dispatch.runs_elsewhere():
        return products(x, grids, averaging_matrix)
    return [F.adaptive_avg_pool2d(x, grid) for grid in grids]


# As products


def adaptive_avg_pools2d_product(x, grids):
    if dispatch.runs_elsewhere():
        return products(x, grids, averaging_matrix)
    return adaptive_avg_pools2d_operator(x, grids)


def pools(x: torch.Tensor, grids: INTS) -> TENSORS:
    return [y.contiguous(memory_format=torch.channels_last) for y in products(x, grids, constant_averages)]


def pools_fake(x, grids):
    return [torch.empty((*x.shape[:2], grid, grid), dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
            for grid in grids]


def products(x, grids, averages):
    """The heights of all grids at once, then the widths of each."""
    height, width, like = *x.shape[2:], (compute_dtype(x.dtype), x.device)
    down = torch.cat([averages(height, grid, *like) for grid in grids])
    rows = torch.matmul(down, x.permute(0, 2, 3, 1).flatten(2).to(down.dtype)).unflatten(2, (width, -1))
    maps = [torch.matmul(averages(width, grid, *like), part)
            for grid, part in zip(grids, rows.split(list(grids), 1), strict=True)]      # (B, s, s, C)
    return [y.permute(0, 3, 1, 2).to(x.dtype) for y in maps]


def averaging_matrix(size, grid, dtype, device):
    """(grid, size), in operators alone, so that ``size`` may be a symbol."""
    cell, position = torch.arange(grid, device=device)[:, None], torch.arange(size, device=device)
    begin, end = cell * size // grid, ((cell + 1) * size + grid - 1) // grid
    inside = ((position >= begin) & (position < end)).to(dtype)
    return inside / inside.sum(1, keepdim=True)


# One copy to a device for each size, ever.
@functools.lru_cache(maxsize=64)
def constant_averages(size, grid, dtype, device):
    with torch.inference_mode(False):   # a tensor made in inference mode cannot be used in training
        return averaging_matrix(size, grid, dtype, 'cpu').to(device)


# Gradient


def pools_backward(grads: TENSORS, height: int, width: int) -> torch.Tensor:
    grids, like = [grad.shape[2] for grad in grads], (compute_dtype(grads[0].dtype), grads[0].device)
    rows = torch.cat([torch.matmul(constant_averages(width, grid, *like).t(), grad.permute(0, 2, 3, 1).to(like[0]))
                      for grid, grad in zip(grids, grads, strict=True)], 1)             # (B, Σ s, w, C)
    down = torch.cat([constant_averages(height, grid, *like) for grid in grids])
    grad = torch.matmul(down.t(), rows.flatten(2)).unflatten(2, (width, -1))
    return grad.permute(0, 3, 1, 2).to(grads[0].dtype)


def pools_backward_fake(grads, height, width):
    return torch.empty((*grads[0].shape[:2], height, width), dtype=grads[0].dtype, device=grads[0].device,
                       memory_format=torch.channels_last)


def save_for_gradient(ctx, inputs, output):
    x, ctx.grids = inputs
    ctx.save_for_backward(x)


def pools_gradient(ctx, grads):
    x, = ctx.saved_tensors
    shape = x.shape[:2]
    grads = [x.new_zeros(*shape, grid, grid) if grad is None else grad
             for grad, grid in zip(grads, ctx.grids, strict=True)]
    if torch.is_grad_enabled():
        def reference(x):
            return sum((F.adaptive_avg_pool2d(x, grid) * grad).sum()
                       for grid, grad in zip(ctx.grids, grads, strict=True))

        return *gradients_again(reference, [x], [True], None), None
    return adaptive_avg_pools2d_backward_operator(grads, *x.shape[2:]), None


adaptive_avg_pools2d_backward_operator = register(
    'adaptive_avg_pools2d_backward', pools_backward, fake=pools_backward_fake, devices=None)
adaptive_avg_pools2d_operator = register(
    'adaptive_avg_pools2d', pools, fake=pools_fake, backward=pools_gradient, setup_context=save_for_gradient,
    devices=None)


def product_is_worth(x, grids):
    """Not in inference on a CPU, where torch's operator reads a small map faster."""
    return x.device.type != 'cpu' or dispatch.needs_gradient(x)


FORMS = dict(
    product=dispatch.Form(adaptive_avg_pools2d_product, worth=product_is_worth),
    torch=dispatch.Form(adaptive_avg_pools2d_torch))


# The operator


def adaptive_avg_pools2d(x, grids, impl='auto'):
    """``[F.adaptive_avg_pool2d(x, grid) for grid in grids]``.

    Args:
        x (Tensor): (B, C, H, W), floating point.
        grids (Sequence[int]): Sides of the square grids.
        impl (str): 'product' is matrix products, 'torch' torch's operator; 'auto' the faster one that was measured, and
            otherwise 'product' where there are gradients or on another device than a CPU. See :mod:`.dispatch`.

    Returns:
        list[Tensor]: (B, C, grid, grid) each.

    Raises:
        FormError: ``impl`` is no form.
    """
    return dispatch.run('adaptive_avg_pools2d', FORMS, impl, x, list(grids))
