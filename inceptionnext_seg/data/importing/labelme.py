"""Labelme: a JSON file for each image, beside it or in another folder, or with the image inside."""
import base64
import binascii
import io
import json
import math
from functools import partial
from pathlib import PurePosixPath

import numpy as np
from PIL import Image, ImageDraw

from ...errors import quantity
from ...files import parse_json
from .classes import classes_of_names
from .drawing import Names, Shape, draw_shapes
from .options import BACKGROUND_NAMES, Options
from .pictures import opened
from .samples import Classes, Sample, Source
from .shapes import coordinates, is_outside
from .tree import LeftOut, Tree

LARGEST_JSON = 256 * 2**20      # the image may be inside
LINE_WIDTH, POINT_SIZE = 10, 5  # of labelme's own shape_to_mask


def is_labelme(content) -> bool:
    return isinstance(content, dict) and isinstance(content.get('shapes'), list) and 'imagePath' in content


def recognizes(tree: Tree) -> bool:
    """Whether any of the first JSON files of a source is Labelme's."""
    for file in tree.with_suffix('.json')[:50]:
        try:
            with tree.path(file).open(encoding='utf-8', errors='replace') as text:
                start = text.read(1 << 16)
        except OSError:
            continue
        if '"shapes"' in start or ('"imagePath"' in start and '"imageData"' in start):
            return True
    return False


def read_labelme(tree: Tree, options: Options) -> Source:
    """Images with the shapes of their Labelme files; images without one are not labelled."""
    names, samples, left_out, other, embedded = Names(), {}, [], 0, 0
    for file in tree.with_suffix('.json'):
        try:
            content = read_json_file(tree.path(file), LARGEST_JSON)
            if not is_labelme(content):
                other += 1
                continue
            sample = sample_of(tree, file, content, names, options)
            if sample.relative in samples:
                raise ValueError(f'is of the image {sample.relative}, as {samples[sample.relative].labels} is')
        except ValueError as error:
            left_out.append(LeftOut(file, str(error)))
            continue
        embedded += isinstance(sample.image, bytes)
        samples[sample.relative] = sample
    # The image of a file that could not be read is not taken for one that nobody labelled.
    broken = {PurePosixPath(entry.path).stem.casefold() for entry in left_out}
    for image in tree.pictures():
        if image not in samples:
            if PurePosixPath(image).stem.casefold() in broken:
                left_out.append(LeftOut(image, 'has a Labelme file that is left out'))
            else:
                samples[image] = Sample(tree.path(image), image, None, None)
    notes = [quantity(sum(sample.read is not None for sample in samples.values()), 'Labelme file')]
    inside = quantity(embedded, 'image was inside its Labelme file', 'images were inside their Labelme files')
    notes += [inside] * bool(embedded)
    notes += [f'{quantity(other, "other JSON file was", "other JSON files were")} not looked at'] * bool(other)
    return Source(sorted(samples.values(), key=lambda sample: sample.relative), left_out, notes,
                  lambda survey: by_name(classes_of_names(survey, options, names.order, {}), options))


def by_name(classes, options):
    """Labelme's files have no list of classes: without --classes they are in the order of the alphabet."""
    if options.classes is not None:
        return classes
    order = sorted(range(len(classes.names)), key=lambda i: (classes.names[i].casefold() not in BACKGROUND_NAMES,
                                                             classes.names[i]))
    place = {old: new for new, old in enumerate(order)}
    return Classes(tuple(classes.names[i] for i in order), [classes.palette[i] for i in order],
                   {code: place.get(index, index) for code, index in classes.table.items()})


def read_json_file(path, largest):
    """What a JSON file of somebody's holds.

    Raises:
        ValueError: It is too large, cut short or no JSON.
    """
    try:
        size = path.stat().st_size
        if size > largest:
            raise ValueError(f'has {size} bytes; expected: at most {largest}')
        return parse_json(path.read_text(encoding='utf-8-sig'))
    except json.JSONDecodeError as error:
        raise ValueError(f'is no whole JSON file: {error}') from error
    except UnicodeDecodeError as error:
        raise ValueError(f'is no text: {error}') from error
    except OSError as error:
        raise ValueError(f'cannot be read: {error.strerror}') from error


