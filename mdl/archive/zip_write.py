"""Writer: a selection becomes one zip, streamed: nothing is ever sought, so a pipe and a file get the same bytes.

Members are ordered by name and have fixed times, so that two packs of one tree are the same bytes. The sizes and the
CRC of a member larger than a megabyte follow its data; the manifest comes last.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace

from mdl.archive import zip_records
from mdl.archive.manifest import NAME, Manifest, ManifestEntry, Skipped
from mdl.archive.select import Member, Selection
from mdl.archive.streaming import BackgroundHash, BackgroundSync, Progress
from mdl.archive.zip_records import DEFLATED, STORED, Compression, Record
from mdl.disk import write_all
from mdl.disk.pool import Pool
from mdl.errors import ProtocolError, storage_error, storage_trouble
from mdl.runs.tree import Entry

_BLOCK = 2**20
_SMALL = 256 * 1024
"""Pieces below so many bytes are written together."""
_LAG = 3
"""Blocks that are being deflated at a time."""
_DEFLATERS = min(_LAG, os.cpu_count() or 1)


class ArchiveSink(ExitStack):
    """Takes the bytes of an archive to the open file ``fd``, and never seeks.

    With ``sync``, what was written is synced on the way, so that little is left for the last fsync. With ``digest``,
    the SHA-256 of the whole is made on the way. ``at`` counts the bytes. Small pieces are written together. Leaving the
    context writes the last of them, waits for hashing and syncing, and raises the `OSError` of what failed.
    """

    def __init__(self, fd: int, *, sync: bool = False, digest: bool = False) -> None:
        super().__init__()
        self._fd = fd
        self.at = 0
        self._hash = BackgroundHash(self.enter_context(Pool(1, "mdl-digest"))) if digest else None
        self._sync = self.enter_context(BackgroundSync(1)) if sync else None
        self._small = bytearray()
        self.push(lambda kind, _error, _trace: None if kind else self._flush())

    @property
    def sha256(self) -> str | None:
        """The digest of all that was written, if it was asked for."""
        return self._hash.hexdigest() if self._hash else None

    def write(self, data: bytes | memoryview) -> None:
        """Write ``data``, whose bytes must not change before the next call. Raises `OSError`."""
        if self._hash:
            self._hash.wait()  # this call frees the bytes of the one before, also if its own bytes are kept for later
        self.at += len(data)
        if len(data) >= _SMALL:
            self._flush()
            self._put(data)
            return
        self._small += data
        if len(self._small) >= _SMALL:
            self._flush()

    def _flush(self) -> None:
        """Write the small pieces that wait for each other."""
        pieces = self._small
        self._small = bytearray()
        if pieces:
            self._put(pieces)

    def _put(self, data: bytes | bytearray | memoryview) -> None:
        view = memoryview(data)
        if self._hash:
            self._hash.update(view)
        write_all(self._fd, view)
        if self._sync:
            self._sync.wrote(self._fd, len(data))


def write_archive(
    selection: Selection,
    sink: ArchiveSink,
    progress: Progress,
    *,
    compress: Compression = "auto",
    allow_changing: bool = False,
) -> Manifest:
    """Write every member, the manifest and the directory; returns the manifest.

    Raises `ProtocolError` for a file that changed while it was read (unless ``allow_changing``), `StorageError` for one
    that cannot be read, and the `OSError` of the sink.
    """
    with Pool(1, "mdl-hash") as hashers, Pool(_DEFLATERS, "mdl-pack") as deflaters:
        return _Writer(selection, sink, progress, compress, allow_changing, hashers, deflaters).write()


@dataclass
class _Writer:
    """One archive being written."""

    selection: Selection
    out: ArchiveSink
    progress: Progress
    compress: Compression
    allow_changing: bool
    hashers: Pool
    deflaters: Pool
    directory: bytearray = field(default_factory=bytearray)
    count: int = 0
    entries: list[ManifestEntry] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    gone: list[Skipped] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._buffers = [bytearray(_BLOCK) for _ in range(_LAG + 2)]

    def write(self) -> Manifest:
        for member in self.selection.members:
            if member.is_folder:
                self._write_whole(Record(f"{member.path}/", STORED, self.out.at), b"")
            else:
                self._file(member, member.entry)
        self._look_again()
        manifest = replace(
            self.selection.manifest,
            files=tuple(self.entries),
            changed=tuple(self.changed),
            skipped=(*self.selection.skipped, *self.gone),
        )
        self._small(NAME, manifest.to_json(), executable=False)
        at = self.out.at
        self.out.write(bytes(self.directory))
        self.out.write(zip_records.end_records(self.count, len(self.directory), at))
        return manifest

    def _file(self, member: Member, entry: Entry) -> None:
        name = member.path.text
        try:
            fd, size = self.selection.tree.open(entry, strict=not self.allow_changing)
        except OSError as error:
            raise storage_error(error, entry.path, "") from error
        except ProtocolError:
            if not self.allow_changing:
                raise
            self.gone.append(Skipped(name, "it went away while the archive was written"))
            return
        try:
            if size <= _BLOCK:
                data = b"".join(map(bytes, self._blocks(entry, fd, size)))
                self._small(name, data, executable=entry.is_executable)
                self.entries.append(ManifestEntry(name, len(data), hashlib.sha256(data).hexdigest()))
                self.progress.add(len(data), name)
            else:
                self._large(entry, name, fd, size)
            if self.entries[-1].size != size or not entry.is_same_as(os.fstat(fd)):
                self._note_change(entry, name)
        finally:
            os.close(fd)

    def _blocks(self, entry: Entry, fd: int, size: int) -> Iterator[memoryview]:
        """The first ``size`` bytes of a file; the bytes of a block stay until ``_LAG`` more were asked for."""
        at = turn = 0
        while at < size:
            view = memoryview(self._buffers[turn])[: size - at]
            with _reading(entry):
                view = view[: os.preadv(fd, [view], at)]
            if not view:
                return
            at = at + len(view)
            turn = (turn + 1) % len(self._buffers)
            yield view

    def _small(self, name: str, data: bytes, *, executable: bool) -> None:
        """A member that is in memory: its sizes stand before it."""
        method, body = zip_records.compressed(self.compress, data)
        crc = zip_records.crc32(data)
        self._write_whole(Record(name, method, self.out.at, len(body), len(data), crc, executable=executable), body)

    def _write_whole(self, record: Record, body: bytes) -> None:
        self.out.write(zip_records.local_header(record) + body)
        self._list(record)

    def _large(self, entry: Entry, name: str, fd: int, size: int) -> None:
        """A member that is streamed: stored as it comes, or deflated in pieces on every core; its sizes follow it."""
        with _reading(entry):
            method = zip_records.choose_method(self.compress, size, lambda at, count: os.pread(fd, count, at))
        large = zip_records.may_be_large(size)
        record = Record(name, method, self.out.at, deferred=True, large=large, executable=entry.is_executable)
        self.out.write(zip_records.local_header(record))
        start = self.out.at
        count = 0
        crc = 0
        sha256 = BackgroundHash(self.hashers)
        pieces: deque[Future[bytes]] = deque()
        for block in self._blocks(entry, fd, size):
            sha256.update(block)
            count = count + len(block)
            crc = zip_records.crc32(block, crc)
            if method == STORED:
                self.out.write(block)
            else:
                pieces.append(self.deflaters.submit(zip_records.deflated_piece, block))
            if len(pieces) == _LAG:
                self.out.write(pieces.popleft().result())
            self.progress.add(len(block), name)
        for piece in pieces:
            self.out.write(piece.result())
        if method == DEFLATED:
            self.out.write(zip_records.END_OF_PIECES)
        record = replace(record, packed=self.out.at - start, size=count, crc=crc)
        self.out.write(zip_records.descriptor(record))
        self._list(record)
        self.entries.append(ManifestEntry(name, count, sha256.hexdigest()))

    def _list(self, record: Record) -> None:
        self.directory += zip_records.central_header(record)
        self.count += 1

    def _note_change(self, entry: Entry, name: str) -> None:
        if not self.allow_changing:
            raise self.selection.tree.change_of(entry)
        if name not in self.changed:
            self.changed.append(name)

    def _look_again(self) -> None:
        """An archive holds the run as it was at one moment, so no file may change after it was read either."""
        gone = {entry.path for entry in self.gone}
        for member in self.selection.members:
            if member.is_folder or member.path.text in gone:
                continue
            if not self.selection.tree.is_unchanged(member.entry):
                self._note_change(member.entry, member.path.text)


def _reading(entry: Entry) -> AbstractContextManager[None]:
    """Trouble in this context is trouble with reading that file, not with the archive."""
    return storage_trouble(entry.path, "")
