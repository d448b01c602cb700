"""The deploy form of a model, in its own dtype, in bfloat16 or with 8-bit products: ``fuse_for_inference``."""
import copy
from collections.abc import Iterable
from typing import NamedTuple

import torch
import torch.nn as nn
from mmengine.logging import print_log
from torch.nn.modules.batchnorm import _NormBase

from .._fast import Fast
from ..errors import SettingError, UserError
from ..models import fuse
from ..ops import _native as native
from ..ops import int8
from .quantize import Int8, is_classifier, quantize

DTYPES = {'fp32': None, 'bf16': torch.bfloat16, 'int8': torch.int8}
BF16_INSTRUCTIONS = ('amx_bf16', 'avx512_bf16', 'bf16')     # the last is that of Arm
# Norms that keep float32 parameters beside maps in bfloat16. Those of each image by itself cannot on a GPU: torch's
# kernels there read the parameters in the type of the map.
NORMS = dict(cpu=(_NormBase, nn.LayerNorm, nn.GroupNorm), elsewhere=(_NormBase, ))


class Precision(NamedTuple):
    """What became of a model's parts; ``str()`` says it in a few lines.

    Attributes:
        dtype (torch.dtype): In which everything runs that is not in 8 bits.
        quantized (list[str]): Names of the modules that multiply 8-bit numbers.
        kept (dict[str, str]): Why a part is not as was asked for, by name; '' is the whole model.
    """
    dtype: torch.dtype
    quantized: list
    kept: dict

    def __str__(self):
        name = str(self.dtype).removeprefix('torch.')
        lines = [f'Precision: {f"{len(self.quantized)} modules in int8, the rest in " if self.quantized else ""}{name}']
        reasons = {}
        for part, reason in self.kept.items():
            reasons.setdefault(reason, []).append(part or 'the model')
        lines += [f'Kept in {name}: {", ".join(parts[:4])}{f" and {len(parts) - 4} more" if len(parts) > 4 else ""}: '
                  f'{reason}' for reason, parts in reasons.items()]
        return '\n'.join(lines)


def fuse_for_inference(model: nn.Module, inplace: bool = False, dtype: str | torch.dtype | None = None,
                       calibration: Iterable | None = None) -> nn.Module:
    """The deploy form of ``model``: norms and layer scales folded (:func:`~..models.fuse.fuse_for_inference`), and
    products of fewer bits where ``dtype`` asks for them.

    ``dtype`` makes products faster and less exact, where the device can: 'bf16' runs everything but the parameters of
    BatchNorms, and on CPUs of all norms, in bfloat16 (CPUs with AMX or avx512_bf16, GPUs), 'int8' the MLPs of MetaNeXt
    blocks and the 1×1 and 3×3 convolutions of heads in 8 bits (CPUs with VNNI or AMX), with ranges of activations from
    ``calibration``, and the rest in bfloat16 where the CPU has AMX, otherwise in float32. Accelerate the model first.
    What a CPU cannot do, and a part without an 8-bit form, stays as it is: ``model.precision``, which is logged, says
    what became of each part.

    Args:
        model (nn.Module): A MetaNeXt backbone, or a segmentor with any backbone, on any device, in any layout; without
            ``dtype`` of any type, otherwise in float32.
        inplace (bool): Change and return ``model`` itself, not a deep copy.
        dtype (str | torch.dtype | None): 'bf16', 'int8', or the torch dtype; None or 'fp32' leaves the model's own.
        calibration (Iterable | None): For 'int8', some 32 images that are like those the model will see: (H, W, 3)
            arrays of 8 bits, as mmcv reads a file, and RGB for a :class:`~..api.model.SegmentationModel`; or float
            tensors (3, H, W) or (B, 3, H, W), normalized.

    Returns:
        nn.Module: The fused model, in eval mode, which cannot be trained; its ``precision`` is a :class:`Precision`
        where there was a ``dtype``.

    Raises:
        SettingError: ``dtype`` is unknown, or 'int8' and there are no calibration images.
        UserError: A calibration image has another shape, or ``dtype`` is given for a model that is not in float32.
    """
    dtype = check_dtype(dtype, calibration)
    if not inplace:
        model = copy.deepcopy(model)
    model = fuse.fuse_for_inference(model, inplace=True)
    if dtype is not None:
        lower_precision(model, dtype, calibration)
    return model


