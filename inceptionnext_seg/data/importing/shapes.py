"""Polygons and run-length codes as label maps, and back.

COCO's polygons cover, to the pixel, what ``pycocotools`` has them cover, and its compressed run lengths are decoded
here too: its C code trusts a file's counts, and a file is untrusted. Tests compare both with it, bit for bit.
"""
from typing import NamedTuple

import numpy as np

# Points per pixel and axis at which the outline of a polygon is traced, as pycocotools does (maskApi.c, rleFrPoly).
SCALE = 5
# Multiples of an image's side that a coordinate may be away from it.
FARTHEST = 16
# Points of an outline at most: 3.4 million pixels around one shape. They are traced in parts, in bounded memory.
MOST_TRACED, TRACED_AT_ONCE = 2**24, 2**18


def polygon_mask(points, height: int, width: int) -> np.ndarray:
    """The pixels that COCO's polygon covers, even-odd, (height, width) bool.

    The outline is traced at ``SCALE`` points a pixel; where it passes from column to column at the middle of a pixel,
    what is below it in that column is flipped.

    Args:
        points (array-like): (N, 2), x and y; pixel (i, j) is the square from (j, i) to (j + 1, i + 1).

    Raises:
        ValueError: It has fewer than 3 points, or some that are no finite numbers or far from the image; or too long an
            outline.
    """
    points = coordinates(points, height, width)
    if len(points) < 3:
        raise ValueError(f'has a polygon of {len(points)} points; expected: at least 3')
    ends = np.trunc(SCALE * points + .5).astype(np.int64)
    start, end = ends, np.roll(ends, -1, 0)
    steps = np.abs(end - start)
    flat = steps[:, 0] >= steps[:, 1]       # one point for each x, or for each y
    flip = np.where(flat, start[:, 0] > end[:, 0], start[:, 1] > end[:, 1])
    first, last = np.where(flip[:, None], end, start), np.where(flip[:, None], start, end)
    count = steps.max(1) + 1
    ends = np.cumsum(count)
    if ends[-1] > MOST_TRACED:
        raise ValueError(f'has an outline of {ends[-1] // SCALE} pixels; expected: at most {MOST_TRACED // SCALE}')
    rise = (last - first)[np.arange(len(points)), np.where(flat, 1, 0)] / np.maximum(count - 1, 1)
    edges = Edges(first, rise, flat, flip, count, ends)
    crossed = [crossings(edges, low, height, width) for low in range(0, int(ends[-1]), TRACED_AT_ONCE)]
    flips = np.bincount(np.concatenate(crossed), minlength=height * width + 1)
    return (np.cumsum(flips[:height * width]) & 1).astype(bool).reshape(width, height).T


class Edges(NamedTuple):
    """The edges of a polygon as they are traced: for each its first point, the rise per step, whether its steps go
    along x, whether it is traced backwards, the number of its points, and that of all points up to its end.
    """
    first: np.ndarray
    rise: np.ndarray
    flat: np.ndarray
    flip: np.ndarray
    count: np.ndarray
    ends: np.ndarray


def crossings(edges, low, height, width):
    """Where the outline's points from ``low`` on pass from column to column at the middle of a pixel: indices of
    pixels, columns after columns; the flip is from each on.
    """
    # From the point before on: each step is of one part.
    point = np.arange(max(low - 1, 0), min(low + TRACED_AT_ONCE, int(edges.ends[-1])))
    edge = np.searchsorted(edges.ends, point, 'right')
    first, flat, flip, count = edges.first[edge], edges.flat[edge], edges.flip[edge], edges.count[edge]
    place = point - (edges.ends[edge] - count)
    along = np.where(flip, count - 1 - place, place)
    across = np.trunc(np.where(flat, first[:, 1], first[:, 0]) + edges.rise[edge] * along + .5).astype(np.int64)
    x, y = np.where(flat, first[:, 0] + along, across), np.where(flat, across, first[:, 1] + along)
    left = np.where(x[1:] < x[:-1], x[1:], x[1:] - 1)
    column = (left + .5) / SCALE - .5
    used = (x[1:] != x[:-1]) & (np.floor(column) == column) & (column >= 0) & (column <= width - 1)
    row = np.ceil(np.clip((np.minimum(y[1:], y[:-1])[used] + .5) / SCALE - .5, 0, height)).astype(np.int64)
    return column[used].astype(np.int64) * height + row


