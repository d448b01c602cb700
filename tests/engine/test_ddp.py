"""Which BatchNorm DistributedDataParallel trains with; that two processes train as one is in test_loops.py."""
from types import SimpleNamespace

import pytest
import torch.nn as nn

from inceptionnext_seg.engine import ddp
from inceptionnext_seg.engine.ddp import AnyDeviceDistributedDataParallel


@pytest.mark.parametrize(('on_cuda', 'processes', 'norm'), [
    (True, 2, nn.SyncBatchNorm), (True, 1, nn.BatchNorm2d), (False, 2, nn.BatchNorm2d)])
def test_batchnorm_is_synchronized_where_several_cuda_processes_train_and_there_alone(
        monkeypatch, on_cuda, processes, norm):
    wrapped = {}

    def wrap(self, module, device_ids=None, **settings):
        nn.Module.__init__(self)
        wrapped.update(module=module, device_ids=device_ids)

    monkeypatch.setattr(ddp.MMDistributedDataParallel, '__init__', wrap)
    monkeypatch.setattr(ddp, 'get_world_size', lambda: processes)
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    monkeypatch.setattr(network, 'parameters', lambda: iter([SimpleNamespace(is_cuda=on_cuda)]))
    AnyDeviceDistributedDataParallel(network, device_ids=[0])
    assert isinstance(wrapped['module'][1], nn.SyncBatchNorm) == (norm is nn.SyncBatchNorm)
    assert wrapped['device_ids'] == ([0] if on_cuda else None)
