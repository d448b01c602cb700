"""The backbones as feature extractors of timm: ``timm.create_model('inceptionnext_seg_tiny', features_only=True)``.

Importing the package registers them, so that whatever takes a timm encoder by name takes them, too:
segmentation_models.pytorch as ``tu-inceptionnext_seg_tiny``, Hugging Face's ``TimmBackbone``, a Detectron2 wrapper.
timm's own ``inception_next_*`` are the classifiers of the same weights; the parameter names are the same.
"""
from typing import Any

from timm.models import FeatureInfo, generate_default_cfgs, register_model

from ..errors import SettingError
from .checkpoint import load_pretrained
from .metanext import InceptionNeXt

TAG = 'sail_in1k'
ARCHITECTURES = ('atto', 'tiny', 'small', 'base')
default_cfgs = generate_default_cfgs({
    f'inceptionnext_seg_{arch}.{TAG}': dict(
        hf_hub_id=f'timm/inception_next_{arch}.{TAG}', input_size=(3, 224, 224), pool_size=(7, 7), num_classes=0,
        mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), interpolation='bicubic', first_conv='stem.0')
    for arch in ARCHITECTURES})


class InceptionNeXtFeatures(InceptionNeXt):
    """:class:`~.metanext.InceptionNeXt` with timm's ``feature_info``; its maps come as a list, as timm's do."""

    def __init__(self, arch, **settings):
        super().__init__(arch, **settings)
        self.feature_info = FeatureInfo(
            [dict(num_chs=channels, reduction=4 * 2**i, module=f'stages.{i}') for i, channels in enumerate(self.dims)],
            self.out_indices)

    def forward(self, x):
        return list(super().forward(x))


def create(arch: str, pretrained: bool, features_only: bool = False, in_chans: int = 3,
           out_indices: Any = (0, 1, 2, 3), output_stride: int = 32, pretrained_cfg: Any = None,
           pretrained_cfg_overlay: Any = None, cache_dir: Any = None, **settings: Any) -> InceptionNeXtFeatures:
    """What the entry points share: timm's arguments, and ``settings`` of :class:`~.metanext.InceptionNeXt`."""
    if not features_only:
        raise SettingError(f'inceptionnext_seg_{arch} has no classifier; expected: features_only=True. Next: the '
                           f"classifier is timm's own inception_next_{arch}.")
    if output_stride != 32:
        raise SettingError(f'output_stride of inceptionnext_seg_{arch} is {output_stride}; expected: 32')
    num_stages = len(InceptionNeXt.arch_settings[arch]['depths'])
    if isinstance(out_indices, int):    # timm: the last so many
        out_indices = range(num_stages - out_indices, num_stages)
    model = InceptionNeXtFeatures(arch, in_channels=in_chans, out_indices=tuple(out_indices), **settings)
    if pretrained:
        tag = pretrained_cfg if isinstance(pretrained_cfg, str) else TAG
        load_pretrained(model, f'timm://inception_next_{arch}.{tag}')
    return model


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
