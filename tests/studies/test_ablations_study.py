"""The powered ablations and the CamVid sequences: arms, decisions by rule, and reports from runs that are made up."""
import json
import shutil
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from inceptionnext_seg.errors import UserError
from inceptionnext_seg.provenance import environment
from studies import camvid_sequences
from studies.ablations import __main__ as command
from studies.ablations.arms import FACTORIAL, MAIN, PILOT, PILOT_SEEDS, REFERENCE, TITLES, config_of
from studies.ablations.decisions import decide, length_affordable, length_wanted, worth_of_a_point
from studies.ablations.report import analyse, verdict, write_report
from studies.ablations.speed import speed_file
from studies.blocked import Comparison
from studies.sweep import Candidate, Run, parse_options
from studies.trainings import ROOT, complete, conditions, curve_of, endpoint, record, refuse_failed

# Arms


def flatten(value, path=''):
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    found = [leaf for key, child in items for leaf in flatten(child, f'{path}.{key}'.lstrip('.'))]
    return found or [(path, value)]


def changed(path, baseline):
    ours, theirs = (dict(flatten(Config.fromfile(ROOT / file).to_dict())) for file in (path, baseline))
    return {'.'.join(key.split('.')[:3]) for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key)}


@pytest.mark.parametrize('arm', [arm for arm in TITLES if arm != REFERENCE])
def test_an_arm_differs_from_inception_in_token_mixer_and_norms_alone(arm):
    wanted = {'model.backbone.token_mixer'} if arm != 'ln_inception' else set()
    if arm.startswith('ln_'):
        wanted |= {'model.backbone.norm_cfg', 'model.backbone.out_norm_cfg'}
    assert changed(config_of(arm), config_of(REFERENCE)) == wanted


def test_arms_have_the_channels_that_they_are_named_for():
    shapes = {}
    for arm in TITLES:
        cfg = Config.fromfile(ROOT / config_of(arm))
        init_default_scope(cfg.default_scope)
        with torch.device('meta'):
            backbone = MODELS.build(cfg.model.backbone)
        mixer = backbone.stages[0].blocks[0].token_mixer
        shapes[arm] = {name: tuple(value.shape) for name, value in mixer.named_parameters() if name.endswith('weight')}
        batch_norms = sum(isinstance(module, torch.nn.BatchNorm2d) for module in backbone.modules())
        assert (batch_norms == 0) == arm.startswith('ln_')
        sizes = [feature.shape[-1] for feature in backbone(torch.zeros(1, 3, 160, 160, device='meta'))]
        assert sizes == [40, 20, 10]     # wider than the bands
    square, width, height = (10, 1, 3, 3), (10, 1, 1, 9), (10, 1, 9, 1)
    names = ('dwconv_hw.weight', 'dwconv_w.weight', 'dwconv_h.weight')
    inception = dict(zip(names, (square, width, height), strict=True))
    assert shapes['inception'] == shapes['ln_inception'] == shapes['sequential'] == inception
    assert shapes['dw7x7'] == shapes['ln_dw7x7'] == dict(weight=(40, 1, 7, 7))
    assert shapes['dw3x3'] == dict(weight=(40, 1, 3, 3))
    assert shapes['identity'] == {}
    for arm, left in (('no_square', 0), ('no_horizontal', 1), ('no_vertical', 2)):
        assert shapes[arm] == {name: inception[name] for name in names if name != names[left]}
    for arm, channels in (('ratio1_8', 5), ('ratio1_16', 2)):
        assert {shape[0] for shape in shapes[arm].values()} == {channels}


# Decisions


def test_the_length_is_where_nine_tenths_of_the_fall_are_done():
    iterations = list(range(100, 1100, 100))
    losses = [2.0, 1.5, 1.25, 1.12, 1.06, 1.03, 1.02, 1.02, 1.02, 1.02]
    means = np.convolve(losses, np.ones(3) / 3, 'valid')
    goal = means[0] - 0.9 * (means[0] - means.min())
    assert length_wanted(iterations, losses) == iterations[2 + int(np.argmax(means <= goal))] == 600


def test_the_hours_bound_the_length():
    # 12 arms × 8 seeds in 2.4 hours: 90 s each, 20 of them to start, 3 × 10 to validate; 40 s at 0.1 s an iteration.
    assert length_affordable(2.4, 8, 0.1, 10.) == 400
    assert length_affordable(0.1, 8, 0.1, 10.) == 0


