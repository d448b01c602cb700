"""Cross-entropy, accuracy and class indices of bilinearly upsampled logits, without materializing them.

``loss = Σ_p CE(Y z X^T, labels)_p``, where the banded matrices ``Y`` and ``X`` upsample low-resolution logits ``z``.
Rows of the output are interpolated, used and forgotten, a block at a time; the gradient with respect to ``z``,
``Y^T (softmax − target) X``, is summed on the way, so that a step needs memory for the low-resolution gradient and one
block, where torch's operators hold several tensors of the full size. Exact: the function of ``F.interpolate`` and
``F.cross_entropy``, different by rounding alone.

Beside the reference there are a C++ kernel for the CPU (``csrc/upsampled_loss.cpp``), Triton kernels for CUDA
(:mod:`.upsampled_cross_entropy_triton`), which keep a number for each pixel of the output and gather the gradient in
the backward pass, and torch operators on blocks of rows for any device. All compute in float32, or in float64 where the
logits are; the fast ones use neither matrix products, whose precision autocast and TF32 settings change, nor operators
that are not deterministic on CUDA.
"""
import functools
from typing import NamedTuple

import torch
import torch.nn.functional as F

from . import _native as native
from . import _triton, dispatch, label_check
from .bilinear import AxisMap, resize
from .dtypes import C_TYPES, TRITON_DTYPES, compute_dtype, label_dtype
from .label_check import out_of_range
from .registration import INTS, TENSORS, gradients_again, register

BLOCK_BYTES = 64 * 2**20  # of the blocked form's buffers; large enough that launching operators costs little


class UpsampledLoss(NamedTuple):
    """Sums over the pixels of a batch whose label is not ignored; each a tensor without dimensions.

    Attributes:
        loss (Tensor): Sum of the pixels' cross-entropies, weighted by class.
        weight (Tensor): Sum of the class weights of the pixels' labels: their number where there are no class weights.
        pixels (Tensor): Number of pixels.
        correct (Tensor): Number of pixels whose label has the largest logit, the first of equal ones.
    """
    loss: torch.Tensor
    weight: torch.Tensor
    pixels: torch.Tensor
    correct: torch.Tensor


# Reference: all logits at full resolution


def upsampled_cross_entropy_torch(logits, labels, class_weight, ignore_index, label_smoothing, align_corners):
    x = F.interpolate(logits.to(compute_dtype(logits.dtype)), labels.shape[1:], mode='bilinear',
                      align_corners=align_corners)
    labels = labels.long()
    valid = labels != ignore_index
    has_values = not (dispatch.is_hollow(logits) or dispatch.runs_elsewhere() or dispatch.is_transformed()
                      or torch.compiler.is_compiling())
    if has_values and (valid & ((labels < 0) | (labels >= x.shape[1]))).any():
        raise out_of_range(labels.unique().tolist(), x.shape[1], ignore_index)
    loss = F.cross_entropy(x, labels, class_weight, ignore_index=ignore_index, reduction='sum',
                           label_smoothing=label_smoothing)
    pixels = valid.sum()
    weight = pixels.to(x.dtype) if class_weight is None else (class_weight[labels * valid] * valid).sum()
    return UpsampledLoss(loss, weight, pixels, ((x.argmax(1) == labels) & valid).sum())


def upsampled_argmax_torch(logits, size, align_corners, padding, flip, ori_shape):
    left, right, top, bottom = padding
    x = resize(logits.to(compute_dtype(logits.dtype)), size, align_corners)
    x = x[:, :, top:size[0] - bottom, left:size[1] - right]
    if flip:
        x = x.flip(3 if flip == 'horizontal' else 2)
    if ori_shape is not None:
        x = resize(x, ori_shape, align_corners)
    return x.argmax(1)


# Loss: a C++ kernel, or blocks of rows


def upsampled_cross_entropy_native(*args):
    return sum_of_losses('native', *args)


def upsampled_cross_entropy_blocked(*args):
    return sum_of_losses('blocked', *args)


def sum_of_losses(form, logits, *settings):
    needs_gradient = logits.requires_grad and torch.is_grad_enabled()
    loss, *counts, _ = loss_sums_operator(logits, *settings, form, needs_gradient)
    return UpsampledLoss(loss, *(count.detach() for count in counts))


