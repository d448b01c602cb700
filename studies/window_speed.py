"""Time of sliding windows: python -m studies.window_speed --out docs/results/MACHINE/window_speed.json

A UperNet of InceptionNeXt-T with random weights, 512×512 windows that are 341 apart, as the ADE20K configs test, from
the normalized image to class indices: MMSegmentation's own segmentor in both memory layouts, and the same weights
accelerated and in their deploy forms. Each process has all candidates, which take turns in every round in a random
order, so that a machine that becomes slower does so for all. The machine must have no other work.
"""
import argparse
import copy
import json
import math
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path

import psutil
import torch
from mmseg.structures import SegDataSample
from tqdm import tqdm

import inceptionnext_seg
from inceptionnext_seg.engine.allocator import keep_freed_memory
from inceptionnext_seg.errors import UserError, exit_on_user_error
from inceptionnext_seg.files import markdown_table, read_object, write_json, write_text

from .speed.measuring import machine_and_versions, wait_for_quiet
from .speed.report import verdict
from .speed.statistics import speed, speedup
from .window_memory import CANDIDATES as SEGMENTORS
from .window_memory import CONFIG, THREADS, build

# Height and width, and rounds of a process.
IMAGES = {(512, 683): 3, (1024, 2048): 1}
LAYOUTS = {'stock': torch.contiguous_format, 'stock, NHWC': torch.channels_last}
CANDIDATES = {**dict.fromkeys(LAYOUTS, SEGMENTORS['stock']), **{n: t for n, t in SEGMENTORS.items() if n != 'stock'}}
GOAL = 2.5


def segmentors():
    """By candidate: the network, and the layout of its image."""
    stock = build('stock')
    models = {name: (copy.deepcopy(stock).to(memory_format=layout), layout) for name, layout in LAYOUTS.items()}
    return models | {name: (build(name), torch.channels_last) for name in CANDIDATES if name not in LAYOUTS}


def predict(model, image):
    shapes = dict.fromkeys(('img_shape', 'ori_shape', 'pad_shape'), tuple(image.shape[2:]))
    with torch.inference_mode():
        model.predict(image, [SegDataSample(metainfo=dict(shapes, padding_size=[0] * 4))])


def measure_here():
    """Seconds of each round by image and candidate, in this process."""
    torch.set_num_threads(THREADS)
    keep_freed_memory()
    models, rows, order = segmentors(), [], random.Random()
    for size, rounds in IMAGES.items():
        image = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(2))
        seconds = {name: [] for name in models}
        if size == next(iter(IMAGES)):      # allocates, and measures forms; windows of all images are alike
            for model, layout in models.values():
                with inceptionnext_seg.measuring(patience=math.inf):
                    predict(model, image.contiguous(memory_format=layout))
        for _ in range(rounds):
            for name in order.sample(list(models), len(models)):
                model, layout = models[name]
                picture = image.contiguous(memory_format=layout)
                begin = time.perf_counter()
                predict(model, picture)
                seconds[name].append(time.perf_counter() - begin)
        rows += [dict(height=size[0], width=size[1], candidate=name, seconds=found) for name, found in seconds.items()]
    return rows


def measure(out, processes):
    """Processes until there are so many; the file is written after each.

    Raises:
        UserError: Other programs keep the machine busy, a process failed, or the file is of another machine or code.
    """
    described = machine_and_versions()
    result = read_object(out, 'a result of studies.window_speed', 'another --out') if out.is_file() else dict(
        environment=described, config=CONFIG, threads=THREADS, processes=[])
    for key in ('cpu', 'versions', 'commit'):
        if result['environment'][key] != described[key]:
            raise UserError(f'{out} was measured with {key} {result["environment"][key]!r}, and this is '
                            f'{described[key]!r}. Next: another --out, or delete the file.')
    for _ in tqdm(range(len(result['processes']), processes), unit='process'):
        busy = wait_for_quiet()
        load = round(psutil.getloadavg()[0], 2)
        run = subprocess.run([sys.executable, '-m', 'studies.window_speed', '--child'], capture_output=True, text=True,
                             cwd=Path(__file__).parents[1])
        if run.returncode:
            raise UserError(f'a process failed: {(run.stderr.strip().splitlines() or ["no message"])[-1]}')
        result['processes'].append(dict(
            busy_before=round(busy, 3), load_average=load, rows=json.loads(run.stdout.splitlines()[-1])))
        write_json(out, result)
    return result


def seconds_of(result, size, candidate):
    """Seconds of the rounds, by process."""
    return {i: row['seconds'] for i, process in enumerate(result['processes']) for row in process['rows']
            if (row['height'], row['width'], row['candidate']) == (*size, candidate)}


def sizes(result):
    return list(dict.fromkeys((row['height'], row['width']) for row in result['processes'][0]['rows']))


def better_stock(result, size):
    """Stock in the layout that is faster for this image: its name."""
    return min((name for name in CANDIDATES if name in LAYOUTS), key=lambda name: statistics.median(
        map(statistics.median, seconds_of(result, size, name).values())))


def table(result):
    """A row a candidate and image: seconds, and times as fast as stock in its faster layout."""
    rows = []
    for size in sizes(result):
        stock = better_stock(result, size)
        for name, title in CANDIDATES.items():
            found = seconds_of(result, size, name)
            gain = speedup(seconds_of(result, size, stock), found)
            layout = f' ({"NHWC" if "NHWC" in name else "NCHW"})' if name in LAYOUTS else ''
            rows.append([f'{size[0]}×{size[1]}', title + layout, f'{1 / speed(list(found.values()), 1).value:.2f}',
                         '–' if name == stock else gain, '' if name in LAYOUTS else verdict(GOAL, gain)])
    return markdown_table(
        ['image', 'segmentor', 'seconds', '× stock in its faster layout (95 %)', f'goal {GOAL}'], rows)


def words(result):
    """Of how many processes the figures are."""
    count = len(result['processes'])
    return 'One process.' if count == 1 else (
        f'{count} processes; brackets are 95 % intervals over them, of few little more than the range.')


def report(result):
    e = result['environment']
    loads = [process['load_average'] for process in result['processes']]
    busy = max(process['busy_before'] for process in result['processes'])
    return '\n\n'.join([
        '# Time of sliding windows',
        f'`{e["command"]}`, commit {e["commit"]}, {e["date"][:10]}, {e["device_name"]}, {result["threads"]} threads, '
        f'torch {e["versions"]["torch"]}. `{result["config"]}` with random weights.', table(result), words(result),
        'From the normalized image to class indices. All candidates take turns in every round of a process, in a '
        f'random order; each predicted an image before. Other programs kept {busy:.2f} cores busy at most before a '
        f'process; load average {min(loads)} to {max(loads)}.']) + '\n'


@exit_on_user_error
def main():
    parser = argparse.ArgumentParser(prog='python -m studies.window_speed', description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=Path, default=Path('docs/results/window_speed.json'), metavar='FILE.json',
                        help='result file, which further processes are added to (default: %(default)s)')
    parser.add_argument('--processes', type=int, default=5, help='in all (default: %(default)s)')
    parser.add_argument('--child', action='store_true', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(measure_here()))
        return
    text = report(measure(args.out, args.processes))
    write_text(args.out.with_suffix('.md'), text)
    print(text)


if __name__ == '__main__':
    main()
