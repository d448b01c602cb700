"""``dataset.json``: what a folder of images and masks holds, so that a config needs no list of classes.

``inceptionnext-seg import`` writes it beside ``images/{training,validation,test,unlabelled}`` and
``annotations/{training,validation,test}``; masks hold 0 to N - 1, and 255 for pixels that do not count.
"""
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import UserError
from ..files import read_object, write_json

NAME, VERSION, IGNORE = 'dataset.json', 1, 255
SOURCES = 'sources.csv'     # beside it: which file each image came from
MOST_CLASSES = 255


class Description(NamedTuple):
    """What ``dataset.json`` says.

    Attributes:
        root (Path): The folder.
        classes (tuple[str, ...]), palette (list[list[int]]): A name and an RGB colour for each class.
        img_suffix (str), seg_map_suffix (str): Ends of the names of all images, and of all masks.
        splits (dict[str, dict]): For each split with masks ``images``, ``pixels`` and ``images_with`` by class index,
            and ``ignored`` pixels.
        unlabelled (int): Images without masks.
        median_size (tuple[int, int]): Width and height that half of the images are below.
        source (dict): Where the data came from.
    """
    root: Path
    classes: tuple[str, ...]
    palette: list[list[int]]
    img_suffix: str
    seg_map_suffix: str
    splits: dict[str, dict[str, Any]]
    unlabelled: int
    median_size: tuple[int, int]
    source: dict[str, Any]

    @property
    def metainfo(self) -> dict[str, Any]:
        """``metainfo`` of MMSegmentation's ``BaseSegDataset``."""
        return dict(classes=self.classes, palette=self.palette)

    def dataset(self, split: str) -> dict[str, Any]:
        """The settings of a ``BaseSegDataset`` for a split, but for its pipeline."""
        return dict(
            type='BaseSegDataset', data_root=str(self.root), metainfo=self.metainfo, img_suffix=self.img_suffix,
            seg_map_suffix=self.seg_map_suffix, reduce_zero_label=False,
            data_prefix=dict(img_path=f'images/{split}', seg_map_path=f'annotations/{split}'))

    def write(self) -> None:
        """Write it into its folder."""
        content = dict(version=VERSION, **self._asdict(), ignore_index=IGNORE, reduce_zero_label=False)
        del content['root']
        write_json(self.root / NAME, content)


def read_description(folder: str | Path) -> Description:
    """What a data set folder says of itself.

    Raises:
        UserError: It has no ``dataset.json``, or one that is damaged, or of a later version.
    """
    path = Path(folder) / NAME
    if not path.is_file():
        raise UserError(f'{Path(folder).absolute()} has no {NAME}. Expected: a folder that `inceptionnext-seg import '
                        'SOURCE --out DIR` wrote. Next: give that command, or a config.')
    content = read_object(path, 'the description of a data set', 'import the data again')
    try:
        if content['version'] != VERSION:
            raise ValueError(f'version {content["version"]!r}; expected: {VERSION}')
        classes, palette, splits = content['classes'], content['palette'], content['splits']
        if not 1 <= len(classes) <= MOST_CLASSES or not all(isinstance(name, str) and name for name in classes) or len(
                set(classes)) < len(classes):
            raise ValueError('`classes` is no list of different names')
        if len(palette) != len(classes) or not all(len(color) == 3 and all(
                type(channel) is int and 0 <= channel <= 255 for channel in color) for color in palette):
            raise ValueError('`palette` has no RGB colour for each class')
        suffixes = content['img_suffix'], content['seg_map_suffix']
        if not all(isinstance(suffix, str) and suffix.startswith('.') and '/' not in suffix for suffix in suffixes):
            raise ValueError(f'the suffixes are {suffixes}')
        for split in splits.values():
            if len(split['pixels']) != len(classes) or not all(
                type(count) is int and count >= 0 for count in split['pixels']
            ):
                raise ValueError('`pixels` has no count for each class')
        width, height = content['median_size']
        return Description(Path(folder), tuple(classes), palette, *suffixes, splits, int(content['unlabelled']),
                           (int(width), int(height)), dict(content.get('source') or {}))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f'has no {error}' if isinstance(error, KeyError) else str(error)
        raise UserError(f'{path} cannot be used: {what}. Next: import the data again.') from error
