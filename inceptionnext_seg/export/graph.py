"""The graph that is exported: a segmentor in deploy form, in operators that every runtime has.

What cannot leave torch as it is, adaptive pooling and upsampling by a factor, is replaced by what computes the same for
any size. The decode head of UperNet, nine tenths of the arithmetic, is also rewritten in fewer multiplications.
"""
import torch
import torch.nn as nn
import torch.nn.functional as F
from mmseg.models.decode_heads import UPerHead
from mmseg.models.utils import Upsample

from ..api.model import SegmentationModel
from ..errors import SettingError
from ..models.fuse import fuse_for_inference
from .convolutions import ResizeConcatConv2d, WinogradConv2d
from .operators import ExactAdaptiveAvgPool2d

# 'plain' is the graph as it was trained; the other two say what is rewritten. docs/export.md has what each measured.
FORMS = ('plain', 'factorized', 'winograd')


def resize(x, size, align_corners):
    """Always resized: whether it has the size already may depend on a symbol."""
    return F.interpolate(x, size, mode='bilinear', align_corners=align_corners)


class DoubleSize(nn.Module):
    """mmseg's ``Upsample``, whose sizes go through Python's numbers, where a symbol would become one of them."""

    def __init__(self, align_corners, factor):
        super().__init__()
        self.align_corners, self.factor = align_corners, int(factor)

    def forward(self, x):
        return resize(x, (self.factor * x.shape[2], self.factor * x.shape[3]), self.align_corners)


def replace(module):
    """Put what exports exactly in the place of adaptive pooling and upsampling, everywhere below ``module``."""
    for name, child in module.named_children():
        if isinstance(child, nn.AdaptiveAvgPool2d):
            setattr(module, name, ExactAdaptiveAvgPool2d(child.output_size))
        elif isinstance(child, Upsample) and not child.size and child.mode == 'bilinear' \
                and child.scale_factor == int(child.scale_factor):
            setattr(module, name, DoubleSize(child.align_corners, child.scale_factor))
        else:
            replace(child)


def is_conv_act(module):
    """Whether one of mmcv's ``ConvModule`` is a plain 3×3 convolution and an activation, once its norm is folded."""
    conv = module.conv
    return (not module.with_norm and type(conv) is nn.Conv2d and conv.kernel_size == (3, 3) and conv.stride == (1, 1)
            and conv.padding == (1, 1) and conv.dilation == (1, 1) and conv.groups == 1
            and conv.padding_mode == 'zeros')


def activated(module, x):
    return module.activate(x) if module.with_activation else x


class UPerHeadGraph(nn.Module):
    """``UPerHead`` whose fusion and pyramid pooling run at each map's own size.

    Args:
        head (UPerHead): In deploy form, with :class:`ExactAdaptiveAvgPool2d`.
        winograd (bool): Also the 3×3 convolutions at stride 4 by F(4, 3).
    """

    def __init__(self, head, winograd):
        super().__init__()
        self.head = head
        fusion, bottleneck = head.fpn_bottleneck.conv, head.bottleneck.conv
        levels = len(head.in_channels)
        top, pools = head.in_channels[-1], len(head.psp_modules)
        self.fusion = ResizeConcatConv2d(
            fusion, [fusion.in_channels // levels] * levels, head.align_corners, winograd)
        self.bottleneck = ResizeConcatConv2d(
            bottleneck, [top, *[(bottleneck.in_channels - top) // pools] * pools], head.align_corners, False)
        conv = head.fpn_convs[0].conv
        self.finest = WinogradConv2d(conv.weight, conv.bias) if winograd else None

    def forward(self, features):
        head = self.head
        features = [features[i] for i in head.in_index]
        # 1. laterals, strides 4, 8, 16, and the pooled map of stride 32
        laterals = [conv(x) for conv, x in zip(head.lateral_convs, features, strict=False)]
        pooled = [pool(features[-1]) for pool in head.psp_modules]
        laterals.append(activated(head.bottleneck, self.bottleneck([features[-1], *pooled])))
        # 2. top down
        for i in range(len(laterals) - 1, 0, -1):
            laterals[i - 1] = laterals[i - 1] + resize(laterals[i], laterals[i - 1].shape[2:], head.align_corners)
        # 3. fusion at stride 4
        maps = [conv(x) for conv, x in zip(head.fpn_convs[1:], laterals[1:], strict=False)]
        finest = head.fpn_convs[0]
        first = finest(laterals[0]) if self.finest is None else activated(finest, self.finest(laterals[0]))
        fused = activated(head.fpn_bottleneck, self.fusion([first, *maps, laterals[-1]]))
        return head.conv_seg(fused)


def why_not_rewritten(head):
    """Why the head has no rewritten graph, or None."""
    if type(head) is not UPerHead or head.input_transform != 'multiple_select':
        return f'{type(head).__name__} has no rewritten graph'
    if not all(map(is_conv_act, (head.fpn_bottleneck, head.bottleneck, *head.fpn_convs))):
        return 'its convolutions are not 3×3 convolutions with a BatchNorm that could be folded'
    return None


class Graph(nn.Module):
    """What is exported: images to logits, or to class indices and confidences.

    Args:
        model (SegmentationModel): Trained; it is copied, and left as it is.
        form (str): One of ``FORMS``.
        preprocess (bool): Take 8-bit RGB images (B, H, W, C), as decoders give them; or else normalized floats
            (B, C, H, W).
        postprocess (bool): Give class indices (B, H, W), uint8, or int32 for more than 256 classes, and confidences
            (B, H, W), the largest softmax probabilities; or else logits (B, classes, H, W).

    Attributes:
        note (str | None): Why the head is not rewritten though ``form`` asks for it.

    Raises:
        SettingError: An unknown form; ``postprocess`` for one logit a pixel.
    """

    def __init__(self, model: SegmentationModel, form: str, preprocess: bool = False, postprocess: bool = False):
        super().__init__()
        if form not in FORMS:
            raise SettingError(f'the form is {form!r}; expected: one of {", ".join(FORMS)}')
        if postprocess and model.num_classes == 1:
            raise SettingError('postprocess is for a softmax over classes, and this model gives one logit a pixel; '
                               'expected: logits')
        model = fuse_for_inference(model)
        self.note = None if form == 'plain' else why_not_rewritten(model.decode_head)
        replace(model.decode_head)
        self.backbone, self.neck = model.backbone, model.neck
        self.head = model.decode_head
        if form != 'plain' and self.note is None:
            self.head = UPerHeadGraph(model.decode_head, form == 'winograd')
        self.align_corners = model.decode_head.align_corners
        self.in_channels, self.num_classes = model.in_channels, model.num_classes
        self.preprocess, self.postprocess = preprocess, postprocess
        if preprocess:
            model.normalize(torch.zeros(1, model.mean.shape[1] if model.mean is not None else 1, 1, 1))
            self.register_buffer('mean', model.mean.clone())
            self.register_buffer('scale', 1 / model.std)

    @property
    def outputs(self):
        """Their names."""
        return ('classes', 'confidence') if self.postprocess else ('logits', )

    def forward(self, images):
        if self.preprocess:
            images = (images.permute(0, 3, 1, 2).float() - self.mean) * self.scale
        features = self.backbone(images)
        logits = self.head(features if self.neck is None else self.neck(features))
        logits = resize(logits, images.shape[2:], self.align_corners)
        if not self.postprocess:
            return logits
        largest, classes = logits.max(1)
        confidence = 1 / (logits - largest[:, None]).exp().sum(1)
        return classes.to(torch.uint8 if self.num_classes <= 256 else torch.int32), confidence
