"""Write a trained segmentor for another runtime, and prove the file: inceptionnext-seg export CONFIG CHECKPOINT

The network goes out in deploy form, BatchNorms folded, and UperNet's head in fewer multiplications, in plain operators;
see docs/export.md. After writing, the file is run in its runtime (ONNX Runtime, OpenVINO, torch) on three
images, of a dynamic one in three sizes, and compared with the model in torch; where they differ, the exit code is 2 and
no file is left. The images are drawn scenes, or with --images a folder's.

  images  normalized RGB floats (B, 3, H, W); with --preprocess 8-bit RGB, upright, (B, H, W, 3)
  logits  floats (B, classes, H, W); with --postprocess instead of them
          classes     uint8 (B, H, W), or int32 for more than 256 classes
          confidence  floats (B, H, W), the largest softmax probability

--dtype int8 has the convolutions in 8 bits (pip install "inceptionnext-seg[export-int8]"), bf16 is for processors and
runtimes that multiply bfloat16. Their proof is the share of equal pixels, and with --labels mIoU beside torch's.

Sliding windows and resizing of the config's test pipeline are not in the file: it sees the image that it is given.
"""
import argparse
import re
import time
from pathlib import Path

import numpy as np
import torch

from ..api import create_model
from ..engine.inference import config_metainfo
from ..engine.launch import add_config_arguments, load_config
from ..engine.own_data import require_data
from ..errors import UserError, exit_on_user_error
from ..export import FORMS, Graph, proof
from ..export.fastest import usual_form, write_fastest
from ..export.files import (
    DTYPES,
    FORMATS,
    LARGEST,
    SMALLEST,
    Runtime,
    inference_precision,
    replacing,
    require_packages,
    write,
)
from ..zoo import PREFIX


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_config_arguments(parser)
    parser.add_argument('--format', choices=list(FORMATS), default='onnx', help='(default: %(default)s)')
    parser.add_argument('--size', default='dynamic', metavar='HxW | dynamic',
                        help='pixels of an image, such as 512x683; dynamic (default) leaves batch, height and width '
                             f'open, of {SMALLEST} to {LARGEST} pixels a side')
    parser.add_argument('--batch-size', type=int, default=1, help='images at a time, of a fixed size')
    parser.add_argument('--dtype', choices=DTYPES, default='fp32', help='(default: %(default)s)')
    parser.add_argument('--calibration', metavar='DIR',
                        help='for int8: images like those it will see, of which 32 show the ranges of activations')
    parser.add_argument('--preprocess', action='store_true', help='8-bit images in')
    parser.add_argument('--postprocess', action='store_true', help='class indices and confidences out')
    parser.add_argument('--form', choices=['auto', 'fastest', *FORMS], default='auto',
                        help='plain: as it was trained; factorized: without concatenating resized maps; winograd: and '
                             'half the multiplications at stride 4; auto: what was fastest in the format and '
                             'dtype on the processor of docs/results; fastest: each is written and timed here, in '
                             'turns, for a machine like this one')
    parser.add_argument('--out', type=Path, metavar='FILE', help='(default: CONFIG.onnx, .pt2 or .xml, here)')
    parser.add_argument('--images', metavar='DIR',
                        help='what the file is proved on: the first three below it (default: of --calibration, or '
                             'drawn scenes)')
    parser.add_argument('--labels', metavar='DIR',
                        help='class indices of the images in --images, PNG files of the same names: mIoU is proved too')
    return parser.parse_args()


def size_of(text):
    if text == 'dynamic':
        return None
    match = re.fullmatch(r'(\d+)x(\d+)', text)
    if not match or min(map(int, match.groups())) < 32:
        raise UserError(f'--size is {text!r}; expected: HEIGHTxWIDTH of at least 32 pixels each, such as 512x512, or '
                        'dynamic.')
    return tuple(map(int, match.groups()))


