"""Figures of trained networks from runs that are made up: what decides by the protocols, and what does not."""
import pytest

from studies import camvid_sequences
from studies.ablations.analysis import analyse, verdict
from studies.ablations.arms import TITLES
from studies.claims.figures import Results, ablated, families, one_thread
from studies.claims.page import figures_text
from studies.claims.rules import FAILS, HOLDS, OPEN
from studies.claims.table import CLAIMS
from studies.speed.cells import cells
from studies.speed.summary import Result as Speed

# By arm: what is added to mIoU and to the cross-entropy. Without a square, and under LayerNorm, only mIoU is worse;
# with 3×3 the cross-entropy is better.
EFFECTS = dict(identity=(-6, .5), no_square=(-6, 0), dw3x3=(-6, -.5), ratio1_16=(0, .02), ln_inception=(-3, 0),
               ln_dw7x7=(-3, 0))


def curve(miou, loss):
    return [dict(iteration=i, cross_entropy=loss, mIoU=miou) for i in (400, 500, 600)]


def powered(planned=4):
    """Of studies.ablations: every arm with four seeds."""
    runs = []
    for seed in range(4):
        for i, arm in enumerate(TITLES):
            noise, (miou, loss) = (7 * i + 3 * seed) % 5 - 2, EFFECTS.get(arm, (0, 0))
            runs.append(dict(arm=arm, seed=seed, curve=curve(30 + miou + noise / 10, 1 + loss + noise / 1000)))
    return dict(failed=[], plan=dict(bounds=dict(mIoU=1., cross_entropy=.01), seeds=planned), runs=runs,
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


def test_the_cross_entropy_decides_and_miou_stands_beside_it(tmp_path):
    results = with_file(tmp_path, 'ablations.json', powered())
    identity, = ablated(results, 'main', 'identity')
    assert identity.low > .49 and identity.lower_is_better and identity.repeats == 4
    assert identity.beside.startswith('mIoU -6.')
    assert {key: CLAIMS[key].verdict(results)[0] for key in (
        'identity', 'branches', 'ratio', 'ratio 1/4', 'mixer', 'norm', 'both', '3x3')} == {
        'identity': HOLDS, 'branches': FAILS, 'ratio': HOLDS, 'ratio 1/4': HOLDS, 'mixer': HOLDS, 'norm': HOLDS,
        'both': HOLDS, '3x3': FAILS}
    early = with_file(tmp_path, 'ablations.json', powered(planned=8))
    assert CLAIMS['identity'].verdict(early) == (OPEN, '4 seeds, and 8 decide')


def test_claims_and_report_of_the_study_say_the_same(tmp_path):
    for loss in (-.03, -.008, 0., .004, .008, .012, .03):
        content = powered()
        for run in content['runs']:
            if run['arm'] == 'identity':
                run['curve'] = curve(20, run['curve'][0]['cross_entropy'] - .5 + loss)
        found = next(each for each in analyse(content)['main']['cross_entropy'][1] if each.name == 'identity')
        said = CLAIMS['identity'].verdict(with_file(tmp_path, 'ablations.json', content))[0]
        word = verdict(found).split(',')[0]
        assert said == dict(worse=HOLDS, better=FAILS, equivalent=FAILS, undecided=OPEN)[word], (loss, word)


def test_a_claim_of_several_arms_is_not_decided_where_a_run_of_one_failed(tmp_path):
    content = powered()
    for run in content['runs']:
        if run['arm'] in ('no_horizontal', 'no_vertical'):
            run['curve'] = curve(20, run['curve'][0]['cross_entropy'] + .5)
    failed = dict(content, failed=[['no_square', 1]])
    results = with_file(tmp_path, 'ablations.json', failed)
    said, why = CLAIMS['branches'].verdict(results)
    assert said == OPEN and why.startswith('it holds for no horizontal, no vertical; not decided: no square')
    assert 'no square: a run failed' in figures_text(CLAIMS['branches'], results)


def test_without_runs_of_this_study_pairs_that_no_older_one_has_are_not_measured(tmp_path):
    assert CLAIMS['3x3'].verdict(Results(tmp_path))[0] == CLAIMS['mixer'].verdict(Results(tmp_path))[0] == (
        'not measured yet')


def test_one_thread_is_shown_and_one_process_does_not_decide(tmp_path):
    names = [cell.name for cell in cells() if cell.suite == 'threads']
    records = [dict(cell=cell, process=0, candidate=candidate, layout='nhwc', seconds=[seconds], waited=[0.],
                    load_average=1.5, busy_before=0., run=0)
               for cell in names for candidate, seconds in (('inceptionnext', 2.), ('convnext', 3.))]
    results = Results(tmp_path)
    results.speed = [('a', Speed(dict(records=records, memory=[], runs=[])))]
    figure, = one_thread(results, 'infer')
    assert (figure.what, figure.value) == ('accelerated fp32, one thread', 1.5)
    assert one_thread(results, 'train')[0].what == 'accelerated fp32, one thread, side 256'
    assert CLAIMS['whole infer'].verdict(results) == (OPEN, '1 process, and 5 decide')


def test_families_are_compared_over_sequences_once_all_runs_are_there(tmp_path):
    def verdict(content):
        results = with_file(tmp_path, 'camvid_sequences.json', content)
        return families(results)[0], CLAIMS['accuracy'].verdict(results), figures_text(CLAIMS['accuracy'], results)

    whole = sequences((4, 5, 6), (-.4, -.5, -.6))
    figure, said, text = verdict(whole)
    # By hand: mean -0.5, standard deviation 0.1, t of 2 degrees of freedom 4.3027.
    assert (figure.low, figure.high) == pytest.approx((-.5 - .43027 / 3**.5, -.5 + .43027 / 3**.5), abs=1e-4)
    assert figure.beside == 'mIoU +5.00 (+2.52 to +7.48)'
    assert said == (HOLDS, '') and text.startswith('some-2cores, 3 sequences: ')
    assert verdict(sequences((4, 5, 6), (-.4, .5, -.1)))[1] == (OPEN, 'the interval covers the limit')
    assert verdict(sequences((4, 5, 6), (.4, .5, .6)))[1] == (FAILS, '')     # whatever mIoU says
    for early in (dict(whole, runs=whole['runs'][:-1]), sequences((4, 5, 6), (-.4, -.5, -.6), seeds=2)):
        assert verdict(early)[1] == (OPEN, '0 sequences, and 3 decide')
