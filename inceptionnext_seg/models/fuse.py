"""Deploy form: BatchNorm and layer scale folded into the convolutions beside them, the same function in fewer steps.

In eval mode a BatchNorm is ``s · x + t`` for each channel, with ``s = weight / sqrt(running_var + eps)`` and
``t = bias - running_mean · s``. Hence, exactly:

- after a convolution (stem, heads): ``s · (W x + b) + t = (s W) x + (s · b + t)``. Layer scale is this with t = 0.
- before a convolution without padding (downsampling, block): ``W (s · x + t) + b = (W s) x + (b + Σ W t)``, the sum
  over input channels and taps. With padding the border would differ: the zeros come after the norm.

The folding is computed in float64 and rounded once, to the type of the weights.
"""
import copy
from collections import Counter, defaultdict

import torch
import torch.nn as nn
from mmengine.logging import print_log
from timm.layers import DropPath
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from .._fast import is_bare, plain_type
from .._heap import give_back_freed
from .folded import Folded, refuse_layer_scale
from .metanext import ConvMlp, MetaNeXt, MetaNeXtBlock, MetaNeXtStage

NORM, LAYER_SCALE, DROPOUT = 'norm', 'layer scale', 'dropout'
# What a subclass does in a forward of its own, an activation or a standardized weight, is not known here.
NORM_FORWARDS = (_BatchNorm.forward, nn.SyncBatchNorm.forward)
DROPOUT_FORWARDS = tuple(layer.forward for layer in (
    DropPath, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout))


def fuse_for_inference(model: nn.Module, inplace: bool = False) -> nn.Module:
    """Fold every BatchNorm and layer scale of ``model`` into a convolution beside it, and remove its dropouts.

    The result computes the same as ``model.eval()`` but for rounding, in eval mode only: ``train()`` raises
    :class:`UserError`, and so does loading a checkpoint of the model before fusing; no parameter takes gradients. Load
    the weights first and fuse then. Fusing a fused model changes nothing. The state dict of a fused model fits another.

    Folded are, in MetaNeXt backbones, the norms of stem (into its convolution), downsampling (into the 2×2 convolution)
    and blocks (into ``fc1``) and ``gamma`` (into ``fc2``); elsewhere, each norm that follows the convolution of one of
    mmcv's ``ConvModule``, as in MMSegmentation's heads. What someone altered, by a subclass, a hook or another layer,
    stays unless the fold is exact there, too. How many, and which norms stay and why, is logged.

    Output norms stay. A stage's output goes on without its norm to the next stage, so the norm cannot go into the
    stage; and heads pad it with zeros (a 3×3 convolution of FCNHead, UPerHead's pooling bottleneck), so its shift
    inside their convolutions would be a bias that differs along the border, as large as the map. In eval mode a
    BatchNorm is one multiplication and addition in one pass over the map already. Norms other than BatchNorm, such as
    ConvNeXt's LayerNorm, depend on the image and cannot be folded at all.

    Args:
        model (nn.Module): A MetaNeXt backbone, or a segmentor with any backbone, on any device, in any layout and type.
        inplace (bool): Change and return ``model`` itself, not a deep copy.

    Returns:
        nn.Module: The fused model, in eval mode.
    """
    if not inplace:
        model = copy.deepcopy(model)
    for module in list(model.modules()):
        if isinstance(module, MetaNeXt):
            fuse_stem(module.stem)
        elif isinstance(module, MetaNeXtStage):
            fuse_downsample(module.downsample)
        elif isinstance(module, MetaNeXtBlock):
            fuse_block(module)
        elif is_conv_module(module):
            fuse_conv_module(module)
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child).forward in DROPOUT_FORWARDS:
                setattr(module, name, Folded(DROPOUT))
    give_back_freed()   # the weights before, and those in float64: for UperNet-T more than the model itself
    print_log(describe(model), 'current')
    return model.requires_grad_(False).eval()


def fuse_stem(stem):
    conv, norm = first_two(stem)
    if is_foldable(norm, conv):
        stem[0], stem[1] = fold_into_previous(conv, *scale_and_shift(norm)), Folded(NORM)


def fuse_downsample(downsample):
    norm, conv = first_two(downsample)
    if is_foldable(norm, conv) and takes_a_shift(conv):
        downsample[0], downsample[1] = Folded(NORM), fold_into_next(conv, *scale_and_shift(norm))


def first_two(sequence):
    """The first two layers of an ``nn.Sequential``, whatever follows them; None twice where it has fewer."""
    return sequence[:2] if computes_as(sequence, nn.Sequential) and len(sequence) > 1 else (None, None)


def computes_as(module, kind):
    """Whether ``module`` is a ``kind`` whose forward nobody has replaced."""
    return isinstance(module, kind) and plain_type(module).forward is kind.forward and 'forward' not in vars(module)


