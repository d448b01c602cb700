"""The powered ablations: arms, decisions by rule, and reports from runs that are made up."""
import json
import shutil
import sys
import threading
import time

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from study_runs import changed, pilot_runs, unread

from inceptionnext_seg.errors import UserError
from inceptionnext_seg.provenance import environment
from studies import camvid_sequences
from studies.ablations import __main__ as command
from studies.ablations import speed
from studies.ablations.analysis import EFFECTS, NETWORKS, PAIRS, analyse, pilot_differences, verdict
from studies.ablations.arms import (
    CONTROL,
    FACTORIAL,
    MAIN,
    PILOT,
    PILOT_SEEDS,
    REFERENCE,
    RUNS_OF_A_SEED,
    TITLES,
    candidates,
    config_of,
    on_scenes,
)
from studies.ablations.decisions import Pace, decide, length_affordable, length_wanted, pace_of, worth_of_a_point
from studies.ablations.report import write_report
from studies.ablations.speed import MEASURED, OPTIONS, measuring_command, speed_file, throughput
from studies.blocked import Comparison
from studies.sweep import Run
from studies.trainings import ROOT, settings_digest

# Arms


@pytest.mark.parametrize('arm', [arm for arm in TITLES if arm != REFERENCE])
def test_an_arm_differs_from_inception_in_token_mixer_and_norms_alone(arm):
    wanted = {'model.backbone.token_mixer'} if 'inception' not in arm else set()
    if arm in CONTROL:
        wanted = {f'model.{part}.init_cfg' for part in ('backbone', 'decode_head', 'auxiliary_head')}
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
    assert shapes['inception_b'] == shapes['inception_c'] == inception
    assert shapes['dw7x7'] == shapes['ln_dw7x7'] == dict(weight=(40, 1, 7, 7))
    assert shapes['dw3x3'] == dict(weight=(40, 1, 3, 3))
    assert shapes['identity'] == {}
    for arm, left in (('no_square', 0), ('no_horizontal', 1), ('no_vertical', 2)):
        assert shapes[arm] == {name: inception[name] for name in names if name != names[left]}
    for arm, channels in (('ratio1_8', 5), ('ratio1_16', 2)):
        assert {shape[0] for shape in shapes[arm].values()} == {channels}


def test_arms_of_the_control_are_drawn_anew_from_the_same_distributions():
    weights = []
    for arm in CONTROL:
        cfg = Config.fromfile(ROOT / config_of(arm))
        init_default_scope(cfg.default_scope)
        torch.manual_seed(0)
        model = MODELS.build(cfg.model)
        model.init_weights()
        weights.append(dict(model.named_parameters()))
    for name, value in weights[0].items():
        drawn = value.dim() == 4
        for other in weights[1:]:
            assert torch.equal(value, other[name]) != drawn, name    # biases and norms are set, not drawn
            if drawn and value.numel() > 3000:
                assert other[name].std().item() == pytest.approx(value.std().item(), rel=0.1), name
        if drawn:
            together = torch.stack([each[name].detach().flatten() for each in weights])
            assert torch.corrcoef(together).triu(1).abs().max() < 6 / value.numel()**0.5, name


def test_a_seed_has_scenes_and_a_folder_of_its_own(tmp_path):
    plain, = candidates(['identity'], tmp_path, [])
    ours = on_scenes(plain, 3)
    assert Run(ours, 3).work_dir == tmp_path / 'upernet_inceptionnext_a3_identity_mini/scenes_3/seed_3'
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        dataset = ours.cfg[loader].dataset
        assert (dataset.data_root, dataset.seed) == ('data/mini_ade20k_3', 3)
        assert plain.cfg[loader].dataset.data_root == 'data/mini_ade20k'
        assert {f'{loader}.dataset.data_root=data/mini_ade20k_3', f'{loader}.dataset.seed=3'} <= set(ours.options)


# Decisions


def test_the_length_is_where_nine_tenths_of_the_fall_are_done():
    iterations = list(range(100, 1100, 100))
    losses = [2.0, 1.5, 1.25, 1.12, 1.06, 1.03, 1.02, 1.02, 1.02, 1.02]
    means = np.convolve(losses, np.ones(3) / 3, 'valid')
    goal = means[0] - 0.9 * (means[0] - means.min())
    assert length_wanted(iterations, losses) == iterations[2 + int(np.argmax(means <= goal))] == 600


