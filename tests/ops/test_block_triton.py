"""The Triton kernels of a block, token mixer and residual: what they compute, and what they cost a GPU.

Without a GPU they run in Triton's interpreter and are compiled for GPUs that are not here, with the launch arguments of
the package's own code. INCEPTIONNEXT_SEG_FUZZ=1 adds random shapes, and all stages and dtypes on each GPU.
"""
import itertools
import os
import subprocess
import sys

import block_checks
import pytest
import torch
from helpers import assert_close, draw
from torch._subclasses.fake_tensor import FakeTensorMode

from inceptionnext_seg.ops import _triton, inception_dwconv, residual
from inceptionnext_seg.ops.dispatch import FormError

FUZZ = os.environ.get('INCEPTIONNEXT_SEG_FUZZ') == '1'
FP16, BF16, FP32 = torch.float16, torch.bfloat16, torch.float32
# Channels and side of the map in the stages of InceptionNeXt-T and -S, and of -B, at 512×512.
STAGES = dict(T1=(96, 128), T2=(192, 64), T3=(384, 32), T4=(768, 16), B1=(128, 128), B2=(256, 64), B3=(512, 32),
              B4=(1024, 16))
BATCH = 16


@pytest.fixture(autouse=True)
def triton():
    pytest.importorskip('triton', reason='triton is not installed')


# What they compute


