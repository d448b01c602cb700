"""3×3 convolution of concatenated, resized maps, without resizing and without concatenating them.

``conv(cat(x₀, up(x₁), up(x₂), …)) = conv(x₀) + Σᵢ Σ_taps shift(up(tap(xᵢ)))``: a 3×3 convolution is a sum over nine
taps of a 1×1 convolution and a shift; 1×1 convolutions mix channels and interpolation mixes positions, so the two
commute. The taps run at a map's own resolution, where there are 4, 16 or 64 times fewer pixels, and interpolation and
shift are one short sum along each axis. The function is the same and so are its parameters; rounding differs.

Maps of the output's own size, and those hardly smaller, are convolved as usual; on a CPU by
:mod:`inceptionnext_seg.ops.winograd` where that is faster.
"""
from typing import NamedTuple

import torch
import torch.nn.functional as F

from . import _native as native
from . import dispatch, winograd
from .bilinear import resize
from .dtypes import SUFFIXES, autocast_dtype, compute_dtype, why_no_kernel_dtype
from .registration import TENSORS, gradients_again, register
from .resize_concat_conv_factorized import (
    factorized_backward,
    factorized_backward_fake,
    factorized_fake,
    factorized_forward,
    factorized_macs,
)
from .tap_tables import AxisTaps, axis_table, is_direct

# How many times less arithmetic the factorized form has to need for the low maps, since it moves more memory.
LEAST_GAIN = 3
# Tiles below which transforming the filters costs more than the multiplications it saves.
LEAST_TILES = 128


# Reference


def resize_concat_conv2d_torch(features, weight, bias, size, align_corners):
    maps = [resize(x, size, align_corners) for x in features]
    return F.conv2d(torch.cat(maps, 1) if len(maps) > 1 else maps[0], weight, bias, padding=1)


# Factorized, with torch's operators


def resize_concat_conv2d_factorized(features, weight, bias, size, align_corners):
    return factorized_operator(list(features), weight, bias, *size, align_corners)


def factorized_flops(features, weight, bias, height, width, align_corners, *args, **kwargs):
    return 2 * factorized_macs(features, weight[0], (height, width))


# Factorized, in C++


def resize_concat_conv2d_native(features, weight, bias, size, align_corners, bf16=False):
    with torch.autocast('cpu', enabled=False):      # the operator chooses the dtype of its products
        return resize_concat_conv2d_operator(list(features), weight, bias, *size, align_corners, bf16)


def resize_concat_conv2d_native_bf16(*args):
    """Products in bfloat16; maps that are not resized are convolved as torch convolves them."""
    return resize_concat_conv2d_native(*args, bf16=True)


def resize_concat_conv2d_cpu(features: TENSORS, weight: torch.Tensor, bias: torch.Tensor | None, height: int,
                             width: int, align_corners: bool, bf16: bool) -> torch.Tensor:
    size, batch, out_channels = (height, width), features[0].shape[0], weight.shape[0]
    out_dtype = features[0].dtype
    dtype = compute_dtype(out_dtype)
    low, direct = levels(features, size, align_corners, dtype)
    out = None
    # Added as the last map that is not resized is: a pass over the output for the bias alone takes as long as a norm's.
    bias = None if bias is None else bias.to(dtype).contiguous()
    first = bias is not None and (not direct or bf16)
    if low or first:
        out = channels_last_empty((batch, out_channels, *size), dtype)
        if first:
            out.copy_(bias.view(1, -1, 1, 1))
    interpolate_taps = native.function('upsampled_taps', f'forward_{SUFFIXES[dtype]}')
    for i, level in enumerate(low):
        taps = packed_taps(weight[:, level.begin:level.end], dtype).flatten(0, 1).t()
        z, add = None, bool(i) or first
        for image in range(batch):
            if bf16:
                z = torch.mm(pixels(level.feature, image, torch.bfloat16), taps.bfloat16()).float()
            else:
                z = torch.mm(pixels(level.feature, image, dtype), taps, out=z)
            interpolate_taps(
                z, out[image], *level.sizes(out_channels), level.down.index, level.down.weight, level.across.index,
                level.across.weight, add, native.threads())
        del z, taps     # nine times the map: not beside the next level's, or what Winograd's tiles take
    for x, begin, end in direct:
        part, last = weight[:, begin:end], end == direct[-1][2]
        late = bias if last and not first else None
        if not bf16 and uses_winograd(batch, end - begin, out_channels, size):
            x = x.contiguous(memory_format=torch.channels_last)
            taps = packed_taps(part, dtype)
            out = winograd.convolve(x, taps, added=out, out_dtype=out_dtype if last else dtype, bias=late)
        else:
            product = torch.bfloat16 if bf16 else dtype
            y = F.conv2d(x.to(product), part.to(product), late, padding=1)
            out = y.to(dtype).contiguous(memory_format=torch.channels_last) if out is None else out.add_(y)
    return out.to(out_dtype).contiguous(memory_format=torch.channels_last)


