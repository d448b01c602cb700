"""Batch normalization with its activation, against nn.BatchNorm2d and the activation in float64."""
import copy

import pytest
import torch
import torch.nn as nn
from helpers import assert_close, draw, relative_error

from inceptionnext_seg.ops import _native as native
from inceptionnext_seg.ops import batch_norm_act as operator_file
from inceptionnext_seg.ops import dispatch
from inceptionnext_seg.ops.batch_norm_act import (
    FORMS,
    batch_norm_act,
    batch_norm_act_backward_operator,
    batch_norm_act_operator,
    why_not_native,
)

if native.why_not('batch_norm'):
    pytest.skip(native.why_not('batch_norm'), allow_module_level=True)

# Channels below, at and beyond a vector's 16 lanes; pixels below, at and beyond the 64 of a partial sum.
SHAPES = [(2, 24, 9, 11), (1, 1, 3, 5), (3, 16, 8, 8), (1, 37, 1, 3), (4, 5, 1, 1), (2, 8, 31, 33)]
LAYOUTS = dict(nchw=torch.contiguous_format, nhwc=torch.channels_last)
TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-5}


@pytest.fixture(autouse=True)
def small_maps_too(monkeypatch):
    monkeypatch.setattr(operator_file, 'LEAST_VALUES', 0)


def inputs(shape, dtype=torch.float64, layout=torch.channels_last, seed=0):
    """A map and the gradient of the output."""
    return [2 * draw(*shape, seed=2 * seed + i, dtype=dtype, layout=layout) + 0.5 for i in range(2)]


def draw_norm(channels, **settings):
    torch.manual_seed(1)
    norm = nn.BatchNorm2d(channels, **settings)
    for value in norm.state_dict().values():
        if value.is_floating_point():
            nn.init.uniform_(value, 0.5, 1.5)
    return norm


def in_turn(norm, activation, x):
    x = norm(x)
    return x if activation is None else activation(x)


def run(operator, norm, activation, x, grad):
    """The output, the gradients to map, weight and bias, and the statistics; ``norm`` stays as it is."""
    norm = copy.deepcopy(norm).to(x.dtype)
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    y = operator(norm, activation, x)
    grads = torch.autograd.grad(y, (x, *norm.parameters()), grad)
    return [y.detach(), *grads, *norm.buffers()]


@pytest.mark.logits_match
@pytest.mark.parametrize('dtype', TOLERANCES)
@pytest.mark.parametrize('activation', [nn.ReLU(), nn.ReLU(inplace=True), None, nn.GELU(), nn.LeakyReLU(0.1)],
                         ids=['relu', 'relu_inplace', 'none', 'gelu', 'leaky_relu'])
@pytest.mark.parametrize('shape', SHAPES)
def test_output_gradients_and_statistics_are_those_of_torch(shape, activation, dtype):
    norm = draw_norm(shape[1])
    assert why_not_native(inputs(shape, dtype)[0], norm, activation) is None
    expected = run(in_turn, norm, activation, *inputs(shape))
    found = run(batch_norm_act, norm, activation, *inputs(shape, dtype))
    assert all(tensor.dtype == dtype for tensor in found[:-1])
    assert_close(found, expected, TOLERANCES[dtype])


@pytest.mark.parametrize('layout', LAYOUTS.values(), ids=LAYOUTS)
def test_either_layout_is_taken_and_channels_last_is_returned(layout):
    norm, shape = draw_norm(24), SHAPES[0]
    found = run(batch_norm_act, norm, nn.ReLU(), *inputs(shape, layout=layout))
    assert_close(found, run(in_turn, norm, nn.ReLU(), *inputs(shape)), 1e-10)
    assert found[0].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize('settings', [
    dict(momentum=None), dict(momentum=0.3), dict(momentum=0.), dict(track_running_stats=False), dict(eps=0.5)],
    ids=str)
def test_running_statistics_move_as_those_of_torch_over_several_batches(settings):
    ours, theirs = (draw_norm(24, **settings).double() for _ in range(2))
    for seed in range(3):
        x, _ = inputs(SHAPES[0], seed=seed)
        assert_close([batch_norm_act(ours, nn.ReLU(), x)], [theirs(x).relu()], 1e-12)
    assert_close(ours.buffers(), theirs.buffers(), 1e-12)
    assert [name for name, _ in ours.named_buffers()] == [name for name, _ in theirs.named_buffers()]
    if settings.get('track_running_stats', True):
        assert ours.num_batches_tracked == 3


def test_without_gradients_the_statistics_move_all_the_same():
    ours, theirs = (draw_norm(24).double() for _ in range(2))
    x, _ = inputs(SHAPES[0])
    with torch.no_grad():
        assert_close([batch_norm_act(ours, None, x)], [theirs(x)], 1e-12)
    assert_close(ours.buffers(), theirs.buffers(), 1e-12)


