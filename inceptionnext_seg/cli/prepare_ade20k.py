"""Prepare ADE20K for MMSegmentation: download it, unpack it safely, and verify every file.

    inceptionnext-seg prepare-ade20k --download
    inceptionnext-seg prepare-ade20k ADEChallengeData2016.zip
    inceptionnext-seg prepare-ade20k path/to/ADEChallengeData2016      # unpacked already: verified where it lies

Download and unpacking go on from where they were stopped. Exit code: 0 every file is sound, 1 bad files or wrong
counts, 2 nothing could be verified, 130 stopped with Ctrl-C.
"""
import argparse
import sys
from pathlib import Path

from ..data import ade20k
from ..errors import UserError, exit_on_user_error


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('source', nargs='?', type=Path, help='ADEChallengeData2016.zip, or the folder it unpacks to')
    parser.add_argument('--download', action='store_true', help=f'fetch the zip from {ade20k.URL} into --out')
    parser.add_argument('--out', type=Path, default=ade20k.CONFIG_ROOT.parent,
                        help='folder to unpack a zip in (default: %(default)s, where the configs look)')
    parser.add_argument('--partial', action='store_true', help='accept a set with fewer images than the official one')
    parser.add_argument('--report', type=Path, metavar='FILE.json', help='write the report, with every bad file')
    parser.add_argument('--workers', type=int, help='processes that verify (default: one per CPU core, at most 32)')
    args = parser.parse_args(argv)
    if args.download == (args.source is not None):
        parser.error('give either a zip or an unpacked folder, or --download')
    return args


def prepare(args) -> int:
    source = args.source
    if args.download:
        source = args.out / f'{ade20k.NAME}.zip'
        ade20k.download(source, ade20k.URL, ade20k.SHA1)
    if not source.exists():
        raise UserError(f'{source} does not exist: give {ade20k.NAME}.zip, the folder it unpacks to, or --download')
    root = ade20k.find_root(source) if source.is_dir() else ade20k.unpack(source, args.out)

    report = ade20k.verify(root, partial=args.partial, workers=args.workers)
    print(report.summary())
    if args.report:
        report.save(args.report)
    if report.ok and (hint := ade20k.link_hint(root)):
        print(hint)
    return 0 if report.ok else 1


@exit_on_user_error
def main(argv=None) -> int:
    try:
        return prepare(parse_args(argv))
    except KeyboardInterrupt:
        print('\ninterrupted: the same command goes on with the download and the unpacking, and verifies anew',
              file=sys.stderr)
        return 130
