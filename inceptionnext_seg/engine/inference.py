"""Segmenting images that have no annotation: files of class indices, and overlays with a legend.

Every image goes through the config's own test pipeline and the model's ``test_step``, so that a prediction here is
the one that ``tools/test.py`` evaluates, at the image's own size. An image that has more than
:data:`~..segmentation.large.LARGE_IMAGE` pixels (2048×2048) after the pipeline is predicted by sliding windows, in
memory that does not grow with it but for the image and its classes: those of the config's ``test_cfg`` where its mode
is 'slide', otherwise of 512×512 pixels, 341 apart.

The class indices in the files are those of ``tools/test.py --out``: 0 is the first class, except for data sets with
``reduce_zero_label`` (ADE20K), whose own files keep 0 for unlabelled pixels: there 1 is the first class, and 0 never
occurs, as the benchmark's server expects it. A data set restricted to some classes counts these only. ``classes.json``,
beside the predictions, names every index.
"""
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.config import Config, ConfigDict
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope
from mmseg.apis import init_model
from mmseg.registry import DATASETS, TRANSFORMS
from PIL import Image, ImageDraw, PngImagePlugin
from tqdm import tqdm

from ..data.fonts import legend_font
from ..data.mini import CLASSES_USED
from ..errors import SettingError, UserError
from ..files import replacing
from ..models.checkpoint import load_model
from ..segmentation.large import LARGE_IMAGE, predict_large, windows_of
from .accelerate_hook import accelerate_as_configured
from .image_files import check_image
from .own_data import require_data


class Labels(NamedTuple):
    """What the outputs of a segmentor mean: a name and an RGB colour for each, and the index of the first in files."""
    classes: tuple[str, ...]
    palette: np.ndarray  # (classes, 3), uint8
    first_number: int

    def numbers(self, prediction: np.ndarray) -> np.ndarray:
        """Class indices (H, W) as files hold them, from ``first_number``, in the smallest integer type that fits."""
        last = self.first_number + len(self.classes) - 1
        numbers = prediction.astype(np.uint8 if last <= 255 else np.uint16)
        numbers += self.first_number    # in place: of a large image another copy would be as large again
        return numbers

    def as_json(self) -> list[dict[str, Any]]:
        """The content of ``classes.json``."""
        return [dict(number=self.first_number + i, name=name, color=self.palette[i].tolist())
                for i, name in enumerate(self.classes)]


def labels_of(meta: dict[str, Any], num_classes: int) -> Labels | None:
    """The ``Labels`` in a data set's ``metainfo``, or None where it does not describe ``num_classes`` classes.

    A checkpoint's ``metainfo`` is untrusted input; without ``reduce_zero_label``, as in old ones, it is not enough.
    """
    classes, palette = meta.get('classes'), meta.get('palette')
    if not isinstance(classes, list | tuple) or len(classes) != num_classes or 'reduce_zero_label' not in meta:
        return None
    try:
        colors = np.asarray(palette, dtype=float)
    except (TypeError, ValueError):
        return None
    if colors.shape != (num_classes, 3) or not ((colors >= 0) & (colors <= 255)).all():
        return None
    return Labels(tuple(map(str, classes)), colors.astype(np.uint8), int(bool(meta['reduce_zero_label'])))


def dataset_config(cfg: Config) -> ConfigDict:
    """``test_dataloader.dataset`` of a config."""
    dataset = (cfg.get('test_dataloader') or {}).get('dataset')
    if not dataset or not dataset.get('pipeline'):
        raise UserError('the config has no test_dataloader.dataset with a pipeline, which says how images are prepared '
                        'and what the classes are. Expected: one as in configs/_base_/ade20k.py.')
    return dataset


def config_metainfo(cfg: Config) -> dict[str, Any]:
    """``metainfo`` of the test data set of a config, without its files."""
    settings = dict(dataset_config(cfg), pipeline=[], lazy_init=True)
    if settings['type'] == 'MiniADE20KDataset':  # building it would draw its images
        settings = {name: value for name, value in settings.items() if name not in ('num_train', 'num_val', 'seed')}
        settings.update(type='ADE20KDataset', metainfo=settings.get('metainfo') or dict(classes=tuple(CLASSES_USED)))
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    try:
        return DATASETS.build(settings).metainfo
    # Some data sets of mmseg look for their files at once, each with an error of its own.
    except Exception as error:
        raise UserError(f'the classes cannot be had from the config: test_dataloader.dataset ({settings["type"]}) '
                        f'cannot be built: {type(error).__name__}: {error}') from error


