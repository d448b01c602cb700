"""MetaNeXt backbones: InceptionNeXt and, differing in data only, ConvNeXt.

The file reads in the order data flows: token mixer, MLP, block, stage, network, and then the two families as tables.

Sources: InceptionNeXt, https://arxiv.org/abs/2303.16900 (CVPR 2024), code https://github.com/sail-sg/inceptionnext;
ConvNeXt, https://arxiv.org/abs/2201.03545. Parameter names are those of the released InceptionNeXt weights, the same as
in timm's ``inception_next``; :mod:`inceptionnext_seg.models.checkpoint` maps every ConvNeXt naming to them.

This module needs torch, timm's layers and mmengine alone, so that any mm framework can use it.
"""
import contextlib

import torch
import torch.nn as nn
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmengine.model.weight_init import PretrainedInit, update_init_info
from mmengine.registry import MODELS
from timm.layers import DropPath, LayerNorm2d, trunc_normal_
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from ..errors import SettingError
from ..ops import dispatch, inception_dwconv, norm_mlp
from ..ops.batch_norm_act import batch_norm_act
from ..ops.patch_conv import patch_conv2d
from .checkpoint import load_pretrained, to_metanext_names

# What `norm_cfg` and `act_cfg` may name without mmcv; any other type is looked up in mmengine's registry, to which mmcv
# adds its own. 'LN' is the channel-wise LayerNorm of ConvNeXt, since a norm of the whole (C, H, W) has no use here.
NORMS = dict(BN=nn.BatchNorm2d, BN2d=nn.BatchNorm2d, SyncBN=nn.SyncBatchNorm, LN=LayerNorm2d, LN2d=LayerNorm2d)
ACTIVATIONS = dict(GELU=nn.GELU, ReLU=nn.ReLU, SiLU=nn.SiLU, Hardswish=nn.Hardswish)


def build_norm(norm_cfg, num_channels):
    """``norm_cfg`` as everywhere in OpenMMLab (``type``, ``requires_grad``, the layer's own arguments), or None."""
    if norm_cfg is None:
        return nn.Identity()
    norm_cfg = dict(norm_cfg)
    norm_type, requires_grad = norm_cfg.pop('type'), norm_cfg.pop('requires_grad', True)
    layer = NORMS.get(norm_type) or MODELS.get(norm_type)
    if layer is None:
        raise KeyError(f'norm_cfg type {norm_type!r} is neither one of {sorted(NORMS)} nor registered in MODELS')
    norm = layer(num_channels=num_channels, **norm_cfg) if layer is nn.GroupNorm else layer(num_channels, **norm_cfg)
    for parameter in norm.parameters():
        parameter.requires_grad = requires_grad
    return norm


def build_activation(act_cfg):
    """``act_cfg`` as everywhere in OpenMMLab: ``type`` and the layer's own arguments."""
    act_cfg = dict(act_cfg)
    act_type = act_cfg.pop('type')
    layer = ACTIVATIONS.get(act_type) or MODELS.get(act_type)
    if layer is None:
        raise KeyError(f'act_cfg type {act_type!r} is neither one of {sorted(ACTIVATIONS)} nor registered in MODELS')
    return layer(**act_cfg)


def lay_over(token_mixer, default):
    """``token_mixer`` (dict | None), its missing settings taken from ``default`` where the type is the same."""
    token_mixer = token_mixer or {}
    same_type = token_mixer.get('type', default['type']) == default['type']
    return dict(default, **token_mixer) if same_type else dict(token_mixer)


