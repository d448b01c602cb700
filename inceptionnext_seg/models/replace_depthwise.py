"""Inception depthwise convolutions in other networks: :func:`replace_depthwise`, and the same for configs.

The paper's summary calls it architecture generalization: whatever mixes tokens by a depthwise convolution (ConvNeXt,
EfficientNet, MobileNet) can mix them by :class:`~.token_mixers.InceptionDWConv2d` instead.

This module needs only torch, timm's layers and mmengine.
"""
import copy
import inspect
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn as nn
import torch.nn.functional as F
from mmengine.logging import print_log
from mmengine.registry import MODELS
from timm.layers import Conv2dSame
from torch.nn.utils.parametrize import is_parametrized

from ..errors import SettingError, UserError
from ..files import markdown_table
from .macs import macs_of_calls
from .metanext import MetaNeXt
from .token_mixers import InceptionDWConv2d


class StridedInceptionDWConv2d(nn.Module):
    """Inception depthwise convolution with a stride or a dilation.

    (B, C, H, W) to (B, C, ⌈H / stride⌉, ⌈W / stride⌉). Split, branches and their names are those of
    :class:`InceptionDWConv2d`. Every branch has the stride and the dilation. The identity channels are sampled with
    the stride, ``x[..., ::stride, ::stride]``: what a k×k convolution of that stride does whose kernel is 1 in the
    centre and 0 elsewhere. Output pixel i of all branches is centred on input pixel ``stride * i``.

    Args:
        stride, dilation (tuple[int, int]): Along height and width.
        bias (bool): Of the branches.
        dynamic_same (bool): Pad as TensorFlow's 'SAME' and timm's ``Conv2dSame`` do, which with a stride depends on
            the size: output pixel i is then centred on ``stride * i + ⌈rest / 2⌉``, ``rest = (H - 1) % stride``.
    """

    def __init__(self, channels, square_kernel_size=3, band_kernel_size=11, branch_ratio=0.125,
                 stride=(1, 1), dilation=(1, 1), bias=True, dynamic_same=False):
        super().__init__()
        self.split_sizes = InceptionDWConv2d(channels, square_kernel_size, band_kernel_size, branch_ratio).split_sizes
        self.stride, self.dynamic_same = stride, dynamic_same

        def depthwise(*kernel_size):
            padding = tuple(d * (k // 2) for d, k in zip(dilation, kernel_size, strict=True))
            branch = self.split_sizes[1]
            return nn.Conv2d(branch, branch, kernel_size, stride, padding, dilation, groups=branch, bias=bias)

        self.dwconv_hw = depthwise(square_kernel_size, square_kernel_size)
        self.dwconv_w = depthwise(1, band_kernel_size)
        self.dwconv_h = depthwise(band_kernel_size, 1)

    def forward(self, x):
        rest = [(size - 1) % s if self.dynamic_same else 0 for size, s in zip(x.shape[-2:], self.stride, strict=True)]
        top, left = [(r + 1) // 2 for r in rest]
        bottom, right = rest[0] - top, rest[1] - left

        def convolve(conv, x):
            if not any(rest):
                return conv(x)
            # Not Conv2dSame: along the side of length 1 it would never shift, and a band would miss the others' centre.
            vertical, horizontal = conv.padding
            x = F.pad(x, (horizontal - left, horizontal - right, vertical - top, vertical - bottom))
            return F.conv2d(x, conv.weight, conv.bias, conv.stride, 0, conv.dilation, conv.groups)

        identity, square, width, height = x.split(self.split_sizes, dim=1)
        return torch.cat((
            identity[..., top::self.stride[0], left::self.stride[1]],
            convolve(self.dwconv_hw, square), convolve(self.dwconv_w, width), convolve(self.dwconv_h, height)), dim=1)


class Cost(NamedTuple):
    """Parameters, and MACs of one image; None where they were not counted."""
    parameters: int
    macs: int | None


class Replacement(NamedTuple):
    """One convolution that was replaced.

    Attributes:
        name (str): As in ``named_modules()``; the names of a shared one are joined by commas.
        convolution (str): Its channels, kernel and, where they are not 1, stride and dilation.
        branches (str): Channels and kernels of what stands there now.
        before, after (Cost): Of this module.
    """
    name: str
    convolution: str
    branches: str
    before: Cost
    after: Cost


class Report(NamedTuple):
    """What :func:`replace_depthwise` did; ``str()`` is a Markdown table.

    Attributes:
        input_size (tuple[int, int, int] | None): Channels, height and width of the image that the MACs are for.
        replaced (list[Replacement]): In the order of ``named_modules()``.
        refused (dict[str, str]): Reason by name; empty unless ``strict=False``.
        before, after (Cost): Of the whole model.
    """
    input_size: tuple | None
    replaced: list
    refused: dict
    before: Cost
    after: Cost

    def __str__(self):
        rows = [[f'`{r.name}`', r.convolution, r.branches, *changes(r.before, r.after)] for r in self.replaced]
        rows.append(['the whole model', '', f'{len(rows)} replaced', *changes(self.before, self.after)])
        size = f' of one image of {by(self.input_size)}' if self.input_size else ''
        table = markdown_table(
            ['module', 'was', 'is', 'parameters before', 'after', f'MACs{size}, before', 'after'], rows)
        return '\n'.join([table, *(f'\nNot replaced: `{name}`: {why}' for name, why in self.refused.items())])


def replace_depthwise(model: nn.Module, input_size: tuple[int, int, int] | None = (3, 224, 224), *,
                      branch_ratio: float = 0.125, band_kernel_size: int = 11, square_kernel_size: int = 3,
                      min_kernel_size: int = 3, select: Callable[[str, nn.Module], bool] | None = None,
                      strict: bool = True) -> Report:
    """Replace the depthwise 2-D convolutions of ``model``, in place, by Inception ones of the same stride and dilation.

    A convolution is depthwise where its groups are its input channels, two or more. What stands inside an Inception
    convolution stays, so a second call replaces nothing. Where stride and dilation are 1, :class:`InceptionDWConv2d`
    takes the place, elsewhere :class:`StridedInceptionDWConv2d`. Name, bias or none, dtype, device, training mode,
    memory format and ``requires_grad`` stay those of the convolution; weights are new: as in InceptionNeXt, a truncated
    normal of standard deviation 0.02, biases 0. An optimizer made before does not know them.

    Args:
        model (nn.Module): Any; it must contain the convolutions, not be one.
        input_size (tuple[int, int, int] | None): Channels, height and width of one image, for the report's MACs. They
            are counted on meta tensors by running a copy without data, before ``model`` is touched. None counts none.
        branch_ratio (float), band_kernel_size (int), square_kernel_size (int): As of :class:`InceptionDWConv2d`.
        min_kernel_size (int): Convolutions whose longer side is below it are left alone; 1×1 mixes no pixels.
        select (Callable[[str, nn.Module], bool] | None): Whether to replace the convolution of this name.
        strict (bool): Where one cannot be replaced, replace none and raise. False replaces the others.

    Returns:
        Report:

    Raises:
        UserError: A convolution cannot be replaced (names and reasons of all), a kernel size is even, or the model
            does not run on ``input_size``, before or after. ``model`` is then as it was.
    """
    settings = dict(
        square_kernel_size=square_kernel_size, band_kernel_size=band_kernel_size, branch_ratio=branch_ratio)
    for name in ('square_kernel_size', 'band_kernel_size'):
        if settings[name] % 2 == 0:
            raise UserError(f'{name} is {settings[name]}; expected: an odd number, so that the kernel has a centre.')
    found = find_depthwise(model, min_kernel_size, select)
    reasons = {', '.join(names): why_not(conv, names, settings) for conv, names in found.items()}
    refused = {name: why for name, why in reasons.items() if why}
    if refused and strict:
        listed = '\n'.join(f'  {name}: {why}' for name, why in refused.items())
        raise UserError(f'{len(refused)} of {len(found)} depthwise convolutions cannot be replaced, so none was:\n'
                        f'{listed}\nNext: other settings, select= to leave them out, or strict=False to replace the '
                        'others.')
    names = [names for names in found.values() if ', '.join(names) not in refused]

    macs_before, macs_after = try_on_copy(model, input_size, names, settings)
    parameters_before = count_parameters(model)
    old, new = substitute(model, names, settings)

    return Report(
        tuple(input_size) if input_size else None,
        [Replacement(', '.join(n), describe(conv), branches(inception), Cost(count_parameters(conv), macs_before[n[0]]),
                     Cost(count_parameters(inception), macs_after[n[0]]))
         for n, conv, inception in zip(names, old, new, strict=True)],
        refused, Cost(parameters_before, macs_before['']), Cost(count_parameters(model), macs_after['']))


@MODELS.register_module('DepthwiseReplaced')
def build_replaced(model, **settings):
    """Build ``model`` and replace its depthwise convolutions: ``dict(type='DepthwiseReplaced', model=dict(type=…))``.

    What is built is the model itself, so weights' names, ``init_weights``, outputs and training mode are its own.

    Args:
        model (dict): Config of any registered model, such as mmseg's ``TIMMBackbone`` or ``mmpretrain.ConvNeXt``.
        settings: Of :func:`replace_depthwise`. Settings of every backbone take the place of the model's:
            ``in_channels``, and ``init_cfg``, by which a run that resumes takes the pretrained weights away.

    Raises:
        SettingError: A setting is neither.
        UserError: As :func:`replace_depthwise`.
    """
    model = dict(model, **{name: settings.pop(name) for name in ('in_channels', 'init_cfg') if name in settings})
    known = set(inspect.signature(replace_depthwise).parameters) - {'model'}
    if unknown := set(settings) - known:
        raise SettingError(f'DepthwiseReplaced has no setting {", ".join(map(repr, sorted(unknown)))}; expected: '
                           f'in_channels, init_cfg, {", ".join(sorted(known))}. Next: give those of the network to '
                           'its model')
    if model.get('in_channels'):
        settings.setdefault('input_size', (model['in_channels'], 224, 224))
    built = MODELS.build(model)
    print_log(f'{model["type"]}, depthwise convolutions replaced:\n{replace_depthwise(built, **settings)}', 'current')
    return built


def find_depthwise(model, min_kernel_size, select):
    """Depthwise convolutions to replace, each with all its names: ``dict[nn.Module, tuple[str, ...]]``."""
    own = {part for module in model.modules() if isinstance(module, InceptionDWConv2d | StridedInceptionDWConv2d)
           for part in module.modules()}
    found = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if (isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and module not in own
                and module.groups == module.in_channels > 1 and max(module.kernel_size) >= min_kernel_size
                and (select is None or select(name, module))):
            found[module] = (*found.get(module, ()), name)
    return found


def why_not(conv, names, settings):
    """Why ``conv`` cannot be replaced, or None."""
    if '' in names:
        return 'it is the model itself; expected: a model that contains it'
    if isinstance(conv, nn.ConvTranspose2d):
        return 'it is transposed'
    dynamic_same = type(conv) is Conv2dSame  # a subclass of it may compute something else, too
    if not dynamic_same and (type(conv).forward, type(conv)._conv_forward) != (
            nn.Conv2d.forward, nn.Conv2d._conv_forward):
        return f'it is a {type(conv).__name__}, which computes something else than torch.nn.Conv2d'
    if is_parametrized(conv) or conv._forward_hooks or conv._forward_pre_hooks or conv._backward_hooks:
        return 'it has a parametrization or hooks, which would be lost'
    if conv.out_channels != conv.in_channels:
        return (f'it makes {conv.out_channels} channels of {conv.in_channels}; '
                'expected: as many, a channel multiplier of 1')
    height, width = conv.kernel_size
    if height != width or height % 2 == 0:
        return f'its kernel is {height}×{width}; expected: a square one of an odd side'
    if conv.padding_mode != 'zeros':
        return f'its padding_mode is {conv.padding_mode!r}; expected: zeros'
    same = tuple(d * (height // 2) for d in conv.dilation)
    if dynamic_same:
        if any(s > 2 * p + 1 for s, p in zip(conv.stride, same, strict=True)):
            return f'its stride {by(conv.stride)} skips pixels between kernels of {height}×{width}'
    elif conv.padding not in (same, 'same'):
        padding = conv.padding if isinstance(conv.padding, str) else by(conv.padding)
        return f'its padding is {padding}; expected: {by(same)}, half the extent of its kernel'
    try:
        with torch.device('meta'):
            InceptionDWConv2d(conv.in_channels, **settings)
    except ValueError as error:
        return str(error)
    return None


def inception_like(conv, settings):
    """A new Inception convolution of the channels, stride, dilation, bias, dtype, device and layout of ``conv``."""
    with torch.device(conv.weight.device):
        if conv.stride == conv.dilation == (1, 1):
            inception = InceptionDWConv2d(conv.in_channels, **settings)
            if conv.bias is None:
                for branch in inception.children():
                    branch.register_parameter('bias', None)
        else:
            inception = StridedInceptionDWConv2d(
                conv.in_channels, **settings, stride=conv.stride, dilation=conv.dilation, bias=conv.bias is not None,
                dynamic_same=isinstance(conv, Conv2dSame))
        inception.apply(MetaNeXt.init_layer)
    inception.to(conv.weight.dtype).requires_grad_(conv.weight.requires_grad).train(conv.training)
    # is_contiguous() tells nothing: with one channel a group, a depthwise kernel is contiguous in both layouts.
    channels_last = conv.weight.stride(1) == 1
    return inception.to(memory_format=torch.channels_last) if channels_last else inception


def substitute(model, names, settings):
    """Replace the modules of ``names`` (a list of tuples); returns the old and the new ones."""
    old = [model.get_submodule(first) for first, *_ in names]
    new = [inception_like(conv, settings) for conv in old]
    for all_names, inception in zip(names, new, strict=True):
        for name in all_names:
            parent, _, attribute = name.rpartition('.')
            setattr(model.get_submodule(parent), attribute, inception)
    return old, new


def try_on_copy(model, input_size, names, settings):
    """Replace the modules of ``names`` in a copy of ``model``; its MACs before and after, as :func:`macs_of`.

    Raises:
        UserError: The copy cannot be made or run.
    """
    if input_size is None:
        nothing = dict.fromkeys(['', *(first for first, *_ in names)])
        return nothing, nothing
    try:
        trial = without_data(model)
        before = macs_of(trial, input_size, names)
        substitute(trial, names, settings)
        return before, macs_of(trial, input_size, names)
    except Exception as error:  # whatever a layer raises
        raise UserError(f'the model cannot be run on an image of {input_size} (channels, height, width): '
                        f'{type(error).__name__}: {error}. Nothing was replaced. Next: another input_size, or '
                        'input_size=None, which counts no MACs and runs nothing.') from error


def without_data(model):
    """A copy of ``model``, float32 and in eval mode, with parameters and buffers on meta tensors; no data is copied."""
    memo = {id(p): nn.Parameter(p.detach().to('meta'), requires_grad=False) for p in model.parameters()}
    memo.update((id(b), b.detach().to('meta')) for b in model.buffers())
    copied = copy.deepcopy(model, memo).float()
    copied.eval()  # a statement of its own: mmpretrain's backbones return None
    return copied


def macs_of(model, input_size, names):
    """MACs of the whole model, as '', and of the modules of ``names``, by their first name."""
    macs = macs_of_calls(model, torch.empty(1, *input_size, device='meta'))
    # A shared module counts under one of its names.
    return {'': macs[''], **{all_names[0]: sum(macs.get(name, 0) for name in all_names) for all_names in names}}


def count_parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


def describe(conv):
    """'96 channels, 5×5, stride 2': stride and dilation where they are not 1."""
    parts = [f'{conv.in_channels} channels', by(conv.kernel_size)]
    for name in ('stride', 'dilation'):
        value = getattr(conv, name)
        if value != (1, 1):
            parts.append(f'{name} {value[0] if value[0] == value[1] else by(value)}')
    return ', '.join(parts)


def branches(inception):
    """'60 identity, 12 each of 3×3, 1×11, 11×1'."""
    kernels = [by(conv.kernel_size) for conv in (inception.dwconv_hw, inception.dwconv_w, inception.dwconv_h)]
    return f'{inception.split_sizes[0]} identity, {inception.split_sizes[1]} each of {", ".join(kernels)}'


def changes(before, after):
    """Parameters before and after, MACs before and after."""
    return [f'{a:,}' if a is not None else '–' for pair in zip(before, after, strict=True) for a in pair]


def by(sizes):
    return '×'.join(map(str, sizes))
