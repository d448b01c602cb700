"""Other people's segmentors before and after ``accelerate``: python tools/accelerate_others.py

Writes docs/results/accelerate_others.json and .md. A run that was stopped goes on where it was. It needs transformers
and segmentation_models.pytorch.
"""
import argparse
from pathlib import Path

import _repository  # noqa: F401
import torch
from tqdm import tqdm

from inceptionnext_seg.errors import UserError, exit_on_user_error
from inceptionnext_seg.files import read_object, write_text
from studies.other_segmentors import SEGMENTORS, Setting, measure_all, report, select


def parse_args():
    parser = argparse.ArgumentParser(description="Speed of other people's segmentors before and after accelerate")
    parser.add_argument('--models', nargs='+', metavar='PATTERN',
                        help="names, or patterns such as 'mmseg UPerHead*', of: " + '; '.join(SEGMENTORS))
    parser.add_argument('--processes', type=int, default=3, help='of each segmentor, one after the other')
    parser.add_argument('--rounds', type=int, default=2, help='steps that count in each process, of each form and mode')
    parser.add_argument('--quick', action='store_true', help='one round in each process')
    parser.add_argument('--size', type=int, default=512, help='pixels of an image')
    parser.add_argument('--batch-size', type=int, default=2)
    parser.add_argument('--threads', type=int, help="torch's own choice, if not given")
    parser.add_argument('--out', default='docs/results/accelerate_others.json',
                        help='result file (.json); the table (.md) is written beside it')
    parser.add_argument('--report', action='store_true', help='measure nothing: write the table of --out again')
    return parser.parse_args()


def check(args):
    for name in ('processes', 'rounds', 'batch_size'):
        least = 2 if name == 'batch_size' else 1    # BatchNorm of maps pooled to 1×1 has one value an image
        if getattr(args, name) < least:
            raise UserError(f'--{name.replace("_", "-")} is {getattr(args, name)}; expected: at least {least}.')
    if args.size < 32 or args.size % 32:
        raise UserError(f'--size is {args.size}; expected: a multiple of 32, which segmentation_models.pytorch needs.')
    if Path(args.out).suffix != '.json':
        raise UserError(f'--out is {args.out}; expected: a name that ends in .json.')
    if args.report and not Path(args.out).is_file():
        raise UserError(f'--report: no such file: {args.out}.')


@exit_on_user_error
def main():
    args = parse_args()
    check(args)
    if args.report:
        result = read_object(args.out, 'a result of this tool', 'make it without --report')
    else:
        names = select(args.models)
        setting = Setting(args.batch_size, args.size, 1 if args.quick else args.rounds,
                          args.threads or torch.get_num_threads())
        with tqdm(total=args.processes * len(names), unit='process') as bar:
            result = measure_all(names, setting, args.processes, args.out, bar.update)
    markdown = Path(args.out).with_suffix('.md')
    write_text(markdown, report(result))
    print(report(result))
    print(f'Wrote {args.out} and {markdown}.')


if __name__ == '__main__':
    main()
