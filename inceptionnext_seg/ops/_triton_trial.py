"""The kernel that :func:`inceptionnext_seg.ops._triton.why_not` tries a device with."""
import torch
import triton
import triton.language as tl

SIZE = 32


@triton.jit
def trial_kernel(x, SIZE: tl.constexpr):
    i = tl.arange(0, SIZE)
    tl.store(x + i, tl.load(x + i) * 2. + tl.sum(i.to(tl.float32), 0))


def run(device):
    """Launches it on ``device``, the current one; returns None where the result is right, and otherwise the result."""
    x = torch.arange(SIZE, dtype=torch.float32)
    y = x.to(device, copy=True)
    trial_kernel[(1, )](y, SIZE=SIZE)
    found = y.cpu()
    return None if torch.equal(found, 2 * x + x.sum()) else found.tolist()
