"""Which inference is measured in which order, and the tables of a result written by hand."""
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from inceptionnext_seg.errors import UserError
from inceptionnext_seg.export.fastest import usual_form
from studies.inference import __main__ as command
from studies.inference import process
from studies.inference.accuracy import interval
from studies.inference.cells import PLAN, Cell, cells, schedule
from studies.inference.measuring import check_files, refuse_to_mix
from studies.inference.report import accuracy_section, fastest, goals_section, report, summary, words
from studies.published.machine import PUBLISHED

ROOT, MIB = Path(__file__).parents[2], 2**20


def run(runtime, form, dtype, seconds, memory, family='inceptionnext', equal=1., first=1.5, threads=2):
    return dict(cell=[family, runtime, form, dtype, threads], seconds=seconds, first=first, memory=memory * MIB,
                equal=equal, load=0.5)


RESULT = dict(
    commit='abc123', versions=dict(onnxruntime='1.32', openvino='2026.4', nncf='3.4'),
    environment=dict(cpu='A CPU', cpu_cores=2, cpu_capability='AVX512', versions=dict(torch='2.14.1'),
                     date='2026-01-02T03:04:05', command='python -m studies.inference'),
    runs=[run('onnx', 'plain', 'fp32', [4., 2., 3.], 100), run('onnx', 'plain', 'fp32', [5., 5., 6.], 300, first=2.5),
          run('onnx', 'plain', 'fp32', [4.], 200), run('onnx', 'winograd', 'fp32', [2.], 100, equal=0.9999),
          run('openvino', 'winograd', 'fp32', [9.], 100), run('torch', 'plain', 'fp32', [7.], 100, 'convnext')],
    accuracy=dict(config='a.py', how='trained by hand', calibration=32, rows=[
        dict(what='onnx int8', images=101, model=41., file=40.75, equal=99.1, low=-0.5, high=0.1)]))


def test_a_cell_is_the_median_over_processes_and_compared_with_its_runtimes_plain_graph():
    found = summary(RESULT)
    plain = found[Cell('inceptionnext', 'onnx', 'plain', 'fp32', 2)]
    assert plain['seconds'].value == 4. and plain['seconds'].processes == 3
    assert plain['seconds'].low < 4. < plain['seconds'].high
    assert plain['memory'] == 300 * MIB and plain['first'] == (1.5, 1.5, 2.5)
    winograd = found[Cell('inceptionnext', 'onnx', 'winograd', 'fp32', 2)]
    assert winograd['faster'].value == 2. and winograd['faster'].low is None, 'of one process there is no interval'
    assert found[Cell('inceptionnext', 'openvino', 'winograd', 'fp32', 2)]['faster'] is None


def test_the_report_has_a_table_for_each_model_and_number_of_threads_that_was_measured_and_the_accuracy():
    text = report(RESULT)
    for expected in ('InceptionNeXt-T, 2 threads', 'ConvNeXt-T, 2 threads', 'abc123', 'nncf 3.4',
                     '| ONNX Runtime | winograd | fp32 | 2.00 | 1 | 2.00 | 1.5 | 100 | 99.990 |',
                     'trained by hand: mIoU in torch fp32 41.00 % on the 101',
                     '| onnx int8 | 40.75 | -0.25 (-0.50 to +0.10) | 99.10 |'):
        assert expected in text
    assert '1 thread' not in text
    assert accuracy_section(RESULT['accuracy']) in text
    assert '| ONNX Runtime | winograd (`auto`) | fp32 | 2.00 | 2.00 | 1 |' in fastest(RESULT)
    # What the README names has several processes: not the single one of winograd.
    assert words(RESULT) == '- ONNX Runtime: plain fp32 4.00 (3.00–6.00) s'
    two = dict(RESULT, runs=[*RESULT['runs'], run('onnx', 'winograd', 'fp32', [2., 2.], 100)])
    assert words(two).endswith('× (winograd, 2 processes)')
    other = dict(RESULT, runs=[*RESULT['runs'], *[run('onnx', 'factorized', 'fp32', [1.], 100)] * 3])
    assert words(other).endswith('× (factorized, while `auto` writes winograd)')
    twice = dict(RESULT, runs=RESULT['runs'] + [run('onnx', 'winograd', 'fp32', [2.], 100)] * 2)
    assert words(twice).endswith('× (winograd)')
    of_its_own = accuracy_section(dict(RESULT['accuracy'], commit='def567'))
    assert 'trained by hand, commit def567: mIoU' in of_its_own


def test_goals_are_said_of_the_forms_that_auto_writes_and_of_fewer_bits_over_fp32():
    found = dict(RESULT, runs=[*RESULT['runs'], run('torch', 'accelerated', 'fp32', [3.], 1),
                               run('torch', 'accelerated', 'bf16', [2.], 1), run('onnx', 'plain', 'int8', [1.], 1)])
    lines = goals_section(found).splitlines()
    assert [line for line in lines if 'ONNX' in line] == [
        '| ONNX Runtime winograd fp32 over plain fp32 | 1.40 | 2.00 | 1 | reached, by one process |',
        '| ONNX Runtime factorized int8 over plain fp32 | 2.50 | – | – | not measured |']
    assert '| torch accelerated bf16 over accelerated fp32 | 1.60 | 1.50 | 1 | missed, by one process |' in lines
    assert lines[-1].endswith('reached, -0.25 at most.') and goals_section(found) in report(found)
    off = [dict(row, file=41.6) for row in RESULT['accuracy']['rows']]
    assert goals_section(dict(found, accuracy=dict(rows=off))).endswith('missed by onnx int8.')


