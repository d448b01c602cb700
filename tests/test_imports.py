"""What importing the package brings along, and that its layers are those that .importlinter draws."""
import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

IMPORTED = """
import sys, runpy
{statement}
print(*sorted({{name.split('.')[0] for name in sys.modules}}))
"""


def imported_by(statement, root):
    """Top-level names in ``sys.modules`` of a process of its own that ran ``statement``."""
    result = subprocess.run([sys.executable, '-c', IMPORTED.format(statement=statement)], cwd=root, text=True,
                            capture_output=True)
    assert result.returncode == 0, result.stderr[-3000:]
    return set(result.stdout.splitlines()[-1].split())


def test_importing_the_package_imports_neither_mmseg_nor_what_only_studies_need(root):
    # mmengine imports transformers where that is installed, which may import scipy.
    found = imported_by("sys.modules['transformers'] = None; import inceptionnext_seg", root)
    assert {'inceptionnext_seg', 'torch', 'timm', 'mmengine'} <= found
    assert found & {'mmseg', 'mmcv', 'matplotlib', 'scipy', 'studies'} == set()


@pytest.mark.slow
def test_tools_that_train_test_and_predict_need_nothing_of_the_studies(root):
    """Not scipy, which mmseg imports for itself."""
    found = imported_by("[runpy.run_path(f'tools/{name}.py') for name in ('train', 'test', 'predict')]", root)
    assert {'inceptionnext_seg', 'mmseg'} <= found
    assert found & {'matplotlib', 'studies'} == set()


@pytest.mark.parametrize('tool', ['train', 'test', 'predict'])
def test_such_a_tool_names_neither_studies_nor_their_packages(root, tool):
    tree = ast.parse((root / f'inceptionnext_seg/cli/{tool}.py').read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not {name.split('.')[0] for name in names} & {'matplotlib', 'scipy', 'studies', '_repository'}


def lint_imports(root):
    command = shutil.which('lint-imports', path=str(Path(sys.executable).parent)) or shutil.which('lint-imports')
    if command is None:
        pytest.skip("needs import-linter, of the extra 'test'")
    return subprocess.run([command, '--no-cache'], cwd=root, text=True, capture_output=True)


@pytest.mark.parametrize(('module', 'line'), [
    ('ops/_native.py', 'from ..models import metanext'), ('models/metanext.py', 'from ..engine import hooks'),
    ('models/metanext.py', 'from ..ops import norm_mlp'), ('models/checkpoint.py', 'import mmseg'),
    ('data/datasets.py', 'import mmcv'),
    ('segmentation/metrics.py', 'import scipy'), ('engine/launch.py', 'import studies'),
    ('errors.py', 'from . import files\nfrom .ops import _native'), ('stray.py', '')])
def test_an_import_against_the_layers_is_found(root, tmp_path, module, line):
    for folder in ('inceptionnext_seg', 'studies'):
        shutil.copytree(root / folder, tmp_path / folder, ignore=shutil.ignore_patterns('__pycache__'))
    shutil.copy(root / '.importlinter', tmp_path)
    path = tmp_path / 'inceptionnext_seg' / module
    path.write_text(f'{line}\n{path.read_text() if path.exists() else ""}')
    result = lint_imports(tmp_path)
    assert result.returncode == 1, result.stdout
    assert 'BROKEN' in result.stdout
