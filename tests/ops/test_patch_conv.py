"""Convolutions of patches as one matrix product, against the convolution in float64."""
import copy

import pytest
import torch
import torch.nn as nn
from helpers import assert_close, draw

from inceptionnext_seg.ops import _native as native
from inceptionnext_seg.ops import dispatch
from inceptionnext_seg.ops.patch_conv import FORMS, patch_conv2d, why_not_product

LAYOUTS = dict(nchw=torch.contiguous_format, nhwc=torch.channels_last)
TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-6}
SIZES = [(12, 8), (13, 11), (4, 7), (5, 4)]     # whole patches, and a last row and column that belong to none


def inputs(kernel, size, dtype=torch.float64, layout=torch.channels_last, bias=True):
    """A convolution and a map (3, 6, H, W) in a layout."""
    torch.manual_seed(0)
    conv = nn.Conv2d(6, 10, kernel, stride=kernel, bias=bias).to(dtype, memory_format=layout)
    return conv, draw(3, 6, *size, seed=1, dtype=dtype, layout=layout)


def run(operator, conv, x):
    """The output, and the gradients to map, weight and bias of a sum that no symmetry hides from."""
    conv, x = copy.deepcopy(conv), x.clone(memory_format=torch.preserve_format).requires_grad_()
    y = operator(x, conv)
    grad = draw(*y.shape, seed=2, dtype=y.dtype)
    return [y.detach(), *torch.autograd.grad(y, (x, *conv.parameters()), grad)]


def takes_product(x, conv):
    """Whether 'auto' takes the product."""
    return dispatch.choose('patch_conv2d', FORMS, 'auto', x, conv, None) == 'product'


def by_torch(x, conv):
    return conv(x)


