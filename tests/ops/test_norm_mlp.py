"""The fused second half of a MetaNeXt block against its modules one after another in float64."""
import copy

import pytest
import torch
import torch.nn as nn
from helpers import assert_close, draw, relative_error
from torch.utils.flop_counter import FlopCounterMode

from inceptionnext_seg.ops import _native as native
from inceptionnext_seg.ops import dispatch, norm_mlp, onednn

if native.why_not('batch_norm', 'mlp'):
    pytest.skip(native.why_not('batch_norm', 'mlp'), allow_module_level=True)

BATCH, CHANNELS, HIDDEN, SIZE = 3, 20, 44, (9, 7)
TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-5}
NORMS = dict(
    train=lambda: nn.BatchNorm2d(CHANNELS, eps=1e-3), eval=lambda: nn.BatchNorm2d(CHANNELS).eval(), none=lambda: None,
    no_affine=lambda: nn.BatchNorm2d(CHANNELS, affine=False),
    cumulative=lambda: nn.BatchNorm2d(CHANNELS, momentum=None),
    no_statistics=lambda: nn.BatchNorm2d(CHANNELS, track_running_stats=False))
FACTORS = dict(none=None, dropped=(0., 1.25, 1.25), different=(2., 0., 0.5), all_dropped=(0., 0., 0.))


@pytest.fixture(autouse=True)
def small_maps_too(monkeypatch):
    monkeypatch.setattr(norm_mlp, 'LEAST_HIDDEN', 0)


class Half(nn.Module):
    """What of a block follows its token mixer, as modules; every layer matters."""

    def __init__(self, norm='train', gamma=True, channels=CHANNELS, hidden=HIDDEN):
        super().__init__()
        self.norm, self.act = NORMS[norm](), nn.GELU()
        self.fc1, self.fc2 = nn.Conv2d(channels, hidden, 1), nn.Conv2d(hidden, channels, 1)
        self.gamma = nn.Parameter(torch.empty(channels)) if gamma else None
        torch.manual_seed(0)
        for name, value in self.state_dict().items():
            if name.startswith('norm') or name == 'gamma':
                value.uniform_(0.5, 1.5) if value.is_floating_point() else value.fill_(7)

    def forward(self, x, y, factors=None):
        y = self.fc2(self.act(self.fc1(y if self.norm is None else self.norm(y))))
        y = y if self.gamma is None else y * self.gamma[:, None, None]
        return x + (y if factors is None else y * factors[:, None, None, None])


def fused(half, x, y, factors=None):
    return norm_mlp.norm_mlp(x, y, half.norm, half.fc1, half.act, half.fc2, half.gamma, factors, impl='native')


def inputs(dtype=torch.float64, layout=torch.channels_last, size=SIZE, seed=1):
    """x, y and the gradient of the output."""
    return [1.5 * draw(BATCH, CHANNELS, *size, seed=seed + i, dtype=dtype, layout=layout) + 0.5 for i in range(3)]


def last(x):
    return x.contiguous(memory_format=torch.channels_last)


def run(operator, half, x, y, grad, factors=None):
    """By name: the output, every gradient, every statistic. ``half`` stays as it is."""
    half = copy.deepcopy(half).to(x.dtype)
    x, y = (tensor.clone(memory_format=torch.preserve_format).requires_grad_() for tensor in (x, y))
    out = operator(half, x, y, None if factors is None else torch.tensor(factors, dtype=x.dtype))
    out.backward(grad.to(out.dtype))
    results = dict(out=out.detach(), x=x.grad, y=y.grad, **dict(half.named_buffers()))
    return dict(results, **{name: p.grad for name, p in half.named_parameters()})


@pytest.mark.logits_match
@pytest.mark.parametrize('dtype', TOLERANCES)
@pytest.mark.parametrize('factors', FACTORS.values(), ids=FACTORS)
@pytest.mark.parametrize('gamma', [True, False], ids=['gamma', 'no_gamma'])
@pytest.mark.parametrize('norm', NORMS)
def test_output_gradients_and_statistics_are_those_of_the_modules(norm, gamma, factors, dtype):
    half = Half(norm, gamma)
    expected = run(Half.forward, half, *inputs(), factors)
    found = run(fused, half, *inputs(dtype), factors)
    assert all(tensor.dtype == dtype for name, tensor in found.items() if not name.endswith('tracked'))
    assert found['out'].is_contiguous(memory_format=torch.channels_last)
    assert_close(found, expected, TOLERANCES[dtype])


