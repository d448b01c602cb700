"""Triton kernel of :mod:`inceptionnext_seg.ops.windowed_argmax`, for CUDA: one launch, no logits of the image's size.

A program, one warp or a few, has some neighbouring pixels of a row of the output. Classes lie along its lanes, as in
:mod:`.upsampled_cross_entropy_triton`. A tap of weight 0 is no tap, and is not read: where windows do not overlap, most
of them are none.
"""
import torch
import triton
import triton.language as tl

from ._triton import cdiv, launch
from .upsampled_cross_entropy_triton import ARGMAX_PIXELS, LOG2_E, NO_CLASS, lanes, largest, smallest, total


@triton.jit
def windows_kernel(logits, sums, indices, y_index, y_weight, x_index, x_weight, height, width, out_height, out_width,
                   segments, C: tl.constexpr, CA: tl.constexpr, CB: tl.constexpr, Y_TAPS: tl.constexpr,
                   X_TAPS: tl.constexpr, PIXELS: tl.constexpr, SUMS: tl.constexpr):
    program = tl.program_id(0)
    segment, y, image = program % segments, program // segments % out_height, program // segments // out_height
    image = image.to(tl.int64)
    logits += image * height * width * C
    here = (image * out_height + y) * out_width
    ca, cb, pixels = tl.arange(0, CA), CA + tl.arange(0, CB), tl.arange(0, PIXELS)
    found = tl.zeros((PIXELS, ), tl.int32)
    for pixel in range(PIXELS):
        x = segment * PIXELS + pixel
        if x < out_width:
            za, zb = tl.zeros((CA, ), tl.float32), tl.zeros((CB, ), tl.float32)
            for x_tap in range(X_TAPS):
                x_part = tl.load(x_weight + x * X_TAPS + x_tap)
                if x_part != 0:
                    column = logits + tl.load(x_index + x * X_TAPS + x_tap) * C
                    for y_tap in range(Y_TAPS):
                        part = x_part * tl.load(y_weight + y * Y_TAPS + y_tap)
                        if part != 0:
                            at = column + tl.load(y_index + y * Y_TAPS + y_tap) * width * C
                            za += part * tl.load(at + ca, ca < C, 0.)
                            zb += part * tl.load(at + cb, cb < C, 0.)
            if SUMS:
                za, zb = tl.where(ca < C, za, float('-inf')), tl.where(cb < C, zb, float('-inf'))
                top = largest(za, zb, CA, CB)
                pa, pb = tl.exp2((za - top) * LOG2_E), tl.exp2((zb - top) * LOG2_E)
                scale = 1. / total(pa, pb, CA, CB)
                at = sums + (here + x) * C
                za = tl.load(at + ca, ca < C, 0.) + pa * scale
                zb = tl.load(at + cb, cb < C, 0.) + pb * scale
                tl.store(at + ca, za, ca < C)
                tl.store(at + cb, zb, cb < C)
            # What is no number is the largest, as for torch.
            za = tl.where(ca < C, tl.where(za == za, za, float('inf')), float('-inf'))
            zb = tl.where(cb < C, tl.where(zb == zb, zb, float('inf')), float('-inf'))
            top = largest(za, zb, CA, CB)
            best = smallest(tl.where(za == top, ca, NO_CLASS), tl.where(zb == top, cb, NO_CLASS), CA, CB)
            found = tl.where(pixels == pixel, best, found)
    x = segment * PIXELS + pixels
    tl.store(indices + here + x, found.to(tl.int64), x < out_width)


def class_indices(logits, y_taps, x_taps, sums):
    """Class indices (B, H, W), int64; adds probabilities to ``sums`` (B, H, W, C) where they are not None.

    Args:
        logits (Tensor): (B, h, w, C), contiguous, float32, as ``sums``.
        y_taps (Taps), x_taps (Taps): On the device of the logits.
    """
    batch, height, width, classes = logits.shape
    out_height, out_width = len(y_taps.index), len(x_taps.index)
    segments = cdiv(out_width, ARGMAX_PIXELS)
    indices = logits.new_empty((batch, out_height, out_width), dtype=torch.int64)
    launch(windows_kernel, (batch * out_height * segments, ), logits, logits if sums is None else sums, indices,
           *(table.contiguous() for table in (*y_taps, *x_taps)), height, width, out_height, out_width, segments,
           **lanes(classes), Y_TAPS=y_taps.index.shape[1], X_TAPS=x_taps.index.shape[1], PIXELS=ARGMAX_PIXELS,
           SUMS=sums is not None)
    return indices
