"""Configs, variants of them and seeds: run what is not done yet, one run after another, and compare them in one report.

A run has its own work_dir, ``WORK_DIR/CONFIG[-VARIANT]/seed_N``, and is a process of its own, so that a sweep survives
a failing run, and a run a sweep that is killed. What is done, half done or at work can be seen from the files alone:
several sweeps on one work_dir share its runs.
"""
import argparse
import contextlib
import fcntl
import os
import re
import shlex
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from inceptionnext_seg.engine.launch import load_config
from inceptionnext_seg.engine.options import OptionsAction
from inceptionnext_seg.engine.resuming import POINTER, candidates
from inceptionnext_seg.engine.settings import SETTINGS_OF_A_RUN
from inceptionnext_seg.errors import UserError
from inceptionnext_seg.files import write_json
from inceptionnext_seg.segmentation.complexity import count

from .comparison.collecting import collect
from .comparison.reading import read_metrics, read_object
from .comparison.report import write_report
from .comparison.words import listing

LOG_TAIL = 15
PROCESS = 'process.json'    # of a run: how long its last process took, from its start to its end
# For reports on runs with the embedded data set.
MINI_SET = (
    'What these runs can tell: they are short trainings from scratch on a few hundred drawn scenes. A variant that '
    'hardly learns shows, and so does whether a larger experiment is set up as meant. What they cannot tell: drawn '
    'scenes have neither the texture nor the variety of photographs, rare classes are not found at all in so few '
    'iterations, and nothing is pretrained. Neither the size nor the order of the differences carries over to ADE20K.')


class Candidate(NamedTuple):
    """A config, or a variant of it, that is trained with several seeds.

    Attributes:
        name (str): In the report.
        config (str): Path of the config file.
        options (list[str]): ``KEY=VALUE`` each, as after ``--cfg-options``.
        folder (Path): Holds the work_dirs of its runs.
        cfg (Config): The config with the options applied.
    """
    name: str
    config: str
    options: list
    folder: Path
    cfg: object


class Run(NamedTuple):
    """One training of a candidate."""
    candidate: Candidate
    seed: int

    @property
    def title(self):
        return f'{self.candidate.name}, seed {self.seed}'

    @property
    def work_dir(self):
        return self.candidate.folder / f'seed_{self.seed}'


# What to run


def parse_options(options):
    """``KEY=VALUE`` strings as mmengine reads them after ``--cfg-options``: a dict.

    Raises:
        UserError: One has no '='.
    """
    for option in options:
        if not re.match(r'[^=]+=', option):
            raise UserError(f'option {option!r} is not KEY=VALUE. Next: for example train_cfg.max_iters=100')
    namespace = argparse.Namespace()
    try:
        OptionsAction(['--cfg-options'], 'cfg_options')(None, namespace, options)
    except argparse.ArgumentError as error:
        raise UserError(str(error)) from error
    return namespace.cfg_options


def short_names(stems):
    """Names of configs without the words, between '_', that all have in common at their beginning and end."""
    words = [stem.split('_') for stem in stems]
    shortest = min(map(len, words))
    start = next((i for i in range(shortest) if len({word[i] for word in words}) > 1), shortest)
    end = next((i for i in range(shortest) if len({word[-1 - i] for word in words}) > 1), shortest)
    names = ['_'.join(word[start:len(word) - end]) for word in words]
    return names if all(names) and len(stems) > 1 else stems


def plan(configs, variants, options, work_dir):
    """Every config as it is and in each variant.

    Args:
        configs (Sequence[str]): Paths.
        variants (dict[str, list[str]]): Options of each variant, by name.
        options (list[str]): Options of all.
        work_dir (Path): Of the sweep.

    Returns:
        list[Candidate]: The first is what the report compares the others with.

    Raises:
        UserError: A config or an option is wrong, two configs have one name, or a candidate would not train for a
            number of iterations.
    """
    stems = [Path(config).stem for config in configs]
    for stem in stems:
        if stems.count(stem) > 1:
            raise UserError(f'two configs are named {stem}, but the runs of each lie in a folder of its name. '
                            'Expected: names that differ. Next: rename one, or make it a --variant of the other.')
    candidates = []
    for config, stem, short in zip(configs, stems, short_names(stems), strict=True):
        for variant, changes in {'': [], **variants}.items():
            given = [*options, *changes]
            cfg = load_config(config, parse_options(given))
            if not (cfg.get('train_cfg') or {}).get('max_iters'):
                raise UserError(f'config {config} has no train_cfg.max_iters, which says when a run is done. '
                                'Expected: a config that trains for a number of iterations.')
            name = '-'.join(filter(None, [short if len(configs) > 1 or not variant else '', variant]))
            candidates.append(Candidate(
                name, str(config), given, Path(work_dir) / '-'.join(filter(None, [stem, variant])), cfg))
    return candidates


