"""What a training run needs beyond mmengine: a batch for all processes, learning-rate decay, AMP and DDP anywhere.

All of it is registered in mmengine's root registries, so that any mm framework's config can name it.
"""
import contextlib
import re

import torch
import torch.nn as nn
from mmengine.dist import all_reduce_dict, all_reduce_params, get_world_size
from mmengine.logging import print_log
from mmengine.model import MMDistributedDataParallel, revert_sync_batchnorm
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from mmengine.registry import LOOPS, MODEL_WRAPPERS, OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS
from mmengine.runner import IterBasedTrainLoop

from ..errors import UserError


@LOOPS.register_module()
class TotalBatchTrainLoop(IterBasedTrainLoop):
    """Iterations of ``total_batch_size`` images over all processes together, however many there are.

    1, 2, 4 or 8 processes train the same recipe: each takes its share of the batch. Where the share does not fit in
    memory, ``micro_batch_size`` splits it and the gradients are accumulated; an iteration stays one optimizer step, so
    that schedules, logs and checkpoints count the same. BatchNorm then sees ``micro_batch_size`` images at a time.

    Args:
        total_batch_size (int): Images of one optimizer step. ``auto_scale_lr`` of the runner follows it.
        micro_batch_size (int | None): At most so many images at once in one process; the largest divisor of the
            process's share that is not above it is taken. None is the whole share.
        Others: as :class:`mmengine.runner.IterBasedTrainLoop`.

    Raises:
        UserError: ``total_batch_size`` is not a multiple of the number of processes.
    """

    def __init__(self, runner, dataloader, max_iters, total_batch_size, micro_batch_size=None, **settings):
        processes = get_world_size()
        if total_batch_size % processes:
            raise UserError(f'train_cfg.total_batch_size is {total_batch_size}, which {processes} processes cannot '
                            f'share evenly. Wanted: a multiple of {processes}. Next: --cfg-options '
                            f'train_cfg.total_batch_size={processes * -(-total_batch_size // processes)} (the learning '
                            'rate follows), or start another number of processes.')
        share = total_batch_size // processes
        if micro_batch_size is not None and micro_batch_size < 1:
            raise UserError(f'train_cfg.micro_batch_size is {micro_batch_size}; wanted: at least 1, or None.')
        micro = max(size for size in range(1, min(micro_batch_size or share, share) + 1) if share % size == 0)
        self.accumulations = share // micro
        # In place: the runner's linear scaling of the learning rate reads the batch size from this same dict.
        dataloader['batch_size'] = share
        super().__init__(runner, dataloader, max_iters, **settings)
        print_log(f'One iteration: {total_batch_size} images = {processes} process(es) × {self.accumulations} '
                  f'accumulation(s) × {micro} images', 'current')

    def run(self):
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


def metanext_layer_id(name, decay_type, num_layers):
    """The id of a segmentor's parameter in learning-rate decay, as MMSegmentation counts it for its ConvNeXt.

    'stage_wise': stem and every downsampling 0, stage i (from 0) i + 1, everything else, output norms too,
    ``num_layers + 1``. 'layer_wise': stem 0, stages 0 and 1 are 1 and 2, each three blocks of stage 2 one more from 3,
    stage 3 ``num_layers``, downsampling with the stage it opens, everything else ``num_layers + 1``.
    """
    rest = num_layers + 1
    if not name.startswith('backbone.'):
        return rest
    if name.startswith('backbone.stem.'):
        return 0
    found = re.match(r'backbone\.stages\.(\d+)\.(downsample|blocks\.(\d+))\.', name)
    if not found:
        return rest
    stage, downsample = int(found[1]), found[2] == 'downsample'
    if decay_type == 'stage_wise':
        return 0 if downsample else stage + 1
    if stage == 2:
        return 3 if downsample else 3 + int(found[3]) // 3
    return (1, 2, None, num_layers)[stage]


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class MetaNeXtDecayOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Learning-rate decay for MetaNeXt backbones: MMSegmentation's own constructor knows only ConvNeXt's names.

    ``paramwise_cfg`` is spelled as there: ``dict(decay_rate=0.9, decay_type='stage_wise' | 'layer_wise',
    num_layers=6)``. A parameter's rate is ``lr * decay_rate ** (num_layers + 1 - id)``, see :func:`metanext_layer_id`.
    Norms, biases and layer scales (everything with one dimension) get no weight decay.
    """

    def __init__(self, optim_wrapper_cfg, paramwise_cfg=None):
        wanted = {'decay_rate', 'decay_type', 'num_layers'}
        decay_type = (paramwise_cfg or {}).get('decay_type')
        if set(paramwise_cfg or {}) != wanted or decay_type not in ('stage_wise', 'layer_wise'):
            raise UserError(f'optim_wrapper.paramwise_cfg is {paramwise_cfg}; {type(self).__name__} wants '
                            f"{sorted(wanted)}, with decay_type 'stage_wise' or 'layer_wise'.")
        super().__init__(optim_wrapper_cfg, paramwise_cfg)

    def add_params(self, params, module, **kwargs):
        decay_rate, num_layers = self.paramwise_cfg['decay_rate'], self.paramwise_cfg['num_layers']
        groups = {}
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad:
                continue
            layer_id = metanext_layer_id(name, self.paramwise_cfg['decay_type'], num_layers)
            decay = parameter.ndim > 1
            lr_scale = decay_rate**(num_layers + 1 - layer_id)
            group = groups.setdefault((layer_id, decay), dict(
                params=[], param_names=[], lr_scale=lr_scale, lr=self.base_lr * lr_scale))
            if not decay:
                group['weight_decay'] = 0.
            group['params'].append(parameter)
            group['param_names'].append(name)
        params.extend(groups[key] for key in sorted(groups))


@OPTIM_WRAPPERS.register_module()
class CPUAmpOptimWrapper(OptimWrapper):
    """bfloat16 autocast on a CPU, where mmengine's ``AmpOptimWrapper`` refuses to run. It needs no loss scaling."""

    @contextlib.contextmanager
    def optim_context(self, model):
        with super().optim_context(model), torch.autocast('cpu', dtype=torch.bfloat16):
            yield


@MODEL_WRAPPERS.register_module()
class AnyDeviceDistributedDataParallel(MMDistributedDataParallel):
    """DistributedDataParallel for CUDA and CPU, with the BatchNorm that the run can have.

    On CUDA with several processes every BatchNorm becomes SyncBatchNorm. On a CPU, where SyncBatchNorm raises, each
    process normalizes with its own images' statistics, and the running ones are averaged after every step, so that all
    processes evaluate, and the checkpoint holds, the same model.
    """

    def __init__(self, module, device_ids=None, **settings):
        self.on_cuda = next(module.parameters()).is_cuda
        if self.on_cuda and get_world_size() > 1:
            module = nn.SyncBatchNorm.convert_sync_batchnorm(module)
        else:
            module = revert_sync_batchnorm(module)
        super().__init__(module, device_ids=device_ids if self.on_cuda else None, **settings)

    def train_step(self, data, optim_wrapper):
        log_vars = super().train_step(data, optim_wrapper)
        statistics = [buffer for buffer in self.module.buffers() if buffer.is_floating_point()]
        if not self.on_cuda and get_world_size() > 1 and statistics:
            all_reduce_params(statistics, op='mean')
        return log_vars