@pytest.mark.parametrize('outlier', [False, True], ids=['all_far', 'zeros_in_a_corner'])
@pytest.mark.parametrize('mean', [30., 1000.])
def test_a_mean_far_above_the_standard_deviation_costs_no_more_digits_than_in_torch(mean, outlier):
    """Against torch's own float32, in the layout in which it is the more exact. Zeros are what padding leaves."""
    shape = (2, 24, 32, 32)
    x, grad = inputs(shape, torch.float32)
    x = x + mean
    if outlier:
        x[0, :, 0, :3] = 0
    norm = draw_norm(24)
    expected = run(in_turn, norm, None, x.double(), grad.double())
    ours = run(batch_norm_act, norm, None, x, grad)
    theirs = run(in_turn, norm, None, x.contiguous(), grad.contiguous())
    for i, (a, b, value) in enumerate(zip(ours, theirs, expected, strict=True)):
        assert relative_error(a, value) <= 5 * relative_error(b, value) + 1e-6, i


def test_of_bfloat16_maps_the_output_and_the_gradient_alone_are_rounded():
    x, grad = (tensor.bfloat16() for tensor in inputs(SHAPES[0]))
    norm = draw_norm(24)
    expected = run(in_turn, norm.double(), nn.ReLU(), x.double(), grad.double())
    norm = norm.float()
    x = x.requires_grad_()
    y = batch_norm_act(norm, nn.ReLU(), x)
    y.backward(grad)
    assert y.dtype == x.grad.dtype == torch.bfloat16 and norm.weight.grad.dtype == torch.float32
    assert_close([y, x.grad], expected[:2], 3e-3)
    assert_close([norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_var], expected[2:6], 1e-5)


