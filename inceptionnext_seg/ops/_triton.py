"""Triton for this package's kernels: whether it works on a device, one way to launch, and launches that are recorded.

That the package ``triton`` is there proves nothing: it needs a driver, a C compiler, and a device that it knows. So
:func:`why_not` compiles and runs a tiny kernel on each device once, and a kernel that fails later, in
:func:`launch`, turns Triton off on its device. Either way one log line says so, and every caller takes torch's
operators from then on. This file needs no Triton to be imported; the kernels' files do.

Environment variables:
    INCEPTIONNEXT_SEG_TRITON: 0 takes torch's operators even where Triton is.
    TRITON_INTERPRET: Triton's own; with 1, set before Triton is imported, kernels run in its interpreter, on a CPU too.
"""
import contextlib
import functools
import importlib.metadata
import importlib.util
import os
from typing import Any, NamedTuple

import torch
from mmengine.logging import print_log

from ..errors import UserError

DISTRIBUTIONS = 'triton', 'pytorch-triton', 'triton-rocm', 'pytorch-triton-rocm', 'pytorch-triton-xpu', 'triton-windows'
# Why Triton is off on a device, by (type, index); None where it works.
failures = {}


class LaunchError(UserError):
    """A kernel that cannot be compiled or launched on its device; :func:`why_not` has the reason from now on."""


# Whether it works


@torch.compiler.assume_constant_result
def why_not(device):
    """Why Triton's kernels cannot run on ``device`` (torch.device), or None.

    The first call for a device compiles and runs a kernel there, and waits for it; the answer is kept.
    """
    if os.environ.get('INCEPTIONNEXT_SEG_TRITON') == '0':
        return 'INCEPTIONNEXT_SEG_TRITON is 0'
    if device.type != 'cuda' and not (interprets() and device.type == 'cpu'):
        return f'the input is on {device}, and the Triton kernels are for CUDA'
    key = key_of(device)
    if key in failures:
        return failures[key]
    if not importlib.util.find_spec('triton'):
        return failures.setdefault(key, 'the package triton is not installed')
    if device.type == 'cuda' and not torch.cuda.is_available():
        return 'there is no CUDA device'
    if device.type == 'cuda' and torch.cuda.is_current_stream_capturing():
        # No kernel may be waited for now; those that the graph needs ran before it, or it cannot be captured.
        return None
    return try_on(*key)


@functools.cache
def version():
    """Of the installed Triton, under whichever name it was built for a device; None where there is none."""
    for name in DISTRIBUTIONS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(name)
    return None


def interprets():
    """Whether Triton's interpreter runs the kernels, which needs no GPU."""
    return os.environ.get('TRITON_INTERPRET') == '1'


def key_of(device):
    index = device.index
    if index is None and device.type == 'cuda' and torch.cuda.is_available():
        index = torch.cuda.current_device()
    return device.type, index


def try_on(device_type, index):
    """Compile and run a kernel on a device: why that failed, or None."""
    device = torch.device(device_type, index)
    try:
        with on(device), torch.inference_mode(False), torch.no_grad():
            from . import _triton_trial
            found = _triton_trial.run(device)
        if found is None:
            return failures.setdefault(key_of(device), None)
        reason = f'a trial kernel computed {found}'
    except Exception as error:
        reason = first_line(error)
    return give_up(device, reason)


def give_up(device, reason):
    """Turn Triton off on ``device``, with one log line; returns the reason that :func:`why_not` has from now on."""
    key = key_of(device)
    if failures.get(key) is None:
        failures[key] = f'Triton does not work on {device}: {reason}'
        print_log(f'{failures[key]}. Torch operators run instead, which are slower', logger='current')
    return failures[key]


def first_line(error):
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f'{type(error).__name__}: {lines[0][:300]}' if lines else type(error).__name__


def on(device):
    """A context in which ``device`` is CUDA's current one, where it is of CUDA."""
    return torch.cuda.device(device) if device.type == 'cuda' else contextlib.nullcontext()


# Launches


def cdiv(a, b):
    """``triton.cdiv`` of whole numbers; Triton's own, made for kernels, takes the host microseconds."""
    return -(-a // b)


def next_power_of_2(n):
    """``triton.next_power_of_2``, likewise."""
    return 1 << (n - 1).bit_length() if n > 0 else 0


class Launch(NamedTuple):
    """One launch of a kernel: ``kernel[grid](*args, **constants)``."""
    kernel: Any
    grid: tuple
    args: tuple
    constants: dict


recorder = None


def launch(kernel, grid, *args, **constants):
    """``kernel[grid](*args, **constants)`` on the device of the first argument, a tensor.

    Nothing is launched where the grid is empty, or where :func:`recording` records.

    Raises:
        LaunchError: The kernel cannot be compiled or launched. The device is given up, see :func:`why_not`.
    """
    if 0 in grid:
        return
    if recorder is not None:
        recorder.append(Launch(kernel, grid, args, constants))
        return
    try:
        with on(args[0].device):
            kernel[grid](*args, **constants)
    except Exception as error:
        name = getattr(kernel, '__name__', kernel)
        reason = give_up(args[0].device, f'the kernel {name} fails, {first_line(error)}')
        raise LaunchError(f"{reason}. Expected: a kernel that compiles and runs. Next: the form 'auto' or 'torch', or "
                          'a version of triton that fits torch and the GPU.') from error


@contextlib.contextmanager
def recording():
    """``with recording() as launches``: launches are appended to that list as :class:`Launch` and do not happen.

    Launch code that is called with tensors on the meta device shows so what it would run, without a GPU:
    ``compile_ahead`` of tests/ops/triton_ahead.py compiles it.
    """
    global recorder
    before, recorder = recorder, []
    try:
        yield recorder
    finally:
        recorder = before
