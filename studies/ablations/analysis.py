"""From the runs to comparisons and verdicts: the families of docs/studies/ablations.md."""
import numpy as np

from ..blocked import LEVEL, against, contrasts, factorial, mean_difference, own_deviations, paired
from ..trainings import ENDPOINTS, complete
from .arms import COMPARED, CONTROL, FACTORIAL, PILOT, REFERENCE, TITLES

# Second family: comparisons of which Inception is no side, or not the one that was asked about.
PAIRS = {'3×3 − 7×7': dict(dw3x3=1., dw7x7=-1.), 'ratio 1/16 − 1/8': dict(ratio1_16=1., ratio1_8=-1.),
         'ratio 1/4 − 1/8': {REFERENCE: 1., 'ratio1_8': -1.}}
# Third: norm × mixer, and the two networks that differ in both.
NORM, MIXER, INTERACTION, NETWORKS = (
    'BatchNorm − LayerNorm', 'Inception − 7×7', 'Inception − 7×7, under BatchNorm minus under LayerNorm',
    'InceptionNeXt − ConvNeXt')
EFFECTS = dict(zip((NORM, MIXER, INTERACTION), factorial(FACTORIAL), strict=True)) | {
    NETWORKS: {REFERENCE: 1., 'ln_dw7x7': -1.}}
# One network against itself.
SAME = {f'{TITLES[b]} − {TITLES[a]}': {b: 1., a: -1.}
        for i, b in enumerate(CONTROL) for a in CONTROL[:i]}


def shown(comparison):
    return not comparison.low <= 0 <= comparison.high


def is_small(comparison):
    """Whether it was shown to be within a point of mIoU, or what one is worth."""
    return comparison.equivalent is not None and comparison.equivalent < LEVEL


def verdict(loss):
    """In words, of the comparison of the cross-entropy, which decides: lower is better."""
    if shown(loss):
        return ('worse' if loss.difference > 0 else 'better') + (
            ', by less than a point is worth' if is_small(loss) else '')
    return 'equivalent' if is_small(loss) else 'undecided'


def spread(weights, control):
    """Weights of a contrast, that of Inception shared by the arms of the control."""
    found = dict(weights)
    if REFERENCE in found:
        weight = found.pop(REFERENCE)
        found |= {arm: weight / len(control) for arm in control}
    return found


def analyse(content):
    """Comparisons of every family, of both endpoints.

    An arm with a run that failed is compared with none, and stands in the table as failed; the control is the mean of
    its arms that have not failed. A family is missing where fewer than two seeds are whole.

    Returns:
        dict: ``failed``, a list of arms, and by family ('main', 'pairs', 'factorial', 'same') a dict of ``seeds`` and,
        by endpoint, a Fit and a list of :class:`..blocked.Comparison`.
    """
    failed = {arm for arm, _ in content['failed']}
    if content['plan'] is None:     # the pilot is not done: nothing is compared
        return dict(failed=sorted(failed))
    bounds = content['plan']['bounds']
    control, main = control_and_arms(failed)
    corners = [arm for row in FACTORIAL for arm in row if arm != REFERENCE]
    pairs, effects = ({name: spread(each, control) for name, each in planned.items()} for planned in (PAIRS, EFFECTS))
    found = dict(failed=sorted(failed))

    def compare(family, arms, comparisons):
        results = {}
        for name in ENDPOINTS:
            seeds, values = complete(content['runs'], arms, name)
            if len(seeds) < 2:
                return
            results[name] = comparisons(values, bounds.get(name))
        found[family] = dict(seeds=seeds, **results)

    def compare_pairs(family, arms, planned):
        whole = {name: weights for name, weights in planned.items() if weights.keys() <= set(arms)}
        if whole:
            compare(family, arms, lambda values, bound: contrasts(values, whole, bound, family=len(planned)))

    if control and len(main) > len(control):
        compare('main', main, lambda values, bound: against(values, control, bound))
        compare_pairs('pairs', main, pairs)
        compare_pairs('same', main, SAME)
    if control and not failed & set(corners):
        compare_pairs('factorial', [*corners, *control], effects)
    return found


def control_and_arms(failed):
    """The arms of the control, and all of the main family, that have not failed."""
    control = [arm for arm in CONTROL if arm not in failed]
    return control, [*control, *(arm for arm in COMPARED if arm not in failed)]


def without_common_variance(content):
    """Each arm's own deviation, and p of the paired t of the cross-entropy against the control, by Holm: whether the
    main family's verdicts rest on one variance for all.

    Returns:
        tuple[dict[str, float], dict[str, float]] | None
    """
    control, arms = control_and_arms({arm for arm, _ in content['failed']})
    seeds, values = complete(content['runs'], arms, 'cross_entropy')
    if not control or len(arms) <= len(control) or len(seeds) < 2:
        return None
    return own_deviations(values), paired(values, control)


def pilot_differences(content):
    """Inception less 7×7 in the pilot, at the length that was decided and at its end, by seeds: exploratory.

    Returns:
        dict[int, dict[str, Comparison]]: By iteration and endpoint; without what fewer than two seeds have.
    """
    found, last = {}, [run['curve'][-1]['iteration'] for run in content['pilot'] if run['curve']]
    for at in sorted({content['plan']['iterations'], *([min(last)] if last else [])}):
        for name in ENDPOINTS:
            seeds, values = complete(content['pilot'], PILOT, name, at)
            if len(seeds) > 1:
                found.setdefault(at, {})[name] = mean_difference(np.subtract(*(values[arm] for arm in PILOT)))
    return found
