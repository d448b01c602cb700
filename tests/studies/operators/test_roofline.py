"""Predictions against hand-worked ones, and break-evens of made-up times."""
import math

import pytest

from studies.operators.cells import KERNELS, cells
from studies.operators.reasons import EXPERIMENTS, findings, verdict
from studies.operators.roofline import break_evens, crossing, predicted_break_even, predicted_ratio
from studies.operators.summary import Result, cell_name
from studies.speed.statistics import Estimate


def test_the_predicted_break_even_is_worked_out_by_hand():
    # At 4 MACs a byte an fp32 pass, 8 bytes, is worth 32 MACs. 8×8 takes 64 MACs, and two passes take 64, too: n×n is
    # at 64 / 8 = 8 MACs a byte there, twice the ridge. 5×5 takes 32, one pass, half of two.
    assert predicted_break_even(4, 4) == 8
    assert predicted_ratio(8, 4, 4) == 1 and predicted_ratio(5, 4, 4) == 2
    assert predicted_ratio(16, 4, 4) == 0.25
    # bf16 moves half: a pass is worth 16 MACs, two 32, n is the root of 32.
    assert predicted_break_even(4, 2) == pytest.approx(math.sqrt(32))
    assert predicted_ratio(math.sqrt(32), 4, 2) == pytest.approx(1)
    # Passes limited by arithmetic, too: 2 n = n².
    assert predicted_break_even(0.01, 4) == 2 and predicted_ratio(2, 0.01, 4) == 1


def test_a_crossing_is_on_the_line_between_logarithms():
    assert crossing([3, 5, 7], [2, 1, 0.5]) == 5
    assert crossing([2, 8], [2, 0.5]) == pytest.approx(4)
    assert crossing([3, 5], [0.9, 0.5]) == -math.inf and crossing([3, 5], [2, 1.1]) == math.inf


def result_where(seconds, processes=5, limits=()):
    """A result: a call takes ``seconds(cell, candidate, layout)``, 3 % more in each process than in the one before."""
    groups = []
    for cell in cells():
        for process in range(processes):
            times = {name: {layout: [seconds(cell, name, layout) * 1.03**process * (1 + 0.1 * i) for i in range(3)]
                            for layout in ('nchw', 'nhwc')} for name in cell.candidates}
            groups.append(dict(cell=cell.name, process=process, batch_size=4, seconds=times, kernels={}, waited=0.,
                               run=0, load_average=0.1, busy_before=0.0))
    return Result(dict(groups=groups, limits=list(limits), last_level_cache=2**20))


LIMITS = [dict(dtype=dtype, threads=threads, process=0, macs_per_second=4e9, bytes_per_second=1e9,
               cache_bytes_per_second=2e9) for dtype in ('fp32', 'bf16') for threads in (1, 2)]


def test_measured_break_evens_are_of_the_better_layouts_and_stand_beside_the_predicted():
    def seconds(cell, name, layout):
        # n×n takes n² in its better layout, NHWC, and n×1 → 1×n takes 64 in its own, NCHW: equal at 8.
        if name in {f'{n}×{n}' for n in KERNELS}:
            return int(name.partition('×')[0])**2 * (1 if layout == 'nhwc' else 9)
        return 64 * (1 if layout == 'nchw' else 9)

    rows = {row.cell: row for row in break_evens(result_where(seconds, limits=LIMITS))}
    beyond = rows[cell_name(place='beyond')]
    assert beyond.predicted == 8                                    # 4 MACs a byte
    assert rows[cell_name()].predicted == pytest.approx(math.sqrt(32))      # 2 MACs a byte in the cache
    assert beyond.measured.value == pytest.approx(8, rel=0.03)
    assert beyond.measured.low <= beyond.measured.value <= beyond.measured.high
    assert beyond.measured.processes == 5
    # Every n×n has n² products for each of 4 · 96 · 56² elements in the cache, and takes n² seconds, 1.1 · 1.03² of
    # them in the middle: the rate is that number of elements.
    assert rows[cell_name()].depthwise == pytest.approx(4 * 96 * 56**2 / 1.1 / 1.03**2)


def test_a_reason_holds_only_where_the_whole_interval_is_on_its_side():
    assert verdict(Estimate(1.5, 1.2, 1.8, 5), 1.1) == 'holds'
    assert verdict(Estimate(1.5, 1.0, 1.8, 5), 1.1) == 'open'
    assert verdict(Estimate(1.0, 0.9, 1.05, 5), 1.1) == 'does not hold'
    assert verdict(Estimate(1.0, 0.9, 1.05, 5), 1.25, at_most=True) == 'holds'
    assert verdict(Estimate(1.5, None, None, 1), 1.1) == 'open'
    assert verdict(None, 1.1) == 'not measured'


def test_each_experiment_finds_the_reason_that_was_put_in():
    def equal(cell, name, layout):
        return 1.0

    def slower(cell, name, layout):
        # Beyond the cache, n×1 → 1×n takes twice the time unless it goes by parts.
        return 2.0 if cell.place == 'beyond' and name == '3×1 → 1×3' else 1.0

    none, cache = (findings(result_where(seconds)) for seconds in (equal, slower))
    assert list(none) == [experiment.key for experiment in EXPERIMENTS]
    assert none['order'].verdict == none['beyond-cache'].verdict == none['parts'].verdict == 'does not hold'
    assert cache['beyond-cache'].verdict == cache['parts'].verdict == cache['two-copies'].verdict == 'holds'
    assert cache['beyond-cache'].found.value == pytest.approx(2)
    assert cache['order'].verdict == cache['allocation'].verdict == 'does not hold'
    # Time equal though the MACs are a third: it does not go with them.
    assert none['macs-depthwise'].verdict == 'does not hold'


def test_intervals_of_ratios_quotients_and_break_evens_hold_every_process():
    def seconds(cell, name, layout):
        return 64 if '→' in name else int(name.partition('×')[0])**2 if name in {f'{n}×{n}' for n in KERNELS} else 1.0

    result = result_where(seconds, limits=LIMITS)
    for group in result.content['groups']:      # n×1 → 1×n is slower in one process, faster in another, and uneven
        factor = {1: 1.3, 2: 0.7}.get(group['process'], 1)
        for name, layouts in group['seconds'].items():
            if '→' in name:
                layouts.update({layout: [factor * a * b for a, b in zip(values, (0.8, 1, 1.25), strict=True)]
                                for layout, values in layouts.items()})
    result = Result(result.content)
    ratio = result.sampled(cell_name(), '7×1 → 1×7', '7×7')
    assert ratio.estimate.low <= 0.7 * 64 / 49 and ratio.estimate.high >= 1.3 * 64 / 49
    assert ratio.over(2).estimate == tuple(value / 2 for value in ratio.estimate[:3]) + (5, )
    ends = [math.log(1 / 0.7), math.log(1.3)]
    quotient = ratio.over(result.sampled(cell_name(place='beyond'), '7×1 → 1×7', '7×7')).estimate
    assert quotient.low <= math.exp(-math.hypot(*ends)) + 1e-9
    assert quotient.high >= math.exp(math.hypot(*ends)) - 1e-9
    size = break_evens(result)[0].measured
    assert size.low <= math.sqrt(0.7 * 64) + 1e-6 and size.high >= math.sqrt(1.3 * 64) - 1e-6
