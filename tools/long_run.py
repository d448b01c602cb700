"""Train for 2000 iterations, and see whether memory, open files and processes stay and the last ones are as fast.

Takes some fifteen minutes on a CPU core.
"""
import argparse
from pathlib import Path

import _repository  # noqa: F401

from inceptionnext_seg.engine.launch import load_config, prepare
from inceptionnext_seg.engine.options import OptionsAction
from inceptionnext_seg.errors import UserError, exit_on_user_error
from inceptionnext_seg.files import write_json
from inceptionnext_seg.provenance import environment
from studies.long_run import SETTLED, train_and_watch, verdict, words

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / 'configs/upernet_inceptionnext_a_mini.py'


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', nargs='?', default=CONFIG, type=Path, help='the embedded one if not given')
    parser.add_argument('--iterations', type=int, default=2000)
    parser.add_argument('--settled', type=int, default=SETTLED, help='first iterations that do not count')
    parser.add_argument('--interval', type=int, default=100, help='iterations between validations, and checkpoints')
    parser.add_argument('--work-dir', default='work_dirs/long_run')
    parser.add_argument('--out', type=Path, default='work_dirs/long_run.json', help='result file')
    parser.add_argument('--cfg-options', nargs='+', action=OptionsAction, metavar='KEY=VALUE')
    return parser.parse_args()


@exit_on_user_error
def main():
    args = parse_args()
    if not 0 <= args.settled <= args.iterations - 100:
        raise UserError(f'--settled {args.settled} of --iterations {args.iterations}: expected at least 100 after it.')
    args.launcher, args.local_rank = 'none', 0
    cfg = load_config(args.config, {
        'train_cfg.max_iters': args.iterations, 'train_cfg.val_interval': args.interval,
        'default_hooks.checkpoint.interval': args.interval, 'randomness': dict(seed=0), **(args.cfg_options or {})})
    prepare(cfg, args)
    watch = train_and_watch(cfg)
    result = dict(
        config=args.config.name, options={key: repr(value) for key, value in (args.cfg_options or {}).items()},
        iterations=args.iterations, interval=args.interval, settled=args.settled,
        verdict=verdict(watch.seconds, watch.samples, args.settled), environment=environment('cpu'),
        seconds=[round(value, 4) for value in watch.seconds],
        samples={name: [sample[name] for sample in watch.samples] for name in watch.samples[0]})
    write_json(args.out, result)
    print(words(result))
    if not result['verdict']['as_expected']:
        raise UserError(f'not as expected: see {args.out}.')


if __name__ == '__main__':
    main()
