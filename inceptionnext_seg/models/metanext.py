"""MetaNeXt backbones: InceptionNeXt and, differing in data only, ConvNeXt.

The file reads in the order data flows: MLP, block, stage, network, and then the two families as tables. The token
mixers, in which the families differ, are in :mod:`.token_mixers`.

Sources: InceptionNeXt, https://arxiv.org/abs/2303.16900 (CVPR 2024), code https://github.com/sail-sg/inceptionnext;
ConvNeXt, https://arxiv.org/abs/2201.03545. Parameter names are those of the released InceptionNeXt weights, the same as
in timm's ``inception_next``; :mod:`.weight_names` maps every ConvNeXt naming to them.

This module needs only torch, timm's layers and mmengine, so that any mm framework can use it.
"""
import contextlib
from collections.abc import Sequence

import torch
import torch.nn as nn
from mmengine.model import BaseModule
from mmengine.model.weight_init import PretrainedInit, update_init_info
from mmengine.registry import MODELS
from timm.layers import DropPath, trunc_normal_
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from ..errors import SettingError
from . import token_mixers as token_mixers  # registers what `token_mixer` names
from .checkpoint import load_pretrained
from .layers import build_activation, build_norm, with_defaults
from .weight_names import to_metanext_names


class ConvMlp(nn.Module):
    """1×1 convolution, activation, 1×1 convolution: (B, C, H, W) to the same, ``hidden_channels`` between."""

    def __init__(self, channels, hidden_channels, act_cfg):
        super().__init__()
        self.fc1 = nn.Conv2d(channels, hidden_channels, 1)
        self.act = build_activation(act_cfg)
        self.fc2 = nn.Conv2d(hidden_channels, channels, 1)

    def forward(self, x):
        return self.fc2(self.act(self.fc1(x)))


class MetaNeXtBlock(nn.Module):
    """``x + drop_path(gamma * mlp(norm(token_mixer(x))))``, (B, C, H, W) to the same."""

    def __init__(self, channels, token_mixer, norm_cfg, act_cfg, mlp_ratio, drop_path_rate, layer_scale_init_value):
        super().__init__()
        self.token_mixer = MODELS.build(dict(token_mixer, channels=channels))
        self.norm = build_norm(norm_cfg, channels)
        self.mlp = ConvMlp(channels, int(mlp_ratio * channels), act_cfg)
        self.gamma = nn.Parameter(torch.full((channels, ), layer_scale_init_value)) if layer_scale_init_value else None
        self.drop_path = DropPath(drop_path_rate) if drop_path_rate > 0 else nn.Identity()

    def forward(self, x):
        y = self.token_mixer(x)
        y = self.norm(y)
        y = self.mlp(y)
        if self.gamma is not None:
            y = y * self.gamma.reshape(1, -1, 1, 1)
        return x + self.drop_path(y)


class MetaNeXtStage(nn.Module):
    """Norm and 2×2 stride-2 convolution where ``downsample``, then the blocks: (B, C_in, H, W) to (B, C, H', W')."""

    def __init__(self, in_channels, channels, downsample, drop_path_rates, norm_cfg, with_cp, **block_settings):
        super().__init__()
        self.with_cp = with_cp
        self.downsample = nn.Sequential(
            build_norm(norm_cfg, in_channels),
            nn.Conv2d(in_channels, channels, 2, stride=2)) if downsample else nn.Identity()
        self.blocks = nn.Sequential(*[
            MetaNeXtBlock(channels, norm_cfg=norm_cfg, drop_path_rate=rate, **block_settings)
            for rate in drop_path_rates])

    def forward(self, x):
        x = self.downsample(x)
        for block in self.blocks:
            x = recompute(block, x) if self.with_cp and torch.is_grad_enabled() else block(x)
        return x


