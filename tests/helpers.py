"""What the tests of all packages share: random tensors, and the distance between two results."""
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode


def draw(*shape, seed=0, dtype=torch.float64, layout=torch.contiguous_format):
    """A tensor of ``shape`` from a normal distribution, of a generator of its own.

    The values are those of float32, so that every dtype from float32 up has the same.

    Args:
        layout (torch.memory_format): Of tensors with four dimensions; others are contiguous.
    """
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)
    return x.contiguous(memory_format=layout) if x.dim() == 4 else x


def relative_error(found, expected):
    """Norm of the difference over the norm of ``expected``, computed in float64; where that is zero, 0 or infinity."""
    found, expected = found.detach().double(), expected.detach().double()
    difference, scale = (found - expected).norm().item(), expected.norm().item()
    return difference / scale if scale else (float('inf') if difference else 0.)


def assert_close(found, expected, tolerance, floor=0.):
    """Same names or number of tensors, same shapes, and no :func:`relative_error` above ``tolerance``.

    A NaN anywhere is an error. Strides and dtypes are the caller's to compare.

    Args:
        found, expected (Tensor | Sequence[Tensor] | dict[str, Tensor]): Alike.
        floor (float): This part of the largest norm in ``expected`` is the least norm that an error is divided by: in
            front of a BatchNorm a bias has no gradient, and what is computed for it is rounding.
    """
    found, expected = named(found), named(expected)
    assert found.keys() == expected.keys()
    least = floor * max(map(norm, expected.values()), default=0.)
    for name, tensor in expected.items():
        assert found[name].shape == tensor.shape, f'{name}: {tuple(found[name].shape)}, not {tuple(tensor.shape)}'
        if norm(tensor) < least:
            error = norm(found[name].detach().double() - tensor.detach().double()) / least
        else:
            error = relative_error(found[name], tensor)
        assert error <= tolerance, f'{name}: relative error {error:.1e}, above {tolerance:.1e}'


def norm(tensor):
    return tensor.detach().double().norm().item()


def named(tensors):
    """By name; those of a sequence are named by their place."""
    if isinstance(tensors, torch.Tensor):
        tensors = [tensors]
    return dict(tensors) if isinstance(tensors, dict) else dict(enumerate(tensors))


class LiveBytes(TorchDispatchMode):
    """Within it, the most bytes that were alive, after any of torch's operators, of what these operators made.

    Attributes:
        peak (int): Views count once; what an operator of this package allocates and frees inside it does not count.
    """

    def __init__(self):
        super().__init__()
        self.peak, self.alive = 0, {}

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        given = {x.untyped_storage()._cdata for x in pytree.tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)}
        found = operator(*args, **(kwargs or {}))
        for x in pytree.tree_leaves(found):
            if isinstance(x, torch.Tensor) and (storage := x.untyped_storage())._cdata not in given:
                self.alive[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        self.alive = {key: (ref, nbytes) for key, (ref, nbytes) in self.alive.items() if not ref.expired()}
        self.peak = max(self.peak, sum(nbytes for _, nbytes in self.alive.values()))
        return found
