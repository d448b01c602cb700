"""What happens to an upload: it is checked, segmented by each model, and written to files; or one message says why not.

Gradio is not needed here.
"""
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from ..api import Prediction, Predictor
from ..data.decoding import FORMATS
from ..data.importing.tree import is_litter
from ..data.mini import draw_scene
from ..engine.image_files import IMAGE_SUFFIXES
from ..engine.inference import save_png
from ..errors import UserError


class Model(NamedTuple):
    """A predictor, and what the page calls it."""
    name: str
    predictor: Predictor


class Result(NamedTuple):
    """Of one model: its prediction, and the seconds from the file to the class map."""
    model: Model
    prediction: Prediction
    seconds: float


def check_upload(path: Path, max_pixels: int) -> tuple[int, int]:
    """Width and height of an image file, which may be anything: nothing is decoded before its size is known.

    Raises:
        UserError: It is empty, no image, or has more than ``max_pixels`` pixels.
    """
    if not path.stat().st_size:
        raise UserError(f'{path.name} is empty. Expected: an image. Next: drop another file.')
    try:
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
    except Image.DecompressionBombError:
        raise UserError(f'{path.name} is too large: more than {2 * Image.MAX_IMAGE_PIXELS / 1e6:.0f} million pixels. '
                        f'Expected: at most {max_pixels / 1e6:g} million. Next: scale it down.') from None
    except Exception as error:      # decoders have errors of every kind for a broken file
        raise UserError(f'{path.name} is no image that can be read. Expected: one of '
                        f'{", ".join(suffix[1:] for suffix in IMAGE_SUFFIXES)}, whole. Next: open it in another '
                        'program and save it anew.') from error
    if width * height > max_pixels:
        raise UserError(f'{path.name} is too large: {width}×{height} pixels, {width * height / 1e6:.1f} million. '
                        f'Expected: at most {max_pixels / 1e6:g} million. Next: scale it down, or start the page with '
                        'a larger --max-megapixels.')
    return width, height


def segment(models: Sequence[Model], path: Path, max_pixels: int,
            progress: Callable[[str], object] = lambda name: None) -> list[Result]:
    """One result a model, one after the other, so that neither slows the other.

    Args:
        models: The models.
        path: Of an image file.
        max_pixels: An image of more is refused.
        progress: Called with the name of each model before it starts.

    Raises:
        UserError: The image cannot be segmented; the message names the file as the user knows it.
    """
    check_upload(path, max_pixels)
    results = []
    for model in models:
        progress(model.name)
        start = time.perf_counter()
        try:
            prediction = model.predictor.predict(path)
        except UserError as error:
            raise UserError(str(error).replace(str(path), path.name)) from error
        except Exception as error:      # a page that is open to any file ends for none; the terminal has the rest
            traceback.print_exc()
            raise UserError(f'{path.name} could not be segmented by {model.name}: {type(error).__name__}: {error}. '
                            'Next: try a smaller image; the terminal of the page has the details.') from error
        results.append(Result(model, prediction, time.perf_counter() - start))
    return results


def write_files(result: Result, folder: Path, stem: str, opacity: float) -> tuple[Path, Path]:
    """``STEM_classes.png``, as ``predict`` writes class indices, and ``STEM_overlay.png``, in a new folder of
    ``folder``."""
    folder = Path(tempfile.mkdtemp(dir=folder))
    mask, overlay = folder / f'{stem}_classes.png', folder / f'{stem}_overlay.png'
    result.prediction.save(mask)
    save_png(result.prediction.overlay(opacity), overlay)
    return mask, overlay


def example_images(folder: Path, own: Path | None = None, scenes: int = 6) -> list[Path]:
    """Image files to try: drawn scenes, written to ``folder``, and some of CamVid's validation images if there; or
    up to twelve of the folder ``own``, copied to ``folder``: Gradio serves files of the working directory and of
    the system's temporary one alone.

    Raises:
        UserError: ``own`` has no images.
    """
    if own is not None:
        found = sorted(path for path in own.glob('*') if path.suffix.lower() in IMAGE_SUFFIXES
                       and not is_litter(path.name) and path.is_file())[:12]
        if not found:
            raise UserError(f'--examples is {own}, where no image is. Expected: a folder of files that end in '
                            f'{", ".join(IMAGE_SUFFIXES)}.')
        return [Path(shutil.copy(path, folder)) for path in found]
    found = []
    for i in range(scenes):
        found.append(folder / f'drawn_scene_{i + 1}.png')
        # The first validation scenes of the mini data set.
        Image.fromarray(np.asarray(draw_scene(2**19 + i)[0])).save(found[-1])
    return found + sorted(Path('data/camvid/images/validation').glob('*.png'))[::20][:6]
