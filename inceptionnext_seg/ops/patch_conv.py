"""1×1 convolutions and convolutions of patches as one matrix product over NHWC memory, on a CPU.

Where the CPU has no bfloat16 tiles, products of bfloat16 maps run in float: there that is faster, and more exact. What
the backward keeps is still the bfloat16 map.
"""
import torch
import torch.nn.functional as F

from . import _native as native


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


def applies(x, conv):
    """Whether ``conv`` is a plain convolution of patches (of 1×1 ones, too) and ``x`` a map on a CPU to run here."""
    kernel = conv.kernel_size
    return (type(conv) is torch.nn.Conv2d and x.device.type == 'cpu' and conv.stride == kernel
            and conv.padding == (0, 0) and conv.dilation == (1, 1) and conv.groups == 1
            and not native.runs_elsewhere() and (kernel != (1, 1) or is_channels_last(x)))


def is_channels_last(x):
    return x.is_contiguous(memory_format=torch.channels_last) and not (x.is_contiguous() and x.shape[1] > 1
                                                                       and x.shape[2] * x.shape[3] > 1)


def patch_conv2d(x, conv, channel_factors=None):
    """``conv(x)`` for a convolution whose stride is its kernel: (B, C, H, W) to (B, O, H // k, W // k).

    Args:
        channel_factors (Tensor | None): (B, C), what each channel of each image is multiplied by before; 1×1 only.
    """
    if not applies(x, conv):
        return conv(x if channel_factors is None else x * channel_factors[:, :, None, None])
    (ky, kx), device = conv.kernel_size, x.device.type
    batch, channels = x.shape[:2]
    height, width = x.shape[2] // ky, x.shape[3] // kx
    weight, bias = conv.weight.permute(0, 2, 3, 1).flatten(1), conv.bias
    if torch.is_autocast_enabled(device) and x.dtype != torch.float64:
        dtype = torch.get_autocast_dtype(device)
        x = x.to(dtype)
        if native.has_fast_bf16() or dtype != torch.bfloat16:
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
    return y.view(batch, height, width, -1).permute(0, 3, 1, 2)