def test_the_hours_bound_the_length():
    # 14 arms × 8 seeds in 2.8 core-hours: 90 s each, 20 of them to start, 3 × 10 to validate; 40 s at 0.1 s an
    # iteration.
    assert RUNS_OF_A_SEED == 14
    assert length_affordable(2.8, 8, Pace(0.1, 10., 20.)) == 400
    assert length_affordable(0.1, 8, Pace(0.1, 10., 20.)) == 0


def test_the_pace_of_a_run_is_that_of_the_pilots_runs_that_were_not_interrupted():
    def run(iteration, validation, process):
        return dict(seconds_per_iteration=iteration, seconds_per_validation=validation, seconds_of_process=process,
                    iterations=100, curve=[None] * 4)
    runs = [run(0.5, 4., 90.), run(0.6, 4., 100.), run(0.4, 5., 84.), run(9., 9., None), run(None, 9., 99.)]
    assert pace_of(runs) == pytest.approx((0.5, 4., 24.))
    with pytest.raises(UserError, match='interrupted'):
        pace_of(runs[3:])


def test_a_point_is_worth_the_slope_of_the_curves():
    iterations, miou = [100, 200, 300, 400], [1., 10., 12., 16.]
    assert worth_of_a_point(iterations, [9., 1.0, 0.96, 0.88], miou, 400) == pytest.approx(0.02)
    assert worth_of_a_point(iterations, [9., 1.0, 1.1, 1.2], miou, 400) is None


def test_a_plan_is_what_the_rules_say_and_says_why():
    plan = decide(pilot_runs(), 6.)
    assert plan['iterations'] == min(plan['iterations_wanted'], plan['iterations_affordable'])
    assert plan['iterations'] % 50 == 0 and plan['seeds'] >= 8
    assert plan['core_hours_expected'] <= 6 and plan['seconds']['overhead'] == pytest.approx(20)
    assert plan['bounds']['mIoU'] == 1 and plan['bounds']['cross_entropy'] == pytest.approx(1 / 30, rel=0.05)
    resumed = pilot_runs()
    resumed[0]['seconds_of_process'] = None
    assert decide(resumed, 6.) == plan
    broken = pilot_runs()
    broken[0]['curve'][3]['cross_entropy'] = None
    with pytest.raises(UserError, match='no number'):
        decide(broken, 6.)


def test_the_endpoint_that_decides_decides_the_number_of_seeds():
    def noisy(name, noise):
        runs, generator = pilot_runs(noise=0.), np.random.default_rng(0)
        for run in runs:
            level = generator.normal(0, noise)
            for point in run['curve']:
                point[name] += level
        return decide(runs, 60.)

    quiet, loud, miou = noisy('cross_entropy', 0.001), noisy('cross_entropy', 0.05), noisy('mIoU', 3.)
    assert quiet['seeds'] == miou['seeds'] == 8 < loud['seeds']
    for plan in (quiet, loud, miou):
        assert plan['planned_by'] == 'cross_entropy'
    assert miou['power']['mIoU']['difference'] < 0.8 < miou['power']['cross_entropy']['difference']
    assert miou['power']['mIoU']['equivalence'] < 0.1 < 0.99 < quiet['power']['cross_entropy']['equivalence']
    rising = pilot_runs()       # mIoU gains nothing: no bound, and nothing but mIoU to plan by
    for run in rising:
        for point in run['curve']:
            point['mIoU'] = -point['mIoU']
    plan = decide(rising, 6.)
    assert plan['planned_by'] == 'mIoU' and plan['power']['cross_entropy']['difference'] is None


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
            decide(pilot_runs(), 6.), seeds=8), configs={},
        costs={arm: dict(parameters=1e6, macs=1e8) for arm in TITLES},
        pilot=pilot_runs(), runs=[run for run in runs if (run['arm'], run['seed']) not in missing], failed=[],
        environment=dict(command='python -m studies.ablations all'))


def test_a_report_finds_what_was_put_in(tmp_path):
    content = made_up()
    found = analyse(content)
    verdicts = {each.name: verdict(each) for family in ('main', 'pairs', 'factorial', 'same')
                for each in found[family]['cross_entropy'][1]}
    assert verdicts['identity'] == 'worse' and verdicts['no_square'] == 'equivalent'
    assert verdicts['dw3x3'] != 'worse' and verdicts[NETWORKS] == 'better'
    assert [verdicts[name] for name in PAIRS] == ['equivalent'] * 3
    assert [verdict(each) for each in found['same']['cross_entropy'][1]] == ['equivalent'] * 3
    norm, mixer, interaction, networks = found['factorial']['mIoU'][1]
    assert 2 < norm.low < norm.high < 4 and 2 < networks.low < networks.high < 4
    assert mixer.low < 0 < mixer.high and interaction.low < 0 < interaction.high
    assert found['main']['mIoU'][0].df == 11 * 7
    out = tmp_path / 'ablations.json'
    out.write_text(json.dumps(content))
    written = write_report(out)
    assert [path.name for path in written] == [
        'ablations.json', 'ablations_curves.png', 'ablations_effects.png', 'ablations.md']
    text = out.with_suffix('.md').read_text()
    assert 'Preliminary' not in text and 'Exclusions: none' in text and 'worse' in text
    assert all(name in text for name in (*MAIN.values(), *PAIRS, *EFFECTS, 'Exploratory', 'paired t'))


