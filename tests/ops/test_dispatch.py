"""The choice of a form, and every form of every operator against its reference in stock operators."""
import copy
import re
from unittest import mock

import pytest
import torch
import torch.nn as nn
from helpers import assert_close, draw
from torch._subclasses.fake_tensor import FakeTensorMode

from inceptionnext_seg._fast import Fast
from inceptionnext_seg.errors import UserError
from inceptionnext_seg.ops import _native as native
from inceptionnext_seg.ops import (
    batch_norm_act,
    bilinear,
    dispatch,
    inception_dwconv,
    norm_mlp,
    patch_conv,
    resize_concat_conv,
    upsampled_cross_entropy,
)
from inceptionnext_seg.ops.dispatch import Form, FormError

NHWC = torch.channels_last


def inception_case(dtype):
    """An operator of ``impl``, and the tensors that have gradients."""
    tensors = [draw(*shape, seed=i, dtype=dtype, layout=NHWC) for i, shape in enumerate((
        (2, 24, 9, 8), (3, 1, 3, 3), (3, ), (3, 1, 1, 11), (3, ), (3, 1, 11, 1), (3, )))]
    return lambda impl: inception_dwconv.inception_dwconv2d(*tensors, impl=impl), tensors


def fusion_case(dtype):
    maps = [draw(2, channels, *size, seed=i, dtype=dtype, layout=NHWC)
            for i, (channels, size) in enumerate([(16, (32, 40)), (8, (16, 20)), (4, (5, 6))])]
    weight, bias = draw(17, 28, 3, 3, seed=4, dtype=dtype), draw(17, seed=5, dtype=dtype)
    return lambda impl: resize_concat_conv.resize_concat_conv2d(maps, weight, bias, impl=impl), [*maps, weight, bias]


def convolution(channels, out_channels, kernel, dtype):
    """A convolution of patches with the same random weight in every dtype."""
    conv = nn.Conv2d(channels, out_channels, kernel, stride=kernel)
    conv.weight = nn.Parameter(draw(*conv.weight.shape, seed=10, dtype=dtype))
    conv.bias = nn.Parameter(draw(out_channels, seed=11, dtype=dtype))
    return conv


def norm_mlp_case(dtype):
    norm = nn.BatchNorm2d(20, dtype=dtype)
    fc1, fc2 = convolution(20, 44, 1, dtype), convolution(44, 20, 1, dtype)
    x, y = (draw(3, 20, 9, 7, seed=i, dtype=dtype, layout=NHWC) for i in range(2))
    gamma, factors = draw(20, seed=2, dtype=dtype), torch.tensor([0., 1.25, 1.25], dtype=dtype)

    def operator(impl):
        return norm_mlp.norm_mlp(x, y, norm, fc1, nn.GELU(), fc2, gamma, factors, impl=impl)
    return operator, [x, y, gamma, *(p for module in (norm, fc1, fc2) for p in module.parameters())]


def batch_norm_case(dtype):
    norm, x = nn.BatchNorm2d(24, dtype=dtype), draw(2, 24, 9, 11, dtype=dtype, layout=NHWC)
    return lambda impl: batch_norm_act.batch_norm_act(norm, nn.ReLU(), x, impl=impl), [x, *norm.parameters()]


def patch_case(dtype):
    conv, x = convolution(6, 10, 2, dtype), draw(3, 6, 13, 11, dtype=dtype, layout=NHWC)
    return lambda impl: patch_conv.patch_conv2d(x, conv, impl=impl), [x, *conv.parameters()]


def pointwise_case(dtype):
    conv, x = convolution(6, 10, 1, dtype), draw(3, 6, 5, 7, dtype=dtype, layout=NHWC)
    factors = torch.tensor([0., 2.], dtype=dtype)[torch.arange(18).view(3, 6) % 2]
    return lambda impl: patch_conv.patch_conv2d(x, conv, factors, impl=impl), [x, *conv.parameters()]


def loss_case(dtype):
    logits, labels = 3 * draw(2, 5, 4, 6, dtype=dtype), torch.arange(2 * 16 * 24).view(2, 16, 24) % 5
    labels[:, :3] = 255
    return lambda impl: upsampled_cross_entropy.upsampled_cross_entropy(
        logits, labels, range(1, 6), label_smoothing=0.1, impl=impl).loss, [logits]