def find_labels(cfg: Config, checkpoint_meta: Any, num_classes: int) -> Labels:
    """The labels that a segmentor was trained with: from its checkpoint where that has them, or from the config.

    Raises:
        UserError: Neither describes ``num_classes`` classes.
    """
    trained_with = checkpoint_meta.get('dataset_meta') if isinstance(checkpoint_meta, dict) else None
    labels = labels_of(trained_with, num_classes) if isinstance(trained_with, dict) else None
    if labels is None:
        metainfo = config_metainfo(cfg)
        labels = labels_of(metainfo, num_classes)
        if labels is None:
            raise UserError(
                f'the model predicts {num_classes} classes, but test_dataloader.dataset of the config names '
                f'{len(metainfo.get("classes") or ())}, and the checkpoint names none that fit. Expected: a name and '
                'an RGB colour for each. Next: give the config that the model was trained with, or '
                'test_dataloader.dataset.metainfo with `classes` and `palette`, as in configs/_base_/camvid.py.')
    return labels


def open_device(name: str | None = None) -> torch.device:
    """The torch device ``name``, or CUDA where there is one and the CPU otherwise.

    Raises:
        UserError: It cannot be used.
    """
    name = name or ('cuda' if torch.cuda.is_available() else 'cpu')
    try:
        torch.ones(1, device=name).cpu()
    except (RuntimeError, AssertionError) as error:
        found = ['cpu', *(f'cuda:{i}' for i in range(torch.cuda.device_count()))]
        raise UserError(f'the device {name!r} cannot be used ({str(error).splitlines()[0]}). Found: '
                        f'{", ".join(found)}. Next: give one of these to --device, or leave it out.') from error
    return torch.device(name)


class Segmentor:
    """A config's model with a checkpoint's weights, ready to segment images.

    Args:
        cfg (Config): With ``model`` and ``test_dataloader.dataset.pipeline``.
        checkpoint (str): A path or URL; every key and shape must fit.
        device (torch.device | str): Where the model runs.

    Attributes:
        labels (Labels): What its predictions mean.

    Raises:
        UserError: The checkpoint is missing or does not fit, no classes are known for it, or the config takes them from
            data that it has not been told.
    """

    def __init__(self, cfg: Config, checkpoint: str | Path, device: torch.device | str = 'cpu') -> None:
        require_data(cfg, checkpoint)
        pipeline = [dict(step) for step in dataset_config(cfg).pipeline if step['type'] != 'LoadAnnotations']
        self.model = init_model(cfg, device='cpu')
        self.labels = find_labels(cfg, load_model(self.model, checkpoint), self.model.num_classes)
        accelerate_as_configured(self.model, cfg)
        self.model.to(device)
        self.loader = TRANSFORMS.build(pipeline[0])
        self.pipeline = Compose([dict(pipeline[0], type='LoadImageFromNDArray'), *pipeline[1:]])
        self.model.cfg = Config(dict(test_pipeline=pipeline))  # where mmseg's inference_model looks for it

    def load(self, path: str | Path) -> np.ndarray:
        """An image file as the config loads it: (H, W, 3), BGR, 8 bits, upright by its EXIF orientation, no alpha.

        Raises:
            OSError: It cannot be read, is cut short, or has 16 bits a channel of which the upper 8 are next to nothing.
        """
        try:
            check_image(path)
            return self.loader(dict(img_path=str(path)))['img']
        # Decoders have errors of every kind for a broken file: OSError, SyntaxError, struct.error, cv2.error and more.
        except Exception as error:
            raise OSError(str(error.__cause__ or error) or type(error).__name__) from error

    def predict(self, image: np.ndarray, progress: bool = False) -> np.ndarray:
        """Class indices (H, W), int64, from an image (H, W, 3) of any size, as ``load`` returns it.

        Args:
            progress: Whether to show a progress bar for an image that is predicted by windows.

        Raises:
            ValueError: After the pipeline it is smaller than the backbone's stride of 32, or the pipeline leaves none.
            UserError: It is too large for one pass, and the model has a head of one channel.
        """
        return self.classes_of(image, progress).astype(np.int64, copy=False)

    def classes_of(self, image: np.ndarray, progress: bool = False) -> np.ndarray:
        """As :meth:`predict`, of a large image in a smaller type."""
        data = prepared(self.pipeline, dict(img=image))
        inputs, sample = data['inputs'], data['data_samples']
        size = tuple(inputs.shape[1:])
        if size[0] * size[1] > LARGE_IMAGE:
            windows = windows_of(self.model, size)
            with tqdm(total=len(windows.tops) * len(windows.lefts), desc=f'{size[0]}×{size[1]}', unit='window',
                      leave=False, disable=not progress) as bar:
                return predict_large(self.model, inputs, tuple(sample.ori_shape), bar.update).cpu().numpy()
        with torch.no_grad():
            result, = self.model.test_step(dict(inputs=[inputs], data_samples=[sample]))
        return result.pred_sem_seg.data.squeeze(0).cpu().numpy()


