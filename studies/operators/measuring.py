"""What cases take: measured group by group, beside the machine's limits."""
import contextlib
import functools
from dataclasses import asdict

import torch

from inceptionnext_seg import provenance

from ..timing import DTYPES, MEMORY_FORMATS, InputPool, interleave, machine_peaks
from .cases import groups_of
from .counting import count, output_size
from .kernels import kernels_of
from .modules import build


def measure_cases(cases, device, progress=None, **options):
    """Measure the machine's limits and ``cases``, group by group.

    Args:
        cases (list[Case]): From :func:`select`.
        device (torch.device | str): Where to run.
        progress (Callable | None): Called after each group.
        options: ``rounds`` and ``clock`` of :func:`studies.timing.interleave`.

    Returns:
        tuple: (limits by dtype, records as in a result file).
    """
    peaks, records = {}, []
    for dtype in dict.fromkeys(case.dtype for case in cases):
        peaks[dtype] = machine_peaks(device, DTYPES[dtype], **options)
        pool = InputPool(DTYPES[dtype], device)
        for group in groups_of(case for case in cases if case.dtype == dtype):
            records += measure_group(group, pool, device, peaks[dtype], **options)
            if progress:
                progress()
    return peaks, records


def measure_group(cases, pool, device, peaks, synchronize=None, **options):
    """Measure cases of one shape, dtype, layout and mode, interleaved.

    Args:
        cases (list[Case]): All with the same ``tensors``.
        pool (InputPool): Where inputs and output gradients come from.
        device (torch.device | str): Where to run.
        peaks (dict): From :func:`studies.timing.machine_peaks`, at the cases' dtype.
        synchronize (Callable | None): Waits for the device; by default for ``device``.
        options: Of :func:`studies.timing.interleave`.

    Returns:
        list[dict]: For each case its record in a result file: the case, its counts, bound, kernels and samples.
    """
    @functools.cache
    def rotation(image, cache, requires_grad):
        case = cases[0]
        return pool.rotation((case.batch_size, case.channels, *image), MEMORY_FORMATS[case.layout],
                             hot=cache == 'hot', requires_grad=requires_grad)

    synchronize = synchronize or functools.partial(provenance.synchronize, device)
    calls = {}
    for case in cases:
        inputs = rotation((case.size, case.size), case.cache, case.mode != 'infer')
        gradients = rotation(output_size(case), case.cache, False) if case.mode == 'train' else None
        calls[case] = prepare(case, inputs, gradients, device)
    with torch.inference_mode() if cases[0].mode == 'infer' else contextlib.nullcontext():
        kernels = {case: kernels_of(call, device, synchronize) for case, call in calls.items()}
        samples = interleave(calls, synchronize=synchronize, **options)

    records = []
    for case in cases:
        counts = count(case)
        bandwidth = peaks['bytes_per_second' if case.cache == 'cold' else 'cache_bytes_per_second']
        implementations, layout_bytes = kernels[case]
        records.append(dict(
            **asdict(case),
            parameters=counts.parameters,
            macs=counts.macs,
            needed_macs=counts.needed_macs,
            bytes=counts.bytes,
            bound_seconds=counts.bound(peaks['macs_per_second'], bandwidth),
            implementations=implementations,
            layout_bytes=layout_bytes,
            repeats=samples[case].repeats,
            warmup_rounds=samples[case].warmup_rounds,
            settled=samples[case].settled,
            seconds=[round(second, 9) for second in samples[case].seconds]))
    return records


def prepare(case, inputs, gradients, device):
    """A call without arguments that runs ``case`` on the next of ``inputs``; 'infer' expects inference mode around."""
    module = build(case).to(device, DTYPES[case.dtype], memory_format=MEMORY_FORMATS[case.layout])
    if case.mode != 'train':
        return lambda: module(next(inputs))
    parameters = list(module.parameters())

    def step():
        x = next(inputs)
        return torch.autograd.grad(module(x), (x, *parameters), next(gradients))

    return step
