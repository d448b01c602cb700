"""Whole networks whose n×n convolutions are n×1 → 1×n, or n×1 ‖ 1×n."""
import timm
import torch
import torch.nn as nn

from .cases import NETWORK_FORMS as FORMS
from .modules import Parallel


def build(name, form):
    """A classifier of timm with random weights and the convolutions of ``form``, of :data:`.cases.NETWORK_FORMS`."""
    torch.manual_seed(0)
    return replace_convolutions(timm.create_model(name, num_classes=1000), form)


def replace_convolutions(model, form):
    """Put n×1 → 1×n, or n×1 ‖ 1×n, in the place of each n×n convolution of ``model`` whose kernel overlaps, in place.

    Shapes of outputs stay. Convolutions with a stride as large as their kernel, ConvNeXt's patches, stay as they are.
    """
    if form not in FORMS:
        raise ValueError(f'form is {form!r}; expected one of {FORMS}')
    if form == FORMS[0]:
        return model
    make = factorized if form == FORMS[1] else parallel
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Conv2d) and overlaps(child):
                setattr(module, name, make(child))
    return model


def overlaps(conv):
    height, width = conv.kernel_size
    return height == width > 1 and conv.stride[0] < height


def one_sided(conv, side, channels, stride, bias):
    """The convolution along one side, 0 or 1, of ``conv``, with (in, out) ``channels``."""
    kernel, padding = [1, 1], [0, 0]
    kernel[side], padding[side] = conv.kernel_size[side], conv.padding[side]
    return nn.Conv2d(*channels, kernel, stride, padding, groups=conv.groups, bias=bias)


def factorized(conv):
    """n×1 → 1×n, each with the stride of its side, and between them the smaller number of channels: fewest MACs."""
    between = min(conv.in_channels, conv.out_channels)
    bias = conv.bias is not None
    return nn.Sequential(
        one_sided(conv, 0, (conv.in_channels, between), (conv.stride[0], 1), False),
        one_sided(conv, 1, (between, conv.out_channels), (1, conv.stride[1]), bias))


def parallel(conv):
    """n×1 ‖ 1×n, outputs added."""
    channels, bias = (conv.in_channels, conv.out_channels), conv.bias is not None
    return Parallel([one_sided(conv, 0, channels, conv.stride, bias), one_sided(conv, 1, channels, conv.stride, False)])


def macs(model, size):
    """Multiply-accumulates of the convolutions of ``model`` for one image of ``size``²."""
    total = 0

    def add(conv, inputs, output):
        nonlocal total
        total += output[0].numel() * conv.weight[0].numel()

    hooks = [module.register_forward_hook(add) for module in model.modules() if isinstance(module, nn.Conv2d)]
    with torch.inference_mode():
        model(torch.zeros(1, 3, size, size))
    for hook in hooks:
        hook.remove()
    return total


def step(name, form, mode, layout, batch_size, size, device):
    """A call without arguments: the forward pass, or forward with cross-entropy and backward.

    Args:
        mode (str): 'infer' or 'train'.
        layout (torch.memory_format): Of images and weights.
    """
    model = build(name, form).to(device, memory_format=layout).train(mode == 'train')
    images = torch.randn(batch_size, 3, size, size).to(device, memory_format=layout)
    if mode == 'infer':
        return lambda: model(images)
    labels, loss = torch.arange(batch_size, device=device), nn.CrossEntropyLoss()

    def train():
        model.zero_grad(set_to_none=True)
        loss(model(images), labels).backward()

    return train
