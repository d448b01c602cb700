"""Class indices from the logits of sliding windows and of an image's versions, without logits of the image's size.

``argmax_c Σ_ij A_i z_ij B_jᵀ``, where ``z_ij`` are the low-resolution logits of the window in row ``i`` and column
``j``. Sliding windows form a grid, so that upsampling a window, placing it, dividing by the number of windows at a
pixel, cropping, flipping and resizing are one linear map along each axis; put side by side, the windows' logits are one
map ``Z`` and the whole is ``A Z Bᵀ`` with a few taps a row. Test-time augmentation sums ``softmax(A Z Bᵀ)`` over the
versions of an image before the argmax.

Beside the reference there are a C++ kernel for the CPU (``csrc/windowed_argmax.cpp``), a Triton kernel for CUDA
(:mod:`.windowed_argmax_triton`), and torch operators on blocks of rows for any device. All compute in the dtype of the
map.
"""
from typing import NamedTuple

import torch

from . import _native as native
from . import _triton, dispatch
from .bilinear import AxisMap
from .dtypes import C_TYPES

BLOCK_BYTES = 64 * 2**20  # of the blocked form's buffers; large enough that launching operators costs little


class Taps(NamedTuple):
    """A sparse linear map along one axis: output ``o`` is the sum over k of ``weight[o, k] * input[index[o, k]]``.

    Tables are made on the CPU; :meth:`to` brings them to a device, once for all images of a size.

    Attributes:
        index (Tensor): (out, taps), int64. A tap of weight 0 may name any input.
        weight (Tensor): (out, taps).
    """
    index: torch.Tensor
    weight: torch.Tensor

    @classmethod
    def of_windows(cls, starts, window, low, upsampled, align_corners, dtype):
        """From the windows' logits, one window after the other, to the mean of the upsampled windows at each position.

        Args:
            starts (Sequence[int]): First position of each window, ascending; together they cover all positions.
            window (int): Positions of a window.
            low (int): Logits of a window.
            upsampled (int): Positions that a window's logits are upsampled to; those past ``window`` are padding.
        """
        axis = AxisMap.resizing(low, upsampled, align_corners, dtype).part(0, window)
        one = cls(axis.index(low), axis.weight)
        taps, size = one.weight.shape[1], starts[-1] + window
        index = torch.zeros(size, len(starts) * taps, dtype=torch.int64, device='cpu')
        weight = torch.zeros(size, len(starts) * taps, dtype=dtype, device='cpu')
        count = torch.zeros(size, 1, dtype=dtype, device='cpu')
        for i, start in enumerate(starts):
            index[start:start + window, i * taps:(i + 1) * taps] = one.index + i * low
            weight[start:start + window, i * taps:(i + 1) * taps] = one.weight
            count[start:start + window] += 1
        return cls(index, weight / count).merged()

    def then(self, before=0, after=0, flip=False, size=None, align_corners=False):
        """The map followed by cropping ``before`` and ``after`` at the ends, flipping, and resizing to ``size``."""
        index, weight = (t[before:len(t) - after] for t in self)
        if flip:
            index, weight = index.flip(0), weight.flip(0)
        if size is not None and size != len(index):
            second = AxisMap.resizing(len(index), size, align_corners, weight.dtype)
            outer = second.index(len(index))
            index, weight = index[outer].flatten(1), (second.weight[..., None] * weight[outer]).flatten(1)
        return Taps(index, weight).merged()

    def merged(self):
        """The same map with one tap for each input, and no more taps than a row needs."""
        last = torch.iinfo(torch.int64).max
        index, order = self.index.masked_fill(self.weight == 0, last).sort(dim=1, stable=True)
        new = (index[:, 1:] != index[:, :-1]).long()
        place = torch.cat([new.new_zeros(len(new), 1), new.cumsum(1)], 1)
        weight = torch.zeros_like(self.weight).scatter_add_(1, place, self.weight.gather(1, order))
        index = torch.zeros_like(self.index).scatter_(1, place, index.masked_fill(index == last, 0))
        taps = max(1, int((weight != 0).sum(1).max()))  # inputs come first, in order; what has no weight is last
        return Taps(index[:, :taps].contiguous(), weight[:, :taps].contiguous())

    def to(self, device):
        """The map with its tables on ``device``."""
        return Taps(*(t.to(device) for t in self))

    def part(self, begin, end):
        """The map to outputs ``begin`` to ``end`` alone."""
        return Taps(self.index[begin:end], self.weight[begin:end])

    def apply(self, x, dim):
        """The map of ``x`` along ``dim``."""
        index, weight = self.to(x.device)
        shape = [-1 if i == dim else 1 for i in range(x.ndim)]
        result = x.index_select(dim, index[:, 0]).mul_(weight[:, 0].view(shape))
        for k in range(1, weight.shape[1]):
            result.addcmul_(x.index_select(dim, index[:, k]), weight[:, k].view(shape))
        return result

    def matrix(self, size):
        """The map from ``size`` inputs as a dense matrix (out, size)."""
        return self.weight.new_zeros(len(self.weight), size).scatter_add_(1, self.index, self.weight)


# Reference


