"""Tar: the headers of one, and reading one, plain or packed with gzip: it is checked to its end before it is unpacked.

What is written is ustar; a pax header comes before a member whose name or size ustar cannot hold. Read as well are
GNU's long names and large numbers, which ``tar`` writes by default. Every other kind of member is refused. `tarfile`
reads single headers here, and not whole archives: to it, one that is damaged or cut behind its first member has simply
ended (ADR 72). A tar has no directory, so its headers are read one after the other; one that is packed with gzip is
inflated for that, and again when it is unpacked. The limits are held while it is inflated.
https://pubs.opengroup.org/onlinepubs/9699919799/utilities/pax.html
"""

from __future__ import annotations

import os
import re
import stat
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mdl.archive.base import TOP, Archive, ArchiveLimits, InflatedMember, StoredMember, member_path, refuse_collisions
from mdl.archive.zip_records import INFLATE_ERRORS, new_gunzipper
from mdl.bounds import LARGEST_NOTE
from mdl.errors import ProtocolError, Unsafe, storage_error
from mdl.paths import RelPath, shown
from mdl.values import value_class
from mdl.weights.end_records import ReadableFile

BLOCK = 512
GZIP = b"\x1f\x8b\x08"
"""How a gzip stream begins: its mark, and its one method."""
END = bytes(2 * BLOCK)
"""What comes after the last member."""
_TIME = 315532800
"""1980-01-01 00:00 UTC, the time of every member, so that the same files make the same bytes."""
_AGAIN = "copy it again"
_FILES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")
"""How gzip, bzip2, xz and zstd begin."""
_RECORD = re.compile(rb"([1-9][0-9]{0,5}) ")
_KINDS = {
    tarfile.LNKTYPE: "a hard link",
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a named pipe",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
}
_AS_FILES = (
    "nothing was written; pack it again with 'tar --dereference --hard-dereference', which stores the files themselves"
)
_WAYS_OUT = {
    tarfile.LNKTYPE: _AS_FILES,
    tarfile.SYMTYPE: _AS_FILES,
    tarfile.GNUTYPE_SPARSE: "nothing was written; pack it again with tar without -S",
}
"""What those do who trust the archive."""


class ByteSource(Protocol):
    """Bytes that are read from the first to the last."""

    def read_into(self, view: memoryview) -> int:
        """Fill ``view`` as far as there are bytes; returns how many there were. Raises `StorageError`."""

    def skip(self, count: int) -> None:
        """Pass over ``count`` bytes. Raises `ProtocolError` if there are fewer."""


@value_class
class TarMember:
    """A file or folder of a tar: its path, which was checked, and its size in bytes."""

    path: RelPath
    size: int
    is_folder: bool = False
    executable: bool = False


def header(path: str, size: int) -> bytes:
    """Return what comes before the bytes of a file. They are followed by `padding`."""
    info = tarfile.TarInfo(path)
    info.size = size
    info.mtime = _TIME
    info.mode = 0o644
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8")


def padding(size: int) -> bytes:
    """The zeros after the ``size`` bytes of a file."""
    return bytes(-size % BLOCK)


