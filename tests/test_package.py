"""The wheel, built from the source distribution of the checkout, and used where the checkout is not."""
import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from inceptionnext_seg import __version__

SOURCES = ('pyproject.toml', 'MANIFEST.in', 'README.md', 'LICENSE', 'model-index.yml', 'inceptionnext_seg', 'studies',
           'tests', 'tools', 'configs')
# What is not called as it is imported, and what comes with a dependency (pyproject.toml says why).
DISTRIBUTIONS = {'PIL': 'pillow', **{f'mm{name}': f'onedl-mm{long}' for name, long in (
    ('engine', 'engine'), ('cv', 'cv'), ('seg', 'segmentation'), ('pretrain', 'pretrain'))}}
BROUGHT = {'cv2', 'triton'}
# Modules that are imported where their package is there.
OPTIONAL = {'classification.py', 'demo/page.py', 'acceleration/smp_decoders.py', 'acceleration/transformers_upernet.py'}
COMPILERS = (os.environ.get('CXX', 'g++'), 'g++', 'c++', 'clang++')

USE = """
import json, os
import torch
import inceptionnext_seg, inceptionnext_seg.data, inceptionnext_seg.engine, inceptionnext_seg.segmentation
from inceptionnext_seg.engine.launch import load_config
from inceptionnext_seg.ops.inception_dwconv import inception_dwconv2d
from mmengine.config.utils import _get_cfg_metainfo
from mmengine.hub import get_config

with open('mine.py', 'w') as file:
    file.write("_base_ = ['inceptionnext_seg::_base_/../upernet_inceptionnext_a_mini.py']")
package = os.path.dirname(inceptionnext_seg.__file__)

torch.manual_seed(0)
backbone = inceptionnext_seg.InceptionNeXt('atto').eval()
with torch.no_grad():
    shapes = [tuple(level.shape) for level in backbone(torch.randn(1, 3, 64, 96))]
x = torch.randn(1, 40, 16, 24).contiguous(memory_format=torch.channels_last)
weights = [torch.randn(shape) for shape in ((5, 1, 3, 3), (5, ), (5, 1, 1, 9), (5, ), (5, 1, 9, 1), (5, ))]
expected = inception_dwconv2d(x, *weights, impl='torch')
try:
    error, reason = (inception_dwconv2d(x, *weights, impl='native') - expected).abs().max().item(), None
except RuntimeError as why_not:
    error, reason = None, str(why_not)
print(json.dumps(dict(
    configs=[load_config('inceptionnext_seg::upernet_inceptionnext_t_ade20k').filename,
             get_config('inceptionnext_seg::ablations/upernet_inceptionnext_a_dw3x3_mini.py').filename,
             os.path.join(package, '.mim', _get_cfg_metainfo(package, 'upernet_convnext_t_ade20k.py')['Config'])],
    classes=[load_config('mine.py').model.decode_head.num_classes,
             inceptionnext_seg.create_model('fpn_inceptionnext_a', 3).num_classes],
    version=inceptionnext_seg.__version__, shapes=shapes, error=error, reason=reason,
    files=sorted(module.__file__ for name, module in sys.modules.items() if name.startswith('inceptionnext_seg')),
    cache=[file for _, _, files in os.walk(os.environ['INCEPTIONNEXT_SEG_CACHE']) for file in files])))
"""


def run(*command, **settings):
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, **settings)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return result


@pytest.fixture(scope='module')
def built(root, tmp_path_factory):
    """The wheel, what building it printed, and the source distribution that it was built from, as a release is. Of a
    copy, so that the checkout gets no build/ of it."""
    source = tmp_path_factory.mktemp('source')
    for name in SOURCES:
        if (root / name).is_dir():
            shutil.copytree(root / name, source / name, symlinks=True, ignore=shutil.ignore_patterns('__pycache__'))
        else:
            shutil.copy(root / name, source)
    out = tmp_path_factory.mktemp('wheel')
    run(sys.executable, '-c', f'from setuptools import build_meta; build_meta.build_sdist({str(out)!r})', cwd=source)
    archive, = out.glob('*.tar.gz')
    result = run(sys.executable, '-m', 'pip', 'wheel', archive, '--no-deps', '--no-build-isolation', '--no-index',
                 '--verbose', '--wheel-dir', out, cwd=out)
    return next(out.glob('*.whl')), result.stdout + result.stderr, archive


