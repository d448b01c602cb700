"""Residual, layer scale and stochastic depth as one operator; its kernels are in test_block_triton.py."""
import pytest
import torch
import torch.nn as nn
from helpers import assert_close, draw

from inceptionnext_seg.ops import norm_mlp
from inceptionnext_seg.ops.residual import residual, residual_operator

LAYOUTS = dict(nchw=torch.contiguous_format, nhwc=torch.channels_last)


def definition(x, y, gamma=None, factors=None):
    if gamma is not None:
        y = y * gamma.reshape(1, -1, 1, 1)
    return x + (y if factors is None else y * factors.reshape(-1, 1, 1, 1))


def inputs(gamma=True, factors=True, dtype=torch.float64, layout='nhwc'):
    x, y = (draw(3, 5, 4, 3, seed=i, dtype=dtype, layout=LAYOUTS[layout]) for i in range(2))
    return [x, y, draw(5, seed=2, dtype=dtype) if gamma else None,
            torch.tensor([0., 1.25, 1.25], dtype=dtype) if factors else None]


@pytest.mark.parametrize('function', [residual, residual_operator])
@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('gamma, factors', [(True, True), (True, False), (False, True), (False, False)])
def test_output_and_gradients_are_those_of_stock_operators(function, gamma, factors, layout):
    results = []
    for operator in (definition, function):
        *leaves, images = inputs(gamma, factors, layout=layout)
        leaves = [t.requires_grad_() for t in leaves if t is not None]
        y = operator(*leaves, *[None] * (3 - len(leaves)), images)
        y.backward(draw(*y.shape, seed=5, layout=LAYOUTS[layout]))
        results.append([y, *(t.grad for t in leaves)])
        assert all(t.grad.stride() == t.stride() for t in leaves) and y.stride() == leaves[0].stride()
    assert_close(*results, 1e-12)


def test_first_and_second_derivatives_are_right_by_finite_differences():
    x, y, gamma, factors = inputs()
    leaves = [t.requires_grad_() for t in (x, y, gamma)]
    assert torch.autograd.gradcheck(lambda *given: residual_operator(*given, factors), leaves)
    assert torch.autograd.gradgradcheck(lambda *given: residual_operator(*given, factors), leaves)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize('layout', LAYOUTS)
def test_torch_finds_the_operator_to_be_what_it_says(layout, dtype):
    x, y, gamma, factors = inputs(dtype=dtype, layout=layout)
    torch.library.opcheck(residual_operator.registered, (x, y, gamma, factors))
    torch.library.opcheck(residual_operator.registered, (
        *(t.requires_grad_() for t in (x, y, gamma)), factors),
        test_utils=('test_schema', 'test_faketensor', 'test_autograd_registration'))


@pytest.mark.parametrize('function', [residual, residual_operator])
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize('gamma', [True, False])
def test_the_dtype_is_that_of_stock_operators_so_that_what_a_small_layer_scale_adds_is_kept(function, gamma, dtype):
    x, y, gamma, factors = inputs(gamma, dtype=torch.float32)
    x, y, factors = x.to(dtype).requires_grad_(), y.to(dtype).requires_grad_(), factors.to(dtype)
    if gamma is not None:
        gamma = (1e-6 * gamma).requires_grad_()
    out = function(x, y, gamma, factors)
    out.sum().backward()
    assert out.dtype == definition(x, y, gamma, factors).dtype
    assert x.grad.dtype == y.grad.dtype == dtype and (gamma is None or gamma.grad.dtype == torch.float32)
    # Computed in float32 and rounded once.
    expected = definition(x.float(), y.float(), gamma, factors.float())
    torch.testing.assert_close(out, expected.to(out.dtype), rtol=1e-6 if gamma is not None else 0, atol=0)
    assert gamma is None or not torch.equal(out[1:], x[1:].float())


@pytest.mark.parametrize('trained, maps', [(True, 1), (False, 0)])
def test_no_map_is_kept_but_for_the_gradient_of_layer_scale_and_that_as_it_came(trained, maps):
    x, y, gamma, factors = inputs(dtype=torch.float32)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        residual_operator(x, y.half().requires_grad_(), gamma.requires_grad_(trained), factors)
    kept = [t.dtype for t in kept if t.dim() == 4]
    assert kept == [torch.float16] * maps


def block(layout, dtype=torch.float32):
    modules = nn.ModuleDict(dict(norm=nn.BatchNorm2d(8), fc1=nn.Conv2d(8, 24, 1), fc2=nn.Conv2d(24, 8, 1)))
    return modules.to(dtype).to(memory_format=layout)


def test_off_the_cpu_a_block_has_the_dtype_of_stock_operators_too():
    x = torch.empty(2, 8, 4, 4, dtype=torch.float16, device='meta')
    modules = block(torch.channels_last, torch.float16).to('meta')
    gamma = torch.empty(8, device='meta')       # float32, as under autocast
    for factors in (None, torch.empty(2, device='meta')):
        y = norm_mlp.norm_mlp(x, x, modules.norm, modules.fc1, nn.GELU(), modules.fc2, gamma, factors)
        assert y.dtype == torch.float32 and y.shape == x.shape


@pytest.mark.parametrize('form', [norm_mlp.norm_mlp_torch, norm_mlp.norm_mlp_triton])
@pytest.mark.parametrize('autocast', [False, True])
@pytest.mark.parametrize('layout', LAYOUTS.values(), ids=LAYOUTS)
def test_gradients_of_a_blocks_parameters_lie_as_the_parameters_do(form, autocast, layout):
    """Those of torch's operators, which CUDA runs. ``.grad`` would hide it: copies have the parameter's strides."""
    modules, gamma = block(layout), torch.ones(8, requires_grad=True)
    x = draw(2, 8, 4, 4, dtype=torch.float32, layout=torch.channels_last)
    with torch.autocast('cpu', dtype=torch.bfloat16, enabled=autocast):
        y = form(x, x, modules.norm, modules.fc1, nn.GELU(), modules.fc2, gamma, torch.tensor([0., 1.25]))
    parameters = [*modules.parameters(), gamma]
    grads = torch.autograd.grad(y, parameters, torch.ones_like(y))
    assert [g.stride() for g in grads] == [p.stride() for p in parameters]


@pytest.mark.parametrize('position, shape, message', [
    (0, (5, 4, 3), r'x has shape \(5, 4, 3\)'), (1, (3, 5, 4, 4), r'y \(3, 5, 4, 4\); expected: both'),
    (2, (4, ), r'gamma has shape \(4,\); expected \(5,\)'),
    (3, (3, 1), r'factors has shape \(3, 1\); expected \(3,\)')])
def test_shapes_that_do_not_fit_are_named(position, shape, message):
    given = inputs()
    given[position] = torch.zeros(shape)
    with pytest.raises(ValueError, match=message):
        residual(*given)
