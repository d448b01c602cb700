"""The formats: for each its name, how a source is recognized, and what reads it."""
from collections.abc import Callable
from typing import NamedTuple

from ...errors import UserError
from . import coco, cvat, dataset_folder, labelme
from .mask_files import looks_coloured, read_color_masks, read_index_masks
from .options import Options
from .samples import Source
from .tree import Tree


class Format(NamedTuple):
    """A way in which labels are kept.

    Attributes:
        what (str): In words.
        recognizes (Callable[[Tree, Options], bool]): Whether a source is of this format; asked in the order of
            ``FORMATS``.
        read (Callable[[Tree, Options], Source]): The images and labels.
    """
    what: str
    recognizes: Callable[[Tree, Options], bool]
    read: Callable[[Tree, Options], Source]


COLOR, DATASET = 'color', 'dataset'
FORMATS = {
    DATASET: Format('a data set that `import` wrote', lambda tree, _: dataset_folder.recognizes(tree),
                    dataset_folder.read_dataset),
    'coco': Format('COCO JSON: polygons and run-length codes', lambda tree, _: coco.recognizes(tree), coco.read_coco),
    'labelme': Format('Labelme JSON', lambda tree, _: labelme.recognizes(tree), labelme.read_labelme),
    'cvat': Format('CVAT for images 1.1', lambda tree, _: cvat.recognizes(tree), cvat.read_cvat),
    COLOR: Format('masks of colours', looks_coloured, read_color_masks),
    'index': Format('masks of class indices', lambda tree, options: True, read_index_masks),
}


# What says something of some formats alone: by attribute of Options, the formats that it is for. Shapes of Labelme and
# CVAT are always drawn on what viewers show.
MASKS, SHAPES = (COLOR, 'index'), ('coco', 'labelme', 'cvat')
ONLY_OF = dict(palette=(COLOR, ), tolerance=MASKS, mask_suffix=MASKS, image_suffix=MASKS, masks=MASKS,
               reduce_zero_label=('index', ), uncorrected=('labelme', ), exif=('coco', DATASET, *MASKS),
               unlabelled=SHAPES, empty=SHAPES, overlap=SHAPES)


def format_of(tree: Tree, options: Options) -> str:
    """The name of a source's format: the one that is asked for, or the first that recognizes it.

    Raises:
        UserError: There is no such format.
    """
    if options.format != 'auto' and options.format not in FORMATS:
        raise UserError(f'the format is {options.format!r}; expected: auto, {", ".join(FORMATS)}')
    return options.format if options.format != 'auto' else next(
        name for name, known in FORMATS.items() if known.recognizes(tree, options))


def require_used(options: Options, names: list[str]) -> None:
    """Raises UserError where an option is for other formats than those of the sources."""
    for setting, formats in ONLY_OF.items():
        value, flag = getattr(options, setting), f'--{setting.replace("_", "-")}'
        if value != getattr(Options, setting) and not {*names} & {*formats}:
            read = ' and '.join(FORMATS[name].what for name in dict.fromkeys(names))
            raise UserError(f'{flag}{"" if value is True else f" is {value}"}, and the '
                            f'source{"s are" if len(names) > 1 else " is"} read as {read}, of which it says nothing. '
                            f'Expected: a --format of {", ".join(formats)}. Next: leave {flag} out, or name the format '
                            'that is meant.')
