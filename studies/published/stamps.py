"""What a PNG was drawn from, written into it.

The pixels of a picture depend on the version of matplotlib and on its fonts. So a picture is compared by a digest of
its data and of the code that draws it.
"""
import hashlib
import json
import struct
import zlib
from pathlib import Path

from inceptionnext_seg.files import replacing

SIGNATURE = b'\x89PNG\r\n\x1a\n'
KEYWORD = b'Source\x00'


def digest(content, *code):
    """SHA-256 of the content of a result file, and of the files that draw it."""
    found = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    for path in code:
        found.update(Path(path).read_bytes())
    return found.hexdigest()


def chunks(data):
    """(kind, body) of each chunk of a PNG."""
    at = len(SIGNATURE)
    while at + 8 <= len(data):
        length, = struct.unpack('>I', data[at:at + 4])
        yield data[at + 4:at + 8], data[at + 8:at + 8 + length]
        at += 12 + length


def stamp_of(path):
    """What :func:`stamp` wrote into a PNG; None where there is no file or no stamp."""
    path = Path(path)
    for kind, body in chunks(path.read_bytes()) if path.is_file() else ():
        if kind == b'tEXt' and body.startswith(KEYWORD):
            return body.removeprefix(KEYWORD).decode()
    return None


def stamp(path, text):
    """Write ``text`` into a PNG as its "Source", a text chunk; pixels and other text stay as they are."""
    data = Path(path).read_bytes()
    kept = [chunk for chunk in chunks(data) if not (chunk[0] == b'tEXt' and chunk[1].startswith(KEYWORD))]
    kept.insert(1, (b'tEXt', KEYWORD + text.encode()))      # behind the header
    with replacing(path) as temporary:
        temporary.write_bytes(SIGNATURE + b''.join(
            struct.pack('>I', len(body)) + kind + body + struct.pack('>I', zlib.crc32(kind + body))
            for kind, body in kept))
