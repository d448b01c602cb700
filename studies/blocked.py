"""Experiments in complete blocks: several arms, each run once with every seed, compared with one of them.

The model is additive, y(arm, seed) = mean + arm + seed + e. The runs of one seed share their images, the order of them
and their crops, so that a seed is a block, and what is left after arm and seed have been taken out gives one pooled
variance with (arms − 1)(seeds − 1) degrees of freedom (R. A. Fisher; D. C. Montgomery, Design and Analysis of
Experiments, chapter 4, whose example is a test of this module). They do not share initial values: one generator draws
them in the order of the layers, and from the first token mixer on that order is the arm's own.

Many arms against one: C. W. Dunnett, A multiple comparison procedure for comparing several treatments with a control,
JASA 50 (1955), and New tables for multiple comparisons with a control, Biometrics 20 (1964). scipy.stats.dunnett has no
blocks; what differs is the variance and its degrees of freedom, and the distribution here takes both. The control may
be the mean of several arms of one kind: every comparison has it, so that runs spent on it sharpen all of them.

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


def critical(arms, df, level=LEVEL, share=0.5):
    """The bound that |t| of no comparison of ``arms`` arms with one passes, with probability 1 − ``level``.

    Args:
        share (float): As that of :func:`within`, of all arms.
    """
    return optimize.brentq(lambda bound: within(bound, arms, df, (share, )) - (1 - level), 0.5, 200)


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


def against(values, control, bound=None, level=LEVEL):
    """Every other arm against the control: Dunnett's comparisons, and equivalence where there is a ``bound``.

    Args:
        values (dict[str, Sequence[float]]): As those of :func:`fit`.
        control (Sequence[str]): Arms of one kind; their mean is what the others are compared with.
        bound (float | None): The difference, either way, that would not matter.

    Returns:
        tuple[Fit, list[Comparison]]
    """
    found = fit(values)
    others, share = [name for name in values if name not in control], 1 / (1 + len(control))
    error = found.error((1, *[-1 / len(control)] * len(control)))
    reach = critical(len(others), found.df, level, share)
    middle = math.fsum(found.means[name] for name in control) / len(control)
    differences = [found.means[name] - middle for name in others]
    equal = [None] * len(others) if bound is None else holm(
        [outside(difference, error, found.df, bound) for difference in differences])
    return found, [
        Comparison(
            name, difference, difference - reach * error, difference + reach * error,
            1 - within(abs(difference) / error, len(others), found.df, (share, )) if error else float(difference == 0),
            equivalent)
        for name, difference, equivalent in zip(others, differences, equal, strict=True)]


def contrasts(values, weights, bound=None, level=LEVEL, family=None):
    """Sums of the arms' means with weights, such as main effects, with Bonferroni's simultaneous intervals.

    Args:
        weights (dict[str, dict[str, float]]): Of each contrast, the weight of each arm.
        family (int | None): Contrasts that were planned, where some of them cannot be had; None for as many as there
            are.
    """
    found, comparisons, family = fit(values), [], family or len(weights)
    reach = float(stats.t.isf(level / family / 2, found.df))
    for name, weight in weights.items():
        value, error = sum(w * found.means[arm] for arm, w in weight.items()), found.error(weight.values())
        p = float(2 * stats.t.sf(abs(value) / error, found.df)) if error else float(value == 0)
        equal = None if bound is None else min(1., family * outside(value, error, found.df, bound))
        comparisons.append(Comparison(
            name, value, value - reach * error, value + reach * error, min(1., family * p), equal))
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


# Without the assumption of one variance


def own_deviations(values):
    """Standard deviation of what arm and seed leave, of each arm alone; the mean of their squares is the pooled one's.

    Returns:
        dict[str, float]
    """
    found = fit(values)
    table = np.array(list(values.values()), dtype=np.float64)
    arms, blocks = table.shape
    residuals = table - table.mean(1, keepdims=True) - table.mean(0) + table.mean()
    each = np.sqrt((residuals**2).sum(1) / ((1 - 1 / arms) * (blocks - 1)))
    return dict(zip(found.means, each.tolist(), strict=True))


def paired(values, control):
    """Every other arm against the control's mean by Student's paired t, p by Holm's method.

    Returns:
        dict[str, float]: p of each arm.
    """
    middle = np.mean([values[name] for name in control], 0)
    others = [name for name in values if name not in control]
    return dict(zip(others, holm([mean_difference(values[name] - middle).p for name in others]), strict=True))


def mean_difference(differences, level=LEVEL):
    """Mean of differences, one a block, with Student's interval, as a :class:`Comparison`."""
    differences = np.asarray(differences, dtype=np.float64)
    df, mean = len(differences) - 1, float(differences.mean())
    error = float(differences.std(ddof=1)) / math.sqrt(len(differences))
    reach = float(stats.t.isf(level / 2, df)) * error
    p = float(2 * stats.t.sf(abs(mean) / error, df)) if error else float(mean == 0)
    return Comparison('mean', mean, mean - reach, mean + reach, p)