def argmax_case(dtype):
    logits = draw(2, 5, 4, 6, dtype=dtype)
    return lambda impl: upsampled_cross_entropy.upsampled_argmax(
        logits, (16, 24), padding=(1, 0, 2, 0), flip='horizontal', ori_shape=(20, 21), impl=impl), []


CASES = dict(
    inception_dwconv2d=(inception_case, inception_dwconv.FORMS),
    resize_concat_conv2d=(fusion_case, resize_concat_conv.FORMS),
    norm_mlp=(norm_mlp_case, norm_mlp.FORMS), batch_norm_act=(batch_norm_case, batch_norm_act.FORMS),
    patch_conv2d=(patch_case, patch_conv.FORMS), pointwise=(pointwise_case, patch_conv.FORMS),
    upsampled_cross_entropy=(loss_case, upsampled_cross_entropy.LOSS_FORMS),
    upsampled_argmax=(argmax_case, upsampled_cross_entropy.ARGMAX_FORMS))
FOR_BFLOAT16, IN_INFERENCE = ('native_bf16', 'float_product'), ('onednn', 'native_inference')
ON_CPU = [(name, form) for name, (_, forms) in CASES.items() for form in forms
          if form not in ('torch', 'triton', *FOR_BFLOAT16, *IN_INFERENCE)]


@pytest.fixture(autouse=True)
def small_maps_too(monkeypatch):
    monkeypatch.setattr(norm_mlp, 'LEAST_HIDDEN', 0)
    monkeypatch.setattr(batch_norm_act, 'LEAST_VALUES', 0)


def run(case, impl, dtype):
    """The output, and the gradient of a sum that no symmetry hides from, to every tensor that has one."""
    operator, leaves = case(dtype)
    for leaf in leaves:
        leaf.requires_grad_()
    y = operator(impl)
    grads = torch.autograd.grad(y, leaves, draw(*y.shape, seed=9, dtype=dtype)) if leaves else []
    return [y, *grads]


# Every form is the same function


@pytest.mark.logits_match
@pytest.mark.parametrize('dtype, tolerance', [(torch.float64, 1e-10), (torch.float32, 1e-5)], ids=['fp64', 'fp32'])
@pytest.mark.parametrize('name, form', [*ON_CPU, *((name, 'auto') for name in CASES)])
def test_every_form_is_the_function_of_stock_operators(name, form, dtype, tolerance):
    case, _ = CASES[name]
    if form == 'native' and any(map(native.why_not, native.PROTOTYPES)):
        pytest.skip('no C++ compiler')
    found, expected = run(case, form, dtype), run(case, 'torch', torch.float64)
    assert found[0].dtype == (torch.int64 if name == 'upsampled_argmax' else dtype)
    assert_close(found, expected, tolerance)


@pytest.mark.parametrize('name, form', [
    (name, form) for name, (_, forms) in CASES.items() for form in forms if form in FOR_BFLOAT16])
def test_forms_for_bfloat16_are_as_near_to_float64_as_stock_operators_under_autocast(name, form):
    """Of the worst element of each tensor, over its largest: at most twice as far, or by a rounding to 8 bits."""
    if form == 'native_bf16' and any(map(native.why_not, native.PROTOTYPES)):
        pytest.skip('no C++ compiler')
    case, _ = CASES[name]
    expected, plain = run(case, 'torch', torch.float64), norm_mlp.norm_mlp

    def of_bfloat16(x, y, *args, **settings):
        """The second map is a token mixer's output."""
        return plain(x, y.bfloat16(), *args, **settings)

    def errors(impl):
        operator, leaves = case(torch.float32)
        for leaf in leaves:
            leaf.requires_grad_()
        with torch.autocast('cpu', dtype=torch.bfloat16), mock.patch.object(norm_mlp, 'norm_mlp', of_bfloat16):
            y = operator(impl)
        grads = torch.autograd.grad(y, leaves, draw(*y.shape, seed=9, dtype=y.dtype))
        return [float((x.detach().double() - e).abs().max() / e.abs().max())
                for x, e in zip([y, *grads], expected, strict=True)]

    for own, stock in zip(errors(form), errors('torch'), strict=True):
        assert own < max(2 * stock, 2 ** -7)


