"""What a user can say about an import."""
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import UserError
from .pictures import SIXTEEN_BIT
from .turned import EXIF

IGNORE = 255
IGNORE_NAMES = ('ignore', '__ignore__', '_ignore_', 'void', 'unlabelled', 'unlabeled')
BACKGROUND, BACKGROUND_NAMES = 'background', ('background', '_background_', '__background__')


@dataclass(frozen=True)
class Options:
    """How a source is read.

    Attributes:
        format (str): A name of ``FORMATS``, or 'auto'.
        classes (tuple[str, ...] | None): Names in their order; None takes what the labels have.
        palette (Path | None): A file of colours and names, for colour masks.
        tolerance (int): How far a channel of a colour mask may be from the palette's.
        accept (bool): Whether learned colours are used without being confirmed.
        unlabelled (str): What pixels under no shape are: 'background', a class, or 'ignore'.
        empty (str): What images without a shape are: 'unlabelled' (not labelled yet) or 'background' (nothing in them).
        uncorrected (str): What becomes of Labelme files that are as ``predict`` wrote them: 'leave' takes their images
            as not labelled, 'take' takes them as labels.
        reduce_zero_label (bool): Whether 0 in index masks means "not labelled", and 1 is the first class.
        rename (dict[str, str]): Labels that are other classes, or 'ignore'.
        overlap (str): Which of two shapes counts where they overlap: 'last' or 'small'.
        mask_suffix (str | None), image_suffix (str | None): Ends of names, such as '_mask.png'.
        masks (Path | None): A folder of the masks, below the source.
        val (float | None): Share of the images for validation; None where folders or a file say it, and otherwise 0.2.
        val_list (Path | None): A file of names, one a line, for validation; without ``val`` and ``group``.
        group (str | None): 'folder', or a regular expression: images whose paths agree in it stay on one side.
        seed (int): Of the split.
        sixteen_bit (str): See :func:`.pictures.rgb_of`.
        exif (str): What the masks and COCO shapes of images with an EXIF turn fit: 'upright' (what viewers show),
            'stored' (the pixels in the file), or 'auto', as the sizes of those turned by 90 degrees tell.
        follow_links (bool): Symbolic links out of the source.
    """
    format: str = 'auto'
    classes: tuple[str, ...] | None = None
    palette: Path | None = None
    tolerance: int = 0
    accept: bool = False
    unlabelled: str = BACKGROUND
    empty: str = 'unlabelled'
    uncorrected: str = 'leave'
    reduce_zero_label: bool = False
    rename: dict[str, str] = field(default_factory=dict)
    overlap: str = 'last'
    mask_suffix: str | None = None
    image_suffix: str | None = None
    masks: Path | None = None
    val: float | None = None
    val_list: Path | None = None
    group: str | None = None
    seed: int = 0
    sixteen_bit: str = 'refuse'
    follow_links: bool = False
    exif: str = 'auto'

    def __post_init__(self):
        for name, value, known in (('empty', self.empty, ('unlabelled', 'background')),
                                   ('overlap', self.overlap, ('last', 'small')),
                                   ('uncorrected', self.uncorrected, ('leave', 'take')),
                                   ('sixteen_bit', self.sixteen_bit, SIXTEEN_BIT), ('exif', self.exif, EXIF)):
            if value not in known:
                raise UserError(f'{name} is {value!r}; expected: {" or ".join(map(repr, known))}')
        if self.val is not None and not 0 < self.val < 1:
            raise UserError(f'val is {self.val}; expected: a share of the images between 0 and 1, such as 0.2')
        if self.val_list is not None and (self.val is not None or self.group is not None):
            other = f'--val {self.val}' if self.val is not None else f'--group {self.group!r}'
            raise UserError(f'{other} does nothing beside --val-list {self.val_list}, which names the images. '
                            'Expected: one of them. Next: leave one out.')
        if not 0 <= self.tolerance < 128:
            raise UserError(f'tolerance is {self.tolerance}; expected: 0 to 127')
