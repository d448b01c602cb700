"""Peak memory of sliding windows: python -m studies.window_memory --out docs/results/MACHINE/window_memory.json

A UperNet of InceptionNeXt-T with random weights, 512×512 windows that are 341 apart, as the ADE20K configs test: stock,
which is the same weights in MMSegmentation's own segmentor, accelerated, and the deploy form in float32 and bfloat16;
stock and accelerated also in two scales with and without flip. And an image of 8000×8000 pixels, of InceptionNeXt-A
with 150 classes, whose head has 64 channels so that it takes minutes and not an hour. Each is a process of its own;
other programs do no harm, since nothing is timed. What the file has is not measured again.
"""
import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
import torch
import torch.nn.functional as F
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope
from mmseg.models.segmentors import SegTTAModel
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from PIL import Image
from tqdm import tqdm

from inceptionnext_seg import accelerate, fuse_for_inference, load
from inceptionnext_seg.cli import predict as predict_command
from inceptionnext_seg.data.mini.scenes import draw_scene
from inceptionnext_seg.engine.allocator import keep_freed_memory
from inceptionnext_seg.engine.inference import Segmentor
from inceptionnext_seg.engine.launch import load_config
from inceptionnext_seg.errors import UserError, exit_on_user_error
from inceptionnext_seg.files import markdown_table, write_json, write_text
from inceptionnext_seg.provenance import commit, environment

from .going_on import content_of
from .published.machine import folder_name
from .throughput.memory import highest_memory

CONFIG, THREADS = 'configs/upernet_inceptionnext_t_ade20k.py', 2
TEST_CFG = dict(mode='slide', crop_size=(512, 512), stride=(341, 341))
CANDIDATES = {'stock': "MMSegmentation's segmentor", 'accelerated': 'accelerated', 'fp32': 'deploy form, fp32',
              'bf16': 'deploy form, bf16'}
GOAL = 0.5
TTA_RATIOS = (1, 1.5)


class Picture(NamedTuple):
    """What is predicted: an image's height and width, and whether with test-time augmentation."""
    height: int
    width: int
    tta: bool = False

    def __str__(self):
        return f'{self.height}×{self.width}' + ', TTA' * self.tta


# How many images are predicted: the second finds the heap as the first has left it.
PICTURES = {Picture(512, 683): 2, Picture(1024, 2048): 1, Picture(512, 683, True): 1}
# The deploy forms have no class of their own for test-time augmentation.
OF_TTA = ('stock', 'accelerated')

LARGE_CONFIG, LARGE_SIZE, LARGE_GOAL = 'configs/upernet_inceptionnext_a_ade20k.py', 8000, 4 * 2**30
# As it is, without the resizing of the config's test pipeline.
LARGE_OPTIONS = {'model.decode_head.channels': 64,
                 'test_dataloader.dataset.pipeline': [dict(type='LoadImageFromFile'), dict(type='PackSegInputs')]}
LARGE = {'command': '`tools/predict.py`, class indices and overlay', 'classes': 'its `Segmentor.classes_of`',
         'load': '`load(…).predict`, with confidence and entropy'}


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


def build_tta(candidate):
    """The same around which MMSegmentation's test-time augmentation is."""
    model = SegTTAModel(build('stock')).eval()
    if candidate != 'stock':
        accelerate(model)
    return model


def noise(height, width):
    return torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(2))


def versions(height, width):
    """An image in two scales, each as it is and mirrored, as ``TestTimeAug`` and a data loader hand them over."""
    image = torch.randint(0, 256, (1, 3, height, width), generator=torch.Generator().manual_seed(2)).float()
    data = dict(inputs=[], data_samples=[])
    for ratio in TTA_RATIOS:
        size = int(height * ratio), int(width * ratio)
        scaled = F.interpolate(image, size, mode='bilinear')
        for flip in (False, True):
            data['inputs'].append([(scaled.flip(3) if flip else scaled)[0]])
            data['data_samples'].append([SegDataSample(metainfo=dict(
                img_shape=size, ori_shape=(height, width), flip=flip, img_path='image.jpg',
                flip_direction='horizontal' if flip else None))])
    return data


def predict(model, image):
    """Class indices (H, W) of a normalized image (1, 3, H, W) by windows."""
    shapes = dict.fromkeys(('img_shape', 'ori_shape', 'pad_shape'), tuple(image.shape[2:]))
    with torch.inference_mode():
        sample, = model.predict(image, [SegDataSample(metainfo=dict(shapes, padding_size=[0] * 4))])
    return sample.pred_sem_seg.data[0]


def predict_tta(model, data):
    """Class indices (H, W) from :func:`versions`, which serve once."""
    with torch.inference_mode():
        sample, = model.test_step(data)
    return sample.pred_sem_seg.data[0]


