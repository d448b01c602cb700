"""Predictions without a config file of one's own: ``load('upernet_inceptionnext_t_ade20k', 'iter_160000.pth')``.

The images go through the config's test pipeline and its ``test_cfg``, so that a class map here is the one that
``tools/test.py`` evaluates. Full-resolution logits of a large image would not fit into memory, 600 bytes a pixel for
150 classes, so they are made, used and dropped a few rows at a time.
"""
import operator
import warnings
from collections.abc import Iterable, Iterator
from itertools import groupby, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn as nn
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope
from PIL import Image, ImageOps

from ..engine.image_files import images_below
from ..engine.inference import Labels, Segmentor, draw_overlay, open_device, prepared, save_png, shares
from ..errors import SettingError, UserError
from ..ops.bilinear import AxisMap
from ..ops.dtypes import compute_dtype
from ..ops.windowed_argmax import Taps
from ..segmentation.heads import upsamples_as_stock
from ..segmentation.large import LARGE_IMAGE, windows_of
from ..segmentation.segmentor import postprocessing
from ..segmentation.windows import Windows, rows_of_windows
from .create import find_model
from .video import VIDEO_SUFFIXES, frames

# Numbers of full-resolution logits that are held at a time: 64 MiB of float32.
BLOCK = 2**24


class Prediction(NamedTuple):
    """What is known of an image, at its own size.

    Attributes:
        classes (np.ndarray): (H, W), class indices from 0, uint8, or uint16 for more than 256 classes.
        confidence (np.ndarray): (H, W), float32, the largest softmax probability of each pixel. It is what the network
            says of itself, and not calibrated.
        entropy (np.ndarray): (H, W), float32, of the softmax, in nats: 0 is certain, ``log(classes)`` knows nothing.
        logits (np.ndarray | None): (classes, H, W), float32, where they were asked for.
        labels (Labels): Names and colours of the classes.
        image (np.ndarray): (H, W, 3), RGB, 8 bits.
        path (Path | None): Of the image, where it was a file.
    """
    classes: np.ndarray
    confidence: np.ndarray
    entropy: np.ndarray
    logits: np.ndarray | None
    labels: Labels
    image: np.ndarray
    path: Path | None

    @property
    def shares(self) -> dict[str, float]:
        """The share of the image of each class that was found, by name, the largest first; classes of one name share
        an entry."""
        found = {}
        for i, share in shares(self.classes, len(self.labels.classes)):
            name = self.labels.classes[i]
            found[name] = found.get(name, 0.) + float(share)
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    def overlay(self, opacity: float = 0.5) -> Image.Image:
        """The image under its classes' colours, with a legend."""
        return draw_overlay(self.image[..., ::-1], self.classes, self.labels, opacity)

    def save(self, path: str | Path) -> None:
        """Write the class map as a PNG of one channel, with the class indices that ``tools/predict.py`` writes."""
        save_png(Image.fromarray(self.labels.numbers(self.classes.astype(np.int64))), Path(path))


