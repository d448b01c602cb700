"""How many threads decode pictures, and Pillow's limit on their size while they do."""
import contextlib
import os
import warnings

from PIL import Image


def threads():
    """Of one process, where those of a machine share its cores; decoding runs outside Python's lock."""
    return max(1, min(16, len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1)
               // int(os.environ.get('LOCAL_WORLD_SIZE', 1)))


@contextlib.contextmanager
def any_size():
    """Pillow opens files of any size here; it refuses those above twice ``MAX_IMAGE_PIXELS`` without their size."""
    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of Pillow, about palettes and damaged EXIF blocks
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit
