"""Exported files on a CPU: seconds a call, load time, memory and class maps, beside torch itself.

python -m studies.exported --files DIR --write --out docs/results/MACHINE/exported.json    writes the files, untimed
python -m studies.exported --files DIR --seconds 280 --out docs/results/MACHINE/exported.json
python -m studies.exported --files DIR --accuracy CONFIG CHECKPOINT DATA HOW --out …/exported.json    mIoU of each file

Each measurement is a process of its own, and the cells take turns: one process of each, then the next of each. A run
that was stopped, or has used its ``--seconds``, goes on with what the file has.
"""
import argparse
import copy
import importlib.metadata
import json
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
import torch
import torch._inductor.config as inductor
from tqdm import tqdm

from inceptionnext_seg import accelerate, create_model, fuse_for_inference, measuring
from inceptionnext_seg.engine.allocator import keep_freed_memory
from inceptionnext_seg.engine.launch import load_config
from inceptionnext_seg.errors import UserError, exit_on_user_error
from inceptionnext_seg.export import Graph
from inceptionnext_seg.export.files import FORMATS, Runtime, write
from inceptionnext_seg.export.proof import accuracy, calibration_images, labelled_images
from inceptionnext_seg.files import markdown_table, read_object, write_json, write_text
from inceptionnext_seg.provenance import commit, environment

from .cpu_inference import reset_highest_memory
from .throughput.memory import highest_memory

ROOT = Path(__file__).resolve().parents[1]
SIZE, CLASSES = (512, 512), 150
RUNTIMES = dict(onnx='ONNX Runtime', openvino='OpenVINO', torch='torch')
PLAIN = 'plain fp32'
LEAST_CALLS, LEAST_SECONDS = 3, 1.5
VERSIONS = ('onnxruntime', 'openvino', 'nncf')


class Cell(NamedTuple):
    """What is measured: ``family`` and ``runtime``, and the graph's form and dtype, or torch's way of running it."""
    family: str
    runtime: str
    form: str
    dtype: str

    @property
    def name(self):
        return f'{self.form} {self.dtype}'

    def path(self, folder):
        return Path(folder) / f'{self.family}_{self.form}_{self.dtype}{FORMATS[self.runtime][0]}'


TORCH = (('plain', 'fp32'), ('compiled', 'fp32'), ('accelerated', 'fp32'), ('accelerated', 'bf16'),
         ('accelerated', 'int8'))
ONNX = (('plain', 'fp32'), ('factorized', 'fp32'), ('winograd', 'fp32'), ('plain', 'int8'), ('factorized', 'int8'))
OPENVINO = (*ONNX[:3], ('plain', 'bf16'), ('winograd', 'bf16'), *ONNX[3:])
FAMILIES = dict(inceptionnext='InceptionNeXt-T', convnext='ConvNeXt-T')
CELLS = [Cell(family, runtime, *cell) for family in FAMILIES
         for runtime, cells in (('torch', TORCH), ('onnx', ONNX), ('openvino', OPENVINO)) for cell in cells]


def parse_args():
    parser = argparse.ArgumentParser(prog='python -m studies.exported', description='Exported files on this CPU')
    parser.add_argument('--files', required=True, help='folder of the exported files')
    parser.add_argument('--write', action='store_true', help='write those that are not there, and measure nothing')
    parser.add_argument('--families', nargs='+', choices=list(FAMILIES), default=list(FAMILIES))
    parser.add_argument('--leave-out', nargs='+', default=[], metavar='FORM DTYPE', help='such as "compiled fp32"')
    parser.add_argument('--threads', type=int, nargs='+', default=[os.cpu_count(), 1])
    parser.add_argument('--processes', type=int, default=3, help='of each cell')
    parser.add_argument('--seconds', type=float, default=float('inf'), help='begin no process after these')
    parser.add_argument('--accuracy', nargs=4, metavar=('CONFIG', 'CHECKPOINT', 'DATA', 'HOW'),
                        help='mIoU of a trained model in each file, instead of times; HOW it was trained, for the page')
    parser.add_argument('--out', required=True)
    parser.add_argument('--child', help=argparse.SUPPRESS)
    return parser.parse_args()


def built(family, accelerate=False):
    """UperNet of the T backbone with weights from a fixed seed."""
    torch.manual_seed(0)
    return create_model(f'upernet_{family}_t', num_classes=CLASSES, accelerate=accelerate).eval()


def images(count, seed):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(1, 3, *SIZE, generator=generator) for _ in range(count)]


def write_files(args):
    for cell in tqdm([cell for cell in CELLS if cell.runtime != 'torch' and cell.family in args.families], unit='file'):
        if not cell.path(args.files).exists():
            calibration = [image.numpy() for image in images(4, 1)] if cell.dtype == 'int8' else ()
            write(Graph(built(cell.family), cell.form), cell.path(args.files), cell.runtime, 1, SIZE, cell.dtype,
                  calibration)


