"""Checks of the Triton form of the upsampled loss and of class indices, for whatever runs it.

``check_loss`` and ``check_argmax`` compare with torch's operators in float64; ``CASES`` are small enough for Triton's
interpreter, ``random_cases`` go on as long as one likes, and ``REAL`` is for a GPU. In the interpreter, which has to be
chosen before Triton is imported::

    TRITON_INTERPRET=1 python tests/upsampled_loss_checks.py        # CASES, two random ones, what is not about sizes
    TRITON_INTERPRET=1 python tests/upsampled_loss_checks.py random 7 100   # from seed 7
"""
import random
import sys
from unittest import mock

import torch
import torch.nn.functional as F
from helpers import relative_error
from windowed_argmax_checks import check_triton as check_windows

from inceptionnext_seg.errors import UserError
from inceptionnext_seg.ops import _triton, label_check
from inceptionnext_seg.ops.upsampled_cross_entropy import (
    triton_sums_operator,
    upsampled_argmax,
    upsampled_argmax_operator,
    upsampled_cross_entropy,
)

NHWC = torch.channels_last
FP32, FP16, BF16 = torch.float32, torch.float16, torch.bfloat16
EPSILON = {FP32: 1e-5, FP16: 2**-10, BF16: 2**-7}    # of a gradient that is rounded to the logits' dtype

# batch, classes, low resolution, size; then the keyword arguments of check_loss.
CASES = [
    ((1, 150, (2, 3), (4, 7)), dict(dtype=FP16, layout=NHWC)),
    ((2, 5, (3, 2), (4, 5)), dict(weighted=True, label_smoothing=0.2, align_corners=True)),
    ((1, 17, (5, 4), (2, 3)), dict(dtype=BF16, ignore_index=0)),
    ((1, 40, (1, 3), (3, 1)), dict(labels_dtype=torch.uint8, weighted=True)),
    ((1, 300, (2, 1), (3, 2)), dict(label_smoothing=0.1)),
    ((1, 2, (2, 2), (2, 2)), dict(ignore_index=-100))]
ARGMAX_CASES = [
    ((1, 13, (3, 4)), dict(size=(6, 8), padding=(1, 0, 2, 0), flip='horizontal', ori_shape=(5, 6))),
    ((2, 150, (2, 3)), dict(size=(3, 5), dtype=FP16, layout=NHWC)),
    ((1, 33, (5, 6)), dict(size=(4, 3), flip='vertical', ori_shape=(3, 4), align_corners=True))]
# T's heads at 512×512; and what is not a multiple of anything.
REAL = [
    ((16, 150, (128, 128), (512, 512)), dict(dtype=FP16, layout=NHWC)),
    ((16, 150, (32, 32), (512, 512)), dict(dtype=BF16, layout=NHWC)),
    ((2, 19, (97, 131), (389, 523)), dict(weighted=True, label_smoothing=0.1)),
    ((1, 847, (33, 65), (130, 257)), dict(dtype=FP16))]


