from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from studies.operators.measuring import measure_group
from studies.timing import InputPool

from .common import PEAKS, SMALL


@pytest.mark.filterwarnings('ignore:CUDA is not available')
@pytest.mark.parametrize('mode', ['infer', 'train'])
def test_a_group_is_measured_on_a_device_that_is_not_a_cpu(mode):
    # The device 'meta' computes nothing; a fake one takes 0.5 s whenever it is waited for.
    fake = SimpleNamespace(now=0.0)

    def work():
        fake.now += 0.5

    group = [replace(SMALL, mode=mode), replace(SMALL, mode=mode, cache='hot'),
             replace(SMALL, mode=mode, form='one_pass')]
    pool = InputPool(torch.float32, 'meta', nbytes=2**16)
    peaks = dict(PEAKS, macs_per_second=1e15)
    records = measure_group(group, pool, 'meta', peaks, rounds=8, synchronize=work, clock=lambda: fake.now)
    assert [record['seconds'] for record in records] == [[0.5] * 8] * 3
    assert [record['cache'] for record in records] == ['cold', 'hot', 'cold']
    assert records[0]['bound_seconds'] == pytest.approx(4 * records[1]['bound_seconds']), 'that of memory and of cache'
    assert all(record['layout_bytes'] is None for record in records)