# One measurement, in a process of its own


def torch_runner(cell):
    """From an image to logits, as arrays, as a :class:`Runtime`."""
    model = built(cell.family, cell.form == 'accelerated')
    if cell.form != 'plain':
        model = fuse_for_inference(model, inplace=True, dtype=cell.dtype,
                                   calibration=images(4, 1) if cell.dtype == 'int8' else None)
    if cell.form == 'compiled':
        inductor.freezing = inductor.max_autotune = True
        model = torch.compile(model)

    return as_runtime(model)


def as_runtime(model):
    def run(image):
        with torch.no_grad():
            return [model(torch.from_numpy(image)).numpy()]
    return run


def measure_here(cell, files, threads, reference):
    """What the parent reads: for each number of threads the seconds of calls, load time, and bytes of memory."""
    image = images(1, 2)[0].numpy()
    torch.set_num_threads(threads[0])
    before = psutil.Process().memory_info().rss
    reset_highest_memory()
    keep_freed_memory()
    result = dict(threads={})
    for count in threads:
        torch.set_num_threads(count)
        start = time.perf_counter()
        if cell.runtime != 'torch':
            run = Runtime(cell.path(files), cell.runtime, count, cell.dtype)
        elif count == threads[0]:
            run = torch_runner(cell)
        if cell.runtime == 'torch' and cell.form == 'accelerated':
            with measuring():
                run(image)
        logits = run(image)[0]
        loaded, seconds = time.perf_counter() - start, []
        while len(seconds) < LEAST_CALLS or sum(seconds) < LEAST_SECONDS:
            start = time.perf_counter()
            logits = run(image)[0]
            seconds.append(time.perf_counter() - start)
        result['threads'][count] = dict(seconds=seconds, first=loaded)
        result.setdefault('memory', highest_memory('cpu') - before)
    classes = logits.argmax(1)
    if (cell.runtime, cell.form) == ('torch', 'plain'):
        np.save(reference, classes)
    return dict(result, equal=float((np.load(reference) == classes).mean()))


def measure(args, cell):
    """:func:`measure_here` in a process of its own."""
    command = [sys.executable, '-m', 'studies.exported', '--files', args.files, '--out', args.out, '--threads',
               *map(str, args.threads), '--child', json.dumps(cell)]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    found = re.search(r'^RESULT (.*)$', run.stdout, re.M)
    if run.returncode or not found:
        raise UserError(f'{cell} failed: {(run.stderr.strip().splitlines() or ["no message"])[-1]}')
    return json.loads(found[1])


def measure_all(args, result):
    deadline = time.monotonic() + args.seconds
    cells = [cell for cell in CELLS if cell.family in args.families and cell.name not in args.leave_out]
    done = [tuple(run['cell']) for run in result['runs']]
    todo = [cell for process in range(args.processes) for cell in cells if done.count(tuple(cell)) <= process]
    for cell in tqdm(todo, unit='process'):
        if time.monotonic() > deadline:
            break
        result['runs'].append(dict(cell=cell, load=round(psutil.getloadavg()[0], 1), **measure(args, cell)))
        write_json(args.out, result)


# mIoU of a trained model


def measure_accuracy(args, result):
    """mIoU in per cent of a checkpoint, in torch and in files, on the validation images below DATA, at their size."""
    config, checkpoint, data, how = args.accuracy
    folders = [Path(data) / kind / 'validation' for kind in ('images', 'annotations')]
    model = create_model(load_config(config), checkpoint=checkpoint, accelerate=False).eval()
    size = next(labelled_images(*folders, None, 0))[0].shape[:2]
    calibration = calibration_images(Path(data) / 'images/training', size, 1)
    calibration = [model.normalize(torch.from_numpy(image).permute(0, 3, 1, 2)) for image in calibration]
    found = result['accuracy'] = dict(config=config, calibration=len(calibration), how=how, rows=[])
    fast = copy.deepcopy(model)
    fast.acceleration = accelerate(fast)
    for runtime, form, dtype in (('torch', 'accelerated', 'bf16'), ('torch', 'accelerated', 'int8'),
                                 ('onnx', 'winograd', 'fp32'), ('onnx', 'factorized', 'int8'),
                                 ('openvino', 'winograd', 'fp32'), ('openvino', 'winograd', 'bf16'),
                                 ('openvino', 'factorized', 'int8')):
        if runtime == 'torch':
            ranges = calibration if dtype == 'int8' else None
            run = as_runtime(fuse_for_inference(fast, dtype=dtype, calibration=ranges))
        else:
            path = Path(args.files) / f'accuracy_{dtype}{FORMATS[runtime][0]}'
            write(Graph(model, form), path, runtime, 1, size, dtype,
                  [image.numpy() for image in calibration] if dtype == 'int8' else ())
            run = Runtime(path, runtime, dtype=dtype)
        row = accuracy(model, run, labelled_images(*folders, size, 0), False, False)
        found['rows'].append(dict(row._asdict(), what=f'{RUNTIMES[runtime]} {form} {dtype}'))
        write_json(args.out, result)


