import pytest

from .common import counts_of, write_run


@pytest.fixture
def candidates(tmp_path):
    """Three seeds each of two candidates, trained one after the other; the second is better."""
    return {name: [write_run(tmp_path / f'{name}{seed}', seed=seed, counts=counts_of(20, share, seed + offset),
                             start=f'2026-01-01T{seed + offset:02}:00:00+00:00')
                   for seed in range(3)] for name, share, offset in (('A', 0.5, 0), ('B', 0.6, 10))}
