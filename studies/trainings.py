"""The trainings of a study: what is not done is run, and what each left is read.

A study goes seed by seed, all arms with one seed before any with the next, so that it has complete blocks whenever it
is stopped; :mod:`.sweep` runs, locks and resumes. Several processes of one study share its runs: one that finds a run
taken goes on to the next, over the end of a seed, too, and waits for what is taken at the very end alone.

What the result file has is done, also where its work_dir is not: a study of days goes on on another machine from the
file alone (:class:`Recorded`).
"""
import argparse
import contextlib
import fcntl
import functools
import hashlib
import json
import os
import shlex
import statistics
import subprocess
import sys
from pathlib import Path

from inceptionnext_seg.engine.launch import load_config
from inceptionnext_seg.errors import UserError
from inceptionnext_seg.files import read_object
from inceptionnext_seg.provenance import environment

from .comparison.reading import is_number, public_command, read_metrics
from .speed.measuring import machine_and_versions
from .sweep import PROCESS, Sweep, finished, settings_of_run

ROOT = Path(__file__).resolve().parents[1]
# In order: the first decides.
ENDPOINTS = dict(cross_entropy='cross-entropy (nats)', mIoU='mIoU (%)')
AVERAGED = 3    # the last validations, of which an endpoint is the mean


def train(candidates_of, seeds, settled=lambda failed: None, recorded=lambda candidate, seed: None):
    """Bring every candidate to its end with every seed.

    Args:
        candidates_of (Callable): From a seed to a list of :class:`.sweep.Candidate`.
        seeds (Sequence[int]): In this order.
        settled (Callable): Called with the runs that failed, after each seed.
        recorded (Callable): From a candidate and a seed to what is known of a run that needs no training; None where
            it does.

    Returns:
        list[Run]: Those that are not done in the end: they failed.
    """
    sweeps, taken = [], []
    for i, seed in enumerate(seeds, 1):
        print(f'seed {seed}, {i} of {len(seeds)}', flush=True)
        left = [candidate for candidate in candidates_of(seed) if not recorded(candidate, seed)]
        sweep = Sweep(left, [seed], ROOT / 'tools/train.py')
        sweeps.append(sweep)
        taken += [(sweep, run) for run in sweep.run_what_is_free()]
        settled(not_done(run for each in sweeps for run in each.failed))
    for sweep, run in taken:
        sweep.attempt(run, wait=True)
    failed = not_done(run for sweep in sweeps for run in sweep.runs)
    if taken:
        settled(failed)
    return failed


def not_done(runs):
    return [run for run in runs if not finished(run)]


@contextlib.contextmanager
def helped(module, argv, jobs):
    """``jobs`` processes of one study at once: this one, and others of the same command that share its runs.

    They are waited for at the end. Ctrl-C reaches all of them; what another signal ends alone leaves them at work.
    """
    helpers = [subprocess.Popen([sys.executable, '-u', '-m', module, *argv, '--jobs', '1'], stdin=subprocess.DEVNULL)
               for _ in range(jobs - 1)]
    yield
    for helper in helpers:
        if code := helper.wait():
            print(f'process {helper.pid}, which shared the runs, ended with exit code {code}: see above', flush=True)


