"""Every form of every operator at the shapes of whole networks, as `auto` measures them on this machine.

python -m studies.operator_choices --out docs/results/MACHINE/operator_choices.json

One training step and one prediction of each network in each dtype, on random images. The cache of earlier measurements
is not read; ``--known speed.json`` takes what the study of speed with this ``--out`` has measured. What two networks
share is measured once. Writes the JSON and a table beside it. What the file has is not measured again, of whichever
commit; the table names them. --minutes stops.
"""
import argparse
import contextlib
import itertools
import math
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import torch
from tqdm import tqdm

from inceptionnext_seg.engine.accelerate_hook import configured_parts
from inceptionnext_seg.errors import UserError, exit_on_user_error
from inceptionnext_seg.files import markdown_table, write_json, write_text
from inceptionnext_seg.ops import measured
from inceptionnext_seg.provenance import commit, environment

from .going_on import SAME, content_of
from .speed.measuring import forms_file, wait_for_quiet
from .throughput.candidates import candidate_config
from .throughput.setting import Setting
from .throughput.step import Step

CONFIGS = [f'configs/upernet_inceptionnext_{size}_ade20k.py' for size in 'tsab']


def parse_args():
    parser = argparse.ArgumentParser(prog='python -m studies.operator_choices', description=__doc__.split('\n\n')[0])
    parser.add_argument('--configs', nargs='+', default=CONFIGS, metavar='CONFIG')
    parser.add_argument('--size', type=int, default=512)
    parser.add_argument('--batch-size', type=int, default=2)
    parser.add_argument('--dtypes', nargs='+', default=['fp32', 'bf16'], choices=['fp32', 'bf16', 'fp16'])
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--known', metavar='FILE.json', help='a result of studies.speed, made on this machine')
    parser.add_argument('--minutes', type=float, help='stop after so many, between two networks')
    parser.add_argument('--out', required=True, metavar='FILE.json')
    return parser.parse_args()


def measure(config, setting):
    """What one step has measured.

    Returns:
        dict: ``choices``, rows of operator, first map, form, rule of thumb, and seconds of each form; and how long
        measuring took, ``measuring_seconds``.
    """
    cfg = candidate_config(config)
    if configured_parts(cfg) is None:
        raise UserError(f'{config} has no AccelerateHook; expected a config whose model is accelerated')
    measured.TABLE.used = {}
    measured.TABLE.forget()
    step = Step(cfg, setting, 'nhwc')
    step.measure = contextlib.nullcontext
    with measured.measuring(patience=math.inf) as found:
        step()
    rows = [dict(operator=c.operator, first_map=measured.first_map(c), arguments=c.arguments, form=c.form, rule=c.rule,
                 seconds=c.seconds) for c in measured.choices() if c.gain is not None]
    return dict(choices=rows, measuring_seconds=round(sum(found.seconds), 1))


def gains(run):
    """Of each call of a step, the time of stock's operators over that of the form that runs."""
    return [row['seconds']['torch'] / row['seconds'][row['form']] for row in run['choices']]


def summary(result):
    """A row a step: the least and the median gain, and what is slower than stock's."""
    rows = []
    for run in result['runs']:
        if found := gains(run):
            rows.append([run['network'].removeprefix('upernet_').removesuffix('_ade20k'),
                         f'{run["mode"]}, {run["dtype"]}', len(found), f'{min(found):.2f}',
                         f'{statistics.median(found):.2f}', f'{max(found):.1f}', sum(gain < 1 for gain in found)])
    return markdown_table(['network', 'step', 'calls', 'least', 'median', 'greatest', 'slower than stock'], rows)


def words(result):
    """Whether the goal, no call slower than stock, is reached."""
    found = [gain for run in result['runs'] for gain in gains(run)]
    slower = [gain for gain in found if gain < 1]
    return 'Goal: no call slower than stock. ' + (
        f'Missed by {len(slower)} of {len(found)}, of which the slowest has {min(slower):.3f} of the speed of stock.'
        if slower else f'Reached by all {len(found)}.')


def table(result):
    rows = []
    for run in result['runs']:
        for row in run['choices']:
            ratio = row['seconds']['torch'] / row['seconds'][row['form']]
            times = ', '.join(f'{form} {1e3 * seconds:.3g}' for form, seconds in sorted(
                row['seconds'].items(), key=lambda item: item[1]))
            rows.append([run['network'], f'{run["mode"]}, {run["dtype"]}', row['operator'], row['first_map'],
                         row['form'], row['rule'], times, f'{ratio:.2f}'])
    return markdown_table(['network', 'step', 'operator', 'first map', 'form that runs', 'rule of thumb',
                           'each form, ms', 'stock / form that runs'], rows)


def report(result):
    ratios = [gain for run in result['runs'] for gain in gains(run)]
    changed = sum(row['form'] != row['rule'] for run in result['runs'] for row in run['choices'])
    e = result['environment']
    commits = ', '.join(dict.fromkeys(str(run.get('commit') or e['commit']) for run in result['runs']))
    size = result['runs'][0]['size']
    return (f'# Every form of every operator, measured\n\n{len(ratios)} kinds of calls of {len(result["runs"])} steps '
            f'at {size}×{size}. Stock over the form that runs: least {min(ratios):.2f}, greatest {max(ratios):.1f}. '
            f'In {changed} another form '
            f'runs than by the rule of thumb, whose time it has to beat by {measured.MARGIN:.0%}.\n\n'
            f'`{e["command"]}`, commit {commits}, {e["cpu"]}, {e["threads"]} threads, torch '
            f'{e["versions"]["torch"]}, other programs on at most '
            f'{max(run["busy_before"] for run in result["runs"]):.2f} cores, {e["date"][:10]}.\n\n{summary(result)}\n\n'
            f'{words(result)}\n\n## Every call\n\n{table(result)}\n')


def opened(path, now):
    """The content of the result file, of as many threads as now, or of a new one."""
    return content_of(path, 'a result of studies.operator_choices', now, dict(environment=now, runs=[]),
                      (*SAME, 'threads'))


def known_forms(path):
    """The table of forms that the study of speed with this result file has measured, in the cache folder.

    Raises:
        UserError: It is not there.
    """
    if not (table := forms_file(path)).is_file():
        raise UserError(f'--known {path}: its measured forms are not in the cache here. Next: leave it out.')
    return table


@exit_on_user_error
def main():
    args = parse_args()
    os.environ.pop('INCEPTIONNEXT_SEG_MEASURE', None)
    known = known_forms(args.known) if args.known else None
    result, begin = opened(args.out, environment(args.device)), time.monotonic()
    made_by = commit()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'choices.json'
        if known:
            shutil.copy(known, path)
        measured.cache_file = lambda: path      # not what an earlier run has measured
        for config, mode, dtype in tqdm(list(itertools.product(args.configs, ('train', 'infer'), args.dtypes))):
            run = dict(network=Path(config).stem, mode=mode, dtype=dtype, size=args.size,
                       batch_size=args.batch_size if mode == 'train' else 1)
            if any(run.items() <= found.items() for found in result['runs']):
                continue
            if args.minutes is not None and time.monotonic() - begin > 60 * args.minutes:
                break
            busy = wait_for_quiet()
            setting = Setting(mode=mode, dtype=dtype, size=args.size, device=args.device, batch_size=run['batch_size'])
            result['runs'].append(dict(run, commit=made_by, busy_before=round(busy, 3), **measure(config, setting)))
            write_json(args.out, result)
    if result['runs']:
        write_text(Path(args.out).with_suffix('.md'), report(result))


if __name__ == '__main__':
    main()
