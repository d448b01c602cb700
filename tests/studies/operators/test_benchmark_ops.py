"""The command line, tools/benchmark_ops.py, and the result file that it reads again."""
import json

import pytest
import torch

from inceptionnext_seg.errors import UserError
from studies.operators.pictures import FIGURES
from studies.operators.result import read_result
from studies.operators.suites import select


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_the_tool_measures_writes_and_reports_again(call_tool, tmp_path, two_threads):
    out = tmp_path / 'operators.json'
    done = call_tool('benchmark_ops', '--channels', 16, '--size', 6, '--batch-size', 2, '--dtype', 'fp32', '--layout',
                     'nchw', '--mode', 'infer', '--kernel', 3, '11', '--form', 'square', 'sequential', 'inception',
                     '--grouping', 'depthwise', '--rounds', 8, '--threads', 1, '--clock', 'cpu', '--out', out)
    assert done.returncode == 0, done.stderr
    assert 'Which reasons the numbers bear out' in done.stdout
    result = json.loads(out.read_text())
    assert len(result['records']) == len(select(
        'quick', channels=[16], size=[6], batch_size=[2], dtype=['fp32'], layout=['nchw'], mode=['infer'],
        kernel=[(3, 3), (11, 11)], form=['square', 'sequential', 'inception'], grouping=['depthwise']))
    assert all(len(record['seconds']) == 8 for record in result['records'])
    images = sorted(path.name for path in tmp_path.glob('*.png'))
    assert images == sorted(f'operators_{name}.png' for name in FIGURES)
    written = out.with_suffix('.md').read_text()
    out.with_suffix('.md').unlink()
    document = tmp_path / 'document.md'
    document.write_text('<!-- measured: environment --><!-- /measured -->')
    assert call_tool('benchmark_ops', '--report', out, '--fill', document).returncode == 0
    assert out.with_suffix('.md').read_text() == written
    assert f'torch {torch.__version__.split("+")[0]}' in document.read_text()


@pytest.mark.parametrize(('arguments', 'message'), [
    (['--rounds', '3'], '--rounds 3; expected at least 8'),
    (['--device', 'nowhere'], '--device nowhere cannot be used'),
    (['--device', 'cpu', '--dtype', 'fp16'], '--dtype fp16 on a CPU'),
    (['--out', 'result.md'], 'expected a name that ends in .json'),
    (['--device', 'cpu', '--threads', '2', '--clock', 'cpu'], 'expected one thread'),
    (['--channels', '0'], '--channels [0]; expected whole numbers above 0'),
    (['--form', 'copy', '--kernel', '7'], 'no case of the suite'),
    (['--report', 'missing.json'], 'missing.json cannot be read'),
])
def test_mistakes_are_one_message(call_tool, two_threads, arguments, message):
    done = call_tool('benchmark_ops', *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert 'Next: ' in done.stderr


@pytest.mark.parametrize('damage', [
    lambda result: result.pop('environment'),
    lambda result: result['records'].clear(),
    lambda result: result['records'][0].pop('macs'),
    lambda result: result['records'][0].update(form='cube'),
    lambda result: result['records'][0].update(seconds=['a', 'b']),
    lambda result: result['peaks']['fp32'].update(bytes_per_second=0),
])
def test_a_file_that_is_no_such_result_is_refused(result, tmp_path, damage):
    path = tmp_path / 'result.json'
    copy = json.loads(json.dumps(result))
    path.write_text(json.dumps(copy))
    assert read_result(path) == copy
    damage(copy)
    path.write_text(json.dumps(copy))
    with pytest.raises(UserError, match=r'result\.json'):
        read_result(path)
