"""Inference on a CPU: a model as MMSegmentation runs it against the same weights here, in float32, bfloat16 and 8 bits.

python -m studies.cpu_inference --out docs/results/MACHINE/inference.json            whole images and sliding windows
python -m studies.cpu_inference --accuracy CONFIG CHECKPOINT DATA --out …/inference.json   mIoU of each precision

Each measurement is a process of its own, and the candidates take turns; a run that was stopped, or that is called with
another ``--only``, goes on with what the file has. Writes the JSON and a table beside it.
"""
import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import torch
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS, METRICS, MODELS
from mmseg.structures import SegDataSample
from tqdm import tqdm

from inceptionnext_seg import accelerate, fuse_for_inference
from inceptionnext_seg.engine.allocator import keep_freed_memory
from inceptionnext_seg.engine.launch import load_config
from inceptionnext_seg.errors import UserError, exit_on_user_error
from inceptionnext_seg.files import markdown_table, read_object, write_json, write_text
from inceptionnext_seg.models.checkpoint import load_model
from inceptionnext_seg.provenance import environment

from .other_segmentors import commit
from .throughput.memory import highest_memory

ROOT = Path(__file__).resolve().parents[1]
CONFIG = 'configs/upernet_inceptionnext_t_ade20k.py'
WINDOWS = dict(mode='slide', crop_size=(512, 512), stride=(341, 341))
STOCK = ('stock NCHW', 'stock NHWC')
CANDIDATES = (*STOCK, 'fp32', 'bf16', 'int8')
# By name: (height, width), test_cfg, candidates, calls that are timed in a process.
CELLS = {
    'whole 512×512': ((512, 512), dict(mode='whole'), CANDIDATES, 4),
    'slide 512×683': ((512, 683), WINDOWS, ('stock NCHW', 'fp32', 'bf16', 'int8'), 2),
    'slide 1024×2048': ((1024, 2048), WINDOWS, ('stock NCHW', 'fp32', 'bf16', 'int8'), 1)}
CALIBRATION = 32


def parse_args():
    parser = argparse.ArgumentParser(prog='python -m studies.cpu_inference', description='Inference on this CPU')
    parser.add_argument('--config', default=CONFIG)
    parser.add_argument('--only', nargs='+', choices=list(CELLS), default=list(CELLS), metavar='CELL')
    parser.add_argument('--candidates', nargs='+', choices=CANDIDATES, default=CANDIDATES, metavar='CANDIDATE')
    parser.add_argument('--processes', type=int, default=2, help='of each candidate')
    parser.add_argument('--threads', type=int, default=os.cpu_count())
    parser.add_argument('--accuracy', nargs=3, metavar=('CONFIG', 'CHECKPOINT', 'DATA'),
                        help='mIoU of a trained model in each precision, instead of times')
    parser.add_argument('--out', required=True)
    parser.add_argument('--child', help=argparse.SUPPRESS)
    return parser.parse_args()


# One measurement, in a process of its own


def build(cfg, candidate, test_cfg):
    """The model of a config with weights from a fixed seed, as a candidate runs it."""
    init_default_scope('mmseg')
    cfg.model.backbone.init_cfg = None
    torch.manual_seed(0)
    model = MODELS.build(cfg.model).eval()
    model.test_cfg = ConfigDict(test_cfg)
    if candidate == 'stock NHWC':
        model.to(memory_format=torch.channels_last)
    if candidate not in STOCK:
        accelerate(model)
        images = None
        if candidate == 'int8':
            images = torch.randn(4, 1, 3, 512, 512, generator=torch.Generator().manual_seed(1))
        model = fuse_for_inference(model, inplace=True, dtype=candidate, calibration=images)
    return model