# The report


def summary(result, family, count):
    """By cell: medians over its processes of seconds, their range, the first call, memory; and times of plain."""
    runs = {}
    for run in result['runs']:
        cell = Cell(*run['cell'])
        if cell.family == family and str(count) in run['threads']:
            runs.setdefault(cell, []).append(run)
    found = {}
    for cell, of_cell in sorted(runs.items(), key=lambda item: CELLS.index(item[0])):
        medians = [statistics.median(run['threads'][str(count)]['seconds']) for run in of_cell]
        found[cell] = dict(
            seconds=statistics.median(medians), low=min(medians), high=max(medians), processes=len(of_cell),
            first=statistics.median(run['threads'][str(count)]['first'] for run in of_cell),
            memory=max(run['memory'] for run in of_cell), equal=min(run['equal'] for run in of_cell))
    for cell, row in found.items():
        plain = found.get(Cell(family, cell.runtime, *PLAIN.split()))
        row['faster'] = plain['seconds'] / row['seconds'] if plain else None
    return found


def table(result, family, count):
    rows = [[RUNTIMES[cell.runtime], cell.form, cell.dtype, f'{row["seconds"]:.2f}',
             f'{row["low"]:.2f}–{row["high"]:.2f}', row['processes'],
             '–' if row['faster'] is None else f'{row["faster"]:.2f}', f'{row["first"]:.1f}',
             f'{row["memory"] / 2**20:.0f}', f'{100 * row["equal"]:.3f}']
            for cell, row in summary(result, family, count).items()]
    return markdown_table(
        ['runtime', 'graph', 'dtype', 's', 'range of processes', 'processes', "× its runtime's plain fp32",
         'to the first result, s', 'memory, MiB', 'same classes as plain torch, %'], rows)


def accuracy_section(found):
    rows = [[row['what'], f'{row["file"]:.2f}', f'{row["file"] - row["model"]:+.2f}', f'{row["equal"]:.2f}']
            for row in found['rows']]
    first = found['rows'][0]
    return (f'`{found["config"]}`, {found["how"]}: mIoU in torch fp32 {first["model"]:.2f} % on the {first["images"]} '
            f'validation images; ranges from {found["calibration"]} training images.\n\n'
            + markdown_table(['what', 'mIoU, %', 'less torch fp32', 'same classes, %'], rows))


def report(result):
    where = result['environment']
    versions = {**where['versions'], **result['versions']}
    sections = [
        '# Exported files on a CPU',
        'UperNet with 512 channels and 150 classes, random weights (their classes are nearer to each other than those '
        'of a trained model), one image of 512×512 a call, normalized floats to logits at its size. `plain` is the '
        'graph as it was trained, in torch with stock operators; `compiled` is torch.compile with max-autotune and '
        'freezing of the deploy form; `accelerated` the deploy form with the operators of this package. Times are '
        'medians of the processes\' medians, memory is the peak of the process less what it had before the model. To '
        'the first result: loading the file, or building and compiling, and two calls.',
        f'{where["cpu"]}, {where["cpu_cores"]} cores, {where["cpu_capability"]}; '
        f'{", ".join(f"{name} {versions[name]}" for name in ("torch", *VERSIONS))}; commit {result["commit"]}, '
        f'{where["date"][:10]}. `{where["command"]}`']
    for family, title in FAMILIES.items():
        for count in sorted({int(c) for run in result['runs'] for c in run['threads']}, reverse=True):
            if summary(result, family, count):
                sections += [f'## {title}, {count} thread{"s" if count > 1 else ""}', table(result, family, count)]
    if 'accuracy' in result:
        sections += ['## Accuracy', accuracy_section(result['accuracy'])]
    return '\n\n'.join(sections) + '\n'


@exit_on_user_error
def main():
    args = parse_args()
    if args.write:
        write_files(args)
        return
    if args.child:
        cell = Cell(*json.loads(args.child))
        found = measure_here(cell, args.files, args.threads, Path(args.files) / f'{cell.family}_classes.npy')
        print('RESULT ' + json.dumps(found))
        return
    result = dict(runs=[])
    if Path(args.out).is_file():
        result = read_object(args.out, 'a result of studies.exported', 'another --out')
    if not args.accuracy or 'environment' not in result:
        result.update(environment=environment('cpu'), commit=commit(),
                      versions={name: importlib.metadata.version(name) for name in VERSIONS})
    (measure_accuracy if args.accuracy else measure_all)(args, result)
    write_json(args.out, result)
    write_text(Path(args.out).with_suffix('.md'), report(result))


if __name__ == '__main__':
    main()
