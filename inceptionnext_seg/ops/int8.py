"""Matrix products and 3×3 convolutions of 8-bit numbers, on a CPU that multiplies them (VNNI or AMX).

    W x + b  ≈  s ⊙ (Q (q − z)) + b',   q = clamp(round(a ⊙ x + c), 0, 255),   s_o Q_oc = W_oc / a_c,
                                        b' = b + W m,   c = z − a ⊙ m

``x`` has a scale for each of its channels, which goes into the weight, so that channels of unlike range do not share
one; ``Q`` has a scale ``s_o`` for each output. ``m`` is the middle of a channel's range, or 0 where ``x`` is padded,
since the padding is 0 and not ``m``. ``z`` is 0 where no value is negative, and 128 otherwise.

The products are oneDNN's through torch; ``csrc/quantize.cpp`` is the pass between two of them.
"""
import functools
from typing import NamedTuple

import torch
import torch.nn.functional as F

from . import _native as native
from .dtypes import SUFFIXES

INSTRUCTIONS = ('avx512_vnni', 'avx_vnni', 'amx_int8')


class Range(NamedTuple):
    """What the values of each channel lie between: two float32 tensors (C, )."""
    low: torch.Tensor
    high: torch.Tensor

    def part(self, begin, end):
        return Range(self.low[begin:end], self.high[begin:end])


class Quantizer(NamedTuple):
    """From values to 8-bit numbers: ``q = clamp(round(scale ⊙ x + shift), 0, 255)``, with ``zero`` for 0 or ``middle``.

    Attributes:
        scale (Tensor), shift (Tensor), middle (Tensor): (C, ), float32.
        zero (int): 0 or 128.
    """
    scale: torch.Tensor
    shift: torch.Tensor
    middle: torch.Tensor
    zero: int

    @classmethod
    def of(cls, range_, padded=False):
        """That of a range; ``padded`` where zeros will stand beside the values."""
        low, high = (t.double() for t in range_)
        if bool((low >= 0).all()):
            middle, zero, half = torch.zeros_like(low), 0, high / 255
        else:
            middle = torch.zeros_like(low) if padded else (low + high) / 2
            zero, half = 128, torch.maximum(high - middle, middle - low) / 127
        # A channel that was constant, and the many that are nearly so, would have an endless scale.
        half = half.clamp(min=max(float(half.max()) * 1e-4, 1e-12))
        scale = 1 / half
        return cls(scale.float(), (zero - scale * middle).float(), middle.float(), zero)


class Weights(NamedTuple):
    """8-bit weights in the layout of oneDNN, a scale and a bias for each output."""
    packed: torch.Tensor
    scale: torch.Tensor
    zeros: torch.Tensor
    bias: torch.Tensor | None


@functools.cache
def why_not():
    """Why 8-bit products cannot be had here, or None."""
    if not set(INSTRUCTIONS) & set(native.processor().split()):
        return f'the CPU does not multiply 8-bit numbers (it has none of {", ".join(INSTRUCTIONS)})'
    needed = ('qlinear_prepack', 'qlinear_pointwise', 'qconv_prepack', 'qconv2d_pointwise')
    missing = [name for name in needed if not hasattr(torch.ops.onednn, name)]
    if missing:
        return f'torch {torch.__version__} has no torch.ops.onednn.{missing[0]}'
    return native.why_not('quantize')


# Reference


def quantize_torch(x, quantizer, gelu=False):
    x = x.float()
    x = F.gelu(x) if gelu else x
    return torch.addcmul(quantizer.shift, x, quantizer.scale).round().clamp(0, 255).to(torch.uint8)


# In C++, and oneDNN


def quantize(x, quantizer, gelu=False):
    """8-bit numbers (N, C), uint8, of a contiguous matrix (N, C), float32 or bfloat16; ``gelu`` applies GELU first."""
    q = torch.empty_like(x, dtype=torch.uint8)
    name = 'gelu_quantize' if gelu else 'quantize'
    native.function('quantize', f'{name}_{SUFFIXES[x.dtype]}')(
        x, quantizer.scale, quantizer.shift, q, *x.shape, native.threads())
    return q


def quantized_weight(weight, quantizer):
    """Rows (O, C, …) as int8, and their scales (O, ), with the scales of the inputs in them."""
    weight = weight.double()
    per_input = quantizer.scale.double().view(1, -1, *[1] * (weight.dim() - 2))
    weight = weight / per_input
    scale = weight.flatten(1).abs().amax(1).clamp(min=1e-30) / 127
    rounded = (weight / scale.view(-1, *[1] * (weight.dim() - 1))).round().clamp(-127, 127)
    return rounded.to(torch.int8), scale.float()


def pack_linear(weight, bias, quantizer, rows):
    """Of a product with ``weight`` (O, C), for matrices of about ``rows`` rows."""
    shift = weight.double() @ quantizer.middle.double()
    bias = shift if bias is None else bias.double() + shift
    rounded, scale = quantized_weight(weight, quantizer)
    packed = torch.ops.onednn.qlinear_prepack(rounded, [rows, rounded.shape[1]])
    return Weights(packed, scale, torch.zeros(len(scale), dtype=torch.int64, device='cpu'), bias.float())


def linear(q, weights, quantizer, dtype):
    """The product (N, O), float32 or bfloat16."""
    return torch.ops.onednn.qlinear_pointwise(
        q, 1., quantizer.zero, weights.packed, weights.scale, weights.zeros, weights.bias, 1., 0, dtype, 'none', [], '')


def pack_conv(weight, bias, quantizer, shape):
    """Of a 3×3 convolution with padding 1, ``weight`` (O, C, 3, 3), for maps of about ``shape`` (B, C, H, W)."""
    rounded, scale = quantized_weight(weight, quantizer)
    packed = torch.ops.onednn.qconv_prepack(
        rounded, scale, 1., quantizer.zero, [1, 1], [1, 1], [1, 1], 1, list(shape))
    return Weights(packed, scale, torch.zeros(len(scale), dtype=torch.int64, device='cpu'),
                   None if bias is None else bias.float())


def conv(q, weights, quantizer, dtype):
    """The convolution (B, O, H, W), float32 or bfloat16, of 8-bit numbers (B, C, H, W) in channels_last."""
    return torch.ops.onednn.qconv2d_pointwise(
        q, 1., quantizer.zero, weights.packed, weights.scale, weights.zeros, weights.bias, [1, 1], [1, 1], [1, 1], 1,
        1., 0, dtype, 'none', [], '')
