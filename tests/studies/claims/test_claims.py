"""Verdicts of figures worked by hand, and the published page."""
import re
from pathlib import Path

import pytest

from studies.claims import operators
from studies.claims.figures import Figure, Results
from studies.claims.page import page
from studies.claims.rules import FAILS, HOLDS, OPEN, AtLeast, Changes, ChangesNot, Equal, verdict
from studies.claims.table import CLAIMS
from studies.gpu.cells import CONVNEXT, INCEPTIONNEXT
from studies.published.studies import STUDIES

ROOT = Path(__file__).parents[3]


def process(what, low, high, repeats=5, where='a'):
    return Figure(what, (low + high) / 2, low, high, repeats, 'process', where)


def seeds(low, high, repeats):
    return Figure('x', (low + high) / 2, low, high, repeats, 'seed', 'a', signed=True, bound=1.)


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
    for rule in (Changes(True), Changes(False), ChangesNot(True), ChangesNot(False)):
        assert verdict([seeds(-9, -8, 2)], rule) == (OPEN, '2 seeds, and 4 decide')


# Of mIoU, in points, and of a cross-entropy, in nats, of which less is better and 0.02 are a point. Verdicts of: it
# rises, it falls, it does not rise, it does not fall.
@pytest.mark.parametrize(('low', 'high', 'equivalent', 'expected'), [
    (-9, -8, None, (FAILS, HOLDS, HOLDS, FAILS)),
    (8, 9, None, (HOLDS, FAILS, FAILS, HOLDS)),
    (-5, 5, None, (OPEN, OPEN, OPEN, OPEN)),
    (-0.5, 5, None, (OPEN, OPEN, OPEN, HOLDS)),             # not inferior, by the interval alone
    (-5, 0.5, None, (OPEN, OPEN, HOLDS, OPEN)),
    (-0.4, 0.5, 0.01, (FAILS, FAILS, HOLDS, HOLDS)),        # equivalent
    (-0.6, -0.1, 0.01, (FAILS, HOLDS, HOLDS, HOLDS)),       # worse, by less than a point
    (-2, -0.1, 0.5, (FAILS, HOLDS, HOLDS, FAILS)),          # worse
    (-1.1, 0.5, 0.06, (OPEN, OPEN, HOLDS, OPEN))])
def test_accuracy_that_changes_or_does_not_by_the_interval_and_what_matters(low, high, equivalent, expected):
    points = seeds(low, high, 8)._replace(equivalent=equivalent)
    nats = points._replace(low=-high / 50, high=-low / 50, bound=0.02, lower_is_better=True)
    rules = Changes(True), Changes(False), ChangesNot(True), ChangesNot(False)
    for figure in (points, nats):
        assert tuple(verdict([figure], rule)[0] for rule in rules) == expected


def test_without_a_bound_no_change_is_shown_to_be_small():
    assert verdict([seeds(-0.1, 0.1, 8)._replace(bound=None)], ChangesNot(False))[0] == OPEN


def test_a_difference_turned_round_is_as_sure():
    assert seeds(-9, -7, 8).turned('y') == seeds(7, 9, 8)._replace(what='y')
    nats = Figure('x', 0.05, 0.0312, 0.07, 8, 'seed', 'a', signed=True, lower_is_better=True, beside='mIoU -1.00')
    assert str(nats) == 'x +0.0500 (+0.0312 to +0.0700) nats, mIoU -1.00'


def test_counts_are_equal_or_not():
    counts = [Figure('M', value, None, None, 1, 'count', 'counted') for value in (56.4, 932.8)]
    assert verdict(counts, Equal((56, 933)))[0] == HOLDS
    assert verdict(counts, Equal((55, 933)))[0] == FAILS
    assert verdict(counts[:1], Equal((56, 933)))[0] == FAILS


def test_every_claim_says_where_it_is_from_and_which_study_measures_it():
    assert {'55.4', '7/8', 'two passes', 'shares', 'inference', 'relu', '6x7', 'sequential passes', 'memory traffic',
            'operation count', 'cache', 'kernel tuning', 'launch', 'synchronization', 'train 1.6', 'infer 1.2', '82.3',
            '47.9', 'branches', 'ratio', 'parallel', 'norm', 'architectures', 'hardware', 'whole infer', 'scale',
            'video', 'identity', '3x3', 'partial', 'mixer', 'both', 'ratio 1/4'} <= set(CLAIMS)
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


def test_whole_networks_on_a_gpu_stand_beside_those_on_a_cpu_and_one_process_decides_nothing(tmp_path):
    def row(name, *seconds):
        return dict(name=name, label=name, layout='nhwc', seconds=list(seconds), settled=True)
    setting = dict(mode='train', part='segmentor', dtype='bf16', batch_size=2, size=512)
    results = Results(tmp_path)
    results.files[tmp_path / 'some-gpu/gpu.json'] = dict(cells={'segmentors, train, bf16, 2 images': dict(
        kind='speed', setting=setting, results=[
            row(f'{CONVNEXT}::none', 6., 6.), row(f'{INCEPTIONNEXT}::none', 3., 3.), row(CONVNEXT, 1., 1.)])})
    found, = CLAIMS['whole train'].figures(results)
    assert str(found) == 'plain bf16, 2 × 512×512 2.00 (2.00 to 2.00)'
    assert (found.where, found.repeats) == ('some-gpu', 1)
    assert CLAIMS['whole train'].verdict(results) == (OPEN, '1 process, and 5 decide')
    assert CLAIMS['whole infer'].figures(results) == CLAIMS['hardware'].figures(results) == []


def test_the_published_page_is_what_the_result_files_say():
    assert page(ROOT / 'docs/results') == (ROOT / 'docs/claims.md').read_text()


@pytest.mark.parametrize(('verdicts', 'expected'), [
    ([HOLDS, HOLDS], (HOLDS, '')), ([FAILS, FAILS], (FAILS, '')),
    ([HOLDS, FAILS], ('holds only if', 'it means: a. Refuted by: b')),
    ([HOLDS, operators.REVERSED], ('holds only if', 'it means: a. Refuted by: b (the reverse holds)')),
    ([HOLDS, OPEN], (OPEN, 'borne out by: a. Open: b (the interval covers the limit)')),
    ([OPEN, FAILS], (OPEN, 'refuted by: b. Open: a (the interval covers the limit)')),
    ([FAILS, None], (FAILS, '')), ([HOLDS, None], (HOLDS, '')),     # what cannot tell it from another reason
    ([OPEN, OPEN], (OPEN, 'a; b (the interval covers the limit)')), ([], (
        'not measured yet', 'the study has experiments that can refute it'))])
def test_a_reason_holds_only_where_every_experiment_bears_it_out(monkeypatch, verdicts, expected):
    found = [(process(name, 1, 2), kind) for name, kind in zip('ab', verdicts, strict=False)]
    monkeypatch.setattr(operators, 'experiments', lambda results, key: found)
    assert operators.reason_verdict(None, 'launch') == expected


def test_a_number_that_cannot_tell_two_reasons_apart_is_shown_and_decides_neither():
    results = Results(ROOT / 'docs/results')
    kinds = dict(zip([shown.what for shown in operators.reason_figures(results, 'sequential passes')],
                     [kind for _, kind in operators.experiments(results, 'sequential passes')], strict=True))
    assert [kind for what, kind in kinds.items() if 'per MAC' in what] == [None]
    assert CLAIMS['sequential passes'].verdict(results)[0] != 'holds only if'
