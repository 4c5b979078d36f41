"""Mutexes: one process at a time works on a model, a folder or a record. And whether the owner of a file may be alive.

Correctness never rests on a mutex. It saves work, and it tells other processes to wait. Every process writes to a
partial of its own, and only verified bytes get a final name.

A mutex is a locked file (``flock``) and a lease beside it, which names the owner. On a file system that one machine has
for itself the lock alone decides, for the kernel knows every lock. On a shared one ``flock`` may let everybody in
(Lustre, GPFS, some NFS) or not exist. Only one process can make the lease there too (``O_EXCL``), and the lease keeps
the others out until it is a minute old. An owner that works for longer calls `HeldFile.touch` now and then. (ADR 68)
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar

from mdl.bounds import LARGEST_NOTE, LONGEST_SHOWN_NAME, parse_json
from mdl.cancel import CancelToken
from mdl.disk import filesystem_type, publish, write_all
from mdl.disk.own_files import make_private_dir, open_new, read_own
from mdl.disk.process import ProcessId, hostname
from mdl.disk.safe_open import NO_LINK
from mdl.errors import Busy, suppress_storage_trouble
from mdl.paths import record_name

_Taken = TypeVar("_Taken")

_FIXED = {"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "jfs", "bcachefs", "tmpfs", "ramfs", "overlay"}
_REMOVABLE = {"exfat", "vfat", "msdos", "ntfs", "ntfs3", "hfsplus", "fuseblk"}
"""``fuseblk`` is a block device that a program serves, as ntfs-3g does."""
LOCAL = _FIXED | _REMOVABLE
"""File systems that are mounted by one machine only."""
_FILE_POLL_SECONDS = 0.2
_FOLDER_POLL_SECONDS = 0.01
_LONGEST_POLL_SECONDS = 1.0
_FOLDER_WAIT_SECONDS = 60.0
TOUCH_SECONDS = 10.0
"""A touch that comes sooner after the last one does nothing."""
QUIET_SECONDS = 60.0
"""Where locks may lie, an owner that has written nothing for so long counts as dead."""
_ABSENT_SECONDS = 600.0
"""The same if there is no file that the owner would lock."""
FRESH_SECONDS = 2.0
"""A file that was made so recently is about to be locked."""

_locked: dict[int, tuple[int, int]] = {}
"""The descriptors of the files that this process keeps locked, and which files these are, by device and inode, for
`_after_fork`: the system calls that function without an argument, so this is a variable of the module."""


# Locks on open files.


def try_lock(fd: int, patience: float = 0.5) -> bool | None:
    """Lock an open file until `unlock_and_close`. False if another descriptor holds the lock, None if it cannot be
    locked.

    Another process that only asks whether the file is locked holds the lock for a moment, so this tries for
    ``patience`` seconds.
    """
    until = time.monotonic() + patience
    is_locked = _flock(fd, fcntl.LOCK_EX)
    while is_locked is False and time.monotonic() < until:
        time.sleep(0.02)
        is_locked = _flock(fd, fcntl.LOCK_EX)
    return is_locked


def unlock_and_close(fd: int) -> None:
    """Close a file that may be locked. To close it alone is not enough: a process that was forked meanwhile has the
    descriptor too, and with it the lock."""
    _locked.pop(fd, None)  # while the number is still this file's
    try:
        with suppress_storage_trouble():
            fcntl.flock(fd, fcntl.LOCK_UN)
    finally:
        os.close(fd)


def _flock(fd: int, kind: int) -> bool | None:
    """Try once to lock an open file; returns what `try_lock` returns."""
    try:
        _locked[fd] = _identity(fd)  # before it is locked, for a fork may come at any moment
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except OSError as error:
        _locked.pop(fd, None)
        if error.errno is None:  # a signal handler's, such as its TimeoutError: no answer of the kernel
            raise
        return False if error.errno in (errno.EWOULDBLOCK, errno.EACCES) else None
    return True


def _identity(fd: int) -> tuple[int, int]:
    """Return the device and inode of an open file."""
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def is_locked(path: Path) -> bool | None:
    """Return whether a process holds the lock of a file or folder; None if that cannot be known. Changes nothing."""
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_RDONLY | NO_LINK)
        try:
            mode = os.fstat(fd).st_mode
            if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
                could_lock = _flock(fd, fcntl.LOCK_SH)
                return None if could_lock is None else not could_lock
        finally:
            unlock_and_close(fd)
    return None


def has_reliable_locks(path: Path) -> bool:
    """Return whether a free lock on the file system of ``path`` proves that no process holds it."""
    return filesystem_type(path) in LOCAL


def _after_fork() -> None:
    """Let go of the parent's locks in a forked process, which would hold them for as long as it lives, also when the
    parent is dead. The descriptors stay open, for code of the parent that is still to close them here."""
    held = dict(_locked)
    _locked.clear()
    if not held:
        return
    with contextlib.suppress(OSError):
        nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        for fd, file in held.items():
            with contextlib.suppress(OSError):
                if _identity(fd) == file:
                    os.dup2(nothing, fd, inheritable=False)
        os.close(nothing)


os.register_at_fork(after_in_child=_after_fork)


class HeldFile:
    """A file that is locked until `stop` is called or this process ends, as a sign that this process is alive.

    ``flags`` are further ones to open it with. Raises `OSError`.
    """

    __slots__ = ("_fd", "_path", "_touched_at")

    def __init__(self, path: Path, flags: int = 0, text: bytes = b"") -> None:
        self._path = os.fspath(path)
        self._touched_at = time.monotonic()
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | NO_LINK | flags, 0o600)
        try:
            try_lock(self._fd)
            with contextlib.suppress(OSError):  # a lease without a text is one too
                self._write(text)
        except BaseException:  # a signal handler may raise at any moment, as Ctrl-C does in a notebook
            self.stop()
            raise

    def _write(self, text: bytes) -> None:
        """Write ``text``. A copy of the descriptor is closed, for a network file system sends to its server what was
        written when a file is closed."""
        copied = os.dup(self._fd)
        try:
            write_all(copied, text)
        finally:
            os.close(copied)

    def touch(self) -> None:
        """Show processes of other machines that this one is still at work. May be called often."""
        now = time.monotonic()
        if now - self._touched_at < TOUCH_SECONDS:
            return
        self._touched_at = now
        with contextlib.suppress(OSError):
            if os.path.samestat(os.lstat(self._path), os.fstat(self._fd)):
                os.utime(self._path, follow_symlinks=False)

    def stop(self) -> None:
        """Remove the file, unless it is another process's by now: this one has nothing in hand any more."""
        with contextlib.suppress(OSError):
            if os.path.samestat(os.lstat(self._path), os.fstat(self._fd)):
                os.unlink(self._path)
        unlock_and_close(self._fd)


