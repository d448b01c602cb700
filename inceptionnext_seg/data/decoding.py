"""Whether an image and its mask can be trained on: both are decoded to their end, and compared."""
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from .exif import upright_size, why_unfit

# By content: Pillow starts programs for some others, as Ghostscript for EPS. A JPEG of several pictures opens as 'MPO'.
FORMATS = ('BMP', 'GIF', 'JPEG', 'PNG', 'PPM', 'TIFF', 'WEBP')
Image.init()    # Pillow knows some of these only then
# One pixel of the logits, which UperNet and Semantic FPN have at stride 4.
LEAST_SIDE = 4
# The highest value of an image of 16 bits a channel that leaves it 64 levels of the 256 that it is trained on with.
LEAST_HIGHEST = 2**14


class Expectation(NamedTuple):
    """What the masks of a data set may hold, and how small an image may become.

    Attributes:
        values (bytes): 256 of them, 1 where the value is a class or ignored.
        words (str): These values, for a message.
        resize (tuple | None): ``(long side, short side)`` in pixels at most, which images are resized to, as by
            mmcv's ``Resize(keep_ratio=True)``, times the smallest ratio of ``RandomResize``; None where they are not.
        least_side (int): Pixels that the shorter side must have after that; :data:`LEAST_SIDE` as it is stored.
        most_pixels (int | None): That an image may have.
    """
    values: bytes
    words: str
    resize: tuple | None = None
    least_side: int = LEAST_SIDE
    most_pixels: int | None = None


def most_pixels():
    """What Pillow, which loads the masks, opens at most; a program that needs more sets its ``MAX_IMAGE_PIXELS``."""
    return None if Image.MAX_IMAGE_PIXELS is None else 2 * Image.MAX_IMAGE_PIXELS


def resizing_of(pipeline):
    """``resize`` of :class:`Expectation` for the built transforms of a data set, and whether it can be told."""
    for step in getattr(pipeline, 'transforms', ()):
        if 'Resize' not in type(step).__name__:
            continue
        scale, ratios = getattr(step, 'scale', None), getattr(step, 'ratio_range', None) or (1., 1.)
        keep = getattr(step, 'keep_ratio', getattr(step, 'resize_cfg', {}).get('keep_ratio', False))
        if keep and isinstance(scale, tuple | list) and len(scale) == 2 and all(isinstance(x, int) for x in scale):
            return (max(scale) * min(ratios), min(scale) * min(ratios)), True
        return None, False
    return None, True


def why_missing(path):
    """Why there is no file at a path, or None where one is."""
    path = Path(path)
    try:
        if path.is_file():
            return None
        if path.is_symlink():
            return f'is a symbolic link to {path.readlink()}, which is not there'
        return 'is a folder' if path.is_dir() else 'is not there'
    except OSError as error:
        return f'cannot be read ({error.strerror})'


def why_wrong_size(size, expected):
    """Why an image of this width and height cannot be trained on, or None where it can."""
    width, height = size
    if expected.most_pixels is not None and width * height > expected.most_pixels:
        return (f'has {width}×{height} pixels, {3 * width * height / 2**30:.1f} GiB when decoded; expected: at most '
                f'{expected.most_pixels} pixels, which is what Pillow opens. Cut it into tiles')
    if min(size) < LEAST_SIDE:
        return f'is {width}×{height} pixels; expected: at least {LEAST_SIDE} on each side'
    small, how = size, ''
    if expected.resize:
        factor = min(expected.resize[0] / max(size), expected.resize[1] / min(size))
        small = int(width * factor + 0.5), int(height * factor + 0.5)  # mmcv/image/geometric.py, rescale_size
        how = f', and {small[0]}×{small[1]} as the pipeline resizes it'
    if min(small) < expected.least_side:
        return f'is {width}×{height} pixels{how}; expected: at least {expected.least_side} on each side'
    return None


def decode_by_opencv(path):
    """Size (width, height) of an image that Pillow does not know, as training decodes it; None where it cannot."""
    try:
        pixels = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None
    return None if pixels is None else pixels.shape[1::-1]


def why_wrong_depth(picture):
    """Why an open image of more than 8 bits a channel cannot be trained on, or None where it can.

    OpenCV, which decodes images for training, keeps the upper 8 of 16 bits.
    """
    raw = picture.tile[0][3] if picture.tile else ''
    if '16' not in str(raw) and picture.mode not in ('I', 'F'):
        return None
    content = np.fromfile(picture.filename, np.uint8)
    try:
        pixels, loaded = (cv2.imdecode(content, flag) for flag in (cv2.IMREAD_UNCHANGED, cv2.IMREAD_COLOR))
    except cv2.error:
        pixels = loaded = None
    if pixels is None or loaded is None:
        return f'has values of mode {picture.mode}, which OpenCV does not load; expected: 8 bits a channel'
    if pixels.dtype == np.uint16 and pixels.max() < LEAST_HIGHEST:
        return (f'has 16 bits a channel and no value above {pixels.max()}: training takes the upper 8 bits, in which '
                f'only 0 to {loaded.max()} would be left; expected: 8 bits, or values up to 65535. Scale it')
    return None


def check_sample(sample, expected):
    """None, or what is wrong with an image and its mask: ``PATH: what was found; expected: …``.

    Args:
        sample (dict): ``img_path`` and, for a set with masks, ``seg_map_path``, of mmseg's data sets.
        expected (Expectation): What is allowed.
    """
    image, mask = sample['img_path'], sample.get('seg_map_path')
    for path in (image, mask):
        problem = path and why_missing(path)
        if problem:
            of = f', the mask of the image {image}' if path == mask else ''
            return f'{path}{of}: {problem}'
    path = image
    try:
        with Image.open(image, formats=FORMATS) as picture:
            problem = why_wrong_size(upright_size(picture), expected)
            if problem:
                return f'{image}: {problem}'
            if mask:
                path = mask
                with Image.open(mask, formats=FORMATS) as file:
                    problem = why_unfit(picture, file) or why_wrong_values(file, expected)
                if problem:
                    return f'{mask}: {problem}'
                path = image
            if picture.format == 'JPEG':  # an eighth of the pixels need all bytes too
                picture.draft(None, tuple(max(1, side // 8) for side in picture.size))
            problem = why_wrong_depth(picture)
            if problem:
                return f'{image}: {problem}'
            picture.load()
    except UnidentifiedImageError:
        size = decode_by_opencv(path) if path == image else None
        if size is None:
            return f'{path}: cannot be read as a picture ({Path(path).stat().st_size} bytes)'
        problem = why_wrong_size(size, expected)
        return f'{path}: {problem}' if problem else None
    # Beside OSError, a damaged file has Pillow raise SyntaxError, ValueError, struct.error, zlib.error, ...
    except Exception as error:
        return f'{path}: cannot be read ({error or type(error).__name__})'
    return None


def why_wrong_values(file, expected):
    """Why an open mask cannot be used, or None where it can."""
    pixels = file.size[0] * file.size[1]
    if expected.most_pixels is not None and pixels > expected.most_pixels:
        return why_wrong_size(file.size, expected)
    mask = np.asarray(file)
    if mask.ndim != 2 or mask.dtype not in (np.uint8, bool):
        return f'has shape {mask.shape} and type {mask.dtype}; expected: one channel of 8-bit class indices'
    values = np.flatnonzero(np.bincount(mask.ravel().view(np.uint8), minlength=256))
    wrong = [value for value in values if not expected.values[value]]
    if wrong:
        return f'has the value{"s" * (len(wrong) > 1)} {", ".join(map(str, wrong))}; expected: {expected.words}'
    return None
