"""3×3 convolution of concatenated, resized maps, without resizing and without concatenating them.

``conv(cat(x0, up(x1), up(x2), …)) = conv(x0) + Σᵢ Σ_taps shift(up(tap(xᵢ)))``: a 3×3 convolution is a sum over nine
taps of a 1×1 convolution and a shift; 1×1 convolutions mix channels and interpolation mixes positions, so the two
commute. The taps run at a map's own resolution, where there are 4, 16 or 64 times fewer pixels, and interpolation and
shift are one short sum along each axis. The function is the same and so are its parameters; rounding differs.

Maps of the output's own size, and those hardly smaller, are convolved as usual; on a CPU by
:mod:`inceptionnext_seg.ops.winograd` where that is faster.

This module needs torch and mmengine alone.
"""
import functools
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch.utils.flop_counter import register_flop_formula

from . import _native as native
from . import winograd

# Nine taps at the low resolution, against nine at the high one: below this factor in pixels too little is saved.
LEAST_RATIO = 2
# Tiles below which transforming the filters costs more than the multiplications it saves.
LEAST_TILES = 128
IMPLS = ('auto', 'plain', 'torch', 'native')


class Axis(NamedTuple):
    """Table of one axis: what an output position takes of the input, by tap, and which positions take an input row.

    Attributes:
        index (Tensor): int32 (out, 3, 2), input positions of tap ``t`` at output ``o``, that is of ``o + t - 1``.
        weight (Tensor): (out, 3, 2), their weights; zero where the tap reaches into the padding.
        first (Tensor), entries (Tensor): int32; ``entries[first[i]:first[i + 1]]`` are the flat places of the table
            that take input row ``i`` with a weight other than zero.
    """
    index: torch.Tensor
    weight: torch.Tensor
    first: torch.Tensor
    entries: torch.Tensor


def source_positions(size_in, size_out, align_corners):
    """Lower neighbour (int64) and the weight of the upper one (float64) of each output position, as torch has them."""
    positions = torch.arange(size_out, dtype=torch.float64)
    if align_corners:
        source = positions * ((size_in - 1) / (size_out - 1) if size_out > 1 else 0.)
    else:
        source = ((positions + 0.5) * (size_in / size_out) - 0.5).clamp(min=0)
    lower = source.floor().long().clamp(max=size_in - 1)
    return lower, (source - lower).clamp(0, 1)


@functools.lru_cache(maxsize=128)
def axis_table(size_in, size_out, align_corners, dtype):
    lower, fraction = source_positions(size_in, size_out, align_corners)
    shifted = torch.arange(size_out)[:, None] + torch.arange(3) - 1
    inside = (shifted >= 0) & (shifted < size_out)
    shifted = shifted.clamp(0, size_out - 1)
    index = torch.stack((lower[shifted], (lower[shifted] + 1).clamp(max=size_in - 1)), -1)
    weight = torch.stack((1 - fraction[shifted], fraction[shifted]), -1) * inside[..., None]
    flat, taken = index.flatten(), weight.flatten() != 0
    order = torch.argsort(flat[taken], stable=True)
    first = torch.zeros(size_in + 1, dtype=torch.int32)
    first[1:] = torch.bincount(flat[taken], minlength=size_in).cumsum(0)
    return Axis(index.int().contiguous(), weight.to(dtype).contiguous(), first,
                taken.nonzero().flatten()[order].int().contiguous())


@functools.lru_cache(maxsize=128)
def axis_matrix(size_in, size_out, align_corners, dtype, device):
    """(3, out, in): row ``o`` of tap ``t`` is the interpolated position ``o + t - 1``, zero in the padding."""
    # What is made in inference mode cannot be used in training, and this is kept.
    with torch.inference_mode(False):
        table = axis_table(size_in, size_out, align_corners, torch.float64)
        matrix = torch.zeros(size_out, 3, size_in, dtype=torch.float64)
        matrix.scatter_add_(2, table.index.long(), table.weight)
        return matrix.transpose(0, 1).to(device, dtype)


def is_direct(feature, size):
    """Whether a map is convolved at the output's resolution rather than at its own."""
    height, width = feature.shape[2:]
    return LEAST_RATIO * height * width > size[0] * size[1]


def resize(x, size, align_corners):
    if tuple(x.shape[2:]) == tuple(size):
        return x
    return F.interpolate(x, size, mode='bilinear', align_corners=align_corners)


# Forms


def plain(features, weight, bias, size, align_corners):
    """As written: resize, concatenate, convolve."""
    maps = [resize(x, size, align_corners) for x in features]
    return F.conv2d(torch.cat(maps, 1) if len(maps) > 1 else maps[0], weight, bias, padding=1)


