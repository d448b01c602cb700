"""``--cuda-graph``: what is captured, when, and what stays as it is. The capture itself needs a GPU: tests/gpu."""
import copy

import pytest
import torch
from gpu.models import SMALL, batch, build, loss_of
from mmengine.config import Config
from mmengine.structures import PixelData

from inceptionnext_seg.engine.cuda_graph import CudaGraphHook, GraphedLosses, captures_losses
from inceptionnext_seg.engine.launch import enable_cuda_graph
from inceptionnext_seg.errors import SettingError, UserError
from inceptionnext_seg.ops import measured

CPU = torch.device('cpu')


@pytest.fixture
def captures(monkeypatch):
    """Calls of torch's capture, which runs the warm-up and then the function itself, as it has no graphs here."""
    found = []

    def capture(function, args, num_warmup_iters, allow_unused_input):
        found.append((args, torch.is_autocast_cache_enabled(), measured.applies()))
        for _ in range(num_warmup_iters):
            function(*args)
        torch.rand(1)
        return function

    monkeypatch.setattr(torch.cuda, 'make_graphed_callables', capture)
    return found


@pytest.fixture
def model():
    return build(SMALL, CPU)


def with_graph(model):
    model = copy.deepcopy(model)
    model.loss = GraphedLosses(model)
    return model


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_losses_gradients_statistics_and_random_numbers_are_as_without_it(model, captures, dtype):
    graphed, results = with_graph(model), []
    for each in (model, graphed):
        torch.manual_seed(0)
        for seed in range(2):
            each.zero_grad()
            loss = loss_of(each, *batch(SMALL, CPU, seed), dtype)
            loss.backward()
        results.append([loss.detach(), torch.rand(1), *(p.grad for p in each.parameters()), *each.buffers()])
    assert all(map(torch.equal, *results))
    (_, caches, measures), = captures
    assert not caches or dtype == torch.float32
    assert not measures and measured.applies()


def test_a_batch_of_another_shape_is_computed_without_it(model, captures):
    graphed, other = with_graph(model), SMALL._replace(side=96)
    loss_of(graphed, *batch(SMALL, CPU))
    for size in (other, SMALL):
        torch.testing.assert_close(loss_of(graphed, *batch(size, CPU)), loss_of(model, *batch(size, CPU)))
    assert len(captures) == 1


def test_what_it_returns_stays_after_the_next_step(model, captures):
    graphed = with_graph(model)
    first = graphed.loss(*batch(SMALL, CPU))
    kept = {name: value.clone() for name, value in first.items()}
    graphed.loss(*batch(SMALL, CPU, 1))
    assert all(torch.equal(first[name], kept[name]) for name in kept)
    assert {name for name, value in first.items() if value.requires_grad} == {
        name for name in first if 'loss' in name}


def test_a_copy_of_the_model_has_no_graph(model, captures):
    graphed = with_graph(model)
    expected = loss_of(graphed, *batch(SMALL, CPU))
    other = copy.deepcopy(graphed)
    assert other.loss.__self__ is other and len(captures) == 1
    torch.testing.assert_close(loss_of(other, *batch(SMALL, CPU)), expected)


def test_samples_that_have_more_to_learn_from_are_computed_without_it(model, captures):
    graphed = with_graph(model)
    images, samples = batch(SMALL, CPU)
    for sample in samples:
        sample.gt_edge_map = PixelData(data=sample.gt_sem_seg.data)
    graphed.loss(images, samples)
    assert captures == []


def test_losses_that_cannot_be_captured_are_one_message(model, monkeypatch):
    def fail(*args, **settings):
        raise RuntimeError('operation not permitted when stream is capturing')

    monkeypatch.setattr(torch.cuda, 'make_graphed_callables', fail)
    with pytest.raises(UserError, match=r'cannot be captured .* operation not permitted .* leave out --cuda-graph'):
        with_graph(model).loss(*batch(SMALL, CPU))


def test_losses_that_are_no_tensors_are_one_message(model, captures):
    model.loss = lambda inputs, samples: dict(loss=[inputs.mean()])
    with pytest.raises(UserError, match='cannot be captured as a CUDA graph: TypeError: loss is no tensor'):
        GraphedLosses(model)(*batch(SMALL, CPU))


def test_the_option_adds_its_hook_once():
    cfg = Config(dict(custom_hooks=[dict(type='Other')]))
    for _ in range(2):
        enable_cuda_graph(cfg)
    assert [hook.type for hook in cfg.custom_hooks] == ['Other', 'CudaGraphHook']


def test_without_a_gpu_it_is_refused(model):
    class Runner:
        cfg, hooks = {}, [CudaGraphHook()]

    Runner.model = model
    assert captures_losses(Runner)
    with pytest.raises(SettingError, match=r'model is on cpu; expected: a CUDA device\. Next: leave out --cuda-graph'):
        Runner.hooks[0].before_run(Runner)
