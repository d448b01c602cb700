"""What the measurements say of each reason why factorized convolutions should be slow."""
import math
import statistics
from dataclasses import replace
from typing import NamedTuple

from scipy.stats import spearmanr

from ..timing import Interval, median_interval
from .cases import GROUPINGS, MODES
from .suites import PROBE


class Reason(NamedTuple):
    """One of the article's reasons as a claim that pairs of cases can bear out.

    ``forms`` are the left side of the claim, ``change`` makes its right side of them; ``expected`` is what the claim
    says of left against right: 'slower', 'faster' or 'different'. Where ``per_mac``, times are taken per MAC, since 2×n
    computes a row less.
    """
    name: str
    claim: str
    forms: tuple
    change: dict
    expected: str
    per_mac: bool = False


REASONS = (
    Reason('sequential passes', 'per MAC, n×1 → 1×n is slower than 2×n: as many parameters, two passes for one',
           ('sequential', ), dict(form='one_pass'), 'slower', per_mac=True),
    Reason('memory traffic', 'ReLU between n×1 and 1×n, which adds bytes and no MACs, costs time',
           ('sequential_relu', ), dict(form='sequential'), 'slower'),
    Reason('operation count', 'n×1 → 1×n, with fewer MACs, is faster than n×n',
           ('sequential', ), dict(form='square'), 'faster'),
    Reason('caching', 'inputs from beyond the cache cost time against inputs in it; outputs, and maps between passes, '
           'stay in it',
           ('square', 'sequential'), dict(cache='hot'), 'slower'),
    Reason('kernel tuning', '1×n and n×1, with the same MACs, bytes and parameters, differ',
           ('row', ), dict(form='column'), 'different'),
)
# Of so many pairs a claim must hold, and may hold where it does not.
BORNE_OUT, NOT_BORNE_OUT = 2 / 3, 1 / 3
OVERHEAD_THAT_MATTERS = 0.1


class Finding(NamedTuple):
    """What the pairs say of a claim, for one grouping and mode; ratios are medians over the pairs, left over right."""
    pairs: int
    slower: int
    faster: int
    time: float
    macs: float
    bytes: float
    verdict: str


def reasons(table):
    """What the measurements say of each reason, for each grouping and mode that was measured.

    Yields:
        tuple: (name of the reason, claim, grouping, mode, :class:`Finding`).
    """
    measured = sorted({(case.grouping, case.mode) for case in table if case.size > PROBE['size']},
                      key=lambda both: (GROUPINGS.index(both[0]), list(MODES).index(both[1])))
    for reason in REASONS:
        for grouping, mode in measured:
            yield reason.name, reason.claim, grouping, mode, examine(table, reason, grouping, mode)
    for grouping, mode in measured:
        penalties = cache_penalty(table, grouping, mode)
        slower, faster = sum(p.low > 1 for p in penalties), sum(p.high < 1 for p in penalties)
        yield ('caching, of the factorized', 'n×1 → 1×n loses more to cold inputs than n×n', grouping, mode,
               Finding(len(penalties), slower, faster,
                       statistics.median(p.median for p in penalties) if penalties else math.nan,
                       math.nan, math.nan, verdict(slower, len(penalties))))
    for grouping, mode in measured:
        shares = overheads(table, grouping, mode).values()
        above = sum(share > OVERHEAD_THAT_MATTERS for share in shares)
        yield ('launch and synchronization', 'the price of the calls is more than a tenth of the time', grouping, mode,
               Finding(len(shares), above, len(shares) - above, statistics.median(shares) if shares else math.nan,
                       math.nan, math.nan, verdict(above, len(shares))))


def examine(table, reason, grouping, mode):
    """The :class:`Finding` on ``reason``. A pair counts as slower or faster where its interval leaves out 1."""
    pairs = []
    for case in table:
        other = replace(case, **reason.change)
        if (case.form in reason.forms and case.grouping == grouping and case.mode == mode and case.size > PROBE['size']
                and other != case and other in table):
            work = table.quotient('macs', case, other) if reason.per_mac else 1.0
            pairs.append((case, other, Interval(*[value / work for value in table.ratio(case, other)])))
    slower = sum(interval.low > 1 for _, _, interval in pairs)
    faster = sum(interval.high < 1 for _, _, interval in pairs)
    holding = dict(slower=slower, faster=faster, different=slower + faster)[reason.expected]

    def median(values):
        values = list(values)
        return statistics.median(values) if values else math.nan

    return Finding(
        len(pairs), slower, faster, median(interval.median for _, _, interval in pairs),
        median(table.quotient('macs', a, b) for a, b, _ in pairs),
        median(table.quotient('bytes', a, b) for a, b, _ in pairs), verdict(holding, len(pairs)))


def verdict(holding, pairs):
    """'borne out' where a claim holds in two thirds of the pairs, 'not borne out' in less than one, or 'in part'."""
    if not pairs:
        return 'not measured'
    share = holding / pairs
    return 'borne out' if share >= BORNE_OUT else 'not borne out' if share < NOT_BORNE_OUT else 'in part'


def cache_penalty(table, grouping, mode):
    """How much more n×1 → 1×n suffers from cold inputs than n×n does: cold over hot of one over cold over hot of other.

    Returns:
        list[Interval]: For each kernel and layout measured both ways.
    """
    intervals = []
    for case in table:
        four = [replace(case, form=form, cache=cache)
                for form in ('sequential', 'square') for cache in ('cold', 'hot')]
        if case == four[0] and (case.grouping, case.mode) == (grouping, mode) and all(c in table for c in four):
            rounds = zip(*(table.records[c]['seconds'] for c in four), strict=True)
            intervals.append(median_interval([(a / b) / (c / d) for a, b, c, d in rounds]))
    return intervals


def overheads(table, grouping, mode):
    """Price of the calls as a share of the time: the same operator on one pixel, over it on the whole image.

    Returns:
        dict[Case, float]: For n×n, n×1 → 1×n and Inception of every size measured with more than one image, for which
        torch may run other kernels.
    """
    shares = {}
    for case in table:
        probe = replace(case, **PROBE)
        if (case.form in ('square', 'sequential', 'inception') and (case.grouping, case.mode) == (grouping, mode)
                and case.cache == 'cold' and case.batch_size > 1 and probe in table):
            shares[case] = table.time(probe).median / table.time(case).median
    return shares


def correlations(table, grouping, mode, layout):
    """Rank correlation (Spearman's) of time with MACs and with bytes, over the operators measured with cold inputs.

    Returns:
        tuple: (number of operators, correlation with MACs, with bytes), of the base shape; None without ten.
    """
    base = table.base(grouping)
    cases = [case for case in table if (case.grouping, case.mode, case.layout, case.cache) == (
        grouping, mode, layout, 'cold') and (case.channels, case.size, case.batch_size, case.dtype) == base]
    if len(cases) < 10:
        return None
    times = [table.time(case).median for case in cases]
    with_macs, with_bytes = (
        float(spearmanr(times, [table.records[case][key] for case in cases]).statistic) for key in ('macs', 'bytes'))
    return len(cases), with_macs, with_bytes
