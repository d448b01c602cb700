"""Polygons and run-length codes as label maps, and back.

COCO's polygons cover, to the pixel, what ``pycocotools`` has them cover, and its compressed run lengths are decoded
here too: its C code trusts a file's counts, and a file is untrusted. Tests compare both with it, bit for bit.
"""
import numpy as np

# Points per pixel and axis at which the outline of a polygon is traced, as pycocotools does (maskApi.c, rleFrPoly).
SCALE = 5
# Multiples of an image's side that a coordinate may be away from it.
FARTHEST = 16


def polygon_mask(points, height: int, width: int) -> np.ndarray:
    """The pixels that COCO's polygon covers, even-odd, (height, width) bool.

    The outline is traced at ``SCALE`` points a pixel; where it passes from column to column at the middle of a pixel,
    what is below it in that column is flipped.

    Args:
        points (array-like): (N, 2), x and y; pixel (i, j) is the square from (j, i) to (j + 1, i + 1).

    Raises:
        ValueError: It has fewer than 3 points, or some that are no finite numbers or far from the image.
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
    edge = np.repeat(np.arange(len(points)), count)
    place = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    along = np.where(flip, count - 1, 0)[edge] + np.where(flip, -1, 1)[edge] * place
    rise = (last - first)[np.arange(len(points)), np.where(flat, 1, 0)] / np.maximum(count - 1, 1)
    exact = first[edge].astype(float)
    flat = flat[edge]
    across = np.trunc(np.where(flat, exact[:, 1], exact[:, 0]) + rise[edge] * along + .5).astype(np.int64)
    x, y = np.where(flat, exact[:, 0] + along, across), np.where(flat, across, exact[:, 1] + along)

    left = np.where(x[1:] < x[:-1], x[1:], x[1:] - 1)
    column = (left + .5) / SCALE - .5
    used = (x[1:] != x[:-1]) & (np.floor(column) == column) & (column >= 0) & (column <= width - 1)
    row = np.ceil(np.clip((np.minimum(y[1:], y[:-1])[used] + .5) / SCALE - .5, 0, height)).astype(np.int64)
    flips = np.bincount(column[used].astype(np.int64) * height + row, minlength=height * width + 1)
    return (np.cumsum(flips[:height * width]) & 1).astype(bool).reshape(width, height).T


def coordinates(points, height, width):
    """(N, 2) float64 from a list of pairs of a file.

    Raises:
        ValueError: It is something else.
    """
    try:
        points = np.asarray(points, np.float64)
    except (TypeError, ValueError):
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
