"""Models by name: ``create_model('upernet_inceptionnext_t', num_classes=150)``."""
import fnmatch
import re
from pathlib import Path
from typing import Any

import torch.nn as nn
from mmengine.config import Config
from mmengine.registry import DefaultScope

from ..acceleration import accelerate as accelerate_model
from ..engine.inference import config_metainfo, labels_of
from ..engine.launch import load_config
from ..engine.own_data import needs_data
from ..errors import SettingError, UserError
from ..models.checkpoint import load_pretrained, load_strictly, read_checkpoint, state_dict_of
from ..models.metanext import ConvNeXt, InceptionNeXt
from ..models.weight_names import to_metanext_names
from ..ops import measured
from ..zoo import PREFIX, configs
from .model import IMAGENET_MEAN, IMAGENET_STD, PARTS, SegmentationModel

# A model's name is that of a config without its data set; the first of these that has a config describes it.
DATA_SETS = ('ade20k', 'cityscapes', 'cocostuff164k', 'voc12aug', 'camvid', 'mini')
FAMILIES = dict(inceptionnext=InceptionNeXt, convnext=ConvNeXt)
LETTERS = dict(atto='a', femto='f', pico='p', nano='n', tiny='t', small='s', base='b')
BACKBONES = {f'{family}_{LETTERS[arch]}': (cls, arch) for family, cls in FAMILIES.items() for arch in cls.arch_settings}
RELEASED = 'https://github.com/sail-sg/inceptionnext/releases/download/model/inceptionnext_{}.pth'
WEIGHTS = {
    **{f'inceptionnext_{arch[0]}': RELEASED.format(arch) for arch in ('atto', 'tiny', 'small', 'base')},
    **{f'convnext_{arch[0]}': f'https://dl.fbaipublicfiles.com/convnext/convnext_{arch}_1k_224_ema.pth'
       for arch in ('tiny', 'small', 'base')}}


def models() -> dict[str, str]:
    """The config that describes each model: the first of ``DATA_SETS`` that has one, ablations aside."""
    found = {}
    for data_set in DATA_SETS:
        for name, path in configs().items():
            # A recipe is another training of the same model.
            if name.endswith(f'_{data_set}') and '_recipe_' not in name and path.parent.name not in (
                    'ablations', 'generalization', 'powered'):
                found.setdefault(name.removesuffix(f'_{data_set}'), name)
    return dict(sorted((name, config) for name, config in found.items()
                       if re.match('(upernet|fpn)_', name)))


def list_models(pattern: str = '*') -> list[str]:
    """Names that :func:`create_model` takes, sorted: ``list_models('upernet_*')``. Each is a config of
    :func:`list_configs` without its data set."""
    return fnmatch.filter(models(), pattern)


def list_configs(pattern: str = '*') -> list[str]:
    """Names of every config of the zoo, sorted; :func:`create_model`, :func:`~.predictor.load` and every command of
    ``inceptionnext-seg`` take them."""
    return fnmatch.filter(configs(), pattern)


def create_backbone(name: str, *, pretrained: bool | str = False, accelerate: bool = True,
                    **settings: Any) -> nn.Module:
    """A backbone alone: images (B, 3, H, W), normalized floats, to four maps at strides 4, 8, 16 and 32.

    Args:
        name (str): ``inceptionnext_a|t|s|b`` or ``convnext_a|f|p|n|t|s|b``.
        pretrained (bool | str): ImageNet weights: True downloads the released ones; or a path, a URL, or
            ``timm://NAME``.
        accelerate (bool): As in :func:`create_model`.
        settings: Arguments of :class:`inceptionnext_seg.InceptionNeXt`, such as ``out_indices`` or ``drop_path_rate``.

    Raises:
        SettingError: An unknown name, or no weights are released for it.
        UserError: The weights cannot be had, or do not fit.
    """
    if name not in BACKBONES:
        raise SettingError(f'the backbone is {name!r}; expected: one of {", ".join(BACKBONES)}')
    cls, arch = BACKBONES[name]
    backbone = cls(arch, **settings)
    if pretrained:
        load_pretrained(backbone, weights_of(name, pretrained))
    if accelerate:
        accelerate_model(backbone)
        measured.recall()
    return backbone


