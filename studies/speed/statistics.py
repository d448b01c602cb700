"""Intervals over processes and the rounds within them, by a hierarchical bootstrap."""
import statistics
from typing import NamedTuple

import numpy

RESAMPLES = 2000


class Estimate(NamedTuple):
    """A value with its 95 % interval, and the number of processes behind it; no interval from a single process."""
    value: float
    low: float | None
    high: float | None
    processes: int

    def __str__(self):
        if self.low is None:
            return f'{self.value:.2f}'
        return f'{self.value:.2f} ({self.low:.2f}–{self.high:.2f})'


def median_of_medians(processes):
    return statistics.median(map(statistics.median, processes))


def resampled(processes, drawn, generator):
    """Medians over the rounds of the processes ``drawn``, each time of as many rounds, drawn with replacement.

    Args:
        processes (list[list[float]]): Seconds by process and round.
        drawn (numpy.ndarray): Indices of processes (resamples, n).
    """
    medians = numpy.empty(drawn.shape)
    for i, seconds in enumerate(processes):
        where = drawn == i
        rounds = generator.integers(0, len(seconds), (where.sum(), len(seconds)))
        medians[where] = numpy.median(numpy.asarray(seconds)[rounds], axis=1)
    return medians


def estimate(processes, value, transform=lambda medians: medians):
    """``value`` with the interval of the median over processes, after ``transform`` of the medians over rounds."""
    if len(processes) < 2:
        return Estimate(value, None, None, len(processes))
    generator = numpy.random.default_rng(0)
    drawn = generator.integers(0, len(processes), (RESAMPLES, len(processes)))
    medians = numpy.median(transform(resampled(processes, drawn, generator)), axis=1)
    low, high = numpy.percentile(medians, (2.5, 97.5))
    return Estimate(value, float(low), float(high), len(processes))


def speed(processes, images):
    """Images per second: of each process the median over rounds, of these the median."""
    return estimate(processes, images / median_of_medians(processes), lambda medians: images / medians)


def speedup(before, after, paired=True):
    """How many times as fast ``after`` is as ``before``.

    Args:
        before, after (dict[int, list[float]]): Seconds of the rounds, by process.
        paired (bool): Whether the same process measured both: then the ratio is taken in each process, else of the
            medians over all processes.
    """
    if paired and (common := sorted(set(before) & set(after))):
        first, second = ([seconds[p] for p in common] for seconds in (before, after))
        value = statistics.median(
            statistics.median(a) / statistics.median(b) for a, b in zip(first, second, strict=True))
        if len(common) < 2:
            return Estimate(value, None, None, 1)
        generator = numpy.random.default_rng(0)
        drawn = generator.integers(0, len(common), (RESAMPLES, len(common)))
        ratios = resampled(first, drawn, generator) / resampled(second, drawn, generator)
        low, high = numpy.percentile(numpy.median(ratios, axis=1), (2.5, 97.5))
        return Estimate(value, float(low), float(high), len(common))
    first, second = list(before.values()), list(after.values())
    value = median_of_medians(first) / median_of_medians(second)
    fewer = min(len(first), len(second))
    if fewer < 2:
        return Estimate(value, None, None, fewer)
    generator = numpy.random.default_rng(0)
    sides = []
    for processes in (first, second):
        drawn = generator.integers(0, len(processes), (RESAMPLES, len(processes)))
        sides.append(numpy.median(resampled(processes, drawn, generator), axis=1))
    low, high = numpy.percentile(sides[0] / sides[1], (2.5, 97.5))
    return Estimate(value, float(low), float(high), fewer)
