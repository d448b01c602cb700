"""Cross-entropy, accuracy and class numbers of bilinearly upsampled logits, which never exist as a whole.

Upsampling is a linear map in each direction. Rows of the output are interpolated, used and forgotten, a block at a
time; the gradient with respect to the low-resolution logits, the transposed map of (softmax - target), is summed on the
way, so that a step needs memory for the low-resolution gradient and one block, where torch's operators hold several
tensors of the full size. Exact: the function of ``F.interpolate`` and ``F.cross_entropy``, different by rounding alone.

There are two implementations: a C++ kernel for the CPU (``csrc/upsampled_loss.cpp``) and torch operators for any
device. Both compute in float32, or in float64 where the logits are; neither uses matrix products, whose precision
autocast and TF32 settings change, nor operators that are not deterministic on CUDA.
"""
import functools
from typing import NamedTuple

import torch
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from ..errors import UserError
from . import _native as native

BLOCK_BYTES = 64 * 2**20  # of the torch form's buffers; large enough that launching operators costs little
NAMES = {torch.float32: 'float', torch.float64: 'double'}


class UpsampledLoss(NamedTuple):
    """Sums over the pixels of a batch whose label is not ignored; each a tensor without dimensions.

    Attributes:
        loss (Tensor): Sum of the pixels' cross-entropies, weighted by class; differentiable once.
        weight (Tensor): Sum of the class weights of the pixels' labels: their number where there are no class weights.
        pixels (Tensor): Number of pixels.
        correct (Tensor): Number of pixels whose label has the largest logit, the first of equal ones.
    """
    loss: torch.Tensor
    weight: torch.Tensor
    pixels: torch.Tensor
    correct: torch.Tensor


@torch.compiler.disable
def upsampled_cross_entropy(logits, labels, class_weight=None, ignore_index=255, label_smoothing=0.,
                            align_corners=False, impl='auto'):
    """``F.cross_entropy(F.interpolate(logits, (H, W), mode='bilinear'), labels, reduction='sum')``, and what else a
    loss and an accuracy are made of.

    The gradient is computed together with the loss, only when it is needed. Half precision logits are interpolated in
    float32, where ``F.interpolate`` rounds its result.

    Args:
        logits (Tensor): (B, C, h, w), floating point, in any layout.
        labels (Tensor): (B, H, W), class numbers; int64, or any integer type.
        class_weight (Tensor | Sequence[float], optional): (C, ), weight of each class.
        ignore_index (int): The label of pixels that do not count.
        label_smoothing (float): As in ``F.cross_entropy``.
        align_corners (bool): As in ``F.interpolate``.
        impl (str): 'native' is the C++ kernel, 'torch' torch operators, 'auto' the first where it can be had.

    Returns:
        UpsampledLoss: The sums.

    Raises:
        UserError: A label is neither a class nor ``ignore_index``, or the kernel is asked for and cannot be had.
        ValueError: The shapes do not fit.
    """
    if logits.ndim != 4 or labels.ndim != 3 or len(logits) != len(labels):
        raise ValueError(f'logits {tuple(logits.shape)} and labels {tuple(labels.shape)} do not fit. '
                         'Wanted: (B, C, h, w) and (B, H, W).')
    classes, dtype = logits.shape[1], compute_dtype(logits)
    weight = torch.as_tensor([1.] * classes if class_weight is None else class_weight, dtype=dtype).to(logits.device)
    if weight.shape != (classes, ):
        raise ValueError(f'class_weight has shape {tuple(weight.shape)}. Wanted: ({classes}, ), one for each class.')
    # The target of a pixel with label y is hard[y] in class y, plus even[c] in each class c.
    hard = weight * (1 - label_smoothing)
    even = weight * (label_smoothing / classes) if label_smoothing else None
    needs_gradient = logits.requires_grad and torch.is_grad_enabled()
    sums = SumOfLosses.apply(logits, labels.detach(), weight, hard, even, ignore_index, align_corners, needs_gradient,
                             implementation(logits, impl))
    return UpsampledLoss(*sums)


