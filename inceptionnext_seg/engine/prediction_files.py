"""Predictions as files: class indices and overlays, arrays, confidence, and what labelling programs open."""
import contextlib
import math
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, PngImagePlugin
from tqdm import tqdm

from ..data.exporting import coco_categories, coco_of, labelme_of
from ..data.prediction_folder import (
    ARRAYS,
    CLASS_NUMBERS,
    CLASSES_FILE,
    COCO,
    COCO_FILE,
    CONFIDENCE,
    DIGEST,
    ENTROPY,
    LABELME,
    MADE_OF,
    MADE_WITH,
    OVERLAYS,
    RECORD,
    digest_of,
    is_corrected,
)
from ..errors import UserError
from ..files import read_json, read_object, replacing, write_json
from ..ops.measured import measuring
from .inference import Labels, draw_overlay, save_png
from .measuring import describe

# From so many images on, the operators are measured at the first: seconds, once on a machine for an image size.
MEASURED_FROM = 16
TOO_LARGE = 'is too large for the memory of the GPU. Next: --device cpu, or a smaller image'
FORMATS = ('png', 'npz', 'coco', 'labelme')


class Predicted(NamedTuple):
    """What is written of an image.

    Attributes:
        image (np.ndarray): (H, W, 3), BGR, 8 bits.
        classes (np.ndarray): (H, W), class indices from 0.
        confidence (np.ndarray | None), entropy (np.ndarray | None): (H, W), the largest softmax probability, and nats.
    """
    image: np.ndarray
    classes: np.ndarray
    confidence: np.ndarray | None = None
    entropy: np.ndarray | None = None


