"""COCO: polygons and run-length codes of many images in one JSON file, as CVAT, Roboflow, Label Studio and others
write.
"""
import sys
from collections import defaultdict
from collections.abc import Iterable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ...errors import UserError, quantity
from ..exif import upright
from .classes import classes_of_names
from .drawing import Names, Shape, draw_shapes, from_mask
from .labelme import read_json_file
from .naming import settled
from .options import Options
from .samples import Sample, Source
from .shapes import coco_rle_mask, is_outside, polygon_mask
from .tree import LeftOut, Tree
from .turned import Turned
from .unlabelled import unlabelled_of

LARGEST_JSON = 512 * 2**20


def is_coco(content) -> bool:
    return isinstance(content, dict) and all(isinstance(content.get(key), list) for key in (
        'images', 'annotations', 'categories'))


def recognizes(tree: Tree) -> bool:
    """Whether any of the largest JSON files of a source has the three lists of COCO, by its text."""
    files = sorted(tree.with_suffix('.json'), key=lambda file: -tree.path(file).stat().st_size)
    for file in files[:8]:
        with tree.path(file).open('rb') as content:
            text = content.read(LARGEST_JSON)
        if b'"images"' in text and b'"categories"' in text:
            return True
    return False


def read_coco(tree: Tree, options: Options) -> Source:
    """Images with the annotations of all COCO files of a source.

    Raises:
        UserError: A file that holds them is cut short or no COCO file, or has an id twice.
    """
    names, samples, left_out, notes, unused, sizes, listed = Names(), {}, [], [], {}, [], []
    turned = Turned(options.exif, lambda: sizes)
    for file in tree.with_suffix('.json'):
        try:
            content = read_json_file(tree.path(file), LARGEST_JSON)
        except ValueError as error:
            raise UserError(f'{tree.path(file)} {error}. Nothing was imported. Next: export it again, or remove it.'
                            ) from error
        if not is_coco(content):
            notes.append(f'{file} is no COCO file, and was not looked at')
            continue
        try:
            categories = categories_of(content, names, unused, file, tree.path(file))
            images = by_id(content['images'], 'image', 'file_name', tree.path(file))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f'{tree.path(file)} is no whole COCO file: {type(error).__name__}: {error}. Expected: '
                            'images, annotations and categories, each with an id. Next: export it again.') from error
        found = defaultdict(list)
        stray = 0
        for annotation in content['annotations']:
            number = annotation.get('image_id') if isinstance(annotation, dict) else None
            if isinstance(number, int | str) and number in images:
                found[number].append(annotation)
            else:
                stray += 1
        notes += [f'{quantity(stray, "annotation")} of {file} without an image in it'] * bool(stray)
        for number, image in images.items():
            try:
                name = image.get('file_name')
                name = name if isinstance(name, str) else ''
                listed.append(Listed(file, image, found[number], categories, name, tree.find(name, near=file)))
            except LookupError as error:
                left_out.append(LeftOut(file, str(error)))
    refused, lines = settled(tree.root, ((entry.name, entry.relative) for entry in listed))
    notes += lines
    for entry in listed:
        reason = refused.get((entry.name, entry.relative))
        if reason:
            left_out.append(LeftOut(entry.file, reason))
        else:
            add(tree, entry, names, options, samples, left_out, turned, sizes)
    unused = {name: file for name, file in unused.items() if name not in names.order}     # of all files together
    if unused:
        shown = f'{", ".join([*unused][:10])}{" …" if len(unused) > 10 else ""}'
        files = ', '.join(sorted(set(unused.values()))[:3])
        notes.append(f'{quantity(len(unused), "category is no class", "categories are no classes")}, without an '
                     f'annotation in {files}: {shown}. --classes names those that are meant to be')
    unlabelled, lines = unlabelled_of(tree, samples, {entry.path for entry in left_out})
    notes += lines
    return Source(sorted([*samples.values(), *unlabelled], key=lambda sample: sample.relative), left_out, notes,
                  partial(classes_of_names, options=options, names=names.order, colors={}), turned.advice)