def loss_sums(logits: torch.Tensor, labels: torch.Tensor, class_weight: torch.Tensor | None, ignore_index: int,
              label_smoothing: float, align_corners: bool, form: str, needs_gradient: bool) -> TENSORS:
    """Loss, weight, pixels, correct, and the gradient (B, h, w, C) of the loss, empty unless it is needed: it is
    computed here, where its inputs exist."""
    nhwc = to_nhwc(logits)
    classes = nhwc.shape[-1]
    weight = nhwc.new_ones(classes) if class_weight is None else class_weight
    # The target of a pixel with label y is hard[y] in class y, plus even[c] in each class c.
    hard = weight * (1 - label_smoothing)
    even = weight * (label_smoothing / classes) if label_smoothing else None
    axes = [AxisMap.resizing(nhwc.shape[1 + i], labels.shape[1 + i], align_corners, nhwc.dtype) for i in range(2)]
    gradient = torch.zeros_like(nhwc) if needs_gradient else None
    compute = dict(native=native_sums, blocked=blocked_sums)[form]
    *sums, invalid = compute(nhwc, labels, *axes, weight, hard, even, ignore_index, gradient)
    if invalid:
        raise out_of_range(labels.unique().tolist(), classes, ignore_index)
    # Not parts of one tensor, which outputs of an operator may not be.
    return [*(total.clone() for total in sums), nhwc.new_empty(0) if gradient is None else gradient]


def loss_sums_fake(logits, labels, class_weight, ignore_index, label_smoothing, align_corners, form, needs_gradient):
    number = logits.new_empty((), dtype=compute_dtype(logits.dtype))
    count = logits.new_empty((), dtype=torch.int64)
    batch, classes, height, width = logits.shape
    return [number, torch.empty_like(number), count, torch.empty_like(count),
            number.new_empty((batch, height, width, classes) if needs_gradient else 0)]


def native_sums(nhwc, labels, y_axis, x_axis, weight, hard, even, ignore_index, gradient):
    """Sums and the number of labels out of range; adds to ``gradient``. Everything is contiguous, on the CPU."""
    labels = labels.to(torch.int64).resolve_neg().contiguous()
    result = nhwc.new_empty(5, dtype=torch.float64)
    native.function('upsampled_loss', f'upsampled_loss_{C_TYPES[nhwc.dtype]}')(
        nhwc, labels, *nhwc.shape, *labels.shape[1:], *y_axis, *x_axis, weight, hard, even, ignore_index,
        native.threads(), gradient, result)
    loss, total, pixels, correct, invalid = result
    return loss.to(nhwc.dtype), total.to(nhwc.dtype), pixels.long(), correct.long(), invalid


def blocked_sums(nhwc, labels, y_axis, x_axis, weight, hard, even, ignore_index, gradient):
    """As :func:`native_sums`, on any device."""
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
        y_part = AxisMap(y_part.start - touched.start, y_part.weight)
        y_transposed = y_part.transposed(touched.stop - touched.start)
        gradient[:, touched] += y_transposed.apply(x_transposed.apply(x, 2), 1)
    return [torch.stack(parts).sum(0) for parts in zip(*sums, strict=True)]