def weights_of(name, pretrained):
    if pretrained is not True:
        return pretrained
    if name not in WEIGHTS:
        raise SettingError(f'no ImageNet weights are known for {name}; expected: one of {", ".join(WEIGHTS)}, or '
                           'pretrained=PATH')
    return WEIGHTS[name]


def find_model(name: str | Path | Config) -> Config:
    """The config of a model that is given by its own name, that of a config, a path, or as a config."""
    if isinstance(name, Config):
        return name
    text = str(name).removeprefix(PREFIX)
    try:
        return load_config(models().get(text, name))
    except UserError as error:
        if text in models() or text in configs() or '/' in text or text.endswith('.py'):
            raise
        raise UserError(f'{error} Models without a data set in their names: {", ".join(models())}.') from error


def with_classes(head: dict, num_classes: int | None) -> dict:
    return head if num_classes is None else dict(head, num_classes=num_classes, out_channels=None)


def plain(value: Any) -> Any:
    """Of a config's dicts and tuples, what a JSON file can hold."""
    if isinstance(value, dict):
        return {name: plain(child) for name, child in value.items()}
    return [plain(child) for child in value] if isinstance(value, list | tuple) else value


def create_model(name: str | Path | Config, num_classes: int | None = None, *, pretrained: bool | str = False,
                 checkpoint: str | Path | None = None, in_channels: int | None = None, auxiliary_head: bool = False,
                 accelerate: bool = True, class_names: list[str] | None = None,
                 backbone: dict | None = None, decode_head: dict | None = None) -> SegmentationModel:
    """A segmentor as an ``nn.Module``: ``create_model('upernet_inceptionnext_t', num_classes=19, pretrained=True)``.

    Args:
        name (str | Path | Config): One of :func:`list_models` or :func:`list_configs`, or a config file of your own.
        num_classes (int | None): Channels of the logits. None takes those of the checkpoint, or of the config.
        pretrained (bool | str): ImageNet weights of the backbone: True downloads those of the config; or a path, a URL,
            or ``timm://NAME``. False leaves the model as it is initialized.
        checkpoint (str | Path | None): Weights of the whole model, of ``tools/train.py`` or of this class: a path
            (.pth, .safetensors) or a URL; loaded strictly, never unpickled freely.
        in_channels (int | None): Of the images. None takes those of the config, which are 3 where it names none. Other
            than 3, they have to be normalized floats.
        auxiliary_head (bool): Build the config's auxiliary head, which only :meth:`SegmentationModel.loss` uses.
        accelerate (bool): Make it fast; the function and the state dict stay the same. The forms of operators are those
            that earlier runs measured on this machine for such inputs.
        class_names (list[str] | None): By default those of the config's data set, where it has as many classes.
        backbone, decode_head (dict | None): Settings that replace those of the config, such as
            ``backbone=dict(drop_path_rate=0.1)`` or ``decode_head=dict(channels=256)``.

    Returns:
        SegmentationModel: In training mode, on the CPU.

    Raises:
        SettingError: A setting has a value that it does not take.
        UserError: The model or the weights cannot be found, or do not fit.
    """
    if pretrained and checkpoint:
        raise SettingError('both pretrained and checkpoint are given; expected: one of them, for a checkpoint holds '
                           'the backbone too')
    cfg = find_model(name)
    state_dict = None
    if checkpoint is not None:
        state_dict = state_dict_of(read_checkpoint(checkpoint), checkpoint, prefix='')
        if any(key.startswith('backbone.') for key in state_dict):
            to_metanext_names(state_dict, 'backbone.')
        if not auxiliary_head:
            state_dict = {key: value for key, value in state_dict.items() if not key.startswith('auxiliary_head.')}
        if num_classes is None and 'decode_head.conv_seg.weight' in state_dict:
            num_classes = len(state_dict['decode_head.conv_seg.weight'])
    architecture = {part: plain(cfg.model[part].to_dict()) for part in PARTS
                    if cfg.model.get(part) and (part != 'auxiliary_head' or auxiliary_head)}
    if auxiliary_head and 'auxiliary_head' not in architecture:
        raise SettingError(f'auxiliary_head is True, but the config of {name} has none')
    source = (architecture['backbone'].pop('init_cfg', None) or {}).get('checkpoint')
    architecture['backbone'].update(plain(backbone or {}))
    if in_channels is not None:
        architecture['backbone']['in_channels'] = in_channels
    architecture['decode_head'].update(plain(decode_head or {}))
    for head in ('decode_head', 'auxiliary_head'):
        if head in architecture:
            architecture[head] = with_classes(architecture[head], num_classes)
    # One logit a pixel, which tells two classes apart, is one output.
    found = architecture['decode_head'].get('out_channels') or architecture['decode_head']['num_classes']
    palette = None
    if class_names is None:
        class_names, palette = names_and_colors(cfg, found)
    mean, std = normalization_of(cfg.model.get('data_preprocessor'), image_channels(architecture['backbone']))
    model = SegmentationModel(
        architecture, mean=mean, std=std, class_names=class_names, palette=palette, accelerate=False)
    if pretrained:
        if pretrained is True and not source:
            source = weights_of(backbone_name(model.backbone), True)
        load_pretrained(model.backbone, source if pretrained is True else pretrained)
    if state_dict is not None:
        load_strictly(model, state_dict, checkpoint)
    model._hub_mixin_config['accelerate'] = accelerate
    if accelerate:
        model.acceleration = accelerate_model(model)
        measured.recall()
    return model


