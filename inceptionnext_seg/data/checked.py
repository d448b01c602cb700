"""Which files were found good already: a second start does not decode them again.

One JSON file a data set, ``checked-USER/NAME.json`` beside the compiled kernels (``INCEPTIONNEXT_SEG_CACHE``, or
``inceptionnext_seg`` in the user's cache): a digest of each sample's paths, sizes, times of change and of what was
expected of it. Any change is another digest, and the sample is looked at again. Files that no run has read for 90 days
are removed. A file that cannot be read, or was tampered with, costs a check: at worst a bad image is found when it is
loaded.
"""
import hashlib
import json
import os
import time
from pathlib import Path

from ..errors import UserError
from ..files import read_object, write_text
from ..ops._native import cache_folder, private_folder

VERSION, KEPT_DAYS = 2, 90


def digest_of(sample, expected):
    """16 hexadecimal digits for a sample in its present state; None where a file of it cannot be looked up."""
    parts = [VERSION, expected]
    for path in (sample['img_path'], sample.get('seg_map_path')):
        if path:
            try:
                found = Path(path).stat()
            except OSError:
                return None
            parts += [str(Path(path).absolute()), found.st_size, found.st_mtime_ns]
    return short_hash(repr(parts), 8)


def short_hash(text, size):
    return hashlib.blake2b(text.encode(errors='surrogateescape'), digest_size=size).hexdigest()


def path_for(name):
    """The file of the data set that ``name`` tells from others, in a folder that is this user's.

    Raises:
        RuntimeError: There can be none.
    """
    return private_folder(cache_folder(), 'checked') / f'{short_hash(name, 16)}.json'


def read_checked(path):
    """The digests in a file, a set; empty where it is none of ours."""
    if not path.is_file():
        return set()
    try:
        found = read_object(path, 'a list of checked files', 'remove it').get('checked')
    except UserError:
        return set()
    os.utime(path)
    return set(filter(lambda digest: isinstance(digest, str), found)) if isinstance(found, list) else set()


def write_checked(path, digests):
    """Write the digests, and remove files that were not read for long."""
    write_text(path, json.dumps(dict(checked=sorted(digests))))
    for other in Path(path).parent.glob('*.json'):
        if other.stat().st_mtime < time.time() - KEPT_DAYS * 24 * 3600:
            other.unlink(missing_ok=True)
