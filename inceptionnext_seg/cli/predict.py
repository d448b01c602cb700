"""Segment images: inceptionnext-seg predict CONFIG CHECKPOINT IMAGE|FOLDER --out DIR

For each image DIR gets
  class_numbers/NAME.png  one channel, the image's size, a class index a pixel: 0 is the first class, or 1 for data
                          sets whose files keep 0 for unlabelled pixels (ADE20K), as `test --out` writes them
  overlays/NAME.png       the image under its classes' colours, with a legend: colour, name, share of the image
and, once, classes.json: index, name and colour of every class. --format chooses others: npz (classes, confidence and
entropy), coco (run lengths, and coco.json of all images) and labelme (a folder that Labelme opens), to be corrected and
to come back through `inceptionnext-seg import`. --confidence adds confidence/ and entropy/, as grey pictures.
A folder is walked with its subfolders; links to folders are named and not followed, hidden files are no images, and
what `predict` wrote into a folder of it before is left out, with one line. An image that has more than
2048×2048 pixels after the config's test pipeline is predicted by sliding windows, those of the config or of 512×512
pixels, 341 apart: memory grows with its width, and not with its logits. --video IN --out OUT.mp4 writes overlays of the
frames of a video.
Into a folder of predictions, new ones are written over the old, but Labelme files that somebody has edited are kept.
Exit code: 0 every image was segmented, 1 some were not, or had such files (they are listed, the others are written), 2
nothing could be done.
"""
import argparse
import atexit
import os
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from mmengine.dist import all_gather_object, barrier, get_rank, get_world_size
from tqdm import tqdm

from ..api.predictor import Predictor
from ..api.video import frames, rate_and_count, writer
from ..engine.accelerate_hook import configured
from ..engine.allocator import keep_freed_memory
from ..engine.image_files import find_images
from ..engine.inference import Segmentor, dataset_config, open_device
from ..engine.joining import join
from ..engine.launch import add_config_arguments, check_launcher, leave_process_group, load_config
from ..engine.prediction_files import FORMATS, Predicted, PredictionFiles, predict_files
from ..errors import UserError, exit_on_user_error, quantity, shown

KEPT_SHOWN = 10


def opacity(text):
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f'{text} is not between 0 (the image alone) and 1 (the colours alone)')
    return value


def size(text):
    value = float(text)
    if not 0 <= value < float('inf'):
        raise argparse.ArgumentTypeError(f'{text} is not 0 or more pixels')
    return value


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_config_arguments(parser)
    parser.add_argument('source', nargs='?', metavar='IMAGE|FOLDER', help='an image, or a folder of images and folders')
    parser.add_argument('--video', metavar='IN', help='a video instead of images; --out is then a video, too')
    parser.add_argument('--out', required=True, metavar='DIR', help='folder to write to')
    parser.add_argument('--format', nargs='+', choices=FORMATS, help='default: png')
    parser.add_argument('--confidence', action='store_true', help='also write the largest softmax probability and the '
                        'entropy of each pixel')
    parser.add_argument(
        '--resume',
        action='store_true',
        help='leave out images that have all their files already, of the image as it is and of the same checkpoint and '
        'settings',
    )
    parser.add_argument('--opacity', type=opacity, help="of the overlays' colours (default: 0.5)")
    parser.add_argument(
        '--least-area',
        type=size,
        metavar='PIXELS',
        help='labelme: regions smaller than this go to what is around them',
    )
    parser.add_argument('--simplify', type=size, metavar='PIXELS', help='labelme: how far a straightened outline may '
                        'be from the exact one (default: 0)')
    parser.add_argument('--device', help='such as cpu or cuda:1 (default: cuda where there is one, or else cpu)')
    parser.add_argument('--launcher', choices=['none', 'pytorch'], default='none', help='pytorch: the processes that '
                        'torchrun starts share the images')
    args = parser.parse_args(argv)
    if (args.source is None) == (args.video is None):
        parser.error('give either an image or a folder, or --video')
    refuse_unused(parser, args)
    defaults = dict(format=['png'], opacity=0.5, least_area=0, simplify=0)
    for name, value in defaults.items():
        setattr(args, name, value if getattr(args, name) is None else getattr(args, name))
    return args


def refuse_unused(parser, args):
    """Options that would do nothing beside the others end the program."""
    formats = args.format or ['png']
    given = {f'--{name.replace("_", "-")}' for name, value in vars(args).items()
             if not (value is None or value is False or value == 'none')}
    of_files = ('--format', '--confidence', '--resume', '--least-area', '--simplify', '--launcher')
    for options, used, why in (
        (of_files, not args.video, 'has no meaning with --video, whose frames become the frames of a video'),
        (('--least-area', '--simplify'), 'labelme' in formats, 'is for the outlines of --format labelme'),
        (('--opacity', ), args.video or 'png' in formats, 'is for the overlays of --format png and of --video'),
    ):
        unused = [option for option in options if option in given and not used]
        if unused:
            parser.error(f'{unused[0]} {why}')


