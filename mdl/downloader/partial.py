"""Partials: one hidden, sparse, unfinished file and its journal, in a folder of their own.

Bytes are written first, then claimed in the journal, and confirmed there once they were synced: a killed process costs
what was in flight, a power cut what was not synced (ADR 66). What of a leftover is used is decided in
`mdl.downloader.partial_folders`. A mount that takes writes in order alone has a partial of its own kind.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from mdl.bounds import LARGEST_RECORD
from mdl.disk import publish, refuses_order, sync, write_all
from mdl.disk.mutex import try_lock, unlock_and_close
from mdl.disk.own_files import make_private_dir, open_new, open_own
from mdl.disk.process import ProcessId
from mdl.disk.safe_open import EntryAt
from mdl.downloader import journal as journals
from mdl.downloader.journal import Identity, Journal, Record
from mdl.downloader.partial_folders import adopt, discard_leftovers
from mdl.errors import Busy, StorageError, Unsafe
from mdl.net.ranges import ByteRange, RangeSet

_JOURNAL_SECONDS = 1.0
"""How often a journal's claims are made to survive a power cut; a killed process costs no claim anyway."""
_LOCAL = "download to a local disk with --to, and copy the folder to the mount afterwards"
"""The hint for a mount that does not even take writes in order."""
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
LEAST_CLAIM = 64 * 1024
_MOST_CLAIMS = 8192
"""Bytes are claimed once there are so many of them, or one part in so many of the file: a kill costs no more than that,
and the journal stays short."""


class FileModified(StorageError):
    """Another program changed a partial while it was written."""

    def __init__(self, message: str = "another program changed the unfinished file") -> None:  # `copy` gives it
        super().__init__(message, hint="find out which one, and run the same command again")