def test_inception_is_the_mean_of_its_arms_in_every_family():
    content = made_up()
    means = {arm: np.mean([run['curve'][0]['mIoU'] for run in content['runs'] if run['arm'] == arm]) for arm in TITLES}
    middle, found = np.mean([means[arm] for arm in CONTROL]), analyse(content)
    by = {each.name: each.difference for family in ('main', 'pairs', 'factorial') for each in found[family]['mIoU'][1]}
    assert by['identity'] == pytest.approx(means['identity'] - middle)
    assert by['ratio 1/4 − 1/8'] == pytest.approx(middle - means['ratio1_8'])
    assert by['3×3 − 7×7'] == pytest.approx(means['dw3x3'] - means['dw7x7'])
    assert by['BatchNorm − LayerNorm'] == pytest.approx(
        (middle + means['dw7x7'] - means['ln_inception'] - means['ln_dw7x7']) / 2)
    assert by[NETWORKS] == pytest.approx(middle - means['ln_dw7x7'])


def test_the_pilot_is_shown_at_the_length_that_was_decided_and_at_its_end():
    runs = []
    for seed, difference in zip(PILOT_SEEDS, (1., 2., 3., 4.), strict=True):
        for arm in PILOT:
            runs.append(dict(arm=arm, seed=seed, curve=[
                dict(iteration=i, cross_entropy=1., mIoU=difference * (arm == REFERENCE) * (i > 150))
                for i in range(50, 350, 50)]))
    found = pilot_differences(dict(plan=dict(iterations=150), pilot=runs))
    assert list(found) == [150, 300] and found[150]['mIoU'].difference == 0
    # By hand: mean 2.5, standard deviation 1.291, t of 3 degrees of freedom 3.182.
    each = found[300]['mIoU']
    assert (each.difference, each.high) == pytest.approx((2.5, 2.5 + 3.1824 * 1.29099 / 2), abs=1e-3)


def test_a_report_before_all_seeds_are_whole_is_preliminary_and_counts_whole_seeds_alone(tmp_path):
    content = made_up(missing={('no_square', 5), ('identity', 7)})
    assert analyse(content)['main']['seeds'] == [0, 1, 2, 3, 4, 6]
    assert analyse(content)['factorial']['seeds'] == list(range(8))
    out = tmp_path / 'ablations.json'
    out.write_text(json.dumps(content))
    write_report(out)
    assert 'Preliminary: 6 of 8 seeds are whole' in out.with_suffix('.md').read_text()
    out.write_text(json.dumps(made_up(missing={('inception_b', 5)})))
    write_report(out)
    itself = out.with_suffix('.md').read_text().partition('## One network against itself')[2]
    assert itself.strip().startswith('**Preliminary: 7 of 8')
    # Where every run so far failed.
    out.write_text(json.dumps(dict(content, plan=None, pilot=[], runs=[], failed_in_pilot=[['dw7x7', 101]])))
    write_report(out)
    assert 'Runs of it failed: 7×7 depthwise, all channels, seed 101.' in out.with_suffix('.md').read_text()


def test_an_arm_with_a_failed_run_is_compared_with_none_and_costs_the_others_no_seed(tmp_path):
    content = dict(made_up(missing={('dw3x3', 2), ('inception_c', 1)}), failed=[['dw3x3', 2], ['inception_c', 1]])
    found = analyse(content)
    assert found['main']['seeds'] == list(range(8)) and 'dw3x3' not in found['main']['mIoU'][0].means
    assert [each.name for each in found['main']['mIoU'][1]] == [
        arm for arm in MAIN if arm not in (REFERENCE, 'dw3x3')]
    assert [each.name for each in found['pairs']['mIoU'][1]] == ['ratio 1/16 − 1/8', 'ratio 1/4 − 1/8']
    whole = made_up()
    wider, narrower = (analyse(each)['main']['mIoU'] for each in (content, whole))
    assert wider[0].error((1, -.5, -.5)) > narrower[0].error((1, -1 / 3, -1 / 3, -1 / 3))
    out = tmp_path / 'ablations.json'
    out.write_text(json.dumps(content))
    write_report(out)
    text = out.with_suffix('.md').read_text()
    assert 'a run failed' in text and 'the mean of 2 of the 3 arms of Inception' in text


