"""Labelme: a JSON file for each image, beside it or in another folder, or with the image inside."""
import base64
import binascii
import io
import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from ...errors import quantity
from ...files import parse_json
from ..prediction_folder import is_as_predicted
from .classes import classes_of_names
from .drawing import Names, Shape, draw_shapes
from .naming import settled
from .options import BACKGROUND_NAMES, Options
from .pictures import opened
from .samples import Sample, Source
from .shapes import coordinates, is_outside
from .tree import LeftOut, Tree
from .unlabelled import unlabelled_of

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
    """Images with the shapes of their Labelme files; images without one are not labelled, and neither are those whose
    file is as ``predict`` wrote it, unless ``options.uncorrected`` takes these.
    """
    names, samples, left_out, listed, other, predicted = Names(), {}, [], [], 0, []
    for file in tree.with_suffix('.json'):
        try:
            content = read_json_file(tree.path(file), LARGEST_JSON)
            if not is_labelme(content):
                other += 1
            elif options.uncorrected == 'leave' and is_as_predicted(content):
                predicted.append(file)
            else:
                listed.append(listed_of(tree, file, content, names, options))
        except ValueError as error:
            left_out.append(LeftOut(file, str(error)))
    refused, lines = settled(tree.root, ((entry.name, entry.image) for entry in listed if entry.image))
    for entry in listed:
        try:
            sample = sample_of(tree, entry, refused.get((entry.name, entry.image)))
            if sample.relative in samples:
                raise ValueError(f'is of the image {sample.relative}, as {samples[sample.relative].labels} is')
            samples[sample.relative] = sample
        except ValueError as error:
            left_out.append(LeftOut(entry.file, str(error)))
    embedded = sum(isinstance(sample.image, bytes) for sample in samples.values())
    others = {entry.file for entry in listed if (entry.name, entry.image) in refused}
    broken = {PurePosixPath(entry.path).stem.casefold() for entry in left_out if entry.path not in others}
    without = [image for image in tree.pictures() if image not in samples and
               PurePosixPath(image).stem.casefold() in broken]
    left_out += [LeftOut(image, 'has a Labelme file that is left out') for image in without]
    unlabelled, seen = unlabelled_of(tree, samples, {*without})
    notes = [quantity(sum(sample.read is not None for sample in samples.values()), 'Labelme file')]
    if predicted:
        what = quantity(len(predicted), 'Labelme file is as `predict` wrote it',
                        'Labelme files are as `predict` wrote them')
        notes.append(f'{what}, not corrected, such as {predicted[0]}: taken as not labelled. To take what the model '
                     'predicted as labels: --uncorrected take')
    inside = quantity(embedded, 'image was inside its Labelme file', 'images were inside their Labelme files')
    notes += [inside] * bool(embedded)
    notes += [f'{quantity(other, "other JSON file was", "other JSON files were")} not looked at'] * bool(other)
    return Source(sorted([*samples.values(), *unlabelled], key=lambda sample: sample.relative), left_out,
                  notes + lines + seen,
                  lambda survey: by_name(classes_of_names(survey, options, names.order, {}), options))


def by_name(classes, options):
    """Labelme's files have no list of classes: without --classes they are in the order of the alphabet."""
    if options.classes is not None:
        return classes
    order = sorted(range(len(classes.names)), key=lambda i: (classes.names[i].casefold() not in BACKGROUND_NAMES,
                                                             classes.names[i]))
    place = {old: new for new, old in enumerate(order)}
    return classes._replace(names=tuple(classes.names[i] for i in order), palette=[classes.palette[i] for i in order],
                            table={code: place.get(index, index) for code, index in classes.table.items()})


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


class Listed(NamedTuple):
    """A Labelme file.

    Attributes:
        file (str): Its path below the source.
        name (str): Of its image, as it says.
        image (str | None): The image that was found for that name.
        missing (str): Why there is none.
        data (Any): The image that is inside, where none was found.
        read (Callable | None): See :class:`.samples.Sample`.
    """
    file: str
    name: str
    image: str | None
    missing: str
    data: Any
    read: Callable | None


def listed_of(tree, file, content, names, options):
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
    name = str(content['imagePath'])
    try:
        return Listed(file, name, tree.find(name, near=file), '', None, read)
    except LookupError as error:
        return Listed(file, name, None, str(error), content.get('imageData'), read)


def sample_of(tree, entry, refused):
    """The image of a Labelme file, found by its name, unless that is refused, or else inside it.

    Raises:
        ValueError: There is neither; says why, as the end of a sentence.
    """
    if entry.image and not refused:
        return Sample(tree.path(entry.image), entry.image, entry.read, entry.file)
    data = read_json_file(tree.path(entry.file), LARGEST_JSON).get('imageData') if refused else entry.data
    if not isinstance(data, str):
        raise ValueError(refused or entry.missing)
    try:
        image = base64.b64decode(data, validate=True)
    except binascii.Error as error:
        raise ValueError(f'has image data that cannot be decoded: {error}') from error
    with opened(image):
        pass
    return Sample(image, str(PurePosixPath(entry.file).with_suffix('.png')), entry.read, entry.file)


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
