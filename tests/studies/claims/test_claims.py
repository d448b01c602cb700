"""Verdicts of figures worked by hand, and the published page."""
import re
from pathlib import Path

import pytest

from studies.claims import operators
from studies.claims.figures import Figure, Results, pooled_difference
from studies.claims.page import page
from studies.claims.rules import FAILS, HOLDS, OPEN, AtLeast, Equal, Negative, Positive, verdict
from studies.claims.table import CLAIMS
from studies.published.studies import STUDIES

ROOT = Path(__file__).parents[3]


def process(what, low, high, repeats=5, where='a'):
    return Figure(what, (low + high) / 2, low, high, repeats, 'process', where)


def seeds(low, high, repeats):
    return Figure('x', (low + high) / 2, low, high, repeats, 'seed', 'a', signed=True)


@pytest.mark.parametrize(('figures', 'expected'), [
    ([process('3×3', 1.85, 2.3)], (HOLDS, '')),             # from 1.8 on, nine tenths of twice
    ([process('3×3', 0.3, 0.4)], (FAILS, '')),
    ([process('3×3', 0.3, 0.4, repeats=4)], (OPEN, '4 processes, and 5 decide')),   # a range that covers 87.5 %
    ([process('3×3', 1.7, 1.9)], (OPEN, 'the interval covers the limit')),
    ([process('3×3', 1.9, 2.0, repeats=2)], (OPEN, '2 processes, and 5 decide')),
    ([process('3×3', 1.9, 2.0), process('7×7', 0.3, 0.4)], ('holds only if', '3×3')),
    ([process('3×3', 1.9, 2.0), process('7×7', 0.3, 0.4, 1)],
     (OPEN, 'it holds for 3×3; not decided: 7×7 (1 process, and 5 decide)')),
    ([process('3×3', 1.7, 1.9), process('7×7', 0.3, 0.4)],
     (FAILS, '7×7; not decided: 3×3 (the interval covers the limit)')),
    ([process('3×3', 1.9, 2.0), process('3×3', 0.3, 0.4, where='b')], ('holds only if', '3×3 on a')),
    ([Figure('3×3', 2.5, None, None, 1, 'process', 'a')], (OPEN, '1 process, and 5 decide')),
    ([], ('not measured yet', ''))])
def test_a_ratio_decides_where_its_whole_interval_is_on_one_side_of_nine_tenths_of_the_claim(figures, expected):
    assert verdict(figures, AtLeast(2.0)) == expected


def test_conditions_with_commas_are_told_apart_in_a_list():
    figures = [process('3×3, in the cache', 1, 1.1), process('7×7, in the cache', 1.7, 1.9)]
    assert verdict(figures, AtLeast(2.0))[1].startswith('3×3 in the cache; not decided: 7×7 in the cache (')


def test_two_seeds_decide_nothing_however_far_from_zero_they_are():
    assert verdict([seeds(-9, -8, 2)], Negative())[0] == OPEN
    assert verdict([seeds(-9, -8, 8)], Negative())[0] == HOLDS
    assert verdict([seeds(-9, -8, 8)], Positive())[0] == FAILS
    assert verdict([seeds(-1, 1, 8)], Positive())[0] == OPEN


def test_what_the_endpoint_that_decides_does_not_show_is_not_decided():
    only_miou = seeds(-9, -8, 8)._replace(backed=False)
    reason = 'the cross-entropy, which decides, does not show it'
    assert verdict([only_miou], Negative()) == verdict([only_miou], Positive()) == (OPEN, reason)
    assert verdict([seeds(-9, -8, 8), only_miou._replace(what='y')], Negative()) == (
        OPEN, f'it holds for x; not decided: y ({reason})')
    assert verdict([seeds(-9, -8, 2)._replace(backed=False)], Negative()) == (OPEN, '2 seeds, and 4 decide')


