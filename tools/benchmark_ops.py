"""Is factorizing convolutions faster? python tools/benchmark_ops.py --out work_dirs/operators.json

Measures square, factorized, Inception and partial convolutions against each other and against the machine's limits, and
says which explanations the numbers bear out. See docs/factorized_convolutions.md.
"""
import argparse
import os
import pathlib
import time

import _repository  # noqa: F401
import torch
from tqdm import tqdm

from inceptionnext_seg.errors import UserError, exit_on_user_error
from inceptionnext_seg.files import write_json, write_text
from inceptionnext_seg.provenance import environment
from studies.operators.cases import FORMS, GROUPINGS, MODES, groups_of
from studies.operators.document import fill
from studies.operators.measuring import measure_cases
from studies.operators.report import case_tables, summary, write_report
from studies.operators.result import read_result
from studies.operators.suites import SUITES, select
from studies.timing import DTYPES, MEMORY_FORMATS

# Processor time leaves out what other programs take, but counts every thread and does not see an accelerator.
CLOCKS = dict(wall=time.perf_counter, cpu=time.process_time)


def kernel_size(text):
    height, _, width = text.partition('x')
    return int(height), int(width or height)


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--suite', choices=list(SUITES), default='quick',
                        help='quick: minutes on two CPU cores; full: every combination, hours on a GPU, days on a CPU')
    parser.add_argument('--channels', type=int, nargs='+', help="instead of the suite's")
    parser.add_argument('--size', type=int, nargs='+', help="height and width in pixels, instead of the suite's")
    parser.add_argument('--batch-size', type=int, nargs='+', help="instead of the suite's")
    parser.add_argument('--dtype', nargs='+', choices=list(DTYPES), help="instead of the suite's")
    parser.add_argument('--layout', nargs='+', choices=list(MEMORY_FORMATS), help='both, if not given')
    parser.add_argument('--mode', nargs='+', choices=list(MODES), help="instead of the suite's; " + '; '.join(
        f'{name}: {meaning}' for name, meaning in MODES.items()))
    parser.add_argument('--grouping', nargs='+', choices=GROUPINGS, help='only these')
    parser.add_argument('--form', nargs='+', choices=list(FORMS), help='only these')
    parser.add_argument('--kernel', nargs='+', type=kernel_size, metavar='N|HxW', help='only these nominal kernels')
    parser.add_argument('--cache', nargs='+', choices=['cold', 'hot'], help='only these')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--threads', type=int, help="CPU threads; torch's own choice, if not given")
    parser.add_argument('--clock', choices=list(CLOCKS), default='wall',
                        help='cpu: processor time, for a CPU that others use too; needs --threads 1')
    parser.add_argument('--rounds', type=int, default=20, help='samples of each case, at least 8')
    parser.add_argument('--out', type=pathlib.Path, default='work_dirs/operators.json',
                        help='result file (.json); tables (.md) and figures (.png) are written beside it')
    parser.add_argument('--report', type=pathlib.Path, metavar='JSON',
                        help='measure nothing; write tables and figures of this result file again')
    parser.add_argument('--fill', type=pathlib.Path, metavar='MD',
                        help='also write the figures of this document anew, between its "measured:" comments')
    return parser.parse_args()


def check(args):
    """Refuse what cannot be measured, before anything is."""
    try:
        torch.empty(1, device=args.device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f'--device {args.device} cannot be used ({str(error).splitlines()[0]}). '
                        'Expected: a device of this torch. Next: --device cpu') from error
    on_cpu = torch.device(args.device).type == 'cpu'
    if on_cpu and 'fp16' in (args.dtype or ()):
        raise UserError('--dtype fp16 on a CPU; expected fp32 or bf16 there. Next: --dtype bf16, or --device cuda')
    if args.rounds < 8:
        raise UserError(f'--rounds {args.rounds}; expected at least 8, to compare two halves. Next: --rounds 8')
    if args.out.suffix != '.json':
        raise UserError(f'--out {args.out}; expected a name that ends in .json. '
                        f'Next: --out {args.out.with_suffix(".json")}')
    if args.clock == 'cpu' and not (on_cpu and torch.get_num_threads() == 1):
        raise UserError(f'--clock cpu with {torch.get_num_threads()} threads on {args.device}; expected one thread '
                        'on a CPU, since processor time adds up over threads. Next: --threads 1 --device cpu')
    for name in ('channels', 'size', 'batch_size'):
        if any(value < 1 for value in getattr(args, name) or ()):
            raise UserError(f'--{name.replace("_", "-")} {getattr(args, name)}; expected whole numbers above 0. '
                            'Next: correct it')


def measure(args):
    """Measure what the arguments select, and return the result as it is written."""
    if args.threads:
        torch.set_num_threads(args.threads)
    check(args)
    names = ('channels', 'size', 'batch_size', 'dtype', 'layout', 'mode', 'grouping', 'form', 'kernel', 'cache')
    cases = select(args.suite, **{name: getattr(args, name) for name in names})
    described = environment(args.device)
    with tqdm(total=len(groups_of(cases)), desc=f'{len(cases)} cases', unit='group') as bar:
        peaks, records = measure_cases(
            cases, args.device, rounds=args.rounds, clock=CLOCKS[args.clock], progress=bar.update)
    return dict(environment=described, suite=args.suite, rounds=args.rounds, clock=args.clock, peaks=peaks,
                records=records)


@exit_on_user_error
def main():
    args = parse_args()
    path = args.report or args.out
    if args.report:
        result = read_result(args.report)
    else:
        result = measure(args)
        write_json(path, result)
    written = write_report(result, path.with_suffix('.md'))
    if args.fill:
        if not args.fill.is_file():
            raise UserError(f'--fill {args.fill} is no file; expected a Markdown document with "measured:" comments. '
                            'Next: fix the path')
        write_text(args.fill, fill(args.fill.read_text(encoding='utf-8'), result))
        written.append(args.fill)
    print(case_tables(result))
    print(summary(result))
    print('Written:', *[os.path.relpath(file) for file in [path, *written]])


if __name__ == '__main__':
    main()
