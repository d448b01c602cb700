"""Labels that are no class: one error, whether it is found at once or, on a device, after the step that met them.

On CUDA a loss does not wait to learn whether all labels were classes. It is NaN where one was not, so that it cannot
pass for a loss, and the largest wrong label is on its way to the host, where :func:`check` raises the error: the next
loss calls it, and so does whoever finds a loss that is NaN (:class:`~inceptionnext_seg.engine.finite.FiniteHook`).
"""
import torch

from ..errors import UserError
from .host_copy import copy_to_host

NONE_WRONG = -2**63     # in the place of the largest wrong label
pending = []            # (HostCopy of the largest wrong label, number of classes, ignore_index), the oldest first


def out_of_range(labels, classes, ignore_index):
    """The error for labels that are no class; ``labels`` are ints, some of which may be right."""
    wrong = [label for label in labels if label != ignore_index and not 0 <= label < classes]
    shown = ', '.join(map(str, wrong[:5])) + (', ...' if len(wrong) > 5 else '')
    return UserError(
        f'labels have values that are no class: {shown}; expected 0 to {classes - 1}, or {ignore_index} for pixels '
        "that do not count. Next: check num_classes of the heads, and reduce_zero_label of the data set's "
        'LoadAnnotations.')


def watch(wrong, classes, ignore_index):
    """Have :func:`check` raise if ``wrong``, a number on a device, is a label when it arrives.

    A CUDA graph that is being captured has no later: of it, only the loss tells.
    """
    if not wrong.is_meta and not is_capturing(wrong.device):
        pending.append((copy_to_host(wrong), classes, ignore_index))


def check(device=None, wait=False):
    """Look at what has arrived, and at the rest too if ``wait``.

    Raises:
        UserError: A label was neither a class nor ``ignore_index``.
    """
    if device is not None and is_capturing(device):     # no event may be asked
        return
    while pending and (wait or pending[0][0].is_known()):
        copy, classes, ignore_index = pending.pop(0)
        label = copy.value()
        if label != NONE_WRONG:
            pending.clear()
            raise out_of_range([label], classes, ignore_index)


def is_capturing(device):
    return device.type == 'cuda' and torch.cuda.is_current_stream_capturing()
