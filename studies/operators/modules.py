"""The operator of a case as a module."""
from typing import NamedTuple

import torch
import torch.nn as nn

from inceptionnext_seg.models.token_mixers import InceptionDWConv2d


def build(case):
    """The module of ``case``, in fp32 on the CPU. Depthwise Inception is the backbone's own where it can be.

    All in torch's own operators: what is compared is the forms, not how well one of them is written.
    """
    depthwise = case.grouping == 'depthwise'
    if kernels := branch_kernels(case):
        if case.form == 'inception' and depthwise and branch_channels(case.channels, 3, case.ratio).disjoint:
            return InceptionDWConv2d(case.channels, 3, case.kernel[1], case.ratio)
        return BranchedConv2d(case.channels, kernels, case.ratio, depthwise)
    layers = [convolution(case.channels, kernel, depthwise) for kernel in chain_kernels(case)]
    if case.form == 'sequential_relu':
        layers.insert(1, nn.ReLU())
    return nn.Sequential(*layers) if layers else Copy()


def branch_kernels(case):
    """The kernels that a form in branches runs in parallel; 3×3 is the paper's square kernel."""
    width = case.kernel[1]
    return dict(inception=[(3, 3), (1, width), (width, 1)], partial=[case.kernel]).get(case.form)


def chain_kernels(case):
    """The kernels that a form without branches runs one after another."""
    height, width = case.kernel
    return dict(
        copy=[],
        square=[case.kernel],
        sequential=[(height, 1), (1, width)],
        sequential_relu=[(height, 1), (1, width)],
        one_pass=[(2, width)],
        column=[(height, 1)],
        row=[(1, width)])[case.form]


def convolution(channels, kernel, depthwise):
    """Convolution of ``channels`` to as many, bias included, of the same size; an even side loses one pixel."""
    padding = [(side - 1) // 2 for side in kernel]
    return nn.Conv2d(channels, channels, kernel, padding=padding, groups=channels if depthwise else 1)


class BranchedConv2d(nn.Module):
    """Convolutions in parallel on ``int(channels * ratio)`` channels each, (B, C, H, W) to the same; the others pass.

    Where the channels suffice, the branches take different ones and their outputs are concatenated, as in Inception.
    Where they do not, above a third for three branches, the branches take the same channels and their outputs are
    added, so that at ratio 1 three convolutions see all the channels.
    """

    def __init__(self, channels, kernels, ratio, depthwise):
        super().__init__()
        self.branches = branch_channels(channels, len(kernels), ratio)
        self.convs = nn.ModuleList([convolution(self.branches.channels, kernel, depthwise) for kernel in kernels])

    def forward(self, x):
        if self.branches.whole:
            return sum_of(conv(x) for conv in self.convs)
        taken = len(self.convs) if self.branches.disjoint else 1
        identity, *parts = x.split((self.branches.identity, *[self.branches.channels] * taken), dim=1)
        if self.branches.disjoint:
            return torch.cat((identity, *[conv(part) for conv, part in zip(self.convs, parts, strict=True)]), dim=1)
        return torch.cat((identity, sum_of(conv(parts[0]) for conv in self.convs)), dim=1)


class Branches(NamedTuple):
    channels: int       # of each branch
    identity: int       # that pass
    disjoint: bool      # each branch has its own channels
    whole: bool         # a branch has all the channels


def branch_channels(channels, branches, ratio):
    branch = int(channels * ratio)
    disjoint = branches * branch <= channels
    return Branches(branch, channels - branch * (branches if disjoint else 1), disjoint, branch == channels)


def sum_of(tensors):
    first, *others = tensors
    for tensor in others:
        first = first + tensor
    return first


class Copy(nn.Module):

    def forward(self, x):
        return x.clone()
