"""Residual, layer scale and stochastic depth, ``x + s · γ · y``, in one pass over memory each way.

The sum is what ``x``, ``γ`` and ``y`` promote to, as with stock operators: under autocast ``γ`` is float32, and with it
the sum and the residual stream after it. It has to be: a new network's layer scale is 1e-6, and what is added then is
far below the last digit of half precision (``docs/results/gpu_stream.md`` has the numbers). Unlike stock operators, the
backward pass keeps no copy of ``y`` in float32. With
``∂`` the gradient of the output, ``∂x = ∂``, ``∂y = s · γ · ∂`` and ``∂γ = Σ s · y · ∂`` over images and pixels; ``y``
is kept only where γ takes a gradient. On CUDA a Triton kernel (:mod:`inceptionnext_seg.ops.residual_triton`).
"""
import contextlib

import torch

from . import _triton, dispatch
from .dtypes import compute_dtype
from .inception_dwconv import TRITON_DTYPES, dense, layout
from .registration import TENSORS, register

# Reference


def residual_torch(x, y, gamma, factors):
    if gamma is None and factors is None:
        return x + y
    # There is no autocast of meta tensors.
    with contextlib.nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False):
        return torch.addcmul(x, scale_of(gamma, factors), y).to(sum_dtype(x, y, gamma))


def sum_dtype(x, y, gamma):
    """What ``x + gamma · y`` promotes to."""
    dtype = torch.promote_types(x.dtype, y.dtype)
    return dtype if gamma is None else torch.promote_types(dtype, gamma.dtype)


def scale_of(gamma, factors):
    """γ and the images' factors as one factor of images and channels; not both are None."""
    factors = None if factors is None else factors.reshape(-1, 1, 1, 1)
    if gamma is None:
        return factors
    gamma = gamma.reshape(1, -1, 1, 1)
    return gamma if factors is None else gamma * factors


# The kernel


def residual_kernel(x, y, gamma, factors):
    return residual_operator(x, y, gamma, factors)


def residual_cpu(x: torch.Tensor, y: torch.Tensor, gamma: torch.Tensor | None,
                 factors: torch.Tensor | None) -> torch.Tensor:
    return residual_fake(x, y, gamma, factors).copy_(residual_torch(x, y, gamma, factors))


def residual_cuda(x, y, gamma, factors):
    # Not at the top: Triton is not everywhere.
    from .residual_triton import residual_triton
    x = dense(x)
    y = y.contiguous(memory_format=layout(x))
    out = residual_fake(x, y, gamma, factors)
    residual_triton(x, y, *map(contiguous, (gamma, factors)), out)
    return out


def residual_fake(x, y, gamma, factors):
    return torch.empty_like(dense(x), dtype=sum_dtype(x, y, gamma))


def contiguous(parameter):
    return None if parameter is None else parameter.contiguous()


# Gradient


def residual_backward_cpu(grad: torch.Tensor, y: torch.Tensor | None, gamma: torch.Tensor | None,
                          factors: torch.Tensor | None, y_dtype: torch.dtype, need_y: bool,
                          need_gamma: bool) -> TENSORS:
    """Gradients of y and of gamma; those not needed are empty. ``y`` may be None where gamma needs none."""
    grad_y, grad_gamma = gradients(grad, y, gamma, factors, y_dtype, need_y, need_gamma)
    found = residual_backward_fake(grad, y, gamma, factors, y_dtype, need_y, need_gamma)
    return [empty if value is None else empty.copy_(value)
            for empty, value in zip(found, (grad_y, grad_gamma), strict=True)]


def residual_backward_cuda(grad, y, gamma, factors, y_dtype, need_y, need_gamma):
    from .residual_triton import residual_triton_backward
    grad = dense(grad)
    y = None if y is None else y.contiguous(memory_format=layout(grad))
    grad_y, grad_gamma = residual_backward_fake(grad, y, gamma, factors, y_dtype, need_y, need_gamma)
    if grad.numel():
        try:
            residual_triton_backward(grad, y, *map(contiguous, (gamma, factors)), grad_y if need_y else None,
                                     grad_gamma if need_gamma else None)
        except _triton.LaunchError:     # Triton is off on this device now, as a log line says
            return residual_backward_cpu(grad, y, gamma, factors, y_dtype, need_y, need_gamma)
    elif need_gamma:
        grad_gamma.zero_()
    return [grad_y, grad_gamma]