@pytest.mark.parametrize('factors', [*FACTORS.values(), (0.5, 0.5, 0.), (0.5, 0., 0.5)], ids=str)
@pytest.mark.parametrize('rows', [1, 7, 21, 62, 63, 64, 100, 126, 1000])
def test_blocks_of_any_number_of_pixels_give_the_same(monkeypatch, rows, factors):
    """An image has 63: blocks are smaller, whole, and, where its neighbour has the same factor, beyond its end."""
    monkeypatch.setattr(norm_mlp, 'LEAST_ROWS', 1)
    monkeypatch.setattr(norm_mlp, 'BLOCK_BYTES', 4 * HIDDEN * rows)
    assert max(end - begin for _, begin, end in norm_mlp.blocks([1.] * BATCH, 63, HIDDEN)) == min(rows, BATCH * 63)
    half = Half()
    assert_close(run(fused, half, *inputs(), factors), run(Half.forward, half, *inputs(), factors), 1e-10)


def test_by_default_an_image_larger_than_a_block_gives_the_same():
    half, size = Half(), (83, 77)
    assert len(list(norm_mlp.blocks([1.], 83 * 77, HIDDEN))) == 2
    assert_close(run(fused, half, *inputs(torch.float32, size=size)), run(Half.forward, half, *inputs(size=size)), 1e-5)


@pytest.mark.parametrize('dtype, tolerance', [(torch.float64, 1e-14), (torch.float32, 1e-6)])
def test_gelu_and_its_derivative_are_those_of_torch_far_from_zero_too(dtype, tolerance):
    """Identities in the place of both convolutions. The error is absolute: far below zero GELU is nothing."""
    half = Half('none', gamma=False, hidden=CHANNELS)
    for conv in (half.fc1, half.fc2):
        conv.weight.data, conv.bias.data = torch.eye(CHANNELS)[..., None, None], torch.zeros(CHANNELS)
    y = torch.linspace(-12, 12, BATCH * CHANNELS * 63, dtype=torch.float64).view(BATCH, CHANNELS, *SIZE)
    y.view(-1)[:4] = torch.tensor([0., -100., 100., 1e-30])
    expected, found = (run(operator, half, 0 * y.to(t), last(y.to(t)), torch.ones_like(y.to(t)))
                     for operator, t in ((Half.forward, torch.float64), (fused, dtype)))
    for name in ('out', 'y'):
        error = (found[name].double() - expected[name]).abs()
        assert (error <= tolerance * expected[name].abs().clamp(min=1)).all(), name


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_what_is_not_finite_is_so_behind_it(value):
    half, (x, y, _) = Half('none'), inputs(torch.float32)
    y[1, 3, 4, 5] = value
    found, expected = fused(half, x, y).isfinite(), half(x, y).isfinite()
    assert not expected[1, :, 4, 5].any() and torch.equal(found, expected)


def test_maps_of_another_layout_give_the_same():
    half, nchw = Half(), torch.contiguous_format
    assert_close(run(fused, half, *inputs(layout=nchw), FACTORS['dropped']),
                 run(Half.forward, half, *inputs(layout=nchw), FACTORS['dropped']), 1e-10)


@pytest.mark.parametrize('mean', [10., 100.])
def test_a_mean_far_above_the_standard_deviation_costs_no_more_digits_than_in_torch(mean):
    half = Half()
    x, y, grad = inputs(torch.float32)
    y = y + mean
    expected = run(Half.forward, half, x.double(), y.double(), grad.double())
    ours, theirs = (run(operator, half, x, y, grad) for operator in (fused, Half.forward))
    for name, value in expected.items():
        if value.any():
            assert relative_error(ours[name], value) <= 10 * relative_error(theirs[name], value) + 1e-6, name


@pytest.mark.parametrize('x_dtype', [torch.float32, torch.bfloat16])
def test_bfloat16_is_as_near_to_float64_as_rounding_its_maps_allows(x_dtype):
    """As under autocast: the token mixer's map is bfloat16, the sum is of the parameters' type."""
    half = Half()
    x, y, grad = inputs(torch.bfloat16)
    x = x.to(x_dtype).requires_grad_()
    expected = run(Half.forward, half, *(tensor.detach().double() for tensor in (x, y, grad)), FACTORS['dropped'])
    y.requires_grad_()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        out = fused(half, x, y, torch.tensor(FACTORS['dropped']))
    assert out.dtype == torch.float32
    out.backward(grad.float())
    found = dict(out=out.detach(), x=x.grad, y=y.grad, **dict(half.named_buffers()),
                 **{name: p.grad for name, p in half.named_parameters()})
    assert y.grad.dtype == torch.bfloat16 and x.grad.dtype == x_dtype and half.fc1.weight.grad.dtype == torch.float32
    assert_close(found, expected, 4e-3)


