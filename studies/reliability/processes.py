"""Runs of tools/train.py as processes that can be killed, started by forking: nothing is imported again."""
import contextlib
import os
import runpy
import signal
import socket
import sys
import time
from pathlib import Path

from inceptionnext_seg.engine.launch import leave_process_group

TOOL = Path(__file__).resolve().parents[2] / 'tools/train.py'


def free_port():
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        return free.getsockname()[1]


class Run:
    """``tools/train.py ARGUMENTS`` by one process, or by several that no launcher watches.

    Args:
        log (Path): Where all that they print goes.
    """

    def __init__(self, arguments, log, processes=1):
        self.log = log
        common = dict(WORLD_SIZE=str(processes), MASTER_ADDR='127.0.0.1', MASTER_PORT=str(free_port()))
        if processes > 1:
            arguments = [*arguments, '--launcher', 'pytorch']
        self.left = {}      # exit status by process id
        self.pids = [self.start(arguments, dict(common, RANK=str(rank), LOCAL_RANK=str(rank)) if processes > 1 else {})
                     for rank in range(processes)]

    def start(self, arguments, environment):
        pid = os.fork()
        if pid:
            return pid
        status = 1
        try:
            os.setsid()
            out = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(out, 1)
            os.dup2(out, 2)
            sys.stdout, sys.stderr = (os.fdopen(number, 'w', buffering=1, closefd=False) for number in (1, 2))
            os.environ.update(environment)
            sys.argv = [str(TOOL), *map(str, arguments)]
            runpy.run_path(str(TOOL), run_name='__main__')
            status = 0
        except SystemExit as left:
            status = left.code if isinstance(left.code, int) else 1
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            with contextlib.suppress(Exception):
                leave_process_group()
            os._exit(status)

    def poll(self):
        """Note who has left; whether all have."""
        for pid in self.pids:
            if pid not in self.left:
                found, status = os.waitpid(pid, os.WNOHANG)
                if found:
                    self.left[pid] = os.waitstatus_to_exitcode(status)
        return len(self.left) == len(self.pids)

    def wait(self, limit):
        """The exit status of each process; ``limit`` seconds later those that are still there are killed."""
        until = time.monotonic() + limit
        while not self.poll():
            if time.monotonic() > until:
                for pid in self.pids:
                    self.send(pid, signal.SIGKILL)
            time.sleep(0.01)
        return [self.left[pid] for pid in self.pids]

    def send(self, pid, number):
        if pid not in self.left:
            os.kill(pid, number)
