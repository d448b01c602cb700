"""Sweeps: what is run, resumed, locked, reported; with a stand-in for tools/train.py, and once with the real one."""
import json
import multiprocessing
import os
import runpy
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import mmseg
import numpy as np
import pytest
from PIL import Image

from inceptionnext_seg.errors import UserError
from studies.comparison import pictures as pictures_module
from studies.comparison.collecting import FORMAT, read_collected
from studies.comparison.report import report, write_report
from studies.sweep import Sweep, command_of, locked, parse_options, plan, short_names

CONFIG = 'configs/upernet_inceptionnext_a_camvid.py'
BASELINE = 'configs/upernet_convnext_a_camvid.py'
ROOT = Path(__file__).parents[2]
# A stand-in for tools/train.py. It notes its arguments, does as told in a file in the run's folder, and leaves what a
# training run of CONFIG leaves: its last iteration is 300, its mIoU here 40 and 2 more for each seed, its hour
# what its mIoU has above 40, so that no two runs seem to have shared the machine.
TRAIN = '''
import json, pathlib, sys, time
import numpy as np
arguments = sys.argv[1:]
folder = pathlib.Path(arguments[arguments.index('--work-dir') + 1])
seed = int(arguments[arguments.index('--seed') + 1])
with (pathlib.Path(__file__).parent / 'calls').open('a') as calls:
    calls.write(json.dumps(arguments) + '\\n')
told = (folder / 'told').read_text() if (folder / 'told').is_file() else ''
if told == 'fail':
    print('\\n'.join(f'line {i}' for i in range(40)) + '\\nRuntimeError: no such thing')
    sys.exit(3)
if told == 'release':
    (pathlib.Path(__file__).parent / 'go').touch()
if told == 'wait':
    (folder / 'started').touch()
    while not (pathlib.Path(__file__).parent / 'go').exists():
        time.sleep(0.05)
miou = 40. + 2 * seed + ('v' in folder.parent.name.split('-')[-1][:1]) * 5
log = folder / '20260101_000000'
log.mkdir(exist_ok=True)
union = np.full((3, 1), 100)
np.savez(log / 'per_image.npz', intersect=union * int(miou) // 100, union=union, label=union, image=list('abc'),
         classes=['sky'])
(log / 'metrics.json').write_text(json.dumps(dict(
    config=arguments[0], checkpoint=None, iteration=300, seed=seed, mIoU=miou, mAcc=50., aAcc=60., seconds=5.,
    per_class={'sky': dict(IoU=miou, Acc=50.)}, history=[dict(iteration=300, mIoU=miou)], processes=1,
    train_throughput=dict(images_per_s=10. + seed, peak_memory_MiB=100.),
    environment=dict(
        command='python tools/train.py', versions={}, date=f'2026-01-01T{int(miou) - 40:02}:00:00+00:00'))))
'''


@pytest.fixture
def train(tmp_path):
    path = tmp_path / 'train.py'
    path.write_text(TRAIN)
    return path


@pytest.fixture(autouse=True)
def in_repository(monkeypatch):
    monkeypatch.chdir(ROOT)
    for name in ('PARTITION', 'GPUS', 'GPUS_PER_NODE', 'CPUS_PER_TASK', 'SRUN_ARGS'):
        monkeypatch.delenv(name, raising=False)


def calls_of(train):
    """(config, seed, resumed) of each call of the stand-in."""
    path = train.with_name('calls')
    calls = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    return [(Path(call[0]).stem, int(call[call.index('--seed') + 1]), '--resume' in call) for call in calls]


def sweep_of(train, configs=(CONFIG, ), variants={}, options=(), seeds=(0, ), launcher='none'):
    return Sweep(plan(configs, variants, list(options), train.parent / 'work'), seeds, train, launcher)


def tell(run, what):
    run.work_dir.mkdir(parents=True)
    (run.work_dir / 'told').write_text(what)


def wait_for(path):
    for _ in range(600):
        if path.exists():
            return
        time.sleep(0.1)
    raise AssertionError(f'{path} did not appear')


