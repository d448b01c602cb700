"""Every operator of ``inceptionnext_seg.ops`` on random arguments: what is drawn, and how it runs in one form."""
import contextlib
import functools

import torch
import torch.nn as nn
import torch.nn.functional as F
from hypothesis import strategies as st

from inceptionnext_seg.ops import (
    batch_norm_act,
    inception_dwconv,
    norm_mlp,
    patch_conv,
    resize_concat_conv,
    upsampled_cross_entropy,
    winograd,
)

from .tensors import (
    batches,
    laid_out,
    layouts,
    sizes,
    sizes_and_none,
    small_blocks,
    threads_of_torch,
    values,
)


class Case:
    """One call of an operator: :attr:`names` are its tensors, ``settings`` what else was drawn.

    A subclass has ``forms``, ``drawn`` (a strategy of the settings) and ``run``.
    """
    names, blocks = (), ()
    dtypes = (torch.float32, torch.float64, torch.bfloat16, torch.float16)

    def __init__(self, values, settings, threads, autocast):
        self.values, self.settings = values, settings
        self.threads, self.autocast = threads, autocast and values.dtype == torch.float32

    def __repr__(self):
        return f'{type(self).__name__}({self.values}, {self.settings}, threads={self.threads}, {self.autocast})'

    @property
    def dtype(self):
        """In which stock operators compute."""
        return torch.bfloat16 if self.autocast else self.values.dtype

    def tensors(self, exact):
        """``draw(name, *shape)`` for this case: in float64 where ``exact``."""
        return lambda name, *shape, **settings: self.values(name, *shape, exact=exact, **settings)

    @contextlib.contextmanager
    def setting(self):
        """The process as the case has it: threads, and small blocks."""
        with threads_of_torch(self.threads), small_blocks(*self.blocks):
            yield

    def __call__(self, form, exact=False):
        """Outputs, then the gradients to every tensor; what is raised instead, as the exception."""
        with torch.autocast('cpu', torch.bfloat16, enabled=self.autocast and not exact):
            try:
                return self.results(form, self.tensors(exact))
            except Exception as error:
                return error

    def poison_matters(self):
        """Whether anything depends on the number that is not finite: on a weight that meets padding alone nothing does,
        which one algorithm multiplies by zero, and another leaves out."""
        poison, found = self.values.poison, []
        for value in (0., 100.):
            self.values.poison = (*poison[:2], value)
            found.append(self('torch', exact=True))
        self.values.poison = poison
        return not all(a is None or torch.equal(a, b) for a, b in zip(*found, strict=True))

    def results(self, form, draw):
        outputs, leaves = self.run(form, draw, **self.settings)
        leaves = [leaf for leaf in leaves if leaf is not None]
        grad = draw('grad', *outputs[0].shape).to(outputs[0].dtype)
        grads = torch.autograd.grad(outputs[0], leaves, grad, allow_unused=True)
        return [x if x is None else x.detach() for x in (*outputs, *grads)]


def leaf(x):
    return x.detach().requires_grad_()


class InceptionDWConv(Case):
    forms = inception_dwconv.FORMS
    names = ('x', 'hw', 'bhw', 'w', 'bw', 'h', 'bh', 'grad')
    drawn = st.fixed_dictionaries(dict(
        batch=batches, identity=st.sampled_from([0, 1, 2, 5, 9, 16]), branch=st.sampled_from([1, 2, 3, 7, 8, 9, 17]),
        height=sizes_and_none, width=sizes_and_none, square=st.sampled_from([1, 3, 5]),
        bands=st.tuples(st.sampled_from([1, 3, 9, 11]), st.sampled_from([1, 7, 11]))))

    def run(self, form, draw, batch, identity, branch, height, width, square, bands):
        tensors = [leaf(draw(name, *shape)) for name, shape in zip(self.names, (
            (batch, identity + 3 * branch, height, width), (branch, 1, square, square), (branch, ),
            (branch, 1, 1, bands[0]), (branch, ), (branch, 1, bands[1], 1), (branch, )), strict=False)]
        return [inception_dwconv.inception_dwconv2d(*tensors, impl=form)], tensors


class ResizeConcatConv(Case):
    forms = resize_concat_conv.FORMS
    names = ('x0', 'x1', 'x2', 'weight', 'bias', 'grad')
    blocks = ((winograd, 'BUFFER', 1 << 12), (resize_concat_conv, 'LEAST_TILES', 2))
    drawn = st.fixed_dictionaries(dict(
        batch=batches, out_channels=st.sampled_from([1, 2, 7, 16, 19]), align_corners=st.booleans(),
        size=st.tuples(st.sampled_from([1, 2, 5, 12, 23]), st.sampled_from([1, 2, 6, 13, 20])),
        maps=st.lists(st.tuples(st.sampled_from([1, 2, 3, 16, 18, 0]), st.one_of(st.none(), st.tuples(sizes, sizes))),
                      min_size=1, max_size=3), bias=st.booleans()))

    def run(self, form, draw, batch, out_channels, align_corners, size, maps, bias):
        features = [leaf(draw(f'x{i}', batch, channels, *(own or size))) for i, (channels, own) in enumerate(maps)]
        weight = leaf(draw('weight', out_channels, sum(channels for channels, _ in maps), 3, 3))
        bias = leaf(draw('bias', out_channels)) if bias else None
        y = resize_concat_conv.resize_concat_conv2d(features, weight, bias, size, align_corners, impl=form)
        return [y], [*features, weight, bias]


