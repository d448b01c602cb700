"""Stop a run at the first loss or gradient that is not finite, before it overwrites its last good checkpoint."""
import math
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import torch
from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from ..errors import UserError
from ..models.checkpoint import not_finite
from ..ops import label_check
from ..ops.host_copy import copy_to_host
from .run_state import wrappers_of

SHOWN = 8


class Iteration(NamedTuple):
    """What an error says of an iteration."""
    number: int
    images: list
    rates: dict


@HOOKS.register_module()
class FiniteHook(Hook):
    """Stops training at the first loss or gradient that is not finite.

    ``default_hooks = dict(finite=dict(type='FiniteHook'))``. The error names the iteration, the images of the batch,
    the learning rate and the last checkpoint, which stays as it is: the hook comes before ``CheckpointHook``.

    It waits for no device. Losses are those that mmengine's ``RuntimeInfoHook`` has fetched for the log. Of the
    gradients one norm is taken in each step, just before the optimizer uses them, and whether it is finite is copied to
    the host while the device goes on; the hook looks when the copy has arrived, in the same iteration or in the next.
    In float32 a norm above 1.8e19 is not finite; an optimizer that squares gradients can do nothing with it either.

    On CUDA a label that is no class makes the loss NaN; then the error is the one for labels, as on a CPU.

    A gradient that is not finite under a ``GradScaler`` (fp16 on CUDA) is no error: the scaler skips that step and
    lowers its scale. A loss that is not finite always is.
    """

    priority = 'HIGH'  # after RuntimeInfoHook, before EMAHook, ParamSchedulerHook and CheckpointHook

    def before_train(self, runner):
        self.handles = [wrapper.optimizer.register_step_pre_hook(self.measure)
                        for wrapper in wrappers_of(runner.optim_wrapper)]
        self.flags = []     # of the current iteration
        self.pending = []   # (HostCopy, Iteration)

    def measure(self, optimizer, args, kwargs):
        """Note whether the gradients that ``optimizer`` is about to use are finite."""
        if torch.compiler.is_compiling() or getattr(optimizer, 'found_inf', None) is not None:
            return  # a GradScaler looks at them itself
        gradients = defaultdict(list)
        for group in optimizer.param_groups:
            for parameter in group['params']:
                if parameter.grad is not None and parameter.grad.layout == torch.strided:
                    gradients[parameter.grad.device, parameter.grad.dtype].append(parameter.grad)
        for tensors in gradients.values():
            norms = torch._foreach_norm(tensors, 2, dtype=torch.promote_types(tensors[0].dtype, torch.float32))
            self.flags.append(copy_to_host(torch.stack(norms).isfinite().all()))

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        iteration = Iteration(runner.iter + 1, image_names(data_batch), runner.optim_wrapper.get_lr())
        logged = runner.message_hub.log_scalars
        losses = {name: logged[f'train/{name}'].current() for name in outputs or {}
                  if 'loss' in name and f'train/{name}' in logged}
        wrong = [f'{name} is {value}' for name, value in losses.items() if not math.isfinite(value)]
        # A gradient of an iteration before is the cause.
        self.look(runner, wait=bool(wrong))
        if wrong:
            label_check.check(wait=True)    # on CUDA a label that is no class makes a loss NaN
            raise self.error(runner, iteration, ', '.join(wrong))
        self.pending += [(flag, iteration) for flag in self.flags]
        self.flags.clear()
        self.look(runner)

    def look(self, runner, wait=False):
        while self.pending and (wait or self.pending[0][0].is_known()):
            flag, iteration = self.pending.pop(0)
            if not flag.value():
                raise self.error(runner, iteration, 'the losses are finite, but a gradient is not')

    def before_save_checkpoint(self, runner, checkpoint):
        if hasattr(self, 'pending'):
            self.look(runner, wait=True)
        wrong = not_finite(checkpoint['state_dict'])
        if wrong:
            raise UserError(f'{self.place(runner.iter + 1)}: weights are not finite, and no checkpoint is written: '
                            f'{listed(wrong)}. {self.way_on(runner)}')

    def after_train(self, runner):
        self.look(runner, wait=True)
        for handle in self.handles:
            handle.remove()

    def error(self, runner, iteration, what):
        rates = ', '.join(f'{name} {values[0]:.3g}' for name, values in iteration.rates.items())
        process = f' of process {get_rank()}' if get_world_size() > 1 else ''
        images = listed(iteration.images) or 'without file names'
        return UserError(f'{self.place(iteration.number)}: {what}. Expected: finite numbers. Rate: {rates}. Images of '
                         f'the batch{process}: {images}. {self.way_on(runner)}')

    @staticmethod
    def place(number):
        return f'training stopped at iteration {number}'

    @staticmethod
    def way_on(runner):
        saved = runner.message_hub.runtime_info.get('last_ckpt') or (runner._resume and runner._load_from)
        saved = saved if saved and Path(saved).is_file() else None
        images = 'a look at these images and their masks, then'
        if not saved:
            return (f'Last finite checkpoint: none. Next: {images} a lower optim_wrapper.optimizer.lr, or '
                    'optim_wrapper.clip_grad.max_norm=1.')
        return (f'Last finite checkpoint: {saved}. Next: {images} --resume with optim_wrapper.clip_grad.max_norm=1, '
                f'from that checkpoint; or a lower optim_wrapper.optimizer.lr, in a new run: load_from={saved} without '
                '--resume.')


def image_names(data_batch):
    """The files of the images in a batch of an mm framework, where its samples name them."""
    samples = data_batch.get('data_samples') if isinstance(data_batch, dict) else None
    names = [getattr(sample, 'img_path', None) for sample in samples or ()]
    return [str(name) for name in names if name]


def listed(names):
    more = f' and {len(names) - SHOWN} more' if len(names) > SHOWN else ''
    return ', '.join(names[:SHOWN]) + more