def predictions(segmentor, device, with_confidence):
    """A function from path to :class:`..engine.prediction_files.Predicted`."""
    if not with_confidence:
        def predict(path):
            image = segmentor.load(path)
            return Predicted(image, segmentor.classes_of(image, True))
        return predict
    predictor = Predictor(segmentor, device)

    def predict_certainty(path):
        found = predictor.predict(path)
        return Predicted(found.image[..., ::-1], found.classes, found.confidence, found.entropy)

    return predict_certainty


def join_processes(launcher, device):
    """Join what torchrun started; the device of this process."""
    check_launcher(launcher)
    if launcher == 'none':
        return device
    if torch.cuda.is_available() and device is None:
        device = f'cuda:{int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count()}'
    join('gloo')
    atexit.register(leave_process_group)
    return device


def predict_video(segmentor, args, device):
    """Overlays of a video's frames, without a legend: each frame has the size of the video's."""
    predictor = Predictor(segmentor, device)
    rate, count = rate_and_count(args.video)
    palette = predictor.labels.palette.astype(np.float32)
    done = 0
    with writer(args.out, rate) as append:
        for found in tqdm(predictor.predict(frames(args.video)), total=count, desc='predicting', unit='frame'):
            append(((1 - args.opacity) * found.image + args.opacity * palette[found.classes]).round().astype(np.uint8))
            done += 1
    print(f'{done} frames segmented on {device}: {shown(args.out)}')
    return 0


@exit_on_user_error
def main(argv=None):
    args = parse_args(argv)
    cfg = load_config(args.config, args.cfg_options)
    if not torch.cuda.is_available():
        keep_freed_memory()
    if args.video:
        if Path(args.out).suffix.lower() not in ('.mp4', '.mkv', '.mov'):
            raise UserError(f'--out is {args.out}; expected with --video: a file that ends in .mp4, .mkv or .mov')
        if all(Path(path).exists() for path in (args.out, args.video)) and Path(args.out).samefile(args.video):
            raise UserError(f'--out is {args.out}, which is the video that is read. Next: give another --out.')
        rate_and_count(args.video)
        device = open_device(args.device)
        return predict_video(Segmentor(cfg, args.checkpoint, device), args, device)
    images = find_images(args.source, args.out)
    device = open_device(join_processes(args.launcher, args.device))
    for line in images.notes if get_rank() == 0 else ():
        print(line)
    # The folders before the model, which takes long to load for nothing.
    PredictionFiles(args.out, None, args.format, args.confidence).create_folders()
    segmentor = Segmentor(cfg, args.checkpoint, device)
    files = PredictionFiles(args.out, segmentor.labels, args.format, args.confidence, args.opacity, args.least_area,
                            args.simplify, args.source, all_gather_object(settings_of(args, cfg))[0])
    problem = [None]
    if get_rank() == 0:
        try:
            files.record(args.resume)
        except UserError as error:
            problem = [error]
    problem = next((error for part in all_gather_object(problem) for error in part if error), None)
    if problem:
        raise problem
    share = dict(islice(images.outputs.items(), get_rank(), None, get_world_size()))
    outcome = predict_files(predictions(segmentor, device, files.needs_confidence), share, files, args.resume,
                            get_rank() == 0, configured(cfg)[1])
    outcomes = all_gather_object(outcome)
    failures = {path: reason for part in outcomes for path, reason in part.failures.items()}
    failures |= {path: f'cannot be read: {reason}' for path, reason in images.left_out.items()}
    kept = sorted(path for part in outcomes for path in part.kept)
    if get_rank() == 0:
        files.finish(images.outputs)
        count = len(images.outputs) + len(images.left_out)
        segmented = count - len(failures) - len(kept) * files.writes_labelme_alone
        where = ', '.join(f'{shown(args.out)}/{kind}' for kind in files.paths(Path('x'), Path('x')) if kind != 'image')
        print(f'{segmented} of {count} images segmented on {device}: {where}, '
              f'{shown(args.out)}/classes.json')
        for path, reason in sorted(failures.items()):
            print(f'not segmented: {path} {reason}', file=sys.stderr)
        if kept:
            first = ', '.join(map(str, kept[:KEPT_SHOWN])) + ', …' * (len(kept) > KEPT_SHOWN)
            print(f'kept: {quantity(len(kept), "Labelme file")}, corrected since predict wrote into the folder: '
                  f'{first}. Next: to have predictions of these images, too, give another --out.', file=sys.stderr)
    barrier()
    return 1 if failures or kept else 0


def settings_of(args, cfg):
    """What decides a prediction, beside how it is written: the config's model and test pipeline, and the checkpoint."""
    checkpoint = Path(args.checkpoint)
    state = [checkpoint.stat().st_size, checkpoint.stat().st_mtime_ns] if checkpoint.is_file() else []
    return dict(checkpoint=[str(args.checkpoint), *state], model=str(cfg.model.to_dict()),
                pipeline=str([dict(step) for step in dataset_config(cfg).pipeline]))