def test_the_first_endpoint_decides_what_differs_and_what_is_equivalent():
    zero, worse = Comparison('a', 0., -1., 1., 0.9), Comparison('a', 2., 1., 3., 0.01)
    assert verdict(zero) == verdict(zero._replace(equivalent=0.2)) == 'undecided'
    assert verdict(zero._replace(equivalent=0.01)) == 'equivalent'
    assert verdict(worse) == 'worse' and verdict(worse._replace(difference=-2., low=-3., high=-1.)) == 'better'
    assert verdict(worse._replace(equivalent=0.01)) == 'worse, by less than a point is worth'


def test_length_and_seeds_are_decided_once_and_main_runs_wait_for_it(tmp_path):
    study = command.Study(command.parse_args(['main', '--work-dir', str(tmp_path), '--out', str(tmp_path / 'a.json')]))
    with pytest.raises(UserError, match='not decided'):
        study.arms(MAIN)
    (tmp_path / 'plan.json').write_text(json.dumps(dict(iterations=700, seeds=9)))
    study.decide()      # nothing: it is there
    identity = next(arm for arm in study.arms(MAIN) if arm.name == 'identity')
    assert (identity.cfg.train_cfg.max_iters, identity.cfg.train_cfg.val_begin) == (700, 600)
    assert identity.folder == tmp_path / 'main/upernet_inceptionnext_a3_identity_mini'
    assert list(study.seeds()) == list(range(9))


def test_a_study_goes_on_from_its_result_file_alone(tmp_path, monkeypatch):
    out, trained = tmp_path / 'ablations.json', []

    def train(candidates_of, seeds, settled, recorded):
        trained.extend((arm.name, seed) for seed in seeds for arm in candidates_of(seed) if not recorded(arm, seed))
        settled([])
        return []

    monkeypatch.setattr(command, 'train', train)
    monkeypatch.setattr(command, 'costs', lambda arms: made_up()['costs'])

    def run(step):
        trained.clear()
        command.main([step, '--out', str(out), '--work-dir', str(tmp_path / str(len(list(tmp_path.iterdir())))),
                      '--jobs', '1'])
        return json.loads(out.read_text())

    content = made_up()
    for each in (*content['pilot'], *content['runs']):
        each['settings'] = settings_digest(str(ROOT / config_of(each['arm'])))
    whole, content['plan']['iterations'] = content['pilot'], 600
    # Before the pilot has come to its end: what it has is kept, and named in the report.
    out.write_text(json.dumps(dict(content, plan=None, runs=[], pilot=whole[:3])))
    study = command.Study(command.parse_args(['pilot', '--out', str(out), '--work-dir', str(tmp_path / 'runs')]))
    with pytest.raises(UserError, match='3 of 8 runs of the pilot are done'):
        study.train('pilot')
    assert len(trained) == 5 and json.loads(out.read_text())['plan'] is None
    assert '3 of 8 runs of the pilot' in out.with_suffix('.md').read_text()
    assert analyse(json.loads(out.read_text())) == dict(failed=[])
    # After it: the plan of the file holds, and the runs that it has are not trained.
    out.write_text(json.dumps(dict(content, runs=[each for each in content['runs'] if each['seed'] < 5])))
    after = run('all')
    assert set(trained) == {(arm, seed) for arm in TITLES for seed in (5, 6, 7)}
    assert after['plan'] == content['plan'] and len(after['runs']) == 5 * len(TITLES)
    assert sorted(after['pilot'], key=lambda run: run['arm'], reverse=True) == whole
    content['plan']['core_hours'] = 6.
    out.write_text(json.dumps(content))
    given = ['main', '--out', str(out), '--work-dir', str(tmp_path / 'runs'), '--core-hours']
    command.Study(command.parse_args([*given, '6']))
    with pytest.raises(UserError, match=r'is 7, and length .* decided for 6'):
        command.Study(command.parse_args([*given, '7']))
    content['runs'][0]['settings'] = 'other'
    out.write_text(json.dumps(content))
    with pytest.raises(SystemExit):
        run('main')
    assert json.loads(out.read_text()) == content