def resize_concat_conv2d_fake(features, weight, bias, height, width, align_corners, bf16=False):
    shape = (features[0].shape[0], weight.shape[0], height, width)
    return features[0].new_empty(shape).to(memory_format=torch.channels_last)


def resize_concat_conv2d_flops(features, weight, bias, height, width, align_corners, bf16=False, *args, **kwargs):
    return 2 * executed_macs(features, weight[0], (height, width), bf16)


def executed_macs(feature_shapes, out_channels, size, bf16=False):
    """MACs of the products as they run."""
    macs = 0
    for batch, channels, h, w in feature_shapes:
        if not is_direct((batch, channels, h, w), size):
            macs += 9 * batch * h * w * channels * out_channels
        elif not bf16 and uses_winograd(batch, channels, out_channels, size):
            tiles = batch * -(-size[0] // winograd.TILE) * -(-size[1] // winograd.TILE)
            macs += winograd.TAPS * tiles * channels * out_channels
        else:
            macs += 9 * batch * size[0] * size[1] * channels * out_channels
    return macs


def uses_winograd(batch, channels, out_channels, size):
    tiles = batch * -(-size[0] // winograd.TILE) * -(-size[1] // winograd.TILE)
    return tiles >= LEAST_TILES and min(channels, out_channels) >= 16


class Level(NamedTuple):
    """One map, its tables, and its part of the weight's input channels."""
    feature: torch.Tensor
    begin: int
    end: int
    down: AxisTaps
    across: AxisTaps

    def sizes(self, out_channels):
        return (*self.feature.shape[2:], self.down.index.shape[0], self.across.index.shape[0], out_channels)


def levels(features, size, align_corners, dtype):
    """The maps that run at their own resolution, and (map, begin, end) of those that do not, resized."""
    low, direct, begin = [], [], 0
    for x in features:
        end = begin + x.shape[1]
        if is_direct(x.shape, size):
            direct.append((resize(x, size, align_corners), begin, end))
        else:
            tables = (axis_table(n, out, align_corners, dtype) for n, out in zip(x.shape[2:], size, strict=True))
            low.append(Level(x.contiguous(memory_format=torch.channels_last), begin, end, *tables))
        begin = end
    return low, direct


def packed_taps(weight, dtype):
    """(O, C, 3, 3) to (9, O, C), taps row by row: of a weight in channels_last, whole rows of channels are moved."""
    return weight.to(dtype).permute(2, 3, 0, 1).contiguous().flatten(0, 1)


def unpack_taps(taps, weight):
    """The reverse, into ``weight``."""
    weight.permute(2, 3, 0, 1).copy_(taps.unflatten(0, (3, 3)))


def pixels(x, image, dtype):
    """(h · w, C) of one image of a channels_last map."""
    return x[image].permute(1, 2, 0).flatten(0, 1).to(dtype)


def channels_last_empty(shape, dtype):
    return torch.empty(shape, dtype=dtype, device='cpu', memory_format=torch.channels_last)


# Gradient


def resize_concat_conv2d_backward_cpu(grad: torch.Tensor, features: TENSORS, weight: torch.Tensor, align_corners: bool,
                                      needs_weight: bool, bf16: bool = False) -> TENSORS:
    """Gradients to the maps, then to the weight (empty where it needs none)."""
    size, batch, out_channels = tuple(grad.shape[2:]), grad.shape[0], weight.shape[0]
    dtype = compute_dtype(grad.dtype)
    grad = grad.contiguous(memory_format=torch.channels_last)
    low, direct = levels(features, size, align_corners, dtype)
    grad_weight = torch.empty_like(weight) if needs_weight else weight.new_empty(0)
    grads = {}
    interpolate_taps = native.function('upsampled_taps', f'backward_{SUFFIXES[grad.dtype]}')
    for level in low:
        taps = packed_taps(weight[:, level.begin:level.end], dtype).flatten(0, 1)
        taps16 = taps.bfloat16() if bf16 else None
        grad_taps = torch.zeros_like(taps) if needs_weight else None
        grad_x = channels_last_empty(level.feature.shape, level.feature.dtype)
        h, w = level.feature.shape[2:]
        z = taps.new_empty(h * w, taps.shape[0])
        for image in range(batch):
            interpolate_taps(
                grad[image], z, *level.sizes(out_channels), level.down.index,
                level.down.weight, level.across.index, level.across.weight,
                level.down.first, level.down.entries, native.threads())
            grad_pixels = grad_x[image].permute(1, 2, 0).flatten(0, 1)
            if bf16:
                z16 = z.bfloat16()
                grad_pixels.copy_(torch.mm(z16, taps16))
                if needs_weight:
                    grad_taps += torch.mm(z16.t(), pixels(level.feature, image, torch.bfloat16))
                continue
            grad_pixels.copy_(torch.mm(z, taps))
            if needs_weight:
                grad_taps.addmm_(z.t(), pixels(level.feature, image, dtype))
        grads[level.begin] = grad_x
        if needs_weight:
            unpack_taps(grad_taps.unflatten(0, (9, out_channels)), grad_weight[:, level.begin:level.end])
    for x, begin, end in direct:
        part = weight[:, begin:end]
        if not bf16 and uses_winograd(batch, end - begin, out_channels, size):
            grad_x, grad_taps = winograd.gradients(
                grad, x.contiguous(memory_format=torch.channels_last), packed_taps(part, dtype), needs_weight)
            if needs_weight:
                unpack_taps(grad_taps, grad_weight[:, begin:end])
        else:
            # With one output channel the first stride is arbitrary, and torch may reject its own weight gradient.
            layout = torch.channels_last if x.stride(1) == 1 else torch.contiguous_format
            product = torch.bfloat16 if bf16 else dtype
            part = part.to(product).clone(memory_format=layout)
            grad_x, grad_part, _ = torch.ops.aten.convolution_backward(
                grad.to(product), x.to(product), part, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1,
                [True, needs_weight, False])
            if needs_weight:
                grad_weight[:, begin:end] = grad_part
        grads[begin] = grad_x
    ordered, begin = [], 0
    for x in features:
        grad_x = grads[begin]
        if grad_x.shape != x.shape:     # a map hardly smaller than the output
            grad_x = torch.ops.aten.upsample_bilinear2d_backward(
                grad_x, list(size), list(x.shape), align_corners, None, None)
        ordered.append(grad_x.to(x.dtype).contiguous(memory_format=torch.channels_last))
        begin += x.shape[1]
    return [*ordered, grad_weight]


def resize_concat_conv2d_backward_fake(grad, features, weight, align_corners, needs_weight, bf16=False):
    grads = [torch.empty_like(x).to(memory_format=torch.channels_last) for x in features]
    return [*grads, torch.empty_like(weight) if needs_weight else weight.new_empty(0)]


def resize_concat_conv2d_backward_flops(grad, features, weight, align_corners, needs_weight, bf16=False, *args,
                                        **kwargs):
    return 2 * executed_macs(features, weight[0], tuple(grad[2:]), bf16) * (2 if needs_weight else 1)


def save_for_gradient(ctx, inputs, output):
    features, weight, bias, _, _, ctx.align_corners, *ctx.products = inputs     # the native one's: whether in bf16
    ctx.has_bias = bias is not None
    ctx.save_for_backward(weight, *features)


def factorized_backward_flops(grad, features, weight, align_corners, needs_weight, *args, **kwargs):
    return 2 * factorized_macs(features, weight[0], tuple(grad[2:]), 2 if needs_weight else 1)


def resize_concat_conv2d_gradient(ctx, grad):
    return gradient_by(resize_concat_conv2d_backward_operator, ctx, grad)


def factorized_gradient(ctx, grad):
    return gradient_by(factorized_backward_operator, ctx, grad)


def gradient_by(operator, ctx, grad):
    weight, *features = ctx.saved_tensors
    if torch.is_grad_enabled():
        return differentiable_gradient(ctx, grad)
    *grads, grad_weight = operator(grad, features, weight, ctx.align_corners, ctx.needs_input_grad[1], *ctx.products)
    grad_bias = grad.sum((0, 2, 3), dtype=weight.dtype) if ctx.has_bias and ctx.needs_input_grad[2] else None
    return grads, grad_weight if ctx.needs_input_grad[1] else None, grad_bias, *[None] * (3 + len(ctx.products))


def differentiable_gradient(ctx, grad):
    weight, *features = ctx.saved_tensors
    needs_bias = ctx.has_bias and ctx.needs_input_grad[2]
    bias = weight.new_zeros(len(weight), requires_grad=True) if needs_bias else None     # no gradient depends on it

    def reference(weight, bias, *features):
        return resize_concat_conv2d_torch(
            features, weight.to(grad.dtype), None if bias is None else bias.to(grad.dtype), tuple(grad.shape[2:]),
            ctx.align_corners)

    grad_weight, grad_bias, *grads = gradients_again(
        reference, [weight, bias, *features],
        [ctx.needs_input_grad[1], needs_bias, *(x.requires_grad for x in features)], grad)
    return grads, grad_weight, grad_bias, *[None] * (3 + len(ctx.products))


resize_concat_conv2d_backward_operator = register(
    'resize_concat_conv2d_backward', resize_concat_conv2d_backward_cpu, fake=resize_concat_conv2d_backward_fake,
    flops=resize_concat_conv2d_backward_flops)
resize_concat_conv2d_operator = register(
    'resize_concat_conv2d', resize_concat_conv2d_cpu, fake=resize_concat_conv2d_fake,
    backward=resize_concat_conv2d_gradient, setup_context=save_for_gradient, flops=resize_concat_conv2d_flops)

factorized_backward_operator = register(
    'resize_concat_conv2d_factorized_backward', factorized_backward, fake=factorized_backward_fake,
    flops=factorized_backward_flops, devices=None)
factorized_operator = register(
    'resize_concat_conv2d_factorized', factorized_forward, fake=factorized_fake, backward=factorized_gradient,
    setup_context=save_for_gradient, flops=factorized_flops, devices=None)


# What the forms cannot take, and when they are worth it


def why_not_native(features, *args):
    return why_no_kernel_dtype(features[0]) or native.why_not('winograd', 'upsampled_taps')


def why_not_native_bf16(features, *args):
    if features[0].dtype != torch.bfloat16:
        return f'the maps are {features[0].dtype}, and products in bfloat16 are for maps of it'
    return why_not_native(features, *args)


def never_by_rule(*args):
    """Whether it is faster depends on the CPU, and only measuring tells."""
    return False


def native_is_worth(features, weight, bias, size, align_corners):
    x = features[0]
    if x.dtype == torch.bfloat16 and native.has_fast_bf16():
        return False
    return (not all_direct(features, weight, bias, size, align_corners)
            or uses_winograd(x.shape[0], sum(x.shape[1] for x in features), weight.shape[0], size))


def all_direct(features, weight, bias, size, align_corners):
    return all(is_direct(x.shape, size) for x in features)


def factorized_is_worth(features, weight, bias, size, align_corners):
    """By the arithmetic of the low maps: the dense products of the resampling do not shrink with the channels."""
    low, out_channels = [x.shape for x in features if not is_direct(x.shape, size)], weight.shape[0]
    direct = 9 * features[0].shape[0] * sum(shape[1] for shape in low) * out_channels * size[0] * size[1]
    return bool(low) and LEAST_GAIN * factorized_macs(low, out_channels, size) <= direct


def why_not_factorized(features, *args):
    return None if len(features[0]) else 'there is no image, and products of nothing have no shape'


FORMS = dict(
    native=dispatch.Form(resize_concat_conv2d_native, why_not_native, native_is_worth),
    native_bf16=dispatch.Form(resize_concat_conv2d_native_bf16, why_not_native_bf16, never_by_rule),
    factorized=dispatch.Form(resize_concat_conv2d_factorized, why_not_factorized, factorized_is_worth),
    torch=dispatch.Form(resize_concat_conv2d_torch))


# The operator


def resize_concat_conv2d(features, weight, bias=None, size=None, align_corners=False, impl='auto'):
    """``conv2d(cat([resize(x, size) for x in features], 1), weight, bias, padding=1)``, bilinear, for a 3×3 weight.

    Args:
        features (Sequence[Tensor]): Maps (B, Ci, Hi, Wi), in the order of the weight's input channels. One is
            enough: a 3×3 convolution of a map, resized or not. A map without channels gets no gradient.
        weight (Tensor): (O, ΣCi, 3, 3).
        bias (Tensor | None): (O, ).
        size (tuple[int, int] | None): (H, W) of the output; by default that of the first map.
        impl (str): 'torch' resizes, concatenates and convolves; 'factorized' has the same sum in an order of fewer
            multiplications, in torch's operators; 'native' in C++, on a CPU, and 'native_bf16' likewise with products
            in bfloat16; 'auto' takes the fastest that can. See :mod:`.dispatch`.

    Returns:
        Tensor: (B, O, H, W); channels_last unless 'torch' chooses otherwise.

    Raises:
        ValueError: The weight does not fit the maps, or these have no channels.
        FormError: ``impl`` is no form, or one that cannot take these maps.
    """
    size = tuple(features[0].shape[2:] if size is None else size)
    channels = sum(x.shape[1] for x in features)
    if tuple(weight.shape[1:]) != (channels, 3, 3):
        raise ValueError(f'weight is {tuple(weight.shape)}; expected (O, {channels}, 3, 3) for {len(features)} maps of '
                         f'{[x.shape[1] for x in features]} channels')
    if not channels:
        raise ValueError(f'the {len(features)} maps have no channels; expected at least one in all')
    # As autocast does for a convolution; the C++ form then reads the weight as it is, in full precision.
    features = [x.to(autocast_dtype(x)) for x in features if x.shape[1]]
    return dispatch.run('resize_concat_conv2d', FORMS, impl, features, weight, bias, size, align_corners)
