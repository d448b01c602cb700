"""A training run that is watched: does its memory grow, are files and processes left behind, does it get slower?

Memory is that of the process and its workers together, in which a page that several share counts once (Linux's
proportional set size), and that part of the process's which its program has asked glibc for and not given back: freed
memory is kept for the next step (``engine/allocator.py``), and how much of it is a matter of fragments. Time is that of
the processor, in which other programs show less than in that of the clock.
"""
import ctypes
import statistics
import time

import psutil
from mmengine.hooks import Hook

from inceptionnext_seg.engine.launch import build_runner, explain_errors

# Iterations until everything has been allocated once, and by how much memory may differ from then on.
SETTLED, FLAT = 200, 0.02
# An iteration with as little disturbance as one in ten has.
UNDISTURBED = 0.1
TENTHS = 10


class WatchHook(Hook):
    """Notes time after each iteration, and every ``interval`` iterations what the process and its children hold.

    Attributes:
        seconds (list[float]): Of the processor, for each iteration.
        samples (list[dict]): iteration, bytes, bytes in use, files, processes, threads.
    """

    priority = 'LOWEST'

    def __init__(self, interval=10):
        self.interval, self.process = interval, psutil.Process()
        self.seconds, self.samples, self.last = [], [], None

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.last = time.process_time()

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.seconds.append(time.process_time() - self.last)
        if (batch_idx + 1) % self.interval == 0:
            self.samples.append(dict(iteration=batch_idx + 1, **held(self.process)))


def held(process):
    """Bytes, open files, processes and threads of a process and its children."""
    found = dict(bytes=0, in_use=in_use(), files=0, processes=0, threads=0)
    for one in (process, *process.children(recursive=True)):
        found['bytes'] += one.memory_full_info().pss
        found['files'] += one.num_fds()
        found['processes'] += 1
        found['threads'] += one.num_threads()
    return found


class MallocInfo(ctypes.Structure):
    """``struct mallinfo2`` of malloc.h."""
    _fields_ = [(name, ctypes.c_size_t) for name in (
        'arena', 'ordblks', 'smblks', 'hblks', 'hblkhd', 'usmblks', 'fsmblks', 'uordblks', 'fordblks', 'keepcost')]


def in_use():
    """Bytes that this process has from glibc and has not given back."""
    function = ctypes.CDLL(None).mallinfo2
    function.restype = MallocInfo
    found = function()
    return found.uordblks + found.hblkhd


def train_and_watch(cfg):
    """Train a config, and return what :class:`WatchHook` noted."""
    with explain_errors():
        runner = build_runner(cfg)
        watch = WatchHook()
        runner.register_hook(watch)
        runner.train()
    return watch


def verdict(seconds, samples, settled=SETTLED):
    """What a run's notes say, without its first ``settled`` iterations.

    Returns:
        dict: 'bytes' and 'in_use' (lowest, highest; medians of the first and the last tenth, and whether these are
        within :data:`FLAT`), 'files', 'processes', 'threads' (the values seen, and whether there is one), 'seconds' (of
        each tenth, those that a tenth of its iterations were faster than, and whether the last one's are above the
        others' by less than these differ among themselves), and 'as_expected'.
    """
    later, found = [sample for sample in samples if sample['iteration'] > settled], {}
    for name in ('bytes', 'in_use'):
        values = [sample[name] for sample in later]
        first, *_, last = (statistics.median(part) for part in tenths_of(values))
        found[name] = dict(lowest=min(values), highest=max(values), first=first, last=last,
                           as_expected=last / first - 1 <= FLAT)
    for name in ('files', 'processes', 'threads'):
        values = sorted({sample[name] for sample in later})
        found[name] = dict(values=values, as_expected=len(values) == 1)
    tenths = [sorted(part)[int(UNDISTURBED * len(part))] for part in tenths_of(seconds[settled:])]
    found['seconds'] = dict(tenths=tenths, as_expected=tenths[-1] <= 2 * max(tenths[:-1]) - min(tenths[:-1]))
    found['as_expected'] = all(part['as_expected'] for part in found.values())
    return found


def tenths_of(values):
    size = len(values) // TENTHS
    return [values[k * size:(k + 1) * size] for k in range(TENTHS)]


def words(result):
    """A result file in some sentences."""
    found, made, mib = result['verdict'], result['environment'], 2**20
    memory, used, times = found['bytes'], found['in_use'], found['seconds']['tenths']
    counts = ', '.join(f'{" or ".join(map(str, found[name]["values"]))} {"open files" if name == "files" else name}'
                       for name in ('files', 'processes', 'threads'))
    fifth = result['iterations'] // 5
    later = [size for iteration, size in zip(result['samples']['iteration'], result['samples']['bytes'], strict=True)
             if iteration >= fifth]
    grown = memory['last'] / statistics.median(later[:len(later) // TENTHS]) - 1
    return (f'{result["iterations"]} iterations of `{result["config"]}`, {made["date"][:10]}, {made["device_name"]}, '
            f'{made["threads"]} thread{"s" * (made["threads"] > 1)}, with a validation and a checkpoint every '
            f'{result["interval"]}. After the first {result["settled"]}: what the training process has asked for and '
            f'not given back, {used["first"] / mib:.0f} MiB in the first tenth and {used["last"] / mib:.0f} in the '
            f'last ({used["last"] / used["first"] - 1:+.1%}); resident memory of process and workers together, '
            f'{memory["first"] / mib:.0f} and {memory["last"] / mib:.0f} MiB '
            f'({memory["last"] / memory["first"] - 1:+.1%}), between {memory["lowest"] / mib:.0f} and '
            f'{memory["highest"] / mib:.0f}, and {grown:+.1%} from iteration {fifth} on; {counts}, all along. '
            f'An iteration took {1e3 * times[-1]:.0f} ms of '
            f'processor time in the last tenth (the fastest but a tenth), {1e3 * min(times[:-1]):.0f} to '
            f'{1e3 * max(times[:-1]):.0f} in the nine before.')