def test_auto_writes_what_was_fastest_where_it_was_measured():
    result = json.loads((ROOT / 'docs/results' / PUBLISHED / 'inference.json').read_text())
    seconds = {}
    for each in result['runs']:
        cell = Cell(*each['cell'])
        if (cell.family, cell.threads) == ('inceptionnext', 2) and cell.runtime != 'torch':
            seconds.setdefault((cell.runtime, cell.dtype), {}).setdefault(cell.form, []).append(
                statistics.median(each['seconds']))
    assert len(seconds) == 5
    for (runtime, dtype), forms in seconds.items():
        assert min(forms, key=lambda form: statistics.median(forms[form])) == usual_form(runtime, dtype)


@pytest.mark.parametrize(('name', 'found', 'change'), [
    ('commit', 'def567', dict(commit='def567')), ('nncf', '3.5', dict(versions=dict(RESULT['versions'], nncf='3.5'))),
    ('cpu', 'Another', dict(environment=dict(RESULT['environment'], cpu='Another'))),
    ('torch', '2.15', dict(environment=dict(RESULT['environment'], versions=dict(torch='2.15'))))])
def test_processes_of_other_code_libraries_or_processors_do_not_mix(name, found, change):
    refuse_to_mix(RESULT, dict(RESULT, commit='abc123-dirty'), 'a.json')      # by the file itself
    with pytest.raises(UserError, match=rf'a\.json.* {name} .*{found}.*--anew, or another --out'):
        refuse_to_mix(RESULT, dict(RESULT, **change), 'a.json')


def test_files_that_were_not_written_are_named_with_the_command_that_writes_them(tmp_path):
    plan = [(1, cells('inceptionnext', 2, torch=('plain fp32', ), onnx=('plain fp32', )))]
    with pytest.raises(UserError, match=r'1 of 1 .*inceptionnext_plain_fp32\.onnx.*--write'):
        check_files(tmp_path, plan)
    (tmp_path / 'inceptionnext_plain_fp32.onnx').touch()
    check_files(tmp_path, plan)


def test_accuracy_that_fails_leaves_the_file_as_it_was_and_needs_no_times_of_now(tmp_path, monkeypatch):
    path, measured = tmp_path / 'a.json', dict(RESULT['accuracy'], how='anew', commit='def567')
    path.write_text(json.dumps(RESULT))
    monkeypatch.setattr(command, 'versions', dict)
    monkeypatch.setattr(sys, 'argv', ['x', '--files', 'files', '--accuracy', *'abcd', '--out', str(path)])

    def interrupted(*args):
        raise UserError('interrupted')

    monkeypatch.setattr(command, 'measure_accuracy', interrupted)
    with pytest.raises(SystemExit):
        command.main()
    assert json.loads(path.read_text()) == RESULT
    monkeypatch.setattr(command, 'measure_accuracy', lambda *args: measured)
    command.main()
    assert json.loads(path.read_text()) == dict(RESULT, accuracy=measured)
    assert 'anew, commit def567: mIoU' in path.with_suffix('.md').read_text()


def test_processes_take_turns_and_a_run_goes_on_where_it_was_stopped():
    first, second = cells('inceptionnext', 2, onnx=('plain fp32', 'winograd fp32'))
    plan = ((2, [first]), (1, [second]))
    assert schedule(plan, []) == [first, second, first]
    assert schedule(plan, [first]) == [second, first]
    assert schedule(plan, [first, second, first]) == []


def test_every_cell_is_planned_once_and_torchs_plain_one_runs_before_what_is_compared_with_it():
    planned = [cell for _, of_plan in PLAN for cell in of_plan]
    assert len(set(planned)) == len(planned)
    for family in ('inceptionnext', 'convnext'):
        first = next(cell for cell in schedule(PLAN, []) if cell.family == family)
        assert (first.runtime, first.name) == ('torch', 'plain fp32')
    assert all(cell.plain in planned for cell in planned), 'what each is a multiple of'


def test_the_interval_of_a_difference_in_miou_covers_it_and_is_zero_where_nothing_differs():
    generator = np.random.default_rng(1)
    model = generator.integers(0, 9, (60, 3, 3)) + 50 * np.eye(3, dtype=int)
    same = np.stack([model, model], 1)
    assert interval(same) == (0., 0.)
    worse = np.stack([model, model + 5 * (1 - np.eye(3, dtype=int))], 1)
    low, high = interval(worse)
    assert low < high < 0


@pytest.mark.skipif(not os.access('/proc/self/clear_refs', os.W_OK), reason='the peak of memory cannot be reset here')
def test_a_file_is_measured_without_torch(tmp_path):
    """Its process imports the runtime and numpy alone, so that its memory is what a user of the file needs."""
    pytest.importorskip('onnxruntime')
    onnx = pytest.importorskip('onnx')
    tensors = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, (1, 3, 512, 512)) for name in 'xy']
    graph = onnx.helper.make_graph([onnx.helper.make_node('Neg', ['x'], ['y'])], 'g', tensors[:1], tensors[1:])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid('', 18)], ir_version=9),
              tmp_path / 'a.onnx')
    np.save(tmp_path / 'classes.npy', np.zeros((1, 512, 512), np.int64))
    what = dict(path=str(tmp_path / 'a.onnx'), runtime='onnx', threads=1, bf16=False,
                reference=str(tmp_path / 'classes.npy'))
    code = (f'import runpy, sys; sys.argv[1:] = [sys.stdin.read()]; runpy.run_path({process.__file__!r}, '
            'run_name="__main__"); assert "torch" not in sys.modules')
    run = subprocess.run([sys.executable, '-c', code], input=json.dumps(what), capture_output=True, text=True,
                         check=True)
    found = json.loads(run.stdout.removeprefix('RESULT '))
    assert len(found['seconds']) >= 3 and found['memory'] > 0
    assert 0.2 < found['equal'] < 0.5, 'a third of the pixels of noise'
