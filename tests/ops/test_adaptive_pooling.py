"""Adaptive average pooling as products, against torch's operator in float64."""
import pytest
import torch
import torch.nn.functional as F
from helpers import assert_close, draw
from torch._subclasses.fake_tensor import FakeTensorMode

from inceptionnext_seg.ops import adaptive_pooling as pooling
from inceptionnext_seg.ops import dispatch, registration
from inceptionnext_seg.ops.adaptive_pooling import FORMS, adaptive_avg_pools2d

GRIDS = [1, 2, 3, 6]


def stock(x):
    return [F.adaptive_avg_pool2d(x, grid) for grid in GRIDS]


def ours(x):
    return adaptive_avg_pools2d(x, GRIDS)


def run(operator, x, dtype=torch.float64, order=1):
    """The maps, and the first and second gradients of a smooth function of them."""
    x = x.to(dtype).requires_grad_()
    maps = operator(x)
    loss = sum((y.double() ** 3).sum() for y in maps)
    gradient, = torch.autograd.grad(loss, x, create_graph=order == 2)
    second = torch.autograd.grad((gradient ** 2).sum(), x) if order == 2 else ()
    assert all(y.dtype == dtype for y in (*maps, gradient))
    return [*maps, gradient, *second]


@pytest.mark.logits_match
@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last], ids=['nchw', 'nhwc'])
@pytest.mark.parametrize('size', [(16, 16), (7, 11), (2, 1), (1, 30), (6, 5)], ids=str)
def test_maps_and_gradients_are_those_of_torch(size, layout):
    x = draw(2, 3, *size, layout=layout)
    assert_close(run(ours, x, order=2), run(stock, x, order=2), 1e-10)
    assert_close(run(ours, x, torch.float32), run(stock, x), 1e-5)
    assert_close(run(ours, x, torch.bfloat16), run(stock, x), 2e-2)


def test_inference_on_a_cpu_is_left_to_torch_and_gradients_are_products():
    x = draw(1, 3, 8, 8, dtype=torch.float32)
    assert dispatch.choose('adaptive_avg_pools2d', FORMS, 'auto', x, [1, 2]) == 'torch'
    assert dispatch.choose('adaptive_avg_pools2d', FORMS, 'auto', x.requires_grad_(), [1, 2]) == 'product'


def test_no_operator_of_torch_is_asked_that_is_not_deterministic_on_cuda():
    with torch.profiler.profile() as profile:
        run(ours, draw(1, 3, 8, 8))
    names = {event.key for event in profile.key_averages()}
    assert 'aten::bmm' in names or 'aten::mm' in names
    assert not any('adaptive_avg_pool2d' in name and name.startswith('aten') for name in names)


def test_an_exported_model_pools_every_size():
    """Torch's own operator is exported for one size alone."""
    class Pools(torch.nn.Module):
        def forward(self, x):
            return ours(x)

    dims = {2: torch.export.Dim('height', min=2, max=64), 3: torch.export.Dim('width', min=2, max=64)}
    exported = torch.export.export(Pools(), (draw(1, 2, 16, 16), ), dynamic_shapes=(dims, )).module()
    for size in ((16, 16), (10, 33), (64, 2)):
        x = draw(1, 2, *size)
        assert_close(exported(x), stock(x), 1e-10)


@pytest.mark.compile
def test_torch_compile_takes_the_whole_graph_and_gives_the_same():
    x = draw(2, 3, 9, 8)
    compiled = torch.compile(ours, backend='aot_eager', fullgraph=True)
    assert_close(run(compiled, x), run(stock, x), 1e-10)


def test_the_registered_operators_are_what_torch_wants_of_operators():
    x = draw(2, 3, 9, 8, layout=torch.channels_last).requires_grad_()
    torch.library.opcheck(pooling.adaptive_avg_pools2d_operator.registered, (x, [1, 3]))


@pytest.fixture
def autocast_on_cuda():
    """As in ``torch.autocast('cuda')``, which does nothing where there is no GPU."""
    torch.set_autocast_enabled('cuda', True)
    pooling.constant_averages.cache_clear()
    yield
    pooling.constant_averages.cache_clear()     # fake ones
    torch.set_autocast_enabled('cuda', False)


def test_under_autocast_on_a_gpu_the_products_of_float32_maps_stay_in_float32(autocast_on_cuda, monkeypatch):
    dtypes, matmul = [], torch.matmul
    monkeypatch.setattr(torch, 'matmul', lambda *args: dtypes.append((y := matmul(*args)).dtype) or y)
    with FakeTensorMode():
        x = torch.empty(2, 3, 8, 8, device='cuda')
        assert (x.flatten(2) @ x.flatten(2).mT).dtype == torch.float16
        maps = registration.without_autocast(pooling.pools)(x, GRIDS)
        registration.without_autocast(pooling.pools_backward)(maps, 8, 8)
    assert set(dtypes) == {torch.float32} and len(dtypes) > 5