class PredictionFiles:
    """The files of a folder of predictions. For each image, with ``NAME`` of :func:`.image_files.find_images`:

    ``png``: ``class_numbers/NAME.png`` and ``overlays/NAME.png``; ``npz``: ``arrays/NAME.npz`` with ``classes`` and, in
    float16, ``confidence`` and ``entropy``; ``coco``: ``coco/NAME.json``, and in the end ``coco.json`` of all;
    ``labelme``: ``labelme/NAME.json`` with a copy of the image beside it, as Labelme opens a folder. With
    ``confidence``: ``confidence/NAME.png``, 255 is 1, and ``entropy/NAME.png``, 255 knows nothing.

    Args:
        out (str | Path): The folder.
        labels (Labels): Names and colours.
        formats (Sequence[str]): Of ``FORMATS``.
        confidence (bool): Whether the maps of certainty are written.
        opacity (float): Of the overlays' colours.
        least_area (int), tolerance (float): Of Labelme's polygons, see :func:`..data.exporting.regions`.
        source (str | Path | None): Where the images are, a folder or an image; COCO's names of them are relative to it.
        settings (dict | None): What else the predictions are made with, as JSON has it. Every file holds the digest of
            all settings, so that files of other settings in the folder are not taken for these.
    """

    def __init__(self, out: str | Path, labels: Labels, formats: Iterable[str] = ('png', ), confidence: bool = False,
                 opacity: float = 0.5, least_area: int = 0, tolerance: float = 0., source: str | Path | None = None,
                 settings: dict[str, Any] | None = None) -> None:
        self.out, self.labels, self.formats, self.with_confidence = Path(out), labels, tuple(formats), confidence
        self.opacity, self.least_area, self.tolerance = opacity, least_area, tolerance
        self.source = None if source is None else Path(source)
        self.settings = dict(
            settings or {}, classes=labels and labels.as_json(), formats=list(self.formats), confidence=confidence,
            opacity=opacity, least_area=least_area, simplify=tolerance)
        self.made_with = digest_of(self.settings)

    @property
    def needs_confidence(self) -> bool:
        """Whether more than the classes has to be predicted."""
        return self.with_confidence or 'npz' in self.formats

    @property
    def writes_labelme_alone(self) -> bool:
        """Whether nothing is left to write of an image whose Labelme file is kept."""
        return self.formats == ('labelme', ) and not self.with_confidence

    def paths(self, name: Path, image: Path) -> dict[str, Path]:
        """Every file of an image, by kind."""
        kinds = {CLASS_NUMBERS: '.png', OVERLAYS: '.png'} if 'png' in self.formats else {}
        kinds |= {ARRAYS: '.npz'} if 'npz' in self.formats else {}
        kinds |= {CONFIDENCE: '.png', ENTROPY: '.png'} if self.with_confidence else {}
        kinds |= {kind: '.json' for kind in (COCO, LABELME) if kind in self.formats}
        found = {kind: (self.out / kind / name).with_suffix(suffix) for kind, suffix in kinds.items()}
        if LABELME in found:
            # Labelme lists no .jfif files.
            found['image'] = found[LABELME].with_suffix('.jpg' if image.suffix.lower() == '.jfif' else image.suffix)
        return found

    def name_of(self, image: Path) -> str:
        """An image as COCO names it, from the source."""
        below = self.source is not None and self.source != image and image.is_relative_to(self.source)
        return image.relative_to(self.source).as_posix() if below else image.name

    def create_folders(self) -> None:
        """Make the folders, before a model is loaded for nothing.

        Raises:
            UserError: They cannot be made or written to, or have files that ``predict`` did not write.
        """
        folders = {path.parent for path in self.paths(Path('x'), Path('x')).values()}
        foreign = None
        with contextlib.suppress(OSError):      # what cannot be looked at cannot be written to either, as is said below
            if not (self.out / RECORD).is_file():       # which is written before the first prediction
                others = [*folders, self.out / CLASSES_FILE, *[self.out / COCO_FILE] * (COCO in self.formats)]
                foreign = next((path for path in sorted(others) if path.is_file() or holds_files(path)), None)
        if foreign:
            raise UserError(f'{foreign.absolute()} is there, and `predict` did not write it: predictions would replace '
                            f'files of yours. Expected: a new folder, or one with {RECORD}. Next: give another --out.')
        for folder in folders:
            probe = folder / f'.{os.getpid()}.tmp'
            try:
                folder.mkdir(parents=True, exist_ok=True)
                probe.touch()
                probe.unlink()
            except OSError as error:
                raise UserError(f'cannot write to the folder {folder.absolute()}: {error}. Next: give another --out.') \
                    from error

    def are_whole(self, name: Path, image: Path) -> bool:
        """Whether an image has all its files, of these settings and of the image as it is now, or corrected; each got
        its name when it was whole.
        """
        made = self.marks(image)
        return all(path.is_file() if kind == 'image' else
                   marks_in(path) == made or (kind == LABELME and is_corrected(path))
                   for kind, path in self.paths(name, image).items())

    def marks(self, image: Path) -> dict[str, str]:
        """What the files of an image hold beside the prediction: cameras count from 1 again, so that another image may
        have this one's name.
        """
        try:
            state = image.stat()
        except OSError:
            return {MADE_WITH: self.made_with}
        return {MADE_WITH: self.made_with, MADE_OF: f'{state.st_size} {state.st_mtime_ns}'}

    def corrected(self, name: Path, image: Path) -> Path | None:
        """The Labelme file of an image, if it is to be written and somebody has edited the one that is there."""
        path = self.paths(name, image).get(LABELME)
        return path if path and is_corrected(path) else None

    def write(self, name: Path, path: Path, found: Predicted) -> None:
        """Write the files of an image, but for a Labelme file that was corrected.

        Raises:
            UserError: One cannot be written.
        """
        paths, classes, marks = self.paths(name, path), found.classes, self.marks(path)
        try:
            if CLASS_NUMBERS in paths:
                save_png(Image.fromarray(self.labels.numbers(classes)), paths[CLASS_NUMBERS], **marks)
                save_png(draw_overlay(found.image, classes, self.labels, self.opacity), paths[OVERLAYS], **marks)
            if ARRAYS in paths:
                with replacing(paths[ARRAYS]) as temporary:
                    np.savez_compressed(
                        temporary, classes=self.labels.numbers(classes), confidence=found.confidence.astype(np.float16),
                        entropy=found.entropy.astype(np.float16), **marks)
            if self.with_confidence:
                most = math.log(max(2, len(self.labels.classes)))
                for kind, values in ((CONFIDENCE, found.confidence), (ENTROPY, found.entropy / most)):
                    picture = Image.fromarray((255 * values.clip(0, 1)).round().astype(np.uint8))
                    save_png(picture, paths[kind], **marks)
            if COCO in paths:
                write_json(paths[COCO], coco_of(classes, self.labels.classes, self.name_of(path)) | marks)
            if LABELME in paths and not is_corrected(paths[LABELME]):
                with replacing(paths['image']) as temporary:
                    shutil.copyfile(path, temporary)
                content = labelme_of(classes, self.labels.classes, paths['image'].name, self.least_area, self.tolerance)
                content |= marks
                write_json(paths[LABELME], content | {DIGEST: digest_of(content)})
        except OSError as error:
            raise UserError(
                f'cannot write the prediction of {path} to {self.out.absolute()}: {error}. Next: give another '
                '--out, or free space.'
            ) from error

    def record(self, resume: bool) -> None:
        """Write what the predictions are made with, or compare it with what is there; and where the images are.

        Raises:
            UserError: The folder has predictions of other settings, and would be resumed.
        """
        path = self.out / RECORD
        if resume and path.is_file():
            before = read_object(path, 'the settings of predictions', 'leave out --resume')
            other = sorted(key for key in self.settings if before.get(key) != self.settings[key])
            if other:
                raise UserError(
                    f'{path}: the predictions there were made with another {", ".join(other)}: '
                    f'{str(before.get(other[0]))[:200]!r}, now {str(self.settings[other[0]])[:200]!r}. Next: give '
                    'another --out, or leave out --resume.'
                )
        write_json(path, self.settings if self.source is None else dict(
            self.settings, source=str(self.source.absolute())))
        write_json(self.out / CLASSES_FILE, self.labels.as_json())

    def finish(self, images: dict[Path, Path]) -> None:
        """Put the COCO files of all images into one, ``coco.json``: its ids are counted through."""
        if 'coco' not in self.formats:
            return
        whole = dict(images=[], annotations=[], categories=coco_categories(self.labels.classes))
        for path, name in images.items():
            part = self.paths(name, path)[COCO]
            if marks_in(part).get(MADE_WITH) != self.made_with:
                continue
            found = read_json(part)
            number = len(whole['images']) + 1
            whole['images'].append(dict(found['images'][0], id=number))
            for annotation in found['annotations']:
                whole['annotations'].append(dict(annotation, id=len(whole['annotations']) + 1, image_id=number))
        write_json(self.out / COCO_FILE, whole)


