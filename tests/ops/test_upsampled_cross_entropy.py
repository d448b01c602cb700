"""Loss, gradient, accuracy and class indices of upsampled logits, against F.interpolate and F.cross_entropy."""
import pytest
import torch
import torch.nn.functional as F
from helpers import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from inceptionnext_seg.errors import UserError
from inceptionnext_seg.ops import _native as native
from inceptionnext_seg.ops import upsampled_cross_entropy as upsampled_loss
from inceptionnext_seg.ops.bilinear import AxisMap
from inceptionnext_seg.ops.dispatch import FormError
from inceptionnext_seg.ops.upsampled_cross_entropy import upsampled_argmax, upsampled_cross_entropy

# batch, classes, low resolution, output: factor 4, odd sizes, ratios that are no integers, smaller, single rows and
# columns, the same size, both ways at once, more classes than an 8-bit number has.
SHAPES = [(2, 5, (4, 6), (16, 24)), (1, 150, (7, 5), (23, 31)), (2, 3, (9, 8), (4, 5)), (1, 17, (1, 3), (8, 1)),
          (2, 16, (6, 6), (6, 6)), (1, 4, (5, 1), (9, 7)), (1, 2, (13, 11), (30, 5)), (1, 300, (3, 4), (7, 9))]


@pytest.fixture(params=['native', 'blocked', 'torch'])
def impl(request):
    if request.param == 'native' and native.why_not('upsampled_loss'):
        pytest.skip('no C++ compiler')
    return request.param


@pytest.fixture(params=['native', 'blocked'])
def fast_impl(request):
    if request.param == 'native' and native.why_not('upsampled_loss'):
        pytest.skip('no C++ compiler')
    return request.param


def inputs(batch, classes, low, size, dtype=torch.float64, seed=0, ignored=0.2):
    """Logits and labels, some of which are 255."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(batch, classes, *low, dtype=torch.float64, generator=generator)
    labels = torch.randint(min(classes, 255), (batch, *size), generator=generator)
    labels[torch.rand(batch, *size, generator=generator) < ignored] = 255
    return logits.to(dtype), labels


def stock(logits, labels, align_corners=False, **kwargs):
    """Sum of the losses, its gradient, and the number of correct pixels, by torch's operators."""
    logits = logits.detach().clone().requires_grad_()
    upsampled = F.interpolate(logits, labels.shape[1:], mode='bilinear', align_corners=align_corners)
    loss = F.cross_entropy(upsampled, labels, reduction='sum', **{'ignore_index': 255, **kwargs})
    gradient, = torch.autograd.grad(loss, logits)
    correct = upsampled.topk(1, 1).indices[:, 0].eq(labels) & (labels != kwargs.get('ignore_index', 255))
    return loss.detach(), gradient, correct.sum().item()


def ours(logits, labels, class_weight=None, **kwargs):
    logits = logits.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    sums = upsampled_cross_entropy(logits, labels, class_weight, **kwargs)
    gradient, = torch.autograd.grad(sums.loss, logits)
    return sums.loss.detach(), gradient, sums.correct.item()


def assert_equal(found, expected, tolerance):
    assert_close(found[:2], expected[:2], tolerance)
    assert found[2] == expected[2]


@pytest.mark.logits_match
@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize('shape', SHAPES)
def test_loss_gradient_and_correct_pixels_are_those_of_torch(shape, align_corners, impl):
    logits, labels = inputs(*shape)
    assert_equal(ours(logits, labels, align_corners=align_corners, impl=impl),
                 stock(logits, labels, align_corners), 1e-12)
    single = logits.float()
    assert_equal(ours(single, labels, align_corners=align_corners, impl=impl),
                 stock(single, labels, align_corners), 1e-5)


@pytest.mark.logits_match
@pytest.mark.parametrize('options', [
    dict(weighted=True), dict(label_smoothing=0.1), dict(weighted=True, label_smoothing=0.3), dict(ignore_index=0),
    dict(ignore_index=-100, labels_ignored=0)])
