"""CamVid as people have their data, for docs/own_images.md: python -m studies.own_images data/camvid OUT

OUT gets `rgb` (photographs and masks of colours, `NAME_mask.png`, in one folder), `labelme` (twelve photographs with
Labelme polygons, and twelve without) and `index` (masks of class indices in a folder of their own).
"""
import argparse
import json
import shutil
from pathlib import Path

import numpy as np
from mmengine.config import Config
from PIL import Image

from inceptionnext_seg.data.exporting import labelme_of
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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('source', type=Path)
    parser.add_argument('out', type=Path)
    args = parser.parse_args()
    make(args.source, args.out)


if __name__ == '__main__':
    main()
