"""The published study of speed: python -m studies.speed --out docs/results/MACHINE/speed.json

What the documents rest on first, in five processes, in turn. A run that was stopped goes on where it was; --minutes
stops it, and every figure says how many processes it is of.
"""
import argparse
from pathlib import Path

from inceptionnext_seg.errors import UserError, exit_on_user_error
from inceptionnext_seg.files import read_object

from ..published.files import REPORTS, write_report
from .cells import cells
from .measuring import WHAT, measure_all, measure_memory


def parse_args():
    every = cells()
    parser = argparse.ArgumentParser(prog='python -m studies.speed', description='The published study of speed')
    parser.add_argument('--out', required=True, metavar='FILE.json',
                        help="a folder a machine; the report (.md) and the pictures are written beside it")
    parser.add_argument('--only', nargs='+', choices=sorted({cell.suite for cell in every}), metavar='SUITE',
                        help='of %(choices)s (default: all)')
    parser.add_argument('--cell', nargs='+', metavar='TEXT', help='of these, cells whose name has one of the texts')
    parser.add_argument('--processes', type=int, default=5, help='at most so many of each cell (default: %(default)s)')
    parser.add_argument('--minutes', type=float, help='stop after so many, between two comparisons')
    parser.add_argument('--replace', action='store_true', help='start anew where the file was measured in another way')
    parser.add_argument('--memory', action='store_true', help='peak memory of the main cells, instead of times')
    parser.add_argument('--report', action='store_true', help='measure nothing: write report and pictures anew')
    args = parser.parse_args()
    args.cells = [cell for cell in every if not args.only or cell.suite in args.only]
    args.cells = [cell for cell in args.cells if not args.cell or any(text in cell.name for text in args.cell)]
    return args


@exit_on_user_error
def main():
    args = parse_args()
    if not args.cells:
        raise UserError(f'--cell {args.cell} is in no name. Next: one of {", ".join(cell.name for cell in cells())}.')
    if args.report:
        result = read_object(args.out, WHAT, 'make it without --report')
    elif args.memory:
        result = measure_memory([cell for cell in args.cells if cell.suite == 'main'], args.out, args.minutes,
                                replace=args.replace)
    else:
        result = measure_all(args.cells, args.out, args.processes, args.minutes, replace=args.replace)
    if result['records']:
        write_report(result, Path(args.out), REPORTS['*/speed.json'])
    if failed := result.get('failed'):
        raise UserError(f'{len(failed)} measurements failed, the first: {failed[0]["cell"]}, '
                        f'{failed[0]["candidate"]} {failed[0]["layout"]}: {failed[0]["error"]}. Next: the same command '
                        'tries them again.')


if __name__ == '__main__':
    main()
