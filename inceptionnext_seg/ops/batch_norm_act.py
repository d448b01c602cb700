"""Batch normalization with its ReLU in as few passes over memory as there can be, on a CPU.

Training reads a map twice (moments; then scale, shift and ReLU at once), its backward reads map and gradient twice,
and the ReLU's mask is never stored: ``y > 0`` follows from the map and the two numbers of its channel. Everything else
(other devices, evaluation, SyncBatchNorm, other activations) is torch's own operators.
"""
import torch
import torch.nn as nn

from . import _native as native
from . import winograd

STATISTICS = (*(native.POINTER, ) * 3, *(native.INT, ) * 3)
TRANSFORM = (*(native.POINTER, ) * 4, *(native.INT, ) * 4)
GRADIENT_SUMS = (*(native.POINTER, ) * 7, *(native.INT, ) * 4)
GRADIENT = (*(native.POINTER, ) * 7, *(native.INT, ) * 4)


def kernel(name, dtype, argument_types):
    return native.function('batch_norm', f'{name}_{winograd.SUFFIXES[dtype]}', *argument_types)


@torch.library.custom_op('inceptionnext_seg::moments', mutates_args=(), device_types='cpu')
def moments(x: torch.Tensor) -> native.TENSORS:
    """Mean and biased variance, float64 (C, ), of a map (B, C, H, W) in channels_last. They have no gradients."""
    mean, variance = (torch.empty(x.shape[1], dtype=torch.float64) for _ in range(2))
    kernel('statistics', x.dtype, STATISTICS)(
        x, mean, variance, x.numel() // x.shape[1], x.shape[1], native.threads())
    return [mean, variance]


@moments.register_fake
def _(x):
    return [x.new_empty(x.shape[1], dtype=torch.float64) for _ in range(2)]


@torch.library.custom_op('inceptionnext_seg::batch_norm_act', mutates_args=(), device_types='cpu')
def forward(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float,
            relu: bool) -> native.TENSORS:
    """The normalized map, and float64 mean and biased variance (C, ) of ``x``."""
    x = x.contiguous(memory_format=torch.channels_last)
    mean, variance = moments(x)
    scale, shift = affine(weight, bias, mean, variance, eps, winograd.compute_dtype(x.dtype))
    y = torch.empty_like(x)
    kernel('transform', x.dtype, TRANSFORM)(
        x, scale, shift, y, relu, x.numel() // x.shape[1], x.shape[1], native.threads())
    return [y, mean, variance]


def affine(weight, bias, mean, variance, eps, dtype):
    """Scale and shift that the normalization is, of the compute type."""
    scale = weight.double() / (variance + eps).sqrt()
    return scale.to(dtype), (bias.double() - mean * scale).to(dtype)


@forward.register_fake
def _(x, weight, bias, eps, relu):
    statistics = x.new_empty(x.shape[1], dtype=torch.float64)
    return [torch.empty_like(x).to(memory_format=torch.channels_last), statistics, torch.empty_like(statistics)]


@torch.library.custom_op('inceptionnext_seg::batch_norm_act_backward', mutates_args=(), device_types='cpu')
def backward(grad: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, mean: torch.Tensor,
             variance: torch.Tensor, eps: float, relu: bool) -> native.TENSORS:
    """Gradients to the map, the weight and the bias."""
    grad, x = (t.contiguous(memory_format=torch.channels_last) for t in (grad, x))
    count, channels, dtype = x.numel() // x.shape[1], x.shape[1], winograd.compute_dtype(x.dtype)
    scale, shift = affine(weight, bias, mean, variance, eps, dtype)
    total, product = torch.empty(2, channels, dtype=torch.float64).unbind()
    kernel('gradient_sums', x.dtype, GRADIENT_SUMS)(
        grad, x, scale, shift, mean.to(dtype), total, product, relu, count, channels, native.threads())
    inverse = 1 / (variance + eps).sqrt()
    slope = -weight.double() * inverse.pow(3) * product / count
    offset = -weight.double() * inverse * total / count - slope * mean
    grad_x = torch.empty_like(x)
    kernel('gradient', x.dtype, GRADIENT)(
        grad, x, scale, shift, slope.to(dtype), offset.to(dtype), grad_x, relu, count, channels,
        native.threads())
    return [grad_x, (product * inverse).to(weight.dtype), total.to(bias.dtype)]


@backward.register_fake
def _(grad, x, weight, bias, mean, variance, eps, relu):
    return [torch.empty_like(x).to(memory_format=torch.channels_last), torch.empty_like(weight),
            torch.empty_like(bias)]


def setup_context(ctx, inputs, output):
    ctx.set_materialize_grads(False)    # only the first output has a gradient
    x, weight, bias, ctx.eps, ctx.relu = inputs
    _, mean, variance = output
    ctx.save_for_backward(x, weight, bias, mean, variance)


def autograd_backward(ctx, grads):
    if grads[0] is None:
        return (None, ) * 5
    return (*backward(grads[0], *ctx.saved_tensors, ctx.eps, ctx.relu), None, None)


forward.register_autograd(autograd_backward, setup_context=setup_context)


def applies(norm, x):
    """Whether the kernels take this norm and map: a training ``BatchNorm2d`` on a CPU."""
    return (type(norm) is nn.BatchNorm2d and norm.training and norm.affine and x.device.type == 'cpu'
            and x.numel() > x.shape[1] and winograd.SUFFIXES.get(x.dtype) is not None
            and not native.runs_elsewhere() and native.available('batch_norm'))


def batch_norm_act(norm, activation, x):
    """``activation(norm(x))`` for maps (B, C, H, W), the running statistics moved as ``norm`` moves them.

    Args:
        norm (nn.Module | None), activation (nn.Module | None): None leaves it out.
    """
    relu = type(activation) is nn.ReLU
    if norm is None or not applies(norm, x):
        x = x if norm is None else norm(x)
        return x if activation is None else activation(x)
    x, mean, variance = forward(x, norm.weight, norm.bias, norm.eps, relu)
    move_statistics(norm, mean, variance, x.numel() // x.shape[1])
    return x if relu or activation is None else activation(x)


@torch.no_grad()
def move_statistics(norm, mean, variance, count):
    """As ``nn.BatchNorm2d`` does in training, from a batch's mean and biased variance over ``count`` pixels."""
    if not norm.track_running_stats:
        return
    norm.num_batches_tracked.add_(1)
    momentum = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), momentum)
    norm.running_var.lerp_((variance * (count / (count - 1))).to(norm.running_var.dtype), momentum)
