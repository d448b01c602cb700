"""The second half of a MetaNeXt block, ``x + s · γ · fc2(GELU(fc1(norm(y))))``, on a CPU with little traffic to memory.

The same function as the block's modules one after another, differently ordered:

- The norm is a scale and a shift of each channel, so it goes into the weights:
  ``fc1(a ⊙ y + c) = (W₁ a) y + (b₁ + W₁ c)``. Of BatchNorm only the moments need a pass over the map. Its gradients
  follow from those of the folded weights, ``∂a = Σ_o W₁ ⊙ ∂(W₁ a)`` and ``∂c = W₁ᵀ ∂b``, and the dependence of the
  moments on ``y`` adds a multiple of ``y`` and a constant per channel.
- Layer scale goes into fc2 in the same way, and so does stochastic depth, one factor ``s`` an image. Of an image that
  it drops, nothing but the moments is computed, forward or backward.
- The rest goes over the pixels block by block, so that the hidden map, four times as wide, is read from the cache.

Maps of bfloat16 are multiplied in float where the CPU has no bfloat16 tiles: there that is faster.
"""
import torch
import torch.nn as nn
from torch.utils.flop_counter import register_flop_formula

from . import native, winograd
from .batch_norm import GRADIENT, kernel, moments, move_statistics

# Bytes of a block's hidden values: they shall stay in the second-level cache. And rows that a product needs at least,
# so that reading the weights is little beside it.
BLOCK_BYTES, LEAST_ROWS = 1 << 20, 512


