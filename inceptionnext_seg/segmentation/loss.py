"""MMSegmentation's cross-entropy from sums over pixels, without materializing full-resolution logits.

A UperNet for 150 classes upsamples its logits from a quarter of the image's size, and in stock MMSegmentation these are
the largest tensors of a step. :mod:`inceptionnext_seg.ops.upsampled_cross_entropy` says how they are avoided.
"""
import torch
import torch.nn as nn
from mmseg.models.losses import CrossEntropyLoss

from .._fast import is_bare
from ..ops.upsampled_cross_entropy import upsampled_cross_entropy

EPS = torch.finfo(torch.float32).eps  # what mmseg adds to every number of pixels that it divides by


def losses_of(head):
    """The losses of a decode head as a list."""
    return head.loss_decode if isinstance(head.loss_decode, nn.ModuleList) else [head.loss_decode]


def takes_sums(head):
    """Whether all losses of a decode head are mmseg's softmax cross-entropy, over all pixels, reduced to a number."""
    return (head.sampler is None and head.ignore_index is not None and head.out_channels > 1
            and all(is_bare(loss, CrossEntropyLoss) and not loss.use_sigmoid and not loss.use_mask
                    and loss.reduction in ('mean', 'sum') for loss in losses_of(head)))


def losses_from_sums(head, seg_logits, labels, impl='auto'):
    """What ``head.loss_by_feat`` returns, where :func:`takes_sums`: losses by name, and ``acc_seg`` in per cent.

    With autocast the logits are upsampled in float32, not rounded to half precision as in stock. With ``class_weight``
    and ``avg_non_ignore`` together, where mmseg 1.2 raises IndexError, the mean is over the weights of the pixels that
    are not ignored, which is what it is without the latter.

    Args:
        seg_logits (Tensor): (B, classes, h, w).
        labels (Tensor): (B, H, W), class indices.
        impl (str): Form of :func:`~inceptionnext_seg.ops.upsampled_cross_entropy.upsampled_cross_entropy`.

    Raises:
        UserError: A label is neither a class nor ``ignore_index``.
    """
    result = {}
    for loss in losses_of(head):
        sums = upsampled_cross_entropy(seg_logits, labels, loss.class_weight, head.ignore_index,
                                       align_corners=head.align_corners, impl=impl)
        value = loss.loss_weight * reduce(loss, sums, labels.numel())
        result[loss.loss_name] = result[loss.loss_name] + value if loss.loss_name in result else value
    result['acc_seg'] = ((sums.correct + EPS) * (100 / (sums.pixels + EPS))).reshape(1)
    return result


def reduce(loss, sums, pixels):
    """``UpsampledLoss`` of a batch of ``pixels``, ignored ones included, as mmseg's ``CrossEntropyLoss`` reduces it."""
    if loss.reduction == 'sum':
        return sums.loss
    if loss.class_weight is not None:
        return sums.loss / (sums.weight + EPS)
    return sums.loss / ((sums.pixels if loss.avg_non_ignore else pixels) + EPS)
