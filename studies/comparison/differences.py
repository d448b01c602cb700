"""Differences of candidates with their intervals: over seeds (Welch), over images (paired bootstrap)."""
import datetime
import statistics
import warnings
from typing import NamedTuple

import numpy as np
from scipy.stats import DegenerateDataWarning, bootstrap, ttest_ind

RESAMPLES = 9999


class Difference(NamedTuple):
    """A difference with its 95 % interval, whose bounds are None where the data allow none."""
    value: float
    low: float | None = None
    high: float | None = None

    @property
    def shown(self):
        return self.low is not None and not self.low <= 0 <= self.high


def welch(values, reference):
    """Difference of the means with Welch's 95 % interval, which does not assume equal variances.

    No interval where a side has fewer than two values, or no value of either side differs from the others.
    """
    difference = statistics.fmean(values) - statistics.fmean(reference)
    if min(len(values), len(reference)) < 2 or max(np.ptp(values), np.ptp(reference)) == 0:
        return Difference(difference)
    interval = ttest_ind(values, reference, equal_var=False).confidence_interval(0.95)
    return Difference(difference, float(interval.low), float(interval.high))


def class_iou(intersect, union):
    """IoU in per cent of summed counts (..., classes); NaN for a class in neither labels nor predictions."""
    with np.errstate(invalid='ignore'):
        return 100 * np.asarray(intersect, dtype=np.float64) / union


def mean_iou(intersect, union):
    """mIoU in per cent of summed counts (..., classes): the mean over the classes that occur."""
    return np.nanmean(class_iou(intersect, union), axis=-1)


def paired_bootstrap(runs, reference, resamples=RESAMPLES, seed=0):
    """Differences of two candidates on one validation set, with intervals over its images.

    Images are drawn with replacement, each time the same ones for all runs of both sides; then IoU is computed anew
    from the summed counts, as for the whole set. scipy's percentile interval: BCa has none where a class, or a whole
    prediction, is the same on both sides.

    Args:
        runs, reference (Sequence[dict]): Per run, ``intersect`` and ``union`` (images, classes). The runs of a side
            are its seeds; their mIoU are averaged.

    Returns:
        dict: ``mIoU`` and each of ``classes``, by position, as [difference, low, high] of the sides' means; ``pairs``
        the same of the mIoU of run i and reference i; ``resamples`` and ``seed``. A class that some resample lacks has
        no bounds, and one that occurs nowhere is None.
    """
    sides = [len(runs), len(reference)]
    counts = np.concatenate([np.stack([run['intersect'], run['union']], 1) for run in (*runs, *reference)], 1)
    images, _, classes = counts.shape
    # Double precision holds whole numbers up to 2^53: the sums below are exact, and matrix products are fast.
    table = counts.reshape(images, -1).astype(np.float64)
    pairs = min(sides)

    def differences(drawn, axis=-1):
        drawn = np.atleast_2d(drawn)
        weights = np.stack([np.bincount(row, minlength=images) for row in drawn]).astype(np.float64)
        sums = (weights @ table).reshape(len(drawn), sum(sides), 2, classes)
        iou = class_iou(sums[:, :, 0], sums[:, :, 1])
        miou = np.nanmean(iou, axis=-1)
        result = np.concatenate([
            miou[:, :sides[0]].mean(1, keepdims=True) - miou[:, sides[0]:].mean(1, keepdims=True),
            miou[:, :pairs] - miou[:, sides[0]:sides[0] + pairs],
            iou[:, :sides[0]].mean(1) - iou[:, sides[0]:].mean(1)], axis=1)
        return result.T

    with warnings.catch_warnings():
        # Said of every NaN: of a class that occurs in too few images.
        warnings.simplefilter('ignore', DegenerateDataWarning)
        interval = bootstrap(
            (np.arange(images), ), differences, vectorized=True, n_resamples=resamples, batch=500, method='percentile',
            random_state=np.random.default_rng(seed)).confidence_interval
    value = differences(np.arange(images))[:, 0]

    def entry(i):
        bounds = [interval.low[i], interval.high[i]]
        return [float(value[i]), *(map(float, bounds) if np.isfinite(bounds).all() else (None, None))]

    return dict(
        mIoU=entry(0), pairs=[entry(1 + i) for i in range(pairs)],
        classes=[entry(1 + pairs + i) if np.isfinite(value[1 + pairs + i]) else None for i in range(classes)],
        resamples=resamples, seed=seed)


def ran_together(runs):
    """Which of the runs were at work while another of them was on the same kind of device: a list of bool."""
    spans = []
    for run in runs:
        origin = run['metrics']['environment']
        end = datetime.datetime.fromisoformat(origin['date']).timestamp()
        spans.append((end - run['metrics']['seconds'], end, origin.get('device_name')))
    return [any(i != j and a[0] < b[1] and b[0] < a[1] and a[2] == b[2] for j, b in enumerate(spans))
            for i, a in enumerate(spans)]