class TarReader:
    """The files and folders of a tar, one after the other; a folder's path is `TOP` if it is the one that is unpacked
    into.

    Iterating raises `ProtocolError` if it is not a tar or is truncated, and `Unsafe` for an unsafe path and for links,
    devices and other members that are not files. ``path_of`` checks a name; it may raise `Unsafe`.
    """

    def __init__(self, source: ByteSource, path_of: Callable[[str], RelPath] = member_path) -> None:
        self._source = source
        self._left = 0
        self._path_of = path_of

    def __iter__(self) -> Iterator[TarMember]:
        extra: dict[str, str] = {}
        while (info := self._header()) is not None:
            if info.type in (tarfile.XHDTYPE, tarfile.XGLTYPE):
                records = _records(self._extra(info))
                if info.type == tarfile.XGLTYPE and records:
                    raise Unsafe("refused: a header for all members sets their names or sizes", item=shown(info.name))
                extra |= records
                continue
            if info.type == tarfile.GNUTYPE_LONGNAME:
                extra["path"] = self._extra(info).rstrip(b"\0").decode("utf-8", "surrogateescape")
                continue
            name = extra.get("path", info.name)
            size = int(extra.get("size", info.size))
            extra = {}
            item = shown(name)[:200]
            if info.isdir():
                if size:
                    raise ProtocolError("a folder with content", item=item)
                name = f"{name.rstrip('/')}/"
            elif info.type not in _FILES:
                what = _KINDS.get(info.type, "an unknown kind of member")
                hint = _WAYS_OUT.get(info.type)
                raise Unsafe(f"refused: it is {what}, and not a file or a folder", item=item, hint=hint)
            member = TarMember(self._path_of(name), size, info.isdir(), bool(info.mode & stat.S_IXUSR))
            self._left = size
            yield member
            self._source.skip(self._left + len(padding(size)))

    def read_into(self, view: memoryview) -> int:
        """Fill ``view`` with the next bytes of the current file; returns how many, and 0 at its end. Raises
        `ProtocolError` if the tar ends before."""
        view = view[: self._left]
        count = self._source.read_into(view) if view else 0
        if count < len(view):
            raise truncated()
        self._left -= count
        return count

    def _header(self) -> tarfile.TarInfo | None:
        """The next header; None at the end."""
        block = self._read(BLOCK)
        if not any(block):
            return None
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except (tarfile.HeaderError, ValueError) as error:
            if block.startswith(_COMPRESSED):
                hint = "unpack it first, with gunzip, unxz or the like: a bundle is a plain tar"
                raise ProtocolError("it is compressed", hint=hint) from error
            raise ProtocolError("it is not a tar, or it is damaged", hint=_AGAIN) from error
        if info.size < 0:
            raise ProtocolError("a member of it has a size below zero", item=shown(info.name)[:200])
        return info

    def _extra(self, info: tarfile.TarInfo) -> bytes:
        """Return what a header says that belongs to the next member."""
        if info.size > LARGEST_NOTE:
            raise Unsafe(f"refused: a header of {info.size:,} bytes", item=shown(info.name)[:200])
        return self._read(info.size + len(padding(info.size)))[: info.size]

    def _read(self, count: int) -> bytes:
        data = bytearray(count)
        if self._source.read_into(memoryview(data)) < count:
            raise truncated()
        return bytes(data)


def truncated() -> ProtocolError:
    """The error for a tar that lacks its end."""
    return ProtocolError("it ends too early: it is truncated, or a part of it is missing", hint=_AGAIN)


def _records(data: bytes) -> dict[str, str]:
    """The path and the size that a pax header sets; its other records say nothing about the bytes of a file. Raises
    `ProtocolError`, and `Unsafe` for what changes the meaning of the bytes."""
    records: dict[str, str] = {}
    at = 0
    while at < len(data):
        length = _RECORD.match(data, at)
        if length is None:
            raise ProtocolError("a header of it is damaged", hint=_AGAIN)
        stop = at + int(length[1])
        record = data[length.end() : stop]
        key, equals, value = record[:-1].partition(b"=")
        if stop > len(data) or not record.endswith(b"\n") or not equals:
            raise ProtocolError("a header of it is damaged", hint=_AGAIN)
        name = key.decode("utf-8", "replace")
        at = stop
        if name == "linkpath" or name.startswith("GNU.sparse"):
            raise Unsafe(f"refused: a header with {shown(name)[:40]}, and a bundle has plain files only")
        if name == "size" and not re.fullmatch(rb"[0-9]{1,18}", value):
            raise ProtocolError("a header of it has a wrong size", hint=_AGAIN)
        if name in ("path", "size"):
            records[name] = value.decode("utf-8", "surrogateescape")
    return records


# An open tar

_STEP = 2**20
_READ = 256 * 2**10


@dataclass(slots=True)
class TarEntry:
    """One member of a tar; ``data_at`` is the offset of its bytes in the tar, once that is inflated. ``packed`` is None
    if it is packed together with the others."""

    path: RelPath
    is_folder: bool
    size: int
    packed: int | None
    executable: bool
    data_at: int

    @property
    def shown(self) -> str:
        return shown(self.path.text)[:200]


