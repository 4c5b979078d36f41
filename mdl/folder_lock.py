"""Folder lock: one mdl at a time changes a small file that it reads, edits and replaces by a rename.

A lock on the file itself would stay with the file that was replaced, so its folder is locked (``flock``): that needs
no right to write, leaves nothing behind, and holds between users and containers of one machine. On file systems that
know no such lock it is gone without: whoever edits compares once more before the rename.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from mdl.errors import Busy

WAIT_SECONDS = 60.0
_POLL_SECONDS = 0.01


@contextlib.contextmanager
def folder_lock(folder: Path, wait: float = WAIT_SECONDS) -> Iterator[None]:
    """Hold the lock of a folder; wait up to ``wait`` seconds for it. Raises `Busy`."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, fd)
            _acquire(fd, folder, wait)
        yield


def _acquire(fd: int, folder: Path, wait: float) -> None:
    """Raises `Busy`, `OSError` if there are no such locks."""
    try:
        import fcntl
    except ImportError:
        return
    deadline = time.monotonic() + wait
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                hint = "wait until it ends, or stop it"
                raise Busy("another process keeps this folder locked", item=str(folder), hint=hint) from None
        time.sleep(_POLL_SECONDS)
