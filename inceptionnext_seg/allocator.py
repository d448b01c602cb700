"""Keep memory that was freed for the next step, on a CPU with glibc.

By itself glibc takes every block above its threshold, 32 MiB at most, fresh from the system and gives it back when it
is freed. Each step then pays again for having its pages zeroed and mapped: of a training step of UperNet at 512×512 a
tenth or so. PyTorch's recipe for CPUs is another allocator, by LD_PRELOAD, for the same reason
(https://docs.pytorch.org/tutorials/recipes/recipes/tuning_guide.html); with one of those this changes nothing.
"""
import ctypes
import os
import platform

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3     # malloc.h
VARIABLES = ('MALLOC_TRIM_THRESHOLD_', 'MALLOC_MMAP_THRESHOLD_', 'GLIBC_TUNABLES')
LARGEST = 2**31 - 1     # mallopt takes an int


def keep_freed_memory():
    """Tell glibc to, for the rest of this process, unless its environment variables say something already.

    Returns:
        bool: Whether it was told. False is no error: musl, macOS and Windows have allocators of their own.
    """
    if platform.system() != 'Linux' or any(name in os.environ for name in VARIABLES):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    mallopt.argtypes, mallopt.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_int
    # All of them, whatever one says: mallopt returns 1 where it took a setting.
    return all([mallopt(M_MMAP_THRESHOLD, LARGEST), mallopt(M_TRIM_THRESHOLD, LARGEST)])