def draw(batch, classes, low, dtype, layout, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(batch, classes, *low, generator=generator)
    return logits.to(dtype).contiguous(memory_format=layout), generator


def position_error(*sizes):
    """Of what is interpolated: positions along the longest side are computed in float32, as torch does."""
    return 2**-22 * max(side for size in sizes for side in size)


def check_loss(device, batch, classes, low, size, *, dtype=FP32, layout=torch.contiguous_format, weighted=False,
               label_smoothing=0., align_corners=False, ignore_index=255, labels_dtype=torch.int64, seed=0):
    """Loss, sums, gradient and its layout are those of float64; and the same at a second call, bit for bit."""
    logits, generator = draw(batch, classes, low, dtype, layout, seed)
    labels = torch.randint(min(classes, 255), (batch, *size), generator=generator)
    labels[torch.rand(batch, *size, generator=generator) < 0.2] = ignore_index
    weight = torch.rand(classes, generator=generator) + 0.1 if weighted else None

    exact = logits.to(device, torch.float64).requires_grad_()
    labels = labels.to(device)
    upsampled = F.interpolate(exact, size, mode='bilinear', align_corners=align_corners)
    options = dict(ignore_index=ignore_index, label_smoothing=label_smoothing)
    expected = F.cross_entropy(upsampled, labels, None if weight is None else weight.to(device, torch.float64),
                               reduction='sum', **options)
    expected_gradient, = torch.autograd.grad(0.7 * expected, exact)
    valid = labels != ignore_index
    best = upsampled.topk(2, 1)
    right = (best.indices[:, 0] == labels) & valid
    unsure = (best.values[:, 0] - best.values[:, 1] < max(1e-4, 8 * position_error(low, size))).sum().item()

    found = []
    for _ in range(2):
        z = logits.to(device).detach().requires_grad_()
        sums = upsampled_cross_entropy(z, labels.to(labels_dtype), weight, **options, align_corners=align_corners,
                                       impl='triton')
        (0.7 * sums.loss).backward()
        found.append([*sums, z.grad])
    label_check.check(wait=True)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    loss, total, pixels, correct, gradient = found[0]
    assert relative_error(loss, expected) < max(1e-5, position_error(low, size))
    assert pixels.item() == valid.sum().item() and abs(correct.item() - right.sum().item()) <= unsure
    expected_total = pixels if weight is None else weight.to(device)[labels[valid]].double().sum()
    assert relative_error(total, expected_total) < 1e-6
    assert gradient.dtype == dtype and gradient.stride() == logits.stride()
    error = relative_error(gradient, expected_gradient)
    assert error < max(EPSILON[dtype], position_error(low, size)), error


def check_argmax(device, batch, classes, low, *, size, dtype=FP32, layout=torch.contiguous_format, align_corners=False,
                 padding=(0, 0, 0, 0), flip=None, ori_shape=None, seed=0):
    """Class indices are those of float64, but where the two best are equal to rounding."""
    logits, _ = draw(batch, classes, low, dtype, layout, seed)
    logits = logits.to(device)
    found = upsampled_argmax(logits, size, align_corners, padding, flip, ori_shape, impl='triton')
    left, right, top, bottom = padding
    x = F.interpolate(logits.double(), size, mode='bilinear', align_corners=align_corners)
    x = x[:, :, top:size[0] - bottom, left:size[1] - right]
    if flip:
        x = x.flip(3 if flip == 'horizontal' else 2)
    if ori_shape:
        x = F.interpolate(x, ori_shape, mode='bilinear', align_corners=align_corners)
    best = x.topk(2, 1)
    assert found.dtype == torch.int64 and found.shape == best.indices[:, 0].shape
    margin = max(1e-4, 8 * position_error(low, size, ori_shape or size))
    assert ((found == best.indices[:, 0]) | (best.values[:, 0] - best.values[:, 1] < margin)).all()


def check_wrong_labels(device):
    """The loss is NaN, and the error is there as soon as the label has arrived."""
    logits, labels = torch.zeros(1, 5, 1, 2, device=device), torch.zeros(1, 1, 3, dtype=torch.long, device=device)
    for value in (254, -1, 10**12):
        labels[0, 0, 1] = value
        try:
            sums = upsampled_cross_entropy(logits, labels, impl='triton')
            assert device.type == 'cuda' and sums.loss.isnan() and sums.pixels == 2
            label_check.check(wait=True)
            raise AssertionError('no error')
        except UserError as error:
            assert f'no class: {value}; expected 0 to 4, or 255' in str(error), error
        assert not label_check.pending


def check_gradients(device):
    """Without a need for it there is none; a second derivative is torch's; where the kernel fails, the first is too."""
    from inceptionnext_seg.ops import upsampled_cross_entropy_triton as kernels
    logits = torch.tensor([0., 2., -1., 1.], device=device).view(1, 2, 1, 2).requires_grad_()
    labels = torch.tensor([[[0, 1, 255]]], device=device)
    loss = upsampled_cross_entropy(logits, labels, impl='triton').loss
    with torch.inference_mode():
        assert torch.equal(upsampled_cross_entropy(logits, labels, impl='triton').loss, loss)
    expected = upsampled_cross_entropy(logits, labels, impl='torch').loss
    first, = torch.autograd.grad(loss, logits, create_graph=True)
    first_expected, = torch.autograd.grad(expected, logits, create_graph=True)
    torch.testing.assert_close(first, first_expected)
    factors = torch.arange(4., device=device).view_as(first)
    torch.testing.assert_close(*(torch.autograd.grad((g * factors).sum(), logits, retain_graph=True)[0]
                                 for g in (first, first_expected)))
    with mock.patch.object(kernels, 'loss_gradient', side_effect=_triton.LaunchError('it fails')):
        torch.testing.assert_close(*(torch.autograd.grad(g, logits, retain_graph=True)[0] for g in (loss, expected)))
    half = torch.zeros(1, 2, 1, 2, dtype=FP16, device=device, requires_grad=True)
    scaled = upsampled_cross_entropy(half, labels, impl='triton').loss / 2**28
    (scaled * 2**28).backward()     # with a loss scale the product is in the range of float16, its factors are not
    assert half.grad.abs().max() > 0.1


def check_operator(device):
    """Shapes, dtypes and strides are those that torch is told, and a compiled loss and prediction are one graph."""
    labels = torch.tensor([[[0, 1, 255], [1, 1, 0]]], device=device)
    for layout in (torch.contiguous_format, NHWC):
        logits = torch.randn(1, 2, 2, 2, device=device).contiguous(memory_format=layout).requires_grad_()
        settings = labels, None, 255, 0.1, False
        torch.library.opcheck(triton_sums_operator.registered, (logits, *settings, True),
                              test_utils=('test_schema', 'test_faketensor', 'test_autograd_registration'))
        torch.library.opcheck(
            upsampled_argmax_operator.registered,
            ('triton', logits.detach(), (4, 4), False, (0, 1, 0, 0), None, None),
            test_utils=('test_schema', 'test_faketensor'))

        def both(logits):
            sums = upsampled_cross_entropy(logits, labels, label_smoothing=0.1, impl='triton')
            return sums.loss, sums.correct, upsampled_argmax(logits, (4, 5), impl='triton')
        torch._dynamo.reset()
        compiled = torch.compile(both, backend='aot_eager', fullgraph=True)
        for found, expected in zip(compiled(logits), both(logits), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-6, atol=0.)
        gradients = [torch.autograd.grad(function(logits)[0], logits)[0] for function in (compiled, both)]
        torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-8)
        assert gradients[0].stride() == logits.stride()