# Before the runs: how many


class Design(NamedTuple):
    """What is run with every seed: ``arms`` that are compared, each once, and ``controls`` arms of one kind."""
    arms: int
    controls: int = 1

    def df(self, seeds):
        return (self.arms + self.controls - 1) * (seeds - 1)

    def error(self, deviation, seeds):
        """Standard error of an arm less the control."""
        return deviation * math.sqrt((1 + 1 / self.controls) / seeds)

    def power(self, effect, deviation, seeds, level=LEVEL):
        """Probability that a true ``effect`` of one arm is shown, at Dunnett's bound."""
        df = self.df(seeds)
        return power(effect, self.error(deviation, seeds), df,
                     critical(self.arms, df, level, 1 / (1 + self.controls)))

    def equivalence_power(self, bound, deviation, seeds, level=LEVEL):
        """Probability that an arm that differs by nothing is shown to be within ``bound``, at the first and hardest
        step of Holm's method."""
        return equivalence_power(bound, self.error(deviation, seeds), self.df(seeds), level / self.arms)


def power(effect, error, df, reach):
    """Probability that a true ``effect`` is shown, |t| above ``reach``, where its standard error is ``error``."""
    if not error:
        return float(effect != 0)
    shift = effect / error
    # The other tail, where scipy's is NaN once it is too small for a float.
    return float(stats.nct.sf(reach, df, shift) + np.nan_to_num(stats.nct.cdf(-reach, df, shift)))


def equivalence_power(bound, error, df, level=LEVEL):
    """Probability that two one-sided tests show a true difference of 0 to be within ``bound``.

    Given the deviation s, in units of the true one, that is P(|z| < bound / error − t s); over s by Gauss-Legendre.
    """
    if not error:
        return 1.
    reach = float(stats.t.isf(level, df))
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    low, high = np.sqrt(stats.chi2.ppf((1e-13, 1 - 1e-13), df) / df)
    high = min(high, max(low, bound / error / reach))      # beyond it nothing is shown
    s = (high - low) / 2 * nodes + (high + low) / 2
    inside = 2 * ndtr(np.maximum(bound / error - reach * s, 0)) - 1
    return float((high - low) / 2 * (weights * stats.chi2.pdf(s * s * df, df) * 2 * s * df * inside).sum())


def seeds_for(effect, deviation, design, wanted=0.8, fewest=8, most=100, level=LEVEL):
    """The fewest seeds with which ``effect`` of one arm is shown.

    Args:
        effect (float): The smallest that matters.
        deviation (float): Of the residuals.
        design (Design): What is run with every seed.
        wanted (float): Probability with which it is to be shown.

    Returns:
        int: At most ``most``.
    """
    return next((seeds for seeds in range(fewest, most)
                 if design.power(effect, deviation, seeds, level) >= wanted), most)


def smallest_effect(deviation, design, seeds, wanted=0.8, level=LEVEL):
    """The effect that so many seeds show with the probability ``wanted``."""
    df, error = design.df(seeds), design.error(deviation, seeds)
    reach = critical(design.arms, df, level, 1 / (1 + design.controls))
    if not error:
        return 0.
    return optimize.brentq(lambda effect: power(effect, error, df, reach) - wanted, 0, (reach + 5) * error)


def upper_deviation(deviation, df, confidence=0.8):
    """The upper confidence limit of a standard deviation, with which a small pilot does not promise too much.

    R. H. Browne, On the use of a pilot sample for sample size determination, Statistics in Medicine 14 (1995).
    """
    return deviation * math.sqrt(df / float(stats.chi2.ppf(1 - confidence, df)))
