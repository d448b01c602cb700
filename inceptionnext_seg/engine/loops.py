"""A training loop whose batch is that of all processes together. Registered in mmengine's root registry."""
import logging

import torch
from mmengine.dist import all_reduce_dict, get_rank, get_world_size
from mmengine.logging import print_log
from mmengine.registry import LOOPS
from mmengine.runner import IterBasedTrainLoop

from ..data.draws import reseed, seeded
from ..errors import UserError
from .interruption import WATCH
from .lifeline import LIFELINE
from .resuming import agree
from .schedules import check_resumed, fit_schedules


def end_workers(loader):
    """End the workers that a loader keeps.

    Freed together with the cycles of a runner, it would not tell them, and wait five seconds for each.
    """
    if getattr(loader, '_iterator', None) is not None:
        loader._iterator = None


def accumulative_counts(optim_wrapper):
    """``accumulative_counts`` of a wrapper, or of the config of one."""
    if isinstance(optim_wrapper, dict):
        return optim_wrapper.get('accumulative_counts') or 1
    return getattr(optim_wrapper, '_accumulative_counts', 1)


def divides_by_its_own(model):
    """The settings of a model's losses with which the loss of a batch is not the mean of the losses of its parts."""
    settings = [('class_weight', lambda value: value is not None), ('avg_non_ignore', bool),
                ('sampler', lambda value: value is not None)]
    return [f'{name}.{setting}'.removeprefix('module.') for name, module in model.named_modules()
            for setting, is_given in settings if is_given(getattr(module, setting, None))]