def row_blocks(out_height, row_elements, dtype):
    """Ranges of output rows whose two buffers (rows, and a tap of them) are about ``BLOCK_BYTES`` together."""
    rows = max(1, BLOCK_BYTES // max(1, 2 * row_elements * dtype.itemsize))
    return [(begin, min(begin + rows, out_height)) for begin in range(0, out_height, rows)]


def to_nhwc(logits):
    """Logits (B, C, h, w) as a contiguous (B, h, w, C) of the dtype to compute in."""
    # A kernel reads memory, and a view such as `z.conj().imag` is minus what is there.
    return logits.detach().permute(0, 2, 3, 1).to(compute_dtype(logits.dtype)).resolve_neg().contiguous()


# Loss: Triton kernels


def upsampled_cross_entropy_triton(logits, labels, class_weight, ignore_index, label_smoothing, align_corners):
    needs_gradient = logits.requires_grad and torch.is_grad_enabled()
    loss, *counts, _, _ = triton_sums_operator(
        logits, labels, class_weight, ignore_index, label_smoothing, align_corners, needs_gradient)
    return UpsampledLoss(loss, *(count.detach() for count in counts))


def triton_sums(logits: torch.Tensor, labels: torch.Tensor, class_weight: torch.Tensor | None, ignore_index: int,
                label_smoothing: float, align_corners: bool, needs_gradient: bool) -> TENSORS:
    """Loss, weight, pixels, correct, and what the gradient needs of each pixel: its label in a small dtype, and the
    logarithm of its sum; both are empty unless it is needed."""
    # Not at the top: Triton is not everywhere.
    from . import upsampled_cross_entropy_triton as kernels
    label_check.check(logits.device)
    *sums, wrong, kept = kernels.loss_sums(
        rows_of_classes(logits), labels, class_weight, ignore_index, label_smoothing, align_corners, needs_gradient)
    label_check.watch(wrong, logits.shape[1], ignore_index)
    if logits.device.type == 'cpu':     # in Triton's interpreter all has arrived
        label_check.check()
    return [*sums, *(kept or (labels.new_empty(0, dtype=label_dtype(logits.shape[1])),
                              logits.new_empty(0, dtype=torch.float32)))]


def triton_sums_fake(logits, labels, class_weight, ignore_index, label_smoothing, align_corners, needs_gradient):
    number, count = (logits.new_empty((), dtype=dtype) for dtype in (torch.float32, torch.int64))
    shape = labels.shape if needs_gradient else (0, )
    return [number, torch.empty_like(number), count, torch.empty_like(count),
            labels.new_empty(shape, dtype=label_dtype(logits.shape[1])), number.new_empty(shape)]


def rows_of_classes(logits):
    """Logits (B, C, h, w) as a contiguous (B, h, w, C): themselves where they are channels_last."""
    return logits.detach().permute(0, 2, 3, 1).resolve_neg().contiguous()


def triton_gradient(grad_loss: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor, log_sums: torch.Tensor,
                    class_weight: torch.Tensor | None, label_smoothing: float, align_corners: bool) -> torch.Tensor:
    """Gradient to the logits, in their dtype and layout; ``labels`` and ``log_sums`` as :func:`triton_sums` kept them.
    Where the kernel fails, by blocks of rows."""
    from . import upsampled_cross_entropy_triton as kernels
    try:
        gradient = kernels.loss_gradient(rows_of_classes(logits), (labels, log_sums), class_weight, label_smoothing,
                                         align_corners, grad_loss)
    except _triton.LaunchError:
        # A pixel that does not count has the number of classes as its label.
        *_, gradient = loss_sums(
            logits, labels, class_weight, logits.shape[1], label_smoothing, align_corners, 'blocked', True)
        gradient = (gradient * grad_loss).to(logits.dtype)
    return laid_out_as(logits, gradient)


def laid_out_as(logits, gradient):
    """A gradient (B, h, w, C) as (B, C, h, w) in the layout of the logits."""
    gradient = gradient.permute(0, 3, 1, 2)
    return gradient.contiguous() if logits.is_contiguous() else gradient


def triton_gradient_fake(grad_loss, logits, *args):
    return laid_out_as(logits, logits.new_empty([logits.shape[i] for i in (0, 2, 3, 1)]))


def save_for_triton_gradient(ctx, inputs, output):
    ctx.set_materialize_grads(False)    # only the loss has a gradient
    logits, labels, class_weight, *ctx.settings, _ = inputs
    ctx.save_for_backward(logits, labels, class_weight, *output[4:])


def triton_sums_gradient(ctx, grads):
    logits, labels, class_weight, *kept = ctx.saved_tensors
    if grads[0] is None:
        return (None, ) * 7
    if torch.is_grad_enabled():
        gradient, = gradients_again(
            lambda logits: upsampled_cross_entropy_torch(logits, labels, class_weight, *ctx.settings).loss,
            [logits], [True], grads[0])
    else:
        gradient = triton_gradient_operator(grads[0], logits, *kept, class_weight, *ctx.settings[1:])
    return (gradient, *[None] * 6)


triton_gradient_operator = register(
    'upsampled_loss_triton_backward', triton_gradient, fake=triton_gradient_fake, devices=None)
triton_sums_operator = register(
    'upsampled_loss_triton', triton_sums, fake=triton_sums_fake, backward=triton_sums_gradient,
    setup_context=save_for_triton_gradient, devices=None)


# Gradient of the C++ kernel and of blocks of rows


def save_for_gradient(ctx, inputs, output):
    ctx.set_materialize_grads(False)    # only the loss has a gradient
    logits, labels, class_weight, *ctx.settings = inputs[:6]
    ctx.save_for_backward(output[4], logits, labels, class_weight)


def loss_sums_gradient(ctx, grads):
    gradient, logits, labels, class_weight = ctx.saved_tensors
    if grads[0] is None:
        return (None, ) * 8
    if torch.is_grad_enabled():
        gradient, = gradients_again(
            lambda logits: upsampled_cross_entropy_torch(logits, labels, class_weight, *ctx.settings).loss,
            [logits], [True], grads[0])
        return (gradient, *[None] * 7)
    # In float32 up to here: with a loss scale the product is in the range of float16, its factors are not.
    return (laid_out_as(logits, (gradient * grads[0]).to(logits.dtype)), *[None] * 7)


loss_sums_operator = register(
    'upsampled_loss_sums', loss_sums, fake=loss_sums_fake, backward=loss_sums_gradient,
    setup_context=save_for_gradient, devices=None)


# Prediction: kernels, or blocks of rows


def upsampled_argmax_native(*args):
    return upsampled_argmax_operator('native', *args)


def upsampled_argmax_triton(*args):
    return upsampled_argmax_operator('triton', *args)


def upsampled_argmax_blocked(*args):
    return upsampled_argmax_operator('blocked', *args)


def class_indices(form: str, logits: torch.Tensor, size: INTS, align_corners: bool, padding: INTS, flip: str | None,
                  ori_shape: INTS | None) -> torch.Tensor:
    compute = dict(native=native_indices, triton=triton_indices, blocked=blocked_indices)[form]
    return compute(logits, size, align_corners, padding, flip, ori_shape)


def class_indices_fake(form, logits, size, align_corners, padding, flip, ori_shape):
    left, right, top, bottom = padding
    height, width = ori_shape or (size[0] - top - bottom, size[1] - left - right)
    return logits.new_empty((len(logits), height, width), dtype=torch.int64)


upsampled_argmax_operator = register('upsampled_argmax', class_indices, fake=class_indices_fake, devices=None)


def native_indices(logits, *steps):
    nhwc = to_nhwc(logits)
    y_axis, x_axis = axis_maps(nhwc, *steps)
    result = nhwc.new_empty(len(nhwc), len(y_axis.start), len(x_axis.start), dtype=torch.int64)
    native.function('upsampled_loss', f'upsampled_argmax_{C_TYPES[nhwc.dtype]}')(
        nhwc, *nhwc.shape, *result.shape[1:], y_axis.weight.shape[1], x_axis.weight.shape[1], *y_axis, *x_axis,
        native.threads(), result)
    return result


def blocked_indices(logits, *steps):
    nhwc = to_nhwc(logits)
    y_axis, x_axis = axis_maps(nhwc, *steps)
    blocks = row_blocks(len(y_axis.start), len(nhwc) * len(x_axis.start) * nhwc.shape[-1], nhwc.dtype)
    return torch.cat([x_axis.apply(y_axis.part(*block).apply(nhwc, 1), 2).argmax(-1) for block in blocks], 1)


def triton_indices(logits, *steps):
    from . import upsampled_cross_entropy_triton as kernels
    nhwc = rows_of_classes(logits)
    return kernels.class_indices(nhwc, *axis_steps(nhwc, *steps))


def axis_steps(nhwc, size, align_corners, padding, flip, ori_shape):
    """Upsampling, cropping, flipping and resizing along the height and along the width, as :class:`AxisMap` takes
    them."""
    left, right, top, bottom = padding
    return [(nhwc.shape[1 + i], size[i], before, after, flip == direction, None if ori_shape is None else ori_shape[i],
             align_corners)
            for i, (before, after, direction) in enumerate([(top, bottom, 'vertical'), (left, right, 'horizontal')])]


def axis_maps(nhwc, *steps):
    """All of these as one linear map along the height and one along the width."""
    return [AxisMap.resizing_twice(*axis, nhwc.dtype) for axis in axis_steps(nhwc, *steps)]


# What the kernels cannot take


def why_not_native(logits, *args):
    if logits.device.type != 'cpu':
        return f'the logits are on {logits.device}, and the C++ kernel is for a CPU'
    return native.why_not('upsampled_loss')


def why_not_triton(logits, *args):
    if logits.dtype not in TRITON_DTYPES:
        return f'the logits are {logits.dtype}, and the kernels have {", ".join(map(str, TRITON_DTYPES))}'
    return _triton.why_not(logits.device)


def is_on_cuda(logits, *args):
    return logits.device.type == 'cuda'


def is_on_cpu(logits, *args):
    """Beside the CPU, rows in blocks are thousands of small operators, and tables copied from the host for each."""
    return logits.device.type == 'cpu'


def is_worth_in_blocks(logits, *args):
    """Beside the CPU only where torch's own loss, which is not deterministic, would raise an error."""
    return is_on_cpu(logits) or torch.are_deterministic_algorithms_enabled()


LOSS_FORMS = dict(
    native=dispatch.Form(upsampled_cross_entropy_native, why_not_native),
    triton=dispatch.Form(upsampled_cross_entropy_triton, why_not_triton, is_on_cuda),
    blocked=dispatch.Form(upsampled_cross_entropy_blocked, worth=is_worth_in_blocks, timed=is_on_cpu),
    torch=dispatch.Form(upsampled_cross_entropy_torch))
ARGMAX_FORMS = dict(
    native=dispatch.Form(upsampled_argmax_native, why_not_native),
    triton=dispatch.Form(upsampled_argmax_triton, why_not_triton, is_on_cuda),
    blocked=dispatch.Form(upsampled_argmax_blocked, worth=is_on_cpu, timed=is_on_cpu),
    torch=dispatch.Form(upsampled_argmax_torch))


# The operators


def upsampled_cross_entropy(logits, labels, class_weight=None, ignore_index=255, label_smoothing=0.,
                            align_corners=False, impl='auto'):
    """``F.cross_entropy(F.interpolate(logits, (H, W), mode='bilinear'), labels, reduction='sum')``, and the
    counts that a loss and an accuracy need.

    The gradient is computed together with the loss, and only when needed. Half precision logits are interpolated in
    float32, where ``F.interpolate`` rounds its result.

    Args:
        logits (Tensor): (B, C, h, w), floating point, in any layout.
        labels (Tensor): (B, H, W), class indices; int64, or any integer type.
        class_weight (Tensor | Sequence[float], optional): (C, ), weight of each class.
        ignore_index (int): The label of pixels that do not count.
        label_smoothing (float): As in ``F.cross_entropy``.
        align_corners (bool): As in ``F.interpolate``.
        impl (str): 'native' is the C++ kernel, 'triton' the Triton kernels, 'blocked' the same sums by torch operators
            on some rows at a time, 'torch' upsamples all logits; 'auto' takes the first that can, and on CUDA
            'blocked' only under deterministic algorithms without Triton. See :mod:`.dispatch`.

    Returns:
        UpsampledLoss: The sums.

    Raises:
        UserError: A label is neither a class nor ``ignore_index``. The form 'triton' does not wait to learn it: that
            loss is NaN, and a later call raises the error, see :mod:`.label_check`.
        ValueError: The shapes or devices do not fit.
        FormError: ``impl`` is no form, or one that cannot take these logits.
    """
    if logits.ndim != 4 or labels.ndim != 3 or len(logits) != len(labels):
        raise ValueError(f'logits {tuple(logits.shape)} and labels {tuple(labels.shape)} do not fit; '
                         'expected (B, C, h, w) and (B, H, W)')
    if labels.device != logits.device:
        raise ValueError(f'the labels are on {labels.device} and the logits on {logits.device}; expected one device')
    if class_weight is not None:
        class_weight = weight_on_device(class_weight, compute_dtype(logits.dtype), logits.device)
        if class_weight.shape != (logits.shape[1], ):
            raise ValueError(f'class_weight has shape {tuple(class_weight.shape)}; expected ({logits.shape[1]}, ), one '
                             'for each class')
    return dispatch.run('upsampled_cross_entropy', LOSS_FORMS, impl, logits, labels, class_weight, ignore_index,
                        label_smoothing, align_corners)


def weight_on_device(class_weight, dtype, device):
    """A tensor, or numbers, as a contiguous tensor; numbers are copied to a CUDA device once, and kept there."""
    if isinstance(class_weight, torch.Tensor) or device.type != 'cuda':
        return torch.as_tensor(class_weight, dtype=dtype).to(device).resolve_neg().contiguous()
    return weight_of_numbers(tuple(class_weight), dtype, device)


@functools.lru_cache(maxsize=16)
def weight_of_numbers(numbers, dtype, device):
    with torch.inference_mode(False):   # where the first call is in it, training can follow
        return torch.tensor(numbers, dtype=dtype, device=device)


@torch.no_grad()
def upsampled_argmax(logits, size, align_corners=False, padding=(0, 0, 0, 0), flip=None, ori_shape=None, impl='auto'):
    """Class indices of ``logits`` that are upsampled to ``size``, cropped, flipped and resized to ``ori_shape``, as in
    mmseg's ``predict_by_feat`` and ``postprocess_result``.

    All of these are one linear map in each direction, so that logits of the full size are not materialized. Half
    precision logits are interpolated in float32. Where logits are NaN the forms may differ.

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
        ValueError: ``flip`` is something else.
        FormError: ``impl`` is no form, or one that cannot take these logits.
    """
    if flip not in (None, 'horizontal', 'vertical'):
        raise ValueError(f"flip is {flip!r}; expected None, 'horizontal' or 'vertical'")
    size, padding = tuple(map(int, size)), tuple(map(int, padding))
    ori_shape = None if ori_shape is None else tuple(map(int, ori_shape))
    return dispatch.run('upsampled_argmax', ARGMAX_FORMS, impl, logits, size, align_corners, padding, flip, ori_shape)
