"""Folders that ``inceptionnext-seg predict`` wrote: the labels in them, which are to be imported, and all else."""
from pathlib import Path, PurePosixPath

from ...errors import UserError
from ...files import read_object
from ..prediction_folder import (
    CLASS_NUMBERS,
    CLASSES_FILE,
    COCO_FILE,
    FOLDERS,
    LABELME,
    RECORD,
    is_prediction_folder,
)
from .options import Options
from .tree import Tree

# What of a folder of predictions is read as which format; of several, the first that is there.
LABELS = dict(labelme=LABELME, coco=COCO_FILE, index=CLASS_NUMBERS)


def leave_predictions_out(tree: Tree, options: Options) -> list[str]:
    """Take out of a source what ``predict`` wrote and is no label: overlays, maps, arrays, parts. Lines on that.

    A source that is such a folder itself has labels of one kind, with the images that are there; one that has such
    folders below it has none of them.

    Raises:
        UserError: The source is a folder of predictions, or one in it, without their images.
    """
    if is_prediction_folder(tree.root.parent) and tree.root.name in FOLDERS and tree.root.name != LABELME:
        raise without_images(tree.root.parent, tree.root)
    notes, top = [], tree.root
    for folder in sorted({str(PurePosixPath(file).parent) for file in tree.files
                          if PurePosixPath(file).name == RECORD}):
        if folder != '.' and is_prediction_folder(top / folder):
            tree.drop(lambda file, folder=folder: bool(parts_below(file, folder)) and is_of_predict(file, folder))
            notes.append(f'what `predict` wrote into {folder} is not imported. To import it: give {top / folder}')
    if not is_prediction_folder(top):
        return notes
    kinds = {part for file in tree.files if (part := parts_below(file, '.')[0]) in LABELS.values()}
    wanted = CLASS_NUMBERS if options.masks == Path(CLASS_NUMBERS) else (
        LABELS.get(options.format) or next((kind for kind in LABELS.values() if kind in kinds), None))
    # Labelme's folder has copies of the images, which other labels are of, too. Where the images are here, copies go.
    images = {f'{LABELME}/{file}' for file in tree.pictures() if not is_of_predict(file, '.')}
    tree.drop(lambda file: file in images or (
        is_of_predict(file, '.') and parts_below(file, '.')[0] != wanted and not (
            file.startswith(f'{LABELME}/') and not file.lower().endswith('.json'))))
    if not any(not file.startswith(f'{CLASS_NUMBERS}/') for file in tree.pictures()):
        raise without_images(top, top)
    if wanted in kinds:
        notes.append(f'the source is a folder of `predict`: its {wanted} is read' + (
            '' if wanted == LABELME else ', and nothing tells which images somebody corrected: those that nobody did '
            'teach a model what it predicts already'))
    return notes


def parts_below(file, folder):
    """The parts of a path below a folder; none where it is elsewhere."""
    path = PurePosixPath(file)
    return path.relative_to(folder).parts if path.is_relative_to(folder) else ()


def is_of_predict(file, folder):
    """Whether a file is one that ``predict`` writes into a folder, by its place."""
    first, *rest = parts_below(file, folder)
    return first in FOLDERS if rest else first in (RECORD, CLASSES_FILE, COCO_FILE)


def without_images(folder: Path, given: Path) -> UserError:
    there = [name for name in (*FOLDERS, COCO_FILE) if (folder / name).exists()]
    source = read_object(folder / RECORD, 'the settings of predictions', 'predict again').get('source')
    images = Path(source) if isinstance(source, str) else None
    where = f'{images if images.is_dir() else images.parent}' if images else 'the folder of the images'
    labels = next((name for name in (COCO_FILE, CLASS_NUMBERS) if name in there), None)
    ways = [f'import {folder / LABELME}'] if LABELME in there else []
    ways += [f'copy {folder / labels} into {where}, and import that'] if labels else []
    ways += [] if LABELME in there else [f'predict with --format labelme, which copies the images, and import {folder}']
    return UserError(f'{given} was written by `predict` ({", ".join(there)}), and the images are not in it. Expected: '
                     f'labels with their images. Next: {"; or ".join(ways)}.')
