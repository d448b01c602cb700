"""The cells of ``make gpu``: a file of tests, candidates timed against each other, or the forms of operators."""
from pathlib import Path
from typing import NamedTuple

import torch

from ..throughput.candidates import GRAPH, NONE, STOCK, variants

ROOT = Path(__file__).parents[2]
CONVNEXT, INCEPTIONNEXT = (f'configs/upernet_{name}_t_ade20k.py' for name in ('convnext', 'inceptionnext'))
SMALL = tuple(f'configs/upernet_{name}_a_mini.py' for name in ('convnext', 'inceptionnext'))
BOTH = ('nchw', 'nhwc')


class Cell(NamedTuple):
    """What one process does.

    Attributes:
        name (str): By which the result file has it.
        kind (str): 'tests', 'speed' or 'operators'.
        path (str): Of the tests; of the config whose operators are measured.
        candidates (list): Of 'speed': name and layout of each; ratios are to the first.
        setting (dict): Of 'speed' and 'operators': arguments of :class:`~studies.throughput.setting.Setting`.
        rounds (int): Of 'speed'.
        slide (tuple[int, int]): Of 'speed', side and stride of sliding windows; without them whole images.
    """
    name: str
    kind: str
    path: str = ''
    candidates: list = []
    setting: dict = {}
    rounds: int = 10
    slide: tuple = ()


def cells(device, quick=False):
    """All cells, in the order in which they run.

    Args:
        device (str): Of torch.
        quick (bool): A small model on small images, to exercise the command itself: each kind of cell once, training
            and inference, fp32 and AMP.
    """
    found = [Cell(f'tests: {path.stem.removeprefix("test_")}', 'tests', str(path.relative_to(ROOT)))
             for path in sorted((ROOT / 'tests/gpu').glob('test_*.py'))]
    convnext, inceptionnext = SMALL if quick else (CONVNEXT, INCEPTIONNEXT)
    plain = [(f'{path}::{NONE}', 'nhwc') for path in (convnext, inceptionnext)]
    fast = [(path, 'nhwc') for path in (convnext, inceptionnext)]
    stock = [(STOCK, layout) for layout in (BOTH[:1] if quick else BOTH)]
    graphs = [(f'{path}::{GRAPH}', layout) for path, layout in fast] if torch.device(device).type == 'cuda' else []
    rounds, side = 8 if quick else 10, 64 if quick else 512
    for dtype, mode, batch_size in steps(device, quick):
        setting = dict(mode=mode, batch_size=batch_size, dtype=dtype, size=side, device=device)
        name = f'{mode}, {dtype}, {batch_size} images'
        found.append(Cell(f'segmentors, {name}', 'speed', setting=setting, rounds=rounds, candidates=[
            *stock, *plain, *fast, *graphs]))
        if batch_size == 1:
            # Twice as high and four times as wide as a window, as images of streets are.
            found.append(Cell(
                f'sliding windows, {dtype}, {2 * side}×{4 * side}', 'speed', candidates=[*stock, *fast],
                setting=dict(setting, size=2 * side, width=4 * side), rounds=rounds, slide=(side, 2 * side // 3)))
            continue
        backbone = dict(setting, part='backbone')
        found.append(Cell(f'backbones, {name}', 'speed', candidates=[*plain, *fast], setting=backbone, rounds=rounds))
        found.append(Cell(f'parts alone, {name}', 'speed', setting=setting, rounds=rounds, candidates=[
            (candidate, 'nhwc') for candidate in variants(inceptionnext, mode)]))
        if mode == 'train':
            found.append(Cell(f'compiled, {name}', 'speed', candidates=fast[1:] if quick else [(STOCK, 'nhwc'), *fast],
                              setting=dict(setting, compile=True), rounds=rounds))
        found += [Cell(f'operators of {Path(path).stem}, {name}', 'operators', path, setting=setting)
                  for path in ((inceptionnext, ) if quick else (inceptionnext, convnext))]
    return found


def steps(device, quick):
    """Dtype, mode and images of the steps that are timed."""
    if quick:
        return [('fp32', 'train', 2), (amp_dtype(device), 'infer', 1)]
    return [(dtype, *step) for dtype in (amp_dtype(device), 'fp32')
            for step in (('train', 16), ('infer', 1), ('infer', 16))]


def amp_dtype(device):
    """As ``--amp`` takes: bf16 where the device has it."""
    if torch.device(device).type != 'cuda' or torch.cuda.get_device_capability(device) >= (8, 0):
        return 'bf16'
    return 'fp16'
