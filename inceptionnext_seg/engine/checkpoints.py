"""Checkpoints that are whole, from which a run goes on bit for bit. Registered in the place of mmengine's hook, under
its name, so that every config that names ``CheckpointHook`` has it, under any tool."""
import contextlib
import fnmatch
import shutil
import sys
from collections import deque
from pathlib import Path

from mmengine.dist import barrier, is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook as InPlaceCheckpointHook
from mmengine.hooks import EMAHook
from mmengine.registry import HOOKS
from mmengine.runner import BaseLoop

from ..errors import UserError
from ..files import left_behind, replacing
from . import run_state
from .interruption import WATCH, shield
from .lifeline import LIFELINE
from .occupying import occupy
from .optim import check_precision, precisions
from .resuming import find_latest, forget, is_pointed_to, number_of, point_to, was_restarted
from .schedules import check_hyperparameters, hyperparameters


class WholeFileBackend(LocalBackend):
    """Files appear under their names when they are whole, and others are removed after that."""

    def __init__(self):
        super().__init__()
        self.postponed = None

    def put(self, obj, filepath):
        with replacing(filepath) as temporary:
            temporary.write_bytes(obj)

    def remove(self, filepath):
        if self.postponed is None:
            super().remove(filepath)
        else:
            self.postponed.append(filepath)

    @contextlib.contextmanager
    def removing_afterwards(self):
        """What is removed in the block is removed at its end, and not at all where it ends with an error."""
        self.postponed = []
        try:
            yield
        finally:
            postponed, self.postponed = self.postponed, None
        for filepath in postponed:
            super().remove(filepath)


register_backend('whole_files', WholeFileBackend)


