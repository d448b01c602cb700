"""What a written file computes, against the model that it was made of, on images."""
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from ..api.model import SegmentationModel
from ..data.mini.scenes import draw_scene
from ..engine.inference import IMAGE_SUFFIXES
from ..errors import UserError

# Of the largest logit, or of a probability; what float32 and another order of the arithmetic leave is below 1e-5.
TOLERANCE = 1e-4
# Where the two largest logits of a pixel are equal but for rounding, either class is right.
LEAST_EQUAL = 0.999
DRAWN = ((160, 224), (256, 256), (101, 299))


class Comparison(NamedTuple):
    """Of one batch.

    Attributes:
        shape (tuple[int, int, int]): Images, height and width.
        difference (float): The largest, relative to the largest logit, or of confidences.
        equal (float): The share of pixels with the same class.
    """
    shape: tuple
    difference: float
    equal: float

    @property
    def passes(self):
        return self.difference <= TOLERANCE and self.equal >= LEAST_EQUAL      # NaN does not

    def __str__(self):
        count, height, width = self.shape
        return (f'{count} × {height}×{width}: largest difference {self.difference:.1e}, '
                f'{100 * self.equal:.4g} % of the pixels have the same class')


def samples(folder: str | Path | None, size: tuple[int, int] | None, batch: int) -> list[np.ndarray]:
    """Three batches of 8-bit RGB images (B, H, W, 3): of a folder, or drawn scenes.

    Of an open size they are as large as they are, up to 1024 pixels, and the first batch has two images.

    Raises:
        UserError: The folder has no image that can be read.
    """
    if folder is None:
        images = [draw_scene(seed, size)[0] for seed, size in enumerate(DRAWN)]
    else:
        paths = sorted(path for path in Path(folder).rglob('*') if path.suffix.lower() in IMAGE_SUFFIXES)
        if not paths:
            raise UserError(f'--images {folder} has no image. Expected: a folder of photographs.')
        images = [read(path) for path in paths[:3]]
        while len(images) < 3:      # another size, at least
            images.append(images[-1][:-8, :-16] if size is None else images[-1][:, ::-1])
    if size is not None:
        images = [resized(image, size) for image in images]
        return [np.stack([image] * batch) for image in images]
    images = [fit(image) for image in images]
    return [np.stack([images[0], images[0][:, ::-1]]), *(image[None] for image in images[1:])]


def fit(image, smallest=64, largest=1024):
    height, width = image.shape[:2]
    ratio = min(largest / max(height, width), 1)
    return resized(image, (max(smallest, round(height * ratio)), max(smallest, round(width * ratio))))


def resized(image, size):
    return np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize(size[::-1], Image.Resampling.BILINEAR))


def read(path):
    try:
        with Image.open(path) as file:
            return np.asarray(file.convert('RGB'))
    except OSError as error:
        raise UserError(f'--images: {path} cannot be read as an image: {error}') from error


def compare(model: SegmentationModel, run: Callable, batches: Sequence[np.ndarray], preprocess: bool,
            postprocess: bool) -> list[Comparison]:
    """Run a file on batches of 8-bit images and compare its outputs with ``model``'s.

    Args:
        model (SegmentationModel): In eval mode, as it was trained.
        run (Callable): From the input of the file to its outputs, arrays.
        preprocess, postprocess (bool): Of the file; see :class:`.graph.Graph`.
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
            classes = outputs[0].argmax(1)
            difference = np.abs(outputs[0] - expected).max() / np.abs(expected).max()
        found.append(Comparison(images.shape[:3], float(difference), float((classes == expected.argmax(1)).mean())))
    return found
