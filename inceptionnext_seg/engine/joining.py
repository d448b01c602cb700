"""Joining the processes of a run, also where one of them never comes, and where torchrun starts them again.

Where torch forms a group of processes that were started by hand, one that has died before it came lets the others wait
for 30 minutes, and nothing says which it was. So they meet in torch's store first.

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

CALL, PRESENT = 'inceptionnext_seg/call', 'inceptionnext_seg/present'
LIMIT = 600.    # seconds, until all processes are there
PAUSE = 0.05
ADDRESS = ('RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT')


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
        if os.environ.get('TORCHELASTIC_USE_AGENT_STORE') == 'True' or not all(map(os.environ.get, ADDRESS)):
            torch.distributed.init_process_group(backend)
            return
        store, rank, processes = meet()
        torch.distributed.init_process_group(
            backend, store=torch.distributed.PrefixStore('group', store), rank=rank, world_size=processes)
        return
    rank, processes = int(os.environ['RANK']), int(os.environ['WORLD_SIZE'])
    store = torch.distributed.TCPStore(os.environ['MASTER_ADDR'], int(os.environ['MASTER_PORT']), processes,
                                       is_master=False, timeout=timedelta(seconds=LIMIT))
    torch.distributed.init_process_group(
        backend, store=fresh(store, rank, processes), rank=rank, world_size=processes)


def meet(limit=None):
    """torch's store, rank and number of processes, once all of them have come to the store.

    Raises:
        UserError: They have not within ``limit`` seconds, :data:`LIMIT` if not given.
    """
    limit = LIMIT if limit is None else limit
    until = time.monotonic() + limit
    rank, processes = int(os.environ['RANK']), int(os.environ['WORLD_SIZE'])
    host, port = os.environ['MASTER_ADDR'], int(os.environ['MASTER_PORT'])
    try:
        store = torch.distributed.TCPStore(
            host, port, processes, is_master=rank == 0, timeout=timedelta(seconds=limit), wait_for_workers=False)
    except torch.distributed.DistError as error:
        raise UserError(
            f'process {rank} of {processes} cannot {"listen" if rank == 0 else "reach process 0"} at {host}:{port} '
            f'(MASTER_ADDR, MASTER_PORT): {str(error).splitlines()[0]}. Next: '
            + ('take another port.' if rank == 0 else 'what process 0 says, and whether it was started there.')
        ) from error
    missing = list(range(processes))
    try:
        store.set(f'{PRESENT}/{rank}', b'1')
        while missing := [other for other in missing if not store.check([f'{PRESENT}/{other}'])]:
            if time.monotonic() > until:
                names = ', '.join(map(str, missing))
                raise UserError(f'process{"es" * (len(missing) > 1)} {names} of {processes} did not come within '
                                f'{limit:.0f} s; process {rank} has waited. Next: what {names} said, or whether each '
                                f'of the {processes} was started.')
            time.sleep(PAUSE)
    except torch.distributed.DistError as error:
        raise UserError(f'process 0 has left before all {processes} had come; process {rank} has waited for '
                        f'{", ".join(map(str, missing))}. Next: what process 0 said.') from error
    return store, rank, processes


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
