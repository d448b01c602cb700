"""ADE20K: download, unpack and verify, against hand-made servers, zips and broken sets, and three real images."""
import hashlib
import http.server
import importlib.util
import json
import re
import shutil
import stat
import struct
import threading
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from inceptionnext_seg.data import ade20k
from inceptionnext_seg.errors import UserError

REPOSITORY = Path(__file__).parents[2]
SAMPLE = REPOSITORY.parent / 'shared/data/ade20k_sample'
needs_sample = pytest.mark.skipif(not SAMPLE.is_dir(), reason='needs ../shared/data/ade20k_sample')

IMAGE = 'images/training/ADE_train_00000001.jpg'
ANNOTATION = 'annotations/training/ADE_train_00000001.png'


def load_tool():
    spec = importlib.util.spec_from_file_location('prepare_ade20k', REPOSITORY / 'tools/prepare_ade20k.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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


@pytest.fixture
def ade(tmp_path):
    """Two training images and one validation image, all sound."""
    root = tmp_path / 'ADEChallengeData2016'
    for image in (IMAGE, 'images/training/ADE_train_00000002.jpg', 'images/validation/ADE_val_00000001.jpg'):
        write_pair(root, image)
    return root


@pytest.fixture
def small_official_set(monkeypatch):
    """As if the official set were the one of the fixture `ade`."""
    monkeypatch.setattr(ade20k, 'IMAGE_COUNTS', {'training': 2, 'validation': 1})


def zip_folder(root, path, top='ADEChallengeData2016/'):
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        if top:
            archive.writestr(top, b'')
        for file in sorted(file for file in root.rglob('*') if file.is_file()):
            archive.write(file, top + file.relative_to(root).as_posix())
    return path


def files_of(root):
    return {file.relative_to(root).as_posix(): file.read_bytes() for file in root.rglob('*') if file.is_file()}


# Verify


def test_a_sound_set_with_the_official_counts_verifies(ade, small_official_set):
    report = ade20k.verify(ade, workers=1)
    assert report.ok
    assert (report.images, report.annotations) == ({'training': 2, 'validation': 1},) * 2
    assert 'bad files: 0' in report.summary()


def test_the_official_counts_are_20210_and_2000(ade):
    report = ade20k.verify(ade, workers=1)
    assert not report.ok
    assert report.wrong_counts == [
        'training: 2 images, expected 20,210', 'training: 2 annotations, expected 20,210',
        'validation: 1 images, expected 2,000', 'validation: 1 annotations, expected 2,000',
    ]
    assert 'wrong count: training: 2 images, expected 20,210' in report.summary()


def test_partial_drops_the_counts_and_nothing_else(ade):
    assert ade20k.verify(ade, partial=True, workers=1).ok
    (ade / ANNOTATION).unlink()
    assert not ade20k.verify(ade, partial=True, workers=1).ok


def test_the_folder_above_the_set_will_do(ade):
    assert ade20k.verify(ade.parent, partial=True, workers=1).ok


@pytest.mark.parametrize('mode', ['L', 'CMYK'])
def test_images_that_decode_to_rgb_are_sound(ade, mode):
    write_pair(ade, IMAGE, mode=mode)
    assert ade20k.verify(ade, partial=True, workers=1).ok


def test_an_annotation_without_a_labelled_pixel_is_sound(ade):
    Image.new('L', (64, 48)).save(ade / ANNOTATION)
    assert ade20k.verify(ade, partial=True, workers=1).ok


def test_hidden_files_are_no_images(ade):
    (ade / 'images/training/._ADE_train_00000001.jpg').write_bytes(b'macOS')
    assert ade20k.verify(ade, partial=True, workers=1).ok


def cut(path, keep):
    path.write_bytes(path.read_bytes()[:keep])


def value_151(root):
    values = np.zeros((48, 64), np.uint8)
    values[3, 4] = 151
    Image.fromarray(values).save(root / ANNOTATION)


BREAKAGES = {
    'an image without annotation': (lambda root: (root / ANNOTATION).unlink(), IMAGE, 'has no annotation'),
    'an annotation without image': (lambda root: (root / IMAGE).unlink(), ANNOTATION, 'has no image'),
    'a transposed annotation': (
        lambda root: Image.new('L', (48, 64)).save(root / ANNOTATION),
        ANNOTATION, 'width x height 48x64, expected 64x48 as its image',
    ),
    'a colour annotation': (
        lambda root: Image.new('RGB', (64, 48)).save(root / ANNOTATION), ANNOTATION,
        '3 channels (mode RGB), expected 1',
    ),
    'an annotation with alpha': (
        lambda root: Image.new('LA', (64, 48)).save(root / ANNOTATION), ANNOTATION, '2 channels (mode LA), expected 1',
    ),
    'value 151': (value_151, ANNOTATION, 'values up to 151 (in 1 pixels), expected 0-150'),
    'a jpeg without its end': (
        lambda root: cut(root / IMAGE, (root / IMAGE).stat().st_size - 20), IMAGE, 'truncated',
    ),
    'a jpeg without its second half': (
        lambda root: cut(root / IMAGE, (root / IMAGE).stat().st_size // 2), IMAGE, 'truncated',
    ),
    'an empty jpeg': (lambda root: cut(root / IMAGE, 0), IMAGE, 'cannot be decoded'),
    'a text that is called jpeg': (lambda root: (root / IMAGE).write_text('<html>'), IMAGE, 'cannot be decoded'),
    'a cut png': (
        lambda root: cut(root / ANNOTATION, (root / ANNOTATION).stat().st_size // 2), ANNOTATION, 'cannot be decoded',
    ),
    'an image of 100 million pixels': (
        lambda root: Image.new('1', (10_000, 10_000)).save(root / IMAGE, 'PNG'), IMAGE, 'DecompressionBomb',
    ),
    'a PostScript program': (
        lambda root: Image.new('L', (64, 48)).save(root / IMAGE, 'EPS'), IMAGE, 'cannot be decoded',
    ),
}


@pytest.mark.parametrize('breakage', BREAKAGES)
def test_a_bad_file_is_named_with_the_reason(ade, small_official_set, breakage):
    break_it, file, reason = BREAKAGES[breakage]
    break_it(ade)
    report = ade20k.verify(ade, workers=1)
    assert list(report.bad_files) == [file]
    assert reason in report.bad_files[file]
    assert not report.ok


def test_a_truncated_jpeg_is_found_where_the_caller_lets_pillow_accept_it(ade, monkeypatch):
    monkeypatch.setattr('PIL.ImageFile.LOAD_TRUNCATED_IMAGES', True)
    cut(ade / IMAGE, (ade / IMAGE).stat().st_size - 20)
    assert list(ade20k.verify(ade, partial=True, workers=1).bad_files) == [IMAGE]


def test_every_reason_for_a_file_is_told(ade):
    Image.new('L', (10, 10), 200).save(ade / ANNOTATION)
    reasons = ade20k.verify(ade, partial=True, workers=1).bad_files[ANNOTATION]
    assert reasons == ('values up to 200 (in 100 pixels), expected 0-150; '
                       'width x height 10x10, expected 64x48 as its image')
    (ade / IMAGE).unlink()
    reasons = ade20k.verify(ade, partial=True, workers=1).bad_files[ANNOTATION]
    assert reasons == f'has no image {IMAGE}; values up to 200 (in 100 pixels), expected 0-150'


def test_the_json_lists_every_bad_file_and_the_printed_report_counts_the_rest(ade):
    bad = [f'images/training/ADE_train_{i:08d}.jpg' for i in range(100, 140)]
    for name in bad:
        (ade / name).write_bytes(b'no image')
        shutil.copy(ade / ANNOTATION, ade / name.replace('images', 'annotations').replace('.jpg', '.png'))
    report = ade20k.verify(ade, partial=True, workers=2)
    assert list(json.loads(report.to_json())['bad_files']) == bad
    summary = report.summary(limit=20)
    assert 'bad files: 40' in summary and 'and 20 more' in summary
    assert sum(name in summary for name in bad) == 20


@pytest.mark.parametrize(('make', 'message'), [
    (lambda path: None, 'is no folder'),
    (lambda path: path.mkdir(), 'holds nothing, expected images/ and annotations/'),
    (lambda path: (path / 'jpgs').mkdir(parents=True), 'holds jpgs, expected images/ and annotations/'),
    (lambda path: (path / 'images/training').mkdir(parents=True), 'holds no image'),
])
@pytest.mark.parametrize('partial', [False, True])
def test_a_folder_without_the_set_is_one_clear_message(tmp_path, make, message, partial):
    make(tmp_path / 'set')
    with pytest.raises(UserError, match=f'set {message}'):
        ade20k.verify(tmp_path / 'set', partial=partial)


def test_no_workers_is_refused(ade):
    with pytest.raises(UserError, match='workers is 0, expected at least 1'):
        ade20k.verify(ade, workers=0)


# Unpack


@pytest.mark.parametrize('top', ['ADEChallengeData2016/', ''])
def test_a_zip_unpacks_to_the_files_it_was_made_of(ade, tmp_path, top):
    (ade / 'objectInfo150.txt').write_text('Idx')
    (ade / 'sceneCategories.txt').write_text('airport')
    root = ade20k.unpack(zip_folder(ade, tmp_path / 'a.zip', top), tmp_path / 'out')
    assert root == tmp_path / 'out/ADEChallengeData2016'
    assert files_of(root) == files_of(ade)


def test_what_is_not_ade20k_is_left_in_the_zip(ade, tmp_path):
    path = zip_folder(ade, tmp_path / 'a.zip')
    with zipfile.ZipFile(path, 'a') as archive:
        for name in ('ADEChallengeData2016/run.sh', 'ADEChallengeData2016/images/training/x.exe', 'README',
                     'ADEChallengeData2016/images/test/x.jpg', '__MACOSX/ADEChallengeData2016/images/._x.jpg'):
            archive.writestr(name, 'x')
    assert files_of(ade20k.unpack(path, tmp_path / 'out')) == files_of(ade)


def test_a_second_run_touches_nothing(ade, tmp_path):
    path = zip_folder(ade, tmp_path / 'a.zip')
    root = ade20k.unpack(path, tmp_path / 'out')
    before = {file: (file.stat().st_ino, file.stat().st_mtime_ns) for file in root.rglob('*')}
    ade20k.unpack(path, tmp_path / 'out')
    assert {file: (file.stat().st_ino, file.stat().st_mtime_ns) for file in root.rglob('*')} == before


def test_a_file_of_the_right_size_and_wrong_content_is_written_again(ade, tmp_path):
    path = zip_folder(ade, tmp_path / 'a.zip')
    root = ade20k.unpack(path, tmp_path / 'out')
    content = bytearray((root / IMAGE).read_bytes())
    content[-5] ^= 1
    (root / IMAGE).write_bytes(content)
    ade20k.unpack(path, tmp_path / 'out')
    assert files_of(root) == files_of(ade)


@pytest.mark.parametrize('error', [KeyboardInterrupt, OSError(28, 'No space left on device')])
def test_an_unpacking_that_stops_within_a_file_leaves_no_half_file_and_goes_on(ade, tmp_path, monkeypatch, error):
    path, copy, calls = zip_folder(ade, tmp_path / 'a.zip'), shutil.copyfileobj, []

    def stop_in_the_third_file(source, target, length):
        calls.append(target.name)
        if len(calls) == 3:
            target.write(source.read(10))
            raise error
        copy(source, target, length)

    monkeypatch.setattr(shutil, 'copyfileobj', stop_in_the_third_file)
    with pytest.raises(UserError if isinstance(error, OSError) else KeyboardInterrupt):
        ade20k.unpack(path, tmp_path / 'out')
    root = tmp_path / 'out/ADEChallengeData2016'
    assert len(files_of(root)) == 2 and files_of(root).items() <= files_of(ade).items()

    ade20k.unpack(path, tmp_path / 'out')
    assert files_of(root) == files_of(ade)
    assert len(calls) == 3 + len(files_of(ade)) - 2, 'the two files that were there are not written again'


@pytest.mark.parametrize(('name', 'reason'), [
    ('/tmp/escaped.jpg', 'absolute path'),
    ('C:/escaped.jpg', 'absolute path'),
    ('../escaped.jpg', r"'\.\.' in its path"),
    ('ADEChallengeData2016/images/training/../../../../escaped.jpg', r"'\.\.' in its path"),
    ('README/..', r"'\.\.' in its path"),
    ('ADEChallengeData2016\\images\\training\\x.jpg', 'backslash'),
    ('..\\escaped.jpg', 'backslash'),
])
def test_a_member_that_would_escape_is_named_before_anything_is_written(ade, tmp_path, name, reason):
    path = zip_folder(ade, tmp_path / 'a.zip')
    with zipfile.ZipFile(path, 'a') as archive:
        archive.writestr(zipfile.ZipInfo(name), 'x')
    with pytest.raises(UserError, match=reason) as raised:
        ade20k.unpack(path, tmp_path / 'out')
    assert repr(name) in str(raised.value)
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('file_type', [stat.S_IFLNK, stat.S_IFIFO])
@pytest.mark.parametrize('name', ['ADEChallengeData2016/images/training/x.jpg', 'ADEChallengeData2016/images'])
def test_links_and_special_files_are_refused(ade, tmp_path, file_type, name):
    path, member = zip_folder(ade, tmp_path / 'a.zip'), zipfile.ZipInfo(name)
    member.external_attr = (file_type | 0o777) << 16
    with zipfile.ZipFile(path, 'a') as archive:
        archive.writestr(member, '/etc')
    with pytest.raises(UserError, match=f"member '{name}' is a symbolic link or a special file"):
        ade20k.unpack(path, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


def test_two_members_for_one_file_are_refused(ade, tmp_path):
    path = zip_folder(ade, tmp_path / 'a.zip')
    with zipfile.ZipFile(path, 'a') as archive:
        archive.writestr(IMAGE, 'the same file without the top folder')
    with pytest.raises(UserError, match=f'the second one for {IMAGE}'):
        ade20k.unpack(path, tmp_path / 'out')


def patch_members(path, offset, layout, value):
    """Overwrite a field of every entry in the zip's central directory (APPNOTE.TXT, 4.3.12)."""
    content = bytearray(path.read_bytes())
    for match in re.finditer(b'PK\x01\x02', bytes(content)):
        struct.pack_into(layout, content, match.start() + offset, value)
    path.write_bytes(content)


@pytest.mark.parametrize(('offset', 'layout', 'value', 'reason'), [
    (8, '<H', 0x1, 'is encrypted'),
    (10, '<H', 14, 'has compression method 14, expected 0 .stored. or 8'),
    (24, '<I', 0xFFFF_FFF0, r'would unpack to 24.00 GiB, expected at most 8.00 GiB'),
])
def test_encrypted_foreign_and_oversized_members_are_refused(ade, tmp_path, offset, layout, value, reason):
    path = zip_folder(ade, tmp_path / 'a.zip')
    patch_members(path, offset, layout, value)
    with pytest.raises(UserError, match=reason):
        ade20k.unpack(path, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


def test_a_member_that_inflates_beyond_its_announced_size_leaves_no_file(tmp_path):
    path = tmp_path / 'bomb.zip'
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(IMAGE, bytes(50 << 20))
    patch_members(path, 24, '<I', 100)
    with pytest.raises(UserError, match='not a whole zip file'):
        ade20k.unpack(path, tmp_path / 'out')
    assert files_of(tmp_path / 'out') == {}


def test_a_full_disk_is_told_before_unpacking(ade, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, 'disk_usage', lambda folder: SimpleNamespace(free=10))
    with pytest.raises(UserError, match=r'0\.00 GiB free on its disk'):
        ade20k.unpack(zip_folder(ade, tmp_path / 'a.zip'), tmp_path / 'out')
    assert files_of(tmp_path / 'out') == {}


@pytest.mark.parametrize('damage', [
    lambda content: content[:-30],
    lambda content: content[:len(content) // 2],
    lambda content: content[:200] + bytes([content[200] ^ 255]) + content[201:],
    lambda content: b'<!DOCTYPE html>',
    lambda content: b'',
], ids=['end cut', 'half', 'one byte', 'web page', 'empty'])
def test_a_damaged_zip_is_one_clear_message(ade, tmp_path, damage):
    path = zip_folder(ade, tmp_path / 'a.zip')
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=r'a\.zip \([\d,]+ bytes\) is not a whole zip file.*download it again'):
        ade20k.unpack(path, tmp_path / 'out')


def test_a_zip_of_something_else_is_told(tmp_path):
    with zipfile.ZipFile(tmp_path / 'a.zip', 'w') as archive:
        archive.writestr('leftImg8bit/train/x.png', 'x')
    with pytest.raises(UserError, match='holds no ADE20K file'):
        ade20k.unpack(tmp_path / 'a.zip', tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


def test_a_file_in_the_way_is_told(ade, tmp_path):
    (tmp_path / 'out').write_text('a file')
    with pytest.raises(UserError, match=r'cannot unpack .*out'):
        ade20k.unpack(zip_folder(ade, tmp_path / 'a.zip'), tmp_path / 'out')


# Download

CONTENT = np.random.default_rng(0).bytes(3_000_000)
CONTENT_SHA1 = hashlib.sha1(CONTENT).hexdigest()


class Server(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT, as `behaviour` says: 'ranges', 'no ranges', 'missing', 'cut', 'wrong range' or 'no length'."""

    def do_GET(self):
        behaviour, asked = self.server.behaviour, self.headers['Range']
        self.server.asked.append(asked)
        start = int(asked.removeprefix('bytes=').removesuffix('-')) if asked and behaviour != 'no ranges' else 0
        if behaviour == 'missing':
            self.send_error(404)
        elif start >= len(CONTENT):
            self.send_response(416)
            self.send_header('Content-Range', f'bytes */{len(CONTENT)}')
            self.send_header('Content-Length', '0')
            self.end_headers()
        else:
            self.send_response(206 if start else 200)
            if start:
                first = 0 if behaviour == 'wrong range' else start
                self.send_header('Content-Range', f'bytes {first}-{len(CONTENT) - 1}/{len(CONTENT)}')
            if behaviour != 'no length':
                self.send_header('Content-Length', str(len(CONTENT) - start))
            self.end_headers()
            self.wfile.write(CONTENT[start:2_000_000 if behaviour == 'cut' else None])

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv('no_proxy', '*')
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Server) as server:
        server.behaviour, server.asked = 'ranges', []
        server.url = f'http://127.0.0.1:{server.server_port}/ADEChallengeData2016.zip'
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def target(tmp_path):
    return tmp_path / 'ade/a.zip'


def part_of(target, content):
    target.parent.mkdir(parents=True)
    part = target.with_name('a.zip.part')
    part.write_bytes(content)
    return part


@pytest.mark.parametrize('behaviour', ['ranges', 'no ranges', 'no length'])
def test_a_download_is_what_the_server_has(server, target, behaviour):
    server.behaviour = behaviour
    ade20k.download(target, server.url, CONTENT_SHA1)
    assert files_of(target.parent) == {'a.zip': CONTENT}
    assert server.asked == [None]


def test_a_finished_download_is_not_repeated(server, target):
    ade20k.download(target, server.url, CONTENT_SHA1)
    ade20k.download(target, server.url, CONTENT_SHA1)
    assert server.asked == [None]


def test_a_cut_download_goes_on_from_where_it_stopped(server, target):
    part_of(target, CONTENT[:1_234_567])
    ade20k.download(target, server.url, CONTENT_SHA1)
    assert files_of(target.parent) == {'a.zip': CONTENT}
    assert server.asked == ['bytes=1234567-']


def test_a_server_without_ranges_starts_over(server, target):
    server.behaviour = 'no ranges'
    part_of(target, b'x' * 1_000_000)
    ade20k.download(target, server.url, CONTENT_SHA1)
    assert files_of(target.parent) == {'a.zip': CONTENT}


def test_a_complete_part_only_gets_its_name(server, target):
    part_of(target, CONTENT)
    ade20k.download(target, server.url, CONTENT_SHA1)
    assert files_of(target.parent) == {'a.zip': CONTENT}
    assert server.asked == ['bytes=3000000-']


def test_a_part_longer_than_the_file_starts_over(server, target):
    part_of(target, bytes(3_000_001))
    ade20k.download(target, server.url, CONTENT_SHA1)
    assert files_of(target.parent) == {'a.zip': CONTENT}
    assert server.asked == ['bytes=3000001-', None]


def test_a_connection_that_ends_early_keeps_what_came(server, target):
    server.behaviour = 'cut'
    with pytest.raises(UserError, match=r'cannot download .*Run the same command again to go on'):
        ade20k.download(target, server.url, CONTENT_SHA1)
    assert files_of(target.parent) == {'a.zip.part': CONTENT[:2_000_000]}
    server.behaviour = 'ranges'
    ade20k.download(target, server.url, CONTENT_SHA1)
    assert files_of(target.parent) == {'a.zip': CONTENT}
    assert server.asked == [None, 'bytes=2000000-']


def test_a_missing_file_is_told_with_the_address(server, target):
    server.behaviour = 'missing'
    with pytest.raises(UserError, match=f'cannot download {server.url} .*404.*instead of --download'):
        ade20k.download(target, server.url, CONTENT_SHA1)
    assert files_of(target.parent) == {}


def test_a_range_that_was_not_asked_for_is_not_appended(server, target):
    server.behaviour = 'wrong range'
    part = part_of(target, CONTENT[:1000])
    with pytest.raises(UserError, match=r"asked for the bytes from 1,000 on, .*'bytes 0-2999999/3000000'"):
        ade20k.download(target, server.url, CONTENT_SHA1)
    assert part.read_bytes() == CONTENT[:1000]


def test_another_file_than_the_official_one_is_not_accepted(server, target):
    with pytest.raises(UserError, match=f'SHA-1 {CONTENT_SHA1}, expected {ade20k.SHA1}'):
        ade20k.download(target, server.url)
    assert not target.exists()


def test_no_network_is_one_clear_message(server, target):
    server.shutdown()
    server.server_close()
    with pytest.raises(UserError, match=f'cannot download {server.url} .*fetch that address by other means'):
        ade20k.download(target, server.url, CONTENT_SHA1)


def test_a_full_disk_is_told_before_downloading(server, target, monkeypatch):
    monkeypatch.setattr(shutil, 'disk_usage', lambda folder: SimpleNamespace(free=10))
    with pytest.raises(UserError, match='free on its disk'):
        ade20k.download(target, server.url, CONTENT_SHA1)
    assert files_of(target.parent) == {}


# The tool


@pytest.mark.usefixtures('small_official_set')
def test_the_tool_downloads_unpacks_verifies_and_reports(ade, tmp_path, monkeypatch, server, capsys):
    content = zip_folder(ade, tmp_path / 'a.zip').read_bytes()
    monkeypatch.setattr(f'{__name__}.CONTENT', content)
    monkeypatch.setattr(ade20k, 'URL', server.url)
    monkeypatch.setattr(ade20k, 'SHA1', hashlib.sha1(content).hexdigest())
    monkeypatch.chdir(tmp_path)
    assert load_tool().main(['--download', '--workers', '1', '--report', 'report.json']) == 0
    assert files_of(tmp_path / 'data/ade/ADEChallengeData2016') == files_of(ade)
    assert json.loads((tmp_path / 'report.json').read_text())['ok'] is True
    assert 'configs look' not in capsys.readouterr().out, 'it lies where the configs look'


def test_the_tool_verifies_a_folder_in_place_and_says_how_to_link_it(ade, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    before = files_of(tmp_path)
    assert load_tool().main([str(ade), '--partial', '--workers', '1']) == 0
    assert files_of(tmp_path) == before
    out = capsys.readouterr().out
    assert f'ln -s {ade} data/ade/ADEChallengeData2016' in out
    assert f'test_dataloader.dataset.data_root={ade}' in out


def test_a_linked_set_needs_no_hint(ade, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path('data/ade').mkdir(parents=True)
    Path('data/ade/ADEChallengeData2016').symlink_to(ade)
    assert ade20k.link_hint(ade) == ''


def test_the_tool_exits_with_1_and_lists_the_bad_files(ade, tmp_path, capsys):
    (ade / ANNOTATION).unlink()
    assert load_tool().main([str(ade), '--partial', '--workers', '1', '--report', str(tmp_path / 'report.json')]) == 1
    assert IMAGE in capsys.readouterr().out
    assert list(json.loads((tmp_path / 'report.json').read_text())['bad_files']) == [IMAGE]


def test_the_tool_says_what_is_wrong_with_its_arguments(ade, tmp_path, capsys):
    for arguments in ([], ['--download', str(ade)], [str(tmp_path / 'missing')]):
        with pytest.raises(SystemExit) as exited:
            load_tool().main(arguments)
        assert exited.value.code == 2
    assert 'missing does not exist' in capsys.readouterr().err


def test_ctrl_c_is_one_line_and_exit_code_130(ade, monkeypatch, capsys):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(ade20k, 'verify', interrupted)
    assert load_tool().main([str(ade)]) == 130
    assert capsys.readouterr().err.strip().splitlines() == [
        'interrupted: the same command goes on with the download and the unpacking, and verifies anew'
    ]


# The three real images


@needs_sample
def test_the_real_images_verify_unpacked():
    report = ade20k.verify(SAMPLE, partial=True, workers=2)
    assert report.ok
    assert report.images == report.annotations == {'training': 0, 'validation': 3}


@needs_sample
def test_the_real_images_verify_zipped(tmp_path):
    path = zip_folder(SAMPLE, tmp_path / 'ADEChallengeData2016.zip')
    tool = load_tool()
    assert tool.main([str(path), '--out', str(tmp_path), '--partial']) == 0
    assert tool.main([str(path), '--out', str(tmp_path)]) == 1, 'three images are not the whole set'
    unpacked = files_of(tmp_path / 'ADEChallengeData2016')
    assert unpacked == {name: data for name, data in files_of(SAMPLE).items() if name != 'objectInfo150.csv'}
