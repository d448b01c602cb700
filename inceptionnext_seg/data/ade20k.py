"""ADE20K (ADEChallengeData2016, the 150-class scene parsing set): download, unpack and verify it for MMSegmentation."""
import hashlib
import http.client
import json
import os
import re
import shlex
import shutil
import signal
import stat
import struct
import urllib.error
import urllib.request
import warnings
import zipfile
import zlib
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from functools import partial as bind
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile
from tqdm import tqdm

from ..errors import UserError
from ..files import write_text
from .exif import upright_size

NAME = 'ADEChallengeData2016'
# The address is MMSegmentation's (docs/en/user_guides/2_dataset_prepare.md); the SHA-1 of what lies there is GluonCV's
# (scripts/datasets/ade20k.py). The address is plain http, so only the checksum tells that the right file came.
URL = f'http://data.csail.mit.edu/places/ADEchallenge/{NAME}.zip'
SHA1 = '219e1696abb36c8ba3a3afe7fb2f4b4606a897c7'
# `data_root` of MMSegmentation's configs/_base_/datasets/ade20k.py.
CONFIG_ROOT = Path('data/ade') / NAME
# Images of each split, and of as many annotations: MMSegmentation's docs, as above.
IMAGE_COUNTS = {'training': 20_210, 'validation': 2_000}
# An annotation's 0 is "not labelled", 1-150 are the classes.
MAX_VALUE = 150
# The set unpacks to about 1 GB, and hardly shrinks in a zip, for it is JPEG and PNG. A zip that announces more, or many
# times its own size, is not ADE20K, or a zip bomb.
MAX_UNPACKED_BYTES = 3 << 29
MAX_RATIO, SMALL = 2, 64 << 20

_CHUNK = 1 << 20
_MEMBER = re.compile(
    rf'(?:{NAME}/)?'
    r'(images/(?:training|validation)/\w[\w.-]*\.jpg'
    r'|annotations/(?:training|validation)/\w[\w.-]*\.png'
    r'|objectInfo150\.txt|sceneCategories\.txt)'
)


def download(path: Path, url: str = URL, sha1: str = SHA1) -> None:
    """Download ``url`` to ``path``, unless ``path`` exists. The bytes arrive in ``path`` + ``.part``, which takes its
    name when it is complete and its SHA-1 is right; a download that was cut goes on from what is there.

    Raises:
        UserError: no network, the server says no, the connection ends early, the disk is full, or another file came.
    """
    path = Path(path)
    if path.exists():
        return
    part = path.with_name(path.name + '.part')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _fetch(url, part)
        digest = hashlib.sha1()
        with part.open('rb') as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
        if digest.hexdigest() != sha1:
            raise UserError(
                f'{url} gave another file: SHA-1 {digest.hexdigest()}, expected {sha1}. It is kept as '
                f'{part}. Delete it and run the same command again; if you know it to be the right one, give its path '
                'instead of --download'
            )
        part.replace(path)
    except (OSError, http.client.HTTPException) as error:
        raise UserError(
            f'cannot download {url} to {part}: {error}. Run the same command again to go on from where it stopped, or '
            f'fetch that address by other means (a browser, another machine) and give the path of the zip instead of '
            '--download'
        ) from error


def _fetch(url: str, part: Path) -> None:
    """Append to ``part`` what it lacks of ``url``."""
    if part.is_symlink():
        raise UserError(f'{part} is a symbolic link, to {part.readlink()}, and is not written through. Remove it')
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={'Range': f'bytes={have}-'} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not have:
            raise
        # "Range not satisfiable": everything is there already, or more than the server has and thus another file.
        if error.headers.get('Content-Range') != f'bytes */{have}':
            part.unlink()
            _fetch(url, part)
        return
    with response:
        length = response.headers.get('Content-Length', '')
        total = int(length) if length.isdecimal() else None
        if response.status == 206:
            content_range = response.headers.get('Content-Range', '')
            match = re.fullmatch(r'bytes (\d+)-\d+/(\d+)', content_range)
            if not match or int(match[1]) != have:
                raise UserError(
                    f'{url}: asked for the bytes from {have:,} on, the server sent Content-Range {content_range!r}. '
                    f'Delete {part} and run the same command again'
                )
            total = int(match[2])
        else:
            have = 0  # The server knows no ranges and sends the file from its start.
        if total is not None:
            _require_space(part.parent, total - have)
        with part.open('ab' if have else 'wb') as file, _progress(total, 'download') as bar:
            bar.update(have)
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
    size = part.stat().st_size
    if total is not None and size != total:
        raise OSError(f'{size:,} of {total:,} bytes came before the connection ended')


