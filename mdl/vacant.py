"""Vacant: a rename that takes a name only where nobody has it, in one step of the kernel's."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

_AT_FDCWD = {"linux": -100, "darwin": -2}
_CALLS = {"linux": ("renameat2", 1), "darwin": ("renameatx_np", 4)}
"""The C library's function, and its flag for "do not replace"."""
_UNKNOWN = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP}


def take(source: Path, folder: int, name: str) -> bool:
    """Give ``source`` the ``name`` in the open ``folder``. False where this system or file system knows no such
    rename, and nothing was done. Raises `FileExistsError` where something stands there, `OSError`."""
    call = _call()
    if call is None:
        return False
    number = call(os.fsencode(source), folder, os.fsencode(name))
    if number in _UNKNOWN:
        return False
    if number:
        raise OSError(number, os.strerror(number), str(source), None, name)
    return True


@cache
def _call() -> Callable[[bytes, int, bytes], int] | None:
    """The system's call, which returns its errno; None where there is none."""
    import sys

    try:
        import ctypes

        word, flag = _CALLS[sys.platform]
        function = getattr(ctypes.CDLL(None, use_errno=True), word)
    except (ImportError, OSError, AttributeError, KeyError, MemoryError):  # the last: no executable page to be had
        return None
    function.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
    here = _AT_FDCWD[sys.platform]
    return lambda source, folder, name: ctypes.get_errno() if function(here, source, folder, name, flag) else 0
