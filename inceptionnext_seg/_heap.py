"""Memory that was freed and that the C library still has."""
import ctypes
import platform


def give_back_freed() -> bool:
    """Give the system back what is freed within the heap, where the C library can be told so (glibc's malloc_trim(3)).

    By itself glibc gives back the heap's end alone: what a change of all weights frees lies below the new ones, stays
    with the process for good, and is of no use to larger maps. It takes milliseconds: once, after such a change.

    Returns:
        bool: Whether something was given back.
    """
    if platform.system() != 'Linux':
        return False
    try:
        return bool(ctypes.CDLL(None).malloc_trim(ctypes.c_size_t(0)))
    except (AttributeError, OSError):   # musl
        return False
