"""Experiments in complete blocks: several arms, each run once with every seed, compared with one of them.

The model is additive, y(arm, seed) = mean + arm + seed + e. The runs of one seed share the order of the images and the
initial values of what the arms have in common, so that a seed is a block, and what is left after arm and seed have been
taken out gives one pooled variance with (arms − 1)(seeds − 1) degrees of freedom (R. A. Fisher; D. C. Montgomery,
Design and Analysis of Experiments, chapter 4, whose example is a test of this module).

Many arms against one: C. W. Dunnett, A multiple comparison procedure for comparing several treatments with a control,
JASA 50 (1955), and New tables for multiple comparisons with a control, Biometrics 20 (1964). scipy.stats.dunnett has no
blocks; what differs is the variance and its degrees of freedom, and the distribution here takes both.

Equivalence: D. J. Schuirmann, two one-sided tests, J. Pharmacokinetics and Biopharmaceutics 15 (1987), adjusted over
the arms by Holm's method.
"""
import math
from typing import NamedTuple

import numpy as np
from scipy import optimize, stats
from scipy.special import ndtr

from inceptionnext_seg.errors import UserError

LEVEL = 0.05
NODES = 96     # of each of the two integrals


class Fit(NamedTuple):
    """What complete blocks say: ``means`` of the arms, the residuals' standard deviation and degrees of freedom."""
    means: dict
    deviation: float
    df: int
    blocks: int

    def error(self, weights):
        """Standard error of the sum of the arms' means, each times its weight."""
        return self.deviation * math.sqrt(sum(weight * weight for weight in weights) / self.blocks)


class Comparison(NamedTuple):
    """An arm, or a contrast of arms, with its simultaneous interval.

    Attributes:
        difference, low, high (float): In the unit of the values.
        p (float): Two-sided, adjusted for the number of comparisons.
        equivalent (float | None): p of the claim that the difference is within the bound, adjusted; None without one.
    """
    name: str
    difference: float
    low: float
    high: float
    p: float
    equivalent: float | None = None


def fit(values):
    """Arms, blocks and what is left.

    Args:
        values (dict[str, Sequence[float]]): Of each arm, one a block, the same blocks in the same order for all.

    Raises:
        UserError: Fewer than two arms or blocks, arms of different numbers of blocks, or a value that is not finite.
    """
    table = list(map(list, values.values()))
    lengths = sorted({len(row) for row in table})
    if len(table) < 2 or len(lengths) != 1 or lengths[0] < 2:
        raise UserError(f'{len(table)} arms with {", ".join(map(str, lengths)) or "no"} seeds; expected: two arms or '
                        'more, each with the same seeds, two or more. Next: run what is missing.')
    table = np.array(table, dtype=np.float64)
    if not np.isfinite(table).all():
        raise UserError('a value is not finite; expected: the figure of a run that ended. Next: see its log.')
    arms, blocks = table.shape
    residuals = table - table.mean(1, keepdims=True) - table.mean(0) + table.mean()
    df = (arms - 1) * (blocks - 1)
    return Fit(dict(zip(values, table.mean(1).tolist(), strict=True)),
               math.sqrt(float((residuals**2).sum()) / df), df, blocks)


def within(bound, arms, df, share=(0.5, )):
    """Probability that no |t| of ``arms`` comparisons with one arm is above ``bound`` where nothing differs.

    Given the common arm's z and the pooled deviation s, in units of the true one, the comparisons are independent:
    P = E_s E_z Π [Φ((bound s + √ρ z) / √(1 − ρ)) − Φ((−bound s + √ρ z) / √(1 − ρ))]; both expectations by
    Gauss-Legendre.

    Args:
        share (Sequence[float]): ρ of each arm, n / (n + n of the common arm); one value for all, ½ where all have as
            many runs.
    """
    alike = len(share) == 1
    ratio = np.asarray(share, dtype=np.float64)[:, None, None]
    nodes, weights = np.polynomial.legendre.leggauss(NODES)

    def between(low, high):
        return (high - low) / 2 * nodes + (high + low) / 2, (high - low) / 2 * weights

    z, z_weight = between(-8.5, 8.5)
    s, s_weight = between(*np.sqrt(stats.chi2.ppf((1e-13, 1 - 1e-13), df) / df))
    density = stats.chi2.pdf(s * s * df, df) * 2 * s * df
    centre, reach = np.sqrt(ratio) * z, bound * s[:, None]
    each = ndtr((reach + centre) / np.sqrt(1 - ratio)) - ndtr((-reach + centre) / np.sqrt(1 - ratio))
    inside = each[0]**arms if alike else each.prod(0)
    return float((s_weight * density) @ inside @ (z_weight * stats.norm.pdf(z)))


def critical(arms, df, level=LEVEL):
    """The bound that |t| of no comparison of ``arms`` arms with one passes, with probability 1 − ``level``."""
    return optimize.brentq(lambda bound: within(bound, arms, df) - (1 - level), 0.5, 200)


