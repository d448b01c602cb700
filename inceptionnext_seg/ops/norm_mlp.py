"""The second half of a MetaNeXt block, ``x + s · γ · fc2(GELU(fc1(norm(y))))``, on a CPU with little traffic to memory.

The function of the block's modules one after another, computed differently:

- Only the moments of BatchNorm need a pass over the map of their own: after it the norm is a scale and a shift of each
  channel, ``z = a ⊙ y + c``. Backward, ``∂γ = Σ ∂z (y − μ) / σ``, ``∂β = Σ ∂z`` and ``∂y = a ∂z + slope ⊙ y + offset``;
  the last two terms are the gradient through the moments.
- Stochastic depth is one factor ``s`` for each image. For an image that it drops, only the moments are computed,
  forward or backward.
- All steps run over the pixels block by block, so that the hidden map, four times as wide, is read from the cache.
  Between the products, bias and GELU are one pass, their gradients another, layer scale and residual a third.

Maps of bfloat16 are multiplied in float ('native') or in bfloat16 ('native_bf16'): which is faster depends on the CPU.

In inference oneDNN does the same with fewer passes ('onednn'): bias and GELU are part of its first product, and bias,
layer scale and residual of its second.
"""
import itertools

import torch
import torch.nn as nn
import torch.nn.functional as F

from .._fast import plain_type, run_plain
from . import _native as native
from . import dispatch, onednn
from .batch_norm_act import is_batch_norm, kernel, moments, move_statistics
from .dtypes import SUFFIXES, autocast_dtype, compute_dtype, why_no_kernel_dtype
from .patch_conv import rows_of_filters
from .registration import TENSORS, gradients_again, register
from .residual import residual, scale_of
from .residual import why_not_triton as why_no_residual

# Bytes of a block's hidden values, which stay in the second-level cache; and the least rows of a product, below which
# reading the weights takes longer than multiplying.
BLOCK_BYTES, LEAST_ROWS = 1 << 20, 512
# Hidden values of the whole map below which torch's own operators are faster, since they have less overhead.
LEAST_HIDDEN = 1 << 19


# Reference


def norm_mlp_torch(x, y, norm, fc1, activation, fc2, gamma, factors):
    y = mlp(y, norm, fc1, activation, fc2)
    if x.device.type != 'cpu':
        return residual(x, y, gamma, factors, impl='torch')
    return added(x, y, gamma, factors)


def added(x, y, gamma, factors):
    if gamma is None:
        return x + (y if factors is None else y * factors.to(y.dtype).reshape(-1, 1, 1, 1))
    # Layer scale and stochastic depth are one factor per image and channel: with the residual, one memory pass.
    return torch.addcmul(x, scale_of(gamma, factors), y)


def mlp(y, norm, fc1, activation, fc2):
    """The convolutions are matrix products over the pixels, which need no layout change in channels_last."""
    y = y if norm is None else run_plain(norm, y)
    # Contiguous: where the weight needs no gradient, torch multiplies a strided map row by row of the image.
    y = y.permute(0, 2, 3, 1).contiguous()
    y = activation(F.linear(y, rows_of_filters(fc1.weight), fc1.bias))
    return F.linear(y, rows_of_filters(fc2.weight), fc2.bias).permute(0, 3, 1, 2)


# On CUDA


def norm_mlp_triton(x, y, norm, fc1, activation, fc2, gamma, factors):
    """Torch's operators, and one kernel for the rest; where that fails, torch's too, for norms must not run twice."""
    return residual(x, mlp(y, norm, fc1, activation, fc2), gamma, factors)


# By oneDNN, in inference


def norm_mlp_onednn(x, y, norm, fc1, activation, fc2, gamma, factors):
    y = y if norm is None else run_plain(norm, y)
    dtype = autocast_dtype(y)
    x, y = (t.contiguous(memory_format=torch.channels_last) for t in (x, y.to(dtype)))
    first = rows(y), rows_of_filters(fc1.weight).to(dtype), fc1.bias.to(dtype)
    weight, bias = rows_of_filters(fc2.weight).to(dtype), fc2.bias.to(dtype)
    # Layer scale goes into the weight where that is smaller than the map, and loses no digits that the sum would have.
    scaled = gamma is not None and gamma.dtype == dtype == torch.float32 and weight.shape[1] <= len(first[0])
    if x.dtype == dtype and (gamma is None or scaled):
        if scaled:
            weight, bias = weight * gamma[:, None], bias * gamma
        return as_map(onednn.mlp(*first, weight, bias, rows(x)), x)
    return added(x, as_map(onednn.mlp(*first, weight, bias), x), gamma, None)