norms = st.fixed_dictionaries(dict(
    training=st.booleans(), affine=st.booleans(), momentum=st.sampled_from([None, 0., 0.1, 1.]),
    track=st.booleans(), eps=st.sampled_from([1e-5, 1e-3])))


def batch_norm(draw, channels, training, affine, momentum, track, eps):
    """A norm, its parameters and its running statistics."""
    norm = nn.BatchNorm2d(channels, eps=eps, momentum=momentum, affine=affine, track_running_stats=track)
    norm.to(draw('mean', channels).dtype).train(training)
    if track:
        norm.running_mean, norm.running_var = draw('mean', channels), draw('variance', channels, least=0.5)
        norm.running_mean, norm.running_var = (x.resolve_neg().clone() for x in (norm.running_mean, norm.running_var))
    if affine:
        norm.weight, norm.bias = (nn.Parameter(draw(name, channels)) for name in ('scale', 'shift'))
    return norm, list(norm.parameters()), [norm.running_mean, norm.running_var] if track else []


def convolution(draw, name, channels, out_channels, kernel=1, bias=True):
    conv = nn.Conv2d(channels, out_channels, kernel, stride=kernel, bias=bias, device='meta')
    conv.weight = nn.Parameter(draw(name, *conv.weight.shape))
    if bias:
        conv.bias = nn.Parameter(draw(f'{name} bias', out_channels))
    return conv


class NormMLP(Case):
    forms = norm_mlp.FORMS
    names = ('x', 'y', 'mean', 'variance', 'scale', 'shift', 'fc1', 'fc1 bias', 'fc2', 'fc2 bias', 'gamma', 'factors',
             'grad')
    blocks = ((norm_mlp, 'LEAST_HIDDEN', 0), (norm_mlp, 'LEAST_ROWS', 7), (norm_mlp, 'BLOCK_BYTES', 1))
    drawn = st.fixed_dictionaries(dict(
        batch=batches, channels=sizes, hidden=st.sampled_from([1, 4, 9, 33]), height=sizes_and_none, width=sizes,
        norm=st.one_of(st.none(), norms), biases=st.booleans(), gamma=st.booleans(),
        factors=st.sampled_from(['none', 'some', 'all dropped'])))

    def run(self, form, draw, batch, channels, hidden, height, width, norm, biases, gamma, factors):
        x, y = (leaf(draw(name, batch, channels, height, width)) for name in 'xy')
        norm, parameters, statistics = batch_norm(draw, channels, **norm) if norm else (None, [], [])
        fc1, fc2 = (convolution(draw, 'fc1', channels, hidden, bias=biases),
                    convolution(draw, 'fc2', hidden, channels, bias=biases))
        gamma = leaf(draw('gamma', channels)) if gamma else None
        factors = None if factors == 'none' else draw('factors', batch).detach() * 0 + torch.tensor(
            [1.25, 0., 1.25][:batch] if factors == 'some' else [0.] * batch)[:batch].to(x.dtype)
        out = norm_mlp.norm_mlp(x, y, norm, fc1, nn.GELU(), fc2, gamma, factors, impl=form)
        return [out, *statistics], [x, y, *parameters, *fc1.parameters(), *fc2.parameters(), gamma]


class BatchNormAct(Case):
    forms = batch_norm_act.FORMS
    names = ('x', 'mean', 'variance', 'scale', 'shift', 'grad')
    drawn = st.fixed_dictionaries(dict(
        batch=batches, channels=st.sampled_from([1, 2, 3, 8, 17, 33]), height=sizes_and_none, width=sizes, norm=norms,
        activation=st.sampled_from([None, nn.ReLU(), nn.ReLU(inplace=True), nn.GELU()])))

    def run(self, form, draw, batch, channels, height, width, norm, activation):
        x = leaf(draw('x', batch, channels, height, width))
        norm, parameters, statistics = batch_norm(draw, channels, **norm)
        return [batch_norm_act.batch_norm_act(norm, activation, x, impl=form), *statistics], [x, *parameters]


