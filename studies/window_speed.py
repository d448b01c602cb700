"""Time of sliding windows: python -m studies.window_speed --out docs/results/MACHINE/window_speed.json

A UperNet of InceptionNeXt-T with random weights, 512×512 windows that are 341 apart, as the ADE20K configs test, from
the normalized image to class indices: MMSegmentation's own segmentor in both memory layouts, and the same weights
accelerated and in their deploy forms; and with test-time augmentation in two scales with and without flip, stock and
accelerated. Each process has all candidates, which take turns in every round in a random order, so that a machine that
becomes slower does so for all. The machine must have no other work.
"""
import copy
import math
import random
import statistics
import time

import torch
from mmseg.models.segmentors import SegTTAModel

import inceptionnext_seg
from inceptionnext_seg.engine.allocator import keep_freed_memory
from inceptionnext_seg.errors import exit_on_user_error
from inceptionnext_seg.files import markdown_table

from .by_processes import main, origin, quietness
from .speed.goals import verdict
from .speed.statistics import speed, speedup
from .window_memory import CANDIDATES as SEGMENTORS
from .window_memory import (
    CONFIG,
    OF_TTA,
    THREADS,
    Picture,
    build,
    build_tta,
    noise,
    picture_of,
    predict,
    predict_tta,
    versions,
)

# Rounds of a process.
ROUNDS = {Picture(512, 683): 3, Picture(1024, 2048): 1, Picture(512, 683, True): 1}
LAYOUTS = {'stock': torch.contiguous_format, 'stock, NHWC': torch.channels_last}
CANDIDATES = {**dict.fromkeys(LAYOUTS, SEGMENTORS['stock']), **{n: t for n, t in SEGMENTORS.items() if n != 'stock'}}
GOAL = 2.5


def segmentors(tta):
    """By candidate: the network, with test-time augmentation around it or without, and the layout of its image."""
    stock = build('stock')
    models = {name: (copy.deepcopy(stock).to(memory_format=layout), layout) for name, layout in LAYOUTS.items()}
    if tta:
        models = {name: (SegTTAModel(model).eval(), layout) for name, (model, layout) in models.items()}
    names = [name for name in (OF_TTA if tta else CANDIDATES) if name not in LAYOUTS]
    return models | {name: ((build_tta if tta else build)(name), torch.channels_last) for name in names}


def prediction(model, layout, picture):
    """A function that predicts, with its input made."""
    if picture.tta:
        data = versions(*picture[:2])
        return lambda: predict_tta(model, data)
    image = noise(*picture[:2]).contiguous(memory_format=layout)
    return lambda: predict(model, image)


def measure_here():
    """Seconds of each round by image and candidate, in this process."""
    torch.set_num_threads(THREADS)
    keep_freed_memory()
    rows, order = [], random.Random()
    for tta in (False, True):
        models = segmentors(tta)
        pictures = {picture: rounds for picture, rounds in ROUNDS.items() if picture.tta == tta}
        for of in models.values():      # allocates, and measures forms; windows of all images are alike
            with inceptionnext_seg.measuring(patience=math.inf):
                prediction(*of, next(iter(pictures)))()
        for picture, rounds in pictures.items():
            seconds = {name: [] for name in models}
            for _ in range(rounds):
                for name in order.sample(list(models), len(models)):
                    run = prediction(*models[name], picture)
                    begin = time.perf_counter()
                    run()
                    seconds[name].append(time.perf_counter() - begin)
            rows += [dict(picture._asdict(), candidate=name, seconds=found) for name, found in seconds.items()]
    return rows


def seconds_of(result, picture, candidate):
    """Seconds of the rounds, by process."""
    return {i: row['seconds'] for i, process in enumerate(result['processes']) for row in process['rows']
            if (picture_of(row), row['candidate']) == (picture, candidate)}


def pictures(result):
    return list(dict.fromkeys(map(picture_of, result['processes'][0]['rows'])))


def better_stock(result, picture):
    """Stock in the layout that is faster for this image: its name."""
    return min((name for name in CANDIDATES if name in LAYOUTS), key=lambda name: statistics.median(
        map(statistics.median, seconds_of(result, picture, name).values())))


def table(result):
    """A row a candidate and image: seconds, and times as fast as stock in its faster layout."""
    rows = []
    for picture in pictures(result):
        stock = better_stock(result, picture)
        for name, title in CANDIDATES.items():
            if not (found := seconds_of(result, picture, name)):
                continue
            gain = speedup(seconds_of(result, picture, stock), found)
            layout = f' ({"NHWC" if "NHWC" in name else "NCHW"})' if name in LAYOUTS else ''
            rows.append([str(picture), title + layout, f'{1 / speed(list(found.values()), 1).value:.2f}',
                         '–' if name == stock else gain, '' if name in LAYOUTS else verdict(GOAL, gain)])
    return markdown_table(
        ['image', 'segmentor', 'seconds', '× stock in its faster layout (interval)', f'goal {GOAL}'], rows)


def words(result):
    """Of how many processes the figures are, and what was not measured."""
    count = len(result['processes'])
    said = 'One process.' if count == 1 else (
        f'{count} processes; brackets are over them and their rounds, of fewer than five about the range of the '
        'processes; two values have none.')
    return said if any(picture.tta for picture in pictures(result)) else (
        f'{said} With test-time augmentation nothing was measured.')


def report(result):
    return '\n\n'.join([
        '# Time of sliding windows', f'{origin(result)} `{result["config"]}` with random weights.', table(result),
        words(result),
        'From the normalized image to class indices; TTA from images in all scales. All candidates take turns in every '
        f'round of a process, in a random order; each predicted an image before. {quietness(result)}']) + '\n'


if __name__ == '__main__':
    exit_on_user_error(main)(
        'studies.window_speed', __doc__, dict(config=CONFIG, threads=THREADS), measure_here, report)
