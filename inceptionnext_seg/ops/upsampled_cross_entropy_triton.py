"""Triton kernels of :mod:`inceptionnext_seg.ops.upsampled_cross_entropy`, for CUDA: no atomics, no host in the way.

Classes lie along the lanes of a warp, which is a program: in two parts, since the number of classes is seldom a power
of two (150 = 128 + 22, of 128 + 32 lanes). Logits are (B, h, w, C), in any floating-point dtype up to float32, and are
interpolated in float32.

- Loss: a program walks along a row of the output. Between two neighbouring columns of the logits it reads them once,
  for all pixels in between. It keeps the logarithm of each pixel's sum of exponentials, and its label in a byte.
- Sums: one program adds the programs' partial sums, in float64 and always in the same order.
- Gradient: a program has some neighbouring low-resolution pixels of a row, and gathers from the pixels of the output
  that read them; probabilities are computed again from the logarithms kept. Every pixel of the output is met twice.
- Class indices: a program has some neighbouring pixels of the output, and any two banded maps.

What is read between two calls for the same shapes is kept on the device: :func:`tables`, :func:`band`.
"""
import functools
from typing import NamedTuple

import torch
import triton
import triton.language as tl

from ._triton import cdiv, launch, next_power_of_2
from .bilinear import AxisMap
from .dtypes import label_dtype
from .label_check import NONE_WRONG

FEWEST = tl.constexpr(NONE_WRONG)
FAR = tl.constexpr(-3e38)           # logit of a class that is none
NO_CLASS = tl.constexpr(2**30)
LOG2_E = tl.constexpr(1.4426950408889634)
PIXELS = 128                        # of the output, about, that a program of the loss walks along
COLUMNS = 4                         # of the logits, at most, that a program of the gradient has
PROGRAMS = 8192                     # of the gradient, where there can be that many
ARGMAX_PIXELS = 32                  # of the output, of a program
PARTIAL = 1024                      # partial sums that are added at once


# Over classes


