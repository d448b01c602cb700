"""Token mixers for ablations of InceptionNeXt. Needs torch and mmengine alone, as the backbones do."""
import torch
import torch.nn as nn
from mmengine.registry import MODELS


@MODELS.register_module()
class PartialInceptionDWConv2d(nn.Module):
    """Some branches of the Inception depthwise convolution, (B, C, H, W) to the same.

    The channels are split into identity | one part for each of ``branches``, each of ``int(channels * branch_ratio)``
    channels; those of a branch that is left out pass unchanged. The parameters have the names of ``InceptionDWConv2d``.
    How the paper's authors divided the channels in their ablations is not published.

    Args:
        branches (Sequence[str]): ``'hw'`` is the square k×k, ``'w'`` the band 1×k (along the width), ``'h'`` the band
            k×1 (along the height), each at most once. ``'w+h'`` is one branch: first the one band, then, on the same
            channels, the other. ``('hw', 'w', 'h')`` is ``InceptionDWConv2d``; ``()`` passes everything unchanged.
        Others: as those of ``InceptionDWConv2d``.

    Raises:
        ValueError: A branch is unknown or repeated, or has no channels, or the channels are fewer than theirs.
    """

    def __init__(self, channels, branches=('hw', 'w', 'h'), square_kernel_size=3, band_kernel_size=11,
                 branch_ratio=0.125):
        super().__init__()
        self.branches = [branch.split('+') for branch in branches]
        kernels = dict(hw=(square_kernel_size, square_kernel_size), w=(1, band_kernel_size), h=(band_kernel_size, 1))
        names = [name for branch in self.branches for name in branch]
        if len(set(names)) < len(names) or not set(names) <= set(kernels):
            raise ValueError(f"branches {tuple(branches)} has something else than 'hw', 'w' and 'h', each at most "
                             "once, alone or joined as in 'w+h'")
        width = int(channels * branch_ratio)
        if branches and not 0 < len(branches) * width <= channels:
            raise ValueError(f'branch_ratio {branch_ratio} of {channels} channels gives {width} channels a branch; '
                             f'wanted at least 1 and at most {channels // len(branches)}')
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
