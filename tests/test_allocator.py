"""Freed memory stays with the process where glibc can be told so, and where nobody said otherwise."""
import os
import platform
import subprocess
import sys
from argparse import Namespace
from unittest import mock

import pytest
from mmengine.config import Config

from inceptionnext_seg import allocator, launch

FAULTS = """
import resource, torch
from inceptionnext_seg.allocator import giving_back, keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.empty(2**25).fill_(1.)    # 128 MiB, freed at once
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

fresh = [faults(), faults()][1]
told = keep_freed_memory()
kept = [faults(), faults()][1]
with giving_back():
    given_back = [faults(), faults()][1]
print(told, fresh, kept, given_back, [faults(), faults()][1])
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
    told, fresh, kept, given_back, again = run()
    assert told
    if fresh < 1000:
        pytest.skip(f'this system maps 128 MiB in {fresh} page faults by itself')
    assert kept < fresh / 10
    # Unless a comparison asks for what glibc does by itself.
    assert given_back > fresh / 2 and again < fresh / 10


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
