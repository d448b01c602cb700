"""The package's C++ kernels for the CPU: compiled on first use, kept in a cache, called through ctypes.

A kernel takes pointers and sizes and nothing of torch, so that it compiles in seconds, without torch's headers, and the
library stays right whatever torch is installed. Where it cannot be compiled (no compiler, or one without the flags),
:func:`why_not` has the reason and one log line says so; every caller then takes torch's own operators.

Environment variables:
    INCEPTIONNEXT_SEG_NATIVE: 0 takes torch's operators even where a compiler is.
    INCEPTIONNEXT_SEG_CACHE: Folder of the compiled libraries; by default ``inceptionnext_seg`` in the user's cache.
        They lie in ``kernels-UID`` below it, which nobody else can write.
    CXX: The compiler; by default the first found of g++, c++, clang++.
"""
import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import re
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

import torch
from mmengine.logging import print_log

SOURCES = Path(__file__).parent / 'csrc'
# -march=native: the library is for the machine that compiles it, and the cache's key has its processor.
# No -ffast-math: NaN and infinity must pass as torch's operators pass them.
FLAGS = ('-std=c++17', '-O3', '-march=native', '-fopenmp', '-fno-math-errno', '-fno-trapping-math', '-shared', '-fPIC')


class POINTER:
    """The type of an argument that points to the values of a tensor, or to nothing: a Tensor or None is given.

    ctypes keeps what it is given until the call is over, so that a tensor lives as long as its memory is read.
    """

    @staticmethod
    def from_param(tensor):
        return None if tensor is None else ctypes.c_void_p(tensor.data_ptr())


INT = ctypes.c_int64


def each(names, suffixes, *argument_types):
    """The same argument types for every name with every suffix."""
    return {f'{name}_{suffix}': argument_types for name in names.split() for suffix in suffixes.split()}


# Every C symbol that is called, by library (csrc/NAME.cpp), with its argument types. None returns anything; their
# meaning is told where the symbol is defined.
PROTOTYPES = {
    'inception_dwconv': {
        'inception_dwconv_forward': (INT, INT, *[POINTER] * 8, *[INT] * 9),
        'inception_dwconv_backward': (INT, INT, *[POINTER] * 12, *[INT] * 9)},
    'winograd': {
        **each('input_tiles output_gradient', 'f32 bf16 f64', *[POINTER] * 2, *[INT] * 9),
        **each('input_gradient', 'f32 f64', *[POINTER] * 2, *[INT] * 9),
        **each('output_tiles', 'f32 bf16 f64', *[POINTER] * 4, *[INT] * 9),
        **each('filters filter_gradient', 'f32 f64', *[POINTER] * 2, INT, INT)},
    'upsampled_taps': {
        **each('forward', 'f32 f64', *[POINTER] * 2, *[INT] * 5, *[POINTER] * 4, *[INT] * 2),
        **each('backward', 'f32 bf16 f64', *[POINTER] * 2, *[INT] * 5, *[POINTER] * 6, INT)},
    'batch_norm': {
        **each('statistics', 'f32 bf16 f64', *[POINTER] * 3, *[INT] * 3),
        **each('transform', 'f32 bf16 f64', *[POINTER] * 4, *[INT] * 4),
        **each('gradient_sums gradient', 'f32 bf16 f64', *[POINTER] * 7, *[INT] * 4)},
    'mlp': {
        **each('gelu', 'f32 bf16 f64', *[POINTER] * 3, *[INT] * 3),
        **each('gelu_gradient', 'f32 bf16 f64', *[POINTER] * 4, *[INT] * 3),
        **each('residual', 'f32_f32 bf16_f32 bf16_bf16 f64_f64', *[POINTER] * 5, *[INT] * 3)},
    'upsampled_loss': {
        **each('upsampled_loss', 'float double', *[POINTER] * 2, *[INT] * 6, *[POINTER] * 7, *[INT] * 2,
               *[POINTER] * 2),
        **each('upsampled_argmax', 'float double', POINTER, *[INT] * 8, *[POINTER] * 4, INT, POINTER)},
    'windowed_argmax': each(
        'windowed_argmax', 'float double', POINTER, *[INT] * 8, *[POINTER] * 4, INT, *[POINTER] * 2),
    'quantize': each('quantize gelu_quantize', 'f32 bf16', *[POINTER] * 4, *[INT] * 3)}


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


