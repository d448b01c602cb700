"""The studies behind docs/: python -m studies lists them, python -m studies NAME [OPTION ...] runs one again.

Options after the name go to the study's own command, for instance `--processes 2`.
Results of this machine go into its folder of docs/results; afterwards `python tools/readme.py` writes every report,
picture and table from them.
"""
import argparse
import shlex
import subprocess
import sys
from pathlib import Path

from inceptionnext_seg.errors import UserError, exit_on_user_error

from .published.machine import folder_name
from .published.studies import MACHINE, STUDIES, study_of, takes

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / 'docs/results'


def parse_args(argv=None):
    parser = argparse.ArgumentParser(prog='python -m studies', description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--machine', default=folder_name(), metavar='FOLDER',
                        help="of docs/results, for this machine's results (default: %(default)s)")
    parser.add_argument('--dry-run', action='store_true', help='print the commands, and run nothing')
    parser.add_argument('name', nargs='?', metavar='NAME', help=f'of {", ".join(STUDIES)}')
    parser.add_argument('options', nargs=argparse.REMAINDER, metavar='OPTION', help="of the study's own command")
    return parser.parse_args(argv)


def commands_of(study, machine, options=()):
    """The command lines of a study, as lists."""
    return [shlex.split(command.replace(MACHINE, machine)) + list(options) * (i == study.measuring)
            for i, command in enumerate(study.commands)]


def listing(machine):
    """Every study in a few lines."""
    lines = []
    for name, study in STUDIES.items():
        lines += [f'{name}: {study.question}',
                  f'    result  docs/results/{study.result.replace(MACHINE, machine)}',
                  f'    takes   {takes(study, RESULTS)}']
        lines += [f'    needs   {study.needs}'] if study.needs else []
        lines += [f'    {"runs" if i == 0 else "then":<7} python {shlex.join(command)}'
                  for i, command in enumerate(commands_of(study, machine))]
    return '\n'.join([*lines, '', 'python -m studies NAME runs one; python tools/readme.py writes all tables and '
                      'pictures from the results.'])


@exit_on_user_error
def main(argv=None):
    args = parse_args(argv)
    if args.name is None:
        print(listing(args.machine))
        return
    for command in commands_of(study_of(args.name), args.machine, args.options):
        print(f'python {shlex.join(command)}', flush=True)
        if args.dry_run:
            continue
        status = subprocess.run([sys.executable, *command], cwd=ROOT).returncode
        if status:
            raise UserError(f'python {shlex.join(command)} ended with status {status}. Next: see above; most studies '
                            'go on where they were stopped.')
    if not args.dry_run:
        print('Next: python tools/readme.py writes every table and picture from the results.')


if __name__ == '__main__':
    main()
