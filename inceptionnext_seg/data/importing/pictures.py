"""Pictures of others, read with their size looked at first, and converted to what training reads: upright, 8 bits,
RGB.
"""
import contextlib
import io
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageCms

from ..decoding import FORMATS, LEAST_SIDE
from ..exif import FIRST_SWAPPED, UPRIGHT, orientation, upright, upright_size

# Twice Image.MAX_IMAGE_PIXELS, which Pillow refuses to open.
MOST_PIXELS = 178_956_970
SIXTEEN_BIT = ('refuse', 'high-byte', 'stretch')
LEVELS = 256


class Facts(NamedTuple):
    """What is known of a picture before its pixels are read.

    Attributes:
        size (tuple[int, int]): Width and height as viewers show it.
        turn (int): Its EXIF orientation.
        deep (bool): Whether it has more than 8 bits a channel.
        mode (str), format (str): Pillow's.
    """
    size: tuple[int, int]
    turn: int
    deep: bool
    mode: str
    format: str

    @property
    def is_plain(self) -> bool:
        """Whether its file can be used as it is."""
        return self.turn == UPRIGHT and not self.deep and self.mode in ('RGB', 'L')

    @property
    def stored_size(self) -> tuple[int, int]:
        """Width and height of the pixels in the file."""
        return self.size[::-1] if self.turn >= FIRST_SWAPPED else self.size

    def remarks(self):
        """What about it becomes something else in training, in words."""
        return [words for words, holds in (
            (f'EXIF orientation {self.turn}', self.turn != UPRIGHT), ('CMYK', self.mode == 'CMYK'),
            ('an alpha channel', self.mode in ('RGBA', 'LA', 'PA', 'La', 'RGBa')), ('16 bits a channel', self.deep),
            ('a palette', self.mode == 'P')) if holds]


def facts_of(file) -> Facts:
    """Of an open Pillow image."""
    deep = file.mode.startswith('I') or file.mode == 'F' or any(';16' in str(tile) for tile in file.tile)
    return Facts(upright_size(file), orientation(file), deep, file.mode, file.format)


@contextlib.contextmanager
def opened(source: Path | bytes):
    """A picture, open in Pillow, its pixels not yet read; its announced size is one that can be.

    Raises:
        ValueError: It is no picture, cut short, or of a size that cannot be used; says what, as the end of a sentence.
    """
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS) as file:
            width, height = file.size
            if width * height > MOST_PIXELS:
                raise ValueError(f'announces {width}×{height} pixels; expected: at most {MOST_PIXELS}')
            if min(file.size) < LEAST_SIDE:
                raise ValueError(f'is {width}×{height} pixels; expected: at least {LEAST_SIDE} on each side')
            yield file
    except Image.DecompressionBombError:
        raise ValueError(f'announces more pixels than the {MOST_PIXELS} that are read at most') from None
    except Image.UnidentifiedImageError:
        raise ValueError('is no picture') from None
    except ValueError:
        raise
    except Exception as error:  # a damaged file has Pillow raise OSError, SyntaxError, struct.error, zlib.error, ...
        raise ValueError(f'cannot be read ({" ".join(str(error).split()) or type(error).__name__})') from error


def rgb_of(file, sixteen_bit: str = 'refuse') -> Image.Image:
    """An open picture as training needs it: upright, RGB, 8 bits a channel, no alpha.

    Args:
        sixteen_bit (str): What becomes of more bits: 'high-byte' keeps the upper 8 of 16, 'stretch' maps the least
            value to 0 and the largest to 255, which suits 10 or 12 bits in 16.

    Raises:
        ValueError: It has 16 bits, and these are refused.
    """
    facts = facts_of(file)
    if facts.deep:
        if sixteen_bit == 'refuse':
            raise ValueError(
                'has 16 bits a channel, and training reads 8. Next: --sixteen-bit high-byte keeps the upper '
                '8 of them, --sixteen-bit stretch maps what each image has to 0–255'
            )
        picture = Image.fromarray(eight_bits(deep_pixels(file), sixteen_bit)).convert('RGB')
    elif facts.mode == 'CMYK':
        picture = from_cmyk(file)
    else:
        picture = file.convert('RGBA').convert('RGB') if facts.mode in ('P', 'PA') else file.convert('RGB')
    return picture if facts.turn == UPRIGHT else Image.fromarray(upright(np.asarray(picture), facts.turn))


def deep_pixels(file):
    """(H, W) or (H, W, 3) of a picture with more than 8 bits: Pillow reads 16 bits of colour as 8."""
    if file.mode.startswith('I') or file.mode == 'F':
        return np.asarray(file)
    file.fp.seek(0)
    pixels = cv2.imdecode(np.frombuffer(file.fp.read(), np.uint8), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels is None or pixels.ndim != 3:
        raise ValueError('has 16 bits a channel and cannot be decoded')
    return pixels[..., 2::-1]


def eight_bits(pixels, how):
    pixels = pixels.astype(np.float64)
    if how == 'stretch':
        low, high = float(pixels.min()), float(pixels.max())
        pixels = (pixels - low) * (255 / (high - low) if high > low else 0)
    else:
        pixels = np.clip(pixels, 0, 65535) // LEVELS
    return pixels.round().astype(np.uint8)


def from_cmyk(file):
    """RGB by the picture's own colour profile where it has one that works, and otherwise by Pillow's formula."""
    profile = file.info.get('icc_profile')
    if profile:
        try:
            return ImageCms.profileToProfile(file, ImageCms.ImageCmsProfile(io.BytesIO(profile)),
                                             ImageCms.createProfile('sRGB'), outputMode='RGB')
        except (ImageCms.PyCMSError, OSError, ValueError):
            pass
    return file.convert('RGB')


def fingerprint(picture: Image.Image) -> np.ndarray:
    """(64, ) bool that tells whether two pictures look alike: where a 9×8 thumbnail gets brighter to the right."""
    small = np.asarray(picture.convert('L').resize((9, 8), Image.Resampling.BOX), np.int16)
    return (small[:, 1:] > small[:, :-1]).ravel()
