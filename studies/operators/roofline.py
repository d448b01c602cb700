"""The size n from which n×1 → 1×n pays for a depthwise n×n: predicted by the roofline, and measured."""
import math
from typing import NamedTuple

import numpy

from ..speed.statistics import RESAMPLES, Estimate
from .cells import KERNELS

BYTES = dict(fp32=4, bf16=2)


def predicted_ratio(side, ridge, element_bytes):
    """Time of n×1 → 1×n over that of a depthwise n×n, by the roofline.

    Times of one element of the map, in those of one multiply-accumulate: a pass moves ``2 * element_bytes`` bytes, each
    worth ``ridge`` multiply-accumulates.

    Args:
        side (float): n.
        ridge (float): Multiply-accumulates per byte.
    """
    memory = 2 * element_bytes * ridge
    return 2 * max(side, memory) / max(side**2, memory)


def predicted_break_even(ridge, element_bytes):
    """n at which the two take equally long.

    Two passes bound by memory take twice its time, so that n² = 4 · element_bytes · ridge: n×n is then at *twice* the
    ridge, n² / (2 · element_bytes) MACs per byte. Where memory is so fast that passes of n are bound by arithmetic,
    n² = 2 n.
    """
    return max(2.0, math.sqrt(4 * element_bytes * ridge))


def crossing(sides, ratios):
    """n at which a ratio, given at ``sides``, first falls to 1: on a line between logarithms.

    -inf where it is there from the first on, and inf where it never is.
    """
    logs = [math.log(ratio) for ratio in ratios]
    if logs[0] <= 0:
        return -math.inf
    for i in range(1, len(logs)):
        if logs[i] <= 0:
            share = logs[i - 1] / (logs[i - 1] - logs[i])
            return float(sides[i - 1] * (sides[i] / sides[i - 1])**share)
    return math.inf


def factorized_name(side):
    return f'{side}×1 → 1×{side}'


def measured_ratios(result, cell):
    """Time of n×1 → 1×n over that of n×n, best layout against best layout, by n."""
    found = {side: result.sampled(cell, factorized_name(side), f'{side}×{side}') for side in KERNELS}
    return {side: ratio for side, ratio in found.items() if ratio}


def measured_break_even(result, cell):
    """:func:`crossing` of the measured ratios with its interval over processes and rounds; None without two sizes.

    As other intervals it is no narrower than the range of the processes' own sizes. Sizes may be infinite, so that
    percentiles are of the nearest draw.
    """
    ratios = measured_ratios(result, cell)
    if len(ratios) < 2:
        return None
    value = crossing(list(ratios), [ratio.value for ratio in ratios.values()])
    processes = min(ratio.processes for ratio in ratios.values())
    if any(ratio.draws is None for ratio in ratios.values()):
        return Estimate(value, None, None, processes)
    draws = [crossing(list(ratios), [ratio.draws[i] for ratio in ratios.values()]) for i in range(RESAMPLES)]
    low, high = numpy.percentile(draws, (2.5, 97.5), method='nearest')
    own = [crossing(list(ratios), medians) for medians in zip(*(ratio.medians for ratio in ratios.values()),
                                                               strict=False)]       # of the processes that have all
    return Estimate(value, min(float(low), *own), max(float(high), *own), processes)


class BreakEven(NamedTuple):
    """A row: limits in MACs/s and bytes/s, and the size predicted from each rate of arithmetic, and measured
    among ``sides``."""
    cell: str
    bandwidth: float
    product: float
    predicted: float
    depthwise: float
    predicted_of_depthwise: float
    measured: Estimate
    sides: list


def break_evens(result):
    """A :class:`BreakEven` of each cell in which the sizes were measured and whose limits are known.

    The roofline's arithmetic is the matrix product's. Depthwise kernels do not reach it: their own highest rate is that
    of the n×n which has the most MACs/s.
    """
    rows = []
    for name, cell in result.cells.items():
        limits = result.limits(cell.dtype, cell.threads)
        measured = measured_break_even(result, name) if (cell.subject, cell.memory) == ('depthwise', 'kept') else None
        if cell.place not in ('inside', 'beyond') or cell.mode != 'infer' or not limits or measured is None:
            continue
        bandwidth = limits['cache_bytes_per_second' if cell.place == 'inside' else 'bytes_per_second']
        sides = list(measured_ratios(result, name))
        depthwise = max(result.counts(name, square).macs / result.time(name, square).value
                        for square in (f'{side}×{side}' for side in sides))
        predicted = [predicted_break_even(rate / bandwidth, BYTES[cell.dtype])
                     for rate in (limits['macs_per_second'], depthwise)]
        rows.append(BreakEven(name, bandwidth, limits['macs_per_second'], predicted[0], depthwise, predicted[1],
                              measured, sides))
    return rows