def test_class_weights_label_smoothing_and_ignore_index_are_those_of_torch(options, impl):
    options = dict(options)
    logits, labels = inputs(2, 19, (5, 7), (18, 25), ignored=options.pop('labels_ignored', 0.2))
    weight = torch.linspace(0, 2, 19, dtype=torch.float64) if options.pop('weighted', False) else None
    if options.get('ignore_index') == 0:
        labels[labels == 255] = 0
    expected = stock(logits, labels, weight=weight, **options)
    assert_equal(ours(logits, labels, weight, impl=impl, **options), expected, 1e-12)
    if weight is not None:  # as a plain list, too
        assert_equal(ours(logits, labels, weight.tolist(), impl=impl, **options), expected, 1e-12)


def test_a_hand_worked_image_of_two_pixels(impl):
    # One row, two classes; from 2 to 4 columns the weights of the second pixel are 0, 1/4, 3/4, 1.
    logits = torch.tensor([[[[0., 4.]], [[0., 0.]]]], dtype=torch.float64)
    labels = torch.tensor([[[0, 0, 1, 255]]])
    sums = upsampled_cross_entropy(logits, labels, [1, 10], impl=impl)
    softplus = torch.log1p(torch.exp(torch.tensor([0., -1., 3.], dtype=torch.float64)))
    assert sums.loss.item() == pytest.approx((softplus[0] + softplus[1] + 10 * softplus[2]).item(), rel=1e-14)
    assert (sums.weight.item(), sums.pixels.item(), sums.correct.item()) == (12, 3, 2)


def test_the_gradient_is_that_of_finite_differences(impl):
    logits, labels = inputs(2, 3, (3, 2), (7, 5))
    assert torch.autograd.gradcheck(
        lambda x: upsampled_cross_entropy(x, labels, [1, 2, 3], label_smoothing=0.1, impl=impl).loss,
        logits.requires_grad_())


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_upsampled_in_float32_and_have_a_gradient_of_their_dtype(dtype, impl):
    logits, labels = inputs(2, 21, (6, 5), (22, 20), dtype)
    found, expected = ours(logits, labels, impl=impl), stock(logits.float(), labels)
    assert found[0].dtype == torch.float32 and found[1].dtype == dtype
    torch.testing.assert_close(found[0], expected[0], rtol=1e-5, atol=0)
    torch.testing.assert_close(found[1], expected[1].to(dtype))
    assert found[2] == expected[2]


def test_a_loss_scale_is_applied_before_the_gradient_is_rounded_to_half_precision(impl):
    logits, labels = inputs(1, 5, (8, 8), (32, 32), torch.float16)
    logits.requires_grad_()
    loss = upsampled_cross_entropy(logits, labels, impl=impl).loss / 2**28
    (loss * 2**28).backward()
    torch.testing.assert_close(logits.grad, stock(logits.float(), labels)[1].half())


def test_both_layouts_give_the_same_and_the_gradient_has_the_layout_of_the_logits(fast_impl):
    logits, labels = inputs(2, 7, (6, 5), (24, 20), torch.float32)
    expected = ours(logits, labels, impl=fast_impl)
    found = ours(logits.contiguous(memory_format=torch.channels_last), labels, impl=fast_impl)
    strided = ours(logits.repeat_interleave(2, 3)[..., ::2], labels, impl=fast_impl)
    assert expected[1].is_contiguous() and found[1].is_contiguous(memory_format=torch.channels_last)
    for other in (found, strided):
        assert torch.equal(other[0], expected[0]) and torch.equal(other[1], expected[1])


@pytest.mark.parametrize('dtype', [torch.uint8, torch.int32])
def test_labels_of_any_integer_type_and_layout_are_taken(dtype, impl):
    logits, labels = inputs(2, 5, (4, 6), (16, 24))
    expected = ours(logits, labels, impl=impl)
    for other in (labels.to(dtype), labels.mT.contiguous().mT):
        assert torch.equal(ours(logits, other, impl=impl)[1], expected[1])


def test_rows_without_a_label_add_nothing_and_without_any_label_all_is_zero(impl):
    logits, labels = inputs(2, 5, (4, 6), (16, 24), ignored=0)
    labels[:, 3:9] = 255
    assert_equal(ours(logits, labels, impl=impl), stock(logits, labels), 1e-12)
    labels[:] = 255
    sums = upsampled_cross_entropy(logits.requires_grad_(), labels, impl=impl)
    sums.loss.backward()
    assert [value.item() for value in sums] == [0, 0, 0, 0]
    assert not logits.grad.any()


