"""Several processes of one run, started by nobody who would watch them: they leave together, and one that dies ends the
others. With torchrun, and killed at random: tools/reliability.py."""
import multiprocessing
import os
import re
import signal
import socket
import sys
import time

import pytest
import torch
from engine.small_run import build, differing, state_of
from mmengine.hooks import Hook

from inceptionnext_seg.engine.checkpoints import WholeFileBackend
from inceptionnext_seg.engine.launch import explain_errors
from inceptionnext_seg.engine.lifeline import accept, line, read_line
from inceptionnext_seg.errors import UserError, exit_on_user_error
from inceptionnext_seg.models.checkpoint import read_file


class Act(Hook):
    """Calls ``action`` after an iteration, before it is decided whether to leave."""

    def __init__(self, iteration, action):
        self.iteration, self.action = iteration, action

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter + 1 == self.iteration:
            self.action()


@exit_on_user_error
def train(work_dir, hooks, settings):
    torch.distributed.init_process_group('gloo')
    with explain_errors():
        build(work_dir, hooks=hooks, launcher='pytorch',
              cfg=dict(model_wrapper_cfg=dict(type='AnyDeviceDistributedDataParallel')), **settings).train()
    torch.distributed.destroy_process_group()


def run_process(rank, port, errors, *args):
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE='2', MASTER_ADDR='127.0.0.1',
                      MASTER_PORT=str(port))
    os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT), 2)
    sys.stderr = open(2, 'w', buffering=1, closefd=False)  # noqa: SIM115
    train(*args)


def two_processes(work_dir, acting=None, hooks=(), **settings):
    """Exit status and messages of both; ``hooks`` are those of the process ``acting``. They end within a minute."""
    with socket.socket() as free:
        free.bind(('localhost', 0))
        port = free.getsockname()[1]
    work_dir.mkdir(exist_ok=True)
    errors = [work_dir / f'errors{rank}' for rank in range(2)]
    context = multiprocessing.get_context('fork')  # nothing is imported again
    processes = [context.Process(target=run_process, args=(
        rank, port, errors[rank], work_dir, hooks if rank == acting else (), settings)) for rank in range(2)]
    for process in processes:
        process.start()
    until = time.monotonic() + 60
    for process in processes:
        process.join(max(0, until - time.monotonic()))
    return [(process.exitcode, path.read_text()) for process, path in zip(processes, errors, strict=True)]


def kill(number):
    return lambda: os.kill(os.getpid(), number)


def fail():
    raise UserError('image 7 is no image')


def test_a_killed_process_ends_the_others_with_its_name(tmp_path):
    (status, said), (killed, _) = two_processes(tmp_path, acting=1, hooks=[Act(5, kill(signal.SIGKILL))])
    assert (status, killed) == (1, -signal.SIGKILL)
    message, = re.findall(r'^error: .*', said, re.MULTILINE)
    assert re.search(r'process 1 of 2 \(pid \d+ on .*SIGKILL.*--resume', message)
    assert 'Traceback' not in said


def test_the_error_of_one_process_is_the_message_of_all(tmp_path):
    found = two_processes(tmp_path, acting=0, hooks=[Act(5, fail)])
    assert [status for status, _ in found] == [2, 1]
    for _, said in found:
        message, = re.findall(r'^error: .*', said, re.MULTILINE)
        assert 'image 7 is no image' in message and 'Traceback' not in said


def test_a_signal_to_one_process_makes_all_leave_together_and_the_resumed_run_is_the_undisturbed_one(tmp_path):
    found = two_processes(tmp_path / 'run', acting=1, hooks=[Act(5, kill(signal.SIGTERM))])
    assert [status for status, _ in found] == [143, 143]
    said, = [line for _, text in found for line in text.splitlines() if 'SIGTERM' in line]
    assert 'iter_6.pth' in said and '--resume' in said
    assert [status for status, _ in two_processes(tmp_path / 'run', resume=True)] == [0, 0]
    assert [status for status, _ in two_processes(tmp_path / 'whole')] == [0, 0]
    assert differing(state_of(tmp_path / 'run'), state_of(tmp_path / 'whole')) == []
    assert len(read_file(tmp_path / 'run/iter_12.pth')['run_state']['random']) == 2


class LeaveAtOnce(Hook):
    """In the first images of a validation."""

    priority = 'VERY_HIGH'

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_process_that_leaves_within_a_validation_lets_the_checkpoint_be_written(tmp_path, monkeypatch):
    put, waits = WholeFileBackend.put, [1.]

    def slow(self, content, path):
        time.sleep(waits.pop() if waits else 0)
        put(self, content, path)

    monkeypatch.setattr(WholeFileBackend, 'put', slow)
    found = two_processes(tmp_path, acting=1, hooks=[LeaveAtOnce()], interval=4)
    assert [status for status, _ in found] == [143, 143]
    assert (tmp_path / 'last_checkpoint').read_text() == 'iter_4.pth'
    assert read_file(tmp_path / 'iter_4.pth')['meta']['iter'] == 4


def test_another_number_of_processes_goes_on_and_says_what_differs(tmp_path):
    build(tmp_path, max_iters=6).train()
    assert [status for status, _ in two_processes(tmp_path, resume=True, log_level='WARNING')] == [0, 0]
    log = ''.join(path.read_text() for path in tmp_path.glob('*/*.log'))
    assert re.search(r'of a run of 1 process\(es\), this one has 2\. The same: .* Different: .*dropout', log)


def test_a_process_that_does_not_know_the_token_is_no_part_of_the_run():
    with socket.create_server(('127.0.0.1', 0)) as listener:
        address = listener.getsockname()
        stranger, peer = socket.create_connection(address), socket.create_connection(address)
        stranger.sendall(line(rank=1, token='guessed'))
        peer.sendall(line(rank=1, token='token'))
        connections = accept(listener, 'token', 1)
    assert list(connections) == [1]
    peer.sendall(line(message='left'))
    assert read_line(connections[1]) == dict(message='left')
    assert stranger.recv(1) == b''


@pytest.mark.parametrize('message', [b'no json\n', b'[1]\n', b'{"rank": "x", "token": "token"}\n', b''])
def test_what_is_no_message_is_refused(message):
    with socket.create_server(('127.0.0.1', 0)) as listener:
        listener.settimeout(0.5)
        stranger = socket.create_connection(listener.getsockname())
        stranger.sendall(message)
        stranger.shutdown(socket.SHUT_WR)
        with pytest.raises(TimeoutError):
            accept(listener, 'token', 1)