@torch.compiler.disable
@torch.no_grad()
def upsampled_argmax(logits, size, align_corners=False, padding=(0, 0, 0, 0), flip=None, ori_shape=None, impl='auto'):
    """Class numbers of ``logits`` that are upsampled to ``size``, cropped, flipped and resized to ``ori_shape``, as in
    mmseg's ``predict_by_feat`` and ``postprocess_result``.

    All of these are one linear map in each direction; the logits of the full size never exist. Half precision logits
    are interpolated in float32. Where logits are NaN the two implementations may differ.

    Args:
        logits (Tensor): (B, C, h, w), floating point, in any layout.
        size (tuple[int, int]): Height and width that the logits are upsampled to.
        align_corners (bool): As in ``F.interpolate``.
        padding (Sequence[int]): Pixels of ``size`` to crop: left, right, top, bottom.
        flip (str, optional): 'horizontal' or 'vertical': flip after cropping.
        ori_shape (tuple[int, int], optional): Height and width to resize to after that; None leaves it out.
        impl (str): As in :func:`upsampled_cross_entropy`.

    Returns:
        Tensor: (B, H, W), int64; (H, W) is ``ori_shape``, or ``size`` without padding.

    Raises:
        UserError: The kernel is asked for and cannot be had.
        ValueError: ``flip`` is something else.
    """
    if flip not in (None, 'horizontal', 'vertical'):
        raise ValueError(f"flip is {flip!r}. Wanted: None, 'horizontal' or 'vertical'.")
    left, right, top, bottom = map(int, padding)
    dtype = compute_dtype(logits)
    axes = [
        Axis.resizing_twice(int(logits.shape[2 + i]), int(size[i]), before, after, flip == direction,
                            None if ori_shape is None else int(ori_shape[i]), align_corners, dtype)
        for i, (before, after, direction) in enumerate([(top, bottom, 'vertical'), (left, right, 'horizontal')])]
    compute = native_argmax if implementation(logits, impl) == 'native' else torch_argmax
    return compute(to_nhwc(logits, dtype), *axes)


def compute_dtype(logits):
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


def to_nhwc(logits, dtype):
    """Logits (B, C, h, w) as a contiguous (B, h, w, C)."""
    return logits.detach().permute(0, 2, 3, 1).to(dtype).contiguous()


def implementation(logits, impl):
    """'native' or 'torch', for what a caller asked for.

    Raises:
        UserError: The kernel is asked for and cannot be had.
    """
    if impl not in ('auto', 'native', 'torch'):
        raise ValueError(f"impl is {impl!r}. Wanted: 'auto', 'native' or 'torch'.")
    if impl == 'torch' or (impl == 'auto' and logits.device.type != 'cpu'):
        return 'torch'
    if logits.device.type == 'cpu' and native.load('upsampled_loss'):
        return 'native'
    if impl == 'native':
        raise UserError(f"impl is 'native', and there is no C++ kernel for logits on {logits.device}. Wanted: the CPU, "
                        "a C++ compiler, and INCEPTIONNEXT_SEG_NATIVE not 0. Next: impl='auto'.")
    return 'torch'


# Interpolation along one axis


class Axis(NamedTuple):
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
        """Bilinear interpolation from ``size`` to ``out_size``: two taps, in torch's arithmetic.

        The taps of an input of one are it and nothing, with the weights 1 and 0. Source of the formulas:
        area_pixel_compute_source_index and compute_source_index_and_lambda in ATen/native/UpSample.h.
        """
        if min(size, out_size) < 1:
            raise ValueError(f'sizes are {size} and {out_size}. Wanted: at least 1.')
        output = torch.arange(out_size, dtype=dtype)
        if align_corners:
            source = output * (torch.tensor(size - 1, dtype=dtype) / max(out_size - 1, 1))
        else:
            source = ((output + 0.5) * (torch.tensor(size, dtype=dtype) / out_size) - 0.5).clamp(min=0)
        first = source.floor().clamp(max=size - 1)
        start = first.clamp(max=max(size - 2, 0))
        second = torch.where(first > start, 1., (source - first).clamp(max=1)) if size > 1 else torch.zeros(out_size)
        return cls(start.long(), torch.stack([1 - second, second], 1).to(dtype))

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
        return Axis(self.start[begin:end], self.weight[begin:end])

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
        return Axis(start, (self.weight[output] * takes).sum(-1))


def row_blocks(out_height, row_elements, dtype):
    """Ranges of output rows whose two buffers (rows, and a tap of them) are about ``BLOCK_BYTES`` together."""
    rows = max(1, BLOCK_BYTES // max(1, 2 * row_elements * dtype.itemsize))
    return [(begin, min(begin + rows, out_height)) for begin in range(0, out_height, rows)]


# Loss


class SumOfLosses(Function):
    """Loss, weight, pixels and correct; the gradient of the loss is computed in forward, where its inputs exist."""

    @staticmethod
    def forward(ctx, logits, labels, weight, hard, even, ignore_index, align_corners, needs_gradient, impl):
        nhwc = to_nhwc(logits, weight.dtype)
        axes = [Axis.resizing(nhwc.shape[1 + i], labels.shape[1 + i], align_corners, weight.dtype) for i in range(2)]
        gradient = torch.zeros_like(nhwc) if needs_gradient else None
        compute = native_loss if impl == 'native' else torch_loss
        *sums, invalid = compute(nhwc, labels, *axes, weight, hard, even, ignore_index, gradient)
        if invalid:
            raise out_of_range(labels, nhwc.shape[-1], ignore_index)
        ctx.save_for_backward(gradient)
        ctx.dtype, ctx.contiguous = logits.dtype, logits.is_contiguous()
        ctx.mark_non_differentiable(*sums[1:])
        return tuple(sums)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_loss, *_):
        # In float32 up to here: with a loss scale the product is in the range of float16, its factors are not.
        gradient = (ctx.saved_tensors[0] * grad_loss).to(ctx.dtype).permute(0, 3, 1, 2)
        return (gradient.contiguous() if ctx.contiguous else gradient, *[None] * 8)