class Partial:
    """An open partial. It has the bytes that were written; the journal claims them soon, and confirms them when they
    were synced."""

    is_in_order = False
    """Whether its bytes can only be written one after the other: see `OrderedPartial`."""

    def __init__(
        self, folder: Path, fd: int, journal: Journal, record: Record, dropped: int = 0, dropped_why: str = ""
    ) -> None:
        """``record`` is what the journal says. So many bytes of a leftover were ``dropped``, and why."""
        self.folder = folder
        self.fd = fd
        self.validators = record.validators
        self._journal = journal
        self._have = record.have
        self._claimed = record.have.copy()
        self._on_disk = record.on_disk
        self._claim_at = LEAST_CLAIM
        self._lock = threading.Lock()
        """Held for a moment, to read or change which bytes there are. The next two are held while the disk works."""
        self._syncing = threading.RLock()
        self._claiming = threading.RLock()
        self._journal_synced = time.monotonic()
        self.claim_below: int | None = None
        """Only bytes below this offset are claimed: those above are not known to be right yet."""
        self._length: int | None = None
        self._is_sealed = False
        self._is_locked = False
        self._sync_error: OSError | None = None
        self.was_cut = False
        """Another program cut the file while it was written."""
        self.dropped = dropped
        self.dropped_why = dropped_why
        """How many bytes of a leftover could not be used, and why."""

    @classmethod
    def open(cls, partials: Path, key: str, identity: Identity) -> Partial:
        """Go on with the best leftover of ``key``, or begin anew.

        Raises `Busy` if a living process is at work on it, `StateError`, `OSError`.
        """
        make_private_dir(partials)
        mine = partials / f"{key}.{ProcessId.current()}"
        adopt(partials, key, mine, identity)
        make_private_dir(mine)
        data = mine / "data"
        path = mine / "journal"
        record = journals.load(path)
        lost = 0
        why = "its journal is damaged, or not this user's"
        if record is None:
            with contextlib.suppress(OSError):
                lost = data.lstat().st_blocks * 512
        elif not record.resumable_as(identity):
            lost = record.have.total
            why = _why_not(record, identity)
            record = None
        fd = _open_and_lock(data, is_new=record is None)
        try:
            if record is None:
                journal = Journal.create(path, identity)
                record = Record(identity)
            else:
                length = os.fstat(fd).st_size
                claimed = record.have.total
                record.have.remove(length, 2**63)
                record.on_disk.remove(length, 2**63)
                lost = claimed - record.have.total
                why = "the partial file is shorter than its journal says"
                if lost or path.stat().st_size > LARGEST_RECORD // 2:
                    sync(fd, data_only=True)
                    record = replace(record, on_disk=record.have.copy())
                    journal = Journal.create(path, identity, record.on_disk, record.validators)
                else:
                    journal = Journal.reopen(path)
            return cls(mine, fd, journal, record, lost, why)
        except BaseException:
            os.close(fd)
            raise

    @property
    def front(self) -> int:
        """Bytes written without a gap from the start."""
        with self._lock:
            return self._have.front

    @property
    def total(self) -> int:
        """Bytes written."""
        with self._lock:
            return self._have.total

    def is_worth_syncing(self, enough: int) -> bool:
        """Return whether ``enough`` bytes were written since the last sync, and as many as are claimed at once: the
        claims of a sync are lines of the journal too (ADR 155)."""
        with self._lock:
            least = max(enough, self._least_claim())
        return self.unsynced >= least

    @property
    def unsynced(self) -> int:
        """Bytes written that are not known to be on the disk."""
        with self._lock:
            return self._have.total - self._on_disk.total

    def gaps(self, size: int) -> list[ByteRange]:
        """Return the ranges of a file of ``size`` bytes that are missing."""
        with self._lock:
            return self._have.gaps(size)

    def set_length(self, size: int) -> None:
        """Give the sparse file the length of ``size`` bytes, and one more until `seal`: so no write reaches the end and
        hides that another program cut the file. Raises `OSError`."""
        os.ftruncate(self.fd, size + 1)
        self._claim_at = max(LEAST_CLAIM, size // _MOST_CLAIMS)
        self._length = size + 1
        self._is_sealed = False

    def write(self, offset: int, data: memoryview | bytes) -> None:
        """Put bytes at ``offset``, and claim them if enough of them are not claimed yet. Raises `OSError`."""
        if self._length is not None and os.fstat(self.fd).st_size < self._length:
            self.was_cut = True
        left = memoryview(data)
        at = offset
        while left:
            count = os.pwrite(self.fd, left, at)
            left = left[count:]
            at += count
        self.mark_present(ByteRange(offset, offset + len(data)))
        with self._lock:
            is_due = self._have.total - self._claimed.total >= self._least_claim()
        if is_due:
            self.claim()

    def _least_claim(self) -> int:
        """Return how many bytes are claimed at once. A file without a known size has at least what came of it."""
        return max(self._claim_at, self._have.total // _MOST_CLAIMS)

    def claim_only_below(self, offset: int) -> None:
        """Claim no byte from this ``offset`` on, until a larger one is given."""
        self.claim_below = offset

    def mark_missing(self, lost: ByteRange) -> None:
        """Note that these bytes turned out to be wrong."""
        with self._lock:
            self._have.remove(lost.start, lost.stop)

    def mark_present(self, written: ByteRange) -> None:
        """Note that these bytes are in the file."""
        with self._lock:
            self._have.add(written.start, written.stop)

    def note_validator(self, origin: str, validator: str) -> None:
        """Remember the first validator (ETag or date) that an origin sends for this file. Raises `OSError`."""
        with self._claiming:  # one thread at a time appends to the journal
            if origin not in self.validators:
                self.validators[origin] = validator
                self._journal.note_validator(origin, validator)

    def claim(self) -> None:
        """Claim in the journal what was written. Raises `OSError`."""
        with self._claiming:
            with self._lock:
                new = self._right().without(self._claimed)
            if new and self.fd >= 0 and self._sync_error is None:
                self._journal.claim(new)
                with self._lock:
                    for claim in new:
                        self._claimed.add(claim.start, claim.stop)

    def sync(self) -> None:
        """Claim what was written, sync it, and confirm this in the journal. Raises `OSError`: then the bytes that were
        not confirmed count as lost, and nothing more is ever claimed."""
        with self._syncing:
            with self._lock:
                right = self._right()
                new = right.without(self._on_disk)
            if not new or self.fd < 0:
                return
            if self._sync_error:
                raise self._sync_error  # these bytes may have been written before it
            if not self._is_locked:  # an earlier download in this process may not have let go of it at once
                self._is_locked = try_lock(self.fd, patience=0.0) is not False
            with self._claiming:
                self.claim()
                with self._lock:
                    right = self._claimed.copy()
                length = self._journal.length
            try:
                sync(self.fd, data_only=True)
            except OSError as error:
                self._give_up(error)
                raise
            with self._claiming:
                self._journal.note_synced(length)
            if time.monotonic() - self._journal_synced > _JOURNAL_SECONDS:
                self._journal.sync()
                self._journal_synced = time.monotonic()
            with self._lock:
                self._on_disk = right

    def _right(self) -> RangeSet:
        """Return the bytes that were written and may be claimed."""
        right = self._have.copy()
        if self.claim_below is not None:
            right.remove(self.claim_below, 2**63)
        return right

    def _give_up(self, error: OSError) -> None:
        """Give up the bytes that no earlier sync confirmed, after one failed. Raises `OSError`."""
        with self._claiming:
            self._sync_error = error
            with self._lock:
                self._have = self._on_disk.copy()
                self._claimed = self._on_disk.copy()
            self._journal.note_lost()

    def rewind(self, identity: Identity) -> int:
        """Discard everything and begin anew as ``identity``; returns how many bytes that were. Raises `OSError`."""
        with self._syncing, self._claiming, self._lock:
            lost = self._have.total
            os.ftruncate(self.fd, 0)
            self._journal.close()
            self._journal = Journal.create(self.folder / "journal", identity)
            self._have = RangeSet()
            self._claimed = RangeSet()
            self._on_disk = RangeSet()
            self.claim_below = self._length = None
            self.was_cut = False
            self.validators = {}
            return lost

    def seal(self, size: int) -> bool:
        """Give the file of ``size`` bytes its final length. Returns whether no other program cut, extended or emptied
        it: it has no holes. (On a file system that stores zeros as holes this may be False for an intact file.) Raises
        `OSError`."""
        length = os.fstat(self.fd).st_size
        self.was_cut = self.was_cut or length <= size
        is_as_written = not self.was_cut and length == size + 1
        is_as_written = is_as_written and (not size or os.lseek(self.fd, 0, os.SEEK_HOLE) >= size)
        os.ftruncate(self.fd, size)
        self._length = size
        self._is_sealed = True
        return is_as_written

    def publish(self, entry: EntryAt) -> os.stat_result | None:
        """Sync the bytes, give them their final name, remove the journal; returns what `publish.publish` returns.

        Raises `Busy` if another process took this partial over, `StorageError` if it is gone, `FileExistsError` if the
        entry is to be new and something is there, `OSError`.
        """
        with self._syncing:
            assert self._length is None or self._is_sealed, "it is a byte longer than the file"
            if self._sync_error:
                raise self._sync_error  # the system reports lost bytes once, and then calls the rest synced
            sync(self.fd)
            status = os.fstat(self.fd)
            data = self.folder / "data"
            try:
                is_mine = os.path.samestat(data.lstat(), status)
            except (FileNotFoundError, NotADirectoryError):
                is_mine = False
            if not is_mine and status.st_nlink and self.folder.parent.exists():
                raise _taken_over()
            if not is_mine:
                hint = "another program removed or moved it during the download; run the same command again"
                raise StorageError(f"{self.folder} does not exist any more", hint=hint)
            copied = publish.publish(data, entry)
            self.close()
            self.discard()
            return copied

    def discard(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def close(self) -> None:
        """Close the files, once: a descriptor is gone even if closing it fails. Raises `OSError`."""
        with self._syncing, self._claiming:
            fd = self.fd
            self.fd = -1
            try:
                self._journal.close()
            finally:
                if fd >= 0:
                    unlock_and_close(fd)


class OrderedPartial(Partial):
    """An open partial on a mount that takes writes in order alone, as those of buckets do: one open file from the first
    byte to the last, then its name. What breaks starts anew. Nothing of it is claimed: its journal only says which file
    it is of, and is written whole. (ADR 52)"""

    is_in_order = True

    def __init__(self, folder: Path, fd: int, journal: Journal, identity: Identity) -> None:
        super().__init__(folder, fd, journal, Record(identity))
        self._is_published = False
        self._hash_next: Callable[[memoryview | bytes], None] | None = None

    def hash_with(self, feed: Callable[[memoryview | bytes], None]) -> None:
        """Have ``feed`` hash what is written from now on: that cannot be read back before the file is closed."""
        self._hash_next = feed

    @classmethod
    def open(cls, partials: Path, key: str, identity: Identity) -> OrderedPartial:
        """Begin anew. Raises as `Partial.open` does, and `StorageError` if the mount does not take this either."""
        make_private_dir(partials)
        mine = partials / f"{key}.{ProcessId.current()}"
        discard_leftovers(partials, key)
        make_private_dir(mine)
        with _told_if_refused("new files", mine):
            journal = Journal.create(mine / "journal", identity)
            journal.close()
            return cls(mine, _new_file(mine), journal, identity)

    @property
    def unsynced(self) -> int:
        return 0

    def claim(self) -> None:
        """Nothing is claimed."""

    def sync(self) -> None:
        """It is synced when it is sealed."""

    def set_length(self, size: int) -> None:
        """The file grows as it is written."""

    def note_validator(self, origin: str, validator: str) -> None:
        self.validators.setdefault(origin, validator)

    def write(self, offset: int, data: memoryview | bytes) -> None:
        if offset != self.total:
            raise StorageError("the bytes came in another order than this mount takes them", hint=_LOCAL)
        with _told_if_refused("writes, not even in order", self.folder):
            write_all(self.fd, data)
        self.mark_present(ByteRange(offset, offset + len(data)))
        if self._hash_next:
            self._hash_next(data)

    def rewind(self, identity: Identity) -> int:
        lost = self.total
        self._close_data()
        (self.folder / "data").unlink(missing_ok=True)
        with _told_if_refused("new files", self.folder):
            self.fd = _new_file(self.folder)
        self._have = RangeSet()
        self.validators = {}
        return lost

    def seal(self, size: int) -> bool:
        """Close the file, which may be what brings it to the bucket, and open it for reading."""
        with _told_if_refused("a file that is closed and read", self.folder):
            sync(self.fd)
            self._close_data()
            self.fd = os.open(self.folder / "data", _READ)
        try_lock(self.fd)
        return os.fstat(self.fd).st_size == size

    def publish(self, entry: EntryAt) -> os.stat_result | None:
        """As `Partial.publish`; returns the status of the file under its name, as the mount may give it another
        time."""
        self._is_published = True
        try:
            with _told_if_refused("a file that is renamed", self.folder):
                super().publish(entry)
        except BaseException:
            self._is_published = False
            raise
        return entry.stat()

    def close(self) -> None:
        """Close the file, once. It cannot be gone on with, so it goes."""
        try:
            self._close_data()
        finally:
            if not self._is_published:
                self.discard()

    def _close_data(self) -> None:
        fd = self.fd
        self.fd = -1
        if fd >= 0:
            unlock_and_close(fd)


def _open_and_lock(data: Path, *, is_new: bool) -> int:
    """Open a partial's data, or an empty file in its place if it is new or another user could write it. (That others
    may write the file once it is published is no harm: they cannot enter its folder.) Lock it, as a sign that its owner
    is alive. Raises `Busy` if another process took it over meanwhile, `OSError`."""
    fd = -1
    if not is_new:
        with contextlib.suppress(Unsafe):
            fd = open_own(data, os.O_RDWR | os.O_CREAT, 0o666, may_be_shared=True)
    if fd < 0:
        fd = open_new(data, os.O_RDWR, 0o666)
    try_lock(fd)
    with contextlib.suppress(OSError):
        if os.path.samestat(data.lstat(), os.fstat(fd)):
            return fd
    unlock_and_close(fd)
    raise _taken_over()


def _taken_over() -> Busy:
    return Busy("another mdl took this download over", hint="let it finish, or run the same command again")


def _why_not(record: Record, new: Identity) -> str:
    old = record.identity
    if new.size is not None and record.have.end > new.size:
        return f"the server's file has {new.size} bytes, and {record.have.end} had come"
    if old.size != new.size:
        return f"the server's file has {new.size} bytes now; it had {old.size}"
    if old.digest != new.digest:
        return "the server's file has another digest now"
    if new.digest is None and (old.validator is None or new.validator is None):
        return "without a digest or a strong validator, mdl cannot see whether it is still the same file"
    return "the server's file has changed"


def _new_file(folder: Path) -> int:
    fd = open_new(folder / "data", os.O_WRONLY, 0o666)
    try_lock(fd)
    return fd


@contextlib.contextmanager
def _told_if_refused(what: str, folder: Path) -> Iterator[None]:
    """Raises `StorageError`, which says that the mount does not take ``what``, for an `OSError` that means this."""
    try:
        yield
    except OSError as error:
        if not refuses_order(error) or isinstance(error, FileExistsError):
            raise
        why = f"this mount does not take {what}: {error.strerror or errno.errorcode.get(error.errno or 0)}"
        raise StorageError(why, item=str(folder), hint=_LOCAL) from error