@HOOKS.register_module(name='CheckpointHook', force=True)
class CheckpointHook(InPlaceCheckpointHook):
    """mmengine's ``CheckpointHook``, its settings and file names, and besides:

    - A checkpoint is written to a temporary file, synchronized and renamed; ``last_checkpoint`` names it after that,
      relative to the work_dir; then old ones are deleted. So do best ones.
    - It holds the run's state (:mod:`.run_state`): a resumed run is the run that was not interrupted. Validation has no
      part in the random numbers of training, so that it does not matter when it was.
    - ``resume`` without a path takes the newest checkpoint that is whole; so does a run that torchrun has started
      again, of itself. A run that begins at its start leaves older checkpoints and forgets
      ``last_checkpoint``, for these are another run's.
    - SIGTERM and Ctrl-C save a checkpoint after the current iteration, and the process leaves with status 143 or 130.
      In a validation of several processes they wait for its end, unless the checkpoint is written already.
    - A process that dies ends the others (:mod:`.lifeline`).
    - A second training in the same work_dir is refused (:mod:`.occupying`).

    Raises:
        UserError: The disk is full or cannot be written; checkpoints that are there are kept. Or another process trains
            in the work_dir.
    """

    def __init__(self, *args, **settings):
        super().__init__(*args, **settings)
        self.state = None       # of the run, while a checkpoint is written
        self.held = None        # random states of training, while validation runs
        self.resumed = None     # the run's state in the checkpoint, until the first iteration
        self.built = None       # rates, weight decay and the like of the optimizer, as the config says
        self.precision = None   # of each optimizer's steps, in words
        self.saving_best = self.best_is_new = False
        self.occupied = None    # the lock of the work_dir

    # The begin of a run

    def before_run(self, runner):
        """Before the runner loads weights: say which."""
        if not isinstance(runner._train_loop, BaseLoop) or runner._has_loaded:
            return  # a test
        LIFELINE.begin()
        self.occupied = occupy(runner.work_dir)
        optimizers = [wrapper.optimizer for wrapper in run_state.wrappers_of(runner.optim_wrapper)]
        self.built = hyperparameters(group for optimizer in optimizers for group in optimizer.param_groups)
        self.precision = precisions(runner.optim_wrapper)
        restarted = was_restarted()
        if not restarted and not runner._resume:
            forget(runner.work_dir)  # before anything fails that torchrun would start again
        if (restarted and not runner._resume) or (runner._resume and runner._load_from is None):
            latest = find_latest(runner.work_dir)
            runner._resume = latest is not None
            runner._load_from = str(latest[0]) if latest else runner._load_from
            what = f'goes on from {latest[0]}' if latest else 'begins at its start: there is no checkpoint yet'
            runner.logger.info(f'{"Started again" if restarted else "Resuming"}: training {what}.')

    def after_load_checkpoint(self, runner, checkpoint):
        if not runner._resume:
            return
        # A config in Python, which mmengine would run, for the number of GPUs that mmcv 1 wrote there.
        checkpoint['meta'].pop('config', None)
        self.resumed = run_state.check(checkpoint.get('run_state'))
        if self.built is not None:
            check_hyperparameters(self.built, self.trained_with(checkpoint))
            check_precision(self.precision, (self.resumed or {}).get('precision'))
        if self.resumed is None:
            runner.logger.warning('The checkpoint to resume has no random states: training goes on from its weights, '
                                  'but is not the run that it would have been.')
        else:
            run_state.restore_hooks(runner, self.resumed)

    @staticmethod
    def trained_with(checkpoint):
        """Hyperparameters of the run that wrote a checkpoint; a hook may have changed those of its optimizer."""
        saved = (checkpoint.get('run_state') or {}).get('hyperparameters')
        if isinstance(saved, list) and all(isinstance(group, dict) for group in saved):
            return saved
        optimizer = checkpoint.get('optimizer') or {}
        states = [optimizer] if 'param_groups' in optimizer else optimizer.values()
        return hyperparameters(group for state in states for group in state['param_groups'])

    def before_train(self, runner):
        local = self.backend_args is None and self.file_client_args is None and \
            '://' not in str(self.out_dir or runner.work_dir)
        if local:
            self.backend_args = dict(backend='whole_files')
        remembered = self.take_remembered(runner)
        super().before_train(runner)
        self.find_best(runner, remembered)
        if runner._resume:
            self.last_ckpt = str(runner._load_from)
            runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        if local and is_main_process():
            for path in left_behind(self.out_dir, self.filename_tmpl.format('*')):
                path.unlink()
            if not runner._resume:
                self.forget_others(runner)
        for loop in (runner.train_loop, runner.val_loop):
            if loop is not None:
                shield(loop.dataloader)
        WATCH.begin()

    @staticmethod
    def take_remembered(runner):
        """What a resumed checkpoint says of files, which mmengine would delete: it is untrusted, or of another folder.

        Returns:
            dict[str, object]: ``best_ckpt``, ``best_ckpt_mIoU``, ..., which are no longer in the message hub.
        """
        known = runner.message_hub.runtime_info
        if 'keep_ckpt_ids' in known:
            numbers = known['keep_ckpt_ids'] if isinstance(known['keep_ckpt_ids'], list) else []
            known['keep_ckpt_ids'] = [number for number in numbers if type(number) is int and number >= 0]
        return {name: known.pop(name) for name in list(known) if str(name).startswith('best_ckpt')}

    def find_best(self, runner, remembered):
        """The best checkpoints that a better one replaces: this run's own, in its folder, whatever path is named."""
        for name, value in remembered.items():
            own = Path(str(value)).name
            path = self.file_backend.join_path(self.out_dir, own)
            if not fnmatch.fnmatch(own, f'best_*_{self.filename_tmpl.format("*")}') or (
                    not self.file_backend.isfile(path)):
                continue
            monitored = name.removeprefix('best_ckpt').removeprefix('_')
            if not monitored and hasattr(self, 'best_ckpt_path'):
                self.best_ckpt_path = path
            elif monitored in getattr(self, 'best_ckpt_path_dict', ()):
                self.best_ckpt_path_dict[monitored] = path
            else:
                continue
            runner.message_hub.update_info(name, path)

    def forget_others(self, runner):
        """A run from the start: checkpoints in its work_dir are another run's."""
        forget(runner.work_dir)
        others = sorted(Path(self.out_dir).glob(self.filename_tmpl.format('*')), key=number_of)
        if others:
            runner.logger.warning(f'{self.out_dir} has checkpoints of an earlier run: {others[0].name} to '
                                  f'{others[-1].name}. They stay until this run writes one of the same name.')

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.restore(runner)

    def restore(self, runner):
        """Once, before the first iteration, or before a validation that is made up for and may save a checkpoint."""
        if self.resumed is not None:
            run_state.restore(runner, self.resumed)
            self.resumed = None

    # Iterations and signals

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        super().after_train_iter(runner, batch_idx, data_batch, outputs)
        number = WATCH.decision(runner.iter + 1)
        if number is not None:
            self.save_at(runner, runner.iter + 1)
            self.leave(runner, number, runner.iter + 1)

    def before_val(self, runner):
        self.restore(runner)
        self.held = run_state.random_state()

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if not self.trains(runner) or WATCH.received is None:
            return
        if runner.distributed:
            # The others may not leave, and the main process may still write: at the end of the validation.
            if not self.is_saved(runner.iter) or not is_pointed_to(runner.work_dir, self.last_ckpt):
                return
        elif not self.is_saved(runner.iter):
            for hook in runner.hooks:
                if isinstance(hook, EMAHook):
                    hook._swap_ema_parameters()  # validation runs on the averaged weights
        self.save_at(runner, runner.iter)
        self.leave(runner, WATCH.received, runner.iter, together=False)

    def after_val(self, runner):
        if self.trains(runner):
            runner.message_hub.update_info('last_validated_iter', runner.iter)
            number = WATCH.decision(0)
            if self.best_is_new and self.last_ckpt is not None:
                # For its best score, by which the next is measured.
                self._save_checkpoint_with_step(runner, runner.iter, self.meta(runner, runner.iter))
            elif number is not None:
                self.save_at(runner, runner.iter)
            self.best_is_new = False
            if number is not None:
                self.leave(runner, number, runner.iter)
        run_state.set_random_state(self.held)
        self.held = None

    def after_train(self, runner):
        super().after_train(runner)
        WATCH.end()
        LIFELINE.end()
        if self.occupied is not None:
            self.occupied.close()

    def leave(self, runner, number, step, together=True):
        """End this process, whose checkpoint is saved."""
        if together and runner.distributed:
            barrier()  # the main process has written it
        LIFELINE.end(None if together else f'it has received {number.name}')
        if is_main_process():
            print(f'{number.name} at iteration {step}: {self.last_ckpt or "no checkpoint"} is saved, and --resume goes '
                  'on from there.', file=sys.stderr, flush=True)
        sys.exit(128 + number)

    @staticmethod
    def trains(runner):
        return isinstance(runner._train_loop, BaseLoop) and bool(WATCH.before)

    # Writing

    def is_saved(self, step):
        return self.last_ckpt is not None and not self.by_epoch and number_of(Path(self.last_ckpt)) == step

    @staticmethod
    def meta(runner, step):
        return dict(epoch=runner.epoch, iter=step)

    def save_at(self, runner, step):
        """A checkpoint after iteration ``step``, where no interval ends; within an epoch no run can go on."""
        if not self.by_epoch and not self.is_saved(step):
            self._save_checkpoint_with_step(runner, step, self.meta(runner, step))

    def _save_checkpoint_with_step(self, runner, step, meta):
        if self.saving_best:
            self.best_is_new = True  # saved when all hooks have seen the validation
            return
        self.state = dict(run_state.capture(runner, self.held), hyperparameters=self.built, precision=self.precision)
        hub, outdated = runner.message_hub, []
        if self.max_keep_ckpts > 0:
            steps = [*(kept for kept in self.keep_ckpt_ids if kept != step), step]
            outdated = steps[:-self.max_keep_ckpts]
            # In the file also those that are deleted once it is whole: a run resumed from it deletes them.
            hub.update_info('keep_ckpt_ids', steps)
            self.keep_ckpt_ids = deque(steps[-self.max_keep_ckpts:], self.max_keep_ckpts)
        name = self.filename_tmpl.format(step)
        path = self.file_backend.join_path(self.out_dir, name)
        with self.kept_whole(runner, path):
            runner.save_checkpoint(
                self.out_dir, name, self.file_client_args, save_optimizer=self.save_optimizer,
                save_param_scheduler=self.save_param_scheduler, meta=meta, by_epoch=self.by_epoch,
                backend_args=self.backend_args, **self.args)
            if is_main_process():
                point_to(runner.work_dir, path)
                for number in outdated:
                    self.remove(self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(number)))
        self.state, self.last_ckpt = None, path
        hub.update_info('last_ckpt', path)
        if self.max_keep_ckpts > 0:
            hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))

    def before_save_checkpoint(self, runner, checkpoint):
        if self.state is not None:
            checkpoint['run_state'] = self.state

    def _save_best_checkpoint(self, runner, metrics):
        if not self.save_best:
            return
        removing = getattr(self.file_backend, 'removing_afterwards', contextlib.nullcontext)
        with self.kept_whole(runner, self.file_backend.join_path(self.out_dir, 'best_*.pth')), removing():
            self.saving_best = True
            super()._save_best_checkpoint(runner, metrics)
            self.saving_best = False

    def remove(self, path):
        if self.file_backend.isfile(path):
            self.file_backend.remove(path)
        elif self.file_backend.isdir(path):  # DeepSpeed's
            self.file_backend.rmtree(path)

    @contextlib.contextmanager
    def kept_whole(self, runner, path):
        try:
            yield
        except OSError as error:
            last = self.last_ckpt or (runner._load_from if runner._resume else None)
            raise UserError(f'{path} cannot be written: {error.strerror or error}{free_space(self.out_dir)}. Last good '
                            f'checkpoint: {last or "none"}. Next: make room there, and go on with --resume.') from error


def free_space(folder):
    try:
        return f', with {shutil.disk_usage(folder).free / 2**20:.0f} MiB free'
    except OSError:
        return ''
