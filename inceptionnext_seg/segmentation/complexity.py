"""Parameters and multiply-accumulates (MACs) of a segmentor, module by module, without computing anything.

The network is built as it is in the config, not accelerated, on meta tensors, which have shapes and no data, and run
once (:mod:`inceptionnext_seg.models.macs`).
"""
import copy
from typing import NamedTuple

import torch
import torch.nn as nn
from mmengine.registry import MODELS, init_default_scope
from mmseg.models import UPerHead

from ..errors import UserError
from ..files import markdown_table
from ..models.macs import count_macs

# tests/segmentation/test_complexity.py holds the last sentence against every row of the papers.
COUNTED = (
    'MACs are multiply-accumulates of one image: convolutions and matrix products count; norms, activations, other '
    'elementwise operations, pooling and bilinear resizing do not. As in the papers, MACs are those of backbone + '
    'neck + decode head, without the auxiliary head, which only training runs, and parameters include it; the other '
    'figure stands beside each. Frozen parameters count, running statistics of norms are no parameters. A figure '
    'printed in a paper can be one in its last digit higher: the papers\' tables of UperNet and Semantic FPN round '
    'like these MACs plus two operations for each element that a norm takes.')


class ModuleCost(NamedTuple):
    """Parameters of a module and its submodules, and MACs of one image in them."""
    parameters: int
    macs: int


class Complexity(NamedTuple):
    """What a segmentor costs at one input size.

    Attributes:
        shape (tuple[int, int]): Height and width of the image in pixels.
        modules (dict[str, ModuleCost]): By name as in ``named_modules()``, in that order; '' is the whole, with the
            auxiliary head.
        macs (int): Of inference: backbone, neck and decode head.
    """
    shape: tuple
    modules: dict
    macs: int

    @property
    def parameters(self):
        """All parameters, the auxiliary head's too."""
        return self.modules[''].parameters

    @property
    def auxiliary(self):
        """Cost of the auxiliary head, which only training runs."""
        return self.modules.get('auxiliary_head', ModuleCost(0, 0))

    def at_depth(self, depth):
        """The modules whose names have at most ``depth`` parts, without those that cost nothing."""
        return {name: cost for name, cost in self.modules.items()
                if name and name.count('.') < depth and any(cost)}

    @property
    def largest_layer(self):
        """Name of the layer, a module without counted ones in it, with the most MACs in inference."""
        counted = {name for name, cost in self.modules.items()
                   if name and cost.macs and not name.startswith('auxiliary_head')}
        layers = counted - {name.rpartition('.')[0] for name in counted}
        return max(layers, key=lambda name: self.modules[name].macs)


def count(cfg, shape=None):
    """Parameters and MACs of the segmentor that ``cfg.model`` describes.

    Args:
        cfg (Config): As :func:`inceptionnext_seg.engine.launch.load_config` gives it. Weights are not loaded.
        shape (tuple[int, int] | None): Height and width of the image; by default :func:`papers_shape`.

    Returns:
        Complexity:

    Raises:
        UserError: The model cannot be built, is no segmentor, or does not take an image of this size.
    """
    segmentor = build_on_meta(cfg)
    shape = tuple(shape or papers_shape(segmentor))
    image = torch.empty(1, cfg.model.backbone.get('in_channels', 3), *shape, device='meta')
    try:
        macs = count_macs(ForwardPass(segmentor), image, prefix='segmentor')
    except Exception as error:  # whatever a layer raises, an option of the config or the image size is the cause
        reason = f'{type(error).__name__}: {error}'.rstrip('.')
        raise UserError(f'the model cannot be run on an image of {shape[0]}×{shape[1]} pixels: {reason}. Next: another '
                        'size, or fix the option that it names; the in_channels of neck and heads must be the '
                        'channels of the backbone.') from error
    modules = {name: ModuleCost(sum(parameter.numel() for parameter in module.parameters()), macs[name])
               for name, module in segmentor.named_modules()}
    return Complexity(shape, modules, sum(macs.get(part, 0) for part in ('backbone', 'neck', 'decode_head')))


def build_on_meta(cfg):
    """The segmentor of ``cfg.model`` in eval mode, with all parameters and buffers on meta tensors.

    Raises:
        UserError: It cannot be built, or has no backbone or decode head.
    """
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    try:
        try:
            with torch.device('meta'):
                segmentor = MODELS.build(copy.deepcopy(cfg.model))
        except (RuntimeError, NotImplementedError):
            # Some backbones read numbers off a tensor while they are built (drop path rates), which meta has not.
            segmentor = MODELS.build(copy.deepcopy(cfg.model)).to('meta')
    except Exception as error:  # a registry's KeyError, a layer's TypeError or AssertionError: the config is the cause
        raise UserError(f'the model of the config cannot be built: {type(error).__name__}: {error}') from error
    if not (hasattr(segmentor, 'extract_feat') and getattr(segmentor, 'decode_head', None)):
        raise UserError(f'the model is a {type(segmentor).__name__}; expected: a segmentor of MMSegmentation with a '
                        'backbone and a decode_head, such as EncoderDecoder.')
    # The counter reads the gradient function of what requires gradients; under no_grad a view of a parameter has none.
    return segmentor.eval().requires_grad_(False)


