"""The first reading: every image decoded and every label counted, before anything is written."""
import hashlib
from collections import Counter, defaultdict
from multiprocessing.pool import ThreadPool
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from ..threads import any_size, threads
from .options import Options
from .pictures import Facts, facts_of, fingerprint, opened, rgb_of
from .samples import Sample, Survey


class Found(NamedTuple):
    """What the first reading found of a sample.

    Attributes:
        facts (Facts): Of its image.
        digest (str): Of its pixels: two images with one are the same.
        look (np.ndarray): :func:`.pictures.fingerprint`.
        counts (dict[int, int] | None): From integer of its labels to pixels; None where it has none.
    """
    facts: Facts
    digest: str
    look: np.ndarray
    counts: dict[int, int] | None


def counts_of(labels: np.ndarray) -> dict[int, int]:
    """From integer to pixels of a label map: of its runs, which are few, and not of its pixels."""
    flat = labels.ravel()
    starts = np.concatenate(([0], np.flatnonzero(flat[1:] != flat[:-1]) + 1))
    codes, place = np.unique(flat[starts], return_inverse=True)
    pixels = np.bincount(place, np.diff(np.concatenate((starts, [flat.size]))))
    return {int(code): int(count) for code, count in zip(codes, pixels, strict=True)}


def look_at(sample: Sample, options: Options) -> Found | str:
    """What is known of a sample, or why it is left out, as the end of a sentence."""
    try:
        with opened(sample.image) as file:
            facts = facts_of(file)
            picture = rgb_of(file, options.sixteen_bit)
            digest = hashlib.blake2b(np.asarray(picture).tobytes(), digest_size=16).hexdigest()
            look = fingerprint(picture)
        return Found(facts, digest, look, None if sample.read is None else counts_of(sample.read(facts)))
    except ValueError as error:
        return str(error)


def look_at_all(samples: list[Sample], options: Options, progress: bool = True) -> list[Found | str]:
    """:func:`look_at` of every sample, in order, in threads: decoding runs outside Python's lock."""
    with any_size(), ThreadPool(threads()) as pool:
        found = pool.imap(lambda sample: look_at(sample, options), samples)
        return list(tqdm(found, total=len(samples), desc='reading', unit='image', disable=not progress))


def survey_of(found: list[Found]) -> Survey:
    """What all labels together hold."""
    pixels, images, labelled = Counter(), Counter(), 0
    for entry in found:
        if entry.counts is not None:
            pixels.update(entry.counts)
            images.update(entry.counts.keys())
            labelled += 1
    return Survey(dict(pixels), dict(images), labelled)


def copies(digests: dict[str, str]) -> list[list[str]]:
    """Groups of names whose images are the same, from name to digest."""
    groups = defaultdict(list)
    for name, digest in digests.items():
        groups[digest].append(name)
    return [group for group in groups.values() if len(group) > 1]


def look_alike(first: dict[str, np.ndarray], second: dict[str, np.ndarray], most: int = 5) -> dict[str, str]:
    """Names in ``second`` to names in ``first`` whose images look almost the same: at most ``most`` of 64 bits differ.

    Images without structure, which all look alike, are not compared.
    """
    def structured(looks):
        return {name: look for name, look in looks.items() if 12 <= look.sum() <= 52}

    first, second = structured(first), structured(second)
    if not first or not second:
        return {}
    names, bits = list(first), np.array(list(first.values()))
    pairs = {}
    for name, look in second.items():
        away = (bits != look).sum(1)
        if away.min() <= most:
            pairs[name] = names[int(away.argmin())]
    return pairs
