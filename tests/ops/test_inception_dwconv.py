"""The token mixer in one pass against its definition in torch's operators, and timm's module."""
import copy
import random

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from block_checks import LAYOUTS, definition, inputs, run
from helpers import assert_close, draw
from timm.models.inception_next import InceptionDWConv2d as TimmInceptionDWConv2d
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from inceptionnext_seg.ops import _native as native
from inceptionnext_seg.ops import inception_dwconv
from inceptionnext_seg.ops.dispatch import FormError
from inceptionnext_seg.ops.inception_dwconv import inception_dwconv2d

# Batch, channels, height, width, channels of a branch, square kernel, band kernel. Channels that fill vectors and ones
# that do not; no identity at all; fewer channels than a vector; one row, one column, one pixel; tiles cut at odd
# places; kernels larger than the image, and of one pixel.
SHAPES = [
    (2, 96, 9, 16, 12, 3, 11), (1, 128, 7, 21, 16, 3, 11), (2, 40, 8, 8, 10, 3, 9), (1, 150, 5, 37, 50, 3, 5),
    (1, 3, 5, 7, 1, 3, 5), (2, 8, 6, 1, 2, 5, 3), (2, 8, 1, 9, 1, 3, 11), (3, 17, 1, 1, 3, 7, 21),
    (1, 34, 4, 3, 11, 9, 31), (2, 24, 6, 11, 3, 1, 1), (1, 12, 20, 18, 4, 3, 7)]


@pytest.fixture
def kernel():
    """Without the compiled kernel both sides of a comparison would be torch's operators."""
    if native.why_not('inception_dwconv'):
        pytest.skip('there is no C++ compiler, or INCEPTIONNEXT_SEG_NATIVE=0')


@pytest.fixture
def no_kernel(monkeypatch):
    """A machine without a compiler."""
    monkeypatch.setattr(native, 'load', lambda name: native.Library({}, 'no C++ compiler'))


class Mixer(nn.Module):
    """timm's parameters, this operator."""

    def __init__(self, channels, band_kernel_size=11, branch_ratio=0.125, impl='auto'):
        super().__init__()
        branch, self.impl = int(channels * branch_ratio), impl
        self.dwconv_hw = nn.Conv2d(branch, branch, 3, groups=branch)
        self.dwconv_w = nn.Conv2d(branch, branch, (1, band_kernel_size), groups=branch)
        self.dwconv_h = nn.Conv2d(branch, branch, (band_kernel_size, 1), groups=branch)

    def forward(self, x):
        return inception_dwconv2d(x, *self.parameters(), impl=self.impl)


def by_impl(impl):
    return lambda *arguments: inception_dwconv2d(*arguments, impl=impl)


# The same function


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('shape', SHAPES, ids=str)
@pytest.mark.parametrize('dtype, tolerance', [(torch.float64, 1e-10), (torch.float32, 1e-5)], ids=str)
def test_output_and_gradients_are_those_of_the_definition(kernel, dtype, tolerance, shape, layout):
    drawn = inputs(shape, layout, dtype)
    assert_close(run(by_impl('native'), *drawn), run(definition, *drawn), tolerance)


@pytest.mark.parametrize('layout', LAYOUTS)
def test_random_shapes_in_float64(kernel, layout):
    choose = random.Random(layout)
    for seed in range(40):
        branch = choose.randint(1, 20)
        shape = (choose.randint(1, 3), 3 * branch + choose.choice((0, 1, choose.randint(0, 70))),
                 choose.randint(1, 20), choose.randint(1, 40), branch, choose.choice((1, 3, 5, 7)),
                 choose.choice((1, 3, 9, 11, 23)))
        drawn = inputs(shape, layout, torch.float64, seed)
        assert_close(run(by_impl('native'), *drawn), run(definition, *drawn), 1e-10)


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('shape', SHAPES[:5], ids=str)
def test_bfloat16_is_the_float32_result_rounded(kernel, shape, layout):
    drawn = inputs(shape, layout, torch.bfloat16)
    found = run(by_impl('native'), *drawn)
    expected = run(definition, *([tensor.float() for tensor in part] if isinstance(part, list) else part.float()
                               for part in drawn))
    assert {tensor.dtype for tensor in found} == {torch.bfloat16}
    assert_close(found, expected, 2**-8)
    identity = shape[1] - 3 * shape[4]
    assert torch.equal(found[0][:, :identity], drawn[0][:, :identity])


