"""Fast classes of Hugging Face's ``UperNetForSemanticSegmentation``: its two heads, whatever the backbone.

The model itself stays as it is: it returns logits at the image's size, so its loss cannot be made cheaper.
"""
import torch.nn as nn
from transformers.models.upernet.modeling_upernet import (
    UperNetConvModule,
    UperNetFCNHead,
    UperNetHead,
    UperNetPyramidPoolingModule,
)

from .._fast import Fast, is_bare, plain_type
from ..ops.bilinear import resize
from ..ops.patch_conv import patch_conv2d
from .conv_norm_act import conv_norm_act, is_plain_conv, resized
from .swap import Left, Swap


class FastUperNetModule(Fast):
    """For a head whose ``UperNetConvModule``\\ s are called through :meth:`convolve`."""
    parts = ('convolutions', )

    def convolve(self, module, features):
        """``module(cat([resize(x, size) for x in features], 1))``, of the size of the first map."""
        if not is_bare(module, UperNetConvModule):
            return module(resized(features, features[0].shape[2:], align_corners=False))
        return conv_norm_act(self, module.conv, module.batch_norm, module.activation, features)

    def classify(self, x):
        if not is_plain_conv(self.classifier, kernel=1, padding=0):
            return self.classifier(x)
        return patch_conv2d(x, self.classifier, impl=self.form('convolutions'))


class FastUperNetHead(FastUperNetModule, UperNetHead):
    """``UperNetHead`` whose fusion and pyramid pooling run at each map's own resolution."""
    plain = UperNetHead

    def psp_forward(self, inputs):
        x, pooling = inputs[-1], self.psp_modules
        bare = is_bare(pooling, UperNetPyramidPoolingModule)
        return self.convolve(self.bottleneck, [x, *([pool(x) for pool in pooling.blocks] if bare else pooling(x))])

    def forward(self, encoder_hidden_states):
        # 1. laterals, strides 4, 8, 16, and the pooled map of stride 32
        laterals = [self.convolve(conv, [x])
                    for conv, x in zip(self.lateral_convs, encoder_hidden_states[:-1], strict=True)]
        laterals.append(self.psp_forward(encoder_hidden_states))
        # 2. top down
        for i in range(len(laterals) - 1, 0, -1):
            laterals[i - 1] = laterals[i - 1] + resize(laterals[i], laterals[i - 1].shape[2:], align_corners=False)
        # 3. fusion at stride 4
        maps = [self.convolve(conv, [x]) for conv, x in zip(self.fpn_convs, laterals[:-1], strict=True)]
        return self.classify(self.convolve(self.fpn_bottleneck, [*maps, laterals[-1]]))


class FastUperNetFCNHead(FastUperNetModule, UperNetFCNHead):
    """``UperNetFCNHead``, the auxiliary one, with faster 3×3 convolutions and no concatenation."""
    plain = UperNetFCNHead

    def forward(self, encoder_hidden_states):
        # All at the stride of the selected map, 16 by default.
        x = y = encoder_hidden_states[self.in_index]
        for conv in self.convs if is_bare(self.convs, nn.Sequential) else [self.convs]:
            y = self.convolve(conv, [y])
        return self.classify(self.convolve(self.conv_cat, [x, y]) if self.concat_input else y)


FAST = {fast.plain: fast for fast in (FastUperNetHead, FastUperNetFCNHead)}


def find(name, module, root):
    """The heads of ``UperNetForSemanticSegmentation``."""
    if plain_type(module) in FAST:
        yield Swap(name, module, FAST[plain_type(module)])
    elif isinstance(module, tuple(FAST)):
        yield Left(name, f'{type(module).__name__} is a class of its own')
