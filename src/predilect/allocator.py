"""What a process keeps of the memory that it frees: glibc's own choices suit programs that compute on large blocks poorly."""

from __future__ import annotations

import ctypes
import sys

__all__ = ["keep_memory"]

# Options of mallopt (malloc.h). A block of more than the second size goes back to the system at once; of smaller ones, such as those of
# which a large photograph is made up, as much as the first size is kept at the end of the heap.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = (-1, 2**28), (-3, 2**25), (-8, 1)


def keep_memory() -> None:
    """Have glibc keep for the next block what one frees, in one heap for all threads; elsewhere nothing is done.

    By default it gives large blocks back to the system, which hands them out again page by page and cleared: a fifth of the time that a
    photograph takes on a processor. And threads have several heaps, each of which keeps the most that it ever held, so that the memory
    of a server creeps up. To be called before threads begin: a heap that is there is used on.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:  # musl has none
        for option, value in (_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX):
            mallopt(option, value)