def interpret(root, *arguments):
    environment = dict(os.environ, TRITON_INTERPRET='1', OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='',
                       PYTHONPATH=os.pathsep.join((str(root), os.environ.get('PYTHONPATH', ''))))
    run = subprocess.run([sys.executable, str(root / 'tests' / 'block_checks.py'), *arguments], env=environment,
                         capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.slow
@pytest.mark.logits_match
def test_outputs_and_gradients_are_those_of_stock_operators_in_float64(root):
    interpret(root)


@pytest.mark.skipif(not FUZZ, reason='INCEPTIONNEXT_SEG_FUZZ is not 1')
def test_they_are_at_random_shapes(root):
    interpret(root, 'random', '0', '60')


# Launches and bytes, on the meta device at the sizes of a training


def mixer_tensors(stage, dtype, layout=torch.channels_last):
    """A map of a stage, three weights and three biases."""
    channels, side = STAGES[stage]
    x = torch.empty(BATCH, channels, side, side, dtype=dtype, device='meta').to(memory_format=layout)
    branch = channels // 8
    weights = [torch.empty(branch, 1, *size, device='meta') for size in ((3, 3), (1, 11), (11, 1))]
    return x, weights, [torch.empty(branch, device='meta') for _ in range(3)]


def mixer_launches(stage, dtype, layout=torch.channels_last):
    """Of the forward and of the backward pass."""
    x, weights, biases = mixer_tensors(stage, dtype, layout)
    with _triton.recording() as forward:
        inception_dwconv.inception_dwconv2d_cuda(x, *itertools.chain(*zip(weights, biases, strict=True)))
    with _triton.recording() as backward:
        inception_dwconv.inception_dwconv2d_backward_cuda(x, x, *weights, True, True)
    return forward, backward


def residual_launches(stage, dtype, gamma=True):
    """Of the map in ``dtype``; with layer scale the stream is float32, as under autocast."""
    y = mixer_tensors(stage, dtype)[0]
    x = y.float() if gamma else y
    gamma = torch.empty(x.shape[1], device='meta') if gamma else None
    factors = torch.empty(BATCH, device='meta')
    with _triton.recording() as forward:
        residual.residual_cuda(x, y, gamma, factors)
    with _triton.recording() as backward:
        residual.residual_backward_cuda(x, y, gamma, factors, dtype, True, gamma is not None)
    return forward, backward


def names(launches):
    return [launch.kernel.__name__ for launch in launches]


def nbytes(launch):
    """Of all tensors of a launch, each once."""
    return sum(x.nbytes for x in launch.args if isinstance(x, torch.Tensor))


@pytest.mark.parametrize('dtype', [FP16, FP32], ids=str)
@pytest.mark.parametrize('stage', STAGES)
def test_the_token_mixer_is_one_kernel_forward_and_three_backward_with_few_bytes(stage, dtype):
    """The least is that forward and backward read and write each map once, the input's identity only forward."""
    x = mixer_tensors(stage, dtype)[0]
    forward, backward = mixer_launches(stage, dtype)
    assert names(forward) == ['convolution_kernel']
    assert names(backward) == ['convolution_kernel', 'products_kernel', 'sum_kernel']
    sums = backward[1].args[2].nbytes
    # Of map and gradient the kernel of the products reads the three branches alone, as the checks above show.
    moved = nbytes(forward[0]) + nbytes(backward[0]) + 2 * x.nbytes * 3 // 8 + sums + nbytes(backward[2])
    assert moved <= 1.3 * (2 + 2 + 3 / 8) * x.nbytes
    assert nbytes(forward[0]) <= 1.01 * 2 * x.nbytes


@pytest.mark.parametrize('dtype', [FP16, FP32], ids=str)
@pytest.mark.parametrize('stage', STAGES)
def test_the_residual_is_one_kernel_each_way_and_a_small_sum_with_few_bytes(stage, dtype):
    y = mixer_tensors(stage, dtype)[0]
    stream = 4 * y.numel()
    forward, backward = residual_launches(stage, dtype)
    assert names(forward) == ['add_kernel'] and names(backward) == ['gradient_kernel', 'sum_kernel']
    assert nbytes(forward[0]) <= 1.01 * (2 * stream + y.nbytes)
    assert sum(map(nbytes, backward)) <= 1.3 * (stream + 2 * y.nbytes)
    assert names(residual_launches(stage, dtype, gamma=False)[1]) == ['gradient_kernel']


@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last])
def test_autograd_sees_one_operator_each_way_and_gradients_that_lie_as_their_parameters(layout):
    """On the meta device. Where strides differ, DistributedDataParallel copies the gradient in each step."""
    counted = []

    class Count(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            counted.append(function.name())
            return function(*args, **(kwargs or {}))

    x, weights, biases = mixer_tensors('T1', FP16)
    x, *parameters = (t.to(memory_format=layout if t.dim() == 4 else torch.preserve_format).requires_grad_()
                      for t in (x, *itertools.chain(*zip(weights, biases, strict=True))))
    gamma, factors = (torch.empty(size, device='meta') for size in (96, BATCH))
    with Count():
        y = inception_dwconv.inception_dwconv2d_operator(x, *parameters)
        out = residual.residual_operator(x, y, gamma.requires_grad_(), factors)
        grads = torch.autograd.grad(out, [x, *parameters, gamma], torch.empty_like(out))
    assert [g.stride() for g in grads] == [t.stride() for t in (x, *parameters, gamma)]
    assert out.stride() == y.stride() == x.stride() and (out.dtype, y.dtype) == (FP32, FP16)
    assert [g.dtype for g in grads] == [FP16] + [FP32] * 7
    own = [name for name in counted if name.startswith('inceptionnext_seg::')]
    assert own == [f'inceptionnext_seg::{name}' for name in (
        'inception_dwconv2d', 'residual', 'residual_backward', 'inception_dwconv2d_backward')]
    # What is left: the two gradients of x are added in its dtype, and the tests' own tensor.
    assert not set(counted) - set(own) - {'aten::detach', 'aten::empty_like', 'aten::add.Tensor', 'aten::_to_copy'}


# Code for GPUs that are not here


ALL = list(itertools.product(STAGES, (FP16, BF16, FP32), (80, 90)))
CORNERS = [('T1', FP16, 80, None), ('B4', BF16, 90, 'products_kernel'), ('T2', FP32, 90, 'convolution_kernel')]
CORNERS += [(*case, None) for case in ALL] if FUZZ else []


@pytest.mark.slow
@pytest.mark.parametrize('stage, dtype, capability, only', CORNERS, ids=str)
def test_the_token_mixers_kernels_fit_a_gpu_and_load_maps_by_64_bits(stage, dtype, capability, only):
    from triton_ahead import compile_ahead
    forward, backward = mixer_launches(stage, dtype)
    for launch in (*forward, *backward[1:]):    # backward[0] is the code of the forward pass
        if only in (None, launch.kernel.__name__):
            report = compile_ahead(launch, capability)
            assert report.spills == 0 and report.registers <= 128, report
            # Weights are single numbers, read once by a thread that then computes whole patches with them.
            weights = (9 + 11) * 8 // dtype.itemsize if report.name == 'convolution_kernel' else 0
            assert report.loads[8] == report.loads[16] == 0 and report.loads[32] <= weights, report
            if report.name != 'sum_kernel':
                assert report.barriers == 0 and min(report.stores) >= 64, report


@pytest.mark.parametrize('stage, dtype, capability', ALL if FUZZ else [('T1', FP16, 80), ('B4', FP32, 90)], ids=str)
def test_the_residuals_kernels_fit_a_gpu_and_load_maps_by_64_bits(stage, dtype, capability):
    from triton_ahead import compile_ahead
    for launch in itertools.chain(*residual_launches(stage, dtype)):
        report = compile_ahead(launch, capability)
        assert report.spills == 0 and report.registers <= 128, report
        # One narrow load, of the image's factor.
        assert report.loads[8] == report.loads[16] == 0 and report.loads[32] <= 1, report


@pytest.mark.parametrize('channels, bands, layout', [
    (12, (1, 3), torch.channels_last), (16, (3, 3), torch.contiguous_format)], ids=str)
def test_other_sizes_compile_too(channels, bands, layout):
    """No identity, one pixel, bands of two lengths, NCHW."""
    from triton_ahead import compile_ahead
    x = torch.empty(1, channels, 1, 1, dtype=BF16, device='meta').to(memory_format=layout)
    weights = [torch.empty(4, 1, *size, device='meta') for size in ((1, 1), (1, bands[0]), (bands[1], 1))]
    with _triton.recording() as launches:
        inception_dwconv.inception_dwconv2d_backward_cuda(x, x, *weights, True, True)
    for launch in launches:
        assert '.entry' in compile_ahead(launch, 80).ptx


# What they cannot take


def test_what_the_residuals_kernel_cannot_take_is_said():
    x = torch.zeros(1, 4, 2, 2)
    with pytest.raises(FormError, match=r"'triton'.* on cpu"):
        residual.residual(x, x, impl='triton')
    with FakeTensorMode():
        x = torch.empty(2, 4, 2, 2, device='cuda')
        assert 'torch.float64' in residual.why_not_triton(x, x.double())
        assert 'gradient' in residual.why_not_triton(x, x, None, torch.empty(2, device='cuda', requires_grad=True))


# Kernels that fail


class Fails:
    """Stands for a kernel that its GPU cannot run."""

    def __getitem__(self, grid):
        raise RuntimeError('out of resource: shared memory')


@pytest.mark.parametrize('layout', ['nhwc', 'nchw'])
def test_where_a_kernel_fails_in_backward_the_gradients_are_torchs_and_one_line_says_so(layout, monkeypatch):
    from inceptionnext_seg.ops import inception_dwconv_triton, residual_triton
    lines = []
    monkeypatch.setattr(_triton, 'failures', {})
    monkeypatch.setattr(_triton, 'print_log', lambda line, **options: lines.append(line))
    monkeypatch.setattr(inception_dwconv_triton, 'convolution_kernel', Fails())
    monkeypatch.setattr(inception_dwconv_triton, 'products_kernel', Fails())
    monkeypatch.setattr(residual_triton, 'gradient_kernel', Fails())
    x, parameters, grad = block_checks.inputs((2, 13, 4, 9, 3, 3, (5, 7)), layout, FP32)
    _, *expected = block_checks.run(block_checks.definition, x.double(), [p.double() for p in parameters],
                                    grad.double())
    found = inception_dwconv.inception_dwconv2d_backward_cuda(grad, x, *parameters[::2], True, True)
    assert_close(found, [expected[0], *expected[1::2], *expected[2::2]], 1e-6)
    assert [g.stride() for g in found] == [t.stride() for t in (x, *parameters[::2], *parameters[1::2])]
    alone = inception_dwconv.inception_dwconv2d_backward_cuda(grad, x, *parameters[::2], False, True)
    assert alone[0].numel() == 0 and all(map(torch.equal, alone[1:], found[1:]))
    gamma, factors = draw(13, dtype=FP32), torch.tensor([0., 1.25])
    arguments = grad, x, gamma, factors, FP32, True, True
    assert_close(residual.residual_backward_cuda(*arguments), residual.gradients(*arguments), 1e-6)
    assert len(lines) == 1 and 'shared memory' in lines[0]
