"""The published study of operators: python -m studies.operators --out docs/results/MACHINE/operators.json

Everything runs in five processes, in turn. A run that was stopped goes on where it was; --minutes stops it.
"""
import argparse
from pathlib import Path

from inceptionnext_seg.errors import UserError, exit_on_user_error
from inceptionnext_seg.files import read_object

from ..published.files import REPORTS, write_report
from .cells import cells
from .measuring import MOST_LOAD, WHAT, measure_all


def parse_args():
    parser = argparse.ArgumentParser(prog='python -m studies.operators', description='The published study of operators')
    parser.add_argument('--out', required=True, metavar='FILE.json',
                        help='a folder a machine; the report (.md) and the pictures are written beside it')
    parser.add_argument('--cell', nargs='+', metavar='TEXT', help='only cells whose name has one of the texts')
    parser.add_argument('--processes', type=int, default=5, help='at most so many of each cell (default: %(default)s)')
    parser.add_argument('--minutes', type=float, help='stop after so many, between two cells')
    parser.add_argument('--device', default='cpu', help='of torch; on a GPU threads and allocator make no difference')
    parser.add_argument('--any-load', action='store_true',
                        help=f'start above a load average of {MOST_LOAD}, too; the result says so')
    parser.add_argument('--report', action='store_true', help='measure nothing: write report and pictures anew')
    args = parser.parse_args()
    args.cells = [cell for cell in cells() if not args.cell or any(text in cell.name for text in args.cell)]
    return args


@exit_on_user_error
def main():
    args = parse_args()
    if not args.cells:
        raise UserError(f'--cell {args.cell} is in no name. Next: one of {"; ".join(cell.name for cell in cells())}.')
    if args.report:
        result = read_object(args.out, WHAT, 'make it without --report')
    else:
        result = measure_all(args.cells, args.out, args.processes, args.minutes, args.device, args.any_load)
    if result['groups']:
        write_report(result, Path(args.out), REPORTS['*/operators.json'])


if __name__ == '__main__':
    main()
