"""Convolution of resized and concatenated maps, norm and activation: the building block of every decode head here."""
import torch
import torch.nn as nn

from .._fast import is_bare
from ..ops.batch_norm_act import batch_norm_act
from ..ops.bilinear import resize
from ..ops.patch_conv import patch_conv2d
from ..ops.resize_concat_conv import resize_concat_conv2d
from .quantize import Int8Conv2d, Observed


def conv_norm_act(fast, conv, norm, act, features, size=None, align_corners=False):
    """``act(norm(conv(cat([resize(x, size) for x in features], 1))))``, by the form of ``fast``'s convolutions.

    Args:
        fast (Fast): The module whose form is used.
        conv (nn.Module): Any; plain 3×3 and 1×1 convolutions have fast forms.
        norm (nn.Module | None), act (nn.Module | None): None leaves it out.
        features (list[Tensor]): Maps (B, Ci, Hi, Wi).
        size (tuple[int, int] | None): (H, W) of the output; by default that of the first map.

    Returns:
        Tensor: (B, O, H, W).
    """
    size = tuple(features[0].shape[2:] if size is None else size)
    if isinstance(conv, (Int8Conv2d, Observed)):     # no union: torch.compile of torch 2.4 does not know it
        x = conv.resize_concat(features, size, align_corners)
    elif is_plain_conv(conv, kernel=3, padding=1):
        x = resize_concat_conv2d(features, conv.weight, conv.bias, size, align_corners,
                                 fast.form('convolutions', 'native', 'factorized'))
    else:
        x = resized(features, size, align_corners)
        plain = is_plain_conv(conv, kernel=1, padding=0)
        x = patch_conv2d(x, conv, impl=fast.form('convolutions')) if plain else conv(x)
    if (norm is None or is_bare(norm, type(norm))) and (act is None or is_bare(act, type(act))):
        return batch_norm_act(norm, act, x, impl=fast.form('convolutions'))
    x = x if norm is None else norm(x)
    return x if act is None else act(x)


def resized(features, size, align_corners):
    """The maps at one size, concatenated along the channels."""
    maps = [resize(x, size, align_corners) for x in features]
    return torch.cat(maps, 1) if len(maps) > 1 else maps[0]


def is_plain_conv(conv, kernel, padding):
    """Whether ``conv`` is a convolution of stride 1 with this kernel and padding by zeros, and nothing else."""
    return (is_bare(conv, nn.Conv2d) and conv.kernel_size == (kernel, ) * 2 and conv.stride == (1, 1)
            and conv.padding == (padding, ) * 2 and conv.dilation == (1, 1) and conv.groups == 1
            and conv.padding_mode == 'zeros')


def drops_channels(dropout):
    """Whether ``dropout`` does nothing, or drops whole channels and no more."""
    return dropout is None or is_bare(dropout, nn.Dropout2d) or not (
        dropout.training or dropout._forward_hooks or dropout._forward_pre_hooks)


def channel_dropout(dropout, x, dtype):
    """The factors (B, C) by which ``dropout`` (nn.Dropout2d | None) multiplies the channels of ``x``, or None."""
    if dropout is None or not dropout.training:
        return None
    return dropout(x.new_ones(*x.shape[:2], 1, 1, dtype=dtype)).flatten(1)
