"""Image files to segment: those of a folder, which of them cannot be read and why, and where predictions of them go."""
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from PIL import Image, UnidentifiedImageError

from ..data.decoding import FORMATS, why_wrong_depth
from ..data.importing.tree import PICTURES as IMAGE_SUFFIXES
from ..data.importing.tree import UNREAD_PICTURES, is_litter, without_check
from ..data.prediction_folder import (
    CLASS_NUMBERS,
    CONFIDENCE,
    ENTROPY,
    FOLDERS,
    LABELME,
    OVERLAYS,
    RECORD,
    is_prediction_folder,
)
from ..errors import UserError, quantity, shown

KINDS = ', '.join(IMAGE_SUFFIXES)


class Images(NamedTuple):
    """What is to be segmented.

    Attributes:
        outputs (dict[Path, Path]): From image to relative output, sorted.
        left_out (dict[Path, str]): Pictures by their names, and links to folders, that cannot be read: why, as the end
            of a sentence.
        notes (list[str]): A line on each folder that ``predict`` wrote into, whose predictions are no images.
    """
    outputs: dict[Path, Path]
    left_out: dict[Path, str]
    notes: list[str]


def why_unread(path: Path) -> str | None:
    """Why a file or link cannot be read as an image, by its name and kind, or None where that is not known."""
    if path.is_symlink():
        if path.is_dir():
            return 'it is a link to a folder, which is not followed. Next: give that folder, or put it in its place'
        if not path.exists():
            return f'it is a link to {path.readlink()}, which is not there'
    if path.suffix.lower() in UNREAD_PICTURES:
        return f'it is a {path.suffix} file. Expected: one of {KINDS}. Next: convert it, such as to {path.stem}.jpg'
    return None


def check_image(path: str | Path) -> None:
    """Decode an image file once: OpenCV, which reads it for the network, fills what a cut file lacks with grey, never
    says why it cannot read one, and keeps the upper 8 of 16 bits.

    Raises:
        OSError: It cannot be read; says why, as the end of a sentence. Decoders raise errors of other kinds, too.
    """
    problem = why_unread(Path(path))
    if problem:
        raise OSError(problem)
    try:
        # Of these formats alone: Pillow starts Ghostscript for an EPS file, whatever it is called.
        with Image.open(path, formats=FORMATS) as file:
            problem = why_wrong_depth(file)
            if problem:
                raise OSError(f'it {problem}. Next: convert it to 8 bits, as `inceptionnext-seg import` does with '
                              '--sixteen-bit stretch')
            file.load()
    except UnidentifiedImageError:
        raise OSError(f'it is no picture of a known format ({", ".join(FORMATS)})') from None


def images_below(folder: str | Path, out: Path | None = None,
                 skip: Callable[[Path], bool] = lambda path: False) -> Images:
    """The images of a folder and its subfolders, with outputs as :func:`find_images` names them.

    What is hidden or archives and file managers leave behind is none of them, as in an import, and neither is what
    ``check`` or ``predict`` wrote into the folder or one below it.

    Args:
        out (Path | None): A folder of predictions that is left out without a note.
        skip (Callable): Whether a path is none of the images.

    Raises:
        UserError: There is no image.
    """
    folder = Path(folder)
    found, left_out, notes = [], {}, []

    def unlisted(error):
        left_out[Path(error.filename)] = f'it is a folder that cannot be listed ({error.strerror})'

    for parent, folders, files in os.walk(folder, onerror=unlisted):
        predicted = set(FOLDERS).intersection(folders) if RECORD in files and is_prediction_folder(parent) else set()
        if predicted and (out is None or Path(parent).resolve() != out.resolve()):
            notes.append(f'left out: what `predict` wrote into {shown(parent)}')
        folders[:] = [name for name in folders if name not in predicted and not is_litter(name)]
        files = [name for name in without_check(files) if not is_litter(name)]
        links = [name for name in folders if Path(parent, name).is_symlink()]
        for path in (Path(parent, name) for name in (*links, *files)):
            if path.name in links:
                # What lies in the folder is walked where it lies.
                wanted = not path.resolve().is_relative_to(folder.resolve())
            else:
                wanted = path.suffix.lower() in (*IMAGE_SUFFIXES, *UNREAD_PICTURES)
            if not wanted or skip(path):
                continue
            problem = why_unread(path) or (None if path.is_file() else 'it is no plain file')
            if problem:
                left_out[path] = problem
            else:
                found.append(path)
    if not found:
        first = next((f' Found: {quantity(len(left_out), "picture or link", "pictures or links")} that cannot be read. '
                      f'{path}: {problem}.' for path, problem in sorted(left_out.items())), '')
        raise UserError(f'no image in the folder {folder.absolute()} and its subfolders'
                        f'{f" ({notes[0]})" if notes else ""}. Expected: files that end in {KINDS}.{first}')
    names = outputs({path: path.relative_to(folder) for path in sorted(found)})
    return Images(names, dict(sorted(left_out.items())), sorted(notes))


def outputs(names: dict[Path, Path]) -> dict[Path, Path]:
    """Names of PNG files for the relative names of images, no two alike."""
    found = {path: name.with_suffix('.png') for path, name in names.items()}
    while True:  # more than once where a longer name is again that of another, as beside `a.jpg.jpg`
        times = Counter(found.values())
        shared = [path for path, name in found.items() if times[name] > 1 and name == names[path].with_suffix('.png')]
        if not shared:
            return found
        found.update({path: names[path].with_name(f'{names[path].name}.png') for path in shared})


def find_images(source: str | Path, out: str | Path | None = None) -> Images:
    """The images to segment, and the file that each is written to below the folders in ``out``, where it is given.

    A folder is walked with its subfolders and their structure is kept; what lies in ``out``'s own folders is left out,
    so that ``out`` may be in ``source``. Files are named as in MMSegmentation, ``name.png`` for ``name.jpg``;
    where two images would share a name, as ``a.jpg`` and ``a.png``, they become ``a.jpg.png`` and ``a.png.png``.

    Raises:
        UserError: ``source`` is missing, is not an image by its suffix, has no image, or would be overwritten.
    """
    source, out = Path(source), None if out is None else Path(out)
    # The other folders have plainer names, and are predictions where predictions were written before.
    others = (CONFIDENCE, ENTROPY, LABELME) if out and (out / RECORD).is_file() else ()
    written = [(out / folder).resolve() for folder in (CLASS_NUMBERS, OVERLAYS, *others)] if out else []

    def is_output(path):
        return any(path.resolve().is_relative_to(folder) for folder in written)

    if not source.exists():
        raise UserError(f'no such image or folder: {source.absolute()}')
    if source.is_dir():
        return images_below(source, out, is_output)
    problem = why_unread(source)
    if problem:
        raise UserError(f'{source.absolute()} cannot be read: {problem}.')
    if not (source.suffix.lower() in IMAGE_SUFFIXES and source.is_file()):
        raise UserError(f'not an image, by its name: {source.absolute()}. Expected: a file that ends in {KINDS}. '
                        'For a video: --video IN --out OUT.mp4.')
    if is_output(source):
        raise UserError(f'{source.absolute()} is in the output folder, where predictions would overwrite it. '
                        'Next: give another --out.')
    return Images(outputs({source: Path(source.name)}), {}, [])