# In C++


def norm_mlp_native(x, y, norm, fc1, activation, fc2, gamma, factors, bf16=False):
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
    with torch.autocast('cpu', enabled=False):  # the operator chooses the dtype of its products
        return norm_mlp_operator(x, y, factors, weight, bias, mean, variance, eps, batch_moments, fc1.weight, fc1.bias,
                                 fc2.weight, fc2.bias, gamma, keep, bf16)[0]


def norm_mlp_native_bf16(*args):
    return norm_mlp_native(*args, bf16=True)


def mlp_kernel(name, *dtypes):
    return native.function('mlp', '_'.join([name, *(SUFFIXES[dtype] for dtype in dtypes)]))


def norm_mlp_cpu(x: torch.Tensor, y: torch.Tensor, factors: torch.Tensor | None, norm_weight: torch.Tensor | None,
                 norm_bias: torch.Tensor | None, mean: torch.Tensor | None, variance: torch.Tensor | None, eps: float,
                 batch_moments: bool, fc1: torch.Tensor, bias1: torch.Tensor, fc2: torch.Tensor, bias2: torch.Tensor,
                 gamma: torch.Tensor | None, keep: bool, bf16: bool = False) -> TENSORS:
    """The sum, and ``fc1(norm(y))`` without its bias (B · H · W, hidden) for the backward; empty unless ``keep``.

    ``bf16``: products are of bfloat16, for maps of it.
    """
    x, y = (t.contiguous(memory_format=torch.channels_last) for t in (x, y))
    dtype = compute_dtype(y.dtype)
    own = Parameters(dtype, norm_weight, norm_bias, mean, variance, eps, fc1, bias1, fc2, bias2, gamma)
    batch, pixels, hidden = x.shape[0], x.shape[2] * x.shape[3], fc1.shape[0]
    out = torch.empty_like(x, dtype=out_dtype(x, gamma), memory_format=torch.channels_last)
    kept = y.new_empty((batch * pixels, hidden) if keep else 0)
    factors = [1.] * batch if factors is None else factors.tolist()
    for target, source in zip(dropped(factors, out), dropped(factors, x), strict=True):
        target.copy_(source)
    gelu = mlp_kernel('gelu', y.dtype if keep or bf16 else dtype)
    fc1, fc2 = own.product_weights(bf16)
    add = mlp_kernel('residual', x.dtype, out.dtype)
    x, y, out_rows = rows(x), rows(y), rows(out)
    scale = last = None
    for factor, begin, end in blocks(factors, pixels, hidden):
        scale, last = (scale, last) if factor == last else (own.gamma * factor, factor)
        z, a = own.normalize(y[begin:end]), y.new_empty(end - begin, hidden, dtype=dtype)
        h = kept[begin:end] if keep and kept.dtype == fc1.dtype else None
        h = torch.mm(z.to(fc1.dtype), fc1.t(), out=h)
        if keep and kept.dtype != fc1.dtype:
            h = kept[begin:end].copy_(h)
        gelu(h, own.bias1, a, end - begin, hidden, native.threads())
        o = multiply(a, fc2.t())
        add(x[begin:end], o, own.bias2, scale, out_rows[begin:end], *o.shape, native.threads())
    return [out, kept]


def norm_mlp_fake(x, y, factors, norm_weight, norm_bias, mean, variance, eps, batch_moments, fc1, bias1, fc2, bias2,
                  gamma, keep, bf16=False):
    out = torch.empty_like(x, dtype=out_dtype(x, gamma)).to(memory_format=torch.channels_last)
    return [out, y.new_empty((x.shape[0] * x.shape[2] * x.shape[3], fc1.shape[0]) if keep else 0)]


def norm_mlp_flops(x, y, factors, norm_weight, norm_bias, mean, variance, eps, batch_moments, fc1, *args, **kwargs):
    """For all images: shapes do not tell which of them stochastic depth drops."""
    batch, channels, height, width = x
    return 4 * batch * height * width * channels * fc1[0]


def out_dtype(x, gamma):
    return x.dtype if gamma is None else torch.promote_types(x.dtype, gamma.dtype)


