"""Processes that are started again find each other, and not the dead ones before them."""
import threading
from datetime import timedelta

import torch

from inceptionnext_seg.engine import joining


def attempt(store, processes):
    """What each process of an attempt finds under one name; the first comes last."""
    found = {}

    def run(rank):
        part = joining.fresh(store.clone(), rank, processes)
        part.set(f'address/{rank}', 'here')
        found[rank] = part

    threads = [threading.Thread(target=run, args=(rank, )) for rank in reversed(range(processes))]
    for thread in threads:
        thread.start()
        thread.join(0.2)
    for thread in threads:
        thread.join(10)
    return found


def test_an_attempt_shares_a_part_of_the_store_with_nobody_before_it():
    store = torch.distributed.TCPStore('127.0.0.1', 0, is_master=True, timeout=timedelta(seconds=10), use_libuv=True)
    first = attempt(store, 3)
    assert all(part.check([f'address/{rank}' for rank in range(3)]) for part in first.values())
    # A call of a process 0 that died before the others came.
    store.set(joining.CALL, 'dead')
    second = attempt(store, 3)
    assert all(part.check([f'address/{rank}' for rank in range(3)]) for part in second.values())
    second[0].set('mark', 'second')
    assert second[2].check(['mark']) and not first[2].check(['mark'])
