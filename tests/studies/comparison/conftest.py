import pytest

from .common import counts_of, write_run


@pytest.fixture
def candidates(tmp_path):
    """Three seeds each of two candidates; the second is better."""
    return {name: [write_run(tmp_path / f'{name}{seed}', seed=seed, counts=counts_of(20, share, seed + offset))
                   for seed in range(3)] for name, share, offset in (('A', 0.5, 0), ('B', 0.6, 10))}
