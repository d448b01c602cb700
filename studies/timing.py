"""Measuring: interleaved timing, intervals, and the machine's own limits.

Everything that reads a clock or a device takes it as an argument, so that tests exercise the accelerator's path with a
fake one. Times are in seconds, memory in bytes, arithmetic in multiply-accumulates (MACs).
"""
import contextlib
import itertools
import math
import pathlib
import random
import statistics
import time
from dataclasses import dataclass
from typing import NamedTuple

import numpy
import torch
from scipy.stats import bootstrap, mannwhitneyu

from inceptionnext_seg.provenance import convolutions_take_tf32, synchronize

DTYPES = dict(fp32=torch.float32, bf16=torch.bfloat16, fp16=torch.float16)
MEMORY_FORMATS = dict(nchw=torch.contiguous_format, nhwc=torch.channels_last)


# Time


@dataclass
class Samples:
    """Times of one candidate, one sample a round, aligned by round with those of the candidates beside it.

    Attributes:
        seconds (list[float]): Time of one call: the mean of ``repeats`` calls between two readings of the clock.
        repeats (int): Calls in each sample.
        warmup_rounds (int): Rounds that came before and are not in ``seconds``.
        settled (bool): Whether the first and the second half of ``seconds`` agree: the warm-up was enough.
    """
    seconds: list
    repeats: int = 1
    warmup_rounds: int = 0
    settled: bool = True


def clock_resolution(clock, readings=1000):
    """Smallest step, in seconds, seen between readings of ``clock``; 0 where it did not move at all."""
    times = [clock() for _ in range(readings)]
    return min((b - a for a, b in itertools.pairwise(times) if b > a), default=0.0)


def halves_agree(seconds, tolerance=0.05):
    """Whether the two halves of a series show the same level: medians within ``tolerance``, or no shift shown at 5 %.

    The test is Mann and Whitney's; it cannot show anything with fewer than 4 samples a half.
    """
    half = len(seconds) // 2
    first, second = seconds[:half], seconds[-half:]
    if abs(statistics.median(second) / statistics.median(first) - 1) <= tolerance:
        return True
    return bool(mannwhitneyu(first, second).pvalue >= 0.05)


def interleave(candidates, *, rounds=20, warmup=3, min_sample=1e-3, max_extensions=2, synchronize=lambda: None,
               clock=time.perf_counter, seed=0, progress=None):
    """Time candidates against each other in one process, in random order each round.

    A disturbance of the machine then meets all of them, and :func:`ratio` compares within a round. Each sample repeats
    the call until it lasts ``min_sample``, and a thousand steps of the clock. Warm-up is excluded and shown to be
    enough: where the halves of some candidate's samples disagree, the first half of everybody's is counted as warm-up
    and as many new rounds follow, ``max_extensions`` times at most; who disagrees still is marked as not settled.

    Args:
        candidates (dict[str, Callable]): Called without arguments; inputs that must not stay in the cache are the
            candidate's own care (:class:`InputPool`).
        rounds (int): Samples kept of each candidate, at least 8 where ``max_extensions`` is not 0.
        warmup (int): Rounds left out from the start, after the calls that find the number of repeats.
        synchronize (Callable): Waits for the device; called before each reading of the clock.
        progress (Callable | None): Called once a round.

    Returns:
        dict[str, Samples]: In the order of ``candidates``.

    Raises:
        ValueError: Fewer than 8 rounds, of which no halves could be compared, and extensions that depend on them.
    """
    if rounds < 8 and max_extensions:
        raise ValueError(f'rounds is {rounds}; expected at least 8, so that a shift between the halves can be shown')

    def sample(call, repeats):
        synchronize()
        start = clock()
        for _ in range(repeats):
            call()
        synchronize()
        return clock() - start

    target = max(min_sample, 1000 * clock_resolution(clock))
    repeats = {}
    for name, call in candidates.items():
        call()              # The first call plans and allocates, and says nothing about the next.
        count = 1
        while (elapsed := sample(call, count)) < target:
            count = max(2 * count, math.ceil(count * target / elapsed) if elapsed else 0)
        repeats[name] = count

    seconds = {name: [] for name in candidates}
    shuffle = random.Random(seed).shuffle
    order = list(candidates)

    def run(count, keep=True):
        for _ in range(count):
            shuffle(order)
            for name in order:
                elapsed = sample(candidates[name], repeats[name]) / repeats[name]
                if keep:
                    seconds[name].append(elapsed)
            if progress:
                progress()

    run(warmup, keep=False)
    run(rounds)
    for _ in range(max_extensions):
        if all(map(halves_agree, seconds.values())):
            break
        dropped = rounds // 2
        for series in seconds.values():
            del series[:dropped]
        warmup += dropped
        run(dropped)
    return {
        name: Samples(series, repeats[name], warmup, halves_agree(series)) for name, series in seconds.items()}


# Statistics


class Interval(NamedTuple):
    """A median with its 95 % confidence interval."""
    median: float
    low: float
    high: float

    def covers(self, value):
        return self.low <= value <= self.high


def median_interval(values):
    """Median of ``values`` with its 95 % bootstrap interval (scipy, percentile method, fixed seed).

    Raises:
        ValueError: Fewer than two values.
    """
    if len(values) < 2:
        raise ValueError(f'{len(values)} value(s) have no interval; expected at least 2')
    # The percentile method, since a median's jackknife, which the default BCa needs, is degenerate.
    low, high = bootstrap((values, ), numpy.median, n_resamples=1000, method='percentile',
                          random_state=numpy.random.default_rng(0)).confidence_interval
    return Interval(statistics.median(values), float(low), float(high))


