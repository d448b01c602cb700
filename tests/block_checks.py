"""Checks of the Triton forms of the token mixer and of the residual, for whatever runs them.

``check_token_mixer`` and ``check_residual`` compare with stock operators in float64; ``MIXER_CASES`` and
``RESIDUAL_CASES`` are small enough for Triton's interpreter, ``random_checks`` go on as long as one likes, and ``REAL``
are for a GPU. In the interpreter, which has to be chosen before Triton is imported::

    TRITON_INTERPRET=1 python tests/block_checks.py                 # the cases, and random ones of a seed
    TRITON_INTERPRET=1 python tests/block_checks.py random 7 100    # from seed 7
"""
import random
import sys

import torch
import torch.nn.functional as F
from helpers import assert_close, draw

from inceptionnext_seg.ops import inception_dwconv
from inceptionnext_seg.ops import residual as residual_operator

LAYOUTS = dict(nchw=torch.contiguous_format, nhwc=torch.channels_last)
# Of maps, in the dtype of the map. The interpreter takes a bfloat16's upper bits as they are, where a device rounds.
TOLERANCES = {torch.float32: 1e-5, torch.float16: 2**-10, torch.bfloat16: 2**-7}
# Of gradients of parameters, which are summed and stored in float32.
SUMS = 1e-5

FP32, FP16, BF16 = TOLERANCES
# Batch, channels, height, width, channels of a branch, kernel of the square, of the bands (1×k and k×1); layout; dtype.
MIXER_CASES = [
    ((2, 23, 3, 9, 5, 3, 11), 'nhwc', FP32), ((1, 32, 9, 3, 4, 3, 11), 'nhwc', FP16),
    ((1, 9, 4, 10, 3, 3, 11), 'nhwc', BF16), ((2, 4, 4, 9, 1, 3, 11), 'nchw', FP32),
    ((1, 13, 1, 1, 4, 5, (3, 7)), 'nhwc', FP32)]
# Batch, channels, height, width; layout; dtype; the keyword arguments of check_residual.
RESIDUAL_CASES = [
    ((2, 96, 3, 5), 'nhwc', FP32, dict()), ((3, 20, 9, 7), 'nhwc', FP16, dict()),
    ((2, 24, 4, 4), 'nhwc', BF16, dict(factors=False)), ((2, 6, 5, 7), 'nchw', FP32, dict(y_dtype=FP16)),
    ((2, 5, 3, 3), 'nchw', FP16, dict(gamma=False)), ((1, 40, 1, 1), 'nhwc', FP32, dict(y_dtype=BF16, factors=False))]
# Stages of T and B at 512×512: channels, channels of a branch, side; and sizes that are no multiple of anything.
REAL = [(16, channels, side, side, channels // 8, 3, 11) for channels, side in (
    (96, 128), (192, 64), (384, 32), (768, 16), (128, 128), (256, 64), (512, 32), (1024, 16))]
REAL += [(3, 96, 97, 131, 12, 3, 11), (2, 40, 130, 67, 10, 3, 9), (1, 320, 33, 1, 80, 3, 9)]

# Of random_checks where kernels are compiled, half a minute for each number of channels.
ON_A_GPU = dict(count=3, side=100)
BRANCHES_ON_A_GPU = 1, 5, 12, 33, 70


# Token mixer