def unpack(archive_path: Path, out: Path) -> Path:
    """Unpack ``ADEChallengeData2016.zip`` below ``out`` and return ``out/ADEChallengeData2016``.

    Every member is checked before the first file is written, and only images, annotations, ``objectInfo150.txt`` and
    ``sceneCategories.txt`` are written. A file that is there with the zip's size and CRC-32 is left as it is, so an
    unpacking that was cut goes on, and a second one touches nothing.

    Raises:
        UserError: not a zip, or a truncated or damaged one; a member that would leave ``out``, is no plain file or is
            encrypted; more bytes than ``MAX_UNPACKED_BYTES`` announced; the disk is full or not writable.
    """
    archive_path, root = Path(archive_path), Path(out) / NAME
    try:
        with zipfile.ZipFile(archive_path) as archive:
            members = _checked_members(archive)
            root.mkdir(parents=True, exist_ok=True)
            _refuse_links(root, members)
            _require_space(root, sum(m.file_size for t, m in members.items() if not _has_size(root / t, m.file_size)))
            with _progress(sum(member.file_size for member in members.values()), 'unpack') as bar:
                for target, member in members.items():
                    if not _is_unpacked(root / target, member):
                        _write_member(archive, member, root / target)
                    bar.update(member.file_size)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, struct.error, ValueError) as error:
        raise UserError(
            f'{archive_path} ({archive_path.stat().st_size:,} bytes) is not a whole zip file: {error}. Delete it and '
            f'download it again, with --download or from {URL}'
        ) from error
    except OSError as error:
        raise UserError(
            f'cannot unpack {archive_path} to {root}: {error}. When that is fixed, run the same command again: it '
            'goes on from where it stopped'
        ) from error
    return root