@pytest.mark.parametrize('value', [5, 254, -1, 10**12])
def test_a_label_that_is_no_class_is_an_error_that_says_so(value, impl):
    logits, labels = inputs(2, 5, (4, 6), (16, 24))
    labels[1, 2, 3] = value
    with pytest.raises(UserError, match=rf'no class: {value}; expected 0 to 4, or 255 .*reduce_zero_label'):
        upsampled_cross_entropy(logits, labels, impl=impl)


def test_shapes_that_do_not_fit_are_errors_that_say_what_was_found_and_expected(impl):
    logits, labels = inputs(2, 5, (4, 6), (16, 24))
    with pytest.raises(ValueError, match=r'\(2, 1, 16, 24\) do not fit'):
        upsampled_cross_entropy(logits, labels[:, None], impl=impl)
    with pytest.raises(ValueError, match=r'class_weight has shape \(4,\)'):
        upsampled_cross_entropy(logits, labels, [1, 2, 3, 4], impl=impl)


def test_small_probabilities_are_right_to_float32_precision(fast_impl):
    # The gradient of class 1, where the label is class 0, is its probability: 1 / (1 + e^x), about e^-x.
    x = torch.linspace(0, 86, 20001)
    logits = torch.stack([x, torch.zeros_like(x)])[None, :, None]
    gradient = ours(logits, torch.zeros(1, 1, len(x), dtype=torch.long), impl=fast_impl)[1]
    expected = torch.sigmoid(-x.double())
    assert ((gradient[0, 1, 0] - expected) / expected).abs().max() < 3e-7


def test_logits_of_any_size_give_what_torch_gives(impl):
    logits, labels = inputs(1, 5, (4, 4), (13, 13), torch.float32)
    for scale in (1e-30, 1e4, 1e30):
        assert_equal(ours(scale * logits, labels, impl=impl), stock(scale * logits, labels), 1e-5)
    impossible = logits.clone()
    impossible[:, 2] = -1e30
    labels[labels == 2] = 0
    assert_equal(ours(impossible, labels, impl=impl), stock(impossible, labels), 1e-5)


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_a_logit_that_is_no_number_makes_the_loss_nan_as_in_torch(value, impl):
    logits, labels = inputs(1, 5, (4, 4), (13, 13), torch.float32)
    logits[0, 1, 2, 2] = value
    assert stock(logits, labels)[0].isnan() and ours(logits, labels, impl=impl)[0].isnan()


def test_of_equal_logits_the_first_is_the_prediction(impl):
    labels = torch.arange(20).reshape(1, 4, 5) % 4
    sums = upsampled_cross_entropy(torch.zeros(1, 4, 2, 2), labels, impl=impl)
    assert sums.correct.item() == 5
    assert not upsampled_argmax(torch.zeros(1, 4, 2, 2), (4, 5), impl=impl).any()


def test_without_a_need_for_it_there_is_no_gradient(impl):
    logits, labels = inputs(1, 5, (4, 4), (13, 13))
    assert not upsampled_cross_entropy(logits, labels, impl=impl).loss.requires_grad
    logits.requires_grad_()
    with torch.no_grad():
        without = upsampled_cross_entropy(logits, labels, impl=impl)
    sums = upsampled_cross_entropy(logits, labels, impl=impl)
    assert not without.loss.requires_grad and torch.equal(without.loss, sums.loss)
    assert [value.requires_grad for value in sums] == [True, False, False, False]


def test_the_gradient_is_multiplied_by_what_follows_and_can_be_had_twice(impl):
    logits, labels = inputs(1, 5, (4, 4), (13, 13))
    logits.requires_grad_()
    loss = upsampled_cross_entropy(logits, labels, impl=impl).loss
    expected = stock(logits, labels)[1]
    for factor in (1, -3):
        torch.testing.assert_close(torch.autograd.grad(factor * loss, logits, retain_graph=True)[0], factor * expected)


def test_results_do_not_depend_on_the_number_of_threads():
    if native.why_not('upsampled_loss'):
        pytest.skip('no C++ compiler')
    logits, labels = inputs(3, 37, (9, 11), (37, 43), torch.float32)

    def results():
        return [*ours(logits, labels, impl='native')[:2], upsampled_argmax(logits, (37, 43), impl='native')]
    expected = results()
    try:
        torch.set_num_threads(2)
        found = results()
    finally:
        torch.set_num_threads(1)
    assert all(map(torch.equal, found, expected))


