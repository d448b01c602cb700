"""Which form of an operator runs: the one place that chooses, for all of them.

An operator has a form 'torch', its reference in stock operators, which takes every input, and faster forms that take
some. The caller names a form or says 'auto'.

On 'auto' the form is the fastest that was measured for such arguments on this machine (:mod:`.measured`), and that of a
rule of thumb where nothing was.
"""
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd import forward_ad

from ..errors import UserError
from . import measured
from ._triton import LaunchError


class FormError(UserError, ValueError):
    """A form of an operator that does not exist, or that cannot take this input."""


def always_can(*args):
    """Of a form that takes every input."""


def always_worth(*args):
    return True


class Form(NamedTuple):
    """One way to run an operator. All three functions take the operator's arguments.

    Attributes:
        run (Callable): The operator.
        why_not (Callable): Why it cannot run with these arguments, or None.
        worth (Callable): Whether 'auto' takes it where nothing was measured; asked only where it can run. A rule of
            thumb.
        timed (Callable): Whether measuring tries it; not where it is known to take much longer than another.
    """
    run: Callable
    why_not: Callable = always_can
    worth: Callable = always_worth
    timed: Callable = always_worth


def run(operator, forms, impl, *args):
    """The operator in the form that :func:`choose` chooses; on 'auto', in the next where Triton fails there."""
    name = choose(operator, forms, impl, *args)
    if name != 'triton' or impl != 'auto':
        return forms[name].run(*args)
    try:
        return forms[name].run(*args)
    except LaunchError:
        # Triton is off on this device now, so that it is another form, whatever was measured.
        return forms[by_rule(forms, args)].run(*args)


def choose(operator, forms, impl, *args):
    """The name of the form that runs.

    On meta and fake tensors, and where the model is traced or exported, it is 'torch', whatever ``impl`` says: what is
    counted, or runs elsewhere, is the model and not how it is computed here. So it is under torch.func's transforms
    and forward-mode differentiation, which know formulas of torch's operators alone.

    Args:
        operator (str): Its name, for errors.
        forms (dict[str, Form]): Its forms, the fastest first, 'torch' last.
        impl (str): 'auto', or the name of a form.
        args: The operator's arguments; the first is a tensor or a sequence of tensors.

    Raises:
        FormError: ``impl`` is no form, or one that cannot run with these arguments.
    """
    check_name(operator, forms, impl)
    if impl == 'torch' or is_hollow(args[0] if isinstance(args[0], torch.Tensor) else args[0][0]) or runs_elsewhere() \
            or is_transformed():
        return 'torch'
    if impl != 'auto':
        reason = forms[impl].why_not(*args)
        if reason is not None:
            raise FormError(f'{operator} cannot run in the form {impl!r}: {reason}. Forms: {listed(forms)}. Next: '
                            "'auto' takes the fastest form that can, 'torch' always can.")
        return impl
    return measured.choose(operator, forms, by_rule, args)


def by_rule(forms, args):
    """The first form that can run and is worth it by its rule of thumb."""
    for name, form in forms.items():
        if form.why_not(*args) is None and form.worth(*args):
            return name
    return 'torch'


def check_name(operator, forms, impl):
    """Raises FormError where ``impl`` is neither 'auto' nor the name of a form."""
    if impl != 'auto' and impl not in forms:
        raise FormError(f'{operator} has no form {impl!r}. Forms: {listed(forms)}. Next: one of these.')


def listed(forms):
    return ', '.join(map(repr, ('auto', *forms)))


def needs_gradient(*args):
    """Whether a gradient is wanted of one of these, tensors, modules with their own parameters, or None."""
    return torch.is_grad_enabled() and any(
        t.requires_grad for arg in args if arg is not None
        for t in ((arg, ) if isinstance(arg, torch.Tensor) else arg.parameters()))


def is_hollow(x):
    """Whether a tensor has a shape but no values."""
    return x.is_meta or isinstance(x, FakeTensor)


@torch.compiler.assume_constant_result
def is_transformed():
    """Whether this runs under ``torch.func.grad``, ``vmap`` or the like, or under forward-mode differentiation."""
    return torch._C._functorch.maybe_current_level() is not None or forward_ad._current_level >= 0


# torch < 2.7 has no such function: what it exports has these operators in it, unless the model is restored before.
is_exporting = getattr(torch.compiler, 'is_exporting', lambda: False)


def runs_elsewhere():
    """Whether the model is being exported or traced: the result has to run on machines without these operators."""
    return torch.jit.is_tracing() or is_exporting()
