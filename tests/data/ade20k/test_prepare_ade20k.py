"""The command line, tools/prepare_ade20k.py, and three real images."""
import hashlib
import importlib.util
import json
from pathlib import Path

import pytest

from inceptionnext_seg.data import ade20k

from .common import ANNOTATION, IMAGE, files_of, zip_folder

REPOSITORY = Path(__file__).parents[3]


def load_tool():
    spec = importlib.util.spec_from_file_location('prepare_ade20k', REPOSITORY / 'tools/prepare_ade20k.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.usefixtures('small_official_set')
def test_the_tool_downloads_unpacks_verifies_and_reports(ade, tmp_path, monkeypatch, server, capsys):
    server.content = content = zip_folder(ade, tmp_path / 'a.zip').read_bytes()
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


def test_the_real_images_verify_unpacked(ade20k_sample):
    report = ade20k.verify(ade20k_sample, partial=True, workers=2)
    assert report.ok
    assert report.images == report.annotations == {'training': 0, 'validation': 3}


def test_the_real_images_verify_zipped(ade20k_sample, tmp_path):
    path = zip_folder(ade20k_sample, tmp_path / 'ADEChallengeData2016.zip')
    tool = load_tool()
    assert tool.main([str(path), '--out', str(tmp_path), '--partial']) == 0
    assert tool.main([str(path), '--out', str(tmp_path)]) == 1, 'three images are not the whole set'
    unpacked = files_of(tmp_path / 'ADEChallengeData2016')
    assert unpacked == {name: data for name, data in files_of(ade20k_sample).items() if name != 'objectInfo150.csv'}
