"""8-bit products against the float64 ones, within what rounding to 8 bits allows."""
import pytest
import torch
import torch.nn.functional as F

from inceptionnext_seg.ops import _native as native
from inceptionnext_seg.ops import int8

if int8.why_not():
    pytest.skip(int8.why_not(), allow_module_level=True)

SIGNS = dict(signed=lambda x: x, positive=torch.relu, offset=lambda x: x + 7)


def draw(shape=(2, 37, 9, 11), sign='signed'):
    """A map whose channels differ in range by a factor of a thousand."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator) * torch.logspace(-2, 1, shape[1]).view(1, -1, 1, 1)
    return SIGNS[sign](x)


def range_of(x):
    return int8.Range(x.amin((0, 2, 3)), x.amax((0, 2, 3)))


def rows(x):
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1]).contiguous()


def relative_error(found, expected):
    return ((found.double() - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('gelu', [False, True])
@pytest.mark.parametrize('sign', SIGNS)
def test_the_kernel_rounds_as_torch_does(sign, gelu, dtype):
    x = 1.5 * rows(draw(sign=sign)).to(dtype)
    quantizer = int8.Quantizer.of(range_of(draw(sign=sign)))
    found, expected = int8.quantize(x, quantizer, gelu), int8.quantize_torch(x, quantizer, gelu)
    assert found.dtype == torch.uint8
    assert (found.int() - expected.int()).abs().max() <= 1      # GELU, and a fused multiply-add, at a tie
    assert (found != expected).float().mean() < 1e-3
    assert {0, 255} <= set(found.flatten().tolist()) or gelu or sign == 'positive'


@pytest.mark.parametrize('dtype, tolerance', [(torch.float32, 0.015), (torch.bfloat16, 0.02)])
@pytest.mark.parametrize('sign', SIGNS)
def test_a_product_is_that_of_float_to_rounding(sign, dtype, tolerance):
    x, generator = draw(sign=sign), torch.Generator().manual_seed(1)
    weight = torch.randn(24, 37, generator=generator) / torch.logspace(-2, 1, 37)
    bias = torch.randn(24, generator=generator)
    quantizer = int8.Quantizer.of(range_of(x))
    packed = int8.pack_linear(weight, bias, quantizer, 198)
    found = int8.linear(int8.quantize(rows(x), quantizer), packed, quantizer, dtype)
    assert found.dtype == dtype
    expected = rows(x).double() @ weight.double().t() + bias
    assert relative_error(found, expected) < tolerance


@pytest.mark.parametrize('sign', SIGNS)
def test_a_convolution_is_that_of_float_to_rounding_at_the_border_too(sign):
    x, generator = draw(sign=sign), torch.Generator().manual_seed(1)
    weight = torch.randn(24, 37, 3, 3, generator=generator) / torch.logspace(-2, 1, 37).view(1, -1, 1, 1)
    bias = torch.randn(24, generator=generator)
    quantizer = int8.Quantizer.of(range_of(x), padded=True)
    packed = int8.pack_conv(weight, bias, quantizer, x.shape)
    q = int8.quantize(rows(x), quantizer).view(2, 9, 11, 37).permute(0, 3, 1, 2)
    found = int8.conv(q, packed, quantizer, torch.float32)
    expected = F.conv2d(x.double(), weight.double(), bias.double(), padding=1)
    assert relative_error(found, expected) < 0.02
    assert relative_error(found[:, :, 0], expected[:, :, 0]) < 0.02


def test_a_channel_that_never_changed_is_no_division_by_zero():
    x = draw()
    x[:, 3] = 0
    quantizer = int8.Quantizer.of(range_of(x))
    assert all(torch.isfinite(t).all() for t in quantizer[:3])
    assert (int8.quantize(rows(x), quantizer)[:, 3] == 128).all()


def test_without_the_instructions_the_reason_is_told(monkeypatch):
    monkeypatch.setattr(native, 'processor', lambda: 'flags : sse2 avx2')
    int8.why_not.cache_clear()
    try:
        assert 'avx512_vnni' in int8.why_not()
    finally:
        int8.why_not.cache_clear()
