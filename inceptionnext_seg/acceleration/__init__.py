"""Any UperNet made faster: the same function, parameters and checkpoints, from other arithmetic.

A *finder* knows the modules of one library: ``find(name, module, root)`` yields a :class:`~.swap.Swap` or
:class:`~.swap.Left` for what it knows, and nothing for anything else. Those of MMSegmentation, Hugging Face and
segmentation_models.pytorch are imported when a model has modules of theirs.
"""
import importlib
import sys
from typing import NamedTuple

import torch
import torch.nn as nn
from torch.nn.parallel import DistributedDataParallel

from .._fast import Fast, is_swapped
from ..errors import SettingError
from . import metanext
from .optimizers import watch_fused_optimizers
from .swap import Swap

# The forms of each part; every part also takes 'auto', 'torch' and False.
PARTS = dict(
    token_mixer=('native', 'triton'),       # Inception depthwise convolutions
    blocks=('native', 'triton'),            # norm, MLP and residual of a MetaNeXt block; stem, downsampling, norms
    convolutions=('native', 'factorized'),  # of heads: resize, concatenate, convolve, normalize, activate
    loss=('native', 'triton', 'blocked'),   # cross-entropy without materializing full-resolution logits
    prediction=('native', 'triton', 'blocked'),     # argmax likewise
)
FINDERS = dict(
    mmseg='inceptionnext_seg.segmentation.finder',
    transformers='inceptionnext_seg.acceleration.transformers_upernet',
    segmentation_models_pytorch='inceptionnext_seg.acceleration.smp_decoders')


class Acceleration(NamedTuple):
    """What :func:`accelerate` did; ``str()`` says it in a few lines.

    Attributes:
        swapped (dict[str, str]): The fast class that each module has now, by name.
        left (dict[str, str]): Why a module stays as it is, by name.
        channels_last (bool): Whether the parameters are in channels_last now.
    """
    swapped: dict
    left: dict
    channels_last: bool

    def __str__(self):
        counts = {}
        for fast in self.swapped.values():
            counts[fast] = counts.get(fast, 0) + 1
        swapped = ', '.join(f'{count} {fast.removeprefix("Fast")}' for fast, count in counts.items())
        layout = 'channels_last' if self.channels_last else 'layout as it was'
        lines = [f'Accelerated: {swapped or "nothing"}; {layout}']
        lines += [f'Left as it is: {name or "the model"}: {reason}' for name, reason in self.left.items()]
        return '\n'.join(lines)


def accelerate(model: nn.Module, *, token_mixer='auto', blocks='auto', convolutions='auto', loss='auto',
               prediction='auto', channels_last=True) -> Acceleration:
    """Swap modules of ``model`` for fast ones, in place, wherever a fast form is known. :func:`restore` undoes it.

    Outputs, losses and gradients stay the same but for rounding, in training and inference. Parameters, buffers,
    state-dict keys and hooks are untouched, so it can be called before or after the optimizer is built, weights are
    loaded or DistributedDataParallel wraps the model. Weights are drawn before it: the same seed fills a parameter in
    channels_last in another order. Calling it again changes the settings.

    It knows this package's backbones, and with any backbone MMSegmentation's ``UPerHead``, ``FCNHead``, ``FPNHead``,
    ``PSPHead`` and ``EncoderDecoder``, Hugging Face's ``UperNetForSemanticSegmentation`` and
    segmentation_models.pytorch's ``UPerNet`` and ``FPN``. MMSegmentation's predictions then have no ``seg_logits``,
    which are the largest tensors of inference; ``test_cfg=dict(keep_logits=True)`` or ``prediction=False`` keeps them.

    Args:
        model: A segmentor, backbone or head, on any device.
        token_mixer, blocks, convolutions, loss, prediction: How each part is computed: 'auto' is the fastest form known
            for the input, 'torch' torch's operators, a form's name (``PARTS``) just this one for the part's main
            operator, where 'auto' would fall back to another, and False leaves the modules of this part alone.
        channels_last: Convert parameters and images to channels_last. Under DistributedDataParallel parameters keep
            their layout, which its buckets have too: call ``accelerate`` before wrapping.

    Returns:
        What was swapped, what was not, and why. Unknown modules are no error: they stay as they are.

    Raises:
        SettingError: A part has a value that it does not take.
    """
    forms = dict(token_mixer=token_mixer, blocks=blocks, convolutions=convolutions, loss=loss, prediction=prediction)
    forms = {part: check_form(part, form) for part, form in forms.items()}
    restore(model)
    swapped, (finders, left) = {}, finders_for(model)
    for name, module in list(model.named_modules()):
        for find in finders:
            for found in find(name, module, model):
                if not isinstance(found, Swap):
                    left[found.name] = found.reason
                    continue
                if 'forward' in vars(found.module):
                    left[found.name] = 'it has a forward of its own, beside its class'
                    continue
                own = {part: form for part, form in {**forms, **found.forms}.items() if part in found.fast.parts}
                if any(form is not False for form in own.values()):
                    swap(found.module, found.fast, dict(own, channels_last=channels_last))
                    swapped[found.name] = found.fast.__name__
    for name, child in model.named_children():
        known = any(found == name or found.startswith(f'{name}.') for found in (*swapped, *left))
        if not known and next(child.parameters(), None) is not None:
            left[name] = f'no fast form of {type(child).__name__} is known'
    if channels_last:
        if is_distributed(model):
            left['layout'] = 'DistributedDataParallel laid its buckets out already; call accelerate before it'
            channels_last = False
        else:
            lay_out_in_channels_last(model)
    return Acceleration(swapped, left, bool(channels_last))


