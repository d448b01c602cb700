"""Products over the pixels by oneDNN with what follows them done as their results leave the registers, on a CPU.

``gelu(W x + b)`` and ``r + W x + b`` are one pass over memory each. The operators are those of torch.compile's graphs
for a CPU; they have no gradient.
"""
import functools

import torch
import torch.nn.functional as F

# Hidden values of an MLP at once, 1 GiB in float: those of a very large image are four times its map.
MOST_HIDDEN = 1 << 28
# Of a test with a few numbers of size 1: half the digits of the dtype.
TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 0.1}


def linear(x, weight, bias, gelu=False):
    """``x Wᵀ + b``, or its exact GELU, of rows (N, C) and a weight (O, C), all of one dtype."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, 'gelu' if gelu else 'none', [], 'none')


def linear_and_add(x, weight, bias, added):
    """``added + x Wᵀ + b``; ``added`` (N, O) stays as it is."""
    return torch.ops.mkldnn._linear_pointwise.binary(x, added, weight, bias, 'add')


def mlp(x, weight1, bias1, weight2, bias2, added=None):
    """``added + W₂ gelu(W₁ x + b₁) + b₂`` of rows, in blocks of at most ``MOST_HIDDEN`` hidden values."""
    def products(block):
        hidden = linear(x[block], weight1, bias1, gelu=True)
        return linear(hidden, weight2, bias2) if added is None else linear_and_add(hidden, weight2, bias2, added[block])

    size = max(1, MOST_HIDDEN // len(weight1))
    if len(x) <= size:
        return products(slice(None))
    out = x.new_empty(len(x), len(weight2))
    for begin in range(0, len(x), size):
        block = slice(begin, begin + size)
        out[block] = products(block)
    return out


def why_not(dtype):
    """Why these operators cannot be had for ``dtype``, or None."""
    # No constant result for torch.compile, which would run this function: older ones say then that nothing compiles.
    if torch.compiler.is_compiling():
        return 'the graph is compiled, and torch.compile fuses by itself'
    if not torch.backends.mkldnn.enabled:
        return 'oneDNN is turned off (torch.backends.mkldnn)'
    if dtype not in TOLERANCES:
        return f'the map is computed in {dtype}, and oneDNN takes {", ".join(map(str, TOLERANCES))}'
    return why_not_here(dtype)


@functools.cache
def why_not_here(dtype):
    """Why oneDNN's operators cannot be used, or None: they are none of torch's public ones, so they are tried once."""
    with torch.inference_mode(), torch.autocast('cpu', enabled=False):
        x, weight, bias, added = (
            torch.linspace(-1.5, 1, shape.numel(), device='cpu').to(dtype).view(shape)
            for shape in map(torch.Size, ((6, 4), (3, 4), (3, ), (6, 3))))
        expected, sum_of = F.linear(x.float(), weight.float(), bias.float()), added.float()
        try:
            found = linear(x, weight, bias, gelu=True), linear_and_add(x, weight, bias, added)
        except (AttributeError, RuntimeError, TypeError) as error:
            return f'this build of torch has no such operators of oneDNN ({str(error).splitlines()[0]})'
        for y, right in zip(found, (F.gelu(expected), expected + sum_of), strict=True):
            if y.shape != right.shape or not (y.float() - right).abs().max() < TOLERANCES[dtype]:
                return 'oneDNN computes something else'
        return None if torch.equal(added.float(), sum_of) else 'oneDNN overwrites its input'
