"""Rare classes in training: images that have them more often, and crops on them. Importing it registers both."""
from . import _mmseg as _mmseg  # isort: skip  (first: an old mmseg is one clear message)
from multiprocessing.pool import ThreadPool

import numpy as np
from mmseg.datasets import BaseSegDataset
from mmseg.datasets.transforms import RandomCrop
from mmseg.registry import DATASETS, TRANSFORMS
from PIL import Image

from ..errors import SettingError, UserError
from .decoding import FORMATS
from .threads import any_size, threads


@DATASETS.register_module()
class CountedSegDataset(BaseSegDataset):
    """MMSegmentation's ``BaseSegDataset``, which knows the classes of its masks, for mmengine's
    ``ClassBalancedDataset(oversample_thr=…)`` around it.

    The masks are read at the first question, once, in threads: about a second for 400 of 480×360.
    """

    def get_cat_ids(self, idx):
        """The classes in a mask, list[int].

        Raises:
            UserError: A mask cannot be read.
        """
        if not hasattr(self, '_classes_in'):
            samples = [self.get_data_info(i) for i in range(len(self))]
            with any_size(), ThreadPool(threads()) as pool:
                self._classes_in = pool.map(self._read_classes, samples)
        return self._classes_in[idx]

    def _read_classes(self, sample):
        path = sample.get('seg_map_path')
        try:
            with Image.open(path, formats=FORMATS) as file:
                values = np.flatnonzero(np.bincount(np.asarray(file).ravel(), minlength=256))
        except (OSError, ValueError, TypeError, SyntaxError, AttributeError) as error:
            raise UserError(f'{path}: the classes of the mask cannot be counted ({error}). Expected: an image of class '
                            'indices. Next: replace or remove this file.') from error
        label_map = sample.get('label_map') or {}
        values = [label_map.get(value, value) for value in values.tolist()]
        # As MMSegmentation's LoadAnnotations: 0 becomes 255, the others move down.
        values = [255 if value in (0, 255) else value - 1 for value in values] if self.reduce_zero_label else values
        return sorted({value for value in values if 0 <= value < len(self.metainfo['classes'])})


@TRANSFORMS.register_module()
class RareClassCrop(RandomCrop):
    """MMSegmentation's ``RandomCrop``, some of whose crops hold a pixel of a class that is drawn first.

    With probability ``prob`` a class is drawn from those of the image, all alike, then a pixel of it, then a crop from
    those that hold the pixel: a class of a few pixels is in as many of these crops as one of half of the image. The
    idea is that of rare class sampling in DAFormer (arXiv:2111.14887, section 3.3), for crops instead of images.

    Args:
        crop_size (int | tuple[int, int]): Height and width.
        cat_max_ratio (float), ignore_index (int): As ``RandomCrop``'s, for its crops.
        prob (float): From 0, which is ``RandomCrop``, to 1.
    """

    def __init__(self, crop_size, cat_max_ratio=1., ignore_index=255, prob=0.5):
        super().__init__(crop_size, cat_max_ratio, ignore_index)
        if not 0 <= prob <= 1:
            raise SettingError(f'RareClassCrop.prob is {prob}; expected: a number from 0 to 1.')
        self.prob = prob

    def crop_bbox(self, results):
        """Top, bottom, left and right of a crop."""
        labels = results['gt_seg_map']
        if self.prob and np.random.random() < self.prob:  # noqa: NPY002  seeded for each sample
            counts = np.bincount(labels.ravel(), minlength=self.ignore_index + 1)
            counts[self.ignore_index] = 0
            classes = np.flatnonzero(counts)
            if len(classes):
                value = classes[np.random.randint(len(classes))]  # noqa: NPY002
                place = np.flatnonzero(labels.ravel() == value)[np.random.randint(counts[value])]  # noqa: NPY002
                spans = []
                for at, side, crop in zip(divmod(int(place), labels.shape[1]), labels.shape, self.crop_size,
                                          strict=True):
                    first, last = max(0, at - crop + 1), min(at, max(side - crop, 0))
                    start = np.random.randint(min(first, last), last + 1)  # noqa: NPY002
                    spans += [start, start + crop]
                return tuple(spans)
        return self.any_bbox(labels)

    def any_bbox(self, labels):
        """``RandomCrop``'s own crop, from the same draws; pixels are counted instead of sorted."""
        for left in range(10, -1, -1):
            spans = []
            for side, crop in zip(labels.shape, self.crop_size, strict=True):
                start = np.random.randint(max(side - crop, 0) + 1)  # noqa: NPY002
                spans += [start, start + crop]
            if self.cat_max_ratio >= 1 or not left:
                break
            counts = np.bincount(self.crop(labels, spans).ravel(), minlength=self.ignore_index + 1)
            counts[self.ignore_index] = 0
            if np.count_nonzero(counts) > 1 and counts.max() < self.cat_max_ratio * counts.sum():
                break
        return tuple(spans)

    def __repr__(self):
        return f'{type(self).__name__}(crop_size={self.crop_size}, prob={self.prob})'