def rows(x):
    """(B, H · W, C) of a channels_last map."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def blocks(factors, pixels, hidden):
    """(image, factor, begin, end) of the pixels that stochastic depth keeps."""
    size = max(LEAST_ROWS, BLOCK_BYTES // (4 * hidden))
    return [(image, factor, begin, min(begin + size, pixels))
            for image, factor in enumerate(factors) if factor for begin in range(0, pixels, size)]


class Folded:
    """fc1 with the norm and fc2 with layer scale in them, of the compute type; (in, out) as products take them."""

    def __init__(self, dtype, norm_weight, norm_bias, mean, variance, eps, fc1, bias1, fc2, bias2, gamma):
        self.fc1, self.bias1 = fc1.flatten(1).to(dtype), bias1.to(dtype)
        self.fc2, self.bias2 = fc2.flatten(1).to(dtype), bias2.to(dtype)
        self.scale = self.shift = self.gamma = None
        self.first, self.first_bias, self.second, self.second_bias = self.fc1, self.bias1, self.fc2, self.bias2
        if mean is not None:
            self.inverse = (variance.double() + eps).rsqrt()
            scale = self.inverse if norm_weight is None else norm_weight.double() * self.inverse
            shift = -mean.double() * scale
            shift = shift if norm_bias is None else norm_bias.double() + shift
            self.scale, self.shift = scale.to(dtype), shift.to(dtype)
            self.first = self.fc1 * self.scale
            self.first_bias = self.bias1 + self.fc1 @ self.shift
        if gamma is not None:
            self.gamma = gamma.to(dtype)
            self.second = self.fc2 * self.gamma[:, None]
            self.second_bias = self.bias2 * self.gamma


@torch.library.custom_op('inceptionnext_seg::norm_mlp', mutates_args=(), device_types='cpu')
def forward(x: torch.Tensor, y: torch.Tensor, factors: torch.Tensor | None, norm_weight: torch.Tensor | None,
            norm_bias: torch.Tensor | None, mean: torch.Tensor | None, variance: torch.Tensor | None, eps: float,
            batch_moments: bool, fc1: torch.Tensor, bias1: torch.Tensor, fc2: torch.Tensor, bias2: torch.Tensor,
            gamma: torch.Tensor | None, approximate: str, keep: bool) -> list[torch.Tensor]:
    """The sum, and what GELU took (B, H · W, hidden), which the backward needs; empty unless ``keep``."""
    x, y = (t.contiguous(memory_format=torch.channels_last) for t in (x, y))
    dtype = winograd.compute_dtype(y.dtype)
    folded = Folded(dtype, norm_weight, norm_bias, mean, variance, eps, fc1, bias1, fc2, bias2, gamma)
    batch, pixels, hidden = x.shape[0], x.shape[2] * x.shape[3], fc1.shape[0]
    out = torch.empty(x.shape, dtype=out_dtype(x, gamma), memory_format=torch.channels_last)
    kept = torch.empty(batch, pixels, hidden, dtype=y.dtype) if keep else y.new_empty(0)
    x_rows, y_rows, out_rows = rows(x), rows(y), rows(out)
    factors = [1.] * batch if factors is None else factors.tolist()
    for image, factor in enumerate(factors):
        if not factor:
            out[image] = x[image]
    first, second, last = folded.first.t(), folded.second.t(), None
    for image, factor, begin, end in blocks(factors, pixels, hidden):
        if factor != last:
            last, scaled, bias = factor, second * factor, folded.second_bias * factor
        h = torch.addmm(folded.first_bias, y_rows[image, begin:end].to(dtype), first)
        if keep:
            kept[image, begin:end] = h
            if kept.dtype != dtype:
                h = kept[image, begin:end].to(dtype)    # as the backward will find it
        a = torch.ops.aten.gelu.out(h, approximate=approximate, out=torch.empty_like(h))
        if out.dtype == dtype:
            torch.add(x_rows[image, begin:end], bias, out=out_rows[image, begin:end]).addmm_(a, scaled)
        else:
            out_rows[image, begin:end] = torch.addmm(x_rows[image, begin:end].to(dtype) + bias, a, scaled)
    return [out, kept]


def out_dtype(x, gamma):
    return x.dtype if gamma is None else torch.promote_types(x.dtype, gamma.dtype)


@forward.register_fake
def _(x, y, factors, norm_weight, norm_bias, mean, variance, eps, batch_moments, fc1, bias1, fc2, bias2, gamma,
      approximate, keep):
    out = torch.empty_like(x, dtype=out_dtype(x, gamma)).to(memory_format=torch.channels_last)
    return [out, y.new_empty((x.shape[0], x.shape[2] * x.shape[3], fc1.shape[0]) if keep else 0)]


@torch.library.custom_op('inceptionnext_seg::norm_mlp_backward', mutates_args=(), device_types='cpu')
def backward(grad: torch.Tensor, y: torch.Tensor, kept: torch.Tensor, factors: torch.Tensor | None,
             norm_weight: torch.Tensor | None, norm_bias: torch.Tensor | None, mean: torch.Tensor | None,
             variance: torch.Tensor | None, eps: float, batch_moments: bool, fc1: torch.Tensor, bias1: torch.Tensor,
             fc2: torch.Tensor, bias2: torch.Tensor, gamma: torch.Tensor | None,
             approximate: str) -> list[torch.Tensor]:
    """Gradients to y, norm weight and bias, fc1, its bias, fc2, its bias, gamma; empty where there is no such input."""
    grad, y = (t.contiguous(memory_format=torch.channels_last) for t in (grad, y))
    dtype = winograd.compute_dtype(y.dtype)
    folded = Folded(dtype, norm_weight, norm_bias, mean, variance, eps, fc1, bias1, fc2, bias2, gamma)
    batch, pixels, hidden = y.shape[0], y.shape[2] * y.shape[3], fc1.shape[0]
    grad_y = torch.empty_like(y)
    grad_rows, y_rows, grad_y_rows = rows(grad), rows(y), rows(grad_y)
    factors = [1.] * batch if factors is None else factors.tolist()
    for image, factor in enumerate(factors):
        if not factor:
            grad_y[image] = 0
    first, second = torch.zeros_like(folded.first), torch.zeros_like(folded.second)
    first_bias, second_bias = torch.zeros_like(folded.first_bias), torch.zeros_like(folded.second_bias)
    last = None
    for image, factor, begin, end in blocks(factors, pixels, hidden):
        if factor != last:
            last, scaled = factor, folded.second * factor
        g = grad_rows[image, begin:end].to(dtype)
        h = kept[image, begin:end].to(dtype)
        a = torch.ops.aten.gelu.out(h, approximate=approximate, out=torch.empty_like(h))
        second.addmm_(g.t(), a, alpha=factor)
        second_bias.add_(g.sum(0), alpha=factor)
        grad_h = torch.mm(g, scaled, out=a)
        grad_h = torch.ops.aten.gelu_backward.grad_input(grad_h, h, approximate=approximate, grad_input=grad_h)
        first.addmm_(grad_h.t(), y_rows[image, begin:end].to(dtype))
        first_bias.add_(grad_h.sum(0))
        if grad_y.dtype == dtype:
            torch.mm(grad_h, folded.first, out=grad_y_rows[image, begin:end])
        else:
            grad_y_rows[image, begin:end] = torch.mm(grad_h, folded.first)
    grad_fc1, grad_gamma = first, None
    grad_norm_weight = grad_norm_bias = None
    if mean is not None:
        grad_fc1 = torch.addr(first * folded.scale, first_bias, folded.shift)
        grad_shift = (first_bias @ folded.fc1).double()
        grad_scale = (first * folded.fc1).sum(0).double() - grad_shift * mean
        grad_norm_weight, grad_norm_bias = grad_scale * folded.inverse, grad_shift
        if batch_moments:
            add_moments_gradient(grad_y, y, folded, norm_weight, mean, grad_scale, grad_shift)
    if gamma is not None:
        grad_gamma = (second * folded.fc2).sum(1) + second_bias * folded.bias2
        second, second_bias = second * folded.gamma[:, None], second_bias * folded.gamma
    return [grad_y, *(
        y.new_empty(0) if parameter is None else gradient.to(parameter.dtype).reshape(parameter.shape)
        for parameter, gradient in (
            (norm_weight, grad_norm_weight), (norm_bias, grad_norm_bias), (fc1, grad_fc1), (bias1, first_bias),
            (fc2, second), (bias2, second_bias), (gamma, grad_gamma)))]


def add_moments_gradient(grad_y, y, folded, norm_weight, mean, grad_scale, grad_shift):
    """What ``y`` owes to having moved its own mean and variance: a multiple of it and a constant, in one pass."""
    count, channels = y.numel() // y.shape[1], y.shape[1]
    weight = 1. if norm_weight is None else norm_weight.double()
    slope = -weight * folded.inverse.pow(3) * grad_scale / count
    offset = -weight * folded.inverse * grad_shift / count - slope * mean
    one, nothing = torch.ones_like(folded.scale), torch.zeros_like(folded.scale)
    kernel('gradient', y.dtype, GRADIENT)(
        grad_y, y, one, nothing, slope.to(one.dtype), offset.to(one.dtype), grad_y, 0, count, channels,
        native.threads())


@backward.register_fake
def _(grad, y, kept, factors, norm_weight, norm_bias, mean, variance, eps, batch_moments, fc1, bias1, fc2, bias2,
      gamma, approximate):
    return [torch.empty_like(y).to(memory_format=torch.channels_last), *(
        y.new_empty(0) if parameter is None else torch.empty_like(parameter)
        for parameter in (norm_weight, norm_bias, fc1, bias1, fc2, bias2, gamma))]


def setup_context(ctx, inputs, output):
    ctx.set_materialize_grads(False)    # only the first output has a gradient
    (_, y, factors, norm_weight, norm_bias, mean, variance, ctx.eps, ctx.batch_moments, fc1, bias1, fc2, bias2, gamma,
     ctx.approximate, _) = inputs
    ctx.x_dtype = inputs[0].dtype
    ctx.save_for_backward(y, output[1], factors, norm_weight, norm_bias, mean, variance, fc1, bias1, fc2, bias2, gamma)


def autograd_backward(ctx, grads):
    grad = grads[0]
    y, kept, factors, norm_weight, norm_bias, mean, variance, *mlp = ctx.saved_tensors
    grad_y, *found = backward(
        grad, y, kept, factors, norm_weight, norm_bias, mean, variance, ctx.eps, ctx.batch_moments, *mlp,
        ctx.approximate)
    parameters = (norm_weight, norm_bias, *mlp)
    found = [None if parameter is None else gradient for parameter, gradient in zip(parameters, found, strict=True)]
    return (grad.to(ctx.x_dtype), grad_y, None, *found[:2], None, None, None, None, *found[2:], None, None)


forward.register_autograd(autograd_backward, setup_context=setup_context)


@register_flop_formula(torch.ops.inceptionnext_seg.norm_mlp)
def forward_flops(x, y, factors, norm_weight, norm_bias, mean, variance, eps, batch_moments, fc1, *args, **kwargs):
    """Of all images: which of them stochastic depth drops is not known from shapes."""
    batch, channels, height, width = x
    return 4 * batch * height * width * channels * fc1[0]


@register_flop_formula(torch.ops.inceptionnext_seg.norm_mlp_backward)
def backward_flops(grad, y, kept, factors, norm_weight, norm_bias, mean, variance, eps, batch_moments, fc1, *args,
                   **kwargs):
    return 2 * forward_flops(grad, y, None, None, None, None, None, None, None, fc1)


def applies(x, y, norm, activation):
    """Whether the operator can do what these modules do to these maps."""
    batch_norm = type(norm) is nn.BatchNorm2d and (norm.training or norm.track_running_stats)
    return (x.device.type == 'cpu' and (batch_norm or norm is None) and type(activation) is nn.GELU
            and y.dtype in winograd.SUFFIXES and x.dtype in winograd.SUFFIXES
            and (x.dtype == torch.float64) == (y.dtype == torch.float64)
            and not (y.dtype == torch.bfloat16 and native.has_fast_bf16())
            and x.numel() > x.shape[1] and not native.runs_elsewhere() and native.available('batch_norm'))


def norm_mlp(x, y, norm, fc1, activation, fc2, gamma=None, factors=None):
    """``x + factors · gamma · fc2(activation(fc1(norm(y))))`` where :func:`applies` says so.

    Args:
        x (Tensor), y (Tensor): (B, C, H, W), the block's input and its token mixer's output.
        norm (nn.BatchNorm2d | None): Its running statistics move as in its own forward.
        fc1 (nn.Conv2d), fc2 (nn.Conv2d): 1×1 convolutions with biases.
        gamma (Tensor | None): (C, ), layer scale.
        factors (Tensor | None): (B, ), stochastic depth: 0 for an image it drops.

    Returns:
        Tensor: (B, C, H, W), channels_last.
    """
    mean = variance = weight = bias = None
    batch_moments, eps = False, 0.
    y = y.contiguous(memory_format=torch.channels_last)
    if norm is not None:
        weight, bias, eps, batch_moments = norm.weight, norm.bias, norm.eps, norm.training
        mean, variance = norm.running_mean, norm.running_var
        if batch_moments:
            mean, variance = moments(y.detach())
            move_statistics(norm, mean, variance, y.numel() // y.shape[1])
        else:
            mean, variance = mean.clone(), variance.clone()     # the backward needs these, whatever they become
    keep = torch.is_grad_enabled() and any(
        t is not None and t.requires_grad for t in (x, y, weight, bias, *fc1.parameters(), *fc2.parameters(), gamma))
    with torch.autocast('cpu', enabled=False):  # its products are of the dtype it chooses
        return forward(x, y, factors, weight, bias, mean, variance, eps, batch_moments, fc1.weight, fc1.bias,
                       fc2.weight, fc2.bias, gamma, activation.approximate, keep)[0]
