"""What is measured, in which order, and what a run that goes on leaves out."""
import dataclasses
import json
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool

import pytest

from inceptionnext_seg.errors import UserError
from inceptionnext_seg.ops import measured
from studies.speed import measuring, steps
from studies.speed.cells import CANDIDATES, LATER, LAYOUTS, STAGES, Cell, Stage, cells
from studies.speed.measuring import (
    HARNESS,
    in_turn,
    layouts_left,
    left_to_do,
    measure_all,
    measure_memory,
    open_result,
    turns,
    wait_for_quiet,
)

CELL = Cell('main', 'train', 'fp32', 2, 64, {'stock': 3, 'small': 1})
QUIET = dict(wait=lambda: 0.0, stages=[Stage(('main', ), 5)])


def record(candidate, layout, process, *seconds, cell=CELL):
    return dict(cell=cell.name, process=process, candidate=candidate, layout=layout, seconds=list(seconds))


def test_every_cell_has_a_name_of_its_own_and_known_candidates():
    names = [cell.name for cell in cells()]
    assert len(names) == len(set(names))
    assert {name for cell in cells() for name in cell.candidates} == set(CANDIDATES)


def test_a_layout_that_is_clearly_slower_in_both_first_processes_is_left_out_of_the_rest():
    records = [record('stock', 'nchw', 0, 1.0), record('stock', 'nhwc', 0, 1.2),
               record('stock', 'nchw', 1, 1.0), record('stock', 'nhwc', 1, 9.0, 1.02, 1.0)]
    assert layouts_left(records, CELL, 'stock', 1) == ['nchw', 'nhwc']
    assert layouts_left(records, CELL, 'stock', 2) == ['nchw', 'nhwc']      # once 2 % slower only
    records[-1]['seconds'] = [1.15]
    records[1]['seconds'] = [1.2]
    assert layouts_left(records, CELL, 'stock', 2) == ['nchw']


def test_a_cell_that_follows_another_has_the_layout_that_is_faster_there_and_some_have_one_only():
    follower = Cell('growth', 'train', 'fp32', 8, 64, {'stock': 2}, as_in=CELL.name)
    records = [record('stock', 'nchw', 0, 1.0), record('stock', 'nhwc', 0, 1.2)]
    assert layouts_left([], follower, 'stock', 0) == ['nchw', 'nhwc']
    assert layouts_left(records, follower, 'stock', 0) == ['nchw']
    single = Cell('main', 'infer', 'fp32', 1, 64, {'stock': 2, 'convnext': 2}, nhwc=('convnext', ))
    assert layouts_left([], single, 'convnext', 0) == ['nhwc']
    assert layouts_left([], single, 'stock', 0) == ['nchw', 'nhwc']


def test_the_stages_have_every_cell_and_candidate_as_often_as_it_says_and_the_main_ones_first():
    every, seen = cells(), {}
    for process, threads, chosen in turns(every, STAGES, 5):
        for cell in chosen:
            assert cell.threads == threads
            for name, processes in cell.candidates.items():
                if process < processes:
                    seen.setdefault((cell.name, name), []).append(process)
    assert {(cell.name, name): set(range(processes)) for cell in every for name, processes in cell.candidates.items()
            } == {key: set(processes) for key, processes in seen.items()}
    first = [cell for _, _, chosen in list(turns(every, STAGES, 5))[:5] for cell in chosen]
    assert {cell.suite for cell in first} == {'main', 'backbone', 'small'}
    assert not any(name in LATER for cell in first if cell.suite == 'main' for name in cell.candidates)


def test_a_candidate_is_measured_in_as_many_processes_as_the_cell_says_and_not_twice():
    every = {('stock', 'nchw'), ('stock', 'nhwc'), ('small', 'nchw'), ('small', 'nhwc')}
    assert set(left_to_do([], CELL, 0)) == every
    assert left_to_do([], CELL, 0) == left_to_do([], CELL, 0)
    assert {name for name, _ in left_to_do([], CELL, 1)} == {'stock'}
    assert set(left_to_do([record('stock', 'nchw', 0, 1.0)], CELL, 0)) == every - {('stock', 'nchw')}
    assert not left_to_do([], CELL, 3)


