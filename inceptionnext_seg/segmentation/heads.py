"""MMSegmentation's heads, faster: the same parameters, the same checkpoints both ways, the same function.

``FastUPerHead``, ``FastFCNHead`` and ``FastFPNHead`` take the settings of ``UPerHead``, ``FCNHead`` and ``FPNHead``,
and two of their own:

- ``fusion`` ('auto' | 'torch' | 'factorized' | 'native'): how a 3×3 convolution, of resized and concatenated maps above
  all, is computed; see :func:`~inceptionnext_seg.ops.resize_concat_conv.resize_concat_conv2d`.
  'torch' is the stock head's way in everything.
- ``upsampled_loss`` (bool): the loss without logits of the image's size; see :mod:`.segmentor`.
"""
import torch
import torch.nn as nn
from mmcv.cnn import ConvModule
from mmseg.models.decode_heads import FCNHead, FPNHead, UPerHead
from mmseg.models.utils import Upsample
from mmseg.registry import MODELS

from ..ops import dispatch, patch_conv, resize_concat_conv
from ..ops.batch_norm_act import batch_norm_act
from ..ops.bilinear import resize
from ..ops.dtypes import compute_dtype
from ..ops.patch_conv import patch_conv2d
from ..ops.resize_concat_conv import resize_concat_conv2d
from .segmentor import UpsampledLossMixin


def is_plain(module, kernel, padding):
    """Whether a module is a ``ConvModule`` of a plain convolution of stride 1 with this kernel, norm and activation."""
    if not isinstance(module, ConvModule):
        return False
    conv = module.conv
    return (type(conv) is nn.Conv2d and module.order == ('conv', 'norm', 'act') and not module.with_spectral_norm
            and not module.with_explicit_padding and conv.kernel_size == (kernel, ) * 2 and conv.stride == (1, 1)
            and conv.padding == (padding, ) * 2 and conv.dilation == (1, 1) and conv.groups == 1
            and conv.padding_mode == 'zeros')


class FastConvMixin(UpsampledLossMixin):
    """For a decode head whose ``ConvModule``\\ s are called through :meth:`convolve`."""

    def __init__(self, *args, fusion='auto', **kwargs):
        dispatch.check_name('fusion', resize_concat_conv.FORMS, fusion)
        super().__init__(*args, **kwargs)
        self.fusion = fusion

    def convolve(self, module, features, size=None):
        """``module(cat([resize(x, size) for x in features], 1))``; the size is by default that of the first map."""
        size = tuple(features[0].shape[2:] if size is None else size)
        # What is counted or exported is the model, not how it is computed here.
        stock = self.fusion == 'torch' or dispatch.is_hollow(features[0]) or dispatch.runs_elsewhere()
        if not stock and is_plain(module, kernel=3, padding=1):
            x = resize_concat_conv2d(
                features, module.conv.weight, module.conv.bias, size, self.align_corners, self.fusion)
        else:
            maps = [resize(x, size, self.align_corners) for x in features]
            x = torch.cat(maps, 1) if len(maps) > 1 else maps[0]
            if stock or not is_plain(module, kernel=1, padding=0):
                return module(x)
            x = patch_conv2d(x, module.conv)
        return batch_norm_act(
            module.norm if module.with_norm else None, module.activate if module.with_activation else None, x)

    def cls_seg(self, feat):
        """As mmseg's, with the dropout of whole channels in the weights rather than in a copy of the map."""
        if self.fusion == 'torch' or dispatch.choose(
                'patch_conv2d', patch_conv.FORMS, 'auto', feat, self.conv_seg) == 'torch':
            return super().cls_seg(feat)
        factors = None
        if self.dropout is not None and self.training:
            factors = self.dropout(feat.new_ones(*feat.shape[:2], 1, 1, dtype=compute_dtype(feat.dtype))).flatten(1)
        return patch_conv2d(feat, self.conv_seg, factors)


@MODELS.register_module()
class FastUPerHead(FastConvMixin, UPerHead):
    """``UPerHead`` whose fusion and pyramid pooling run at each map's own resolution.

    The fusion, a 3×3 convolution over four concatenated maps of ``channels`` channels at stride 4, is two thirds of
    UperNet's arithmetic; without the concatenation it is a third of that.
    """

    def psp_forward(self, inputs):
        x = inputs[-1]
        return self.convolve(self.bottleneck, [x, *(pool(x) for pool in self.psp_modules)])

    def _forward_feature(self, inputs):
        inputs = self._transform_inputs(inputs)
        laterals = [self.convolve(conv, [x]) for conv, x in zip(self.lateral_convs, inputs, strict=False)]
        laterals.append(self.psp_forward(inputs))
        for i in range(len(laterals) - 1, 0, -1):
            laterals[i - 1] = laterals[i - 1] + resize(laterals[i], laterals[i - 1].shape[2:], self.align_corners)
        maps = [self.convolve(conv, [x]) for conv, x in zip(self.fpn_convs, laterals, strict=False)]
        return self.convolve(self.fpn_bottleneck, [*maps, laterals[-1]])


@MODELS.register_module()
class FastFCNHead(FastConvMixin, FCNHead):
    """``FCNHead`` with faster 3×3 convolutions and, where ``concat_input``, no concatenation."""

    def _forward_feature(self, inputs):
        x = self._transform_inputs(inputs)
        y = x
        if self.num_convs:
            for conv in self.convs:
                y = self.convolve(conv, [y])
        return self.convolve(self.conv_cat, [x, y]) if self.concat_input else y


@MODELS.register_module()
class FastFPNHead(FastConvMixin, FPNHead):
    """``FPNHead``, of Semantic FPN, whose convolutions of an upsampled map run at the map's own resolution."""

    def scale(self, head, x):
        size = x.shape[2:]  # what x has once the upsampling so far is done
        for module in head:
            if isinstance(module, Upsample):
                size = [2 * n for n in size]
            else:
                x = self.convolve(module, [x], size)
        return x, size

    def forward(self, inputs):
        inputs = self._transform_inputs(inputs)
        output, size = self.scale(self.scale_heads[0], inputs[0])
        for head, x in zip(self.scale_heads[1:], inputs[1:], strict=True):
            x, last = self.scale(head, x)
            # Where the last upsampling ends at the output's size, one interpolation does; two are not one otherwise.
            x = resize(x, last, self.align_corners)
            output = output + resize(x, size, self.align_corners)
        return self.cls_seg(output)
