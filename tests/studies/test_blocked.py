"""Blocked comparisons with one arm: against scipy, published tables, a textbook's example and R's documentation."""
import numpy as np
import pytest
from scipy import stats

from inceptionnext_seg.errors import UserError
from studies.blocked import (
    Design,
    against,
    contrasts,
    critical,
    equivalence_power,
    factorial,
    fit,
    holm,
    mean_difference,
    outside,
    own_deviations,
    paired,
    power,
    seeds_for,
    smallest_effect,
    upper_deviation,
    within,
)

# Montgomery, Design and Analysis of Experiments, the vascular graft experiment: four pressures, six batches of resin.
GRAFT = {
    '8500': [90.3, 89.2, 98.2, 93.9, 87.4, 97.9], '8700': [92.5, 89.5, 90.6, 94.7, 87.0, 95.8],
    '8900': [85.5, 90.8, 89.6, 86.2, 88.0, 93.4], '9100': [82.5, 89.5, 85.6, 87.4, 78.9, 90.7]}


def test_the_pooled_variance_of_a_textbooks_blocks_is_the_textbooks():
    found = fit(GRAFT)
    assert (found.df, found.blocks) == (15, 6)
    assert found.deviation**2 == pytest.approx(7.33, abs=0.005)     # its mean square of error
    assert found.means['8500'] == pytest.approx(92.82, abs=0.005)


# Dunnett (1964), two-sided, joint confidence 95 %, as reprinted in textbooks: comparisons, degrees of freedom, t.
@pytest.mark.parametrize(('arms', 'df', 'bound'), [
    (1, 10, 2.23), (2, 10, 2.57), (3, 10, 2.76), (5, 10, 2.99), (9, 10, 3.24), (2, 20, 2.38), (9, 20, 2.95),
    (2, 60, 2.27), (9, 60, 2.77)])
def test_critical_values_are_those_of_dunnetts_table(arms, df, bound):
    assert critical(arms, df) == pytest.approx(bound, abs=0.0051)


def test_one_comparison_is_students_t():
    assert critical(1, 7) == pytest.approx(stats.t.isf(0.025, 7), abs=1e-8)


def test_without_blocks_and_with_unequal_groups_p_is_that_of_scipy():
    # The blood counts of Dunnett (1955), scipy's own example.
    control = [7.40, 8.50, 7.20, 8.24, 9.84, 8.32]
    others = [[9.76, 8.80, 7.68, 9.36], [12.80, 9.68, 12.16, 9.20, 10.55]]
    wanted = stats.dunnett(*others, control=control, random_state=np.random.default_rng(0))
    groups = [control, *others]
    df = sum(map(len, groups)) - 3
    variance = sum(np.var(group) * len(group) for group in groups) / df
    shares = [len(group) / (len(group) + len(control)) for group in others]
    for group, p in zip(others, wanted.pvalue, strict=True):
        t = (np.mean(group) - np.mean(control)) / np.sqrt(variance * (1 / len(group) + 1 / len(control)))
        assert 1 - within(abs(t), 2, df, shares) == pytest.approx(p, abs=2e-4)


def test_with_blocks_p_and_interval_are_those_of_the_multivariate_t_of_the_residuals():
    found, comparisons = against(GRAFT, ['8500'])
    shape = np.full((3, 3), 0.5) + 0.5 * np.eye(3)
    for each in comparisons:
        t = abs(each.difference) / (found.deviation * np.sqrt(2 / 6))
        inside = stats.multivariate_t(shape=shape, df=15, seed=1).cdf([t] * 3, lower_limit=[-t] * 3)
        assert each.p == pytest.approx(1 - inside, abs=5e-4)
        assert (each.p < 0.05) == (each.low > 0 or each.high < 0)
        assert (each.low + each.high) / 2 == pytest.approx(each.difference)


def test_a_control_of_two_arms_is_their_mean_and_every_comparison_shares_it():
    found, comparisons = against(GRAFT, ['8500', '8700'], bound=5)
    shape = np.full((2, 2), 1 / 3) + 2 / 3 * np.eye(2)      # 1 / n of each arm, 1 / 2n of the control
    error = found.deviation * np.sqrt((1 + 1 / 2) / 6)
    assert [each.name for each in comparisons] == ['8900', '9100'] and found.df == 15
    for each in comparisons:
        assert each.difference == pytest.approx(np.mean(GRAFT[each.name]) - np.mean([GRAFT['8500'], GRAFT['8700']]))
        t = abs(each.difference) / error
        inside = stats.multivariate_t(shape=shape, df=15, seed=1).cdf([t] * 2, lower_limit=[-t] * 2)
        assert each.p == pytest.approx(1 - inside, abs=5e-4)
        assert (each.high - each.low) / 2 == pytest.approx(critical(2, 15, share=1 / 3) * error)
    raw = [outside(each.difference, error, 15, 5) for each in comparisons]
    assert [each.equivalent for each in comparisons] == pytest.approx(holm(raw))


def test_what_all_arms_of_a_seed_share_changes_nothing():
    shifted = {name: np.add(values, [0, 50, -7, 3, 0, 1]) for name, values in GRAFT.items()}
    for found, wanted in zip(against(shifted, ['8500'], 5)[1], against(GRAFT, ['8500'], 5)[1], strict=True):
        assert found[1:] == pytest.approx(wanted[1:], rel=1e-9)