# Autograd


@pytest.mark.parametrize('frozen', ['x', 'y', 'norm.weight', 'fc1.weight', 'fc2.bias', 'gamma'])
def test_what_takes_no_gradient_gets_none_and_the_rest_its_own(frozen):
    half = Half().double()
    x, y, grad = inputs()
    expected = run(Half.forward, half, x, y, grad)
    leaves = dict(half.named_parameters(), x=x, y=y)
    for name, leaf in leaves.items():
        leaf.requires_grad_(name != frozen)
    fused(half, x, y).backward(grad)
    assert leaves.pop(frozen).grad is None
    assert_close({name: leaf.grad for name, leaf in leaves.items()}, {name: expected[name] for name in leaves}, 1e-10)


@pytest.mark.parametrize('impl', ['native', 'torch'])
@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last])
def test_gradients_lie_as_their_parameters_do(layout, impl):
    """Where they do not, DistributedDataParallel warns and copies them."""
    half = Half().double().to(memory_format=layout)
    norm_mlp.norm_mlp(*inputs()[:2], half.norm, half.fc1, half.act, half.fc2, half.gamma, impl=impl).sum().backward()
    for parameter in half.parameters():
        assert parameter.grad.stride() == parameter.stride()


def test_without_gradients_nothing_is_kept_and_the_statistics_move():
    half, theirs = Half().double(), Half().double()
    x, y, _ = inputs()
    with torch.no_grad():
        found, expected = fused(half, x, y), theirs(x, y)
    assert_close(dict(half.named_buffers(), out=found), dict(theirs.named_buffers(), out=expected), 1e-10)
    sizes = []
    for operands in ((x, y), (x.requires_grad_(), y)):
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()), lambda t: t):
            fused(half.requires_grad_(operands[0].requires_grad), *operands)
        assert (BATCH * 63 * HIDDEN in sizes) == operands[0].requires_grad


def test_statistics_that_move_later_do_not_change_the_gradients_of_an_eval_norm():
    half = Half('eval').double()
    x, y, grad = inputs()
    expected = run(Half.forward, half, x, y, grad)
    y.requires_grad_()
    out = fused(half, x, y)
    half.norm.running_mean.add_(1), half.norm.running_var.mul_(3)
    out.backward(grad)
    assert relative_error(y.grad, expected['y']) < 1e-10


@pytest.mark.parametrize('norm, batch_moments', [('train', True), ('eval', False), ('none', False)])
def test_the_registered_operators_are_what_torch_wants_of_operators(norm, batch_moments):
    half = Half(norm)
    x, y, grad = inputs(torch.float32)
    moments = [None] * 4 if half.norm is None else [
        half.norm.weight.detach(), half.norm.bias.detach(), *(torch.rand(CHANNELS).double() for _ in range(2))]
    mlp = [tensor.detach() for tensor in (*half.fc1.parameters(), *half.fc2.parameters(), half.gamma)]
    factors, kept = torch.tensor(FACTORS['different']), torch.randn(BATCH * 63, HIDDEN)
    torch.library.opcheck(norm_mlp.norm_mlp_backward_operator.registered, (
        grad, y, kept, factors, *moments, 1e-3, batch_moments, *mlp))
    # Only the first output has a gradient: torch's traced check wants one of each.
    torch.library.opcheck(norm_mlp.norm_mlp_operator.registered, (
        x.requires_grad_(), y, factors, *moments, 1e-3, batch_moments, *mlp, True),
        test_utils=('test_schema', 'test_autograd_registration', 'test_faketensor'))


@pytest.mark.compile
@pytest.mark.parametrize('norm', ['train', 'eval', 'none'])
def test_torch_compile_takes_the_whole_graph_and_gives_the_same(norm):
    half = Half(norm)
    compiled = torch.compile(fused, backend='aot_eager', fullgraph=True)
    assert_close(run(compiled, half, *inputs(torch.float32), FACTORS['dropped']),
                 run(Half.forward, half, *inputs(), FACTORS['dropped']), 1e-5)


