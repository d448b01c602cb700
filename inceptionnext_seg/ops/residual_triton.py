"""Triton kernels of :mod:`inceptionnext_seg.ops.residual`, for CUDA: one launch forward; backward one, and a small one.

In channels_last a program takes whole pixels, of which the compiler knows how they are aligned, so that a load takes 16
bytes. Images that stochastic depth drops are not read.
"""
import torch
import triton
import triton.language as tl

from ._triton import cdiv, launch, next_power_of_2
from ._triton_sums import column_sums

# Elements of a program that adds, bytes of neighbouring channels that a thread takes.
BLOCK, BYTES = 4096, 16
# Programs, of four warps, that keep any GPU busy. Where there would be more, each takes more pixels, which leaves fewer
# partial sums.
PROGRAMS = 1024


@triton.jit(do_not_specialize=['parts', 'area'])
def add_kernel(x, y, gamma, factors, out, parts, area, C: tl.constexpr, LAST: tl.constexpr, BLOCK: tl.constexpr,
               HAS_GAMMA: tl.constexpr, HAS_FACTORS: tl.constexpr):
    image = (tl.program_id(0) // parts).to(tl.int64)
    part = tl.program_id(0) % parts
    index = tl.arange(0, BLOCK)
    if LAST:
        PIXELS: tl.constexpr = BLOCK // C
        first = part.to(tl.int64) * PIXELS
        at = (image * area + first) * C + index
        mask = (index < PIXELS * C) & (index // C < area - first)
        channel = index % C
    else:
        channel = part % C
        first = (part // C).to(tl.int64) * BLOCK
        at = (image * C + channel) * area + first + index
        mask = index < area - first
    factor, read = 1., mask
    if HAS_FACTORS:
        factor = tl.load(factors + image).to(tl.float32)
        read = mask & (index < tl.where(factor != 0, BLOCK, 0))
    value = tl.load(y + at, read, 0.).to(tl.float32) * factor
    if HAS_GAMMA:
        value *= tl.load(gamma + channel).to(tl.float32)
    value += tl.load(x + at, mask).to(tl.float32)
    tl.store(out + at, value.to(out.dtype.element_ty), mask)


@triton.jit(do_not_specialize=['blocks', 'steps', 'area'])
def gradient_kernel(grad, y, gamma, factors, grad_y, partial, blocks, steps, area, C: tl.constexpr, LAST: tl.constexpr,
                    P: tl.constexpr, CB: tl.constexpr, HAS_GAMMA: tl.constexpr, HAS_FACTORS: tl.constexpr,
                    NEED_Y: tl.constexpr, NEED_GAMMA: tl.constexpr):
    GROUPS: tl.constexpr = (C + CB - 1) // CB
    row = tl.program_id(0) // GROUPS
    channels = tl.program_id(0) % GROUPS * CB + tl.arange(0, CB)
    image = (row // blocks).to(tl.int64)
    factor = 1.
    if HAS_FACTORS:
        factor = tl.load(factors + image).to(tl.float32)
    scale = tl.zeros((P, CB), tl.float32) + factor
    if HAS_GAMMA:
        scale *= tl.load(gamma + channels, channels < C, 0.).to(tl.float32)[None, :]
    total = tl.zeros((P, CB), tl.float32)
    for step in range(steps):
        pixel = (row % blocks * steps + step).to(tl.int64) * P + tl.arange(0, P)
        mask = (pixel < area)[:, None] & (channels < C)[None, :]
        read = mask
        if HAS_FACTORS:
            read = mask & (pixel < tl.where(factor != 0, area, 0))[:, None]
        if LAST:
            at = (image * area + pixel)[:, None] * C + channels[None, :]
        else:
            at = pixel[:, None] + (image * C + channels)[None, :] * area
        value = tl.load(grad + at, read, 0.).to(tl.float32)
        if NEED_Y:
            tl.store(grad_y + at, (value * scale).to(grad_y.dtype.element_ty), mask)
        if NEED_GAMMA:
            total += value * tl.load(y + at, read, 0.).to(tl.float32)
    if NEED_GAMMA:
        # As it lies in registers: a store of channels alone would move it through shared memory.
        total = tl.sum(total, 0)[None, :] * factor + tl.zeros((P, CB), tl.float32)
        at = row.to(tl.int64) * C + channels[None, :] + tl.zeros((P, CB), tl.int32)
        tl.store(partial + at, total, (tl.arange(0, P) == 0)[:, None] & (channels < C)[None, :])


@triton.jit(do_not_specialize=['rows'])
def sum_kernel(partial, total, rows, C: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    found = column_sums(partial, rows, column, C, ROWS, COLUMNS)
    tl.store(total + column, found.to(total.dtype.element_ty), column < C)


def residual_triton(x, y, gamma, factors, out):
    """Fill ``out``; ``x``, ``y`` and ``out`` are dense, in one layout."""
    batch, channels, height, width = x.shape
    last = x.is_contiguous(memory_format=torch.channels_last)
    block = max(BLOCK, next_power_of_2(channels)) if last else BLOCK
    parts = cdiv(height * width, block // channels) if last else cdiv(height * width, block) * channels
    launch(add_kernel, (batch * parts, ), x, y, gamma, factors, out, parts, height * width, C=channels, LAST=last,
           BLOCK=block, HAS_GAMMA=gamma is not None, HAS_FACTORS=factors is not None)


def residual_triton_backward(grad, y, gamma, factors, grad_y=None, grad_gamma=None):
    """Fill ``grad_y`` and ``grad_gamma``; None is not needed. ``grad``, ``y`` and ``grad_y`` are dense, in one layout;
    ``y`` may be None where ``grad_gamma`` is."""
    batch, channels, height, width = grad.shape
    last = grad.is_contiguous(memory_format=torch.channels_last)
    elements = 4 * 32 * BYTES // grad.element_size()    # of a step of four warps
    divisor = channels & -channels
    group = min(divisor if divisor >= 32 else next_power_of_2(channels), 256) if last else 1
    groups, pixels = cdiv(channels, group), elements // group
    blocks = cdiv(height * width, pixels)
    steps = min(max(batch * blocks * groups // PROGRAMS, 1), blocks)
    blocks = cdiv(blocks, steps)
    need_gamma = grad_gamma is not None
    partial = grad.new_empty((batch * blocks, channels) if need_gamma else 0, dtype=torch.float32)
    launch(gradient_kernel, (batch * blocks * groups, ), grad, y, gamma, factors, grad_y, partial, blocks, steps,
           height * width, C=channels, LAST=last, P=pixels, CB=group, HAS_GAMMA=gamma is not None,
           HAS_FACTORS=factors is not None, NEED_Y=grad_y is not None, NEED_GAMMA=need_gamma)
    if need_gamma:
        launch(sum_kernel, (cdiv(channels, 8), ), partial, grad_gamma, batch * blocks, C=channels, ROWS=128,
               COLUMNS=8)
