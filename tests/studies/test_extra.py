"""The studies need more than the package does, and say which extra has it."""
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from studies._requirements import require

ROOT = Path(__file__).parents[2]
WITHOUT_SCIPY = '''
import importlib.metadata as metadata, runpy, sys
version = metadata.version
def without_scipy(name):
    if name == 'scipy':
        raise metadata.PackageNotFoundError(name)
    return version(name)
metadata.version = without_scipy
sys.path.insert(0, 'tools')
runpy.run_path(sys.argv[1], run_name='__main__')
'''


@pytest.mark.parametrize(('found', 'message'), [
    (None, r"scipy >= 1\.11, found none.*pip install -e '\.\[studies\]'"), ('1.9.3', r'scipy >= 1\.11, found 1\.9\.3')])
def test_a_package_that_is_missing_or_too_old_is_named_with_the_extra_that_installs_it(monkeypatch, found, message):
    def version(name):
        if found is None:
            raise metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(metadata, 'version', version)
    with pytest.raises(ImportError, match=message):
        require(scipy='1.11')


def test_a_tool_without_the_extra_says_so_in_one_line():
    done = subprocess.run([sys.executable, '-c', WITHOUT_SCIPY, 'tools/compare.py'], cwd=ROOT, capture_output=True,
                          text=True)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "error: the studies need scipy >= 1.11, found none. Next: pip install -e '.[studies]'")
    assert 'Traceback' not in done.stderr


def test_every_tool_of_the_studies_looks_for_the_extra_first():
    for path in (ROOT / 'tools').glob('*.py'):
        modules = [line.split()[1] for line in path.read_text().splitlines() if line.startswith(('import ', 'from '))]
        studies = [module for module in modules if module.partition('.')[0] == 'studies']
        if studies:
            assert modules.index('_repository') < modules.index(studies[0]), path.name


def test_only_what_draws_imports_matplotlib():
    modules = [path for path in (ROOT / 'studies').rglob('*.py') if 'matplotlib import' in path.read_text()
               or 'import matplotlib' in path.read_text()]
    assert {path.name for path in modules} == {'pictures.py'}
