"""DistributedDataParallel on CUDA and CPU. Registered in mmengine's root registry."""
import torch.nn as nn
from mmengine.dist import all_reduce_params, get_world_size
from mmengine.model import MMDistributedDataParallel, revert_sync_batchnorm
from mmengine.registry import MODEL_WRAPPERS


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
