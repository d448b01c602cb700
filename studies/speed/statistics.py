"""Intervals over processes and the rounds within them: a hierarchical bootstrap, or the range where that is wider.

The percentiles of a bootstrap of so few processes are about their range, and can lie within it. The range of n leaves
out the median of what they are drawn from only where all n are on one side of it, with 2 · 2^(−n): it covers 50 % for
two, 94 % for five. No interval is narrower than that, and only from five processes on is it one of about 95 %.
"""
import math
import statistics
from typing import NamedTuple

import numpy

RESAMPLES = 2000
NONE = '–'


class Estimate(NamedTuple):
    """A value with its 95 % interval, and the number of processes behind it.

    There is no interval from a single process, nor from two with a round each: two values have none.
    """
    value: float
    low: float | None
    high: float | None
    processes: int

    def times(self, factor):
        """Value and interval times a number."""
        ends = (None, None) if self.low is None else (self.low * factor, self.high * factor)
        return Estimate(self.value * factor, *ends, self.processes)

    def __str__(self):
        if self.low is None:
            return f'{self.value:.2f}'
        return f'{self.value:.2f} ({self.low:.2f}–{self.high:.2f})'


def text(found):
    """Of an :class:`Estimate`, or of None."""
    return NONE if found is None else str(found)


def median_of_medians(processes):
    return statistics.median(map(statistics.median, processes))


def too_few(*sides):
    """Whether there is no interval: one process, or two with a round each.

    Args:
        sides (list[list[float]]): Seconds by process and round, of either side of a ratio.
    """
    return min(map(len, sides)) < 2 or max(sum(map(len, processes)) for processes in sides) < 3


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


def coverage(processes):
    """With which probability the range of so many values covers the median of what they are drawn from."""
    return 1 - 2.0**(1 - processes)


def interval(draws, medians):
    """Low and high: 95 % of the draws of a bootstrap, and no less than the range of the processes' own medians."""
    low, high = numpy.percentile(draws, (2.5, 97.5))
    return min(float(low), *map(float, medians)), max(float(high), *map(float, medians))


def range_of_quotient(first, second):
    """Ends of the range of a quotient, of ``(low, value, high)`` of what is divided and of what it is divided by.

    The two do not go together, so that both being at their ends at once is rarer than either: the distances to the
    ends, in logarithms, add as squares (Zou and Donner, "Construction of confidence limits about effect measures: a
    general approach", Statistics in Medicine 27, 2008).
    """
    (low, value, high), (other_low, other, other_high) = first, second
    return (value / other * math.exp(-math.hypot(math.log(value / low), math.log(other_high / other))),
            value / other * math.exp(math.hypot(math.log(high / value), math.log(other / other_low))))


def estimate(processes, value, transform=lambda medians: medians):
    """``value`` with the interval of the median over processes, after ``transform`` of the medians over rounds."""
    if too_few(processes):
        return Estimate(value, None, None, len(processes))
    generator = numpy.random.default_rng(0)
    drawn = generator.integers(0, len(processes), (RESAMPLES, len(processes)))
    draws = numpy.median(transform(resampled(processes, drawn, generator)), axis=1)
    own = transform(numpy.array([statistics.median(seconds) for seconds in processes]))
    return Estimate(value, *interval(draws, own), len(processes))


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
        if too_few(first, second):
            return Estimate(value, None, None, len(common))
        generator = numpy.random.default_rng(0)
        drawn = generator.integers(0, len(common), (RESAMPLES, len(common)))
        ratios = resampled(first, drawn, generator) / resampled(second, drawn, generator)
        own = [statistics.median(a) / statistics.median(b) for a, b in zip(first, second, strict=True)]
        return Estimate(value, *interval(numpy.median(ratios, axis=1), own), len(common))
    first, second = list(before.values()), list(after.values())
    value = median_of_medians(first) / median_of_medians(second)
    fewer = min(len(first), len(second))
    if too_few(first, second):
        return Estimate(value, None, None, fewer)
    generator = numpy.random.default_rng(0)
    sides, ranges = [], []
    for processes in (first, second):
        drawn = generator.integers(0, len(processes), (RESAMPLES, len(processes)))
        sides.append(numpy.median(resampled(processes, drawn, generator), axis=1))
        own = [statistics.median(seconds) for seconds in processes]
        ranges.append((min(own), statistics.median(own), max(own)))
    return Estimate(value, *interval(sides[0] / sides[1], range_of_quotient(*ranges)), fewer)
