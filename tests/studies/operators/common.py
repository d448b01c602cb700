"""A small case, and made-up measurements, for the tests of this folder."""
from dataclasses import asdict

from studies.operators.cases import Case
from studies.operators.counting import count
from studies.operators.suites import select

SMALL = Case('square', (3, 3), 1.0, 'depthwise', channels=4, size=5, batch_size=2)

PEAKS = dict(macs_per_second=1e9, bytes_per_second=1e9, cache_bytes_per_second=4e9, matrix_size=8,
             copy_working_set=2**20, cache_copy_working_set=2**10, seconds={})


def result_where(time, rounds=8, **filters):
    """A result in which a call takes ``time(case, counts)`` seconds."""
    records = []
    kept = dict(dict(dtype=['fp32'], kernel=[(1, 1), (3, 3), (7, 7), (11, 11)]), **filters)
    for case in select('quick', **kept):
        counts = count(case)
        # The same disturbance in each round, which pairing has to take out.
        seconds = [time(case, counts) * (1 + 0.3 * (i % 3)) for i in range(rounds)]
        records.append(dict(
            asdict(case), parameters=counts.parameters, macs=counts.macs,
            needed_macs=counts.needed_macs, bytes=counts.bytes, bound_seconds=counts.bound(1e9, 1e9),
            implementations=['forward some', 'weight gradient other'],
            layout_bytes=0, repeats=1, warmup_rounds=3, settled=True, seconds=seconds))
    return dict(
        environment=dict(command='python tools/benchmark_ops.py', date='2000-01-01T00:00:00', device='cpu',
                         device_name='some', cpu_capability='none', threads=1, variables={}, versions=dict(torch='2')),
        suite='quick', rounds=rounds, clock='wall', peaks=dict(fp32=PEAKS), records=records)
