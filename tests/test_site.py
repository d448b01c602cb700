"""The documentation as a site, and its notebook."""
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from inceptionnext_seg.export.files import can_export


@pytest.fixture(scope='module')
def site(root, tmp_path_factory):
    """The folder of the site, built strictly: a link to nothing, or a name that is not there, is an error."""
    pytest.importorskip('material', reason='needs mkdocs-material')
    pytest.importorskip('mkdocstrings_handlers.python', reason='needs mkdocstrings[python]')
    folder = tmp_path_factory.mktemp('site')
    result = subprocess.run(
        [sys.executable, '-m', 'mkdocs', 'build', '--strict', '--quiet', '--site-dir', str(folder)], cwd=root,
        capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return folder


def test_links_work_in_the_site_as_on_github(site):
    """Also those of README and CONTRIBUTING, and to what lies outside docs/, which has pages of its source."""
    for name in ('index', 'contributing', 'quickstart', 'tools', 'results/index'):
        text = (site / f'{name}.html').read_text()
        targets = re.findall(r'(?:href|src)="?(?!http|#|data:|mailto:)([^"\s>#]+)', text)
        folder = (site / f'{name}.html').parent
        missing = [target for target in targets if not (folder / target.partition('?')[0]).exists()]
        assert missing == [] and len(targets) > 20
    assert 'repository/configs' in ''.join(path.as_posix() for path in site.rglob('*.html'))


def test_the_api_page_has_every_public_name_with_its_docstring(site):
    import inceptionnext_seg
    text = (site / 'api.html').read_text()
    for name in set(inceptionnext_seg.__all__) - {'__version__'}:
        assert re.search(rf'id="[\w.]*\.{name}"', text), name
    assert ':func:' not in text and ':class:' not in text


@pytest.mark.slow
def test_the_notebook_runs_from_top_to_bottom(root, tmp_path, monkeypatch):
    """With two iterations and few scenes, which its environment variables say."""
    nbformat, nbclient = (pytest.importorskip(name) for name in ('nbformat', 'nbclient'))
    pytest.importorskip('ipykernel')
    pytest.importorskip('onnxruntime', reason='needs the extra `export`')
    if not can_export():
        pytest.skip(f'torch {torch.__version__} cannot export, which the notebook does')
    monkeypatch.setenv('PYTHONPATH', os.pathsep.join([str(root), *filter(None, [os.environ.get('PYTHONPATH')])]))
    monkeypatch.setenv('QUICKSTART_ITERATIONS', '2')
    monkeypatch.setenv('QUICKSTART_OPTIONS', ' '.join(
        f'{split}_dataloader.dataset.num_{part}={count}' for split in ('train', 'val', 'test')
        for part, count in (('train', 16), ('val', 2))))
    monkeypatch.setenv('OMP_NUM_THREADS', '1')
    book = nbformat.read(root / 'docs/quickstart.ipynb', as_version=4)
    nbclient.NotebookClient(book, timeout=300, kernel_name='python3',
                            resources=dict(metadata=dict(path=str(tmp_path)))).execute()
    printed = json.dumps([cell.get('outputs') for cell in book.cells])
    assert 'Summary: mIoU' in printed and 'Wrote' in printed and 'image/png' in printed
    assert list(tmp_path.rglob('*.onnx'))


def test_the_notebook_is_small_and_was_run_in_order(root):
    path = Path(root / 'docs/quickstart.ipynb')
    assert path.stat().st_size < 200_000
    cells = [cell for cell in json.loads(path.read_text())['cells'] if cell['cell_type'] == 'code']
    assert [cell['execution_count'] for cell in cells] == list(range(1, len(cells) + 1))
    assert all(output['output_type'] != 'error' for cell in cells for output in cell['outputs'])
