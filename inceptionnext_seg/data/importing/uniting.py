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


class Entry(NamedTuple):
    """An image of a source on its way to a split.

    Attributes:
        part (Part): The source.
        sample (Sample), found (Found): The image, and what is known of it.
        table (dict[int, int]): From integer of its labels to class index.
        counts (list[int]): Pixels by class, and at the end those that do not count.
        digest (str): Two entries with one are the same photograph.
    """
    part: Part
    sample: Sample
    found: Found
    table: dict[int, int]
    counts: list[int]
    digest: str

    @property
    def is_labelled(self) -> bool:
        return any(self.counts[:-1])

    @property
    def shown(self) -> str:
        return self.part.shown(self.sample.relative)

    @property
    def shown_sample(self) -> Sample:
        """The sample, with its paths as reports have them."""
        labels = self.sample.labels and self.part.shown(self.sample.labels)
        return self.sample._replace(relative=self.shown, labels=labels)


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
    for name in options.classes or ():      # in their order, whether any source has them or not
        if name not in colors:
            colors[name] = next(iter(distinct_colors(1, {*colors.values()})))
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


def entries_of(parts: list[Part], tables: list[dict[int, int]], classes: int) -> list[Entry]:
    """Every image of every source, in their order."""
    origins = {found.digest: sample.origin for part in parts
               for sample, found in zip(part.samples, part.found, strict=True) if sample.origin}
    return [Entry(part, sample, found, table, class_counts(found.counts or {}, table, classes),
                  origins.get(found.digest, found.digest))
            for part, table in zip(parts, tables, strict=True)
            for sample, found in zip(part.samples, part.found, strict=True)]


def class_counts(counts, table, classes):
    """Pixels by class, and at the end those that do not count."""
    row = [0] * (classes + 1)
    for code, pixels in counts.items():
        index = table[code]
        row[-1 if index == IGNORE else index] += pixels
    return row


def same_images(entries: list[Entry]) -> dict[int, int]:
    """Images that several sources have: from each that is not taken to the one that is, as indices.

    Labelled ones are taken before others, and those of later sources before those of earlier ones.
    """
    places = defaultdict(list)
    for i, entry in enumerate(entries):
        places[entry.digest].append(i)
    replaced = {}
    for group in places.values():
        best = max(group, key=lambda i: (entries[i].is_labelled, i))
        replaced |= {i: best for i in group if entries[i].part is not entries[best].part}
    return replaced


def note_on_same(replaced: dict[int, int], entries: list[Entry]) -> list[str]:
    if not replaced:
        return []
    i, kept = min(replaced.items())
    return [f'{quantity(len(replaced), "image is", "images are")} in several sources, such as {entries[i].shown} and '
            f'{entries[kept].shown}: taken once, with the labels of the last source that has any']


def formats_in_words(parts: list[Part]) -> str:
    return '; '.join(f'{part.label}: {FORMATS[part.format].what}' if part.label else FORMATS[part.format].what
                     for part in parts)
