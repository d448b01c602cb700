"""What each part of the recipe for one's own images brings, as far as the runs of studies.own_recipe can tell.

A variant is the recipe without a part. Of the difference of two means, over m and n seeds, the interval is

    d ± t s √(1/m + 1/n),

with the standard deviation s of one run pooled over every variant of several seeds, and t of its degrees of freedom.
Where all have the same seeds, these are blocks (see blocked.py). A variant that is the recipe's own runs, measured
another way, is compared run by run: d ± t s / √n of the n differences alone. Every interval is of 95 % by itself: none
is corrected for the number of variants.
"""
import math
import statistics
from typing import NamedTuple

from scipy import stats

from inceptionnext_seg.files import markdown_table

from . import blocked

RECIPE, LEVEL = 'recipe', 0.05


class Effect(NamedTuple):
    """A variant less the recipe, in points of mIoU; no interval where the recipe ran once."""
    difference: float
    low: float | None = None
    high: float | None = None

    def __str__(self):
        interval = '' if self.low is None else f' ({self.low:+.2f} to {self.high:+.2f})'
        return f'{self.difference:+.2f}{interval}'

    def told(self):
        """What leaving the part out did, in words."""
        if self.low is None:
            return 'one run of the recipe: no spread to tell it from'
        if self.low <= 0 <= self.high:
            return 'cannot be told from the spread'
        return f'{"costs" if self.difference < 0 else "brings"} {abs(self.difference):.1f} points'


class Spread(NamedTuple):
    """Standard deviation of one run, its degrees of freedom, and whether seeds were taken out as blocks."""
    deviation: float
    df: int
    blocks: bool

    def reach(self, runs, others):
        """Half of the interval of a difference of two means of so many runs."""
        return float(stats.t.isf(LEVEL / 2, self.df)) * self.deviation * math.sqrt(1 / runs + 1 / others)


def by_variant(runs):
    """{variant: {seed: mIoU}}, in the order of the runs."""
    found = {}
    for run in runs:
        found.setdefault(run['variant'], {})[run['seed']] = run['mIoU']
    return found


def same_runs(runs):
    """Names of the variants that are runs of the recipe, measured another way."""
    return {run['variant'] for run in runs if run.get('of_run')}


def of_differences(scores, base):
    """The :class:`Effect` of runs that were measured twice, seed by seed."""
    values = [score - base[seed] for seed, score in scores.items()]
    difference = statistics.fmean(values)
    if len(values) < 2:
        return Effect(difference)
    reach = Spread(statistics.stdev(values), len(values) - 1, True).reach(len(values), math.inf)
    return Effect(difference, difference - reach, difference + reach)


def spread_of(groups):
    """The :class:`Spread` of :func:`by_variant`'s groups; None where the recipe has less than two seeds."""
    seeds = sorted(groups.get(RECIPE, ()))
    if len(seeds) < 2:
        return None
    if len(groups) > 1 and all(sorted(scores) == seeds for scores in groups.values()):
        fit = blocked.fit({name: [scores[seed] for seed in seeds] for name, scores in groups.items()})
        return Spread(fit.deviation, fit.df, True)
    several = [list(scores.values()) for scores in groups.values() if len(scores) > 1]
    df = sum(len(scores) - 1 for scores in several)
    squares = sum(statistics.variance(scores) * (len(scores) - 1) for scores in several)
    return Spread(math.sqrt(squares / df), df, False)


def effects(runs):
    """{variant: :class:`Effect`} of every variant but the recipe; empty where the recipe was not run."""
    groups, paired = by_variant(runs), same_runs(runs)
    if RECIPE not in groups:
        return {}
    spread = spread_of({name: scores for name, scores in groups.items() if name not in paired})
    base, found = groups[RECIPE].values(), {}
    for name, scores in groups.items():
        if name in paired:
            found[name] = of_differences(scores, groups[RECIPE])
        elif name != RECIPE:
            difference = statistics.fmean(scores.values()) - statistics.fmean(base)
            reach = spread and spread.reach(len(scores), len(base))
            found[name] = Effect(difference) if reach is None else Effect(
                difference, difference - reach, difference + reach)
    return found


def method(runs):
    """How the intervals were made, in a sentence or two; '' where there is nothing to compare."""
    if not effects(runs):
        return ''
    paired = same_runs(runs)
    groups = {name: scores for name, scores in by_variant(runs).items() if name not in paired}
    spread, seeds = spread_of(groups), ', '.join(map(str, sorted(groups[RECIPE])))
    if spread is None:
        return f'One seed of the recipe ({seeds}): no spread, and no interval.'
    if len(groups) == 1:
        return 'Intervals are of 95 %, of the differences run by run.'
    how = (f'with the seeds {seeds} of every variant as blocks' if spread.blocks else
           'unpaired, pooled over the variants of several seeds')
    return (f'Intervals are of 95 %, each by itself: t with {spread.df} degrees of freedom and the standard deviation '
            f'of a run, {spread.deviation:.2f} points, {how}. A variant of one seed is taken to spread like these.'
            f'{" Averaged weights are compared run by run." if paired else ""}')


def counts(values):
    return ', '.join(f'{value:.0f}' for value in values)


def table(content):
    """Markdown: of each variant its mIoU, the difference to the recipe, what that tells, and every run's iterations."""
    found, rows = effects(content['runs']), []
    for name, scores in by_variant(content['runs']).items():
        runs = [run for run in content['runs'] if run['variant'] == name]
        effect = found.get(name)
        rows.append(['–' if name == RECIPE else runs[0]['without'], f'{statistics.fmean(scores.values()):.2f}',
                     len(runs), *(('', '') if effect is None else (str(effect), effect.told())),
                     counts(run['iterations'] for run in runs)])
    return markdown_table(['without', 'mIoU', 'seeds', 'to the recipe (95 %)', 'leaving it out', 'iterations'], rows)


def section(content):
    """Markdown for docs/own_images.md: the table, and what it cannot tell."""
    return '\n\n'.join([
        f'What each part of the recipe brings, from runs of {content["minutes"]:g} minutes:', table(content),
        f'{method(content["runs"])} Time is the budget: a variant whose iterations take longer makes fewer of them, '
        f'and that is part of its difference. What holds after {content["minutes"]:g} minutes need not hold after '
        'more.'])
