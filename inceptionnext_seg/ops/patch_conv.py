"""1×1 convolutions and convolutions of patches as one matrix product over NHWC memory, on a CPU.

``conv(x)[p] = W · patch(x, p) + b`` where the stride is the kernel: no two patches share a pixel, so that they are the
rows of one matrix. Products of bfloat16 maps run in bfloat16 ('product') or, more exactly, in float ('float_product'),
which is faster where the CPU has no bfloat16 products; the backward still keeps the bfloat16 map.
"""
import torch
import torch.nn as nn
import torch.nn.functional as F

from .._fast import is_bare, plain_type, run_plain
from . import _native as native
from . import dispatch
from .dtypes import autocast_dtype

# Reference


def patch_conv2d_torch(x, conv, channel_factors):
    # In the type of the map, as dropout: factors in float32 would make the whole map float32.
    x = x if channel_factors is None else x * channel_factors[:, :, None, None].to(x.dtype)
    if conv.kernel_size == (1, 1) and is_bare(conv, nn.Conv2d) and conv.groups == 1:
        # A view of the weight, whose gradient has the strides of the weight and not those of the map's layout.
        rows = rows_of_filters(conv.weight)
        weight = rows[:, :, None, None] if conv.weight.stride(3) == 1 else rows[:, None, None].permute(0, 3, 1, 2)
        return conv._conv_forward(x, weight, conv.bias)
    return run_plain(conv, x)


# As a product


def patch_conv2d_float_product(x, conv, channel_factors):
    return patch_conv2d_product(x, conv, channel_factors, in_float=True)


def patch_conv2d_product(x, conv, channel_factors, in_float=False):
    (ky, kx), device = conv.kernel_size, x.device.type
    batch, channels = x.shape[:2]
    height, width = x.shape[2] // ky, x.shape[3] // kx
    weight, bias = rows_of_filters(conv.weight), conv.bias
    dtype = autocast_dtype(x)
    if torch.is_autocast_enabled(device) and dtype != torch.float64:
        x = x.to(dtype)
        if not in_float:
            weight, bias = weight.to(dtype), None if bias is None else bias.to(dtype)
    pixels = x[:, :, :height * ky, :width * kx].permute(0, 2, 3, 1)
    if ky * kx > 1:
        pixels = pixels.reshape(batch, height, ky, width, kx, channels).transpose(2, 3)
    pixels = pixels.reshape(batch, height * width, ky * kx * channels)
    if channel_factors is not None:
        weight = weight * channel_factors[:, None, :].to(weight.dtype)
    with torch.autocast(device, enabled=False):
        if x.dtype == weight.dtype and weight.dim() == 2:
            y = F.linear(pixels, weight, bias)
        else:
            y = Linear.apply(pixels, weight, bias)
    return y.view(batch, height, width, conv.out_channels).permute(0, 3, 1, 2)


def rows_of_filters(weight):
    """(O, C, ky, kx) to (O, ky · kx · C), so that the gradient has the strides of the weight.

    The strides of a 1×1 weight are arbitrary, but DistributedDataParallel compares them.
    """
    if weight.shape[2:] == (1, 1) and weight.stride(3) == 1:
        return weight.flatten(1)
    return weight.permute(0, 2, 3, 1).flatten(1)


class Linear(torch.autograd.Function):
    """``x @ weightᵀ + bias`` in the weight's dtype, rounded to the dtype of ``x``; (…, P, C) with one weight or one
    for each of the leading indices."""

    @staticmethod
    def forward(ctx, x, weight, bias):
        ctx.save_for_backward(x, weight)
        ctx.has_bias = bias is not None
        y = torch.matmul(x.to(weight.dtype), weight.transpose(-1, -2))
        return (y if bias is None else y.add_(bias)).to(x.dtype)

    @staticmethod
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        grad = grad.to(weight.dtype)
        grad_x = torch.matmul(grad, weight).to(x.dtype) if ctx.needs_input_grad[0] else None
        grad_weight = grad_bias = None
        if ctx.needs_input_grad[1]:
            x = x.to(weight.dtype)
            if weight.dim() == 2:
                grad_weight = grad.flatten(0, -2).t() @ x.flatten(0, -2)
            else:
                grad_weight = grad.transpose(-1, -2) @ x
        if ctx.has_bias and ctx.needs_input_grad[2]:
            grad_bias = grad.flatten(0, -2).sum(0)
        return grad_x, grad_weight, grad_bias


# What it cannot take, and when it is worth it


def why_not_product(x, conv, channel_factors=None):
    if plain_type(conv) is not nn.Conv2d:
        return f'the convolution is a {plain_type(conv).__name__}, and its forward may be anything'
    if (conv.stride != conv.kernel_size or conv.padding != (0, 0) or conv.dilation != (1, 1) or conv.groups != 1):
        return (f'kernel {conv.kernel_size}, stride {conv.stride}, padding {conv.padding}, dilation {conv.dilation} '
                f'and {conv.groups} groups are no convolution of patches')
    if channel_factors is not None and conv.kernel_size != (1, 1):
        return f'channel factors are for a 1×1 convolution, and this has kernel {conv.kernel_size}'
    if x.device.type != 'cpu':
        return f'the input is on {x.device}, and the product is for a CPU'
    if x.dim() != 4:
        return f'the input has {x.dim()} dimensions, and the product takes (B, C, H, W)'
    return None


def why_not_float_product(x, conv, channel_factors=None):
    # The weights are float where autocast makes the map bfloat16; those of a bfloat16 model are not.
    if autocast_dtype(x) != torch.bfloat16 or conv.weight.dtype != torch.float32:
        return f'the map is {autocast_dtype(x)} and the weight {conv.weight.dtype}, not bfloat16 and float32'
    return why_not_product(x, conv, channel_factors)


def float_product_is_worth(x, conv, channel_factors=None):
    """Patches without a backward, too: a convolution of them in bfloat16 is what such a CPU has no instructions for."""
    return not native.has_fast_bf16() and (conv.kernel_size != (1, 1) or is_channels_last(x))


def product_is_worth(x, conv, channel_factors=None):
    """Not where the map would have to be copied first: of patches, which pays where there is a backward, and of an NCHW
    map for a 1×1 convolution."""
    if conv.kernel_size != (1, 1):
        return dispatch.needs_gradient(x, conv)
    return is_channels_last(x)


def is_channels_last(x):
    return x.is_contiguous(memory_format=torch.channels_last) and not (x.is_contiguous() and x.shape[1] > 1
                                                                       and x.shape[2] * x.shape[3] > 1)


FORMS = dict(
    float_product=dispatch.Form(patch_conv2d_float_product, why_not_float_product, float_product_is_worth),
    product=dispatch.Form(patch_conv2d_product, why_not_product, product_is_worth),
    torch=dispatch.Form(patch_conv2d_torch))


# The operator


def patch_conv2d(x, conv, channel_factors=None, impl='auto'):
    """``conv(x)`` for a convolution whose stride is its kernel: (B, C, H, W) to (B, O, H // k, W // k).

    Any other convolution is called as it is.

    Args:
        conv (nn.Conv2d): Its hooks are called where the form is 'torch'.
        channel_factors (Tensor | None): (B, C), what each channel of each image is multiplied by before; 1×1 only.
        impl (str): 'product' is one matrix product, on a CPU, 'float_product' one in float of a bfloat16 map; 'torch'
            calls ``conv``; 'auto' is the fastest one. See :mod:`.dispatch`.

    Raises:
        FormError: ``impl`` is no form, or one that cannot take this input.
    """
    return dispatch.run('patch_conv2d', FORMS, impl, x, conv, channel_factors)