def check_dtype(dtype, calibration):
    """``torch.bfloat16``, ``torch.int8``, or None for the model's own.

    Raises:
        SettingError: ``dtype`` is another, or does not fit ``calibration``.
    """
    dtype = DTYPES.get(dtype, dtype) if isinstance(dtype, str) else None if dtype == torch.float32 else dtype
    if dtype not in (None, torch.bfloat16, torch.int8):
        raise SettingError(f"dtype of fuse_for_inference is {dtype!r}; expected: 'bf16', 'int8', or 'fp32'")
    if (dtype == torch.int8) != (calibration is not None):
        found = 'is int8, and there are no calibration images' if calibration is None else \
            "is not 'int8', and there are calibration images"
        raise SettingError(
            f'dtype of fuse_for_inference {found}; expected: both or neither. Next: fuse_for_inference(model, '
            "dtype='int8', calibration=images), with some 32 images that are like those the model will see")
    return dtype


def lower_precision(model: nn.Module, dtype: torch.dtype, calibration: Iterable | None) -> Precision:
    """Convert a fused model in place; where the device cannot do it, the model stays as it is, and a log line says so.

    Images go into the model in float32 and its segmentation head returns float32; the features of a bare backbone
    are in the model's dtype. BatchNorms, and on CPUs all norms, keep their parameters in float32.
    """
    own = next(model.parameters())
    if any(isinstance(module, Int8) for module in model.modules()):
        raise UserError('the model has 8-bit products already; expected: one in float32, from which '
                        'fuse_for_inference converts it. Next: convert the model from which this one was made.')
    if own.is_cuda and dtype == torch.int8:
        reason = 'the model is on a GPU, and 8-bit products are for CPUs'
    elif own.dtype != torch.float32:
        raise UserError(f'the model is in {own.dtype}; expected: float32, from which fuse_for_inference converts it')
    elif dtype == torch.int8:
        reason = int8.why_not()
    else:
        reason = None if own.is_cuda else why_not_bf16()
    if reason is not None:
        precision = Precision(own.dtype, [], {'': reason})
    elif dtype == torch.int8:
        # Beside 8-bit products, bfloat16 where the CPU has tiles for it: there it is the faster one everywhere.
        rest = torch.bfloat16 if native.has_fast_bf16() else torch.float32
        precision = Precision(rest, *quantize(model, calibration))
    else:
        precision = Precision(dtype, [], {})
    if precision.dtype == torch.bfloat16:
        to_bfloat16(model)
    model.precision = precision
    print_log(str(precision), 'current')
    return precision


def why_not_bf16():
    """Why products in bfloat16 would be no faster on this CPU, or None."""
    if not set(BF16_INSTRUCTIONS) & set(native.processor().split()):
        return f'the CPU does not multiply bfloat16 (it has none of {", ".join(BF16_INSTRUCTIONS)})'
    return None


def to_bfloat16(model):
    """All parameters but those of :data:`NORMS`, and products in bfloat16 also where float is the rule."""
    on_cpu = next(model.parameters()).device.type == 'cpu'
    kept = NORMS['cpu' if on_cpu else 'elsewhere']
    for name, module in model.named_modules():
        if not isinstance(module, (*kept, Int8)):
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.to(torch.bfloat16)
        if isinstance(module, Fast) and on_cpu and not native.has_fast_bf16():
            forms = dict(blocks='torch', convolutions='factorized')
            module.forms = {**{part: form for part, form in forms.items() if part in module.parts}, **module.forms}
        if is_classifier(name):
            module.register_forward_hook(to_float)
    entry = next((part for name in ('backbone', 'encoder') if (part := getattr(model, name, None)) is not None), model)
    entry.register_forward_pre_hook(cast_image)


def cast_image(module, inputs):
    return (inputs[0].to(torch.bfloat16), *inputs[1:])


def to_float(module, inputs, output):
    return output.float()
