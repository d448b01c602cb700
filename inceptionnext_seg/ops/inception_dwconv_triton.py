"""Triton kernels of :mod:`inceptionnext_seg.ops.inception_dwconv`, for CUDA: one launch forward, three backward.

A thread computes a patch of 8 neighbouring output pixels for a few channels: 8 × 1 along a band k×1, 1 × 8 along a band
1×k, 4 × 2 for the square. It reads each input pixel that the patch needs once and adds it to all outputs that it
reaches, so that a band of 11 takes 18 loads for 8 outputs instead of 88; weights stay in registers. Numbers of channels
are constants of the kernels, from which the compiler knows how pixels are aligned: in channels_last one load takes 8
bytes of channels. Channel groups are the fastest part of the grid: programs that run together read whole pixels.

Backward, the gradient of the input is the same kernel with the taps in reverse. Those of the parameters are sums over
all pixels, in a fixed order: each program of a second kernel sums over its patches, a third one over the programs.
"""
import functools

import torch
import triton
import triton.language as tl

from ._triton import cdiv, launch, next_power_of_2
from ._triton_sums import column_sums

# Output pixels of a patch, and bytes of neighbouring channels that a thread takes.
PATCH, BYTES = 8, 8
# Elements that a program copies: those of whole pixels, in channels_last.
COPY = 4096
# Programs, of four warps and of one, that keep any GPU busy. Where there would be more, each takes several patches a
# thread, at most MOST: fewer loads of weights, fewer partial sums.
PROGRAMS, SMALL_PROGRAMS, MOST = 1024, 2048, 16
# A GPU runs 16 warps a multiprocessor at least. Bands of more than 11 would not fit; ROCm has no such option.
REGISTERS, FITS = 128, 11


@triton.jit
def patches(image, block, step, steps, height, width, sideways, C: tl.constexpr, LAST: tl.constexpr, P: tl.constexpr,
            A: tl.constexpr, B: tl.constexpr):
    """P patches of A × B pixels, or B × A where ``sideways``, numbered along the rows of an image.

    Returns:
        Place of the first pixel of each along the axes of A and B, lengths of the axes, offsets of channel 0 of the
        first pixels, strides of the axes and of channels.
    """
    index = (block * steps + step) * P + tl.arange(0, P)
    a_row = tl.where(sideways, tl.cdiv(width, A), tl.cdiv(width, B))
    row, column = index // a_row * tl.where(sideways, B, A), index % a_row * tl.where(sideways, A, B)
    area = height.to(tl.int64) * width
    pixel = (row * width + column).to(tl.int64)
    if LAST:
        to_row, to_column, to_channel = width.to(tl.int64) * C, C, 1
        offset = image * area * C + pixel * C
    else:
        to_row, to_column, to_channel = width.to(tl.int64), 1, area
        offset = image * area * C + pixel
    return (tl.where(sideways, column, row), tl.where(sideways, row, column), tl.where(sideways, width, height),
            tl.where(sideways, height, width), offset, tl.where(sideways, to_column, to_row),
            tl.where(sideways, to_row, to_column), to_channel)


@triton.jit
def inside(place, length, BEFORE: tl.constexpr, COUNT: tl.constexpr):
    """Of COUNT pixels along an axis, the first BEFORE pixels before ``place``, which are in the image: each (P, 1)."""
    found = ()
    for i in tl.static_range(COUNT):
        # As unsigned numbers, negative ones are large.
        found += (((place + (i - BEFORE)).to(tl.uint32) < length.to(tl.uint32))[:, None], )
    return found