class TarArchive(Archive[TarEntry]):
    """An open tar, plain or packed with gzip. ``watch`` is called with the number of bytes of each step while it is
    read for the first time."""

    def __init__(
        self, path: Path, fd: int, limits: ArchiveLimits, *, is_gzip: bool, watch: Callable[[int], None]
    ) -> None:
        self._is_gzip = is_gzip
        self._limits = limits
        self._watch = watch
        self._source = self._from_start(path, fd)
        self._last: _Ends | None = None
        if is_gzip:
            self.checked_by = "crc32"
        super().__init__(path, fd, limits)
        self._watch = lambda _count: None

    def _from_start(self, path: Path, fd: int) -> _Source:
        return _Gunzipped(path, fd, self._limits) if self._is_gzip else _Plain(path, fd)

    def _read_members(self, limits: ArchiveLimits) -> Sequence[TarEntry]:
        source = _Watched(self._source, self._watch)
        members = []
        size = 0
        for member in TarReader(source):
            packed = None if self._is_gzip else member.size
            members.append(
                TarEntry(member.path, member.is_folder, member.size, packed, member.executable, self._source.at)
            )
            limits.check_count(len(members))
            size += member.size
            limits.check_bytes(size)
        _check_end(source)
        refuse_collisions([(member.path, member.is_folder) for member in members])
        return tuple(member for member in members if member.path != TOP)

    def _blocks(self, member: TarEntry) -> Iterator[bytes]:
        if self._source.at > member.data_at:
            self._source = self._from_start(self.path, self._fd)
        self._last = _Ends(member)
        for block in _blocks_of(self._source, member):
            self._last.add(block)
            yield block

    def open(self, member: TarEntry) -> ReadableFile:
        source = self._from_start(self.path, self._fd)
        if isinstance(source, _Plain):
            return StoredMember(source.read_at, member.data_at, member.size)
        ends = _Ends(member)
        if self._last and self._last.member is member:
            ends = self._last
        return _GunzippedMember(ends, lambda: _blocks_of(self._from_start(self.path, self._fd), member))


def _blocks_of(source: _Source, member: TarEntry) -> Iterator[bytes]:
    source.skip(member.data_at - source.at)
    left = member.size
    while left:
        block = bytearray(min(left, _STEP))
        if source.read_into(memoryview(block)) < len(block):
            raise ProtocolError("the archive was cut", item=member.shown)
        left -= len(block)
        yield bytes(block)


class _Ends:
    """The first and the last bytes of a member that was read: whoever looks at its beginning and its end needs no
    more, and nothing is inflated again for that."""

    def __init__(self, member: TarEntry) -> None:
        self.member = member
        self.first = b""
        self.last = b""
        self.count = 0

    def add(self, block: bytes) -> None:
        """The next bytes of the member."""
        self.first = self.first or block
        self.last = self.last[-_STEP:] + block
        self.count += len(block)

    def part(self, at: int, count: int) -> bytes | None:
        """``count`` bytes from ``at``, if they are kept."""
        if at + count <= len(self.first):
            return self.first[at : at + count]
        start = at - (self.count - len(self.last))
        if start < 0 or self.count < self.member.size:
            return None
        return self.last[start : start + count]


class _GunzippedMember(InflatedMember):
    """The bytes of a member of a tar.gz, of which the first and the last are kept."""

    def __init__(self, ends: _Ends, blocks: Callable[[], Iterator[bytes]]) -> None:
        super().__init__(blocks)
        self._ends = ends

    def read(self, count: int, /) -> bytes:
        kept = self._ends.part(self._at, count)
        if kept is None:
            return super().read(count)
        self._at += len(kept)
        return kept


class _Source(ByteSource):
    """The bytes of a tar, from the first to the last; ``at`` of them are behind."""

    def __init__(self, path: Path, fd: int) -> None:
        self._path = path
        self._fd = fd
        self.at = 0

    def skip(self, count: int) -> None:
        buffer = memoryview(bytearray(min(count, _STEP)))
        while count:
            done = self.read_into(buffer[:count])
            if not done:
                raise truncated()
            count -= done

    def _read(self, view: memoryview, at: int) -> int:
        try:
            return os.preadv(self._fd, [view], at)
        except OSError as error:
            raise storage_error(error, str(self._path), "") from error