def test_a_point_is_worth_the_slope_of_the_curves():
    iterations, miou = [100, 200, 300, 400], [1., 10., 12., 16.]
    assert worth_of_a_point(iterations, [9., 1.0, 0.96, 0.88], miou, 400) == pytest.approx(0.02)
    assert worth_of_a_point(iterations, [9., 1.0, 1.1, 1.2], miou, 400) is None


def pilot_runs(noise=0.3):
    generator = np.random.default_rng(0)
    runs = []
    for arm in PILOT:
        for seed in PILOT_SEEDS:
            iterations = range(50, 2450, 50)
            level = generator.normal(0, noise)
            runs.append(dict(
                arm=arm, seed=seed, seconds_per_iteration=0.3, seconds_per_validation=4., starts=1, date='2026-01-02',
                commit='abc', load_average=0.4, threads=2, device_name='cpu', versions=dict(torch='2'),
                curve=[dict(iteration=i, cross_entropy=0.6 + 300 / (i + 200) - level / 50,
                            mIoU=40 - 9000 / (i + 200) + level) for i in iterations]))
    return runs


def test_a_plan_is_what_the_rules_say_and_says_why():
    plan = decide(pilot_runs(), hours=4.)
    assert plan['iterations'] == min(plan['iterations_wanted'], plan['iterations_affordable'])
    assert plan['iterations'] % 50 == 0 and plan['seeds'] >= 8
    assert plan['hours_expected'] <= 4
    assert plan['bounds']['mIoU'] == 1 and plan['bounds']['cross_entropy'] == pytest.approx(1 / 30, rel=0.05)
    assert decide(pilot_runs(noise=3.), hours=40.)['seeds'] > 8
    resumed = pilot_runs()
    resumed[0]['seconds_per_iteration'] = None      # went on just before its end
    assert decide(resumed, 4.) == plan
    broken = pilot_runs()
    broken[0]['curve'][3]['cross_entropy'] = None
    with pytest.raises(UserError, match='no number'):
        decide(broken, 4.)


# Results

EFFECT = dict(identity=-6., dw3x3=-0.3, ln_inception=-3., ln_dw7x7=-3.)


def made_up(missing=()):
    generator, runs = np.random.default_rng(1), []
    for seed in range(8):
        block = generator.normal(0, 2)
        for arm in TITLES:
            miou = 30 + block + EFFECT.get(arm, 0.) + generator.normal(0, 0.25)
            runs.append(dict(pilot_runs()[0], arm=arm, seed=seed, iterations=600, curve=[
                dict(iteration=i, cross_entropy=1.6 - miou / 50, mIoU=miou) for i in (400, 500, 600)]))
    return dict(
        protocol='docs/studies/ablations.md', endpoints=['cross_entropy', 'mIoU'], plan=dict(
            decide(pilot_runs(), 4.), seeds=8), configs={},
        costs={arm: dict(parameters=1e6, macs=1e8) for arm in TITLES},
        pilot=pilot_runs(), runs=[run for run in runs if (run['arm'], run['seed']) not in missing], failed=[],
        environment=dict(command='python -m studies.ablations all'))


def test_a_report_finds_what_was_put_in(tmp_path):
    content = made_up()
    found = analyse(content)
    verdicts = {loss.name: verdict(loss, miou) for loss, miou in zip(
        *(found['main'][name][1] for name in ('cross_entropy', 'mIoU')), strict=True)}
    assert verdicts['identity'] == 'worse' and verdicts['no_square'] == 'equivalent: within a point of mIoU'
    norm, mixer, interaction = found['factorial']['mIoU'][1]
    assert norm.high < -2 and norm.low > -4
    assert mixer.low < 0 < mixer.high and interaction.low < 0 < interaction.high
    out = tmp_path / 'ablations.json'
    out.write_text(json.dumps(content))
    written = write_report(out)
    assert [path.name for path in written] == [
        'ablations.json', 'ablations_curves.png', 'ablations_effects.png', 'ablations.md']
    text = out.with_suffix('.md').read_text()
    assert 'Preliminary' not in text and 'Exclusions: none' in text and 'worse' in text
    assert all(title in text for title in MAIN.values())


def test_a_report_before_all_seeds_are_whole_is_preliminary_and_counts_whole_seeds_alone(tmp_path):
    content = made_up(missing={('no_square', 5), ('identity', 7)})
    assert analyse(content)['main']['seeds'] == [0, 1, 2, 3, 4, 6]
    assert analyse(content)['factorial']['seeds'] == list(range(8))
    out = tmp_path / 'ablations.json'
    out.write_text(json.dumps(content))
    write_report(out)
    assert 'Preliminary: 6 of 8 seeds are whole' in out.with_suffix('.md').read_text()