def factorized(features, weight, bias, size, align_corners):
    """With torch's operators, on any device: each product is one plain matmul on contiguous NHWC memory."""
    height, width = size
    batch, out_channels = features[0].shape[0], weight.shape[0]
    weights = weight.split([x.shape[1] for x in features], dim=1)
    direct = [(x, w) for x, w in zip(features, weights, strict=True) if is_direct(x, size)]
    out = 0
    if direct:
        maps = [resize(x, size, align_corners) for x, _ in direct]
        out = F.conv2d(torch.cat(maps, 1), torch.cat([w for _, w in direct], 1), padding=1).permute(0, 2, 3, 1)
    for x, w in zip(features, weights, strict=True):
        if is_direct(x, size):
            continue
        channels, h, w_in = x.shape[1:]
        down = axis_matrix(h, height, align_corners, x.dtype, x.device)
        across = axis_matrix(w_in, width, align_corners, x.dtype, x.device)
        down = down.permute(1, 0, 2).reshape(height, 3 * h)
        across = across.permute(1, 2, 0).reshape(width, 3 * w_in)
        pixels = x.permute(0, 2, 3, 1).reshape(batch, 1, h * w_in, channels)
        taps = w.permute(2, 1, 3, 0).reshape(1, 3, channels, 3 * out_channels).to(x.dtype)
        z = torch.matmul(pixels, taps)                                              # (B, 3 dy, h · w, 3 dx · O)
        z = torch.matmul(down, z.view(batch, 3 * h, w_in * 3 * out_channels))       # (B, H, w · 3 dx · O)
        z = torch.matmul(across, z.view(batch * height, w_in * 3, out_channels))    # (B · H, W, O)
        out = out + z.view(batch, height, width, out_channels)
    if bias is not None:
        out = out + bias.to(out.dtype)
    return out.permute(0, 3, 1, 2)


# C++


FORWARD = (*(native.POINTER, ) * 2, *(native.INT, ) * 5, *(native.POINTER, ) * 4, *(native.INT, ) * 2)
BACKWARD = (*(native.POINTER, ) * 2, *(native.INT, ) * 5, *(native.POINTER, ) * 6, native.INT)


def taps_kernel(direction, dtype):
    return native.function('upsampled_taps', f'{direction}_{winograd.SUFFIXES[dtype]}',
                           *(FORWARD if direction == 'forward' else BACKWARD))


def packed_taps(weight, dtype):
    """(O, C, 3, 3) to (9, O, C), taps row by row: of a weight in channels_last, whole rows of channels are moved."""
    return weight.to(dtype).permute(2, 3, 0, 1).contiguous().flatten(0, 1)


def unpack_taps(taps, weight):
    """The reverse, into ``weight``."""
    weight.permute(2, 3, 0, 1).copy_(taps.unflatten(0, (3, 3)))


class Level(NamedTuple):
    """One map, its tables, and its part of the weight's input channels."""
    feature: torch.Tensor
    begin: int
    end: int
    down: Axis
    across: Axis

    def sizes(self, out_channels):
        return (*self.feature.shape[2:], self.down.index.shape[0], self.across.index.shape[0], out_channels)


def levels(features, size, align_corners, dtype):
    """The maps that run at their own resolution, and (map, begin, end) of those that do not, resized."""
    low, direct, begin = [], [], 0
    for x in features:
        end = begin + x.shape[1]
        if is_direct(x, size):
            direct.append((resize(x, size, align_corners), begin, end))
        else:
            tables = (axis_table(n, out, align_corners, dtype) for n, out in zip(x.shape[2:], size, strict=True))
            low.append(Level(x.contiguous(memory_format=torch.channels_last), begin, end, *tables))
        begin = end
    return low, direct


