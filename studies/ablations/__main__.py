"""Ablations with power, by the protocol in docs/studies/ablations.md: pilot, arms, report.

    python -m studies.ablations all --background
    python -m studies.ablations speed

`pilot` trains two arms with four seeds and decides length and seeds, once; `main` trains all arms, seed by seed; `all`
is both. The pilot takes about three core-hours, what follows as many as `--core-hours` says: with `--jobs` 2 of one
thread each, two cores take half as many hours. Further processes may be started with the same command at any time, and
share the runs. What was interrupted goes on from its last checkpoint: the same command, given again, finishes it. JSON
and report are written anew after each seed; what the JSON has is not trained again, so that with it alone the study
goes on on another machine. `report` writes them and trains nothing. `speed` measures training steps of all arms, each
in the same implementation, where nothing else runs; its file is beside the JSON.
"""
import argparse
import subprocess
import sys
from pathlib import Path

from inceptionnext_seg.errors import UserError, exit_on_user_error
from inceptionnext_seg.files import read_object, write_json

from ..speed.measuring import wait_for_quiet
from ..sweep import Run
from ..trainings import (
    ENDPOINTS,
    ROOT,
    Recorded,
    add_sharing,
    alone,
    failures,
    helped,
    record,
    refuse_failed,
    set_threads,
    start_in_background,
    study_environment,
    train,
)
from .arms import (
    INTERVAL,
    PILOT,
    PILOT_ITERATIONS,
    PILOT_SEEDS,
    TITLES,
    candidates,
    config_of,
    on_scenes,
    options_of,
)
from .decisions import decide
from .report import write_report
from .speed import PROCESSES, check_conditions, costs, measured, measuring_command, speed_file

MODULE = 'studies.ablations'
CORE_HOURS = 8.
STEPS = dict(pilot=('pilot', ), main=('main', ), all=('pilot', 'main'), report=(), speed=())


def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        prog=f'python -m {MODULE}', description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('step', choices=STEPS)
    parser.add_argument('--out', type=Path, default=Path('docs/results/ablations.json'),
                        help='the JSON to write; report and pictures beside it (default: %(default)s)')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/ablations'))
    parser.add_argument('--core-hours', type=float,
                        help='that the runs after the pilot may take together, from which it decides (default: '
                             f'{CORE_HOURS:g})')
    add_sharing(parser)
    parser.add_argument('--background', action='store_true', help='go on after the terminal is closed')
    parser.add_argument('--pilot-iterations', type=int, default=PILOT_ITERATIONS, help=argparse.SUPPRESS)   # for tests
    parser.add_argument('--interval', type=int, default=INTERVAL, help=argparse.SUPPRESS)
    parser.add_argument('--seeds', type=int, help=argparse.SUPPRESS)
    parser.add_argument('--cfg-options', nargs='+', default=[], help=argparse.SUPPRESS)
    return parser.parse_args(argv)