def begin():
    """Bytes of this process, from whose present memory on its peak counts."""
    torch.set_num_threads(THREADS)
    before = psutil.Process().memory_info().rss
    Path('/proc/self/clear_refs').write_text('5')
    return before


def measure_here(candidate, picture, predictions):
    """In a process that has done nothing else: its peak while it predicts, and what it had before there was a model.

    Returns:
        dict: ``peak`` and ``before``, in bytes. The class indices are written to the file ``predictions``.
    """
    before, picture = begin(), Picture(*picture)
    model = (build_tta if picture.tta else build)(candidate)
    begin()
    keep_freed_memory()
    for _ in range(PICTURES[picture]):
        classes = predict_tta(model, versions(*picture[:2])) if picture.tta else predict(model, noise(*picture[:2]))
    np.save(predictions, classes.numpy().astype(np.uint8))
    return dict(peak=highest_memory('cpu'), before=before)


def measure_large_here(how, checkpoint, picture):
    """The same of the file ``picture``, by one of ``LARGE``."""
    before = begin()
    if how == 'command':
        options = [f'{key}={json.dumps(value)}' for key, value in LARGE_OPTIONS.items()]
        failed = predict_command.main([LARGE_CONFIG, checkpoint, picture, '--out', str(Path(picture).parent / how),
                                       '--device', 'cpu', '--cfg-options', *options])
        if failed:
            raise UserError(f'{picture} was not segmented.')
    elif how == 'classes':
        segmentor = Segmentor(load_config(LARGE_CONFIG, LARGE_OPTIONS), checkpoint, torch.device('cpu'))
        segmentor.classes_of(segmentor.load(picture))
    else:
        load(load_config(LARGE_CONFIG, LARGE_OPTIONS), checkpoint, device='cpu').predict(picture)
    return dict(peak=highest_memory('cpu'), before=before)


def in_a_process(*arguments):
    """What this module prints for ``arguments`` in a process of its own."""
    run = subprocess.run([sys.executable, '-m', 'studies.window_memory', '--child', json.dumps(arguments)],
                         capture_output=True, text=True, cwd=Path(__file__).parents[1])
    if run.returncode:
        raise UserError(f'{arguments[0]}, {arguments[1]} failed: '
                        f'{(run.stderr.strip().splitlines() or ["no message"])[-1]}')
    return json.loads(run.stdout.splitlines()[-1])


def measure_picture(picture, folder, bar):
    """Rows of the candidates, stock first, with the share of its class indices."""
    rows, path, stock = [], Path(folder) / 'classes.npy', None
    for candidate in OF_TTA if picture.tta else CANDIDATES:
        found = in_a_process('windows', candidate, picture, str(path))
        classes = np.load(path)
        stock = classes if candidate == 'stock' else stock
        rows.append(dict(height=picture.height, width=picture.width, tta=picture.tta, images=PICTURES[picture],
                         candidate=candidate, same=float((classes == stock).mean()), commit=commit(), **found))
        bar.update()
    return rows


