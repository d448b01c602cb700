"""One process's end ends all of a run, within seconds and with its cause, whoever started them.

A process that waits for a dead one would find out by gloo's own error, without a name, or after NCCL's ten minutes, or
at the end of a validation. So each process holds a TCP connection to process 0, which the kernel closes when a process
ends in whatever way. Process 0 passes the news on; who hears it prints one message and ends. A machine that is gone
without a word is noticed by TCP's keep-alive, after about half a minute.
"""
import contextlib
import json
import os
import re
import secrets
import selectors
import socket
import sys
import threading
import time

import torch
from mmengine.dist import all_gather_object, get_rank, get_world_size

from ..models.checkpoint import first_line
from .interruption import WATCH

STATUS = 1
# torchrun says of the first process that failed what became of it, and ends the others: they wait for that.
PATIENCE_UNDER_TORCHRUN = 2.
CONNECTING = 30.    # seconds
LONGEST = 2**16     # bytes of a message
LEFT = 'left'


class Lifeline:
    """The connections of this process to the others of its run."""

    def __init__(self):
        self.connections = {}   # socket by rank
        self.names = []
        self.ending = False
        self.lock = threading.Lock()

    def begin(self):
        """Connect all processes: each of them calls it. One that cannot connect says so, and goes on without."""
        if get_world_size() == 1 or self.connections:
            return
        self.ending = False
        rank, host = get_rank(), socket.gethostname()
        listener, token = None, secrets.token_hex(16)
        spans_machines = len(set(all_gather_object(host))) > 1
        if rank == 0:
            listener = socket.create_server(('' if spans_machines else '127.0.0.1', 0))
            listener.settimeout(CONNECTING)
        every = all_gather_object(dict(
            name=f'process {rank} of {get_world_size()} (pid {os.getpid()} on {host})', token=token,
            port=listener.getsockname()[1] if listener else None))
        self.names = [other['name'] for other in every]
        try:
            if listener is not None:
                self.connections = accept(listener, every[0]['token'], get_world_size() - 1)
            else:
                address = os.environ.get('MASTER_ADDR', '127.0.0.1') if spans_machines else '127.0.0.1'
                connection = socket.create_connection((address, every[0]['port']), CONNECTING)
                connection.sendall(line(rank=rank, token=every[0]['token']))
                self.connections = {0: connection}
        except (OSError, ValueError) as error:
            print(f'{self.names[rank]} cannot watch the others, whose end it may not notice: {error}', file=sys.stderr)
            self.connections = {}
            return
        finally:
            if listener is not None:
                listener.close()
        for connection in self.connections.values():
            keep_alive(connection)
        threading.Thread(target=self.watch, args=(dict(self.connections), ), daemon=True, name='lifeline').start()

    def watch(self, connections):
        """Wait until somebody ends. Runs in a thread of its own."""
        with selectors.DefaultSelector() as selector:
            for rank, connection in connections.items():
                selector.register(connection, selectors.EVENT_READ, rank)
            while selector.get_map():
                for key, _ in selector.select():
                    message = receive(key.fileobj)
                    selector.unregister(key.fileobj)
                    if self.ending:
                        return
                    if message == LEFT:
                        continue
                    ended = f'{self.names[key.data]} has ended'
                    self.fall(message or f'{ended} without a word, as after SIGKILL or for want of memory')
                    return

    def fall(self, cause):
        """End this process for a cause that another has, and tell the others."""
        with self.lock:
            self.ending = True
            if get_rank() == 0:
                self.tell(cause)
        if WATCH.received:  # as the others have: this process is about to leave by itself
            time.sleep(PATIENCE_UNDER_TORCHRUN)
            os._exit(128 + WATCH.received)
        if 'TORCHELASTIC_RUN_ID' in os.environ:
            time.sleep(PATIENCE_UNDER_TORCHRUN)
        os.write(2, f'error: {cause}; {self.names[get_rank()].partition(" (")[0]} ends too. Next: what that one has '
                    'printed; --resume goes on from the last checkpoint.\n'.encode())
        os._exit(STATUS)

    def end(self, cause=None):
        """Part from the others, which go on where there is no ``cause`` and end where there is."""
        with self.lock:
            if self.ending or not self.connections:
                return
            self.ending = True
            self.tell(f'{self.names[get_rank()]} has ended: {cause}' if cause else LEFT)
            for connection in self.connections.values():
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_WR)
            self.connections = {}

    def tell(self, message):
        for connection in self.connections.values():
            with contextlib.suppress(OSError):
                connection.sendall(line(message=message[:LONGEST // 4]))

    @contextlib.contextmanager
    def tied(self):
        """An error in the block ends the other processes, with its message; one that their end caused waits for it."""
        try:
            yield
        except BaseException as error:
            if self.connections and is_lost_connection(error):
                time.sleep(PATIENCE_UNDER_TORCHRUN + 5)  # the thread ends this process: it knows the cause
            self.end(f'{type(error).__name__}: {first_line(str(error))}')
            raise


def is_lost_connection(error):
    """Whether a collective operation failed because another process was not there any more."""
    return isinstance(error, torch.distributed.DistError) or (
        isinstance(error, RuntimeError) and re.search(r'gloo|nccl|connection (closed|reset|refused)|broken pipe',
                                                      str(error), re.IGNORECASE) is not None)


def line(**content):
    return json.dumps(content).encode() + b'\n'


def read_line(connection):
    """The dict in one line of a connection; None where it was closed before."""
    text = b''
    while not text.endswith(b'\n'):
        part = connection.recv(4096)
        if not part or len(text) > LONGEST:
            return None
        text += part
    content = json.loads(text)
    return content if isinstance(content, dict) else None


def receive(connection):
    try:
        content = read_line(connection)
    except (OSError, ValueError):
        return None
    message = (content or {}).get('message')
    return message if isinstance(message, str) else None


def accept(listener, token, count):
    """The connections of ``count`` processes by their rank; others, that do not know the token, are closed."""
    connections, until = {}, time.monotonic() + CONNECTING
    while len(connections) < count and time.monotonic() < until:
        connection, _ = listener.accept()
        connection.settimeout(CONNECTING)
        with contextlib.suppress(OSError, ValueError):
            content = read_line(connection) or {}
            if secrets.compare_digest(str(content.get('token')), token):
                connections[int(content['rank'])] = connection
                continue
        connection.close()
    if len(connections) < count:
        raise TimeoutError(f'{len(connections)} of {count} processes have connected')
    return connections


def keep_alive(connection):
    """Notice within about half a minute that the other machine is gone."""
    connection.settimeout(None)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (('TCP_KEEPIDLE', 10), ('TCP_KEEPINTVL', 5), ('TCP_KEEPCNT', 4)):
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


LIFELINE = Lifeline()
