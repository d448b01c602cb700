"""Several sources as one: each has a format, a numbering and a split of its own, and classes are united by name."""
import dataclasses
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from ...errors import UserError, quantity
from .formats import COLOR, FORMATS
from .options import BACKGROUND_NAMES, IGNORE, Options
from .palettes import MOST_CLASSES, distinct_colors
from .samples import Classes, Sample
from .surveying import Found
from .tree import LeftOut, Tree


class Part(NamedTuple):
    """A source that was read.

    Attributes:
        tree (Tree): Its files.
        label (str): What its paths begin with in reports; empty for a single source.
        format (str): A name of ``FORMATS``.
        samples (list[Sample]), found (list[Found]): Its images, and what is known of each.
        left_out (list[LeftOut]), notes (list[str]): For the report.
        classes (Classes): What the integers of its labels mean.
    """
    tree: Tree
    label: str
    format: str
    samples: list[Sample]
    found: list[Found]
    left_out: list[LeftOut]
    notes: list[str]
    classes: Classes

    def shown(self, path: str) -> str:
        """A path below the source as reports have it."""
        return f'{self.label}/{path}' if self.label else path


def labels_of(roots: list[Path]) -> list[str]:
    """The shortest ends of the paths of several folders that tell them apart; nothing for a single one."""
    if len(roots) == 1:
        return ['']
    for length in range(1, max(len(root.parts) for root in roots) + 1):
        labels = ['/'.join(root.parts[-length:]).lstrip('/') for root in roots]
        if len(set(labels)) == len(labels):
            return labels
    raise UserError(f'the source {roots[0]} is given twice. Expected: each once. Next: leave one out.')


def options_for(options: Options, name: str, root: Path) -> Options:
    """The options for one of several sources, which number their classes differently.

    Raises:
        UserError: Its format has no names of classes, and nothing else names them.
    """
    if name == COLOR and options.palette:       # which names them; their order is that of all sources
        return dataclasses.replace(options, classes=None)
    if name == 'index' and options.classes is None:
        raise UserError(f'{root} has masks of class indices, without names, and several sources are united by the '
                        'names of their classes. Expected: names. Next: --classes with a name for each value; or '
                        'import it alone, and give the folder that this writes in its place.')
    return options


def united(parts: list[Classes], options: Options) -> tuple[Classes, list[dict[int, int]]]:
    """The classes of all sources, and a table for each: in the order of ``options.classes``, or that of the first
    source, to which others add.

    Raises:
        UserError: There are too many, or one that ``options.classes`` does not name.
    """
    if len(parts) == 1:
        return parts[0], [parts[0].table]
    colors = {}
    for part in parts:
        for name, color in zip(part.names, part.palette, strict=True):
            if name not in colors:
                free = next(iter(distinct_colors(1, {*colors.values(), *part.palette})))
                colors[name] = free if tuple(color) in colors.values() else tuple(color)
    order = [*colors]
    if options.classes is not None:
        unknown = [name for name in order if name not in options.classes and name.casefold() not in BACKGROUND_NAMES]
        if unknown:
            raise UserError(f'classes that --classes does not name: {", ".join(map(repr, unknown[:10]))}. Expected: '
                            f'{", ".join(options.classes[:20])}. Next: add them, or --rename "{unknown[0]}='
                            f'{options.classes[0]}".')
        order.sort(key=lambda name: options.classes.index(name) if name in options.classes else -1)
    if len(order) > MOST_CLASSES:
        raise UserError(f'the sources have {len(order)} classes together; expected: at most {MOST_CLASSES}')
    tables = [{code: IGNORE if index == IGNORE else order.index(part.names[index])
               for code, index in part.table.items()} for part in parts]
    return Classes(tuple(order), [colors[name] for name in order], {}), tables


def same_images(parts: list[Part], labelled: list[list[bool]]) -> dict[tuple[int, int], tuple[int, int]]:
    """Images that several sources have: from each that is not taken to the one that is, as places (source, sample).

    Labelled ones are taken before others, and those of later sources before those of earlier ones.
    """
    places = defaultdict(list)
    for k, part in enumerate(parts):
        for i, entry in enumerate(part.found):
            places[entry.digest].append((k, i))
    replaced = {}
    for group in places.values():
        best = max(group, key=lambda place: (labelled[place[0]][place[1]], place[0], -place[1]))
        replaced |= {place: best for place in group if place[0] != best[0]}
    return replaced


def note_on_same(replaced: dict[tuple[int, int], tuple[int, int]], parts: list[Part]) -> list[str]:
    if not replaced:
        return []
    (k, i), (kept, j) = min(replaced.items())
    return [f'{quantity(len(replaced), "image is", "images are")} in several sources, such as '
            f'{parts[k].shown(parts[k].samples[i].relative)} and {parts[kept].shown(parts[kept].samples[j].relative)}: '
            'taken once, with the labels of the last source that has any']


def formats_in_words(parts: list[Part]) -> str:
    return '; '.join(f'{part.label}: {FORMATS[part.format].what}' if part.label else FORMATS[part.format].what
                     for part in parts)