def sample_of(tree, file, content, names, options):
    shapes = []
    for i, shape in enumerate(content['shapes'], 1):
        if not isinstance(shape, dict):
            raise ValueError(f'shape {i} is a {type(shape).__name__}')
        label = names.index(shape.get('label'))
        shapes.append(Shape(label, partial(draw, shape), f'shape {i} {names.order[label]!r} of {file}'))
    announced = tuple(content.get(key) for key in ('imageWidth', 'imageHeight'))
    announced = announced if all(type(side) is int for side in announced) else None
    read = partial(draw_shapes, shapes, announced=announced, options=options) if (
        shapes or options.empty == 'background') else None
    try:
        image = tree.find(str(content['imagePath']), near=file)
        return Sample(tree.path(image), image, read, file)
    except LookupError as error:
        data = content.get('imageData')
        if not isinstance(data, str):
            raise ValueError(f'{error}') from error
    try:
        image = base64.b64decode(data, validate=True)
    except binascii.Error as error:
        raise ValueError(f'has image data that cannot be decoded: {error}') from error
    with opened(image):
        pass
    return Sample(image, str(PurePosixPath(file).with_suffix('.png')), read, file)


def draw(shape, labels, label):
    """Draw a Labelme shape as labelme's own ``shape_to_mask`` does, onto a map of labels in place; the pixels it
    has.
    """
    kind = shape.get('shape_type') or 'polygon'
    height, width = labels.shape
    points = coordinates(shape.get('points'), height, width)
    if kind == 'mask':
        return paste_mask(shape.get('mask'), points, labels, label)
    exact = dict(circle=2, rectangle=2, line=2, point=1, oriented_rectangle=4).get(kind)
    least = dict(linestrip=2, polygon=3).get(kind)
    if exact is None and least is None:
        raise ValueError(f'is a {kind!r}; expected: polygon, rectangle, circle, line, linestrip, point or mask')
    if len(points) != exact and (exact or len(points) < least):
        raise ValueError(f'is a {kind} of {len(points)} points; expected: {exact or f"at least {least}"}')
    if kind == 'circle':
        radius = math.dist(*points)
        box = [tuple(points[0] - radius), tuple(points[0] + radius)]
    elif kind == 'point':
        box = [tuple(points[0] - POINT_SIZE), tuple(points[0] + POINT_SIZE)]
    else:
        box = points
    if is_outside(box, height, width):
        return 0
    picture = Image.new('1', (width, height))
    pen, xy = ImageDraw.Draw(picture), [tuple(point) for point in points.tolist()]
    if kind in ('circle', 'point'):
        pen.ellipse(box, fill=1, outline=1)
    elif kind == 'rectangle':
        pen.rectangle([tuple(points.min(0)), tuple(points.max(0))], fill=1, outline=1)
    elif kind in ('line', 'linestrip'):
        pen.line(xy, fill=1, width=LINE_WIDTH)
    else:
        pen.polygon(xy, fill=1, outline=1)
    mask = np.asarray(picture)
    labels[mask] = label
    return int(np.count_nonzero(mask))


def paste_mask(text, points, labels, label):
    """The mask of a shape: a PNG in base64, at the place of its two points."""
    if not isinstance(text, str) or len(points) != 2:
        raise ValueError('is a mask without a picture or without two points')
    try:
        content = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f'is a mask that cannot be decoded: {error}') from error
    (left, top), (right, bottom) = points.astype(int)
    try:
        with Image.open(io.BytesIO(content), formats=('PNG', )) as file:
            if file.size != (right - left + 1, bottom - top + 1):
                raise ValueError(f'is a mask of {file.size[0]}×{file.size[1]} pixels in a box of '
                                 f'{right - left + 1}×{bottom - top + 1}')
            if left < 0 or top < 0 or right >= labels.shape[1] or bottom >= labels.shape[0]:
                raise ValueError('is a mask that reaches beyond its image')
            mask = np.asarray(file.convert('L')) > 0
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(f'is a mask that cannot be decoded: {error}') from error
    labels[top:bottom + 1, left:right + 1][mask] = label
    return int(mask.sum())