def test_gradients_are_those_of_finite_differences():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 3, 4, dtype=torch.float64, requires_grad=True)
    weight, bias = (torch.randn(3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(lambda *given: batch_norm_act_operator(*given, 1e-3, True)[0], (x, weight, bias))
    assert torch.autograd.gradcheck(lambda *given: batch_norm_act_operator(*given, 1e-3, False)[0], (x, weight, bias))


def test_frozen_scale_and_shift_get_no_gradient_and_the_map_its_own():
    norm, (x, grad) = draw_norm(24).double().requires_grad_(False), inputs(SHAPES[0])
    expected = run(in_turn, copy.deepcopy(norm).requires_grad_(), nn.ReLU(), x, grad)[1]
    x.requires_grad_()
    batch_norm_act(norm, nn.ReLU(), x).backward(grad)
    assert norm.weight.grad is None and norm.bias.grad is None
    assert_close([x.grad], [expected], 1e-10)


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
@pytest.mark.parametrize('place', [0, 40], ids=['first', 'another'])
def test_what_is_not_finite_makes_its_channel_nan_as_in_torch(value, place):
    ours, theirs = draw_norm(24), draw_norm(24)
    x, _ = inputs(SHAPES[0], torch.float32)
    x[0, 5].view(-1)[place] = value
    found, expected = batch_norm_act(ours, nn.ReLU(), x), theirs(x).relu()
    assert expected[:, 5].isnan().all() and torch.equal(found.isnan(), expected.isnan())
    assert torch.equal(ours.running_var.isnan(), theirs.running_var.isnan())
    assert torch.equal(ours.running_mean.isfinite(), theirs.running_mean.isfinite())


# In inference


@pytest.mark.logits_match
@pytest.mark.parametrize('activation', [nn.ReLU(), nn.ReLU(inplace=True), None, nn.GELU()],
                         ids=['relu', 'relu_inplace', 'none', 'gelu'])
@pytest.mark.parametrize('shape', SHAPES)
def test_in_inference_a_map_is_read_once_and_the_output_is_that_of_torch(shape, activation):
    norm = draw_norm(shape[1]).eval()
    for dtype, tolerance in (*TOLERANCES.items(), (torch.bfloat16, 3e-3)):
        x, _ = inputs(shape, dtype)
        before = x.clone()
        with torch.no_grad():
            found = batch_norm_act(norm, activation, x, impl='native_inference')
            expected = in_turn(copy.deepcopy(norm).double(), activation, x.double())
        assert found.dtype == dtype and torch.equal(x, before)
        assert_close([found], [expected], tolerance)


@pytest.mark.parametrize('norm, shape', [(nn.BatchNorm2d(24), (2, 48, 5, 7)), (nn.BatchNorm1d(24), (2, 24, 35))],
                         ids=['more_channels_than_the_norm', 'another_rank'])
def test_in_inference_a_map_that_does_not_fit_the_norm_is_not_read_beyond_its_scale(norm, shape):
    with torch.no_grad(), pytest.raises(dispatch.FormError, match='24'):
        batch_norm_act(norm.eval(), nn.ReLU(), torch.zeros(shape), impl='native_inference')


def test_the_rule_of_thumb_knows_inference_gradients_and_small_maps(monkeypatch):
    x, _ = inputs(SHAPES[0], torch.float32)

    def chosen(norm):
        return dispatch.choose('batch_norm_act', FORMS, 'auto', x, norm, nn.ReLU())

    norm, plain = draw_norm(24), draw_norm(24).eval()
    for least, in_training, in_inference in ((0, 'native', 'native_inference'), (10 ** 6, 'torch', 'torch')):
        monkeypatch.setattr(operator_file, 'LEAST_VALUES', least)
        monkeypatch.setattr(operator_file, 'LEAST_VALUES_IN_INFERENCE', least)
        assert (chosen(norm), chosen(plain), chosen(plain.requires_grad_(False))) == (
            in_training, 'torch', in_inference)
        plain.requires_grad_(True)


# Everything else is torch's own


class OtherNorm(nn.BatchNorm2d):
    """A norm with a forward of its own."""

    def forward(self, x):
        return super().forward(x) + 1


@pytest.mark.parametrize('make', [
    lambda: draw_norm(24).eval(), lambda: nn.BatchNorm2d(24, affine=False), lambda: OtherNorm(24),
    lambda: nn.GroupNorm(4, 24), lambda: nn.SyncBatchNorm(24), lambda: nn.BatchNorm2d(24, device='meta')],
    ids=['eval', 'no_affine', 'subclass', 'group_norm', 'sync_bn', 'meta'])
def test_other_norms_are_run_as_they_are(make):
    ours, theirs = make(), make()
    x, _ = inputs(SHAPES[0], torch.float32)
    x = x.to('meta') if isinstance(ours, nn.BatchNorm2d) and ours.weight is not None and ours.weight.is_meta else x
    assert why_not_native(x, ours, None)
    found, expected = batch_norm_act(ours, nn.ReLU(), x), theirs(x).relu()
    assert found.shape == expected.shape and (x.is_meta or torch.equal(found, expected))
    for a, b in zip(ours.buffers(), theirs.buffers(), strict=True):
        assert x.is_meta or torch.equal(a, b)


def test_no_norm_is_the_activation_and_nothing_is_the_map():
    x, _ = inputs(SHAPES[0])
    assert torch.equal(batch_norm_act(None, nn.ReLU(), x), x.relu())
    assert batch_norm_act(None, None, x) is x


def test_one_value_for_each_channel_is_the_error_of_torch():
    with pytest.raises(ValueError, match='Expected more than 1 value per channel when training'):
        batch_norm_act(draw_norm(3), nn.ReLU(), torch.randn(1, 3, 1, 1))


# The operator in torch


@pytest.mark.parametrize('relu', [False, True])
def test_the_registered_operators_are_what_torch_wants_of_operators(relu):
    x, grad = inputs((2, 5, 6, 7), torch.float32)
    weight, bias = torch.rand(5), torch.rand(5)
    moments = [torch.rand(5, dtype=torch.float64) for _ in range(2)]
    torch.library.opcheck(batch_norm_act_backward_operator.registered, (grad, x, weight, bias, *moments, 1e-3, relu))
    # Only the first output has a gradient: torch's traced check wants one of each.
    leaves = x.requires_grad_(), weight.requires_grad_(), bias.requires_grad_()
    torch.library.opcheck(batch_norm_act_operator.registered, (*leaves, 1e-3, relu),
                          test_utils=('test_schema', 'test_autograd_registration', 'test_faketensor'))


@pytest.mark.compile
@pytest.mark.parametrize('dtype', TOLERANCES)
def test_torch_compile_takes_the_whole_graph_and_gives_the_same(dtype):
    norm, shape = draw_norm(24), SHAPES[0]
    compiled = torch.compile(batch_norm_act, backend='aot_eager', fullgraph=True)
    assert_close(run(compiled, norm, nn.ReLU(), *inputs(shape, dtype)),
                 run(in_turn, norm, nn.ReLU(), *inputs(shape)), TOLERANCES[dtype])


def test_two_threads_compute_what_one_does():
    norm, found = draw_norm(8), []
    try:
        for threads in (1, 2, 2):
            torch.set_num_threads(threads)
            found.append(run(batch_norm_act, norm, nn.ReLU(), *inputs((2, 8, 31, 33), torch.float32)))
    finally:
        torch.set_num_threads(1)
    assert_close(found[1], found[0], 1e-6)
    assert all(map(torch.equal, found[2], found[1]))    # and the same every time
