"""Trainings of a study: what each left, and several processes that share them."""
import json
import re
import threading
import time

import pytest
from study_runs import unread

from inceptionnext_seg.errors import UserError
from studies import trainings
from studies.ablations import __main__ as command
from studies.ablations.arms import candidates, config_of
from studies.sweep import PROCESS, Run
from studies.trainings import (
    ROOT,
    Recorded,
    complete,
    conditions,
    curve_of,
    endpoint,
    record,
    refuse_failed,
    settings_digest,
    train,
)


def test_a_run_that_was_interrupted_has_its_whole_curve(tmp_path):
    for day, points in (('1', [(100, 3.), (200, 2.)]), ('2', [(200, 2.), (300, 1.5), (400, 1.)])):
        (tmp_path / day).mkdir()
        (tmp_path / day / 'metrics.json').write_text(json.dumps(dict(
            mIoU=1., mAcc=1., aAcc=1., per_class=dict(sky=dict(IoU=1., Acc=1.)), environment=dict(command='train'),
            history=[dict(iteration=i, cross_entropy=loss, mIoU=10.) for i, loss in points])))
    curve = curve_of(tmp_path)
    assert [point['iteration'] for point in curve] == [100, 200, 300, 400]
    assert endpoint(curve, 'cross_entropy') == 1.5
    assert endpoint(curve, 'cross_entropy', at=300) == pytest.approx(6.5 / 3)
    assert endpoint(curve[:2], 'mIoU') is None
    assert complete([dict(arm='a', seed=3, curve=curve)], ['a', 'b'], 'mIoU') == ([], dict(a=[], b=[]))


def test_starts_are_counted_by_their_logs_and_the_commits_of_all_are_said(tmp_path, monkeypatch):
    monkeypatch.setattr(trainings, 'settings_digest', lambda config: f'hash of {config}')
    run = Run(unread(['a'], tmp_path)[0], 0)
    assert record(run) is None
    for name, iteration, commit in (('1', 100, 'b0'), ('2', None, None), ('3', 400, 'a1')):
        folder = run.work_dir / name
        folder.mkdir(parents=True)
        (folder / f'{name}.log').touch()
        if iteration:
            (folder / 'metrics.json').write_text(json.dumps(dict(
                mIoU=1., mAcc=1., aAcc=1., per_class=dict(sky=dict(IoU=1., Acc=1.)), iteration=iteration,
                environment=dict(command='train', commit=commit))))
    found = record(run, arm='a')
    assert (found['arm'], found['starts'], found['commit']) == ('a', 3, 'a1, b0')
    assert (found['settings'], found['iterations']) == ('hash of a', 400)
    text = conditions([found, dict(found, starts=1, commit='b0, c2')])
    assert 'commit a1, b0, c2;' in text and '1 of them were interrupted' in text and 'unknown' in text
    assert 'unknown' not in conditions([dict(found, starts=1)])
    assert conditions([]) == 'No run is done.'
    refuse_failed([run], 'studies', [])     # done since
    other = run._replace(seed=1)
    with pytest.raises(UserError, match='1 runs failed: a, seed 1'):
        refuse_failed([run, other, other], 'studies', [])


# What the result file has


def test_a_run_of_the_result_file_is_taken_where_length_and_settings_are_the_same(tmp_path):
    config = str(ROOT / config_of('identity'))
    plain, = candidates(['identity'], tmp_path, [])
    digest = settings_digest(config)
    assert digest != settings_digest(str(ROOT / config_of('dw3x3'))) and re.fullmatch('[0-9a-f]{16}', digest)
    run, out = dict(arm='identity', seed=3, iterations=2400, settings=digest), tmp_path / 'study.json'
    assert Recorded(out, ('runs', ), ('arm', )).run('runs', plain, 3, arm='identity') is None
    for change, message in ((dict(), None), (dict(iterations=300), 'iterations 300, and the study now has 2400'),
                            (dict(settings='0' * 16), 'settings 0000'), (dict(settings=None), 'settings None')):
        out.write_text(json.dumps(dict(pilot=None, runs=[run | change])))
        recorded = Recorded(out, ('pilot', 'runs'), ('arm', ))
        assert recorded.run('runs', plain, 4, arm='identity') is recorded.run('pilot', plain, 3, arm='identity') is None
        if message is None:
            assert recorded.run('runs', plain, 3, arm='identity') == run
        else:
            with pytest.raises(UserError, match=message):
                recorded.run('runs', plain, 3, arm='identity')


