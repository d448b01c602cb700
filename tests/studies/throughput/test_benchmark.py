"""The command line, tools/benchmark.py."""
import json
import subprocess
import sys

import pytest

from .common import INCEPTIONNEXT, ROOT


@pytest.mark.parametrize(('arguments', 'message'), [
    ([], 'nothing to measure'),
    (['configs/none.py'], 'config not found'),
    ([INCEPTIONNEXT, '--rounds', '3'], 'at least 8'),
    ([INCEPTIONNEXT, '--dtype', 'fp16', '--device', 'cpu'], 'fp16 is for CUDA'),
    (['--report', 'none.json'], 'no such file'),
])
def test_a_wrong_command_line_is_one_line_and_no_traceback(arguments, message):
    done = subprocess.run(
        [sys.executable, ROOT / 'tools/benchmark.py', *arguments], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2
    assert message in done.stderr and 'Traceback' not in done.stderr


def test_appended_runs_stand_beside_those_measured_before(tmp_path):
    command = [sys.executable, ROOT / 'tools/benchmark.py', '--mixer', '--device', 'cpu', '--out',
               tmp_path / 'speed.json']
    for extra in ([], ['--append', '--dtype', 'bf16']):
        subprocess.run([*command, *extra], check=True, capture_output=True, cwd=ROOT)
    stored = json.loads((tmp_path / 'speed.json').read_text())
    assert [mixer['dtype'] for mixer in stored['mixers']] == ['fp32', 'bf16']