def categories_of(content, names, unused, file, path):
    """From id to label; those without an annotation are left out, and added to ``unused`` with their file."""
    used = {annotation.get('category_id') for annotation in content['annotations'] if isinstance(annotation, dict)}
    categories = {number: category['name']
                  for number, category in by_id(content['categories'], 'category', 'name', path).items()}
    unused.update((str(name), file) for number, name in categories.items() if number not in used)
    return {number: names.index(name) for number, name in sorted(categories.items()) if number in used}


class Listed(NamedTuple):
    """An image of a COCO file: the file, its entry, annotations, the file's categories, the image's name there, and the
    image that was found for it.
    """
    file: str
    image: dict[str, Any]
    annotations: list[dict]
    categories: dict[Any, int]
    name: str
    relative: str


def by_id(entries: Iterable[dict], what: str, name: str, path) -> dict[Any, dict]:
    """From id to entry.

    Raises:
        UserError: Two entries have one id.
        KeyError | TypeError: One has none.
    """
    found = {}
    for entry in entries:
        if entry['id'] in found:
            first = found[entry['id']].get(name)
            raise UserError(f'{path}: the {what} id {str(entry["id"])[:40]} is that of {first!r} and of '
                            f'{entry.get(name)!r}. Expected: an id for each, which annotations name. Next: '
                            'export it again; files that were joined have to be numbered anew.')
        found[entry['id']] = entry
    return found


def add(tree, entry, names, options, samples, left_out, turned, sizes):
    """Put one image of a COCO file where it belongs."""
    file, image, annotations, categories, _, relative = entry
    if relative in samples:
        left_out.append(LeftOut(file, f'has the image {relative} twice, or {samples[relative].labels} has it too'))
        return
    shapes = []
    try:
        for annotation in annotations:
            label = categories.get(annotation.get('category_id'))
            what = f'annotation {annotation.get("id")}'
            if label is None:
                raise ValueError(f'{what} of {file} has the category {annotation.get("category_id")!r}, which the file '
                                 'does not name')
            shapes.append(Shape(label, from_mask(partial(mask_of, annotation.get('segmentation'))),
                                f'{what} {names.order[label]!r} of {file}'))
    except ValueError as error:
        left_out.append(LeftOut(relative, str(error)))
        return
    announced = image.get('width'), image.get('height')
    announced = announced if all(type(side) is int for side in announced) else None
    if announced:
        sizes.append((tree.path(relative), announced))
    read = partial(draw_upright, shapes, relative, announced, turned, options) if (
        shapes or options.empty == 'background') else None
    samples[relative] = Sample(tree.path(relative), relative, read, file)


def draw_upright(shapes, relative, announced, turned, options, facts):
    """COCO does not say whether its pixels are those stored or those that viewers show."""
    try:
        stored = turned.is_stored(relative, facts, announced)
    except ValueError as error:
        raise ValueError(f'has shapes that {error}') from error
    if stored:
        return upright(draw_shapes(shapes, facts._replace(size=facts.stored_size), announced, options), facts.turn)
    return draw_shapes(shapes, facts, announced, options)


def mask_of(segmentation, height, width):
    """The pixels of one annotation: its polygons together, as COCO has no holes, or its run-length code.

    Raises:
        ValueError: It has none, or they cannot be drawn.
    """
    if isinstance(segmentation, dict):
        size = segmentation.get('size')
        if size != [height, width]:
            raise ValueError(f'has a run-length code of size {str(size)[:40]}; its image has [{height}, {width}]')
        return coco_rle_mask(segmentation.get('counts'), height, width)
    if not isinstance(segmentation, list) or not segmentation:
        raise ValueError('has no segmentation, but a box alone; expected: polygons or a run-length code')
    mask = np.zeros((height, width), bool)
    for flat in segmentation:
        if not isinstance(flat, list) or len(flat) % 2 or not all(
                isinstance(value, int | float) and abs(value) <= sys.float_info.max for value in flat):
            raise ValueError('has a polygon that is no list of x, y, x, y, …, of finite numbers')
        points = np.array(flat, np.float64).reshape(-1, 2)
        if len(points) and not is_outside(points, height, width):
            mask |= polygon_mask(points, height, width)
    return mask
