"""Freed memory stays with the process where glibc can be told so, and where nobody said otherwise."""
import os
import platform
import subprocess
import sys
from argparse import Namespace
from unittest import mock

import pytest
from mmengine.config import Config

from inceptionnext_seg.engine import allocator, launch

FAULTS = """
import resource, torch
from inceptionnext_seg.engine.allocator import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.empty(2**25).fill_(1.)    # 128 MiB, freed at once
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

# The least of several: an aligned block may not fit where the last one was, and the heap then grows once more.
fresh = min(faults() for _ in range(6))
told = keep_freed_memory()
print(told, fresh, min(faults() for _ in range(6)))
"""
glibc = pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='the C library is not glibc')


def run(**variables):
    clean = {name: value for name, value in os.environ.items() if name not in allocator.VARIABLES}
    result = subprocess.run([sys.executable, '-c', FAULTS], env={**clean, **variables}, capture_output=True, text=True,
                            check=True)
    told, *faults = result.stdout.split()
    return told == 'True', *map(int, faults)


@glibc
def test_memory_freed_by_one_step_is_there_for_the_next():
    told, fresh, kept = run()
    assert told
    if fresh < 1000:
        pytest.skip(f'this system maps 128 MiB in {fresh} page faults by itself')
    assert kept < fresh / 10


def test_a_comparison_can_have_what_glibc_does_by_itself(monkeypatch):
    told = []
    monkeypatch.setattr(allocator, 'set_thresholds', lambda mapped, trimmed: told.append((mapped, trimmed)))
    with pytest.raises(KeyError), allocator.giving_back():
        assert told == [(2**25, 2**26)]
        raise KeyError
    assert told[1:] == [(2**31 - 1, 2**31 - 1)]


@glibc
def test_what_the_user_told_glibc_holds():
    assert not run(MALLOC_TRIM_THRESHOLD_='131072')[0]


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(platform, 'system', lambda: 'Darwin')
    assert not allocator.keep_freed_memory()


@pytest.mark.parametrize('cuda', [False, True])
def test_training_on_a_cpu_keeps_its_memory(cuda, monkeypatch, tmp_path):
    monkeypatch.setenv('LOCAL_RANK', '0')
    args = Namespace(launcher='none', local_rank=0, work_dir=str(tmp_path), config='config.py')
    monkeypatch.setattr('torch.cuda.is_available', lambda: cuda)
    with mock.patch.object(launch, 'keep_freed_memory') as keep:
        launch.prepare(Config(), args)
    assert keep.called != cuda
