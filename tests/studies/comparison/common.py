"""Made-up runs for the tests of this folder."""
import json

import numpy as np

from studies.comparison.report import report

CLASSES = ('sky', 'road', 'car')


def counts_of(images, share, seed=0, labels=0):
    """Pixel counts of a made-up prediction that finds about ``share`` of each class's pixels and nothing else."""
    label = np.random.default_rng(labels).integers(50, 1000, (images, len(CLASSES)))
    intersect = np.random.default_rng(seed).binomial(label, share)
    return dict(intersect=intersect, union=label, prediction=intersect, label=label)


def write_run(folder, miou=None, seed=0, counts=None, classes=CLASSES, command='python tools/train.py configs/a.py',
              start='2026-01-01T00:00:00+00:00', **changes):
    """A work_dir as tools/train.py leaves it; its figures follow from ``counts`` where they are given."""
    log = folder / '20260101_000000'
    (log / 'vis_data').mkdir(parents=True)
    iou = [miou] * len(classes)
    if counts is not None:
        iou = (100 * counts['intersect'].sum(0) / counts['union'].sum(0)).tolist()
        miou = float(np.mean(iou))
        np.savez_compressed(log / 'per_image.npz', **counts, classes=np.array(classes),
                            image=np.array([f'{i}.png' for i in range(len(counts['label']))]))
    metrics = dict(
        config='configs/a.py', checkpoint='work_dirs/a/iter_300.pth', iteration=300, seed=seed, mIoU=miou, mAcc=60.0,
        aAcc=80.0, per_class={name: dict(IoU=value, Acc=60.0) for name, value in zip(classes, iou, strict=True)},
        train_throughput=dict(images_per_s=4.0 + seed, peak_memory_MiB=1000.0),
        val_throughput=dict(images_per_s=8.0, peak_memory_MiB=1000.0),
        history=[dict(iteration=150, mIoU=miou - 10), dict(iteration=300, mIoU=miou)], seconds=60.0, processes=1,
        environment=dict(command=command, versions=dict(torch='2.4'), device='cpu', device_name='A processor',
                         cpu_cores=2, threads=1, platform='Linux', date=start))
    metrics.update(changes)
    (log / 'metrics.json').write_text(json.dumps(metrics))
    lines = [dict(loss=4 / (1 + step / 100) + 0.1 * seed, step=step, iter=step) for step in range(20, 301, 20)]
    lines.append(dict(mIoU=miou, step=300))
    (log / 'vis_data/scalars.json').write_text('\n'.join(map(json.dumps, lines)) + '\n{"loss": 1.0, "st')
    return folder


def text_of(content):
    return '\n'.join(str(block) for block in report(content, 'x')[0])
