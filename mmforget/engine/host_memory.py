"""Memory of a process that trains on a CPU: what was freed is kept for the next step."""

import ctypes
import os
import platform

# Of glibc's malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
_NEVER = -1
# Before glibc 2.35 a threshold for blocks of their own could be 32 MB at most.
_LARGEST, _LARGEST_BEFORE = 2**30, 2**25


def keep_freed_memory() -> bool:
    """Asks glibc to keep freed memory instead of giving it back to the system.

    A step frees blocks of many megabytes and asks for the same ones again. By default each is given
    back and comes again page by page, cleared: up to a quarter of the time of a small detector's
    trunk. Holds for the process from now on; its memory stays at its peak.

    Returns:
        Whether it was done: not where another C library is in use, or where the environment sets
        how glibc allocates (``MALLOC_...``, ``GLIBC_TUNABLES``).
    """
    if platform.libc_ver()[0] != 'glibc' or any(map(_is_about_malloc, os.environ)):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    # First, for the others end glibc's own adapting of this threshold.
    if not any(mallopt(_MMAP_THRESHOLD, size) for size in (_LARGEST, _LARGEST_BEFORE)):
        return False
    return bool(mallopt(_TRIM_THRESHOLD, _NEVER) and mallopt(_TOP_PAD, 2**26))


def _is_about_malloc(name: str) -> bool:
    value = os.environ[name]
    return (name.startswith('MALLOC_') and name.endswith('_')) or (
        name == 'GLIBC_TUNABLES' and 'malloc' in value
    )