@pytest.mark.parametrize('layout', LAYOUTS)
def test_bfloat16_rounds_to_nearest_even_as_torch(kernel, layout):
    x, parameters, _ = inputs((1, 24, 16, 16, 8, 3, 11), layout)
    # Integers, so that every sum is exact in float32 and its rounding is all there is; many are ties.
    x, *parameters = (tensor.mul(20).round() for tensor in (x, *parameters))
    exact = definition(x, *parameters)
    found = inception_dwconv2d(x.bfloat16(), *(parameter.bfloat16() for parameter in parameters), impl='native')
    ties = exact.view(torch.int32) & 0xffff == 0x8000
    assert ties.sum() > 50
    assert torch.equal(found, exact.bfloat16())


@pytest.mark.logits_match
@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('channels, settings', [(48, dict()), (40, dict(band_kernel_size=9, branch_ratio=0.25))])
def test_timm_gives_the_same_output_and_gradients_for_the_same_state_dict(kernel, channels, settings, layout):
    theirs = TimmInceptionDWConv2d(channels, **settings).double()
    ours = Mixer(channels, **settings, impl='native').double()
    ours.load_state_dict(theirs.state_dict())
    assert list(ours.state_dict()) == list(theirs.state_dict())
    results = []
    for module in (ours, theirs):
        x = inputs((2, channels, 13, 9, 1, 1, 1), layout, torch.float64)[0].requires_grad_()
        y = module(x)
        y.square().sum().backward()
        results.append([y.detach(), x.grad, *(parameter.grad for parameter in module.parameters())])
    assert_close(*results, 1e-10)


@pytest.mark.parametrize('layout', LAYOUTS)
def test_gradients_are_right_by_finite_differences(kernel, layout):
    x, parameters, _ = inputs((1, 7, 3, 4, 2, 3, 5), layout, torch.float64)
    x, *parameters = (tensor.requires_grad_() for tensor in (x, *parameters))
    assert torch.autograd.gradcheck(by_impl('native'), (x, *parameters))


@pytest.mark.parametrize('value', [float('nan'), float('inf'), -float('inf')])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize('layout', LAYOUTS)
def test_nan_and_infinity_reach_what_they_reach_in_torch(kernel, layout, dtype, value):
    x, parameters, grad = inputs((1, 20, 9, 19, 6, 3, 5), layout, dtype)
    for channel, row, column in ((0, 3, 3), (5, 0, 0), (9, 8, 18), (16, 4, 9)):
        x[0, channel, row, column] = value
        grad[0, channel, row, column] = value
    found, expected = run(by_impl('native'), x, parameters, grad), run(definition, x, parameters, grad)
    for a, b in zip(found[:2], expected[:2], strict=True):
        assert torch.equal(a.isnan(), b.isnan()) and torch.equal(a.isinf(), b.isinf())
        assert torch.equal(a[a.isinf()], b[b.isinf()])
    for a, b in zip(found[2:], expected[2:], strict=True):    # no infinite gradient may go unseen by a loss scaler
        assert a[~b.isfinite()].isfinite().sum() == 0


def test_weight_gradients_do_not_lose_digits_in_large_maps(kernel):
    x, parameters, grad = inputs((2, 4, 300, 300, 1, 3, 3))
    x, grad = x + 1, grad + 1   # the sum grows to 180,000, of which float32 alone would keep five digits
    expected = run(definition, x.double(), [parameter.double() for parameter in parameters], grad.double())
    assert_close(run(by_impl('native'), x, parameters, grad), expected, 1e-6)


# Layouts, threads


@pytest.mark.parametrize('layout', LAYOUTS)
def test_the_output_and_the_gradient_keep_the_layout(kernel, layout):
    x, parameters, grad = inputs((2, 24, 6, 5, 3, 3, 5), layout)
    y, grad_x, *_ = run(by_impl('native'), x, parameters, grad)
    assert y.stride() == x.stride() == grad_x.stride()