def test_an_arm_with_a_failed_run_is_compared_with_none_and_costs_the_others_no_seed():
    content = dict(made_up(missing={('dw3x3', 2)}), failed=[['dw3x3', 2]])
    found = analyse(content)['main']
    assert found['seeds'] == list(range(8)) and 'dw3x3' not in found['mIoU'][0].means
    assert [each.name for each in found['mIoU'][1]] == [arm for arm in MAIN if arm not in (REFERENCE, 'dw3x3')]


def test_the_first_endpoint_decides():
    zero, worse = Comparison('a', 0., -1., 1., 0.9), Comparison('a', 2., 1., 3., 0.01)
    assert verdict(zero, worse) == 'undecided'
    assert verdict(worse, zero) == 'worse'
    assert verdict(worse, zero._replace(equivalent=0.01)) == 'worse, by less than a point of mIoU'
    assert verdict(zero, zero._replace(equivalent=0.2)) == 'undecided'


def test_a_run_that_was_interrupted_has_its_whole_curve(tmp_path):
    for day, points in (('1', [(100, 3.), (200, 2.)]), ('2', [(200, 2.), (300, 1.5), (400, 1.)])):
        (tmp_path / day).mkdir()
        (tmp_path / day / 'metrics.json').write_text(json.dumps(dict(
            mIoU=1., mAcc=1., aAcc=1., per_class=dict(sky=dict(IoU=1., Acc=1.)), environment=dict(command='train'),
            history=[dict(iteration=i, cross_entropy=loss, mIoU=10.) for i, loss in points])))
    curve = curve_of(tmp_path)
    assert [point['iteration'] for point in curve] == [100, 200, 300, 400]
    assert endpoint(curve, 'cross_entropy') == 1.5
    assert endpoint(curve, 'cross_entropy', at=300) == pytest.approx(6.5 / 3)
    assert endpoint(curve[:2], 'mIoU') is None
    assert complete([dict(arm='a', seed=3, curve=curve)], ['a', 'b'], 'mIoU') == ([], dict(a=[], b=[]))


def test_length_and_seeds_are_decided_once_and_main_runs_wait_for_it(tmp_path):
    study = command.Study(command.parse_args(['main', '--work-dir', str(tmp_path)]))
    with pytest.raises(UserError, match='not decided'):
        study.arms(MAIN)
    (tmp_path / 'plan.json').write_text(json.dumps(dict(iterations=700, seeds=9)))
    study.decide()      # nothing: it is there
    identity = next(arm for arm in study.arms(MAIN) if arm.name == 'identity')
    assert (identity.cfg.train_cfg.max_iters, identity.cfg.train_cfg.val_begin) == (700, 600)
    assert Run(identity, 3).work_dir == tmp_path / 'main/upernet_inceptionnext_a3_identity_mini/seed_3'
    assert list(study.seeds()) == list(range(9))


def unread(names, folder, options=()):
    """Candidates, of which no config is read."""
    cfg = SimpleNamespace(train_cfg=SimpleNamespace(max_iters=400, total_batch_size=8))
    return [Candidate(name, name, [], folder / name, cfg) for name in names]


def test_a_run_that_failed_in_an_earlier_call_stays_failed_until_it_is_done(tmp_path, monkeypatch):
    out, failed = tmp_path / 'ablations.json', {('dw3x3', 1), ('identity', 0)}
    monkeypatch.setattr(command, 'candidates', unread)
    monkeypatch.setattr(command, 'record', lambda run, **names: None if (run.candidate.name, run.seed) in failed else
                        dict(names, seed=run.seed))
    monkeypatch.setattr(command, 'costs', lambda arms: {})
    monkeypatch.setattr(command, 'write_report', lambda out: [out])
    (tmp_path / 'plan.json').write_text(json.dumps(dict(iterations=700, seeds=2)))
    study = command.Study(command.parse_args(['main', '--work-dir', str(tmp_path), '--out', str(out)]))
    first, second = (Run(study.arms([arm])[0], seed) for arm, seed in sorted(failed))

    def after(*runs):
        study.write(runs)
        return json.loads(out.read_text())['failed']

    assert after(first) == after() == [['dw3x3', 1]]
    assert after(second) == after() == [['identity', 0], ['dw3x3', 1]]
    assert after(Run(study.pilot[0], PILOT_SEEDS[0])) == [['identity', 0], ['dw3x3', 1]]     # of no arm that is tested
    failed.remove(('dw3x3', 1))
    assert after() == after(first) == [['identity', 0]]


