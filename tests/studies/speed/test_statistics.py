"""Intervals over processes, from cases worked by hand."""
import pytest

from studies.speed.statistics import speed, speedup


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


def test_of_different_processes_the_ratio_is_of_medians_over_all():
    found = speedup({0: [3.0], 1: [6.0], 2: [5.0]}, {0: [1.0], 1: [2.0], 2: [2.0]}, paired=False)
    assert found.value == pytest.approx(2.5) and found.low <= 1.5 + 1e-9 and found.high <= 6.0