@triton.jit
def folded(a, CA: tl.constexpr, CB: tl.constexpr):
    """The first part as (CB, CA / CB), in whatever order is nearest: the lanes then exchange one part and not two."""
    return tl.reshape(a, (CB, CA // CB), can_reorder=True)


@triton.jit
def largest(a, b, CA: tl.constexpr, CB: tl.constexpr):
    if CB < 32:
        found = tl.maximum(tl.max(a, 0), tl.max(b, 0))
    else:
        found = tl.max(tl.maximum(tl.max(folded(a, CA, CB), 1), b), 0)
    return found


@triton.jit
def smallest(a, b, CA: tl.constexpr, CB: tl.constexpr):
    if CB < 32:
        found = tl.minimum(tl.min(a, 0), tl.min(b, 0))
    else:
        found = tl.min(tl.minimum(tl.min(folded(a, CA, CB), 1), b), 0)
    return found


@triton.jit
def total(a, b, CA: tl.constexpr, CB: tl.constexpr):
    if CB < 32:
        found = tl.sum(a, 0) + tl.sum(b, 0)
    else:
        found = tl.sum(tl.sum(folded(a, CA, CB), 1) + b, 0)
    return found


# Loss


@triton.jit
def column(above, below, j, fraction, c, C: tl.constexpr):
    """Logits (classes, ) of column j between two rows; classes that are none are far below."""
    inside = c < C
    upper = tl.load(above + j * C + c, inside, 0.).to(tl.float32)
    lower = tl.load(below + j * C + c, inside, 0.).to(tl.float32)
    return tl.where(inside, upper * (1. - fraction) + lower * fraction, FAR)


@triton.jit
def loss_kernel(logits, labels, weight, log_sums, kept_labels, losses, weights, pixels, corrects, wrongs,
                y_start, y_fraction, x_begin, x_fraction, height, width, out_height, out_width, segments, ignore_index,
                hard, even, C: tl.constexpr, CA: tl.constexpr, CB: tl.constexpr, INTERVALS: tl.constexpr,
                WEIGHTED: tl.constexpr, SMOOTHED: tl.constexpr, KEEP: tl.constexpr):
    program = tl.program_id(0)
    segment, y, image = program % segments, program // segments % out_height, program // segments // out_height
    image = image.to(tl.int64)
    row = tl.load(y_start + y)
    y_part = tl.load(y_fraction + y)
    above = logits + (image * height + row) * width * C
    below = logits + (image * height + tl.minimum(row + 1, height - 1)) * width * C
    here = (image * out_height + y) * out_width
    ca, cb = tl.arange(0, CA), CA + tl.arange(0, CB)
    if SMOOTHED:
        even_a, even_b = tl.where(ca < C, even, 0.), tl.where(cb < C, even, 0.)
        if WEIGHTED:
            even_a *= tl.load(weight + ca, ca < C, 0.)
            even_b *= tl.load(weight + cb, cb < C, 0.)
    first = segment * INTERVALS
    loss, weights_sum, count, correct, wrong = 0., 0., 0, 0, tl.full((), FEWEST, tl.int64)
    left_a, left_b = column(above, below, first, y_part, ca, C), column(above, below, first, y_part, cb, C)
    for j in range(first, tl.minimum(first + INTERVALS, tl.maximum(width - 1, 1))):
        right = tl.minimum(j + 1, width - 1)
        right_a, right_b = column(above, below, right, y_part, ca, C), column(above, below, right, y_part, cb, C)
        for x in range(tl.load(x_begin + j), tl.load(x_begin + j + 1)):
            label = tl.load(labels + here + x).to(tl.int64)
            is_class = (label >= 0) & (label < C)
            valid = is_class & (label != ignore_index)
            wrong = tl.where((label == ignore_index) | is_class, wrong, tl.maximum(wrong, label))
            if KEEP:
                tl.store(kept_labels + here + x, tl.where(valid, label, C).to(kept_labels.dtype.element_ty))
            if valid:
                class_index = label.to(tl.int32)
                x_part = tl.load(x_fraction + x)
                za = left_a * (1. - x_part) + right_a * x_part
                zb = left_b * (1. - x_part) + right_b * x_part
                top = largest(za, zb, CA, CB)
                log_sum = top + tl.log(total(tl.exp2((za - top) * LOG2_E), tl.exp2((zb - top) * LOG2_E), CA, CB))
                at_label = total(tl.where(ca == class_index, za, 0.), tl.where(cb == class_index, zb, 0.), CA, CB)
                best = smallest(tl.where(za == top, ca, NO_CLASS), tl.where(zb == top, cb, NO_CLASS), CA, CB)
                of_label = 1.
                if WEIGHTED:
                    of_label = tl.load(weight + class_index)
                loss += hard * of_label * (log_sum - at_label)
                if SMOOTHED:
                    loss += total(even_a * (log_sum - za), even_b * (log_sum - zb), CA, CB)
                weights_sum += of_label
                count += 1
                correct += (best == class_index).to(tl.int32)
                if KEEP:
                    tl.store(log_sums + here + x, log_sum)
        left_a, left_b = right_a, right_b
    tl.store(losses + program, loss)
    tl.store(weights + program, weights_sum)
    tl.store(pixels + program, count)
    tl.store(corrects + program, correct)
    tl.store(wrongs + program, wrong)


@triton.jit
def sum_kernel(losses, weights, pixels, corrects, wrongs, loss, weight, pixel, correct, wrong, programs,
               PARTIAL: tl.constexpr):
    at = tl.arange(0, PARTIAL)
    sum_loss, sum_weight = tl.zeros((PARTIAL, ), tl.float64), tl.zeros((PARTIAL, ), tl.float64)
    sum_pixel, sum_correct = tl.zeros((PARTIAL, ), tl.int64), tl.zeros((PARTIAL, ), tl.int64)
    most = tl.full((PARTIAL, ), FEWEST, tl.int64)
    for begin in range(0, programs, PARTIAL):
        there = begin + at < programs
        sum_loss += tl.load(losses + begin + at, there, 0.).to(tl.float64)
        sum_weight += tl.load(weights + begin + at, there, 0.).to(tl.float64)
        sum_pixel += tl.load(pixels + begin + at, there, 0).to(tl.int64)
        sum_correct += tl.load(corrects + begin + at, there, 0).to(tl.int64)
        most = tl.maximum(most, tl.load(wrongs + begin + at, there, FEWEST))
    worst = tl.max(most, 0)
    tl.store(loss, tl.where(worst == FEWEST, tl.sum(sum_loss, 0), float('nan')).to(tl.float32))
    tl.store(weight, tl.sum(sum_weight, 0).to(tl.float32))
    tl.store(pixel, tl.sum(sum_pixel, 0))
    tl.store(correct, tl.sum(sum_correct, 0))
    tl.store(wrong, worst)


# Gradient


@triton.jit
def two_columns(row, j, k, c, C: tl.constexpr):
    inside = c < C
    return (tl.load(row + j * C + c, inside, 0.).to(tl.float32), tl.load(row + k * C + c, inside, 0.).to(tl.float32))


@triton.jit
def interval_gradient(la, lb, ra, rb, to_la, to_lb, to_ra, to_rb, kept_labels, log_sums, weight, x_fraction,
                      begin, end, share, hard, even_a, even_b, even_sum, ca, cb, C: tl.constexpr,
                      WEIGHTED: tl.constexpr, SMOOTHED: tl.constexpr):
    """Add to the gradients of two columns what the pixels between them in one row of the output give."""
    for x in range(begin, end):
        label = tl.load(kept_labels + x).to(tl.int32)
        if label < C:
            log_sum = tl.load(log_sums + x)
            x_part = tl.load(x_fraction + x)
            pa = tl.exp2((la * (1. - x_part) + ra * x_part - log_sum) * LOG2_E)
            pb = tl.exp2((lb * (1. - x_part) + rb * x_part - log_sum) * LOG2_E)
            of_label = hard
            if WEIGHTED:
                of_label *= tl.load(weight + label)
            if SMOOTHED:
                pa = pa * (of_label + even_sum) - even_a - tl.where(ca == label, of_label, 0.)
                pb = pb * (of_label + even_sum) - even_b - tl.where(cb == label, of_label, 0.)
                to_left = share * (1. - x_part)
                to_right = share * x_part
            else:
                pa = tl.where(ca == label, pa - 1., pa)
                pb = tl.where(cb == label, pb - 1., pb)
                to_left = share * of_label * (1. - x_part)
                to_right = share * of_label * x_part
            to_la += pa * to_left
            to_lb += pb * to_left
            to_ra += pa * to_right
            to_rb += pb * to_right
    return to_la, to_lb, to_ra, to_rb


@triton.jit
def gradient_kernel(logits, kept_labels, log_sums, weight, grad_loss, grad, y_begin, y_fraction, x_begin, x_fraction,
                    height, width, out_height, out_width, segments, hard, even, C: tl.constexpr, CA: tl.constexpr,
                    CB: tl.constexpr, COLUMNS: tl.constexpr, WEIGHTED: tl.constexpr, SMOOTHED: tl.constexpr):
    program = tl.program_id(0)
    segment, i, image = program % segments, program // segments % height, program // segments // height
    image = image.to(tl.int64)
    here = logits + (image * height + i) * width * C
    above = logits + (image * height + tl.maximum(i - 1, 0)) * width * C
    below = logits + (image * height + tl.minimum(i + 1, height - 1)) * width * C
    grad += (image * height + i) * width * C
    # Rows of the output that lie between the row above and this one, and between this one and the row below.
    first_y, middle_y = tl.load(y_begin + tl.maximum(i - 1, 0)), tl.load(y_begin + i)
    last_y = tl.load(y_begin + tl.minimum(i + 1, tl.maximum(height - 1, 1)))
    ca, cb = tl.arange(0, CA), CA + tl.arange(0, CB)
    even_a, even_b, even_sum = 0., 0., 0.
    if SMOOTHED:
        even_a, even_b = tl.where(ca < C, even, 0.), tl.where(cb < C, even, 0.)
        if WEIGHTED:
            even_a *= tl.load(weight + ca, ca < C, 0.)
            even_b *= tl.load(weight + cb, cb < C, 0.)
        even_sum = total(even_a, even_b, CA, CB)
    scale = tl.load(grad_loss)
    first = segment * COLUMNS
    last = tl.minimum(first + COLUMNS, width)
    # A segment's first column also has the pixels to its left.
    start = tl.maximum(first - 1, 0)
    sum_a, sum_b = tl.zeros((CA, ), tl.float32), tl.zeros((CB, ), tl.float32)
    intervals = tl.maximum(width - 1, 1)
    for j in range(start, last):
        right_sum_a, right_sum_b = tl.zeros((CA, ), tl.float32), tl.zeros((CB, ), tl.float32)
        if j < intervals:
            begin, end = tl.load(x_begin + j), tl.load(x_begin + j + 1)
            k = tl.minimum(j + 1, width - 1)
            left_a, right_a = two_columns(here, j, k, ca, C)
            left_b, right_b = two_columns(here, j, k, cb, C)
            if first_y < middle_y:
                other_la, other_ra = two_columns(above, j, k, ca, C)
                other_lb, other_rb = two_columns(above, j, k, cb, C)
                for y in range(first_y, middle_y):
                    part = tl.load(y_fraction + y)
                    at = (image * out_height + y) * out_width
                    sum_a, sum_b, right_sum_a, right_sum_b = interval_gradient(
                        other_la * (1. - part) + left_a * part, other_lb * (1. - part) + left_b * part,
                        other_ra * (1. - part) + right_a * part, other_rb * (1. - part) + right_b * part,
                        sum_a, sum_b, right_sum_a, right_sum_b, kept_labels + at, log_sums + at, weight, x_fraction,
                        begin, end, part, hard, even_a, even_b, even_sum, ca, cb, C, WEIGHTED, SMOOTHED)
            if middle_y < last_y:
                other_la, other_ra = two_columns(below, j, k, ca, C)
                other_lb, other_rb = two_columns(below, j, k, cb, C)
                for y in range(middle_y, last_y):
                    part = tl.load(y_fraction + y)
                    at = (image * out_height + y) * out_width
                    sum_a, sum_b, right_sum_a, right_sum_b = interval_gradient(
                        left_a * (1. - part) + other_la * part, left_b * (1. - part) + other_lb * part,
                        right_a * (1. - part) + other_ra * part, right_b * (1. - part) + other_rb * part,
                        sum_a, sum_b, right_sum_a, right_sum_b, kept_labels + at, log_sums + at, weight, x_fraction,
                        begin, end, 1. - part, hard, even_a, even_b, even_sum, ca, cb, C, WEIGHTED, SMOOTHED)
        if j >= first:
            tl.store(grad + j * C + ca, (sum_a * scale).to(grad.dtype.element_ty), ca < C)
            tl.store(grad + j * C + cb, (sum_b * scale).to(grad.dtype.element_ty), cb < C)
        sum_a, sum_b = right_sum_a, right_sum_b


# Class indices


@triton.jit
def argmax_kernel(logits, indices, y_start, y_weight, x_start, x_weight, height, width, out_height, out_width, segments,
                  C: tl.constexpr, CA: tl.constexpr, CB: tl.constexpr, Y_TAPS: tl.constexpr, X_TAPS: tl.constexpr,
                  PIXELS: tl.constexpr):
    program = tl.program_id(0)
    segment, y, image = program % segments, program // segments % out_height, program // segments // out_height
    image = image.to(tl.int64)
    logits += image * height * width * C
    row = tl.load(y_start + y)
    ca, cb, lanes = tl.arange(0, CA), CA + tl.arange(0, CB), tl.arange(0, PIXELS)
    found = tl.zeros((PIXELS, ), tl.int32)
    for pixel in range(PIXELS):
        x = segment * PIXELS + pixel
        if x < out_width:
            za, zb = tl.zeros((CA, ), tl.float32), tl.zeros((CB, ), tl.float32)
            for x_tap in range(X_TAPS):
                at = logits + tl.minimum(tl.load(x_start + x) + x_tap, width - 1) * C
                column_a, column_b = tl.zeros((CA, ), tl.float32), tl.zeros((CB, ), tl.float32)
                for y_tap in range(Y_TAPS):
                    here = at + tl.minimum(row + y_tap, height - 1).to(tl.int64) * width * C
                    factor = tl.load(y_weight + y * Y_TAPS + y_tap)
                    column_a += factor * tl.load(here + ca, ca < C, 0.).to(tl.float32)
                    column_b += factor * tl.load(here + cb, cb < C, 0.).to(tl.float32)
                factor = tl.load(x_weight + x * X_TAPS + x_tap)
                za += factor * column_a
                zb += factor * column_b
            # What is no number is the largest, as for torch.
            za = tl.where(ca < C, tl.where(za == za, za, float('inf')), float('-inf'))
            zb = tl.where(cb < C, tl.where(zb == zb, zb, float('inf')), float('-inf'))
            top = largest(za, zb, CA, CB)
            best = smallest(tl.where(za == top, ca, NO_CLASS), tl.where(zb == top, cb, NO_CLASS), CA, CB)
            found = tl.where(lanes == pixel, best, found)
    x = segment * PIXELS + lanes
    tl.store(indices + (image * out_height + y) * out_width + x, found.to(tl.int64), x < out_width)


# What stays on the device


class Table(NamedTuple):
    """Bilinear interpolation along one axis, on a device: output ``o`` lies between inputs ``start[o]`` and the next.

    Attributes:
        start (Tensor): (out, ), int32.
        fraction (Tensor): (out, ), float32, the weight of the next input.
        begin (Tensor): (size, ), or 2 where the size is 1; int32: the outputs of ``start`` i are ``begin[i]`` to
            ``begin[i + 1]``.
    """
    start: torch.Tensor
    fraction: torch.Tensor
    begin: torch.Tensor


@functools.lru_cache(maxsize=64)
def table(size, out_size, align_corners, device):
    with torch.inference_mode(False):
        start, weight = AxisMap.resizing(size, out_size, align_corners, torch.float32)
        intervals = torch.arange(max(size - 1, 1), device='cpu')
        begin = torch.cat([torch.searchsorted(start, intervals), intervals.new_tensor([out_size])])
        return Table(*(part.contiguous().to(device) for part in (start.int(), weight[:, 1], begin.int())))


@functools.lru_cache(maxsize=64)
def band(device, *sizes):
    """:meth:`AxisMap.resizing_twice` on a device, as start (int32) and weight (float32)."""
    with torch.inference_mode(False):
        start, weight = AxisMap.resizing_twice(*sizes, torch.float32)
        return start.int().to(device), weight.contiguous().to(device)


# Launches


def lanes(classes, per_warp=256):
    """Constants of a kernel for a number of classes: the two parts that they lie in, and warps, of 128 classes each
    where the first part has more than ``per_warp``."""
    whole = next_power_of_2(classes)
    if whole <= 32 or 4 * classes > 3 * whole:
        parts = whole, 1    # the second part has no class
    else:
        parts = whole // 2, next_power_of_2(max(classes - whole // 2, 1))
    return dict(C=classes, CA=parts[0], CB=parts[1], num_warps=1 if parts[0] <= per_warp else min(parts[0] // 128, 16))


def loss_sums(nhwc, labels, weight, ignore_index, label_smoothing, align_corners, keep):
    """Forward pass.

    Args:
        nhwc (Tensor): (B, h, w, C), contiguous.
        labels (Tensor): (B, H, W), of any integer type.
        weight (Tensor | None): (C, ), float32.
        keep (bool): Whether there will be a gradient.

    Returns:
        tuple: Loss (NaN where a label is wrong), weight, pixels, correct; the largest wrong label, or -2**63; kept
        labels and logarithms, which :func:`loss_gradient` takes, or None. None of them is on the host.
    """
    batch, height, width, classes = nhwc.shape
    out_height, out_width = labels.shape[1:]
    if labels.dtype not in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8):
        labels = labels.long()
    y, x = (table(nhwc.shape[1 + i], labels.shape[1 + i], align_corners, nhwc.device) for i in range(2))
    per_program = max(1, PIXELS * width // out_width)
    segments = cdiv(max(width - 1, 1), per_program)
    programs = batch * out_height * segments
    kept = (labels.new_empty(labels.shape, dtype=label_dtype(classes)),
            nhwc.new_empty(labels.shape, dtype=torch.float32)) if keep else None
    dtypes = torch.float32, torch.float32, torch.int32, torch.int32, torch.int64
    parts = [nhwc.new_empty(programs, dtype=dtype) for dtype in dtypes]
    sums = [nhwc.new_empty((), dtype=dtype)
            for dtype in (torch.float32, torch.float32, torch.int64, torch.int64, torch.int64)]
    log_sums, kept_labels = (kept[1], kept[0]) if keep else (parts[0], parts[2])
    launch(loss_kernel, (programs, ), nhwc, labels.contiguous(), nhwc if weight is None else weight, log_sums,
           kept_labels, *parts, y.start, y.fraction, x.begin, x.fraction, height, width, out_height, out_width,
           segments, ignore_index, 1 - label_smoothing, label_smoothing / classes, **lanes(classes),
           INTERVALS=per_program, WEIGHTED=weight is not None, SMOOTHED=label_smoothing != 0, KEEP=keep)
    launch(sum_kernel, (1, ), *parts, *sums, programs, PARTIAL=PARTIAL, num_warps=8)
    return *sums, kept


def loss_gradient(nhwc, kept, weight, label_smoothing, align_corners, grad_loss):
    """Gradient (B, h, w, C) in the dtype of ``nhwc``; ``kept`` is from :func:`loss_sums`, ``grad_loss`` a number on
    the device."""
    batch, height, width, classes = nhwc.shape
    kept_labels, log_sums = kept
    out_height, out_width = kept_labels.shape[1:]
    y, x = (table(nhwc.shape[1 + i], kept_labels.shape[1 + i], align_corners, nhwc.device) for i in range(2))
    columns = max(1, min(COLUMNS, batch * height * width // PROGRAMS))
    segments = cdiv(width, columns)
    grad = torch.empty_like(nhwc)
    launch(gradient_kernel, (batch * height * segments, ), nhwc, kept_labels, log_sums,
           nhwc if weight is None else weight, grad_loss, grad, y.begin, y.fraction, x.begin, x.fraction, height, width,
           out_height, out_width, segments, 1 - label_smoothing, label_smoothing / classes, **lanes(classes, 128),
           COLUMNS=columns, WEIGHTED=weight is not None, SMOOTHED=label_smoothing != 0)
    return grad


def class_indices(nhwc, y_sizes, x_sizes):
    """Class indices (B, H, W), int64; the sizes are arguments of :meth:`AxisMap.resizing_twice`, without the dtype."""
    batch, height, width, classes = nhwc.shape
    (y_start, y_weight), (x_start, x_weight) = (band(nhwc.device, *sizes) for sizes in (y_sizes, x_sizes))
    out_height, out_width = len(y_start), len(x_start)
    segments = cdiv(out_width, ARGMAX_PIXELS)
    indices = nhwc.new_empty((batch, out_height, out_width), dtype=torch.int64)
    launch(argmax_kernel, (batch * out_height * segments, ), nhwc, indices, y_start, y_weight, x_start, x_weight,
           height, width, out_height, out_width, segments, **lanes(classes), Y_TAPS=y_weight.shape[1],
           X_TAPS=x_weight.shape[1], PIXELS=ARGMAX_PIXELS)
    return indices