def ratio(a, b):
    """Median of ``a / b`` taken round by round, with its interval. 2 says that ``a`` takes twice the time of ``b``.

    Args:
        a, b (Samples | Sequence[float]): Samples of one :func:`interleave`.

    Raises:
        ValueError: The two have different numbers of rounds.
    """
    a, b = getattr(a, 'seconds', a), getattr(b, 'seconds', b)
    return median_interval([x / y for x, y in zip(a, b, strict=True)])


def describe_ratio(interval):
    """``'1.52 (1.48–1.60)'``, and 'no difference shown' where the interval covers 1."""
    text = f'{interval.median:.2f} ({interval.low:.2f}–{interval.high:.2f})'
    return f'{text}, no difference shown' if interval.covers(1) else text


# The machine: its caches and its limits


def last_level_cache(device, backend=None):
    """Bytes of the last-level cache: CUDA's L2; a CPU's largest as Linux tells it; 64 MiB where nothing tells."""
    device = torch.device(device)
    if device.type == 'cuda':
        return (backend or torch.cuda).get_device_properties(device).L2_cache_size
    sizes = [path.read_text() for path in pathlib.Path('/sys/devices/system/cpu/cpu0/cache').glob('index*/size')]
    return max((int(size.strip().rstrip('K')) * 1024 for size in sizes), default=64 * 2**20)


class InputPool:
    """Random tensors lying in one block of memory of which the last-level cache holds half, for inputs that are cold.

    A network's input comes from elsewhere; one tensor used again and again would come from the cache. Candidates of one
    comparison share a rotation, or the second would find in the cache what the first has read.

    Args:
        dtype (torch.dtype): Of the tensors.
        device (torch.device | str): Where they lie.
        nbytes (int): Size of the block; by default twice the last-level cache.
    """

    def __init__(self, dtype, device, nbytes=None):
        nbytes = nbytes or 2 * last_level_cache(device)
        self.block = torch.randn(nbytes // dtype.itemsize, dtype=dtype, device=device)

    def rotation(self, shape, memory_format=torch.contiguous_format, hot=False, requires_grad=False):
        """Endless iterator over tensors (B, C, H, W) that share no memory; over a single one where ``hot``.

        The block grows where it does not hold two tensors. There are 100,000 at most, so a tensor that is smaller than
        a 100,000th of the block may be found in the cache.
        """
        batch, channels, height, width = shape
        numel = math.prod(shape)
        if 2 * numel > len(self.block):
            self.block = self.block.repeat(math.ceil(2 * numel / len(self.block)))
        count = min(len(self.block) // numel, 100_000)
        tensors = self.block[:count * numel]
        if memory_format == torch.channels_last:
            tensors = tensors.view(count, batch, height, width, channels).permute(0, 1, 4, 2, 3)
        else:
            tensors = tensors.view(count, *shape)
        tensors = tensors[:1] if hot else tensors
        return itertools.cycle([tensor.detach().requires_grad_(requires_grad) for tensor in tensors.unbind()])


@contextlib.contextmanager
def convolution_precision(device):
    """Let matrix products on CUDA use TF32 where convolutions do, as they do by default and products do not."""
    before = torch.get_float32_matmul_precision()
    if torch.device(device).type == 'cuda':
        torch.set_float32_matmul_precision('high' if convolutions_take_tf32() else 'highest')
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def machine_peaks(device, dtype, *, matrix_size=None, cache_bytes=None, rounds=20, min_sample=1e-3, backend=None,
                  clock=time.perf_counter):
    """What the machine can do at ``dtype``: a square matrix product, and copies out of and in the last-level cache.

    They are limits, so the fastest sample counts, not the median. A copy reads and writes, so it moves twice its size.
    Beyond the cache, each call copies another part of the source to another part of the target.

    Args:
        matrix_size (int | None): Rows and columns; by default 512 on a CPU and 8192 elsewhere.
        cache_bytes (int | None): Size of the last-level cache; source and target are each as large.

    Returns:
        dict: ``macs_per_second``, ``bytes_per_second``, ``cache_bytes_per_second``, what they were measured on, and
        ``seconds``, the raw samples of each.
    """
    device = torch.device(device)
    matrix_size = matrix_size or (512 if device.type == 'cpu' else 8192)
    cache_bytes = cache_bytes or last_level_cache(device)
    a, b = (torch.randn(matrix_size, matrix_size, device=device).to(dtype) for _ in range(2))
    parts = max(2, cache_bytes // 2**24)
    source = torch.ones(parts, max(cache_bytes // parts // dtype.itemsize, 1), dtype=dtype, device=device)
    target = torch.zeros_like(source)
    pairs = itertools.cycle(zip(source.unbind(), target.unbind(), strict=True))
    # A working set of a sixteenth, since the last level is shared with others and seldom anyone's alone.
    near_source = source.flatten()[:max(source.numel() // 32, 1)].clone()
    near_target = torch.zeros_like(near_source)

    def copy():
        part, into = next(pairs)
        into.copy_(part)

    with torch.inference_mode(), convolution_precision(device):
        samples = interleave(
            dict(product=lambda: torch.mm(a, b), copy=copy, cache_copy=lambda: near_target.copy_(near_source)),
            rounds=rounds, min_sample=min_sample, synchronize=lambda: synchronize(device, backend), clock=clock)
    fastest = {name: min(sample.seconds) for name, sample in samples.items()}
    return dict(
        macs_per_second=matrix_size**3 / fastest['product'],
        bytes_per_second=2 * source[0].nbytes / fastest['copy'],
        cache_bytes_per_second=2 * near_source.nbytes / fastest['cache_copy'],
        matrix_size=matrix_size,
        copy_working_set=2 * source.nbytes,
        cache_copy_working_set=2 * near_source.nbytes,
        seconds={name: sample.seconds for name, sample in samples.items()})
