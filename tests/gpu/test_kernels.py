"""Every kernel against float64 at the sizes of a training and at random ones, in all dtypes, on every device."""
import random

import block_checks
import pytest
import torch
import upsampled_loss_checks
import windowed_argmax_checks
from helpers import assert_close, draw

from inceptionnext_seg.ops import _triton
from inceptionnext_seg.ops.adaptive_pooling import adaptive_avg_pools2d
from inceptionnext_seg.ops.resize_concat_conv import resize_concat_conv2d

TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 2**-7, torch.float16: 2**-9}


@pytest.fixture
def triton(device):
    """The device, on which Triton's kernels run; a CPU where Triton interprets."""
    if reason := _triton.why_not(device):
        pytest.fail(reason) if device.type == 'cuda' else pytest.skip('needs a CUDA device: make gpu')
    return device


def test_token_mixer_and_residual(triton):
    block_checks.check_cases(triton)


@pytest.mark.parametrize('shape', block_checks.REAL, ids=str)
def test_token_mixer_and_residual_at_the_sizes_of_a_training(cuda, triton, shape):
    block_checks.check_real(cuda, shape)


@pytest.mark.parametrize('branch', block_checks.BRANCHES_ON_A_GPU)
def test_token_mixer_and_residual_at_random_sizes(cuda, triton, branch):
    block_checks.random_checks(cuda, branch, branches=(branch, ), **block_checks.ON_A_GPU)


def test_token_mixer_and_residual_of_more_than_two_to_the_31_elements(cuda, triton):
    if torch.cuda.get_device_properties(cuda).total_memory < 24e9:
        pytest.skip('needs 24 GB')
    block_checks.check_large_map(cuda)


def test_loss_and_class_indices(triton):
    checks = upsampled_loss_checks
    checks.check_all(triton, [*checks.CASES, *(checks.REAL if triton.type == 'cuda' else [])], checks.ARGMAX_CASES)


@pytest.mark.parametrize('seed', range(6))
def test_loss_and_class_indices_at_random_sizes(triton, seed):
    of_a_gpu = triton.type == 'cuda'
    if seed and not of_a_gpu:
        pytest.skip('needs a CUDA device: make gpu')
    for case, argmax_case in upsampled_loss_checks.random_cases(
            5 * seed, 5 if of_a_gpu else 1, most=20_000 if of_a_gpu else 20):
        upsampled_loss_checks.check_all(triton, [case], [argmax_case])


@pytest.mark.parametrize('name', ['wrong_labels', 'gradients', 'limits', 'operator'])
def test_loss_at_its_limits(triton, name):
    getattr(upsampled_loss_checks, f'check_{name}')(triton)


def test_class_indices_of_windows(triton):
    windowed_argmax_checks.check_triton(triton)


def test_more_than_two_to_the_31_elements(cuda):
    if torch.cuda.get_device_properties(cuda).total_memory < 40e9:
        pytest.skip('needs 40 GB')
    upsampled_loss_checks.check_more_than_two_to_the_31(cuda)


def test_everything_on_a_second_device(cuda):
    """While the first is the current one: kernels go where their tensors are."""
    if torch.cuda.device_count() < 2:
        pytest.skip('needs two GPUs')
    second = torch.device('cuda', 1 - cuda.index)
    block_checks.check_cases(second)
    upsampled_loss_checks.check_all(second, upsampled_loss_checks.CASES, upsampled_loss_checks.ARGMAX_CASES)
    upsampled_loss_checks.check_wrong_labels(second)
    fusion(second, torch.float32, 0)


def fusion(device, dtype, seed):
    """Factorized in ``dtype`` against resizing, concatenating and convolving in float64: output and gradients."""
    choose = random.Random(seed)
    height, width, batch, out = (choose.randint(*most) for most in ((6, 40), (6, 40), (1, 3), (1, 40)))
    sizes = [(height, width)] + [(-(-height // n), -(-width // n)) for n in choose.sample((2, 3, 4, 5), 2)]
    maps = [draw(batch, choose.randint(1, 24), *s, seed=i, layout=torch.channels_last) for i, s in enumerate(sizes)]
    weight, bias = draw(out, sum(x.shape[1] for x in maps), 3, 3, seed=9), draw(out, seed=8)
    grad, results = draw(batch, out, height, width, seed=7), []
    align_corners = choose.random() < 0.3
    for form, kind, on in (('torch', torch.float64, 'cpu'), ('factorized', dtype, device)):
        leaves = [t.to(dtype).to(on, kind).requires_grad_() for t in (*maps, weight, bias)]
        y = resize_concat_conv2d(leaves[:3], *leaves[3:], (height, width), align_corners, impl=form)
        y.backward(grad.to(dtype).to(on, kind))
        results.append([y.detach().cpu(), *(t.grad.cpu() for t in leaves)])
    assert_close(results[1], results[0], 4 * TOLERANCES[dtype])


@pytest.mark.parametrize('dtype', TOLERANCES, ids=str)
def test_fusion(device, dtype):
    if device.type == 'cpu' and dtype == torch.float16:
        pytest.skip('needs a CUDA device: make gpu')
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        for seed in range(50 if device.type == 'cuda' else 3):
            fusion(device, dtype, seed)
    finally:
        torch.backends.cudnn.allow_tf32 = before


@pytest.mark.parametrize('dtype', TOLERANCES, ids=str)
def test_pyramid_pooling(device, dtype):
    x = draw(2, 24, 17, 13, layout=torch.channels_last).to(dtype)
    results = []
    for form, kind, on in (('torch', torch.float64, 'cpu'), ('product', dtype, device)):
        leaf = x.to(on, kind).requires_grad_()
        maps = adaptive_avg_pools2d(leaf, [1, 2, 3, 6], impl=form)
        sum((y * (i + 1)).sum() for i, y in enumerate(maps)).backward()
        results.append([*(y.detach().cpu() for y in maps), leaf.grad.cpu()])
    assert_close(results[1], results[0], 2 * TOLERANCES[dtype])
