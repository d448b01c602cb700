"""The font of what is written into pictures: names of files and classes, in any European script."""
import functools
import importlib.util
from pathlib import Path

from PIL import ImageFont


@functools.cache
def dejavu_sans() -> Path | None:
    """DejaVu Sans as matplotlib ships it, found without importing matplotlib; None where it is not installed."""
    package = importlib.util.find_spec('matplotlib')
    path = Path(package.origin).parent / 'mpl-data/fonts/ttf/DejaVuSans.ttf' if package and package.origin else None
    return path if path and path.is_file() else None


def legend_font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which has letters with accents, Greek and Cyrillic; without it Pillow's own font, which has ASCII.

    mmengine depends on matplotlib, so that the file is there wherever this package runs.
    """
    path = dejavu_sans()
    return ImageFont.truetype(str(path), size) if path else ImageFont.load_default(size)