def image_channels(backbone):
    """The channels of images by a backbone's settings, or by those of the model that it is made of."""
    inner = backbone.get('model')
    return backbone.get('in_channels', image_channels(inner) if isinstance(inner, dict) else 3)


def normalization_of(preprocessor, in_channels):
    """Mean and standard deviation of a config's data preprocessor as lists, those of ImageNet without one; None twice
    where images have other channels, or BGR's.

    Files are read as BGR, which mmseg's preprocessor leaves as they are unless its config says otherwise; its mean and
    std are then those of BGR, and a :class:`SegmentationModel` takes RGB.
    """
    if not preprocessor:
        return (list(IMAGENET_MEAN), list(IMAGENET_STD)) if in_channels == 3 else (None, None)
    if in_channels == 3 and not (preprocessor.get('bgr_to_rgb') or preprocessor.get('rgb_to_bgr')):
        return None, None
    mean, std = preprocessor.get('mean'), preprocessor.get('std')
    if mean is None and std is None:    # images from 0 to 255
        mean, std = [0.], [1.]
    if None in (mean, std) or not {len(mean), len(std)} <= {1, in_channels}:
        return None, None
    return [list(values) * (in_channels // len(values)) for values in (mean, std)]


def backbone_name(backbone):
    """The name of a backbone in ``BACKBONES``, by its class and widths; what is none of them is named by its class."""
    for name, (cls, arch) in BACKBONES.items():
        if type(backbone) is cls and tuple(cls.arch_settings[arch]['dims']) == backbone.dims \
                and tuple(cls.arch_settings[arch]['depths']) == tuple(len(stage.blocks) for stage in backbone.stages):
            return name
    return type(backbone).__name__


def names_and_colors(cfg, num_classes):
    """Names and colours of a config's classes, for as many; None twice where it has others, none, or takes them from
    data that it has not been told."""
    if needs_data(cfg):
        return None, None
    try:
        with DefaultScope.overwrite_default_scope('mmseg'):
            labels = labels_of(config_metainfo(cfg), num_classes)
    except UserError:
        return None, None
    return (None, None) if labels is None else (list(labels.classes), labels.palette.tolist())
