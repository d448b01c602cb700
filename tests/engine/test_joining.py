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


def wait_for_addresses(found):
    """All find all; a store answers one connection before it may have read what another has sent."""
    assert len(found) == 3
    for part in found.values():
        part.wait([f'address/{rank}' for rank in range(3)], timedelta(seconds=10))


def test_an_attempt_shares_a_part_of_the_store_with_nobody_before_it():
    store = torch.distributed.TCPStore('127.0.0.1', 0, is_master=True, timeout=timedelta(seconds=10), use_libuv=True)
    first = attempt(store, 3)
    wait_for_addresses(first)
    # A call of a process 0 that died before the others came.
    store.set(joining.CALL, 'dead')
    second = attempt(store, 3)
    wait_for_addresses(second)
    second[0].set('mark', 'second')
    assert second[2].get('mark') == b'second' and not first[2].check(['mark'])