def measure_here(cfg, cell, candidate, threads, prediction):
    """What the parent reads: seconds of each call, and bytes at most and before there was a model."""
    torch.set_num_threads(threads)
    size, test_cfg, _, calls = CELLS[cell]
    image = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(2))
    before = psutil.Process().memory_info().rss
    model = build(cfg, candidate, test_cfg)
    reset_highest_memory()  # of building and calibrating
    keep_freed_memory()
    if candidate == 'stock NHWC':
        image = image.contiguous(memory_format=torch.channels_last)

    def call():
        shapes = dict.fromkeys(('img_shape', 'ori_shape', 'pad_shape'), size)
        sample = SegDataSample(metainfo=dict(shapes, padding_size=[0] * 4))
        start = time.perf_counter()
        found = model.predict(image, [sample])[0].pred_sem_seg.data
        return time.perf_counter() - start, found

    with torch.inference_mode():
        if calls > 1:
            call()
        else:
            model.extract_feat(image[..., :512, :512])
        samples = [call() for _ in range(calls)]
    np.save(prediction, samples[0][1].numpy().astype(np.uint8))
    return dict(seconds=[seconds for seconds, _ in samples], peak=highest_memory('cpu'), before=before)


def reset_highest_memory():
    """Linux: what the process has now is its highest from here on."""
    Path('/proc/self/clear_refs').write_text('5')


def measure(args, cell, candidate, prediction):
    """:func:`measure_here` in a process of its own."""
    what = json.dumps([cell, candidate, prediction])
    command = [sys.executable, '-m', 'studies.cpu_inference', '--config', args.config, '--threads', str(args.threads),
               '--out', args.out, '--child', what]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    found = re.search(r'^RESULT (.*)$', run.stdout, re.M)
    if run.returncode or not found:
        raise UserError(f'{cell}, {candidate} failed: {(run.stderr.strip().splitlines() or ["no message"])[-1]}')
    return json.loads(found[1])


# All of them


def measure_all(args, result):
    with tempfile.TemporaryDirectory() as folder:
        todo = [(process, cell, candidate) for cell in args.only for process in range(args.processes)
                for candidate in CELLS[cell][2] if candidate in args.candidates]
        for _, cell, candidate in tqdm(todo, unit='process'):
            prediction = Path(folder) / 'prediction.npy'
            found = dict(measure(args, cell, candidate, str(prediction)), candidate=candidate)
            classes = np.load(prediction)
            entry = result['cells'].setdefault(cell, dict(runs=[], agreement={}))
            kept = Path(folder) / f'{cell}.npy'.replace(' ', '_')
            if candidate == STOCK[0]:
                np.save(kept, classes)
            elif kept.exists():
                entry['agreement'][candidate] = float((np.load(kept) == classes).mean())
            entry['runs'].append(dict(found, load=round(psutil.getloadavg()[0], 1)))
            write_json(args.out, result)    # what is measured stays, whatever comes next


