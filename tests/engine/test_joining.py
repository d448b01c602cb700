"""Processes that are started again find each other, and not the dead ones before them."""
import socket
import threading
from datetime import timedelta

import pytest
import torch

from inceptionnext_seg.engine import joining
from inceptionnext_seg.errors import UserError


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


@pytest.mark.skipif(not hasattr(torch.distributed.TCPStore, 'clone'), reason='a store of this torch cannot be cloned')
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


def test_processes_started_by_hand_name_the_one_that_never_came(monkeypatch):
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    place = dict(RANK='2', WORLD_SIZE='3', MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port))
    for name, value in place.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=f'process 2 of 3 cannot reach process 0 at 127.0.0.1:{port}'):
        joining.meet(limit=1.)
    monkeypatch.setenv('RANK', '0')
    with pytest.raises(UserError, match='processes 1, 2 of 3 did not come within 1 s; process 0 has waited'):
        joining.meet(limit=1.)
