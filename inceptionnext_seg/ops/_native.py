"""The package's C++ kernels for the CPU: compiled on first use, kept in a cache, called through ctypes.

A kernel takes pointers and sizes and nothing of torch, so that it compiles in seconds, without torch's headers, and the
library stays right whatever torch is installed. Where it cannot be compiled (no compiler, or one without the flags),
:func:`load` returns None and says so in one log line; every caller then takes torch's own operators.

Environment variables:
    INCEPTIONNEXT_SEG_NATIVE: 0 takes torch's operators even where a compiler is.
    INCEPTIONNEXT_SEG_CACHE: Folder of the compiled libraries; by default ``inceptionnext_seg`` in the user's cache.
    CXX: The compiler; by default the first found of g++, c++, clang++.
"""
import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import typing
from pathlib import Path

import torch
from mmengine.logging import print_log

SOURCES = Path(__file__).parent / 'csrc'
# -march=native: the library is for the machine that compiles it, and the cache's key has its processor.
# No -ffast-math: NaN and infinity must pass as torch's operators pass them.
FLAGS = ('-std=c++17', '-O3', '-march=native', '-fopenmp', '-fno-math-errno', '-fno-trapping-math', '-shared', '-fPIC')
POINTER, INT, FLOAT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
# In the signature of an operator; torch < 2.7 does not know list[torch.Tensor].
TENSORS = typing.List[torch.Tensor]  # noqa: UP006


def cache_folder():
    chosen = os.environ.get('INCEPTIONNEXT_SEG_CACHE')
    if chosen:
        return Path(chosen)
    return Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'inceptionnext_seg'


def compiler():
    """Path of the C++ compiler, or None."""
    candidates = [os.environ['CXX']] if os.environ.get('CXX') else ['g++', 'c++', 'clang++']
    return next(filter(None, map(shutil.which, candidates)), None)


@functools.cache
def processor():
    """What -march=native depends on: the processor's name and its instruction sets."""
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:
        return f'{platform.machine()} {platform.processor()}'
    return ' '.join(sorted({line for line in lines if line.startswith(('model name', 'flags', 'Features'))}))


def compile_library(name):
    """Path of the shared library of ``csrc/NAME.cpp``, compiled unless the cache has it.

    Raises:
        OSError | RuntimeError | subprocess.SubprocessError: There is no compiler, it fails, or the cache cannot be
            written.
    """
    cxx = compiler()
    if cxx is None:
        raise RuntimeError(f'no C++ compiler ({os.environ.get("CXX") or "g++, c++ or clang++"}) is on the PATH')
    key = hashlib.sha256(processor().encode())
    version = subprocess.run([cxx, '--version'], capture_output=True, text=True, check=True).stdout
    for part in (*sorted(SOURCES.glob('*.h')), SOURCES / f'{name}.cpp'):
        key.update(part.read_bytes())
    key.update(f'{version} {FLAGS}'.encode())
    library = cache_folder() / f'{name}-{key.hexdigest()[:16]}.so'
    if not library.exists():
        try:
            library.parent.mkdir(parents=True, exist_ok=True)
            folder = tempfile.TemporaryDirectory(dir=library.parent)
        except OSError as error:
            raise RuntimeError(f'the folder {library.parent} cannot be written ({error.strerror}); '
                               'INCEPTIONNEXT_SEG_CACHE names another') from error
        with folder:
            built = Path(folder.name) / library.name
            run = subprocess.run(
                [cxx, *FLAGS, str(SOURCES / f'{name}.cpp'), '-o', str(built)], capture_output=True, text=True)
            if run.returncode:
                lines = run.stderr.strip().splitlines() or ['no message']
                raise RuntimeError(f'{cxx} failed: {next((line for line in lines if "error" in line), lines[0])}')
            built.replace(library)  # another process may be at it, too: either result is whole
    return library


@functools.cache
def load(name):
    """The library of ``csrc/NAME.cpp`` as a ``ctypes.CDLL``, or None where torch's operators must do."""
    if os.environ.get('INCEPTIONNEXT_SEG_NATIVE') == '0':
        return None
    try:
        return ctypes.CDLL(str(compile_library(name)))
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        report(str(error))
        return None


@functools.cache
def report(reason):
    """One log line, however many kernels it is the reason for."""
    print_log(f'C++ kernels are not used, torch operators are: {reason}', logger='current')


@torch.compiler.assume_constant_result
def available(name):
    """Whether :func:`load` has the library."""
    return load(name) is not None


def function(name, symbol, *argument_types):
    """``symbol`` of library ``name`` with its argument types, or None. It returns nothing and releases the GIL.

    Tensors may be given for pointers: unlike their ``data_ptr()``, they live until the call is over.
    """
    library = load(name)
    if library is None:
        return None
    symbol = getattr(library, symbol)
    symbol.argtypes, symbol.restype = argument_types, None

    def call(*arguments):
        symbol(*[a.data_ptr() if isinstance(a, torch.Tensor) else a for a in arguments])

    return call


def threads():
    """Threads a kernel may use: as many as torch's own operators."""
    return torch.get_num_threads()


def runs_elsewhere():
    """Whether the model is being exported or traced: then it needs operators that other machines have."""
    # torch < 2.7 does not tell.
    return torch.jit.is_tracing() or getattr(torch.compiler, 'is_exporting', lambda: False)()


@torch.compiler.assume_constant_result
def has_fast_bf16():
    """Whether this CPU multiplies bfloat16 matrices in tiles (AMX): otherwise float is no slower, and more exact."""
    return 'amx_bf16' in processor()