# The mutex of a name: a locked file and a lease.


class Mutex:
    """A mutex that this process holds until `release`, or to the end of a ``with`` block.

    ``lease`` is to be touched by work that takes longer than a minute; None if no file can be made there. A call may
    hold thousands of them.
    """

    __slots__ = ("fd", "lease")

    def __init__(self, fd: int, lease: HeldFile | None) -> None:
        self.fd = fd
        self.lease = lease

    def release(self) -> None:
        """Remove the lease, and let go of the lock."""
        try:
            if self.lease is not None:
                self.lease.stop()
        finally:
            unlock_and_close(self.fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def file_lock(
    folder: Path, name: str, wait: float, on_wait: Callable[[str], None], cancel: CancelToken | None = None
) -> Mutex:
    """Take the mutex ``name`` in a folder of mdl's own; wait up to ``wait`` seconds for it.

    ``on_wait`` is called once with the name of the holder if this has to wait. Raises `Busy`, which names the holder,
    and `Cancelled`, `Unsafe`, `OSError`.
    """
    make_private_dir(folder)
    lock = folder / f"{record_name(name)}.lock"
    lease = folder / f"{record_name(name)}.who"
    waiting = _Waiting(name, lease, wait, on_wait, cancel or CancelToken())
    mutex = Mutex(waiting.until(lambda: _open_locked(lock)), None)
    try:
        with suppress_storage_trouble():
            mutex.lease = waiting.until(lambda: _make_lease(lease, mutex.fd, name))
    except BaseException:
        mutex.release()
        raise
    return mutex


class _Waiting:
    """Waits for one mutex, and reports once that it waits."""

    def __init__(
        self, name: str, lease: Path, seconds: float, on_wait: Callable[[str], None], cancel: CancelToken
    ) -> None:
        self._name = name
        self._lease = lease
        self._seconds = seconds
        self._on_wait = on_wait
        self._cancel = cancel
        self._until: float | None = None

    def until(self, take: Callable[[], _Taken | None]) -> _Taken:
        """Call ``take`` until it returns something, and return that. Raises `Busy`, `Cancelled`, and what ``take``
        raises."""
        pause = _FILE_POLL_SECONDS
        while True:
            taken = take()
            if taken is not None:
                return taken
            if self._until is None:
                self._until = time.monotonic() + self._seconds
                self._on_wait(holder_of(self._lease))
            left = self._until - time.monotonic()
            if left <= 0:
                hint = "'mdl jobs' shows what runs; to wait longer: --lock-wait 2h"
                raise Busy(f"{holder_of(self._lease)} is at work on it", item=self._name, hint=hint)
            self._cancel.wait(min(pause, left))
            pause = min(_LONGEST_POLL_SECONDS, pause * 1.25)


def _open_locked(path: Path) -> int | None:
    """Open and lock a file; None if another process holds the lock. The lock file of another user, who could hold it
    forever, is replaced."""
    while True:
        try:
            fd = open_new(path, os.O_RDWR)
        except PermissionError:  # another user's that cannot even be opened
            path.unlink()
            continue
        try:
            is_free = try_lock(fd, patience=0.0) is not False
            is_removed = not os.fstat(fd).st_nlink
        except BaseException:
            unlock_and_close(fd)
            raise
        if is_free and not is_removed:
            return fd
        unlock_and_close(fd)
        if not is_free:
            return None


def _make_lease(path: Path, lock: int, name: str) -> HeldFile | None:
    """Make the file ``path``, which only one process can; None if another one that may be alive has made it. ``lock``
    is the locked file of the same mutex. The lease of a dead process is removed. Raises `OSError`."""
    facts = {
        "name": name[:LONGEST_SHOWN_NAME],
        "process": str(ProcessId.current()),
        "pid": os.getpid(),
        "host": hostname(),
        "since": time.strftime("%H:%M:%S"),
    }
    while True:
        with contextlib.suppress(FileExistsError):
            return HeldFile(path, os.O_EXCL, json.dumps(facts).encode())
        seen = _text_of(path)
        if may_be_held(path, lock):
            return None
        if not publish.take_away(path, partial(_has_text, seen)):
            return None


def may_be_held(lease: Path, lock: int) -> bool:
    """Return whether the process that made a lease may be alive, though this one has the lock. Ages are measured by the
    clock of the file system: those of two machines may differ."""
    if has_reliable_locks(lease) and try_lock(lock, patience=0.0):
        return False
    try:
        os.utime(lock)
        return os.fstat(lock).st_mtime - _modified_at(lease) < QUIET_SECONDS
    except OSError as error:  # it is gone, or what can be asked of it is no sign of life
        if error.errno is None:
            raise
        return False


def _has_text(text: bytes, lease: Path) -> bool:
    return _text_of(lease) == text


def _text_of(lease: Path) -> bytes:
    """Return the content of a lease; nothing if it is gone."""
    with suppress_storage_trouble():
        return read_own(lease, LARGEST_NOTE) or b""
    return b""


def holder_of(lease: Path) -> str:
    """Who made a lease, in words."""
    try:
        facts: Any = parse_json(_text_of(lease))
        since = str(facts["since"])[:8]
        if facts["process"] == str(ProcessId.current()):
            return f"another call of this process ({os.getpid()}, since {since})"
        host = facts["host"][:LONGEST_SHOWN_NAME]
        where = "" if host == hostname() else f" on {host}"
        return f"another mdl (process {int(facts['pid'])}{where}, since {since})"
    except (ValueError, OverflowError, KeyError, TypeError):
        return "another mdl"


# The mutex of a folder.


@contextlib.contextmanager
def folder_lock(folder: Path, wait: float = _FOLDER_WAIT_SECONDS) -> Iterator[None]:
    """Hold the lock of a folder in which a small file is read, edited and replaced; wait up to ``wait`` seconds for it.

    A lock on the file itself would stay with the file that is replaced. A lock on its folder needs no right to write
    and leaves nothing behind. If the folder cannot be locked this goes on without: the caller compares the file once
    more before it replaces it. Raises `Busy`.
    """
    with contextlib.ExitStack() as stack:
        with suppress_storage_trouble():
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(unlock_and_close, fd)
            until = time.monotonic() + wait
            while _flock(fd, fcntl.LOCK_EX) is False:
                if time.monotonic() > until:
                    hint = "wait until it ends, or stop it"
                    raise Busy("another process keeps this folder locked", item=str(folder), hint=hint)
                time.sleep(_FOLDER_POLL_SECONDS)
        yield


# Signs of life.


def may_be_alive(path: Path, touched: Iterable[Path] = (), quiet: float | None = None) -> bool:
    """Return whether the process that works on ``path``, and keeps it locked, may be alive. ``touched`` are further
    files that it writes. Where a free lock proves nothing, it counts as dead ``quiet`` seconds after it last wrote to
    any of them: after a minute, or after ten if ``path`` is missing. That may be wrong: who acts on it must be safe
    against a process that goes on writing, see `mdl.downloader.partial_folders`."""
    is_held = is_locked(path)
    if is_held:
        return True
    modified = 0.0
    for place in (path, *touched):
        with contextlib.suppress(OSError):
            modified = max(modified, _modified_at(place))
    if is_held is False and has_reliable_locks(path):
        return abs(time.time() - modified) < FRESH_SECONDS
    if quiet is None:
        quiet = QUIET_SECONDS if is_held is False or os.path.lexists(path) else _ABSENT_SECONDS
    return _clock_of(path.parent.parent) - modified < quiet  # a file made in its own folder would be a sign of life


def _modified_at(path: Path) -> float:
    """Return when a file or folder was modified. Raises `OSError`."""
    return path.lstat().st_mtime


def _clock_of(folder: Path) -> float:
    """Return the time by the clock that stamps the files of a folder, which may be another machine's: that of a new
    file, or of this machine if none can be made."""
    import tempfile

    with contextlib.suppress(OSError), tempfile.TemporaryFile(dir=folder, prefix=".clock-", suffix=".mdl-tmp") as file:
        file.write(b"\0")
        file.flush()
        return os.fstat(file.fileno()).st_mtime
    return time.time()