@pytest.mark.parametrize('name', CASES)
def test_on_this_machine_auto_takes_the_first_form(name, monkeypatch):
    if any(map(native.why_not, native.PROTOTYPES)):
        pytest.skip('no C++ compiler')
    case, forms = CASES[name]
    first, chosen = next(form for form in forms if form not in (*FOR_BFLOAT16, *IN_INFERENCE)), []
    for form in forms:
        monkeypatch.setitem(forms, form, forms[form]._replace(
            run=lambda *args, form=form, run=forms[form].run: chosen.append(form) or run(*args)))
    case(torch.float32)[0]('auto')
    assert chosen == [first]


# Errors


@pytest.mark.parametrize('name', CASES)
def test_an_unknown_form_is_an_error_that_names_those_there_are(name):
    case, forms = CASES[name]
    with pytest.raises(FormError) as raised:
        case(torch.float32)[0]('fast')
    assert all(repr(word) in str(raised.value) for word in ('fast', 'auto', *forms))


def test_the_error_can_be_caught_as_a_user_error_and_as_a_value_error():
    assert issubclass(FormError, UserError) and issubclass(FormError, ValueError)


@pytest.mark.parametrize('name, form', [*ON_CPU, ('inception_dwconv2d', 'triton')])
def test_a_form_that_cannot_take_the_input_is_an_error_with_operator_form_reason_and_next_step(
        name, form, monkeypatch):
    case, forms = CASES[name]
    monkeypatch.setitem(forms, form, forms[form]._replace(why_not=lambda *args: 'the moon is full'))
    with pytest.raises(FormError) as raised:
        case(torch.float32)[0](form)
    operator = 'patch_conv2d' if name == 'pointwise' else name
    assert all(word in str(raised.value) for word in (operator, repr(form), 'the moon is full', "Next: 'auto'"))
    assert_close(run(case, 'auto', torch.float64), run(case, 'torch', torch.float64), 1e-10)    # which takes another


def half(x):
    return x.half()


CONV, NORM, MLP = nn.Conv2d(6, 10, 2, stride=2), nn.BatchNorm2d(8), (nn.Conv2d(8, 4, 1), nn.GELU(), nn.Conv2d(4, 8, 1))
MIXER = [torch.zeros(shape) for shape in ((2, 1, 3, 3), (2, ), (2, 1, 1, 5), (2, ), (2, 1, 5, 1), (2, ))]
MAP = torch.zeros(2, 8, 4, 4)
META = MAP.to('meta')


class OtherConv(nn.Conv2d):
    """A convolution that may do what it likes in its own forward."""