def settings_of(value, path=''):
    """Every setting of a config by its dotted path, as text."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    found = {}
    for key, child in items:
        found.update(settings_of(child, f'{path}.{key}'.lstrip('.')))
    return found or {path: repr(value)}


def settings_of_run(cfg):
    """:func:`settings_of` what a run reads: a variable of the config file, which no part of it does, may change."""
    return settings_of({key: value for key, value in cfg.to_dict().items() if key in SETTINGS_OF_A_RUN})


def check_settings(candidate):
    """Compare a candidate's settings with those that its folder was begun with, which are written down at first.

    Raises:
        UserError: They differ, so that the runs there are not runs of this candidate.
    """
    path = candidate.folder / 'settings.json'
    expected = settings_of_run(candidate.cfg)
    if not path.is_file():
        write_json(path, expected)
        return
    found = read_object(path, 'the settings of the runs beside it', f'delete {candidate.folder}')
    different = [f'{key} was {found.get(key, "not set")} and is now {expected.get(key, "not set")}'
                 for key in sorted(found.keys() | expected.keys()) if found.get(key) != expected.get(key)]
    if different:
        raise UserError(f'the runs in {candidate.folder} were begun with other settings: {"; ".join(different[:5])}'
                        f'{f"; and {len(different) - 5} more" * (len(different) > 5)}. Expected: one experiment a '
                        f'folder. Next: another --work-dir, or delete {candidate.folder}.')


# The state of a run


def finished(run):
    """Path and content of the ``metrics.json`` of the last iteration's evaluation; None while there is none."""
    for path in sorted(run.work_dir.rglob('metrics.json'), reverse=True):
        with contextlib.suppress(UserError):
            metrics = read_metrics(path)
            if metrics.get('iteration') == run.candidate.cfg.train_cfg.max_iters:
                return path, metrics
    return None


def can_resume(run):
    """Whether a checkpoint is there to go on from: one of mmengine's own may be lost, or a part of one."""
    return (run.work_dir / POINTER).is_file() and any(path.is_file() for path in candidates(run.work_dir))


@contextlib.contextmanager
def locked(run, wait=False):
    """Hold a run's lock: yields its file, or None where another process holds it and ``wait`` is False.

    The lock is the kernel's (flock), so none is left behind by a process that died. The training process inherits the
    file and with it the lock: where a sweep is killed and its run goes on, the run stays locked until it ends.
    """
    run.work_dir.mkdir(parents=True, exist_ok=True)
    with (run.work_dir / 'lock').open('a+') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            held = True
        except BlockingIOError:
            held = False
        if held:
            file.truncate(0)  # of what an earlier process wrote
            file.write(f'{os.getpid()}\n')
            file.flush()
        yield file if held else None


# Running


def command_of(run, train, launcher='none', resume=False):
    """The command line of a run.

    Args:
        train (Path): tools/train.py.
        launcher (str): 'none'; 'pytorch', torchrun on this machine; 'slurm', as MMSegmentation's tools/slurm_train.sh.
            The last two read the environment as there: GPUS, and for Slurm PARTITION, GPUS_PER_NODE, CPUS_PER_TASK and
            SRUN_ARGS.
    """
    variable = os.environ.get
    python = [sys.executable, '-u']
    start = dict(
        none=python,
        pytorch=[*python, '-m', 'torch.distributed.run', '--standalone',
                 f'--nproc_per_node={variable("GPUS", "auto")}'],
        slurm=['srun', *(['-p', os.environ['PARTITION']] if variable('PARTITION') else []),
               f'--job-name={run.candidate.name}', f'--gres=gpu:{variable("GPUS_PER_NODE", 4)}',
               f'--ntasks={variable("GPUS", 4)}', f'--ntasks-per-node={variable("GPUS_PER_NODE", 4)}',
               f'--cpus-per-task={variable("CPUS_PER_TASK", 5)}', '--kill-on-bad-exit=1',
               *shlex.split(variable('SRUN_ARGS', '')), *python])[launcher]
    return [*start, str(train), run.candidate.config, '--work-dir', str(run.work_dir), '--seed', str(run.seed),
            *(['--resume'] if resume else []), *(['--launcher', launcher] if launcher != 'none' else []),
            *(['--cfg-options', *run.candidate.options] if run.candidate.options else [])]


def execute(command, log, lock):
    """Run a command, its output appended to ``log``, and return its exit code. The process inherits ``lock``."""
    with log.open('ab') as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, pass_fds=[lock.fileno()])
        try:
            return process.wait()
        except BaseException:  # Ctrl-C: nothing may train on unseen
            process.terminate()
            process.wait()
            raise


def tail_of(path):
    return '\n'.join(f'    {line}' for line in path.read_text(errors='replace').splitlines()[-LOG_TAIL:])


def duration(seconds):
    minutes = round(seconds / 60)
    return f'{seconds:.0f} s' if seconds < 90 else f'{minutes} min' if minutes < 90 else f'{minutes / 60:.1f} h'


