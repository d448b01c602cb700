"""What the pilot decides, by rules that were written before it ran (docs/studies/ablations.md)."""
import statistics
from typing import NamedTuple

import numpy as np

from inceptionnext_seg.errors import UserError

from ..blocked import Design, fit, seeds_for, smallest_effect, upper_deviation
from ..trainings import AVERAGED, ENDPOINTS, complete
from .arms import COMPARED, CONTROL, INTERVAL, PILOT, RUNS_OF_A_SEED

DESIGN = Design(len(COMPARED), len(CONTROL))
EFFECT = 1.     # the smallest that matters, and the bound of equivalence: points of mIoU
POWER = 0.8
FEWEST_SEEDS = 8
SHARE = 0.9     # of the fall of the cross-entropy from the first validations to the lowest
SHORTEST = 300


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


class Pace(NamedTuple):
    """Seconds of an iteration, of a validation, and of the rest of a run: start, first measurements, checkpoints."""
    iteration: float
    validation: float
    overhead: float

    def of_a_run(self, iterations):
        return self.overhead + iterations * self.iteration + AVERAGED * self.validation


def pace_of(runs):
    """Medians over the pilot's runs that were not interrupted.

    Raises:
        UserError: There is none.
    """
    keys = ('seconds_per_iteration', 'seconds_per_validation', 'seconds_of_process')
    whole = [[run[key] for key in keys] + [run['iterations'], len(run['curve'])] for run in runs
             if all(run[key] for key in keys)]
    if not whole:
        raise UserError('every run of the pilot was interrupted, or is too short to be timed (fewer than six '
                        'iterations, or images to validate on), so that it is not known how long one takes; expected: '
                        'one that was not. Next: delete the folder of a run and run the pilot again.')
    overheads = [total - iterations * each - validations * one for each, one, total, iterations, validations in whole]
    iteration, validation = (statistics.median(row[i] for row in whole) for i in (0, 1))
    return Pace(iteration, validation, max(statistics.median(overheads), 0.))


def length_affordable(core_hours, seeds, pace):
    """The longest, in steps of validations, that so many seeds of all arms can have, each run on a core."""
    iterations = (core_hours * 3600 / (seeds * RUNS_OF_A_SEED) - pace.of_a_run(0)) / pace.iteration
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


def decide(runs, core_hours):
    """Length, seeds and the bound of the cross-entropy, from the pilot's runs.

    Args:
        runs (list[dict]): As :func:`..trainings.record` gives them.
        core_hours (float): That the runs of all arms may take together, each on one core.

    Returns:
        dict: With what they were decided from.

    Raises:
        UserError: No run has a figure of its speed, or a validation has no number.
    """
    if any(point[name] is None for run in runs for point in run['curve'] for name in ENDPOINTS):
        raise UserError('a validation of a run of the pilot gave no number; expected: finite ones. Next: delete its '
                        'folder and run the pilot again.')
    iterations, losses = mean_curve(runs, 'cross_entropy')
    mious, pace = mean_curve(runs, 'mIoU')[1], pace_of(runs)
    wanted = length_wanted(iterations, losses)
    affordable = length_affordable(core_hours, FEWEST_SEEDS, pace)
    length = min(max(min(wanted, affordable), SHORTEST), iterations[-1])
    bounds = dict(mIoU=EFFECT, cross_entropy=worth_of_a_point(iterations, losses, mious, length))
    one_seed = RUNS_OF_A_SEED * pace.of_a_run(length)
    most = max(FEWEST_SEEDS, int(core_hours * 3600 // one_seed))
    spread, deviations = {}, {}
    for name in ENDPOINTS:
        found = fit(complete(runs, PILOT, name, length)[1])
        deviations[name] = upper_deviation(found.deviation, found.df)
        spread[name] = dict(deviation=found.deviation, df=found.df, upper=deviations[name])
    # The endpoint that decides; where a point is worth nothing in it, the other is all there is to plan by.
    planned = 'cross_entropy' if bounds['cross_entropy'] else 'mIoU'
    seeds = seeds_for(bounds[planned], deviations[planned], DESIGN, POWER, FEWEST_SEEDS, most)
    return dict(
        iterations=length, seeds=seeds, most_seeds=most, planned_by=planned, core_hours=core_hours,
        iterations_wanted=wanted, iterations_affordable=affordable, seconds=pace._asdict(),
        core_hours_expected=seeds * one_seed / 3600, spread=spread, bounds=bounds,
        power={name: power_of(bounds[name], deviations[name], seeds) for name in ENDPOINTS})


def power_of(bound, deviation, seeds):
    """Of one arm: the probability to show a difference as large as ``bound``, and, where nothing differs, that it is
    within it; and the difference that is shown with :data:`POWER`. None where there is no bound."""
    return dict(
        difference=bound and DESIGN.power(bound, deviation, seeds),
        equivalence=bound and DESIGN.equivalence_power(bound, deviation, seeds),
        smallest_effect=smallest_effect(deviation, DESIGN, seeds, POWER))