def measure_accuracy(args, result):
    """mIoU in per cent of a checkpoint on the validation images of its config, in each precision."""
    config, checkpoint, data = args.accuracy
    cfg = load_config(config)
    init_default_scope('mmseg')
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.dataset.data_root = data
    training = DATASETS.build(dict(cfg.train_dataloader.dataset, pipeline=cfg.test_pipeline))
    validation = DATASETS.build(cfg.val_dataloader.dataset)
    pictures = [training[i]['inputs'] for i in range(0, len(training), -(-len(training) // CALIBRATION))]
    model = MODELS.build(cfg.model).eval()
    load_model(model, checkpoint)
    accelerate(model)
    found = result['accuracy'] = dict(
        config=config, checkpoint=Path(checkpoint).name, images=len(validation), calibration=len(pictures), mIoU={},
        same_classes_as_fp32={})
    reference = []
    for dtype in ('fp32', 'bf16', 'int8'):
        lowered = fuse_for_inference(model, dtype=dtype, calibration=pictures if dtype == 'int8' else None)
        metric = METRICS.build(dict(type='IoUMetric', iou_metrics=['mIoU']))
        metric.dataset_meta = validation.metainfo
        same = []
        for i in tqdm(range(len(validation)), desc=dtype, unit='image'):
            item = validation[i]
            with torch.inference_mode():
                samples = lowered.test_step(dict(inputs=[item['inputs']], data_samples=[item['data_samples']]))
            classes = samples[0].pred_sem_seg.data
            metric.process({}, [sample.to_dict() for sample in samples])
            if dtype == 'fp32':
                reference.append(classes)
            same.append((classes == reference[i]).float().mean().item())
        found['mIoU'][dtype] = float(metric.evaluate(len(validation))['mIoU'])
        found['same_classes_as_fp32'][dtype] = statistics.mean(same)
        if dtype != 'fp32':
            found.setdefault('precision', {})[dtype] = str(lowered.precision)
        write_json(args.out, result)


# The report


def table(entry):
    """A row a candidate: seconds with their range, times as fast as the best stock, memory, agreement with stock."""
    runs, order = {}, []
    for run in entry['runs']:
        order += [run['candidate']] if run['candidate'] not in runs else []
        runs.setdefault(run['candidate'], []).append(run)
    seconds = {name: [s for run in found for s in run['seconds']] for name, found in runs.items()}
    added = {name: max(run['peak'] - run['before'] for run in found) for name, found in runs.items()}
    stock = min((name for name in order if name in STOCK), key=lambda name: statistics.median(seconds[name]))
    rows = []
    for name in order:
        found = seconds[name]
        same = entry['agreement'].get(name)
        rows.append([
            name, f'{statistics.median(found):.2f}', f'{min(found):.2f}–{max(found):.2f}', len(found), len(runs[name]),
            f'{statistics.median(seconds[stock]) / statistics.median(found):.2f}', f'{added[name] / 2**20:.0f}',
            f'{added[name] / added[stock]:.2f}', '–' if same is None else f'{100 * same:.3f}'])
    return markdown_table(['candidate', 's', 'range', 'calls', 'processes', f'× {stock}', 'memory, MiB', f'of {stock}',
                           'same classes as stock, %'], rows)


def report(result):
    where = result['environment']
    sections = [
        '# Inference on a CPU',
        f'{result["config"]} with random weights (they say nothing of accuracy, and their classes are nearer to each '
        'other than those of a trained model), one image a call, to class indices. Stock is the same network as '
        'MMSegmentation runs it. Memory is the peak of the process, less what it had before there was a model.',
        f'{where["cpu"]}, {where["threads"]} threads of {where["cpu_cores"]} cores, {where["cpu_capability"]}; torch '
        f'{where["versions"]["torch"]}, commit {result["commit"]}, {where["date"][:10]}. `{where["command"]}`']
    for name, entry in result['cells'].items():
        loads = [run['load'] for run in entry['runs']]
        sections += [f'## {name}', table(entry), f'Load average {min(loads)}–{max(loads)}.']
    if 'accuracy' in result:
        found = result['accuracy']
        rows = [[dtype, f'{miou:.2f}', f'{miou - found["mIoU"]["fp32"]:+.2f}',
                 f'{100 * found["same_classes_as_fp32"][dtype]:.2f}'] for dtype, miou in found['mIoU'].items()]
        sections += ['## Accuracy', f'`{found["config"]}`, {found["images"]} validation images, ranges from '
                     f'{found["calibration"]} training images.',
                     markdown_table(['precision', 'mIoU, %', 'less fp32', 'same classes as fp32, %'], rows)]
    return '\n\n'.join(sections) + '\n'


@exit_on_user_error
def main():
    args = parse_args()
    if args.child:
        cell, candidate, prediction = json.loads(args.child)
        print('RESULT ' + json.dumps(measure_here(load_config(args.config), cell, candidate, args.threads, prediction)))
        return
    result = dict(config=args.config, cells={})
    if Path(args.out).is_file():
        result = read_object(args.out, 'a result of studies.cpu_inference', 'another --out')
    if args.accuracy:
        measure_accuracy(args, result)
    else:
        torch.set_num_threads(args.threads)
        result.update(environment=environment('cpu'), commit=commit())
        measure_all(args, result)
    write_json(args.out, result)
    write_text(Path(args.out).with_suffix('.md'), report(result))
    print(report(result))


if __name__ == '__main__':
    main()
