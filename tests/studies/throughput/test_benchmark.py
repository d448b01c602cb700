"""The command line, tools/benchmark.py."""
import json

import pytest

from inceptionnext_seg.engine import allocator

from .common import INCEPTIONNEXT


@pytest.fixture(autouse=True)
def memory_is_given_back(monkeypatch):
    """Memory that the tool keeps would stay with all tests after it."""
    monkeypatch.setattr(allocator, 'keep_freed_memory', lambda: None)


@pytest.mark.parametrize(('arguments', 'message'), [
    ([], 'nothing to measure'),
    (['configs/none.py'], 'config not found'),
    ([INCEPTIONNEXT, '--rounds', '3'], 'at least 8'),
    ([INCEPTIONNEXT, '--dtype', 'fp16', '--device', 'cpu'], 'fp16 is for CUDA'),
    (['--report', 'none.json'], 'no such file'),
    ([INCEPTIONNEXT, '--profile', '--mode', 'infer'], '--mode infer'),
    ([INCEPTIONNEXT, '--profile', '--part', 'backbone'], '--part backbone'),
    ([INCEPTIONNEXT, '--layout', 'nchw'], 'default_hooks.accelerate.channels_last=False'),
])
def test_a_wrong_command_line_is_one_line_and_no_traceback(call_tool, arguments, message):
    done = call_tool('benchmark', *arguments)
    assert done.returncode == 2
    assert message in done.stderr


def test_appended_runs_stand_beside_those_measured_before(call_tool, tmp_path):
    for extra in ([], ['--append', '--dtype', 'bf16']):
        done = call_tool('benchmark', '--mixer', '--device', 'cpu', '--out', tmp_path / 'speed.json', *extra)
        assert done.returncode == 0, done.stderr
    stored = json.loads((tmp_path / 'speed.json').read_text())
    assert [mixer['dtype'] for mixer in stored['mixers']] == ['fp32', 'bf16']
