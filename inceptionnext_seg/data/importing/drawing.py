"""Named shapes of an image, drawn into one map of labels."""
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .options import Options
from .pictures import Facts
from .tree import is_utf8


class Shape(NamedTuple):
    """A labelled shape.

    Attributes:
        label (int): Index of its name.
        draw (Callable): ``draw(map)`` writes ``label`` into an (H, W) int32 map, and returns how many pixels it has.
        what (str): For messages, such as "shape 3 'car'".
    """
    label: int
    draw: Callable[[np.ndarray, int], int]
    what: str


class Names:
    """Names of labels in the order in which they were met; a name is text of at most 100 characters."""

    def __init__(self) -> None:
        self.order: list[str] = []

    def index(self, name: Any) -> int:
        """Raises ValueError for what is no name."""
        if not isinstance(name, str) or not name.strip() or len(name) > 100 or any(
                ord(letter) < 32 for letter in name) or not is_utf8(name):
            raise ValueError(f'has a label {str(name)[:60]!r}; expected: a name of 1 to 100 characters')
        name = name.strip()
        if name not in self.order:
            self.order.append(name)
        return self.order.index(name)


def from_mask(mask_of: Callable[[int, int], np.ndarray]) -> Callable[[np.ndarray, int], int]:
    """A ``draw`` for a shape that is had as a mask: ``mask_of(height, width)``."""

    def draw(labels, label):
        mask = mask_of(*labels.shape)
        labels[mask] = label
        return int(mask.sum())

    return draw


def draw_shapes(shapes: list[Shape], facts: Facts, announced: tuple | None, options: Options) -> np.ndarray:
    """(H, W) int32: the label at each pixel, -1 under no shape. Later shapes cover earlier ones, or small ones large.

    Raises:
        ValueError: A shape cannot be drawn or has no pixel in the image; the size announced is not the image's.
    """
    width, height = facts.size
    if announced is not None and announced != facts.size:
        raise ValueError(f'says that its image has {"×".join(map(str, announced))} pixels; it has {width}×{height}')
    labels = np.full((height, width), -1, np.int32)
    if options.overlap == 'small':
        scratch, sized = np.empty_like(labels), []
        for shape in shapes:
            sized.append((drawn(shape, scratch), shape))
        shapes = [shape for _, shape in sorted(sized, key=lambda item: -item[0])]
    for shape in shapes:
        drawn(shape, labels)
    return labels


def drawn(shape, labels):
    try:
        pixels = shape.draw(labels, shape.label)
    except ValueError as error:
        raise ValueError(f'{shape.what}: {error}') from error
    if not pixels:
        raise ValueError(f'{shape.what} has no pixel in its image of {labels.shape[1]}×{labels.shape[0]} pixels')
    return pixels
