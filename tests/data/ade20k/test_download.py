import shutil
from types import SimpleNamespace

import pytest

from inceptionnext_seg.data import ade20k
from inceptionnext_seg.errors import UserError

from .common import CONTENT, CONTENT_SHA1, files_of


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
