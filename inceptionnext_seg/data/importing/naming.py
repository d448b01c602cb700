"""Names of images in annotation files and the files that they mean, all of a source together.

:meth:`.tree.Tree.find` takes the best file for one name. Whether it is the one that was meant, names and files
together tell: folders are moved, renamed and flattened after labels were written, and ``seq1/0001.jpg`` is not
``seq2/0001.jpg``.
"""
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ...errors import quantity
from .tree import agreeing, parts_of

SHOWN = 5


class Claim(NamedTuple):
    """A name, and the file that was found for it.

    Attributes:
        agreed (int): Trailing parts in which they agree, the folder of the source included.
        named (tuple[str, ...]): Folders of the name before these.
        there (tuple[str, ...]): Folders of the file before these, below the source.
    """
    agreed: int
    named: tuple[str, ...]
    there: tuple[str, ...]


def claim_of(root: tuple[str, ...], name: str, image: str) -> Claim:
    parts, own = parts_of(name), PurePosixPath(image.casefold()).parts
    agreed = agreeing((*root, *own), parts)
    return Claim(agreed, tuple(parts[:len(parts) - agreed]), own[:max(0, len(own) - agreed)])


def settled(folder: Path, found: Iterable[tuple[str, str]]) -> tuple[dict[tuple[str, str], str], list[str]]:
    """Which names do not mean the file that was found for them, and what a person should know of the others.

    A flat name, or a path of another machine whose end fits, means its file. So does a name in a folder that is not
    there: it was moved or renamed, which the lines say. It does not where another name fits the file better, or as
    well; where the file's folder has names of its own; and where the two folders are told apart by a number.

    Args:
        folder (Path): The source.
        found (Iterable[tuple[str, str]]): Names, and the images found for them.

    Returns:
        tuple[dict, list[str]]: From name and image to the reason, as the end of a sentence, and lines for the report.
    """
    root = PurePosixPath(folder.as_posix().casefold()).parts
    claims = {pair: claim_of(root, *pair) for pair in found}
    by_image, known = defaultdict(list), set()
    for (name, image), claim in claims.items():
        by_image[image].append(name)
        if claim.agreed > 1:
            folders = PurePosixPath(image.casefold()).parts[:-1]
            known.update(folders[:end] for end in range(len(claim.there) + 1, len(folders) + 1))
    best = {image: (*sorted(names, key=lambda name, image=image: rank(claims[name, image]), reverse=True)[:2], None)[:2]
            for image, names in by_image.items()}
    refused, moved = {}, Counter()
    for (name, image), claim in claims.items():
        if not claim.named:
            continue
        first, second = best[image]
        other = second if first == name else first
        reason = None
        if other is not None and rank(claims[other, image]) >= rank(claim):
            same = rank(claims[other, image]) == rank(claim)
            reason = f'that is {"as likely " if same else ""}{other[:200]!r}'
        elif claim.there in known:
            reason = f'other names are in {"/".join(claim.there)}'
        elif claim.there and are_numbered(claim.named[-1], claim.there[-1]):
            reason = f'{claim.named[-1]} is not {claim.there[-1]}. If it is: rename the folder'
        elif claim.there:
            moved['/'.join(claim.named), '/'.join(claim.there)] += 1
        if reason:
            refused[name, image] = f'names the image {name[:200]!r}, for which {image} was found; {reason}'
    lines = [f'{quantity(count, "image")} named in the folder {named[-200:]} found in {there}, which is taken for it, '
             'moved or renamed: look at the labels' for (named, there), count in moved.most_common(SHOWN)]
    if len(moved) > SHOWN:
        lines.append(f'{sum(moved.values())} images in all are in folders that were moved or renamed')
    return refused, lines


def rank(claim):
    """How well a name fits: wholly, or by how many parts."""
    return (True, 0) if not claim.named else (False, claim.agreed)


def are_numbered(first, second):
    """Whether two names differ in their numbers alone."""
    return re.sub(r'\d+', '#', first) == re.sub(r'\d+', '#', second)