def holm(ps):
    """Holm's adjusted p of each, in the order given."""
    adjusted, largest = [0.] * len(ps), 0.
    for rank, i in enumerate(np.argsort(ps)):
        largest = max(largest, min(1., (len(ps) - rank) * ps[i]))
        adjusted[i] = largest
    return adjusted


def outside(difference, error, df, bound):
    """Two one-sided tests: p of a difference this near to 0 where the true one is at ``bound`` or beyond."""
    if error == 0:
        return float(abs(difference) >= bound)
    return float(stats.t.sf((bound - abs(difference)) / error, df))


def against(values, reference, bound=None, level=LEVEL):
    """Every arm against ``reference``: Dunnett's comparisons, and equivalence where there is a ``bound``.

    Args:
        values (dict[str, Sequence[float]]): As those of :func:`fit`.
        bound (float | None): The difference, either way, that would not matter.

    Returns:
        tuple[Fit, list[Comparison]]
    """
    found = fit(values)
    others = [name for name in values if name != reference]
    error, reach = found.error((1, -1)), critical(len(others), found.df, level)
    differences = [found.means[name] - found.means[reference] for name in others]
    equal = [None] * len(others) if bound is None else holm(
        [outside(difference, error, found.df, bound) for difference in differences])
    return found, [
        Comparison(name, difference, difference - reach * error, difference + reach * error,
                   1 - within(abs(difference) / error, len(others), found.df) if error else float(difference == 0),
                   equivalent)
        for name, difference, equivalent in zip(others, differences, equal, strict=True)]


def contrasts(values, weights, bound=None, level=LEVEL):
    """Sums of the arms' means with weights, such as main effects, with Bonferroni's simultaneous intervals.

    Args:
        weights (dict[str, dict[str, float]]): Of each contrast, the weight of each arm.
    """
    found, comparisons = fit(values), []
    reach = float(stats.t.isf(level / len(weights) / 2, found.df))
    for name, weight in weights.items():
        value, error = sum(w * found.means[arm] for arm, w in weight.items()), found.error(weight.values())
        p = float(2 * stats.t.sf(abs(value) / error, found.df)) if error else float(value == 0)
        equal = None if bound is None else min(1., len(weights) * outside(value, error, found.df, bound))
        comparisons.append(Comparison(
            name, value, value - reach * error, value + reach * error, min(1., len(weights) * p), equal))
    return found, comparisons


def factorial(cells):
    """Weights of the two main effects and of their interaction.

    Args:
        cells (Sequence[Sequence[str]]): [[a0 b0, a0 b1], [a1 b0, a1 b1]], names of arms.

    Returns:
        list[dict[str, float]]: a1 − a0, b1 − b0, each over both levels of the other, and how much b1 − b0 is more at a1
        than at a0.
    """
    (a0b0, a0b1), (a1b0, a1b1) = cells
    return [{a0b0: -.5, a0b1: -.5, a1b0: .5, a1b1: .5}, {a0b0: -.5, a0b1: .5, a1b0: -.5, a1b1: .5},
            {a0b0: 1., a0b1: -1., a1b0: -1., a1b1: 1.}]


# Before the runs: how many


def power(effect, error, df, reach):
    """Probability that a true ``effect`` is shown, |t| above ``reach``, where its standard error is ``error``."""
    shift = effect / error
    # The other tail, where scipy's is NaN once it is too small for a float.
    return float(stats.nct.sf(reach, df, shift) + np.nan_to_num(stats.nct.cdf(-reach, df, shift)))


def seeds_for(effect, deviation, arms, wanted=0.8, fewest=8, most=100, level=LEVEL):
    """The fewest seeds with which ``effect`` on one of ``arms`` arms (the reference among them) is shown.

    Args:
        effect (float): The smallest that matters.
        deviation (float): Of the residuals.
        wanted (float): Probability with which it is to be shown.

    Returns:
        tuple[int, float]: Seeds, at most ``most``, and the probability with them.
    """
    for seeds in range(fewest, most + 1):
        df = (arms - 1) * (seeds - 1)
        found = power(effect, deviation * math.sqrt(2 / seeds), df, critical(arms - 1, df, level))
        if found >= wanted:
            break
    return seeds, found


def smallest_effect(deviation, arms, seeds, wanted=0.8, level=LEVEL):
    """The effect that so many seeds show with the probability ``wanted``."""
    df, error = (arms - 1) * (seeds - 1), deviation * math.sqrt(2 / seeds)
    reach = critical(arms - 1, df, level)
    if not error:
        return 0.
    return optimize.brentq(lambda effect: power(effect, error, df, reach) - wanted, 0, (reach + 5) * error)


def upper_deviation(deviation, df, confidence=0.8):
    """The upper confidence limit of a standard deviation, with which a small pilot does not promise too much.

    R. H. Browne, On the use of a pilot sample for sample size determination, Statistics in Medicine 14 (1995).
    """
    return deviation * math.sqrt(df / float(stats.chi2.ppf(1 - confidence, df)))
