"""Joining the processes of a run, also where torchrun starts them again.

torchrun keeps one store for all attempts (dynamic_rendezvous.py of torch 2.14), and an attempt finds in it the
addresses of the one before, whose processes are dead. So process 0 calls for the others under a name that is new, and
the group is made under this name.
"""
import os
import secrets
import time
from datetime import timedelta

import torch

from ..errors import UserError

CALL = 'inceptionnext_seg/call'
LIMIT = 600.    # seconds, until all processes are there
PAUSE = 0.05


def is_elastic():
    """Whether torchrun started this process, and may start it again."""
    return (os.environ.get('TORCHELASTIC_USE_AGENT_STORE') == 'True'
            and os.environ.get('TORCHELASTIC_MAX_RESTARTS', '0') != '0')


def join(backend):
    """``init_process_group``, for a first attempt and for later ones.

    Raises:
        UserError: The other processes do not come.
    """
    if not is_elastic():
        torch.distributed.init_process_group(backend)
        return
    rank, processes = int(os.environ['RANK']), int(os.environ['WORLD_SIZE'])
    store = torch.distributed.TCPStore(os.environ['MASTER_ADDR'], int(os.environ['MASTER_PORT']), processes,
                                       is_master=False, timeout=timedelta(seconds=LIMIT))
    torch.distributed.init_process_group(
        backend, store=fresh(store, rank, processes), rank=rank, world_size=processes)


def fresh(store, rank, processes):
    """A part of ``store`` that belongs to these processes alone.

    Process 0 writes a call, which overwrites older ones. The others answer it, each with a name of its own, and process
    0 names those who have answered. A process that does not find itself among them has read an older call.
    """
    name = secrets.token_hex(8)
    if rank == 0:
        store.set(CALL, name)
        answers = [store.get(f'{name}/answer/{other}').decode() for other in range(1, processes)]
        store.set(f'{name}/present', ','.join(answers))
        return torch.distributed.PrefixStore(name, store)
    call, until = None, time.monotonic() + LIMIT
    while time.monotonic() < until:
        newest = store.get(CALL).decode()
        if newest != call:
            call = newest
            store.set(f'{call}/answer/{rank}', name)
        if store.check([f'{call}/present']) and name in store.get(f'{call}/present').decode().split(','):
            return torch.distributed.PrefixStore(call, store)
        time.sleep(PAUSE)
    raise UserError(f'process {rank} of {processes} has waited {LIMIT:.0f} s for process 0. Next: what that one says.')
