"""Which images and masks a data set folder has, and what its masks may hold."""
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...errors import UserError
from ..decoding import LEAST_SIDE, Expectation
from ..description import NAME, read_description
from ..importing.palettes import distinct_colors
from ..importing.tree import PICTURES, is_litter

SPLITS = ('training', 'validation', 'test')
UNLABELLED = 'unlabelled'


class Item(NamedTuple):
    """An image, its mask where it has to have one, and the split it is in."""
    image: Path
    mask: Path | None
    split: str


class Listing(NamedTuple):
    """What is looked at.

    Attributes:
        name (str): Of the data set.
        items (list[Item]): Its images.
        classes (tuple[str, ...] | None): Names of the classes; None where nothing names them.
        palette (np.ndarray): (256, 3) uint8, a colour for each class and for values that are none.
        first (int): The value of the first class in the masks: 1 with ``reduce_zero_label``.
        expected (Expectation): What masks may hold.
        problems (list[str]): What was found by the names alone.
    """
    name: str
    items: list[Item]
    classes: tuple[str, ...] | None
    palette: np.ndarray
    first: int
    expected: Expectation
    problems: list[str]


def padded(palette) -> np.ndarray:
    """(256, 3) uint8: the colours of the classes, and others for values that are none."""
    palette = [tuple(color) for color in palette]
    return np.array((palette + distinct_colors(256 - len(palette), set(palette)))[:256], np.uint8)


def expectation_for(count: int | None) -> Expectation:
    """Masks of ``count`` classes from 0 and 255; of any values where the classes are not known."""
    if count is None:
        return Expectation(bytes([1] * 256), 'class indices', least_side=LEAST_SIDE)
    return Expectation(bytes(value < count or value == 255 for value in range(256)),
                       f'0 to {count - 1}, or 255 for pixels that do not count', least_side=LEAST_SIDE)


def pictures_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob('*') if path.suffix.lower() in PICTURES and not any(
        map(is_litter, path.relative_to(folder).parts)))


def list_folder(folder: str | Path) -> Listing:
    """The images of a folder in the layout of ``inceptionnext-seg import``, with ``dataset.json`` or without.

    Raises:
        UserError: It is no such folder, or has no image.
    """
    root = Path(folder)
    if not (root / 'images').is_dir():
        raise UserError(
            f'{root.absolute()} has no folder images. Expected: images/{{training,validation}} and '
            'annotations/{training,validation}. Next: `inceptionnext-seg import SOURCE --out DIR` makes one of '
            'images and labels in any order; or give a config.'
        )
    about = read_description(root) if (root / NAME).is_file() else None
    items, problems = [], []
    for split in (*SPLITS, UNLABELLED):
        images = pictures_below(root / 'images' / split)
        masks = {path.relative_to(root / 'annotations' / split).with_suffix('').as_posix(): path
                 for path in pictures_below(root / 'annotations' / split)} if split != UNLABELLED else {}
        for image in images:
            name = image.relative_to(root / 'images' / split).with_suffix('').as_posix()
            expected = root / 'annotations' / split / f'{name}.png'
            items.append(Item(image, None if split == UNLABELLED else masks.pop(name, expected), split))
            if about and not image.name.endswith(about.img_suffix):
                problems.append(
                    f'{image}: does not end in {about.img_suffix}, and is not used. Expected: the suffix that '
                    f'{NAME} names'
                )
        problems += [f'{path}: is a mask without an image in {root / "images" / split}' for path in masks.values()]
    if not items:
        raise UserError(f'{root.absolute()}/images has no picture in {", ".join(SPLITS)} or {UNLABELLED}.')
    classes = about.classes if about else None
    return Listing(root.absolute().name, items, classes, padded(about.palette if about else []), 0,
                   expectation_for(len(classes) if classes else None), problems)


