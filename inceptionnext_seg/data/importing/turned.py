"""Labels of photographs with an EXIF turn: drawn on what viewers show, or on the pixels as they are stored.

Masks have no such tag, and COCO does not say. After a turn by 90 degrees the sizes tell, and what they tell of some
photographs of a source holds for all of it. Where there are none, a person has to say, with ``--exif``.
"""
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from threading import Lock

from ...errors import quantity
from ..exif import FIRST_SWAPPED, UPRIGHT
from .pictures import Facts, facts_of, opened

AUTO, SHOWN, STORED = 'auto', 'upright', 'stored'
EXIF = (AUTO, SHOWN, STORED)
WORDS = {SHOWN: 'what viewers show', STORED: 'the pixels as they are stored'}


class Turned:
    """What the labels of one source were drawn on.

    Args:
        choice (str): One of ``EXIF``.
        sizes (Callable[[], Iterable]): Image files and the width and height of their labels, which have no EXIF tag;
            asked for when labels in doubt are met, once.
    """

    def __init__(self, choice: str, sizes: Callable[[], Iterable[tuple[Path, tuple[int, int]]]]) -> None:
        self.choice, self.sizes = choice, sizes
        self.lock, self.told = Lock(), None
        self.followed: set[str] = set()
        self.doubtful: set[str] = set()

    def is_stored(self, relative: str, facts: Facts, size: tuple[int, int] | None) -> bool:
        """Whether labels of ``size``, where that is known, were drawn on the pixels of an image as they are stored.

        Raises:
            ValueError: Nothing tells; says so as the end of a sentence.
        """
        if facts.turn == UPRIGHT:
            return False
        side = side_of(facts, size)
        if side is None and self.choice != AUTO:
            side = self.choice
        elif side is None:
            with self.lock:
                self.told = self.counted() if self.told is None else self.told
                side = next(iter(self.told)) if len(self.told) == 1 else None
                (self.followed if side else self.doubtful).add(relative)
        if side is None:
            raise ValueError(f'may fit before or after the turn (EXIF orientation {facts.turn}): --exif')
        return side == STORED

    def counted(self):
        sides = Counter()
        for image, size in self.sizes():
            try:
                with opened(image) as file:
                    facts = facts_of(file)
            except ValueError:
                continue
            if facts.turn != UPRIGHT and size in (facts.size, facts.stored_size) and side_of(facts, size):
                sides[side_of(facts, size)] += 1
        return sides

    def advice(self) -> list[str]:
        """Lines for the report: what was decided, and what has to be."""
        lines = []
        if self.followed:
            (side, count), other = next(iter(self.told.items())), {SHOWN: STORED, STORED: SHOWN}
            lines.append(f'{quantity(len(self.followed), "image")} with an EXIF turn that sizes do not show: labels '
                         f'are taken to fit {WORDS[side]}, as those of {quantity(count, "image")} turned by 90 degrees '
                         f'do. If not: --exif {other[side]}')
        if self.doubtful:
            lines.append(
                f'{quantity(len(self.doubtful), "image")} with an EXIF turn left out: nothing tells whether the labels '
                f'fit {WORDS[SHOWN]} or {WORDS[STORED]}. Next: look at {min(self.doubtful)} and its labels, and give '
                f'--exif {SHOWN} or --exif {STORED}.')
        return lines


def side_of(facts: Facts, size: tuple[int, int] | None) -> str | None:
    """What labels of a size were drawn on; None where both are of that size, or it is not known."""
    if size is None or facts.turn < FIRST_SWAPPED or facts.size == facts.stored_size:
        return None
    return STORED if size == facts.stored_size else SHOWN
