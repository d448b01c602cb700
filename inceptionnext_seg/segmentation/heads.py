"""Fast classes of MMSegmentation's decode heads: the same parameters, the same checkpoints, the same function."""
import torch
import torch.nn as nn
from mmcv.cnn import ConvModule
from mmseg.models.decode_heads import FCNHead, FPNHead, PSPHead, UPerHead
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.decode_heads.psp_head import PPM
from mmseg.models.utils import Upsample

from .._fast import Fast, is_bare
from ..acceleration.conv_norm_act import channel_dropout, conv_norm_act, drops_channels, is_plain_conv, resized
from ..ops.adaptive_pooling import adaptive_avg_pools2d
from ..ops.bilinear import resize
from ..ops.dtypes import compute_dtype
from ..ops.patch_conv import patch_conv2d
from ..ops.upsampled_cross_entropy import why_not_triton
from .loss import losses_from_sums, takes_sums


def upsamples_as_stock(head: nn.Module) -> bool:
    """Whether what a segmentor predicts is made of ``head.forward``'s logits by mmseg's ``BaseDecodeHead`` itself."""
    cls = type(head)
    return (issubclass(cls, BaseDecodeHead) and cls.predict is BaseDecodeHead.predict
            and cls.predict_by_feat is BaseDecodeHead.predict_by_feat)


class FastHead(Fast):
    """For a decode head whose ``ConvModule``\\ s are called through :meth:`convolve`."""
    parts = ('convolutions', 'loss')

    def convolve(self, module, features, size=None):
        """``module(cat([resize(x, size) for x in features], 1))``; the size is by default that of the first map."""
        size = tuple(features[0].shape[2:] if size is None else size)
        if self.form('convolutions') is False or not is_conv_norm_act(module):
            return module(resized(features, size, self.align_corners))
        return conv_norm_act(
            self, module.conv, module.norm if module.with_norm else None,
            module.activate if module.with_activation else None, features, size, self.align_corners)

    def cls_seg(self, feat):
        """As mmseg's, with the dropout of whole channels in the weights rather than in a copy of the map."""
        if self.form('convolutions') is False or not (
                is_plain_conv(self.conv_seg, kernel=1, padding=0) and drops_channels(self.dropout)):
            return super().cls_seg(feat)
        factors = channel_dropout(self.dropout, feat, compute_dtype(feat.dtype))
        return patch_conv2d(feat, self.conv_seg, factors, impl=self.form('convolutions'))

    def loss_by_feat(self, seg_logits, batch_data_samples):
        """As mmseg's: losses by name, and ``acc_seg`` in per cent, from logits (B, classes, h, w).

        Raises:
            UserError: A label is neither a class nor ``ignore_index``.
        """
        form = self.form('loss', 'native', 'triton', 'blocked')
        # Without a kernel, beside the CPU, stock has some twenty operators, where rows in blocks have thousands. But
        # under deterministic algorithms stock's raise an error there.
        stock = form is False or (form == 'auto' and seg_logits.device.type != 'cpu' and why_not_triton(seg_logits)
                                  and not torch.are_deterministic_algorithms_enabled())
        if stock or not takes_sums(self):
            return super().loss_by_feat(seg_logits, batch_data_samples)
        labels = self._stack_batch_gt(batch_data_samples).squeeze(1)
        return losses_from_sums(self, seg_logits, labels, form)


def is_conv_norm_act(module):
    """Whether a module is a ``ConvModule`` that convolves, normalizes and activates, and no more."""
    return (is_bare(module, ConvModule) and module.order == ('conv', 'norm', 'act')
            and not module.with_spectral_norm and not module.with_explicit_padding)


def is_doubling(module):
    """Whether a module is the bilinear upsampling by 2 of ``FPNHead``."""
    return is_bare(module, Upsample) and (module.size, module.scale_factor, module.mode) == (None, 2., 'bilinear')


def is_pooling(block):
    """Whether a module pools to a square grid, in one of two steps."""
    return (is_bare(block, nn.Sequential) and len(block) == 2 and is_bare(block[0], nn.AdaptiveAvgPool2d)
            and isinstance(block[0].output_size, int))


