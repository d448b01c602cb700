"""CVAT's own XML, "CVAT for images 1.1": polygons, boxes, ellipses and masks, with their order from back to front.

A file with a document type, where entities come from, is refused.
"""
import contextlib
import math
from functools import partial
from typing import Any
from xml.parsers import expat

import numpy as np

from ...errors import UserError, quantity
from .classes import classes_of_names
from .drawing import Names, Shape, draw_shapes, from_mask
from .naming import settled
from .options import Options
from .palettes import checked_color
from .samples import Sample, Source
from .shapes import coordinates, filled, is_outside, polygon_mask
from .tree import LeftOut, Tree
from .unlabelled import unlabelled_of

LARGEST_XML = 512 * 2**20
AREAS, OTHERS = ('polygon', 'box', 'ellipse', 'mask'), ('polyline', 'points', 'cuboid', 'skeleton', 'tag')
MOST_RUNS = 1 << 24


def recognizes(tree: Tree) -> bool:
    """Whether an XML file of a source starts as CVAT's."""
    for file in tree.with_suffix('.xml')[:20]:
        with tree.path(file).open('rb') as content:
            start = content.read(4096)
        if b'<annotations>' in start:
            return True
    return False


class Reader:
    """The images and labels of one file, collected as it is parsed."""

    def __init__(self) -> None:
        self.images: list[tuple[dict, list]] = []
        self.colors: dict[str, tuple] = {}
        self.skipped: dict[str, int] = {}
        self.path: list[str] = []
        self.text, self.label = '', None

    def parse(self, path):
        """Raises ValueError where it is no whole XML file, or has a DTD."""
        parser = expat.ParserCreate()
        parser.StartElementHandler, parser.EndElementHandler = self.start, self.end
        parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = self.characters, self.refuse
        parser.buffer_text = True
        try:
            if path.stat().st_size > LARGEST_XML:
                raise ValueError(f'has {path.stat().st_size} bytes; expected: at most {LARGEST_XML}')
            with path.open('rb') as file:
                parser.ParseFile(file)
        except (expat.ExpatError, LookupError) as error:
            raise ValueError(f'is no whole XML file: {error}') from error

    def refuse(self, *_):
        raise ValueError('declares a document type; expected: none, as in what CVAT writes')

    def start(self, name: str, attributes: dict[str, Any]):
        self.path.append(name)
        self.text = ''
        if name == 'image':
            self.images.append((attributes, []))
        elif name == 'track':
            raise ValueError('has the tracks of a video; expected: single images. Next: export the task as "CVAT for '
                             'images 1.1"')
        elif self.path[-2:-1] == ['image']:
            if name in AREAS:
                self.images[-1][1].append((name, attributes))
            elif name in OTHERS:
                self.skipped[name] = self.skipped.get(name, 0) + 1

    def characters(self, text):
        if 'label' in self.path:
            self.text += text

    def end(self, name):
        if self.path[-2:] == ['label', 'name']:
            self.label = self.text.strip()
        elif self.path[-2:] == ['label', 'color'] and self.label and len(self.text.strip()) == 7:
            with contextlib.suppress(ValueError):       # a colour that is none: another is chosen
                self.colors[self.label] = checked_color(bytes.fromhex(self.text.strip()[1:]))
        self.path.pop()
        self.text = ''


def read_cvat(tree: Tree, options: Options) -> Source:
    """Images with the shapes of all CVAT files of a source.

    Raises:
        UserError: A file is cut short, no XML, or of a video.
    """
    names, samples, left_out, notes, colors, listed = Names(), {}, [], [], {}, []
    for file in tree.with_suffix('.xml'):
        reader = Reader()
        try:
            reader.parse(tree.path(file))
        except (ValueError, OSError) as error:
            raise UserError(f'{tree.path(file)} {error}. Nothing was imported.') from error
        colors |= reader.colors
        notes += [f'{quantity(count, "shape")} of the kind {kind!r} in {file}, without an area: not drawn'
                  for kind, count in reader.skipped.items()]
        for attributes, shapes in reader.images:
            try:
                name = attributes.get('name', '')
                listed.append((file, attributes, shapes, name, tree.find(name, near=file)))
            except LookupError as error:
                left_out.append(LeftOut(file, str(error)))
    wrong, lines = settled(tree.root, ((name, image) for *_, name, image in listed))
    notes += lines
    for file, attributes, shapes, name, image in listed:
        if (name, image) in wrong:
            left_out.append(LeftOut(file, wrong[name, image]))
            continue
        try:
            if image in samples:
                raise ValueError(f'is in {file} and in {samples[image].labels}')
            samples[image] = sample_of(tree.path(image), image, file, attributes, shapes, names, options)
        except ValueError as error:
            left_out.append(LeftOut(image, str(error)))
    unlabelled, lines = unlabelled_of(tree, samples, {entry.path for entry in left_out})
    notes += lines
    return Source(sorted([*samples.values(), *unlabelled], key=lambda sample: sample.relative), left_out, notes,
                  partial(classes_of_names, options=options, names=names.order, colors=colors))