def residual_backward_fake(grad, y, gamma, factors, y_dtype, need_y, need_gamma):
    grad = dense(grad)
    return [torch.empty_like(grad, dtype=y_dtype) if need_y else grad.new_empty(0),
            gamma.new_empty(gamma.shape) if need_gamma else grad.new_empty(0)]


def gradients(grad, y, gamma, factors, y_dtype, need_y, need_gamma):
    """Gradients of y and of gamma, or None, by torch's operators, which can be differentiated again."""
    grad, grad_y, grad_gamma = grad.to(compute_dtype(grad.dtype)), None, None
    if need_y:
        scale = None if gamma is None and factors is None else scale_of(gamma, factors)
        grad_y = (grad if scale is None else grad * scale).to(y_dtype)
    if need_gamma:
        product = grad * y if factors is None else grad * y * factors.reshape(-1, 1, 1, 1)
        grad_gamma = product.sum((0, 2, 3)).to(gamma.dtype)
    return grad_y, grad_gamma


def save_for_gradient(ctx, inputs, output):
    x, y, gamma, factors = inputs
    ctx.x_dtype, ctx.y_dtype = x.dtype, y.dtype
    ctx.save_for_backward(y if ctx.needs_input_grad[2] else None, gamma, factors)


def residual_gradient(ctx, grad):
    need_x, need_y, need_gamma, _ = ctx.needs_input_grad
    y, gamma, factors = ctx.saved_tensors
    grad_x = grad.to(ctx.x_dtype) if need_x else None
    grad_y = grad_gamma = None
    if need_y or need_gamma:
        function = gradients if torch.is_grad_enabled() else residual_backward_operator
        grad_y, grad_gamma = function(grad, y, gamma, factors, ctx.y_dtype, need_y, need_gamma)
    return grad_x, grad_y if need_y else None, grad_gamma if need_gamma else None, None


residual_backward_operator = register(
    'residual_backward', residual_backward_cpu, cuda=residual_backward_cuda, fake=residual_backward_fake)
residual_operator = register(
    'residual', residual_cpu, cuda=residual_cuda, fake=residual_fake, backward=residual_gradient,
    setup_context=save_for_gradient)


# What the kernel cannot take


def why_not_triton(x, y, gamma=None, factors=None):
    if x.device.type != 'cuda':
        return f'the input is on {x.device}, and the Triton kernel is for CUDA'
    for name, tensor in dict(x=x, y=y, gamma=gamma).items():
        if tensor is not None and tensor.dtype not in TRITON_DTYPES:
            return f'{name} is {tensor.dtype}, and the kernel has {", ".join(map(str, TRITON_DTYPES))}'
    if factors is not None and factors.requires_grad:
        return 'the factors of stochastic depth take a gradient'
    return _triton.why_not(x.device)


def has_elements(x, y, gamma=None, factors=None):
    return x.numel() > 0


FORMS = dict(
    triton=dispatch.Form(residual_kernel, why_not_triton, has_elements),
    torch=dispatch.Form(residual_torch))


# The operator


def residual(x, y, gamma=None, factors=None, impl='auto'):
    """``x + factors · gamma · y``, computed in float32, in the dtype that ``x``, ``gamma`` and ``y`` promote to.

    Args:
        x (Tensor), y (Tensor): (B, C, H, W).
        gamma (Tensor | None): (C, ), layer scale.
        factors (Tensor | None): (B, ), stochastic depth. Of an image with the factor 0 the kernel does not read ``y``.
        impl (str): 'triton' is one kernel, on CUDA; 'torch' one ``addcmul``; 'auto' the first where it can. See
            :mod:`.dispatch`.

    Raises:
        ValueError: The shapes do not fit.
        FormError: ``impl`` is no form, or one that cannot take this input.
    """
    if x.dim() != 4 or y.shape != x.shape:
        raise ValueError(f'x has shape {tuple(x.shape)} and y {tuple(y.shape)}; expected: both (B, C, H, W)')
    for name, parameter, axis in (('gamma', gamma, 1), ('factors', factors, 0)):
        if parameter is not None and parameter.shape != (x.shape[axis], ):
            raise ValueError(f'{name} has shape {tuple(parameter.shape)}; expected ({x.shape[axis]},) for a map of '
                             f'shape {tuple(x.shape)}')
    return dispatch.run('residual', FORMS, impl, x, y, gamma, factors)