class Parameters:
    """The block's parameters in the dtype that its products are computed in; the norm as a scale and a shift."""

    def __init__(self, dtype, norm_weight, norm_bias, mean, variance, eps, fc1, bias1, fc2, bias2, gamma):
        self.fc1, self.bias1 = fc1.flatten(1).to(dtype), bias1.to(dtype).contiguous()
        self.fc2, self.bias2 = fc2.flatten(1).to(dtype), bias2.to(dtype).contiguous()
        self.gamma = torch.ones_like(self.bias2) if gamma is None else gamma.to(dtype)
        self.scale = None
        if mean is not None:
            self.inverse = (variance.double() + eps).rsqrt()
            scale = self.inverse if norm_weight is None else norm_weight.double() * self.inverse
            shift = -mean.double() * scale
            shift = shift if norm_bias is None else norm_bias.double() + shift
            self.scale, self.shift = scale.to(dtype), shift.to(dtype)

    def product_weights(self, bf16):
        """fc1 and fc2 in the dtype of the products."""
        return [weight.bfloat16() if bf16 else weight for weight in (self.fc1, self.fc2)]

    def normalize(self, y):
        y = y.to(self.fc1.dtype)
        return y if self.scale is None else torch.addcmul(self.shift, y, self.scale)


def multiply(a, b, out=None):
    """``a @ b`` in the dtype of ``b``, as the dtype of ``a``."""
    if a.dtype == b.dtype:
        return torch.mm(a, b, out=out)
    y = torch.mm(a.to(b.dtype), b)
    return y.to(a.dtype) if out is None else out.copy_(y)


def rows(x):
    """(B · H · W, C) of a channels_last map."""
    return x.permute(0, 2, 3, 1).flatten(0, 2)


def as_map(y, x):
    """The reverse, of the size of ``x``."""
    return y.view(len(x), *x.shape[2:], -1).permute(0, 3, 1, 2)