def _checked_members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The members to unpack, keyed by their path below ``ADEChallengeData2016``."""
    members = {}

    def refuse(member, reason):
        raise UserError(
            f'{archive.filename}: member {member.orig_filename!r} {reason}. Nothing was unpacked. This is not the '
            f'official zip: get that from {URL}'
        )

    for member in archive.infolist():
        # `filename` has been cleaned by zipfile, `orig_filename` is what the zip says.
        name, file_type = member.orig_filename, stat.S_IFMT(member.external_attr >> 16)
        if name.startswith('/') or re.match('[A-Za-z]:', name):
            refuse(member, 'has an absolute path')
        if '\\' in name or '\0' in name:
            refuse(member, 'has a backslash or a null byte in its path')
        if '..' in name.split('/'):
            refuse(member, "has '..' in its path")
        if file_type not in (0, stat.S_IFREG, stat.S_IFDIR):
            refuse(member, 'is a symbolic link or a special file, expected plain files and folders')
        match = _MEMBER.fullmatch(name)
        if not match:
            continue
        if member.flag_bits & 0x1:
            refuse(member, 'is encrypted')
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            refuse(member, f'has compression method {member.compress_type}, expected 0 (stored) or 8 (deflated)')
        if match[1] in members:
            refuse(member, f'is the second one for {match[1]}')
        members[match[1]] = member
    if not members:
        raise UserError(
            f'{archive.filename} holds no ADE20K file: among its {len(archive.infolist()):,} members none is '
            f'{NAME}/images/{{training,validation}}/*.jpg or {NAME}/annotations/{{training,validation}}/*.png. '
            f'The right zip is at {URL}'
        )
    announced = sum(member.file_size for member in members.values())
    expected = min(MAX_UNPACKED_BYTES, max(SMALL, MAX_RATIO * Path(archive.filename).stat().st_size))
    if announced > expected:
        raise UserError(
            f'{archive.filename} would unpack to {_gib(announced)}, expected at most {_gib(expected)} of a zip of its '
            f'size (ADE20K is about 1 GiB). Nothing was unpacked. The right zip is at {URL}'
        )
    return members


def _refuse_links(root: Path, targets: Iterable[str]) -> None:
    """What is written below ``root`` stays there; ``root`` itself may be a link, as :func:`link_hint` makes one."""
    for folder in sorted({parent for target in targets for parent in (root / target).parents
                          if parent.is_relative_to(root) and parent != root}):
        if folder.is_symlink():
            raise UserError(
                f'{folder} is a symbolic link, to {folder.readlink()}: what is unpacked would be written there. Remove '
                'it, or give another folder with --out'
            )


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and not path.is_symlink() and path.stat().st_size == size


def _is_unpacked(path: Path, member: zipfile.ZipInfo) -> bool:
    return _has_size(path, member.file_size) and zlib.crc32(path.read_bytes()) == member.CRC


def _write_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + '.part')
    try:
        # Read in pieces: zipfile then never inflates more than a piece beyond the announced size, hands out none of the
        # excess, and compares the CRC-32 at the end.
        part.unlink(missing_ok=True)
        # 'x' makes the file, and never follows a link that stands there.
        with archive.open(member) as source, part.open('xb') as file:
            shutil.copyfileobj(source, file, _CHUNK)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _require_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f'{folder}: {_gib(free)} free on its disk, {_gib(needed)} needed. Free some space, or give a folder on '
            'another disk with --out'
        )


def _gib(size: int) -> str:
    return f'{size / 2**30:.2f} GiB'


def _progress(total: int | None, what: str) -> tqdm:
    return tqdm(total=total, desc=what, unit='B', unit_scale=True, unit_divisor=1024)


@dataclass(frozen=True)
class Report:
    """What :func:`verify` found.

    Attributes:
        root: The verified folder.
        partial: Whether a part of the set was enough.
        images, annotations: Number of files by split.
        bad_files: Path below ``root`` -> what is wrong with that file, every bad file, sorted by path.
    """

    root: str
    partial: bool
    images: dict[str, int]
    annotations: dict[str, int]
    bad_files: dict[str, str]

    @property
    def wrong_counts(self) -> list[str]:
        """A line for each split without its 20,210 or 2,000 images and annotations; none for a partial set."""
        return [
            f'{split}: {counts[split]:,} {kind}, expected {expected:,}'
            for split, expected in IMAGE_COUNTS.items()
            for kind, counts in (('images', self.images), ('annotations', self.annotations))
            if counts[split] != expected and not self.partial
        ]

    @property
    def ok(self) -> bool:
        """Whether the counts are right and no file is bad."""
        return not self.wrong_counts and not self.bad_files

    def to_json(self) -> str:
        """The whole report as JSON."""
        return json.dumps({'ok': self.ok, **asdict(self), 'wrong_counts': self.wrong_counts}, indent=2) + '\n'

    def save(self, path: Path) -> None:
        """Write :meth:`to_json` to ``path``.

        Raises:
            UserError: ``path`` cannot be written.
        """
        path = Path(path)
        try:
            write_text(path, self.to_json())
        except OSError as error:
            raise UserError(f'cannot write the report to {path}: {error}. Give another --report') from error

    def summary(self, limit: int = 20) -> str:
        """The report as text, with the first ``limit`` bad files."""
        lines = [
            f'{self.root}: {split}: {self.images[split]:,} images, {self.annotations[split]:,} annotations'
            for split in IMAGE_COUNTS
        ]
        lines += [f'wrong count: {line}' for line in self.wrong_counts]
        if self.wrong_counts:
            lines.append('(--partial accepts any number of images)')
        lines.append(f'bad files: {len(self.bad_files):,}')
        lines += [f'  {file}: {reason}' for file, reason in list(self.bad_files.items())[:limit]]
        if len(self.bad_files) > limit:
            lines.append(f'  and {len(self.bad_files) - limit:,} more, all of them in --report FILE.json')
        return '\n'.join(lines)


def verify(root: Path, partial: bool = False, workers: int | None = None) -> Report:
    """Read every file of an unpacked ADE20K and say which are bad.

    Expected are 20,210 + 2,000 images and an annotation for each; images that decode completely; annotations of the
    same width and height, with a single channel and values 0-150. Greyscale images and annotations without one labelled
    pixel are sound: the official set has both (meetps/pytorch-semseg issue 88,
    CSAILVision/semantic-segmentation-pytorch issue 298).

    Args:
        root: Folder with ``images/`` and ``annotations/``, each with ``training/`` and ``validation/``, or the folder
            above it, as long as it is called ``ADEChallengeData2016``.
        partial: Accept any number of images but none.
        workers: Number of processes, by default one per CPU core, at most 32.

    Raises:
        UserError: no such folder, or no image in it.
    """
    root = find_root(root)
    workers = min(os.cpu_count() or 1, 32) if workers is None else workers
    if workers < 1:
        raise UserError(f'workers is {workers}, expected at least 1')

    images, annotations, bad_files, pairs = {}, {}, {}, []
    for split in IMAGE_COUNTS:
        image_stems = _stems(root / 'images' / split, '.jpg')
        annotation_stems = _stems(root / 'annotations' / split, '.png')
        images[split], annotations[split] = len(image_stems), len(annotation_stems)
        for stem in sorted(image_stems | annotation_stems):
            image, annotation = f'images/{split}/{stem}.jpg', f'annotations/{split}/{stem}.png'
            if stem not in annotation_stems:
                bad_files[image] = f'has no annotation {annotation}'
            elif stem not in image_stems:
                bad_files[annotation] = f'has no image {image}'
            pairs.append((image if stem in image_stems else None, annotation if stem in annotation_stems else None))
    if not sum(images.values()):
        raise UserError(
            f'{root} holds no image: expected images/training/*.jpg and images/validation/*.jpg. Give the folder that '
            f'{NAME}.zip unpacks to'
        )

    with ProcessPoolExecutor(min(workers, len(pairs)), initializer=_start_worker) as pool:
        try:
            results = pool.map(bind(_check_pair, root), pairs, chunksize=16)
            for found in tqdm(results, total=len(pairs), desc='verify', unit='image'):
                for file, reason in found.items():
                    bad_files[file] = f'{bad_files[file]}; {reason}' if file in bad_files else reason
        except BrokenProcessPool as error:
            raise UserError(
                f'a worker process died while reading {root}, most often for want of memory: run again with fewer than '
                f'{workers} workers (--workers)'
            ) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return Report(str(root), partial, images, annotations, dict(sorted(bad_files.items())))


def find_root(folder: Path) -> Path:
    """``folder``, or the ``ADEChallengeData2016`` in it: the one with ``images/`` or ``annotations/``.

    Raises:
        UserError: neither has.
    """
    folder = Path(folder)
    for root in (folder, folder / NAME):
        if (root / 'images').is_dir() or (root / 'annotations').is_dir():
            return root
    if not folder.is_dir():
        raise UserError(f'{folder} is no folder: give the folder that {NAME}.zip unpacks to')
    found = ', '.join(sorted(entry.name for entry in folder.iterdir())[:8]) or 'nothing'
    raise UserError(
        f'{folder} holds {found}, expected images/ and annotations/: give the folder that {NAME}.zip unpacks to'
    )


def link_hint(root: Path) -> str:
    """What to do so that the configs find ``root``; empty where they already do. They look for
    ``data/ade/ADEChallengeData2016`` in the folder that a tool is started from."""
    root = Path(root).resolve()
    if root == CONFIG_ROOT.resolve():
        return ''
    quoted = shlex.quote(str(root))
    options = ' '.join(f'{loader}_dataloader.dataset.data_root={quoted}' for loader in ('train', 'val', 'test'))
    hint = f'The configs look for the set in {CONFIG_ROOT}. Point a command here:\n  --cfg-options {options}'
    if not os.path.lexists(CONFIG_ROOT):
        hint += f'\nor link it once:\n  mkdir -p {CONFIG_ROOT.parent} && ln -s {quoted} {CONFIG_ROOT}'
    return hint


def _stems(folder: Path, suffix: str) -> set[str]:
    """The files that MMSegmentation would list in ``folder``: of that suffix, in sub-folders too, none hidden."""
    files = (path.relative_to(folder) for path in folder.rglob(f'*{suffix}'))
    return {file.as_posix().removesuffix(suffix) for file in files if not any(p.startswith('.') for p in file.parts)}


def _start_worker() -> None:
    # Ctrl-C reaches the whole process group, and is the parent's to answer.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Pillow's default, but a forked worker inherits what its parent has set.
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    # Pillow only warns between 89 and 179 million pixels; the largest image of the set has a few million.
    warnings.simplefilter('error', Image.DecompressionBombWarning)


def _check_pair(root: Path, pair: tuple[str | None, str | None]) -> dict[str, str]:
    """Path -> what is wrong, for an image and its annotation, of which one may be missing (None)."""
    image_path, annotation_path = pair
    bad_files, image_size = {}, None
    # Only these two formats: Pillow goes by content, and for some others it starts programs (EPS: Ghostscript).
    formats = ('JPEG', 'PNG')
    # `except Exception`: on a broken file Pillow raises OSError, SyntaxError, ValueError, struct.error and more, and
    # one bad file must not keep the others from the report.
    if image_path:
        try:
            with Image.open(root / image_path, formats=formats) as image:
                image.convert('RGB')  # Reads to the last pixel, which `open` does not.
                image_size = upright_size(image)
        except Exception as error:
            bad_files[image_path] = f'cannot be decoded: {_one_line(error)}'
    if annotation_path:
        try:
            with Image.open(root / annotation_path, formats=formats) as annotation:
                annotation.load()
                size, mode, values = upright_size(annotation), annotation.mode, np.asarray(annotation)
        except Exception as error:
            bad_files[annotation_path] = f'cannot be decoded: {_one_line(error)}'
        else:
            reasons = []
            if values.ndim != 2:
                reasons.append(f'{values.shape[2]} channels (mode {mode}), expected 1')
            elif values.max() > MAX_VALUE:
                count = np.count_nonzero(values > MAX_VALUE)
                reasons.append(f'values up to {values.max()} (in {count:,} pixels), expected 0-{MAX_VALUE}')
            if image_size and size != image_size:  # upright, as images are loaded
                reasons.append('width x height {}x{}, expected {}x{} as its image'.format(*size, *image_size))
            if reasons:
                bad_files[annotation_path] = '; '.join(reasons)
    return bad_files


def _one_line(error: Exception) -> str:
    return ' '.join(f'{type(error).__name__}: {error}'.split())