@MODELS.register_module()
class DWConv2d(nn.Conv2d):
    """ConvNeXt's token mixer: one depthwise ``kernel_size`` × ``kernel_size`` convolution, (B, C, H, W) to the same."""

    def __init__(self, channels, kernel_size=7):
        super().__init__(channels, channels, kernel_size, padding=kernel_size // 2, groups=channels)


@MODELS.register_module()
class PartialDWConv2d(nn.Module):
    """Token mixer of the paper's ConvNeXt k3 par1/2 to par1/16, (B, C, H, W) to the same.

    A depthwise convolution of the last ``int(channels * branch_ratio)`` channels; those before pass unchanged. Names
    and order are those of the released weights (sail-sg/inceptionnext, models/convnext.py).
    """

    def __init__(self, channels, kernel_size=3, branch_ratio=0.5):
        super().__init__()
        branch = int(channels * branch_ratio)
        if not 0 < branch <= channels:
            raise ValueError(f'branch_ratio {branch_ratio} of {channels} channels gives {branch} channels to convolve; '
                             f'wanted at least 1 and at most {channels}')
        self.split_sizes = (channels - branch, branch)
        self.conv = DWConv2d(branch, kernel_size)

    def forward(self, x):
        identity, convolved = x.split(self.split_sizes, dim=1)
        return torch.cat((identity, self.conv(convolved)), dim=1)


@MODELS.register_module()
class InceptionDWConv2d(nn.Module):
    """Inception depthwise convolution (arXiv:2303.16900), (B, C, H, W) to the same.

    The channels are split, in this order, into identity | square k×k | band 1×k (along the width) | band k×1 (along
    the height); the three convolutions run in parallel on ``int(channels * branch_ratio)`` channels each, and their
    outputs are concatenated in the same order. With ratio 1/8, five eighths of the channels pass unchanged.

    Args:
        impl (str): 'auto' takes one kernel for all of it where there is one, a C++ kernel on a CPU and a Triton kernel
            on CUDA, and torch's operators elsewhere; 'torch', 'native' and 'triton' take just this one
            (:func:`inceptionnext_seg.ops.inception_dwconv.inception_dwconv2d`).

    Raises:
        ValueError: The branches have no channels or too many, a kernel size is even, or ``impl`` is no such name.
    """

    def __init__(self, channels, square_kernel_size=3, band_kernel_size=11, branch_ratio=0.125, impl='auto'):
        super().__init__()
        branch = int(channels * branch_ratio)
        if not 0 < 3 * branch <= channels:
            raise ValueError(f'branch_ratio {branch_ratio} of {channels} channels gives {branch} channels a branch; '
                             f'wanted at least 1 and at most {channels // 3}')
        band, square = band_kernel_size, square_kernel_size
        if not (band % 2 and square % 2):
            raise ValueError(f'square_kernel_size is {square} and band_kernel_size {band}; wanted odd ones, with which '
                             'the output has the size of the input')
        dispatch.check_name('inception_dwconv2d', inception_dwconv.FORMS, impl)
        self.impl = impl
        self.split_sizes = (channels - 3 * branch, branch, branch, branch)
        self.dwconv_hw = nn.Conv2d(branch, branch, square, padding=square // 2, groups=branch)
        self.dwconv_w = nn.Conv2d(branch, branch, (1, band), padding=(0, band // 2), groups=branch)
        self.dwconv_h = nn.Conv2d(branch, branch, (band, 1), padding=(band // 2, 0), groups=branch)

    def forward(self, x):
        hw, w, h = self.dwconv_hw, self.dwconv_w, self.dwconv_h
        parameters = hw.weight, hw.bias, w.weight, w.bias, h.weight, h.bias
        if x.shape[1] == sum(self.split_sizes) and dispatch.choose(
                'inception_dwconv2d', inception_dwconv.FORMS, self.impl, x, *parameters) != 'torch':
            return inception_dwconv.inception_dwconv2d_kernel(x, *parameters)
        identity, square, width, height = x.split(self.split_sizes, dim=1)
        return torch.cat((identity, self.dwconv_hw(square), self.dwconv_w(width), self.dwconv_h(height)), dim=1)


class ConvMlp(nn.Module):
    """1×1 convolution, activation, 1×1 convolution: (B, C, H, W) to the same, ``hidden_channels`` between.

    The parameters are those of convolutions, as in the released weights; the arithmetic is a matrix product over the
    pixels, which needs no layout change when the input is channels_last and is faster than a 1×1 convolution on a CPU
    when it is not.
    """

    def __init__(self, channels, hidden_channels, act_cfg):
        super().__init__()
        self.fc1 = nn.Conv2d(channels, hidden_channels, 1)
        self.act = build_activation(act_cfg)
        self.fc2 = nn.Conv2d(hidden_channels, channels, 1)

    def forward(self, x):
        # Contiguous: torch multiplies what is not row by row of the image where the weight takes no gradient.
        x = x.permute(0, 2, 3, 1).contiguous()
        x = F.linear(x, self.fc1.weight.flatten(1), self.fc1.bias)
        x = self.act(x)
        x = F.linear(x, self.fc2.weight.flatten(1), self.fc2.bias)
        return x.permute(0, 3, 1, 2)


class MetaNeXtBlock(nn.Module):
    """``x + drop_path(gamma * mlp(norm(token_mixer(x))))``, (B, C, H, W) to the same."""

    def __init__(self, channels, token_mixer, norm_cfg, act_cfg, mlp_ratio, drop_path_rate, layer_scale_init_value,
                 impl):
        super().__init__()
        self.impl = impl
        self.token_mixer = MODELS.build(dict(token_mixer, channels=channels))
        self.norm = build_norm(norm_cfg, channels)
        self.mlp = ConvMlp(channels, int(mlp_ratio * channels), act_cfg)
        self.gamma = nn.Parameter(torch.full((channels, ), layer_scale_init_value)) if layer_scale_init_value else None
        self.drop_path = DropPath(drop_path_rate) if drop_path_rate > 0 else nn.Identity()

    def forward(self, x):
        y = self.token_mixer(x)
        if self.impl == 'auto':
            norm = self.norm if isinstance(self.norm, nn.BatchNorm2d) else None
            y = self.norm(y) if norm is None else y
            if dispatch.choose('norm_mlp', norm_mlp.FORMS, 'auto', x, y, norm, self.mlp.fc1, self.mlp.act,
                               self.mlp.fc2, self.gamma) != 'torch':
                factors = None
                if self.training and isinstance(self.drop_path, DropPath):
                    ones = x.new_ones(x.shape[0], 1, 1, 1, dtype=self.mlp.fc1.weight.dtype)
                    factors = self.drop_path(ones).flatten()
                return norm_mlp.norm_mlp(x, y, norm, self.mlp.fc1, self.mlp.act, self.mlp.fc2, self.gamma, factors)
            y = y if norm is None else norm(y)
        else:
            y = self.norm(y)
        y = self.mlp(y)
        if self.gamma is None:
            return x + self.drop_path(y)
        # Layer scale and stochastic depth are one factor per image and channel: with the residual, one memory pass.
        scale = self.drop_path(self.gamma.reshape(1, -1, 1, 1).expand(x.shape[0], -1, 1, 1))
        return torch.addcmul(x, scale, y)


class MetaNeXtStage(nn.Module):
    """Norm and 2×2 stride-2 convolution where ``downsample``, then the blocks: (B, C_in, H, W) to (B, C, H', W')."""

    def __init__(self, in_channels, channels, downsample, drop_path_rates, norm_cfg, with_cp, impl, **block_settings):
        super().__init__()
        self.with_cp = with_cp
        self.impl = impl
        self.downsample = nn.Sequential(
            build_norm(norm_cfg, in_channels),
            nn.Conv2d(in_channels, channels, 2, stride=2)) if downsample else nn.Identity()
        self.blocks = nn.Sequential(*[
            MetaNeXtBlock(channels, norm_cfg=norm_cfg, drop_path_rate=rate, impl=impl, **block_settings)
            for rate in drop_path_rates])

    def forward(self, x):
        if self.impl == 'auto' and isinstance(self.downsample, nn.Sequential):
            norm, conv = self.downsample
            x = patch_conv2d(batch_norm_act(norm, None, x), conv)
        else:
            x = self.downsample(x)
        for block in self.blocks:
            if self.with_cp and torch.is_grad_enabled():
                x = checkpoint(block, x, use_reentrant=False,
                               context_fn=lambda block=block: (contextlib.nullcontext(), keep_statistics(block)))
            else:
                x = block(x)
        return x


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
        arch (str | dict): A name in ``arch_settings``, or a dict with ``depths`` and ``dims`` and, as wanted,
            ``mlp_ratios`` and ``token_mixer``.
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
        token_mixer (dict | list[dict] | None): Config of the token mixer, or one per stage. It is laid over the one of
            ``arch`` where the type is the same or not given. None is the one of ``arch``.
        impl (str): 'torch' runs the modules one after another, as written; 'auto' computes the same with less traffic
            to memory where there is a kernel for it (today on a CPU). The token mixer has an ``impl`` of its own.
        init_cfg (dict | list[dict] | None): ``dict(type='Pretrained', checkpoint=PATH | URL | 'timm://NAME')`` loads
            strictly through :func:`inceptionnext_seg.models.checkpoint.load_pretrained`; others as in mmengine.

    Raises:
        ValueError: An unknown ``arch``, a wrong length or index, or an image smaller than the last stage's stride.
    """

    arch_settings = {}
    mlp_ratios = (4, 4, 4, 4)
    token_mixer = None

    def __init__(self,
                 arch='tiny',
                 in_channels=3,
                 out_indices=(0, 1, 2, 3),
                 drop_path_rate=0.,
                 layer_scale_init_value=1e-6,
                 norm_cfg=dict(type='BN'),
                 out_norm_cfg=None,
                 act_cfg=dict(type='GELU'),
                 frozen_stages=-1,
                 norm_eval=False,
                 with_cp=False,
                 token_mixer=None,
                 impl='auto',
                 init_cfg=None):
        super().__init__(init_cfg=init_cfg)
        if impl not in ('auto', 'torch'):
            raise ValueError(f"impl is {impl!r}; wanted 'auto' or 'torch'")
        arch = self.resolve_arch(arch)
        depths, dims = tuple(arch['depths']), tuple(arch['dims'])
        num_stages = len(depths)
        mlp_ratios = tuple(arch.get('mlp_ratios', self.mlp_ratios[:num_stages]))
        token_mixers = self.resolve_token_mixers(arch, token_mixer, num_stages)
        for name, value in (('dims', dims), ('mlp_ratios', mlp_ratios), ('token_mixer', token_mixers)):
            if len(value) != num_stages:
                raise ValueError(f'{name} has {len(value)} entries, but depths {depths} names {num_stages} stages')
        self.out_indices = tuple(i + num_stages if i < 0 else i for i in (
            [out_indices] if isinstance(out_indices, int) else out_indices))
        if not self.out_indices or not all(0 <= i < num_stages for i in self.out_indices):
            raise ValueError(f'out_indices {out_indices} names a stage that does not exist: there are {num_stages}')
        if not -1 <= frozen_stages <= num_stages:
            raise ValueError(f'frozen_stages {frozen_stages} is not between -1 and the {num_stages} stages')
        self.dims = dims
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        self.impl = impl

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
                impl=impl,
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
        if not isinstance(arch, str):
            missing = {'depths', 'dims'} - set(arch)
            if missing:
                raise ValueError(f'arch {dict(arch)} has no {" and no ".join(sorted(missing))}')
            return arch
        if arch not in cls.arch_settings:
            raise SettingError(f'{cls.__name__} has no arch {arch!r}; there are {", ".join(cls.arch_settings)}, '
                             'and a dict with depths and dims')
        return cls.arch_settings[arch]

    @classmethod
    def resolve_token_mixers(cls, arch, token_mixer, num_stages):
        default = lay_over(arch.get('token_mixer'), cls.token_mixer)
        per_stage = token_mixer if isinstance(token_mixer, (list, tuple)) else [token_mixer] * num_stages
        return [lay_over(mixer, default) for mixer in per_stage]

    @staticmethod
    def init_layer(module):
        if isinstance(module, nn.Conv2d):
            trunc_normal_(module.weight, std=.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)

    def init_weights(self):
        """Initialize as ``init_cfg`` says; 'Pretrained' is loaded strictly, the last, where mmengine would be lax."""
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
            raise ValueError(f'an image of {x.shape[2]}×{x.shape[3]} pixels is too small: stage '
                             f'{max(self.out_indices)} has stride {smallest}, so both sides must have at least '
                             f'{smallest} pixels')
        if self.impl == 'auto':
            conv, norm = self.stem
            x = batch_norm_act(norm, None, patch_conv2d(x, conv))   # stride 4
        else:
            x = self.stem(x)
        outputs = []
        for i, stage in enumerate(self.stages[:max(self.out_indices) + 1]):
            x = stage(x)                                        # stride 4, 8, 16, 32
            if i in self.out_indices:
                norm = getattr(self, f'norm{i}')
                outputs.append(batch_norm_act(norm, None, x) if self.impl == 'auto' else norm(x))
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