class _Plain(_Source):
    """The bytes of a file as they are."""

    def read_into(self, view: memoryview) -> int:
        done = 0
        while done < len(view):
            count = self._read(view[done:], self.at)
            if not count:
                break
            self.at += count
            done += count
        return done

    def skip(self, count: int) -> None:
        if self.at + count > os.fstat(self._fd).st_size:
            raise truncated()
        self.at += count

    def read_at(self, count: int, at: int) -> bytes:
        """``count`` bytes from ``at``; fewer at the end of the file. Raises `StorageError`."""
        data = bytearray(count)
        done = self._read(memoryview(data), at)
        return bytes(data[:done])


class _Gunzipped(_Source):
    """What the gzip streams in a file hold, one behind the other, with zeros behind the last as gzip allows them."""

    def __init__(self, path: Path, fd: int, limits: ArchiveLimits) -> None:
        super().__init__(path, fd)
        self._limits = limits
        self._inflater = new_gunzipper()
        self._waiting = b""
        self._read_to = 0

    def read_into(self, view: memoryview) -> int:
        done = 0
        while done < len(view):
            block = self._next_block(min(len(view) - done, _STEP))
            if not block:
                break
            view[done : done + len(block)] = block
            done += len(block)
            self.at += len(block)
            self._limits.check_ratio(self.at, self._read_to)
        return done

    def _next_block(self, most: int) -> bytes:
        """At most so many bytes; none at the end."""
        while not self._inflater.eof or self._begins_again():
            waiting = self._waiting or self._more()
            try:
                block = self._inflater.decompress(waiting, most)
            except INFLATE_ERRORS as error:
                raise ProtocolError(f"damaged: {error}") from error
            self._waiting = self._inflater.unconsumed_tail
            if block:
                return block
            if not waiting and not self._inflater.eof:
                raise truncated()
        return b""

    def _begins_again(self) -> bool:
        """Tell whether another stream follows the one that ended; it is begun."""
        behind = self._inflater.unused_data.lstrip(b"\0")
        while len(behind) < len(GZIP):
            more = self._more()
            if not more:
                break
            behind = (behind + more).lstrip(b"\0")
        if not behind:
            return False
        if not behind.startswith(GZIP):
            raise ProtocolError("data follows its end")
        self._inflater = new_gunzipper()
        self._waiting = behind
        return True

    def _more(self) -> bytes:
        data = bytearray(_READ)
        count = self._read(memoryview(data), self._read_to)
        self._read_to += count
        return bytes(data[:count])


class _Watched(ByteSource):
    """A source of bytes, of which somebody is told how many were passed."""

    def __init__(self, source: _Source, watch: Callable[[int], None]) -> None:
        self._source = source
        self._watch = watch

    def read_into(self, view: memoryview) -> int:
        count = self._source.read_into(view)
        self._watch(count)
        return count

    def skip(self, count: int) -> None:
        while count:
            step = min(count, 64 * _STEP)
            self._source.skip(step)
            self._watch(step)
            count -= step


def first_bytes(path: Path, fd: int, count: int) -> bytes:
    """The first bytes of what a gzip file holds; none if it cannot be inflated. Raises `StorageError`."""
    buffer = bytearray(count)
    try:
        done = _Gunzipped(path, fd, ArchiveLimits()).read_into(memoryview(buffer))
    except ProtocolError:
        return b""
    return bytes(buffer[:done])


def _check_end(source: ByteSource) -> None:
    """See that a second block of zeros follows the first, and nothing but zeros then. Raises `ProtocolError`."""
    buffer = bytearray(_STEP)
    count = source.read_into(memoryview(buffer))
    if count < BLOCK:
        raise truncated()
    while count:
        if any(buffer[:count]):
            raise ProtocolError("data follows its end; readers would disagree on what it holds")
        count = source.read_into(memoryview(buffer))
