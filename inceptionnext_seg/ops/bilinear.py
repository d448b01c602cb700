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
    output = torch.arange(size_out, dtype=dtype)
    if align_corners:
        source = output * (torch.tensor(size_in - 1, dtype=dtype) / max(size_out - 1, 1))
    else:
        source = ((output + 0.5) * (torch.tensor(size_in, dtype=dtype) / size_out) - 0.5).clamp(min=0)
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

        The taps of an input of one are it and nothing, with the weights 1 and 0.
        """
        if min(size, out_size) < 1:
            raise ValueError(f'sizes are {size} and {out_size}; expected at least 1')
        lower, fraction = source_positions(size, out_size, align_corners, dtype)
        start = lower.clamp(max=max(size - 2, 0))
        upper = torch.where(lower > start, 1., fraction) if size > 1 else torch.zeros(out_size)
        return cls(start, torch.stack([1 - upper, upper], 1).to(dtype))

    @classmethod
    def resizing_twice(cls, size, middle, before, after, flip, out_size, align_corners, dtype):
        """From ``size`` to ``middle``, less ``before`` and ``after`` at its ends, flipped, to ``out_size`` or as is."""
        axis = cls.resizing(size, middle, align_corners, dtype).part(before, middle - after)
        index, weight = axis.index(size), axis.weight
        if flip:
            index, weight = index.flip(0), weight.flip(0)
        if out_size is not None:
            second = cls.resizing(len(index), out_size, align_corners, dtype)
            outer = second.index(len(index))
            index = index[outer].flatten(1)
            weight = (second.weight[..., None] * weight[outer]).flatten(1)
        # Most of these up to four taps are the same; those between the first and the last that counts are kept.
        counts = weight != 0
        first = torch.where(counts, index, size).amin(1)
        taps = int((torch.where(counts, index, 0).amax(1) - first).max()) + 1
        start = first.clamp(max=size - taps)
        place = (index - start[:, None]).clamp(0, taps - 1)
        return cls(start, torch.zeros(len(start), taps, dtype=dtype).scatter_add_(1, place, weight))

    def index(self, size):
        """Input of every tap (out, taps); a tap behind the end of the ``size`` inputs has no weight and is the last."""
        return (self.start[:, None] + torch.arange(self.weight.shape[1])).clamp(max=size - 1)

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
        index, outputs = self.index(size), torch.arange(len(self.start))
        counts = self.weight != 0
        taken, taking = index[counts], outputs[:, None].expand_as(index)[counts]
        first = torch.full((size, ), len(outputs)).scatter_reduce_(0, taken, taking, 'amin')
        last = torch.zeros(size, dtype=torch.long).scatter_reduce_(0, taken, taking, 'amax')
        taps = int((last - first).max()) + 1
        start = first.clamp(max=len(outputs) - taps)
        output = start[:, None] + torch.arange(taps)
        takes = index[output] == torch.arange(size)[:, None, None]
        return AxisMap(start, (self.weight[output] * takes).sum(-1))
