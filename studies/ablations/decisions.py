"""What the pilot decides, by rules that were written before it ran (docs/studies/ablations.md)."""
import statistics

import numpy as np

from inceptionnext_seg.errors import UserError

from ..blocked import fit, seeds_for, smallest_effect, upper_deviation
from ..trainings import AVERAGED, ENDPOINTS, complete
from .arms import INTERVAL, MAIN, PILOT, RUNS_OF_A_SEED

EFFECT = 1.     # the smallest that matters, and the bound of equivalence: points of mIoU
POWER = 0.8
FEWEST_SEEDS = 8
SHARE = 0.9     # of the fall of the cross-entropy from the first validations to the lowest
SHORTEST = 300
START = 20.     # seconds of a run before its first iteration, about


def mean_curve(runs, name):
    """Iterations that all runs were validated at, and the mean over the runs there."""
    values = [{point['iteration']: point[name] for point in run['curve']} for run in runs]
    iterations = sorted(set.intersection(*map(set, values)))
    return iterations, [statistics.fmean(value[i] for value in values) for i in iterations]


def smoothed(values):
    """The mean of the last three at each place, from the third on."""
    return np.convolve(values, np.full(AVERAGED, 1 / AVERAGED), 'valid').tolist()


def length_wanted(iterations, losses):
    """The first iteration at which the mean of three validations has fallen by ``SHARE`` of all that it falls."""
    means = smoothed(losses)
    goal = means[0] - SHARE * (means[0] - min(means))
    return next(i for i, mean in zip(iterations[AVERAGED - 1:], means, strict=True) if mean <= goal)


def seconds_of_a_run(iterations, per_iteration, per_validation):
    return START + iterations * per_iteration + AVERAGED * per_validation


def length_affordable(hours, seeds, per_iteration, per_validation):
    """The longest, in steps of validations, that so many seeds of all arms can have in ``hours``."""
    each = hours * 3600 / (seeds * RUNS_OF_A_SEED)
    iterations = (each - seconds_of_a_run(0, per_iteration, per_validation)) / per_iteration
    return max(int(iterations) // INTERVAL * INTERVAL, 0)


def worth_of_a_point(iterations, losses, mious, length):
    """By how many nats the cross-entropy falls where mIoU gains a point, along the pilot's curves up to ``length``.

    The slope of a line by least squares from half of the length on; None where they do not go together.
    """
    places = [i for i, iteration in enumerate(iterations) if length / 2 <= iteration <= length]
    x, y = np.array(mious)[places], np.array(losses)[places]
    if len(places) < 3 or np.ptp(x) == 0:
        return None
    slope = float(np.polyfit(x, y, 1)[0])
    return -slope * EFFECT if slope < 0 else None


def typical(runs, name):
    """Median over the runs that have it: one that went on just before its end has too few iterations for a speed."""
    values = [run[name] for run in runs if run[name]]
    if not values:
        raise UserError(f'no run of the pilot has {name}; expected: runs of more than five iterations. Next: delete '
                        'them and run the pilot again.')
    return statistics.median(values)


def decide(runs, hours):
    """Length, seeds and the bound of the cross-entropy, from the pilot's runs.

    Args:
        runs (list[dict]): As :func:`..trainings.record` gives them.
        hours (float): That the runs of all arms may take together.

    Returns:
        dict: With what they were decided from.

    Raises:
        UserError: No run has a figure of its speed, or a validation has no number.
    """
    if any(point[name] is None for run in runs for point in run['curve'] for name in ENDPOINTS):
        raise UserError('a validation of a run of the pilot gave no number; expected: finite ones. Next: delete its '
                        'folder and run the pilot again.')
    iterations, losses = mean_curve(runs, 'cross_entropy')
    mious = mean_curve(runs, 'mIoU')[1]
    per_iteration, per_validation = (typical(runs, f'seconds_per_{what}') for what in ('iteration', 'validation'))
    wanted = length_wanted(iterations, losses)
    affordable = length_affordable(hours, FEWEST_SEEDS, per_iteration, per_validation)
    length = max(min(wanted, affordable), SHORTEST)
    length = min(length, iterations[-1])
    spread = {}
    for name in ENDPOINTS:
        found = fit(complete(runs, PILOT, name, length)[1])
        spread[name] = dict(deviation=found.deviation, df=found.df, upper=upper_deviation(found.deviation, found.df))
    deviation = spread['mIoU']['upper']
    one_seed = RUNS_OF_A_SEED * seconds_of_a_run(length, per_iteration, per_validation)
    most = max(FEWEST_SEEDS, int(hours * 3600 // one_seed))
    seeds, power = seeds_for(EFFECT, deviation, len(MAIN), POWER, FEWEST_SEEDS, most)
    return dict(
        iterations=length, seeds=seeds, power=power, most_seeds=most, hours=hours,
        iterations_wanted=wanted, iterations_affordable=affordable,
        seconds_per_iteration=per_iteration, seconds_per_validation=per_validation,
        hours_expected=seeds * one_seed / 3600, spread=spread,
        smallest_effect=smallest_effect(deviation, len(MAIN), seeds, POWER),
        bounds=dict(mIoU=EFFECT, cross_entropy=worth_of_a_point(iterations, losses, mious, length)))
