"""One way to register an operator with torch: what runs it on each device, its shapes, its gradient, its FLOPs."""
import typing

import torch
from torch.utils.flop_counter import register_flop_formula

NAMESPACE = 'inceptionnext_seg'
# In the signature of an operator; torch < 2.7 does not know list[torch.Tensor].
TENSORS = typing.List[torch.Tensor]  # noqa: UP006


def register(name, cpu, *, fake, cuda=None, backward=None, setup_context=None, flops=None):
    """Register ``inceptionnext_seg::NAME``, which torch.compile takes as one node, and return it to be called.

    Args:
        cpu (Callable): The implementation on a CPU; the annotations of its arguments are the operator's schema.
        fake (Callable): The same arguments to empty outputs of the right shapes, dtypes and strides.
        cuda (Callable | None): The implementation on CUDA.
        backward (Callable | None), setup_context (Callable | None): As of ``torch.library.register_autograd``.
        flops (Callable | None): FLOPs, two for each MAC, from the arguments with shapes in the place of tensors.
    """
    operator = torch.library.custom_op(f'{NAMESPACE}::{name}', cpu, mutates_args=(), device_types='cpu')
    operator.register_fake(fake)
    if cuda is not None:
        operator.register_kernel('cuda', cuda)
    if backward is not None:
        operator.register_autograd(backward, setup_context=setup_context)
    if flops is not None:
        register_flop_formula(getattr(getattr(torch.ops, NAMESPACE), name))(flops)
    return operator
