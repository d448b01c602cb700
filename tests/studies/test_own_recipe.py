"""The study of the recipe: variants change what they say, and its report is made of what runs wrote."""
import json
from pathlib import Path

import pytest
import torch
from own_folder import describe

from inceptionnext_seg.engine.launch import load_config
from inceptionnext_seg.engine.own_data import use_data
from inceptionnext_seg.engine.resuming import find_latest
from inceptionnext_seg.errors import UserError
from studies.own_last_weights import last_weights
from studies.own_parts import effects, method, table
from studies.own_recipe import CONFIG, ROOT, VARIANTS, Run, at_minute, command_of, main, parse_args, runs_of, words
from studies.sweep import parse_options, settings_of


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return describe(tmp_path_factory.mktemp('data') / 'camvid', pixels=(9900, 50), size=(480, 360), images=367)


@pytest.mark.parametrize('name', [name for name in VARIANTS if VARIANTS[name][1]])
def test_a_variant_changes_the_settings_that_it_is_named_for(name, folder):
    def load(options):
        cfg = load_config(ROOT / CONFIG, parse_options(options) if options else None, None,
                          lambda cfg: use_data(cfg, folder))
        return settings_of(cfg.to_dict())

    before, after = load(()), load(VARIANTS[name][1])
    changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
    expected = dict(
        no_balance={'prob', 'oversample_thr', 'class_weight'}, no_rare_crops={
            'prob', 'oversample_thr'}, no_weights={'class_weight'}, no_scales={'ratio_range'},
        narrow_scales={'ratio_range'}, no_augmentation={
            'ratio_range', 'prob', 'brightness_delta', 'contrast_range', 'saturation_range', 'hue_delta'},
        crop_128={'crop_size', 'size', 'total_batch_size'}, crop_352={'crop_size', 'size', 'total_batch_size'},
        early_decay={'power'}, rate_half={'lr'}, rate_double={'lr'})[name]
    parts = {part for key in changed for part in key.split('.') if part in expected}
    assert parts == expected
    assert all(expected & {*key.split('.')} for key in changed if not key.startswith(('train_pipeline', 'scale')))


def test_runs_that_are_done_are_not_trained_again_and_make_the_report(tmp_path, folder, monkeypatch):
    out = tmp_path / 'result.json'
    given = ['camvid', '--out', str(out), '--work-dir', str(tmp_path), '--only', 'recipe', 'no_weights', '--seeds',
             '0', '1']
    runs = runs_of(parse_args(given))
    assert [run.title for run in runs] == ['recipe, seed 0', 'recipe, seed 1', 'no_weights, seed 0']
    for i, run in enumerate(runs):
        run.work_dir.mkdir(parents=True)
        (run.work_dir / 'report.json').write_text(json.dumps(dict(
            finished=True, iteration=10, seconds=3600, classes=['a', 'b'], confusion=[[3, 1], [0, 0]], validations=[
                dict(iteration=5, minutes=20., mIoU=40. + i), dict(iteration=10, minutes=60., mIoU=50. + 2 * i)])))
    monkeypatch.setattr('studies.own_recipe.data_of', lambda args: folder)
    main(given)
    found = json.loads(out.read_text())['runs']
    assert [run['mIoU'] for run in found] == [50, 52, 54] and found[0]['IoU'] == dict(a=75, b=0)
    text = out.with_suffix('.md').read_text()
    content = json.loads(out.read_text())
    assert '**mIoU 51.00 ± 1.41** (2 seeds).' in words(content)
    content['runs'] = [dict(run, validations=[dict(iteration=1, minutes=4., mIoU=9.), dict(
        iteration=5, minutes=21., mIoU=55.)]) for run in content['runs']]
    for run, load in zip(content['runs'], (2.84, 1.), strict=False):
        run['environment'] = dict(load_average=load)
    assert words(content).endswith(
        '; each 55 or more from minute 21 on; load average at their end up to 2.8.')
    content['runs'] = [content['runs'][0], content['runs'][2]]
    assert words(content).endswith('; load average at its end 2.8.')
    content['runs'][0]['validations'].append(dict(iteration=9, minutes=44., mIoU=61.))
    assert '; 55 or more from minute 21 on; 60 or more from minute 44 on; load' in words(content)
    # That a validation in between was better is no goal reached: the validations are the images of the score.
    content['runs'][0]['validations'] += [dict(iteration=11, minutes=50., mIoU=59.), dict(
        iteration=12, minutes=57., mIoU=62.)]
    assert '; 55 or more from minute 21 on; 60 or more from minute 57 on; load' in words(content)
    assert 'was not run' in words(dict(content, runs=content['runs'][1:]))
    again = parse_args(content['command'].split()[3:])
    assert (again.only, again.seeds, again.minutes) == (['recipe', 'no_weights'], [0, 1], 60)
    assert '51.00 ± 1.41' in text and '+3.00 (-19.01 to +25.01) | cannot be told from the spread' in text
    assert out.with_name('result_curves.png').stat().st_size > 1000


def test_a_run_goes_on_where_it_has_a_checkpoint(tmp_path):
    run = Run('no_weights', 3, tmp_path)
    assert '--resume' not in command_of(run, 'data', 60)
    (tmp_path / 'last_checkpoint').write_text('iter_5.pth')
    command = command_of(run, 'data', 60)
    assert '--resume' in command and command[command.index('--seed') + 1] == '3' and '--cfg-options' in command
    assert run.result() is None
    curve = [dict(minutes=1., mIoU=3.), dict(minutes=2., mIoU=5.)]
    assert [at_minute(curve, minute) for minute in (0.5, 1, 9)] == [None, 3, 5]