def windowed_argmax_torch(logits, y_taps, x_taps, sums):
    y_matrix, x_matrix = (taps.matrix(n).to(logits) for taps, n in zip(
        (y_taps, x_taps), logits.shape[1:3], strict=True))
    x = torch.einsum('yh,bhwc,xw->byxc', y_matrix, logits, x_matrix)
    return x.argmax(-1) if sums is None else sums.add_(x.softmax(-1)).argmax(-1)


# Kernels, or blocks of rows


def windowed_argmax_native(logits, y_taps, x_taps, sums):
    logits = logits.contiguous()
    result = logits.new_empty(len(logits), len(y_taps.index), len(x_taps.index), dtype=torch.int64)
    native.function('windowed_argmax', f'windowed_argmax_{C_TYPES[logits.dtype]}')(
        logits, *logits.shape, *result.shape[1:], y_taps.index.shape[1], x_taps.index.shape[1],
        *(t.contiguous() for t in (*y_taps, *x_taps)), native.threads(), sums, result)
    return result


def windowed_argmax_triton(logits, y_taps, x_taps, sums):
    # Not at the top: Triton is not everywhere.
    from . import windowed_argmax_triton as kernel
    return kernel.class_indices(logits.contiguous(), *(taps.to(logits.device) for taps in (y_taps, x_taps)), sums)


def windowed_argmax_blocked(logits, y_taps, x_taps, sums):
    y_taps, x_taps = y_taps.to(logits.device), x_taps.to(logits.device)     # whole: a copy for each block would wait
    out_height, row = len(y_taps.index), len(logits) * len(x_taps.index) * logits.shape[-1]
    rows = max(1, BLOCK_BYTES // max(1, 2 * row * logits.dtype.itemsize))
    blocks = []
    for begin in range(0, out_height, rows):
        x = x_taps.apply(y_taps.part(begin, begin + rows).apply(logits, 1), 2)
        if sums is not None:
            x = sums[:, begin:begin + rows].add_(x.softmax(-1))
        blocks.append(x.argmax(-1))
    return torch.cat(blocks, 1)


# What the kernels cannot take


def why_not_native(logits, y_taps, x_taps, sums):
    if logits.device.type != 'cpu':
        return f'the logits are on {logits.device}, and the C++ kernel is for a CPU'
    if logits.dtype not in C_TYPES:
        return f'the logits are {logits.dtype}, and the C++ kernel takes {", ".join(map(str, C_TYPES))}'
    return native.why_not('windowed_argmax')


def why_not_triton(logits, *args):
    if logits.dtype != torch.float32:
        return f'the logits are {logits.dtype}, and the Triton kernel takes torch.float32'
    return _triton.why_not(logits.device)


def is_on_cuda(logits, *args):
    return logits.device.type == 'cuda'


def can_be_timed(logits, y_taps, x_taps, sums):
    """Sums would be added to each time; and on a CPU the reference takes the memory that the others save."""
    return sums is None and is_on_cuda(logits)


FORMS = dict(
    native=dispatch.Form(windowed_argmax_native, why_not_native, timed=can_be_timed),
    triton=dispatch.Form(windowed_argmax_triton, why_not_triton, is_on_cuda, can_be_timed),
    blocked=dispatch.Form(windowed_argmax_blocked, timed=can_be_timed),
    torch=dispatch.Form(windowed_argmax_torch, timed=can_be_timed))


# The operator


@torch.compiler.disable
@torch.no_grad()
def windowed_argmax(logits, y_taps, x_taps, sums=None, impl='auto'):
    """Class indices of a map of logits that ``y_taps`` and ``x_taps`` interpolate; of equal ones the first.

    Args:
        logits (Tensor): (B, h, w, C), float32 or float64; the windows' logits side by side.
        y_taps (Taps), x_taps (Taps): From ``h`` to ``H`` and from ``w`` to ``W``, on the CPU or where the logits are.
            Those on a CPU are checked; to read others would make the host wait for the device.
        sums (Tensor | None): (B, H, W, C), contiguous, of the logits' dtype: sums of probabilities, to which those of
            these logits are added in place; the classes are then those of the largest sums.
        impl (str): 'native' is the C++ kernel, 'triton' the Triton kernel, 'blocked' torch operators on some rows at a
            time, 'torch' interpolates all at once; 'auto' takes the first that can, on CUDA the fastest that was
            measured. See :mod:`.dispatch`.

    Returns:
        Tensor: (B, H, W), int64.

    Raises:
        ValueError: The shapes do not fit.
        FormError: ``impl`` is no form, or one that cannot take these logits.
    """
    for name, taps, size in (('y_taps', y_taps, logits.shape[1]), ('x_taps', x_taps, logits.shape[2])):
        if taps.index.device.type != 'cpu':
            continue
        if int(taps.index.max()) >= size or int(taps.index.min()) < 0:
            raise ValueError(f'{name} reads inputs {int(taps.index.min())} to {int(taps.index.max())}; the logits have '
                             f'{size} on that axis')
    expected = (len(logits), len(y_taps.index), len(x_taps.index), logits.shape[-1])
    if sums is not None and (tuple(sums.shape) != expected or sums.dtype != logits.dtype or not sums.is_contiguous()):
        raise ValueError(f'sums are {tuple(sums.shape)}, {sums.dtype}; expected {expected}, {logits.dtype}, contiguous')
    return dispatch.run('windowed_argmax', FORMS, impl, logits, y_taps, x_taps, sums)
