"""What runs in the processes that are measured in; it imports little, for a process each is started many times."""
import contextlib
import functools
import time

import torch

from inceptionnext_seg.engine.allocator import keep_freed_memory
from inceptionnext_seg.ops.stopwatch import seconds_waited
from inceptionnext_seg.provenance import synchronize

from ..timing import DTYPES, MEMORY_FORMATS, interleave, machine_peaks
from .cells import IMAGES
from .counting import output_size
from .kernels import kernels_of
from .modules import build

# Rounds, and before them those that do not count, of calls of milliseconds and of calls of up to a second. Finding the
# number of calls of a sample takes two more of each, first of all, which do not count either.
SHORT, LONG = dict(rounds=10, warmup=2), dict(rounds=3, warmup=0)
ROUNDS = dict(inside=SHORT, pixel=SHORT, beyond=LONG, image=LONG)


def prepare(threads, memory):
    """What a process does first."""
    torch.set_num_threads(threads)
    if memory == 'kept':
        keep_freed_memory()


def limits(dtype, device):
    """Of the machine at a dtype, with this process's threads: MACs/s, and bytes/s beyond and within the cache."""
    peaks = machine_peaks(device, DTYPES[dtype])
    return {name: peaks[name] for name in peaks if name != 'seconds'}


def measure(cell, layouts, last_level_cache, seed, with_kernels, device):
    """Time the candidates of a cell against each other.

    Args:
        cell (Cell): Of operators.
        layouts (dict[str, list[str]]): By candidate.
        last_level_cache (int): Its bytes.
        seed (int): Of the order within the rounds.
        with_kernels (bool): Whether to ask the library which kernels run.

    Returns:
        dict: ``seconds`` of each round, by candidate and layout; ``batch_size``; ``waited``, the share of the time that
        threads of this process were ready and did not run; ``kernels``, by candidate and layout.
    """
    wait = functools.partial(synchronize, device)
    calls, inputs, kernels = {}, {}, {}
    for layout in MEMORY_FORMATS:
        for name, case in cell.cases(layout, last_level_cache).items():
            if layout in layouts.get(name, ()):
                calls[name, layout] = operator_call(case, inputs, device)
    with torch.inference_mode() if cell.mode == 'infer' else contextlib.nullcontext():
        if with_kernels:
            kernels = {key: kernels_of(call, device, wait) for key, call in calls.items()}
        found = timed(calls, cell, seed, wait)
    return dict(found, kernels=nested(kernels), batch_size=case.batch_size)


def measure_network(cell, layouts, seed, device, build_step):
    """As :func:`measure`, of the forms of a network; ``build_step`` is :func:`.networks.step`."""
    batch_size, size = IMAGES
    calls = {(form, layout): build_step(cell.subject, form, cell.mode, MEMORY_FORMATS[layout], batch_size, size, device)
             for form, kept in layouts.items() for layout in kept}
    with torch.inference_mode() if cell.mode == 'infer' else contextlib.nullcontext():
        found = timed(calls, cell, seed, functools.partial(synchronize, device))
    return dict(found, kernels={}, batch_size=batch_size)


def timed(calls, cell, seed, wait):
    waited, begin = seconds_waited(), time.perf_counter()
    samples = interleave(calls, **ROUNDS[cell.place], max_extensions=0, synchronize=wait, seed=seed)
    share = (seconds_waited() - waited) / (time.perf_counter() - begin)
    return dict(seconds=nested({key: [round(second, 9) for second in sample.seconds]
                                for key, sample in samples.items()}), waited=round(share, 4))


def nested(found):
    """{(candidate, layout): value} as {candidate: {layout: value}}."""
    result = {}
    for (name, layout), value in found.items():
        result.setdefault(name, {})[layout] = value
    return result


def operator_call(case, inputs, device):
    """A call without arguments that runs ``case``; 'infer' expects inference mode around it.

    ``inputs`` holds the tensors that the cases of a cell share: in the cache all read the same ones, and beyond it a
    single tensor does not fit.
    """
    def tensor(what, size):
        key = what, *size, case.layout
        if key not in inputs:
            image = torch.randn(1, case.channels, *size).to(device, DTYPES[case.dtype])
            inputs[key] = image.expand(case.batch_size, -1, -1, -1).contiguous(
                memory_format=MEMORY_FORMATS[case.layout])
        return inputs[key]

    module = build(case).to(device, DTYPES[case.dtype], memory_format=MEMORY_FORMATS[case.layout])
    x = tensor('input', (case.size, case.size))
    if case.mode == 'infer':
        return lambda: module(x)
    x, gradient = x.detach().requires_grad_(), tensor('gradient', output_size(case))
    parameters = list(module.parameters())
    return lambda: torch.autograd.grad(module(x), (x, *parameters), gradient)
