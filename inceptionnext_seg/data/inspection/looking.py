"""Every image and mask of a listing decoded, in threads, and what they have in common."""
import hashlib
from collections import Counter
from multiprocessing.pool import ThreadPool
from typing import NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from ...errors import quantity
from ..decoding import FORMATS, check_sample
from ..exif import orientation, upright
from ..importing.pictures import facts_of, fingerprint, rgb_of
from ..importing.surveying import copies, look_alike
from ..threads import any_size, threads
from .listing import UNLABELLED, Item, Listing

SHOWN = 10


class Look(NamedTuple):
    """What was found of an item.

    Attributes:
        problem (str | None): Why it cannot be trained on; nothing else is known then.
        remarks (list[str]): What becomes something else in training, such as 'CMYK'.
        size (tuple[int, int] | None): Width and height.
        counts (np.ndarray | None): (256, ), pixels by value of the mask.
        digest (str | None): Of the image's pixels.
        look (np.ndarray | None): :func:`..importing.pictures.fingerprint`.
    """
    problem: str | None
    remarks: list[str]
    size: tuple[int, int] | None = None
    counts: np.ndarray | None = None
    digest: str | None = None
    look: np.ndarray | None = None


class Findings(NamedTuple):
    """What a check found.

    Attributes:
        looks (list[Look]): Of each item.
        errors (list[str]): What has to be corrected, a line each.
        warnings (list[str]): What a person should know.
        counts (dict[str, np.ndarray]): For each split, (images with masks, 256) pixels by value.
        sizes (Counter): Images by (width, height).
    """
    looks: list[Look]
    errors: list[str]
    warnings: list[str]
    counts: dict[str, np.ndarray]
    sizes: Counter


def look_at(item: Item, listing: Listing) -> Look:
    """Decode an item; what is wrong with it is what :func:`..decoding.check_sample` says before training."""
    sample = dict(img_path=str(item.image))
    if item.mask is not None:
        sample['seg_map_path'] = str(item.mask)
    problem = check_sample(sample, listing.expected)
    if problem:
        return Look(problem, [])
    try:
        with Image.open(item.image, formats=FORMATS) as file:
            facts = facts_of(file)
            picture = rgb_of(file, 'high-byte')
        digest = hashlib.blake2b(np.asarray(picture).tobytes(), digest_size=16).hexdigest()
        return Look(None, facts.remarks(), facts.size, None if item.mask is None else np.bincount(
            mask_of(item.mask).ravel(), minlength=256), digest, fingerprint(picture))
    except Exception as error:  # what OpenCV reads and Pillow does not, or a file that changes meanwhile
        return Look(f'{item.image}: cannot be read ({error or type(error).__name__})', [])


def mask_of(path) -> np.ndarray:
    """The values of a mask, (H, W) uint8, upright."""
    with Image.open(path, formats=FORMATS) as file:
        turn = orientation(file)
        return upright(np.asarray(file).astype(np.uint8), turn)


def inspect(listing: Listing, progress: bool = True) -> Findings:
    """Look at every item of a listing, and compare them."""
    with any_size(), ThreadPool(threads()) as pool:
        found = pool.imap(lambda item: look_at(item, listing), listing.items)
        looks = list(tqdm(found, total=len(listing.items), desc='checking', unit='image', disable=not progress))
    errors = [*listing.problems, *(look.problem for look in looks if look.problem)]
    good = [(item, look) for item, look in zip(listing.items, looks, strict=True) if not look.problem]
    counts = {}
    for item, look in good:
        if look.counts is not None:
            counts.setdefault(item.split, []).append(look.counts)
    counts = {split: np.array(rows) for split, rows in counts.items()}
    warnings = [f'{quantity(count, "image")} with {remark}' for remark, count in Counter(
        remark for _, look in good for remark in look.remarks).items()]
    blank = [item for item, look in good if look.counts is not None and not look.counts[first_and_last(listing)].any()]
    if blank:
        warnings.append(f'{quantity(len(blank), "mask has", "masks have")} no pixel of a class, such as '
                        f'{blank[0].mask}')
    errors += classes_missing(listing, counts, 'training')
    warnings += classes_missing(listing, counts, 'validation')
    apart, beside = shared_images(good)
    errors += apart
    return Findings(looks, errors, warnings + beside, counts, Counter(look.size for _, look in good))