@pytest.mark.parametrize('shape', [SHAPES[0], SHAPES[1], SHAPES[2]])
def test_blocks_of_any_number_of_rows_give_the_same(shape, monkeypatch):
    logits, labels = inputs(*shape)
    expected = ours(logits, labels, impl='blocked'), upsampled_argmax(logits, shape[3], impl='blocked')
    for rows in (1, 3, 5):
        monkeypatch.setattr(upsampled_loss, 'BLOCK_BYTES', 2 * 8 * rows * shape[0] * shape[1] * shape[3][1])
        assert upsampled_loss.row_blocks(10, shape[0] * shape[1] * shape[3][1], torch.float64)[0] == (0, rows)
        assert_equal(ours(logits, labels, impl='blocked'), expected[0], 1e-12)
        assert torch.equal(upsampled_argmax(logits, shape[3], impl='blocked'), expected[1])


class LargestTensor(TorchDispatchMode):
    """The number of elements of the largest tensor that an operator returns."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.elements = max([self.elements, *(x.numel() for x in tree_leaves(result) if isinstance(x, torch.Tensor))])
        return result


def test_no_tensor_has_the_size_of_the_upsampled_logits(fast_impl, monkeypatch):
    logits, labels = inputs(2, 50, (8, 8), (32, 32), torch.float32)
    monkeypatch.setattr(upsampled_loss, 'BLOCK_BYTES', 2**16)
    with LargestTensor() as largest:
        ours(logits, labels, impl=fast_impl)
        upsampled_argmax(logits, (32, 32), impl=fast_impl)
    assert largest.elements == logits.numel()
    with LargestTensor() as largest:
        stock(logits, labels)
    assert largest.elements == 16 * logits.numel()


def test_it_runs_under_autocast_and_with_deterministic_algorithms(impl):
    logits, labels = inputs(2, 21, (6, 5), (22, 20), torch.bfloat16)
    expected = ours(logits, labels, impl=impl)
    try:
        torch.use_deterministic_algorithms(True)
        with torch.autocast('cpu', torch.bfloat16):
            found = ours(logits, labels, impl=impl)
            prediction = upsampled_argmax(logits, (22, 20), impl=impl)
    finally:
        torch.use_deterministic_algorithms(False)
    assert found[0].dtype == torch.float32 and torch.equal(found[1], expected[1])
    assert torch.equal(prediction, upsampled_argmax(logits, (22, 20), impl=impl))


def test_training_can_follow_a_prediction_of_the_same_size_in_inference_mode(impl):
    logits, labels = inputs(1, 5, (3, 3), (11, 14))
    AxisMap.resizing.cache_clear()
    with torch.inference_mode():
        upsampled_argmax(logits, (11, 14), impl=impl)
        upsampled_cross_entropy(logits, labels, impl=impl)
    assert_equal(ours(logits, labels, impl=impl), stock(logits, labels), 1e-12)


@pytest.mark.compile
def test_a_compiled_model_can_call_it(impl):
    logits, labels = inputs(1, 5, (4, 4), (13, 13), torch.float32)

    def step(x):
        return upsampled_cross_entropy(2 * x, labels, impl=impl).loss * 3
    torch._dynamo.reset()
    logits.requires_grad_()
    found, = torch.autograd.grad(torch.compile(step, backend='eager')(logits), logits)
    torch.testing.assert_close(found, 6 * stock(2 * logits, labels)[1], rtol=1e-5, atol=1e-5)


def test_without_a_kernel_torch_operators_are_taken_unless_the_kernel_is_asked_for(monkeypatch):
    logits, labels = inputs(1, 5, (4, 4), (13, 13))
    monkeypatch.setattr(native, 'load', lambda name: native.Library({}, 'no C++ compiler'))
    assert_equal(ours(logits, labels), stock(logits, labels), 1e-12)
    with pytest.raises(FormError, match=r"'native'.*no C\+\+ compiler"):
        upsampled_cross_entropy(logits, labels, impl='native')


# Prediction


def stock_argmax(logits, size, align_corners=False, padding=(0, 0, 0, 0), flip=None, ori_shape=None):
    """Upsampled, cropped, flipped and resized as mmseg does it; and where the best two are too near to tell apart."""
    x = F.interpolate(logits, size, mode='bilinear', align_corners=align_corners)
    left, right, top, bottom = padding
    x = x[:, :, top:size[0] - bottom, left:size[1] - right]
    if flip:
        x = x.flip(3 if flip == 'horizontal' else 2)
    if ori_shape:
        x = F.interpolate(x, ori_shape, mode='bilinear', align_corners=align_corners)
    best = x.topk(2, 1).values
    return x.argmax(1), (best[:, 0] - best[:, 1]) < 1e-4


@pytest.mark.logits_match
@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize('shape', SHAPES)
def test_class_indices_are_those_of_upsampled_logits(shape, align_corners, impl):
    logits, _ = inputs(*shape)
    found = upsampled_argmax(logits, shape[3], align_corners, impl=impl)
    assert found.dtype == torch.int64
    assert torch.equal(found, stock_argmax(logits, shape[3], align_corners)[0])


@pytest.mark.logits_match
@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize('steps', [
    dict(padding=(1, 2, 3, 5)), dict(flip='horizontal'), dict(flip='vertical', padding=(0, 3, 0, 2)),
    dict(ori_shape=(41, 50)), dict(ori_shape=(11, 13)), dict(ori_shape=(28, 36)), dict(ori_shape=(1, 90)),
    dict(padding=(2, 0, 1, 4), flip='horizontal', ori_shape=(57, 33)),
    dict(padding=(27, 8, 0, 0), flip='vertical', ori_shape=(57, 33))])
def test_class_indices_after_crop_flip_and_second_resizing_are_those_of_these_steps(steps, align_corners, impl):
    logits, _ = inputs(2, 13, (7, 9), (28, 36))
    found = upsampled_argmax(logits, (28, 36), align_corners, **steps, impl=impl)
    assert torch.equal(found, stock_argmax(logits, (28, 36), align_corners, **steps)[0])
    larger = logits.repeat(1, 1, 9, 5)
    found = upsampled_argmax(larger, (28, 36), align_corners, **steps, impl=impl)
    assert torch.equal(found, stock_argmax(larger, (28, 36), align_corners, **steps)[0])


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float16])
def test_class_indices_differ_from_float32_ones_only_where_the_best_two_are_equal_to_rounding(dtype, impl):
    logits, _ = inputs(1, 150, (16, 17), (64, 70), dtype)
    for layout in (torch.contiguous_format, torch.channels_last):
        found = upsampled_argmax(logits.contiguous(memory_format=layout), (64, 70), ori_shape=(50, 99), impl=impl)
        expected, close = stock_argmax(logits.float(), (64, 70), ori_shape=(50, 99))
        assert ((found == expected) | close).all()
        assert (found == expected).float().mean() > 0.999


def test_class_indices_are_in_range_where_logits_are_no_numbers(impl):
    logits, _ = inputs(1, 5, (4, 4), (13, 13))
    logits[0, :, 1] = float('nan')
    logits[0, :, 3] = float('-inf')
    found = upsampled_argmax(logits, (13, 13), impl=impl)
    assert found.min() >= 0 and found.max() <= 4
    assert torch.equal(found[0, 0], stock_argmax(logits, (13, 13))[0][0, 0])


def test_a_flip_in_an_unknown_direction_is_an_error():
    with pytest.raises(ValueError, match="'diagonal'"):
        upsampled_argmax(torch.zeros(1, 2, 2, 2), (4, 4), flip='diagonal')


def test_views_that_are_minus_their_memory_are_read_as_their_values(impl):
    """As ``z.conj().imag`` is."""
    logits, labels = inputs(2, 3, (4, 5), (8, 10), ignored=0.)
    weight = torch.tensor([1., 2., 3.], dtype=torch.float64)

    def losses(impl, change):
        sums = upsampled_cross_entropy(change(logits), change(labels), change(weight), impl=impl)
        return [sums.loss, sums.weight]

    assert_close(losses(impl, lambda x: torch._neg_view(-x)), losses('torch', torch.clone), 1e-10)
    assert torch.equal(upsampled_argmax(torch._neg_view(-logits), (8, 10), impl=impl),
                       upsampled_argmax(logits, (8, 10), impl='torch'))
