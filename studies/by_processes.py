"""A small measurement that several processes repeat, one after another, on a machine that has no other work.

A study of this kind has ``measure_here()``, rows of seconds by this process, and ``report(result)``, Markdown.
"""
import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
from tqdm import tqdm

from inceptionnext_seg.errors import UserError
from inceptionnext_seg.files import write_json, write_text

from .going_on import SAME, content_of
from .published.machine import folder_name
from .speed.measuring import machine_and_versions, wait_for_quiet


def measure(module: str, out: Path, processes: int, settings: dict) -> dict:
    """Processes until there are so many; the file is written after each.

    Args:
        module (str): Of the study, such as ``studies.window_speed``.
        settings (dict): What the result file says of the measurement.

    Raises:
        UserError: Other programs keep the machine busy, a process failed, or the file is of another machine or code.
    """
    described = machine_and_versions()
    result = content_of(out, f'a result of {module}', described, dict(
        environment=described, **settings, processes=[]), (*SAME, 'commit'))
    for _ in tqdm(range(len(result['processes']), processes), unit='process'):
        busy = wait_for_quiet()
        load = round(psutil.getloadavg()[0], 2)
        run = subprocess.run([sys.executable, '-m', module, '--child'], capture_output=True, text=True,
                             cwd=Path(__file__).parents[1])
        if run.returncode:
            raise UserError(f'a process failed: {(run.stderr.strip().splitlines() or ["no message"])[-1]}')
        result['processes'].append(dict(
            busy_before=round(busy, 3), load_average=load, rows=json.loads(run.stdout.splitlines()[-1])))
        write_json(out, result)
    return result


def origin(result: dict) -> str:
    """Of which command, commit, day, processor, threads and torch a result is."""
    e = result['environment']
    return (f'`{e["command"]}`, commit {e["commit"]}, {e["date"][:10]}, {e["device_name"]}, {result["threads"]} '
            f'threads, torch {e["versions"]["torch"]}.')


def quietness(result: dict) -> str:
    """How busy the machine was."""
    loads = [process['load_average'] for process in result['processes']]
    busy = max(process['busy_before'] for process in result['processes'])
    return (f'Other programs kept {busy:.2f} cores busy at most before a process; load average {min(loads)} to '
            f'{max(loads)}.')


def main(module: str, about: str, settings: dict, measure_here: Callable, report: Callable) -> None:
    """The command line of such a study; ``about`` is its module's docstring."""
    parser = argparse.ArgumentParser(prog=f'python -m {module}', description=about,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path('docs/results') / folder_name() / f'{module.rpartition(".")[2]}.json'
    parser.add_argument('--out', type=Path, default=default, metavar='FILE.json',
                        help='result file, which further processes are added to (default: %(default)s)')
    parser.add_argument('--processes', type=int, default=5, help='in all (default: %(default)s)')
    parser.add_argument('--child', action='store_true', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(measure_here()))
        return
    found = report(measure(module, args.out, args.processes, settings))
    write_text(args.out.with_suffix('.md'), found)
    print(found)