@contextlib.contextmanager
def alone(folder):
    """Hold a lock of a study's folder: of several processes one at a time decides, or reads and writes the results."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / 'study.lock').open('a') as file:
        fcntl.flock(file, fcntl.LOCK_EX)    # the kernel's: none is left behind by a process that died
        yield


def curve_of(work_dir):
    """Every validation of a run by iteration, those before it was interrupted too: one metrics.json for each start."""
    points = {}
    for path in sorted(Path(work_dir).rglob('metrics.json')):
        with contextlib.suppress(UserError):
            points.update({point['iteration']: point for point in read_metrics(path).get('history') or []})
    return [dict(iteration=i, **{name: points[i].get(name) for name in ENDPOINTS}) for i in sorted(points)]


def commits_of(work_dir):
    """Of every start of a run that wrote metrics, also of one that was not validated; None where none has any."""
    found = set()
    for path in Path(work_dir).rglob('metrics.json'):
        with contextlib.suppress(UserError):
            origin = read_object(path, "a run's metrics.json", f'delete {path}').get('environment')
            found.add(origin.get('commit') if isinstance(origin, dict) else None)
    return ', '.join(sorted(filter(None, found))) or None


class Recorded:
    """The runs of a study's result file, which are not trained again where their work_dirs are gone.

    Args:
        out (Path): The result file, which need not be there.
        parts (Sequence[str]): Its keys that hold runs.
        names (Sequence[str]): The keys of a run that it is known by, with its seed.
    """

    def __init__(self, out, parts, names):
        self.out, self.names = out, names
        self.content = read_object(out, 'the result of a study', f'delete {out}') if out.is_file() else {}
        self.runs = {(part, *(run[name] for name in names), run['seed']): run
                     for part in parts for run in self.content.get(part) or []}

    def run(self, part, candidate, seed, **names):
        """The run of a candidate; None where the file has none.

        Raises:
            UserError: It is of another length, or its config has been changed since.
        """
        found = self.runs.get((part, *(names[name] for name in self.names), seed))
        if found is None:
            return None
        for what, before, now in (
                ('iterations', found.get('iterations'), candidate.cfg.train_cfg.max_iters),
                ('the settings', found.get('settings'), settings_digest(candidate.config))):
            if before != now:
                raise UserError(f'{self.out}: the run of {candidate.name} with seed {seed} has {what} {before}, and '
                                f'the study now has {now}. Expected: one experiment a file. Next: another --out, or '
                                f'delete {self.out} to train everything again.')
        return found


@functools.cache
def settings_digest(config):
    """A short hash of all settings of a config file that a run reads; options, as for folders of data, are none."""
    settings = settings_of_run(load_config(config, {}))
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def record(run, **names):
    """What the result file has of a run, with ``names`` in front; None while it is not done.

    A start has a log from its beginning, and metrics once it is validated.
    """
    done = finished(run)
    if not done:
        return None
    metrics = done[1]
    speed, origin = (metrics.get('train_throughput') or {}).get('images_per_s'), metrics['environment']
    return dict(
        **names, seed=run.seed, settings=settings_digest(run.candidate.config), iterations=metrics['iteration'],
        curve=curve_of(run.work_dir),
        starts=len(list(run.work_dir.glob('*/*.log'))), commit=commits_of(run.work_dir),
        seconds_per_iteration=speed and run.candidate.cfg.train_cfg.total_batch_size / speed,
        seconds_per_validation=validation_seconds(metrics), seconds_of_process=process_seconds(run.work_dir),
        **{name: origin.get(name) for name in ('date', 'load_average', 'threads', 'device_name')},
        versions=origin.get('versions'))


def validation_seconds(metrics):
    throughput = metrics.get('val_throughput') or {}
    speed = throughput.get('images_per_s')
    return speed and (throughput['images'] + throughput['warmup_iterations']) / speed


def process_seconds(work_dir):
    """How long the process of a run took, imports and all; None where it was interrupted, or no sweep was there at its
    end."""
    path = work_dir / PROCESS
    if not path.is_file():
        return None
    found = read_object(path, 'how long a run took', f'delete {path}')
    return None if found.get('resumed') or found.get('exit_code') else found.get('seconds')


def endpoint(curve, name, at=None):
    """Mean of the last three validations, up to iteration ``at``; None where there are not so many numbers."""
    values = [point[name] for point in curve if at is None or point['iteration'] <= at][-AVERAGED:]
    return statistics.fmean(values) if len(values) == AVERAGED and all(map(is_number, values)) else None


def complete(runs, arms, name, at=None):
    """Endpoints of the seeds that all arms have been run with.

    Returns:
        tuple[list[int], dict[str, list[float]]]: Seeds, and of each arm a value for each.
    """
    values = {(run['arm'], run['seed']): endpoint(run['curve'], name, at) for run in runs}
    seeds = sorted(seed for seed in {run['seed'] for run in runs}
                   if all(values.get((arm, seed)) is not None for arm in arms))
    return seeds, {arm: [values[arm, seed] for seed in seeds] for arm in arms}


def conditions(runs):
    """In words: how many runs, where and when, how busy the machine was, how many were interrupted."""
    if not runs:
        return 'No run is done.'

    def listed(name):
        return joined(str(run[name]) for run in runs if run.get(name) is not None)

    def joined(values):
        return ', '.join(sorted(set(values))) or 'not recorded'

    commits = joined(commit for run in runs for commit in (run.get('commit') or '').split(', ') if commit)
    interrupted = sum(run['starts'] > 1 for run in runs)
    loads, dates = [run['load_average'] for run in runs if is_number(run.get('load_average'))], [
        str(run['date'])[:10] for run in runs]
    versions = next((run['versions'] for run in runs if run.get('versions')), {})
    return (f'{len(runs)} runs, {min(dates)} to {max(dates)}, on {listed("device_name")}, {listed("threads")} '
            f'thread(s), torch {versions.get("torch", "?")}, commit {commits}; load average at the end of a '
            'run ' + (f'{min(loads):.1f} to {max(loads):.1f}' if loads else 'not recorded')
            + f'; {interrupted} of them were interrupted and went on'
            + (', and the commit of a start that wrote no metrics is unknown.' if interrupted else '.'))


def study_environment():
    """What the result file of a study says of its origin: :func:`environment`, without this machine's paths, and the
    features of the processor that its machine is named for."""
    found = environment('cpu')
    return dict(found, command=public_command(found['command']), features=machine_and_versions()['features'])


def failures(out, failed, runs, planned, key='failed'):
    """The runs that failed, in this call or in an earlier one, and are not done since.

    Args:
        out (Path): The result file, whose ``key`` has those of earlier calls.
        failed, runs, planned (Iterable[tuple]): Names of the runs that failed in this call, of those that are done, and
            of all of the study.

    Returns:
        list[tuple]: In the order of ``planned``.
    """
    before = read_object(out, 'the result of a study', f'delete {out}').get(key, []) if out.is_file() else []
    left = {*map(tuple, before), *failed} - set(runs)
    return [run for run in planned if run in left]


def start_in_background(module, argv, log):
    """Start ``python -m module`` with the same arguments, but for ``--background``, and let it go on alone."""
    log.parent.mkdir(parents=True, exist_ok=True)
    given = [argument for argument in argv if argument != '--background']
    with log.open('ab') as output:
        process = subprocess.Popen([sys.executable, '-u', '-m', module, *given], stdout=output,
                                   stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True)
    print(f'Process {process.pid} goes on in the background; progress in {log}. kill -- -{process.pid} stops it with '
          'its trainings, and the same command goes on after that.')


def add_sharing(parser):
    """--jobs and --threads: runs side by side use cores better than threads of one run do in so small a network."""
    parser.add_argument('--jobs', type=positive, default=2, help='trainings at once (default: %(default)s)')
    parser.add_argument('--threads', type=positive, default=1, help='of a training (default: %(default)s)')


def positive(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f'{value}; expected: 1 or more')
    return value


def set_threads(count):
    """Of the trainings, which inherit it."""
    os.environ['OMP_NUM_THREADS'] = str(count)


def refuse_failed(failed, module, argv):
    """Raise a UserError that names the runs that failed and are not done since, if there are any."""
    failed = {run.work_dir: run for run in failed if not finished(run)}.values()    # a run may be of two steps
    if failed:
        again = shlex.join(['python', '-m', module, *argv])
        raise UserError(f'{len(failed)} runs failed: {"; ".join(run.title for run in failed)}. A run that fails is a '
                        f'result, not an exclusion. Next: see above; the same command tries them again: {again}')