@LOOPS.register_module()
class TotalBatchTrainLoop(IterBasedTrainLoop):
    """Iterations of ``total_batch_size`` images over all processes together, however many there are.

    1, 2, 4 or 8 processes train the same recipe: each takes its share of the batch. Where the share does not fit in
    memory, ``micro_batch_size`` splits it and the gradients are accumulated; an iteration stays one optimizer step, so
    that schedules, logs and checkpoints count the same. The loss of the batch is the mean of its parts' losses: that of
    the whole batch where a loss is a mean over all pixels, and another where it divides by what a part has, with
    ``class_weight``, ``avg_non_ignore`` or a ``sampler``, which the log then says. A BatchNorm sees
    ``micro_batch_size`` images at a time; a SyncBN those of all processes.

    A run that was interrupted goes on bit for bit: what is random in a sample depends on seed, draw and index alone
    (:mod:`..data.draws`), so that the number of workers does not matter either, and the checkpoint has the rest
    (:mod:`.run_state`). A validation that was due and is not in the checkpoint is made up for first.

    The runner's schedules end with the run: where they were written for another length than ``max_iters``, as after
    ``--cfg-options train_cfg.max_iters=4000``, :func:`.schedules.fit_schedules` changes them, and the log says how.

    Args:
        total_batch_size (int): Images of one optimizer step. ``auto_scale_lr`` of the runner follows it.
        micro_batch_size (int | None): At most so many images at once in one process; the largest divisor of the
            process's share that is not above it is taken. None is the whole share.
        fit_schedules (bool): False leaves schedules as they are written.
        Others: as :class:`mmengine.runner.IterBasedTrainLoop`.

    Raises:
        UserError: ``total_batch_size`` is not a multiple of the number of processes; schedules of another length than
            ``max_iters`` cannot be changed, or belong to a checkpoint that is resumed; gradients are accumulated by
            ``optim_wrapper.accumulative_counts`` too; or ``fast_forward_on_resume``, which this loop does not have.
    """

    def __init__(self, runner, dataloader, max_iters, total_batch_size, micro_batch_size=None, fit_schedules=True,
                 **settings):
        processes = get_world_size()
        if total_batch_size % processes:
            raise UserError(f'train_cfg.total_batch_size is {total_batch_size}, which {processes} processes cannot '
                            f'share evenly. Expected: a multiple of {processes}. Next: --cfg-options '
                            f'train_cfg.total_batch_size={processes * -(-total_batch_size // processes)} (the learning '
                            'rate follows), or start another number of processes.')
        share = total_batch_size // processes
        if micro_batch_size is not None and micro_batch_size < 1:
            raise UserError(f'train_cfg.micro_batch_size is {micro_batch_size}; expected: at least 1, or None.')
        micro = max(size for size in range(1, min(micro_batch_size or share, share) + 1) if share % size == 0)
        self.accumulations = share // micro
        counts = accumulative_counts(runner.optim_wrapper)
        if self.accumulations > 1 and counts > 1:
            raise UserError(f'optim_wrapper.accumulative_counts is {counts}, and train_cfg.micro_batch_size '
                            f'{micro_batch_size}: both accumulate gradients. Expected: one. Next: '
                            f'train_cfg.total_batch_size={total_batch_size * counts} (the learning rate follows) and '
                            'optim_wrapper.accumulative_counts=1, for the same number of images a step.')
        if settings.get('fast_forward_on_resume'):
            raise UserError(f'train_cfg.fast_forward_on_resume is True, and {type(self).__name__} always goes on '
                            'with the images that are next. Expected: False, or nothing.')
        # In place: the runner's linear scaling of the learning rate reads the batch size from this same dict.
        dataloader['batch_size'] = share
        super().__init__(runner, seeded(dataloader, self.seed_of(runner)), max_iters, **settings)
        if self.dataloader.generator is None:
            # Each iterator draws a number when it is made; a resumed run makes its own at another time.
            self.dataloader.generator = torch.Generator().manual_seed(self.seed_of(runner))
        self.parts = processes * self.accumulations
        self.ends = []
        if fit_schedules:
            self.fit_schedules()
        print_log(f'One iteration: {total_batch_size} images = {processes} process(es) × {self.accumulations} '
                  f'accumulation(s) × {micro} images', 'current')

    def fit_schedules(self):
        """Let the runner's schedules, which are not built yet, end with the run."""
        schedules = self.runner.param_schedulers
        if isinstance(schedules, dict) and 'type' in schedules:
            schedules = self.runner.param_schedulers = [schedules]
        if not isinstance(schedules, list) or not all(isinstance(schedule, dict) for schedule in schedules):
            return  # none, those of several optimizers, or built ones
        changes = fit_schedules(schedules, self._max_iters)
        if changes:
            print_log(f'param_scheduler follows train_cfg.max_iters = {self._max_iters}: {", ".join(changes)}',
                      'current')
            self.runner.cfg.param_scheduler = schedules  # for the config in the checkpoint
        self.ends = [None if schedule.get('by_epoch', True) else schedule.get('end') for schedule in schedules]

    @staticmethod
    def seed_of(runner):
        """The seed of all processes together, also where each has its own."""
        return runner.seed - (get_rank() if runner._randomness_cfg.get('diff_rank_seed') else 0)

    def run(self):
        runner = self.runner
        agree('iteration to go on from', self._iter)
        if self.ends:
            check_resumed(runner.param_schedulers, self.ends, self._max_iters)
        own = divides_by_its_own(runner.model) if self.parts > 1 else []
        if own:
            print_log(f'{", ".join(own)}: each of the {self.parts} parts of a batch ({get_world_size()} process(es) × '
                      f'{self.accumulations} accumulation(s)) divides its loss by its own pixels or weights, so that '
                      'their mean is another loss than that of the batch in one part, and another number of parts '
                      'trains another objective.', 'current', logging.WARNING)
        wrapper = runner.optim_wrapper
        if self.accumulations > 1:
            # The wrapper counts backward passes, not iterations. Each iteration is complete, so that there is no last
            # one that would accumulate fewer, however long the run becomes.
            wrapper._accumulative_counts = self.accumulations
            wrapper.initialize_count_status(runner.model, self._iter * self.accumulations, -1)
        try:
            with LIFELINE.tied():
                return self.train()
        finally:
            WATCH.end()
            self.dataloader_iterator._iterator = None
            for loop in (self, runner.val_loop):
                if loop is not None:
                    end_workers(loop.dataloader)

    def train(self):
        runner = self.runner
        runner.call_hook('before_train')
        runner.call_hook('before_train_epoch')
        if self._iter == 0:
            runner.message_hub.update_info('last_validated_iter', 0)
        else:
            reseed(self.dataloader, self.seed_of(runner))  # the checkpoint's
            self.dataloader_iterator.skip_iter(self._iter)
            if runner.message_hub.runtime_info.get('last_validated_iter', self._iter) != self._iter:
                self.validate()
        while self._iter < self._max_iters and not self.stop_training:
            runner.model.train()
            self.run_iter(next(self.dataloader_iterator))
            self.validate()
        runner.call_hook('after_train_epoch')
        runner.call_hook('after_train')
        return runner.model

    def validate(self):
        """Validation, where one is due after this iteration."""
        self._decide_current_val_interval()
        if self.runner.val_loop is not None and self._iter >= self.val_begin and (
                self._iter % self.val_interval == 0 or self._iter == self._max_iters):
            self.runner.val_loop.run()

    def run_iter(self, data_batch):
        self.runner.call_hook('before_train_iter', batch_idx=self._iter, data_batch=data_batch)
        outputs = [
            self.runner.model.train_step(part, optim_wrapper=self.runner.optim_wrapper)
            for part in self.split(data_batch)]
        outputs = {name: sum(output[name].detach() for output in outputs) / len(outputs) for name in outputs[0]}
        if get_world_size() > 1:
            # The log shows the loss of the whole batch, not of one process's share. The votes on leaving come along.
            outputs['vote'] = WATCH.vote(next(iter(outputs.values())))
            all_reduce_dict(outputs, op='mean')
            WATCH.votes = outputs.pop('vote')
        self.runner.call_hook('after_train_iter', batch_idx=self._iter, data_batch=data_batch, outputs=outputs)
        self._iter += 1

    def split(self, data_batch):
        size = len(data_batch['inputs']) // self.accumulations
        return [{key: value[start:start + size] for key, value in data_batch.items()}
                for start in range(0, size * self.accumulations, size)]
