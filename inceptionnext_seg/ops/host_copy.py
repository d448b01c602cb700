"""A number that a device computes and the host reads later, without waiting for it."""
from typing import NamedTuple

import torch


class HostCopy(NamedTuple):
    """A number in the host's memory, and the event after which it is valid; on a CPU the event is None."""
    number: torch.Tensor
    copied: torch.cuda.Event | None

    def is_known(self):
        return self.copied is None or self.copied.query()

    def value(self):
        """The number; waits for it."""
        if self.copied is not None:
            self.copied.synchronize()
        return self.number.item()


def copy_to_host(number):
    """The :class:`HostCopy` of a tensor with one element on any device; its copying has begun."""
    if number.device.type != 'cuda':
        return HostCopy(number, None)
    copy = torch.empty((), dtype=number.dtype, pin_memory=True).copy_(number, non_blocking=True)
    copied = torch.cuda.Event()
    copied.record(torch.cuda.current_stream(number.device))
    return HostCopy(copy, copied)