class Sweep:
    """Runs of several candidates, on their way to being done.

    Args:
        candidates (list[Candidate]): From :func:`plan`.
        seeds (Sequence[int]): Each candidate is trained with each.
        train (Path): tools/train.py.
        launcher (str): As that of :func:`command_of`.
    """

    def __init__(self, candidates, seeds, train, launcher='none'):
        self.candidates, self.train, self.launcher = candidates, train, launcher
        # Seed by seed, so that a sweep that is stopped has all candidates with the first ones.
        self.runs = [Run(candidate, seed) for seed in seeds for candidate in candidates]
        self.settled, self.failed, self.seconds = set(), [], []

    def commands(self):
        """The commands of the runs that are not done, in order."""
        return [command_of(run, self.train, self.launcher, can_resume(run)) for run in self.runs if not finished(run)]

    def run(self):
        """Bring every run to its end, those that another process is at work on last. Progress is printed.

        Returns:
            list[Run]: Those that failed.
        """
        for run in self.run_what_is_free():
            self.attempt(run, wait=True)
        return self.failed

    def run_what_is_free(self):
        """Bring every run to its end but those that another process is at work on.

        Returns:
            list[Run]: These.
        """
        for candidate in self.candidates:
            check_settings(candidate)
        return [run for run in self.runs if not self.attempt(run)]

    def attempt(self, run, wait=False):
        """Train one run, if it is not done. False where another process is at work on it and ``wait`` is False."""
        if wait and not finished(run):
            self.say(run, 'waiting for the process that trains it')
        with locked(run, wait) as lock:
            if lock is None:
                self.say(run, f'another process trains it ({(run.work_dir / "lock").read_text().strip()})')
                return False
            done = finished(run)
            if done:
                self.settle(run, f'done before, mIoU {done[1]["mIoU"]:.2f}')
                return True
            resume, log = can_resume(run), run.work_dir / 'sweep.log'
            self.say(run, f'{"resumed" if resume else "training"}, output in {log}{self.remaining()}')
            start = time.monotonic()
            code = execute(command_of(run, self.train, self.launcher, resume), log, lock)
            self.seconds.append(time.monotonic() - start)
            done = finished(run)
            write_json(run.work_dir / PROCESS, dict(seconds=self.seconds[-1], resumed=resume, exit_code=code))
        took = duration(self.seconds[-1])
        if done and code == 0:
            self.settle(run, f'mIoU {done[1]["mIoU"]:.2f} after {took}', self.remaining)
        else:
            self.failed.append(run)
            self.settle(run, f'FAILED after {took} with exit code {code}, at the end of {log}:\n{tail_of(log)}\n   ',
                        self.remaining)
        return True

    def settle(self, run, text, more=str):
        self.settled.add(run.work_dir)
        self.say(run, text + more())

    def say(self, run, text):
        print(f'[{len(self.settled)}/{len(self.runs)}] {run.title}: {text}', flush=True)

    def remaining(self):
        """In words, how long the runs that are left will take, as long as each took on average so far."""
        left = sum(run.work_dir not in self.settled and not finished(run) for run in self.runs)
        known = self.seconds or [done[1]['seconds'] for run in self.runs if (done := finished(run))]
        if not left:
            return ''
        return f'; {left} left' + (f', about {duration(left * statistics.fmean(known))}' if known else '')

    def write_report(self, out, benchmarks=()):
        """``tools/compare.py``'s report of the runs that are done, with parameters and MACs.

        Args:
            benchmarks (Sequence): Result files of ``tools/benchmark.py`` with the same configs.

        Returns:
            list[Path]: What was written.

        Raises:
            UserError: No run of the first candidate is done, which the others are compared with.
        """
        done = {candidate.name: [finished(run)[0] for run in self.runs if run.candidate is candidate and finished(run)]
                for candidate in self.candidates}
        done = {name: runs for name, runs in done.items() if runs}
        first = self.candidates[0]
        if first.name not in done:
            raise UserError(f'no run of {first.name} is done, with which the report compares the others. '
                            'Next: fix what failed, and give the same command again.')
        others = [name for name in done if name != first.name]
        against = listing(others if len(others) < 4 else [f'{len(others)} others']) if others else ''
        content = collect(done, ' against '.join(filter(None, [first.name, against])), benchmarks)
        content['complexity'] = {candidate.name: cost(candidate.cfg) for candidate in self.candidates
                                 if candidate.name in done}
        if first.cfg.val_dataloader.dataset.type == 'MiniADE20KDataset':
            content['note'] = MINI_SET
        return write_report(content, out)


def cost(cfg):
    """Parameters and MACs of a config's segmentor."""
    complexity = count(cfg)
    return dict(shape=list(complexity.shape), parameters=complexity.parameters, macs=complexity.macs)