def test_starts_are_counted_by_their_logs_and_the_commits_of_all_are_said(tmp_path):
    run = Run(unread(['a'], tmp_path)[0], 0)
    assert record(run) is None
    for name, iteration, commit in (('1', 100, 'b0'), ('2', None, None), ('3', 400, 'a1')):
        folder = run.work_dir / name
        folder.mkdir(parents=True)
        (folder / f'{name}.log').touch()
        if iteration:
            (folder / 'metrics.json').write_text(json.dumps(dict(
                mIoU=1., mAcc=1., aAcc=1., per_class=dict(sky=dict(IoU=1., Acc=1.)), iteration=iteration,
                environment=dict(command='train', commit=commit))))
    found = record(run, arm='a')
    assert (found['arm'], found['starts'], found['commit']) == ('a', 3, 'a1, b0')
    text = conditions([found, dict(found, starts=1, commit='b0, c2')])
    assert 'commit a1, b0, c2;' in text and '1 of them were interrupted' in text and 'unknown' in text
    assert 'unknown' not in conditions([dict(found, starts=1)])
    refuse_failed([run], 'studies', [])     # done since
    other = run._replace(seed=1)
    with pytest.raises(UserError, match='1 runs failed: a, seed 1'):
        refuse_failed([run, other, other], 'studies', [])


def test_processes_are_added_to_those_of_the_same_machine_versions_and_commit_alone(tmp_path, monkeypatch):
    args = command.parse_args(['speed', '--out', str(tmp_path / 'ablations.json')])
    path, here = speed_file(args.out), environment('cpu')
    monkeypatch.setattr(command, 'measuring_command', lambda *given: [sys.executable, '-c', 'raise SystemExit(3)'])
    for key in ('cpu', 'versions', 'commit'):
        path.write_text(json.dumps(dict(runs=[], environment={**here, key: 'another'})))
        with pytest.raises(UserError, match=f"{key} 'another'"):
            command.measure_speed(args)
    path.write_text(json.dumps(dict(runs=[], environment=here)))
    with pytest.raises(UserError, match=r'process 1 of 5 .* exit code 3'):
        command.measure_speed(args)


# CamVid


def camvid(folder):
    for split, names in (('training', ('0001TP_1', '0006R0_1', '0016E5_1')), ('validation', ('0016E5_2', ))):
        for kind, suffix in (('images', 'jpg'), ('annotations', 'png')):
            (folder / kind / split).mkdir(parents=True)
            for name in names:
                (folder / kind / split / f'{name}.{suffix}').touch()
    (folder / 'images/test').mkdir()
    (folder / 'images/test/Seq05VD_1.jpg').touch()     # not read
    return folder


def test_each_sequence_is_left_out_of_training_and_is_all_of_validation(tmp_path):
    found = camvid_sequences.splits(camvid(tmp_path / 'data'))
    camvid_sequences.write_lists(found, tmp_path)
    lists = {path.stem: path.read_text().split() for path in tmp_path.glob('*.txt')}
    assert lists['0016E5_training'] == ['training/0001TP_1', 'training/0006R0_1']
    assert lists['0016E5_validation'] == ['training/0016E5_1', 'validation/0016E5_2']
    for sequence in camvid_sequences.SEQUENCES:
        both = lists[f'{sequence}_training'] + lists[f'{sequence}_validation']
        assert len(both) == len(set(both)) == 4
    options = parse_options(camvid_sequences.options_of('0006R0', tmp_path / 'data', tmp_path))
    assert options['val_dataloader.dataset.ann_file'] == str(tmp_path / '0006R0_validation.txt')


def test_a_folder_that_is_not_camvid_is_one_message(tmp_path):
    with pytest.raises(UserError, match='no image of 0001TP, 0006R0, 0016E5'):
        camvid_sequences.splits(tmp_path)
    data = camvid(tmp_path / 'data')
    (data / 'annotations/validation/0016E5_2.png').unlink()
    with pytest.raises(UserError, match='0016E5_2'):
        camvid_sequences.splits(data)


