"""Fast classes of this package's own backbones: token mixer, block, stem, downsampling and output norms."""
import torch.nn as nn
from timm.layers import DropPath

from .._fast import Fast, is_bare, plain_type
from ..models.folded import Folded
from ..models.layers import ACTIVATIONS
from ..models.metanext import ConvMlp, MetaNeXt, MetaNeXtBlock
from ..models.token_mixers import InceptionDWConv2d
from ..ops.batch_norm_act import batch_norm_act, is_batch_norm
from ..ops.inception_dwconv import inception_dwconv2d
from ..ops.norm_mlp import norm_mlp
from ..ops.patch_conv import patch_conv2d
from .conv_norm_act import is_plain_conv
from .swap import Left, Swap


class FastInceptionDWConv2d(Fast, InceptionDWConv2d):
    """All branches in one pass over the map."""
    plain, parts = InceptionDWConv2d, ('token_mixer', )

    def forward(self, x):
        hw, w, h = self.dwconv_hw, self.dwconv_w, self.dwconv_h
        if not all(is_depthwise_of_same_size(conv) for conv in (hw, w, h)):
            return super().forward(x)
        form = self.form('token_mixer', 'native', 'triton')
        parameters = [parameter for conv in (hw, w, h) for parameter in (conv.weight, bias_of(conv))]
        return inception_dwconv2d(x, *parameters, impl=form)


def bias_of(conv):
    """Its bias, or the zeros that it adds without one."""
    return conv.weight.new_zeros(conv.out_channels) if conv.bias is None else conv.bias


def is_depthwise_of_same_size(conv):
    """Whether ``conv`` is as it was built: others set ``dilation``, ``padding`` or ``padding_mode`` afterwards."""
    return (is_bare(conv, nn.Conv2d) and conv.groups == conv.in_channels and conv.stride == (1, 1)
            and conv.dilation == (1, 1) and conv.padding_mode == 'zeros'
            and conv.padding == (conv.kernel_size[0] // 2, conv.kernel_size[1] // 2))


class FastMetaNeXtBlock(Fast, MetaNeXtBlock):
    """Norm, MLP, layer scale, stochastic depth and residual as one operator."""
    plain, parts = MetaNeXtBlock, ('blocks', )

    def forward(self, x):
        mlp, norm, drop_path = self.mlp, self.norm, self.drop_path
        # Activations that are known to be elementwise: here the channels are not dimension 1.
        if not (is_bare(mlp, ConvMlp) and is_plain_conv(mlp.fc1, kernel=1, padding=0)
                and is_plain_conv(mlp.fc2, kernel=1, padding=0) and is_bare(mlp.act, *ACTIVATIONS.values())
                and is_bare(drop_path, DropPath, nn.Identity, Folded)):
            return super().forward(x)
        y = self.token_mixer(x)
        if not (is_batch_norm(norm) and is_bare(norm, type(norm))):
            y, norm = norm(y), None
        return norm_mlp(
            x, y, norm, mlp.fc1, mlp.act, mlp.fc2, self.gamma, stochastic_depth(drop_path, x, mlp.fc1.weight.dtype),
            impl=self.form('blocks', 'native', 'triton'))


def stochastic_depth(drop_path, x, dtype):
    """The factor of each image (B, ), drawn as timm's ``DropPath`` draws it; None where no image can be dropped."""
    if not (isinstance(drop_path, DropPath) and drop_path.training and drop_path.drop_prob > 0):
        return None
    kept = 1 - drop_path.drop_prob
    factors = x.new_empty(len(x), dtype=dtype).bernoulli_(kept)
    return factors.div_(kept) if kept > 0 and drop_path.scale_by_keep else factors


class FastPatchConv2d(Fast, nn.Conv2d):
    """A convolution whose stride is its kernel, as one matrix product."""
    plain, parts = nn.Conv2d, ('blocks', )

    def forward(self, x):
        return patch_conv2d(x, self, impl=self.form('blocks'))


class FastBatchNorm2d(Fast, nn.BatchNorm2d):
    """Batch normalization in as few passes over the map as possible."""
    plain, parts = nn.BatchNorm2d, ('blocks', )

    def forward(self, x):
        return batch_norm_act(self, None, x, impl=self.form('blocks'))


FAST = {fast.plain: fast for fast in (FastInceptionDWConv2d, FastMetaNeXtBlock)}


def find(name, module, root):
    """Token mixers and blocks in any model; in a whole backbone also stem, downsampling and output norms."""
    if plain_type(module) in FAST:
        yield Swap(name, module, FAST[plain_type(module)])
    elif isinstance(module, InceptionDWConv2d | MetaNeXtBlock):
        yield Left(name, f'{type(module).__name__} is a class of its own')
    if isinstance(module, MetaNeXt):
        between = [module.stem, *(stage.downsample for stage in module.stages)]
        layers = [(f'{path}.{i}', layer) for path, sequence in zip(
            ('stem', *(f'stages.{i}.downsample' for i in range(len(module.stages)))), between, strict=True)
            for i, layer in enumerate(sequence if isinstance(sequence, nn.Sequential) else ())]
        layers += [(f'norm{i}', getattr(module, f'norm{i}')) for i in module.out_indices]
        for path, layer in layers:
            fast = {nn.Conv2d: FastPatchConv2d, nn.BatchNorm2d: FastBatchNorm2d}.get(plain_type(layer))
            if fast:
                yield Swap(f'{name}.{path}' if name else path, layer, fast)
