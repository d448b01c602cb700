"""Which kernels a call runs: oneDNN's own log on a CPU, torch's profiler on CUDA."""
import contextlib
import math
import os
import re
import sys
import tempfile

import torch


def kernels_of(call, device, synchronize):
    """Which kernels one call runs, and the bytes that the library moves to change a layout and back.

    On a CPU oneDNN's own log tells, and lists nothing for a convolution that ran elsewhere, in ATen. On CUDA torch's
    profiler lists the kernels, and the bytes are not known.

    Returns:
        tuple: (list of names, bytes or None).
    """
    if torch.device(device).type != 'cpu':
        activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
        with torch.profiler.profile(activities=activities) as profile:
            call()
            synchronize()
        return sorted({event.name for event in profile.events() if event.device_type.name == 'CUDA'}), None
    if not torch.backends.mkldnn.is_available():
        return [], None
    with tempfile.TemporaryFile('w+') as log:
        with standard_output_to(log), torch.backends.mkldnn.verbose(torch.backends.mkldnn.VERBOSE_ON):
            call()
        log.seek(0)
        return parse_onednn(log.read())


@contextlib.contextmanager
def standard_output_to(file):
    """Send what the process, C libraries included, writes to its standard output to ``file``."""
    sys.stdout.flush()
    saved = os.dup(1)
    os.dup2(file.fileno(), 1)
    try:
        yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)


ONEDNN_BYTES = dict(f32=4, bf16=2, f16=2)
ONEDNN_DIRECTIONS = dict(forward_training='forward', forward_inference='forward', backward_data='input gradient',
                         backward_weights='weight gradient')


def parse_onednn(log):
    """Names of the convolution implementations in oneDNN's log, and the bytes read and written by its reorders."""
    implementations, moved = [], 0
    for line in log.splitlines():
        words = line.split(',')
        if not line.startswith('onednn_verbose') or 'exec' not in words:
            continue
        kind, implementation, direction, memory = words[words.index('exec') + 2:][:4]
        if kind == 'convolution':
            implementations.append(f'{ONEDNN_DIRECTIONS[direction]} {implementation}')
        elif kind == 'reorder':
            elements = math.prod(map(int, words[-2].split('x')))
            moved += sum(elements * ONEDNN_BYTES[dtype] for dtype in re.findall(r'(?:src|dst):(\w+):', memory))
    return sorted(set(implementations)), moved