def start_sweep(train):
    """A sweep in a process of its own, a fork of this one, which spares the imports."""
    def run():
        # Whoever starts the tests in the background may have them ignore it, and what they start inherits that.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sweep_of(train).run()

    process = multiprocessing.get_context('fork').Process(target=run)
    process.start()
    return process


# What is run


def test_every_candidate_is_run_once_with_every_seed_in_a_folder_of_its_own(train, capsys):
    sweep = sweep_of(train, [CONFIG, BASELINE], dict(v=['train_cfg.val_interval=100']), seeds=(0, 7))
    assert sweep.run() == []
    names = ['upernet_inceptionnext_a_camvid', 'upernet_inceptionnext_a_camvid-v', 'upernet_convnext_a_camvid',
             'upernet_convnext_a_camvid-v']
    assert [(config, seed) for config, seed, _ in calls_of(train)] == [
        (name.split('-')[0], seed) for seed in (0, 7) for name in names]
    work = train.parent / 'work'
    assert {str(path.parent.parent.relative_to(work)) for path in work.rglob('metrics.json')} == {
        f'{name}/seed_{seed}' for name in names for seed in (0, 7)}
    out = capsys.readouterr().out
    assert '[1/8] inceptionnext, seed 0: mIoU 40.00 after 0 s; 7 left, about' in out
    assert out.splitlines()[-1] == '[8/8] convnext-v, seed 7: mIoU 59.00 after 0 s'


def test_what_is_done_is_not_run_again_and_a_seed_more_is(train, capsys):
    sweep_of(train).run()
    sweep_of(train, seeds=(0, 1)).run()
    assert [seed for _, seed, _ in calls_of(train)] == [0, 1]
    assert '[1/2] upernet_inceptionnext_a_camvid, seed 0: done before, mIoU 40.00' in capsys.readouterr().out


def test_options_of_a_variant_stand_behind_those_of_all(train):
    run = sweep_of(train, [CONFIG], dict(v=['train_cfg.max_iters=7']), ['train_cfg.max_iters=5']).runs[1]
    assert command_of(run, train)[-3:] == ['--cfg-options', 'train_cfg.max_iters=5', 'train_cfg.max_iters=7']
    assert run.candidate.cfg.train_cfg.max_iters == 7


def test_options_are_read_as_mmengine_reads_them():
    assert parse_options(['a.b=(64,64)', 'c=None', 'd=1e-3', 'e=x=y']) == {
        'a.b': (64, 64), 'c': None, 'd': 1e-3, 'e': 'x=y'}
    assert parse_options([]) == {}


@pytest.mark.parametrize(('stems', 'names'), [
    (['upernet_a_band7_mini', 'upernet_a_identity_mini'], ['band7', 'identity']),
    (['upernet_a_mini', 'upernet_a_band7_mini'], ['upernet_a_mini', 'upernet_a_band7_mini']),  # one would have none
    (['one'], ['one']), (['a_b', 'c_d'], ['a_b', 'c_d'])])
def test_names_in_the_report_leave_out_what_all_have_in_common(stems, names):
    assert short_names(stems) == names


@pytest.mark.parametrize(('options', 'message'), [
    (['train_cfg.max_iters'], "option 'train_cfg.max_iters' is not KEY=VALUE"),
    (['train_cgf.max_iters=3'], 'no part of a run reads'),
    (['train_cfg.max_iters=None'], r'train_cfg\.max_iters is None')])
def test_wrong_options_are_one_message_before_anything_runs(train, options, message):
    with pytest.raises(UserError, match=message):
        sweep_of(train, options=options)


def test_two_configs_of_one_name_are_one_message(train, tmp_path):
    copy = tmp_path / Path(CONFIG).name
    copy.write_text((ROOT / CONFIG).read_text().replace("['", f"['{ROOT}/configs/"))
    with pytest.raises(UserError, match='two configs are named upernet_inceptionnext_a_camvid'):
        sweep_of(train, [CONFIG, str(copy)])