def forms_of(dtype):
    """What a graph can be in a dtype, the simplest first."""
    return [form for form in FORMS if not (form == 'winograd' and dtype == 'int8')]


NEXT = dict(
    fp32='--form plain; if it differs too, another version of the runtime.',
    bf16='--dtype fp32.',
    int8='--calibration with other images, more like those it will see; or --dtype fp32.')


def form_of(args):
    """The form of the graph, with settings that do not fit each other refused."""
    if (args.dtype == 'int8') != (args.calibration is not None):
        raise UserError(f'--dtype is {args.dtype} and --calibration {args.calibration or "is missing"}; expected: both '
                        'int8 and a folder of images that are like those the file will see, or neither.')
    if args.labels and not args.images:
        raise UserError(f'--labels is {args.labels} and --images is missing; expected: the images of these labels.')
    if args.labels and args.batch_size != 1:
        raise UserError(f'--labels is {args.labels} and --batch-size {args.batch_size}; expected: 1 image at a time.')
    if args.dtype == 'int8' and args.form == 'winograd':
        raise UserError('--form is winograd, whose transformed weights 8 bits are too few for; expected with --dtype '
                        'int8: plain, factorized or auto.')
    if args.form != 'auto':
        return args.form
    return usual_form(args.format, args.dtype)


# Steps of a test pipeline that leave the pixels of an image as they are.
LOADING = ('LoadImageFromFile', 'LoadAnnotations', 'PackSegInputs')


def before_the_file(cfg):
    """What the config does to an image before the network, and the file does not: sentences."""
    said = []
    for step in (cfg.get('test_dataloader') or {}).get('dataset', {}).get('pipeline') or ():
        settings = {name: value for name, value in step.items() if name != 'type'}
        if step.type == 'LoadImageFromFile' and step.get('color_type', 'color') == 'color':
            said.append("The config turns a photograph upright by its EXIF tag first. OpenCV's imread does, too; "
                        'Pillow needs ImageOps.exif_transpose.')
        if step.type in LOADING:
            continue
        if step.type == 'Resize' and step.get('scale'):
            width, height = (step.scale, step.scale) if isinstance(step.scale, int) else step.scale
            # As mmcv's rescale_size: an image on its side is as large as one that is upright.
            does = (f'makes an image smaller or larger, keeping its ratio, until its longer side has '
                    f'{max(width, height)} pixels or its shorter one {min(width, height)}, whichever comes first'
                    if step.get('keep_ratio') else f'resizes an image to {width}×{height} (width×height) first')
        else:
            does = f'takes an image through {step.type}({", ".join(f"{k}={v!r}" for k, v in settings.items())}) first'
        said.append(f'The config {does}; do the same before you give it to the file.')
    padding = (cfg.model.get('data_preprocessor') or {}).get('test_cfg') or {}
    if padding.get('size_divisor'):
        said.append('The config pads an image on its right and below to a multiple of '
                    f'{padding["size_divisor"]} pixels after normalizing it; the file does not.')
    elif padding.get('size'):
        said.append(f'The config pads an image on its right and below to {"×".join(map(str, padding["size"]))} '
                    '(height×width) after normalizing it; the file does not.')
    if (cfg.model.get('test_cfg') or {}).get('mode') == 'slide':
        said.append(f'The config predicts by windows of {"×".join(map(str, cfg.model.test_cfg.crop_size))}; the file '
                    'takes the image that it is given as one.')
    return said