def papers_shape(segmentor):
    """The image size at which the papers count: 512×2048 for UperNet, 512×512 for Semantic FPN and any other."""
    return (512, 2048) if isinstance(segmentor.decode_head, UPerHead) else (512, 512)


class ForwardPass(nn.Module):
    """Backbone, neck, decode heads and auxiliary heads once each, called as modules.

    A segmentor calls ``decode_head.forward`` itself, past the hooks that tell the counter which module it is in.
    """

    def __init__(self, segmentor):
        super().__init__()
        self.segmentor = segmentor

    def forward(self, image):
        features = self.segmentor.extract_feat(image)
        first, *later = as_list(self.segmentor.decode_head)
        output = first(features)
        for head in later:  # CascadeEncoderDecoder: each refines the output of the one before
            output = head(features, output)
        for head in as_list(getattr(self.segmentor, 'auxiliary_head', None)):
            head(features)


def as_list(heads):
    return [] if heads is None else list(heads) if isinstance(heads, nn.ModuleList) else [heads]


def share(complexity, name):
    """Share of the module ``name`` in the MACs of inference; None for the auxiliary head, which has no part in it."""
    return None if name.split('.')[0] == 'auxiliary_head' else complexity.modules[name].macs / complexity.macs


def to_dict(complexity, depth):
    """``complexity`` as it goes into a JSON file: counts, not rounded, the modules down to ``depth`` and the largest
    layer."""
    layer = complexity.largest_layer
    modules = {**complexity.at_depth(depth), layer: complexity.modules[layer]}
    return dict(
        shape=list(complexity.shape),
        parameters=complexity.parameters,
        parameters_without_auxiliary_head=complexity.parameters - complexity.auxiliary.parameters,
        macs=complexity.macs,
        macs_with_auxiliary_head=complexity.macs + complexity.auxiliary.macs,
        modules={name: dict(cost._asdict(), share_of_macs=share(complexity, name)) for name, cost in modules.items()})


def from_dict(content):
    """The :class:`Complexity` of which :func:`to_dict` made ``content``, as far as its tables need it."""
    modules = {name: ModuleCost(cost['parameters'], cost['macs']) for name, cost in content['modules'].items()}
    whole = ModuleCost(content['parameters'], content['macs_with_auxiliary_head'])
    return Complexity(tuple(content['shape']), {'': whole, **modules}, content['macs'])


def to_markdown(complexities, depth):
    """Tables of all configs: their totals side by side, then each by module.

    Args:
        complexities (dict[str, Complexity]): By config.
        depth (int): Parts of a module's name, at most.
    """
    totals = []
    for name, complexity in complexities.items():
        auxiliary, layer = complexity.auxiliary, complexity.largest_layer
        totals.append([
            f'`{name}`', size(complexity),
            millions(complexity.parameters), millions(complexity.parameters - auxiliary.parameters),
            billions(complexity.macs), billions(complexity.macs + auxiliary.macs),
            percent(share(complexity, 'backbone')), f'`{layer}` {percent(share(complexity, layer))}'])
    sections = [COUNTED, markdown_table(
        ['config', 'image', 'parameters', 'without auxiliary head', 'MACs', 'with auxiliary head',
         'backbone, of the MACs', 'largest layer, of the MACs'], totals)]
    for name, complexity in complexities.items():
        # What rounds to nothing, such as norms, would only hide the rest.
        rows = [[f'`{module}`', millions(cost.parameters), percent(cost.parameters / complexity.parameters),
                 billions(cost.macs), percent(share(complexity, module))]
                for module, cost in complexity.at_depth(depth).items()
                if (millions(cost.parameters), billions(cost.macs)) != (millions(0), billions(0))]
        sections += [f'## `{name}`, {size(complexity)}', markdown_table(
            ['module', 'parameters', 'of all', 'MACs', 'of the MACs of inference'], rows)]
    return '\n\n'.join(sections) + '\n'


def size(complexity):
    return '×'.join(map(str, complexity.shape))


def millions(number):
    return f'{number / 1e6:.2f} M'


def billions(number):
    return f'{number / 1e9:.2f} G'


def percent(part):
    return '–' if part is None else f'{100 * part:.1f} %'