def blocks(factors, pixels, hidden):
    """(factor, begin, end) of the rows that stochastic depth keeps, neighbouring images of one factor together."""
    size = max(LEAST_ROWS, BLOCK_BYTES // (4 * hidden))
    end = 0
    for factor, images in itertools.groupby(factors):
        begin, end = end, end + pixels * len(list(images))
        if factor:
            yield from ((factor, at, min(at + size, end)) for at in range(begin, end, size))


def dropped(factors, x):
    """The images of ``x`` that stochastic depth drops."""
    return [x[image] for image, factor in enumerate(factors) if not factor]


# Gradient


def norm_mlp_backward_cpu(grad: torch.Tensor, y: torch.Tensor, kept: torch.Tensor, factors: torch.Tensor | None,
                          norm_weight: torch.Tensor | None, norm_bias: torch.Tensor | None, mean: torch.Tensor | None,
                          variance: torch.Tensor | None, eps: float, batch_moments: bool, fc1: torch.Tensor,
                          bias1: torch.Tensor, fc2: torch.Tensor, bias2: torch.Tensor,
                          gamma: torch.Tensor | None, bf16: bool = False) -> TENSORS:
    """Gradients to y, norm weight and bias, fc1, its bias, fc2, its bias, gamma; empty where there is no such input."""
    grad, y = (t.contiguous(memory_format=torch.channels_last) for t in (grad, y))
    dtype = compute_dtype(y.dtype)
    own = Parameters(dtype, norm_weight, norm_bias, mean, variance, eps, fc1, bias1, fc2, bias2, gamma)
    batch, pixels, hidden = y.shape[0], y.shape[2] * y.shape[3], fc1.shape[0]
    grad_y = torch.empty_like(y)
    factors = [1.] * batch if factors is None else factors.tolist()
    for target in dropped(factors, grad_y):
        target.zero_()
    sums = Sums(own)
    gelu_gradient = mlp_kernel('gelu_gradient', kept.dtype)
    fc1_weight, fc2_weight = own.product_weights(bf16)
    grad_rows, y_rows, grad_y_rows = rows(grad), rows(y), rows(grad_y)
    for factor, begin, end in blocks(factors, pixels, hidden):
        g, y_block = grad_rows[begin:end].to(dtype), y_rows[begin:end].to(dtype)
        grad_h = multiply(g * (own.gamma * factor), fc2_weight)
        a = torch.empty_like(grad_h)
        gelu_gradient(kept[begin:end], own.bias1, a, grad_h, end - begin, hidden, native.threads())
        add_product(sums.fc2, g.t(), a, factor, bf16)
        ones = g.new_ones(end - begin)
        sums.bias2.addmv_(g.t(), ones, alpha=factor)    # a product: torch's sum over rows is slower
        add_product(sums.fc1, grad_h.t(), own.normalize(y_block), 1., bf16)
        sums.bias1.addmv_(grad_h.t(), ones)
        grad_z = grad_y_rows[begin:end] if grad_y.dtype == dtype else None
        grad_z = multiply(grad_h, fc1_weight, out=grad_z)
        if grad_y.dtype != dtype:
            grad_y_rows[begin:end] = grad_z
    grad_norm_weight = grad_norm_bias = None
    if own.scale is not None:
        grad_norm_weight, grad_norm_bias = norm_gradient(grad_y, y, own, norm_weight, mean, batch_moments)
    grad_gamma = torch.linalg.vecdot(sums.fc2, own.fc2) + sums.bias2 * own.bias2
    sums.fc2.mul_(own.gamma[:, None])
    sums.bias2.mul_(own.gamma)
    return [grad_y, *(
        y.new_empty(0) if parameter is None else laid_out_as(parameter, gradient.to(parameter.dtype))
        for parameter, gradient in (
            (norm_weight, grad_norm_weight), (norm_bias, grad_norm_bias), (fc1, sums.fc1), (bias1, sums.bias1),
            (fc2, sums.fc2), (bias2, sums.bias2), (gamma, grad_gamma)))]


def norm_mlp_backward_fake(grad, y, kept, factors, norm_weight, norm_bias, mean, variance, eps, batch_moments, fc1,
                           bias1, fc2, bias2, gamma, bf16=False):
    return [torch.empty_like(y).to(memory_format=torch.channels_last), *(
        y.new_empty(0) if parameter is None else torch.empty_like(parameter)
        for parameter in (norm_weight, norm_bias, fc1, bias1, fc2, bias2, gamma))]


def norm_mlp_backward_flops(grad, y, kept, factors, norm_weight, norm_bias, mean, variance, eps, batch_moments, fc1,
                            *args, **kwargs):
    return 2 * norm_mlp_flops(grad, y, None, None, None, None, None, None, None, fc1)


def laid_out_as(parameter, gradient):
    """Of the parameter's shape and strides; those of 1×1 are arbitrary, but DistributedDataParallel compares them."""
    gradient = gradient.reshape(parameter.shape)
    strides = [p if size == 1 else g for size, p, g in zip(
        gradient.shape, parameter.stride(), gradient.stride(), strict=True)]
    return gradient.as_strided(gradient.shape, strides)


def add_product(target, a, b, alpha, bf16):
    """``target += alpha · a @ b`` for a float target, whatever the product is computed in."""
    if bf16:
        target.add_(torch.mm(a.bfloat16(), b.bfloat16()), alpha=alpha)
    else:
        target.addmm_(a, b, alpha=alpha)


class Sums:
    """Gradients of the MLP's parameters, added up block by block; those of fc2 are before layer scale."""

    def __init__(self, own):
        self.fc1, self.fc2 = torch.zeros_like(own.fc1), torch.zeros_like(own.fc2)
        self.bias1, self.bias2 = torch.zeros_like(own.bias1), torch.zeros_like(own.bias2)


def norm_gradient(grad_y, y, own, norm_weight, mean, batch_moments):
    """From the gradient to the norm's output that to its input, in place, and to its weight and bias, in two passes."""
    count, channels, dtype = y.numel() // y.shape[1], y.shape[1], own.scale.dtype
    total, product = (torch.empty_like(own.inverse) for _ in range(2))
    kernel('gradient_sums', y.dtype)(
        grad_y, y, own.scale, own.shift, mean.to(dtype), total, product, 0, count, channels, native.threads())
    product *= own.inverse
    slope = offset = torch.zeros_like(own.inverse)
    if batch_moments:
        scale = own.inverse if norm_weight is None else norm_weight.double() * own.inverse
        slope = -scale * own.inverse * product / count
        offset = -scale * total / count - slope * mean
    kernel('gradient', y.dtype)(
        grad_y, y, own.scale, own.shift, slope.to(dtype), offset.to(dtype), grad_y, 0, count, channels,
        native.threads())
    return product, total


def save_for_gradient(ctx, inputs, output):
    ctx.set_materialize_grads(False)    # only the first output has a gradient
    (_, y, factors, norm_weight, norm_bias, mean, variance, ctx.eps, ctx.batch_moments, fc1, bias1, fc2, bias2, gamma,
     _, ctx.bf16) = inputs
    ctx.x_dtype = inputs[0].dtype
    ctx.save_for_backward(y, output[1], factors, norm_weight, norm_bias, mean, variance, fc1, bias1, fc2, bias2, gamma)


def norm_mlp_gradient(ctx, grads):
    grad = grads[0]
    if grad is None:
        return (None, ) * 16
    if torch.is_grad_enabled():
        return differentiable_gradient(ctx, grad)
    y, kept, factors, norm_weight, norm_bias, mean, variance, *mlp = ctx.saved_tensors
    grad_y, *found = norm_mlp_backward_operator(
        grad, y, kept, factors, norm_weight, norm_bias, mean, variance, ctx.eps, ctx.batch_moments, *mlp,
        ctx.bf16)
    parameters = (norm_weight, norm_bias, *mlp)
    found = [None if parameter is None else gradient for parameter, gradient in zip(parameters, found, strict=True)]
    return (grad.to(ctx.x_dtype), grad_y, None, *found[:2], None, None, None, None, *found[2:], None, None)


def differentiable_gradient(ctx, grad):
    y, _, factors, norm_weight, norm_bias, mean, variance, *mlp = ctx.saved_tensors
    dtype = compute_dtype(y.dtype)

    def reference(y, norm_weight, norm_bias, fc1, bias1, fc2, bias2, gamma):
        y, *parameters = (None if t is None else t.to(dtype) for t in (
            y, norm_weight, norm_bias, fc1, bias1, fc2, bias2, gamma))
        norm_weight, norm_bias, fc1, bias1, fc2, bias2, gamma = parameters
        if mean is not None:
            statistics = (None, None) if ctx.batch_moments else (mean.to(dtype), variance.to(dtype))
            y = F.batch_norm(y, *statistics, norm_weight, norm_bias, training=ctx.batch_moments, eps=ctx.eps)
        y = F.linear(F.gelu(F.linear(y.permute(0, 2, 3, 1), fc1.flatten(1), bias1)), fc2.flatten(1), bias2)
        y = y if gamma is None else y * gamma
        return (y if factors is None else y * factors.to(dtype)[:, None, None, None]).permute(0, 3, 1, 2)

    needs = ctx.needs_input_grad
    grad_y, *found = gradients_again(
        reference, [y, norm_weight, norm_bias, *mlp], [needs[1], *needs[3:5], *needs[9:14]], grad.to(dtype))
    return (grad.to(ctx.x_dtype), grad_y, None, *found[:2], None, None, None, None, *found[2:], None, None)


norm_mlp_backward_operator = register(
    'norm_mlp_backward', norm_mlp_backward_cpu, fake=norm_mlp_backward_fake, flops=norm_mlp_backward_flops)
norm_mlp_operator = register(
    'norm_mlp', norm_mlp_cpu, fake=norm_mlp_fake, backward=norm_mlp_gradient, setup_context=save_for_gradient,
    flops=norm_mlp_flops)


# What the kernels cannot take, and when they are worth it


def why_not_native(x, y, norm, fc1, activation, fc2, gamma=None, factors=None):
    if norm is not None and not is_foldable(norm):
        return f'the norm is a {plain_type(norm).__name__} that is no scale and shift of each channel'
    if plain_type(activation) is not nn.GELU or activation.approximate != 'none':
        return f'the activation is {activation}, and the kernels have the exact GELU'
    if fc1.bias is None or fc2.bias is None:
        return 'fc1 or fc2 has no bias'
    reason = why_no_kernel_dtype(y) or why_no_kernel_dtype(x)
    if reason is not None:
        return reason
    if len({t.dtype == torch.float64 for t in (x, y, gamma) if t is not None}) > 1:
        return 'of x, y and gamma some are float64 and some are not'
    if x.numel() <= x.shape[1]:
        return f'the map {tuple(x.shape)} has no two values a channel'
    return native.why_not('batch_norm', 'mlp')


def why_not_triton(x, y, norm, fc1, activation, fc2, gamma=None, factors=None):
    return why_no_residual(x, y, gamma, factors)


def is_foldable(norm):
    """Whether a norm is a scale and a shift of each channel, from the batch or from running statistics."""
    return is_batch_norm(norm) and (norm.training or norm.running_mean is not None)


def why_not_onednn(x, y, norm, fc1, activation, fc2, gamma=None, factors=None):
    if norm is not None and (norm.training or not is_foldable(norm)):
        return f'the norm is a {plain_type(norm).__name__} that moves its statistics'
    if plain_type(activation) is not nn.GELU or activation.approximate != 'none':
        return f'the activation is {activation}, and it is fused with the exact GELU'
    if fc1.bias is None or fc2.bias is None:
        return 'fc1 or fc2 has no bias'
    if factors is not None or dispatch.needs_gradient(x, y, gamma, norm, fc1, fc2):
        return 'it is training, and there are no gradients'
    if x.device.type != 'cpu' or not x.numel():
        return f'the input is on {x.device} with {x.numel()} values, and oneDNN takes some on a CPU'
    dtype = autocast_dtype(y)
    if fc1.weight.dtype != dtype and not torch.is_autocast_enabled('cpu'):
        return f'the map is {dtype} and the weight {fc1.weight.dtype}'
    return onednn.why_not(dtype)


def why_not_native_bf16(x, y, *args):
    if y.dtype != torch.bfloat16:
        return f'the map is {y.dtype}, and products in bfloat16 are for maps of it'
    return why_not_native(x, y, *args)


def never_by_rule(*args):
    """Whether it is faster depends on the CPU, and only measuring tells."""
    return False


def onednn_is_worth(x, y, norm, fc1, activation, fc2, gamma=None, factors=None):
    if autocast_dtype(y) == torch.bfloat16 and not native.has_fast_bf16():
        return False
    return is_large(x, fc1)


def native_is_worth(x, y, norm, fc1, activation, fc2, gamma=None, factors=None):
    if y.dtype == torch.bfloat16 and native.has_fast_bf16():
        return False
    return is_large(x, fc1)


def is_large(x, fc1):
    return x.numel() // x.shape[1] * fc1.weight.shape[0] >= LEAST_HIDDEN


FORMS = dict(
    onednn=dispatch.Form(norm_mlp_onednn, why_not_onednn, onednn_is_worth),
    native=dispatch.Form(norm_mlp_native, why_not_native, native_is_worth),
    native_bf16=dispatch.Form(norm_mlp_native_bf16, why_not_native_bf16, never_by_rule),
    triton=dispatch.Form(norm_mlp_triton, why_not_triton),
    torch=dispatch.Form(norm_mlp_torch))


# The operator


def norm_mlp(x, y, norm, fc1, activation, fc2, gamma=None, factors=None, impl='auto'):
    """``x + factors · gamma · fc2(activation(fc1(norm(y))))``.

    Args:
        x (Tensor), y (Tensor): (B, C, H, W), the block's input and its token mixer's output.
        norm (nn.Module | None): The running statistics of a batch norm are updated as in its own forward; any other
            norm is called first.
        fc1 (nn.Conv2d), fc2 (nn.Conv2d): 1×1 convolutions, of which weight and bias are taken.
        activation (nn.Module): Elementwise.
        gamma (Tensor | None): (C, ), layer scale.
        factors (Tensor | None): (B, ), stochastic depth: 0 for an image it drops.
        impl (str): 'native' runs blocks of pixels with C++ between the products, on a CPU, for the exact GELU, and
            'native_bf16' the same with products in bfloat16; 'onednn' is oneDNN's products, where no gradients are
            needed; 'triton' one operator after another, of which the last is
            :func:`.residual.residual`'s kernel, on CUDA; 'torch' torch's operators alone; 'auto' is the fastest that
            was measured, and otherwise 'onednn' or 'native' where they can run and the map is large, on CUDA 'triton'.
            See :mod:`.dispatch`.

    Returns:
        Tensor: (B, C, H, W), channels_last where it is 'native'. Its dtype is what ``x`` and ``gamma`` promote to, as
        with stock operators.

    Raises:
        FormError: ``impl`` is no form, or one that cannot take this input.
    """
    if norm is not None and not is_foldable(norm):
        y, norm = norm(y), None
    return dispatch.run('norm_mlp', FORMS, impl, x, y, norm, fc1, activation, fc2, gamma, factors)
