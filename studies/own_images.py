"""CamVid as people have their data, for docs/own_images.md: python -m studies.own_images data/camvid OUT

OUT gets `rgb` (photographs and masks of colours, `NAME_mask.png`, in one folder), `labelme` (twelve photographs with
Labelme polygons, and twelve without) and `index` (masks of class indices in a folder of their own).

    python -m studies.own_images data/camvid OUT --walk docs/results/own_images.txt

runs the page's commands on them, one after another in OUT, and writes how long each took.
"""
import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from mmengine.config import Config
from PIL import Image

from inceptionnext_seg.data.exporting import labelme_of
from inceptionnext_seg.errors import UserError, exit_on_user_error
from inceptionnext_seg.files import write_text
from inceptionnext_seg.provenance import environment
from inceptionnext_seg.zoo import config_folder

VOID, LABELLED = 255, 12


def metainfo():
    return Config.fromfile(config_folder() / '_base_/camvid.py').metainfo


def make(source, out):
    """Write the three folders.

    Args:
        source (Path): With images/{training,validation} and annotations alike.
        out (Path): Must not exist.
    """
    known = metainfo()
    palette = np.zeros((256, 3), np.uint8)
    palette[:len(known.classes)] = known.palette
    images = sorted(source.glob('images/*/*.jpg'))
    for folder in ('rgb', 'labelme', 'index/photos', 'index/masks'):
        (out / folder).mkdir(parents=True)
    for i, image in enumerate(images):
        classes = np.asarray(Image.open(source / 'annotations' / image.parent.name / f'{image.stem}.png'))
        shutil.copy(image, out / 'rgb' / f'{image.stem}.JPG')
        Image.fromarray(palette[classes]).save(out / 'rgb' / f'{image.stem}_mask.png')
        shutil.copy(image, out / 'index/photos' / image.name)
        Image.fromarray(classes).save(out / 'index/masks' / f'{image.stem}.png')
        step = len(images) // (2 * LABELLED)
        if i % step == 0 and i // step < 2 * LABELLED:
            shutil.copy(image, out / 'labelme' / image.name)
            if i // step % 2 == 0:
                names = (*known.classes, '__ignore__')
                content = labelme_of(np.where(classes == VOID, len(known.classes), classes), names, image.name)
                (out / 'labelme' / f'{image.stem}.json').write_text(json.dumps(content))


def steps(classes):
    """What is done with the three folders: in words, the arguments of ``inceptionnext-seg``, and the exit code."""
    group = ['--group', '^[^_]+']
    train = ['train', 'upernet_inceptionnext_a_own', '--data', 'mine_labelme', '--minutes', '2']
    return [
        ('colours, first run', ['import', 'rgb', '--out', 'mine_rgb'], 3),      # the colours are to be named
        ('colours, with the palette', ['import', 'rgb', '--out', 'mine_rgb', '--palette', 'mine_rgb.palette.txt',
                                       *group], 0),
        ('Labelme', ['import', 'labelme', '--out', 'mine_labelme', '--unlabelled', 'ignore'], 0),
        ('indices', ['import', 'index', '--out', 'mine_index', '--classes', ','.join(classes), '--group',
                     '^photos/[^_]+'], 0),
        ('check', ['check', 'mine_rgb'], 0),
        ('training on ten of the images with Labelme files, two minutes', train, 0),
        ('predicting the twelve others', ['predict', '{config}', '{checkpoint}', 'mine_labelme/images/unlabelled',
                                          '--out', 'predicted', '--confidence'], 0)]


def name_colours(path):
    """Put CamVid's names into the palette that an import wrote, as its user would by hand."""
    known = metainfo()
    names = {tuple(colour): name for name, colour in zip(known.classes, known.palette, strict=True)}
    lines = []
    for line in path.read_text().splitlines():
        colour = line.split()[:3]
        if len(colour) == 3 and all(map(str.isdecimal, colour)):
            line = f'{" ".join(colour)} {names.get(tuple(map(int, colour)), "ignore")}'
        lines.append(line)
    write_text(path, '\n'.join(lines) + '\n')


def walk(folder, out):
    """Run every step in ``folder`` and write a line of each: seconds, a tab, what it was.

    Raises:
        UserError: A step ends with another exit code than it should.
    """
    lines = []
    for what, arguments, code in steps(metainfo().classes):
        work_dir = folder / 'work_dirs/upernet_inceptionnext_a_own_mine_labelme'
        found = dict(config=work_dir / 'upernet_inceptionnext_a_own.py',
                     checkpoint=next(iter(sorted(work_dir.glob('best_mIoU_iter_*.pth'))), None))
        command = [sys.executable, '-m', 'inceptionnext_seg', *(argument.format(**found) if '{c' in argument else
                                                                argument for argument in arguments)]
        print(shlex.join(['inceptionnext-seg', *command[3:]]), flush=True)
        begin = time.monotonic()
        ended = subprocess.run(command, cwd=folder).returncode
        seconds = time.monotonic() - begin
        if ended != code:
            raise UserError(f'{shlex.join(command[2:])} ended with exit code {ended}; expected: {code}. Next: see '
                            'above.')
        lines.append(f'{seconds:.1f}\t{what}')
        if code:
            name_colours(folder / 'mine_rgb.palette.txt')
    here = environment('cpu')
    lines.append(f'{here["date"][:10]}, {here["device_name"]}, {here["cpu_cores"]} cores, commit {here["commit"]}; '
                 f'load average at the end {os.getloadavg()[0]:.1f}. Of each the start of Python, torch and '
                 'MMSegmentation is a part.')
    write_text(out, '\n'.join(lines) + '\n')


@exit_on_user_error
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('source', type=Path)
    parser.add_argument('out', type=Path)
    parser.add_argument('--walk', type=Path, metavar='FILE.txt', help='run the commands of docs/own_images.md too')
    args = parser.parse_args()
    make(args.source, args.out)
    if args.walk:
        walk(args.out.resolve(), args.walk.absolute())


if __name__ == '__main__':
    main()
