"""Compiling, caching and falling back, with a kernel of three lines in the place of the package's own."""
import ctypes
import os
import shlex
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
    assert [path.suffix for path in (tmp_path / 'cache').iterdir()] == ['.so']


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
    assert not list((tmp_path / 'cache').iterdir())


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
    assert len(list((tmp_path / 'cache').iterdir())) == 1


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