def test_runs_that_were_begun_with_other_settings_are_not_taken_for_these(train):
    sweep_of(train).run()
    with pytest.raises(UserError, match=r'train_cfg\.val_interval was 150 and is now 100'):
        sweep_of(train, options=['train_cfg.val_interval=100']).run()
    sweep_of(train, options=['train_cfg.val_interval=150']).run()
    assert len(calls_of(train)) == 1


# Half-done and failed runs


def test_a_run_whose_last_iteration_is_not_evaluated_goes_on_from_its_checkpoint(train):
    sweep = sweep_of(train)
    sweep.run()
    folder = sweep.runs[0].work_dir
    metrics = folder / '20260101_000000/metrics.json'
    metrics.write_text(json.dumps(dict(json.loads(metrics.read_text()), iteration=150)))
    (folder / 'iter_150.pth').touch()
    (folder / 'last_checkpoint').write_text(str(folder / 'iter_150.pth'))
    sweep_of(train).run()
    assert [resumed for _, _, resumed in calls_of(train)] == [False, True]


def test_a_run_whose_last_checkpoint_is_gone_begins_anew(train):
    # As after a kill between the removal of the old checkpoint and the end of writing the new one.
    sweep = sweep_of(train)
    sweep.runs[0].work_dir.mkdir(parents=True)
    (sweep.runs[0].work_dir / 'last_checkpoint').write_text(str(sweep.runs[0].work_dir / 'iter_150.pth'))
    sweep.run()
    assert calls_of(train) == [('upernet_inceptionnext_a_camvid', 0, False)]


def test_a_failed_run_is_shown_with_the_end_of_its_log_and_the_others_are_run(train, capsys):
    sweep = sweep_of(train, seeds=(0, 1, 2))
    tell(sweep.runs[1], 'fail')
    assert sweep.run() == [sweep.runs[1]]
    assert [seed for _, seed, _ in calls_of(train)] == [0, 1, 2]
    out = capsys.readouterr().out
    assert 'seed 1: FAILED after 0 s with exit code 3' in out and 'RuntimeError: no such thing' in out
    assert 'line 39' in out and 'line 20' not in out
    (sweep.runs[1].work_dir / 'told').unlink()
    assert sweep_of(train, seeds=(0, 1, 2)).run() == []
    assert [seed for _, seed, _ in calls_of(train)] == [0, 1, 2, 1]


def test_ctrl_c_ends_the_training_process_too(train):
    run = sweep_of(train).runs[0]
    tell(run, 'wait')
    process = start_sweep(train)
    wait_for(run.work_dir / 'started')
    os.kill(process.pid, signal.SIGINT)
    process.join(60)
    with locked(run) as lock:  # which the training process would hold
        assert lock


# Two sweeps at once


def test_a_run_at_which_another_process_is_at_work_comes_last(train, capsys):
    sweep = sweep_of(train, seeds=(0, 1))
    tell(sweep.runs[0], 'wait')
    tell(sweep.runs[1], 'release')
    other = start_sweep(train)
    wait_for(sweep.runs[0].work_dir / 'started')
    sweep.run()
    assert [seed for _, seed, _ in calls_of(train)] == [0, 1]
    out = capsys.readouterr().out
    assert f'seed 0: another process trains it ({other.pid})' in out
    assert out.splitlines()[-1] == '[2/2] upernet_inceptionnext_a_camvid, seed 0: done before, mIoU 40.00'
    other.join(60)
    assert other.exitcode == 0


def test_a_run_stays_locked_while_it_trains_though_its_sweep_was_killed_and_no_longer(train):
    sweep = sweep_of(train)
    tell(sweep.runs[0], 'wait')
    killed = start_sweep(train)
    wait_for(sweep.runs[0].work_dir / 'started')
    killed.kill()
    killed.join(60)
    with locked(sweep.runs[0]) as lock:
        assert lock is None
    train.with_name('go').touch()
    sweep.run()  # waits for it
    assert len(calls_of(train)) == 1


