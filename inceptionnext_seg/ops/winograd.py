"""3×3 convolution by Winograd's minimal filtering F(4×4, 3×3) on a CPU: a quarter of the multiplications.

``y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A`` for each tile of 4×4 outputs, its 6×6 inputs ``d`` and the filter ``g``: the products
over the channels become 36 matrix products (Lavin and Gray, arXiv:1509.09308). The points are 0, ±√½, ±√2, ∞, with
which the rounding error in float is like a direct convolution's (about 1e-6 relative). The gradients are the transposed
transforms of the same products. Transforms are C++ (``csrc/winograd.cpp``), products torch's.

bfloat16 maps are transformed and multiplied as float, and rounded once, at the end.
"""
import torch

from . import _native as native
from .dtypes import SUFFIXES, compute_dtype

TILE, TAPS = 4, 36
# Bytes of one tile buffer: large enough that a product reads the filters seldom, small beside a map.
BUFFER = 32 << 20


def kernel(name, dtype):
    return native.function('winograd', f'{name}_{SUFFIXES[dtype]}')


class Tiles:
    """The tiles of maps (B, C, H, W) by chunks of tile rows, and the transforms of a chunk."""

    def __init__(self, batch, height, width, widest):
        self.batch, self.height, self.width = batch, height, width
        self.tiles_y, self.tiles_x = -(-height // TILE), -(-width // TILE)
        self.tile_rows = batch * self.tiles_y
        self.rows = max(1, min(self.tile_rows, BUFFER // (TAPS * self.tiles_x * widest * 4)))

    def chunks(self):
        return [(first, min(self.rows, self.tile_rows - first)) for first in range(0, self.tile_rows, self.rows)]

    def buffer(self, channels, dtype):
        # A cache line of padding: 36 planes at multiples of the cache's size would all map to the same set.
        return torch.empty(TAPS, self.rows * self.tiles_x * channels + 16, dtype=dtype, device='cpu')

    def plane(self, buffer, rows, channels):
        """The chunk's (36, tiles, channels) in the buffer."""
        count = rows * self.tiles_x
        return buffer[:, :count * channels].unflatten(1, (count, channels))

    def sizes(self, channels, chunk, buffer):
        return (self.height, self.width, channels, self.tiles_y, self.tiles_x, *chunk, buffer.stride(0),
                native.threads())

    def transform(self, name, source, buffer, channels, chunk):
        """'input_tiles' or 'output_gradient': a map's tiles into the buffer."""
        kernel(name, source.dtype)(source, buffer, *self.sizes(channels, chunk, buffer))

    def output(self, buffer, added, bias, target, channels, chunk):
        kernel('output_tiles', target.dtype)(buffer, added, bias, target, *self.sizes(channels, chunk, buffer))

    def input_gradient(self, buffer, target, channels, chunk):
        kernel('input_gradient', target.dtype)(buffer, target, *self.sizes(channels, chunk, buffer))


def transform_filters(taps):
    """Filters (9, O, C) to (36, O, C)."""
    transformed = taps.new_empty(TAPS, *taps.shape[1:])
    kernel('filters', taps.dtype)(taps, transformed, taps[0].numel(), native.threads())
    return transformed


def filter_gradient(transformed):
    """Gradient of filters, (36, O, C) to (9, O, C)."""
    taps = transformed.new_empty(9, *transformed.shape[1:])
    kernel('filter_gradient', taps.dtype)(transformed, taps, taps[0].numel(), native.threads())
    return taps


def convolve(x, taps, added=None, out_dtype=None, bias=None):
    """3×3 convolution with padding 1: ``x`` (B, C, H, W) channels_last, ``taps`` (9, O, C), to (B, O, H, W).

    Args:
        added (Tensor | None): What is added to the result before it is rounded, channels_last, of the compute type. It
            may be overwritten.
        bias (Tensor | None): (O, ), of the compute type and contiguous; added before rounding, too.
    """
    batch, channels, height, width = x.shape
    out_channels, dtype = taps.shape[1], compute_dtype(x.dtype)
    tiles = Tiles(batch, height, width, max(channels, out_channels))
    filters = transform_filters(taps).transpose(1, 2)
    inputs, outputs = tiles.buffer(channels, dtype), tiles.buffer(out_channels, dtype)
    y = added
    if added is None or added.dtype != (out_dtype or x.dtype):
        y = torch.empty(batch, out_channels, height, width, dtype=out_dtype or x.dtype, device='cpu',
                        memory_format=torch.channels_last)
    for chunk in tiles.chunks():
        tiles.transform('input_tiles', x, inputs, channels, chunk)
        torch.bmm(tiles.plane(inputs, chunk[1], channels), filters, out=tiles.plane(outputs, chunk[1], out_channels))
        tiles.output(outputs, added, bias, y, out_channels, chunk)
    return y


def gradients(grad, x, taps, needs_weight=True):
    """Gradients of :func:`convolve` to ``x``, of the compute type, and to ``taps``."""
    batch, channels, height, width = x.shape
    out_channels, dtype = taps.shape[1], compute_dtype(x.dtype)
    tiles = Tiles(batch, height, width, max(channels, out_channels))
    output_grads, inputs = tiles.buffer(out_channels, dtype), tiles.buffer(channels, dtype)
    filters = transform_filters(taps)
    grad_x = torch.empty_like(x, dtype=dtype, memory_format=torch.channels_last)
    grad_filters = filters.new_zeros(TAPS, out_channels, channels) if needs_weight else None
    for chunk in tiles.chunks():
        tiles.transform('output_gradient', grad, output_grads, out_channels, chunk)
        products = tiles.plane(output_grads, chunk[1], out_channels)
        if needs_weight:
            tiles.transform('input_tiles', x, inputs, channels, chunk)
            grad_filters.baddbmm_(products.transpose(1, 2), tiles.plane(inputs, chunk[1], channels))
        torch.bmm(products, filters, out=tiles.plane(inputs, chunk[1], channels))
        tiles.input_gradient(inputs, grad_x, channels, chunk)
    return grad_x, filter_gradient(grad_filters) if needs_weight else None
