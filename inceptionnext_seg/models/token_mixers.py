"""Token mixers: what a MetaNeXt block does across positions, each (B, C, H, W) to the same shape.

Sources: InceptionNeXt, https://arxiv.org/abs/2303.16900 (CVPR 2024), code https://github.com/sail-sg/inceptionnext;
ConvNeXt, https://arxiv.org/abs/2201.03545. Parameter names are those of the released weights.
"""
from collections.abc import Sequence

import torch
import torch.nn as nn
from mmengine.registry import MODELS

from ..errors import SettingError


@MODELS.register_module()
class DWConv2d(nn.Conv2d):
    """ConvNeXt's token mixer: one depthwise ``kernel_size`` × ``kernel_size`` convolution."""

    def __init__(self, channels: int, kernel_size: int = 7):
        super().__init__(channels, channels, kernel_size, padding=kernel_size // 2, groups=channels)


@MODELS.register_module()
class PartialDWConv2d(nn.Module):
    """Token mixer of the paper's ConvNeXt k3 par1/2 to par1/16.

    A depthwise convolution of the last ``int(channels * branch_ratio)`` channels; those before pass unchanged. Names
    and order are those of the released weights (sail-sg/inceptionnext, models/convnext.py).

    Raises:
        SettingError: No channel would be convolved, or more than there are.
    """

    def __init__(self, channels: int, kernel_size: int = 3, branch_ratio: float = 0.5):
        super().__init__()
        branch = int(channels * branch_ratio)
        if not 0 < branch <= channels:
            raise SettingError(f'branch_ratio {branch_ratio} of {channels} channels gives {branch} channels to '
                               f'convolve; expected: at least 1 and at most {channels}')
        self.split_sizes = (channels - branch, branch)
        self.conv = DWConv2d(branch, kernel_size)

    def forward(self, x):
        identity, convolved = x.split(self.split_sizes, dim=1)
        return torch.cat((identity, self.conv(convolved)), dim=1)


@MODELS.register_module()
class InceptionDWConv2d(nn.Module):
    """Inception depthwise convolution (arXiv:2303.16900, section 3.2).

    The channels are split, in this order, into identity | square k×k | band 1×k (along the width) | band k×1 (along
    the height); the three convolutions run in parallel on ``int(channels * branch_ratio)`` channels each, and their
    outputs are concatenated in the same order. With ratio 1/8, five eighths of the channels pass unchanged.

    Raises:
        SettingError: The branches have no channels or too many, or a kernel size is even.
    """

    def __init__(self, channels: int, square_kernel_size: int = 3, band_kernel_size: int = 11,
                 branch_ratio: float = 0.125):
        super().__init__()
        branch = int(channels * branch_ratio)
        if not 0 < 3 * branch <= channels:
            raise SettingError(f'branch_ratio {branch_ratio} of {channels} channels gives {branch} channels a branch; '
                               f'expected: at least 1 and at most {channels // 3}')
        square, band = square_kernel_size, band_kernel_size
        if not (square % 2 and band % 2):
            raise SettingError(f'square_kernel_size is {square} and band_kernel_size {band}; expected: odd ones, with '
                               'which the output has the size of the input')
        self.split_sizes = (channels - 3 * branch, branch, branch, branch)
        self.dwconv_hw = nn.Conv2d(branch, branch, square, padding=square // 2, groups=branch)
        self.dwconv_w = nn.Conv2d(branch, branch, (1, band), padding=(0, band // 2), groups=branch)
        self.dwconv_h = nn.Conv2d(branch, branch, (band, 1), padding=(band // 2, 0), groups=branch)

    def forward(self, x):
        identity, square, width, height = x.split(self.split_sizes, dim=1)
        return torch.cat((identity, self.dwconv_hw(square), self.dwconv_w(width), self.dwconv_h(height)), dim=1)


@MODELS.register_module()
class PartialInceptionDWConv2d(nn.Module):
    """Some branches of the Inception depthwise convolution, for ablations: (B, C, H, W) to the same.

    The channels are split into identity | one part for each of ``branches``, each of ``int(channels * branch_ratio)``
    channels; those of a branch that is left out pass unchanged. The parameters have the names of ``InceptionDWConv2d``.
    How the paper's authors divided the channels in their ablations is not published.

    Args:
        branches (Sequence[str]): ``'hw'`` is the square k×k, ``'w'`` the band 1×k (along the width), ``'h'`` the band
            k×1 (along the height), each at most once. ``'w+h'`` is one branch: first the one band, then, on the same
            channels, the other. ``('hw', 'w', 'h')`` is ``InceptionDWConv2d``; ``()`` passes everything unchanged.
        Others: as those of ``InceptionDWConv2d``.

    Raises:
        SettingError: A branch is unknown or repeated, or has no channels, or the channels are fewer than theirs.
    """

    def __init__(self, channels: int, branches: Sequence[str] = ('hw', 'w', 'h'), square_kernel_size: int = 3,
                 band_kernel_size: int = 11, branch_ratio: float = 0.125):
        super().__init__()
        self.branches = [branch.split('+') for branch in branches]
        kernels = dict(hw=(square_kernel_size, square_kernel_size), w=(1, band_kernel_size), h=(band_kernel_size, 1))
        names = [name for branch in self.branches for name in branch]
        if len(set(names)) < len(names) or not set(names) <= set(kernels):
            raise SettingError(f"branches is {tuple(branches)}; expected: 'hw', 'w' and 'h', each at most once, "
                               "alone or joined as in 'w+h'")
        width = int(channels * branch_ratio)
        if branches and not 0 < len(branches) * width <= channels:
            raise SettingError(f'branch_ratio {branch_ratio} of {channels} channels gives {width} channels a branch; '
                               f'expected: at least 1 and at most {channels // len(branches)}')
        self.split_sizes = [channels - len(branches) * width] + [width] * len(branches)
        for name in names:
            height, length = kernels[name]
            self.add_module(f'dwconv_{name}', nn.Conv2d(
                width, width, (height, length), padding=(height // 2, length // 2), groups=width))

    def forward(self, x):
        if not self.branches:
            return x
        identity, *parts = x.split(self.split_sizes, dim=1)
        for i, names in enumerate(self.branches):
            for name in names:
                parts[i] = getattr(self, f'dwconv_{name}')(parts[i])
        return torch.cat((identity, *parts), dim=1)
