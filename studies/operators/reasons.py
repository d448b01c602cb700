"""Each proposed reason why n×1 → 1×n is slower than n×n, with an experiment that can refute it.

What would hold a claim up was fixed before anything was measured: every claim is one number and a limit. Two things
were added to the words, not to the limits, after the results were seen: a ratio that is as far on the other side is
called the reverse, and the experiment on n×n alone has a name of its own, since it is no evidence for kernels that are
tuned for squares.
"""
from typing import NamedTuple

from ..speed.statistics import Estimate
from .summary import cell_name

INSIDE, BEYOND = cell_name(), cell_name(place='beyond')
DENSE, TRAINING, PIXEL = cell_name('dense'), cell_name(mode='train'), cell_name(place='pixel')
# The least that matters: a tenth. And how near 'as long as' and 'as the MACs' have to be: a quarter.
MATTERS, NEAR = 1.1, 1.25
HOLDS, FAILS, OPEN = 'holds', 'does not hold', 'open'
REVERSED = f'{FAILS}: the reverse does'


class Experiment(NamedTuple):
    """A claim that a number decides.

    Attributes:
        key (str): For other modules.
        reason (str): As it was proposed.
        claim (str): What the number is, and what it is if the reason is true.
        limit (float): Above it, the whole interval with it, the claim holds; below it does not.
        number (Callable): From a :class:`.summary.Result` to a :class:`.summary.Sampled`, or None.
        at_most (bool): The other way round: the claim holds below the limit.
    """
    key: str
    reason: str
    claim: str
    limit: float
    number: object
    at_most: bool = False


class Finding(NamedTuple):
    experiment: Experiment
    found: Estimate | None
    verdict: str


def quotient(result, first, second):
    """The quotient of two of ``(cell, candidate, baseline)`` or ``(cell, candidate)``: ratios, or times."""
    def number(what):
        return result.sampled(*what) if len(what) == 3 else result.time(*what)
    a, b = number(first), number(second)
    return a and b and a.over(b)


def compared(cell, candidate, baseline):
    return lambda result: result.sampled(cell, candidate, baseline)


def compared_to_macs(cell, candidate, baseline):
    """The ratio of times over that of MACs."""
    def number(result):
        found = result.sampled(cell, candidate, baseline)
        return found and found.over(result.quotient(cell, candidate, baseline))
    return number


def against(first, second):
    return lambda result: quotient(result, first, second)


def two_copies(result):
    found = result.sampled(BEYOND, '3×1 → 1×3', 'copy')
    return found and found.over(2)


