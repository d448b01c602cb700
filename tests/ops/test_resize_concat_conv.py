"""3×3 convolution of concatenated, resized maps, in each form, against torch's three operators in float64."""
import functools
import math
import os
import random
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from helpers import LiveBytes, assert_close, draw, relative_error
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from inceptionnext_seg.ops import _native as native
from inceptionnext_seg.ops import dispatch, tap_tables
from inceptionnext_seg.ops import resize_concat_conv as fusion
from inceptionnext_seg.ops import resize_concat_conv_factorized as factorized
from inceptionnext_seg.ops.resize_concat_conv import resize_concat_conv2d

LAYOUTS = dict(nchw=torch.contiguous_format, nhwc=torch.channels_last)
# batch, output channels, output size, and (channels, height, width) of each map.
CASES = dict(
    upernet=(2, 16, (32, 40), [(16, 32, 40), (16, 16, 20), (16, 8, 10), (16, 4, 5)]),   # enough tiles for Winograd
    odd_sizes=(3, 5, (23, 31), [(3, 23, 31), (4, 12, 16), (2, 5, 7)]),
    pyramid_pooling=(1, 17, (13, 9), [(20, 13, 9), (5, 1, 1), (5, 2, 2), (5, 3, 3), (5, 6, 6)]),
    hardly_smaller=(1, 3, (19, 21), [(4, 17, 20), (3, 19, 21)]),
    larger_than_the_output=(2, 4, (6, 7), [(3, 6, 7), (2, 13, 11)]),
    one_axis_shrinks=(1, 4, (60, 5), [(3, 4, 12)]),
    one_pixel=(2, 4, (1, 1), [(3, 1, 1), (2, 1, 1)]),
    from_one_pixel=(1, 4, (9, 7), [(3, 1, 1)]),
    one_row=(1, 4, (1, 30), [(3, 1, 7)]),
    one_map=(3, 6, (12, 10), [(7, 12, 10)]),
    several_direct=(1, 16, (48, 48), [(8, 48, 48), (16, 48, 48), (16, 47, 46)]),        # and not all for Winograd
    more_channels_than_a_strip=(1, 133, (12, 12), [(3, 6, 6), (2, 12, 12)]))


@pytest.fixture(params=['torch', 'factorized', 'native'])
def impl(request):
    if request.param == 'native' and native.why_not('winograd', 'upsampled_taps'):
        pytest.skip('no C++ compiler')
    return request.param


@pytest.fixture
def kernels():
    if native.why_not('winograd', 'upsampled_taps'):
        pytest.skip('no C++ compiler')


def inputs(batch, out_channels, size, maps, dtype=torch.float64, layout=torch.contiguous_format, seed=0):
    """Maps, weight, bias, and the gradient of the output, as if a training step had made them."""
    seeds = iter(range(100 * seed, 100 * seed + 100))

    def normal(*shape):
        return draw(*shape, seed=next(seeds), dtype=dtype, layout=layout)

    features = [normal(batch, *shape) for shape in maps]
    weight = normal(out_channels, sum(shape[0] for shape in maps), 3, 3)
    return features, weight, normal(out_channels), normal(batch, out_channels, *size)


def run(operator, features, weight, bias, grad):
    """The output, then the gradients to maps, weight and bias."""
    leaves = [tensor.detach().clone(memory_format=torch.preserve_format).requires_grad_()
              for tensor in (*features, weight, *([] if bias is None else [bias]))]
    maps, leaf = leaves[:len(features)], leaves[len(features):]
    y = operator(maps, leaf[0], leaf[1] if len(leaf) > 1 else None)
    return [y.detach(), *torch.autograd.grad(y, leaves, grad.to(y.dtype))]


def form(impl, size=None, align_corners=False):
    """A form as an operator of maps, weight and bias."""
    return functools.partial(resize_concat_conv2d, size=size, align_corners=align_corners, impl=impl)