def uses_winograd(batch, channels, out_channels, size):
    tiles = batch * -(-size[0] // winograd.TILE) * -(-size[1] // winograd.TILE)
    return tiles >= LEAST_TILES and min(channels, out_channels) >= 16


def pixels(x, image, dtype):
    """(h · w, C) of one image of a channels_last map."""
    return x[image].permute(1, 2, 0).flatten(0, 1).to(dtype)


def channels_last_empty(shape, dtype):
    return torch.empty(shape, dtype=dtype, memory_format=torch.channels_last)


@torch.library.custom_op('inceptionnext_seg::resize_concat_conv2d', mutates_args=(), device_types='cpu')
def native_forward(features: native.TENSORS, weight: torch.Tensor, bias: torch.Tensor | None, height: int,
                   width: int, align_corners: bool) -> torch.Tensor:
    size, batch, out_channels = (height, width), features[0].shape[0], weight.shape[0]
    out_dtype = features[0].dtype
    dtype = winograd.compute_dtype(out_dtype)
    low, direct = levels(features, size, align_corners, dtype)
    out = None
    if low or bias is not None:
        out = channels_last_empty((batch, out_channels, *size), dtype)
        if bias is not None:
            out.copy_(bias.view(1, -1, 1, 1))
    for i, level in enumerate(low):
        taps = packed_taps(weight[:, level.begin:level.end], dtype).flatten(0, 1).t()
        z, add = None, bool(i) or bias is not None
        for image in range(batch):
            z = torch.mm(pixels(level.feature, image, dtype), taps, out=z)
            taps_kernel('forward', dtype)(
                z, out[image], *level.sizes(out_channels), level.down.index, level.down.weight, level.across.index,
                level.across.weight, add, native.threads())
    for x, begin, end in direct:
        part = weight[:, begin:end]
        if uses_winograd(batch, end - begin, out_channels, size):
            x = x.contiguous(memory_format=torch.channels_last)
            taps = packed_taps(part, dtype)
            last = end == direct[-1][2]
            out = winograd.convolve(x, taps, added=out, out_dtype=out_dtype if last else dtype)
        else:
            y = F.conv2d(x.to(dtype), part.to(dtype), padding=1)
            out = y.contiguous(memory_format=torch.channels_last) if out is None else out.add_(y)
    return out.to(out_dtype).contiguous(memory_format=torch.channels_last)


@native_forward.register_fake
def _(features, weight, bias, height, width, align_corners):
    shape = (features[0].shape[0], weight.shape[0], height, width)
    return features[0].new_empty(shape).to(memory_format=torch.channels_last)


@torch.library.custom_op('inceptionnext_seg::resize_concat_conv2d_backward', mutates_args=(), device_types='cpu')
def native_backward(grad: torch.Tensor, features: native.TENSORS, weight: torch.Tensor, align_corners: bool,
                    needs_weight: bool) -> native.TENSORS:
    """Gradients to the maps, then to the weight (empty where it needs none)."""
    size, batch, out_channels = tuple(grad.shape[2:]), grad.shape[0], weight.shape[0]
    dtype = winograd.compute_dtype(grad.dtype)
    grad = grad.contiguous(memory_format=torch.channels_last)
    low, direct = levels(features, size, align_corners, dtype)
    grad_weight = torch.empty_like(weight) if needs_weight else weight.new_empty(0)
    grads = {}
    for level in low:
        taps = packed_taps(weight[:, level.begin:level.end], dtype).flatten(0, 1)
        grad_taps = torch.zeros_like(taps) if needs_weight else None
        grad_x = channels_last_empty(level.feature.shape, level.feature.dtype)
        h, w = level.feature.shape[2:]
        z = torch.empty(h * w, taps.shape[0], dtype=dtype)
        for image in range(batch):
            taps_kernel('backward', grad.dtype)(
                grad[image], z, *level.sizes(out_channels), level.down.index,
                level.down.weight, level.across.index, level.across.weight,
                level.down.first, level.down.entries, native.threads())
            grad_x[image].permute(1, 2, 0).flatten(0, 1).copy_(torch.mm(z, taps))
            if needs_weight:
                grad_taps.addmm_(z.t(), pixels(level.feature, image, dtype))
        grads[level.begin] = grad_x
        if needs_weight:
            unpack_taps(grad_taps.unflatten(0, (9, out_channels)), grad_weight[:, level.begin:level.end])
    for x, begin, end in direct:
        part = weight[:, begin:end]
        if uses_winograd(batch, end - begin, out_channels, size):
            grad_x, grad_taps = winograd.gradients(
                grad, x.contiguous(memory_format=torch.channels_last), packed_taps(part, dtype), needs_weight)
            if needs_weight:
                unpack_taps(grad_taps, grad_weight[:, begin:end])
        else:
            grad_x, grad_part, _ = torch.ops.aten.convolution_backward(
                grad.to(dtype), x.to(dtype), part.to(dtype), None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1,
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


@native_backward.register_fake
def _(grad, features, weight, align_corners, needs_weight):
    grads = [torch.empty_like(x).to(memory_format=torch.channels_last) for x in features]
    return [*grads, torch.empty_like(weight) if needs_weight else weight.new_empty(0)]


def setup_context(ctx, inputs, output):
    features, weight, bias, _, _, ctx.align_corners = inputs
    ctx.has_bias = bias is not None
    ctx.save_for_backward(weight, *features)


def backward(ctx, grad):
    weight, *features = ctx.saved_tensors
    *grads, grad_weight = native_backward(grad, features, weight, ctx.align_corners, ctx.needs_input_grad[1])
    grad_bias = grad.sum((0, 2, 3), dtype=weight.dtype) if ctx.has_bias and ctx.needs_input_grad[2] else None
    return grads, grad_weight if ctx.needs_input_grad[1] else None, grad_bias, None, None, None


native_forward.register_autograd(backward, setup_context=setup_context)


def executed_macs(feature_shapes, out_channels, size):
    """MACs of the products as they run."""
    macs = 0
    for batch, channels, h, w in feature_shapes:
        if LEAST_RATIO * h * w <= size[0] * size[1]:
            macs += 9 * batch * h * w * channels * out_channels
        elif uses_winograd(batch, channels, out_channels, size):
            tiles = batch * -(-size[0] // winograd.TILE) * -(-size[1] // winograd.TILE)
            macs += winograd.TAPS * tiles * channels * out_channels
        else:
            macs += 9 * batch * size[0] * size[1] * channels * out_channels
    return macs


@register_flop_formula(torch.ops.inceptionnext_seg.resize_concat_conv2d)
def forward_flops(features, weight, bias, height, width, align_corners, *args, **kwargs):
    return 2 * executed_macs(features, weight[0], (height, width))


@register_flop_formula(torch.ops.inceptionnext_seg.resize_concat_conv2d_backward)
def backward_flops(grad, features, weight, align_corners, needs_weight, *args, **kwargs):
    return 2 * executed_macs(features, weight[0], tuple(grad[2:])) * (2 if needs_weight else 1)


# Choice


def resize_concat_conv2d(features, weight, bias=None, size=None, align_corners=False, impl='auto'):
    """``conv2d(cat([resize(x, size) for x in features], 1), weight, bias, padding=1)``, bilinear, for a 3×3 weight.

    Args:
        features (Sequence[Tensor]): Maps (B, Ci, Hi, Wi), in the order of the weight's input channels. One of them
            is fine: then this is a 3×3 convolution of a resized map, or of a map.
        weight (Tensor): (O, ΣCi, 3, 3).
        bias (Tensor | None): (O, ).
        size (tuple[int, int] | None): (H, W) of the output; by default that of the first map.
        impl (str): 'plain' resizes and concatenates; 'torch' factorizes with torch's operators; 'native' does so in
            C++, on a CPU; 'auto' is the fastest that is there.

    Returns:
        Tensor: (B, O, H, W); channels_last unless 'plain' chooses otherwise.

    Raises:
        ValueError: An ``impl`` that does not exist or cannot take these maps, or a weight that does not fit them.
    """
    size = tuple(features[0].shape[2:] if size is None else size)
    channels = sum(x.shape[1] for x in features)
    if tuple(weight.shape[1:]) != (channels, 3, 3):
        raise ValueError(f'weight is {tuple(weight.shape)}; wanted (O, {channels}, 3, 3) for {len(features)} maps of '
                         f'{[x.shape[1] for x in features]} channels')
    device = features[0].device.type
    # As autocast does for a convolution; the C++ form then reads the weight as it is, in full precision.
    if device != 'meta' and torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        features = [x if x.dtype == torch.float64 else x.to(dtype) for x in features]
    impl = choose(impl, features, weight.shape[0], size)
    if impl == 'plain':
        return plain(features, weight, bias, size, align_corners)
    if impl == 'native':
        with torch.autocast(device, enabled=False):     # its products are of the dtype it chooses
            return native_forward(list(features), weight, bias, *size, align_corners)
    return factorized(features, weight, bias, size, align_corners)


def choose(impl, features, out_channels, size):
    if impl not in IMPLS:
        raise ValueError(f'impl is {impl!r}; wanted one of {", ".join(map(repr, IMPLS))}')
    x = features[0]
    on_cpu = x.device.type == 'cpu'
    if impl == 'native' and not (on_cpu and has_kernels(x.dtype)):
        raise ValueError(f"impl='native' needs the C++ kernels and maps of {sorted(map(str, winograd.SUFFIXES))} on a "
                         f"CPU; these are {x.dtype} on {x.device}. Next: impl='auto'.")
    if impl != 'auto':
        return impl
    if x.device.type == 'meta' or native.runs_elsewhere():
        return 'plain'  # what is counted, or exported, is the model and not how it is computed here
    if on_cpu and has_kernels(x.dtype) and not (x.dtype == torch.bfloat16 and native.has_fast_bf16()):
        small = not uses_winograd(x.shape[0], sum(x.shape[1] for x in features), out_channels, size)
        return 'plain' if small and all(is_direct(x, size) for x in features) else 'native'
    return 'plain' if all(is_direct(x, size) for x in features) else 'torch'


def has_kernels(dtype):
    return winograd.available(dtype) and native.available('upsampled_taps')
