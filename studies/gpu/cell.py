"""One cell in a process of its own: python -m studies.gpu.cell RESULT.json < CELL.json"""
import functools
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from xml.etree import ElementTree

import torch
from mmengine.config import ConfigDict
from mmseg.structures import SegDataSample

from inceptionnext_seg.files import write_json
from inceptionnext_seg.provenance import synchronize

from ..operator_choices import measure as measure_operators
from ..throughput.candidates import candidate_config, candidate_label
from ..throughput.memory import is_out_of_memory
from ..throughput.setting import Setting
from ..throughput.step import candidate_step
from ..timing import MEMORY_FORMATS, interleave
from .cells import ROOT, Cell
from .conditions import conditions


def run(cell, device, cfg_options=None):
    """What a cell finds, with the conditions before and after it."""
    before, begin = conditions(device), time.perf_counter()
    found = dict(tests=run_tests, speed=run_speed, operators=run_operators)[cell.kind](cell, device, cfg_options)
    return dict(found, before=before, after=conditions(device), wall_seconds=round(time.perf_counter() - begin, 1))


# Tests


def run_tests(cell, device, cfg_options=None):
    """Outcome and seconds of each test of a file, with the reason of those that were skipped or failed."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / 'report.xml'
        environment = dict(os.environ, INCEPTIONNEXT_SEG_GPU_TESTS=str(device))
        done = subprocess.run([sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', cell.path,
                               f'-n{workers(device)}', f'--junitxml={report}'],
                              cwd=ROOT, env=environment, capture_output=True, text=True)
        if not report.is_file():
            raise RuntimeError(f'pytest ended with {done.returncode}: {(done.stdout + done.stderr)[-2000:]}')
        return dict(tests=read_report(report.read_text()))


def workers(device):
    """How many tests run at once: most of their time Triton compiles, and each may need a good part of 16 GB.

    0 is none beside pytest's own process.
    """
    if torch.device(device).type != 'cuda':
        return 0
    found = int(torch.cuda.get_device_properties(device).total_memory // 16e9)
    return found if (found := min(found, os.cpu_count())) > 1 else 0


def read_report(xml):
    """Of a JUnit report of pytest."""
    tests = []
    for case in ElementTree.fromstring(xml).iter('testcase'):     # noqa: S314  it is pytest's own
        outcome, reason = 'passed', ''
        for child in case:
            if child.tag in ('failure', 'error', 'skipped'):
                outcome = 'skipped' if child.tag == 'skipped' else 'failed'
                reason = (child.get('message') or '') if outcome == 'skipped' else (child.text or '')[-4000:]
        tests.append(dict(name=case.get('name'), outcome=outcome, seconds=float(case.get('time', 0)), reason=reason))
    return tests


# Throughput


def run_speed(cell, device, cfg_options=None):
    """Seconds of each candidate by round, taken in turn, and the peak of memory of its steps.

    Out of memory halves the batch of all, so that they stay comparable.
    """
    torch.backends.cudnn.benchmark = True       # as the configs have it
    setting, smaller = Setting(**cell.setting), 0
    while True:
        try:
            rows, steps = build(cell.candidates, setting, cfg_options, cell.slide)
            break
        except RuntimeError as error:
            if not is_out_of_memory(error) or setting.batch_size < 4:
                raise
        setting = Setting(**dict(vars(setting), batch_size=setting.batch_size // 2))
        smaller += 1
        if torch.device(device).type == 'cuda':
            torch.cuda.empty_cache()
    samples = interleave(steps, rounds=cell.rounds, warmup=1, synchronize=lambda: synchronize(device))
    for row, sample in zip(rows, samples.values(), strict=True):
        row.update(seconds=sample.seconds, settled=sample.settled)
    return dict(setting=vars(setting), halved=smaller, results=rows)


def build(candidates, setting, cfg_options=None, slide=()):
    """Rows and steps; each ran three times, of which the first measures operators.

    Args:
        slide (tuple[int, int]): Side and stride of sliding windows; without them whole images.
    """
    rows, steps, device = [], {}, torch.device(setting.device)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(4, setting.batch_size, 3, *setting.image_size, generator=generator).to(device)
    for name, layout in candidates:
        before = memory_now(device, reset=True)
        rotation = itertools.cycle([image.contiguous(memory_format=MEMORY_FORMATS[layout]) for image in images])
        step = candidate_step(name, cfg_options, setting, layout, rotation)
        if slide:
            slide_windows(step, *slide)
        step()
        # What operators needed that were tried is no memory of a step.
        memory_now(device, reset=True)
        step()
        step()
        peak = None if before is None else torch.cuda.max_memory_allocated(device) - before
        steps[name, layout] = step
        rows.append(dict(name=name, label=candidate_label(name), layout=layout, peak_memory=peak))
    return rows, steps


def slide_windows(step, side, stride):
    """Let a step of inference predict as an evaluation by sliding windows does, up to the class indices."""
    step.model.test_cfg = ConfigDict(mode='slide', crop_size=(side, side), stride=(stride, stride))
    step.forward = functools.partial(predict, step.model)


def predict(model, images, samples):
    # New samples, or those of the step would keep the logits that stock leaves in them.
    return [sample.pred_sem_seg for sample in model.predict(
        images, [SegDataSample(metainfo=sample.metainfo) for sample in samples])]


def memory_now(device, reset=False):
    """Bytes that torch has given out on a GPU; None elsewhere."""
    if device.type != 'cuda':
        return None
    synchronize(device)
    if reset:
        torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)


# Operators


def run_operators(cell, device, cfg_options=None):
    """Each form of each operator at the shapes of one step, as measured choice has timed it."""
    candidate_config(cell.path)     # one message where there is none
    return dict(setting=cell.setting, **measure_operators(cell.path, Setting(**cell.setting)))


def main():
    given = json.load(sys.stdin)
    write_json(sys.argv[1], run(Cell(**given['cell']), given['device']))


if __name__ == '__main__':
    main()