def reference(features, weight, bias, grad, size, align_corners):
    """As :func:`run`, in float64 and by torch's operators."""
    def operator(maps, weight, bias):
        maps = [x if tuple(x.shape[2:]) == size else
                F.interpolate(x, size, mode='bilinear', align_corners=align_corners) for x in maps]
        return F.conv2d(torch.cat(maps, 1), weight, bias, padding=1)

    return run(operator, [x.double() for x in features], weight.double(), None if bias is None else bias.double(),
               grad.double())


# Exactness


@pytest.mark.logits_match
@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize('case', CASES.values(), ids=CASES)
def test_output_and_gradients_are_those_of_interpolate_cat_and_conv2d(case, align_corners, impl):
    *tensors, grad = inputs(*case)
    size = case[2]
    expected = reference(*tensors, grad, size, align_corners)
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
        features, weight, bias, grad = inputs(*case, dtype)
        found = run(form(impl, size, align_corners), features, weight, bias, grad)
        assert all(tensor.dtype == dtype for tensor in found)
        assert_close(found, expected, tolerance)


@pytest.mark.logits_match
def test_random_shapes_layouts_and_maps_give_the_same(impl):
    choose = random.Random(0)
    for seed in range(25):
        size = choose.randint(1, 40), choose.randint(1, 40)
        maps = [(choose.randint(1, 20), *(size if choose.random() < 0.3 else (
            choose.randint(1, size[0] + 2), choose.randint(1, size[1] + 2)))) for _ in range(choose.randint(1, 4))]
        case = choose.randint(1, 3), choose.randint(1, 24), size, maps
        align_corners = choose.random() < 0.5
        features, weight, bias, grad = inputs(*case, torch.float32, seed=seed)
        layouts = [choose.choice([*LAYOUTS.values()]) for _ in range(len(features) + 2)]
        features = [x.contiguous(memory_format=layout) for x, layout in zip(features, layouts, strict=False)]
        weight, grad = weight.contiguous(memory_format=layouts[-1]), grad.contiguous(memory_format=layouts[-2])
        bias = bias if choose.random() < 0.5 else None
        expected = reference(features, weight, bias, grad, size, align_corners)
        found = run(form(impl, size, align_corners), features, weight, bias, grad)
        assert_close(found, expected, 1e-5)


