"""Locks: file locks, and from them and from what it touches, whether a process that cannot be seen is alive.

Correctness never depends on a lock: locks save work, and tell other processes to wait. ``flock`` is unreliable on
Lustre, GPFS and some NFS, and some file systems do not have it at all; there a lease keeps others out, a file that only
one process can make (``O_EXCL``), and that it touches every ten seconds as long as it lives. A free lock proves
that its owner is dead only if the file system belongs to one machine, whose kernel knows every lock; elsewhere the
owner counts as dead after a minute without a write. That may be wrong: code that acts on it must be safe against a
process that goes on writing, see `mdl.downloader.adoption`.
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
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from mdl.bounds import parse_json
from mdl.cancel import CancelToken
from mdl.disk import filesystem_type, publish
from mdl.disk.process import ProcessId, hostname
from mdl.disk.safe_open import make_private_dir, open_new, read_regular
from mdl.errors import Busy, suppress_storage_trouble
from mdl.paths import record_name

_Taken = TypeVar("_Taken")

_LOCAL = {"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "jfs", "bcachefs", "tmpfs", "ramfs", "overlay"}
"""File systems that are mounted by one machine only."""
_LARGEST_HOLDER = 1000
_LONGEST_HOST = 100
_LONGEST_HELD = 50
_FILE_POLL_SECONDS = 0.2
_FOLDER_POLL_SECONDS = 0.01
_LONGEST_POLL_SECONDS = 1.0
_BEAT_SECONDS = 10.0
_FOLDER_WAIT_SECONDS = 60.0
_FRESH_SECONDS = 2.0
"""A file that was made so recently is about to be locked."""
_QUIET_SECONDS = 60.0
_ABSENT_SECONDS = 600.0
"""The same if there is no file that it would lock."""
_locked: dict[int, os.stat_result] = {}
"""The descriptors of the files that this process has locked and not let go of, and which files these are."""


def try_lock(fd: int, patience: float = 0.5) -> bool | None:
    """Lock an open file until `unlock_and_close`. False if another descriptor holds the lock, None if it cannot be
    locked.

    Another process that only asks whether the file is locked holds the lock for a moment, so this tries for
    ``patience`` seconds.
    """
    until = time.monotonic() + patience
    while (found := _flock(fd, fcntl.LOCK_EX)) is False and time.monotonic() < until:
        time.sleep(0.02)
    return found


def unlock_and_close(fd: int) -> None:
    """Close a file that may be locked. To close it alone is not enough: a process that was forked meanwhile has the
    descriptor too, and with it the lock."""
    _locked.pop(fd, None)  # while the number is still this file's
    with contextlib.suppress(OSError):
        fcntl.flock(fd, fcntl.LOCK_UN)
    os.close(fd)


def _flock(fd: int, kind: int) -> bool | None:
    try:
        _locked[fd] = os.fstat(fd)  # a fork may come at any moment
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
        return True
    except OSError as error:
        _locked.pop(fd, None)
        return False if error.errno in (errno.EWOULDBLOCK, errno.EACCES) else None


@contextlib.contextmanager
def file_lock(
    folder: Path, name: str, wait: float, on_wait: Callable[[str], None], cancel: CancelToken | None = None
) -> Iterator[None]:
    """Hold the lock ``name`` in a folder of mdl's own; wait up to ``wait`` seconds for it.

    It is a locked file, and a lease beside it, which keeps others out where locks lie. ``on_wait`` is called once with
    the name of the holder if this has to wait. Raises `Busy`, which names the holder, and `Cancelled`, `Unsafe`,
    `OSError`.
    """
    make_private_dir(folder)
    lock = folder / f"{record_name(name)}.lock"
    lease = folder / f"{record_name(name)}.who"
    waiting = _Waiting(name, lease, wait, on_wait, cancel or CancelToken())
    with contextlib.ExitStack() as stack:
        fd = waiting.until(lambda: _open_locked(lock))
        stack.callback(unlock_and_close, fd)
        with suppress_storage_trouble():
            stack.callback(waiting.until(lambda: _take_lease(lease, fd, name)).stop)
        yield


@dataclass
class _Waiting:
    """Patience for one lock, and whom to tell about it."""

    name: str
    lease: Path
    seconds: float
    on_wait: Callable[[str], None]
    cancel: CancelToken
    _until: float = 0.0

    def until(self, take: Callable[[], _Taken | None]) -> _Taken:
        """What ``take`` returns, once it is something. Raises `Busy`, `Cancelled`, and what ``take`` raises."""
        pause = _FILE_POLL_SECONDS
        while (taken := take()) is None:
            if not self._until:
                self._until = time.monotonic() + self.seconds
                self.on_wait(_holder(self.lease))
            left = self._until - time.monotonic()
            if left <= 0:
                hint = "wait for it, or give it longer with --lock-wait"
                raise Busy(f"{_holder(self.lease)} is at work on it", item=self.name, hint=hint)
            self.cancel.wait(min(pause, left))
            pause = min(_LONGEST_POLL_SECONDS, pause * 1.25)
        return taken


def _open_locked(path: Path) -> int | None:
    """The lock file, open and locked; None if another process holds it. The lock file of another user, who could hold
    it forever, is replaced."""
    while True:
        try:
            fd = open_new(path, os.O_RDWR)
        except PermissionError:  # another user's that cannot even be opened
            path.unlink()
            continue
        with _undone_if_it_fails(partial(unlock_and_close, fd)):
            is_locked = try_lock(fd, patience=0.0) is not False
            if is_locked and os.fstat(fd).st_nlink:
                return fd
        unlock_and_close(fd)
        if not is_locked:
            return None  # else it was removed before it was locked: once more


def _take_lease(path: Path, lock: int, name: str) -> Heartbeat | None:
    """Make the file ``path``, which only one process can; None if another one that may be alive made it. ``lock`` is
    the lock file, open, of what has this ``name``. The lease of a dead process is removed. Raises `OSError`."""
    while True:
        try:
            lease = Heartbeat(path, os.O_EXCL)
        except FileExistsError:
            seen = _text_of(path)
            if _may_hold(path, seen, lock) or not publish.take_away(path, partial(_has_text, seen)):
                return None
            continue
        with _undone_if_it_fails(lease.stop):
            process = str(ProcessId.current())
            host = hostname()
            since = time.strftime("%H:%M:%S")
            facts = {"name": name[:_LONGEST_HELD], "process": process, "pid": os.getpid(), "host": host, "since": since}
            text = json.dumps(facts)
            with contextlib.suppress(OSError):  # without a text it is a lease too
                lease.write(text.encode())
            return lease


@contextlib.contextmanager
def _undone_if_it_fails(undo: Callable[[], None]) -> Iterator[None]:
    """Undo what was taken if the caller never gets it: a signal handler may raise at any moment, as Ctrl-C does in a
    notebook, whose process lives on."""
    try:
        yield
    except BaseException:
        undo()
        raise


def _may_hold(lease: Path, text: bytes, lock: int) -> bool:
    """Whether the process that made a lease with this text may be alive. If it cannot be seen from here, the lock tells
    if it can be relied on. If not, the process is dead after a minute without a heartbeat, by the clock of the file
    system: those of two machines may differ."""
    owner = ProcessId(str(_facts_of(text).get("process")))
    alive = lease in Heartbeat.beating if owner == ProcessId.current() else owner.is_alive()
    if alive is not None or has_reliable_locks(lease):
        return bool(alive)
    try:
        os.utime(lock)
        return os.fstat(lock).st_mtime - lease.lstat().st_mtime < _QUIET_SECONDS
    except OSError:  # it is gone, or what can be asked of it is no sign of life
        return False


def _has_text(text: bytes, lease: Path) -> bool:
    return _text_of(lease) == text


def _text_of(lease: Path) -> bytes:
    """What is in a lease; nothing if it is gone."""
    with contextlib.suppress(OSError):
        return read_regular(lease, _LARGEST_HOLDER) or b""
    return b""


def _facts_of(text: bytes) -> dict[str, Any]:
    with contextlib.suppress(ValueError):
        return found if isinstance(found := parse_json(text), dict) else {}
    return {}


def _holder(lease: Path) -> str:
    facts = _facts_of(_text_of(lease))
    try:
        if facts["process"] == str(ProcessId.current()):
            return f"another call of this process ({os.getpid()}, since {str(facts['since'])[:8]})"
        where = "" if facts["host"] == hostname() else f" on {facts['host'][:_LONGEST_HOST]}"
        return f"another mdl (process {int(facts['pid'])}{where}, since {str(facts['since'])[:8]})"
    except (ValueError, OverflowError, KeyError, TypeError):
        return "another mdl"


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
    if locked is False and has_reliable_locks(path):
        return abs(time.time() - modified) < _FRESH_SECONDS
    age = _clock_of(path.parent.parent) - modified  # in its own folder, this would be a sign of life
    return age < (_QUIET_SECONDS if locked is False or os.path.lexists(path) else _ABSENT_SECONDS)


def _clock_of(folder: Path) -> float:
    """The time by the clock that stamps the files of a folder, which may be another machine's: that of a new file, or
    of this machine if none can be made."""
    import tempfile

    with contextlib.suppress(OSError), tempfile.TemporaryFile(dir=folder, prefix=".clock-", suffix=".mdl-tmp") as file:
        file.write(b"\0")
        file.flush()
        return os.fstat(file.fileno()).st_mtime
    return time.time()


def is_locked(path: Path) -> bool | None:
    """Whether a process holds the lock of a file or folder; None if that cannot be known. Changes nothing."""
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if stat.S_ISREG(os.fstat(fd).st_mode) or stat.S_ISDIR(os.fstat(fd).st_mode):
                found = _flock(fd, fcntl.LOCK_SH)
                return None if found is None else not found
        finally:
            unlock_and_close(fd)
    return None


class Heartbeat:
    """A file that is locked, and touched every ten seconds, until `stop` is called or this process ends, as a sign that
    it is alive. One thread touches all of them; if none can be started they are only locked.

    ``flags`` are further ones to open it with. Raises `OSError`.
    """

    beating: ClassVar[set[Path]] = set()
    """The files of all that were not stopped."""
    _all_stopped: ClassVar[threading.Event] = threading.Event()
    _changing: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, path: Path, flags: int = 0) -> None:
        self._path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | flags, 0o600)
        with _undone_if_it_fails(self.stop):
            try_lock(self._fd)
            with self._changing:
                is_first = not self.beating
                self.beating.add(path)
                if is_first:
                    Heartbeat._all_stopped = threading.Event()
                    with contextlib.suppress(RuntimeError):
                        beat = threading.Thread(target=_beat, args=(self._all_stopped, self.beating), daemon=True)
                        beat.name = "mdl-heartbeat"
                        beat.start()

    def write(self, data: bytes) -> None:
        """Put ``data`` into it, once; other machines see it too, for something of it is closed. Raises `OSError`."""
        with os.fdopen(os.dup(self._fd), "wb") as file:
            file.write(data)

    def stop(self) -> None:
        """Remove the file, unless it is another process's by now: this one has nothing in hand any more."""
        with self._changing:
            self.beating.discard(self._path)
            if not self.beating:
                self._all_stopped.set()
        with contextlib.suppress(OSError):
            if os.path.samestat(self._path.lstat(), os.fstat(self._fd)):
                self._path.unlink(missing_ok=True)
        unlock_and_close(self._fd)


def _after_fork() -> None:
    """A forked process has no thread that touches files, and those of its parent are not its own. Neither are its
    locks: with their descriptors it would hold them as long as it lives, also when the parent is dead. The numbers
    stay taken, for code of the parent that is still to close them here."""
    Heartbeat.beating.clear()
    Heartbeat._changing = threading.Lock()
    held = dict(_locked)
    _locked.clear()
    if not held:
        return
    with contextlib.suppress(OSError):
        nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        for fd, file in held.items():
            with contextlib.suppress(OSError):
                if os.path.samestat(os.fstat(fd), file):
                    os.dup2(nothing, fd, inheritable=False)
        os.close(nothing)


os.register_at_fork(after_in_child=_after_fork)


def _beat(all_stopped: threading.Event, beating: set[Path]) -> None:
    while not all_stopped.wait(_BEAT_SECONDS):
        for path in tuple(beating):
            with contextlib.suppress(OSError):
                os.utime(path, follow_symlinks=False)
