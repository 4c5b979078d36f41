"""Writer: a selection to one zip, streamed: nothing is ever sought, so a pipe and a file get the same bytes.

Members are in the order of their names and bear fixed times, so that two packs of one tree are the same
bytes. Sizes and CRC of a member over a megabyte follow its data; the manifest comes last.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

from mdl.archive import records
from mdl.archive.compression import END_OF_PIECES, Mode, choose_method, crc32, deflated, deflated_piece
from mdl.archive.manifest import NAME, Line, Manifest, Skipped
from mdl.archive.meter import Meter
from mdl.archive.outlet import Outlet
from mdl.archive.reading import BLOCK, BUFFERS, LAG, Reading
from mdl.archive.records import DEFLATED, STORED, Record
from mdl.archive.selection import Member, Selection
from mdl.errors import ProtocolError, storage_error
from mdl.files import Stamp
from mdl.trainers.tree import Entry, changed

_PACKERS = min(LAG, os.cpu_count() or 1)


@dataclass(frozen=True)
class Written:
    """An archive that was written: its manifest, its size in bytes and, where it was asked for, its own digest."""

    manifest: Manifest
    bytes: int
    sha256: str | None


def write_archive(
    selection: Selection, outlet: Outlet, meter: Meter, *, mode: Mode = "auto", allow_changing: bool = False
) -> Written:
    """Write every member, the manifest and the directory. Raises `ProtocolError` for a file that changed, `OSError`."""
    with ThreadPoolExecutor(1, "mdl-hash") as hashers, ThreadPoolExecutor(_PACKERS, "mdl-pack") as packers:
        return _Writer(selection, outlet, meter, mode, allow_changing, hashers, packers).write()


class _Writer:
    """One archive being written."""

    def __init__(
        self,
        selection: Selection,
        outlet: Outlet,
        meter: Meter,
        mode: Mode,
        allow_changing: bool,
        hashers: ThreadPoolExecutor,
        packers: ThreadPoolExecutor,
    ) -> None:
        self._selection, self._out, self._meter, self._mode = selection, outlet, meter, mode
        self._allow_changing, self._hashers, self._packers = allow_changing, hashers, packers
        self._buffers = [bytearray(BLOCK) for _ in range(BUFFERS)]
        self._directory, self._count = bytearray(), 0
        self._lines: list[Line] = []
        self._changed: list[str] = []
        self._gone: list[Skipped] = []

    def write(self) -> Written:
        for member in self._selection.members:
            if member.entry is None:
                self._close(Record(f"{member.path}/", STORED, self._out.at), b"")
            else:
                self._file(member, member.entry)
        self._look_again()
        selection = self._selection
        manifest = replace(
            selection.manifest,
            files=tuple(self._lines),
            changed=tuple(self._changed),
            skipped=(*selection.skipped, *self._gone),
        )
        self._small(NAME, manifest.to_json(), executable=False)
        at = self._out.at
        self._out.write(bytes(self._directory))
        self._out.write(records.end_records(self._count, len(self._directory), at))
        return Written(manifest, self._out.at, self._out.sha256)

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
            if size <= BLOCK:
                data = self._whole(fd, size)
                self._small(name, data, executable=entry.is_executable)
                self._lines.append(Line(name, len(data), hashlib.sha256(data).hexdigest()))
                self._meter.add(len(data), name)
            else:
                self._large(name, fd, size, executable=entry.is_executable)
            if Stamp.of(os.fstat(fd)) != entry.stamp or self._lines[-1].size != size:
                self._note_change(entry, name)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise storage_error(error, entry.path) from error
        finally:
            os.close(fd)

    @staticmethod
    def _whole(fd: int, size: int) -> bytes:
        data = bytearray()
        while len(data) < size and (more := os.read(fd, size - len(data))):
            data += more
        return bytes(data)

    def _small(self, name: str, data: bytes, *, executable: bool) -> None:
        """A member that is in memory: its sizes stand before it."""
        method = choose_method(self._mode, len(data), lambda at, count: data[at : at + count])
        body = deflated(data) if method == DEFLATED else data
        crc = crc32(data)
        self._close(Record(name, method, self._out.at, len(body), len(data), crc, executable=executable), body)

    def _close(self, record: Record, body: bytes) -> None:
        self._out.write(records.local_header(record))
        self._out.write(body)
        self._list(record)

    def _large(self, name: str, fd: int, size: int, *, executable: bool) -> None:
        """A member that is streamed: its sizes follow it."""
        method = choose_method(self._mode, size, lambda at, count: os.pread(fd, count, at))
        large = records.may_be_large(size)
        record = Record(name, method, self._out.at, deferred=True, large=large, executable=executable)
        self._out.write(records.local_header(record))
        start, reading = self._out.at, Reading(fd, size, self._buffers, self._hashers)
        self._stream(reading, method, lambda count: self._meter.add(count, name))
        packed = self._out.at - start
        record = replace(record, packed=packed, size=reading.count, crc=reading.crc)
        self._out.write(records.descriptor(record))
        self._list(record)
        self._lines.append(Line(name, reading.count, reading.sha256))

    def _stream(self, reading: Reading, method: int, tell: Callable[[int], None]) -> None:
        """Stored as it comes; deflated in pieces, on every core."""
        packed: deque[Future[bytes]] = deque()
        for block in reading.blocks():
            if method == STORED:
                self._out.write(block)
            else:
                packed.append(self._packers.submit(deflated_piece, block))
            if len(packed) == LAG:
                self._out.write(packed.popleft().result())
            tell(len(block))
        for piece in packed:
            self._out.write(piece.result())
        if method == DEFLATED:
            self._out.write(END_OF_PIECES)

    def _list(self, record: Record) -> None:
        self._directory += records.central_header(record)
        self._count += 1

    def _note_change(self, entry: Entry, name: str) -> None:
        if not self._allow_changing:
            raise changed(entry)
        if name not in self._changed:
            self._changed.append(name)

    def _look_again(self) -> None:
        """The last look: whoever changed after it was read makes an archive of no one moment."""
        gone = {one.path for one in self._gone}
        for member in self._selection.members:
            if member.path.text in gone or member.entry is None:
                continue
            if not self._selection.tree.is_unchanged(member.entry):
                self._note_change(member.entry, member.path.text)