@pytest.mark.parametrize('why_not, args, message', [
    (inception_dwconv.why_not_native, (META, *MIXER), 'meta'),
    (inception_dwconv.why_not_native, (half(MAP), *MIXER), 'float16'),
    (inception_dwconv.why_not_native, (MAP.double(), *MIXER), 'weights are torch.float32'),
    (inception_dwconv.why_not_triton, (MAP, *MIXER), 'cpu'),
    (resize_concat_conv.why_not_native, ([META], ), 'meta'),
    (resize_concat_conv.why_not_native, ([half(MAP)], ), 'float16'),
    (norm_mlp.why_not_native, (MAP, MAP, nn.GroupNorm(2, 8), *MLP), 'GroupNorm'),
    (norm_mlp.why_not_native, (MAP, MAP, NORM, MLP[0], nn.ReLU(), MLP[2]), 'ReLU'),
    (norm_mlp.why_not_native, (MAP, MAP, NORM, MLP[0], nn.GELU('tanh'), MLP[2]), 'tanh'),
    (norm_mlp.why_not_native, (MAP, MAP, NORM, nn.Conv2d(8, 4, 1, bias=False), *MLP[1:]), 'no bias'),
    (norm_mlp.why_not_native, (META, META, NORM, *MLP), 'meta'),
    (norm_mlp.why_not_native, (MAP, half(MAP), NORM, *MLP), 'float16'),
    (norm_mlp.why_not_native, (MAP.double(), MAP, NORM, *MLP), 'some are float64'),
    (norm_mlp.why_not_native, (MAP[:1, :, :1, :1], MAP[:1, :, :1, :1], NORM, *MLP), r'\(1, 8, 1, 1\)'),
    (batch_norm_act.why_not_native, (MAP, None, None), 'no norm'),
    (batch_norm_act.why_not_native, (MAP, nn.GroupNorm(2, 8), None), 'GroupNorm'),
    (batch_norm_act.why_not_native, (MAP, nn.BatchNorm2d(8).eval(), None), 'evaluation'),
    (batch_norm_act.why_not_native, (MAP, nn.BatchNorm2d(8, affine=False), None), 'scale'),
    (batch_norm_act.why_not_native, (MAP[:1, :, :1, :1], NORM, None), r'\(1, 8, 1, 1\)'),
    (batch_norm_act.why_not_native, (MAP[:, :0], nn.BatchNorm2d(0), None), r'\(2, 0, 4, 4\)'),
    (batch_norm_act.why_not_native, (META, NORM, None), 'meta'),
    (batch_norm_act.why_not_native, (half(MAP), NORM, None), 'float16'),
    (patch_conv.why_not_product, (MAP, OtherConv(8, 4, 2, 2)), 'OtherConv'),
    (patch_conv.why_not_product, (MAP, nn.Conv2d(8, 4, 2, stride=1)), 'stride'),
    (patch_conv.why_not_product, (MAP, CONV, torch.ones(2, 8)), 'channel factors'),
    (patch_conv.why_not_product, (META, CONV), 'meta'),
    (patch_conv.why_not_product, (MAP[0], CONV), '3 dimensions'),
    (upsampled_cross_entropy.why_not_native, (META, ), 'meta')])
def test_every_reason_why_not_can_be_had(why_not, args, message):
    assert re.search(message, why_not(*args))


LIBRARIES = [
    (inception_dwconv.why_not_native, (MAP, *MIXER)), (resize_concat_conv.why_not_native, ([MAP], )),
    (norm_mlp.why_not_native, (MAP, MAP, NORM, *MLP)), (batch_norm_act.why_not_native, (MAP, NORM, None)),
    (upsampled_cross_entropy.why_not_native, (MAP, ))]


@pytest.mark.parametrize('why_not, args', LIBRARIES)
def test_a_library_that_cannot_be_had_is_a_reason(why_not, args, monkeypatch):
    monkeypatch.setattr(native, 'load', lambda name: native.Library({}, 'no compiler is here'))
    assert 'no compiler is here' in why_not(*args)


# Where there are no values, or not here


@pytest.mark.parametrize('name', CASES)
@pytest.mark.parametrize('mode', ['meta', 'fake'])
def test_meta_and_fake_tensors_take_torch_whatever_is_asked_for(name, mode, monkeypatch):
    case, forms = CASES[name]
    chosen = []
    for form in forms:
        monkeypatch.setitem(forms, form, forms[form]._replace(
            run=lambda *args, form=form, run=forms[form].run: chosen.append(form) or run(*args)))
    expected = case(torch.float32)[0]('torch').shape
    chosen.clear()
    with torch.device('meta') if mode == 'meta' else FakeTensorMode():
        if mode == 'meta':
            monkeypatch.setattr('test_dispatch.draw', lambda *shape, dtype, **_: torch.empty(shape, dtype=dtype))
        operator, _ = case(torch.float32)
        shapes = [operator(impl).shape for impl in ('auto', *forms)]
    assert set(shapes) == {expected} and set(chosen) == {'torch'} and len(chosen) == 1 + len(forms)


@pytest.mark.parametrize('name', CASES)
def test_a_traced_model_takes_torch_whatever_is_asked_for(name, monkeypatch):
    case, forms = CASES[name]
    chosen = []
    for form in forms:
        monkeypatch.setitem(forms, form, forms[form]._replace(
            run=lambda *args, form=form, run=forms[form].run: chosen.append(form) or run(*args)))
    monkeypatch.setattr(torch.jit, 'is_tracing', lambda: True)
    for impl in ('auto', *forms):
        case(torch.float32)[0](impl)
    assert set(chosen) == {'torch'}


# The rule


