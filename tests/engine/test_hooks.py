"""Throughput by a clock that only the run's own work moves, and what a run leaves in metrics.json."""
import importlib.metadata
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn as nn
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner

from inceptionnext_seg import provenance as environment
from inceptionnext_seg.engine.hooks import MetricsFileHook, ThroughputHook, images_of
from inceptionnext_seg.files import write_json

# Seconds of each part of a run, exact in binary.
LOAD, STEP, PREDICT, OVERHEAD = 0.25, 2.0, 0.5, 64.0
BATCH = 4


class Clock:
    """Tells the seconds that have been added to it."""

    def __init__(self):
        self.seconds = 0.

    def __call__(self):
        return self.seconds

    def __deepcopy__(self, memo):  # the runner copies its data set
        return self


class Images(torch.utils.data.Dataset):
    """8 images, each of which takes LOAD seconds to load."""

    def __init__(self, clock):
        self.clock = clock

    def __len__(self):
        return 8

    def __getitem__(self, i):
        self.clock.seconds += LOAD
        return torch.full((3, ), float(i)), i % 2


class Classifier(BaseModel):
    """A model of plain mmengine: batches are lists and it segments nothing."""

    def __init__(self, clock):
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.clock = clock

    def forward(self, images, labels, mode='tensor'):
        scores = self.layer(images)
        if mode == 'loss':
            self.clock.seconds += STEP
            return dict(loss=nn.functional.cross_entropy(scores, labels))
        self.clock.seconds += PREDICT
        return scores, labels


class Accuracy(BaseMetric):
    """With what else other frameworks' metrics return: a list, text, and not-a-number."""

    default_prefix = ''

    def process(self, data_batch, data_samples):
        scores, labels = data_samples
        self.results += (scores.argmax(1) == labels).tolist()

    def compute_metrics(self, results):
        return dict(accuracy=np.float32(np.mean(results)), count=len(results), per_class=[1, 2], text='0.1 0.2',
                    missing=float('nan'))


class Overhead(Hook):
    """Validation that takes its time outside its iterations: the metrics, their tables and files."""

    priority = 'VERY_LOW'

    def __init__(self, clock):
        self.clock = clock

    def after_val_epoch(self, runner, metrics=None):
        self.clock.seconds += OVERHEAD


def build_runner(work_dir, *hooks, clock=None, max_iters=6, val_interval=2, **settings):
    clock = clock or Clock()
    loader = dict(batch_size=BATCH, num_workers=0, dataset=Images(clock), collate_fn=dict(type='default_collate'),
                  sampler=dict(type='InfiniteSampler', shuffle=False))
    evaluation = dict(loader, sampler=dict(type='DefaultSampler', shuffle=False))
    return Runner(
        Classifier(clock), work_dir=str(work_dir), experiment_name=f'{work_dir.name}', default_scope='mmengine',
        train_dataloader=loader, val_dataloader=evaluation if val_interval else None, test_dataloader=evaluation,
        train_cfg=dict(by_epoch=False, max_iters=max_iters, val_interval=val_interval or 1000),
        val_cfg={} if val_interval else None, test_cfg={},
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        val_evaluator=[Accuracy()] if val_interval else None, test_evaluator=[Accuracy()], custom_hooks=list(hooks),
        default_hooks=dict(logger=dict(type='LoggerHook', interval=1, log_metric_by_epoch=False),
                           checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=2)),
        log_processor=dict(by_epoch=False, window_size=2), randomness=dict(seed=7), **settings)


def log_of(runner):
    return Path(runner.log_dir, f'{Path(runner.log_dir).name}.log').read_text()


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """Six iterations of four images with a validation every two, both hooks, two iterations of warm-up, then a test."""
    clock = Clock()
    hook = ThroughputHook(warmup_iters=2, clock=clock)
    runner = build_runner(tmp_path_factory.mktemp('run'), hook, MetricsFileHook(), Overhead(clock), clock=clock)
    runner.train()
    return runner


IMAGES_PER_S = BATCH / (BATCH * LOAD + STEP)


def test_images_per_second_counts_loading_and_step_and_neither_warm_up_nor_validation(run):
    assert run.message_hub.get_info('throughput/train')['images_per_s'] == IMAGES_PER_S == 4 / 3
    assert run.message_hub.get_info('throughput/train')['images'] == 4 * BATCH
    assert run.message_hub.get_info('throughput/train')['iterations'] == 6
    assert run.message_hub.get_info('throughput/train')['warmup_iterations'] == 2
    assert run.message_hub.get_info('throughput/train')['peak_memory_MiB'] > 10


def test_an_evaluation_shorter_than_the_warm_up_has_no_throughput(run):
    found = run.message_hub.get_info('throughput/val')
    assert (found['images_per_s'], found['iterations'], found['warmup_iterations']) == (None, 2, 2)


