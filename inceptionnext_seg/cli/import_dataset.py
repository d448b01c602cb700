"""Make a data set that trains of images and labels as people have them: import SOURCE... --out DIR

SOURCE is a folder with images and, in any order of folders,
  masks of class indices      one channel or one palette; 0 to N - 1, 1 to N, or 0 and 255
  masks of colours            --palette FILE says which is which; without it the colours are learned, written to a
                              file to correct, and shown
  Labelme JSON, COCO JSON (polygons and run lengths), CVAT for images 1.1
or one that an import wrote. Several sources, each with labels of its own kind, become one data set: classes are united
by name, in the order of the first, and an image that several have is taken once, with the labels of the last.
Images and masks are matched by name; the end that masks have (a.jpg, a_mask.png; a_leftImg8bit.png,
a_gtFine_labelIds.png) is found and reported. DIR gets images/ and annotations/, each with training and validation,
images/unlabelled, dataset.json, config.py, which trains, and report.txt. All is read before anything is written.
Exit code: 0 everything was imported, 1 some files were left out (they are listed), 2 nothing was imported, 3 the
palette has to be confirmed.
"""
import argparse
import shlex
import sys
from pathlib import Path

from ..data.importing import FORMATS, Options, Unconfirmed, import_dataset
from ..data.importing.palettes import read_classes
from ..data.importing.pictures import SIXTEEN_BIT
from ..data.importing.report import left_out_lines
from ..data.importing.turned import EXIF
from ..errors import UserError, exit_on_user_error
from ..files import write_text

UNCONFIRMED = 3


def renaming(text):
    old, equals, new = text.partition('=')
    if not equals or not old or not new:
        raise argparse.ArgumentTypeError(f'{text!r} is no OLD=NEW')
    return old, new


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('source', nargs='+', metavar='SOURCE', help='folder of images and labels')
    parser.add_argument('--out', required=True, metavar='DIR', help='folder to write; must be missing or empty')
    parser.add_argument('--format', default='auto', choices=('auto', *FORMATS), help='default: %(default)s, by content')
    labels = parser.add_argument_group('what the labels mean')
    labels.add_argument('--classes', help='names in order, "road,car", or a file with one a line; beside '
                        '--palette the same names as there')
    labels.add_argument('--palette', type=Path, metavar='FILE', help='colours and names, "R G B name" a line; also '
                        "CVAT's labelmap.txt, a CSV of name,r,g,b, or JSON")
    labels.add_argument(
        '--tolerance',
        type=int,
        default=0,
        metavar='N',
        help='take the nearest colour of the palette, at '
        'most N away in each channel: for masks that were smoothed or stored as JPEG',
    )
    labels.add_argument('--yes', action='store_true', help='take learned colours as classes without asking')
    labels.add_argument(
        '--reduce-zero-label',
        action='store_true',
        help='0 in index masks means "not labelled", and 1 is the first class, as in ADE20K',
    )
    labels.add_argument(
        '--rename',
        type=renaming,
        action='append',
        default=[],
        metavar='OLD=NEW',
        help='another name for a class, that of another class to merge them, or OLD=ignore; may be repeated',
    )
    labels.add_argument(
        '--unlabelled',
        default='background',
        metavar='background|ignore|CLASS',
        help='what pixels under no shape are (default: %(default)s)',
    )
    labels.add_argument(
        '--empty',
        default='unlabelled',
        choices=('unlabelled', 'background'),
        help='what listed images without a shape are: not labelled yet, or of background alone (default: %(default)s)',
    )
    labels.add_argument(
        '--overlap',
        default='last',
        choices=('last', 'small'),
        help='which of two shapes counts where they overlap (default: %(default)s)',
    )
    labels.add_argument(
        '--uncorrected',
        default='leave',
        choices=('leave', 'take'),
        help='Labelme files that are as `predict` wrote them: leave them out, so that their images are not labelled, '
        'or take them (default: %(default)s)',
    )
    files = parser.add_argument_group('which files')
    files.add_argument('--mask-suffix', metavar='END', help='end of the names of masks, such as _mask.png')
    files.add_argument('--image-suffix', metavar='END', help='end of the names of images, such as _rgb.jpg')
    files.add_argument('--masks', type=Path, metavar='FOLDER', help='folder of the masks alone, below SOURCE')
    files.add_argument('--sixteen-bit', default='refuse', choices=SIXTEEN_BIT, help='what images of 16 bits a channel '
                       'become (default: %(default)s)')
    files.add_argument('--exif', default='auto', choices=EXIF, help='what masks and COCO shapes of photographs with an '
                       'EXIF turn fit: what viewers show, or the pixels as stored (default: %(default)s, by sizes)')
    files.add_argument('--follow-links', action='store_true', help='read symbolic links that lead out of SOURCE')
    split = parser.add_argument_group('training and validation')
    split.add_argument(
        '--val',
        type=float,
        metavar='SHARE',
        help='share of the images for validation (default: as folders named train and val say, or else 0.2); those '
        'in folders named test are for testing',
    )
    split.add_argument('--val-list', type=Path, metavar='FILE', help='names of the validation images, one a line; '
                       'instead of --val and --group')
    split.add_argument('--group', metavar='folder|REGEX', help='keep on one side what is of one folder, or agrees in a '
                       'regular expression over the path: frames of a sequence, photographs of a place')
    split.add_argument('--seed', type=int, default=0, help='of the split (default: %(default)s)')
    return parser.parse_args(argv)


