"""What every format's reader hands over: images with a way to read their labels, and what the labels mean."""
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .pictures import Facts
from .tree import LeftOut


class Sample(NamedTuple):
    """An image of the source.

    Attributes:
        image (Path | bytes): Its file, or its content where an annotation file embeds it.
        relative (str): Its path below the source.
        read (Callable[[Facts], np.ndarray] | None): Its labels, (H, W) integers, upright, given the facts of its
            image: raises ValueError, with the end of a sentence, where they cannot be had. None where nobody labelled
            it.
        labels (str | None): The file that holds them, below the source.
        origin (str | None): The digest of the pixels that an earlier import made the image of, where it is known: a
            turned photograph was stored anew, and its pixels are others since.
    """
    image: Path | bytes
    relative: str
    read: Callable[[Facts], np.ndarray] | None
    labels: str | None
    origin: str | None = None


class Classes(NamedTuple):
    """What the integers of a source mean.

    Attributes:
        names (tuple[str, ...]): In the order of their indices.
        palette (list[tuple[int, int, int]]): A colour for each.
        table (dict[int, int]): From integer to class index, or 255 for pixels that do not count.
        notes (tuple[str, ...]): What was found out about them, for the report.
        found (frozenset[str]): Names before any was renamed.
    """
    names: tuple[str, ...]
    palette: list[tuple[int, int, int]]
    table: dict[int, int]
    notes: tuple[str, ...] = ()
    found: frozenset[str] = frozenset()


class Survey(NamedTuple):
    """What all labels together hold: from integer to pixels, and to images."""
    pixels: dict[int, int]
    images: dict[int, int]
    labelled: int


class Source(NamedTuple):
    """What a reader makes of a folder.

    Attributes:
        samples (list[Sample]): All images.
        left_out (list[LeftOut]): Files that are not among them, and why.
        notes (list[str]): What was found out about the source, for the report.
        classes (Callable[[Survey], Classes]): What the integers mean; raises UserError where that cannot be told.
        advice (Callable[[], list[str]]): What was found out while the labels were read, for the report.
    """
    samples: list[Sample]
    left_out: list[LeftOut]
    notes: list[str]
    classes: Callable[[Survey], Classes]
    advice: Callable[[], list[str]] = list
