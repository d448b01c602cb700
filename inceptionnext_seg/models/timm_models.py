"""The backbones as feature extractors of timm: ``timm.create_model('inceptionnext_seg_tiny', features_only=True)``.

Importing the package registers them, so that whatever takes a timm encoder by name takes them, too:
segmentation_models.pytorch as ``tu-inceptionnext_seg_tiny``, Hugging Face's ``TimmBackbone``, a Detectron2 wrapper.
timm's own ``inception_next_*`` are the classifiers of the same weights; the parameter names are the same.
"""
import dataclasses
from pathlib import Path
from typing import Any

from timm.models import FeatureInfo, generate_default_cfgs, register_model, resolve_pretrained_cfg

from ..errors import SettingError
from .checkpoint import load_pretrained
from .metanext import InceptionNeXt

# Variant, tag and image size of the weights that timm has; the first tag of a variant is its default.
WEIGHTS = (*((arch, 'sail_in1k', 224) for arch in ('atto', 'tiny', 'small', 'base')), ('base', 'sail_in1k_384', 384))
default_cfgs = generate_default_cfgs({
    f'inceptionnext_seg_{arch}.{tag}': dict(
        hf_hub_id=f'timm/inception_next_{arch}.{tag}', input_size=(3, size, size), pool_size=(size // 32, size // 32),
        num_classes=0, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), interpolation='bicubic',
        first_conv='stem.0')
    for arch, tag, size in WEIGHTS})


class InceptionNeXtFeatures(InceptionNeXt):
    """:class:`~.metanext.InceptionNeXt` with timm's ``feature_info``; its maps come as a list, as timm's do."""

    def __init__(self, arch, **settings):
        super().__init__(arch, **settings)
        self.feature_info = FeatureInfo(
            [dict(num_chs=channels, reduction=4 * 2**i, module=f'stages.{i}') for i, channels in enumerate(self.dims)],
            self.out_indices)

    def forward(self, x):
        return list(super().forward(x))


def create(arch: str, pretrained: bool, features_only: bool = False, in_chans: int | None = None,
           out_indices: Any = (0, 1, 2, 3), output_stride: int = 32, pretrained_cfg: Any = None,
           pretrained_cfg_overlay: dict | None = None, cache_dir: str | Path | None = None,
           **settings: Any) -> InceptionNeXtFeatures:
    """What the entry points share: timm's arguments, and ``settings`` of :class:`~.metanext.InceptionNeXt`.

    Weights come from where timm would take them, as ``pretrained_cfg_overlay=dict(file=PATH)`` says for example, and
    are loaded strictly.

    Raises:
        SettingError: An argument of timm has a value that these models do not take.
        UserError: The weights cannot be had, or do not fit.
    """
    name = f'inceptionnext_seg_{arch}'
    if not features_only:
        raise SettingError(f'{name} has no classifier; expected: features_only=True. Next: the classifier is '
                           f"timm's own inception_next_{arch}.")
    if output_stride != 32:
        raise SettingError(f'output_stride of {name} is {output_stride}; expected: 32')
    try:
        cfg = resolve_pretrained_cfg(name, pretrained_cfg, pretrained_cfg_overlay)
    except (RuntimeError, TypeError) as error:      # an unknown tag, an unknown key
        raise SettingError(f"{name}: {str(error).rstrip('.')}. Expected: a tag or keys of timm's PretrainedCfg as "
                           'pretrained_cfg, such keys as pretrained_cfg_overlay.') from error
    num_stages = len(InceptionNeXt.arch_settings[arch]['depths'])
    if isinstance(out_indices, int):    # timm: the last so many
        out_indices = range(num_stages - out_indices, num_stages)
    in_channels = cfg.input_size[0] if in_chans is None else in_chans
    model = InceptionNeXtFeatures(arch, in_channels=in_channels, out_indices=tuple(out_indices), **settings)
    # Where timm looks for mean, std and input size.
    model.pretrained_cfg = model.default_cfg = dataclasses.replace(cfg, state_dict=None).to_dict()
    if pretrained:
        load_pretrained(model, source_of(cfg), cache_dir=cache_dir)
    return model


def source_of(cfg):
    """What :func:`~.checkpoint.load_pretrained` takes of timm's ``PretrainedCfg``, in timm's order.

    Raises:
        SettingError: It names no weights, or says how to read them in a way that is not known here.
    """
    for key in ('hf_hub_filename', 'custom_load'):
        if getattr(cfg, key):
            raise SettingError(f'{key} of the pretrained_cfg of {cfg.architecture} is {getattr(cfg, key)!r}; expected: '
                               'none, for weights are the model.safetensors of a repository. Next: '
                               'pretrained_cfg_overlay=dict(file=PATH), a .pth or .safetensors file')
    source = cfg.state_dict or cfg.file or (cfg.hf_hub_id and f'hf-hub://{cfg.hf_hub_id}') or cfg.url
    if not source:
        raise SettingError(f'pretrained is True, and the pretrained_cfg of {cfg.architecture} names no weights; '
                           'expected: state_dict, file, hf_hub_id or url')
    return source


@register_model
def inceptionnext_seg_atto(pretrained: bool = False, **settings: Any) -> InceptionNeXtFeatures:
    """InceptionNeXt-A."""
    return create('atto', pretrained, **settings)


@register_model
def inceptionnext_seg_tiny(pretrained: bool = False, **settings: Any) -> InceptionNeXtFeatures:
    """InceptionNeXt-T."""
    return create('tiny', pretrained, **settings)


@register_model
def inceptionnext_seg_small(pretrained: bool = False, **settings: Any) -> InceptionNeXtFeatures:
    """InceptionNeXt-S."""
    return create('small', pretrained, **settings)


@register_model
def inceptionnext_seg_base(pretrained: bool = False, **settings: Any) -> InceptionNeXtFeatures:
    """InceptionNeXt-B."""
    return create('base', pretrained, **settings)
