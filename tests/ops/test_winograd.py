"""Winograd's 3×3 convolution and its gradients against torch's direct convolution in float64."""
import pytest
import torch
import torch.nn.functional as F
from helpers import draw, relative_error

from inceptionnext_seg.ops import _native as native
from inceptionnext_seg.ops import winograd
from inceptionnext_seg.ops.dtypes import compute_dtype

if native.why_not('winograd'):
    pytest.skip(native.why_not('winograd'), allow_module_level=True)

# batch, channels, output channels, height, width: whole tiles, ragged ones, a map within one tile, a single pixel, rows
# and columns, channels below, at and beyond a vector's 16 lanes, and beyond the 64 that threads share.
SHAPES = [(2, 16, 16, 16, 16), (1, 3, 5, 13, 10), (3, 17, 33, 9, 22), (2, 8, 1, 3, 3), (1, 4, 2, 1, 1),
          (2, 5, 7, 1, 19), (1, 1, 3, 19, 2), (1, 70, 130, 5, 6)]


def inputs(shape, dtype=torch.float64, seed=0):
    """Map, weight (O, C, 3, 3) and the gradient of the output; the maps are channels_last."""
    batch, channels, out_channels, height, width = shape
    return (draw(batch, channels, height, width, seed=3 * seed, dtype=dtype, layout=torch.channels_last),
            draw(out_channels, channels, 3, 3, seed=3 * seed + 1, dtype=dtype),
            draw(batch, out_channels, height, width, seed=3 * seed + 2, dtype=dtype, layout=torch.channels_last))


def last(x):
    return x.contiguous(memory_format=torch.channels_last)


def to_taps(weight, dtype=None):
    """(O, C, 3, 3) to (9, O, C)."""
    return weight.permute(2, 3, 0, 1).flatten(0, 1).contiguous().to(dtype or weight.dtype)


def reference(x, weight, grad):
    """The output and the gradients to map and taps, by torch's convolution in float64."""
    x, weight = (tensor.double().requires_grad_() for tensor in (x, weight))
    y = F.conv2d(x, weight, padding=1)
    grad_x, grad_weight = torch.autograd.grad(y, (x, weight), grad.double())
    return y.detach(), grad_x, to_taps(grad_weight)


@pytest.mark.logits_match
@pytest.mark.parametrize('dtype, tolerance', [(torch.float64, 1e-13), (torch.float32, 2e-6), (torch.bfloat16, 4e-3)])
@pytest.mark.parametrize('shape', SHAPES)
def test_output_and_gradients_are_those_of_a_direct_convolution(shape, dtype, tolerance):
    x, weight, grad = inputs(shape, dtype)
    taps = to_taps(weight, compute_dtype(dtype))
    expected = reference(x, weight, grad)
    y = winograd.convolve(x, taps)
    grad_x, grad_taps = winograd.gradients(grad, x, taps)
    assert y.dtype == dtype and y.shape == grad.shape and y.is_contiguous(memory_format=torch.channels_last)
    assert grad_x.dtype == grad_taps.dtype == compute_dtype(dtype)
    # Of bfloat16 maps the output alone is rounded; the gradients stay float.
    for found, value, bound in zip((y, grad_x, grad_taps), expected, (tolerance, min(tolerance, 2e-6),
                                                                    min(tolerance, 2e-6)), strict=True):
        assert relative_error(found, value) < bound


def test_in_float_it_is_about_as_exact_as_a_direct_convolution():
    """At the number of channels that UperNet's fusion convolves directly."""
    x, weight, grad = inputs((1, 512, 16, 20, 20), torch.float32)
    expected = reference(x, weight, grad)[0]
    direct = relative_error(F.conv2d(x, weight, padding=1), expected)
    assert relative_error(winograd.convolve(x, to_taps(weight)), expected) < 3 * direct


