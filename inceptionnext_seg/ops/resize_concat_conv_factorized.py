"""The factorized form of :mod:`.resize_concat_conv` in torch's operators: few and large ones, on any device.

Each low map is multiplied once, at its own resolution, and resampled along the width into one buffer that all low maps
share; one product resamples that buffer along the height and adds it to the convolution of the map of the output's own
size. With K = Σ 3hᵢ rows in the buffer, one for each row of each map and each vertical tap:

    zᵢ  = xᵢ Wᵢᵀ           (3 dy, hᵢ · B · wᵢ, 3 dx · O), for each of the three dy
    mᵢ  = Xᵢ zᵢ            (3 dy · hᵢ, B, W, O), the rows of map i in the buffer m
    y   = W₀ * x₀ + Y m    (B, H, W, O)

Positions are rows, images below them, so that every product is one call with one distance between its matrices; for
that a low map is copied, which is small. The gradient is the transposes in the reverse order. The matrices X and Y are
banded and multiplied as dense ones, which tensor cores do faster than anything gathers: their share of the arithmetic
does not depend on the channels of the map, small against C = 512 and large against C = 64: :func:`factorized_macs`.

Every operator has a deterministic algorithm. Products are in the precision of the convolutions they stand for.
"""
from typing import NamedTuple

import torch
import torch.nn.functional as F

from .bilinear import resize
from .precision import products_as_convolutions
from .registration import TENSORS
from .tap_tables import across_matrix, down_matrix, is_direct, resize_matrix


class Part(NamedTuple):
    """A map, its channels ``begin:end`` of the weight, and its rows ``top:top + 3 * h`` in the buffer of low maps."""
    feature: torch.Tensor
    begin: int
    end: int
    top: int = 0

    @property
    def rows(self):
        return slice(self.top, self.top + 3 * self.feature.shape[2])


def split(features, size):
    """The low maps and the direct ones, as parts."""
    low, direct, begin, top = [], [], 0, 0
    for x in features:
        end = begin + x.shape[1]
        if is_direct(x.shape, size):
            direct.append(Part(x, begin, end))
        else:
            low.append(Part(x, begin, end, top))
            top += 3 * x.shape[2]
        begin = end
    return low, direct


class LowMaps:
    """The low maps of a call: their weights as products take them, and their matrices."""

    def __init__(self, low, weight, size, align_corners):
        x = low[0].feature
        self.low, self.size, self.batch, self.out_channels = low, size, x.shape[0], weight.shape[0]
        self.like, self.align_corners = x, align_corners
        self.begin, self.end = min(part.begin for part in low), max(part.end for part in low)
        # (dy, dx · O, C): of a weight in channels_last whole rows of channels are moved.
        self.taps = x.new_empty(3, 3 * self.out_channels, self.end - self.begin)
        self.taps.unflatten(1, (3, -1)).copy_(weight[:, self.begin:self.end].permute(2, 3, 0, 1))
        self.down = down_matrix(
            tuple(part.feature.shape[2] for part in low), size[0], align_corners, x.dtype, x.device)

    def of(self, buffer, part):
        """Channels of a part in a buffer like the taps."""
        return buffer[:, :, part.begin - self.begin:part.end - self.begin]

    def across(self, part):
        """(3 · h · B, W, 3 w), one matrix in every place."""
        matrix = across_matrix(
            part.feature.shape[3], self.size[1], self.align_corners, self.like.dtype, self.like.device)
        return matrix.expand(3 * part.feature.shape[2] * self.batch, -1, -1)

    def of_images(self):
        """(B, H, K)"""
        return self.down.expand(self.batch, -1, -1)

    def new_buffer(self):
        """(K, B, W · O), the rows of all low maps."""
        return self.like.new_empty(self.down.shape[1], self.batch, self.size[1] * self.out_channels)

    def rows_of(self, buffer, part):
        """(3 · h · B, W, O) of a part in the buffer."""
        return buffer[part.rows].view(-1, self.size[1], self.out_channels)


def positions(x):
    """(3, h · B · w, C), the same in each of the three places."""
    return x.permute(2, 0, 3, 1).reshape(-1, x.shape[1]).expand(3, -1, -1)


def pixel_rows(y):
    """(B, H, W · O) of a map in channels_last."""
    return y.permute(0, 2, 3, 1).flatten(2)


def channels_last(x):
    return x.contiguous(memory_format=torch.channels_last)


def joined(tensors):
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors, 1)