def definition(x, weight_hw, bias_hw, weight_w, bias_w, weight_h, bias_h):
    """Split, three convolutions, concatenate."""
    branch, square, band_w, band_h = len(weight_hw), weight_hw.shape[3], weight_w.shape[3], weight_h.shape[2]
    identity = x[:, :-3 * branch]
    parts = x[:, -3 * branch:-2 * branch], x[:, -2 * branch:-branch], x[:, -branch:]
    return torch.cat([
        identity,
        F.conv2d(parts[0], weight_hw, bias_hw, padding=(square // 2, square // 2), groups=branch),
        F.conv2d(parts[1], weight_w, bias_w, padding=(0, band_w // 2), groups=branch),
        F.conv2d(parts[2], weight_h, bias_h, padding=(band_h // 2, 0), groups=branch)], dim=1)


def inputs(shape, layout='nhwc', dtype=torch.float32, seed=0):
    """Input, parameters and the gradient of the output, of (batch, channels, height, width, branch, square, band).

    The kernel sizes of the bands are one number, or two, along the width and along the height.
    """
    batch, channels, height, width, branch, square, band = shape
    wide, high = band if isinstance(band, tuple) else (band, band)
    seeds = iter(range(100 * seed, 100 * seed + 8))
    x, grad = (draw(batch, channels, height, width, seed=next(seeds), dtype=dtype, layout=LAYOUTS[layout])
               for _ in range(2))
    parameters = [draw(*size, seed=next(seeds), dtype=dtype) for size in (
        (branch, 1, square, square), (branch, ), (branch, 1, 1, wide), (branch, ), (branch, 1, high, 1), (branch, ))]
    return x, parameters, grad


def run(function, x, parameters, grad):
    """Output, and the gradients of the input and of the six parameters."""
    x, *parameters = (tensor.detach().clone().requires_grad_() for tensor in (x, *parameters))
    y = function(x, *parameters)
    y.backward(grad)
    return [y.detach(), x.grad, *(parameter.grad for parameter in parameters)]


def check_token_mixer(device, shape, layout='nhwc', dtype=torch.float32, seed=0):
    """Output and gradients are those of :func:`definition` in float64, the same each time, laid out as their tensors.

    Args:
        device (str): A CUDA device, or 'cpu' under TRITON_INTERPRET=1.
        shape (Sequence[int]): As of :func:`inputs`.
    """
    x, parameters, grad = inputs(shape, layout, seed=seed)
    x, grad = x.to(dtype), grad.to(dtype)
    expected_y, expected_x, *expected = (t.cpu() for t in run(
        definition, x.double().to(device), [p.double().to(device) for p in parameters], grad.double().to(device)))
    # As in a model whose parameters are channels_last too.
    parameters = [p.to(device).to(memory_format=LAYOUTS[layout] if p.dim() == 4 else torch.preserve_format)
                  for p in parameters]
    x, grad = x.to(device), grad.to(device)
    weights = parameters[::2]
    y = inception_dwconv.inception_dwconv2d_cuda(x, *parameters)
    grad_x, *grads = inception_dwconv.inception_dwconv2d_backward_cuda(grad, x, *weights, True, True)
    assert_close([y.cpu(), grad_x.cpu()], [expected_y, expected_x], TOLERANCES[dtype])
    assert_close([g.cpu() for g in grads], [*expected[::2], *expected[1::2]], SUMS)
    identity = shape[1] - 3 * shape[4]
    assert torch.equal(y[:, :identity], x[:, :identity]) and torch.equal(grad_x[:, :identity], grad[:, :identity])
    assert y.dtype == grad_x.dtype == dtype and y.stride() == grad_x.stride() == x.stride()
    assert [g.stride() for g in grads] == [p.stride() for p in (*weights, *parameters[1::2])]
    x[:, :identity] = grad[:, :identity] = float('nan')     # what parameters do not depend on is not read for them
    again = inception_dwconv.inception_dwconv2d_backward_cuda(grad, x, *weights, False, True)[1:]
    assert all(map(torch.equal, again, grads))


def check_large_map(device):
    """More than 2³¹ elements, of which the last are those of the corner alone: for a GPU with 24 GB."""
    _, parameters, _ = inputs((1, 96, 1, 1, 12, 3, 11))
    parameters = [p.to(device) for p in parameters]
    for layout in LAYOUTS.values():
        x = torch.empty(1, 96, 4800, 4800, dtype=torch.float16, device=device, memory_format=layout).normal_()
        corner = x[:, :, -64:, -64:].contiguous(memory_format=layout)
        y, part = (inception_dwconv.inception_dwconv2d_cuda(t, *parameters) for t in (x, corner))
        assert_close(y[:, :, -48:, -48:].cpu(), part[:, :, -48:, -48:].cpu(), TOLERANCES[torch.float16])
        del y
        gamma = parameters[1].repeat(8)
        out, part = (residual_operator.residual_cuda(t, t, gamma, None) for t in (x, corner))
        assert_close(out[:, :, -64:, -64:].cpu(), part.cpu(), TOLERANCES[torch.float32])
        del x, out


def random_mixer_shape(choose, side, branches):
    branch = choose.choice(branches)
    identity = choose.choice((0, 1, 5 * branch, choose.randint(0, 2 * branch)))
    square, band = choose.choice(((3, 11), (3, 9), (1, 1), (5, 7), (7, (3, 5)), (3, 15)))
    return (choose.randint(1, 3), 3 * branch + identity, choose.randint(1, side), choose.randint(1, side), branch,
            square, band)


# Residual


def check_residual(device, shape, layout='nhwc', dtype=torch.float32, y_dtype=None, gamma=True, factors=True, seed=0):
    """As :func:`check_token_mixer`, of ``x + factors · gamma · y``, (B, C, H, W); the first image is dropped."""
    x, y, grad = (draw(*shape, seed=3 * seed + i, dtype=dtype, layout=LAYOUTS[layout]) for i in range(3))
    y = y.to(y_dtype or dtype)
    # As stock operators: layer scale is float32, and so is the sum.
    out_dtype = torch.promote_types(x.dtype, torch.float32 if gamma else y.dtype)
    grad = grad.to(out_dtype)
    gamma = draw(shape[1], seed=seed, dtype=torch.float32) if gamma else None
    factors = torch.tensor([0.] + [1.25] * (shape[0] - 1)) if factors else None
    scale = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    exact_y, exact_gamma = y.double().requires_grad_(), None
    if gamma is not None:
        exact_gamma = gamma.double().requires_grad_()
        scale = scale * exact_gamma.reshape(1, -1, 1, 1)
    if factors is not None:
        scale = scale * factors.double().reshape(-1, 1, 1, 1)
    expected = x.double() + scale * exact_y
    expected.backward(grad.double())
    x, y, grad, gamma, factors = (None if t is None else t.to(device) for t in (x, y, grad, gamma, factors))
    out = residual_operator.residual_cuda(x, y, gamma, factors)
    arguments = gamma, factors, y.dtype, True, gamma is not None
    grad_y, grad_gamma = residual_operator.residual_backward_cuda(grad, y, *arguments)
    assert_close(out.cpu(), expected.detach(), TOLERANCES[out_dtype])
    assert_close(grad_y.cpu(), exact_y.grad, TOLERANCES[y.dtype])
    assert out.dtype == out_dtype and grad_y.dtype == y.dtype and out.stride() == grad_y.stride() == x.stride()
    if gamma is not None:
        assert_close(grad_gamma.cpu(), exact_gamma.grad, SUMS)
        assert grad_gamma.stride() == gamma.stride()
        assert torch.equal(residual_operator.residual_backward_cuda(grad, y, *arguments)[1], grad_gamma)
    if factors is not None:     # what was dropped is not read, so that it may be anything
        y[0] = float('nan')
        assert torch.equal(residual_operator.residual_cuda(x, y, gamma, factors), out)
    alone = residual_operator.residual_backward_cuda(grad, None, gamma, factors, y.dtype, True, False)[0]
    assert torch.equal(alone, grad_y)


# All


def check_cases(device):
    for case in MIXER_CASES:
        check_token_mixer(device, *case)
    for *case, settings in RESIDUAL_CASES:
        check_residual(device, *case, **settings)


def check_real(device, shape):
    """At a size of a training: for a GPU."""
    for dtype in TOLERANCES:
        for layout in LAYOUTS:
            check_token_mixer(device, shape, layout, dtype)
            check_residual(device, shape[:4], layout, dtype)


def random_checks(device, first, count, side=9, branches=range(1, 5)):
    """``count`` random shapes of each operator in each layout, the first of the seed ``first``, printed before."""
    for seed in range(first, first + count):
        choose = random.Random(seed)
        for layout in LAYOUTS:
            shape, dtype = random_mixer_shape(choose, side, branches), choose.choice(list(TOLERANCES))
            print(f'seed {seed}: token mixer {shape} {layout} {dtype}', flush=True)
            check_token_mixer(device, shape, layout, dtype, seed)
            shape = choose.randint(1, 3), choose.randint(1, 150), choose.randint(1, side), choose.randint(1, side)
            settings = dict(y_dtype=choose.choice((None, torch.float16)), gamma=choose.random() < 0.8,
                            factors=choose.random() < 0.8)
            print(f'seed {seed}: residual {shape} {layout} {dtype} {settings}', flush=True)
            check_residual(device, shape, layout, dtype, seed=seed, **settings)


if __name__ == '__main__':
    torch.set_num_threads(1)
    if sys.argv[1:2] == ['random']:
        random_checks('cpu', *map(int, sys.argv[2:4]))
    else:
        check_cases('cpu')
        random_checks('cpu', 0, 1, side=6)
