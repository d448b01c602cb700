"""Whole steps of training and inference on a device: what they compute, and that the host never waits."""
import copy
import gc

import pytest
import torch
from helpers import assert_close, relative_error
from mmengine.config import ConfigDict
from mmseg.structures import SegDataSample

import inceptionnext_seg
from gpu.models import Training, batch, build, loss_of, refusing_to_wait
from inceptionnext_seg.engine.cuda_graph import GraphedLosses
from inceptionnext_seg.ops import _native as native
from inceptionnext_seg.ops import label_check, measured

FP32, BF16, FP16 = torch.float32, torch.bfloat16, torch.float16


def dtypes(device):
    """In which it trains here."""
    if device.type == 'cpu':
        return FP32, BF16
    return (FP32, FP16, BF16) if torch.cuda.get_device_capability(device) >= (8, 0) else (FP32, FP16)


@pytest.fixture
def exact_convolutions():
    """Without TF32."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


@pytest.fixture(autouse=True)
def memory():
    yield
    if torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()


def test_losses_and_gradients_are_those_of_the_plain_model(device, size, exact_convolutions):
    """In float32, near the plain model; how near depends on ReLUs that rounding switches, which hit both alike."""
    size = size._replace(batch_size=2, side=min(size.side, 256))
    images, samples = batch(size, device)
    results = []
    for fast in (False, True):
        model = build(size, device, fast)
        loss = loss_of(model, images, samples)
        loss.backward()
        results.append((loss.detach(), {name: p.grad.cpu() for name, p in model.named_parameters()}))
    (expected, expected_grads), (found, grads) = results
    assert relative_error(found, expected) < 1e-4
    assert_close(grads, expected_grads, 0.05, floor=1e-3)


def test_under_autocast_features_have_the_dtype_of_the_plain_model_and_are_no_further_from_float64(device, size):
    size = size._replace(batch_size=2, side=min(size.side, 256))
    images, _ = batch(size, device)
    exact = build(size, device, fast=False).double().backbone(images.double())
    for dtype in dtypes(device)[1:]:
        found = []
        for fast in (False, True):
            backbone = build(size, device, fast).backbone
            with torch.autocast(device.type, dtype=dtype), torch.no_grad():
                found.append(backbone(images))
        for wanted, plain, ours in zip(exact, *found, strict=True):
            assert ours.dtype == plain.dtype
            assert relative_error(ours, wanted) <= 1.2 * relative_error(plain, wanted) + 1e-4


@torch.inference_mode()
def test_backbones_of_either_norm_run_in_bfloat16(device):
    """Where a CPU does not multiply it they stay in float32, and a log line says so."""
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)).to(device)
    for family, arch in (('ConvNeXt', 'atto'), ('InceptionNeXt', 'atto')):
        torch.manual_seed(0)
        plain = getattr(inceptionnext_seg, family)(arch).eval().to(device)
        fast = copy.deepcopy(plain)
        inceptionnext_seg.accelerate(fast)
        for model in (plain, fast):
            fused = inceptionnext_seg.fuse_for_inference(model, dtype='bf16')
            for found, expected in zip(fused(images), plain(images), strict=True):
                assert found.dtype == fused.precision.dtype
                assert relative_error(found.float(), expected) < 0.1


def test_gradients_lie_as_their_parameters_do(device, size):
    """Else DistributedDataParallel copies them slowly in each step. ``.grad`` would hide it."""
    model = build(size, device)
    images, samples = batch(size, device)
    parameters = dict(model.named_parameters())
    for dtype in dtypes(device)[:2]:
        grads = torch.autograd.grad(loss_of(model, images, samples, dtype), list(parameters.values()))
        assert {name: g.stride() for name, g in zip(parameters, grads, strict=True)
                if g.stride() != parameters[name].stride()} == {}


def test_the_host_does_not_wait_in_a_step_of_training_or_inference(device, size):
    for dtype in dtypes(device):
        training = Training(build(size, device, random=True), dtype)
        images, samples = batch(size, device)
        training.step(images, samples)      # compiles, copies tables
        with refusing_to_wait(device):
            losses = [training.step(images, samples) for _ in range(2)]
        label_check.check(wait=True)
        assert torch.stack(losses).isfinite().all()
        model = training.model.eval()
        metas = [sample.metainfo for sample in samples]
        with torch.inference_mode():
            expected = model.encode_decode_argmax(images, metas)
            with refusing_to_wait(device):
                found = model.encode_decode_argmax(images, metas)
        assert torch.equal(found, expected)


@torch.no_grad()
def test_sliding_windows_predict_as_the_plain_model_does_and_the_host_waits_for_none_after_the_first(
        device, size, exact_convolutions):
    size, found = size._replace(batch_size=1), []
    for fast in (False, True):
        model = build(size, device, fast).eval()
        # Two windows along each axis, which overlap.
        side, stride = 5 * size.side // 8, 3 * size.side // 8
        model.test_cfg = ConfigDict(mode='slide', crop_size=(side, side), stride=(stride, stride))

        def predict(seed, model=model):
            images, samples = batch(size, device, seed)
            sample, = model.predict(images, [SegDataSample(metainfo=sample.metainfo) for sample in samples])
            return sample.pred_sem_seg.data
        found.append([predict(0), predict(1)])
    images, samples = batch(size, device, 2)
    with refusing_to_wait(device):
        model.predict(images, [SegDataSample(metainfo=sample.metainfo) for sample in samples])
    for expected, ours in zip(*found, strict=True):
        assert ours.shape == expected.shape and (ours == expected).float().mean() > 0.99


def test_inference_is_captured_in_a_cuda_graph(cuda, size):
    model = build(size, cuda).eval()
    images, samples = batch(size, cuda)
    metas = [sample.metainfo for sample in samples]
    with torch.inference_mode():
        for _ in range(3):
            expected = model.encode_decode_argmax(images, metas)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            found = model.encode_decode_argmax(images, metas)
        graph.replay()
    assert torch.equal(found, expected)


@pytest.mark.parametrize('amp', [False, True], ids=['fp32', 'amp'])
def test_classes_by_a_cuda_graph_are_those_without_it(cuda, size, amp):
    """Of other images, and after the weights have changed in place."""
    model, dtype = build(size, cuda).eval(), dtypes(cuda)[1]
    metas = [sample.metainfo for sample in batch(size, cuda)[1]]
    with torch.autocast('cuda', dtype=dtype, enabled=amp):
        predict = inceptionnext_seg.cuda_graph(model, batch(size, cuda)[0])
        for seed in (1, 2):
            images, _ = batch(size, cuda, seed)
            with torch.inference_mode(), measured.by_rules():
                expected = model.encode_decode_argmax(images, metas)
            assert (predict(images) == expected).float().mean() > 0.999
            with torch.no_grad():
                model.decode_head.conv_seg.bias.add_(torch.randn_like(model.decode_head.conv_seg.bias))


def test_a_step_of_training_is_captured_in_a_cuda_graph(cuda, size):
    """Replayed on other images, it has the losses of a run that was not captured."""
    batches = [batch(size, cuda, seed) for seed in range(3)]
    runs = []
    for captured in (False, True):
        training = Training(build(size, cuda), BF16 if BF16 in dtypes(cuda) else FP32, capturable=True)
        images, samples = batches[0][0].clone(), batch(size, cuda)[1]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                training.step(images, samples)
        torch.cuda.current_stream().wait_stream(stream)
        if captured:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                loss = training.step(images, samples)
        losses = []
        for new_images, new_samples in batches:
            images.copy_(new_images)
            for sample, new in zip(samples, new_samples, strict=True):
                sample.gt_sem_seg.data.copy_(new.gt_sem_seg.data)
            if captured:
                graph.replay()
            else:
                loss = training.step(images, samples)
            losses.append(loss.clone())
        runs.append(torch.stack(losses).cpu())
    torch.testing.assert_close(*runs, rtol=0.02, atol=0.)


def test_losses_as_a_cuda_graph_train_as_without_it(cuda, size):
    """Weights and statistics of norms, too; the capture changes neither, and draws no random numbers."""
    runs = []
    for captured in (False, True):
        training = Training(build(size, cuda), BF16 if BF16 in dtypes(cuda) else FP32)
        if captured:
            training.model.loss = GraphedLosses(training.model)
        before = torch.cuda.get_rng_state(cuda)
        losses = [training.step(*batch(size, cuda, seed)) for seed in range(4)]
        assert torch.equal(torch.cuda.get_rng_state(cuda), before)
        statistics = torch.cat([
            buffer.flatten() for name, buffer in training.model.named_buffers() if 'running' in name])
        runs.append((torch.stack(losses).cpu(), statistics.cpu()))
    for expected, found in zip(*runs, strict=True):
        assert relative_error(found, expected) < 0.02


@pytest.mark.parametrize('triton', ['1', '0'], ids=['triton', 'without triton'])
def test_deterministic_training_has_the_same_bits_twice(device, size, triton, monkeypatch):
    monkeypatch.setenv('INCEPTIONNEXT_SEG_TRITON', triton)
    dtype, states = dtypes(device)[1], []
    torch.use_deterministic_algorithms(True)
    try:
        for _ in range(2):
            training = Training(build(size, device, random=True), dtype)
            torch.manual_seed(1)
            losses = [training.step(*batch(size, device, seed)) for seed in range(3)]
            states.append([*losses, *(value.cpu() for value in training.model.state_dict().values())])
            del training
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(map(torch.equal, *states))


@pytest.mark.compile
def test_the_losses_compile_to_one_graph(cuda, size):
    """On a CPU: tests/engine/test_compiling.py."""
    device = cuda
    model = build(size, device)
    images, samples = batch(size, device)
    expected = loss_of(model, images, samples, dtypes(device)[1])
    torch._dynamo.reset()
    model.loss = torch.compile(model.loss, fullgraph=True)
    found = loss_of(model, images, samples, dtypes(device)[1])
    found.backward()
    torch.testing.assert_close(found.detach(), expected.detach(), rtol=0.02, atol=0.)
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_forms_are_chosen_by_measuring_once(device, size, tmp_path, monkeypatch):
    monkeypatch.setenv('INCEPTIONNEXT_SEG_MEASURE', '1')
    monkeypatch.setattr(measured, 'TABLE', measured.Table())
    monkeypatch.setattr(measured, 'cache_file', lambda: tmp_path / 'choices.json')
    monkeypatch.setattr(native, 'own_bytes', lambda path: path.read_bytes())
    model = build(size, device)
    images, samples = batch(size, device)
    with inceptionnext_seg.measuring() as found:
        loss_of(model, images, samples, dtypes(device)[1])
    chosen = [c for c in inceptionnext_seg.choices() if c.seconds]
    assert chosen or found.disturbed
    assert device.type == 'cpu' or not any('blocked' in c.seconds for c in chosen)
    if not found.disturbed:     # on a machine that is busy with other things some stay to be measured
        with inceptionnext_seg.measuring() as again:
            loss_of(model, images, samples, dtypes(device)[1])
        assert not again.choices
