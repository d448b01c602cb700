"""Interpolation and the shift of a 3×3 convolution's tap, together, as tables and matrices of one axis."""
import functools
from typing import NamedTuple

import torch

from .bilinear import source_positions

# Nine taps at the low resolution, against nine at the high one: below this factor in pixels too little is saved.
LEAST_RATIO = 2


class AxisTaps(NamedTuple):
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


@functools.lru_cache(maxsize=128)
def axis_table(size_in, size_out, align_corners, dtype):
    lower, fraction = source_positions(size_in, size_out, align_corners, torch.float64)
    shifted = torch.arange(size_out, device='cpu')[:, None] + torch.arange(3, device='cpu') - 1
    inside = (shifted >= 0) & (shifted < size_out)
    shifted = shifted.clamp(0, size_out - 1)
    index = torch.stack((lower[shifted], (lower[shifted] + 1).clamp(max=size_in - 1)), -1)
    weight = torch.stack((1 - fraction[shifted], fraction[shifted]), -1) * inside[..., None]
    flat, taken = index.flatten(), weight.flatten() != 0
    order = torch.argsort(flat[taken], stable=True)
    first = torch.zeros(size_in + 1, dtype=torch.int32, device='cpu')
    first[1:] = torch.bincount(flat[taken], minlength=size_in).cumsum(0)
    return AxisTaps(index.int().contiguous(), weight.to(dtype).contiguous(), first,
                    taken.nonzero().flatten()[order].int().contiguous())


def axis_matrix(size_in, size_out, align_corners):
    """(3, out, in), float64: row ``o`` of tap ``t`` is the interpolated position ``o + t - 1``, zero in the padding."""
    table = axis_table(size_in, size_out, align_corners, torch.float64)
    matrix = torch.zeros(size_out, 3, size_in, dtype=torch.float64, device='cpu')
    return matrix.scatter_add_(2, table.index.long(), table.weight).transpose(0, 1)


# One copy to a device for each size, ever: the matrices are constants of a training.
@functools.lru_cache(maxsize=128)
def across_matrix(size_in, size_out, align_corners, dtype, device):
    """(out, in · 3), the taps of an input position beside each other."""
    # A tensor made in inference mode cannot be used in training, and this one is cached.
    with torch.inference_mode(False):
        matrix = axis_matrix(size_in, size_out, align_corners)
        return matrix.permute(1, 2, 0).reshape(size_out, 3 * size_in).to(device, dtype)


@functools.lru_cache(maxsize=128)
def down_matrix(sizes_in, size_out, align_corners, dtype, device):
    """(out, Σ 3 · in) of several maps, one beside the other; of each the input positions of a tap."""
    with torch.inference_mode(False):
        matrices = [axis_matrix(n, size_out, align_corners).transpose(0, 1).flatten(1) for n in sizes_in]
        return torch.cat(matrices, 1).to(device, dtype)


@functools.lru_cache(maxsize=128)
def resize_matrix(size_in, size_out, align_corners, dtype, device):
    """(out, in), interpolation alone."""
    with torch.inference_mode(False):
        return axis_matrix(size_in, size_out, align_corners)[1].to(device, dtype)


def is_direct(shape, size):
    """Whether a map of this shape is convolved at the output's resolution rather than at its own."""
    height, width = shape[2:]
    return LEAST_RATIO * height * width > size[0] * size[1]
