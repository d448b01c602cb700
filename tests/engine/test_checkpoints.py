"""Checkpoints are whole at every moment, whatever ends the run."""
import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from engine.small_run import build, differing, state_of
from mmengine.hooks import Hook

from inceptionnext_seg.engine.checkpoints import CheckpointHook, WholeFileBackend
from inceptionnext_seg.errors import UserError
from inceptionnext_seg.models.checkpoint import read_file


@pytest.fixture
def watched(monkeypatch):
    """After every change to the files of a run: what a kill at this moment would leave."""
    seen = []
    folders = []

    def look():
        for folder in folders:
            pointer = folder / 'last_checkpoint'
            named = pointer.read_text() if pointer.is_file() else None
            for path in folder.glob('*.pth'):
                if not path.name.startswith('.'):
                    read_file(path)
            seen.append((named, {path.name for path in folder.glob('iter_*.pth')}))

    for name in ('replace', 'unlink'):
        original = getattr(Path, name)

        def changed(path, *args, original=original, **settings):
            look()
            result = original(path, *args, **settings)
            look()
            return result

        monkeypatch.setattr(Path, name, changed)
    remove = WholeFileBackend.remove
    monkeypatch.setattr(WholeFileBackend, 'remove', lambda self, path: (look(), remove(self, path), look()))
    return folders, seen


@pytest.mark.parametrize('keep', [1, 2])
def test_at_every_moment_last_checkpoint_names_a_whole_file(tmp_path, watched, keep):
    folders, seen = watched
    folders.append(tmp_path)
    build(tmp_path, keep=keep).train()
    started = [named is not None for named, _ in seen].index(True)
    assert len(seen) > 20
    assert all(named in files and len(files) <= keep + 1 for named, files in seen[started:])
    assert {path.name for path in tmp_path.glob('iter_*.pth')} == {'iter_9.pth', 'iter_12.pth'} if keep == 2 else {
        'iter_12.pth'}


def test_a_full_disk_stops_the_run_with_one_message_and_keeps_the_last_checkpoint(tmp_path, monkeypatch):
    write = Path.write_bytes

    def full(path, content):
        if 'iter_6' in path.name:
            write(path, content[:1000])
            raise OSError(errno.ENOSPC, 'No space left on device')
        return write(path, content)

    monkeypatch.setattr(Path, 'write_bytes', full)
    with pytest.raises(UserError, match=r'iter_6\.pth.*No space left.*MiB free.*iter_4\.pth.*--resume'):
        build(tmp_path).train()
    assert sorted(path.name for path in tmp_path.glob('iter_*')) == ['iter_3.pth', 'iter_4.pth']
    assert not list(tmp_path.glob('.iter_*'))
    assert (tmp_path / 'last_checkpoint').read_text() == 'iter_4.pth'
    monkeypatch.undo()
    build(tmp_path, resume=True).train()
    assert read_file(tmp_path / 'iter_12.pth')['meta']['iter'] == 12


def test_what_a_killed_process_left_is_removed_and_other_files_are_not(tmp_path):
    (tmp_path / '.iter_3.4711.pth').write_bytes(b'part')
    (tmp_path / '.iter_3.backup.pth').write_bytes(b'mine')
    build(tmp_path, max_iters=1).train()
    assert [path.name for path in tmp_path.glob('.iter*')] == ['.iter_3.backup.pth']


class SignalHook(Hook):
    """Sends this process signals at an event of an iteration."""

    def __init__(self, event, number, *signals):
        self.left, self.signals = number, signals
        setattr(self, event, self.count)

    def count(self, *args, **settings):
        self.left -= 1
        if self.left == 0:
            for number in self.signals:
                os.kill(os.getpid(), number)


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp('undisturbed')
    build(folder).train()
    return state_of(folder)


@pytest.mark.parametrize(('number', 'status', 'event', 'saved'), [
    (signal.SIGTERM, 143, 'before_train_iter', 5), (signal.SIGINT, 130, 'before_train_iter', 5),
    (signal.SIGTERM, 143, 'before_val_iter', 8)])
def test_a_signal_saves_a_checkpoint_and_leaves_with_one_line_and_its_status(
        tmp_path, capfd, undisturbed, number, status, event, saved):
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as left:
        build(tmp_path, hooks=[SignalHook(event, 5, number)], workers=1).train()
    assert left.value.code == status
    assert signal.getsignal(number) is before
    said = capfd.readouterr().err
    path = f'{tmp_path}/iter_{saved}.pth'
    assert [line for line in said.splitlines() if path in line] == [
        f'{signal.Signals(number).name} at iteration {saved}: {path} is saved, and --resume goes on from there.']
    build(tmp_path, resume=True).train()
    assert differing(state_of(tmp_path), undisturbed) == []


def test_the_hook_takes_the_place_of_mmengines_in_every_config():
    from mmengine.registry import HOOKS
    assert HOOKS.get('CheckpointHook') is CheckpointHook


HOLDING = """
import sys
from inceptionnext_seg.engine.occupying import occupy
held = occupy(sys.argv[1])
print('held', flush=True)
sys.stdin.read()
"""


def test_a_second_training_in_one_folder_is_refused_before_anything_there_is_touched(tmp_path):
    build(tmp_path, max_iters=4).train()
    with subprocess.Popen([sys.executable, '-c', HOLDING, str(tmp_path)], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == 'held\n'
        with pytest.raises(UserError, match=rf'a training that is not over .pid {other.pid} on .*another --work-dir'):
            build(tmp_path, max_iters=4).train()
        assert (tmp_path / 'last_checkpoint').read_text() == 'iter_4.pth'
        other.kill()
    build(tmp_path, max_iters=4).train()