def first_and_last(listing):
    """The slice of the values that are classes."""
    last = len(listing.classes) + listing.first if listing.classes else 255
    return slice(listing.first, last)


def classes_missing(listing, counts, split):
    """Lines about classes that no mask of a split has."""
    if split not in counts:
        return [f'no image with a mask is in {split}']
    if not listing.classes:
        return []
    pixels = counts[split].sum(0)
    names = [name for i, name in enumerate(listing.classes, listing.first) if not pixels[i]]
    return [f'{quantity(len(names), "class has", "classes have")} no pixel in {split}: {", ".join(names[:SHOWN])}'
            f'{" …" if len(names) > SHOWN else ""}'] if names else []


def shared_images(good):
    """Lines about images that are in two splits, and about those that are twice in one or nearly so."""
    split_of = {str(item.image): item.split for item, _ in good}
    apart, beside = [], []
    for group in copies({str(item.image): look.digest for item, look in good}):
        splits = {split_of[name] for name in group} - {UNLABELLED}
        (apart if len(splits) > 1 else beside).append(
            f'{" and ".join(group[:3])}{" and others" if len(group) > 3 else ""} are one image'
            f'{", in " + " and ".join(sorted(splits)) if len(splits) > 1 else ""}')
    sides = [{str(item.image): look.look for item, look in good if item.split == split}
             for split in ('training', 'validation')]
    near = look_alike(*sides)
    if near:
        first = next(iter(near.items()))
        beside.append(
            f'{len(near)} of {len(sides[1])} validation images look almost like one in training, such as '
            f'{first[0]} and {first[1]}: scores will be too good. If they are of one sequence or place, import '
            'with --group'
        )
    return apart, beside


def summary(listing: Listing, findings: Findings) -> str:
    """The findings as text."""
    splits = Counter(item.split for item in listing.items)
    lines = [f'{listing.name}: ' + ', '.join(f'{count} {split}' for split, count in splits.items())]
    sizes = [f'{width}×{height} ({count})' for (width, height), count in findings.sizes.most_common(5)]
    lines.append(
        f'sizes: {", ".join(sizes)}' + (f' and {len(findings.sizes) - 5} others' if len(findings.sizes) > 5 else '')
    )
    for _, name, cells in class_rows(listing, findings):
        lines.append(
            f'  {name:<24} ' + '   '.join(f'{split} {100 * share:6.2f} % in {images}' for split, share, images in cells)
        )
    lines += [f'warning: {line}' for line in findings.warnings]
    lines += [f'error: {line}' for line in findings.errors[:4 * SHOWN]]
    if len(findings.errors) > 4 * SHOWN:
        lines.append(f'and {quantity(len(findings.errors) - 4 * SHOWN, "more error")}; all of them in the page')
    lines.append(f'{quantity(len(findings.errors), "error")}, {quantity(len(findings.warnings), "warning")}')
    return '\n'.join(lines)


def class_rows(listing: Listing, findings: Findings):
    """``(index, name, [(split, share of the labelled pixels, images with it)])`` of each class, or each value that
    occurs; the index is that of its colour in the palette.
    """
    values = range(listing.first, listing.first + len(listing.classes)) if listing.classes else sorted(
        {int(value) for rows in findings.counts.values() for value in np.flatnonzero(rows.sum(0))} - {255})
    for value in values:
        name = listing.classes[value - listing.first] if listing.classes else f'value {value}'
        cells = []
        for split, rows in findings.counts.items():
            whole = rows.sum(0)[first_and_last(listing)].sum()
            cells.append((split, rows[:, value].sum() / max(1, whole), int((rows[:, value] > 0).sum())))
        yield value - listing.first, name, cells
