"""Fast classes of segmentation_models.pytorch's ``UPerNet`` and ``FPN``: their decoders, whatever the encoder.

``FPN`` has the same modules in all versions since 0.4, ``UPerNet`` since 0.5; the latter's decoder was another before.
"""
import torch.nn as nn
from segmentation_models_pytorch.base.modules import Conv2dReLU
from segmentation_models_pytorch.decoders.fpn.decoder import Conv3x3GNReLU, MergeBlock, SegmentationBlock
from segmentation_models_pytorch.decoders.upernet import decoder as upernet

from .._fast import Fast, is_bare, plain_type
from ..ops.bilinear import resize
from .conv_norm_act import conv_norm_act, resized
from .swap import Left, Swap

PSPModule, UPerNetDecoder = upernet.PSPModule, upernet.UPerNetDecoder
FPNLateralBlock = getattr(upernet, 'FPNLateralBlock', None)     # since 0.5


class FastUPerNetDecoder(Fast, UPerNetDecoder):
    """``UPerNetDecoder`` whose fusion and pyramid pooling run at each map's own resolution."""
    plain, parts = UPerNetDecoder, ('convolutions', )

    def convolve(self, module, features):
        """``module(cat([resize(x, size) for x in features], 1))``, of the size of the first map."""
        if not is_bare(module, Conv2dReLU):
            return module(resized(features, features[0].shape[2:], align_corners=False))
        return conv_norm_act(self, *module, features)

    def pool(self, x):
        if not is_bare(self.psp, PSPModule):
            return self.psp(x)
        return self.convolve(self.psp.out_conv, [x, *(block(x) for block in self.psp.blocks)])

    def add_lateral(self, block, state, lateral):
        if not is_bare(block, FPNLateralBlock):
            return block(state, lateral)
        lateral = self.convolve(block.conv_norm_relu, [lateral])
        return resize(state, lateral.shape[2:], align_corners=False) + lateral

    def forward(self, features):
        # 1. norms of the maps from stride 4 on, in a new list: the caller may pass its own to a classification head
        features = list(features[2:])
        for i, norm in enumerate(self.feature_norms):
            features[i] = norm(features[i])
        # 2. the pooled map of stride 32, then top down with laterals, strides 16, 8, 4
        maps = [self.pool(features[-1])]
        for block, lateral in zip(self.fpn_lateral_blocks, features[-2::-1], strict=True):
            maps.append(self.add_lateral(block, maps[-1], lateral))
        # 3. fusion at stride 4
        maps[1:] = [self.convolve(conv, [x]) for conv, x in zip(self.fpn_conv_blocks, maps[1:], strict=True)]
        return self.convolve(self.fusion_block, maps[::-1])


class FastSegmentationBlock(Fast, SegmentationBlock):
    """``SegmentationBlock`` of FPN, whose convolutions of an upsampled map run at the map's own resolution."""
    plain, parts = SegmentationBlock, ('convolutions', )

    def forward(self, x):
        # From the map's stride to 4, by a factor of 2 after each convolution (after none, at stride 4).
        size = x.shape[2:]  # what x has once the upsampling so far is done
        for block in self.block if is_bare(self.block, nn.Sequential) else [self.block]:
            if is_bare(block, Conv3x3GNReLU) and is_bare(block.block, nn.Sequential):
                x = conv_norm_act(self, *block.block, [x], size, align_corners=True)
                size = [2 * n for n in size] if block.upsample else size
            else:
                x = block(resize(x, size, align_corners=True))
                size = x.shape[2:]
        return resize(x, size, align_corners=True)


class FastMergeBlock(Fast, MergeBlock):
    """``MergeBlock`` of FPN that adds up maps without stacking them first."""
    plain, parts = MergeBlock, ('convolutions', )

    def forward(self, x):
        return sum(x[1:], x[0]) if self.policy == 'add' else super().forward(x)


FAST = {fast.plain: fast for fast in (FastUPerNetDecoder, FastSegmentationBlock, FastMergeBlock)}


def find(name, module, root):
    """Decoders of ``UPerNet``, and the parts of ``FPN``'s that have fast forms."""
    kind = plain_type(module)
    if kind is UPerNetDecoder and FPNLateralBlock is None:
        yield Left(name, 'UPerNetDecoder of segmentation_models.pytorch before 0.5')
    elif kind is UPerNetDecoder and works_in_place(module):
        yield Left(name, "its norms work in place (decoder_use_norm='inplace')")
    elif kind in FAST:
        yield Swap(name, module, FAST[kind])
    elif isinstance(module, tuple(FAST)):
        yield Left(name, f'{kind.__name__} is a class of its own')


def works_in_place(decoder):
    """Whether norms are ``InPlaceABN``, which activates, too, and overwrites what the convolution returned."""
    return any(type(module).__module__.partition('.')[0] == 'inplace_abn' for module in decoder.modules())