def test_two_threads_compute_what_one_does():
    half, found = Half(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(run(fused, half, *inputs(torch.float32)))
    finally:
        torch.set_num_threads(1)
    assert_close(*found, 2e-6)


# Cost and choice


def test_the_macs_counted_are_those_of_the_two_convolutions():
    half = Half()
    x, y, grad = inputs(torch.float32)
    with FlopCounterMode(display=False) as counter:
        out = fused(half, x, y.requires_grad_())
        assert counter.get_total_flops() == 2 * (2 * BATCH * 63 * CHANNELS * HIDDEN)
        out.backward(grad)
    assert counter.get_total_flops() == 3 * 2 * (2 * BATCH * 63 * CHANNELS * HIDDEN)


def chosen(x, y, norm, activation, hidden=HIDDEN):
    """The form that 'auto' takes."""
    fc1, fc2 = nn.Conv2d(CHANNELS, hidden, 1), nn.Conv2d(hidden, CHANNELS, 1)
    return dispatch.choose('norm_mlp', norm_mlp.FORMS, 'auto', x, y, norm, fc1, activation, fc2, None, None)


@pytest.mark.parametrize('norm, activation, shape, dtype', [
    (nn.BatchNorm2d(20), nn.ReLU(), (3, 20, 9, 7), torch.float32),
    (nn.BatchNorm2d(20), nn.GELU('tanh'), (3, 20, 9, 7), torch.float32),
    (nn.BatchNorm2d(20), nn.GELU(), (1, 20, 1, 1), torch.float32),
    (nn.BatchNorm2d(20), nn.GELU(), (3, 20, 9, 7), torch.float16)],
    ids=['relu', 'tanh', 'one_pixel', 'float16'])
def test_what_the_kernels_have_not_is_run_by_torch(norm, activation, shape, dtype):
    y = torch.zeros(shape, dtype=dtype)
    assert chosen(y, y, norm, activation) == 'torch'


@pytest.mark.parametrize('norm', [
    nn.GroupNorm(4, CHANNELS), nn.InstanceNorm2d(CHANNELS), nn.BatchNorm2d(CHANNELS, track_running_stats=False).eval(),
    nn.Sequential(nn.BatchNorm2d(CHANNELS))], ids=['group_norm', 'instance_norm', 'batch_statistics_in_eval', 'other'])
@pytest.mark.parametrize('impl', ['native', 'torch'])
def test_any_other_norm_is_called_first(norm, impl):
    half = Half()
    half.norm = norm

    def operator(half, x, y, factors):
        return norm_mlp.norm_mlp(x, y, half.norm, half.fc1, half.act, half.fc2, half.gamma, factors, impl=impl)

    assert_close(run(operator, half, *inputs()), run(Half.forward, half, *inputs()), 1e-10)


def test_small_maps_and_those_in_bfloat16_where_the_cpu_multiplies_it_fast_are_left_to_torch(monkeypatch):
    half, (x, y, _) = Half(), inputs(torch.float32)
    monkeypatch.setattr(native, 'has_fast_bf16', lambda: False)
    assert chosen(x, y, half.norm, half.act) == chosen(x, y.bfloat16(), half.norm, half.act) == 'native'
    monkeypatch.setattr(native, 'has_fast_bf16', lambda: True)
    assert chosen(x, y, half.norm, half.act) == 'native' and chosen(x, y.bfloat16(), half.norm, half.act) == 'torch'
    monkeypatch.setattr(norm_mlp, 'LEAST_HIDDEN', BATCH * 63 * HIDDEN + 1)
    assert chosen(x, y, half.norm, half.act) == 'torch'


# By oneDNN, in inference


needs_onednn = pytest.mark.skipif(onednn.why_not_here(torch.float32) is not None, reason='no operators of oneDNN')


@needs_onednn
@pytest.mark.logits_match
@pytest.mark.parametrize('gamma', [True, False], ids=['gamma', 'no_gamma'])
@pytest.mark.parametrize('norm', ['eval', 'none'])
@pytest.mark.parametrize('size', [SIZE, (3, 4)], ids=['layer_scale_in_the_weight', 'layer_scale_in_the_sum'])
def test_in_inference_products_of_onednn_give_what_the_modules_give(size, norm, gamma):
    half = Half(norm, gamma)
    for layout in (torch.channels_last, torch.contiguous_format):
        x, y, _ = inputs(torch.float32, layout, size)
        before = x.clone()
        with torch.inference_mode():
            found = norm_mlp.norm_mlp(x, y, half.norm, half.fc1, half.act, half.fc2, half.gamma, impl='onednn')
            expected = copy.deepcopy(half).double()(x.double(), y.double())
        assert found.is_contiguous(memory_format=torch.channels_last) and torch.equal(x, before)
        assert_close([found], [expected], 1e-5)


@pytest.mark.skipif(onednn.why_not_here(torch.bfloat16) is not None, reason='no operators of oneDNN')
@pytest.mark.parametrize('x_dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('deployed', [False, True], ids=['autocast', 'bfloat16_weights'])
def test_in_inference_bfloat16_products_of_onednn_round_and_promote_as_those_of_torch(x_dtype, deployed):
    half, (x, y, _) = Half('none', gamma=not deployed), inputs(torch.float32)
    x, y = x.to(x_dtype), y.bfloat16()
    expected = copy.deepcopy(half).double()(x.double(), y.double())
    half = half.bfloat16() if deployed else half
    found = {}
    with torch.inference_mode(), torch.autocast('cpu', torch.bfloat16, enabled=not deployed):
        for impl in ('torch', 'onednn'):
            found[impl] = norm_mlp.norm_mlp(
                x, y, half.norm, half.fc1, half.act, half.fc2, half.gamma, impl=impl)
    assert found['onednn'].dtype == found['torch'].dtype
    error, stock = (relative_error(found[impl], expected) for impl in ('onednn', 'torch'))
    assert error < max(1.5 * stock, 2 ** -8)


@needs_onednn
def test_by_the_rule_of_thumb_inference_is_onednns_and_training_is_not(monkeypatch):
    half, (x, y, _) = Half('eval'), inputs(torch.float32)
    assert chosen(x, y, half.norm, half.act) == 'native'
    with torch.no_grad():
        assert chosen(x, y, half.norm, half.act) == 'onednn'
        assert chosen(x, y, nn.BatchNorm2d(CHANNELS), half.act) == 'native'
        assert chosen(x.double(), y.double(), half.norm, half.act) != 'onednn'
        monkeypatch.setattr(native, 'has_fast_bf16', lambda: False)
        assert chosen(x, y.bfloat16(), half.norm, half.act) == 'native'


@needs_onednn
@pytest.mark.parametrize('x_dtype', [torch.float32, torch.float64], ids=['residual_in_the_product', 'residual_apart'])
def test_the_hidden_map_of_a_very_large_image_is_never_whole(monkeypatch, x_dtype):
    half, (x, y, _) = Half('eval'), inputs(torch.float32)
    multiply, counts = onednn.linear, []

    def counted(rows, *args, **settings):
        counts.append(len(rows))
        return multiply(rows, *args, **settings)
    monkeypatch.setattr(onednn, 'linear', counted)
    parts = half.norm, half.fc1, half.act, half.fc2, half.gamma
    with torch.no_grad():
        whole = norm_mlp.norm_mlp(x.to(x_dtype), y, *parts, impl='onednn')
        monkeypatch.setattr(onednn, 'MOST_HIDDEN', 7 * HIDDEN)
        counts.clear()
        in_blocks = norm_mlp.norm_mlp(x.to(x_dtype), y, *parts, impl='onednn')
    assert max(counts) == 7 and whole.dtype == in_blocks.dtype == x_dtype
    torch.testing.assert_close(in_blocks, whole)
    assert in_blocks.stride() == whole.stride()


@needs_onednn
@pytest.mark.filterwarnings('ignore:TF32 acceleration')
def test_where_onednn_is_turned_off_it_is_not_taken_and_the_default_device_is_no_matter():
    with torch.backends.mkldnn.flags(enabled=False):
        assert 'turned off' in onednn.why_not(torch.float32)
    onednn.why_not_here.cache_clear()
    with torch.device('meta'):
        assert onednn.why_not(torch.float32) is None


def test_a_build_without_onednns_operators_or_with_others_runs_in_another_form(monkeypatch):
    half, (x, y, _) = Half('eval'), inputs(torch.float32)
    for other in (None, lambda x, weight, bias, gelu=False: torch.zeros(len(x), len(weight))):
        monkeypatch.setattr(onednn, 'linear', other)
        onednn.why_not_here.cache_clear()
        with torch.no_grad():
            assert onednn.why_not(torch.float32) and chosen(x, y, half.norm, half.act) == 'native'
    onednn.why_not_here.cache_clear()