def test_the_lock_of_a_process_that_died_is_taken_over(train):
    sweep = sweep_of(train)
    folder = sweep.runs[0].work_dir
    folder.mkdir(parents=True)
    code = (f'import fcntl, os, signal\nfile = open({str(folder / "lock")!r}, "w")\nfcntl.flock(file, fcntl.LOCK_EX)\n'
            'print(os.getpid(), file=file, flush=True)\nos.kill(os.getpid(), signal.SIGKILL)')
    assert subprocess.run([sys.executable, '-c', code], check=False).returncode == -signal.SIGKILL
    assert (folder / 'lock').read_text()
    assert sweep.run() == []
    assert len(calls_of(train)) == 1


# Launchers


def test_the_slurm_command_is_that_of_mmsegmentations_script(train, tmp_path, monkeypatch):
    script = Path(mmseg.__file__).with_name('.mim') / 'tools/slurm_train.sh'
    if not script.is_file():
        pytest.skip(f'this mmsegmentation has no tools: {script}')
    srun = tmp_path / 'srun'
    srun.write_text(f'#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n')
    srun.chmod(0o755)
    for name, value in (('GPUS', '16'), ('GPUS_PER_NODE', '8'), ('CPUS_PER_TASK', '3'), ('SRUN_ARGS', '-x n1 --ova')):
        monkeypatch.setenv(name, value)
    run = sweep_of(train, launcher='slurm').runs[0]
    wanted = json.loads(subprocess.run(
        [str(script), 'part', run.candidate.name, CONFIG, '--work-dir', str(run.work_dir), '--seed', '0'],
        env=dict(os.environ, PATH=f'{tmp_path}:{os.environ["PATH"]}'), capture_output=True, text=True,
        check=True).stdout)
    monkeypatch.setenv('PARTITION', 'part')
    program, *found = command_of(run, 'tools/train.py', 'slurm')
    assert program == 'srun'
    i, j = found.index('--launcher'), wanted.index('--launcher=slurm')
    assert found[i + 1] == 'slurm'
    del found[i:i + 2], wanted[j]
    assert [sys.executable if part == 'python' else part for part in wanted] == found


def test_torchrun_starts_as_many_processes_as_gpus_says(train, monkeypatch):
    monkeypatch.setenv('GPUS', '2')
    command = command_of(sweep_of(train).runs[0], train, 'pytorch')
    assert '--nproc_per_node=2' in command[:command.index(str(train))]
    assert command[-2:] == ['--launcher', 'pytorch']


# The report


def test_the_report_has_cost_accuracy_difference_and_speed_of_each_candidate(train):
    sweep = sweep_of(train, [CONFIG], dict(v=['model.decode_head.channels=32']), seeds=(0, 1, 2))
    sweep.run()
    written = sweep.write_report(train.parent / 'work/report.md')
    assert train.parent / 'work/report_speed.png' in written
    text = written[-1].read_text()
    rows = [line.strip('| ').split(' | ') for line in text.splitlines() if ' M | ' in line]
    # 40, 42, 44 and 45, 47, 49: standard deviation 2, difference 5 ± 2.776445 · 2 · sqrt(2 / 3) (4 degrees of freedom).
    # Every image of the stand-in has the same IoU, so other images would change nothing.
    assert [row[3:] for row in rows] == [
        ['42.00 ± 2.00', '3', '–', '–', '–', '–', '11.00'],
        ['47.00 ± 2.00', '3', '+5.00', '+0.47 to +9.53', '+5.00 to +5.00', 'v is higher', '11.00']]
    assert float(rows[1][1][:-2]) < float(rows[0][1][:-2]) and float(rows[1][2][:-2]) < float(rows[0][2][:-2])
    rebuilt = write_report(read_collected(train.parent / 'work/report.json'), train.parent / 'again/report.md')
    assert rebuilt[-1].read_text() == text


