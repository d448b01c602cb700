"""Pooling and resizing in operators that every runtime has, exact for any size, also where a size is a symbol.

``F.adaptive_avg_pool2d`` has no counterpart in ONNX: exporters write the windows of the size at hand, and another size
gives wrong values, or an error. Here both are matrices that follow from the sizes, ``A X Bᵀ``, computed in integers, so
that a graph of dynamic sizes computes them for the image it gets, and one of fixed sizes holds them as constants.
"""
import torch
import torch.nn as nn

from ..ops.adaptive_pooling import averaging_matrix


def interpolation_weights(place, size_in, size_out, align_corners, like):
    """(…, size_in): what the output positions ``place`` (…), integers, take of each input, as ``F.interpolate`` does.

    ``w[o, j] = max(0, 1 - |s(o) - j|)`` with the source position ``s(o) = n(o) / d`` clamped into the map; ``n`` and
    ``d`` are integers, so that the only rounding is that of the weight itself.

    Args:
        size_in, size_out (int | SymInt): Of the axis.
        like (Tensor): Gives dtype and device.
    """
    if align_corners:
        denominator = torch.sym_max(size_out - 1, 1)
        numerator = place * (size_in - 1)
    else:
        denominator = 2 * size_out
        numerator = (2 * place + 1) * size_in - size_out
    numerator = numerator.clamp(0, (size_in - 1) * denominator)
    at = denominator * torch.arange(size_in, device=like.device)
    distance = (numerator[..., None] - at).abs()
    return (denominator - distance).clamp(min=0).to(like.dtype) / denominator


class ExactAdaptiveAvgPool2d(nn.Module):
    """``nn.AdaptiveAvgPool2d`` of any size, as two matrix products."""

    def __init__(self, output_size):
        super().__init__()
        self.output_size = output_size if isinstance(output_size, tuple | list) else (output_size, output_size)

    def forward(self, x):
        height, width = self.output_size
        height, width = x.shape[2] if height is None else height, x.shape[3] if width is None else width
        down, across = (averaging_matrix(size, grid, x.dtype, x.device)
                        for size, grid in zip(x.shape[2:], (height, width), strict=True))
        return torch.matmul(down, torch.matmul(x, across.t()))


def tap_matrix(size_in, size_out, align_corners, like):
    """(size_out, 3 · size_in): row ``o`` has, for each tap ``t``, what the interpolated position ``o + t - 1`` takes of
    the input, which is nothing outside the map."""
    place = torch.arange(size_out, device=like.device)[:, None] + torch.arange(-1, 2, device=like.device)
    inside = ((place >= 0) & (place < size_out)).to(like.dtype)
    weights = interpolation_weights(place, size_in, size_out, align_corners, like)
    return (weights * inside[..., None]).reshape(size_out, 3 * size_in)
