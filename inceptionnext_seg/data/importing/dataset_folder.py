"""A folder that an import wrote, read again: beside other sources, it is what they are added to."""
import csv
import re
from functools import partial
from pathlib import PurePosixPath

from ...errors import UserError, quantity
from ..description import NAME, SOURCES, Description, read_description
from .classes import Meaning, build
from .mask_files import read_values, source_of
from .options import IGNORE, IGNORE_NAMES, Options
from .pairing import Pairs
from .samples import Classes, Source, Survey
from .splits import TEST, TRAINING, UNLABELLED, VALIDATION
from .tree import LeftOut, Tree


def recognizes(tree: Tree) -> bool:
    """Whether a source has a ``dataset.json`` of ours; other programs' files have that name, too."""
    if NAME not in tree.files:
        return False
    with tree.path(NAME).open('rb') as content:
        return b'"seg_map_suffix"' in content.read(1 << 20)


def read_dataset(tree: Tree, options: Options) -> Source:
    """The images and masks of the folders of each split, with the classes that ``dataset.json`` names.

    Raises:
        UserError: That file cannot be used.
    """
    about = read_description(tree.root)
    masks, left_out, others = {}, [], []
    for file in tree.pictures():
        kind, *rest = PurePosixPath(file).parts
        if kind == 'annotations' and rest:
            continue
        if kind != 'images' or len(rest) < 2 or rest[0] not in (TRAINING, VALIDATION, TEST, UNLABELLED):
            others.append(file)
        elif not file.endswith(about.img_suffix):
            left_out.append(LeftOut(file, f'does not end in {about.img_suffix}, as {NAME} says'))
        else:
            mask = '/'.join(('annotations', *rest)).removesuffix(about.img_suffix) + about.seg_map_suffix
            masks[file] = mask if rest[0] != UNLABELLED else None
    there = {file for file in tree.files if file.startswith('annotations/')}
    for file, mask in list(masks.items()):
        if mask and mask not in there:
            left_out.append(LeftOut(file, f'has no mask {mask}'))
            del masks[file]
    unpaired = sorted(there - {*masks.values()})
    rule = f'masks, classes and splits are those of {NAME} and its folders'
    found = source_of(tree, options, Pairs(masks, unpaired, [], rule, {}), read_values,
                      partial(classes_of_dataset, options=options, about=about))
    notes = [f'{quantity(len(others), "picture")} beside its images and masks, such as {others[0]}: not looked at'
             ] if others else []
    origins = origins_of(tree)
    return found._replace(
        samples=[sample._replace(origin=origins.get(sample.relative)) for sample in found.samples],
        left_out=left_out + found.left_out, notes=found.notes + notes)


def origins_of(tree: Tree) -> dict[str, str]:
    """From image to the digest of the pixels that it was made of; of a list that is damaged or not there, none."""
    if SOURCES not in tree.files:
        return {}
    try:
        with tree.path(SOURCES).open(encoding='utf-8', newline='') as file:
            return {row['image']: row['pixels'] for row in csv.DictReader(file)
                    if row.get('image') and re.fullmatch('[0-9a-f]{32}', row.get('pixels') or '')}
    except (OSError, ValueError, csv.Error):
        return {}


def classes_of_dataset(survey: Survey, options: Options, about: Description) -> Classes:
    """The classes of ``dataset.json``, whether they occur or not, in the order of ``options.classes``, if given.

    Raises:
        UserError: The masks hold other values; or there are classes that ``options.classes`` does not name.
    """
    other = sorted(value for value in survey.pixels if value != IGNORE and value >= len(about.classes))
    if other:
        raise UserError(f'the masks of {about.root} hold {", ".join(map(str, other[:8]))}. Expected: 0 to '
                        f'{len(about.classes) - 1}, the classes of its {NAME}, or {IGNORE}. Next: correct the masks.')
    colors = {name: tuple(color) for name, color in zip(about.classes, about.palette, strict=True)}
    meanings = [Meaning(i, name, color) for i, (name, color) in enumerate(colors.items())]
    if options.classes is None:
        return build(meanings, options, (IGNORE, ))
    unknown = [name for name in (options.rename.get(name, name) for name in about.classes)
               if name not in options.classes and name.casefold() not in IGNORE_NAMES]
    if unknown:
        raise UserError(f'{about.root / NAME} has classes that --classes does not name: {", ".join(unknown[:10])}. '
                        f'Expected: {", ".join(options.classes[:20])}. Next: add them, or --rename "{unknown[0]}='
                        f'{options.classes[0]}".')
    order = [Meaning(-1 - i, name, colors.get(name)) for i, name in enumerate(options.classes)]
    return build(order + meanings, options, (IGNORE, ))