def test_the_wheel_holds_the_package_with_its_cpp_sources_and_configs_and_nothing_else(root, built):
    folder = root / 'inceptionnext_seg'
    expected = {str(path.relative_to(root)) for path in folder.rglob('*')
                if path.is_file() and not {'__pycache__', '.mim'} & set(path.parts)}
    expected |= {f'inceptionnext_seg/.mim/{path.relative_to(root)}'
                 for path in [root / 'model-index.yml', *(root / 'configs').rglob('*')]
                 if path.is_file() and '__pycache__' not in path.parts}
    found = {name for name in zipfile.ZipFile(built[0]).namelist() if '.dist-info/' not in name}
    assert found == expected
    assert {'inceptionnext_seg/py.typed', 'inceptionnext_seg/ops/csrc/inception_dwconv.cpp'} <= found


def test_the_source_distribution_holds_what_the_wheel_is_built_from_and_no_link(built):
    with tarfile.open(built[2]) as archive:
        members = [member for member in archive.getmembers() if not member.isdir()]
    folders = {member.name.split('/')[1] for member in members if member.name.count('/') > 1}
    assert folders == {'inceptionnext_seg', 'inceptionnext_seg.egg-info'}
    assert all(member.isreg() for member in members)


@pytest.fixture(scope='module')
def requirements(built):
    """(distribution, extra) of each, '' where it is no extra's."""
    with zipfile.ZipFile(built[0]) as wheel:
        metadata = wheel.read(f'inceptionnext_seg-{__version__}.dist-info/METADATA').decode()
    found = re.findall(r'^Requires-Dist: ([\w-]+)(?:[^;\n]*)(?:; extra == ["\']([\w-]+)["\'])?$', metadata, re.M)
    return [(name.lower().replace('_', '-'), extra) for name, extra in found]


def test_scipy_and_matplotlib_are_of_an_extra(requirements):
    assert ('torch', '') in requirements
    for name in ('scipy', 'matplotlib'):
        assert [extra for found, extra in requirements if found == name] == ['studies']


