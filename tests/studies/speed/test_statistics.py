"""Intervals over processes, from cases worked by hand, and how often they cover what was put in."""
import numpy as np
import pytest

from studies.speed.statistics import Estimate, coverage, range_of_quotient, speed, speedup


def test_images_per_second_are_of_the_median_process():
    found = speed([[2.0, 2.0, 4.0], [1.0], [4.0, 4.0]], images=4)
    assert found.value == 2.0 and found.processes == 3      # medians 2, 1, 4
    assert found.low == 1.0 and found.high == 4.0           # three processes: the slowest and the fastest


def test_a_ratio_is_taken_within_each_process_so_that_a_slow_one_does_not_count():
    before, after = {0: [4.0, 4.0], 1: [8.0, 8.0], 2: [40.0, 40.0]}, {0: [2.0], 1: [4.0], 2: [20.0]}
    assert speedup(before, after) == (2.0, 2.0, 2.0, 3)


def test_rounds_of_a_process_widen_the_interval_too():
    steady = {p: [1.0] * 4 for p in range(5)}
    uneven = {p: [1.0, 1.0, 2.0, 2.0] for p in range(5)}
    found = speedup(uneven, steady)
    assert found.value == 1.5 and found.low < 1.5 < found.high


def test_one_process_has_no_interval():
    assert speedup({0: [3.0]}, {0: [1.0], 1: [1.0]}) == (3.0, None, None, 1)
    assert speed([[0.5, 0.5]], images=1)[:3] == (2.0, None, None)


def test_two_values_have_no_interval():
    before, after = {0: [3.0], 1: [5.0]}, {0: [1.0], 1: [1.0]}
    assert speedup(before, after) == speedup(before, after, paired=False) == (4.0, None, None, 2)
    assert speed([[1.0], [2.0]], images=3) == (2.0, None, None, 2)
    assert speedup(before, {0: [1.0, 1.0], 1: [1.0]}).low == 3.0


def test_of_different_processes_the_ratio_is_of_medians_over_all():
    found = speedup({0: [3.0], 1: [6.0], 2: [5.0]}, {0: [1.0], 1: [2.0], 2: [2.0]}, paired=False)
    assert found.value == pytest.approx(2.5) and found.low <= 1.5 + 1e-9 and found.high <= 6.0


def test_an_interval_is_no_narrower_than_the_range_of_the_processes():
    # Percentiles of the resamples alone are within the range: rounds of the extreme processes are drawn again, too.
    ratios, even = (1.093, 1.054, 1.036, 1.011, 0.856), {p: [1.0, 1.0] for p in range(5)}
    uneven = {p: [0.9 * ratio, 1.1 * ratio] for p, ratio in enumerate(ratios)}
    cases = [(1.0, speedup({p: [ratio] * 2 for p, ratio in enumerate(ratios)}, even)), (1.0, speedup(uneven, even)),
             (1.0, speedup(uneven, {0: [1.0], 1: [1.0]}, paired=False)), (2.0, speed([[1 / r] for r in ratios], 2))]
    for scale, found in cases:
        assert found.low <= scale * 0.856 + 1e-9 and found.high >= scale * 1.093 - 1e-9 and found.value == 1.036 * scale


def test_the_range_of_a_quotient_adds_the_distances_of_both_sides_as_squares():
    low, high = range_of_quotient((1.0, 2.0, 8.0), (1.0, 1.0, 1.0))
    assert (low, high) == (pytest.approx(1), pytest.approx(8))
    low, high = range_of_quotient((1.0, 8.0, 8.0), (0.5, 1.0, 16.0))    # downwards 2³ and 2⁴: 2⁵; upwards 1 and 2: 2
    assert (low, high) == (pytest.approx(8 / 32), pytest.approx(16))


@pytest.mark.parametrize(('processes', 'paired', 'least', 'most'), [
    (2, True, 0.5, 0.75), (5, True, 0.9375, 1), (5, False, 0.9375, 1)])
def test_intervals_cover_the_truth_as_often_as_is_said_and_those_of_two_processes_far_less(
        processes, paired, least, most):
    generator, covered, times = np.random.default_rng(0), 0, 100

    def drawn():
        levels = np.exp(0.12 * generator.standard_normal(processes))
        return {p: list(level * np.exp(0.05 * generator.standard_normal(2))) for p, level in enumerate(levels)}

    for _ in range(times):
        found = speedup(drawn(), drawn(), paired)
        covered += found.low <= 1 <= found.high
    assert least - 0.05 <= covered / times <= most      # 0.05: two standard errors of a hundred
    assert coverage(processes) == least


def test_an_estimate_times_a_number_has_its_interval_times_it_too():
    assert Estimate(2.0, 1.0, 3.0, 5).times(2) == (4.0, 2.0, 6.0, 5)
    assert Estimate(2.0, None, None, 1).times(2) == (4.0, None, None, 1)