def options_of(args) -> Options:
    return Options(
        format=args.format, classes=args.classes and read_classes(args.classes), palette=args.palette,
        tolerance=args.tolerance, accept=args.yes, unlabelled=args.unlabelled, empty=args.empty,
        uncorrected=args.uncorrected, reduce_zero_label=args.reduce_zero_label, rename=dict(args.rename),
        overlap=args.overlap, mask_suffix=args.mask_suffix, image_suffix=args.image_suffix, masks=args.masks,
        val=args.val, val_list=args.val_list, group=args.group, seed=args.seed, sixteen_bit=args.sixteen_bit,
        follow_links=args.follow_links, exif=args.exif)


def confirm(error: Unconfirmed, out: str, accepted: bool) -> Path | None:
    """Write the learned palette and show it; its path where --yes or a person at a terminal says that it is right."""
    path = Path(out).absolute().with_name(f'{Path(out).name}.palette.txt')
    if path.exists() and path.read_text(encoding='utf-8', errors='replace') != error.text:
        raise UserError(
            f'{error} would be written to {path}, which is there already. Next: give it as --palette {path}, '
            'or remove it.'
        )
    write_text(path, error.text)
    print(f'{error} are in {path}:\n\n{error.text}', end='')
    for line in left_out_lines(error.left_out):
        print(line)
    if accepted:
        return path
    if sys.stdin.isatty() and sys.stdout.isatty():
        print('\nUse them as they are? [y/N] ', end='', flush=True)
        if sys.stdin.readline().strip().lower() in ('y', 'yes'):
            return path
    tolerance = f' --tolerance {error.tolerance}' if error.tolerance else ''
    print(f'\nNothing was imported yet. Next: write the names of the classes into it, and give the same command with\n'
          f'  --palette {shlex.quote(str(path))}{tolerance}\nor --yes to take them as they are.')
    return None


@exit_on_user_error
def main(argv=None):
    args = parse_args(argv)
    command = list(sys.argv if argv is None else argv)
    try:
        report = import_dataset(args.source, args.out, options_of(args), command)
    except Unconfirmed as error:
        args.palette = confirm(error, args.out, args.yes)
        if args.palette is None:
            return UNCONFIRMED
        args.tolerance = max(args.tolerance, error.tolerance)
        report = import_dataset(args.source, args.out, options_of(args), command)
    print(report.text())
    quoted = shlex.quote(str(args.out))
    print(f'\nNext: inceptionnext-seg check {quoted}      look at it\n      inceptionnext-seg train '
          f'upernet_inceptionnext_a_own --data {quoted} --minutes 60')
    return 1 if report.left_out else 0