def recompute(block, x):
    """``block(x)`` whose intermediate maps the backward pass computes again instead of keeping them."""
    if torch.compiler.is_compiling():   # torch.compile recomputes values and no statistics, and knows no context_fn
        return checkpoint(block, x, use_reentrant=False)
    return checkpoint(block, x, use_reentrant=False,
                      context_fn=lambda: (contextlib.nullcontext(), keep_statistics(block)))


@contextlib.contextmanager
def keep_statistics(module):
    """Run ``module`` without moving its BatchNorm statistics: recomputing a block must not count a batch twice."""
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm) and m.training and m.track_running_stats]
    saved = [(norm, norm.momentum, norm.num_batches_tracked.clone()) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum, num_batches_tracked in saved:
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(num_batches_tracked)


class MetaNeXt(BaseModule):
    """A MetaNeXt backbone: image (B, in_channels, H, W) to a tuple of feature maps at strides 4, 8, 16, 32.

    Map ``i`` is (B, dims[i], H // (4 · 2^i), W // (4 · 2^i)), with the floor taken at each downsampling, as in timm.

    Args:
        arch (str | dict): A name in ``arch_settings``, or a dict with ``depths`` and ``dims`` and, if
            need be, ``mlp_ratios`` and ``token_mixer``.
        in_channels (int): Channels of the image.
        out_indices (Sequence[int]): Stages whose output is returned; negative ones count from the last.
        drop_path_rate (float): Stochastic depth of the last block; it grows linearly from 0 at the first.
        layer_scale_init_value (float): Initial value of ``gamma``; 0 leaves layer scale out.
        norm_cfg (dict): Norm of stem, downsampling and blocks.
        out_norm_cfg (dict | None): A new norm ``normI`` on each output stage. InceptionNeXt's author did so for
            segmentation (sail-sg/inceptionnext, issues 10 and 11); ImageNet classification does not.
        act_cfg (dict): Activation of the MLP.
        frozen_stages (int): -1 trains everything, 0 freezes the stem, k the stem and the first k stages. Norms of
            frozen parts stay in eval mode. Output norms are new in segmentation and are never frozen.
        norm_eval (bool): Keep every BatchNorm of the backbone in eval mode while training, new output norms too, which
            then never learn their statistics: choose an ``out_norm_cfg`` without any, such as LN2d.
        with_cp (bool): Gradient checkpointing, block by block; gradients and BatchNorm statistics stay the same.
        token_mixer (dict | list[dict] | None): Config of the token mixer, or one per stage. Keys that it lacks are
            those of ``arch`` where the type is the same or not given. None takes that of ``arch``.
        init_cfg (dict | list[dict] | None): ``dict(type='Pretrained', checkpoint=PATH | URL | 'timm://NAME')`` loads
            strictly through :func:`inceptionnext_seg.models.checkpoint.load_pretrained`; others as in mmengine.

    Raises:
        SettingError: An unknown ``arch``, a wrong length or index, or an image smaller than the last stage's stride.
    """

    arch_settings = {}
    mlp_ratios = (4, 4, 4, 4)
    token_mixer = None

    def __init__(self,
                 arch: str | dict = 'tiny',
                 in_channels: int = 3,
                 out_indices: int | Sequence[int] = (0, 1, 2, 3),
                 drop_path_rate: float = 0.,
                 layer_scale_init_value: float = 1e-6,
                 norm_cfg: dict = dict(type='BN'),
                 out_norm_cfg: dict | None = None,
                 act_cfg: dict = dict(type='GELU'),
                 frozen_stages: int = -1,
                 norm_eval: bool = False,
                 with_cp: bool = False,
                 token_mixer: dict | list[dict] | None = None,
                 init_cfg: dict | list[dict] | None = None):
        super().__init__(init_cfg=init_cfg)
        arch = self.resolve_arch(arch)
        depths, dims = tuple(arch['depths']), tuple(arch['dims'])
        num_stages = len(depths)
        mlp_ratios = tuple(arch.get('mlp_ratios', self.mlp_ratios[:num_stages]))
        token_mixers = self.resolve_token_mixers(arch, token_mixer, num_stages)
        for name, value in (('dims', dims), ('mlp_ratios', mlp_ratios), ('token_mixer', token_mixers)):
            if len(value) != num_stages:
                raise SettingError(f'{name} has {len(value)} entries; expected: {num_stages}, one for each of depths '
                                   f'{depths}')
        indices = [out_indices] if isinstance(out_indices, int) else out_indices
        are_whole = isinstance(indices, Sequence) and all(isinstance(i, int) for i in indices)
        self.out_indices = tuple(i + num_stages if i < 0 else i for i in indices) if are_whole else ()
        if not self.out_indices or not all(0 <= i < num_stages for i in self.out_indices):
            raise SettingError(f'out_indices is {out_indices!r}; expected: stages between {-num_stages} and '
                               f'{num_stages - 1}, at least one')
        if not -1 <= frozen_stages <= num_stages:
            raise SettingError(f'frozen_stages is {frozen_stages}; expected: -1 to {num_stages}, the number of stages')
        self.dims = dims
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval

        self.stem = nn.Sequential(nn.Conv2d(in_channels, dims[0], 4, stride=4), build_norm(norm_cfg, dims[0]))
        last = max(sum(depths) - 1, 1)
        rates = [drop_path_rate * i / last for i in range(sum(depths))]
        self.stages = nn.ModuleList([
            MetaNeXtStage(
                in_channels=dims[max(i - 1, 0)],
                channels=dims[i],
                downsample=i > 0,
                drop_path_rates=rates[sum(depths[:i]):sum(depths[:i + 1])],
                norm_cfg=norm_cfg,
                with_cp=with_cp,
                act_cfg=act_cfg,
                token_mixer=token_mixers[i],
                mlp_ratio=mlp_ratios[i],
                layer_scale_init_value=layer_scale_init_value) for i in range(num_stages)])
        for i in self.out_indices:
            self.add_module(f'norm{i}', build_norm(out_norm_cfg, dims[i]))

        self.apply(self.init_layer)
        self.freeze_stages()

    @classmethod
    def resolve_arch(cls, arch):
        if isinstance(arch, dict):
            missing = {'depths', 'dims'} - set(arch)
            if missing:
                raise SettingError(f'arch is {dict(arch)}; expected: {" and ".join(sorted(missing))} in it, too')
            return arch
        if not isinstance(arch, str) or arch not in cls.arch_settings:
            raise SettingError(f'arch of {cls.__name__} is {arch!r}; expected: one of {", ".join(cls.arch_settings)}, '
                               'or a dict with depths and dims')
        return cls.arch_settings[arch]

    @classmethod
    def resolve_token_mixers(cls, arch, token_mixer, num_stages):
        default = with_defaults(arch.get('token_mixer'), cls.token_mixer)
        per_stage = token_mixer if isinstance(token_mixer, (list, tuple)) else [token_mixer] * num_stages
        return [with_defaults(mixer, default) for mixer in per_stage]

    @staticmethod
    def init_layer(module):
        if isinstance(module, nn.Conv2d):
            trunc_normal_(module.weight, std=.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)

    def init_weights(self):
        """Initialize as ``init_cfg`` says; 'Pretrained' comes last and is loaded strictly, unlike in mmengine."""
        if self.is_init:
            super().init_weights()      # warns
            return
        init_cfg = self.init_cfg
        init_cfgs = [init_cfg] if isinstance(init_cfg, dict) else list(init_cfg or [])
        pretrained = [cfg for cfg in init_cfgs if cfg['type'] in ('Pretrained', PretrainedInit)]
        self.init_cfg = [cfg for cfg in init_cfgs if cfg not in pretrained]
        try:
            super().init_weights()
        finally:
            self.init_cfg = init_cfg
        self.is_init = False            # until all is loaded: after an error the next call must try again
        for cfg in pretrained:
            load_pretrained(self, cfg['checkpoint'], prefix=cfg.get('prefix'))
            if hasattr(self, '_params_init_info'):
                update_init_info(self, init_info=f'Pretrained weights from {cfg["checkpoint"]}')
        self.is_init = True

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):
        # Here, since every way of loading passes here: whole checkpoints of OpenMMLab's UperNets load as they are.
        to_metanext_names(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def frozen_modules(self):
        return [self.stem, *self.stages[:self.frozen_stages]] if self.frozen_stages >= 0 else []

    def freeze_stages(self):
        for module in self.frozen_modules():
            module.eval()
            for parameter in module.parameters():
                parameter.requires_grad = False

    def train(self, mode=True):
        """As ``nn.Module.train``, with frozen parts, and every BatchNorm where ``norm_eval``, kept in eval mode."""
        super().train(mode)
        self.freeze_stages()
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def forward(self, x):
        smallest = 4 * 2**max(self.out_indices)
        if min(x.shape[2:]) < smallest:
            raise SettingError(f'the image has {x.shape[2]}×{x.shape[3]} pixels; expected: at least {smallest} on both '
                               f'sides, the stride of stage {max(self.out_indices)}')
        x = self.stem(x)                    # stride 4
        outputs = []
        for i, stage in enumerate(self.stages[:max(self.out_indices) + 1]):
            x = stage(x)                    # stride 4, 8, 16, 32
            if i in self.out_indices:
                outputs.append(getattr(self, f'norm{i}')(x))
        return tuple(outputs)


@MODELS.register_module()
class InceptionNeXt(MetaNeXt):
    __doc__ = MetaNeXt.__doc__.replace('A MetaNeXt backbone', 'InceptionNeXt', 1)

    mlp_ratios = (4, 4, 4, 3)
    token_mixer = dict(type='InceptionDWConv2d', square_kernel_size=3, band_kernel_size=11, branch_ratio=1 / 8)
    arch_settings = dict(
        atto=dict(depths=(2, 2, 6, 2), dims=(40, 80, 160, 320),
                  token_mixer=dict(band_kernel_size=9, branch_ratio=1 / 4)),
        tiny=dict(depths=(3, 3, 9, 3), dims=(96, 192, 384, 768)),
        small=dict(depths=(3, 3, 27, 3), dims=(96, 192, 384, 768)),
        base=dict(depths=(3, 3, 27, 3), dims=(128, 256, 512, 1024)),
    )


@MODELS.register_module()
class ConvNeXt(MetaNeXt):
    __doc__ = MetaNeXt.__doc__.replace('A MetaNeXt backbone', 'ConvNeXt, the baseline', 1)

    token_mixer = dict(type='DWConv2d', kernel_size=7)
    # tiny, small, base: facebookresearch/ConvNeXt. atto to nano: timm/models/convnext.py.
    arch_settings = dict(
        atto=dict(depths=(2, 2, 6, 2), dims=(40, 80, 160, 320)),
        femto=dict(depths=(2, 2, 6, 2), dims=(48, 96, 192, 384)),
        pico=dict(depths=(2, 2, 6, 2), dims=(64, 128, 256, 512)),
        nano=dict(depths=(2, 2, 8, 2), dims=(80, 160, 320, 640)),
        tiny=dict(depths=(3, 3, 9, 3), dims=(96, 192, 384, 768)),
        small=dict(depths=(3, 3, 27, 3), dims=(96, 192, 384, 768)),
        base=dict(depths=(3, 3, 27, 3), dims=(128, 256, 512, 1024)),
    )

    def __init__(self,
                 arch='tiny',
                 *,
                 norm_cfg=dict(type='LN2d', eps=1e-6),
                 out_norm_cfg=dict(type='LN2d', eps=1e-6),
                 **settings):
        super().__init__(arch, norm_cfg=norm_cfg, out_norm_cfg=out_norm_cfg, **settings)
