"""A training loop whose batch is that of all processes together. Registered in mmengine's root registry."""
from mmengine.dist import all_reduce_dict, get_world_size
from mmengine.logging import print_log
from mmengine.registry import LOOPS
from mmengine.runner import IterBasedTrainLoop

from ..errors import UserError
from .schedules import check_resumed, fit_schedules


@LOOPS.register_module()
class TotalBatchTrainLoop(IterBasedTrainLoop):
    """Iterations of ``total_batch_size`` images over all processes together, however many there are.

    1, 2, 4 or 8 processes train the same recipe: each takes its share of the batch. Where the share does not fit in
    memory, ``micro_batch_size`` splits it and the gradients are accumulated; an iteration stays one optimizer step, so
    that schedules, logs and checkpoints count the same. BatchNorm then sees ``micro_batch_size`` images at a time.

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
            ``max_iters`` cannot be changed, or belong to a checkpoint that is resumed.
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
        # In place: the runner's linear scaling of the learning rate reads the batch size from this same dict.
        dataloader['batch_size'] = share
        super().__init__(runner, dataloader, max_iters, **settings)
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

    def run(self):
        if self.ends:
            check_resumed(self.runner.param_schedulers, self.ends, self._max_iters)
        wrapper = self.runner.optim_wrapper
        if self.accumulations > 1:
            # The wrapper counts backward passes, not iterations.
            wrapper._accumulative_counts = self.accumulations
            wrapper.initialize_count_status(
                self.runner.model, self._iter * self.accumulations, self._max_iters * self.accumulations)
        return super().run()

    def run_iter(self, data_batch):
        self.runner.call_hook('before_train_iter', batch_idx=self._iter, data_batch=data_batch)
        outputs = [
            self.runner.model.train_step(part, optim_wrapper=self.runner.optim_wrapper)
            for part in self.split(data_batch)]
        outputs = {name: sum(output[name].detach() for output in outputs) / len(outputs) for name in outputs[0]}
        all_reduce_dict(outputs, op='mean')  # the log shows the loss of the whole batch, not of one process's share
        self.runner.call_hook('after_train_iter', batch_idx=self._iter, data_batch=data_batch, outputs=outputs)
        self._iter += 1

    def split(self, data_batch):
        size = len(data_batch['inputs']) // self.accumulations
        return [{key: value[start:start + size] for key, value in data_batch.items()}
                for start in range(0, size * self.accumulations, size)]