def test_the_four_arms_of_camvid_are_both_families_with_both_norms():
    kinds = {arm: Config.fromfile(ROOT / camvid_sequences.config_of(arm)).model.backbone
             for arm in camvid_sequences.ARMS}
    assert {(kind.type, kind.norm_cfg.type if kind.get('norm_cfg') else 'BN', kind.out_norm_cfg.type)
            for kind in kinds.values()} == {(family, norm, norm) for family in ('ConvNeXt', 'InceptionNeXt')
                                            for norm in ('BN', 'LN2d')}
    for arm in camvid_sequences.ARMS:
        assert changed(camvid_sequences.config_of(arm), camvid_sequences.config_of('inceptionnext_bn')) <= {
            'model.backbone.type', 'model.backbone.norm_cfg', 'model.backbone.out_norm_cfg'}


def test_sequences_are_the_clusters(tmp_path):
    generator, runs = np.random.default_rng(0), []
    norm = dict(zip(camvid_sequences.SEQUENCES, (-2., -3., -4.), strict=True))
    for sequence, effect in norm.items():
        for seed in range(4):
            for arm in camvid_sequences.ARMS:
                miou = 30 + effect * arm.endswith('ln') + generator.normal(0, 1e-6)
                runs.append(dict(pilot_runs()[0], arm=arm, left_out=sequence, seed=seed, curve=[
                    dict(iteration=i, cross_entropy=-miou, mIoU=miou) for i in (200, 300, 400)]))
    whole, inside = camvid_sequences.effects(runs, 'mIoU')['LayerNorm − BatchNorm']
    # By hand: mean −3, standard deviation 1, t of 2 degrees of freedom 4.3027.
    assert (whole.difference, whole.low, whole.high) == pytest.approx(
        (-3, -3 - 4.3027 / 3**.5, -3 + 4.3027 / 3**.5), abs=1e-3)
    assert inside['0006R0'].difference == pytest.approx(-3, abs=1e-4)
    out = tmp_path / 'camvid.json'
    out.write_text(json.dumps(dict(
        seeds=4, images=dict.fromkeys(norm, 5), runs=runs, failed=[], environment=dict(command='python -m x'))))
    assert len(camvid_sequences.write_report(out)) == 3
    assert 'Preliminary' not in out.with_suffix('.md').read_text()
    content = json.loads(out.read_text())
    out.write_text(json.dumps(dict(content, runs=runs[1:], failed=[['convnext_bn', '0001TP', 0]])))
    assert len(camvid_sequences.write_report(out)) == 2
    text = out.with_suffix('.md').read_text()
    assert 'Runs failed: ConvNeXt-A, BatchNorm, without 0001TP, seed 0.' in text
    assert 'over the three sequences' not in text and 'Preliminary' not in text
    assert camvid_sequences.effects(runs[:20], 'mIoU') is None


def test_a_failed_run_of_camvid_stays_failed_until_it_is_done(tmp_path, monkeypatch):
    args = camvid_sequences.parse_args(['camvid', '--out', str(tmp_path / 'camvid.json'), '--seeds', '1'])
    arms = unread([f'{arm}_{sequence}' for sequence in camvid_sequences.SEQUENCES for arm in camvid_sequences.ARMS],
                  tmp_path)
    failed = [Run(arms[5], 0)]
    monkeypatch.setattr(camvid_sequences, 'record', lambda run, **names: None if run in failed else
                        dict(names, seed=run.seed))
    for now in (failed, []):
        content = camvid_sequences.collect(args, {}, arms, now)
        assert content['failed'] == [('inceptionnext_bn', '0006R0', 0)] and len(content['runs']) == 11
        assert 'features' in content['environment']
        args.out.write_text(json.dumps(content))
    failed.clear()
    content = camvid_sequences.collect(args, {}, arms, [])
    assert content['failed'] == [] and len(content['runs']) == 12


def test_the_factorial_has_the_arms_of_its_corners():
    assert [[name.startswith('ln_') for name in row] for row in FACTORIAL] == [[False] * 2, [True] * 2]
    assert [[name.endswith('inception') for name in row] for row in FACTORIAL] == [[False, True]] * 2


@pytest.mark.parametrize(('name', 'write'), [
    ('ablations', write_report), ('camvid_sequences', camvid_sequences.write_report)])
def test_the_report_in_the_repository_is_what_its_result_files_say(tmp_path, name, write):
    results = ROOT / 'docs/results'
    if not (results / f'{name}.json').is_file():
        pytest.skip(f'docs/results/{name}.json: this study has not been run')
    for path in results.glob(f'{name}*.json'):
        shutil.copy(path, tmp_path)
    write(tmp_path / f'{name}.json')
    assert (tmp_path / f'{name}.md').read_text() == (results / f'{name}.md').read_text()
