"""Compiling, caching and falling back, with a kernel of three lines in the place of the package's own."""
import ctypes
import hashlib
import os
import shlex
import shutil
import subprocess

import pytest
import torch

from inceptionnext_seg.ops import _native as native

KERNEL = r'''#include <cstdint>
extern "C" void scale(const float* x, float* y, int64_t count, float factor) {
  for (int64_t i = 0; i < count; ++i) y[i] = factor * x[i];
}
'''


@pytest.fixture
def logged(tmp_path, monkeypatch):
    """A folder of sources with the kernels 'scale' and 'shift', an empty cache, and the lines that are logged."""
    sources = tmp_path / 'csrc'
    sources.mkdir()
    for name in ('scale', 'shift'):
        (sources / f'{name}.cpp').write_text(KERNEL)
        monkeypatch.setitem(native.PROTOTYPES, name, {
            'scale': (native.POINTER, native.POINTER, native.INT, ctypes.c_float)})
    lines = []
    monkeypatch.setattr(native, 'SOURCES', sources)
    monkeypatch.setattr(native, 'print_log', lambda message, **settings: lines.append(message))
    monkeypatch.setenv('INCEPTIONNEXT_SEG_CACHE', str(tmp_path / 'cache'))
    monkeypatch.delenv('INCEPTIONNEXT_SEG_NATIVE', raising=False)
    native.load.cache_clear(), native.report.cache_clear()
    yield lines
    native.load.cache_clear(), native.report.cache_clear()


@pytest.fixture
def compiler():
    found = native.compiler()
    if found is None:
        pytest.skip('there is no C++ compiler')
    return found


