"""What limits a faster backbone: python -m studies.backbone_limit --out docs/results/MACHINE/backbone_limit.json

InceptionNeXt-T's and ConvNeXt-T's backbones, both accelerated, take turns with InceptionNeXt-T's matrix products alone:
those of its 1×1 convolutions, stem and downsampling, in training with the two of each one's gradients, one after the
other at their own shapes, each in the form that is the fastest here. Norms, token mixers, activations, residuals, the
optimizer and moving patches into rows cost nothing there, and maps come from the cache. So no implementation whose
products are those of torch on this machine is faster than that, and the time of ConvNeXt-T over it is the most that
InceptionNeXt-T's backbone can be ahead. Random weights. The machine must have no other work.
"""
import math
import random
import time
from typing import NamedTuple

import torch
import torch.nn as nn

from inceptionnext_seg.engine.allocator import keep_freed_memory
from inceptionnext_seg.errors import UserError, exit_on_user_error
from inceptionnext_seg.files import markdown_table
from inceptionnext_seg.ops import onednn
from inceptionnext_seg.ops.norm_mlp import BLOCK_BYTES, LEAST_ROWS

from .by_processes import main, origin, quietness
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
    return '\n\n'.join([
        "# What limits a faster backbone: InceptionNeXt-T's matrix products alone",
        f'{origin(result)} Both backbones accelerated, random weights.', table(result), words(result),
        "Products alone are those of InceptionNeXt-T's 1×1 convolutions, stem and downsampling, in training with the "
        'two of their gradients, at their own shapes, each in the fastest of up to three forms (torch.mm, the same in '
        "blocks of rows, oneDNN's); maps come from the cache. A training step of a backbone has AdamW, that of its "
        f'products has not. All candidates take turns in every round of a process, in a random order. '
        f'{quietness(result)}']) + '\n'


if __name__ == '__main__':
    exit_on_user_error(main)(
        'studies.backbone_limit', __doc__, dict(configs=CONFIGS, threads=THREADS, size=SIZE, images=IMAGES),
        measure_here, report)
