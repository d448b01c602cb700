"""Kill training at random, resume it, and compare it with training that was left alone: python tools/reliability.py

Takes about half an hour on two CPU cores. See docs/reliability.md; python tools/readme.py writes its figures anew.
"""
import argparse
import pathlib
import tempfile

import _repository  # noqa: F401
import torch

from inceptionnext_seg.errors import UserError, exit_on_user_error
from inceptionnext_seg.files import write_json, write_text
from inceptionnext_seg.provenance import environment
from studies.reliability.cases import CASES, report, run_cases

ROOT = pathlib.Path(__file__).resolve().parents[1]


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--kills', type=int, default=20, help='SIGKILLs of each run')
    parser.add_argument('--seed', type=int, default=0, help='of the moments of the kills')
    parser.add_argument('--only', nargs='+', choices=list(CASES), metavar='CASE', help=f'of {", ".join(CASES)}')
    parser.add_argument('--config', type=pathlib.Path, default=ROOT / 'configs/upernet_inceptionnext_a_mini.py')
    parser.add_argument('--work-dir', type=pathlib.Path, help='of the runs; a temporary folder if not given')
    parser.add_argument('--out', type=pathlib.Path, default='work_dirs/reliability.json',
                        help='result file (.json); its table (.md) is written beside it')
    return parser.parse_args()


@exit_on_user_error
def main():
    args = parse_args()
    torch.set_num_threads(1)  # processes are forked, and share two cores
    with tempfile.TemporaryDirectory() as temporary:
        results = run_cases(args.only or list(CASES), args.config.resolve(), args.work_dir or pathlib.Path(temporary),
                            args.kills, args.seed)
    result = dict(kills=args.kills, seed=args.seed, cases=results, environment=environment('cpu'))
    write_json(args.out, result)
    write_text(args.out.with_suffix('.md'), report(result))
    wrong = [name for name, result in results.items() if not result['as_expected']]
    if wrong:
        raise UserError(f'not as expected: {", ".join(wrong)}; see {args.out}.')
    print(f'{len(results)} cases as expected, written to {args.out}')


if __name__ == '__main__':
    main()