def test_equivalence_is_two_one_sided_tests_adjusted_by_holm():
    found, comparisons = against(GRAFT, ['8500'], bound=5)
    error = found.deviation * np.sqrt(2 / 6)
    raw = [max(stats.t.sf((each.difference + 5) / error, 15), stats.t.cdf((each.difference - 5) / error, 15))
           for each in comparisons]
    assert [outside(each.difference, error, 15, 5) for each in comparisons] == pytest.approx(raw)
    assert [each.equivalent for each in comparisons] == pytest.approx(holm(raw))
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


def test_two_arms_are_the_paired_t_test():
    two = {name: GRAFT[name] for name in ('8500', '9100')}
    _, (found, ) = against(two, ['8500'])
    wanted = stats.ttest_rel(two['9100'], two['8500'])
    interval = wanted.confidence_interval(0.95)
    assert found.p == pytest.approx(wanted.pvalue, abs=1e-7)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), abs=1e-6)


def test_effects_of_two_factors_are_those_worked_by_hand():
    cells = dict(a=[0., 1.], b=[2., 3.2], c=[5., 6.], d=[8., 9.])     # [[a, b], [c, d]]
    _, (rows, columns, interaction) = contrasts(cells, dict(zip(
        ('rows', 'columns', 'interaction'), factorial([['a', 'b'], ['c', 'd']]), strict=True)))
    assert (rows.difference, columns.difference, interaction.difference) == pytest.approx((5.45, 2.55, 0.9))


def test_contrasts_of_a_family_are_adjusted_for_all_that_were_planned():
    weights = dict(a={'8700': 1., '8500': -1.}, b={'9100': 1., '8900': -1.})
    alone, = contrasts(GRAFT, dict(a=weights['a']), 5, family=2)[1]
    assert alone == contrasts(GRAFT, weights, 5)[1][0]


def test_squares_of_the_arms_own_deviations_have_the_pooled_one_for_a_mean():
    own = own_deviations(GRAFT)
    assert list(own) == list(GRAFT) and len(set(own.values())) == 4
    assert np.mean(np.square(list(own.values()))) == pytest.approx(fit(GRAFT).deviation**2)


def test_without_a_common_variance_arms_are_compared_by_paired_t_and_holm():
    middle = np.mean([GRAFT['8500'], GRAFT['8700']], 0)
    raw = [stats.ttest_rel(GRAFT[name], middle) for name in ('8900', '9100')]
    assert paired(GRAFT, ['8500', '8700']) == pytest.approx(
        dict(zip(('8900', '9100'), holm([each.pvalue for each in raw]), strict=True)))
    found, wanted = mean_difference(np.subtract(GRAFT['8900'], middle)), raw[0].confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))


# R's documentation of power.t.test: its example power.t.test(n = 20, delta = 1, sd = 1) gives 0.8689528.
def test_power_is_that_of_r():
    assert power(1, np.sqrt(2 / 20), 38, stats.t.isf(0.025, 38)) == pytest.approx(0.8689528, abs=1e-6)


def test_power_of_equivalence_is_how_often_two_one_sided_tests_show_it():
    generator = np.random.default_rng(0)
    for bound, error, df in ((1., 0.33, 77), (1., 0.4, 6)):
        differences = error * generator.standard_normal(200_000)
        errors = error * np.sqrt(generator.chisquare(df, 200_000) / df)
        shown = stats.t.sf((bound - np.abs(differences)) / errors, df) < 0.05
        assert equivalence_power(bound, error, df) == pytest.approx(shown.mean(), abs=0.004)
    assert equivalence_power(1., 10., 20) < 1e-6 and equivalence_power(1., 1e-3, 20) == pytest.approx(1)


def test_seeds_are_the_fewest_with_the_power_wanted():
    design = Design(9)
    seeds = seeds_for(1., 0.9, design, fewest=2)
    df = 9 * (seeds - 2)
    assert design.power(1., 0.9, seeds) >= 0.8 > power(1., 0.9 * np.sqrt(2 / (seeds - 1)), df, critical(9, df))
    assert smallest_effect(0.9, design, seeds) < 1 < smallest_effect(0.9, design, seeds - 1)
    assert seeds_for(1., 0.1, design) == 8 and seeds_for(1., 9., design, most=11) == 11


def test_runs_of_the_control_raise_the_power_of_every_comparison():
    found = [Design(9, controls).power(1., 0.652, 8) for controls in (1, 2, 3)]
    assert found == pytest.approx([0.62, 0.77, 0.82], abs=0.006)
    # By simulation: an arm, one of nine, that is worse by 1, each with eight seeds, the control of three arms.
    generator, df, reach = np.random.default_rng(0), 11 * 7, critical(9, 11 * 7, share=1 / 4)
    difference = 1 + 0.652 * generator.standard_normal(100_000) * np.sqrt((1 + 1 / 3) / 8)
    deviation = 0.652 * np.sqrt(generator.chisquare(df, 100_000) / df)
    assert np.mean(difference / (deviation * np.sqrt((1 + 1 / 3) / 8)) > reach) == pytest.approx(found[2], abs=0.005)


def test_a_small_pilots_deviation_is_taken_at_its_upper_limit():
    assert upper_deviation(1., 3) == pytest.approx(np.sqrt(3 / 1.0052), abs=1e-3)    # chi-square table, 3, 0.80


@pytest.mark.parametrize('values', [dict(a=[1, 2]), dict(a=[1, 2], b=[1]), dict(a=[1], b=[2]),
                                    dict(a=[1, float('nan')], b=[1, 2])])
def test_incomplete_blocks_are_an_error(values):
    with pytest.raises(UserError, match=r'arms with|not finite'):
        fit(values)