def test_a_run_that_failed_in_an_earlier_call_stays_failed_until_it_is_done(tmp_path, monkeypatch):
    out, failed = tmp_path / 'ablations.json', {('dw3x3', 1), ('identity', 0)}
    monkeypatch.setattr(command, 'candidates', unread)
    monkeypatch.setattr(command, 'on_scenes', lambda candidate, seed: candidate)
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
    failed.add((PILOT[0], PILOT_SEEDS[0]))
    assert after(Run(study.pilot[0], PILOT_SEEDS[0])) == [['identity', 0], ['dw3x3', 1]]     # of no arm that is tested
    assert json.loads(out.read_text())['failed_in_pilot'] == [[PILOT[0], PILOT_SEEDS[0]]]
    failed.remove(('dw3x3', 1))
    assert after() == after(first) == [['identity', 0]]


def test_processes_are_added_to_those_of_the_same_machine_versions_and_commit_alone(tmp_path, monkeypatch):
    args = command.parse_args(['speed', '--out', str(tmp_path / 'ablations.json')])
    path, here = speed_file(args.out), environment('cpu')
    monkeypatch.setattr(speed, 'environment', lambda device: here)      # whatever is committed meanwhile
    monkeypatch.setattr(command, 'measuring_command', lambda *given: [sys.executable, '-c', 'raise SystemExit(3)'])
    for key in ('cpu', 'versions', 'commit'):
        path.write_text(json.dumps(dict(runs=[], environment={**here, key: 'another'})))
        with pytest.raises(UserError, match=f"{key} 'another'"):
            command.measure_speed(args)
    path.write_text(json.dumps(dict(runs=[], environment=here)))
    quiet = []
    monkeypatch.setattr(command, 'wait_for_quiet', lambda: quiet.append(True))
    with pytest.raises(UserError, match=r'process 1 of 5 .* exit code 3'):
        command.measure_speed(args)
    assert quiet == [True]


def test_every_arm_is_measured_in_both_layouts_and_its_faster_one_counts(tmp_path):
    command_line = measuring_command(tmp_path / 'x.json')
    assert command_line[command_line.index('--layout') + 1] == 'best'
    assert 'default_hooks.accelerate.channels_last=False' in OPTIONS     # without it there is NHWC alone
    assert [arm for arm in TITLES if arm not in MEASURED] == list(CONTROL[1:])
    seconds = {REFERENCE: dict(nchw=2., nhwc=1.), 'dw7x7': dict(nchw=3., nhwc=4.)}
    results = [dict(name=config_of(arm), label=arm, layout=layout, seconds=[value] * 8, settled=True, macs=1, nbytes=1,
                    peak_memory=None) for arm, layouts in seconds.items() for layout, value in layouts.items()]
    run = dict(setting=dict(batch_size=8), peaks=dict(macs_per_second=1e9, bytes_per_second=1e9), results=results)
    path = tmp_path / 'ablations_speed.json'
    path.write_text(json.dumps(dict(environment=dict(command='tools/benchmark.py'), runs=[run] * 2)))
    found = throughput(path)
    assert {arm: each['layout'] for arm, each in found.items()} == {REFERENCE: 'nhwc', 'dw7x7': 'nchw'}
    assert found['dw7x7']['ratio'].value == pytest.approx(1 / 3)


def test_of_two_processes_one_decides(tmp_path, monkeypatch):
    decided = []

    def slowly(runs, core_hours):
        decided.append(core_hours)
        time.sleep(0.05)
        return dict(iterations=300, seeds=8, core_hours_expected=core_hours)

    monkeypatch.setattr(command, 'candidates', unread)
    monkeypatch.setattr(command, 'on_scenes', lambda candidate, seed: candidate)
    monkeypatch.setattr(command, 'record', lambda run, **names: dict(names, seed=run.seed))
    monkeypatch.setattr(command, 'decide', slowly)
    studies = [command.Study(command.parse_args(['pilot', '--work-dir', str(tmp_path), '--core-hours', hours,
                                                 '--out', str(tmp_path / 'ablations.json')])) for hours in ('5', '6')]
    workers = [threading.Thread(target=study.decide) for study in studies]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(decided) == 1 and studies[0].plan == studies[1].plan


def test_the_factorial_has_the_arms_of_its_corners():
    for cells, norm, family in ((FACTORIAL, 'ln_', 'inception'), (camvid_sequences.CELLS, '_ln', 'inceptionnext')):
        assert [[norm in name for name in row] for row in cells] == [[True] * 2, [False] * 2]
        assert [[family in name for name in row] for row in cells] == [[False, True]] * 2
    assert EFFECTS[NETWORKS] == {'inception': 1., 'ln_dw7x7': -1.}


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