def test_the_result_of_another_machine_is_not_overwritten(tmp_path):
    described = dict(cpu='A', cpu_cores=2, device_name='A', versions=dict(torch='2'))
    path = tmp_path / 'speed.json'
    path.write_text(json.dumps(dict(environment=described, harness=HARNESS, records=[], memory=[])))
    assert open_result(path, described)['records'] == []
    with pytest.raises(UserError, match=r"cpu 'A'.*'B'"):
        open_result(path, dict(described, cpu='B'))
    with pytest.raises(UserError, match=r"torch.*3"):
        open_result(path, dict(described, versions=dict(torch='3')))


def test_a_result_that_was_measured_in_another_way_is_replaced_only_when_asked_for(tmp_path):
    described = dict(cpu='A', cpu_cores=2, device_name='A', versions=dict(torch='2'))
    path = tmp_path / 'speed.json'
    path.write_text(json.dumps(dict(environment=described, records=[1], memory=[])))
    with pytest.raises(UserError, match=r'harness 1.*--replace'):
        open_result(path, described)
    assert open_result(path, described, replace=True)['records'] == []
    path.write_text(json.dumps(dict(environment=described, harness=HARNESS, records=[1], memory=[])))
    assert open_result(path, described, replace=True)['records'] == [1]     # its own is gone on with


def test_a_busy_machine_is_waited_for_and_then_refused():
    readings = iter([2.0, 0.8, 0.1])
    assert wait_for_quiet(lambda: next(readings), clock=iter(range(9)).__next__) == 0.1
    with pytest.raises(UserError, match=r'2\.0 cores busy'):
        wait_for_quiet(lambda: 2.0, patience=5, clock=iter(range(99)).__next__)


class Here:
    """The executor's interface, in this process."""

    def __init__(self, *args):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def submit(self, function, *args):
        future = Future()
        try:
            future.set_result(function(*args))
        except RuntimeError as error:
            future.set_exception(error)
        return future


def test_a_run_that_was_stopped_goes_on_and_has_seconds_of_every_candidate(tmp_path, monkeypatch):
    cell = Cell('main', 'train', 'fp32', 2, 32, {'small': 2, 'small-plain': 1}, layouts=('nhwc', ))
    in_this_process(monkeypatch, tmp_path)
    monkeypatch.setattr(steps, 'ROUND_SECONDS', 0)
    path, said = tmp_path / 'speed.json', []
    measure_all([cell], path, 5, minutes=0, progress=said.append, **QUIET)
    assert not said and not path.exists()
    measure_all([cell], path, 1, progress=said.append, **QUIET)
    result = measure_all([cell], path, 5, progress=said.append, **QUIET)
    assert len(said) == 3
    assert json.loads(path.read_text()) == json.loads(json.dumps(result))
    assert {(r['candidate'], r['process']) for r in result['records']} == {
        ('small', 0), ('small', 1), ('small-plain', 0)}
    assert all(len(r['seconds']) == len(r['waited']) == 2 and r['seconds'][0] > 0 for r in result['records'])


def fake_steps(monkeypatch, seconds=lambda name, layout: 1.0, fails=(), taken=None):
    """Candidates of so many seconds, of which some cannot be built; ``taken`` gets the names in the order of rounds."""
    trials = {}

    def begin(key, name, setting, layout, repeat):
        if name in fails:
            raise RuntimeError('no room')
        trials[key] = seconds(name, layout)
        return trials[key]

    def finish():
        found = {key: dict(seconds=[value], waited=[0.0], first=1.0, others=0.0) for key, value in trials.items()}
        trials.clear()
        return found

    monkeypatch.setattr(steps, 'begin', begin)
    monkeypatch.setattr(steps, 'take', (lambda key: None) if taken is None else taken.append)
    monkeypatch.setattr(steps, 'finish', finish)


