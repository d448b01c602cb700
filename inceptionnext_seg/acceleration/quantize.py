"""8-bit products in the place of convolutions, for inference on CPUs: what ``fuse_for_inference(dtype='int8')`` does.

Two modules take the place of others: :class:`Int8Conv2d` of 1×1 and 3×3 convolutions of stride 1, and
:class:`Int8Mlp` of the MLP of a MetaNeXt block. Ranges of activations are fixed: the least and largest value of each
channel over the calibration images. Depthwise convolutions, stem, downsampling, norms and the classifier stay in float:
they are a few per cent of the arithmetic, and the classifier's rounding is seen at once.
"""
from collections.abc import Iterable

import torch
import torch.nn as nn
from mmengine.logging import print_log
from tqdm import tqdm

from .._fast import is_bare, plain_type
from ..errors import UserError
from ..models.metanext import ConvMlp
from ..ops import _native as native
from ..ops import int8
from ..ops.bilinear import resize
from ..ops.resize_concat_conv import axis_table, is_direct, resize_concat_conv2d

CALIBRATION_IMAGES = 32     # with fewer a log line says so
LEAST_CHANNELS = 16         # of inputs and outputs; below, the pass that quantizes costs more than the product saves
# Kernel, padding, stride, dilation and kind of padding of the convolutions that have an 8-bit form.
POINTWISE, SQUARE = (((k, k), (k // 2, k // 2), (1, 1), (1, 1), 'zeros') for k in (1, 3))
BLOCK_ROWS = 2048           # of an MLP: its hidden rows stay in the cache


class Int8(nn.Module):
    """A module whose weights are packed for 8-bit products when they are first used, and not saved."""

    def __init__(self):
        super().__init__()
        self.packed = {}

    def __getstate__(self):
        return dict(self.__dict__, packed={})

    def _load_from_state_dict(self, *args):
        self.packed.clear()
        super()._load_from_state_dict(*args)

    def _apply(self, function, recurse=True):
        """Parameters and ranges stay float32 on the CPU: ``model.bfloat16()`` rounds nothing here."""
        return self


class Int8Conv2d(Int8):
    """A convolution 1×1, or 3×3 with padding 1, of stride 1, (B, C, H, W) to (B, O, H, W) in the dtype of its input.

    Args:
        conv (nn.Conv2d): Whose weight and bias it takes.
        range_ (int8.Range): Of its input's channels.
    """

    def __init__(self, conv, range_):
        super().__init__()
        self.register_buffer('weight', conv.weight.detach().float().contiguous())
        self.register_buffer('bias', None if conv.bias is None else conv.bias.detach().float())
        self.register_buffer('low', range_.low)
        self.register_buffer('high', range_.high)
        self.out_channels, self.in_channels, self.kernel_size = conv.out_channels, conv.in_channels, conv.kernel_size

    def extra_repr(self):
        return f'{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}'

    def weights(self, key, pack, channels, with_bias=True, padded=False):
        """The quantizer and the packed weights of the input channels ``begin`` to ``end``, of one way to use them."""
        key = (key, *channels, with_bias)
        if key not in self.packed:
            quantizer = int8.Quantizer.of(int8.Range(self.low, self.high).part(*channels), padded)
            weight = self.weight[:, channels[0]:channels[1]]
            self.packed[key] = quantizer, pack(weight, self.bias if with_bias else None, quantizer)
        return self.packed[key]

    def forward(self, x):
        return self.resize_concat([x], x.shape[2:])

    def resize_concat(self, features, size, align_corners=False):
        """The convolution of maps that are resized to ``size`` and concatenated.

        Those of a lower resolution are multiplied by the nine taps there (:mod:`~..ops.resize_concat_conv`).
        """
        dtype, size, end = features[0].dtype, tuple(size), 0
        direct, low = [], []
        for x in features:
            begin, end = end, end + x.shape[1]
            is_low = self.kernel_size == (3, 3) and not is_direct(x.shape, size)
            (low if is_low else direct).append((x, begin, end))
        if self.kernel_size == (1, 1):
            return self.convolve_pixels(joined(features, size, align_corners), dtype)
        out = None
        # Neighbours among the maps of the output's resolution are convolved together, with the bias.
        for maps, begin, end in neighbours(direct):
            part = self.convolve(joined(maps, size, align_corners), (begin, end), out is None,
                                 torch.float32 if low else dtype)
            out = part if out is None else out.add_(part)
        if low:
            if out is None:
                out = torch.empty(len(features[0]), self.out_channels, *size, memory_format=torch.channels_last)
                out[:] = 0 if self.bias is None else self.bias.view(1, -1, 1, 1)
            for x, begin, end in low:
                self.add_taps(x, (begin, end), size, align_corners, out)
        return out.to(dtype)

    def convolve_pixels(self, x, dtype):
        rows, view = pixels(x)
        quantizer, weights = self.weights('pixels', lambda w, b, q: int8.pack_linear(
            w.flatten(1), b, q, len(rows)), (0, self.in_channels))
        return view(int8.linear(int8.quantize(rows, quantizer), weights, quantizer, dtype))

    def convolve(self, x, channels, with_bias, dtype):
        rows, view = pixels(x)
        quantizer, weights = self.weights(
            'map', lambda w, b, q: int8.pack_conv(w, b, q, x.shape), channels, with_bias, padded=True)
        return int8.conv(view(int8.quantize(rows, quantizer)), weights, quantizer, dtype)

    def add_taps(self, x, channels, size, align_corners, out):
        quantizer, weights = self.weights('taps', lambda w, b, q: int8.pack_linear(
            w.permute(2, 3, 0, 1).flatten(0, 2), None, q, x.shape[2] * x.shape[3]), channels, False)
        down, across = (axis_table(n, m, align_corners, torch.float32) for n, m in zip(x.shape[2:], size, strict=True))
        interpolate = native.function('upsampled_taps', 'forward_f32')
        for image in range(len(x)):
            q = int8.quantize(pixels(x[image:image + 1])[0], quantizer)
            z = int8.linear(q, weights, quantizer, torch.float32)
            interpolate(z, out[image], *x.shape[2:], *size, self.out_channels, down.index, down.weight, across.index,
                        across.weight, True, native.threads())


class Int8Mlp(Int8):
    """``fc2(gelu(fc1(x)))`` of 1×1 convolutions, (B, C, H, W) to the same, in the dtype of its input.

    Args:
        mlp (ConvMlp): Whose weights and biases it takes.
        range_ (int8.Range), hidden (int8.Range): Of the channels of its input, and of what ``fc2`` takes.
    """

    def __init__(self, mlp, range_, hidden):
        super().__init__()
        for name in ('fc1', 'fc2'):
            conv = getattr(mlp, name)
            self.register_buffer(f'{name}_weight', conv.weight.detach().float().flatten(1).contiguous())
            self.register_buffer(f'{name}_bias', None if conv.bias is None else conv.bias.detach().float())
        self.register_buffer('low', range_.low)
        self.register_buffer('high', range_.high)
        self.register_buffer('hidden_low', hidden.low)
        self.register_buffer('hidden_high', hidden.high)

    def weights(self):
        if not self.packed:
            for name, range_ in (('fc1', int8.Range(self.low, self.high)),
                                 ('fc2', int8.Range(self.hidden_low, self.hidden_high))):
                quantizer = int8.Quantizer.of(range_)
                self.packed[name] = quantizer, int8.pack_linear(
                    getattr(self, f'{name}_weight'), getattr(self, f'{name}_bias'), quantizer, BLOCK_ROWS)
        return *self.packed['fc1'], *self.packed['fc2']

    def forward(self, x):
        q1, fc1, q2, fc2 = self.weights()
        rows, view = pixels(x)
        y = torch.empty_like(rows)
        for begin in range(0, len(rows), BLOCK_ROWS):
            block = rows[begin:begin + BLOCK_ROWS]
            h = int8.linear(int8.quantize(block, q1), fc1, q1, x.dtype)
            y[begin:begin + BLOCK_ROWS] = int8.linear(int8.quantize(h, q2, gelu=True), fc2, q2, x.dtype)
        return view(y)


def pixels(x):
    """The pixels of a map (B, C, H, W) as rows of a contiguous matrix, and the way back for rows of any width."""
    if x.device.type != 'cpu':
        raise UserError(f'this model has 8-bit products, which run on a CPU; its input is on {x.device}. Next: '
                        "fuse_for_inference(model, dtype='bf16') for a GPU.")
    batch, _, height, width = x.shape
    rows = x.permute(0, 2, 3, 1).reshape(batch * height * width, -1)
    return rows.contiguous(), lambda rows: rows.view(batch, height, width, -1).permute(0, 3, 1, 2)


def joined(features, size, align_corners):
    maps = [resize(x, size, align_corners) for x in features]
    return torch.cat(maps, 1) if len(maps) > 1 else maps[0]


def neighbours(parts):
    """``(maps, begin, end)`` of the runs of ``(map, begin, end)`` that follow each other without a gap."""
    runs = []
    for x, begin, end in parts:
        if runs and runs[-1][2] == begin:
            runs[-1] = ([*runs[-1][0], x], runs[-1][1], end)
        else:
            runs.append(([x], begin, end))
    return runs


# Calibration


class Observed(nn.Module):
    """A convolution during calibration: it notes the range of each channel that it takes, over all its calls.

    Of maps that are resized before the convolution the range is that of the maps as they were, whose peaks
    interpolation would flatten.
    """

    def __init__(self, conv):
        super().__init__()
        self.conv, self.range = conv, None

    def note(self, features):
        x = [x.detach().float() for x in features]
        low, high = (torch.cat([getattr(x, name)((0, 2, 3)) for x in x]) for name in ('amin', 'amax'))
        if self.range is not None:
            low, high = torch.minimum(low, self.range.low), torch.maximum(high, self.range.high)
        self.range = int8.Range(low, high)

    def forward(self, x):
        self.note([x])
        return self.conv(x)

    def resize_concat(self, features, size, align_corners=False):
        self.note(features)
        if self.conv.kernel_size == (3, 3):
            return resize_concat_conv2d(features, self.conv.weight, self.conv.bias, size, align_corners)
        return self.conv(joined(features, size, align_corners))


def quantizable(model):
    """The convolutions and MLPs that have an 8-bit form, and why others have none: two dicts by name."""
    found, kept = {}, {}
    for name, module in model.named_modules():
        inside = any(name.startswith(f'{other}.') for other, mlp in found.items() if isinstance(mlp, ConvMlp))
        is_mlp = isinstance(module, ConvMlp)
        if is_mlp or (isinstance(module, nn.Conv2d) and not inside):
            reason = why_not_mlp(module) if is_mlp else why_not_conv(name, module)
            if reason is None:
                found[name] = module
            else:
                kept[name] = reason
    return found, kept


def why_not_mlp(mlp):
    if not is_bare(mlp, ConvMlp):
        return f'{type(mlp).__name__} is a class of its own, or has hooks'
    for name in ('fc1', 'fc2'):
        conv = getattr(mlp, name)
        if not (is_bare(conv, nn.Conv2d) and shape_of(conv) == POINTWISE and conv.groups == 1):
            return f'its {name} is no plain 1×1 convolution'
    if plain_type(mlp.act) is not nn.GELU or mlp.act.approximate != 'none':
        return f'its activation is {mlp.act}, and 8-bit MLPs have the exact GELU'
    return None


def is_classifier(name):
    """Whether the module of this name makes the logits, in MMSegmentation, Hugging Face or segmentation_models.pytorch,
    whose head upsamples them next."""
    return f'.{name}'.endswith(('.conv_seg', '.classifier', '.segmentation_head.0'))


def why_not_conv(name, conv):
    if is_classifier(name):
        return 'it is a classifier'
    if plain_type(conv).forward is not nn.Conv2d.forward or not is_bare(conv, plain_type(conv)):
        return f'{type(conv).__name__} may compute anything, or has hooks'
    if conv.groups > 1:
        return 'a convolution of groups, which takes little time'
    if shape_of(conv) not in (POINTWISE, SQUARE):
        return f'kernel {conv.kernel_size}, stride {conv.stride}: neither 1×1 nor 3×3 of stride 1'
    if min(conv.in_channels, conv.out_channels) < LEAST_CHANNELS:
        return f'fewer than {LEAST_CHANNELS} channels'
    return None


def shape_of(conv):
    return conv.kernel_size, conv.padding, conv.stride, conv.dilation, conv.padding_mode


@torch.no_grad()
def quantize(model: nn.Module, images: Iterable) -> tuple[list[str], dict[str, str]]:
    """Put 8-bit modules into a fused ``model``, in place, with ranges from ``images``.

    Args:
        images: Tensors (3, H, W) or (B, 3, H, W) as the backbone takes them, or uint8 images, (H, W, 3) in the channel
            order that the model's data preprocessor expects as arrays, (3, H, W) as tensors.

    Returns:
        The names of the modules that multiply 8-bit numbers now, and why others do not, by name.

    Raises:
        UserError: There are no images, or one has another shape.
    """
    found, kept = quantizable(model)
    paths = {name: (f'{name}.fc1', f'{name}.fc2') if isinstance(module, ConvMlp) else (name, )
             for name, module in found.items()}
    convolutions = {path: model.get_submodule(path) for name in found for path in paths[name]}
    observed = {path: Observed(conv) for path, conv in convolutions.items()}
    try:
        for path, module in observed.items():
            put(model, path, module)
        # A rounding to 8 bits of the mantissa is nothing to a range.
        with torch.autocast('cpu', torch.bfloat16, enabled=native.has_fast_bf16()):
            count = sum(run(model, image) for image in tqdm(images, desc='calibrating', unit='image', leave=False))
    finally:
        for path, conv in convolutions.items():
            put(model, path, conv)
    if not count:
        raise UserError('calibration has no images. Expected: some 32 of those that the model will see, as arrays '
                        "(H, W, 3) of 8 bits or tensors (3, H, W). Next: fuse_for_inference(model, dtype='int8', "
                        'calibration=images).')
    if count < CALIBRATION_IMAGES:
        print_log(f'Calibrated with {count} images; {CALIBRATION_IMAGES} show the ranges of activations better',
                  'current')
    quantized = []
    for name, module in found.items():
        ranges = [observed[path].range for path in paths[name]]
        if None in ranges:
            kept[name] = 'no image came through it'
        elif not all(bound.isfinite().all() for range_ in ranges for bound in range_):
            kept[name] = 'its input was NaN or infinite'
        else:
            put(model, name, (Int8Mlp if isinstance(module, ConvMlp) else Int8Conv2d)(module, *ranges))
            quantized.append(name)
    return quantized, kept


def put(model, path, module):
    parent, _, child = path.rpartition('.')
    setattr(model.get_submodule(parent), child, module)


def run(model, image):
    """One calibration step; returns the number of images in it."""
    image = torch.as_tensor(image)
    if image.dtype == torch.uint8:
        if image.dim() != 3 or not (hasattr(model, 'data_preprocessor') or hasattr(model, 'normalize')):
            raise UserError(f'a calibration image is {tuple(image.shape)} of 8 bits; expected: (H, W, 3), and a model '
                            'that normalizes images, or a normalized float tensor (3, H, W)')
        image = image.permute(2, 0, 1) if image.shape[2] == 3 else image
        # A segmentor of MMSegmentation, or a SegmentationModel.
        image = model.data_preprocessor(dict(inputs=[image], data_samples=None), False)['inputs'] \
            if hasattr(model, 'data_preprocessor') else model.normalize(image[None].to(model.mean.device))
    image = image[None] if image.dim() == 3 else image
    if image.dim() != 4:
        raise UserError(f'a calibration image is {tuple(image.shape)}; expected: (3, H, W) or (B, 3, H, W)')
    image = image.to(next(model.parameters()))
    if hasattr(model, 'extract_feat'):
        features = model.extract_feat(image)
        model.decode_head.forward(features)
    else:
        model(image)
    return len(image)