# Several processes


def test_two_processes_of_a_study_share_its_runs_and_wait_for_one_another_at_the_end_alone(tmp_path, monkeypatch):
    lock, trained, waits = threading.Lock(), [], []
    monkeypatch.setattr(trainings, 'finished', lambda run: run.work_dir in trained)

    class Sharing:
        """Of :class:`studies.sweep.Sweep`, what is used; a run takes a moment."""
        taken = set()

        def __init__(self, candidates, seeds, train):
            self.runs, self.failed = [Run(candidate, seed) for seed in seeds for candidate in candidates], []

        def run_what_is_free(self):
            return [run for run in self.runs if not self.attempt(run)]

        def attempt(self, run, wait=False):
            with lock:
                mine = run.work_dir not in self.taken
                self.taken.add(run.work_dir)
            if not mine and not wait:
                return run.work_dir in trained
            if wait:
                waits.append(len(self.taken))
                while run.work_dir not in trained:
                    time.sleep(0.002)
                return True
            time.sleep(0.05 if run.candidate.name == 'slow' else 0.01)
            trained.append(run.work_dir)
            return True

    monkeypatch.setattr(trainings, 'Sweep', Sharing)
    arms, failed = unread(['slow', 'fast'], tmp_path), []
    workers = [threading.Thread(target=lambda: failed.append(train(lambda seed: arms, range(4)))) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert failed == [[], []]
    assert sorted(trained) == sorted(Run(arm, seed).work_dir for arm in arms for seed in range(4))      # each once
    assert set(waits) <= {len(trained)}      # when nothing was left to take


def test_a_run_that_another_process_brings_to_its_end_has_not_failed(tmp_path, monkeypatch):
    arms, done, said = unread(['a', 'b'], tmp_path), set(), []
    monkeypatch.setattr(trainings, 'finished', lambda run: run.work_dir in done)

    class Failing:
        def __init__(self, candidates, seeds, train):
            self.runs, self.failed = [Run(candidate, seed) for seed in seeds for candidate in candidates], []

        def run_what_is_free(self):
            self.failed = list(self.runs)
            done.update(run.work_dir for run in self.runs if run.candidate.name == 'a')     # meanwhile
            return []

    monkeypatch.setattr(trainings, 'Sweep', Failing)
    assert [run.title for run in train(lambda seed: arms, [0], said.append)] == ['b, seed 0']
    assert [[run.title for run in each] for each in said] == [['b, seed 0']]


def test_helpers_are_the_same_command_and_are_waited_for(tmp_path, monkeypatch, capfd):
    (tmp_path / 'helper_of_a_study.py').write_text(
        'import sys, time\ntime.sleep(0.1)\nprint(sys.argv[1:])\nsys.exit(3)')
    monkeypatch.setenv('PYTHONPATH', str(tmp_path))
    with trainings.helped('helper_of_a_study', ['all', '--jobs', '2'], 2):
        pass
    assert re.search(r"\['all', '--jobs', '2', '--jobs', '1'\]\nprocess \d+, .* exit code 3", capfd.readouterr().out)
    assert command.parse_args(['all', '--jobs', '2', '--jobs', '1']).jobs == 1
    with pytest.raises(SystemExit):
        command.parse_args(['all', '--jobs', '0'])


def test_the_time_of_a_process_counts_where_it_trained_a_run_from_its_beginning(tmp_path):
    for content, expected in ((None, None), (dict(seconds=9., resumed=False, exit_code=0), 9.),
                              (dict(seconds=9., resumed=True, exit_code=0), None),
                              (dict(seconds=9., resumed=False, exit_code=1), None)):
        if content:
            (tmp_path / PROCESS).write_text(json.dumps(content))
        assert trainings.process_seconds(tmp_path) == expected