def check_form(part, form):
    """``form``, if ``part`` takes it; True is 'auto'.

    Raises:
        SettingError: It does not.
    """
    form = 'auto' if form is True else form
    if form is not False and form not in ('auto', 'torch', *PARTS[part]):   # 0 is no form, though it equals False
        expected = ', '.join(map(repr, ('auto', 'torch', *PARTS[part], False)))
        raise SettingError(f'{part} of accelerate is {form!r}; expected: one of {expected}')
    return form


def finders_for(model):
    """The finder of this package's backbones, and of each library that has a module in ``model``.

    Returns:
        tuple: The finders; by library, why its finder cannot be had: a version of it without these decoders.
    """
    libraries = {base.__module__.partition('.')[0] for module in model.modules() for base in type(module).__mro__}
    finders, left = [metanext.find], {}
    for library, path in FINDERS.items():
        if library in libraries and library in sys.modules:
            try:
                finders.append(importlib.import_module(path).find)
            except ImportError as error:
                left[library] = f'its decoders cannot be imported: {error}'
    return finders, left


def swap(module, fast, forms):
    module.__class__ = fast
    module.forms = {part: form for part, form in forms.items() if form != 'auto'}


def restore(model: nn.Module) -> nn.Module:
    """Undo :func:`accelerate`, in place; returns ``model``. A model that was not accelerated stays as it is.

    A module whose class was derived from the fast one since (by a parametrization, by FSDP), or whose ``forward`` was
    wrapped, keeps its class and computes by torch's operators. Under DistributedDataParallel the layout stays.
    """
    wrapped = is_distributed(model)
    for module in model.modules():
        if is_swapped(module) and 'forward' not in vars(module):
            module.__class__ = type(module).plain
            vars(module).pop('forms', None)
        elif isinstance(module, Fast):
            module.forms = dict(dict.fromkeys(module.parts, 'torch'), loss=False, prediction=False, channels_last=False)
        if not wrapped and vars(module).pop('_was_contiguous', False):
            module.to(memory_format=torch.contiguous_format)
    return model


def is_distributed(model):
    return any(isinstance(module, DistributedDataParallel) for module in model.modules())


def lay_out_in_channels_last(model):
    """Parameters and buffers, in place; an optimizer and a loaded state dict keep working."""
    if all(p.is_contiguous() for p in model.parameters()):
        model._was_contiguous = True
    watch_fused_optimizers()
    with torch.inference_mode(False):   # a parameter that is made in inference mode could never be trained
        # Not model.to: it raises where a parameter has five dimensions, as those of a Conv3d.
        model._apply(lambda t: t.to(memory_format=torch.channels_last) if t.dim() == 4 else t)