def test_averaged_weights_are_left_out_of_the_runs_that_were_trained_with_them(tmp_path, folder, monkeypatch, capsys):
    out = tmp_path / 'result.json'
    given = ['camvid', '--out', str(out), '--work-dir', str(tmp_path), '--only', 'recipe', 'no_ema', '--seeds', '0',
             '1']
    recipe = runs_of(parse_args(given))[:2]
    for seed, run in enumerate(recipe):
        run.work_dir.mkdir(parents=True)
        (run.work_dir / 'report.json').write_text(json.dumps(dict(
            finished=True, iteration=10, seconds=3600, classes=['a', 'b'], confusion=[[3, 1], [0, 1]], validations=[
                dict(iteration=10, minutes=60., mIoU=50. + 2 * seed)])))
        (run.work_dir / 'config.py').write_text('')
        state = dict(steps=torch.tensor(3)) | {'module.weight': torch.full((2, ), 7. + seed)}
        torch.save(dict(state_dict=dict(weight=torch.zeros(2)), ema_state_dict=state, optimizer={}, meta={}),
                   run.work_dir / 'iter_10.pth')
        (run.work_dir / 'last_checkpoint').write_text('iter_10.pth')
    tested = []

    def execute(command, log, lock):
        tested.append(torch.load(command[4])['state_dict']['weight'].tolist())
        (where := Path(command[-1]) / 'now').mkdir()
        (where / 'metrics.json').write_text(json.dumps(dict(
            mIoU=46. + 3 * len(tested), environment={}, per_class=dict(a=dict(IoU=40.), b=dict(IoU=None)))))
        return 0

    monkeypatch.setattr('studies.own_last_weights.execute', execute)
    monkeypatch.setattr('studies.own_recipe.data_of', lambda args: folder)
    main(given)
    assert tested == [[7, 7], [8, 8]]
    content = json.loads(out.read_text())
    assert [(run['variant'], run['seed'], run['mIoU'], run['of_run']) for run in content['runs'][2:]] == [
        ('no_ema', 0, 49, 'recipe'), ('no_ema', 1, 52, 'recipe')]
    # Differences -1 and 0: deviation 0.7071, t of one degree 12.7062, 12.7062 · 0.7071 / √2 = 6.3531.
    assert effects(content['runs'])['no_ema'] == pytest.approx((-0.5, -6.8531, 5.8531), abs=1e-4)
    assert method(content['runs']) == 'Intervals are of 95 %, of the differences run by run.'
    assert '| no_ema | averaged weights' in out.with_suffix('.md').read_text()
    assert not list(tmp_path.rglob('last_weights.pth'))
    torch.save(dict(state_dict={}, optimizer={}, meta={}), recipe[0].work_dir / 'iter_10.pth')
    with pytest.raises(UserError, match='has no averaged weights'):
        last_weights(*find_latest(recipe[0].work_dir))


# What the runs can tell, worked by hand


def runs_with(**scores):
    """Runs of the scores of each variant, with the seeds 0, 1, …"""
    return [dict(variant=name, without=f'part {name}', seed=seed, mIoU=score, iterations=1000 + seed)
            for name, values in scores.items() for seed, score in enumerate(values)]


def test_a_single_run_of_a_variant_is_judged_by_the_spread_of_the_recipe():
    # s² = (4 + 0 + 4) / 2 = 4; t of 2 degrees of freedom is 4.3027; 4.3027 · 2 · √(1/3 + 1) = 9.9365.
    runs = runs_with(recipe=[50, 52, 54], much=[40], little=[49], better=[64])
    much, little, better = effects(runs).values()
    assert much == pytest.approx((-12, -21.9365, -2.0635), abs=1e-4)
    assert [each.told() for each in (much, little, better)] == [
        'costs 12.0 points', 'cannot be told from the spread', 'brings 12.0 points']
    assert '2 degrees of freedom' in method(runs) and '2.00 points, unpaired' in method(runs)
    found = table(dict(runs=runs))
    assert '| – | 52.00 | 3 |  |  | 1000, 1001, 1002 |' in found
    assert '| part much | 40.00 | 1 | -12.00 (-21.94 to -2.06) | costs 12.0 points | 1000 |' in found


def test_several_seeds_of_a_variant_are_pooled_with_those_of_the_recipe():
    # s² = (8 + 2) / (2 + 1); t of 3 is 3.1824; 3.1824 · 1.8257 · √(1/3 + 1) = 6.7092, · √(1/3 + 1/2) = 5.3041.
    one, two = effects(runs_with(recipe=[50, 52, 54], one=[40], two=[48, 50])).values()
    assert one == pytest.approx((-12, -18.7092, -5.2908), abs=1e-3)
    assert two == pytest.approx((-3, -8.3041, 2.3041), abs=1e-3)


def test_the_same_seeds_everywhere_are_blocks():
    # With one variant it is the paired t test: differences -3, -2, -4, of deviation 1; 4.3027 / √3 = 2.4841.
    runs = runs_with(recipe=[50, 52, 54], other=[47, 50, 50])
    assert effects(runs)['other'] == pytest.approx((-3, -5.4841, -0.5159), abs=1e-4)
    assert 'the seeds 0, 1, 2 of every variant as blocks' in method(runs)


def test_without_a_second_run_of_the_recipe_nothing_is_told():
    runs = runs_with(recipe=[50], other=[47, 50, 50])
    assert effects(runs)['other'] == (-1, None, None) and 'no spread' in effects(runs)['other'].told()
    assert 'no interval' in method(runs) and str(effects(runs)['other']) == '-1.00'
    assert effects(runs[1:]) == {} and method(runs[:1]) == ''