def imported(node):
    """Packages of others that a statement or a call imports."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        names = [] if node.level else [node.module]
    elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(('import_module', 'find_spec')):
        names = [node.args[0].value] if isinstance(node.args[0], ast.Constant) else []
    else:
        names = []
    packages = {name.split('.')[0] for name in names} - {'', 'inceptionnext_seg', *sys.stdlib_module_names} - BROUGHT
    return {DISTRIBUTIONS.get(name, name).lower().replace('_', '-') for name in packages}


def test_what_the_package_imports_is_a_dependency_or_of_an_extra(root, requirements):
    always, known = {name for name, extra in requirements if not extra}, {name for name, _ in requirements}
    folder = root / 'inceptionnext_seg'
    seen = set()
    for path in folder.rglob('*.py'):
        tree = ast.parse(path.read_text())
        everywhere = set().union(*map(imported, ast.walk(tree)))
        at_once = set().union(*map(imported, tree.body))
        assert everywhere <= known, f'{path}: {everywhere - known}'
        assert at_once <= always or path.relative_to(folder).as_posix() in OPTIONAL, f'{path}: {at_once - always}'
        seen |= everywhere
    assert {'torch', 'onedl-mmsegmentation', 'pillow', 'gradio', 'openvino'} <= seen


def test_building_prints_no_warning(built):
    assert 'Successfully built inceptionnext-seg' in built[1]
    assert not re.search(r'\w*Warning\b|absent from|deprecated', built[1]), built[1]


@pytest.fixture(scope='module')
def installed(built, tmp_path_factory):
    """The folder that the wheel was installed to, and ``python(code, *arguments, cwd=…)``, which has that folder and
    the environment's packages on its path, but neither the checkout nor its editable installation, whose .pth file only
    ``site`` reads."""
    target = tmp_path_factory.mktemp('site')
    run(sys.executable, '-m', 'pip', 'install', '--no-deps', '--no-index', '--no-compile', '--target', target,
        built[0], cwd=target)
    paths = [str(target), *(path for path in sys.path if Path(path).name in ('site-packages', 'dist-packages'))]

    def python(code, *arguments, cwd, **variables):
        environment = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}
        environment.update(OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='', **variables)
        code = f'import sys\nsys.path[:0] = {paths!r}\n{code}'
        return run(sys.executable, '-I', '-S', '-c', code, *arguments, cwd=cwd, env=environment)

    return target, python


COMMAND = 'from inceptionnext_seg.cli import main\nmain()'


@pytest.mark.slow
def test_the_console_command_trains_and_evaluates_a_config_that_it_finds_by_name_outside_the_checkout(
        installed, tiny_data, tiny_options, tmp_path):
    _, python = installed
    name = 'upernet_inceptionnext_a_camvid'
    python(COMMAND, 'train', name, '--seed', '0', '--cfg-options', *tiny_options, cwd=tmp_path)
    checkpoint = tmp_path / f'work_dirs/{name}/iter_4.pth'
    metrics = json.loads(next(checkpoint.parent.glob('*/metrics.json')).read_text())
    assert metrics['environment']['command'].startswith(f'inceptionnext-seg train {name} --seed 0')
    assert checkpoint.is_file()


@pytest.mark.slow
def test_the_console_command_that_pip_writes_runs(installed, tmp_path):
    target, python = installed
    script = target / 'bin/inceptionnext-seg'
    assert os.access(script, os.X_OK)
    result = python(f'import runpy\nrunpy.run_path({str(script)!r}, run_name="__main__")', '--version', cwd=tmp_path)
    assert result.stdout.strip() == __version__


@pytest.mark.slow
def test_the_wheel_works_outside_the_checkout(installed, tmp_path):
    (target, python), cache = installed, tmp_path / 'cache'
    result = python(USE, cwd=tmp_path, INCEPTIONNEXT_SEG_CACHE=str(cache))
    found = json.loads(result.stdout.splitlines()[-1])
    assert found['version'] == __version__
    assert len(found['files']) > 20
    assert all(Path(file).is_relative_to(target) for file in found['files'])
    # By this package's name for them, by mmengine's, and as mim reads the model index.
    assert all(Path(path).resolve().is_relative_to(target / 'inceptionnext_seg/.mim/configs') and Path(path).is_file()
               for path in found['configs'])
    assert found['classes'] == [18, 3]
    assert found['shapes'] == [[1, 40, 16, 24], [1, 80, 8, 12], [1, 160, 4, 6], [1, 320, 2, 3]]
    if found['reason']:
        turned_off = os.environ.get('INCEPTIONNEXT_SEG_NATIVE') == '0'
        assert turned_off or not any(map(shutil.which, COMPILERS)), found['reason']
    else:
        assert found['error'] < 1e-5
        assert any(name.startswith('inception_dwconv') for name in found['cache'])  # compiled from the wheel's sources


def test_the_citation_names_this_version_and_the_paper(root):
    yaml = pytest.importorskip('yaml')
    citation = yaml.safe_load((root / 'CITATION.cff').read_text())
    assert str(citation['version']) == __version__
    assert citation['license'] == 'Apache-2.0'
    paper, = citation['references']
    assert [author['family-names'] for author in paper['authors']] == ['Yu', 'Zhou', 'Yan', 'Wang']
    assert paper['url'].endswith('2303.16900')