def private_folder(cache, name='kernels'):
    """This user's folder ``name`` below ``cache``, which nobody else can write, made where it is not there.

    A library is code: what others can put in its place runs as this user. That holds for root, too, who is told where
    a folder belongs to somebody else, as it may under sudo and where a container mounts one.

    Raises:
        RuntimeError: Others can write it, or replace it.
    """
    user = os.geteuid()
    folder = cache / f'{name}-{user}'
    other = 'INCEPTIONNEXT_SEG_CACHE names another'
    try:
        # Not mkdir(parents=True), which gives the parents what the umask leaves, and that may be everything.
        for part in [*reversed(folder.absolute().parents), folder]:
            if not part.is_dir():
                with contextlib.suppress(FileExistsError):
                    part.mkdir(mode=0o700)
        found = folder.lstat()
        if stat.S_ISDIR(found.st_mode) and found.st_uid == user and found.st_mode & 0o077:
            folder.chmod(0o700)
        parents = [parent for parent in folder.resolve().parents if anyone_can_replace_in(parent)]
    except OSError as error:
        raise RuntimeError(f'the folder {cache} cannot be written ({error.strerror}); {other}') from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != user:
        raise RuntimeError(f'{folder} belongs to user {found.st_uid} or is no folder, expected one of user {user}; '
                           f'{other}')
    if parents:
        raise RuntimeError(f'anyone can replace what is in the folder {parents[0]}, the libraries with it; {other}')
    return folder


def anyone_can_replace_in(folder):
    mode = folder.stat().st_mode
    return mode & stat.S_IWOTH and not mode & stat.S_ISVTX


def own_bytes(path):
    """The content of a file that is this user's alone to write.

    Raises:
        OSError: There is none.
    """
    # Not through a link, and without waiting for the other end of a pipe.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), 'rb') as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
            raise PermissionError(f'{path} is no file, or others can write it')
        return file.read()


def library_of(record, digest):
    return record.with_name(f'{record.stem}-{digest[:16]}.so')


def verified_library(record):
    """The library whose SHA-256 is in the file ``record``, or None where there is none, whole and this user's alone.

    Loading a library that is cut short kills the process.
    """
    try:
        digest = own_bytes(record).decode('ascii')
        library = library_of(record, digest)
        whole = re.fullmatch('[0-9a-f]{64}', digest) and hashlib.sha256(own_bytes(library)).hexdigest() == digest
    except (OSError, ValueError):
        return None
    return library if whole else None


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
    folder = private_folder(cache_folder())
    record = folder / f'{name}-{key.hexdigest()[:16]}.sha256'
    library = verified_library(record)
    if library is None:
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            built = Path(temporary) / record.name
            run = subprocess.run(
                [cxx, *FLAGS, str(SOURCES / f'{name}.cpp'), '-o', str(built)], capture_output=True, text=True)
            if run.returncode:
                lines = run.stderr.strip().splitlines() or ['no message']
                raise RuntimeError(f'{cxx} failed: {next((line for line in lines if "error" in line), lines[0])}')
            digest = hashlib.sha256(built.read_bytes()).hexdigest()
            # Another process may be at it, too. A library is named by its content, and the record, which is written
            # last, names it: whoever comes last, both fit.
            library = library_of(record, digest)
            built.chmod(0o700)
            built.replace(library)
            built.touch(mode=0o600)
            built.write_text(digest)
            built.replace(record)
    return library


class Library(NamedTuple):
    """The C++ functions of a library by symbol, or the reason why there are none."""
    functions: dict
    reason: str | None


@functools.cache
def load(name):
    """The :class:`Library` of ``csrc/NAME.cpp``, compiled unless the cache has it, with all functions bound."""
    if os.environ.get('INCEPTIONNEXT_SEG_NATIVE') == '0':
        return Library({}, 'INCEPTIONNEXT_SEG_NATIVE is 0')
    try:
        library, functions = ctypes.CDLL(str(compile_library(name))), {}
        for symbol, argument_types in PROTOTYPES[name].items():
            functions[symbol] = getattr(library, symbol)
            functions[symbol].argtypes, functions[symbol].restype = argument_types, None
        return Library(functions, None)
    # AttributeError: a symbol is missing; its message names library and symbol.
    except (AttributeError, OSError, RuntimeError, subprocess.SubprocessError) as error:
        report(str(error))
        return Library({}, str(error))


@functools.cache
def report(reason):
    """One log line, however many kernels it is the reason for."""
    print_log(f'C++ kernels are not used, torch operators are: {reason}', logger='current')


@torch.compiler.assume_constant_result
def why_not(*names):
    """Why the first of these libraries that cannot be had cannot be had, or None."""
    for name in names:
        reason = load(name).reason
        if reason is not None:
            return f'the C++ kernels of {name}.cpp cannot be had ({reason})'
    return None


def function(name, symbol):
    """``symbol`` of library ``name``, where :func:`why_not` has no reason against it. It releases the GIL."""
    return load(name).functions[symbol]


def threads():
    """Threads a kernel may use: as many as torch's own operators."""
    return torch.get_num_threads()


@torch.compiler.assume_constant_result
def has_fast_bf16():
    """Whether this CPU multiplies bfloat16 matrices in tiles (AMX): otherwise float is no slower, and more exact."""
    return 'amx_bf16' in processor()
