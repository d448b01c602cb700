"""Accelerated models under torch.func, forward mode and second derivatives, against the plain model."""
import copy

import pytest
import torch
import torch.autograd.forward_ad as fwAD
import torch.nn as nn
from helpers import assert_close, draw
from torch.func import functional_call, grad, jvp, vmap

from inceptionnext_seg import InceptionNeXt, accelerate
from inceptionnext_seg.ops import _native as native
from inceptionnext_seg.ops import dispatch, norm_mlp
from inceptionnext_seg.ops.batch_norm_act import batch_norm_act
from inceptionnext_seg.ops.inception_dwconv import inception_dwconv2d
from inceptionnext_seg.ops.patch_conv import patch_conv2d
from inceptionnext_seg.ops.resize_concat_conv import resize_concat_conv2d
from inceptionnext_seg.ops.upsampled_cross_entropy import upsampled_cross_entropy

NHWC = torch.channels_last


@pytest.fixture(autouse=True)
def small_maps_too(monkeypatch):
    monkeypatch.setattr(norm_mlp, 'LEAST_HIDDEN', 0)


@pytest.fixture(scope='module')
def models():
    """Accelerated and plain, in evaluation; and the loss of either under other parameters."""
    torch.manual_seed(0)
    arch = dict(depths=(1, 1), dims=(16, 24))
    plain = InceptionNeXt(arch, out_indices=(0, 1), layer_scale_init_value=0.5).double().eval()
    fast = copy.deepcopy(plain)
    accelerate(fast)
    return fast, plain


def loss_of(model, parameters, image, label):
    features = functional_call(model, parameters, (image[None], ))
    return upsampled_cross_entropy(features[-1], label[None]).loss + sum(f.square().mean() for f in features)


def samples():
    labels = torch.randint(24, (3, 32, 32), generator=torch.Generator().manual_seed(1))
    return draw(3, 3, 32, 32, layout=NHWC), labels


def test_torch_func_grad_is_that_of_the_plain_model(models):
    images, labels = samples()
    found, expected = (grad(lambda p, m=model: loss_of(m, p, images[0], labels[0]))(dict(model.named_parameters()))
                       for model in models)
    assert_close(found, expected, 1e-10)


def test_gradients_of_each_sample_by_vmap_are_those_of_the_plain_model(models):
    images, labels = samples()
    found, expected = (vmap(grad(lambda p, x, y, m=model: loss_of(m, p, x, y)), in_dims=(None, 0, 0))(
        dict(model.named_parameters()), images, labels) for model in models)
    assert_close(found, expected, 1e-10)


def test_forward_mode_is_that_of_the_plain_model(models):
    image, direction = draw(1, 3, 32, 32, layout=NHWC), draw(1, 3, 32, 32, seed=2, layout=NHWC)
    found, expected = (jvp(lambda x, m=model: m(x)[-1], (image, ), (direction, ))[1] for model in models)
    assert_close([found], [expected], 1e-10)
    with fwAD.dual_level():
        dual = fwAD.unpack_dual(models[0](fwAD.make_dual(image, direction))[-1]).tangent
    assert_close([dual], [expected], 1e-10)


def test_a_gradient_penalty_is_that_of_the_plain_model(models):
    penalties = []
    for model in models:
        model = copy.deepcopy(model).train()
        image = draw(2, 3, 32, 32, layout=NHWC).requires_grad_()
        loss = upsampled_cross_entropy(model(image)[-1], samples()[1][:2]).loss
        gradient, = torch.autograd.grad(loss, image, create_graph=True)
        gradient.square().sum().backward()
        penalties.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None}
                         | dict(image=image.grad))
    assert_close(*penalties, 1e-8, floor=1e-6)    # a bias before a BatchNorm has no gradient


def random_norm(channels):
    norm = nn.BatchNorm2d(channels).double()
    nn.init.uniform_(norm.weight, 0.5, 1.5), nn.init.normal_(norm.bias)
    return norm