@pytest.fixture
def compilations(compiler, tmp_path, monkeypatch):
    """``compilations()``: how many libraries the compiler was asked for, not counting questions for its version."""
    script, journal = tmp_path / 'counting-compiler', tmp_path / 'journal'
    script.write_text(f'#!/bin/sh\necho "$*" >> {journal}\nexec {shlex.quote(compiler)} "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv('CXX', str(script))
    return lambda: sum(' -o ' in line for line in journal.read_text().splitlines())


def fake_compiler(tmp_path, monkeypatch, body):
    script = tmp_path / 'fake-compiler'
    script.write_text(f'#!/bin/sh\n{body}\n')
    script.chmod(0o755)
    monkeypatch.setenv('CXX', str(script))


def files_of(cache):
    return sorted((path for path in cache.rglob('*') if not path.is_dir()), key=lambda path: path.suffix)


def test_a_kernel_is_compiled_and_takes_tensors_for_pointers(compiler, logged):
    x, y = torch.tensor([1., 2., 3.]), torch.zeros(3)
    assert native.function('scale', 'scale')(x, y, 3, 2.5) is None
    assert y.tolist() == [2.5, 5., 7.5]
    assert native.why_not('scale') is None and native.why_not('scale', 'shift') is None and not logged


def test_a_function_is_bound_once(compiler, logged):
    assert native.function('scale', 'scale') is native.function('scale', 'scale')


def test_none_is_no_address_and_a_number_is_refused_where_a_tensor_belongs(compiler, logged):
    native.function('scale', 'scale')(None, None, 0, 1.)
    with pytest.raises(ctypes.ArgumentError):
        native.function('scale', 'scale')(torch.zeros(1).data_ptr(), torch.zeros(1), 1, 1.)


def test_a_missing_symbol_is_a_reason(compiler, logged, monkeypatch):
    monkeypatch.setitem(native.PROTOTYPES, 'scale', {'scale': (), 'no_such_symbol': ()})
    assert 'no_such_symbol' in native.why_not('scale')
    assert len(logged) == 1 and 'no_such_symbol' in logged[0]


@pytest.mark.parametrize('name', native.PROTOTYPES)
def test_the_table_has_the_exported_symbols_of_every_source(name):
    if native.why_not(name):
        pytest.skip(native.why_not(name))
    run = subprocess.run(['nm', '-D', '--defined-only', native.compile_library(name)], capture_output=True, text=True)
    if run.returncode:
        pytest.skip('there is no nm')
    exported = {line.split()[2] for line in run.stdout.splitlines() if line.split()[1] == 'T'}
    own = {symbol for symbol in exported if not symbol.startswith('_')}
    assert own == set(native.PROTOTYPES[name]) == set(native.load(name).functions)


def test_another_process_takes_the_library_from_the_cache(compilations, logged, tmp_path):
    for _ in range(2):
        assert native.why_not('scale') is None
        native.load.cache_clear()
    assert compilations() == 1
    assert [path.suffix for path in files_of(tmp_path / 'cache')] == ['.sha256', '.so']


@pytest.mark.parametrize('changed', ['scale.cpp', 'simd.h'])
def test_a_changed_source_is_compiled_again(compilations, logged, changed):
    native.load('scale')
    native.load.cache_clear()
    source = native.SOURCES / changed
    source.write_text((source.read_text() if source.exists() else '') + '// changed\n')
    assert native.why_not('scale') is None
    assert compilations() == 2


def test_libraries_of_another_processor_are_not_taken(compilations, logged, monkeypatch):
    native.load('scale')
    native.load.cache_clear()
    monkeypatch.setattr(native, 'processor', lambda: 'another one')
    native.load('scale')
    assert compilations() == 2


@pytest.mark.parametrize('cxx', [None, 'no-such-compiler'])
def test_without_a_compiler_there_is_one_log_line_for_all_kernels(logged, monkeypatch, tmp_path, cxx):
    monkeypatch.setenv('PATH', str(tmp_path))
    monkeypatch.setenv('CXX', cxx) if cxx else monkeypatch.delenv('CXX', raising=False)
    for name in ('scale', 'shift', 'scale'):
        assert (cxx or 'g++, c++ or clang++') in native.why_not(name)
    assert len(logged) == 1
    assert 'torch operators' in logged[0] and (cxx or 'g++, c++ or clang++') in logged[0]


def test_a_compiler_that_fails_is_named_with_its_first_error(logged, monkeypatch, tmp_path):
    fake_compiler(tmp_path, monkeypatch, '[ "$1" = --version ] && exit\n'
                  'echo "In file included from somewhere" >&2; echo "x.cpp:1: error: no OpenMP here" >&2; exit 1')
    assert native.why_not('scale') and native.why_not('shift')
    assert len(logged) == 1
    assert 'fake-compiler failed: x.cpp:1: error: no OpenMP here' in logged[0]
    assert not files_of(tmp_path / 'cache')


def test_a_compiler_that_cannot_even_tell_its_version_is_left_alone(logged, monkeypatch, tmp_path):
    fake_compiler(tmp_path, monkeypatch, 'exit 3')
    assert native.why_not('scale') and len(logged) == 1


def test_a_library_that_cannot_be_loaded_is_not_used(logged, monkeypatch, tmp_path):
    fake_compiler(tmp_path, monkeypatch, '[ "$1" = --version ] && exit\n'
                  'for last; do :; done; echo "no library" > "$last"')
    assert native.why_not('scale') and len(logged) == 1


def test_a_cache_that_cannot_be_written_is_named(compiler, logged, monkeypatch, tmp_path):
    (tmp_path / 'file').touch()
    monkeypatch.setenv('INCEPTIONNEXT_SEG_CACHE', str(tmp_path / 'file' / 'cache'))
    assert native.why_not('scale') and native.why_not('shift')
    assert len(logged) == 1
    assert str(tmp_path / 'file' / 'cache') in logged[0] and 'INCEPTIONNEXT_SEG_CACHE' in logged[0]


def test_kernels_can_be_turned_off(compilations, logged, monkeypatch, tmp_path):
    monkeypatch.setenv('INCEPTIONNEXT_SEG_NATIVE', '0')
    assert 'INCEPTIONNEXT_SEG_NATIVE' in native.why_not('scale')
    assert not (tmp_path / 'journal').exists() and not (tmp_path / 'cache').exists() and not logged


def test_the_cache_is_in_the_users_cache_folder(monkeypatch, tmp_path):
    monkeypatch.delenv('INCEPTIONNEXT_SEG_CACHE', raising=False)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    assert native.cache_folder() == tmp_path / 'inceptionnext_seg'
    monkeypatch.delenv('XDG_CACHE_HOME')
    monkeypatch.setenv('HOME', str(tmp_path))
    assert native.cache_folder() == tmp_path / '.cache' / 'inceptionnext_seg'


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs os.fork')
def test_processes_that_compile_at_once_all_get_a_library(compilations, logged, tmp_path):
    children = []
    for _ in range(3):
        child = os.fork()
        if not child:
            os._exit(0 if native.why_not('scale') is None else 1)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0, 0]
    assert [path.suffix for path in files_of(tmp_path / 'cache')] == ['.sha256', '.so']


