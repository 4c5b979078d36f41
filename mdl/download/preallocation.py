"""Preallocation: the disk is asked for a large file's next blocks a little before they are written.

The file then lies in long extents, though several connections write it at once, and what is written meanwhile does not
wait while a sync looks for blocks. Only a little ahead: the partial stays sparse.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from functools import cache

from mdl.net.ranges import RangeSet

LEAST = 64 * 2**20
"""A file of fewer bytes is left to the file system."""
AHEAD = 256 * 2**20
"""Bytes asked for at a time."""
_KEEP_SIZE = 1
"""Of Linux' fallocate: a file that somebody cut is not made whole again."""


class Preallocation:
    """The blocks of one open file of ``size`` bytes, of which ``have`` are written."""

    def __init__(self, fd: int, size: int, have: RangeSet) -> None:
        self._fd, self._size, self._reserved = fd, size, have.copy()
        self._lock = threading.Lock()
        self._helps = size >= LEAST

    def cover(self, start: int, stop: int) -> None:
        """Before ``[start, stop)`` is written. A disk that does not know how, or is full, is not asked again: the
        write itself tells."""
        with self._lock:
            if not self._helps or self._reserved.covers(start, stop):
                return
            end = min(max(stop, start + AHEAD), self._size)
            self._reserved.add(start, end)
        if end > start and _reserve(self._fd, start, end - start) not in (0, errno.EINTR):
            self._helps = False


def _reserve(fd: int, start: int, count: int) -> int:
    """The errno of the system's own call. Not `os.posix_fallocate`, which writes zeros where the call is missing."""
    call = _call()
    return call(fd, _KEEP_SIZE, start, count) if call else errno.ENOSYS


@cache
def _call() -> Callable[[int, int, int, int], int] | None:
    import sys

    try:
        import ctypes

        if sys.platform != "linux" or ctypes.sizeof(ctypes.c_long) < 8:
            return None
        function = ctypes.CDLL(None, use_errno=True).fallocate
    except (ImportError, OSError, AttributeError, MemoryError):  # the last: no executable page to be had
        return None
    function.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]
    return lambda *arguments: ctypes.get_errno() if function(*arguments) else 0
