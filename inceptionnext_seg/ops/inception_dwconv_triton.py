"""Triton kernels of :mod:`inceptionnext_seg.ops.inception_dwconv`, for CUDA: one launch forward and one backward.

A program takes some pixels and some channels of one branch, or of the identity. What neighbouring programs read twice
comes from the cache. Weight gradients are summed in a program for its pixels, and over the programs by torch.
"""
import torch
import triton
import triton.language as tl

# Elements of a program; pixels times channels.
BLOCK = 1024


@triton.jit
def pixel_position(pixels, num_pixels, height, width):
    """Image, row and column of pixels numbered through the whole batch, and which of them exist."""
    return (pixels // (height * width)).to(tl.int64), pixels // width % height, pixels % width, pixels < num_pixels


@triton.jit
def forward_branch(x, y, weight, bias, pixels, num_pixels, channels, branch, first, height, width,
                   x_n, x_c, x_h, x_w, y_n, y_c, y_h, y_w, KH: tl.constexpr, KW: tl.constexpr):
    image, row, column, exists = pixel_position(pixels, num_pixels, height, width)
    inside = channels < branch
    x += (image * x_n)[:, None] + ((first + channels) * x_c)[None, :]
    total = tl.load(bias + channels, inside, 0.).to(tl.float32)[None, :] + tl.zeros(
        (pixels.shape[0], channels.shape[0]), tl.float32)
    for tap in range(KH * KW):
        h, w = row + tap // KW - KH // 2, column + tap % KW - KW // 2
        mask = (exists & (h >= 0) & (h < height) & (w >= 0) & (w < width))[:, None] & inside[None, :]
        value = tl.load(x + (h * x_h + w * x_w)[:, None], mask, 0.).to(tl.float32)
        total += value * tl.load(weight + channels * (KH * KW) + tap, inside, 0.).to(tl.float32)[None, :]
    y += (image * y_n + row * y_h + column * y_w)[:, None] + ((first + channels) * y_c)[None, :]
    tl.store(y, total.to(y.dtype.element_ty), exists[:, None] & inside[None, :])


@triton.jit
def backward_branch(grad_y, x, grad_x, weight, sums, pixels, num_pixels, channels, branch, first, height, width,
                    g_n, g_c, g_h, g_w, x_n, x_c, x_h, x_w, d_n, d_c, d_h, d_w,
                    KH: tl.constexpr, KW: tl.constexpr, NEED_X: tl.constexpr, NEED_PARAMETERS: tl.constexpr):
    image, row, column, exists = pixel_position(pixels, num_pixels, height, width)
    inside = channels < branch
    here = exists[:, None] & inside[None, :]
    grad_y += (image * g_n)[:, None] + ((first + channels) * g_c)[None, :]
    x += (image * x_n)[:, None] + ((first + channels) * x_c)[None, :]
    center = tl.load(x + (row * x_h + column * x_w)[:, None], here, 0.).to(tl.float32)
    total = tl.zeros((pixels.shape[0], channels.shape[0]), tl.float32)
    for tap in range(KH * KW):
        # The output pixel that this tap carries an input pixel to.
        h, w = row - tap // KW + KH // 2, column - tap % KW + KW // 2
        mask = (exists & (h >= 0) & (h < height) & (w >= 0) & (w < width))[:, None] & inside[None, :]
        value = tl.load(grad_y + (h * g_h + w * g_w)[:, None], mask, 0.).to(tl.float32)
        if NEED_X:
            total += value * tl.load(weight + channels * (KH * KW) + tap, inside, 0.).to(tl.float32)[None, :]
        if NEED_PARAMETERS:
            # Where no output pixel is, an infinite input must not count as 0 · ∞.
            product = tl.where(mask, value * center, 0.)
            tl.store(sums + channels * (KH * KW) + tap, tl.sum(product, 0), inside)
    if NEED_X:
        grad_x += (image * d_n + row * d_h + column * d_w)[:, None] + ((first + channels) * d_c)[None, :]
        tl.store(grad_x, total.to(grad_x.dtype.element_ty), here)
    if NEED_PARAMETERS:
        value = tl.load(grad_y + (row * g_h + column * g_w)[:, None], here, 0.).to(tl.float32)
        tl.store(sums + branch * KH * KW + channels, tl.sum(value, 0), inside)


@triton.jit
def copy_identity(x, y, pixels, num_pixels, channels, identity, height, width,
                  x_n, x_c, x_h, x_w, y_n, y_c, y_h, y_w):
    image, row, column, exists = pixel_position(pixels, num_pixels, height, width)
    mask = exists[:, None] & (channels < identity)[None, :]
    x += (image * x_n + row * x_h + column * x_w)[:, None] + (channels * x_c)[None, :]
    y += (image * y_n + row * y_h + column * y_w)[:, None] + (channels * y_c)[None, :]
    tl.store(y, tl.load(x, mask), mask)


@triton.jit
def forward_kernel(x, y, weight_hw, weight_w, weight_h, bias_hw, bias_w, bias_h, num_pixels, identity, branch,
                   height, width, x_n, x_c, x_h, x_w, y_n, y_c, y_h, y_w,
                   K_HW: tl.constexpr, K_W: tl.constexpr, K_H: tl.constexpr,
                   PIXELS: tl.constexpr, CHANNELS: tl.constexpr):
    pixels = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    # Blocks of channels: those of the identity, then those of each branch.
    of_identity, of_branch = tl.cdiv(identity, CHANNELS), tl.cdiv(branch, CHANNELS)
    block = tl.program_id(1)
    if block < of_identity:
        copy_identity(x, y, pixels, num_pixels, block * CHANNELS + tl.arange(0, CHANNELS), identity, height, width,
                      x_n, x_c, x_h, x_w, y_n, y_c, y_h, y_w)
    else:
        kind = (block - of_identity) // of_branch
        channels = (block - of_identity) % of_branch * CHANNELS + tl.arange(0, CHANNELS)
        first = identity + kind * branch
        if kind == 0:
            forward_branch(x, y, weight_hw, bias_hw, pixels, num_pixels, channels, branch, first, height, width,
                           x_n, x_c, x_h, x_w, y_n, y_c, y_h, y_w, K_HW, K_HW)
        elif kind == 1:
            forward_branch(x, y, weight_w, bias_w, pixels, num_pixels, channels, branch, first, height, width,
                           x_n, x_c, x_h, x_w, y_n, y_c, y_h, y_w, 1, K_W)
        else:
            forward_branch(x, y, weight_h, bias_h, pixels, num_pixels, channels, branch, first, height, width,
                           x_n, x_c, x_h, x_w, y_n, y_c, y_h, y_w, K_H, 1)


@triton.jit
def backward_kernel(grad_y, x, grad_x, weight_hw, weight_w, weight_h, sums, num_pixels, identity, branch,
                    height, width, g_n, g_c, g_h, g_w, x_n, x_c, x_h, x_w, d_n, d_c, d_h, d_w,
                    K_HW: tl.constexpr, K_W: tl.constexpr, K_H: tl.constexpr, NEED_X: tl.constexpr,
                    NEED_PARAMETERS: tl.constexpr, PIXELS: tl.constexpr, CHANNELS: tl.constexpr):
    pixels = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    of_identity, of_branch = tl.cdiv(identity, CHANNELS), tl.cdiv(branch, CHANNELS)
    block = tl.program_id(1)
    if block < of_identity:
        if NEED_X:
            copy_identity(grad_y, grad_x, pixels, num_pixels, block * CHANNELS + tl.arange(0, CHANNELS), identity,
                          height, width, g_n, g_c, g_h, g_w, d_n, d_c, d_h, d_w)
    else:
        kind = (block - of_identity) // of_branch
        channels = (block - of_identity) % of_branch * CHANNELS + tl.arange(0, CHANNELS)
        first = identity + kind * branch
        # A row of sums a block of pixels: weights and bias of the square, of the band 1×k, of the band k×1.
        sums += tl.program_id(0).to(tl.int64) * branch * (K_HW * K_HW + K_W + K_H + 3)
        if kind == 0:
            backward_branch(grad_y, x, grad_x, weight_hw, sums, pixels, num_pixels, channels, branch, first,
                            height, width, g_n, g_c, g_h, g_w, x_n, x_c, x_h, x_w, d_n, d_c, d_h, d_w,
                            K_HW, K_HW, NEED_X, NEED_PARAMETERS)
        elif kind == 1:
            backward_branch(grad_y, x, grad_x, weight_w, sums + branch * (K_HW * K_HW + 1), pixels, num_pixels,
                            channels, branch, first, height, width, g_n, g_c, g_h, g_w, x_n, x_c, x_h, x_w,
                            d_n, d_c, d_h, d_w, 1, K_W, NEED_X, NEED_PARAMETERS)
        else:
            backward_branch(grad_y, x, grad_x, weight_h, sums + branch * (K_HW * K_HW + K_W + 2), pixels, num_pixels,
                            channels, branch, first, height, width, g_n, g_c, g_h, g_w, x_n, x_c, x_h, x_w,
                            d_n, d_c, d_h, d_w, K_H, 1, NEED_X, NEED_PARAMETERS)


class Launch:
    """Sizes of one call: the kernels' own arguments and the grid.

    A block is wide along what lies together in memory: channels where the input is channels_last, pixels otherwise.
    """

    def __init__(self, x, weights):
        batch, channels, height, width = x.shape
        weight_hw, weight_w, weight_h = weights
        self.branch = len(weight_hw)
        identity, num_pixels = channels - 3 * self.branch, batch * height * width
        channels_last = x.stride(1) == 1
        block = min(64, triton.next_power_of_2(self.branch)) if channels_last else 1
        pixels = min(BLOCK // block, triton.next_power_of_2(num_pixels)) if channels_last else 256
        self.arguments = num_pixels, identity, self.branch, height, width
        self.constants = dict(K_HW=weight_hw.shape[2], K_W=weight_w.shape[3], K_H=weight_h.shape[2],
                              PIXELS=pixels, CHANNELS=block)
        self.pixel_blocks = triton.cdiv(num_pixels, pixels)
        self.grid = self.pixel_blocks, triton.cdiv(identity, block) + 3 * triton.cdiv(self.branch, block)


def inception_dwconv2d_triton(x, weights, biases):
    """Output (B, C, H, W) in the layout of ``x``, which is dense; weights and biases: square, along width, height."""
    weights, biases = ([parameter.contiguous() for parameter in group] for group in (weights, biases))
    y, launch = torch.empty_like(x), Launch(x, weights)
    forward_kernel[launch.grid](
        x, y, *weights, *biases, *launch.arguments, *x.stride(), *y.stride(), **launch.constants)
    return y


def inception_dwconv2d_triton_backward(grad_y, x, weights, grad_x=None, grad_parameters=None):
    """Fill ``grad_x``, like ``x``, and ``grad_parameters``, of the three weights and the three biases; None is not
    needed."""
    weights, launch = [weight.contiguous() for weight in weights], Launch(x, weights)
    lengths = [launch.branch * size for weight in weights for size in (weight[0].numel(), 1)]
    sums = x.new_empty((launch.pixel_blocks, sum(lengths)) if grad_parameters else 1, dtype=torch.float32)
    target = x if grad_x is None else grad_x
    backward_kernel[launch.grid](
        grad_y, x, target, *weights, sums, *launch.arguments, *grad_y.stride(), *x.stride(), *target.stride(),
        NEED_X=grad_x is not None, NEED_PARAMETERS=grad_parameters is not None, **launch.constants)
    if grad_parameters:
        parts = sums.sum(0).split(lengths)
        for grad, part in zip(grad_parameters, (*parts[::2], *parts[1::2]), strict=True):
            grad.copy_(part.view_as(grad))