def factorized_forward(features: TENSORS, weight: torch.Tensor, bias: torch.Tensor | None, height: int, width: int,
                       align_corners: bool) -> torch.Tensor:
    size, dtype = (height, width), features[0].dtype
    low, direct = split(features, size)
    bias = None if bias is None else bias.to(dtype)
    with products_as_convolutions(features[0]):
        out = None
        if direct:
            x = joined([channels_last(resize(part.feature, size, align_corners)) for part in direct])
            out = channels_last(F.conv2d(x, direct_weight(weight, direct, dtype), bias, padding=1))
        if not low:
            return out
        maps = LowMaps(low, weight, size, align_corners)
        buffer = maps.new_buffer()
        for part in low:
            z = torch.bmm(positions(part.feature), maps.of(maps.taps, part).transpose(1, 2))
            across = maps.across(part)
            torch.bmm(across, z.view(len(across), -1, maps.out_channels), out=maps.rows_of(buffer, part))
        if out is None:
            out = features[0].new_empty(maps.batch, height, width, maps.out_channels).permute(0, 3, 1, 2)
            if bias is None:
                torch.bmm(maps.of_images(), buffer.transpose(0, 1), out=pixel_rows(out))
                return out
            out.copy_(bias.view(1, -1, 1, 1))
        pixel_rows(out).baddbmm_(maps.of_images(), buffer.transpose(0, 1))
    return out


def direct_weight(weight, direct, dtype):
    return channels_last(joined([weight[:, part.begin:part.end] for part in direct]).to(dtype))


def factorized_fake(features, weight, bias, height, width, align_corners):
    shape = (features[0].shape[0], weight.shape[0], height, width)
    return torch.empty(shape, dtype=features[0].dtype, device=features[0].device, memory_format=torch.channels_last)


def factorized_backward(grad: torch.Tensor, features: TENSORS, weight: torch.Tensor, align_corners: bool,
                        needs_weight: bool) -> TENSORS:
    """Gradients to the maps, then to the weight (empty where it needs none)."""
    size, dtype = tuple(grad.shape[2:]), features[0].dtype
    low, direct = split(features, size)
    grad = channels_last(grad.to(dtype))
    grad_weight = torch.empty_like(weight) if needs_weight else weight.new_empty(0)
    grads = {}
    with products_as_convolutions(grad):
        if low:
            maps = LowMaps(low, weight, size, align_corners)
            buffer = maps.new_buffer()
            torch.bmm(maps.of_images().transpose(1, 2), pixel_rows(grad), out=buffer.transpose(0, 1))
            grad_taps = torch.empty_like(maps.taps) if needs_weight else None
            for part in low:
                z = torch.bmm(maps.across(part).transpose(1, 2), maps.rows_of(buffer, part))
                z, taps = z.view(3, -1, 3 * maps.out_channels), maps.of(maps.taps, part)
                if needs_weight:
                    torch.bmm(z.transpose(1, 2), positions(part.feature), out=maps.of(grad_taps, part))
                grad_x = torch.mm(z[0], taps[0]).addmm_(z[1], taps[1]).addmm_(z[2], taps[2])
                batch, channels, h, w = part.feature.shape
                grads[part.begin] = channels_last(grad_x.view(h, batch, w, channels).permute(1, 3, 0, 2))
            if needs_weight:
                grad_weight[:, maps.begin:maps.end].permute(2, 3, 0, 1).copy_(grad_taps.unflatten(1, (3, -1)))
        if direct:
            x = joined([channels_last(resize(part.feature, size, align_corners)) for part in direct])
            grad_x, grad_direct, _ = torch.ops.aten.convolution_backward(
                grad, x, direct_weight(weight, direct, dtype), None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1,
                [True, needs_weight, False])
            at = 0
            for part in direct:
                here = slice(at, at := at + part.end - part.begin)
                if needs_weight:
                    grad_weight[:, part.begin:part.end] = grad_direct[:, here]
                of_map = grad_x[:, here]
                if of_map.shape != part.feature.shape:     # a map hardly smaller than the output
                    of_map = resize_gradient(of_map, part.feature.shape, align_corners)
                grads[part.begin] = channels_last(of_map)
    return [*(grads[begin] for begin in sorted(grads)), grad_weight]


def resize_gradient(grad, shape, align_corners):
    """Beside the CPU as two products, since torch's operator adds up there in no fixed order."""
    if grad.device.type == 'cpu':
        return torch.ops.aten.upsample_bilinear2d_backward(
            grad, list(grad.shape[2:]), list(shape), align_corners, None, None)
    down, across = (resize_matrix(*sizes, align_corners, grad.dtype, grad.device)
                    for sizes in zip(shape[2:], grad.shape[2:], strict=True))
    return torch.matmul(torch.matmul(down.t(), grad), across)


def factorized_backward_fake(grad, features, weight, align_corners, needs_weight):
    grads = [torch.empty_like(x, memory_format=torch.channels_last) for x in features]
    return [*grads, torch.empty_like(weight) if needs_weight else weight.new_empty(0)]


def factorized_macs(shapes, out_channels, size, products=1):
    """MACs of the products as they run, those with the dense matrices of the resampling too.

    Args:
        products (int): How often a map and the weight meet: once forward, twice backward where both have gradients.
    """
    macs = 0
    for batch, channels, h, w in shapes:
        if is_direct((batch, channels, h, w), size):
            macs += products * 9 * batch * size[0] * size[1] * channels * out_channels
        else:
            resampling = 9 * h * w * size[1] + 3 * h * size[0] * size[1]
            macs += batch * out_channels * (products * 9 * h * w * channels + resampling)
    return macs
