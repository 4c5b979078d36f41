"""Writer: a selection becomes one zip, streamed: nothing is ever sought, so a pipe and a file get the same bytes.

Members are ordered by name and have fixed times, so that two packs of one tree are the same bytes. The sizes and the
CRC of a member larger than a megabyte follow its data; the manifest comes last.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from types import TracebackType

from mdl.archive import records
from mdl.archive.compression import END_OF_PIECES, Compression, choose_method, crc32, deflated, deflated_piece
from mdl.archive.manifest import NAME, Manifest, ManifestEntry, Skipped
from mdl.archive.records import DEFLATED, STORED, Record
from mdl.archive.selection import Member, Selection
from mdl.archive.streaming import BackgroundHash, BackgroundSync, Progress
from mdl.errors import ProtocolError, storage_error
from mdl.files import Stamp
from mdl.trainers.tree import Entry, changed_error

_BLOCK = 2**20
_LAG = 3
"""Blocks that are being deflated at a time."""
_DEFLATERS = min(_LAG, os.cpu_count() or 1)
_WHEN_FULL = "free some space, or pack to another disk with -o; nothing was left behind"


class ArchiveSink:
    """Takes the bytes of an archive to the open file ``fd``, called ``name`` in messages, and never seeks.

    With ``sync``, what was written is synced on the way, so that little is left for the last fsync. With ``digest``,
    the SHA-256 of the whole is made on the way. ``at`` counts the bytes.
    """

    def __init__(self, fd: int, name: str, *, sync: bool = False, digest: bool = False) -> None:
        self._fd, self._name, self.at = fd, name, 0
        self._stack = ExitStack()
        self._hash = BackgroundHash(self._stack.enter_context(ThreadPoolExecutor(1, "mdl-digest"))) if digest else None
        self._sync = self._stack.enter_context(BackgroundSync(1)) if sync else None

    @property
    def sha256(self) -> str | None:
        """The digest of all that was written, if it was asked for."""
        return self._hash.hexdigest() if self._hash else None

    def write(self, data: bytes | memoryview) -> None:
        """Write ``data``, whose bytes must not change before the next call.

        Raises `StorageError`, and `BrokenPipeError` if the reader of a pipe is gone.
        """
        view = memoryview(data)
        self.at += len(view)
        if self._hash:
            self._hash.update(view)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
            if self._sync:
                self._sync.wrote(self._fd, len(data))
        except BrokenPipeError:
            raise
        except OSError as error:
            raise storage_error(error, self._name, _WHEN_FULL) from error

    def __enter__(self) -> ArchiveSink:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Waits for hashing and syncing. Raises `StorageError` if a sync failed."""
        try:
            self._stack.__exit__(kind, error, at)
        except OSError as failed:
            raise storage_error(failed, self._name, _WHEN_FULL) from failed


def write_archive(
    selection: Selection,
    sink: ArchiveSink,
    progress: Progress,
    *,
    compress: Compression = "auto",
    allow_changing: bool = False,
) -> Manifest:
    """Write every member, the manifest and the directory; returns the manifest.

    Raises `ProtocolError` for a file that changed while it was read (unless ``allow_changing``), `StorageError`,
    `BrokenPipeError`.
    """
    with ThreadPoolExecutor(1, "mdl-hash") as hashers, ThreadPoolExecutor(_DEFLATERS, "mdl-pack") as deflaters:
        return _Writer(selection, sink, progress, compress, allow_changing, hashers, deflaters).write()


