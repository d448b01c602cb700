"""Whether a change of the code has made it slower: this checkout against another one, process by process in turn.

python -m studies.checkouts OTHER_CHECKOUT --out docs/results/checkouts.json

``git worktree add ../before COMMIT`` makes the other one. Writes the JSON and a table beside it; a run that was stopped
goes on where it was.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from tqdm import tqdm

from inceptionnext_seg.errors import UserError, exit_on_user_error
from inceptionnext_seg.files import markdown_table, write_json, write_text
from inceptionnext_seg.provenance import environment

from .other_segmentors import commit
from .timing import median_interval

ROOT = Path(__file__).resolve().parents[1]
CONFIG = 'configs/upernet_inceptionnext_t_ade20k.py'
# The main rows of docs/results/speed.json.
SETTINGS = [
    dict(part=part, mode=mode, dtype=dtype, batch_size=batch_size, size=size, width=width)
    for part, mode, batch_size, size, width in (
        ('segmentor', 'train', 2, 512, None), ('segmentor', 'infer', 1, 512, 683), ('backbone', 'train', 4, 256, None),
        ('backbone', 'infer', 4, 256, None))
    for dtype in ('fp32', 'bf16')]
SIDES = ('before', 'after')
# Runs in either checkout; the second import is that of commit 04977c2 and older.
CHILD = """
import json, sys, time
import torch
try:
    from inceptionnext_seg.engine.allocator import keep_freed_memory
    from studies.throughput.setting import Setting
    from studies.throughput.step import candidate_step
except ImportError:
    from inceptionnext_seg.allocator import keep_freed_memory
    from inceptionnext_seg.benchmark import Setting, candidate_step
config, settings, rounds, threads = json.loads(sys.argv[1])
torch.set_num_threads(threads)
keep_freed_memory()
seconds = []
for setting in settings:
    step, found = candidate_step(config, None, Setting(**setting), 'nhwc'), []
    for _ in range(2):
        step()
    for _ in range(rounds * (1 if setting['part'] == 'segmentor' and setting['mode'] == 'train' else 3)):
        start = time.perf_counter()
        step()
        found.append(time.perf_counter() - start)
    seconds.append(found)
print('SECONDS ' + json.dumps(seconds))
"""


def parse_args():
    parser = argparse.ArgumentParser(prog='python -m studies.checkouts', description='Is this checkout slower?')
    parser.add_argument('other', help='another checkout of this repository, the one before')
    parser.add_argument('--config', default=CONFIG)
    parser.add_argument('--processes', type=int, default=5, help='of each checkout')
    parser.add_argument('--rounds', type=int, default=4, help='of a training step in a process; thrice that elsewhere')
    parser.add_argument('--threads', type=int, default=os.cpu_count())
    parser.add_argument('--out', default='docs/results/checkouts.json')
    return parser.parse_args()


def measure(checkout, config, settings, rounds, threads):
    """Seconds of the rounds of each setting, in a process of its own in ``checkout``.

    Raises:
        UserError: It failed.
    """
    run = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', CHILD, json.dumps([config, settings, rounds, threads])], cwd=checkout,
        env=dict(os.environ, PYTHONPATH=str(checkout)), capture_output=True, text=True)
    found = [line for line in run.stdout.splitlines() if line.startswith('SECONDS ')]
    if run.returncode or not found:
        raise UserError(f'measuring in {checkout} failed: {run.stderr.strip().splitlines()[-1:]}. Expected: a checkout '
                        'of this repository. Next: run its tests.')
    return json.loads(found[-1].removeprefix('SECONDS '))


def compare(settings, measurements):
    """A row a setting: images/s of both sides, and after over before as the median over pairs of processes."""
    rows = []
    for i, setting in enumerate(settings):
        seconds = {side: [statistics.median(found['seconds'][i]) for found in measurements if found['side'] == side]
                   for side in SIDES}
        ratios = [before / after for before, after in zip(*(seconds[side] for side in SIDES), strict=False)]
        rows.append(dict(
            setting, images_per_s={side: setting['batch_size'] / statistics.median(seconds[side]) for side in SIDES},
            ratio=median_interval(ratios) if len(ratios) > 1 else (ratios[0], ) * 3))
    return rows


def report(result):
    """The result as Markdown."""
    described, loads = result['environment'], [load for m in result['measurements'] for load in m['load_average']]
    cells = [[f'{row["part"]}, {row["mode"]}, {row["dtype"]}, {row["batch_size"]} × {row["size"]}×'
              f'{row["width"] or row["size"]}', *(f'{row["images_per_s"][side]:.3g}' for side in SIDES),
              '{:.3f} ({:.3f}–{:.3f})'.format(*row['ratio'])]
             for row in compare(result['settings'], result['measurements'])]
    return '\n\n'.join([
        f'# {result["commits"]["before"]} before, {result["commits"]["after"]} after, on {described["device_name"]}',
        f'`{described["command"]}`, {described["date"]}, {described["threads"]} threads, load average {min(loads)}–'
        f'{max(loads)}, torch {described["versions"]["torch"]}. `{result["config"]}`, channels_last; '
        f'{len(result["measurements"]) // 2} processes of each checkout in turn, {result["rounds"]} rounds of a '
        'training step in each and thrice that elsewhere. Speeds are medians over processes of the median over rounds; '
        'the ratio is the median over pairs of neighbouring processes, with its 95 % bootstrap interval. Above 1 the '
        'code after is faster.',
        markdown_table(['', 'before, images/s', 'after, images/s', 'speed, after / before'], cells)]) + '\n'


@exit_on_user_error
def main():
    args = parse_args()
    out, checkouts = Path(args.out), dict(before=Path(args.other).resolve(), after=ROOT)
    result = dict(
        environment=dict(environment('cpu'), threads=args.threads), config=args.config, settings=SETTINGS,
        rounds=args.rounds, commits={side: commit(path) for side, path in checkouts.items()}, measurements=[])
    if out.is_file():
        found = json.loads(out.read_text())
        if any(found[key] != result[key] for key in ('config', 'settings', 'rounds', 'commits')):
            raise UserError(f'{out} has other commits, settings or rounds. Next: another --out, or remove it.')
        result = found
    for process in tqdm(range(len(result['measurements']), 2 * args.processes), unit='process'):
        side = SIDES[(process + process // 2) % 2]      # before after, after before, ...
        load = environment('cpu')['load_average']
        seconds = measure(checkouts[side], args.config, SETTINGS, args.rounds, args.threads)
        result['measurements'].append(dict(
            side=side, seconds=seconds, load_average=[load, environment('cpu')['load_average']]))
        write_json(out, result)
    write_text(out.with_suffix('.md'), report(result))
    print(report(result))


if __name__ == '__main__':
    main()