def test_a_report_without_its_first_candidate_is_one_message(train):
    sweep = sweep_of(train, [CONFIG, BASELINE])
    tell(sweep.runs[0], 'fail')
    sweep.run()
    with pytest.raises(UserError, match='no run of inceptionnext is done'):
        sweep.write_report(train.parent / 'work/report.md')


def test_the_report_of_one_candidate_alone_is_written(train):
    sweep = sweep_of(train, seeds=(0, 1))
    sweep.run()
    text = sweep.write_report(train.parent / 'work/report.md')[-1].read_text()
    assert '41.00 ± 1.41' in text and 'minus' not in text.split('## Accuracy')[1]


def many_candidates(tmp_path):
    """A report's content of twelve candidates with three runs each, one after the other, some of them on one spot."""
    random = np.random.default_rng(0)
    candidates = []
    for i in range(12):
        runs = []
        for seed in (0, 1, 2):
            miou, speed = 40 + i // 3 + random.normal(scale=0.1), 10 + i // 3 + random.normal(scale=0.05)
            runs.append(dict(
                path=f'{i}/{seed}', counts=None, loss=dict(iteration=[1, 2], loss=[2., 1.]), metrics=dict(
                    config='a.py', seed=seed, iteration=2, mIoU=miou, mAcc=50., aAcc=60., seconds=1., history=[],
                    per_class=dict(sky=dict(IoU=miou, Acc=50.)),
                    train_throughput=dict(images_per_s=speed, peak_memory_MiB=1.),
                    environment=dict(command='python', versions={}, date=f'2026-01-{i + 1:02}T0{seed}:00:00+00:00'))))
        candidates.append(dict(name=f'variant {i}', runs=runs))
    return dict(format=FORMAT, title='Many', candidates=candidates, paired=None, images=None, benchmarks=[],
                environment=dict(command='python'))


def test_many_candidates_have_an_overview_and_one_small_picture_that_names_each(tmp_path, monkeypatch):
    labels = []
    monkeypatch.setattr(pictures_module, 'png', lambda figure, png=pictures_module.png: (
        labels.extend((text.get_text(), text.get_window_extent()) for text in figure.axes[0].texts), png(figure))[1])
    blocks, pictures = report(many_candidates(tmp_path), 'many')
    assert next(content for kind, content in blocks if kind == 'heading') == 'Overview'
    assert list(pictures) == ['many_speed.png']
    assert len(pictures['many_speed.png']) < 200_000
    assert [name for name, _ in labels] == [f'variant {i}' for i in range(12)]
    boxes = [box for _, box in labels]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


# The tool


def test_a_dry_run_prints_the_commands_and_writes_nothing(call_tool, tmp_path):
    result = call_tool('sweep', CONFIG, '--seeds', 0, 1, '--work-dir', tmp_path / 'work', '--cfg-options',
                       'train_dataloader.num_workers=2', '--dry-run')
    assert result.returncode == 0, result.stderr
    commands = [shlex.split(line) for line in result.stdout.splitlines()]
    assert len(commands) == 2
    assert commands[1][3:] == [CONFIG, '--work-dir', str(tmp_path / 'work/upernet_inceptionnext_a_camvid/seed_1'),
                               '--seed', '1', '--cfg-options', 'train_dataloader.num_workers=2']
    assert Path(commands[1][2]).resolve() == ROOT / 'tools/train.py'
    assert not (tmp_path / 'work').exists()


@pytest.mark.parametrize(('variants', 'message'), [
    (['--variant', 'v'], 'is not NAME KEY=VALUE'), (['--variant', 'a=1', 'b=2'], 'is not NAME KEY=VALUE'),
    (['--variant', 'v', 'train_cfg.max_iters=1'] * 2, 'given twice')])
def test_a_wrong_variant_is_one_message(call_tool, tmp_path, variants, message):
    result = call_tool('sweep', CONFIG, *variants, '--work-dir', tmp_path)
    assert result.returncode == 2
    assert message in result.stderr and 'Traceback' not in result.stderr


