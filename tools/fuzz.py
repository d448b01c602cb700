"""Random inputs for operators, settings, masks and checkpoints, many of them: make fuzz

Takes some minutes on a CPU core. In pieces: ``--only operators``, and more with another ``--seed`` and ``--add``.
"""
import argparse
from pathlib import Path

import _repository  # noqa: F401

from inceptionnext_seg.errors import UserError, exit_on_user_error
from inceptionnext_seg.files import read_object, write_json
from inceptionnext_seg.provenance import environment
from studies.fuzzing import run_pieces, words


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--cases', type=int, default=10_000, help='of all tests together, about')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--only', default='', metavar='PART', help='of the names of the tests')
    parser.add_argument('--add', action='store_true', help='keep what the result file has, but for the same test and '
                        'seed')
    parser.add_argument('--out', type=Path, default='work_dirs/fuzz.json', help='result file')
    return parser.parse_args()


@exit_on_user_error
def main():
    args, pieces = parse_args(), []
    if args.add and args.out.is_file():
        pieces = read_object(args.out, 'a result of tools/fuzz.py', 'leave out --add')['pieces']
    for piece in run_pieces(args.cases, args.seed, args.only):
        same = piece['test'], piece['seed']
        pieces = [other for other in pieces if (other['test'], other['seed']) != same] + [piece]
        result = dict(pieces=pieces, environment=environment('cpu'))
        write_json(args.out, result)    # of a run that is stopped, what it has
    print(words(result))
    failed = [piece for piece in pieces if not piece['passed']]
    if failed:
        raise UserError(f'{len(failed)} tests failed, see {args.out}. The first one:\n{failed[0].get("output", "")}')


if __name__ == '__main__':
    main()
