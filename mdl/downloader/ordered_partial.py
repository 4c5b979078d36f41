"""Partials on mounts that take writes in order alone, as those of buckets do: one open file from the first byte to the
last, then its name. What breaks starts anew. (ADR 52)"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from mdl.disk import refuses_order, sync, write_all
from mdl.disk.mutex import try_lock, unlock_and_close
from mdl.disk.own_files import make_private_dir, open_new
from mdl.disk.process import ProcessId
from mdl.disk.safe_open import EntryAt
from mdl.downloader.journal import Identity, Journal, Record
from mdl.downloader.partial import Partial
from mdl.downloader.partial_folders import discard_leftovers
from mdl.downloader.stream_hasher import InOrderHasher
from mdl.errors import StorageError
from mdl.net.ranges import ByteRange, RangeSet

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


class OrderedPartial(Partial):
    """An open partial that is written in order. Nothing of it is claimed: its journal only says which file it is of,
    and is written whole."""

    is_in_order = True

    def __init__(self, folder: Path, fd: int, journal: Journal, identity: Identity) -> None:
        super().__init__(folder, fd, journal, Record(identity))
        self._is_published = False
        self._hasher: InOrderHasher | None = None

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

    def hash_from_now_on(self, algorithm: str, size: int | None) -> InOrderHasher:
        """Hash what is written from now on: what was written cannot be read back before the file is closed."""
        self._hasher = InOrderHasher(self, algorithm, size)
        return self._hasher

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
        if self._hasher:
            self._hasher.feed(data)

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


_LOCAL = "take a folder on a local disk with --to, and copy what is there to the mount afterwards"