def test_a_failed_run_makes_the_tool_exit_with_1_and_the_report_is_of_the_others(train, capsys):
    tool = train.with_name('sweep.py')  # beside the stand-in
    shutil.copy(ROOT / 'tools/sweep.py', tool)
    sweep = sweep_of(train, variants=dict(bad=['train_cfg.val_interval=50']))
    tell(sweep.runs[1], 'fail')
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(tool))['main']([
            CONFIG, '--seeds', '0', '--variant', 'bad', 'train_cfg.val_interval=50', '--work-dir',
            str(train.parent / 'work')])
    assert stop.value.code == 1
    assert 'error: 1 of 2 runs failed: bad, seed 0. Next: fix the cause' in capsys.readouterr().err
    assert '40.00' in (train.parent / 'work/report.md').read_text()


def test_a_benchmark_of_the_same_configs_gives_the_report_its_throughput(train):
    shutil.copy(ROOT / 'tools/sweep.py', train.with_name('sweep.py'))
    other = CONFIG.replace('inceptionnext', 'convnext')
    results = [dict(name=path, label=Path(path).stem, layout='nhwc', seconds=[seconds] * 8, settled=True, macs=1e8,
                    nbytes=1e6, peak_memory=None) for path, seconds in ((CONFIG, 0.5), (other, 0.25))]
    setting = dict(mode='train', part='segmentor', batch_size=2, size=64, dtype='fp32', compile=False, device='cpu')
    measured = train.with_name('throughput.json')
    measured.write_text(json.dumps(dict(
        environment=dict(command='python tools/benchmark.py', versions={}, device='cpu'),
        runs=[dict(setting=setting, peaks=dict(macs_per_second=1e9, bytes_per_second=1e9), results=results)])))
    runpy.run_path(str(train.with_name('sweep.py')))['main']([
        CONFIG, other, '--seeds', '0', '--work-dir', str(train.parent / 'work'), '--benchmark', str(measured)])
    report = (train.parent / 'work/report.md').read_text()
    assert 'Throughput in a benchmark' in report and '2.00 (2.00–2.00)' in report


def test_a_benchmark_that_is_not_there_is_a_message_before_anything_is_trained(call_tool, tmp_path):
    result = call_tool('sweep', CONFIG, '--work-dir', tmp_path / 'work', '--benchmark', tmp_path / 'none.json')
    assert result.returncode == 2 and 'none.json' in result.stderr and 'Traceback' not in result.stderr
    assert not (tmp_path / 'work').exists()


@pytest.mark.slow
def test_a_real_sweep_trains_reports_and_resumes(call_tool, tiny_options, tmp_path):
    arguments = ['sweep', CONFIG, '--seeds', 0, '--work-dir', tmp_path, '--variant', 'band5',
                 'model.backbone.token_mixer=None', '--cfg-options', *tiny_options,
                 'default_hooks.checkpoint.max_keep_ckpts=2']
    result = call_tool(*arguments)
    assert result.returncode == 0, result.stdout + result.stderr
    run = tmp_path / 'upernet_inceptionnext_a_camvid/seed_0'
    metrics = next(run.rglob('metrics.json'))
    assert json.loads(metrics.read_text())['seed'] == 0
    assert (tmp_path / 'report.json').is_file()
    assert '| band5' in (tmp_path / 'report.md').read_text()
    with Image.open(tmp_path / 'report_curves.png') as picture:
        assert picture.format == 'PNG'
    # As if it had been killed after its second iteration.
    metrics.unlink()
    (run / 'iter_4.pth').unlink()
    (run / 'last_checkpoint').write_text(str(run / 'iter_2.pth'))
    result = call_tool(*arguments)
    assert result.returncode == 0, result.stdout + result.stderr
    assert 'seed 0: resumed' in result.stdout and 'band5, seed 0: done before' in result.stdout
    newest = max(run.glob('*/vis_data/scalars.json'))
    assert [json.loads(line)['step'] for line in newest.open() if 'loss' in line] == [3, 4]
