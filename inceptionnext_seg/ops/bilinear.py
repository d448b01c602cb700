"""Bilinear interpolation as a linear map along each axis, with the source positions of torch's ``F.interpolate``."""
import functools
from typing import NamedTuple

import torch
import torch.nn.functional as F


def resize(x, size, align_corners):
    """``x`` (B, C, H, W) at ``size``; itself where it has it."""
    if tuple(x.shape[2:]) == tuple(size):
        return x
    return F.interpolate(x, size, mode='bilinear', align_corners=align_corners)


def source_positions(size_in, size_out, align_corners, dtype):
    """Lower neighbour (int64) and weight of the upper one (``dtype``) of each output position.

    In the arithmetic of ``F.interpolate`` for a map of ``dtype``. Source: area_pixel_compute_source_index and
    compute_source_index_and_lambda in ATen/native/UpSample.h.
    """
    output = torch.arange(size_out, dtype=dtype, device='cpu')
    if align_corners:
        source = output * (output.new_tensor(size_in - 1) / max(size_out - 1, 1))
    else:
        source = ((output + 0.5) * (output.new_tensor(size_in) / size_out) - 0.5).clamp(min=0)
    lower = source.floor().clamp(max=size_in - 1)
    return lower.long(), (source - lower).clamp(max=1)


class AxisMap(NamedTuple):
    """A banded linear map along one axis: output ``o`` is the sum over k of ``weight[o, k] * input[start[o] + k]``.

    Attributes:
        start (Tensor): (out, ), int64, on the CPU.
        weight (Tensor): (out, taps), on the CPU.
    """
    start: torch.Tensor
    weight: torch.Tensor

    @classmethod
    @functools.lru_cache(maxsize=64)  # the sizes of training never change
    def resizing(cls, size, out_size, align_corners, dtype):
        """Bilinear interpolation from ``size`` to ``out_size``: two taps.

        An input of size 1 has only one value to take: the second tap has weight 0.
        """
        if min(size, out_size) < 1:
            raise ValueError(f'sizes are {size} and {out_size}; expected at least 1')
        lower, fraction = source_positions(size, out_size, align_corners, dtype)
        start = lower.clamp(max=max(size - 2, 0))
        upper = torch.where(lower > start, 1., fraction) if size > 1 else torch.zeros_like(fraction)
        return cls(start, torch.stack([1 - upper, upper], 1).to(dtype))

    @classmethod
    def resizing_twice(cls, size, middle, before, after, flip, out_size, align_corners, dtype):
        """Resize from ``size`` to ``middle``, crop ``before`` and ``after`` at the ends, flip, resize again."""
        axis = cls.resizing(size, middle, align_corners, dtype).part(before, middle - after)
        index, weight = axis.index(size), axis.weight
        if flip:
            index, weight = index.flip(0), weight.flip(0)
        if out_size is not None:
            second = cls.resizing(len(index), out_size, align_corners, dtype)
            outer = second.index(len(index))
            index = index[outer].flatten(1)
            weight = (second.weight[..., None] * weight[outer]).flatten(1)
        # Several of the up to four taps may be one input: keep the inputs from the first to the last with a weight.
        counts = weight != 0
        first = torch.where(counts, index, size).amin(1)
        taps = int((torch.where(counts, index, 0).amax(1) - first).max()) + 1
        start = first.clamp(max=size - taps)
        place = (index - start[:, None]).clamp(0, taps - 1)
        return cls(start, weight.new_zeros(len(start), taps).scatter_add_(1, place, weight))

    def index(self, size):
        """Input of every tap (out, taps); a tap past the last of ``size`` inputs has weight 0 and is clamped."""
        return (self.start[:, None] + torch.arange(self.weight.shape[1], device='cpu')).clamp(max=size - 1)

    def part(self, begin, end):
        """The map to outputs ``begin`` to ``end`` alone."""
        return AxisMap(self.start[begin:end], self.weight[begin:end])

    def apply(self, x, dim):
        """The map of ``x`` along ``dim``."""
        index, weight = self.index(x.shape[dim]).to(x.device), self.weight.to(x.device)
        shape = [-1 if i == dim else 1 for i in range(x.ndim)]
        result = x.index_select(dim, index[:, 0]).mul_(weight[:, 0].view(shape))
        for k in range(1, weight.shape[1]):
            tap = x.index_select(dim, index[:, k])
            result.addcmul_(tap, weight[:, k].view(shape))
        return result

    def transposed(self, size):
        """The transposed map, from a gradient of the output to one of the input; banded too, as ``start`` ascends."""
        index, outputs = self.index(size), torch.arange(len(self.start), device='cpu')
        counts = self.weight != 0
        taken, taking = index[counts], outputs[:, None].expand_as(index)[counts]
        first = outputs.new_full((size, ), len(outputs)).scatter_reduce_(0, taken, taking, 'amin')
        last = outputs.new_zeros(size).scatter_reduce_(0, taken, taking, 'amax')
        taps = int((last - first).max()) + 1
        start = first.clamp(max=len(outputs) - taps)
        output = start[:, None] + torch.arange(taps, device='cpu')
        takes = index[output] == torch.arange(size, device='cpu')[:, None, None]
        return AxisMap(start, (self.weight[output] * takes).sum(-1))