class Study:
    """The runs of the study in one folder, and what was decided."""

    def __init__(self, args):
        self.args, self.plan_file = args, args.work_dir / 'plan.json'
        self.recorded = Recorded(args.out, ('pilot', 'runs'), ('arm', ))
        decided = (self.plan or {}).get('core_hours')
        if decided is not None and args.core_hours not in (None, decided):
            raise UserError(f'--core-hours is {args.core_hours:g}, and length and seeds were decided for {decided:g}; '
                            'expected: the same, for what the pilot decided stays. Next: leave the option out.')
        self.pilot = candidates(PILOT, args.work_dir / 'pilot', [
            *options_of(args.pilot_iterations), *self.intervals(), *args.cfg_options])

    def intervals(self):
        step = self.args.interval
        return [] if step == INTERVAL else [
            f'train_cfg.val_interval={step}', f'default_hooks.checkpoint.interval={step}']

    @property
    def plan(self):
        """What the pilot decided; None before."""
        if self.plan_file.is_file():
            return read_object(self.plan_file, 'what the pilot decided', f'delete {self.args.work_dir}')
        return self.recorded.content.get('plan')

    def decide(self):
        """Once: what is there is never decided again."""
        with alone(self.args.work_dir):
            if self.plan:
                return
            runs = self.runs_of('pilot', self.pilot, PILOT_SEEDS)
            if len(runs) < len(PILOT) * len(PILOT_SEEDS):
                raise UserError(f'{len(runs)} of {len(PILOT) * len(PILOT_SEEDS)} runs of the pilot are done; expected: '
                                f'all, from which length and seeds are decided. Next: python -m {MODULE} pilot')
            plan = decide(runs, self.args.core_hours or CORE_HOURS)
            if self.args.seeds:
                plan.update(seeds=self.args.seeds, seeds_given=True)
            write_json(self.plan_file, plan)
            print(f'{plan["iterations"]} iterations, {plan["seeds"]} seeds, about '
                  f'{plan["core_hours_expected"]:.1f} core-hours')

    def arms(self, names):
        plan = self.plan
        if plan is None:
            raise UserError(f'{self.plan_file} is not there: length and seeds are not decided. Next: '
                            f'python -m {MODULE} pilot, or all.')
        length = plan['iterations']
        return candidates(names, self.args.work_dir / 'main', [
            *options_of(length, length - 2 * self.args.interval), *self.intervals(), *self.args.cfg_options])

    def seeds(self):
        return range(self.plan['seeds'])

    def run_in_file(self, part):
        return lambda arm, seed: self.recorded.run(part, arm, seed, arm=arm.name)

    def runs_of(self, part, arms, seeds):
        in_file = self.run_in_file(part)
        found = [record(Run(on_scenes(arm, seed), seed), arm=arm.name) or in_file(arm, seed)
                 for seed in seeds for arm in arms]
        return [run for run in found if run]

    def train(self, step):
        """Bring a step to its end: the runs that failed."""
        if step == 'pilot':
            failed = train(lambda seed: [on_scenes(arm, seed) for arm in self.pilot], PILOT_SEEDS, self.write,
                           self.run_in_file('pilot'))
            if not failed:
                self.decide()
                self.write([])
            return failed
        arms = self.arms(TITLES)
        return train(lambda seed: [on_scenes(arm, seed) for arm in arms], self.seeds(), self.write,
                     self.run_in_file('runs'))

    def failed(self, failed, runs, arms, seeds, key):
        return failures(self.args.out, [(run.candidate.name, run.seed) for run in failed],
                        [(run['arm'], run['seed']) for run in runs],
                        [(arm, seed) for seed in seeds for arm in arms], key)

    def write(self, failed):
        """JSON, report and pictures of what is done."""
        with alone(self.args.work_dir):
            pilot, plan = self.runs_of('pilot', self.pilot, PILOT_SEEDS), self.plan
            arms, seeds = (self.arms(TITLES), self.seeds()) if plan else ([], ())
            runs = self.runs_of('runs', arms, seeds)
            if not pilot and not runs and not failed:
                return []
            content = dict(
                protocol='docs/studies/ablations.md', endpoints=list(ENDPOINTS), plan=plan,
                configs={arm: config_of(arm) for arm in TITLES}, costs=costs(arms), pilot=pilot, runs=runs,
                failed=self.failed(failed, runs, TITLES, seeds, 'failed'),
                failed_in_pilot=self.failed(failed, pilot, PILOT, PILOT_SEEDS, 'failed_in_pilot'),
                environment=study_environment())
            write_json(self.args.out, content)
            return write_report(self.args.out)


def measure_speed(args):
    """Processes of every arm by turns, until there are five.

    Raises:
        UserError: Those that are there are of another machine, other versions or another commit, other programs keep
            the machine busy, or a process failed.
    """
    out = speed_file(args.out)
    while (done := measured(out)) < PROCESSES:
        check_conditions(out)
        wait_for_quiet()
        print(f'process {done + 1} of {PROCESSES}', flush=True)
        code = subprocess.run(measuring_command(out, args.cfg_options), cwd=ROOT).returncode
        if code:
            raise UserError(f'process {done + 1} of {PROCESSES} ended with exit code {code}; expected: 0. Next: see '
                            f'its error above; the same command goes on after the {done} that are in {out}.')
    if args.out.is_file():
        write_report(args.out)


@exit_on_user_error
def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    args = parse_args(argv)
    args.out, args.work_dir = args.out.absolute(), args.work_dir.absolute()
    if args.background:
        start_in_background(MODULE, argv, args.work_dir / 'study.log')
        return
    if args.step == 'speed':
        measure_speed(args)     # with as many threads as a user would have
        return
    set_threads(args.threads)
    if args.step == 'report' and args.out.is_file() and not args.work_dir.is_dir():
        write_report(args.out)   # from the JSON alone
        return
    study, failed = Study(args), []
    with helped(MODULE, argv, args.jobs if STEPS[args.step] else 1):
        for step in STEPS[args.step]:
            failed = study.train(step)
            if failed:
                break
    written = study.write(failed)
    for path in written:
        print(f'wrote {path}')
    if not written:
        print('No run is done: nothing is written.')
    refuse_failed(failed, MODULE, argv)


if __name__ == '__main__':
    main()
