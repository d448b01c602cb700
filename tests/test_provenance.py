"""Which code a result is of."""
import subprocess

import pytest

from inceptionnext_seg.provenance import commit, relative_command


@pytest.fixture
def repository(tmp_path):
    """A repository of a package and a result file; the function that runs git in it."""
    def git(*arguments):
        return subprocess.run(['git', '-c', 'user.name=a', '-c', 'user.email=a@b', *arguments], cwd=tmp_path,
                              check=True, capture_output=True, text=True).stdout.strip()

    for name in ('package/code.py', 'docs/results/machine/speed.json', 'docs/speed.md'):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('first')
    git('init', '-q')
    assert commit(tmp_path / 'package') is None     # nothing is committed yet
    git('add', '-A')
    git('commit', '-qm', 'first')
    return tmp_path, git


def test_a_result_file_that_a_run_writes_does_not_make_its_code_another(repository):
    folder, git = repository
    clean = commit(folder / 'package')
    assert clean == git('rev-parse', '--short', 'HEAD')
    (folder / 'docs/results/machine/speed.json').write_text('second')
    (folder / 'docs/results/machine/new.json').write_text('not tracked')
    assert commit(folder / 'package') == clean
    git('add', '-A')
    assert commit(folder / 'package') == clean


@pytest.mark.parametrize('name', ['package/code.py', 'docs/speed.md'])
def test_any_other_tracked_file_that_differs_does(repository, name):
    folder, git = repository
    (folder / 'docs/results/machine/speed.json').write_text('second')
    (folder / name).write_text('second')
    assert commit(folder / 'package') == f'{git("rev-parse", "--short", "HEAD")}-dirty'
    (folder / name).unlink()
    assert commit(folder / 'package').endswith('-dirty')


@pytest.mark.parametrize('value, shown', [
    ('{here}/data', 'data'), ('/secret/my data', 'my data'), ("'/secret/data'", "'data'"),
    ('["/secret/a","{here}/data/b"]', '["a","data/b"]'), ('[/secret/a,b]', '[a,b]'), ('/secret/a,/secret/b', 'b'),
    ('[dict(type="A",root="/secret/a"),1]', '[dict(type="A",root="a"),1]'),
    ('https://example.org/a/b.pth', 'https://example.org/a/b.pth'), ('1/8', '1/8'), ('a/b', 'a/b')])
def test_a_command_shows_no_path_of_the_machine(value, shown, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    argv = ['inceptionnext-seg train', 'mini', '--cfg-options', f'data_root={value.replace("{here}", str(tmp_path))}']
    assert relative_command(argv) == f'inceptionnext-seg train mini --cfg-options data_root={shown}'
