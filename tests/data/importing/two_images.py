"""Two images made by hand with a known class map, and the labels of each format for them."""
import json

import numpy as np
from PIL import Image

from inceptionnext_seg.data.description import read_description
from inceptionnext_seg.data.exporting import coco_of, labelme_of
from inceptionnext_seg.data.importing import Options, import_dataset

WIDTH, HEIGHT = 16, 12
NAMES = ('road', 'car', 'sky')
COLORS = ((128, 64, 128), (64, 0, 128), (70, 130, 180))


def truth(seed=0):
    """(12, 16): road, a car on it with a hole, sky above; another place of the car for each seed."""
    classes = np.zeros((HEIGHT, WIDTH), np.uint8)
    classes[:4] = 2
    classes[5:9, 2 + seed:8 + seed] = 1
    classes[6:8, 4 + seed:6 + seed] = 0
    return classes


def picture(path, seed=0, size=(WIDTH, HEIGHT), **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **how)
    return pixels


def convert(source, **options):
    options.setdefault('val', 0.5)
    return import_dataset(source, source.parent / 'out', Options(**options), progress=False)


def masks_of(source):
    """The masks written, by the name of their image."""
    return {path.stem: np.asarray(Image.open(path)) for path in (source.parent / 'out/annotations').rglob('*.png')}


def assert_is_truth(source, names=NAMES):
    about, found = read_description(source.parent / 'out'), masks_of(source)
    order = np.array([about.classes.index(name) for name in names], np.uint8)
    assert found.keys() == {'a', 'B 2'}
    for seed, name in enumerate(('a', 'B 2')):
        np.testing.assert_array_equal(found[name], order[truth(seed)])
    pixels = sum(np.array(split['pixels']) for split in about.splits.values())
    assert pixels.sum() == 2 * WIDTH * HEIGHT


def save_masks(source, make, ends=('a_mask.png', 'deep/B 2_mask.PNG')):
    for seed, end in enumerate(ends):
        (source / end).parent.mkdir(parents=True, exist_ok=True)
        make(truth(seed)).save(source / end)


def colored(classes):
    return Image.fromarray(np.array(COLORS, np.uint8)[classes])


def paletted(classes):
    image = Image.fromarray(classes)
    image.putpalette(np.array(COLORS, np.uint8).tobytes())
    return image


def save_labelme(source, seed, name, **changes):
    content = labelme_of(truth(seed), NAMES, name) | changes
    path = (source / name).with_suffix('.json')
    content['imagePath'] = changes.get('imagePath', path.with_suffix((source / name).suffix).name)
    path.write_text(json.dumps(content))
    return path


def save_coco(source, change=lambda content: None):
    whole = dict(images=[], annotations=[], categories=[])
    for seed, name in enumerate(('a.png', 'B 2.PNG')):
        part = coco_of(truth(seed), NAMES, name, seed + 1, 10 * seed + 1)
        whole['images'] += part['images']
        whole['annotations'] += part['annotations']
        whole['categories'] = part['categories']
    change(whole)
    (source / 'annotations.json').write_text(json.dumps(whole))


def save_cvat(source, body=None):
    def mask(classes, index):
        flat = (classes == index).ravel()
        runs = np.diff(np.concatenate(([0], np.flatnonzero(np.diff(flat.astype(int))) + 1, [flat.size]))).tolist()
        return ', '.join(map(str, ([0] if flat[0] else []) + runs))

    shapes = (
        f'<mask label="car" rle="{mask(truth(), 1)}" left="0" top="0" width="16" height="12" z_order="2"/>'
        '<polygon label="road" points="0,4;16,4;16,12;0,12" z_order="0"/>'
        '<box label="sky" xtl="0" ytl="0" xbr="16" ybr="4" z_order="1"/><polyline label="road" points="1,1;2,2"/>'
    )
    (source / 'annotations.xml').write_text(
        '<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version><meta><task><labels>'
        '<label><name>car</name>'
        '<color>#400080</color></label></labels></task></meta>'
        f'<image id="0" name="a.png" width="16" height="12">{shapes if body is None else body}</image>'
        '<image id="1" name="deep/B 2.PNG" width="16" height="12">'
        '<box label="sky" xtl="0" ytl="0" xbr="16" ybr="12"/></image>'
        '</annotations>'
    )
