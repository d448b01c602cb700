"""Which images are for training and which for validation: groups stay together, and each side gets every class."""
import re
from pathlib import PurePosixPath

import numpy as np

from ...errors import UserError, quantity
from .options import Options
from .palettes import read_text
from .tree import Tree

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


def listed(tree: Tree, path) -> set[str]:
    """The images that a file names, one a line, with or without folder and extension.

    Raises:
        UserError: A line names none.
    """
    by_stem = {}
    for file in tree.pictures():
        by_stem.setdefault(PurePosixPath(file).stem.casefold(), []).append(file)
    found = set()
    for number, line in enumerate(read_text(path).splitlines(), 1):
        name = line.strip()
        if not name or name.startswith('#'):
            continue
        try:
            found.add(tree.find(name))
        except LookupError as error:
            near = by_stem.get(PurePosixPath(name.replace('\\', '/')).name.casefold(), [])
            if not near:
                raise UserError(f'{path}, line {number}: {error}. Expected: a name of an image below the source a '
                                'line.') from error
            found.update(near)
    return found


def split(names: list[str], counts: np.ndarray, options: Options, tree: Tree) -> tuple[list[str], str]:
    """The split of each labelled image. Those in a folder named test are for testing, but for those that a list names.

    Args:
        names (list[str]): Their paths below the source.
        counts (np.ndarray): (images, classes), pixels.

    Returns:
        tuple[list[str], str]: A split for each, and how it came about, in words.

    Raises:
        UserError: There are fewer than two groups, or folders decide and there is a ``group``.
    """
    folders = [folder_split(name) for name in names]
    if options.val_list is not None:
        chosen = listed(tree, options.val_list)
        found = [VALIDATION if name in chosen else TEST if folder == TEST else TRAINING
                 for name, folder in zip(names, folders, strict=True)]
        how = f'by {options.val_list}'
    elif options.val is None and {TRAINING, VALIDATION} <= {*folders}:
        if options.group is not None:
            raise UserError(f'--group {options.group!r} does nothing where folders named train and val decide. Next: '
                            'leave it out, or give --val 0.2 to draw the validation images by groups.')
        found, how = [split or TRAINING for split in folders], 'as the folders of the source say'
    else:
        rest = [i for i, folder in enumerate(folders) if folder != TEST]
        if not rest:
            raise UserError(f'all {quantity(len(names), "labelled image")} are in folders named test, which are kept '
                            'for testing. Expected: images for training and for validation. Next: --val-list FILE can '
                            'name images of them for validation; or give the folder itself as the source.')
        drawn, how = draw([names[i] for i in rest], counts[rest], options)
        found = [TEST] * len(names)
        for i, split in zip(rest, drawn, strict=True):
            found[i] = split
    for needed in (TRAINING, VALIDATION):
        if needed not in found:
            raise UserError(f'no labelled image is for {needed} ({how}). Expected: at least one. Next: --val 0.2, or '
                            '--val-list FILE.')
    return found, how


def draw(names, counts, options):
    """A draw by groups, the best of ``DRAWS``: near the share asked for, its classes in the shares of all."""
    groups = {}
    for i, name in enumerate(names):
        groups.setdefault(group_of(name, options.group), []).append(i)
    members = list(groups.values())
    if len(members) < 2:
        raise UserError(
            f'{quantity(len(names), "labelled image")} in {quantity(len(members), "group")} cannot be split into '
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
    found = [TRAINING] * len(names)
    for rows, held in zip(members, best[1], strict=True):
        for i in rows:
            found[i] = VALIDATION if held else found[i]
    how = f'{100 * share:g} % drawn at random, seed {options.seed}'
    if options.group:
        how += f', in {len(members)} groups by {options.group!r}'
    return found, how