class _Writer:
    """One archive being written."""

    def __init__(
        self,
        selection: Selection,
        sink: ArchiveSink,
        progress: Progress,
        compress: Compression,
        allow_changing: bool,
        hashers: ThreadPoolExecutor,
        deflaters: ThreadPoolExecutor,
    ) -> None:
        self._selection, self._out, self._progress, self._compress = selection, sink, progress, compress
        self._allow_changing, self._hashers, self._deflaters = allow_changing, hashers, deflaters
        self._buffers = [bytearray(_BLOCK) for _ in range(_LAG + 2)]
        self._directory, self._count = bytearray(), 0
        self._entries: list[ManifestEntry] = []
        self._changed: list[str] = []
        self._gone: list[Skipped] = []

    def write(self) -> Manifest:
        for member in self._selection.members:
            if member.entry is None:
                self._write_whole(Record(f"{member.path}/", STORED, self._out.at), b"")
            else:
                self._file(member, member.entry)
        self._look_again()
        manifest = replace(
            self._selection.manifest,
            files=tuple(self._entries),
            changed=tuple(self._changed),
            skipped=(*self._selection.skipped, *self._gone),
        )
        self._small(NAME, manifest.to_json(), executable=False)
        at = self._out.at
        self._out.write(bytes(self._directory))
        self._out.write(records.end_records(self._count, len(self._directory), at))
        return manifest

    def _file(self, member: Member, entry: Entry) -> None:
        name = member.path.text
        try:
            fd = self._selection.tree.open(entry, strict=not self._allow_changing)
        except ProtocolError:
            if not self._allow_changing:
                raise
            self._gone.append(Skipped(name, "it went away while the archive was written"))
            return
        try:
            size = os.fstat(fd).st_size
            if size <= _BLOCK:
                data = b"".join(bytes(block) for block in self._blocks(fd, size))
                self._small(name, data, executable=entry.is_executable)
                self._entries.append(ManifestEntry(name, len(data), hashlib.sha256(data).hexdigest()))
                self._progress.add(len(data), name)
            else:
                self._large(name, fd, size, executable=entry.is_executable)
            if Stamp.of(os.fstat(fd)) != entry.stamp or self._entries[-1].size != size:
                self._note_change(entry, name)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise storage_error(error, entry.path) from error
        finally:
            os.close(fd)

    def _blocks(self, fd: int, size: int) -> Iterator[memoryview]:
        """The first ``size`` bytes of a file; the bytes of a block stay until ``_LAG`` more were asked for."""
        at = turn = 0
        while at < size:
            view = memoryview(self._buffers[turn])[: size - at]
            view = view[: os.preadv(fd, [view], at)]
            if not view:
                return
            at, turn = at + len(view), (turn + 1) % len(self._buffers)
            yield view

    def _small(self, name: str, data: bytes, *, executable: bool) -> None:
        """A member that is in memory: its sizes stand before it."""
        method = choose_method(self._compress, len(data), lambda at, count: data[at : at + count])
        body = deflated(data) if method == DEFLATED else data
        crc = crc32(data)
        self._write_whole(Record(name, method, self._out.at, len(body), len(data), crc, executable=executable), body)

    def _write_whole(self, record: Record, body: bytes) -> None:
        self._out.write(records.local_header(record))
        self._out.write(body)
        self._list(record)

    def _large(self, name: str, fd: int, size: int, *, executable: bool) -> None:
        """A member that is streamed: stored as it comes, or deflated in pieces on every core; its sizes follow it."""
        method = choose_method(self._compress, size, lambda at, count: os.pread(fd, count, at))
        large = records.may_be_large(size)
        record = Record(name, method, self._out.at, deferred=True, large=large, executable=executable)
        self._out.write(records.local_header(record))
        start, count, crc, sha256 = self._out.at, 0, 0, BackgroundHash(self._hashers)
        pieces: deque[Future[bytes]] = deque()
        for block in self._blocks(fd, size):
            sha256.update(block)
            count, crc = count + len(block), crc32(block, crc)
            if method == STORED:
                self._out.write(block)
            else:
                pieces.append(self._deflaters.submit(deflated_piece, block))
            if len(pieces) == _LAG:
                self._out.write(pieces.popleft().result())
            self._progress.add(len(block), name)
        for piece in pieces:
            self._out.write(piece.result())
        if method == DEFLATED:
            self._out.write(END_OF_PIECES)
        record = replace(record, packed=self._out.at - start, size=count, crc=crc)
        self._out.write(records.descriptor(record))
        self._list(record)
        self._entries.append(ManifestEntry(name, count, sha256.hexdigest()))

    def _list(self, record: Record) -> None:
        self._directory += records.central_header(record)
        self._count += 1

    def _note_change(self, entry: Entry, name: str) -> None:
        if not self._allow_changing:
            raise changed_error(entry)
        if name not in self._changed:
            self._changed.append(name)

    def _look_again(self) -> None:
        """A file that changed after it was read would make an archive of no one moment."""
        gone = {one.path for one in self._gone}
        for member in self._selection.members:
            is_there = member.entry is not None and member.path.text not in gone
            if member.entry and is_there and not self._selection.tree.is_unchanged(member.entry):
                self._note_change(member.entry, member.path.text)