# A cache that others can write, or that is damaged


@pytest.fixture
def foreign(compiler, tmp_path):
    """A library of somebody else's: loaded, it leaves a mark, and it scales by zero."""
    source = tmp_path / 'foreign.cpp'
    source.write_text(f'''#include <cstdint>
#include <cstdio>
extern "C" void scale(const float*, float* y, int64_t count, float) {{ for (int64_t i = 0; i < count; ++i) y[i] = 0; }}
__attribute__((constructor)) static void run() {{ fclose(fopen("{tmp_path}/mark", "w")); }}
''')
    subprocess.run([compiler, '-shared', '-fPIC', str(source), '-o', str(tmp_path / 'foreign.so')], check=True)
    return tmp_path / 'foreign.so'


def in_another_process(function):
    """The exit status of a fork in which the kernels are loaded anew: a library that is cut short kills it."""
    child = os.fork()
    if not child:
        native.load.cache_clear()
        os._exit(0 if function() else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def scales():
    if native.why_not('scale') is not None:
        return False
    y = torch.zeros(2)
    native.function('scale', 'scale')(torch.ones(2), y, 2, 3.)
    return y.tolist() == [3, 3]


def plant(cache, library, mode=0o700):
    """Put ``library`` in the place of the one in the cache, under its name, with a digest that fits."""
    digest = hashlib.sha256(library.read_bytes()).hexdigest()
    *records, planted = files_of(cache)
    planted.unlink()
    for record in records:
        record.unlink(), record.write_text(digest)
        record.chmod(mode & 0o666)
        planted = record.with_name(f'{record.stem}-{digest[:16]}.so')
    shutil.copy(library, planted)
    planted.chmod(mode)


@pytest.mark.parametrize('tamper', [
    'cut short', 'empty', 'replaced', 'no record', 'record of another', 'link', 'pipe'])
def test_a_library_that_is_not_what_was_compiled_is_compiled_again(compilations, logged, foreign, tmp_path, tamper):
    assert in_another_process(scales) == 0 and compilations() == 1
    for path in files_of(tmp_path / 'cache'):
        is_library = path.suffix == '.so'
        if tamper == 'cut short' and is_library:
            os.truncate(path, path.stat().st_size // 2)
        elif tamper == 'empty':
            os.truncate(path, 0)
        elif tamper == 'replaced' and is_library:
            shutil.copy(foreign, path)
        elif tamper == 'no record' and not is_library:
            path.unlink()
        elif tamper == 'record of another' and not is_library:
            path.write_text('../' * 21 + 'a')
        elif tamper == 'link':
            path.unlink(), path.symlink_to(foreign)
        elif tamper == 'pipe' and not is_library:
            path.unlink(), os.mkfifo(path)
    assert in_another_process(scales) == 0
    assert compilations() == 2 and not (tmp_path / 'mark').exists()
    assert in_another_process(scales) == 0 and compilations() == 2


@pytest.mark.parametrize('mode', [0o777, 0o720])
def test_a_library_that_others_could_have_written_is_compiled_again(compilations, logged, foreign, tmp_path, mode):
    assert in_another_process(scales) == 0
    plant(tmp_path / 'cache', foreign, mode)
    assert in_another_process(scales) == 0
    assert compilations() == 2 and not (tmp_path / 'mark').exists()


@pytest.mark.skipif(os.geteuid() != 0, reason='only root can give a file away')
def test_a_library_of_another_user_is_compiled_again_by_root(compilations, logged, foreign, tmp_path):
    assert in_another_process(scales) == 0
    plant(tmp_path / 'cache', foreign)
    for path in files_of(tmp_path / 'cache'):
        os.chown(path, 65534, 65534)
    assert in_another_process(scales) == 0
    assert compilations() == 2 and not (tmp_path / 'mark').exists()


@pytest.mark.skipif(os.geteuid() != 0, reason='only root can give a folder away')
def test_a_folder_of_another_user_is_not_used_by_root_and_the_reason_says_so(compiler, logged, tmp_path):
    assert in_another_process(scales) == 0
    folder = files_of(tmp_path / 'cache')[0].parent
    os.chown(folder, 65534, 65534)
    assert f'{folder} belongs to user 65534' in native.why_not('scale')
    assert len(logged) == 1 and 'INCEPTIONNEXT_SEG_CACHE' in logged[0]


def test_in_a_folder_that_all_share_there_is_one_of_ones_own(compiler, logged, tmp_path):
    (tmp_path / 'cache').mkdir()
    (tmp_path / 'cache').chmod(0o1777)
    assert in_another_process(scales) == 0
    assert all(path.parent.stat().st_mode & 0o777 == 0o700 for path in files_of(tmp_path / 'cache'))
    assert (tmp_path / 'cache').stat().st_mode & 0o7777 == 0o1777  # somebody else's, perhaps /tmp


def test_a_folder_in_which_anyone_can_replace_it_is_not_used_and_the_reason_says_so(compiler, logged, tmp_path):
    (tmp_path / 'cache').mkdir()
    (tmp_path / 'cache').chmod(0o777)
    assert f'{tmp_path}/cache' in native.why_not('scale')


@pytest.mark.parametrize('umask', [0o000, 0o002, 0o277])
def test_under_any_umask_nobody_else_can_write_the_cache(compiler, logged, tmp_path, monkeypatch, umask):
    monkeypatch.setenv('INCEPTIONNEXT_SEG_CACHE', str(tmp_path / 'new' / 'cache'))

    def under_umask():
        os.umask(umask)
        return scales()

    assert in_another_process(under_umask) == 0 or umask == 0o277
    for path in (tmp_path / 'new').rglob('*'):
        assert not path.stat().st_mode & 0o022, path


def test_the_folder_of_an_earlier_run_under_a_loose_umask_is_closed(compiler, logged, tmp_path):
    folder = tmp_path / 'cache' / f'kernels-{os.geteuid()}'
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    assert in_another_process(scales) == 0 and folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize('name', sorted(path.stem for path in native.SOURCES.glob('*.cpp')))
@pytest.mark.parametrize('processor', ['-march=native', None])
def test_every_kernel_of_the_package_is_portable(compiler, name, processor):
    flags = [flag for flag in native.FLAGS if processor or not flag.startswith('-march')]
    run = subprocess.run([compiler, *flags, '-fsyntax-only', str(native.SOURCES / f'{name}.cpp')],
                         capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_the_package_data_has_the_sources(root):
    tomllib = pytest.importorskip('tomllib', reason='Python 3.10 has no tomllib')
    settings = tomllib.loads((root / 'pyproject.toml').read_text())
    assert settings['tool']['setuptools']['package-data']['inceptionnext_seg.ops'] == ['csrc/*']
    assert (root / 'inceptionnext_seg' / 'ops' / 'csrc').samefile(native.SOURCES)