@triton.jit
def convolve(x, y, weight, bias, image, block, steps, group, height, width, backward, sideways, first, C: tl.constexpr,
             BRANCH: tl.constexpr, KA: tl.constexpr, KB: tl.constexpr, A: tl.constexpr, B: tl.constexpr,
             LAST: tl.constexpr, P: tl.constexpr, CB: tl.constexpr):
    channels = group * CB + tl.arange(0, CB)
    mask = channels < BRANCH
    taps = ()
    for tap in tl.static_range(KA * KB):
        own = channels * (KA * KB) + tl.where(backward != 0, KA * KB - 1 - tap, tap)
        taps += (tl.load(weight + own, mask, 0.).to(tl.float32)[None, :] + tl.zeros((P, CB), tl.float32), )
    start = tl.load(bias + channels, mask & (backward == 0), 0.).to(tl.float32)[None, :] + tl.zeros((P, CB), tl.float32)
    for step in range(steps):
        a, b, a_length, b_length, offset, to_a, to_b, to_channel = patches(
            image, block, step, steps, height, width, sideways, C, LAST, P, A, B)
        offset = offset[:, None] + (first + channels)[None, :] * to_channel
        source, target = x + offset, y + offset
        in_a = inside(a, a_length, KA // 2, A + KA - 1)
        in_b = inside(b, b_length, KB // 2, B + KB - 1)
        masks = ()
        for j in tl.static_range(B + KB - 1):
            masks += (in_b[j] & mask[None, :], )
        values = ()
        for i in tl.static_range(A + KA - 1):
            for j in tl.static_range(B + KB - 1):
                at = source + ((i - KA // 2) * to_a + (j - KB // 2) * to_b)
                values += (tl.load(at, in_a[i] & masks[j], 0.).to(tl.float32), )
            if i >= KA - 1:     # all that a line of outputs needs is there
                for j in tl.static_range(B):
                    total = start
                    for tap in tl.static_range(KA * KB):
                        total += taps[tap] * values[(i - KA + 1 + tap // KB) * (B + KB - 1) + j + tap % KB]
                    tl.store(target + ((i - KA + 1) * to_a + j * to_b), total.to(y.dtype.element_ty),
                             in_a[i - KA // 2] & masks[j + KB // 2])


@triton.jit
def copy_identity(x, y, image, part, height, width, C: tl.constexpr, IDENTITY: tl.constexpr, LAST: tl.constexpr,
                  COPY: tl.constexpr):
    area = height.to(tl.int64) * width
    index = tl.arange(0, COPY)
    if LAST:
        SIZE: tl.constexpr = max(IDENTITY, 1)
        PIXELS: tl.constexpr = COPY // SIZE
        first = part.to(tl.int64) * PIXELS
        mask = (index < PIXELS * SIZE) & (index // SIZE < area - first)
        at = (image * area + first) * C + index // SIZE * C + index % SIZE
    else:
        first = part.to(tl.int64) * COPY
        mask = index < area * IDENTITY - first
        at = image * area * C + first + index
    tl.store(y + at, tl.load(x + at, mask), mask)


@triton.jit(do_not_specialize=['blocks', 'steps', 'copies', 'height', 'width', 'backward'])
def convolution_kernel(x, y, weight_hw, weight_w, weight_h, bias_hw, bias_w, bias_h, blocks, steps, copies, height,
                       width, backward, C: tl.constexpr, BRANCH: tl.constexpr, K_HW: tl.constexpr, K_W: tl.constexpr,
                       K_H: tl.constexpr, LAST: tl.constexpr, PATCH: tl.constexpr, P: tl.constexpr, CB: tl.constexpr,
                       COPY: tl.constexpr):
    IDENTITY: tl.constexpr = C - 3 * BRANCH
    GROUPS: tl.constexpr = (BRANCH + CB - 1) // CB
    groups = copies + 3 * GROUPS
    block = tl.program_id(0) // groups
    group = tl.program_id(0) % groups - copies
    image = (block // blocks).to(tl.int64)
    block = block % blocks
    if group < 0:
        copy_identity(x, y, image, block * copies + (group + copies), height, width, C, IDENTITY, LAST, COPY)
    elif group < GROUPS:
        convolve(x, y, weight_hw, bias_hw, image, block, steps, group, height, width, backward, False, IDENTITY,
                 C, BRANCH, K_HW, K_HW, PATCH // 2, 2, LAST, P, CB)
    elif K_W == K_H:    # the same code, which takes half as long to compile
        sideways = group < 2 * GROUPS
        if sideways:
            weight, bias = weight_w, bias_w
        else:
            weight, bias = weight_h, bias_h
        branch = group // GROUPS
        convolve(x, y, weight, bias, image, block, steps, group - branch * GROUPS, height, width, backward, sideways,
                 IDENTITY + branch * BRANCH, C, BRANCH, K_H, 1, PATCH, 1, LAST, P, CB)
    elif group < 2 * GROUPS:
        convolve(x, y, weight_w, bias_w, image, block, steps, group - GROUPS, height, width, backward, True,
                 IDENTITY + BRANCH, C, BRANCH, K_W, 1, PATCH, 1, LAST, P, CB)
    else:
        convolve(x, y, weight_h, bias_h, image, block, steps, group - 2 * GROUPS, height, width, backward, False,
                 IDENTITY + 2 * BRANCH, C, BRANCH, K_H, 1, PATCH, 1, LAST, P, CB)


@triton.jit
def sum_products(grad, x, partial, image, block, steps, group, height, width, sideways, first, C: tl.constexpr,
                 BRANCH: tl.constexpr, KA: tl.constexpr, KB: tl.constexpr, A: tl.constexpr, B: tl.constexpr,
                 LAST: tl.constexpr, P: tl.constexpr, CB: tl.constexpr):
    """To a row of ``partial``: gradients of the taps and, last, of the bias, each of all channels of the branch."""
    channels = group * CB + tl.arange(0, CB)
    mask = channels < BRANCH
    sums = ()
    for _ in tl.static_range(KA * KB + 1):
        sums += (tl.zeros((P, CB), tl.float32), )
    for step in range(steps):
        a, b, a_length, b_length, offset, to_a, to_b, to_channel = patches(
            image, block, step, steps, height, width, sideways, C, LAST, P, A, B)
        offset = offset[:, None] + (first + channels)[None, :] * to_channel
        source, of_grad = x + offset, grad + offset
        in_a = inside(a, a_length, KA // 2, A + KA - 1)
        in_b = inside(b, b_length, KB // 2, B + KB - 1)
        masks = ()
        for j in tl.static_range(B + KB - 1):
            masks += (in_b[j] & mask[None, :], )
        grads = ()
        total = sums[KA * KB]
        for i in tl.static_range(A):
            for j in tl.static_range(B):
                value = tl.load(of_grad + (i * to_a + j * to_b), in_a[i + KA // 2] & masks[j + KB // 2], 0.)
                value = value.to(tl.float32)
                grads += (value, )
                total += value
        for i in tl.static_range(A + KA - 1):
            for j in tl.static_range(B + KB - 1):
                at = source + ((i - KA // 2) * to_a + (j - KB // 2) * to_b)
                value = tl.load(at, in_a[i] & masks[j], 0.).to(tl.float32)
                added = ()
                for tap in tl.static_range(KA * KB):
                    if (i >= tap // KB and i < tap // KB + A) and (j >= tap % KB and j < tap % KB + B):
                        added += (sums[tap] + value * grads[(i - tap // KB) * B + j - tap % KB], )
                    else:
                        added += (sums[tap], )
                sums = added + (total, )
    # As they lie in registers: a store of channels alone would move them through shared memory.
    first = (tl.arange(0, P) == 0)[:, None] & mask[None, :]
    target = partial + channels[None, :] + tl.zeros((P, CB), tl.int32)
    for tap in tl.static_range(KA * KB + 1):
        total = tl.sum(sums[tap], 0)[None, :] + tl.zeros((P, CB), tl.float32)
        tl.store(target + tap * BRANCH, total, first)


@triton.jit(do_not_specialize=['blocks', 'steps', 'height', 'width'])
def products_kernel(grad, x, partial, blocks, steps, height, width, C: tl.constexpr, BRANCH: tl.constexpr,
                    K_HW: tl.constexpr, K_W: tl.constexpr, K_H: tl.constexpr, LAST: tl.constexpr, PATCH: tl.constexpr,
                    P: tl.constexpr, CB: tl.constexpr):
    IDENTITY: tl.constexpr = C - 3 * BRANCH
    GROUPS: tl.constexpr = (BRANCH + CB - 1) // CB
    TAPS: tl.constexpr = K_HW * K_HW + K_W + K_H
    block = tl.program_id(0) // (3 * GROUPS)
    group = tl.program_id(0) % (3 * GROUPS)
    image = (block // blocks).to(tl.int64)
    partial += block.to(tl.int64) * ((TAPS + 3) * BRANCH)
    block = block % blocks
    if group < GROUPS:
        sum_products(grad, x, partial, image, block, steps, group, height, width, False, IDENTITY, C, BRANCH,
                     K_HW, K_HW, PATCH // 2, 2, LAST, P, CB)
        return
    partial += (K_HW * K_HW + 1) * BRANCH
    branch = group // GROUPS
    if K_W == K_H:
        sum_products(grad, x, partial + (branch - 1) * ((K_W + 1) * BRANCH), image, block, steps,
                     group - branch * GROUPS, height, width, branch == 1, IDENTITY + branch * BRANCH, C, BRANCH,
                     K_H, 1, PATCH, 1, LAST, P, CB)
    elif branch == 1:
        sum_products(grad, x, partial, image, block, steps, group - GROUPS, height, width, True, IDENTITY + BRANCH, C,
                     BRANCH, K_W, 1, PATCH, 1, LAST, P, CB)
    else:
        sum_products(grad, x, partial + (K_W + 1) * BRANCH, image, block, steps, group - 2 * GROUPS, height, width,
                     False, IDENTITY + 2 * BRANCH, C, BRANCH, K_H, 1, PATCH, 1, LAST, P, CB)


@triton.jit
def store_gradients(weight, bias, total, column, BRANCH: tl.constexpr, TAPS: tl.constexpr):
    """Of the columns of one branch, which ``column`` counts from its first."""
    tap, channel = column // BRANCH, column % BRANCH
    tl.store(weight + channel * TAPS + tap, total.to(weight.dtype.element_ty), (column >= 0) & (tap < TAPS))
    tl.store(bias + channel, total.to(bias.dtype.element_ty), tap == TAPS)


@triton.jit(do_not_specialize=['rows'])
def sum_kernel(partial, weight_hw, weight_w, weight_h, bias_hw, bias_w, bias_h, rows, BRANCH: tl.constexpr,
               K_HW: tl.constexpr, K_W: tl.constexpr, K_H: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Sums of the columns of ``partial``, to the gradients in the layout and dtype of their parameters."""
    ALL: tl.constexpr = (K_HW * K_HW + K_W + K_H + 3) * BRANCH
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    total = column_sums(partial, rows, column, ALL, ROWS, COLUMNS)
    store_gradients(weight_hw, bias_hw, total, column, BRANCH, K_HW * K_HW)
    store_gradients(weight_w, bias_w, total, column - (K_HW * K_HW + 1) * BRANCH, BRANCH, K_W)
    store_gradients(weight_h, bias_h, total, column - (K_HW * K_HW + K_W + 2) * BRANCH, BRANCH, K_H)


class Sizes:
    """Of the launches for inputs of one kind: constants of the kernels, and how programs share the work.

    Args:
        shape (torch.Size): (B, C, H, W) of the map.
        last (bool): Whether it is in channels_last.
        element_size (int): Bytes.
        branch (int): Channels of a branch.
        square (int), width (int), height (int): Kernel sizes of the three.
    """

    def __init__(self, shape, last, element_size, branch, square, width, height):
        self.batch, channels, self.height, self.width = shape
        self.branch, self.last = branch, last
        self.identity = channels - 3 * branch
        self.kernels = dict(K_HW=square, K_W=width, K_H=height)
        self.taps = square**2 + width + height
        # Channels of a program, which divide the branch or hold all of it; of NCHW maps pixels lie together instead.
        divisor = branch & -branch
        self.group = min(divisor if divisor >= 16 else next_power_of_2(branch), 64) if last else 1
        self.groups = cdiv(branch, self.group)
        self.patches = max(
            cdiv(self.height, rows) * cdiv(self.width, columns)
            for rows, columns in ((PATCH // 2, 2), (1, PATCH), (PATCH, 1)))
        self.a_thread = max(BYTES // element_size, 1)
        self.constants = dict(C=channels, BRANCH=branch, **self.kernels, LAST=last, PATCH=PATCH, CB=self.group)
        if not torch.version.hip and max(width, height, square**2) <= FITS:
            self.constants['maxnreg'] = REGISTERS

    def share(self, warps, programs):
        """Patches that are side by side in a program, blocks of them an image, and patches that a thread takes."""
        side_by_side = max(32 * warps * self.a_thread // self.group, 1)
        blocks = cdiv(self.patches, side_by_side)
        # At least so many pixels that writing and reading their sums is a small part of reading them.
        least = cdiv(self.a_thread, side_by_side)
        steps = min(max(self.batch * blocks * 3 * self.groups // programs, least), MOST, blocks)
        return side_by_side, cdiv(blocks, steps), steps

    @functools.cached_property
    def convolution(self):
        """Grid, whole numbers and constants of the convolution kernel."""
        side_by_side, blocks, steps = self.share(4, PROGRAMS)
        copy, pixels = max(COPY, next_power_of_2(self.identity)), self.height * self.width
        parts = cdiv(pixels, copy // max(self.identity, 1)) if self.last else cdiv(pixels * self.identity, copy)
        copies = cdiv(parts, blocks) if self.identity else 0
        return ((self.batch * blocks * (copies + 3 * self.groups), ), (blocks, steps, copies, self.height, self.width),
                dict(self.constants, P=side_by_side, COPY=copy, num_warps=4))


sizes_of_kind = functools.lru_cache(maxsize=4096)(Sizes)    # a launch may take the GPU less time than these the host


def sizes_of(x, weights):
    weight_hw, weight_w, weight_h = weights
    return sizes_of_kind(x.shape, x.is_contiguous(memory_format=torch.channels_last), x.element_size(), len(weight_hw),
                         weight_hw.shape[2], weight_w.shape[3], weight_h.shape[2])


def convolve_all(sizes, x, y, weights, biases, backward):
    grid, numbers, constants = sizes.convolution
    launch(convolution_kernel, grid, x, y, *weights, *biases, *numbers, int(backward), **constants)


def sum_gradients(sizes, grad_y, x, grads):
    side_by_side, blocks, steps = sizes.share(1, SMALL_PROGRAMS)
    rows, columns = sizes.batch * blocks, (sizes.taps + 3) * sizes.branch
    partial = x.new_empty((rows, columns), dtype=torch.float32)
    launch(products_kernel, (rows * 3 * sizes.groups, ), grad_y, x, partial, blocks, steps, sizes.height, sizes.width,
           **sizes.constants, P=side_by_side, num_warps=1)
    launch(sum_kernel, (cdiv(columns, 8), ), partial, *grads, rows, BRANCH=sizes.branch, **sizes.kernels,
           ROWS=128, COLUMNS=8, num_warps=4)


def inception_dwconv2d_triton(x, weights, biases):
    """Output (B, C, H, W) in the layout of ``x``, which is dense; weights and biases: square, along width, height."""
    weights, biases = ([parameter.contiguous() for parameter in group] for group in (weights, biases))
    y = torch.empty_like(x)
    convolve_all(sizes_of(x, weights), x, y, weights, biases, backward=False)
    return y


def inception_dwconv2d_triton_backward(grad_y, x, weights, grad_x=None, grad_parameters=None):
    """Fill ``grad_x``, like ``x``, and ``grad_parameters``, of the three weights and the three biases, dense; None is
    not needed. ``x`` is dense."""
    weights = [weight.contiguous() for weight in weights]
    sizes = sizes_of(x, weights)
    grad_y = grad_y.contiguous(memory_format=torch.channels_last if sizes.last else torch.contiguous_format)
    if grad_x is not None:
        # It reads no biases.
        convolve_all(sizes, grad_y, grad_x, weights, weights, backward=True)
    if grad_parameters:
        sum_gradients(sizes, grad_y, x, grad_parameters)
