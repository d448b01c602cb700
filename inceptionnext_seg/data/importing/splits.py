"""Which images are for training and which for validation: groups stay together, and each side gets every class."""
import re
from collections import defaultdict
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from ...errors import UserError, quantity
from .naming import settled
from .options import Options
from .palettes import read_text
from .tree import Tree, agreeing, parts_of

TRAINING, VALIDATION, TEST, UNLABELLED = 'training', 'validation', 'test', 'unlabelled'
FOLDERS = dict(
    train=TRAINING,
    training=TRAINING,
    val=VALIDATION,
    valid=VALIDATION,
    validation=VALIDATION,
    dev=VALIDATION,
    test=TEST,
    testing=TEST,
)
SHARE, DRAWS = 0.2, 400


def folder_split(relative: str) -> str | None:
    """The split that a folder of a path names."""
    return next((FOLDERS[part.casefold()] for part in PurePosixPath(relative).parts[:-1] if part.casefold() in FOLDERS),
                None)


def group_of(relative: str, group: str | None) -> str:
    """What an image shares with those that must not be apart from it; by default nothing.

    Raises:
        UserError: The regular expression does not fit the path, or is none.
    """
    if group is None:
        return relative
    if group == 'folder':
        return PurePosixPath(relative).parent.as_posix()
    try:
        found = re.search(group, relative)
    except re.error as error:
        raise UserError(f'--group {group!r} is no regular expression: {error}. Expected: one such as "^[^_]+", or '
                        '"folder".') from error
    if not found:
        raise UserError(f'--group {group!r} does not fit {relative}. Expected: a regular expression that fits every '
                        'path below the source, such as "[^/]+(?=_[0-9]+[.])", or "folder".')
    return '|'.join(part or '' for part in found.groups()) if found.groups() else found[0]


def listed(files: list[str], root: Path, path: Path, labelled: list[str]) -> tuple[set[str], list[str]]:
    """The labelled images that a file names, one a line, with or without folder and extension.

    Args:
        files (list[str]): All that is in the source.
        root (Path): The source.
        path (Path): The file.
        labelled (list[str]): The images, which are among ``files``.

    Returns:
        tuple[set, list]: The images, and lines for the report.

    Raises:
        UserError: A line names nothing in the source, or several images.
    """
    there, by_name = {name(file) for file in files for name in (stem_of, last_of)}, defaultdict(list)
    for image in labelled:
        for key in {stem_of(image), last_of(image)}:
            by_name[key].append(image)
    found, without = {}, []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        line = line.strip()
        if not line or line.startswith('#'):
            continue
        where = f'{path}, line {number}: {line[:200]!r}'
        parts = parts_of(line)
        near = (by_name.get(parts[-1]) or by_name.get(stem_of(parts[-1]), [])) if parts else []
        agreed = {image: (agreeing(parts_of(image)[:-1], parts[:-1]), PurePosixPath(image).name in line)
                  for image in near}
        best = [image for image in near if agreed[image] == max(agreed.values())]
        if not parts or (not near and parts[-1] not in there):
            raise UserError(f'{where} is not in the source. Expected: the name of an image with labels a line. Next: '
                            'correct it.')
        if len(best) > 1:
            raise UserError(f'{where} may be any of {", ".join(best[:3])}{" …" if len(best) > 3 else ""}. Expected: '
                            'one image. Next: name its folder, too.')
        if best:
            found['/'.join((*parts[:-1], last_of(best[0]))), best[0]] = number, line
        else:
            without.append((number, line))
    refused, notes = settled(root, found)
    without = sorted([*without, *(found[pair] for pair in refused)])
    if without:
        number, line = without[0]
        notes.append(f'{quantity(len(without), "line")} of {path}, such as line {number}, {line[:200]!r}, '
                     f'{"name" if len(without) > 1 else "names"} no image with labels')
    return {pair[1] for pair in found if pair not in refused}, notes


def last_of(path):
    return PurePosixPath(path).name.casefold()


def stem_of(path):
    return PurePosixPath(path).stem.casefold()


class Labelled(NamedTuple):
    """The labelled images of a source.

    Attributes:
        tree (Tree): Its files.
        label (str): What its paths begin with in lists and reports; empty for a single source.
        names (list[str]): The images, below the source.
        digests (list[str]): Of their pixels.
        counts (np.ndarray): (images, classes), pixels.
    """
    tree: Tree
    label: str
    names: list[str]
    digests: list[str]
    counts: np.ndarray

    def shown(self, path: str) -> str:
        return f'{self.label}/{path}' if self.label else path


def split(sources: list[Labelled], options: Options) -> tuple[list[list[str]], str, list[str]]:
    """The split of each labelled image. Those in a folder named test are for testing, but for those that a list names.

    Each of several sources is divided by itself, unless a list or the names of the sources decide.

    Returns:
        tuple[list[list[str]], str, list[str]]: A split for each image of each source, how it came about, in words, and
            lines for the report.

    Raises:
        UserError: There are fewer than two groups, or folders decide and there is a ``group``.
    """
    notes, own = [], [FOLDERS.get(source.tree.root.name.casefold()) for source in sources]
    if options.val_list is not None:
        found, notes = by_list(sources, options.val_list)
        how, drawn = f'by {options.val_list}', True
    elif options.val is None and len(sources) > 1 and {TRAINING, VALIDATION} <= {*own}:
        found = [[side or TRAINING] * len(source.names) for side, source in zip(own, sources, strict=True)]
        how, drawn = 'as the names of the sources say', False
    else:
        parts = [divided(source, options, len(sources) == 1) for source in sources]
        found = [part for part, _, _ in parts]
        how = '; '.join(f'{source.label}: {words}' if source.label else words
                        for source, (_, words, _) in zip(sources, parts, strict=True))
        drawn = any(drawn for *_, drawn in parts)
    if options.group is not None and not drawn:
        raise UserError(f'--group {options.group!r} does nothing where folders named train and val decide. Next: '
                        'leave it out, or give --val 0.2 to draw the validation images by groups.')
    require_both(found, [how, *notes])
    return found, how, notes


