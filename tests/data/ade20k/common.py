"""A made-up ADE20K, zipped or not, and the server it is downloaded from."""
import hashlib
import http.server
import zipfile

import numpy as np
from PIL import Image

IMAGE = 'images/training/ADE_train_00000001.jpg'
ANNOTATION = 'annotations/training/ADE_train_00000001.png'


def write_pair(root, image, width=64, height=48, mode='RGB'):
    """An image of noise, and an annotation whose values are 0-150."""
    random = np.random.default_rng(len(image))
    annotation = image.replace('images', 'annotations').replace('.jpg', '.png')
    for path in (image, annotation):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
    noise = Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8))
    noise.convert(mode).save(root / image, 'JPEG')
    values = np.arange(height * width).reshape(height, width) % 151
    Image.fromarray(values.astype(np.uint8)).save(root / annotation)


def zip_folder(root, path, top='ADEChallengeData2016/'):
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        if top:
            archive.writestr(top, b'')
        for file in sorted(file for file in root.rglob('*') if file.is_file()):
            archive.write(file, top + file.relative_to(root).as_posix())
    return path


def files_of(root):
    return {file.relative_to(root).as_posix(): file.read_bytes() for file in root.rglob('*') if file.is_file()}


CONTENT = np.random.default_rng(0).bytes(3_000_000)
CONTENT_SHA1 = hashlib.sha1(CONTENT).hexdigest()


class Server(http.server.BaseHTTPRequestHandler):
    """As `behaviour` says: 'ranges', 'no ranges', 'missing', 'cut', 'wrong range' or 'no length'."""

    def do_GET(self):
        content = self.server.content
        behaviour, asked = self.server.behaviour, self.headers['Range']
        self.server.asked.append(asked)
        start = int(asked.removeprefix('bytes=').removesuffix('-')) if asked and behaviour != 'no ranges' else 0
        if behaviour == 'missing':
            self.send_error(404)
        elif start >= len(content):
            self.send_response(416)
            self.send_header('Content-Range', f'bytes */{len(content)}')
            self.send_header('Content-Length', '0')
            self.end_headers()
        else:
            self.send_response(206 if start else 200)
            if start:
                first = 0 if behaviour == 'wrong range' else start
                self.send_header('Content-Range', f'bytes {first}-{len(content) - 1}/{len(content)}')
            if behaviour != 'no length':
                self.send_header('Content-Length', str(len(content) - start))
            self.end_headers()
            self.wfile.write(content[start:2_000_000 if behaviour == 'cut' else None])

    def log_message(self, *args):
        pass