@pytest.mark.parametrize('row, column', [(i, j) for i in range(3) for j in range(3)])
def test_a_filter_of_a_single_one_shifts_the_map(row, column):
    x, _, _ = inputs((1, 3, 3, 11, 10))
    taps = torch.zeros(9, 3, 3, dtype=torch.float64)
    taps[3 * row + column] = torch.eye(3)
    padded = F.pad(x, (1, 1, 1, 1))
    expected = padded[:, :, row:row + 11, column:column + 10]
    torch.testing.assert_close(winograd.convolve(x, taps), expected, rtol=0, atol=1e-14, check_stride=False)


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32, torch.bfloat16])
def test_what_is_added_is_added_before_rounding(dtype):
    shape = (2, 6, 18, 10, 9)
    x, weight, grad = inputs(shape, dtype)
    compute = compute_dtype(dtype)
    added = last(1000 * inputs(shape, compute, seed=1)[2])
    expected = reference(x, weight, grad)[0] + added.double()
    y = winograd.convolve(x, to_taps(weight, compute), added=added.clone(memory_format=torch.preserve_format))
    assert y.dtype == dtype
    assert relative_error(y, expected) < {torch.float64: 1e-13, torch.float32: 1e-6, torch.bfloat16: 3e-3}[dtype]


@pytest.mark.parametrize('added', [False, True], ids=['alone', 'beside_a_sum'])
def test_a_bias_is_added_before_rounding(added):
    shape = (2, 6, 18, 10, 9)
    for dtype, tolerance in ((torch.float64, 1e-13), (torch.float32, 1e-6), (torch.bfloat16, 3e-3)):
        x, weight, grad = inputs(shape, dtype)
        compute = compute_dtype(dtype)
        bias, other = 100 * torch.arange(18, dtype=compute), last(inputs(shape, compute, seed=1)[2])
        expected = reference(x, weight, grad)[0] + bias.double().view(-1, 1, 1) + (other.double() if added else 0)
        y = winograd.convolve(x, to_taps(weight, compute), added=other if added else None, bias=bias)
        assert y.dtype == dtype and relative_error(y, expected) < tolerance


def test_an_output_of_another_type_is_not_rounded_on_the_way():
    x, weight, grad = inputs((1, 6, 18, 10, 9), torch.bfloat16)
    y = winograd.convolve(x, to_taps(weight, torch.float32), out_dtype=torch.float32)
    assert y.dtype == torch.float32 and relative_error(y, reference(x, weight, grad)[0]) < 2e-6


@pytest.mark.parametrize('rows', [1, 2, 5])
def test_chunks_of_tile_rows_change_nothing(monkeypatch, rows):
    shape = (3, 5, 6, 14, 11)       # 4 tile rows an image: the chunks end within images
    x, weight, grad = inputs(shape)
    monkeypatch.setattr(winograd, 'BUFFER', winograd.TAPS * 3 * 6 * 4 * rows)
    assert len(winograd.Tiles(3, 14, 11, 6).chunks()) == -(-12 // rows)
    found = winograd.convolve(x, to_taps(weight)), *winograd.gradients(grad, x, to_taps(weight))
    for a, b in zip(found, reference(x, weight, grad), strict=True):
        assert relative_error(a, b) < 1e-13


def test_a_weight_without_gradient_gets_none_and_the_map_gets_its_own():
    x, weight, grad = inputs((2, 5, 6, 9, 7))
    grad_x, grad_taps = winograd.gradients(grad, x, to_taps(weight), needs_weight=False)
    assert grad_taps is None and relative_error(grad_x, reference(x, weight, grad)[1]) < 1e-13


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_what_is_not_finite_reaches_all_outputs_that_it_reaches_in_a_direct_convolution(value):
    x, weight, _ = inputs((1, 4, 18, 12, 12), torch.float32)
    x[0, 2, 4, 7] = value
    expected = F.conv2d(x, weight, padding=1).isfinite()
    found = winograd.convolve(x, to_taps(weight)).isfinite()
    assert not expected.all() and not (found & ~expected).any()
    assert found[..., 9:, :].all()      # and no tile but those it lies in


def test_two_threads_compute_what_one_does():
    x, weight, grad = inputs((2, 20, 70, 30, 21), torch.float32)
    found = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append((winograd.convolve(x, to_taps(weight)), *winograd.gradients(grad, x, to_taps(weight))))
    finally:
        torch.set_num_threads(1)
    for one, two in zip(*found, strict=True):
        assert relative_error(two, one.double()) < 1e-6
