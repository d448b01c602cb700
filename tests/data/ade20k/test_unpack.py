import re
import shutil
import stat
import struct
import zipfile
from types import SimpleNamespace

import pytest

from inceptionnext_seg.data import ade20k
from inceptionnext_seg.errors import UserError

from .common import IMAGE, files_of, zip_folder


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
    (24, '<I', 0xFFFF_FFF0, r'would unpack to 24.00 GiB, expected at most 0.06 GiB'),
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


def test_a_zip_of_zeros_is_refused_by_its_size(ade, tmp_path):
    path = zip_folder(ade, tmp_path / 'a.zip')
    patch_members(path, 24, '<I', 1_800_000_000 // len(files_of(ade)))
    with pytest.raises(UserError, match=r'would unpack to 1\.68 GiB'):
        ade20k.unpack(path, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


def test_the_size_of_the_real_set_is_not_refused(ade, tmp_path, monkeypatch):
    monkeypatch.setattr(ade20k, 'SMALL', 0)
    monkeypatch.setattr(ade20k, 'MAX_UNPACKED_BYTES', sum(map(len, files_of(ade).values())))
    assert files_of(ade20k.unpack(zip_folder(ade, tmp_path / 'a.zip'), tmp_path / 'out')) == files_of(ade)


@pytest.mark.parametrize('link', ['images', 'images/training'])
def test_a_folder_that_is_a_link_is_not_followed(ade, tmp_path, link):
    folder, elsewhere = tmp_path / 'out/ADEChallengeData2016' / link, tmp_path / 'elsewhere'
    elsewhere.mkdir()
    folder.parent.mkdir(parents=True)
    folder.symlink_to(elsewhere)
    with pytest.raises(UserError, match=f'{folder} is a symbolic link, to {elsewhere}'):
        ade20k.unpack(zip_folder(ade, tmp_path / 'a.zip'), tmp_path / 'out')
    assert not list(elsewhere.iterdir())


@pytest.mark.parametrize('suffix', ['', '.part'])
def test_a_file_that_is_a_link_is_replaced_and_what_it_leads_to_is_left_alone(ade, tmp_path, suffix):
    path, victim = tmp_path / 'out/ADEChallengeData2016' / f'{IMAGE}{suffix}', tmp_path / 'victim'
    path.parent.mkdir(parents=True)
    victim.write_bytes((ade / IMAGE).read_bytes() if not suffix else b'precious')
    before = victim.read_bytes()
    path.symlink_to(victim)
    root = ade20k.unpack(zip_folder(ade, tmp_path / 'a.zip'), tmp_path / 'out')
    assert victim.read_bytes() == before and files_of(root) == files_of(ade)
    assert not any(file.is_symlink() for file in root.rglob('*'))


def test_the_root_itself_may_be_a_link(ade, tmp_path):
    (tmp_path / 'out').mkdir()
    (tmp_path / 'disk').mkdir()
    (tmp_path / 'out/ADEChallengeData2016').symlink_to(tmp_path / 'disk')
    ade20k.unpack(zip_folder(ade, tmp_path / 'a.zip'), tmp_path / 'out')
    assert files_of(tmp_path / 'disk') == files_of(ade)


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
