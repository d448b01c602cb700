"""3×3 convolutions in plain operators with fewer multiplications, for graphs that leave torch.

Runtimes convolve well and know nothing of what is convolved. Two identities need no kernel of one's own; both are the
same function, so that only rounding differs:

- ``conv(cat(x₀, U x₁, …)) = conv(x₀) + Σᵢ Σ_taps S_t U (Wᵢₜ xᵢ)``, as in
  :mod:`inceptionnext_seg.ops.resize_concat_conv`: a 1×1 convolution at the map's own size, then one matrix product
  along each axis.
- ``y = Aᵀ [(G g) ⊙ (Bᵀ d)]`` along the width alone, Winograd's F(4, 3): six convolutions of 3×1 at a quarter of the
  width, half of the multiplications. With both axes it would be a quarter, but the tiles would have to be transposed in
  memory, which took what the products saved.

Everything is channels-first, and no map is transposed: along the height a matrix stands on the left of (B, C, h, w),
along the width on the right. All that ends in one output shares its last product, along the width.
"""
import torch
import torch.nn as nn
import torch.nn.functional as F

from .operators import tap_matrix

# Points 0, ±√½, ±√2, ∞, as in ops/winograd.py: the error in float is about that of a direct convolution.
A, B = 0.5**0.5, 2**0.5
POINTS, DIVISORS = (0, A, -A, B, -B), (1, -1.5, -1.5, 6, 6)
INPUT = ((1, 0, -2.5, 0, 1, 0), (0, -2 * A, -2, A, 1, 0), (0, 2 * A, -2, -A, 1, 0), (0, -B / 2, -0.5, B, 1, 0),
         (0, B / 2, -0.5, -B, 1, 0), (0, 1, 0, -2.5, 0, 1))                                     # Bᵀ
FILTER = (*((1 / d, x / d, x * x / d) for x, d in zip(POINTS, DIVISORS, strict=True)), (0, 0, 1))       # G
OUTPUT = tuple((*(float(x)**power for x in POINTS), float(power == 3)) for power in range(4))           # Aᵀ
TILE = 4


def input_matrix(width, like):
    """(6, width, tiles): Bᵀ for every tile of four outputs, with zeros outside the map."""
    tiles = (width + TILE - 1) // TILE
    column, tile = torch.arange(width, device=like.device), torch.arange(tiles, device=like.device)
    place = column[:, None] - (TILE * tile - 1)                                                 # in the tile's input
    hits = torch.stack([(place == i).to(like.dtype) for i in range(len(INPUT))])                # (6, width, tiles)
    return torch.tensordot(torch.tensor(INPUT, dtype=like.dtype, device=like.device), hits, 1)


def output_matrix(width, like):
    """(6 · tiles, width): Aᵀ for every tile; the last one is cut where the width is no multiple of four."""
    tiles = (width + TILE - 1) // TILE
    column, tile = torch.arange(width, device=like.device), torch.arange(tiles, device=like.device)
    place = column - TILE * tile[:, None]
    hits = torch.stack([(place == i).to(like.dtype) for i in range(TILE)])                      # (4, tiles, width)
    transform = torch.tensor(OUTPUT, dtype=like.dtype, device=like.device).t()
    return torch.tensordot(transform, hits, 1).flatten(0, 1)


class WinogradConv2d(nn.Module):
    """``conv2d(x, weight, bias, padding=1)``, in two halves: :meth:`columns`, and a product with ``output_matrix``."""

    def __init__(self, weight, bias):
        super().__init__()
        filters = torch.einsum('pk,ochk->poch', torch.tensor(FILTER, dtype=torch.float64), weight.detach().double())
        self.register_buffer('filters', filters.to(weight)[..., None])                          # (6, O, C, 3, 1)
        self.register_buffer('bias', None if bias is None else bias.detach()[:, None, None])

    def columns(self, x):
        """Six maps (B, O, H, tiles)."""
        inputs = input_matrix(x.shape[3], x)
        return [F.conv2d(torch.matmul(x, inputs[p]), self.filters[p], padding=(1, 0)) for p in range(len(INPUT))]

    def forward(self, x):
        y = torch.matmul(torch.cat(self.columns(x), 3), output_matrix(x.shape[3], x))
        return y if self.bias is None else y + self.bias


class ResizeConcatConv2d(nn.Module):
    """``conv2d(cat([resize(x, size) for x in maps], 1), weight, bias, padding=1)``, the size being that of the first.

    Args:
        conv (nn.Conv2d): 3×3, padding 1.
        channels (list[int]): Of each map.
        align_corners (bool): Of the resizing.
        winograd (bool): Convolve the first map by F(4, 3).
    """

    def __init__(self, conv, channels, align_corners, winograd):
        super().__init__()
        self.align_corners, self.out_channels = align_corners, conv.out_channels
        first, *rest = conv.weight.detach().split(list(channels), 1)
        self.register_buffer('bias', None if conv.bias is None else conv.bias.detach())
        self.first = WinogradConv2d(first, None) if winograd else None
        self.register_buffer('direct', None if winograd else first.clone())
        for i, weight in enumerate(rest):     # outputs in the order dx, O, dy: (dx · O · dy, C, 1, 1)
            self.register_buffer(f'taps{i}', weight.permute(3, 0, 2, 1).flatten(0, 2)[:, :, None, None].clone())

    def forward(self, maps):
        (batch, _, height, width), align_corners = maps[0].shape, self.align_corners
        columns, across = [], []
        if self.first is not None:
            columns, across = self.first.columns(maps[0]), [output_matrix(width, maps[0])]
        for i, x in enumerate(maps[1:]):
            h, w = x.shape[2:]
            z = F.conv2d(x, getattr(self, f'taps{i}')).reshape(batch, 3 * self.out_channels, 3 * h, w)
            down = tap_matrix(h, height, align_corners, x)
            columns += torch.matmul(down, z).split(self.out_channels, 1)                        # dx: (B, O, H, w)
            across.append(tap_matrix(w, width, align_corners, x).t())
        y = torch.matmul(torch.cat(columns, 3), torch.cat(across))
        if self.first is None:
            return y + F.conv2d(maps[0], self.direct, self.bias, padding=1)
        return y if self.bias is None else y + self.bias[:, None, None]