def test_a_candidate_that_fails_is_said_and_tried_again_and_the_others_are_measured(tmp_path, monkeypatch):
    cell = Cell('main', 'train', 'fp32', 2, 32, {'small': 1, 'small-plain': 1}, layouts=('nhwc', ))
    in_this_process(monkeypatch, tmp_path)
    fails = ['small']
    fake_steps(monkeypatch, fails=fails)
    path, said = tmp_path / 'speed.json', []
    result = measure_all([cell], path, 1, progress=said.append, **QUIET)
    assert [f['error'] for f in result['failed']] == ['RuntimeError: no room']
    assert [r['candidate'] for r in result['records']] == ['small-plain']
    assert [f['candidate'] for f in json.loads(path.read_text())['failed']] == ['small']
    assert any('no room' in line for line in said)
    fails.clear()
    result = measure_all([cell], path, 1, progress=said.append, **QUIET)
    assert len(result['records']) == 2 and not result['failed']
    assert not json.loads(path.read_text())['failed']


def test_candidates_take_turns_in_every_round_and_a_long_step_is_the_only_one(monkeypatch):
    taken = []
    fake_steps(monkeypatch, lambda name, layout: dict(stock=9.0, convnext=1.0).get(name, 0.25), taken=taken)
    pairs = [('stock', 'nchw'), ('convnext', 'nhwc'), ('inceptionnext', 'nhwc')]
    found, errors = in_turn(Here().submit, CELL, pairs, 0)
    assert set(found) == set(pairs) and not errors
    rounds = [set(taken[i:i + 2]) for i in range(0, len(taken), 2)]
    assert len(rounds) == 3 and all(each == set(pairs[1:]) for each in rounds)     # 2 · 2 s / 1.25 s
    assert steps.rounds_of([4.0, 3.0]) == 2 and steps.rounds_of([0.01]) == 8 and steps.rounds_of([]) == 0


def test_a_process_that_is_killed_took_all_candidates_of_the_comparison_with_it():
    class Killed(Here):
        def submit(self, function, *args):
            future = Future()
            future.set_exception(BrokenProcessPool('killed'))
            return future

    found, errors = in_turn(Killed().submit, CELL, [('stock', 'nchw'), ('small', 'nhwc')], 0)
    assert not found and set(errors) == {('stock', 'nchw'), ('small', 'nhwc')}


def test_what_is_missing_in_every_process_is_said_once_and_nothing_is_measured(tmp_path, monkeypatch):
    def prepare(threads, forms):
        raise UserError('pip install onedl-mmpretrain')

    in_this_process(monkeypatch, tmp_path, prepare)
    with pytest.raises(UserError, match='pip install onedl-mmpretrain'):
        measure_all([CELL], tmp_path / 'speed.json', 5, progress=pytest.fail, **QUIET)
    assert not (tmp_path / 'speed.json').exists()


def in_this_process(monkeypatch, tmp_path, prepare=lambda threads, forms: None):
    """No test changes where this process looks for measured forms, or how many threads it has."""
    monkeypatch.setattr(measuring, 'ProcessPoolExecutor', Here)
    monkeypatch.setattr(steps, 'prepare', prepare)
    monkeypatch.setattr(measured, 'cache_file', lambda: tmp_path / 'forms.json')
    monkeypatch.setattr(measuring, 'forms_file', lambda path: tmp_path / 'forms.json')


def test_peaks_are_of_the_faster_layout_and_leave_the_times_as_they_are(tmp_path, monkeypatch):
    cell = next(cell for cell in cells() if cell.suite == 'main')
    in_this_process(monkeypatch, tmp_path)
    fake_steps(monkeypatch, lambda name, layout: 1.0 if layout == 'nhwc' else 2.0)
    path, said = tmp_path / 'speed.json', []
    small = dataclasses.replace(cell, candidates={'stock': 1, 'convnext': 1, 'smp-convnext': 1}, layouts=LAYOUTS)
    timed = measure_all([small], path, 1, progress=said.append, **QUIET)

    def peak(name, setting, layout, threads, forms):
        if name == 'convnext':
            raise BrokenProcessPool
        assert (threads, forms) == (2, tmp_path / 'forms.json')
        return 3 * 2**30

    monkeypatch.setattr(steps, 'peak_memory', peak)
    result = measure_memory([small], path, progress=said.append)
    assert [(r['candidate'], r['layout'], r['peak']) for r in result['memory']] == [('stock', 'nhwc', 3 * 2**30)]
    assert 'convnext nhwc was killed' in said[-1]
    assert {**result, 'memory': []} == timed
    assert measure_memory([small], path, progress=said.append)['memory'] == result['memory']    # not again
