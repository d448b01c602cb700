"""SIGTERM and Ctrl-C end a run after the current iteration, with a checkpoint; a second Ctrl-C ends it at once.

The handlers note the signal, and :class:`.checkpoints.CheckpointHook` asks after each iteration. Several processes
leave together: whether one of them has received a signal travels with the losses, which
:class:`.loops.TotalBatchTrainLoop` averages over the processes in any case, so that it costs no communication.
"""
import multiprocessing
import os
import signal
import threading

import torch
from mmengine.device import get_device
from mmengine.dist import all_reduce, get_rank, get_world_size

SIGNALS = (signal.SIGTERM, signal.SIGINT)
# Of loops that do not carry votes: iterations from one exchange to the next.
EXCHANGE_EVERY = 10
# Votes are added up; more of one than there are processes.
VOTES = {None: 0., signal.SIGTERM: 1., signal.SIGINT: 2.**16}


class Watch:
    """The signal that this process has received, and what all have said of theirs."""

    def __init__(self):
        self.received = None
        self.votes = None
        self.before = {}

    def begin(self):
        """Take over from the handlers that are there, in the main thread: no other can."""
        self.received = self.votes = None
        if threading.current_thread() is threading.main_thread() and not self.before:
            self.before = {number: signal.signal(number, self.note) for number in SIGNALS}

    def end(self):
        for number, handler in self.before.items():
            signal.signal(number, handler)
        self.before = {}

    def note(self, number, frame):
        if number == signal.SIGINT:
            # At once also from within a long computation, where no handler of Python's runs.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            if get_rank() == 0:
                os.write(2, b'\nCtrl-C: a checkpoint is saved after this iteration; once more leaves at once.\n')
        self.received = self.received or signal.Signals(number)

    def vote(self, like):
        """A number for the processes' mean, on the device of the tensor ``like``."""
        return like.new_full((), VOTES[self.received], dtype=torch.float32)

    def decision(self, iteration):
        """The signal for which all processes leave after ``iteration``, or None: the same in each of them."""
        if get_world_size() == 1:
            return self.received
        votes, self.votes = self.votes, None
        if votes is None:
            if iteration % EXCHANGE_EVERY:
                return None
            votes = torch.tensor(VOTES[self.received], device=get_device())
            all_reduce(votes, op='mean')
        # The log has fetched the losses, which were computed with it: there is nothing to wait for.
        total = round(votes.item() * get_world_size())
        return None if total == 0 else signal.SIGINT if total >= VOTES[signal.SIGINT] else signal.SIGTERM


WATCH = Watch()


class ShieldedWorker:
    """A ``worker_init_fn`` of a data loader whose workers outlive the signals that their main process answers.

    A terminal's Ctrl-C, Slurm and torchrun signal whole groups of processes. A worker that ended of it would take the
    main process along, before its checkpoint. Of the main process itself a worker takes SIGTERM.
    """

    def __init__(self, inner):
        self.inner = inner

    def __call__(self, worker_id):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        main = multiprocessing.parent_process()
        if main is not None and hasattr(signal, 'sigwaitinfo'):
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
            threading.Thread(target=end_when_told, args=(main.pid, ), daemon=True).start()
        if self.inner is not None:
            self.inner(worker_id)


def end_when_told(main):
    """Wait for a SIGTERM of the process ``main``, or of anybody once that is gone."""
    parent = os.getppid()
    while True:
        sender = signal.sigwaitinfo({signal.SIGTERM}).si_pid
        if sender == main or os.getppid() != parent:
            os._exit(128 + signal.SIGTERM)


def shield(loader):
    """Let the workers of a loader, which are not started yet, outlive signals."""
    if loader.num_workers and not isinstance(loader.worker_init_fn, ShieldedWorker):
        loader.worker_init_fn = ShieldedWorker(loader.worker_init_fn)