@pytest.mark.parametrize('change', [
    lambda t: t[:, :, 1:, ::2], lambda t: t[:, ::2], lambda t: t.transpose(2, 3), lambda t: t[:1].expand(2, -1, -1, -1),
    lambda t: t.flip(0).transpose(0, 1).contiguous().transpose(0, 1)])
@pytest.mark.parametrize('layout', LAYOUTS)
def test_any_strides_of_input_and_gradient_are_taken(kernel, layout, change):
    x, _, grad = inputs((2, 48, 8, 8, 3, 3, 5), layout, torch.float64)
    x, grad = change(x), change(grad)
    parameters = inputs((1, 48, 1, 1, 3, 3, 5), dtype=torch.float64)[1]
    for one, other in ((x, grad), (x, grad.contiguous()), (x, grad.to(memory_format=torch.channels_last))):
        assert_close(run(by_impl('native'), one, parameters, other), run(definition, one, parameters, other), 1e-10)


@pytest.mark.parametrize('layout', LAYOUTS)
def test_the_number_of_threads_changes_nothing(kernel, layout):
    drawn = inputs((3, 48, 21, 33, 6, 3, 11), layout)
    alone = run(by_impl('native'), *drawn)
    torch.set_num_threads(3)
    try:
        together, again = run(by_impl('native'), *drawn), run(by_impl('native'), *drawn)
    finally:
        torch.set_num_threads(1)
    assert all(map(torch.equal, together, again))
    assert_close(alone, together, 1e-6)
    assert torch.equal(alone[0], together[0]) and torch.equal(alone[1], together[1])


@pytest.mark.parametrize('impl', ['auto', 'native', 'torch'])
@pytest.mark.parametrize('layout', LAYOUTS)
def test_an_empty_batch_gives_an_empty_output_and_no_gradient_to_parameters(kernel, impl, layout):
    x, parameters, grad = inputs((0, 8, 4, 4, 2, 3, 5), layout)
    y, grad_x, *grads = run(by_impl(impl), x, parameters, grad)
    assert y.shape == grad_x.shape == x.shape
    assert [grad.shape for grad in grads] == [parameter.shape for parameter in parameters]
    assert not any(grad.any() for grad in grads)


@pytest.mark.parametrize('size', [(0, 5), (5, 0)])
def test_a_map_without_pixels_gives_one(kernel, size):
    x, parameters, grad = inputs((2, 8, *size, 2, 3, 5))
    y, grad_x, *grads = run(by_impl('native'), x, parameters, grad)
    assert y.shape == grad_x.shape == x.shape and not any(grad.any() for grad in grads)


