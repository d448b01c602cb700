import torch

from studies.throughput import memory
from studies.throughput.setting import Setting
from studies.throughput.step import candidate_step

from .common import INCEPTIONNEXT, SMALL


def test_the_peak_memory_of_a_child_is_not_that_of_its_larger_parent():
    ballast = torch.ones(3 * 2**28)     # 3 GiB
    peak, before = memory.peak_memory(INCEPTIONNEXT, SMALL, Setting('infer', batch_size=1, size=32), 'nhwc')
    assert 2**26 < before < peak < ballast.nbytes


def test_the_memory_of_a_step_is_that_of_weights_gradients_optimizer_and_maps(monkeypatch):
    class Connection:
        def send(self, sent):
            self.sent = sent

    kept, connection = [], Connection()
    monkeypatch.setattr(memory, 'keep_freed_memory', lambda: kept.append(True))
    monkeypatch.setattr(memory, 'current_memory', lambda device: 2**30)
    monkeypatch.setattr(memory, 'highest_memory', lambda device: 2**31)
    setting = Setting('train', batch_size=2, size=32)
    memory.measure_memory(connection, INCEPTIONNEXT, SMALL, setting, 'nhwc', torch.get_num_threads())
    model = candidate_step(INCEPTIONNEXT, SMALL, setting, 'nhwc').model
    weights = sum(t.nbytes for t in [*model.parameters(), *model.buffers()])
    assert connection.sent == (2**31, 2**30 - weights - 2 * 3 * 32 * 32 * 4) and kept