def prepared(pipeline: Compose, item: dict[str, Any]) -> dict[str, Any]:
    """What a test pipeline makes of an image.

    Raises:
        SettingError: It cannot: of an image of few rows, such as one of 3000×2 pixels, resizing may leave none.
    """
    try:
        return pipeline(item)
    except Exception as error:      # transforms have errors of every kind
        height, width = item['img'].shape[:2]
        raise SettingError(f'the test pipeline cannot take an image of {width}×{height} pixels: '
                           f'{type(error).__name__}: {error}') from error


def shares(prediction: np.ndarray, num_classes: int) -> list[tuple[int, float]]:
    """``(class index, share of the image)`` of the classes in a prediction (H, W), the largest first."""
    counts = np.bincount(prediction.ravel(), minlength=num_classes)
    order = np.argsort(-counts, kind='stable')
    return [(int(i), counts[i] / prediction.size) for i in order if counts[i]]


def percentage(share: float) -> str:
    """A share as in the legend: with a decimal, and never 0 for what was found."""
    return '< 0.1 %' if share < 0.0005 else f'{100 * share:.1f} %'


def draw_legend(entries: list[tuple[int, float]], labels: Labels, height: int, font_size: int) -> Image.Image:
    """A panel with swatch, name and share of each class, at least ``height`` high, in columns where they need it."""
    font = legend_font(font_size)
    line, gap = round(1.5 * font_size), round(0.6 * font_size)
    names = [labels.classes[i] for i, _ in entries]
    percentages = [percentage(share) for _, share in entries]
    name_width, share_width = (
        int(np.ceil(max(font.getlength(text) for text in texts))) for texts in (names, percentages))
    rows = min(len(entries), max((height - 2 * gap) // line, 12))
    column = gap + font_size + gap + name_width + 2 * gap + share_width + gap
    panel = Image.new('RGB', (column * -(-len(entries) // rows), max(height, rows * line + 2 * gap)), 'white')
    draw = ImageDraw.Draw(panel)
    for k, ((i, _), name, text) in enumerate(zip(entries, names, percentages, strict=True)):
        left, middle = k // rows * column + gap, gap + k % rows * line + line // 2
        draw.rectangle((left, middle - font_size // 2, left + font_size - 1, middle - font_size // 2 + font_size - 1),
                       fill=tuple(labels.palette[i].tolist()), outline='black', width=max(1, font_size // 16))
        draw.text((left + font_size + gap, middle), name, 'black', font, anchor='lm')
        draw.text((left + column - 2 * gap, middle), text, 'black', font, anchor='rm')
    return panel


def draw_overlay(image: np.ndarray, prediction: np.ndarray, labels: Labels, opacity: float = 0.5) -> Image.Image:
    """A picture of a prediction: the image under its classes' colours, and beside it a legend of the classes found.

    Args:
        image (np.ndarray): (H, W, 3), BGR, 8 bits.
        prediction (np.ndarray): Class indices (H, W).
        labels (Labels): Names and colours.
        opacity (float): Of the colours: 0 shows the image, 1 the colours alone.

    Returns:
        PIL.Image.Image: RGB; the blend unscaled in the upper left corner, the legend to the right of it.
    """
    height, width = prediction.shape
    blend = np.empty((height, width, 3), np.uint8)
    for begin in range(0, height, 256):     # of a large image the numbers between would take gigabytes
        rows = slice(begin, begin + 256)
        blend[rows] = ((1 - opacity) * image[rows, :, ::-1] + opacity * labels.palette[prediction[rows]]).round()
    # Legible at full size in a small picture, and in a large one that is scaled to a screen.
    font_size = max(14, round((height * width)**0.5 / 48))
    legend = draw_legend(shares(prediction, len(labels.classes)), labels, height, font_size)
    picture = Image.new('RGB', (width + legend.width, legend.height), 'white')
    picture.paste(Image.fromarray(blend), (0, 0))
    picture.paste(legend, (width, 0))
    return picture


def save_png(picture: Image.Image, path: Path, **text: str) -> None:
    """Write a ``PIL.Image`` to ``path``, whole or not at all, with ``text`` as PNG has it beside the pixels."""
    info = PngImagePlugin.PngInfo()
    for key, value in text.items():
        info.add_text(key, value)
    try:
        with replacing(path) as temporary:
            picture.save(temporary, format='PNG', pnginfo=info)
    except OSError as error:
        raise UserError(f'cannot write {path.absolute()}: {error}. Next: give another --out, or free space.') from error