def cases():
    """By name: a function of an operator's form and tensors, and the tensors that it is differentiated by."""
    torch.manual_seed(0)
    x, y = draw(2, 12, 9, 7, layout=NHWC), draw(2, 12, 9, 7, seed=1, layout=NHWC)
    mixer = [draw(3, 1, 3, 3, seed=2), draw(3, seed=3), draw(3, 1, 1, 5, seed=4), draw(3, seed=5),
             draw(3, 1, 5, 1, seed=6), draw(3, seed=7)]
    yield 'inception_dwconv2d', lambda impl, *t: inception_dwconv2d(*t, impl=impl), [x, *mixer], 'native'
    norm = random_norm(12)
    for activation in (None, nn.ReLU()):
        yield (f'batch_norm_act {activation}',
               lambda impl, x, w, b, a=activation: functional(norm, batch_norm_act, w, b)(a, x, impl=impl),
               [x, draw(12, seed=2), draw(12, seed=3)], 'native')
    fc1, fc2, factors = nn.Conv2d(12, 20, 1).double(), nn.Conv2d(20, 12, 1).double(), torch.tensor([2., 0.]).double()
    for training, gamma in ((True, draw(12, seed=4)), (False, None)):
        normed = random_norm(12).train(training)

        def block(impl, x, y, w, b, w1, b1, w2, b2, *gamma, normed=normed):
            for module, weight, bias in ((normed, w, b), (fc1, w1, b1), (fc2, w2, b2)):
                module._parameters.update(weight=weight, bias=bias)
            return norm_mlp.norm_mlp(x, y, normed, fc1, nn.GELU(), fc2, *(gamma or [None]), factors, impl=impl)

        yield (f'norm_mlp {training}', block,
               [x, y, draw(12, seed=5), draw(12, seed=6), draw(20, 12, 1, 1, seed=7), draw(20, seed=8),
                draw(12, 20, 1, 1, seed=9), draw(12, seed=10), *([] if gamma is None else [gamma])], 'native')
    yield ('resize_concat_conv2d',
           lambda impl, a, b, w, bias: resize_concat_conv2d([a, b], w, bias, (12, 12), impl=impl),
           [draw(2, 4, 12, 12, layout=NHWC), draw(2, 5, 3, 4, seed=1, layout=NHWC), draw(6, 9, 3, 3, seed=2),
            draw(6, seed=3)], 'native')
    conv = nn.Conv2d(12, 5, 2, 2).double()

    def patches(impl, x, w, b):
        conv._parameters.update(weight=w, bias=b)
        return patch_conv2d(x, conv, impl=impl)

    yield 'patch_conv2d', patches, [x, draw(5, 12, 2, 2, seed=2), draw(5, seed=3)], 'product'
    labels = torch.randint(6, (2, 20, 20), generator=torch.Generator().manual_seed(1))
    labels[0, 0] = 255
    for form in ('native', 'blocked'):
        yield (f'upsampled_cross_entropy {form}',
               lambda impl, z: upsampled_cross_entropy(z, labels, list(range(1, 7)), 255, 0.1, impl=impl).loss,
               [draw(2, 6, 5, 5)], form)


def functional(norm, operator, weight, bias):
    norm._parameters.update(weight=weight, bias=bias)
    return lambda activation, x, impl: operator(norm, activation, x, impl=impl)


@pytest.mark.parametrize(('run', 'tensors', 'form'), [case[1:] for case in cases()], ids=[case[0] for case in cases()])
def test_second_derivatives_are_those_of_torch_operators(run, tensors, form):
    if form == 'native' and native.why_not('inception_dwconv'):
        pytest.skip(native.why_not('inception_dwconv'))
    results = []
    for impl in (form, 'torch'):
        leaves = [t.clone(memory_format=torch.preserve_format).requires_grad_() for t in tensors]
        y = run(impl, *leaves)
        first = torch.autograd.grad(y, leaves, draw(*y.shape, seed=20).view_as(y), create_graph=True, allow_unused=True)
        again = sum((g * draw(*g.shape, seed=21 + i)).sum() for i, g in enumerate(first))
        second = torch.autograd.grad(again, leaves, allow_unused=True)
        results.append([*(g.detach() for g in first), *(torch.zeros(()) if g is None else g for g in second)])
    found, expected = results
    for a, b in zip(found, expected, strict=True):    # none at all, or zeros
        if a.dim() and b.dim():
            assert_close([a], [b], 1e-9)
        else:
            assert a.norm() <= 1e-9 and b.norm() <= 1e-9


def test_labels_that_are_no_class_are_an_error_under_transforms_too():
    labels = torch.full((1, 4, 4), 7)
    with pytest.raises((IndexError, RuntimeError, ValueError)):
        grad(lambda z: upsampled_cross_entropy(z, labels).loss)(draw(1, 5, 2, 2))


def test_what_is_not_transformed_runs_in_kernels():
    assert not dispatch.is_transformed()
    grad(lambda x: x.sum())(draw(2))
    assert not dispatch.is_transformed()
