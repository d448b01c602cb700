"""What limits a faster backbone: python -m studies.backbone_limit --out docs/results/MACHINE/backbone_limit.json

InceptionNeXt-T's and ConvNeXt-T's backbones, both accelerated, take turns with InceptionNeXt-T's matrix products alone:
those of its 1×1 convolutions, stem and downsampling, in training with the two of each one's gradients, one after the
other at their own shapes, each in the form that is the fastest here. Norms, token mixers, activations, residuals, the
optimizer and moving patches into rows cost nothing there, and maps come from the cache. So no implementation whose
products are those of torch on this machine is faster than that, and the time of ConvNeXt-T over it is the most that
InceptionNeXt-T's backbone can be ahead. Random weights. The machine must have no other work.
"""
import argparse
import json
import math
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import psutil
import torch
import torch.nn as nn
from tqdm import tqdm

from inceptionnext_seg.engine.allocator import keep_freed_memory
from inceptionnext_seg.errors import UserError, exit_on_user_error
from inceptionnext_seg.files import markdown_table, write_json, write_text
from inceptionnext_seg.ops import onednn
from inceptionnext_seg.ops.norm_mlp import BLOCK_BYTES, LEAST_ROWS

from .going_on import SAME, content_of
from .published.machine import folder_name
from .speed.measuring import machine_and_versions, wait_for_quiet
from .speed.statistics import NONE, Estimate, speed, speedup, text
from .throughput.setting import Setting
from .throughput.step import candidate_step
from .timing import DTYPES

CONFIGS = {name: f'configs/upernet_{name}_t_ade20k.py' for name in ('convnext', 'inceptionnext')}
PRODUCTS = 'products'
THREADS, SIZE = 2, 512
# Images and rounds of a process.
IMAGES, ROUNDS = dict(infer=1, train=2), dict(infer=15, train=5)
GOALS = dict(infer=1.25, train=1.4)
TITLES = dict(infer='inference', train='training step')
TRIALS = 3      # of each form of a product


class Product(NamedTuple):
    """``y = x wᵀ`` of ``rows`` pixels.

    Attributes:
        inner (int), outer (int): Columns of x and of y.
        of_image (bool): Whether x is of the image, which takes no gradient.
    """
    rows: int
    inner: int
    outer: int
    of_image: bool


