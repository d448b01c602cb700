"""What was freed goes back to the system."""
import platform

import psutil
import pytest
import torch

from inceptionnext_seg._heap import give_back_freed


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='the C library is not glibc')
def test_what_is_freed_below_what_stays_goes_back_to_the_system():
    freed = [torch.zeros(2**14) for _ in range(2000)]   # 125 MiB in blocks that lie in the heap
    stays = torch.zeros(2**14)
    before = psutil.Process().memory_info().rss
    del freed
    assert give_back_freed()
    assert before - psutil.Process().memory_info().rss > 100 * 2**20
    assert not stays.any()