class PatchConv(Case):
    forms = patch_conv.FORMS
    names = ('x', 'conv', 'conv bias', 'factors', 'grad')
    drawn = st.fixed_dictionaries(dict(
        batch=batches, channels=sizes, out_channels=sizes, height=sizes_and_none, width=sizes,
        kernel=st.sampled_from([1, 1, 2, 4, (1, 2), (3, 1)]), bias=st.booleans(), factors=st.booleans()))

    def run(self, form, draw, batch, channels, out_channels, height, width, kernel, bias, factors):
        x = leaf(draw('x', batch, channels, height, width))
        conv = convolution(draw, 'conv', channels, out_channels, kernel, bias)
        factors = draw('factors', batch, channels) if factors else None
        return [patch_conv.patch_conv2d(x, conv, factors, impl=form)], [x, *conv.parameters()]


class Loss(Case):
    forms = upsampled_cross_entropy.LOSS_FORMS
    names = ('logits', 'weight')
    blocks = ((upsampled_cross_entropy, 'BLOCK_BYTES', 1 << 9), )
    drawn = st.fixed_dictionaries(dict(
        batch=batches, classes=st.sampled_from([1, 2, 5, 16, 17]), height=sizes, width=sizes,
        size=st.tuples(sizes_and_none, st.sampled_from([1, 3, 12, 20])), weighted=st.booleans(),
        ignore_index=st.sampled_from([255, 0, -100]), smoothing=st.sampled_from([0., 0.1, 1.]),
        align_corners=st.booleans(), integers=st.sampled_from([torch.int64, torch.int32, torch.uint8, torch.int16]),
        label_layout=layouts, wrong_label=st.integers(0, 15)))

    def run(self, form, draw, batch, classes, height, width, size, weighted, ignore_index, smoothing, align_corners,
            integers, label_layout, wrong_label):
        logits = leaf(draw('logits', batch, classes, height, width))
        generator = torch.Generator().manual_seed(self.values.seed)
        labels = torch.randint(0, classes, (batch, *size), generator=generator)
        labels[torch.rand(labels.shape, generator=generator) < 0.2] = ignore_index
        if wrong_label == 0 and labels.numel():
            labels.view(-1)[-1] = 100
        labels = laid_out(labels.to(integers), label_layout)
        weight = draw('weight', classes, least=0.1) if weighted else None
        sums = upsampled_cross_entropy.upsampled_cross_entropy(
            logits, labels, weight, ignore_index, smoothing, align_corners, impl=form)
        # Which pixels are right may depend on rounding where two classes are equally likely.
        return [sums.loss, sums.weight, sums.pixels, sums.correct // (1 + sums.pixels // 20)], [logits]


class Argmax(Case):
    forms = upsampled_cross_entropy.ARGMAX_FORMS
    names = ('logits', )
    blocks = ((upsampled_cross_entropy, 'BLOCK_BYTES', 1 << 9), )
    drawn = st.fixed_dictionaries(dict(
        batch=batches, classes=st.sampled_from([1, 2, 5, 16, 17]), height=sizes, width=sizes,
        size=st.tuples(st.sampled_from([4, 7, 16]), st.sampled_from([4, 9, 13])), align_corners=st.booleans(),
        padding=st.tuples(*[st.integers(0, 1)] * 4), flip=st.sampled_from([None, 'horizontal', 'vertical']),
        ori_shape=st.one_of(st.none(), st.tuples(sizes, sizes))))

    def run(self, form, draw, batch, classes, height, width, **settings):
        logits = draw('logits', batch, classes, height, width)
        return [upsampled_cross_entropy.upsampled_argmax(logits, impl=form, **settings)], []

    def results(self, form, draw):
        return self.run(form, draw, **self.settings)[0][0]

    def scores(self):
        """In float64: the logits of every pixel."""
        settings = self.settings
        left, right, top, bottom = settings['padding']
        x = self.tensors(True)('logits', *(settings[name] for name in ('batch', 'classes', 'height', 'width')))
        resize = functools.partial(F.interpolate, mode='bilinear', align_corners=settings['align_corners'])
        x = resize(x, settings['size'])[:, :, top:settings['size'][0] - bottom, left:settings['size'][1] - right]
        if settings['flip']:
            x = x.flip(3 if settings['flip'] == 'horizontal' else 2)
        return x if settings['ori_shape'] is None else resize(x, settings['ori_shape'])


OPERATORS = dict(
    inception_dwconv2d=InceptionDWConv, resize_concat_conv2d=ResizeConcatConv, norm_mlp=NormMLP,
    batch_norm_act=BatchNormAct, patch_conv2d=PatchConv, upsampled_cross_entropy=Loss, upsampled_argmax=Argmax)


@st.composite
def cases(draw, operators=tuple(OPERATORS), poison=False):
    kind = OPERATORS[draw(st.sampled_from(operators))]
    return kind(draw(values(kind.names, kind.dtypes, poison)), draw(kind.drawn), draw(st.integers(1, 3)),
                draw(st.integers(0, 3)) == 0)