@pytest.mark.logits_match
@pytest.mark.parametrize('dtype', TOLERANCES)
@pytest.mark.parametrize('bias', [True, False], ids=['bias', 'no_bias'])
@pytest.mark.parametrize('layout', LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('kernel', [1, 2, 4, (2, 1)])
def test_output_and_gradients_are_those_of_the_convolution(kernel, size, layout, bias, dtype):
    expected = run(by_torch, *inputs(kernel, size, bias=bias))
    conv, x = inputs(kernel, size, dtype, layout, bias)
    found = run(patch_conv2d, conv, x)
    assert all(tensor.dtype == dtype for tensor in found)
    assert_close(found, expected, TOLERANCES[dtype])
    if layout == torch.channels_last:
        assert takes_product(x, conv) and found[0].is_contiguous(memory_format=torch.channels_last)


def test_patches_worked_by_hand():
    """Sums of 2×2 patches; the last column belongs to none."""
    conv = nn.Conv2d(1, 1, 2, stride=2)
    nn.init.ones_(conv.weight), nn.init.constant_(conv.bias, 100)
    x = torch.arange(10.).view(1, 1, 2, 5)      # 0 to 4 above 5 to 9
    assert patch_conv2d(x, conv).flatten().tolist() == [100 + 0 + 1 + 5 + 6, 100 + 2 + 3 + 7 + 8]


@pytest.mark.parametrize('bias', [True, False], ids=['bias', 'no_bias'])
@pytest.mark.parametrize('layout', LAYOUTS.values(), ids=LAYOUTS)
def test_channel_factors_multiply_the_map(layout, bias):
    factors = torch.tensor([0., 2.])[torch.randint(2, (3, 6), generator=torch.Generator().manual_seed(3))]
    for dtype, tolerance in TOLERANCES.items():
        found = run(lambda x, conv: patch_conv2d(x, conv, factors), *inputs(1, (5, 7), dtype, layout, bias))
        expected = run(lambda x, conv: conv(x * factors[:, :, None, None]), *inputs(1, (5, 7), bias=bias))
        assert_close(found, expected, tolerance)
    assert not found[1][factors == 0].any()     # what is dropped has no gradient


@pytest.mark.parametrize('kernel, factors', [
    (1, None), (2, None), (4, None), (1, torch.tensor([[1.25, 0., 1.25, 1.25, 1.25, 0.]] * 3))],
    ids=['1x1', '2x2', '4x4', 'factors'])
def test_autocast_gives_bfloat16_near_float64_and_gradients_of_the_parameters_type(kernel, factors):
    scale = 1 if factors is None else factors[:, :, None, None]

    def under_autocast(x, conv):
        with torch.autocast('cpu', dtype=torch.bfloat16):
            return patch_conv2d(x, conv, factors)

    found = run(under_autocast, *inputs(kernel, (13, 11), torch.float32))
    assert found[0].dtype == torch.bfloat16 and all(tensor.dtype == torch.float32 for tensor in found[1:])
    # Rounded are the map, and the output and the gradient to the map; the weight too where the CPU multiplies bfloat16.
    assert_close(found, run(lambda x, conv: conv(x * scale), *inputs(kernel, (13, 11))), 5e-3)


def test_by_torch_a_half_map_with_factors_in_float32_is_not_copied_to_float32():
    conv, x = nn.Conv2d(6, 10, 1).half(), draw(2, 6, 5, 4, dtype=torch.float16)
    factors = torch.tensor([0., 1 / 0.9])[torch.arange(12).view(2, 6) % 2]
    with torch.profiler.profile(record_shapes=False) as profile:
        found = patch_conv2d(x, conv, factors, impl='torch')
    assert torch.equal(found, conv(x * factors[:, :, None, None].half()))
    assert found.dtype == torch.float16 and any(event.key == 'aten::mul' for event in profile.key_averages())


def test_autocast_leaves_float64_alone_as_it_does_for_a_convolution():
    conv, x = inputs(2, (12, 8))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert_close([patch_conv2d(x, conv)], [conv(x)], 1e-12)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('frozen', ['x', 'weight', 'bias', 'parameters'])
def test_what_takes_no_gradient_gets_none_and_the_rest_its_own(frozen, dtype):
    expected = dict(zip(('x', 'weight', 'bias'), run(by_torch, *inputs(2, (12, 8)))[1:], strict=True))
    conv, x = inputs(2, (12, 8), torch.float32)
    leaves = dict(conv.named_parameters(), x=x)
    for name, leaf in leaves.items():
        leaf.requires_grad_(not (name == frozen or (frozen == 'parameters' and name != 'x')))
    with torch.autocast('cpu', dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        y = patch_conv2d(x, conv)
    y.backward(draw(*y.shape, seed=2, dtype=y.dtype))
    for name, leaf in leaves.items():
        assert (leaf.grad is not None) == leaf.requires_grad
        if leaf.requires_grad:
            assert_close([leaf.grad], [expected[name]], 1e-6 if dtype == torch.float32 else 5e-3)


@pytest.mark.parametrize('kernel', [1, 2])
@pytest.mark.parametrize('autocast', [False, True], ids=['fp32', 'bf16'])
@pytest.mark.parametrize('layout', LAYOUTS.values(), ids=LAYOUTS)
def test_the_gradient_of_the_weight_lies_as_the_weight_does(layout, autocast, kernel):
    """Where it does not, DistributedDataParallel warns and copies it."""
    conv, _ = inputs(kernel, (8, 6), torch.float32, layout)
    x = draw(3, 6, 8, 6, dtype=torch.float32, layout=torch.channels_last)
    with torch.autocast('cpu', dtype=torch.bfloat16, enabled=autocast):
        patch_conv2d(x, conv, impl='product').float().sum().backward()
    assert conv.weight.grad.stride() == conv.weight.stride()


@pytest.mark.parametrize('impl', ['auto', 'product'])
@pytest.mark.parametrize('shape', [(0, 6, 8, 4), (2, 6, 1, 1)])
def test_a_map_without_patches_gives_one(shape, impl):
    conv = nn.Conv2d(6, 10, 2, stride=2)
    if shape[0]:    # the convolution itself refuses an image smaller than its kernel
        with pytest.raises(RuntimeError):
            conv(torch.zeros(shape))
    assert patch_conv2d(torch.zeros(shape), conv, impl=impl).shape == (shape[0], 10, shape[2] // 2, shape[3] // 2)


class OtherConv(nn.Conv2d):
    """A convolution that may do what it likes in its own forward."""


@pytest.mark.parametrize('conv', [
    nn.Conv2d(6, 4, 3, stride=3, padding=1), nn.Conv2d(6, 4, 2, stride=1), nn.Conv2d(6, 4, 2, 2, groups=2),
    nn.Conv2d(6, 4, 2, 2, dilation=2), OtherConv(6, 4, 2, 2)],
    ids=['padding', 'overlapping', 'groups', 'dilation', 'subclass'])
def test_other_convolutions_are_run_as_they_are(conv):
    x = torch.randn(2, 6, 9, 9).contiguous(memory_format=torch.channels_last)
    assert why_not_product(x, conv)
    assert torch.equal(patch_conv2d(x, conv), conv(x))


def test_a_1x1_convolution_of_a_map_in_nchw_stays_a_convolution():
    conv, x = inputs(1, (5, 7), torch.float32, torch.contiguous_format)
    assert not takes_product(x, conv) and torch.equal(patch_conv2d(x, conv), conv(x))
    both_layouts_at_once = x[:, :1].contiguous(memory_format=torch.channels_last)
    assert takes_product(both_layouts_at_once, nn.Conv2d(1, 4, 1))


def test_without_gradients_patches_are_not_copied_for_a_product():
    conv, x = inputs(2, (12, 8), torch.float32)
    assert takes_product(x, conv)
    with torch.no_grad():
        assert not takes_product(x, conv)
        conv, x = inputs(1, (5, 7), torch.float32)
        assert takes_product(x, conv)


def test_in_bfloat16_patches_are_products_in_float_where_the_processor_has_no_better(monkeypatch):
    conv, x = inputs(2, (12, 8), torch.float32)
    for fast, form in ((False, 'float_product'), (True, 'torch')):
        monkeypatch.setattr(native, 'has_fast_bf16', lambda fast=fast: fast)
        with torch.no_grad(), torch.autocast('cpu', dtype=torch.bfloat16):
            assert dispatch.choose('patch_conv2d', FORMS, 'auto', x, conv, None) == form


def test_a_map_on_another_device_is_left_to_the_convolution():
    conv, x = inputs(2, (12, 8), torch.float32)
    assert not takes_product(x.to('meta'), conv.to('meta')) and patch_conv2d(x.to('meta'), conv).shape == (3, 10, 6, 4)


@pytest.mark.compile
@pytest.mark.parametrize('kernel', [1, 2])
@pytest.mark.parametrize('autocast', [False, True], ids=['fp32', 'bf16'])
def test_torch_compile_takes_the_whole_graph_and_gives_the_same(kernel, autocast):
    def operator(x, conv):
        with torch.autocast('cpu', dtype=torch.bfloat16, enabled=autocast):
            return patch_conv2d(x, conv)

    conv, x = inputs(kernel, (13, 11), torch.float32)
    compiled = torch.compile(operator, backend='aot_eager', fullgraph=True)
    assert_close(run(compiled, conv, x), run(operator, conv, x), 1e-6)


@pytest.mark.parametrize('weight_layout', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize('bias', [False, True])
def test_the_gradient_of_a_1x1_weight_lies_as_the_weight_whatever_the_layout_of_the_map(weight_layout, layout, bias):
    """In torch's form, which CUDA runs; under autocast torch's own convolution gives it the layout of the map."""
    conv = nn.Conv2d(8, 16, 1, bias=bias).to(memory_format=weight_layout)
    x = torch.randn(2, 8, 6, 6).contiguous(memory_format=layout)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        found, expected = patch_conv2d(x, conv, impl='torch'), conv(x)
    grad = torch.randn_like(expected)
    weight, own = (torch.autograd.grad(y, conv.weight, grad)[0] for y in (found, expected))
    assert torch.equal(found, expected) and torch.equal(weight, own)
    assert weight.stride() == conv.weight.stride() and found.stride() == expected.stride()
