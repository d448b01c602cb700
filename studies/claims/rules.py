"""From figures to a verdict.

A figure decides only with enough independent repeats; then its whole interval has to lie on one side of a limit. Where
a protocol lets the cross-entropy decide, the figure is of that, and equivalence is the protocol's own test: page and
report of a study never say different things.
"""
from typing import NamedTuple

from ..blocked import LEVEL

# Fewest repeats that decide. An interval over processes is little more than their range, which covers the median of
# what they are drawn from with 1 − 2^(1 − n): 75 % of three, 94 % of five. Intervals of fewer seeds cover almost all.
# The study of CamVid has its three sequences, with t.
LEAST = dict(process=5, seed=4, sequence=3, count=1)
PLURAL = dict(process='processes', seed='seeds', sequence='sequences')
NEAR = 0.9      # of a claimed ratio: a tenth is the least that matters
HOLDS, FAILS, OPEN = 'holds', 'does not hold', 'not decided'


class AtLeast(NamedTuple):
    """A ratio that is claimed: it holds from nine tenths of it on."""
    claimed: float

    def __call__(self, figure):
        return side(figure, NEAR * self.claimed)

    def __str__(self):
        return f'at least {NEAR * self.claimed:.2f}, nine tenths of {self.claimed:g}'


class Changes(NamedTuple):
    """Accuracy that is claimed to rise, or to fall: it holds where that is shown, however small, and not where the
    opposite is, or that it changes by less than what matters."""
    rises: bool

    def __call__(self, figure):
        if not enough(figure):
            return OPEN
        low, high = gain(figure, self.rises)
        if low > 0:
            return HOLDS
        return FAILS if high < 0 or is_small(figure) else OPEN

    def __str__(self):
        return f'accuracy {"rises" if self.rises else "falls"}: the interval leaves out 0'


class ChangesNot(NamedTuple):
    """Accuracy that is claimed not to fall, or not to rise. It holds where a change that way was shown to be less than
    what matters, and not where one was shown, and not how small it is."""
    rises: bool

    def __call__(self, figure):
        if not enough(figure):
            return OPEN
        low, high = gain(figure, self.rises)    # of what must not be
        if is_small(figure) or high < (figure.bound or 0):
            return HOLDS
        return FAILS if low > 0 else OPEN

    def __str__(self):
        return (f'any {"gain" if self.rises else "loss"} of accuracy is shown to be less than a point of mIoU, or what '
                'it is worth in nats')


class Equal(NamedTuple):
    """Counts, in the order of the figures, as a paper rounds them; it may print one in the last digit more."""
    expected: tuple
    slack: float = 0.5

    def check(self, figures):
        right = len(figures) == len(self.expected) and all(
            abs(figure.value - value) <= self.slack for figure, value in zip(figures, self.expected, strict=True))
        return HOLDS if right else FAILS

    def __str__(self):
        return f'equal to {", ".join(f"{value:g}" for value in self.expected)}'


def enough(figure):
    """Whether there are as many independent repeats behind it as decide."""
    return figure.of == 'count' or (figure.low is not None and figure.repeats >= needed(figure))


def needed(figure):
    return max(LEAST[figure.of], figure.planned)


def gain(figure, rises):
    """The interval of a difference, turned so that above 0 accuracy rises, or falls."""
    up = rises != figure.lower_is_better
    return (figure.low, figure.high) if up else (-figure.high, -figure.low)


def is_small(figure):
    """Whether its study showed that the difference is less than what matters."""
    return figure.equivalent is not None and figure.equivalent < LEVEL


def side(figure, limit):
    """Whether the whole interval is at or above the limit, below it, or neither."""
    if not enough(figure):
        return OPEN
    low, high = (figure.value, figure.value) if figure.of == 'count' else (figure.low, figure.high)
    return HOLDS if low >= limit else FAILS if high < limit else OPEN


def verdict(figures, rule):
    """In words, what figures say of a claim.

    Returns:
        tuple[str, str]: One of 'holds', 'holds only if', 'does not hold', 'not decided', 'not measured yet'; and of
        what, or why.
    """
    if not figures:
        return 'not measured yet', ''
    if isinstance(rule, Equal):
        return rule.check(figures), 'counted'
    machines = len({figure.where for figure in figures}) > 1
    by = {HOLDS: [], FAILS: [], OPEN: []}
    for figure in figures:
        what = figure.what.replace(', ', ' ')      # names are listed with commas
        by[rule(figure)].append(f'{what} on {figure.where}' if machines else what)
    said = why_open(figures, rule)
    rest = f'; not decided: {", ".join(by[OPEN])} ({said})' if by[OPEN] else ''
    if by[HOLDS] and by[FAILS]:
        return 'holds only if', ', '.join(by[HOLDS]) + rest
    if by[FAILS]:
        return FAILS, (', '.join(by[FAILS]) + rest) if rest else ''
    if by[HOLDS]:
        return (OPEN, f'it holds for {", ".join(by[HOLDS])}{rest}') if rest else (HOLDS, '')
    return OPEN, said


def why_open(figures, rule):
    """Why the figures that decide nothing do not."""
    few = [figure for figure in figures if not enough(figure)]
    reasons = []
    if few:
        of, most = few[0].of, max(figure.repeats for figure in few)
        reasons.append(f'{most} {of if most == 1 else PLURAL[of]}, and {max(map(needed, few))} decide')
    if any(enough(figure) and rule(figure) == OPEN for figure in figures):
        reasons.append('the interval covers the limit')
    return '; '.join(reasons)