def fuse_block(block):
    mlp = block.mlp
    # Another forward may call the parts in another order, another MLP use the norm's output twice.
    if not (computes_as(block, MetaNeXtBlock) and is_bare(mlp, ConvMlp)):
        return
    if is_foldable(block.norm, mlp.fc1) and takes_a_shift(mlp.fc1):
        mlp.fc1 = fold_into_next(mlp.fc1, *scale_and_shift(block.norm))
        block.norm = Folded(NORM)
    if block.gamma is not None and is_plain(mlp.fc2) and is_bare(block.drop_path, DropPath, nn.Identity):
        mlp.fc2 = fold_into_previous(mlp.fc2, scale=exact(block.gamma), shift=0)
        block.gamma = None
        block.drop_path = Folded(LAYER_SCALE)
        block._register_load_state_dict_pre_hook(refuse_layer_scale)


def is_conv_module(module):
    """Whether ``module`` is one of mmcv's ``ConvModule``: by its parts, since this package does not need mmcv."""
    return all(hasattr(module, name) for name in ('conv', 'norm', 'norm_name', 'with_norm', 'with_activation', 'order'))


def fuse_conv_module(module):
    order = module.order
    if not module.with_norm or order.index('norm') != order.index('conv') + 1:
        return
    if is_foldable(module.norm, module.conv):
        module.conv = fold_into_previous(module.conv, *scale_and_shift(module.norm))
        setattr(module, module.norm_name, Folded(NORM))
        module.with_norm, module.with_bias = False, True


def is_foldable(norm, conv):
    return is_fixed(norm) and is_bare(norm, plain_type(norm)) and is_plain(conv)


def is_fixed(norm):
    """Whether ``norm`` is a BatchNorm that is the same for every image in eval mode."""
    return isinstance(norm, _BatchNorm) and plain_type(norm).forward in NORM_FORWARDS and norm.running_mean is not None


def is_plain(conv):
    """Whether ``conv`` is linear in a weight that it owns: no spectral norm, no standardized weight, no deformation, no
    hook."""
    return (isinstance(conv, nn.Conv2d) and plain_type(conv).forward is nn.Conv2d.forward
            and 'weight' in conv._parameters and is_bare(conv, plain_type(conv)))


def takes_a_shift(conv):
    """Whether a shift of the input's channels is a bias of ``conv``: padding would differ along the border."""
    return conv.padding in ((0, 0), 'valid') and conv.groups == 1


def exact(tensor):
    """``tensor`` in float64, on the CPU, since not every device has it; a meta tensor stays one."""
    return tensor.detach().to('meta' if tensor.is_meta else 'cpu', torch.float64)


def scale_and_shift(norm):
    """What a BatchNorm does to each channel in eval mode: two tensors (C, )."""
    scale = (exact(norm.running_var) + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * exact(norm.weight)
    shift = -exact(norm.running_mean) * scale
    return scale, shift if norm.bias is None else shift + exact(norm.bias)


def fold_into_previous(conv, scale, shift):
    """The convolution that gives ``scale * conv(x) + shift``."""
    bias = 0 if conv.bias is None else exact(conv.bias)
    return with_parameters(conv, exact(conv.weight) * scale[:, None, None, None], scale * bias + shift)


def fold_into_next(conv, scale, shift):
    """The convolution that gives ``conv(scale * x + shift)``; ``conv`` has one group and no padding."""
    bias = 0 if conv.bias is None else exact(conv.bias)
    weight = exact(conv.weight)
    return with_parameters(conv, weight * scale[:, None, None], weight.sum((2, 3)) @ shift + bias)


def with_parameters(conv, weight, bias):
    """A copy of ``conv``, which may have other users, with these parameters in its type, device and memory format."""
    conv = copy.deepcopy(conv)
    with torch.no_grad():
        conv.weight.copy_(weight)
    conv.bias = nn.Parameter(bias.to(conv.weight))
    return conv


def describe(model):
    """One sentence: how much of ``model`` is folded, and which norms stay and why."""
    kinds = Counter(module.kind for module in model.modules() if isinstance(module, Folded))
    output_norms = {getattr(module, f'norm{i}') for module in model.modules() if isinstance(module, MetaNeXt)
                    for i in module.out_indices}
    stay = defaultdict(list)
    for name, module in model.named_modules():
        if isinstance(module, (_NormBase, nn.LayerNorm, nn.GroupNorm)):
            if not isinstance(module, _BatchNorm):
                why = f'{type(module).__name__}, depends on the image'
            elif not is_fixed(module):
                why = f'{type(module).__name__} without running statistics or with a forward of its own'
            elif module in output_norms:
                why = 'on an output, which others pad with zeros'
            else:
                why = 'not known to stand beside one plain convolution'
            stay[why].append(name)
    stay = '; '.join(f'{len(names)} {why}: {", ".join(names)}' for why, names in stay.items())
    return (f'Fused for inference: {kinds[NORM]} norms and {kinds[LAYER_SCALE]} layer scales folded, '
            f'{kinds[DROPOUT]} dropouts taken out; norms that stay: {stay or "none"}')