def products_of(backbone: nn.Module, image: torch.Tensor) -> list[Product]:
    """The dense convolutions that ``backbone`` calls for an image, in order."""
    found = []

    def note(conv, inputs, output):
        found.append(Product(
            output.numel() // output.shape[1], conv.weight[0].numel(), len(conv.weight), not found))
    hooks = [module.register_forward_hook(note) for module in backbone.modules()
             if isinstance(module, nn.Conv2d) and module.groups == 1]
    with torch.no_grad():
        backbone(image)
    for hook in hooks:
        hook.remove()
    return found


def in_blocks(rows, columns, run):
    size = max(LEAST_ROWS, BLOCK_BYTES // (4 * columns))
    for begin in range(0, rows, size):
        run(slice(begin, begin + size))


def forms_of(kind, x, w, y, dx, dw, bias):
    """By name, functions that compute one product: 'forward', 'to_input' or 'to_weight'.

    Args:
        x, w, y (Tensor): (N, C), (O, C), (N, O); y is also its gradient. dx, dw (Tensor): Like x and w.
        bias (Tensor): (O, ), zeros.
    """
    rows, columns = len(x), max(w.shape)
    if kind == 'forward':
        forms = dict(whole=lambda: torch.mm(x, w.t(), out=y),
                     blocks=lambda: in_blocks(rows, columns, lambda at: torch.mm(x[at], w.t(), out=y[at])))
        if onednn.why_not(x.dtype) is None:
            forms['onednn'] = lambda: onednn.linear(x, w, bias)
        return forms
    if kind == 'to_input':
        return dict(whole=lambda: torch.mm(y, w, out=dx),
                    blocks=lambda: in_blocks(rows, columns, lambda at: torch.mm(y[at], w, out=dx[at])))
    return dict(whole=lambda: torch.mm(y.t(), x, out=dw),
                blocks=lambda: in_blocks(rows, columns, lambda at: dw.addmm_(y[at].t(), x[at])))


def fastest(forms):
    """The function of the form with the least time of a few."""
    for run in forms.values():
        run()
    seconds = dict.fromkeys(forms, math.inf)
    for _ in range(TRIALS):
        for name, run in forms.items():
            begin = time.perf_counter()
            run()
            seconds[name] = min(seconds[name], time.perf_counter() - begin)
    return forms[min(seconds, key=seconds.get)]


def products_alone(products: list[Product], mode: str, dtype: torch.dtype):
    """A function that computes all products of a step. Maps lie in one piece of memory each, weights each in its own.

    Raises:
        UserError: There is none.
    """
    if not products:
        raise UserError('the backbone has no dense convolution')
    pools = [torch.zeros(max(p.rows * max(p.inner, p.outer) for p in products), dtype=dtype) for _ in range(3)]
    forward, backward = [], []
    for p in products:
        x, y, dx = (pool[:p.rows * columns].view(p.rows, columns).normal_(std=0.1) for pool, columns in zip(
            pools, (p.inner, p.outer, p.inner), strict=True))
        w, dw = torch.randn(p.outer, p.inner).to(dtype), torch.zeros(p.outer, p.inner, dtype=dtype)
        tensors = x, w, y, dx, dw, torch.zeros(p.outer, dtype=dtype)
        forward.append(fastest(forms_of('forward', *tensors)))
        if mode == 'train':
            kinds = ('to_weight', ) if p.of_image else ('to_weight', 'to_input')
            backward = [*(fastest(forms_of(kind, *tensors)) for kind in kinds), *backward]

    def run():
        with torch.inference_mode():
            for product in (*forward, *backward):
                product()
    return run


def measure_here():
    """Seconds of each round by mode, dtype and candidate, in this process."""
    torch.set_num_threads(THREADS)
    keep_freed_memory()
    rows, order = [], random.Random()
    for mode in IMAGES:
        for dtype in ('fp32', 'bf16'):
            setting = Setting(mode=mode, part='backbone', batch_size=IMAGES[mode], size=SIZE, dtype=dtype)
            steps = {name: candidate_step(config, None, setting, 'nhwc') for name, config in CONFIGS.items()}
            plain = candidate_step(f'{CONFIGS["inceptionnext"]}::none', None, setting, 'nhwc').model
            steps[PRODUCTS] = products_alone(
                products_of(plain, torch.zeros(IMAGES[mode], 3, SIZE, SIZE)), mode, DTYPES[dtype])
            for _ in range(2):      # allocates, and measures forms
                for step in steps.values():
                    step()
            seconds = {name: [] for name in steps}
            for _ in range(ROUNDS[mode]):
                for name in order.sample(list(steps), len(steps)):
                    begin = time.perf_counter()
                    steps[name]()
                    seconds[name].append(time.perf_counter() - begin)
            rows += [dict(mode=mode, dtype=dtype, candidate=name, seconds=found) for name, found in seconds.items()]
    return rows


def measure(out, processes):
    """Processes until there are so many; the file is written after each.

    Raises:
        UserError: Other programs keep the machine busy, a process failed, or the file is of another machine or code.
    """
    described = machine_and_versions()
    result = content_of(out, 'a result of studies.backbone_limit', described, dict(
        environment=described, configs=CONFIGS, threads=THREADS, size=SIZE, images=IMAGES, processes=[]),
        (*SAME, 'commit'))
    for _ in tqdm(range(len(result['processes']), processes), unit='process'):
        busy = wait_for_quiet()
        load = round(psutil.getloadavg()[0], 2)
        run = subprocess.run([sys.executable, '-m', 'studies.backbone_limit', '--child'], capture_output=True,
                             text=True, cwd=Path(__file__).parents[1])
        if run.returncode:
            raise UserError(f'a process failed: {(run.stderr.strip().splitlines() or ["no message"])[-1]}')
        result['processes'].append(dict(
            busy_before=round(busy, 3), load_average=load, rows=json.loads(run.stdout.splitlines()[-1])))
        write_json(out, result)
    return result


def seconds_of(result, mode, dtype, candidate):
    """Seconds of the rounds, by process."""
    return {i: row['seconds'] for i, process in enumerate(result['processes']) for row in process['rows']
            if (row['mode'], row['dtype'], row['candidate']) == (mode, dtype, candidate)}


def judged(goal: float, most: Estimate) -> str:
    """Whether a goal can be reached, by the most that products allow."""
    if most.low is None:
        return 'out of reach, by one process' if most.value < goal else 'not forbidden'
    if most.high < goal:
        return 'out of reach'
    return 'not forbidden' if most.value >= goal else 'out of reach, the interval covers the goal'


def table(result):
    """A row a mode and dtype: seconds, the ratio of both backbones, and the most that products allow."""
    rows = []
    for mode, goal in GOALS.items():
        for dtype in ('fp32', 'bf16'):
            convnext, inceptionnext, products = (
                seconds_of(result, mode, dtype, name) for name in (*CONFIGS, PRODUCTS))
            if not convnext:
                continue
            seconds = [f'{1 / speed(list(found.values()), 1).value:.3g}' for found in (
                convnext, inceptionnext, products)]
            most = speedup(convnext, products)
            rows.append([
                f'{TITLES[mode]}, {dtype}, {result["images"][mode]} × {result["size"]}×{result["size"]}', *seconds,
                text(speedup(convnext, inceptionnext)), text(most), f'{goal:.2f}' if dtype == 'fp32' else NONE,
                judged(goal, most) if dtype == 'fp32' else NONE])
    return markdown_table(
        ['backbone', 'ConvNeXt-T, s', 'InceptionNeXt-T, s', 'its products alone, s', 'InceptionNeXt-T over ConvNeXt-T',
         'the most that products allow', 'goal', ''], rows)


def words(result):
    """Of how many processes the figures are."""
    count = len(result['processes'])
    return 'One process.' if count == 1 else (
        f'{count} processes; brackets are over them and their rounds'
        + (', of fewer than five about the range of the processes.' if count < 5 else '.'))


def report(result):
    e = result['environment']
    loads = [process['load_average'] for process in result['processes']]
    busy = max(process['busy_before'] for process in result['processes'])
    return '\n\n'.join([
        "# What limits a faster backbone: InceptionNeXt-T's matrix products alone",
        f'`{e["command"]}`, commit {e["commit"]}, {e["date"][:10]}, {e["device_name"]}, {result["threads"]} threads, '
        f'torch {e["versions"]["torch"]}. Both backbones accelerated, random weights.', table(result), words(result),
        "Products alone are those of InceptionNeXt-T's 1×1 convolutions, stem and downsampling, in training with the "
        'two of their gradients, at their own shapes, each in the fastest of up to three forms (torch.mm, the same in '
        "blocks of rows, oneDNN's); maps come from the cache. A training step of a backbone has AdamW, that of its "
        'products has not. All candidates take turns in every round of a process, in a random order. Other programs '
        f'kept {busy:.2f} cores busy at most before a process; load average {min(loads)} to {max(loads)}.']) + '\n'


@exit_on_user_error
def main():
    parser = argparse.ArgumentParser(prog='python -m studies.backbone_limit', description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=Path, default=Path('docs/results') / folder_name() / 'backbone_limit.json',
                        metavar='FILE.json',
                        help='result file, which further processes are added to (default: %(default)s)')
    parser.add_argument('--processes', type=int, default=5, help='in all (default: %(default)s)')
    parser.add_argument('--child', action='store_true', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(measure_here()))
        return
    found = report(measure(args.out, args.processes))
    write_text(args.out.with_suffix('.md'), found)
    print(found)


if __name__ == '__main__':
    main()
