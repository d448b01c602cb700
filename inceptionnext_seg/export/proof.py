"""What a written file computes, against the model that it was made of, on images."""
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from ..api.model import SegmentationModel
from ..data.decoding import FORMATS
from ..data.importing.tree import is_litter
from ..data.mini.scenes import draw_scene
from ..engine.image_files import IMAGE_SUFFIXES, check_image
from ..errors import UserError

# In fp32, of the largest logit, or of a probability; what another order of the arithmetic leaves is below 1e-5.
TOLERANCE = 1e-4
# Share of equal pixels. Where the two largest logits of a pixel are equal but for rounding, either class is right.
LEAST_EQUAL = dict(fp32=0.999, bf16=0.98, int8=0.95)
# Points of mIoU, in either direction: a file that scores more than the model has changed it as much as one that loses.
MOST_OFF = 0.5
CALIBRATION_IMAGES = 32
DRAWN = ((160, 224), (256, 256), (101, 299))


class Accuracy(NamedTuple):
    """Of a folder of labelled images, in per cent.

    Attributes:
        images (int): How many.
        model (float), file (float): mIoU of the model in torch, in float32, and of the file.
        equal (float): The share of pixels with the same class.
    """
    images: int
    model: float
    file: float
    equal: float

    @property
    def passes(self):
        return abs(self.model - self.file) <= MOST_OFF

    def __str__(self):
        return (f'{self.images} labelled images: mIoU {self.file:.2f} %, in torch {self.model:.2f} % '
                f'({self.file - self.model:+.2f}); {self.equal:.2f} % of the pixels have the same class')


class Comparison(NamedTuple):
    """Of one batch.

    Attributes:
        shape (tuple[int, int, int]): Images, height and width.
        difference (float): The largest, relative to the largest logit, or of confidences.
        equal (float): The share of pixels with the same class.
        dtype (str): Of the file.
    """
    shape: tuple
    difference: float
    equal: float
    dtype: str = 'fp32'

    @property
    def passes(self):
        """NaN does not."""
        return (self.difference <= TOLERANCE or self.dtype != 'fp32') and self.equal >= LEAST_EQUAL[self.dtype]

    def __str__(self):
        count, height, width = self.shape
        return (f'{count} × {height}×{width}: largest difference {self.difference:.1e}, '
                f'{100 * self.equal:.4g} % of the pixels have the same class')


def samples(folder: str | Path | None, size: tuple[int, int] | None, batch: int) -> list[np.ndarray]:
    """Three batches of 8-bit RGB images (B, H, W, 3): of a folder, or drawn scenes.

    Of an open size they are as large as they are, up to about 1024 pixels, but each has a size of its own, and the
    first batch has two images. All images of a batch differ, so that a file which mixes them does not pass.

    Raises:
        UserError: The folder has no image that can be read.
    """
    if folder is None:
        images = [draw_scene(seed, size)[0] for seed, size in enumerate(DRAWN)]
    else:
        images = [read(path) for path in find(folder, '--images')[:3]]
        while len(images) < 3:
            images.append(images[-1][:, ::-1])
    if size is not None:
        images = [resized(image, size) for image in images]
        return [np.stack([varied(image, i) for i in range(batch)]) for image in images]
    images = of_different_sizes(map(fit, images))
    return [np.stack([varied(images[0], i) for i in range(2)]), *(image[None] for image in images[1:])]


def of_different_sizes(images):
    """The images, an earlier one's size made a little larger: one size proves nothing of a file that takes any."""
    found = {}
    for image in images:
        while image.shape in found:
            image = resized(image, (image.shape[0] + 8, image.shape[1] + 16))
        found[image.shape] = image
    return list(found.values())


