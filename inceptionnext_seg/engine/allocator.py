"""Keep memory that was freed for the next step, on a CPU with glibc.

By itself glibc takes every block above its threshold, 32 MiB at most, fresh from the system and gives it back when it
is freed. Each step then pays again for having its pages zeroed and mapped: in docs/speed.md stock "as shipped"
against stock. PyTorch's recipe for CPUs is another allocator, by LD_PRELOAD, for the same reason
(https://docs.pytorch.org/tutorials/recipes/recipes/tuning_guide.html); with one of those this changes nothing.
"""
import contextlib
import ctypes
import os
import platform
from collections.abc import Iterator

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3     # malloc.h
VARIABLES = ('MALLOC_TRIM_THRESHOLD_', 'MALLOC_MMAP_THRESHOLD_', 'GLIBC_TUNABLES')
LARGEST = 2**31 - 1     # mallopt takes an int
# Where glibc's own thresholds, which grow with what is freed, come to rest: DEFAULT_MMAP_THRESHOLD_MAX of malloc.c and
# its double.
AT_REST = 2**25


def keep_freed_memory() -> bool:
    """Make glibc keep freed memory for the rest of this process, unless its environment variables decide already.

    Returns:
        bool: Whether it does. False is no error: musl, macOS and Windows have allocators of their own.
    """
    return set_thresholds(LARGEST, LARGEST)


@contextlib.contextmanager
def giving_back() -> Iterator[None]:
    """Within the context glibc gives memory back as it does by default; after it, freed memory is kept."""
    set_thresholds(AT_REST, 2 * AT_REST)
    try:
        yield
    finally:
        keep_freed_memory()


def set_thresholds(mapped: int, trimmed: int) -> bool:
    if platform.system() != 'Linux' or any(name in os.environ for name in VARIABLES):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    mallopt.argtypes, mallopt.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_int
    # All of them, whatever one says: mallopt returns 1 where it took a setting.
    return all([mallopt(M_MMAP_THRESHOLD, mapped), mallopt(M_TRIM_THRESHOLD, trimmed)])