def test_every_training_line_after_the_warm_up_shows_images_per_second_and_peak_memory(run):
    lines = [line for line in log_of(run).splitlines() if 'Iter(train)' in line]
    assert len(lines) == 6
    assert not any('images_per_s' in line for line in lines[:2])
    assert all(f'images_per_s: {IMAGES_PER_S:.4f}' in line and 'peak_memory_MiB: ' in line for line in lines[2:])
    scalars = [json.loads(line) for line in next(Path(run.log_dir).glob('vis_data/scalars.json')).open()]
    shown = [line['images_per_s'] for line in scalars if 'images_per_s' in line]
    assert shown == [pytest.approx(IMAGES_PER_S, rel=1e-9)] * 4


def test_a_log_line_shows_images_over_seconds_of_its_window_and_not_a_mean_of_rates(tmp_path):
    clock = Clock()

    class Slower(Hook):
        def before_train_iter(self, runner, batch_idx, data_batch=None):
            clock.seconds += 2.0**batch_idx

    runner = build_runner(tmp_path, ThroughputHook(warmup_iters=0, clock=clock), Slower(), clock=clock, max_iters=3)
    runner.train()
    seconds = [BATCH * LOAD + STEP + 2.0**i for i in range(3)]
    scalars = [json.loads(line) for line in next(Path(runner.log_dir).glob('vis_data/scalars.json')).open()]
    shown = [line['images_per_s'] for line in scalars if 'images_per_s' in line]
    expected = [BATCH / seconds[0], 2 * BATCH / sum(seconds[:2]), 2 * BATCH / sum(seconds[1:])]
    assert shown == pytest.approx(expected, rel=1e-6)


def test_test_throughput_is_loading_and_prediction(tmp_path):
    clock = Clock()
    runner = build_runner(tmp_path, ThroughputHook(warmup_iters=1, clock=clock), MetricsFileHook(), clock=clock)
    runner.test()
    found = json.loads((Path(runner.log_dir) / 'metrics.json').read_text())
    assert found['test_throughput']['images_per_s'] == BATCH / (BATCH * LOAD + PREDICT)
    assert found['metrics'] == dict(accuracy=pytest.approx(0.5, abs=0.5), count=8, missing=None)
    assert found['iteration'] is None
    assert found['history'] == []


def test_images_of_all_processes_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr('inceptionnext_seg.engine.hooks.get_world_size', lambda: 3)
    clock = Clock()
    runner = build_runner(tmp_path, ThroughputHook(warmup_iters=1, clock=clock), clock=clock, max_iters=2)
    runner.train()
    assert runner.message_hub.get_info('throughput/train')['images_per_s'] == 3 * IMAGES_PER_S


def test_the_device_is_waited_for_before_each_reading_of_the_clock(monkeypatch):
    events = []
    monkeypatch.setattr('inceptionnext_seg.engine.hooks.get_device', lambda: 'cuda')
    monkeypatch.setattr(torch.cuda, 'synchronize', lambda device: events.append(('wait', torch.device(device).type)))
    hook = ThroughputHook(warmup_iters=5, clock=lambda: events.append('read') or 0.)
    hook.before_train(None)
    for i in range(2):
        hook.after_train_iter(None, i, dict(inputs=[1, 2]))
    hook.before_val_epoch(None)
    hook.after_val_iter(None, 0, dict(inputs=[1]))
    assert events == [('wait', 'cuda'), 'read'] * 5


def test_the_peak_of_the_training_is_known_after_a_validation_that_counts_anew(run, monkeypatch):
    """On a GPU the first validation measures operators, and forgets the peak with what these have needed."""
    peaks = iter([900., 700., 100.])
    monkeypatch.setattr('inceptionnext_seg.engine.hooks.peak_memory', lambda: next(peaks))
    hook = ThroughputHook(warmup_iters=0, clock=lambda: 0.)
    hook.before_train(run)
    for i in range(2):
        hook.after_train_iter(run, i, dict(inputs=[1, 2]))
    assert run.message_hub.get_scalar('train/peak_memory_MiB').current() == 900
    with monkeypatch.context() as patch:
        patch.setattr(run.message_hub, 'update_info', lambda name, found, resumed: reported.append(found))
        reported = []
        hook.after_train(run)
    assert reported[0]['peak_memory_MiB'] == 900


def test_a_cpu_needs_no_waiting(monkeypatch):
    monkeypatch.setattr(torch, 'get_device_module', lambda device: pytest.fail('a CPU was waited for'))
    environment.synchronize('cpu')


@pytest.mark.parametrize('batch', [
    dict(inputs=[1, 2, 3], data_samples=[]), dict(inputs=torch.zeros(3, 1)), [torch.zeros(3, 1), torch.zeros(3)],
    ([1, 2, 3], [4, 5, 6])])
def test_images_are_counted_in_the_batches_of_any_framework(batch):
    assert images_of(batch) == 3


# metrics.json


@pytest.fixture(scope='module')
def metrics(run):
    return json.loads((Path(run.log_dir) / 'metrics.json').read_text())


