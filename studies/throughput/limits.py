"""What a step must cost: the MACs of its convolutions and matrix products, and the bytes that they move."""
import math

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten
from torch.utils.flop_counter import FlopCounterMode


class ProductTraffic(TorchDispatchMode):
    """Counts the bytes that convolutions and matrix products must read and write, each operand once an operation."""

    OPERATORS = ('convolution', 'mm', 'addmm', 'bmm', 'baddbmm', 'linear', 'resize_concat_conv2d', 'norm_mlp',
                 'inception_dwconv2d')

    def __init__(self):
        super().__init__()
        self.nbytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__.removeprefix('_').removesuffix('_overrideable')
        if name.removesuffix('_backward') in self.OPERATORS:
            leaves = tree_flatten((args, kwargs, out))[0]
            self.nbytes += sum(leaf.nbytes for leaf in leaves if isinstance(leaf, torch.Tensor))
        return out


def convolution_backward_flops(grad_shape, image_shape, weight_shape, bias, stride, padding, dilation, transposed,
                               output_padding, groups, output_mask, out_shape=None, **settings):
    """The gradients of input and of weight cost as much as the forward each; torch's own formula forgets ``groups``."""
    positions = grad_shape if not transposed else image_shape
    macs = positions[0] * math.prod(positions[2:]) * math.prod(weight_shape)
    return 2 * macs * sum(map(bool, output_mask[:2]))


def count_products(step):
    """MACs and bytes of one step's convolutions and matrix products, forward and, in training, backward."""
    corrected = {torch.ops.aten.convolution_backward: convolution_backward_flops}
    flops, traffic = FlopCounterMode(display=False, custom_mapping=corrected), ProductTraffic()
    with traffic, flops:
        step()
    return flops.get_total_flops() // 2, traffic.nbytes


def limit_seconds(macs, nbytes, peaks):
    """No step can be faster: the time of its matrix products alone, or of moving their operands, whichever is more."""
    return max(macs / peaks['macs_per_second'], nbytes / peaks['bytes_per_second'])
