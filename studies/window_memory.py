"""Peak memory of sliding windows: python -m studies.window_memory --out docs/results/MACHINE/window_memory.json

A UperNet of InceptionNeXt-T with random weights, 512×512 windows that are 341 apart, as the ADE20K configs test: stock,
which is the same weights in MMSegmentation's own segmentor, accelerated, and the deploy form in float32 and bfloat16.
Each is a process of its own; other programs do no harm, since nothing is timed.
"""
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import psutil
import torch
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from tqdm import tqdm

from inceptionnext_seg import accelerate, fuse_for_inference
from inceptionnext_seg.engine.allocator import keep_freed_memory
from inceptionnext_seg.engine.launch import load_config
from inceptionnext_seg.errors import UserError, exit_on_user_error
from inceptionnext_seg.files import markdown_table
from inceptionnext_seg.provenance import environment

from . import one_result
from .throughput.memory import highest_memory

CONFIG, THREADS = 'configs/upernet_inceptionnext_t_ade20k.py', 2
TEST_CFG = dict(mode='slide', crop_size=(512, 512), stride=(341, 341))
# Height and width, and how many images are predicted: the second finds the heap as the first has left it.
IMAGES = {(512, 683): 2, (1024, 2048): 1}
CANDIDATES = {'stock': "MMSegmentation's segmentor", 'accelerated': 'accelerated', 'fp32': 'deploy form, fp32',
              'bf16': 'deploy form, bf16'}
GOAL = 0.5


def build(candidate):
    """The network of a candidate, with weights from a fixed seed."""
    init_default_scope('mmseg')
    cfg = load_config(CONFIG)
    cfg.model.backbone.init_cfg = None
    torch.manual_seed(0)
    model = MODELS.build(cfg.model).eval()
    model.test_cfg = ConfigDict(TEST_CFG)
    if candidate == 'stock':
        return model
    accelerate(model)
    return model if candidate == 'accelerated' else fuse_for_inference(model, inplace=True, dtype=candidate)


def measure_here(candidate, height, width, predictions):
    """In a process that has done nothing else: its peak while it predicts, and what it had before there was a model.

    Returns:
        dict: ``peak`` and ``before``, in bytes. The class indices are written to the file ``predictions``.
    """
    torch.set_num_threads(THREADS)
    before = psutil.Process().memory_info().rss
    model = build(candidate)
    Path('/proc/self/clear_refs').write_text('5')   # what the process has now is its peak from here on
    keep_freed_memory()
    image = torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(2))
    shapes = dict.fromkeys(('img_shape', 'ori_shape', 'pad_shape'), (height, width))
    for _ in range(IMAGES[height, width]):
        with torch.inference_mode():
            sample, = model.predict(image, [SegDataSample(metainfo=dict(shapes, padding_size=[0] * 4))])
    np.save(predictions, sample.pred_sem_seg.data.numpy().astype(np.uint8))
    return dict(peak=highest_memory('cpu'), before=before)


def measure():
    if sys.platform != 'linux':
        raise UserError(f'studies.window_memory runs on {sys.platform}; expected Linux, which counts peaks anew from a '
                        'moment on. Next: run it there.')
    torch.set_num_threads(THREADS)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path, todo = Path(folder) / 'classes.npy', [(size, name) for size in IMAGES for name in CANDIDATES]
        for size, candidate in tqdm(todo, unit='process'):
            arguments = json.dumps([candidate, *size, str(path)])
            run = subprocess.run([sys.executable, '-m', 'studies.window_memory', '--child', arguments],
                                 capture_output=True, text=True, cwd=Path(__file__).parents[1])
            if run.returncode:
                raise UserError(f'{candidate}, {size[0]}×{size[1]} failed: '
                                f'{(run.stderr.strip().splitlines() or ["no message"])[-1]}')
            classes = np.load(path)
            if candidate == 'stock':
                stock = classes
            rows.append(dict(height=size[0], width=size[1], images=IMAGES[size], candidate=candidate,
                             same=float((classes == stock).mean()), **json.loads(run.stdout.splitlines()[-1])))
    return dict(environment=environment('cpu'), config=CONFIG, rows=rows)


def added(row):
    """Bytes of the model and of what it does, without the libraries."""
    return row['peak'] - row['before']


def ratio(rows, row):
    """Of the memory of stock on the same image."""
    stock = next(r for r in rows if r['candidate'] == 'stock' and r['width'] == row['width'])
    return added(row) / added(stock)


def table(result):
    """A row a candidate and image: memory, its share of stock's, and class indices."""
    rows = result['rows']
    return markdown_table(
        ['image', 'segmentor', 'peak memory, MiB', 'without libraries', 'of stock', "stock's class indices, %"],
        [[f'{row["height"]}×{row["width"]}', CANDIDATES[row['candidate']], f'{row["peak"] / 2**20:.0f}',
          f'{added(row) / 2**20:.0f}', f'{ratio(rows, row):.2f}', f'{100 * row["same"]:.3f}'] for row in rows])


def words(result):
    """Whether the goal is reached, in a sentence."""
    rows = [row for row in result['rows'] if row['candidate'] != 'stock']
    missed = [f'{CANDIDATES[row["candidate"]]} at {row["height"]}×{row["width"]}' for row in rows
              if ratio(result['rows'], row) > GOAL]
    return (f'Goal: at most {GOAL} of stock, without libraries. ' + (
        f'Missed by {", ".join(missed)}.' if missed else 'Reached by all.'))


def report(result):
    e = result['environment']
    return '\n\n'.join([
        '# Memory of sliding windows',
        f'`{e["command"]}`, commit {e["commit"]}, {e["date"][:10]}, {e["device_name"]}, {e["threads"]} threads, torch '
        f'{e["versions"]["torch"]}. `{result["config"]}` with random weights, whose classes lie nearer to each other '
        "than a trained model's: of bfloat16 more change.", table(result), words(result),
        'Peak memory is that of a process which builds the network and predicts an image (the smaller one twice), '
        'counted from when it is built; "without libraries" is less what the process had before there was a '
        'network.']) + '\n'


@exit_on_user_error
def main():
    if sys.argv[1:2] == ['--child']:
        print(json.dumps(measure_here(*json.loads(sys.argv[2]))))
    else:
        one_result.run(__doc__, 'docs/results/window_memory.json', measure, report)


if __name__ == '__main__':
    main()
