"""The command line, tools/benchmark.py."""
import json

import benchmark
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
    (['--against', 'stock', '--data'], 'no config is given'),
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


def test_data_loading_stands_beside_the_step_of_the_same_call(monkeypatch, tmp_path):
    def measured(names, setting, *args, **kwargs):
        row = dict(name=names[0], label=names[0], images_per_s=setting.size / 64)
        return dict(setting=vars(setting), results=[row])

    monkeypatch.setattr(benchmark.measuring, 'run', measured)
    monkeypatch.setattr(benchmark, 'summarize', lambda run: run['results'])
    monkeypatch.setattr(benchmark, 'candidate_config', lambda *args: None)
    monkeypatch.setattr(benchmark, 'measure_loader', lambda cfg, setting: dict(images_per_s=3., size=setting.size))
    out = tmp_path / 'speed.json'
    for name, size in (('a.py', '64'), ('b.py', '512')):
        monkeypatch.setattr('sys.argv', ['benchmark.py', name, '--size', size, '--data', '--append', '--device', 'cpu',
                                         '--out', str(out)])
        benchmark.measure(benchmark.parse_args())
    first, second = json.loads(out.read_text())['loaders']
    assert (first['label'], first['size'], first['bottleneck']) == ('a.py', 64, 'the step')
    assert (second['label'], second['size'], second['step_images_per_s']) == ('b.py', 512, 8.)
    assert second['bottleneck'].startswith('data loading')