def test_counts_are_equal_or_not():
    counts = [Figure('M', value, None, None, 1, 'count', 'counted') for value in (56.4, 932.8)]
    assert verdict(counts, Equal((56, 933)))[0] == HOLDS
    assert verdict(counts, Equal((55, 933)))[0] == FAILS
    assert verdict(counts[:1], Equal((56, 933)))[0] == FAILS


def test_the_spread_of_all_candidates_is_pooled(tmp_path):
    # Variances 2, 8 and 2 of two runs each: pooled 4, three degrees of freedom, t = 3.1824; 1 ± 3.1824 √4.
    def candidate(name, *mious):
        return dict(name=name, runs=[dict(metrics=dict(mIoU=miou)) for miou in mious])
    results = Results(tmp_path)
    results.files[tmp_path / 'x.json'] = dict(
        environment=dict(cpu='Some CPU', cpu_cores=2),
        candidates=[candidate('a', 10, 12), candidate('b', 10, 14), candidate('c', 5, 7)])
    found, = pooled_difference(results, 'x.json', 'b', 'a', 'b less a')
    assert found.value == 1 and found.repeats == 2 and found.where == 'some-2cores'
    assert (found.low, found.high) == (pytest.approx(1 - 6.3649, abs=1e-3), pytest.approx(1 + 6.3649, abs=1e-3))


def test_every_claim_says_where_it_is_from_and_which_study_measures_it():
    assert {'55.4', '7/8', 'two passes', 'shares', 'inference', 'relu', '6x7', 'sequential passes', 'memory traffic',
            'operation count', 'cache', 'kernel tuning', 'launch', 'synchronization', 'train 1.6', 'infer 1.2', '82.3',
            '47.9', 'branches', 'ratio', 'parallel', 'norm', 'architectures', 'hardware', 'whole infer', 'scale',
            'video', 'identity', '3x3', 'partial'} <= set(CLAIMS)
    for claim in CLAIMS.values():
        assert claim.source and claim.command and '\n' not in claim.claim
        named = re.match(r'python -m studies (\S+)', claim.command)
        assert not named or named[1] in STUDIES, claim.key
        for file in re.findall(r'(?:configs|tools)/\S+\.py', claim.command):
            assert (ROOT / file).is_file(), claim.key


def test_without_any_result_file_nothing_is_measured_and_nothing_holds(tmp_path):
    verdicts = {key: claim.verdict(Results(tmp_path))[0] for key, claim in CLAIMS.items()}
    assert set(verdicts.values()) == {'does not hold', 'not measured yet', 'cannot be tested here'}
    # What the paper's own tables and the network's form decide.
    assert {key for key, verdict in verdicts.items() if verdict == 'does not hold'} == {'55.4', 'two passes'}
    assert 'not measured yet' in page(tmp_path)


def test_the_published_page_is_what_the_result_files_say():
    assert page(ROOT / 'docs/results') == (ROOT / 'docs/claims.md').read_text()


@pytest.mark.parametrize(('verdicts', 'expected'), [
    ([HOLDS, HOLDS], (HOLDS, '')), ([FAILS, FAILS], (FAILS, '')),
    ([HOLDS, FAILS], ('holds only if', 'it means: a. Refuted by: b')),
    ([HOLDS, operators.REVERSED], ('holds only if', 'it means: a. Refuted by: b (the reverse holds)')),
    ([HOLDS, OPEN], (OPEN, 'borne out by: a. Open: b (the interval covers the limit)')),
    ([OPEN, FAILS], (OPEN, 'refuted by: b. Open: a (the interval covers the limit)')),
    ([OPEN, OPEN], (OPEN, 'a; b (the interval covers the limit)')), ([], (
        'not measured yet', 'the study has experiments that can refute it'))])
def test_a_reason_holds_only_where_every_experiment_bears_it_out(monkeypatch, verdicts, expected):
    found = [(process(name, 1, 2), kind) for name, kind in zip('ab', verdicts, strict=False)]
    monkeypatch.setattr(operators, 'experiments', lambda results, key: found)
    assert operators.reason_verdict(None, 'launch') == expected
