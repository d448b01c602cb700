"""Random tensors in every kind of memory, and the comparison of what an operator makes of them.

A case is drawn as numbers and names alone; values come from a seed. So hypothesis shrinks what matters.
"""
import contextlib
import math
from unittest import mock

import torch
from hypothesis import strategies as st

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
# Of the largest element, beside ten times the error of stock operators in the same dtype.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-5, torch.float16: 8e-3, torch.bfloat16: 6e-2}
LAYOUTS = ('contiguous', 'channels_last', 'reversed', 'sliced', 'offset', 'expanded', 'negated', 'imaginary')
POISONS = (math.nan, math.inf, -math.inf)

sizes = st.sampled_from([1, 2, 3, 5, 8, 11, 13])
sizes_and_none = st.sampled_from([0, 1, 1, 2, 3, 5, 8, 13])
batches = st.sampled_from([1, 2, 3, 0])
layouts = st.sampled_from(LAYOUTS)


def laid_out(x, layout):
    """A tensor with the values of ``x``, but for 'expanded', which repeats the first along an axis; elsewhere in its
    memory are NaN or 77, so that reading the wrong place shows."""
    nothing = math.nan if x.is_floating_point() else 77
    if layout == 'channels_last' and x.dim() == 4:
        return x.clone(memory_format=torch.channels_last)
    if layout == 'reversed':
        axes = list(range(x.dim()))[::-1]
        return x.permute(axes).clone(memory_format=torch.contiguous_format).permute(axes)
    if layout == 'sliced':
        whole = x.new_full([2 * size + 1 for size in x.shape], nothing)
        whole[(slice(1, None, 2), ) * x.dim()] = x
        return whole[(slice(1, None, 2), ) * x.dim()]
    if layout == 'offset':  # no vector is aligned
        whole = x.new_full((x.numel() + 1, ), nothing)
        whole[1:] = x.flatten()
        return whole[1:].view(x.shape)
    if layout == 'expanded' and x.numel():
        axis = max(range(x.dim()), key=lambda i: x.shape[i])
        return x.narrow(axis, 0, 1).clone().expand_as(x)
    if layout == 'negated':     # the bit that says "read minus this"
        return torch._neg_view(-x)
    if layout == 'imaginary' and x.dtype in (torch.float32, torch.float64):     # such a view, every second number
        return torch.complex(torch.full_like(x, nothing), -x).conj().imag
    return x.clone(memory_format=torch.contiguous_format)


class Values:
    """Tensors by name, from a seed: drawn once, and laid out anew for every run.

    Args:
        poison (tuple | None): (name, place, value): one number that is not finite.
        places (dict[str, str]): Layouts by name.
    """

    def __init__(self, seed, dtype, places, poison=None):
        self.seed, self.dtype, self.places, self.poison = seed, dtype, places, poison

    def __repr__(self):
        return f'Values(seed={self.seed}, dtype={self.dtype}, places={self.places}, poison={self.poison})'

    def __call__(self, name, *shape, least=None, exact=False):
        """(float64 and contiguous where ``exact``); ``least``: absolute values above this."""
        generator = torch.Generator().manual_seed(self.seed + sum(map(ord, name)))
        x = torch.randn(shape, generator=generator, dtype=torch.float64)
        if least is not None:
            x = x.abs() + least
        if self.poison and self.poison[0] == name and x.numel():
            x.view(-1)[self.poison[1] % x.numel()] = self.poison[2]
        x = laid_out(x.to(self.dtype), self.places.get(name, 'contiguous'))
        return x.double().resolve_neg().contiguous() if exact else x


@st.composite
def values(draw, names, dtypes=DTYPES, poison=False):
    places = {name: draw(layouts) for name in names}
    poisoned = (draw(st.sampled_from(names)), draw(st.integers(0, 10**6)), draw(st.sampled_from(POISONS))) \
        if poison else None
    return Values(draw(st.integers(0, 2**16)), draw(st.sampled_from(dtypes)), places, poisoned)


@contextlib.contextmanager
def threads_of_torch(threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def small_blocks(*settings):
    """``(module, name, value)`` each: so that small maps are many blocks, or take the way of large ones."""
    with contextlib.ExitStack() as stack:
        for module, name, value in settings:
            stack.enter_context(mock.patch.object(module, name, value))
        yield


def error(found, expected):
    """Largest difference, over one plus the largest element: all inputs are about 1."""
    if not expected.numel():
        return 0.
    return ((found.double() - expected).abs().max() / (1 + expected.abs().max())).item()


def assert_alike(found, expected, plain, dtype, what):
    """The tensors of a form against those of stock operators in float64, with those of stock operators in the same
    dtype to tell what the dtype costs."""
    assert len(found) == len(expected) == len(plain)
    for i, (x, exact, stock) in enumerate(zip(found, expected, plain, strict=True)):
        if x is None or stock is None:  # what no output depends on
            assert x is None or not x.any(), f'{what}, tensor {i}: a gradient where stock has none'
            assert stock is None or not stock.any(), f'{what}, tensor {i}: no gradient where stock has one'
            continue
        assert x.shape == stock.shape, f'{what}, tensor {i}: {tuple(x.shape)}, not {tuple(stock.shape)}'
        # Under autocast stock promotes where it concatenates and adds.
        assert x.dtype in (stock.dtype, dtype), f'{what}, tensor {i}: {x.dtype}, not {stock.dtype}'
        # Some convolutions of torch in half precision read memory that is not theirs where the input is expanded.
        if dtype != torch.float64 and not error(stock, exact) < 0.2:
            return
        # torch's batch norm mixes up a single image and a gradient whose axes lie in memory in another order.
        if error(stock, exact) > max(1e-9, TOLERANCE[dtype]) and torch.equal(x, stock):
            continue
        limit = TOLERANCE[dtype] + (10 * error(stock, exact) if dtype != torch.float64 else 0)
        assert error(x, exact) <= limit, f'{what}, tensor {i}: off by {error(x, exact):.1e}, above {limit:.1e}'


def all_finite(tensors):
    return all(x is None or x.isfinite().all() for x in tensors)


def assert_not_hidden(found, plain, what):
    """Where stock operators let something that is not finite through, so does a form, if not always in the same
    tensor."""
    assert all_finite(plain) or not all_finite(found), f'{what}: hides what is not finite'
