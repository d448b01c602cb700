"""EXIF orientation: an image and its mask are both used upright, as every viewer shows them.

Images are turned as they are decoded, by OpenCV; masks are turned by :class:`.loading.LoadAnnotations`. Where an image
has the tag and its mask has none, nobody can tell after a turn by 180 degrees whether the mask was drawn on what a
viewer shows or on the pixels as they are stored; then :func:`why_unfit` says so.
"""
import numpy as np
from PIL import Image

ORIENTATION = 274
# 2 to 4 mirror or turn by 180 degrees; 5 to 8 also swap width and height.
UPRIGHT, FIRST_SWAPPED, LAST = 1, 5, 8
UNKNOWN = (
    'cannot be known to fit its image {image}, which has EXIF orientation {turn}: viewers show that turned, and so it '
    'is loaded; the mask has no such tag. If the mask fits what a viewer shows, store the image turned (mogrify '
    '-auto-orient {image}); if it fits the pixels as they are stored, remove the tag (exiftool -Orientation= {image})'
)


def orientation(file):
    """Of an open Pillow image, 1 to 8. From its EXIF block alone, as OpenCV reads it; XMP can say another.

    Pillow's ``getexif`` decodes all of a PNG to look for one behind the pixels.
    """
    try:
        if file.format == 'TIFF':
            value = file.getexif().get(ORIENTATION, UPRIGHT)
        else:
            exif = Image.Exif()
            exif.load(file.info.get('exif') or b'')
            value = exif.get(ORIENTATION, UPRIGHT)
    except Exception:  # a damaged block: Pillow raises SyntaxError, struct.error, ValueError, ...; viewers ignore it
        return UPRIGHT
    return value if isinstance(value, int) and UPRIGHT <= value <= LAST else UPRIGHT


def upright_size(file):
    """Width and height of an open Pillow image as viewers show it."""
    width, height = file.size
    return (height, width) if orientation(file) >= FIRST_SWAPPED else (width, height)


def upright(pixels, turn):
    """Pixels (H, W, ...) as stored, turned by an EXIF orientation."""
    if turn >= FIRST_SWAPPED:
        pixels = pixels.swapaxes(0, 1)
    vertical, horizontal = {2: (1, -1), 3: (-1, -1), 4: (-1, 1), 6: (1, -1), 7: (-1, -1), 8: (-1, 1)}.get(turn, (1, 1))
    return np.ascontiguousarray(pixels[::vertical, ::horizontal])


def why_unfit(image, mask):
    """Why a mask does not fit its image, both open in Pillow, or cannot be known to; None where it does."""
    turn, (width, height) = orientation(image), upright_size(image)
    found = upright_size(mask)
    if found != (width, height):
        seen = f' as viewers show it (EXIF orientation {turn})' if turn != UPRIGHT else ''
        return f'is {found[0]}×{found[1]} pixels, its image {width}×{height}{seen}'
    if turn != UPRIGHT and image.format != 'JPEG':
        return (f'has an image that is not read alike everywhere, {image.filename}: a {image.format} with EXIF '
                f'orientation {turn}; expected: pixels stored upright (mogrify -auto-orient {image.filename})')
    if turn != UPRIGHT and orientation(mask) == UPRIGHT and (turn < FIRST_SWAPPED or width == height):
        return UNKNOWN.format(image=image.filename, turn=turn)
    return None
