"""Loading of masks. Importing this module puts it in the place of MMSegmentation's, under the same name."""
from . import _mmseg as _mmseg  # isort: skip  (first: an old mmseg is one clear message)
from pathlib import Path

from mmseg.datasets.transforms import LoadAnnotations as StoredAnnotations
from mmseg.registry import TRANSFORMS
from PIL import Image

from ..errors import UserError
from .exif import UPRIGHT, orientation, upright, why_unfit


@TRANSFORMS.register_module(force=True)
class LoadAnnotations(StoredAnnotations):
    """MMSegmentation's ``LoadAnnotations``, and masks are turned upright by their EXIF orientation, as images are.

    Raises:
        UserError: Image or mask has an orientation, and they do not fit, or cannot be known to.
    """

    def _load_seg_map(self, results):
        super()._load_seg_map(results)
        image, mask = results.get('img_path'), results['seg_map_path']
        if not (image and Path(image).is_file() and Path(mask).is_file()):
            return  # in a store that is not a file system
        with Image.open(image) as image, Image.open(mask) as mask:
            turn = orientation(mask)
            if UPRIGHT == turn == orientation(image):
                return
            problem = why_unfit(image, mask)
        if problem:
            raise UserError(f'{results["seg_map_path"]}: {problem}.')
        results['gt_seg_map'] = upright(results['gt_seg_map'], turn)
