"""Runs that are disturbed, and the tensors that they end with against those of one that is not."""
import random
import re
import signal
import time

import torch

from inceptionnext_seg.errors import UserError
from inceptionnext_seg.models.checkpoint import read_file

from .processes import Run

ITERATIONS, INTERVAL, VALIDATION = 48, 3, 12
LONGEST = 900   # seconds of a run
PARTS = ('state_dict', 'ema_state_dict', 'optimizer')
CONFIG = """
_base_ = [{config!r}]
custom_hooks = [
    dict(type='ThroughputHook', warmup_iters=1), dict(type='MetricsFileHook'), dict(type='EMAHook', momentum=0.01),
    dict(type='EarlyStoppingHook', monitor='mIoU', rule='greater', patience=100)]
crop_size = (64, 64)
train_dataloader = dict(num_workers=1, dataset=dict(pipeline=[
    dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='RandomResize', scale=(112, 80), ratio_range=(0.75, 1.5), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75), dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'), dict(type='PackSegInputs')]))
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(indices=8))
test_dataloader = val_dataloader
model = dict(data_preprocessor=dict(size=crop_size), backbone=dict(drop_path_rate=0.2),
             decode_head=dict(channels=16), auxiliary_head=dict(channels=8))
train_cfg = dict(total_batch_size=4, micro_batch_size=2, max_iters={iterations}, val_interval={validation})
auto_scale_lr = dict(base_batch_size=4)
default_hooks = dict(
    accelerate=dict(measure=False),     # on a busy machine two runs could measure, and choose, another form
    logger=dict(interval=1), checkpoint=dict(interval={interval}, max_keep_ckpts=2, save_best='mIoU', rule='greater'))
"""


def write_config(folder, config):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / 'killed.py'
    path.write_text(CONFIG.format(config=str(config), iterations=ITERATIONS, interval=INTERVAL, validation=VALIDATION))
    return path


def tensors_of(work_dir):
    """Weights, averaged weights and optimizer of the last checkpoint, by their place in it."""
    checkpoint, tensors = read_file(work_dir / f'iter_{ITERATIONS}.pth'), {}

    def walk(value, place):
        if isinstance(value, torch.Tensor):
            tensors[place] = value
        elif isinstance(value, dict):
            for name, item in value.items():
                walk(item, f'{place}.{name}')

    for part in PARTS:
        walk(checkpoint[part], part)
    return tensors


def differing(work_dir, reference):
    """How many tensors of two finished runs are not the same bit for bit, and of how many."""
    found, expected = tensors_of(work_dir), tensors_of(reference)
    if found.keys() != expected.keys():
        raise UserError(f'{work_dir} and {reference} do not hold the same tensors.')
    return dict(differing=sum(not torch.equal(found[name], expected[name]) for name in expected),
                tensors=len(expected))


def iterations_of(log):
    """The iterations that a run has logged."""
    text = log.read_text(errors='replace') if log.is_file() else ''
    return [int(number) for number in re.findall(r'Iter\(train\) *\[ *(\d+)/', text)]


def have_met(log):
    """Whether the processes of a run have formed their group, after which the first logs where it runs."""
    return log.is_file() and 'System environment' in log.read_text(errors='replace')


def finish(arguments, log, processes=1, limit=LONGEST):
    """Train to the end; the seconds to the first iteration, and of each later one."""
    run, started, first = Run(arguments, log, processes), time.monotonic(), None
    while not run.poll():
        if first is None and iterations_of(log):
            first = time.monotonic()
        if time.monotonic() - started > limit:
            break
        time.sleep(0.05)
    if set(run.wait(1)) != {0}:
        raise UserError(f'the run of {log} did not end well: {log.read_text(errors="replace")[-3000:]}')
    first = first or time.monotonic()
    return dict(start=first - started, iteration=(time.monotonic() - first) / max(1, len(set(iterations_of(log))) - 1))


def killed(arguments, folder, processes, kills, pace, seed):
    """Kill and resume a run ``kills`` times, then let it end.

    Of four kills one waits for a checkpoint that is being written, one comes while the run starts, and two come amid or
    between iterations, so many later as let the kills fall all over the run, and a random part
    of an iteration after that. Of two processes either or both are killed, in turns.

    Returns:
        dict: How many kills there were, after which iterations, how many during writing, how many before a second
        process had met the first, and the most seconds that a process outlived the other after that.
    """
    numbers, moments, writing, alone, outlived = random.Random(seed), [], 0, 0, 0.
    work_dir, resumed = folder / 'run', 0
    for i in range(kills):
        log = folder / f'life{i}.log'
        run = Run([*arguments, '--work-dir', work_dir, *(['--resume'] if i else [])], log, processes)
        started, kind = time.monotonic(), ('amid', 'starting', 'amid', 'writing')[i % 4]
        # No further than such a part of the kills, so that the run outlives all of them.
        reach = ITERATIONS * (i + 1) // (kills + 4)
        last = max(resumed, min(resumed + numbers.randint(0, 3 * ITERATIONS // kills), reach))
        wait = numbers.uniform(0, pace['start'] if kind == 'starting' else pace['iteration'])
        while not run.poll() and time.monotonic() - started < LONGEST:
            if kind == 'starting':
                if time.monotonic() - started > wait:
                    break
            elif kind == 'writing':
                if any(work_dir.glob('.iter_*')):
                    writing += 1
                    break
            elif max(iterations_of(log), default=0) >= last:
                time.sleep(wait)
                break
            time.sleep(0.001 if kind == 'writing' else 0.01)
        if run.poll():
            raise UserError(f'the run of {log} ended before kill {i + 1} of {kills}: '
                            f'{log.read_text(errors="replace")[-3000:]}')
        for pid in [run.pids[i % 2]] if processes == 2 and i % 3 else run.pids:
            run.send(pid, signal.SIGKILL)
        met, at = processes == 1 or have_met(log), time.monotonic()
        run.wait(120 if met else 1)
        if met:
            outlived = max(outlived, time.monotonic() - at)
        else:
            alone += 1
        moments.append(max(iterations_of(log), default=None))
        resumed = max([resumed, *(int(path.stem[5:]) for path in work_dir.glob('iter_*.pth'))])
    finish([*arguments, '--work-dir', work_dir, '--resume'], folder / 'last.log', processes)
    return dict(kills=len(moments), after_iterations=moments, while_writing=writing, before_meeting=alone,
                seconds_to_the_end_of_all=round(outlived, 1))


def signalled(arguments, folder, number):
    """Send a signal amid training, then resume; the exit status and the lines on stderr that are about it."""
    log, work_dir = folder / 'signalled.log', folder / 'run'
    run = Run([*arguments, '--work-dir', work_dir], log)
    while not run.poll() and max(iterations_of(log), default=0) < ITERATIONS // 3:
        time.sleep(0.01)
    run.send(run.pids[0], number)
    status, = run.wait(120)
    said = [line for line in log.read_text().splitlines() if line.startswith(number.name)]
    finish([*arguments, '--work-dir', work_dir, '--resume'], folder / 'last.log')
    return dict(status=status, lines=len(said))
