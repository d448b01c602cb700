"""Norms and activations by config, as everywhere in OpenMMLab, without mmcv; what layers tell of a network."""
from collections.abc import Mapping

import torch.nn as nn
from mmengine.registry import MODELS
from timm.layers import LayerNorm2d

from ..errors import SettingError

# What `norm_cfg` and `act_cfg` may name without mmcv; any other type is looked up in mmengine's registry, to which mmcv
# adds its own. 'LN' is the channel-wise LayerNorm of ConvNeXt, since a norm of the whole (C, H, W) has no use here.
NORMS = dict(BN=nn.BatchNorm2d, BN2d=nn.BatchNorm2d, SyncBN=nn.SyncBatchNorm, LN=LayerNorm2d, LN2d=LayerNorm2d)
ACTIVATIONS = dict(GELU=nn.GELU, ReLU=nn.ReLU, SiLU=nn.SiLU, Hardswish=nn.Hardswish)


def build_norm(norm_cfg, num_channels):
    """The norm of ``norm_cfg`` (``type``, ``requires_grad``, the layer's own arguments); None builds an Identity."""
    if norm_cfg is None:
        return nn.Identity()
    if not isinstance(norm_cfg, Mapping) or 'type' not in norm_cfg:
        raise SettingError(f"a norm's settings are {norm_cfg!r}; expected: None, or a dict with a type, such as "
                           "dict(type='BN')")
    settings = dict(norm_cfg)
    layer = find_layer('norm_cfg', settings.pop('type'), NORMS)
    requires_grad = settings.pop('requires_grad', True)
    norm = layer(num_channels=num_channels, **settings) if layer is nn.GroupNorm else layer(num_channels, **settings)
    for parameter in norm.parameters():
        parameter.requires_grad = requires_grad
    return norm


def build_activation(act_cfg):
    """The activation of ``act_cfg``: ``type`` and the layer's own arguments."""
    settings = dict(act_cfg)
    return find_layer('act_cfg', settings.pop('type'), ACTIVATIONS)(**settings)


def find_layer(setting, name, known):
    if isinstance(name, type):  # a config of pure Python has the class in the place of its name
        return name
    layer = known.get(name) or MODELS.get(name)
    if layer is None:
        raise SettingError(f'{setting} type {name!r} is unknown; expected: one of {", ".join(sorted(known))}, or a '
                           'type that is registered in MODELS')
    return layer


def input_channels(network):
    """Channels of the images that a network of any library takes: those of its first convolution, in the order of
    ``modules()``; None where it has none."""
    return next((module.in_channels for module in network.modules() if isinstance(module, nn.Conv2d)), None)


def with_defaults(settings, defaults):
    """``settings`` (dict | None), its missing keys taken from ``defaults`` where the type is the same or not given."""
    settings = settings or {}
    same_type = name_of(settings.get('type', defaults['type'])) == name_of(defaults['type'])
    return dict(defaults, **settings) if same_type else dict(settings)


def name_of(kind):
    """The name of a config's ``type``: of a class, or a name without the scope or the path of Python before it."""
    return getattr(kind, '__name__', kind).rpartition('.')[2]