FORMS = dict(
    fast=Form(lambda x: 'fast', lambda x: None if x[0] > 0 else 'x is not positive', lambda x: x[0] > 2),
    slow=Form(lambda x: 'slow', worth=lambda x: x[0] != 2), torch=Form(lambda x: 'torch'))


@pytest.mark.parametrize('value, form', [(3, 'fast'), (1, 'slow'), (-1, 'slow'), (2, 'torch')])
def test_auto_takes_the_first_form_that_can_and_is_worth_it(value, form):
    assert dispatch.run('operator', FORMS, 'auto', torch.tensor([value])) == form


def test_a_form_that_is_asked_for_need_not_be_worth_it():
    assert dispatch.run('operator', FORMS, 'fast', torch.tensor([1])) == 'fast'


def test_whether_a_form_is_worth_it_is_asked_only_where_it_can_run():
    forms = dict(fast=Form(None, lambda x: 'it cannot', lambda x: 1 / 0), torch=Form(lambda x: 'torch'))
    assert dispatch.run('operator', forms, 'auto', torch.zeros(1)) == 'torch'


def test_an_accelerated_module_in_the_place_of_a_plain_one_is_run_as_its_plain_class():
    """The plain form must not call the fast forward that it was called from."""
    class FastNorm(Fast, nn.BatchNorm2d):
        plain = nn.BatchNorm2d

        def forward(self, x):
            return batch_norm_act.batch_norm_act(self, None, x, impl=self.form('norm'))

    class FastConv(Fast, nn.Conv2d):
        plain = nn.Conv2d

        def forward(self, x):
            return patch_conv.patch_conv2d(x, self, impl=self.form('patches'))

    for plain, fast, channels, part in ((nn.BatchNorm2d(8), FastNorm, 8, 'norm'), (CONV, FastConv, 6, 'patches')):
        x = draw(2, channels, 8, 8, dtype=torch.float32, layout=NHWC)
        module, expected = copy.deepcopy(plain), plain(x)
        module.__class__ = fast
        reason = batch_norm_act.why_not_native(x, module, None) if part == 'norm' else (
            patch_conv.why_not_product(x, module))
        assert reason is None or reason == native.why_not('batch_norm')
        for impl in ('auto', 'torch'):
            module.forms = {part: impl}
            assert_close(module(x), expected, 1e-5)


# Source positions


@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('sizes', [(4, 16), (7, 23), (9, 4), (1, 5), (6, 6), (13, 30), (128, 512), (3, 1)])
def test_source_positions_are_those_of_interpolate_to_rounding(sizes, dtype, align_corners):
    """Of a map of zeros and one 1, ``F.interpolate`` shows its weights."""
    size_in, size_out = sizes
    lower, upper_weight = bilinear.source_positions(size_in, size_out, align_corners, dtype)
    expected = torch.nn.functional.interpolate(
        torch.eye(size_in, dtype=dtype)[None, :, None].expand(1, -1, 1, -1), (1, size_out), mode='bilinear',
        align_corners=align_corners)[0, :, 0].T
    found = torch.zeros(size_out, size_in, dtype=dtype)
    rows = torch.arange(size_out)
    found[rows, lower] = 1 - upper_weight
    found[rows, (lower + 1).clamp(max=size_in - 1)] += upper_weight
    torch.testing.assert_close(found, expected, rtol=0, atol=size_in * torch.finfo(dtype).eps)


@pytest.mark.parametrize('name', ['norm_mlp', 'resize_concat_conv2d', 'inception_dwconv2d', 'batch_norm_act'])
def test_backward_inside_autocast_has_the_gradients_of_one_outside(name):
    """Products became bfloat16 there, and kernels wrote float past their ends."""
    if any(map(native.why_not, native.PROTOTYPES)):
        pytest.skip('no C++ compiler')
    operator, leaves = CASES[name][0](torch.float32)
    for leaf in leaves:
        leaf.requires_grad_()
    y = operator('native')
    grad = draw(*y.shape, seed=9, dtype=torch.float32)
    expected = torch.autograd.grad(y, leaves, grad, retain_graph=True)
    with torch.autocast('cpu', torch.bfloat16):
        assert_close(torch.autograd.grad(y, leaves, grad), expected, 1e-6)