def out_of_range(labels, classes, ignore_index):
    """The error for labels that are no class."""
    found = labels.unique().tolist()
    wrong = [label for label in found if label != ignore_index and not 0 <= label < classes]
    shown = ', '.join(map(str, wrong[:5])) + (', ...' if len(wrong) > 5 else '')
    return UserError(
        f'labels have values that are no class: {shown}. Wanted: 0 to {classes - 1}, or {ignore_index} for pixels that '
        "do not count. Next: check num_classes of the heads, and reduce_zero_label of the data set's LoadAnnotations.")


def native_loss(nhwc, labels, y_axis, x_axis, weight, hard, even, ignore_index, gradient):
    """Sums and the number of labels out of range; adds to ``gradient``. Everything is contiguous, on the CPU."""
    name = NAMES[nhwc.dtype]
    call = native.function('upsampled_loss', f'upsampled_loss_{name}', *[native.POINTER] * 2, *[native.INT] * 6,
                           *[native.POINTER] * 7, *[native.INT] * 2, *[native.POINTER] * 2)
    labels = labels.to(torch.int64).contiguous()
    result = torch.empty(5, dtype=torch.float64)
    call(*pointers(nhwc, labels), *nhwc.shape, *labels.shape[1:], *pointers(*y_axis, *x_axis, weight, hard, even),
         ignore_index, native.threads(), *pointers(gradient, result))
    loss, total, pixels, correct, invalid = result
    return loss.to(nhwc.dtype), total.to(nhwc.dtype), pixels.long(), correct.long(), invalid


def pointers(*tensors):
    return [tensor if tensor is None else tensor.data_ptr() for tensor in tensors]


def torch_loss(nhwc, labels, y_axis, x_axis, weight, hard, even, ignore_index, gradient):
    """As :func:`native_loss`, on any device."""
    batch, height, width, classes = nhwc.shape
    out_height, out_width = labels.shape[1:]
    sums = []
    x_transposed = x_axis.transposed(width) if gradient is not None else None
    for begin, end in row_blocks(out_height, batch * out_width * classes, nhwc.dtype):
        label = labels[:, begin:end].long()
        valid = label != ignore_index
        wrong = valid & ((label < 0) | (label >= classes))
        valid = valid & ~wrong
        index = torch.where(valid, label, 0)
        target = hard[index] * valid
        y_part = y_axis.part(begin, end)
        x = x_axis.apply(y_part.apply(nhwc, 1), 2)

        correct = ((x.argmax(-1) == index) & valid).sum()
        x -= x.amax(-1, keepdim=True)
        picked = x.gather(-1, index[..., None])[..., 0]
        flat = (x * even).sum(-1) if even is not None else 0.
        total = x.exp_().sum(-1)
        log_total, even_sum = total.log(), even.sum() if even is not None else 0.
        loss = target * (log_total - picked) + even_sum * log_total - flat
        sums.append((torch.where(valid, loss, 0.).sum(), (weight[index] * valid).sum(), valid.sum(), correct,
                     wrong.sum()))
        if gradient is None:
            continue
        x *= torch.where(valid, (target + even_sum) / total, 0.)[..., None]
        if even is not None:
            x -= valid[..., None] * even
        at_label = x.gather(-1, index[..., None]) - target[..., None]
        x.scatter_(-1, index[..., None], at_label)
        touched = slice(int(y_part.start[0]), min(int(y_part.start[-1]) + 2, height))
        y_part = Axis(y_part.start - touched.start, y_part.weight)
        y_transposed = y_part.transposed(touched.stop - touched.start)
        gradient[:, touched] += y_transposed.apply(x_transposed.apply(x, 2), 1)
    return [torch.stack(parts).sum(0) for parts in zip(*sums, strict=True)]


# Prediction


def native_argmax(nhwc, y_axis, x_axis):
    """Class numbers (B, H, W); everything is contiguous, on the CPU."""
    batch, height, width, classes = nhwc.shape
    result = torch.empty(batch, len(y_axis.start), len(x_axis.start), dtype=torch.int64)
    call = native.function('upsampled_loss', f'upsampled_argmax_{NAMES[nhwc.dtype]}', native.POINTER,
                           *[native.INT] * 8, *[native.POINTER] * 4, native.INT, native.POINTER)
    call(nhwc.data_ptr(), batch, height, width, classes, *result.shape[1:], y_axis.weight.shape[1],
         x_axis.weight.shape[1], *pointers(*y_axis, *x_axis), native.threads(), result.data_ptr())
    return result


def torch_argmax(nhwc, y_axis, x_axis):
    """As :func:`native_argmax`, on any device."""
    blocks = row_blocks(len(y_axis.start), len(nhwc) * len(x_axis.start) * nhwc.shape[-1], nhwc.dtype)
    return torch.cat([x_axis.apply(y_axis.part(*block).apply(nhwc, 1), 2).argmax(-1) for block in blocks], 1)
