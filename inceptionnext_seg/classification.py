"""InceptionNeXt's classifier for MMPretrain: the MLP head of the paper, and the released weights as they are.

Named in ``custom_imports`` of ``configs/classification``; the rest of the package does without MMPretrain.
"""
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn as nn
from mmpretrain.models.classifiers import ImageClassifier
from mmpretrain.models.heads import ClsHead
from mmpretrain.registry import MODELS
from timm.layers import trunc_normal_

from .errors import SettingError
from .models.checkpoint import load_strictly, read_checkpoint, state_dict_of


@MODELS.register_module()
class InceptionNeXtClsHead(ClsHead):
    """The head of InceptionNeXt's ImageNet models: average pooling, linear layer, GELU, LayerNorm, linear layer.

    The parameters have the names of the released weights and of timm's ``MlpClassifierHead``: ``fc1``, ``norm``,
    ``fc2``.

    Args:
        num_classes (int): Channels of the logits.
        in_channels (int): Channels of the backbone's last map.
        mlp_ratio (float): Width of the hidden layer over ``in_channels``; 3 in timm and the official code.
        dropout_ratio (float): Before the last layer.
        init_cfg (dict | None): ``dict(type='Pretrained', checkpoint=PATH | URL | 'timm://NAME')`` loads the head of a
            whole model strictly; None leaves it as timm initializes it.
        **kwargs: ``loss``, ``topk`` and ``cal_acc``, as in MMPretrain's heads.

    Raises:
        SettingError: There are no classes.
        UserError: The weights of ``init_cfg`` cannot be read, or do not fit.
    """

    def __init__(self, num_classes: int, in_channels: int, mlp_ratio: float = 3, dropout_ratio: float = 0.,
                 init_cfg: dict | None = None, **kwargs: Any) -> None:
        super().__init__(init_cfg=init_cfg, **kwargs)
        if num_classes < 1:
            raise SettingError(f'num_classes of {type(self).__name__} is {num_classes}; expected: at least 1')
        self.in_channels, self.num_classes = in_channels, num_classes
        hidden = int(mlp_ratio * in_channels)
        self.fc1 = nn.Linear(in_channels, hidden)
        self.act = nn.GELU()
        self.norm = nn.LayerNorm(hidden, eps=1e-6)
        self.drop = nn.Dropout(dropout_ratio)
        self.fc2 = nn.Linear(hidden, num_classes)
        for layer in (self.fc1, self.fc2):
            trunc_normal_(layer.weight, std=.02)
            nn.init.zeros_(layer.bias)

    def init_weights(self) -> None:
        if not self.init_cfg or self.init_cfg['type'] != 'Pretrained':
            super().init_weights()
            return
        source = self.init_cfg['checkpoint']
        prefix = self.init_cfg.get('prefix', 'head.')
        load_strictly(self, state_dict_of(read_checkpoint(source), source, prefix), source)
        self.is_init = True

    def pre_logits(self, feats: Sequence[torch.Tensor]) -> torch.Tensor:
        """Maps of the backbone, the last one (B, C, H, W), to (B, mlp_ratio · C)."""
        x = feats[-1].mean((2, 3))
        x = self.fc1(x)
        x = self.act(x)
        return self.norm(x)

    def forward(self, feats: Sequence[torch.Tensor]) -> torch.Tensor:
        """Maps of the backbone to logits (B, num_classes)."""
        return self.fc2(self.drop(self.pre_logits(feats)))


@MODELS.register_module()
class InceptionNeXtClassifier(ImageClassifier):
    """MMPretrain's ``ImageClassifier``, which also loads the released weights, and timm's, under their own names.

    ``stem.…`` and ``stages.…`` become ``backbone.stem.…`` and ``backbone.stages.…``; ``head.…`` is the same in both. So
    ``tools/test.py CONFIG inceptionnext_tiny.pth`` and ``load_from`` take them as they are.
    """

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any) -> None:
        for key in [key for key in state_dict if key.startswith((f'{prefix}stem.', f'{prefix}stages.'))]:
            state_dict[f'{prefix}backbone.{key.removeprefix(prefix)}'] = state_dict.pop(key)
        super()._load_from_state_dict(state_dict, prefix, *args)