def sample_of(path, image, file, attributes, shapes, names, options):
    try:
        announced = int(attributes['width']), int(attributes['height'])
        shapes = sorted(enumerate(shapes, 1), key=lambda item: int(item[1][1].get('z_order', 0)))
    except (KeyError, ValueError):
        raise ValueError(f'has no width, height or order of shapes in {file}') from None
    drawn = []
    for number, (kind, settings) in shapes:
        label = names.index(settings.get('label'))
        drawn.append(Shape(label, from_mask(partial(MASKS[kind], settings)),
                           f'{kind} {number} {names.order[label]!r} of {file}'))
    read = partial(draw_shapes, drawn, announced=announced, options=options) if (
        drawn or options.empty == 'background') else None
    return Sample(path, image, read, file)


def numbers(settings, *keys):
    try:
        found = [float(settings[key]) for key in keys]
    except (KeyError, ValueError):
        found = [math.nan]
    if not all(map(math.isfinite, found)):
        raise ValueError(f'has no numbers {", ".join(keys)}')
    return found


def area_of(points, height, width):
    points = coordinates(points, height, width)
    if is_outside(points, height, width):
        return np.zeros((height, width), bool)
    return polygon_mask(points, height, width)


def polygon(settings, height, width):
    try:
        points = [[float(value) for value in pair.split(',')] for pair in settings.get('points', '').split(';')]
    except ValueError:
        raise ValueError('has points that are no "x,y;x,y;…"') from None
    return area_of(points, height, width)


def rotated(points, settings):
    """Points turned clockwise by ``rotation`` degrees about their middle."""
    angle = np.deg2rad(numbers({'rotation': settings.get('rotation', 0)}, 'rotation')[0])
    points, turn = np.array(points), np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    middle = (points.min(0) + points.max(0)) / 2
    return (points - middle) @ turn + middle


def box(settings, height, width):
    left, top, right, bottom = numbers(settings, 'xtl', 'ytl', 'xbr', 'ybr')
    return area_of(rotated([[left, top], [right, top], [right, bottom], [left, bottom]], settings), height, width)


def ellipse(settings, height, width):
    x, y, across, down = numbers(settings, 'cx', 'cy', 'rx', 'ry')
    angles = np.linspace(0, 2 * np.pi, 180, endpoint=False)
    return area_of(rotated(np.stack((x + across * np.cos(angles), y + down * np.sin(angles)), 1), settings), height,
                   width)


def mask(settings, height, width):
    """Run lengths along the rows of a box, the first of zeros."""
    left, top, across, down = (int(number) for number in numbers(settings, 'left', 'top', 'width', 'height'))
    if left < 0 or top < 0 or across < 1 or down < 1 or left + across > width or top + down > height:
        raise ValueError(f'is a mask of {across}×{down} pixels at ({left}, {top}) in an image of {width}×{height}')
    text = settings.get('rle', '')
    try:
        runs = np.array([int(run) for run in text.split(',', MOST_RUNS)], np.int64)
    except (ValueError, OverflowError):
        raise ValueError('has run lengths that are no numbers') from None
    if runs.min() < 0 or runs.max() > across * down or runs.sum() != across * down:
        raise ValueError(f'has run lengths of {runs.sum()} pixels in a box of {across * down}')
    found = np.zeros((height, width), bool)
    found[top:top + down, left:left + across] = filled(runs).reshape(down, across)
    return found


MASKS = dict(polygon=polygon, box=box, ellipse=ellipse, mask=mask)
