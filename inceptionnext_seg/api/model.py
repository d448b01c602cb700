"""A segmentor as a plain ``nn.Module``: images in, logits at the images' size out, and one method for the loss."""
import contextlib
import logging
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn
from huggingface_hub import PyTorchModelHubMixin
from huggingface_hub.utils import HFValidationError
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from ..acceleration import accelerate as accelerate_model
from ..engine.explaining import explained
from ..errors import SettingError, UserError
from ..models.checkpoint import load_strictly, read_file
from ..models.layers import input_channels
from ..ops import measured
from ..ops.bilinear import resize

PARTS = ('backbone', 'neck', 'decode_head', 'auxiliary_head')
# What a model that is described by a file may be built of. mmengine's registries also build what is named by a path of
# Python, whatever it does: the config.json of a stranger's model is untrusted input.
TYPES = {
    'InceptionNeXt', 'ConvNeXt', 'InceptionDWConv2d', 'PartialInceptionDWConv2d', 'DWConv2d', 'PartialDWConv2d', 'FPN',
    'UPerHead', 'FPNHead', 'FCNHead', 'PSPHead', 'BN', 'BN2d', 'SyncBN', 'LN', 'LN2d', 'GN', 'GELU', 'ReLU', 'SiLU',
    'Hardswish', 'CrossEntropyLoss', 'Normal', 'Constant', 'Xavier', 'Kaiming', 'TruncNormal'}
# What mmengine adds to the parts of a config whose base is one of a package.
SCOPES = ('mmseg', 'mmengine')
IMAGENET_MEAN, IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)

CARD = """---
{{ card_data }}
---

# {{ model_name | default("InceptionNeXt segmentation model", true) }}

A model for semantic segmentation, written by `inceptionnext-seg` ([paper]({{ paper_url }}) of the backbone).

```python
from inceptionnext_seg import SegmentationModel

model = SegmentationModel.from_pretrained('THIS REPOSITORY OR FOLDER').eval()
logits = model(images)              # uint8 RGB (B, 3, H, W) -> (B, classes, H, W)
classes = logits.argmax(1)
```

Architecture, normalization and class names are in `config.json`, the weights in `model.safetensors`.

## Trained on

{{ dataset | default("not stated", true) }}

## Evaluation

{{ metrics | default("not stated", true) }}
"""


def check_types(settings: Any) -> None:
    """Refuse ``settings`` that would build anything but ``TYPES``, or would import a package or load a file for it.

    Raises:
        SettingError: Names what is not.
    """
    if isinstance(settings, dict):
        # Compared as a list: what is no text may not be hashable.
        if 'type' in settings and settings['type'] not in sorted(TYPES):
            raise SettingError(f'the architecture names {settings["type"]!r}, which is not built from a description. '
                               f'Expected: one of {", ".join(sorted(TYPES))}. Next: build other modules through '
                               'mmseg.registry, and from files that you trust.')
        # mmengine imports the package that a scope names.
        if settings.get('_scope_') not in (None, *SCOPES):
            raise SettingError(f'the architecture has the scope {settings["_scope_"]!r}, a package that would be '
                               f'imported. Expected: {" or ".join(SCOPES)}, or none. Next: leave `_scope_` out.')
        # mmseg takes text for the path or URL of a file, which may be a pickle.
        if isinstance(settings.get('class_weight'), str):
            raise SettingError(f'class_weight of the architecture is {settings["class_weight"]!r}, a file that would '
                               'be loaded. Expected: a list of numbers. Next: give the numbers in that file.')
        settings = list(settings.values())
    if isinstance(settings, list | tuple):
        for value in settings:
            check_types(value)


