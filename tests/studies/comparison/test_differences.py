"""Intervals against examples worked by hand and closed-form ones."""
import math

import numpy as np
import pytest

from studies.comparison.differences import paired_bootstrap, ran_together, welch
from studies.comparison.reading import find_metrics, read_metrics

from .common import counts_of, write_run


@pytest.mark.filterwarnings('ignore:Precision loss')  # a side without variance is the point
def test_welch_agrees_with_intervals_worked_by_hand():
    # Equal variances 1 and three values a side: se² = 1/3 + 1/3, (2/3)² / ((1/3)² / 2 + (1/3)² / 2) = 4 degrees of
    # freedom, whose 97.5 % quantile is 2.776445 in Student's table.
    half = 2.776445 * math.sqrt(2 / 3)
    assert welch([4, 5, 6], [1, 2, 3]) == pytest.approx((3, 3 - half, 3 + half), abs=1e-5)
    # Variance 0 on one side: se² = 4/3, 2 degrees of freedom (not 4, as with pooled variances), where the quantile has
    # the closed form 0.95 sqrt(2 / (4 · 0.975 · 0.025)).
    half = 0.95 * math.sqrt(2 / (4 * 0.975 * 0.025)) * math.sqrt(4 / 3)
    difference = welch([4, 6, 8], [2, 2, 2])
    assert difference == pytest.approx((4, 4 - half, 4 + half), abs=1e-5)
    assert not difference.shown and difference.low < 0


@pytest.mark.parametrize(('values', 'reference'), [([5.], [4.]), ([5., 6.], [4.]), ([5., 5.], [4., 4.])])
def test_welch_gives_no_interval_where_a_side_has_one_run_or_nothing_varies(values, reference):
    difference = welch(values, reference)
    assert difference.value == pytest.approx(np.mean(values) - np.mean(reference))
    assert difference.low is None and not difference.shown


def test_identical_predictions_differ_by_exactly_zero():
    counts = counts_of(15, 0.5)
    result = paired_bootstrap([counts], [counts], resamples=200)
    assert result['mIoU'] == [0, 0, 0]
    assert result['classes'] == [[0, 0, 0]] * 3


def test_bootstrap_of_a_constant_ratio_has_no_spread():
    # One class of 100 pixels in every image, of which one side finds 50 and the other 30, whatever images are drawn.
    union = np.full((12, 1), 100)
    result = paired_bootstrap([dict(intersect=union // 2, union=union)], [dict(intersect=union * 3 // 10, union=union)],
                              resamples=200)
    assert result['mIoU'] == pytest.approx([20, 20, 20])


def test_bootstrap_agrees_with_the_normal_interval_of_a_mean_of_differences():
    # Every image has as many pixels, so mIoU is a mean over images: its interval is 1.96 standard errors either side.
    random = np.random.default_rng(1)
    union = np.full((400, 1), 1000)
    a, b = random.integers(300, 700, (2, 400, 1))
    difference = 100 * (a - b)[:, 0] / 1000
    half = 1.959964 * difference.std(ddof=1) / math.sqrt(400)
    value, low, high = paired_bootstrap([dict(intersect=a, union=union)], [dict(intersect=b, union=union)])['mIoU']
    assert value == pytest.approx(difference.mean())
    assert (low, high) == pytest.approx((difference.mean() - half, difference.mean() + half), abs=0.06 * half)


def test_bootstrap_covers_the_truth_and_is_narrower_than_an_unpaired_one():
    # Images are hard or easy for both sides alike; the better one finds 5 more of 100 pixels on average.
    random = np.random.default_rng(2)
    union = np.full((200, 1), 10_000)
    hardness = random.uniform(0.1, 0.8, (200, 1))
    a, b = (random.binomial(union, hardness + gain) for gain in (0.05, 0))
    _, low, high = paired_bootstrap([dict(intersect=a, union=union)], [dict(intersect=b, union=union)])['mIoU']
    assert 0 < low < 5 < high
    unpaired = 2 * 1.96 * 100 * math.sqrt((a / union).var() / 200 + (b / union).var() / 200)
    assert high - low < unpaired / 5


def test_iou_is_of_summed_counts_and_the_seeds_of_a_side_are_averaged():
    # Sky: 1 of 2 and 9 of 18 pixels, 50 %. Road: 1 of 1 and 0 of 3, 25 %. mIoU 37.5; the other side has 0 and 100.
    mine = dict(intersect=np.array([[1, 1], [9, 0]]), union=np.array([[2, 1], [18, 3]]))
    none = dict(intersect=np.zeros((2, 2), int), union=np.array([[2, 1], [18, 3]]))
    full = dict(intersect=mine['union'], union=mine['union'])
    result = paired_bootstrap([mine], [none, full], resamples=50)
    assert result['mIoU'][0] == pytest.approx(37.5 - 50)
    assert [entry[0] for entry in result['pairs']] == pytest.approx([37.5])
    assert [entry[0] for entry in result['classes']] == pytest.approx([50 - 50, 25 - 50])


def test_a_class_of_one_image_has_no_interval_and_an_absent_one_no_difference():
    union = np.zeros((10, 3), int)
    union[:, 0], union[4, 1] = 100, 100
    a, b = dict(intersect=union // 2, union=union), dict(intersect=union // 4, union=union)
    common, rare, absent = paired_bootstrap([a], [b], resamples=200)['classes']
    assert common == pytest.approx([25, 25, 25])
    assert rare == [pytest.approx(25), None, None]
    assert absent is None


def test_runs_that_overlap_in_time_shared_the_machine(tmp_path):
    ends = ('2026-01-01T00:01:00+00:00', '2026-01-01T00:01:30+00:00', '2026-01-01T00:05:00+00:00')
    runs = []
    for i, end in enumerate(ends):
        folder = write_run(tmp_path / str(i), 40., start=end)  # each took 60 s
        runs.append(dict(metrics=read_metrics(find_metrics(folder))))
    assert ran_together(runs) == [True, True, False]
