"""Segment images: python tools/predict.py CONFIG CHECKPOINT IMAGE|FOLDER --out DIR

For each image DIR gets
  class_numbers/NAME.png  one channel, the image's size, a class index a pixel: 0 is the first class, or 1 for data
                          sets whose files keep 0 for unlabelled pixels (ADE20K), as tools/test.py --out writes them
  overlays/NAME.png       the image under its classes' colours, with a legend: colour, name, share of the image
and, once, classes.json: index, name and colour of every class. A folder is walked with its subfolders. An image that
has more than 2048×2048 pixels after the config's test pipeline is predicted by sliding windows, those of the config or
of 512×512 pixels, 341 apart: memory grows with its width, and not with its logits. Exit code: 0 every image was
segmented, 1 some could not be read (they are listed, the others are written), 2 nothing could be done.
"""
import argparse
import sys

from ..engine.inference import Segmentor, create_folders, find_images, open_device, predict_files
from ..engine.launch import load_config
from ..engine.options import OptionsAction
from ..errors import exit_on_user_error


def opacity(text):
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f'{text} is not between 0 (the image alone) and 1 (the colours alone)')
    return value


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file path')
    parser.add_argument('checkpoint', help='checkpoint file, or its URL')
    parser.add_argument('source', metavar='IMAGE|FOLDER', help='an image, or a folder of images and folders')
    parser.add_argument('--out', required=True, metavar='DIR', help='folder to write to')
    parser.add_argument('--opacity', type=opacity, default=0.5, help="of the overlays' colours (default: %(default)s)")
    parser.add_argument('--device', help='such as cpu or cuda:1 (default: cuda where there is one, or else cpu)')
    parser.add_argument(
        '--cfg-options', nargs='+', action=OptionsAction, metavar='KEY=VALUE',
        help='override settings of the config, such as model.test_cfg.mode=whole')
    return parser.parse_args(argv)


@exit_on_user_error
def main(argv=None):
    args = parse_args(argv)
    cfg = load_config(args.config, args.cfg_options)
    images = find_images(args.source, args.out)
    device = open_device(args.device)
    create_folders(args.out)
    segmentor = Segmentor(cfg, args.checkpoint, device)
    failures = predict_files(segmentor, images, args.out, args.opacity)
    print(f'{len(images) - len(failures)} of {len(images)} images segmented on {device}: {args.out}/class_numbers, '
          f'{args.out}/overlays, {args.out}/classes.json')
    for path, reason in failures.items():
        print(f'not segmented: {path} {reason}', file=sys.stderr)
    return 1 if failures else 0
