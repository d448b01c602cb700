"""Look at every image and mask of a data set: check DIR|CONFIG

DIR is a folder of `inceptionnext-seg import`, or any with images/{training,validation} and annotations/ alike; CONFIG
is a config, whose data sets are looked at. Found are files that are broken, missing or do not fit, values that are no
class, classes that never occur, images that are in training and in validation, EXIF turns, CMYK and 16 bits. The
folder --out gets check.html, one page with class frequencies, overlays and all that was found, and check.png.
Exit code: 0 nothing is wrong, 1 something is, 2 nothing could be looked at.
"""
import argparse
import difflib
import importlib
from pathlib import Path

from ..data.inspection import inspect, list_folder, summary, write_page
from ..errors import UserError, exit_on_user_error, quantity
from ..zoo import configs, find_config


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('source', metavar='DIR|CONFIG', help='folder of a data set, or a config')
    parser.add_argument(
        '--out',
        type=Path,
        metavar='DIR',
        help="folder for check.html and check.png (default: the data set's folder, or work_dirs/check for a config)",
    )
    parser.add_argument('--data-root', help='for a config: another place of the data')
    parser.add_argument(
        '--cfg-options', nargs='+', default=[], metavar='KEY=VALUE', help='for a config: override settings'
    )
    return parser.parse_args(argv)


def listing_of(args):
    if Path(args.source).is_dir():
        unused = [option for option, value in (('--data-root', args.data_root), ('--cfg-options', args.cfg_options))
                  if value]
        if unused:
            raise UserError(f'{unused[0]} is for a config, and {args.source} is a folder. Next: leave {unused[0]} out, '
                            'or give the config.')
        return list_folder(args.source), args.out or Path(args.source)
    try:
        find_config(args.source)
    except UserError as error:
        if Path(args.source).exists():
            raise
        near = difflib.get_close_matches(args.source, [*configs(), *map(str, Path(args.source).parent.glob('*/'))], 1)
        raise UserError(
            f'{Path(args.source).absolute()} is not there, and no config of the package has this name. Expected: '
            f'a folder of a data set, or a config{f", such as {near[0]}" if near else ""}. Next: check the path; '
            '`inceptionnext-seg list` lists the configs.') from error
    # Only a config needs mmseg, which takes seconds to import.
    launch = importlib.import_module('inceptionnext_seg.engine.launch')
    options = importlib.import_module('inceptionnext_seg.engine.options')
    of_config = importlib.import_module('inceptionnext_seg.data.inspection.of_config')
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=options.OptionsAction)
    overrides = parser.parse_args(['--cfg-options', *args.cfg_options]).cfg_options if args.cfg_options else None
    cfg = launch.load_config(args.source, overrides, args.data_root)
    if importlib.import_module('inceptionnext_seg.engine.own_data').needs_data(cfg):
        raise UserError(f'config {args.source} takes its classes and sizes from the data, and names none. Expected: '
                        'the folder that `inceptionnext-seg import` wrote. Next: inceptionnext-seg check DIR.')
    return of_config.list_config(cfg, Path(args.source).stem), args.out or Path('work_dirs/check')


@exit_on_user_error
def main(argv=None):
    args = parse_args(argv)
    listing, out = listing_of(args)
    findings = inspect(listing)
    try:
        written = write_page(listing, findings, out, f'{args.source}: {quantity(len(listing.items), "image")}')
    except OSError as error:
        raise UserError(f'cannot write to {out}: {error}. Next: give another --out.') from error
    print(summary(listing, findings))
    print(f'See {", ".join(map(str, written))}')
    return 1 if findings.errors else 0