THREE = '3×1 → 1×3', '3×3'
EXPERIMENTS = (
    Experiment('order', 'sequential passes', '3×1 → 1×3 over the same two convolutions, both of the input: waiting for '
               'the first costs', MATTERS, compared(INSIDE, '3×1 → 1×3', '3×1, 1×3')),
    Experiment('second-pass', 'sequential passes', '3×1 → 1×3 over 2×3, one pass of as many weights, per MAC', MATTERS,
               compared_to_macs(INSIDE, '3×1 → 1×3', '2×3')),
    Experiment('two-copies', 'memory traffic', '3×1 → 1×3 over two copies of the map, beyond the cache: as long', NEAR,
               two_copies, at_most=True),
    Experiment('relu', 'memory traffic', 'beyond the cache, with ReLU between, which moves the map once '
               'more, over without', MATTERS,
               compared(BEYOND, '3×1 → ReLU → 1×3', '3×1 → 1×3')),
    Experiment('macs-depthwise', 'operation count', 'depthwise 7×1 → 1×7 over 7×7, over the ratio of MACs: as the MACs',
               NEAR, compared_to_macs(INSIDE, '7×1 → 1×7', '7×7'), at_most=True),
    Experiment('macs-dense', 'operation count', 'dense 7×1 → 1×7 over 7×7, over the ratio of MACs: as the MACs', NEAR,
               compared_to_macs(DENSE, '7×1 → 1×7', '7×7'), at_most=True),
    Experiment('beyond-cache', 'cache', '3×1 → 1×3 over 3×3: beyond the cache over inside it', MATTERS,
               against((BEYOND, *THREE), (INSIDE, *THREE))),
    Experiment('parts', 'cache', 'beyond the cache: what 3×1 → 1×3 gains from taking few images at a time, so that the '
               'map between stays in the cache, over what 3×3 gains', MATTERS,
               against((BEYOND, '3×1 → 1×3', '3×1 → 1×3 by parts'), (BEYOND, '3×3', '3×3 by parts'))),
    Experiment('narrow-depthwise', 'kernel tuning', 'depthwise 3×1 over 3×3, which moves as much and computes thrice',
               MATTERS, compared(INSIDE, '3×1', '3×3')),
    Experiment('narrow-dense', 'kernel tuning', 'dense 3×1 over 3×3, per MAC', MATTERS,
               compared_to_macs(DENSE, '3×1', '3×3')),
    Experiment('orientation', 'kernel tuning', 'depthwise 1×7 over 7×1, the same work', MATTERS,
               compared(INSIDE, '1×7', '7×1')),
    Experiment('launch', 'launch', 'the time of 3×1 → 1×3 on one pixel, all calls, over that on 96 × 56² × 4: a tenth',
               0.1, against((PIXEL, '3×1 → 1×3'), (INSIDE, '3×1 → 1×3'))),
    Experiment('launch-pixel', 'launch', 'on one pixel, 3×1 → 1×3 over 3×3', MATTERS, compared(PIXEL, *THREE)),
    Experiment('threads', 'synchronization', '3×1 → 1×3 over 3×3: with two threads over one', MATTERS,
               against((cell_name(threads=2), *THREE), (INSIDE, *THREE))),
    Experiment('threads-beyond', 'synchronization', '3×1 → 1×3 over 3×3, beyond the cache: with two threads over one',
               MATTERS, against((cell_name(place='beyond', threads=2), *THREE), (BEYOND, *THREE))),
    Experiment('allocation', 'allocation', "3×1 → 1×3 over 3×3: glibc's default over kept memory", MATTERS,
               against((cell_name(memory='default'), *THREE), (INSIDE, *THREE))),
    Experiment('allocation-beyond', 'allocation', "3×1 → 1×3 over 3×3, beyond the cache: glibc's default over kept "
               'memory', MATTERS, against((cell_name(place='beyond', memory='default'), *THREE), (BEYOND, *THREE))),
    Experiment('training', 'slow n×n', 'depthwise 7×7 over 3×3 in training, over the same in inference', MATTERS,
               against((TRAINING, '7×7', '3×3'), (INSIDE, '7×7', '3×3'))),
)


def verdict(found, limit, at_most=False):
    """'holds', 'does not hold', or 'open' where the interval covers the limit or there is none.

    Where a ratio is claimed to be above a limit, and is below its reciprocal, that the reverse holds is said, too.
    """
    if found is None:
        return 'not measured'
    if found.low is None or found.low <= limit <= found.high:
        return OPEN
    if (found.low > limit) != at_most:
        return HOLDS
    return REVERSED if not at_most and found.high < 1 / limit < 1 else FAILS


def findings(result):
    """A :class:`Finding` of each of :data:`EXPERIMENTS`, by key."""
    rows = {}
    for experiment in EXPERIMENTS:
        number = experiment.number(result)
        found = number and number.estimate
        rows[experiment.key] = Finding(experiment, found, verdict(found, experiment.limit, experiment.at_most))
    return rows


# What was claimed of the factorized form itself, by key: (cell, candidate, baseline); the claim is twice the time.
CLAIMS = {f'{what}{subject}-{side}-{mode}-{place}': (cell_name(subject, mode, place=place), name, square)
          for subject, mode, place in (('depthwise', 'infer', 'inside'), ('depthwise', 'train', 'inside'),
                                       ('depthwise', 'infer', 'beyond'), ('dense', 'infer', 'inside'),
                                       ('dense', 'train', 'inside'))
          for side, square, names in (
              ('3x3', '3×3', ('3×1 → 1×3', '3×1 → ReLU → 1×3')), ('6x7', '6×7', ('6×1 → 1×7', '6×1 → ReLU → 1×7')),
              ('7x7', '7×7', ('7×1 → 1×7', '7×1 → ReLU → 1×7')))
          for what, name in zip(('', 'relu-'), names, strict=True)}


def claims(result):
    """Time of the factorized form over that of the square by key of :data:`CLAIMS`; None where not measured."""
    return {key: result.ratio(*what) for key, what in CLAIMS.items()}
