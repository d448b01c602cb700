"""Loading of images and masks. Importing this module puts it in the place of MMSegmentation's, under the same name."""
from . import _mmseg as _mmseg  # isort: skip  (first: an old mmseg is one clear message)
from pathlib import Path

import cv2
from mmseg.datasets.transforms import LoadAnnotations as StoredAnnotations
from mmseg.datasets.transforms.loading import LoadImageFromFile as PlainImageFromFile
from mmseg.registry import TRANSFORMS
from PIL import Image, UnidentifiedImageError

from ..errors import UserError
from .decoding import FORMATS
from .exif import UPRIGHT, orientation, upright, why_unfit


@TRANSFORMS.register_module(force=True)
class LoadImageFromFile(PlainImageFromFile):
    """mmcv's ``LoadImageFromFile``, whose error names the file.

    Raises:
        UserError: The image is not there, or cannot be read or decoded.
    """

    def transform(self, results):
        try:
            return super().transform(results)
        except (OSError, AssertionError, ValueError, cv2.error) as error:
            reason = 'it cannot be decoded' if isinstance(error, AssertionError) else error or type(error).__name__
            raise UserError(f'{results["img_path"]}: the image cannot be loaded ({reason}). Next: replace or remove '
                            'this file.') from error


@TRANSFORMS.register_module(force=True)
class LoadAnnotations(StoredAnnotations):
    """MMSegmentation's ``LoadAnnotations``, and masks are turned upright by their EXIF orientation, as images are.

    Raises:
        UserError: The mask is not there, or cannot be read. Image or mask has an orientation, and they do not fit, or
            cannot be known to.
    """

    def _load_seg_map(self, results):
        try:
            super()._load_seg_map(results)
        except AssertionError:  # of reduce_zero_label, which the config gives twice
            raise
        # A damaged file has Pillow raise SyntaxError, ValueError, struct.error, zlib.error, ...
        except Exception as error:
            raise UserError(f'{results["seg_map_path"]}: the mask cannot be loaded ({error or type(error).__name__}). '
                            'Next: replace or remove this file.') from error
        image, mask = results.get('img_path'), results['seg_map_path']
        if not (image and Path(image).is_file() and Path(mask).is_file()):
            return  # in a store that is not a file system
        try:
            with Image.open(image, formats=FORMATS) as image, Image.open(mask, formats=FORMATS) as mask:
                turn = orientation(mask)
                if UPRIGHT == turn == orientation(image):
                    return
                problem = why_unfit(image, mask)
        except UnidentifiedImageError:
            return  # of a kind that OpenCV reads, without EXIF
        if problem:
            raise UserError(f'{results["seg_map_path"]}: {problem}.')
        results['gt_seg_map'] = upright(results['gt_seg_map'], turn)
