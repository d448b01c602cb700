"""Hooks for any mm framework: images/s and peak memory in every log line, and the results of a run in one file."""
import contextlib
import math
import os
import resource
import sys
import time
from pathlib import Path

import numpy as np
import torch
from mmengine.device import get_device
from mmengine.dist import get_world_size, master_only
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from ..files import replacing, write_json
from ..ops.measured import choices, first_map
from ..provenance import environment, synchronize


def peak_memory():
    """Peak memory of this process in MiB: of its tensors on the GPU where it has one, its resident set otherwise."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    # Kilobytes, but bytes on macOS (getrusage(2)).
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == 'darwin' else 2**10)


def images_of(data_batch):
    """Number of images in a batch of any mm framework."""
    return len(data_batch['inputs'] if isinstance(data_batch, dict) else data_batch[0])


@HOOKS.register_module()
class ThroughputHook(Hook):
    """Logs ``images_per_s`` and ``peak_memory_MiB`` in every training line, of all processes, without the warm-up.

    An iteration counts from the end of the one before to its own end: loading, forward, backward, optimizer. Validation
    is not part of it. The last ``throughput`` of training, validation and test, over all their iterations after the
    warm-up, is in the message hub for :class:`MetricsFileHook`.

    Args:
        warmup_iters (int): First iterations of a run, and of each evaluation, that do not count.
        clock (Callable): Seconds; for tests.
    """

    priority = 'NORMAL'  # before LoggerHook

    def __init__(self, warmup_iters=5, clock=time.perf_counter):
        self.warmup_iters = warmup_iters
        self.clock = clock
        self.totals = {}
        self.window = []  # (images, seconds) of the last training iterations

    def now(self):
        synchronize(get_device())
        return self.clock()

    def start(self, mode):
        self.totals[mode] = dict(seen=0, images=0, seconds=0., peak=0.)
        self.last = self.now()

    def count(self, runner, mode, data_batch):
        totals, now = self.totals[mode], self.now()
        seconds, self.last = now - self.last, now
        totals['seen'] += 1
        if totals['seen'] <= self.warmup_iters:
            return
        images = images_of(data_batch) * get_world_size()
        totals['images'] += images
        totals['seconds'] += seconds
        if mode == 'train':
            # The log processor shows the last value as it is; the window is that of its loss and time.
            self.window = [*self.window, (images, seconds)][-runner.log_processor.window_size:]
            images, seconds = map(sum, zip(*self.window, strict=True))
            if seconds > 0:
                runner.message_hub.update_scalar('train/images_per_s', images / seconds, resumed=False)
            # Of the training, whose peak a first validation on a GPU forgets, since it measures operators.
            totals['peak'] = max(totals['peak'], peak_memory())
            runner.message_hub.update_scalar('train/peak_memory_MiB', totals['peak'], resumed=False)

    def report(self, runner, mode):
        totals = self.totals[mode]
        runner.message_hub.update_info(f'throughput/{mode}', dict(
            images_per_s=totals['images'] / totals['seconds'] if totals['seconds'] > 0 else None,
            images=totals['images'], iterations=totals['seen'],
            warmup_iterations=min(self.warmup_iters, totals['seen']),
            peak_memory_MiB=max(totals['peak'], peak_memory())), resumed=False)

    def before_train(self, runner):
        self.window.clear()
        self.start('train')

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.count(runner, 'train', data_batch)

    def after_train(self, runner):
        self.report(runner, 'train')

    def before_val_epoch(self, runner):
        self.start('val')

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.count(runner, 'val', data_batch)

    def after_val_epoch(self, runner, metrics=None):
        self.report(runner, 'val')

    def after_val(self, runner):
        self.last = self.now()  # the training iteration that follows does not count the validation

    def before_test_epoch(self, runner):
        self.start('test')

    def after_test_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.count(runner, 'test', data_batch)

    def after_test_epoch(self, runner, metrics=None):
        self.report(runner, 'test')


@HOOKS.register_module()
class MetricsFileHook(Hook):
    """Writes ``metrics.json`` beside the log after each evaluation, and logs the run's summary as its last line.

    The file holds the config, the checkpoint, the command, versions, device, mIoU, mAcc, aAcc, IoU and Acc per class,
    images/s, peak memory, the seed of the training, the forms of operators that were measured
    (:mod:`..ops.measured`), the evaluator's own ``metrics``, and, in training, those of every validation since the run
    was started or resumed. All IoU and Acc are per cent. Beside it, ``per_image.npz`` holds the pixel counts of each
    image, where the metric keeps them (``RecordingIoUMetric``).
    """

    priority = 'LOWEST'

    def before_run(self, runner):
        self.started = time.time()
        self.history = []
        self.metrics = {}
        self.result = None

    def after_val_epoch(self, runner, metrics=None):
        self.metrics = numbers_of(metrics)
        self.history.append(dict(iteration=runner.iter, **self.metrics))
        self.write(runner, 'val')

    def after_test_epoch(self, runner, metrics=None):
        self.metrics = numbers_of(metrics)
        self.write(runner, 'test')

    @master_only
    def write(self, runner, mode):
        hub, cfg = runner.message_hub, runner.cfg
        self.path = Path(runner.log_dir) / 'metrics.json'
        self.result = dict(
            config=os.path.relpath(cfg.filename) if cfg.filename else None,
            checkpoint=self.checkpoint(runner, mode),
            iteration=runner.iter if mode == 'val' else None,
            seed=self.seed(runner, mode),
            metrics=self.metrics,
            **(hub.get_info('segmentation_result') if 'segmentation_result' in hub.runtime_info else {}),
            **{f'{phase}_throughput': hub.get_info(f'throughput/{phase}') for phase in ('train', 'val', 'test')
               if f'throughput/{phase}' in hub.runtime_info},
            history=self.history,
            operator_choices=[
                dict(operator=c.operator, first_map=first_map(c), form=c.form, rule=c.rule, seconds=c.seconds)
                for c in choices()],
            seconds=time.time() - self.started,
            processes=get_world_size(),
            environment=environment())
        write_json(self.path, self.result)
        if 'per_image_counts' in hub.runtime_info:
            with replacing(self.path.with_name('per_image.npz')) as temporary:
                np.savez_compressed(temporary, **hub.get_info('per_image_counts'))

    @staticmethod
    def seed(runner, mode):
        """Of the training: a test draws one of its own, which says nothing of the checkpoint."""
        if mode != 'test':
            return runner.seed
        seed = runner.message_hub.runtime_info.get('trained_seed')
        return seed if type(seed) is int else None  # of a checkpoint, which is untrusted

    @staticmethod
    def checkpoint(runner, mode):
        if mode == 'test':
            source = runner.cfg.get('load_from')
            return os.path.relpath(source) if source and '://' not in source else source
        saved = Path(runner.work_dir) / f'iter_{runner.iter}.pth'
        return os.path.relpath(saved) if saved.is_file() else None

    @master_only
    def after_run(self, runner):
        trained = runner.message_hub.runtime_info.get('throughput/train')
        # A run that is over and was resumed has done nothing: its file would hide the one with its results.
        if trained and (trained['iterations'] or self.history):
            self.write(runner, 'val')  # now with the training throughput of the whole run
        if self.result is not None:
            runner.logger.info(summary_line(self.result, self.path))


def numbers_of(metrics):
    """The numbers among an evaluator's metrics; None for one that is not finite, which JSON has no word for."""
    numbers = {}
    for name, value in (metrics or {}).items():
        with contextlib.suppress(TypeError, ValueError):  # a metric may be a list, or text
            value = float(value)
            numbers[name] = value if math.isfinite(value) else None
    return numbers


def summary_line(result, path):
    """The last line of a run: what it reached, how fast, with how much memory, and where it is written."""
    parts = [f'{name} {result[name]:.2f}' for name in ('mIoU', 'mAcc', 'aAcc') if result.get(name) is not None]
    memory = 0
    for phase, title in (('train', 'training'), ('val', 'validation'), ('test', 'test')):
        throughput = result.get(f'{phase}_throughput') or {}
        if throughput.get('images_per_s'):
            parts.append(f'{throughput["images_per_s"]:.2f} images/s {title}')
        memory = max(memory, throughput.get('peak_memory_MiB', 0))
    parts.append(f'peak memory {memory:.0f} MiB')
    parts.append(f'{result["seconds"]:.0f} s in all')
    if result.get('checkpoint'):
        parts.append(f'checkpoint {result["checkpoint"]}')
    return f'Summary: {", ".join(parts)}, metrics {os.path.relpath(path)}'
