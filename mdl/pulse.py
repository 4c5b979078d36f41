"""Pulse: whether a process lives that cannot be seen from here: on another machine, or in another container.

A living process keeps a file locked, and writes to it or touches it. File locks alone are no proof: they are
unreliable on Lustre, GPFS and some NFS. They are believed if a file system belongs to one machine, whose kernel knows
every lock; elsewhere a free lock counts only once nothing was touched for a minute. A verdict of "dead" may be wrong
there: who acts on it must be safe against a process that goes on writing, see `mdl.engine.partial`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
import time
from collections.abc import Iterable
from pathlib import Path

from mdl.mounts import type_of

_LOCAL = {"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "jfs", "bcachefs", "tmpfs", "ramfs", "overlay"}
"""File systems that one machine has for itself."""
_BEAT_SECONDS = 10.0
_FRESH_SECONDS = 2.0
"""A file that was made just now is about to be locked."""
_QUIET_SECONDS = 60.0
_UNLOCKED_SECONDS = 600.0
"""The same if there is no lock to be asked."""


def try_lock(fd: int, patience: float = 0.5) -> bool | None:
    """Lock an open file until it is closed. False if another descriptor has it locked, None if it cannot be locked.

    Somebody may just be asking whether it is locked, so this tries for ``patience`` seconds.
    """
    until = time.monotonic() + patience
    while (found := _lock(fd, is_shared=False)) is False and time.monotonic() < until:
        time.sleep(0.02)
    return found


def _lock(fd: int, *, is_shared: bool) -> bool | None:
    try:
        import fcntl

        fcntl.flock(fd, (fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        return True
    except (ImportError, OSError) as error:
        return False if isinstance(error, OSError) and error.errno in (errno.EWOULDBLOCK, errno.EACCES) else None


def has_true_locks(path: Path) -> bool:
    """Whether a free lock on the file system of ``path`` proves that no process holds it."""
    return type_of(path) in _LOCAL


def may_live(path: Path, touched: Iterable[Path] = (), *, keeps_locked: bool = True) -> bool:
    """Whether the process that has ``path`` in hand may be alive. ``touched`` are further files that it writes;
    ``keeps_locked`` is False for an older mdl, which held no lock."""
    found = _is_locked(path) if keeps_locked else None
    if found:
        return True
    age = time.time() - max((_touched(one) for one in (path, *touched)), default=0.0)
    if found is None:
        return age < _UNLOCKED_SECONDS
    return abs(age) < _FRESH_SECONDS if has_true_locks(path) else age < _QUIET_SECONDS


def _is_locked(path: Path) -> bool | None:
    """None if that cannot be known."""
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if stat.S_ISREG(os.fstat(fd).st_mode) or stat.S_ISDIR(os.fstat(fd).st_mode):
                found = _lock(fd, is_shared=True)
                return None if found is None else not found
        finally:
            os.close(fd)
    return None


def _touched(path: Path) -> float:
    """When it was last written, in seconds of the epoch."""
    with contextlib.suppress(OSError):
        return path.lstat().st_mtime
    return 0.0


class Pulse:
    """A file that is locked and touched until `stop`, or until this process ends. Without a thread to be had it is
    locked alone. Raises `OSError`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
        try_lock(self._fd)
        self._stopped = threading.Event()
        with contextlib.suppress(RuntimeError):
            threading.Thread(target=self._beat, name="mdl-pulse", daemon=True).start()

    def _beat(self) -> None:
        while not self._stopped.wait(_BEAT_SECONDS):
            with contextlib.suppress(OSError):
                os.utime(self._path, follow_symlinks=False)

    def stop(self) -> None:
        """The process has nothing in hand any more."""
        self._stopped.set()
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)
        os.close(self._fd)