class Predictor:
    """A trained segmentor, ready for images. :func:`load` makes one.

    Attributes:
        model (nn.Module): MMSegmentation's segmentor, in eval mode.
        labels (Labels): Names and colours of the classes.
    """

    def __init__(self, segmentor: Segmentor, device: torch.device) -> None:
        self.segmentor, self.device = segmentor, device
        self.model, self.labels = segmentor.model, segmentor.labels
        with DefaultScope.overwrite_default_scope('mmseg'):
            # Without the loader, which files go through in Segmentor.load.
            self.pipeline = Compose([dict(step) for step in self.model.cfg.test_pipeline][1:])

    def predict(self, source: Any, *, logits: bool = False, window: int | None = None, batch_size: int = 1,
                on_error: str = 'raise') -> 'Prediction | Iterator[Prediction]':
        """Segment an image, or several.

        Args:
            source: An image: a NumPy array (H, W, 3), RGB, or (H, W), grey, of uint8; a PIL image; or the path of a
                file. Several: a folder's path, with its subfolders but without what ``tools/predict.py`` wrote into
                them and hidden files; a video's path; or any iterable of images.
            logits (bool): Keep the logits, 4 bytes a class and pixel.
            window (int | None): Segment windows of this many pixels, which overlap by a third, and average their
                logits, as MMSegmentation's mode 'slide': the memory that an image takes then grows with its width, and
                not with its area. None does as the config says; where it has no windows, an image of more than
                2048×2048 pixels after its pipeline takes those of :data:`~..segmentation.large.CROP_SIZE`, as in
                ``tools/predict.py``.
            batch_size (int): Images of one size, or windows of an image, that go through the network at a time.
            on_error (str): Of several images, 'raise' ends at the first that cannot be segmented, 'warn' leaves it out
                with a warning. In a folder, HEIC and raw files and links to folders are among these.

        Returns:
            Prediction | Iterator[Prediction]: Of one image; or of each, in order, computed as they are taken, so that
            a folder of any size is.

        Raises:
            UserError: An image cannot be read or is too small; the folder has no image.
            SettingError: What is given is no image, or a setting is wrong.
        """
        if on_error not in ('raise', 'warn'):
            raise SettingError(f"on_error is {on_error!r}; expected: 'raise' or 'warn'")
        batch_size = whole_number('batch_size', batch_size, 1)
        window = None if window is None else whole_number('window', window, 32)
        if isinstance(source, str | Path) and Path(source).suffix.lower() in VIDEO_SUFFIXES:
            return self.stream(frames(source), logits, window, batch_size, on_error)
        if is_image(source):
            return next(self.stream([source], logits, window, batch_size, 'raise'))
        if isinstance(source, str | Path):
            source = images_of(source)
        if not isinstance(source, Iterable):
            raise SettingError(f'the source is a {type(source).__name__}; expected: an image, or an iterable of images')
        return self.stream(source, logits, window, batch_size, on_error)

    def stream(self, sources: Iterable, logits: bool, window: int | None, batch_size: int,
               on_error: str) -> Iterator[Prediction]:
        def all_prepared():
            for source in sources:
                try:
                    yield self.prepare(source)
                except UserError as error:
                    if on_error == 'raise':
                        raise
                    warnings.warn(str(error), stacklevel=3)

        for _, group in groupby(all_prepared(), key=lambda item: item[2]['inputs'].shape):
            while batch := list(islice(group, batch_size)):
                try:
                    yield from self.segment(batch, logits, window, batch_size)
                except SettingError as error:   # of the size, which the images of a batch share
                    for path, *_ in batch:
                        problem = f'{path or "the image"} cannot be segmented: {error}'
                        if on_error == 'raise':
                            raise UserError(problem) from error
                        warnings.warn(problem, stacklevel=2)

    def prepare(self, source):
        """(path, BGR image, what the pipeline makes of it)."""
        path = Path(source) if isinstance(source, str | Path) else None
        try:
            image = to_bgr(source) if path is None else self.segmentor.load(path)
        except OSError as error:
            raise UserError(f'{path} cannot be read as an image: {error}') from error
        item = dict(img=image, img_path=path and str(path), img_shape=image.shape[:2], ori_shape=image.shape[:2])
        try:
            return path, image, prepared(self.pipeline, item)
        except SettingError as error:
            raise UserError(f'{path or "the image"} cannot be segmented: {error}') from error

    @torch.inference_mode()
    def segment(self, batch, keep_logits, window, batch_size):
        """Predictions of images that have one size after the pipeline. Raises SettingError where that is too small."""
        data = self.model.data_preprocessor(dict(
            inputs=[item['inputs'] for _, _, item in batch],
            data_samples=[item['data_samples'] for _, _, item in batch]), False)
        windows = self.windows(window, batch[0][2]['inputs'].shape[1:], data['inputs'].shape[2:])
        low = None if windows else self.logits(data['inputs'], data['data_samples'])
        for i, (path, image, _) in enumerate(batch):
            sample = data['data_samples'][i]
            out = Output(image.shape[:2], self.model, keep_logits)
            if windows:
                self.slide(data['inputs'][i:i + 1], sample, windows, batch_size, out)
            else:
                self.whole(low[i], data['inputs'].shape[2:], sample, out)
            yield Prediction(out.classes, out.confidence, out.entropy, out.logits, self.labels, image[..., ::-1], path)

    def windows(self, window, size, padded):
        """The windows of an image, or None where it goes through the network whole.

        Args:
            size (tuple[int, int]): Of the image after its pipeline: whether it is a large one.
            padded (tuple[int, int]): With the padding of the data preprocessor: what the windows cover.
        """
        if window is not None:
            return Windows.sliding(padded, (window, window), (window * 2 // 3, window * 2 // 3))
        slides = self.model.test_cfg.get('mode', 'whole') == 'slide'
        return windows_of(self.model, padded) if slides or size[0] * size[1] > LARGE_IMAGE else None

    def logits(self, inputs, samples):
        """(B, C, h, w), at the resolution that the head gives them."""
        if upsamples_as_stock(self.model.decode_head):
            return self.model.decode_head.forward(self.model.extract_feat(inputs))
        return self.model.encode_decode(inputs, [sample.metainfo for sample in samples])

    def whole(self, low, size, sample, out):
        """Logits (C, h, w) to the image's own size, row by row: up to the network's input, padding off, and on."""
        left, right, top, bottom = postprocessing(sample.metainfo)['padding']
        down, across = (
            AxisMap.resizing_twice(n, middle, before, after, False, last, self.model.align_corners, low.dtype)
            for n, middle, before, after, last in zip(
                low.shape[1:], size, (top, left), (bottom, right), out.size, strict=True))
        out.fill(lambda begin, end: across.apply(down.part(begin, end).apply(low, 1), 2), out.size[0])

    def slide(self, inputs, sample, windows, batch_size, out):
        """As mmseg's ``slide_inference``, from the top, without logits of the image's size."""
        strips = None
        height, width = windows.window
        for row, y in enumerate(windows.tops):
            views = [inputs[..., y:y + height, x:x + width] for x in windows.lefts]
            for begin in range(0, len(views), batch_size):
                batch = torch.cat(views[begin:begin + batch_size])
                low = self.logits(batch, [sample] * len(batch))
                if strips is None:
                    strips = Strips(windows, low, postprocessing(sample.metainfo)['padding'], out.size,
                                    self.model.align_corners)
                strips.put(row, begin, low)
            out.fill(strips.rows, strips.ready(row))


class Strips:
    """Logits of windows at the head's resolution, side by side, of those rows of windows that output rows still need.

    Args:
        windows (Windows): Where they lie.
        low (Tensor): (windows, C, h, w), of some windows.
        padding (Sequence[int]): Of the image, cropped: left, right, top, bottom.
        size (tuple[int, int]): (H, W), to which the image is resized then.
        align_corners (bool): As in ``F.interpolate``.
    """

    def __init__(self, windows, low, padding, size, align_corners):
        left, right, top, bottom = padding
        self.side, kind = low.shape[2], compute_dtype(low.dtype)
        axes = zip((windows.tops, windows.lefts), windows.window, low.shape[2:], (top, left), (bottom, right), size,
                   strict=True)
        down, across = (
            Taps.of_windows(starts, window, n, window, align_corners, kind).then(
                before, after, size=last, align_corners=align_corners)
            for starts, window, n, before, after, last in axes)
        first, self.last = rows_of_windows(down, self.side)
        self.kept = 1 + max(row - int(first[self.last == row].min()) for row in self.last.unique().tolist())
        index = down.index // self.side % self.kept * self.side + down.index % self.side
        self.down, self.across = Taps(index, down.weight).to(low.device), across.to(low.device)
        self.maps = low.new_empty(self.kept, self.side, len(windows.lefts), low.shape[3], low.shape[1], dtype=kind)

    def put(self, row, begin, low):
        """Keep the logits of the windows ``begin`` and on of a row, in the place of those of an earlier row."""
        self.maps[row % self.kept, :, begin:begin + len(low)] = low.permute(2, 0, 3, 1)

    def ready(self, row):
        """The number of output rows, from the top, that need no later row of windows; 0 where none became ready."""
        found = (self.last == row).nonzero()
        return int(found[-1]) + 1 if len(found) else 0

    def rows(self, begin, end):
        """Logits (C, rows, W) of some output rows."""
        maps = self.maps.view(self.kept * self.side, -1, self.maps.shape[-1])
        return self.across.apply(self.down.part(begin, end).apply(maps, 0), 1).permute(2, 0, 1)


class Output:
    """The arrays of a prediction, filled from the top.

    Args:
        size (tuple[int, int]): (H, W) of the image.
        model (nn.Module): The segmentor.
        keep_logits (bool): Whether ``logits`` is kept.
    """

    def __init__(self, size: tuple[int, int], model: nn.Module, keep_logits: bool) -> None:
        self.size, self.rows = size, 0
        self.channels = model.out_channels
        self.threshold = model.decode_head.threshold if self.channels == 1 else None
        self.classes = np.empty(size, np.uint8 if max(self.channels, model.num_classes) <= 256 else np.uint16)
        self.confidence, self.entropy = np.empty(size, np.float32), np.empty(size, np.float32)
        self.logits = np.empty((self.channels, *size), np.float32) if keep_logits else None

    def fill(self, logits_of, end):
        """Rows up to ``end``; ``logits_of(begin, end)`` are the logits (C, rows, W) of some."""
        step = max(1, BLOCK // (self.channels * self.size[1]))
        while self.rows < end:
            begin, self.rows = self.rows, min(self.rows + step, end)
            self.write(begin, logits_of(begin, self.rows).float())

    def write(self, begin, logits):
        rows = slice(begin, begin + logits.shape[1])
        if self.channels == 1:      # the second class, by a sigmoid
            logits = torch.cat((torch.zeros_like(logits), logits))
        log_probabilities = logits.log_softmax(0)
        probabilities = log_probabilities.exp()
        confidence, classes = probabilities.max(0)
        if self.channels == 1:
            classes = (probabilities[1] > self.threshold).long()
            confidence = probabilities.gather(0, classes[None])[0]
        self.classes[rows] = classes.cpu().numpy()
        self.confidence[rows] = confidence.cpu().numpy()
        self.entropy[rows] = -(probabilities * log_probabilities).sum(0).cpu().numpy()
        if self.logits is not None:
            self.logits[:, rows] = logits[-self.channels:].cpu().numpy()


def whole_number(name: str, value: Any, least: int) -> int:
    """A setting that is an integer of any type, at least ``least``; SettingError where it is not."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or number < least:
        raise SettingError(f'{name} is {value!r}; expected: an integer, at least {least}')
    return number


def is_image(source: Any) -> bool:
    """Whether ``source`` is one image, rather than a folder or several."""
    if isinstance(source, str | Path):
        return not Path(source).is_dir()
    return isinstance(source, np.ndarray | Image.Image)


def images_of(folder: str | Path) -> list[Path]:
    """The images of a folder in order, with those that :meth:`Segmentor.load` refuses for their names or kind."""
    images = images_below(folder)
    for line in images.notes:
        warnings.warn(line, stacklevel=3)
    return sorted((*images.outputs, *images.left_out))


def to_bgr(image: Any) -> np.ndarray:
    """An image in memory as OpenCV has it: (H, W, 3), BGR, 8 bits; of a PIL image upright, and without alpha.

    Raises:
        SettingError: It is something else.
    """
    if isinstance(image, Image.Image):
        if image.mode == 'F' or image.mode.startswith('I'):     # Pillow would cut off what is above 255
            raise SettingError(f'the image is of mode {image.mode}, which has more than 8 bits a channel; expected: 8. '
                               'Next: scale it to 0–255')
        image = np.asarray(ImageOps.exif_transpose(image).convert('RGB'))
    if not isinstance(image, np.ndarray):
        raise SettingError(f'the image is a {type(image).__name__}; expected: a NumPy array, a PIL image or a path')
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3):
        raise SettingError(f'the image is an array {image.shape} of {image.dtype}; expected: (H, W, 3), RGB, or '
                           '(H, W), of uint8')
    return np.ascontiguousarray(image[..., ::-1] if image.ndim == 3 else image[..., None].repeat(3, 2))


def load(config: str | Path | Config, checkpoint: str | Path, device: str | torch.device | None = None) -> Predictor:
    """A trained segmentor: ``load('upernet_inceptionnext_t_ade20k', 'iter_160000.pth').predict('image.jpg')``.

    Args:
        config (str | Path | Config): The name of a config of the package, a file, or a config.
        checkpoint (str | Path): Of ``tools/train.py``: a path or a URL.
        device (str | torch.device | None): By default CUDA where there is one, and otherwise the CPU.

    Raises:
        UserError: The config or the checkpoint cannot be found or read, or does not fit; the device is not there.
    """
    device = open_device(None if device is None else str(device))
    return Predictor(Segmentor(find_model(config), checkpoint, device), device)
