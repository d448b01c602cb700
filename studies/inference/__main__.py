"""Inference on a CPU: seconds a call, time to the first result, memory, class maps, and mIoU of a trained model.

python -m studies.inference --files DIR --write --out docs/results/MACHINE/inference.json    writes the files, untimed
python -m studies.inference --files DIR --seconds 280 --out docs/results/MACHINE/inference.json
python -m studies.inference --files DIR --accuracy CONFIG CHECKPOINT DATA HOW --out …/inference.json    mIoU of each

A run that was stopped, or has used its ``--seconds``, goes on with what the file has, of the same commit, versions and
processor.
"""
import argparse
from pathlib import Path

from inceptionnext_seg.errors import exit_on_user_error
from inceptionnext_seg.files import read_object, write_json, write_text
from inceptionnext_seg.provenance import commit, environment

from .accuracy import measure_accuracy
from .measuring import check_files, measure_all, refuse_to_mix, versions, write_files
from .report import report


def parse_args():
    parser = argparse.ArgumentParser(prog='python -m studies.inference', description='Inference on this CPU')
    parser.add_argument('--files', required=True, metavar='DIR', help='folder of the exported files')
    parser.add_argument('--write', action='store_true', help='write those that are not there, and measure nothing')
    parser.add_argument('--seconds', type=float, default=float('inf'), help='begin no process after these')
    parser.add_argument('--anew', action='store_true', help='forget the times that the file has')
    parser.add_argument('--accuracy', nargs=4, metavar=('CONFIG', 'CHECKPOINT', 'DATA', 'HOW'),
                        help='mIoU of a trained model in each file, instead of times; HOW it was trained, for the page')
    parser.add_argument('--out', required=True)
    return parser.parse_args()


@exit_on_user_error
def main():
    args = parse_args()
    if args.write:
        write_files(args.files)
        return
    result = dict(runs=[])
    if Path(args.out).is_file():
        result = read_object(args.out, 'a result of studies.inference', 'another --out')
    if args.anew:
        result['runs'] = []
    now = dict(environment=environment('cpu'), commit=commit(), versions=versions())
    if not args.accuracy:
        check_files(args.files)
    if result['runs'] and not args.accuracy:
        refuse_to_mix(result, now, args.out)
    if not args.accuracy or 'environment' not in result:
        result.update(now)
    left = 0
    if args.accuracy:
        result['accuracy'] = measure_accuracy(*args.accuracy, args.files)
    else:
        left = measure_all(args.files, args.seconds, args.out, result)
    write_json(args.out, result)
    if result['runs']:
        write_text(Path(args.out).with_suffix('.md'), report(result))
    if left:
        print(f'{left} processes are left; the same command goes on.')


if __name__ == '__main__':
    main()