@contextlib.contextmanager
def quietly():
    """mmengine prints four lines for each parameter that it initializes, where no log file takes them."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


class SegmentationModel(
        nn.Module, PyTorchModelHubMixin, library_name='inceptionnext-seg', pipeline_tag='image-segmentation',
        tags=['semantic-segmentation', 'inceptionnext'], paper_url='https://arxiv.org/abs/2303.16900',
        model_card_template=CARD):
    """Images (B, C, H, W) to logits (B, classes, H, W), by a backbone and a decode head of MMSegmentation.

    :func:`~.create.create_model` makes one. The keys of the state dict are those of MMSegmentation's
    ``EncoderDecoder``: a checkpoint of ``tools/train.py`` loads here, and ``tools/test.py`` takes what is saved here.
    ``save_pretrained(folder)``, ``push_to_hub(name)`` and ``SegmentationModel.from_pretrained(folder_or_name)`` are
    those of ``huggingface_hub``, with safetensors, except that loading is strict.

    Args:
        architecture (dict): Settings of ``backbone``, ``decode_head`` and, where there are, ``neck`` and
            ``auxiliary_head``, as in a config's ``model``.
        mean, std (Sequence[float] | None): Of each channel, in the units of 8-bit images. None for images that are
            always normalized by the caller.
        class_names (Sequence[str] | None): For the reader; nothing is computed from them.
        palette (Sequence[Sequence[int]] | None): An RGB colour for each class, likewise.
        accelerate (bool): Call :func:`inceptionnext_seg.accelerate` on it: the same function, faster, with the
            parameters in channels_last.

    Attributes:
        in_channels (int): Of the images.
        num_classes (int): Channels of the logits.

    Raises:
        SettingError: A part is missing or unknown; in ``from_pretrained`` also a type that is not one of ``TYPES``,
            a scope that is not one of ``SCOPES``, or class weights in a file.
        UserError: A class does not know one of its settings.
    """

    def __init__(self, architecture: dict, mean: list | None = IMAGENET_MEAN, std: list | None = IMAGENET_STD,
                 class_names: list | None = None, palette: list | None = None, accelerate: bool = True) -> None:
        super().__init__()
        unknown = set(architecture) - set(PARTS)
        if unknown or not {'backbone', 'decode_head'} <= set(architecture):
            raise SettingError(f'the architecture has {", ".join(sorted(architecture)) or "nothing"}; expected: '
                               'backbone and decode_head, and at most neck and auxiliary_head')
        # Only while it is built: a scope that stays would be another library's, too.
        with DefaultScope.overwrite_default_scope('mmseg'), explained():
            for part in PARTS:
                setattr(self, part, MODELS.build(dict(architecture[part])) if architecture.get(part) else None)
        with quietly():
            for part in filter(None, map(self._modules.get, PARTS)):
                if not next(part.parameters()).is_meta:
                    part.init_weights()
        self.in_channels = input_channels(self.backbone)
        self.num_classes: int = self.decode_head.out_channels
        if self.num_classes < 1:
            raise SettingError(f'num_classes is {self.num_classes}; expected: at least 1. Next: for maps without a '
                               'head create_backbone.')
        self.class_names = None if class_names is None else tuple(class_names)
        self.palette = None if palette is None else tuple(map(tuple, palette))
        for name, value in (('class_names', self.class_names), ('palette', self.palette)):
            if value is not None and len(value) != self.num_classes:
                raise SettingError(f'{name} has {len(value)} entries; expected: {self.num_classes}, one for each class')
        # As those of MMSegmentation's data preprocessor, they are of no state dict.
        for name, values in (('mean', mean), ('std', std)):
            values = None if values is None else torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1)
            self.register_buffer(name, values, persistent=False)
        self.acceleration = accelerate_model(self) if accelerate else None
        if accelerate:
            measured.recall()

    def extra_repr(self):
        return f'num_classes={self.num_classes}'

    def normalize(self, images: torch.Tensor) -> torch.Tensor:
        """What :meth:`forward` does to 8-bit images: float32, minus the mean, divided by the standard deviation.

        Raises:
            SettingError: The model has no mean and standard deviation.
        """
        if self.mean is None or self.std is None:
            raise SettingError('this model has no mean and std, so it cannot normalize 8-bit images; expected: images '
                               'of floats that are normalized already, or a model with mean= and std=')
        return (images.to(self.mean.dtype) - self.mean) / self.std

    def extract_features(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Maps of the backbone, or of the neck where there is one, from images as :meth:`forward` takes them."""
        if images.dim() != 4 or images.shape[1] != self.in_channels:
            raise SettingError(f'the images are {tuple(images.shape)}; expected: (B, {self.in_channels}, H, W)')
        if not images.is_floating_point():
            if images.dtype != torch.uint8:
                raise SettingError(f'the images are {images.dtype}; expected: torch.uint8, or normalized floats')
            images = self.normalize(images)
        if self.acceleration is not None and self.acceleration.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        features = self.backbone(images)
        return features if self.neck is None else self.neck(features)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits at the images' own size, which need not be a multiple of anything.

        Args:
            images (Tensor): (B, C, H, W), H and W at least 32. uint8 is RGB from 0 to 255 and is normalized here;
                floats are taken as normalized already, as in timm (for ImageNet's mean and standard deviation,
                ``(x / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]``), and are not changed.

        Returns:
            Tensor: (B, classes, H, W), before softmax; of the decode head alone, in training too.

        Raises:
            SettingError: Another shape or dtype, or a side below 32 pixels.
        """
        logits = self.decode_head(self.extract_features(images))
        return resize(logits, images.shape[2:], self.decode_head.align_corners)

    def loss(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The training loss: cross-entropy of the logits at the labels' size, plus the weighted auxiliary one.

        Faster than a loss of ``model(images)``, and with less memory: full-resolution logits are not materialized.

        Args:
            images (Tensor): As in :meth:`forward`.
            labels (Tensor): (B, H, W), class indices of any integer type; 255, ``decode_head.ignore_index``, is none.

        Returns:
            Tensor: A number with a gradient.

        Raises:
            SettingError: Labels of another shape or dtype.
            UserError: A label is neither a class nor 255.
        """
        if labels.shape != (len(images), *images.shape[2:]) or labels.is_floating_point():
            raise SettingError(f'the labels are {tuple(labels.shape)}, {labels.dtype}; expected: '
                               f'{(len(images), *images.shape[2:])}, integers')
        features = self.extract_features(images)
        samples = [SegDataSample(gt_sem_seg=PixelData(data=label.long()[None])) for label in labels]
        heads = [head for head in (self.decode_head, self.auxiliary_head) if head is not None]
        losses = [head.loss(features, samples, {}) for head in heads]
        return sum(value for found in losses for name, value in found.items() if 'loss' in name)

    # Weights on the hub

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **settings: Any) -> 'SegmentationModel':
        """That of ``huggingface_hub``, from a folder or a name on the hub, in eval mode.

        Raises:
            UserError: It is neither.
        """
        try:
            return super().from_pretrained(pretrained_model_name_or_path, **settings)
        except HFValidationError as error:
            raise UserError(f'{pretrained_model_name_or_path} is no folder, and no name on the hub. Expected: the '
                            'folder of save_pretrained, or USER/NAME. Next: check the path.') from error

    def _save_pretrained(self, save_directory):
        check_types(self._hub_mixin_config['architecture'])     # others could not load it
        super()._save_pretrained(save_directory)

    @classmethod
    def _from_pretrained(cls, **settings):
        if not isinstance(settings.get('architecture'), dict):
            raise SettingError(f'config.json of {settings.get("model_id")} describes no architecture; expected: that '
                               'of SegmentationModel.save_pretrained. Next: for other weights create_model(NAME, '
                               'checkpoint=PATH or URL).')
        check_types(settings['architecture'])
        return super()._from_pretrained(**settings)

    @classmethod
    def _load_as_safetensor(cls, model, model_file, map_location, strict):
        """In place of huggingface_hub's, for it leaves out what does not fit unless told otherwise."""
        load_strictly(model, read_file(model_file), model_file)
        return model.to(map_location).eval()

    _load_as_pickle = _load_as_safetensor
