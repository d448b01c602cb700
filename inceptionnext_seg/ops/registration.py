"""One way to register an operator with torch: what runs it on each device, its shapes, its gradient, its FLOPs.

torch.compile, exporters and counters need an operator that torch knows, and its way through torch takes the host longer
than a small kernel takes a GPU. A plain call therefore runs the implementation itself, under a ``autograd.Function``
where gradients are needed: the same function, at about half the cost.
"""
import functools
import inspect
import typing

import torch
from torch.autograd import forward_ad
from torch.utils.flop_counter import flop_registry, register_flop_formula

NAMESPACE = 'inceptionnext_seg'
# In the signature of an operator; torch < 2.7 does not know list[torch.Tensor].
TENSORS = typing.List[torch.Tensor]  # noqa: UP006
INTS = typing.Sequence[int]


def register(name, cpu, *, fake, cuda=None, backward=None, setup_context=None, flops=None, devices='cpu'):
    """Register ``inceptionnext_seg::NAME``, which torch.compile takes as one node, and return a function that calls it.

    The function's attribute ``registered`` is the operator itself, as torch knows it.

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
    kernels = dict(cpu=without_autocast(cpu))
    operator = torch.library.custom_op(
        f'{NAMESPACE}::{name}', kernels['cpu'], mutates_args=(), device_types=devices)
    operator.register_fake(fake)
    if cuda is not None:
        kernels['cuda'] = without_autocast(cuda)
        operator.register_kernel('cuda', kernels['cuda'])
    elif devices is None:
        kernels['cuda'] = kernels['cpu']
    if backward is not None:
        operator.register_autograd(of_what_was_passed(backward), setup_context=setup_context)
    if flops is not None:
        packet = getattr(getattr(torch.ops, NAMESPACE), name)
        register_flop_formula(packet)(flops)
        # torch 2.4 enters the overload, and its counter looks for the packet: it would count nothing.
        flop_registry.setdefault(packet, flop_registry.get(packet.default))
    return direct(name, operator, kernels, inspect.signature(cpu), backward, setup_context)


def direct(name, operator, kernels, signature, backward, setup_context):
    """A function that runs the implementation of its tensors' device, or ``operator`` where torch has to see that.

    Args:
        kernels (dict[str, Callable]): By device type.
        signature (inspect.Signature): Of the operator.
    """
    defaults = [parameter.default for parameter in signature.parameters.values()]
    function = None if backward is None else function_of(
        name, kernels, backward, setup_context, signature.return_annotation == TENSORS)

    @functools.wraps(operator)
    def call(*args, **settings):
        # torch.compile takes the first condition for true, and looks no further.
        if torch.compiler.is_compiling() or settings or is_watched():
            return operator(*args, **settings)
        found = plain_tensors(args)
        device = found[0].device.type if found else None
        if device not in kernels:
            return operator(*args)
        args = (*args, *defaults[len(args):])
        if not (torch.is_grad_enabled() and any(x.requires_grad for x in found)):
            with torch.no_grad():
                return kernels[device](*args)
        # A Function knows of gradients of its own arguments alone, and not of those within lists.
        if function is None or any(isinstance(x, list | tuple) for x in args):
            return operator(*args)
        return function(*args)

    call.registered = operator
    return call


def is_watched():
    """Whether something looks at torch's operators or transforms them: a counter, a tracer, ``torch.func``, or
    forward-mode differentiation."""
    return bool(torch._C._len_torch_dispatch_stack() or torch._C._len_torch_function_stack()
                or torch._C._functorch.maybe_current_level() is not None or forward_ad._current_level >= 0
                or torch.jit.is_tracing())


def plain_tensors(args):
    """All tensors among an operator's arguments, in lists too; empty where one is more than its memory, of which a
    kernel would know nothing: of another class, or with a negation or a conjugation that torch has put off."""
    found = []
    for x in args:
        for tensor in x if isinstance(x, list | tuple) else (x, ):
            if isinstance(tensor, torch.Tensor):
                if type(tensor) not in (torch.Tensor, torch.nn.Parameter) or tensor.layout is not torch.strided \
                        or tensor.is_neg() or tensor.is_conj() or tensor._is_zerotensor():
                    return []
                found.append(tensor)
    return found


def function_of(name, kernels, backward, setup_context, returns_list):
    """``apply`` of an ``autograd.Function`` of the operator; of one that returns a list it returns one, too."""

    def forward(ctx, *args):
        out = kernels[device_type_of(args)](*args)
        setup_context(ctx, args, out)
        return tuple(out) if returns_list else out

    def gradient(ctx, *grads):
        return backward(ctx, list(grads)) if returns_list else backward(ctx, *grads)

    function = type(name, (torch.autograd.Function, ), dict(
        forward=staticmethod(forward), backward=staticmethod(gradient)))
    if not returns_list:
        return function.apply
    return lambda *args: list(function.apply(*args))


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
