"""Figures of trained networks from runs that are made up: what decides by the protocols, and what does not."""
from pathlib import Path
from types import SimpleNamespace

import pytest

from studies import camvid_sequences
from studies.ablations.arms import TITLES
from studies.claims.figures import Results, ablated, backs, families, norms
from studies.claims.page import figures_text
from studies.claims.rules import HOLDS, OPEN
from studies.claims.table import CLAIMS, ratios

ROOT = Path(__file__).parents[3]
NOT_BACKED = 'the cross-entropy, which decides, does not show it'
# By arm: what is added to mIoU and to the cross-entropy. Without a square, and under LayerNorm, only mIoU is worse;
# with 3×3 the cross-entropy is better.
EFFECTS = dict(identity=(-6, .5), no_square=(-6, 0), dw3x3=(-6, -.5), ln_inception=(-3, 0), ln_dw7x7=(-3, 0))


def curve(miou, loss):
    return [dict(iteration=i, cross_entropy=loss, mIoU=miou) for i in (400, 500, 600)]


def powered(planned=4):
    """Of studies.ablations: every arm with four seeds."""
    runs = []
    for seed in range(4):
        for i, arm in enumerate(TITLES):
            noise, (miou, loss) = (7 * i + 3 * seed) % 5 - 2, EFFECTS.get(arm, (0, 0))
            runs.append(dict(arm=arm, seed=seed, curve=curve(30 + miou + noise / 10, 1 + loss + noise / 1000)))
    return dict(failed=[], plan=dict(bounds={}, seeds=planned), runs=runs,
                environment=dict(cpu='Some CPU', cpu_cores=2))


def sequences(mious, losses, seeds=4):
    """Of studies.camvid_sequences: by sequence, what InceptionNeXt adds to mIoU and to the cross-entropy."""
    runs = [dict(left_out=sequence, arm=arm, seed=seed, curve=curve(
                30 + seed + miou * arm.startswith('inceptionnext'), 1 + loss * arm.startswith('inceptionnext')))
            for seed in range(seeds)
            for sequence, miou, loss in zip(camvid_sequences.SEQUENCES, mious, losses, strict=True)
            for arm in camvid_sequences.ARMS]
    return dict(seeds=seeds, images=dict.fromkeys(camvid_sequences.SEQUENCES, 5), runs=runs, failed=[],
                environment=dict(cpu='Some CPU', cpu_cores=2))


def with_file(folder, name, content):
    results = Results(folder)
    results.files[results.folder / name] = content
    return results


@pytest.mark.parametrize(('loss', 'miou', 'expected'), [
    ((0.2, 0.1, 0.3), -1., True), ((-0.2, -0.3, -0.1), 1., True),
    ((0.2, -0.1, 0.5), -1., False),                                             # covers 0
    ((0.2, 0.1, 0.3), 1., False), ((-0.2, -0.3, -0.1), -1., False)])            # each is better in another
def test_a_cross_entropy_shows_it_where_its_interval_leaves_out_zero_on_the_same_side(loss, miou, expected):
    difference, low, high = loss
    found = SimpleNamespace(difference=difference, low=low, high=high)
    assert backs(found, SimpleNamespace(difference=miou)) == expected


def test_what_only_miou_shows_of_an_ablation_is_not_decided(tmp_path):
    results = with_file(tmp_path, 'ablations.json', powered())
    found = ablated(results, 'identity', 'no_square', 'dw3x3')
    assert {figure.what: figure.backed for figure in found} == {'identity': True, 'no square': False, 'dw3x3': False}
    assert all(figure.high < 0 and figure.repeats == 4 for figure in (*found, *norms(results)))
    assert CLAIMS['identity'].verdict(results) == (HOLDS, '')
    assert CLAIMS['branches'].verdict(results) == CLAIMS['norm'].verdict(results) == (OPEN, NOT_BACKED)
    results = with_file(tmp_path, 'ablations.json', powered(planned=8))
    assert CLAIMS['identity'].verdict(results) == (OPEN, '0 seeds, and 4 decide')


def test_arms_that_are_compared_with_inception_say_nothing_of_7x7_or_of_a_ratio_of_an_eighth():
    results = with_file(ROOT / 'docs/results', 'ablations.json', powered())
    assert [figure.what for figure in ratios(results)] == ['ratio 1/4 less 1/8', 'ratio 1/16 less 1/8']
    assert CLAIMS['3x3'].verdict(results) == (OPEN, '3×3 was compared with Inception, not with 7×7')


def test_families_are_compared_over_sequences_once_all_runs_are_there(tmp_path):
    def verdict(content):
        results = with_file(tmp_path, 'camvid_sequences.json', content)
        return families(results)[0], CLAIMS['accuracy'].verdict(results), figures_text(CLAIMS['accuracy'], results)

    whole = sequences((4, 5, 6), (-.4, -.5, -.6))
    figure, said, text = verdict(whole)
    # By hand: mean 5, standard deviation 1, t of 2 degrees of freedom 4.3027.
    assert (figure.low, figure.high) == pytest.approx((5 - 4.3027 / 3**.5, 5 + 4.3027 / 3**.5), abs=1e-3)
    assert said == (HOLDS, '') and text.startswith('some-2cores, 3 sequences: ')
    for losses in ((-.4, .5, -.1), (.4, .5, .6)):
        assert verdict(sequences((4, 5, 6), losses))[1] == (OPEN, NOT_BACKED)
    for early in (dict(whole, runs=whole['runs'][:-1]), sequences((4, 5, 6), (-.4, -.5, -.6), seeds=2)):
        assert verdict(early)[1] == (OPEN, '0 sequences, and 3 decide')