def coordinates(points, height, width):
    """(N, 2) float64 from a list of pairs of a file.

    Raises:
        ValueError: It is something else.
    """
    try:
        points = np.asarray(points, np.float64)
    except (TypeError, ValueError, OverflowError):
        raise ValueError('has points that are no numbers') from None
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(f'has points of shape {points.shape}; expected: pairs of x and y')
    if not np.isfinite(points).all() or np.abs(points).max(initial=0) > FARTHEST * max(height, width):
        raise ValueError(f'has points far from its image of {width}×{height} pixels')
    return points


def is_outside(points, height, width):
    """Whether no point of a shape's bounding box is in the image."""
    low, high = np.min(points, 0), np.max(points, 0)
    return bool((high < 0).any() or low[0] > width or low[1] > height)


def runs_of(code, pixels: int) -> np.ndarray:
    """The counts of COCO's run-length code, (N, ) int64: zeros, ones, zeros, … down the columns.

    Args:
        code (list[int] | str): Counts, or as COCO compresses them: 5 bits a letter from '0' on, the sixth where more
            follow, the highest of the last as the sign; from the fourth on the difference to the last but one.
        pixels (int): That they have to add up to.

    Raises:
        ValueError: They are something else.
    """
    if isinstance(code, str | bytes):
        text = code.encode('latin-1', 'replace') if isinstance(code, str) else code
        counts, i = [], 0
        while i < len(text):
            value, shift = 0, 0
            while True:
                letter = text[i] - 48 if i < len(text) else -1
                if not 0 <= letter < 64 or shift > 35:
                    raise ValueError('has a run-length code that is cut or damaged')
                value |= (letter & 31) << shift
                shift, i = shift + 5, i + 1
                if not letter & 32:
                    break
            if letter & 16:
                value -= 1 << shift
            counts.append(value + counts[-2] if len(counts) > 2 else value)
            if not 0 <= counts[-1] <= pixels:
                raise ValueError(f'has a run of {counts[-1]} pixels in an image of {pixels}')
        counts = np.array(counts, np.int64)
    else:
        if not isinstance(code, list) or not all(type(count) is int and 0 <= count <= pixels for count in code):
            raise ValueError('has a run-length code that is no list of counts')
        counts = np.array(code, np.int64)
    if counts.sum() != pixels:
        raise ValueError(f'has a run-length code of {counts.sum()} pixels; its image has {pixels}')
    return counts


def compressed(mask: np.ndarray) -> str:
    """COCO's compressed run-length code of a mask (H, W)."""
    flat = np.asarray(mask, bool).ravel('F')
    changes = np.flatnonzero(np.diff(flat.view(np.int8))) + 1
    counts = np.diff(np.concatenate(([0], changes, [flat.size])))
    counts = ([0] if flat.size and flat[0] else []) + counts.tolist()
    text = []
    for i, count in enumerate(counts):
        value = count - counts[i - 2] if i > 2 else count
        while True:
            letter, value = value & 31, value >> 5
            more = value != (-1 if letter & 16 else 0)
            text.append(chr(48 + letter + 32 * more))
            if not more:
                break
    return ''.join(text)


def filled(runs: np.ndarray) -> np.ndarray:
    """The pixels that run lengths describe, flat, bool: the first run is of zeros."""
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs)


def coco_rle_mask(code, height: int, width: int) -> np.ndarray:
    """(height, width) bool, of :func:`runs_of`."""
    return filled(runs_of(code, height * width)).reshape(width, height).T