class PyramidPooling:
    """Pyramid pooling of ``UPerHead`` and ``PSPHead``: the pooled maps are not resized before the bottleneck."""

    def pool(self, x):
        pooling = self.psp_modules
        return self.convolve(self.bottleneck, [x, *(self.pooled(x, pooling) if is_bare(pooling, PPM) else pooling(x))])

    def pooled(self, x, pooling):
        form = self.form('convolutions')
        if form is False or not all(is_pooling(block) for block in pooling):
            return [block(x) for block in pooling]
        maps = adaptive_avg_pools2d(x, [block[0].output_size for block in pooling], form)
        return [block[1](y) for block, y in zip(pooling, maps, strict=True)]


class FastUPerHead(PyramidPooling, FastHead, UPerHead):
    """``UPerHead`` whose fusion and pyramid pooling run at each map's own resolution.

    The fusion, a 3×3 convolution over four concatenated maps of ``channels`` channels at stride 4, is two thirds of
    UperNet's arithmetic; without the concatenation it is a third of that.
    """
    plain = UPerHead

    def psp_forward(self, inputs):
        return self.pool(inputs[-1])

    def _forward_feature(self, inputs):
        # 1. laterals, strides 4, 8, 16, and the pooled map of stride 32
        inputs = self._transform_inputs(inputs)
        laterals = [self.convolve(conv, [x]) for conv, x in zip(self.lateral_convs, inputs[:-1], strict=True)]
        laterals.append(self.psp_forward(inputs))
        # 2. top down
        for i in range(len(laterals) - 1, 0, -1):
            laterals[i - 1] = laterals[i - 1] + resize(laterals[i], laterals[i - 1].shape[2:], self.align_corners)
        # 3. fusion at stride 4, from the smallest map on; in inference a lateral's memory is free once it is convolved
        maps = [laterals.pop()]
        for conv in reversed(self.fpn_convs):
            maps.insert(0, self.convolve(conv, [laterals.pop()]))
        return self.convolve(self.fpn_bottleneck, maps)


class FastPSPHead(PyramidPooling, FastHead, PSPHead):
    """``PSPHead`` whose pyramid pooling runs at each map's own resolution."""
    plain = PSPHead

    def _forward_feature(self, inputs):
        return self.pool(self._transform_inputs(inputs))


class FastFCNHead(FastHead, FCNHead):
    """``FCNHead`` with faster 3×3 convolutions and, where ``concat_input``, no concatenation."""
    plain = FCNHead

    def _forward_feature(self, inputs):
        x = self._transform_inputs(inputs)
        y = x
        for conv in self.convs if is_bare(self.convs, nn.Sequential) else [self.convs]:
            y = self.convolve(conv, [y])
        return self.convolve(self.conv_cat, [x, y]) if self.concat_input else y


class FastFPNHead(FastHead, FPNHead):
    """``FPNHead``, of Semantic FPN, whose convolutions of an upsampled map run at the map's own resolution."""
    plain = FPNHead

    def scale(self, head, x):
        size = x.shape[2:]  # what x has once the upsampling so far is done
        for module in head if is_bare(head, nn.Sequential) else [head]:
            if is_doubling(module):
                size = [2 * n for n in size]
            elif is_conv_norm_act(module):
                x = self.convolve(module, [x], size)
            else:
                x = module(resize(x, size, self.align_corners))
                size = x.shape[2:]
        return x, size

    def forward(self, inputs):
        if self.form('convolutions') is False:
            return super().forward(inputs)
        inputs = self._transform_inputs(inputs)
        output, size = self.scale(self.scale_heads[0], inputs[0])
        for head, x in zip(self.scale_heads[1:], inputs[1:], strict=True):
            x, last = self.scale(head, x)
            # Where the last upsampling ends at the output's size, one interpolation does; two are not one otherwise.
            x = resize(x, last, self.align_corners)
            output = output + resize(x, size, self.align_corners)
        return self.cls_seg(output)


FAST_HEADS = {head.plain: head for head in (FastUPerHead, FastPSPHead, FastFCNHead, FastFPNHead)}