def test_metrics_json_says_what_was_run_and_on_what(run, metrics):
    assert metrics['iteration'] == 6
    assert metrics['seed'] == 7
    assert metrics['processes'] == 1
    assert Path(metrics['checkpoint']).resolve() == Path(run.work_dir, 'iter_6.pth').resolve()
    found = metrics['environment']
    assert found['versions']['torch'] == importlib.metadata.version('torch')
    assert found['device'] == ('cuda' if torch.cuda.is_available() else 'cpu')
    assert re.fullmatch(r'\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00', found['date'])
    assert found['command'].startswith('python ')
    assert not Path(found['command'].split()[1]).is_absolute()


def test_metrics_json_of_a_run_that_segments_nothing_holds_the_numbers_of_its_metrics(metrics):
    assert [entry['iteration'] for entry in metrics['history']] == [2, 4, 6]
    assert all(entry.keys() == {'iteration', 'accuracy', 'count', 'missing'} for entry in metrics['history'])
    assert metrics['metrics']['count'] == 8
    assert metrics['metrics']['missing'] is None
    assert 'mIoU' not in metrics


def test_metrics_json_holds_the_training_throughput_of_the_whole_run(metrics):
    assert metrics['train_throughput']['images_per_s'] == IMAGES_PER_S
    assert metrics['train_throughput']['iterations'] == 6


def test_the_summary_is_the_last_line_of_the_log(run, metrics):
    last = log_of(run).splitlines()[-1]
    assert re.search(
        r'INFO - Summary: 1\.33 images/s training, peak memory \d+ MiB, \d+ s in all, checkpoint \S*iter_6\.pth, '
        r'metrics \S+metrics\.json$', last), last
    assert f'peak memory {metrics["train_throughput"]["peak_memory_MiB"]:.0f} MiB' in last


def test_the_summary_of_a_run_that_ends_within_the_warm_up_has_its_peak_memory(tmp_path):
    runner = build_runner(tmp_path, ThroughputHook(), MetricsFileHook(), max_iters=2)
    runner.train()
    found = json.loads((Path(runner.log_dir) / 'metrics.json').read_text())['train_throughput']
    assert found['images_per_s'] is None
    assert found['peak_memory_MiB'] > 1
    assert f'peak memory {found["peak_memory_MiB"]:.0f} MiB' in log_of(runner).splitlines()[-1]


def test_a_run_without_validation_writes_its_throughput_too(tmp_path):
    clock = Clock()
    runner = build_runner(tmp_path, ThroughputHook(warmup_iters=1, clock=clock), MetricsFileHook(), clock=clock,
                          max_iters=3, val_interval=None)
    runner.train()
    found = json.loads((Path(runner.log_dir) / 'metrics.json').read_text())
    assert found['train_throughput']['images_per_s'] == IMAGES_PER_S
    assert found['history'] == []


def test_a_run_that_is_over_and_is_resumed_leaves_the_file_with_its_results_the_newest(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:    # the folder of its log is named after the second
        patch.setattr('mmengine.runner.runner.time.time', lambda: 0.)
        build_runner(tmp_path, ThroughputHook(), MetricsFileHook(), max_iters=2, val_interval=None).train()
    before = list(tmp_path.rglob('metrics.json'))
    assert len(before) == 1
    build_runner(tmp_path, ThroughputHook(), MetricsFileHook(), max_iters=2, val_interval=None, resume=True).train()
    assert len(list(tmp_path.glob('*/*.log'))) == 2
    assert list(tmp_path.rglob('metrics.json')) == before


def test_metrics_are_written_without_the_throughput_hook(tmp_path):
    runner = build_runner(tmp_path, MetricsFileHook(), max_iters=2)
    runner.train()
    found = json.loads((Path(runner.log_dir) / 'metrics.json').read_text())
    assert found['metrics']['count'] == 8
    assert 'train_throughput' not in found
    assert 'Summary: ' in log_of(runner).splitlines()[-1]


@pytest.mark.parametrize('content', [dict(mIoU=float('nan')), dict(mIoU=object())])
def test_a_file_that_cannot_be_written_whole_leaves_the_old_one(tmp_path, content):
    path = tmp_path / 'metrics.json'
    write_json(path, dict(mIoU=1.5))
    with pytest.raises((ValueError, TypeError)):
        write_json(path, content)
    assert json.loads(path.read_text()) == dict(mIoU=1.5)
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_appears_under_its_name_only_when_it_is_complete(tmp_path, monkeypatch):
    path = tmp_path / 'folder' / 'metrics.json'
    moved = []

    def replace(temporary, target):
        assert not path.exists()
        moved.append((temporary.parent, json.loads(temporary.read_text()), target))

    monkeypatch.setattr(Path, 'replace', replace)
    write_json(path, dict(mIoU=1.5))
    assert moved == [(path.parent, dict(mIoU=1.5), path)]
