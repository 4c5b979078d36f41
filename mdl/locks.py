"""Locks: file locks, and from them and from what it touches, whether a process that cannot be seen is alive.

Correctness never depends on a lock: locks save work, and tell other processes to wait. ``flock`` is unreliable on
Lustre, GPFS and some NFS, and some file systems do not have it at all; there mdl goes on without. A free lock proves
that its owner is dead only if the file system belongs to one machine, whose kernel knows every lock; elsewhere the
owner counts as dead after a minute without a write. That may be wrong: code that acts on it must be safe against a
process that goes on writing, see `mdl.engine.adoption`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from mdl.cancel import CancelToken
from mdl.errors import Busy
from mdl.fs import filesystem_type
from mdl.fs.private import make_private_dir, open_new, read_regular
from mdl.paths import record_name

_LOCAL = {"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "jfs", "bcachefs", "tmpfs", "ramfs", "overlay"}
"""File systems that are mounted by one machine only."""
_LARGEST_HOLDER = 1000
_FILE_POLL_SECONDS, _FOLDER_POLL_SECONDS = 0.2, 0.01
_FOLDER_WAIT_SECONDS = 60.0
_FRESH_SECONDS = 2.0
"""A file that was made so recently is about to be locked."""
_QUIET_SECONDS = 60.0
_UNLOCKED_SECONDS = 600.0
"""The same if the file cannot be locked at all."""


def try_lock(fd: int, patience: float = 0.5) -> bool | None:
    """Lock an open file until it is closed. False if another descriptor holds the lock, None if it cannot be locked.

    Another process that only asks whether the file is locked holds the lock for a moment, so this tries for
    ``patience`` seconds.
    """
    until = time.monotonic() + patience
    while (found := _flock(fd, fcntl.LOCK_EX)) is False and time.monotonic() < until:
        time.sleep(0.02)
    return found


def _flock(fd: int, kind: int) -> bool | None:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
        return True
    except OSError as error:
        return False if error.errno in (errno.EWOULDBLOCK, errno.EACCES) else None


@contextlib.contextmanager
def file_lock(
    folder: Path, name: str, wait: float, on_wait: Callable[[str], None], cancel: CancelToken | None = None
) -> Iterator[None]:
    """Hold the lock ``name`` in a folder of mdl's own; wait up to ``wait`` seconds for it.

    ``on_wait`` is called once with the name of the holder if this has to wait. Raises `Busy`, which names the holder,
    and `Cancelled`, `Unsafe`, `OSError`.
    """
    make_private_dir(folder)
    path, holder = folder / f"{record_name(name)}.lock", folder / f"{record_name(name)}.who"
    if (fd := _open_locked(path)) is None:
        on_wait(_holder(holder))
        cancel, until = cancel or CancelToken(), time.monotonic() + wait
        while fd is None:
            left = until - time.monotonic()
            if left <= 0:
                hint = "wait for it, or give it longer with --lock-wait"
                raise Busy(f"{_holder(holder)} is at work on it", item=name, hint=hint)
            cancel.wait(min(_FILE_POLL_SECONDS, left))
            fd = _open_locked(path)
    try:
        with contextlib.suppress(OSError), os.fdopen(open_new(holder, os.O_WRONLY), "w") as file:
            json.dump({"pid": os.getpid(), "since": time.strftime("%H:%M:%S")}, file)
        yield
    finally:
        with contextlib.suppress(OSError):
            holder.unlink(missing_ok=True)
        os.close(fd)


def _open_locked(path: Path) -> int | None:
    """The lock file, open and locked; None if another process holds it. The lock file of another user, who could hold
    it forever, is replaced."""
    while True:
        try:
            fd = open_new(path, os.O_RDWR)
        except PermissionError:  # another user's that cannot even be opened
            path.unlink()
            continue
        is_locked = try_lock(fd, patience=0.0) is not False
        if is_locked and os.fstat(fd).st_nlink:
            return fd
        os.close(fd)
        if not is_locked:
            return None  # else it was removed before it was locked: once more


def _holder(path: Path) -> str:
    try:
        data = json.loads(read_regular(path, _LARGEST_HOLDER) or b"")
        return f"another mdl (process {int(data['pid'])}, since {str(data['since'])[:8]})"
    except (OSError, ValueError, OverflowError, KeyError, TypeError):
        return "another mdl"


@contextlib.contextmanager
def folder_lock(folder: Path, wait: float = _FOLDER_WAIT_SECONDS) -> Iterator[None]:
    """Hold the lock of a folder in which a small file is read, edited and replaced; wait up to ``wait`` seconds for it.

    A lock on the file itself would stay with the file that is replaced. A lock on its folder needs no right to write
    and leaves nothing behind. If the folder cannot be locked this goes on without: the caller compares the file once
    more before it replaces it. Raises `Busy`.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, fd)
            until = time.monotonic() + wait
            while _flock(fd, fcntl.LOCK_EX) is False:
                if time.monotonic() > until:
                    hint = "wait until it ends, or stop it"
                    raise Busy("another process keeps this folder locked", item=str(folder), hint=hint)
                time.sleep(_FOLDER_POLL_SECONDS)
        yield


def has_reliable_locks(path: Path) -> bool:
    """Whether a free lock on the file system of ``path`` proves that no process holds it."""
    return filesystem_type(path) in _LOCAL


def may_be_alive(path: Path, touched: Iterable[Path] = ()) -> bool:
    """Whether the process that works on ``path`` may be alive. ``touched`` are further files that it writes."""
    if locked := is_locked(path):
        return True
    modified = 0.0
    for one in (path, *touched):
        with contextlib.suppress(OSError):
            modified = max(modified, one.lstat().st_mtime)
    age = time.time() - modified
    if locked is None:
        return age < _UNLOCKED_SECONDS
    return abs(age) < _FRESH_SECONDS if has_reliable_locks(path) else age < _QUIET_SECONDS


def is_locked(path: Path) -> bool | None:
    """Whether a process holds the lock of a file or folder; None if that cannot be known. Changes nothing."""
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if stat.S_ISREG(os.fstat(fd).st_mode) or stat.S_ISDIR(os.fstat(fd).st_mode):
                found = _flock(fd, fcntl.LOCK_SH)
                return None if found is None else not found
        finally:
            os.close(fd)
    return None


class Heartbeat:
    """A file that is locked, and touched every so many ``seconds``, until `stop` is called or this process ends, as a
    sign that it is alive. If no thread can be started it is only locked. Raises `OSError`."""

    def __init__(self, path: Path, seconds: float = 10.0) -> None:
        self._path, self._seconds = path, seconds
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
        try_lock(self._fd)
        self._stopped = threading.Event()
        with contextlib.suppress(RuntimeError):
            threading.Thread(target=self._beat, name="mdl-heartbeat", daemon=True).start()

    def _beat(self) -> None:
        while not self._stopped.wait(self._seconds):
            with contextlib.suppress(OSError):
                os.utime(self._path, follow_symlinks=False)

    def stop(self) -> None:
        """Remove the file: this process has nothing in hand any more."""
        self._stopped.set()
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)
        os.close(self._fd)