def require_both(sides: list[list[str]], why: list[str]) -> None:
    """Raises UserError, with the lines of ``why``, where no labelled image is for training, or none for validation."""
    for needed in (TRAINING, VALIDATION):
        if not any(needed in part for part in sides):
            raise UserError(f'no labelled image is for {needed} ({"; ".join(why)}). Expected: at least one. '
                            'Next: --val 0.2, or --val-list FILE.')


def by_list(sources, path):
    """The splits of all images where a file names those for validation, and lines for the report."""
    files = [source.shown(file) for source in sources for file in (
        *source.tree.files, *(entry.path for entry in source.tree.left_out))]
    names = [[source.shown(name) for name in source.names] for source in sources]
    root = sources[0].tree.root if len(sources) == 1 else Path()
    chosen, notes = listed(files, root, path, [name for part in names for name in part])
    return [[VALIDATION if name in chosen else TEST if folder_split(own) == TEST else TRAINING
             for name, own in zip(part, source.names, strict=True)]
            for part, source in zip(names, sources, strict=True)], notes


def divided(source, options, alone):
    """The splits of one source's images by its folders or by a draw, how in words, and whether it was drawn.

    One of several sources may have too few images for a draw: all are then for training.
    """
    names, folders = source.names, [folder_split(name) for name in source.names]
    if options.val is None and {TRAINING, VALIDATION} <= {*folders}:
        return [folder or TRAINING for folder in folders], 'as the folders of the source say', False
    rest = [i for i, folder in enumerate(folders) if folder != TEST]
    if not rest and alone:
        raise UserError(f'all {quantity(len(names), "labelled image")} are in folders named test, which are kept '
                        'for testing. Expected: images for training and for validation. Next: --val-list FILE can '
                        'name images of them for validation; or give the folder itself as the source.')
    groups = groups_of([names[i] for i in rest], [source.digests[i] for i in rest], options.group)
    if not alone and len(groups) < 2:
        return [TEST if folder == TEST else TRAINING for folder in folders], 'all for training, too few to draw from', \
            True
    drawn, how = draw(groups, source.counts[rest], options)
    found = [TEST] * len(names)
    for i, side in zip(rest, drawn, strict=True):
        found[i] = side
    return found, how, True


def groups_of(names, digests, group):
    """Indices of the images that stay on one side: of a group, or copies of one image."""
    first = [*range(len(names))]

    def root(i):
        while first[i] != i:
            i = first[i]
        return i

    for keys in ([group_of(name, group) for name in names], digests):
        seen = {}
        for i, key in enumerate(keys):
            first[root(i)] = root(seen.setdefault(key, i))
    groups = defaultdict(list)
    for i in range(len(names)):
        groups[root(i)].append(i)
    return [*groups.values()]


def draw(members, counts, options):
    """A draw by groups, the best of ``DRAWS``: near the share asked for, its classes in the shares of all."""
    if len(members) < 2:
        raise UserError(
            f'{quantity(len(counts), "labelled image")} in {quantity(len(members), "group")} cannot be split into '
            'training and validation. Expected: at least two. Next: label more images'
            f'{", or another --group" if options.group else ""}.')
    share = options.val or SHARE
    present = np.array([(counts[rows] > 0).any(0) for rows in members])
    pixels = np.array([counts[rows].sum(0) for rows in members], np.float64)
    sizes = np.array([len(rows) for rows in members])
    spread = present.sum(0) >= 2        # classes that can be on both sides
    whole = pixels.sum(0) / max(pixels.sum(), 1)
    random, best = np.random.default_rng(options.seed), None
    for _ in range(DRAWS):
        order = random.permutation(len(members))
        ends = np.cumsum(sizes[order])
        last = int(np.clip(np.abs(ends - share * sizes.sum()).argmin() + 1, 1, len(members) - 1))
        chosen = np.zeros(len(members), bool)
        chosen[order[:last]] = True
        missing = (spread & ~present[~chosen].any(0)).sum() * 2 + (spread & ~present[chosen].any(0)).sum()
        own = pixels[chosen].sum(0)
        cost = (present[chosen].any(0) & ~present[~chosen].any(0)).sum() + missing + np.abs(
            own / max(own.sum(), 1) - whole).sum() + 4 * abs(sizes[chosen].sum() / sizes.sum() - share)
        if best is None or cost < best[0]:
            best = cost, chosen
    found = [TRAINING] * len(counts)
    for rows, held in zip(members, best[1], strict=True):
        for i in rows:
            found[i] = VALIDATION if held else found[i]
    how = f'{100 * share:g} % drawn at random, seed {options.seed}'
    if options.group:
        how += f', in {len(members)} groups by {options.group!r}'
    return found, how