def varied(image, i):
    """The ``i``-th version of an image of a batch: every second is mirrored, and each later pair shifted."""
    image = image[:, ::-1] if i % 2 else image
    return np.roll(image, i // 2 * 16, axis=1)


def find(folder, option):
    """The images below a folder, sorted, without hidden files and what file managers leave behind."""
    paths = sorted(path for path in Path(folder).rglob('*') if path.suffix.lower() in IMAGE_SUFFIXES
                   and not any(map(is_litter, path.relative_to(folder).parts)))
    if not paths:
        raise UserError(f'{option} {folder} has no image. Expected: a folder of photographs.')
    return paths


def calibration_images(folder: str | Path, size: tuple[int, int] | None, batch: int) -> list[np.ndarray]:
    """Up to 32 batches of 8-bit RGB images (B, H, W, 3), evenly from a folder, of the size of the file.

    Raises:
        UserError: The folder has no image that can be read.
    """
    paths = find(folder, '--calibration')
    if len(paths) > CALIBRATION_IMAGES:
        paths = [paths[i * len(paths) // CALIBRATION_IMAGES] for i in range(CALIBRATION_IMAGES)]
    images = (read(path, '--calibration') for path in paths)
    return [np.stack([fit(image) if size is None else resized(image, size)] * batch) for image in images]


def labelled_images(folder: str | Path, labels: str | Path, size: tuple[int, int] | None, first: int,
                    label_map: dict[int, int] | None = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of an 8-bit RGB image (H, W, 3) and its class indices (H, W), int64, negative or 255 where there are none.

    Args:
        labels (str | Path): PNG files below it have the names of the images.
        size (tuple[int, int] | None): To which both are resized.
        first (int): The number of the first class in the files, 1 where 0 is no class.
        label_map (dict[int, int] | None): Of a data set that is restricted to some classes, counted in the files from
            0: which class of the model each is, and 255 for none.

    Raises:
        UserError: A file is missing, or cannot be read, or has another size than its image.
    """
    for path in find(folder, '--images'):
        at = (Path(labels) / path.relative_to(folder)).with_suffix('.png')
        if not at.is_file():
            raise UserError(f'--labels: {path} has no label file {at}. Expected: one of one channel for each image.')
        image = read(path)
        label = read_label(at)
        if label.shape != image.shape[:2]:
            raise UserError(f'--labels: {at} is {label.shape}; expected: {image.shape[:2]}, one channel, as {path}.')
        if size is not None:
            image = resized(image, size)
            label = np.asarray(Image.fromarray(label).resize(size[::-1], Image.Resampling.NEAREST))
        label = label.astype(np.int64)
        classes = np.where(label == 255, 255, label - first)
        label = classes.copy()
        for number, own in (label_map or {}).items():
            label[classes == number] = own
        yield image, label


def fit(image, smallest=64, largest=1024):
    height, width = image.shape[:2]
    ratio = min(largest / max(height, width), 1)
    return resized(image, (max(smallest, round(height * ratio)), max(smallest, round(width * ratio))))


def resized(image, size):
    return np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize(size[::-1], Image.Resampling.BILINEAR))


def read(path, option='--images'):
    """An image (H, W, 3), 8-bit RGB, as predictions load it: upright by its EXIF orientation, of 16 bits the upper 8.

    Raises:
        UserError: It cannot be read, or its upper 8 bits are next to nothing.
    """
    def decode():
        check_image(path)
        return cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]

    return decoded(decode, path, option)


def read_label(path):
    """The label file of an image, as it is stored."""
    def decode():
        with Image.open(path, formats=FORMATS) as file:
            return np.asarray(file)

    return decoded(decode, path, '--labels')


def decoded(decode, path, option):
    try:
        return decode()
    except Exception as error:      # decoders have errors of every kind for a broken file
        raise UserError(f'{option}: {path} cannot be read as an image: {error or type(error).__name__}') from error


def classes_of(model, logits):
    """Class indices (B, H, W) of logits (B, C, H, W), arrays; of one logit a pixel by its sigmoid, as predicted."""
    if logits.shape[1] > 1:
        return logits.argmax(1)
    return (torch.from_numpy(logits[:, 0]).sigmoid() > model.decode_head.threshold).long().numpy()


def compare(model: SegmentationModel, run: Callable, batches: Sequence[np.ndarray], preprocess: bool,
            postprocess: bool, dtype: str = 'fp32') -> list[Comparison]:
    """Run a file on batches of 8-bit images and compare its outputs with ``model``'s.

    Args:
        model (SegmentationModel): In eval mode, as it was trained.
        run (Callable): From the input of the file to its outputs, arrays.
        preprocess, postprocess (bool): Of the file; see :class:`.graph.Graph`.
        dtype (str): Of the file.
    """
    found = []
    for images in batches:
        inputs = model.normalize(torch.from_numpy(images).permute(0, 3, 1, 2))
        with torch.no_grad():
            logits = model(inputs)
        outputs = run(np.ascontiguousarray(images if preprocess else inputs.numpy()))
        expected = logits.numpy()
        if postprocess:
            classes, confidence = outputs
            difference = np.abs(confidence - logits.softmax(1).amax(1).numpy()).max()
        else:
            classes = classes_of(model, outputs[0])
            difference = np.abs(outputs[0] - expected).max() / np.abs(expected).max()
        equal = float((classes == classes_of(model, expected)).mean())
        found.append(Comparison(images.shape[:3], float(difference), equal, dtype))
    return found


def number_of_classes(model):
    """One logit a pixel tells two classes apart."""
    return max(model.num_classes, 2)


def counted(model: SegmentationModel, run: Callable, pairs: Iterable[tuple[np.ndarray, np.ndarray]], preprocess: bool,
            postprocess: bool) -> Iterator[tuple[np.ndarray, float]]:
    """For each pair of :func:`labelled_images` counts (2, labels, predictions), of the model and of the file, and the
    share of pixels with the same class; the rest as :func:`compare`.

    Raises:
        UserError: A label is no class of the model.
    """
    classes = number_of_classes(model)
    for image, label in pairs:
        inputs = model.normalize(torch.from_numpy(image.copy())[None].permute(0, 3, 1, 2))
        with torch.no_grad():
            expected = classes_of(model, model(inputs).numpy())[0]
        outputs = run(np.ascontiguousarray(image[None] if preprocess else inputs.numpy()))
        found = (outputs[0] if postprocess else classes_of(model, outputs[0]))[0]
        seen = (label >= 0) & (label != 255)
        if label[seen].max(initial=0) >= classes:
            raise UserError(f'--labels: a label is {label[seen].max()}; expected: 0 to {classes - 1}, or 255 for none.')
        counts = [np.bincount(label[seen] * classes + prediction[seen], minlength=classes**2).reshape(classes, classes)
                  for prediction in (expected, found)]
        yield np.stack(counts), float((expected == found).mean())


def accuracy(model: SegmentationModel, run: Callable, pairs: Iterable[tuple[np.ndarray, np.ndarray]], preprocess: bool,
             postprocess: bool) -> Accuracy:
    """mIoU of a file beside that of ``model``, over all pairs of :func:`counted`."""
    images, equal = 0, 0.
    total = np.zeros((2, *[number_of_classes(model)] * 2), np.int64)
    for counts, same in tqdm(counted(model, run, pairs, preprocess, postprocess), desc='labelled images', unit='image',
                             leave=False):
        images, equal, total = images + 1, equal + same, total + counts
    return Accuracy(images, miou(total[0]), miou(total[1]), 100 * equal / images)


def miou(counts):
    """In per cent, over the classes that occur, from counts (labels, predictions)."""
    union = counts.sum(0) + counts.sum(1) - counts.diagonal()
    return 100 * float((counts.diagonal()[union > 0] / union[union > 0]).mean())