def check_limits(device):
    """Equal logits, none that counts, logits of any size, an empty batch."""
    labels = torch.tensor([[[0, 1, 1]]], device=device)
    assert upsampled_cross_entropy(torch.zeros(1, 3, 1, 1, device=device), labels, impl='triton').correct.item() == 1
    assert not upsampled_argmax(torch.zeros(1, 3, 1, 1, device=device), (1, 2), impl='triton').any()
    sums = upsampled_cross_entropy(torch.zeros(1, 3, 1, 1, device=device), labels * 0 + 255, impl='triton')
    assert [value.item() for value in sums] == [0, 0, 0, 0]
    huge = torch.tensor([1e30, -1e30, 0.], device=device).view(1, 3, 1, 1)
    assert relative_error(upsampled_cross_entropy(huge, labels, impl='triton').loss, torch.tensor(4e30)) < 1e-6
    unknown = torch.tensor([0., float('nan'), 0.], device=device).view(1, 3, 1, 1)
    assert upsampled_cross_entropy(unknown, labels, impl='triton').loss.isnan()
    assert upsampled_argmax(unknown, (1, 1), impl='triton').item() == 1
    assert upsampled_cross_entropy(huge[:0], labels[:0], impl='triton').loss.item() == 0


def check_more_than_two_to_the_31(device):
    """Logits with that many elements, in 9 GB: all zero but in the last pixel, whose loss and gradient are known."""
    side, classes = 3800, 150
    logits = torch.zeros(1, side, side, classes, dtype=FP16, device=device)
    logits[0, -1, -1] = torch.arange(classes, device=device) / 64
    last = logits[0, -1, -1].double().requires_grad_()
    logits = logits.permute(0, 3, 1, 2).requires_grad_()
    labels = torch.full((1, side, side), 3, device=device)
    sums = upsampled_cross_entropy(logits, labels, impl='triton')
    sums.loss.backward()
    expected = F.cross_entropy(last[None], labels[0, 0, :1])
    expected.backward()
    others = (side * side - 1) * torch.tensor(float(classes), dtype=torch.float64).log()
    assert logits.numel() > 2**31 and sums.pixels.item() == side * side
    # All pixels but one have the same loss, so that its rounding to float32 does not average out: 1.8e-6.
    assert relative_error(sums.loss, expected.detach().cpu() + others) < 5e-6
    assert relative_error(logits.grad[0, :, -1, -1], last.grad) < EPSILON[FP16]
    found = upsampled_argmax(logits.detach(), (side, side), impl='triton')
    assert found[0, -1, -1].item() == classes - 1 and found.sum().item() == classes - 1


def random_cases(seed, count, most=60):
    """``count`` times arguments of check_loss and of check_argmax, of about ``most`` pixels."""
    draws = random.Random(seed)

    def sizes(most):
        height = draws.randint(1, most)
        return height, draws.randint(1, max(1, most // height))
    for i in range(count):
        classes = draws.choice([2, 3, 19, 31, 32, 33, 96, 97, 150, 171, 255, 256, 300, 700])
        common = dict(dtype=draws.choice([FP32, FP16, BF16]), layout=draws.choice([NHWC, torch.contiguous_format]),
                      align_corners=draws.random() < 0.3, seed=seed + i)
        low, size, batch = sizes(most), sizes(most), draws.randint(1, 2)
        yield ((batch, classes, low, size), dict(
            common, weighted=draws.random() < 0.5, label_smoothing=draws.choice([0., 0.1, 0.9]),
            ignore_index=draws.choice([255, -100, 0]), labels_dtype=draws.choice([torch.int64, torch.int32]))
        ), ((batch, max(classes, 2), low), dict(
            common, size=size, flip=draws.choice([None, 'vertical', 'horizontal']),
            padding=(draws.randint(0, size[1] - 1), 0, 0, draws.randint(0, size[0] - 1)),
            ori_shape=draws.choice([None, sizes(most)])))


def check_all(device, cases, argmax_cases):
    for sizes, options in cases:
        check_loss(device, *sizes, **options)
    for sizes, options in argmax_cases:
        check_argmax(device, *sizes, **options)


if __name__ == '__main__':
    cpu = torch.device('cpu')
    if sys.argv[1:2] == ['random']:
        for loss_case, argmax_case in random_cases(int(sys.argv[2]), int(sys.argv[3])):
            try:
                check_all(cpu, [loss_case], [argmax_case])
            except Exception:
                print('failed:', loss_case, argmax_case, sep='\n')
                raise
    else:
        check_all(cpu, CASES, ARGMAX_CASES)
        for loss_case, argmax_case in random_cases(0, 2, most=20):
            check_all(cpu, [loss_case], [argmax_case])
        for check in (check_wrong_labels, check_gradients, check_limits, check_operator, check_windows):
            check(cpu)