@pytest.mark.parametrize('layout', LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize('impl', ['native', 'torch'])
def test_gradients_lie_as_their_parameters_do(kernel, impl, layout):
    """Where they do not, DistributedDataParallel warns and copies them."""
    module = Mixer(16, impl=impl).to(memory_format=layout)
    module(draw(2, 16, 6, 5, dtype=torch.float32, layout=layout)).sum().backward()
    for parameter in module.parameters():
        assert parameter.grad.stride() == parameter.stride()


# With the rest of torch


def test_autocast_is_as_with_a_convolution(kernel):
    x, parameters, grad = inputs((2, 24, 8, 9, 3, 3, 11))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        found = run(by_impl('native'), x, parameters, grad.bfloat16())
        convolved = F.conv2d(x, torch.randn(1, 24, 1, 1))
        exact = run(by_impl('native'), x.double(), [parameter.double() for parameter in parameters], grad.double())
    assert found[0].dtype == convolved.dtype == torch.bfloat16
    assert {tensor.dtype for tensor in found[1:]} == {torch.float32}    # as the tensors that they are gradients of
    assert {tensor.dtype for tensor in exact} == {torch.float64}
    expected = run(definition, x.bfloat16().float(), parameters, grad.bfloat16().float())
    assert_close(found, expected, 2**-8)


def test_autocast_to_a_type_that_the_kernel_has_not_takes_torchs_operators(kernel):
    x, parameters, _ = inputs((1, 12, 5, 5, 2, 3, 5))
    with torch.autocast('cpu', dtype=torch.float16):
        found, expected = inception_dwconv2d(x, *parameters), definition(x, *parameters)
        with pytest.raises(FormError, match=r"'native'.*computed in torch.float16"):
            inception_dwconv2d(x, *parameters, impl='native')
    assert found.dtype == torch.float16 and torch.equal(found, expected.half())


@pytest.mark.parametrize('impl', ['native', 'torch'])
def test_under_autocast_every_form_returns_what_a_convolution_of_torch_returns(kernel, impl):
    x, parameters, _ = inputs((1, 12, 5, 5, 2, 3, 5))
    for given in (x, x.bfloat16(), x.double()):
        with torch.autocast('cpu', dtype=torch.bfloat16):
            found = inception_dwconv2d(given, *(p.to(given.dtype) if given.dtype == torch.float64 else p
                                                for p in parameters), impl=impl)
            expected = F.conv2d(given, torch.ones(1, 12, 1, 1, dtype=given.dtype))
        assert found.dtype == expected.dtype


def test_only_what_is_needed_gets_a_gradient(kernel):
    module = Mixer(16, impl='native')
    x = torch.randn(1, 16, 6, 6)
    module.requires_grad_(False)
    input_alone = x.clone().requires_grad_()
    module(input_alone).sum().backward()
    assert input_alone.grad is not None and all(parameter.grad is None for parameter in module.parameters())
    module.requires_grad_(True)
    module.dwconv_w.weight.requires_grad_(False)
    module(x).sum().backward()
    assert [name for name, parameter in module.named_parameters() if parameter.grad is None] == ['dwconv_w.weight']
    module.requires_grad_(False)
    assert not module(x).requires_grad


def test_negations_that_torch_has_put_off_are_done_before_the_kernel_reads_memory(kernel):
    x, parameters, grad = inputs((2, 12, 5, 6, 3, 3, 5), dtype=torch.float32)
    for marked in (torch._neg_view(x), torch._neg_view(grad)):
        assert marked.is_neg()
    expected = run(inception_dwconv2d, -x, parameters, -grad)
    leaf = x.clone().requires_grad_()
    y = inception_dwconv2d(torch._neg_view(leaf), *parameters, impl='native')
    y.backward(torch._neg_view(grad))
    assert torch.equal(y, expected[0]) and torch.equal(-leaf.grad, expected[1])


def test_checkpointing_and_inference_mode_give_the_same(kernel):
    x, parameters, grad = inputs((2, 16, 7, 7, 2, 3, 11))
    plain = run(by_impl('native'), x, parameters, grad)
    recomputed = run(lambda *given: checkpoint(by_impl('native'), *given, use_reentrant=False), x, parameters, grad)
    assert all(map(torch.equal, plain, recomputed))
    with torch.inference_mode():
        assert torch.equal(inception_dwconv2d(x, *parameters, impl='native'), plain[0])


def test_a_second_derivative_is_that_of_torch_operators(kernel):
    seconds = []
    for impl in ('native', 'torch'):
        x, parameters, grad = inputs((1, 8, 4, 4, 1, 3, 5))
        x.requires_grad_(), parameters[0].requires_grad_()
        found, = torch.autograd.grad(inception_dwconv2d(x, *parameters, impl=impl), x, grad, create_graph=True)
        seconds.append(torch.autograd.grad(found.square().sum(), parameters[0])[0])
    assert torch.allclose(*seconds, rtol=1e-5) and seconds[0].any()


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16], ids=str)
def test_torch_finds_the_operators_to_be_what_they_say(kernel, dtype, layout):
    x, parameters, grad = inputs((2, 16, 5, 6, 2, 3, 5), layout, dtype)
    torch.library.opcheck(inception_dwconv.inception_dwconv2d_operator.registered, (x, *parameters))
    torch.library.opcheck(inception_dwconv.inception_dwconv2d_operator.registered, (
        x.requires_grad_(), *(parameter.requires_grad_() for parameter in parameters)),
        test_utils=('test_schema', 'test_faketensor', 'test_autograd_registration'))
    for need_x, need_parameters in ((True, True), (True, False), (False, True)):
        torch.library.opcheck(inception_dwconv.inception_dwconv2d_backward_operator.registered, (
            grad, x.detach(), *(parameter.detach() for parameter in parameters[::2]), need_x, need_parameters))


