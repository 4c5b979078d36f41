"""Partial: one hidden, sparse, unfinished file and its journal, in a folder of their own.

The folder's name is ``<key>.<owner>``; whoever goes on with the leftover of a dead process renames the folder, so that
two processes never write one partial. If the owner cannot be seen from here, and no lock proves that it is dead, what
it left is copied: were it alive and went on, or began its file anew, it would do so in a file that nobody else uses.
Bytes first, then the sync, then the claim.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from mdl.cancel import Cancel
from mdl.engine import journal as journals
from mdl.engine.journal import Identity, Journal, Record
from mdl.errors import Busy, MdlError, StorageError, Unsafe
from mdl.fs import copying, staging
from mdl.fs.entries import EntryAt
from mdl.fs.private import is_own_folder, make_private_dir, open_new, open_own
from mdl.http.pipe import Piped, write_at
from mdl.http.ranges import ByteRange, RangeSet
from mdl.locks import has_reliable_locks, may_be_alive, try_lock
from mdl.process import ProcessId

_JOURNAL_SECONDS = 1.0
"""How often a journal's claims are made to survive a power cut; a kill costs no claim anyway."""
_LOOK_SECONDS = 0.2


class Partial:
    """An open partial. What is written is here; what of it the journal claims is synced too."""

    def __init__(self, folder: Path, identity: Identity, fd: int, journal: Journal, have: RangeSet) -> None:
        self.folder, self.identity, self.fd = folder, identity, fd
        self._journal, self._have, self._claimed = journal, have, have.copy()
        self._lock = threading.Lock()
        self._syncing = threading.RLock()
        self._journal_synced = time.monotonic()
        self.validators: dict[str, str] = {}
        self.claim_below: int | None = None
        self._length: int | None = None
        self._is_locked = False
        self._sync_error: OSError | None = None
        self.is_meddled = False
        """Somebody else cut the file while it was written."""
        self.dropped, self.dropped_why = 0, ""

    @classmethod
    def open(cls, partials: Path, key: str, identity: Identity) -> Partial:
        """Go on with the best leftover of ``key``, or begin. What could not be used is told in ``dropped``.

        Raises `Busy` where a living process is at work on it, `StateError`, `OSError`.
        """
        make_private_dir(partials)
        mine = partials / f"{key}.{ProcessId.current()!s}"
        _adopt(partials, key, mine, identity)
        make_private_dir(mine)
        record, data = journals.load(mine / "journal"), mine / "data"
        lost = record.have.total if record else _blocks(data)
        is_resumed = record is not None and record.resumable_as(identity)
        fd = _locked(data, _reopened(data) if is_resumed else open_new(data, os.O_RDWR, 0o666))
        try:
            if record and is_resumed:
                return cls._resumed(mine, identity, fd, record)
            partial = cls(mine, identity, fd, Journal.create(mine / "journal", identity), RangeSet())
        except BaseException:
            os.close(fd)
            raise
        partial.dropped = lost
        partial.dropped_why = _why_not(record, identity) if record else "its journal is damaged, or not this user's"
        return partial

    @classmethod
    def _resumed(cls, folder: Path, identity: Identity, fd: int, record: Record) -> Partial:
        """Go on with what the journal claims and the file holds."""
        path, have, claimed = folder / "journal", record.have, record.have.total
        have.remove(os.fstat(fd).st_size, 2**63)
        cut = claimed - have.total
        is_anew = cut > 0 or path.stat().st_size > journals.LARGEST // 2
        journal = Journal.create(path, identity) if is_anew else Journal.reopen(path)
        if is_anew:
            journal.claim(have)
        partial = cls(folder, identity, fd, journal, have)
        for origin, validator in record.validators.items():
            if is_anew:
                journal.note_validator(origin, validator)
            partial.validators[origin] = validator
        partial.dropped, partial.dropped_why = cut, "the partial file is shorter than its journal says" if cut else ""
        return partial

    @property
    def front(self) -> int:
        """Bytes written without a gap from the start."""
        with self._lock:
            return self._have.front

    @property
    def total(self) -> int:
        with self._lock:
            return self._have.total

    @property
    def unclaimed(self) -> int:
        """Bytes written that the journal does not claim yet."""
        with self._lock:
            return self._have.total - self._claimed.total

    def gaps(self, size: int) -> list[ByteRange]:
        with self._lock:
            return self._have.gaps(size)

    def stretch(self, size: int) -> None:
        """Give the sparse file its final length."""
        os.ftruncate(self.fd, size)
        self._length = size

    def write(self, offset: int, data: memoryview | bytes | Piped) -> None:
        """Put bytes at ``offset``. Raises `OSError`."""
        if self._length is not None and os.fstat(self.fd).st_size < self._length:
            self.is_meddled = True
        if isinstance(data, Piped):
            data.pour(self.fd, offset)
        else:
            write_at(self.fd, offset, data)
        with self._lock:
            self._have.add(offset, offset + len(data))

    def forget(self, lost: ByteRange) -> None:
        """These bytes turned out wrong; they are missing from now on."""
        with self._lock:
            self._have.remove(lost.start, lost.stop)

    def believe(self, found: ByteRange) -> None:
        """These bytes were put here by other means and are right."""
        with self._lock:
            self._have.add(found.start, found.stop)

    def note_validator(self, origin: str, validator: str) -> None:
        if self.validators.setdefault(origin, validator) == validator:
            self._journal.note_validator(origin, validator)

    def checkpoint(self) -> None:
        """Sync what was written, then claim it. Raises `OSError`: then the unclaimed bytes count as lost."""
        with self._syncing:
            with self._lock:
                new = self._claimable()
            if not new or self.fd < 0:
                return
            if not self._is_locked:  # an earlier download in this process may not have let go of it at once
                self._is_locked = try_lock(self.fd, patience=0.0) is not False
            try:
                os.fdatasync(self.fd)
            except OSError as error:
                self._sync_error = error
                with self._lock:
                    self._have = self._claimed.copy()
                raise
            self._journal.claim(new)
            if time.monotonic() - self._journal_synced > _JOURNAL_SECONDS:
                self._journal.sync()
                self._journal_synced = time.monotonic()
            with self._lock:
                for item in new:
                    self._claimed.add(item.start, item.stop)

    def _claimable(self) -> list[ByteRange]:
        """Written and not claimed yet; below ``claim_below`` where that is set."""
        have = self._have.copy()
        if self.claim_below is not None:
            have.remove(self.claim_below, 2**63)
        return have.without(self._claimed)

    def rewind(self, identity: Identity) -> int:
        """Throw everything away and begin anew as ``identity``; tells how many bytes that were."""
        with self._syncing, self._lock:
            lost = self._have.total
            os.ftruncate(self.fd, 0)
            self._journal.close()
            self._journal = Journal.create(self.folder / "journal", identity)
            self._have, self._claimed = RangeSet(), RangeSet()
            self.claim_below = self._length = None
            self.is_meddled = False
            self.identity, self.validators = identity, {}
            return lost

    def is_as_written(self, size: int) -> bool:
        """Nobody cut, lengthened or emptied the file of ``size`` bytes while it was written: it has no holes. (A file
        system that stores zeros as holes makes this False of a right file.) Raises `OSError`."""
        if self.is_meddled or os.fstat(self.fd).st_size != size:
            return False
        return not size or os.lseek(self.fd, 0, os.SEEK_HOLE) == size

    def status(self) -> os.stat_result:
        """Of the open file. Raises `OSError`."""
        return os.fstat(self.fd)

    def publish(self, spot: EntryAt) -> os.stat_result | None:
        """Sync the bytes, give them their final name, forget the journal; returns what `staging.publish` does.

        Raises `Busy` where another process took this partial over, `StorageError` where it is gone,
        `FileExistsError` where the spot is to be new and is taken, `OSError`.
        """
        with self._syncing:
            if self._sync_error:
                raise self._sync_error  # the system tells once what it lost, and then calls the rest synced
            os.fsync(self.fd)
            status, data = os.fstat(self.fd), self.folder / "data"
            try:
                is_mine = os.path.samestat(data.lstat(), status)
            except (FileNotFoundError, NotADirectoryError):
                is_mine = False
            if not is_mine:
                raise self._lost(status)
            copied = staging.publish(data, spot)
            self.close()
            self.discard()
            return copied

    def _lost(self, status: os.stat_result) -> MdlError:
        """Why the open file is no longer under its name: another mdl renamed its folder, or it was removed."""
        if status.st_nlink and self.folder.parent.exists():
            return Busy("another mdl took this download over", hint="let it finish, or run the same command again")
        hint = "somebody removed or moved it while the bytes came; run the same command again"
        return StorageError(f"{self.folder} is gone", hint=hint)

    def discard(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def close(self) -> None:
        """A descriptor is gone whatever closing it says: it is closed once. Raises `OSError`."""
        with self._syncing:
            fd, self.fd = self.fd, -1
            try:
                self._journal.close()
            finally:
                if fd >= 0:
                    os.close(fd)


def _reopened(data: Path) -> int:
    """Bytes that nobody else could write, or an empty file in their place. That the file may be written by others once
    it has its name is no harm: they do not come into its folder. Raises `OSError`."""
    try:
        return open_own(data, os.O_RDWR | os.O_CREAT, 0o666, may_be_shared=True)
    except Unsafe:
        return open_new(data, os.O_RDWR, 0o666)


def _blocks(data: Path) -> int:
    """Bytes that the file takes on the disk, if it is there."""
    with contextlib.suppress(OSError):
        return data.lstat().st_blocks * 512
    return 0


def _why_not(record: Record, new: Identity) -> str:
    old = record.identity
    if new.size is not None and record.have.end > new.size:
        return f"the server's file has {new.size} bytes, and {record.have.end} had come"
    if old.size != new.size:
        return f"the server's file has {new.size} bytes now; it had {old.size}"
    if old.digest != new.digest:
        return "the server's file has another digest now"
    if new.digest is None and (old.validator is None or new.validator is None):
        return "neither a digest nor a strong validator tells whether it is still the same file"
    return "the server's file has changed"


def leftovers(partials: Path, key: str) -> list[Path]:
    """The partial folders of ``key``, whichever process of this user made them."""
    with contextlib.suppress(OSError):
        found = (entry for entry in partials.iterdir() if entry.name.startswith(f"{key}."))
        return sorted(entry for entry in found if is_own_folder(entry))
    return []


def claimed_of(partials: Path, key: str, identity: Identity) -> int:
    """How many bytes of this very file the best leftover has, without touching it."""
    return max((_worth(folder, identity) for folder in leftovers(partials, key)), default=0)


def _worth(folder: Path, identity: Identity) -> int:
    record = journals.load(folder / "journal")
    return record.have.total if record and record.resumable_as(identity) else 0


def _adopt(partials: Path, key: str, mine: Path, identity: Identity) -> None:
    """Take over what dead processes left: the one that has most of this very file. Raises `Busy`, `OSError`."""
    for folder in sorted(leftovers(partials, key), key=lambda one: _worth(one, identity), reverse=True):
        if folder == mine:
            continue
        if is_held(folder):
            raise Busy(f"{_holder(folder)} is at work on it", hint="wait for it, or stop it")
        if mine.exists():
            shutil.rmtree(folder, ignore_errors=True)
        elif _is_dead(folder):
            staging.take_over(folder, mine)
        else:
            try:
                _copy(folder, mine, identity)
            except BaseException:
                shutil.rmtree(mine, ignore_errors=True)
                raise
            shutil.rmtree(folder, ignore_errors=True)


def _copy(folder: Path, mine: Path, identity: Identity) -> None:
    """Copy what the journal of a leftover claims, if it is of this very file. Raises `OSError`.

    Its owner may be alive after all: what it cut off or began anew meanwhile is not believed.
    """
    record = journals.load(folder / "journal")
    if record is None:
        return
    make_private_dir(mine)
    try:
        source = open_own(folder / "data", os.O_RDONLY, may_be_shared=True)
    except Unsafe:
        return
    target = open_new(mine / "data", os.O_WRONLY, 0o666)
    try:
        if record.resumable_as(identity):
            for claim in record.have:
                copying.copy_range(source, target, claim.length, start=claim.start)
            os.fdatasync(target)
        length = os.fstat(source).st_size
        now = journals.load(folder / "journal")  # after the length: a file begun anew has a new journal when it grows
    finally:
        os.close(target)
        os.close(source)
    if now is None or now.identity != record.identity or record.have.without(now.have):
        (mine / "data").unlink()
        return
    record.have.remove(length, 2**63)
    journal = Journal.create(mine / "journal", record.identity)
    journal.claim(record.have)
    for origin, validator in record.validators.items():
        journal.note_validator(origin, validator)
    journal.close()


def _locked(data: Path, fd: int) -> int:
    """Lock a partial's open data, so that nobody takes its owner for dead. Raises `Busy` if somebody did all the same;
    then it is closed."""
    try_lock(fd)
    with contextlib.suppress(OSError):
        if os.path.samestat(data.lstat(), os.fstat(fd)):
            return fd
    os.close(fd)
    raise Busy("another mdl took this download over", hint="let it finish, or run the same command again")


def wait_for_owners(
    partials: Path, keys: Iterable[str], seconds: float, on_wait: Callable[[str], None], cancel: Cancel
) -> None:
    """Wait up to ``seconds`` until no other process holds a partial of these keys. ``on_wait`` is told once who."""
    until, told = time.monotonic() + seconds, False
    for key in keys:
        while held := [
            one for one in leftovers(partials, key) if _owner(one) != str(ProcessId.current()) and is_held(one)
        ]:
            if time.monotonic() >= until:
                return
            if not told:
                told = True
                on_wait(_holder(held[0]))
            cancel.wait(_LOOK_SECONDS)


def _owner(folder: Path) -> str:
    return folder.name.partition(".")[2]


def _holder(folder: Path) -> str:
    """Who holds a partial, in words."""
    where = "" if ProcessId(_owner(folder)).is_alive() else " of another machine or container"
    return f"another mdl (process {ProcessId(_owner(folder)).pid or 'unknown'}{where})"


def _is_dead(folder: Path) -> bool:
    """Of a leftover that nobody holds: whether its owner is known to be gone, not only very likely to be."""
    owner = _owner(folder)
    return ProcessId(owner).is_alive() is False or (ProcessId(owner).holds_locks and has_reliable_locks(folder))


def is_held(folder: Path) -> bool:
    """Whether a living process is at work in this folder of ``partials``, or may be."""
    owner = _owner(folder)
    alive = ProcessId(owner).is_alive()
    if alive is not None:
        return alive
    return may_be_alive(folder / "data", [folder / "journal", folder], holds_locks=ProcessId(owner).holds_locks)