def normalized(model, images):
    return np.ascontiguousarray(model.normalize(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy())


@exit_on_user_error
def main():
    args = parse_args()
    size = size_of(args.size)
    if args.batch_size < 1 or (size is None and args.batch_size != 1):
        raise UserError(f'--batch-size is {args.batch_size}; expected: at least 1, with a fixed --size: of a dynamic '
                        'one the batch is open.')
    suffix = FORMATS[args.format][0]
    out = args.out or Path(Path(args.config.removeprefix(PREFIX)).name.removesuffix('.py') + suffix)
    if out.suffix != suffix:
        raise UserError(f'--out is {out}; expected for --format {args.format}: a name that ends in {suffix}.')
    if out.is_dir():
        raise UserError(f'--out is {out}, which is a folder; expected: the path of a file.')
    form = form_of(args)
    require_packages(args.format, args.dtype)
    cfg = load_config(args.config, args.cfg_options)
    require_data(cfg, args.checkpoint)
    model = create_model(cfg, checkpoint=args.checkpoint, accelerate=False).eval()
    graphs = {name: Graph(model, name, args.preprocess, args.postprocess)
              for name in (forms_of(args.dtype) if form == 'fastest' else (form, ))}
    note = next((graph.note for graph in graphs.values() if graph.note), None)
    if note:
        print(f'Written as it was trained: {note}.')
        graphs = {'plain': graphs.get('plain') or next(iter(graphs.values()))}
    batches = proof.samples(args.images or args.calibration, size, args.batch_size)
    calibration = proof.calibration_images(args.calibration, size, args.batch_size) if args.calibration else []
    calibration = [images if args.preprocess else normalized(model, images) for images in calibration]
    start = time.perf_counter()
    with replacing(out) as temporary:
        def save(name, path):
            write(graphs[name], path, args.format, args.batch_size, size, args.dtype, calibration)

        if len(graphs) == 1:
            form, = graphs
            save(form, temporary)
        else:
            images = max(batches, key=lambda batch: batch.size)
            form, seconds = write_fastest(
                graphs, save, lambda path: Runtime(path, args.format, dtype=args.dtype), temporary,
                images if args.preprocess else normalized(model, images))
            print(f'Seconds a call of {" × ".join(map(str, images.shape[:3]))} pixels, {torch.get_num_threads()} '
                  f'threads: {", ".join(f"{name} {value:.3g}" for name, value in seconds.items())}; {form} is kept.')
        written = time.perf_counter()
        sizes = {batch.shape[1:3] for batch in batches}
        folder = args.images or args.calibration
        print(f'Exported in {written - start:.0f} s; running it on '
              f'{f"images of {folder}" if folder else "drawn scenes (--images DIR: on yours)"}, '
              f'{len(sizes)} size{"s" if len(sizes) > 1 else ""}.')
        runtime = Runtime(temporary, args.format, dtype=args.dtype)
        found = proof.compare(model, runtime, batches, args.preprocess, args.postprocess, args.dtype)
        print('\n'.join(map(str, found)))
        if args.labels:
            meta = config_metainfo(cfg)
            first = int(bool(meta.get('reduce_zero_label')))
            pairs = proof.labelled_images(args.images, args.labels, size, first, meta.get('label_map'))
            found.append(proof.accuracy(model, runtime, pairs, args.preprocess, args.postprocess))
            print(found[-1])
        if not all(comparison.passes for comparison in found):
            raise UserError(
                'the file does not compute what the model does, and was not kept. Expected: '
                f'{f"differences up to {proof.TOLERANCE}, " if args.dtype == "fp32" else ""}at least '
                f'{100 * proof.LEAST_EQUAL[args.dtype]:g} % equal classes and at most {proof.MOST_OFF} points of mIoU '
                f'more or less. Next: {NEXT[args.dtype]}')
        written_bytes = sum(file.stat().st_size for file in temporary.parent.iterdir())  # with what lies beside it
    print(f'Wrote {out} ({written_bytes / 2**20:.0f} MiB), {args.format}, {form}, {args.dtype}.')
    if args.format == 'openvino':
        print(f'Load it with INFERENCE_PRECISION_HINT={inference_precision(args.dtype)} to compute what was proved: '
              'without a hint OpenVINO takes bfloat16 where the processor multiplies it.')
    for said in before_the_file(cfg):
        print(said)
