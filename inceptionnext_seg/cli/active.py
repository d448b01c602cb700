"""Which images to label next: active CONFIG CHECKPOINT FOLDER --out RANKING.csv

Ranks images by what the model does not know: the mean entropy of its softmax over the pixels, as a share of the most it
can be, the highest first. An image that looks almost like one ranked above it, the next frame of a sequence, goes to
the end: labelling both teaches little more than one. RANKING.csv has image, entropy, the share of pixels with a
confidence below one half, and the image that it looks like. Hidden files, and what `predict` wrote below FOLDER, are
no images to rank.
Exit code: 0 every image was ranked, 1 some could not be read (they are listed, with
links to folders, which are not followed), 2 nothing could be done.
"""
import argparse
import csv
import io
import math
import sys
from pathlib import Path

import torch
from PIL import Image
from tqdm import tqdm

from ..api.predictor import Predictor
from ..data.importing.pictures import fingerprint
from ..data.importing.surveying import look_alike
from ..engine.image_files import find_images
from ..engine.inference import Segmentor, open_device
from ..engine.launch import add_config_arguments, check_writable, load_config
from ..engine.prediction_files import TOO_LARGE
from ..errors import UserError, exit_on_user_error, quantity, shown
from ..files import write_text

SHOWN = 10


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_config_arguments(parser)
    parser.add_argument('source', metavar='FOLDER', help='folder of images, such as images/unlabelled of an import')
    parser.add_argument('--out', required=True, metavar='RANKING.csv', help='file to write')
    parser.add_argument('--device', help='such as cpu or cuda:1 (default: cuda where there is one, or else cpu)')
    return parser.parse_args(argv)


def rank(predictor, images, progress=True):
    """``(rows, failures)``: rows of (path, entropy, share of unsure pixels, path of the image it looks like or
    None).
    """
    most, known, failures = math.log(max(2, len(predictor.labels.classes))), [], {}
    for path in tqdm(images, desc='ranking', unit='image', disable=not progress):
        try:
            found = predictor.predict(path)
        except (UserError, OSError, ValueError) as error:
            failures[path] = str(error).removeprefix(f'{path} ')
            continue
        except torch.OutOfMemoryError:
            failures[path] = TOO_LARGE
            continue
        known.append((path, float(found.entropy.mean()) / most, float((found.confidence < 0.5).mean()),
                      fingerprint(Image.fromarray(found.image))))
    known.sort(key=lambda row: (-row[1], str(row[0])))
    first, later, looks = [], [], {}
    for path, entropy, unsure, look in known:
        like = look_alike(looks, {path: look}).get(path)
        (later if like else first).append((path, entropy, unsure, like))
        if not like:
            looks[path] = look
    return first + later, failures


@exit_on_user_error
def main(argv=None):
    args = parse_args(argv)
    # Before all images are ranked for nothing.
    if Path(args.out).is_dir():
        raise UserError(f'--out is {args.out}, which is a folder; expected: a file, such as '
                        f'{Path(args.out) / "ranking.csv"}.')
    check_writable(Path(args.out).absolute().parent, 'the folder of --out,', 'give another --out')
    cfg = load_config(args.config, args.cfg_options)
    images = find_images(args.source)
    for line in images.notes:
        print(line)
    device = open_device(args.device)
    rows, failures = rank(Predictor(Segmentor(cfg, args.checkpoint, device), device), images.outputs)
    failures |= {path: f'cannot be read: {reason}' for path, reason in images.left_out.items()}
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(('image', 'entropy', 'unsure', 'looks_like'))
    table.writerows((shown(path), f'{entropy:.4f}', f'{unsure:.4f}', shown(like or ''))
                    for path, entropy, unsure, like in rows)
    try:
        write_text(args.out, text.getvalue())
    except OSError as error:
        raise UserError(f'cannot write {args.out}: {error}. Next: give another --out.') from error
    print(f'{quantity(len(rows), "image")} in {shown(args.out)}; to label next:')
    for path, entropy, unsure, _ in rows[:SHOWN]:
        print(f'  {shown(path)}  entropy {100 * entropy:.1f} % of the most, {100 * unsure:.1f} % of the pixels unsure')
    for path, reason in sorted(failures.items()):
        print(f'not ranked: {path} {reason}', file=sys.stderr)
    return 1 if failures else 0
