"""The operator of a case as a module."""
import torch.nn as nn

from inceptionnext_seg.models.token_mixers import InceptionDWConv2d

# Images at a time of the forms by parts: 4.6 MiB of 96 channels of 56×56 in fp32.
PART = 4


def build(case):
    """The module of ``case``, in fp32 on the CPU. Depthwise Inception is the backbone's own.

    All in torch's own operators: what is compared is the forms, not how well one of them is written.
    """
    depthwise = case.grouping == 'depthwise'
    layers = [convolution(case.channels, kernel, depthwise) for kernel in kernels_of_form(case)]
    if case.form == 'copy':
        return Copy()
    if case.form == 'inception':
        return InceptionDWConv2d(case.channels, 3, case.kernel[1], case.ratio)
    if case.form == 'unordered':
        return Unordered(layers)
    if case.form == 'parallel':
        return Parallel(layers)
    if case.form == 'sequential_relu':
        layers.insert(1, nn.ReLU())
    chain = nn.Sequential(*layers)
    return ByParts(chain) if case.form.endswith('_parts') else chain


def kernels_of_form(case):
    """The kernels that a form runs, one after another or each on the input."""
    height, width = case.kernel
    both = [(height, 1), (1, width)]
    return dict(
        copy=[], square=[case.kernel], square_parts=[case.kernel], one_pass=[(2, width)], column=[(height, 1)],
        row=[(1, width)], inception=[(3, 3), (1, width), (width, 1)]).get(case.form, both)


def convolution(channels, kernel, depthwise):
    """Convolution of ``channels`` to as many, bias included, of the same size; an even side loses one pixel."""
    padding = [(side - 1) // 2 for side in kernel]
    return nn.Conv2d(channels, channels, kernel, padding=padding, groups=channels if depthwise else 1)


class Unordered(nn.Module):
    """The convolutions of n×1 → 1×n without their order: both read the input, and nothing adds them."""

    def __init__(self, convs):
        super().__init__()
        self.convs = nn.ModuleList(convs)

    def forward(self, x):
        return [conv(x) for conv in self.convs]


class Parallel(Unordered):

    def forward(self, x):
        first, second = super().forward(x)
        return first + second


class ByParts(nn.Module):
    """A module on :data:`PART` images at a time; the outputs are not put together, which would be another pass."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        return [self.module(part) for part in x.split(PART)]


class Copy(nn.Module):

    def forward(self, x):
        return x.clone()