@pytest.mark.compile
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16], ids=str)
def test_torch_compile_takes_the_whole_graph(kernel, dtype):
    module = Mixer(24)
    compiled = torch.compile(module, fullgraph=True, backend='aot_eager')
    x, _, grad = inputs((2, 24, 9, 8, 3, 3, 11))
    results = []
    with torch.autocast('cpu', dtype=dtype, enabled=dtype != torch.float32):
        for function in (compiled, module):
            module.zero_grad()
            given = x.clone().requires_grad_()
            y = function(given)
            y.backward(grad.to(y.dtype))
            results.append([y.detach(), given.grad, *(parameter.grad for parameter in module.parameters())])
    assert all(map(torch.equal, *results))


@pytest.mark.compile
def test_torch_compile_sees_one_operator(kernel):
    graphs = []
    torch.compile(Mixer(24), fullgraph=True, backend=lambda graph, inputs: graphs.append(graph) or graph)(
        torch.randn(2, 24, 9, 8))
    operators = [str(node.target) for node in graphs[0].graph.nodes if node.op == 'call_function']
    assert 'inceptionnext_seg.inception_dwconv2d.default' in operators
    assert not any('conv2d' in name or 'cat' in name for name in operators if 'inceptionnext_seg' not in name)


@pytest.mark.compile
@pytest.mark.slow
def test_code_that_torch_compile_generates_around_it_gives_the_same(kernel):
    block = nn.Sequential(nn.GELU(), Mixer(24), nn.GELU(), Mixer(24))
    x = inputs((2, 24, 9, 8, 3, 3, 11))[0]
    results = []
    for function in (torch.compile(block, fullgraph=True), block):
        given = x.clone().requires_grad_()
        y = function(given)
        y.square().sum().backward()
        results.append([y.detach(), given.grad])
    assert_close(*results, 1e-5)


def test_a_traced_model_needs_nothing_of_this_package(kernel):
    assert 'inceptionnext_seg::' not in str(torch.jit.trace(Mixer(16).eval(), torch.randn(1, 16, 6, 6)).inlined_graph)


@pytest.mark.skipif(not hasattr(torch.compiler, 'is_exporting'),
                    reason='before torch 2.7 an operator cannot tell torch.export from torch.compile')
def test_an_exported_model_needs_nothing_of_this_package(kernel):
    module = Mixer(16).eval()
    x = torch.randn(1, 16, 6, 6)
    exported = torch.export.export(module, (x, ))
    assert 'inceptionnext_seg.' not in str(exported.graph)
    assert_close([exported.module()(x)], [module(x)], 1e-5)


def test_a_copied_module_computes_the_same(kernel):
    module = Mixer(16, impl='native')
    x = torch.randn(1, 16, 6, 6)
    assert torch.equal(copy.deepcopy(module)(x), module(x))


@pytest.mark.parametrize('layout', LAYOUTS)
def test_training_goes_as_with_torchs_operators(kernel, layout):
    models = [nn.Sequential(
        nn.Conv2d(3, 24, 4, stride=4), Mixer(24, impl=impl), nn.GELU(), nn.Conv2d(24, 40, 2, stride=2),
        Mixer(40, impl=impl)).to(memory_format=LAYOUTS[layout]) for impl in ('torch', 'auto')]
    models[1].load_state_dict(models[0].state_dict())
    images = draw(2, 3, 64, 64, dtype=torch.float32, layout=LAYOUTS[layout])
    losses = []
    for model in models:
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        for _ in range(5):
            loss = (model(images) - 1).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert losses[:5] == pytest.approx(losses[5:], rel=1e-4)
    assert losses[4] < losses[0]


# Counting