def write_large(folder):
    """A checkpoint of random weights and an image, as files in a folder: their paths."""
    init_default_scope('mmseg')
    cfg = load_config(LARGE_CONFIG, LARGE_OPTIONS)
    torch.manual_seed(0)
    checkpoint, picture = Path(folder) / 'weights.pth', Path(folder) / 'image.jpg'
    torch.save(dict(state_dict=MODELS.build(cfg.model).state_dict()), checkpoint)
    side = 500
    scene = draw_scene(0, (side, side))[0]
    Image.fromarray(np.tile(scene, (LARGE_SIZE // side, LARGE_SIZE // side, 1))).save(picture)
    return str(checkpoint), str(picture)


def measure(out, pictures, hows):
    """What of ``pictures`` and of ``hows``, of :data:`LARGE`, the file does not have; it is written after each.

    Raises:
        UserError: This is no Linux, a process failed, or the file is of another machine or other versions.
    """
    if sys.platform != 'linux':
        raise UserError(f'studies.window_memory runs on {sys.platform}; expected Linux, which counts peaks anew from a '
                        'moment on. Next: run it there.')
    torch.set_num_threads(THREADS)
    now = environment('cpu')
    result = content_of(out, 'a result of studies.window_memory', now, dict(environment=now, config=CONFIG, rows=[]))
    done = {picture_of(row) for row in result['rows']}
    pictures = [picture for picture in pictures if picture not in done]
    hows = [how for how in hows if how not in {row['how'] for row in result.get('large', ())}]
    processes = sum(len(OF_TTA if picture.tta else CANDIDATES) for picture in pictures) + len(hows)
    with tempfile.TemporaryDirectory() as folder, tqdm(total=processes, unit='process') as bar:
        for picture in pictures:
            result['rows'] += measure_picture(picture, folder, bar)
            write_json(out, result)
        files = write_large(folder) if hows else ()
        for how in hows:
            result.setdefault('large', []).append(dict(
                how=how, config=LARGE_CONFIG, channels=LARGE_OPTIONS['model.decode_head.channels'], size=LARGE_SIZE,
                commit=commit(), **in_a_process('large', how, *files)))
            write_json(out, result)
            bar.update()
    return result


def picture_of(row):
    return Picture(row['height'], row['width'], row.get('tta', False))


def added(row):
    """Bytes of the model and of what it does, without the libraries."""
    return row['peak'] - row['before']


def ratio(rows, row):
    """Of the memory of stock on the same image."""
    stock = next(r for r in rows if r['candidate'] == 'stock' and picture_of(r) == picture_of(row))
    return added(row) / added(stock)


def table(result):
    """A row a candidate and image: memory, its share of stock's, and class indices."""
    rows = result['rows']
    return markdown_table(
        ['image', 'segmentor', 'peak memory, MiB', 'without libraries', 'of stock', "stock's class indices, %"],
        [[str(picture_of(row)), CANDIDATES[row['candidate']], f'{row["peak"] / 2**20:.0f}',
          f'{added(row) / 2**20:.0f}', f'{ratio(rows, row):.2f}', f'{100 * row["same"]:.3f}'] for row in rows])


def words(result):
    """Whether the goal is reached, in a sentence, and what was not measured."""
    rows = [row for row in result['rows'] if row['candidate'] != 'stock']
    missed = [f'{CANDIDATES[row["candidate"]]} at {picture_of(row)}' for row in rows
              if ratio(result['rows'], row) > GOAL]
    tta = any(row.get('tta') for row in rows)
    return (f'Goal: at most {GOAL} of stock, without libraries. ' + (
        f'Missed by {", ".join(missed)}.' if missed else 'Reached by all.') + (
        f' TTA: scales of {" and ".join(map(str, TTA_RATIOS))}, with and without flip.' if tta else
        ' With test-time augmentation nothing was measured.'))


def large_table(result):
    """A row a way to predict an image of 8000×8000 pixels, and whether the goal is reached."""
    if not result.get('large'):
        return f'An image of {LARGE_SIZE}×{LARGE_SIZE} pixels was not measured.'
    rows = [[f'{row["size"]}×{row["size"]}', LARGE[row['how']], f'{row["peak"] / 2**20:.0f}',
             f'{added(row) / 2**20:.0f}', 'reached' if row['peak'] <= LARGE_GOAL else 'missed']
            for row in result['large']]
    return markdown_table(['image', 'how', 'peak memory, MiB', 'without libraries',
                           f'goal {LARGE_GOAL / 2**30:.0f} GiB, with libraries'], rows)


def commits(result):
    return ', '.join(dict.fromkeys(row.get('commit', result['environment']['commit'])
                                   for row in (*result['rows'], *result.get('large', ()))))


def report(result):
    e = result['environment']
    return '\n\n'.join([
        '# Memory of sliding windows',
        f'`{e["command"]}`, commit {commits(result)}, {e["date"][:10]}, {e["device_name"]}, {e["threads"]} threads, '
        f'torch {e["versions"]["torch"]}. `{result["config"]}` with random weights, whose classes lie nearer to each '
        "other than a trained model's: of bfloat16 more change.", table(result), words(result),
        'Peak memory is that of a process which builds the network and predicts an image (the first one twice), '
        'counted from when it is built; "without libraries" is less what the process had before there was a '
        'network.', '## A large image', large_table(result), *(
            f'`{row["config"]}` with {row["channels"]} channels in its head, 150 classes, random weights, a JPEG file, '
            'no resizing; counted from before the network is built.' for row in result.get('large', ())[:1])]) + '\n'


@exit_on_user_error
def main():
    if sys.argv[1:2] == ['--child']:
        kind, *arguments = json.loads(sys.argv[2])
        print(json.dumps((measure_here if kind == 'windows' else measure_large_here)(*arguments)))
        return
    parser = argparse.ArgumentParser(prog='python -m studies.window_memory', description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', default=f'docs/results/{folder_name()}/window_memory.json', metavar='FILE.json',
                        help='result file, which is gone on with (default: %(default)s)')
    parser.add_argument('--only', nargs='+', choices=['windows', 'tta', *LARGE], metavar='WHAT',
                        help='of %(choices)s (default: all)')
    args = parser.parse_args()
    only = args.only or ['windows', 'tta', *LARGE]
    result = measure(args.out, [picture for picture in PICTURES if ('tta' if picture.tta else 'windows') in only],
                     [how for how in LARGE if how in only])
    text = report(result)
    write_text(Path(args.out).with_suffix('.md'), text)
    print(text)


if __name__ == '__main__':
    main()
