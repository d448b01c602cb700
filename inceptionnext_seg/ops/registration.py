"""One way to register an operator with torch: what runs it on each device, its shapes, its gradient, its FLOPs."""
import functools
import typing

import torch
from torch.utils.flop_counter import flop_registry, register_flop_formula

NAMESPACE = 'inceptionnext_seg'
# In the signature of an operator; torch < 2.7 does not know list[torch.Tensor].
TENSORS = typing.List[torch.Tensor]  # noqa: UP006
INTS = typing.Sequence[int]


def register(name, cpu, *, fake, cuda=None, backward=None, setup_context=None, flops=None, devices='cpu'):
    """Register ``inceptionnext_seg::NAME``, which torch.compile takes as one node, and return it to be called.

    Args:
        cpu (Callable): The implementation on ``devices``; the annotations of its arguments are the operator's schema.
        fake (Callable): The same arguments to empty outputs of the right shapes, dtypes and strides.
        cuda (Callable | None): The implementation on CUDA.
        backward (Callable | None), setup_context (Callable | None): As of ``torch.library.register_autograd``. Where
            gradients are to be differentiated again (``create_graph=True``), grad mode is on in ``backward``, and that
            calls :func:`gradients_again`.
        flops (Callable | None): FLOPs, two for each MAC, from the arguments with shapes in the place of tensors.
        devices (str | None): A CPU, or None for every device, where the implementation is torch's operators.
    """
    operator = torch.library.custom_op(
        f'{NAMESPACE}::{name}', without_autocast(cpu), mutates_args=(), device_types=devices)
    operator.register_fake(fake)
    if cuda is not None:
        operator.register_kernel('cuda', without_autocast(cuda))
    if backward is not None:
        operator.register_autograd(of_what_was_passed(backward), setup_context=setup_context)
    if flops is not None:
        packet = getattr(getattr(torch.ops, NAMESPACE), name)
        register_flop_formula(packet)(flops)
        # torch 2.4 enters the overload, and its counter looks for the packet: it would count nothing.
        flop_registry.setdefault(packet, flop_registry.get(packet.default))
    return operator


def of_what_was_passed(backward):
    """``backward`` without gradients of trailing arguments left at their defaults, which the dispatcher takes away:
    torch 2.4 accepts as many gradients as arguments came."""

    @functools.wraps(backward)
    def run(ctx, *grads):
        found = backward(ctx, *grads)
        return found[:len(ctx.needs_input_grad)] if isinstance(found, tuple) else found

    return run


def without_autocast(function):
    """``function`` where autocast is off on the device of its tensors: a product of another dtype than a kernel expects
    would be written past its end, and one that is to be in float32 be rounded.

    Backward runs with autocast on where a user calls it in such a block.
    """

    @functools.wraps(function)
    def run(*args):
        device = device_type_of(args)
        if not torch.is_autocast_enabled(device):
            return function(*args)
        with torch.autocast(device, enabled=False):
            return function(*args)

    return run


def device_type_of(args):
    """Of the first tensor among an operator's arguments, some of which may be lists of tensors."""
    for x in args:
        first = x[0] if isinstance(x, list | tuple) and x else x
        if isinstance(first, torch.Tensor):
            return first.device.type
    return 'cpu'


def gradients_again(reference, inputs, needed, grad):
    """Gradients of ``reference(*inputs)`` by torch's operators, which can be differentiated again; a kernel's cannot.

    Args:
        inputs (Sequence): Tensors, or None where ``reference`` takes None.
        needed (Sequence[bool]): Whether each takes a gradient.
        grad (Tensor): To the output.

    Returns:
        list[Tensor | None]: As many as inputs.
    """
    with torch.enable_grad():
        # Views, so that a tensor which is two of the inputs is told apart.
        inputs = [x.view_as(x) if need else x for x, need in zip(inputs, needed, strict=True)]
        found = iter(torch.autograd.grad(
            reference(*inputs), [x for x, need in zip(inputs, needed, strict=True) if need], grad, create_graph=True,
            allow_unused=True))
    return [next(found) if need else None for need in needed]
