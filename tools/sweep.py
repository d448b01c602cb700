"""Train configs, and variants of them, with several seeds, and compare them in one report.

    python tools/sweep.py CONFIG CONFIG ... --seeds 0 1 2 --work-dir work_dirs/sweep
    python tools/sweep.py CONFIG --variant wide model.decode_head.channels=128 --variant NAME KEY=VALUE ...

Runs what is not done yet, one run after another; what was interrupted goes on from its last checkpoint, so the same
command, given again, finishes a sweep that was killed. Several sweeps on one work_dir share its runs. The report,
WORK_DIR/report.md, is that of tools/compare.py, with parameters and MACs; differences are to the first CONFIG.

--launcher pytorch reads GPUS from the environment, --launcher slurm also PARTITION, GPUS_PER_NODE, CPUS_PER_TASK and
SRUN_ARGS, as MMSegmentation's tools/slurm_train.sh.
"""
import argparse
import re
import shlex
import sys
from pathlib import Path

import _repository  # noqa: F401

from inceptionnext_seg.errors import UserError, exit_on_user_error
from studies.comparison.reading import read_benchmark
from studies.sweep import Sweep, plan


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('configs', nargs='+', metavar='CONFIG', help='train config file paths')
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2], help='random seeds (default: 0 1 2)')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/sweep'),
                        help='the directory of all runs and of the report (default: work_dirs/sweep)')
    parser.add_argument('--cfg-options', nargs='+', default=[], metavar='KEY=VALUE',
                        help='override settings of all configs')
    parser.add_argument('--variant', nargs='+', action='append', default=[], metavar=('NAME', 'KEY=VALUE'),
                        help='also train every config with these settings; may be repeated')
    parser.add_argument('--benchmark', action='append', default=[], type=Path, metavar='RESULT.json',
                        help='add throughput of the same configs, side by side, from a result of tools/benchmark.py')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm'], default='none', help='job launcher')
    parser.add_argument('--dry-run', action='store_true', help='print the commands of what is not done, and stop')
    return parser.parse_args(argv)


def variants_of(arguments):
    """dict name -> list of options, from [NAME, KEY=VALUE, ...] each."""
    variants = {}
    for name, *options in arguments:
        if not re.fullmatch(r'[\w.+-]+', name) or not options:
            raise UserError(f'--variant {" ".join([name, *options])} is not NAME KEY=VALUE ..., with a NAME of '
                            'letters, digits and .+-_. Next: for example --variant wide model.decode_head.channels=128')
        if name in variants:
            raise UserError(f'variant {name} is given twice; expected one. Next: name one of them otherwise.')
        variants[name] = options
    return variants


@exit_on_user_error
def main(argv=None):
    args = parse_args(argv)
    candidates = plan(args.configs, variants_of(args.variant), args.cfg_options, args.work_dir)
    for path in args.benchmark:
        read_benchmark(path)    # before hours of training, not after
    sweep = Sweep(candidates, dict.fromkeys(args.seeds), Path(__file__).with_name('train.py'), args.launcher)
    if args.dry_run:
        for command in sweep.commands():
            print(shlex.join(command))
        return
    failed = sweep.run()
    if failed:
        print(f'error: {len(failed)} of {len(sweep.runs)} runs failed: {"; ".join(run.title for run in failed)}. '
              'Next: fix the cause, shown above, and give the same command again.', file=sys.stderr)
    for path in sweep.write_report(args.work_dir / 'report.md', args.benchmark):
        print(f'wrote {path}')
    if failed:
        sys.exit(1)


if __name__ == '__main__':
    main()