@pytest.mark.parametrize('bias', [False, True], ids=['no_bias', 'bias'])
@pytest.mark.parametrize('weight_layout', LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize('layout', LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize('case', ['upernet', 'several_direct', 'pyramid_pooling'])
def test_neither_layout_changes_what_is_computed(case, layout, weight_layout, bias, impl):
    case = CASES[case]
    features, weight, offset, grad = inputs(*case, layout=layout)
    weight, offset = weight.contiguous(memory_format=weight_layout), offset if bias else None
    found = run(form(impl, case[2]), features, weight, offset, grad)
    assert_close(found, reference(features, weight, offset, grad, case[2], False), 1e-10)
    if layout == torch.channels_last and impl != 'torch':
        assert found[0].is_contiguous(memory_format=torch.channels_last)


def test_maps_that_are_parts_of_others_are_read_where_they_are(impl):
    features, weight, bias, grad = inputs(2, 5, (12, 10), [(9, 14, 11), (8, 7, 6)])

    def parts(maps):
        return [maps[0][:, 2:8, 1:13, :10], maps[1][:, ::2].transpose(2, 3)]

    def stock(maps, weight, bias):
        first, second = parts(maps)
        second = F.interpolate(second, (12, 10), mode='bilinear')
        return F.conv2d(torch.cat([first, second], 1), weight, bias, padding=1)

    tensors = features, weight[:, :10], bias, grad
    assert_close(run(lambda maps, *parameters: resize_concat_conv2d(parts(maps), *parameters, impl=impl), *tensors),
                 run(stock, *tensors), 1e-10)


def test_a_bias_that_is_part_of_another_tensor_is_read_where_it_is(impl):
    features, weight, bias, _ = inputs(*CASES['upernet'], dtype=torch.float32)
    strided = torch.stack([bias, torch.full_like(bias, 9)], 1)[:, 0]
    found, expected = (form(impl)(features, weight, offset) for offset in (strided, bias))
    assert not strided.is_contiguous() and torch.equal(found, expected)


def test_an_interpolation_worked_by_hand(impl):
    """One pixel above another, 1 and 3, upsampled to four rows of 1, 1.5, 2.5, 3; then the sum of three neighbours."""
    column = torch.tensor([1., 3.]).view(1, 1, 2, 1)
    weight = torch.zeros(1, 1, 3, 3)
    weight[0, 0, :, 1] = 1
    y = resize_concat_conv2d([column], weight, size=(4, 1), impl=impl)
    torch.testing.assert_close(y.flatten(), torch.tensor([2.5, 5., 7., 5.5]))


@pytest.mark.parametrize('layout', LAYOUTS.values(), ids=LAYOUTS)
def test_bfloat16_is_as_near_to_float64_as_rounding_allows(layout, impl):
    """The C++ form rounds once, to 8 bits; the others round each resized map or product, too."""
    case = CASES['upernet']
    features, weight, bias, grad = inputs(*case, torch.bfloat16, layout)
    found = run(form(impl, case[2]), features, weight, bias, grad)
    assert all(tensor.dtype == torch.bfloat16 for tensor in found)
    assert_close(found, reference(features, weight, bias, grad, case[2], False), 3e-3 if impl == 'native' else 2e-2)


@pytest.mark.parametrize('layout', LAYOUTS.values(), ids=LAYOUTS)
def test_autocast_gives_bfloat16_near_float64_and_gradients_of_the_parameters_type(layout, impl):
    case = CASES['upernet']
    *tensors, grad = inputs(*case, torch.float32, layout)

    def operator(maps, weight, bias):
        with torch.autocast('cpu', dtype=torch.bfloat16):
            return resize_concat_conv2d(maps, weight, bias, case[2], impl=impl)

    found = run(operator, *tensors, grad)
    assert found[0].dtype == torch.bfloat16 and all(gradient.dtype == torch.float32 for gradient in found[1:])
    assert_close(found, reference(*tensors, grad, case[2], False), 2e-2)


def test_autocast_leaves_float64_alone_as_it_does_for_a_convolution(impl):
    features, weight, bias, grad = inputs(*CASES['odd_sizes'])
    with torch.autocast('cpu', dtype=torch.bfloat16):
        y = resize_concat_conv2d(features, weight, bias, impl=impl)
    assert_close([y], reference(features, weight, bias, grad, (23, 31), False)[:1], 1e-10)


@pytest.mark.parametrize('maps', [[(3, 12, 10), (0, 6, 5)], [(0, 12, 10), (3, 6, 5)], [(0, 48, 40), (16, 48, 40)]],
                         ids=str)
def test_a_map_without_channels_adds_nothing(maps, impl):
    features, weight, bias, grad = inputs(2, 2, maps[0][1:], maps)
    full = [x for x in features if x.shape[1]]
    expected = reference(full, weight, bias, grad, maps[0][1:], False)
    found = run(lambda maps, weight, bias: resize_concat_conv2d(
        [maps[0] if x.shape[1] else x for x in features], weight, bias, maps_size(features), impl=impl),
        full, weight, bias, grad)
    assert_close(found, expected, 1e-10)


def maps_size(features):
    return tuple(features[0].shape[2:])


def test_maps_without_any_channels_are_a_value_error(impl):
    with pytest.raises(ValueError, match='no channels'):
        resize_concat_conv2d([torch.zeros(2, 0, 5, 4)], torch.zeros(3, 0, 3, 3), impl=impl)


# Autograd


@pytest.mark.parametrize('dtype, tolerance', [(torch.float64, 1e-10), (torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_a_weight_of_one_output_channel_may_have_any_first_stride(kernels, dtype, tolerance):
    """Of one image and one thread torch's own backward refuses it: slow_conv2d: grad_weight must be contiguous."""
    features, weight, _, grad = inputs(1, 1, (12, 10), [(5, 12, 10)], dtype, torch.channels_last)
    weight = weight.permute(2, 3, 1, 0).clone(memory_format=torch.contiguous_format).permute(3, 2, 0, 1)
    assert weight.stride(0) == 1
    expected = reference(features, weight.contiguous(), None, grad, (12, 10), False)
    assert_close(run(form('native'), features, weight, None, grad), expected, tolerance)


@pytest.mark.parametrize('layout', LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize('out_channels', [1, 5])
def test_the_gradient_of_the_weight_lies_as_the_weight_does(layout, out_channels, impl):
    """Where it does not, DistributedDataParallel warns and copies it."""
    features, weight, bias, grad = inputs(2, out_channels, (12, 10), [(3, 12, 10), (4, 6, 5)], layout=layout)
    weight.requires_grad_()
    resize_concat_conv2d(features, weight, bias, impl=impl).backward(grad)
    assert weight.grad.stride() == weight.stride()


@pytest.mark.parametrize('frozen', ['weight', 'weight and bias', 'maps', 'first map', 'all'])
def test_what_takes_no_gradient_gets_none_and_the_rest_its_own(frozen, impl):
    case = CASES['upernet']
    features, weight, bias, grad = inputs(*case)
    expected = dict(zip(('y', 'x0', 'x1', 'x2', 'x3', 'weight', 'bias'),
                      reference(features, weight, bias, grad, case[2], False), strict=True))
    del expected['y']
    leaves = dict({f'x{i}': x for i, x in enumerate(features)}, weight=weight, bias=bias)
    without = {'weight': ['weight'], 'weight and bias': ['weight', 'bias'], 'maps': ['x0', 'x1', 'x2', 'x3'],
               'first map': ['x0'], 'all': list(leaves)}[frozen]
    for name, tensor in leaves.items():
        tensor.requires_grad_(name not in without)
    y = resize_concat_conv2d(features, weight, bias, impl=impl)
    assert y.requires_grad == (frozen != 'all')
    if frozen != 'all':
        y.backward(grad)
    for name, tensor in leaves.items():
        if name in without:
            assert tensor.grad is None, name
        else:
            assert relative_error(tensor.grad, expected[name]) < 1e-10, name


def test_it_trains_after_it_was_evaluated_in_inference_mode(impl):
    for table in (tap_tables.axis_table, tap_tables.across_matrix, tap_tables.down_matrix):
        table.cache_clear()
    features, weight, bias, grad = inputs(*CASES['odd_sizes'])
    with torch.inference_mode():
        resize_concat_conv2d(features, weight, bias, impl=impl)
    found = run(form(impl), features, weight, bias, grad)
    assert_close(found, reference(features, weight, bias, grad, (23, 31), False), 1e-10)


@pytest.mark.parametrize('needs_weight', [False, True])
def test_the_registered_operators_are_what_torch_wants_of_operators(kernels, needs_weight):
    """Schema, shapes and strides without data, and gradients with and without a traced graph, by torch's own checks."""
    features, weight, bias, grad = inputs(2, 5, (12, 10), [(3, 12, 10), (4, 6, 5)], torch.float32, torch.channels_last)
    for tensor in (*features, weight, bias):
        tensor.requires_grad_()
    torch.library.opcheck(
        fusion.resize_concat_conv2d_operator.registered, (features, weight, bias, 12, 10, False, False))
    torch.library.opcheck(fusion.resize_concat_conv2d_backward_operator.registered, (
        grad, [x.detach() for x in features], weight.detach(), False, needs_weight))


@pytest.mark.parametrize('name', ['resize_concat_conv2d', 'resize_concat_conv2d_factorized'])
def test_an_operator_of_several_maps_has_no_defaults_which_torch_2_4_would_not_count_as_inputs(name):
    """There backward has to return as many gradients as arguments were given, less those that are their defaults."""
    schema = getattr(torch.ops.inceptionnext_seg, name).default._schema
    assert not any(argument.has_default_value() for argument in schema.arguments)


@pytest.mark.compile
@pytest.mark.filterwarnings('ignore:Dynamo detected a call to a `functools.lru_cache`')
def test_torch_compile_takes_the_whole_graph_and_gives_the_same(impl):
    case = CASES['odd_sizes']
    *tensors, grad = inputs(*case, torch.float32)
    compiled = torch.compile(form(impl, case[2]), backend='aot_eager', fullgraph=True)
    assert_close(run(compiled, *tensors, grad), reference(*tensors, grad, case[2], False), 1e-5)


def test_two_threads_compute_what_one_does(kernels):
    case = CASES['upernet']
    *tensors, grad = inputs(*case, torch.float32, torch.channels_last)
    found = []
    try:
        for threads in (1, 2, 2):
            torch.set_num_threads(threads)
            found.append(run(form('native', case[2]), *tensors, grad))
    finally:
        torch.set_num_threads(1)
    assert_close(found[1], found[0], 1e-6)
    assert all(map(torch.equal, found[2], found[1]))    # and the same every time


# Cost


def count(operator, *arguments):
    """MACs of a call."""
    with FlopCounterMode(display=False) as counter:
        operator(*arguments)
    assert counter.get_total_flops() % 2 == 0
    return counter.get_total_flops() // 2


# Of 16 to 16 channels: at 32×40, and at 16×20, 8×10 and 4×5.
ONE_TAP = [2 * 16 * 16 * pixels for pixels in (32 * 40, 16 * 20, 8 * 10, 4 * 5)]
# 36 products for each of the 8×10 tiles of the two images.
WINOGRAD = 36 * 2 * 8 * 10 * 16 * 16


def test_the_macs_counted_are_those_executed_by_a_count_by_hand(kernels):
    features, weight, bias, grad = inputs(*CASES['upernet'], torch.float32)

    def forward(impl):
        return count(form(impl), features, weight, bias)

    assert forward('torch') == 9 * 4 * ONE_TAP[0]
    assert forward('native') == WINOGRAD + 9 * sum(ONE_TAP[1:])
    # Behind the taps, the products with the tables: 3 w columns of (3 h · 16) to 40, then 3 h rows of 40 · 16 to 32.
    tables = sum(2 * 40 * 3 * w * (3 * h * 16) + 2 * 32 * 3 * h * (40 * 16) for h, w in ((16, 20), (8, 10), (4, 5)))
    assert forward('factorized') == 9 * ONE_TAP[0] + 9 * sum(ONE_TAP[1:]) + tables

    def both(weight, impl='native'):
        leaves = [x.clone().requires_grad_() for x in features]
        return count(lambda: resize_concat_conv2d(leaves, weight, bias, impl=impl).backward(grad))

    assert both(weight.clone().requires_grad_(), 'factorized') == 27 * sum(ONE_TAP) + 2 * tables
    assert both(weight.clone().requires_grad_()) == 3 * (WINOGRAD + 9 * sum(ONE_TAP[1:]))
    assert both(weight) == 2 * (WINOGRAD + 9 * sum(ONE_TAP[1:]))


def test_with_few_tiles_or_channels_the_macs_are_those_of_a_direct_convolution(kernels):
    for case in ((1, 16, (12, 12), [(16, 12, 12)]), (2, 8, (32, 40), [(16, 32, 40)])):
        batch, out_channels, (height, width), _ = case
        assert count(form('native'), *inputs(*case)[:3]) == 9 * batch * height * width * 16 * out_channels


def traffic(call):
    """(operators, copies from the host, bytes) on a device that is not there, of the second call: the first makes the
    tables. Views and empty tensors are no operators; bytes are those of each operator's tensors, read or written once,
    of one that is expanded the elements that there are, and of one that is read and written twice as many."""
    names, copies, total = [], 0, 0

    class Count(TorchDispatchMode):
        def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
            nonlocal copies, total
            found = operator(*args, **(kwargs or {}))
            name = operator.overloadpacket.__name__
            if operator.namespace == 'prim' or operator.is_view or name in (
                    '_unsafe_view', 'empty', 'empty_like', 'new_empty'):
                return found
            names.append(name)
            tensors = [x for x in pytree.tree_leaves((args, kwargs, found)) if isinstance(x, torch.Tensor)]
            copies += sum(x.device.type == 'cpu' for x in tensors)
            places = {(x.untyped_storage()._cdata, x.storage_offset(), x.shape): x for x in tensors}
            both = [args[0]] if name in ('addmm_', 'baddbmm_') else []
            total += sum(x.itemsize * math.prod(n for n, s in zip(x.shape, x.stride(), strict=True) if s)
                         for x in (*places.values(), *both))
            return found

    call()
    with Count():
        call()
    return names, copies, total


@pytest.mark.skipif(tuple(map(int, torch.__version__.split('.')[:2])) < (2, 5),
                    reason='in torch 2.4 a conversion of a fake CUDA tensor asks the driver')
def test_the_factorized_form_keeps_its_budget_of_operators_copies_and_bytes_at_the_shapes_of_a_real_training(
        monkeypatch):
    """UperNet-T's fusion at 16 × 512×512 under AMP, on a fake GPU. The least bytes: each product of the formula reads
    its operands and writes its result once, the output is written once."""
    batch, channels, sides = 16, 512, (128, 64, 32, 16)

    def elements(*shape):
        return 2 * math.prod(shape)     # bytes of them, in half precision

    maps = [elements(batch, channels, side, side) for side in sides]
    z = [elements(batch, 9 * channels, side, side) for side in sides[1:]]
    rows = [elements(batch, 3 * channels, side, sides[0]) for side in sides[1:]]
    weight = elements(9, channels, 4 * channels)
    with FakeTensorMode():
        half = dict(dtype=torch.float16, device='cuda')
        monkeypatch.setattr(factorized, 'across_matrix', lambda n, out, *_: torch.empty(out, 3 * n, **half))
        monkeypatch.setattr(factorized, 'down_matrix', lambda sizes, out, *_: torch.empty(out, 3 * sum(sizes), **half))
        features = [torch.empty(batch, channels, side, side, **half).to(memory_format=torch.channels_last)
                    for side in sides]
        parameter = torch.empty(channels, 4 * channels, 3, 3, device='cuda').to(memory_format=torch.channels_last)
        names, copies, total = traffic(
            lambda: factorized.factorized_forward(features, parameter, None, sides[0], sides[0], False))
        assert (len(names), copies) == (13, 0) and 'cat' not in names
        assert total < 1.3 * (sum(maps) + weight + 2 * sum(z) + 2 * sum(rows) + maps[0])
        grad = torch.empty_like(features[0])
        names, copies, total = traffic(
            lambda: factorized.factorized_backward(grad, features, parameter, False, True))
        assert (len(names), copies) == (27, 0) and 'cat' not in names
        assert total < 1.3 * (2 * sum(maps) + 2 * weight + 3 * sum(z) + 2 * sum(rows) + 2 * maps[0])


# Choice

# With channels enough that the dense products of the factorized form's resampling are the smaller part.
WIDE = 1, 8, (32, 40), [(64, 32, 40), (64, 16, 20), (64, 8, 10)]

def choice(*case, dtype=torch.float32):
    features, weight, bias, _ = inputs(*case, dtype)
    return dispatch.choose(
        'resize_concat_conv2d', fusion.FORMS, 'auto', features, weight, bias, case[2], False)


def test_by_default_the_kernels_are_taken_for_what_they_are_faster_at(kernels, monkeypatch):
    monkeypatch.setattr(native, 'has_fast_bf16', lambda: False)
    assert choice(*CASES['upernet']) == choice(*CASES['pyramid_pooling']) == 'native'
    assert choice(1, 16, (48, 48), [(16, 48, 48)]) == 'native'      # by Winograd
    assert choice(*CASES['one_map']) == 'torch'                     # too small for it
    assert choice(*CASES['upernet'], dtype=torch.bfloat16) == 'native'
    monkeypatch.setattr(native, 'has_fast_bf16', lambda: True)
    assert choice(*WIDE, dtype=torch.bfloat16) == 'factorized'
    assert choice(*CASES['upernet'], dtype=torch.bfloat16) == 'torch'    # resampling costs more than it saves
    assert choice(1, 16, (48, 48), [(16, 48, 48)], dtype=torch.bfloat16) == 'torch'


def test_a_dtype_without_kernels_is_factorized_in_torch():
    assert choice(*WIDE, dtype=torch.float16) == 'factorized'
    assert choice(*CASES['one_map'], dtype=torch.float16) == 'torch'


@pytest.mark.parametrize('impl', ['auto', *fusion.FORMS])
def test_a_weight_that_does_not_fit_is_a_value_error_with_both_shapes(impl):
    features, weight, _, _ = inputs(1, 4, (8, 8), [(3, 8, 8), (2, 4, 4)])
    with pytest.raises(ValueError, match=r'weight is \(4, 4, 3, 3\); expected \(O, 5, 3, 3\) for 2 maps of \[3, 2\]'):
        resize_concat_conv2d(features, weight[:, :4], impl=impl)
    with pytest.raises(ValueError, match=r'weight is \(4, 5, 1, 1\); expected'):
        resize_concat_conv2d(features, weight[..., :1, :1], impl=impl)


def test_by_default_meta_tensors_give_shapes_and_the_macs_of_the_model():
    features, weight, bias, _ = inputs(*CASES['upernet'])
    meta = [x.to('meta') for x in features], weight.to('meta'), bias.to('meta')
    assert resize_concat_conv2d(*meta).shape == (2, 16, 32, 40)
    assert count(resize_concat_conv2d, *meta) == 9 * 4 * ONE_TAP[0]


FALLBACK = """
import torch
from inceptionnext_seg.ops import _native, dispatch
from inceptionnext_seg.ops import resize_concat_conv as fusion
assert _native.why_not('winograd', 'upsampled_taps')
maps = [torch.randn(1, 3, 8, 8), torch.randn(1, 62, 4, 4)]
weight = torch.randn(4, 65, 3, 3)
for features, form in ((maps, 'factorized'), (maps[:1], 'torch')):
    assert dispatch.choose('fusion', fusion.FORMS, 'auto', features, weight, None, (8, 8), False) == form
found, expected = (fusion.resize_concat_conv2d(maps, weight, impl=impl) for impl in ('auto', 'torch'))
torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
try:
    fusion.resize_concat_conv2d(maps, weight, impl='native')
except dispatch.FormError as error:
    assert 'C++ kernels' in str(error)
else:
    raise AssertionError('no error')
"""


@pytest.mark.parametrize('setting', [dict(INCEPTIONNEXT_SEG_NATIVE='0'), dict(CXX='no-such-compiler')])
def test_without_kernels_torch_operators_are_taken(root, tmp_path, setting):
    environment = dict(os.environ, PYTHONPATH=str(root), OMP_NUM_THREADS='1', INCEPTIONNEXT_SEG_CACHE=str(tmp_path))
    result = subprocess.run([sys.executable, '-c', FALLBACK], env=dict(environment, **setting), capture_output=True,
                            text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    said = result.stdout + result.stderr
    assert ('C++ kernels are not used, torch operators are: no C++ compiler' in said) == ('CXX' in setting)


def test_the_taps_of_a_low_map_are_freed_before_the_tiles_of_the_next_level(kernels):
    """Taps of a map of half the side are 9 / 4 of the output, Winograd's tiles 36 / 16 of a map and of the output."""
    channels, side = 16, 48
    maps = [draw(1, channels, n, n, dtype=torch.float32, layout=torch.channels_last) for n in (side, side // 2)]
    weight = draw(channels, 2 * channels, 3, 3, dtype=torch.float32)
    output, part = 4 * channels * side**2, 4 * channels**2
    taps, tiles, filters = 9 / 4 * output, 2 * 36 / 16 * output, (36 + 9 + 9) * part
    with torch.no_grad(), LiveBytes() as live:
        fusion.resize_concat_conv2d_cpu(maps, weight, None, side, side, False, False)
    assert max(taps, tiles) + output < live.peak <= (max(taps, tiles) + output + filters) * 1.03