@pytest.mark.parametrize('trained, passes', [('x and parameters', 3), ('x', 2), ('parameters', 2), ('', 1)])
def test_its_macs_are_those_of_the_convolutions(kernel, trained, passes):
    x, parameters, grad = inputs((2, 24, 9, 8, 3, 3, 11))
    x.requires_grad_('x' in trained)
    parameters = [parameter.requires_grad_('parameters' in trained) for parameter in parameters]

    def step(impl):
        y = inception_dwconv2d(x, *parameters, impl=impl)
        if trained:
            y.backward(grad)

    def macs(impl):
        with FlopCounterMode(display=False) as counter:
            step(impl)
        return counter.get_total_flops() / 2

    assert macs('native') == passes * 2 * 9 * 8 * 3 * (9 + 11 + 11)
    if 'parameters' not in trained:     # torch counts weight gradients as if there were no groups
        assert macs('torch') == macs('native')


def test_on_meta_tensors_they_are_those_of_the_convolutions_too():
    x, parameters, _ = inputs((2, 24, 9, 8, 3, 3, 11))
    with FlopCounterMode(display=False) as counter:
        inception_dwconv2d(x.to('meta'), *(parameter.to('meta') for parameter in parameters), impl='native')
    assert counter.get_total_flops() == 2 * 2 * 9 * 8 * 3 * (9 + 11 + 11)


# Choice and errors


@pytest.mark.parametrize('impl, native_calls', [('auto', 1), ('native', 1), ('torch', 0)])
def test_impl_chooses_the_implementation(kernel, impl, native_calls, monkeypatch):
    calls, function = [], native.function
    monkeypatch.setattr(native, 'function', lambda *names: calls.append(names) or function(*names))
    Mixer(16, impl=impl)(torch.randn(1, 16, 4, 4))
    assert len(calls) == native_calls


def test_without_a_compiler_auto_takes_torchs_operators(no_kernel):
    drawn = inputs((1, 12, 6, 5, 2, 3, 5))
    assert all(map(torch.equal, run(by_impl('auto'), *drawn), run(definition, *drawn)))


def test_an_implementation_that_is_not_there_is_an_error(no_kernel):
    with pytest.raises(FormError, match=r"'native'.*no C\+\+ compiler"):
        Mixer(16, impl='native')(torch.randn(1, 16, 4, 4))
    with pytest.raises(FormError, match=r"'triton'.* on cpu"):
        Mixer(16, impl='triton')(torch.randn(1, 16, 4, 4))


def test_the_type_of_weights_and_input_must_be_one_as_for_a_convolution(kernel):
    x, parameters, _ = inputs((1, 12, 6, 5, 2, 3, 5))
    with pytest.raises(FormError, match=r'weights are torch.float32 and the input is computed in torch.bfloat16'):
        inception_dwconv2d(x.bfloat16(), *parameters, impl='native')
    with pytest.raises(RuntimeError, match='should be the same'):
        inception_dwconv2d(x.bfloat16(), *parameters)


@pytest.mark.parametrize('position, shape, message', [
    (0, (1, 5, 4, 4), r'shape \(1, 5, 4, 4\); expected \(B, C, H, W\) with C at least 6'),
    (0, (12, 4, 4), 'expected \\(B, C, H, W\\)'),
    (1, (2, 1, 3, 5), r'weight_hw has shape \(2, 1, 3, 5\); expected'),
    (3, (3, 1, 1, 5), r'weight_w has shape \(3, 1, 1, 5\); expected \(2, 1, 1, 5\)'),
    (5, (2, 1, 5, 3), r'weight_h has shape \(2, 1, 5, 3\); expected \(2, 1, 5, 1\)'),
    (4, (3, ), r'bias_w has shape \(3,\); expected \(2,\)'),
    (3, (2, 1, 1, 4), r'kernel sizes are 3, 4 and 5 .* expected odd')])
def test_shapes_that_do_not_fit_are_named(position, shape, message):
    x, parameters, _ = inputs((1, 12, 6, 5, 2, 3, 5))
    given = [x, *parameters]
    given[position] = torch.zeros(shape)
    with pytest.raises(ValueError, match=message):
        inception_dwconv2d(*given)