def holds_files(folder: Path) -> bool:
    """Whether a path is a folder with something in it, hidden files aside."""
    return folder.is_dir() and any(not path.name.startswith('.') for path in folder.iterdir())


def marks_in(path: Path) -> dict[str, str]:
    """What a file of predictions says of itself, as :meth:`PredictionFiles.marks`; nothing where it is not whole."""
    try:
        if path.suffix == '.png':
            with PngImagePlugin.PngImageFile(path) as file:     # Image.open refuses one that is very large
                content = file.info
        elif path.suffix == '.npz':
            with np.load(path) as arrays:
                content = {key: str(arrays[key]) for key in (MADE_WITH, MADE_OF) if key in arrays}
        else:
            content = read_json(path)
        return {key: content[key] for key in (MADE_WITH, MADE_OF) if key in content}
    except Exception:   # decoders have errors of every kind for a broken file
        return {}


class Outcome(NamedTuple):
    """Of :func:`predict_files`.

    Attributes:
        failures (dict[Path, str]): The images that were not segmented, and why.
        kept (list[Path]): Labelme files that somebody has edited, which were left as they are.
    """
    failures: dict[Path, str]
    kept: list[Path]


def predict_files(predict: Callable[[Path], Predicted], images: dict[Path, Path], files: PredictionFiles,
                  resume: bool = False, progress: bool = True, measure: bool = True) -> Outcome:
    """Segment image files and write the predictions. A Labelme file that was corrected since it was written is kept.

    Of ``MEASURED_FROM`` images and more, the first is where the operators are measured
    (:func:`inceptionnext_seg.measuring`) unless they were before; a line says what came of it.

    Args:
        predict (Callable): What is known of an image: raises OSError where it cannot be read, ValueError where it
            cannot be segmented, or UserError.
        images (dict[Path, Path]): From image to relative output, of :func:`.image_files.find_images`.
        files (PredictionFiles): What is written.
        resume (bool): Whether images that have all their files, of the same settings, are left out.
        progress (bool): Whether to show a progress bar and that line.
        measure (bool): Whether to measure, as the config's ``AccelerateHook`` says.

    Raises:
        UserError: A file cannot be written.
    """
    failures, kept = {}, []
    todo = {path: name for path, name in images.items() if not (resume and files.are_whole(name, path))}
    first = measuring if measure and len(todo) >= MEASURED_FROM else contextlib.nullcontext
    with tqdm(total=len(images), initial=len(images) - len(todo), desc='predicting', unit='image',
              disable=not progress) as bar:
        for path, name in todo.items():
            corrected = files.corrected(name, path)
            kept += [corrected] if corrected else []
            if corrected and files.writes_labelme_alone:
                bar.update()
                continue
            try:
                with first() as measured:
                    found = predict(path)
                first = contextlib.nullcontext
                if progress and measured is not None and measured.seconds:
                    bar.write(describe(measured))
            except OSError as error:
                failures[path] = f'cannot be read: {error}'
            except ValueError as error:
                failures[path] = f'cannot be segmented: {error}'
            except UserError as error:
                failures[path] = str(error).removeprefix(f'{path} ')
            except torch.OutOfMemoryError:
                failures[path] = TOO_LARGE
            else:
                files.write(name, path, found)
            bar.update()
    return Outcome(failures, kept)
