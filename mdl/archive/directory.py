"""Directory: what a zip says it holds, read and checked in full before a byte of it is unpacked.

There must be one end record, at the end of the file, right after the directory. The members must fill, without gap or
overlap, all that is before the directory, and each local header must agree with the directory. So every reader sees
the same members. Limits refuse an archive that would unpack to too much; the room on the disk is another question.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

from mdl.archive import headers
from mdl.archive.headers import ZipEntry
from mdl.archive.member_names import TOP
from mdl.archive.zip_format import (
    CENTRAL_HEAD,
    DESCRIPTORS,
    END,
    END64,
    END64_RECORD,
    END_RECORD,
    FULL16,
    FULL32,
    LOCAL_HEAD,
    LOCATOR,
    LOCATOR_RECORD,
)
from mdl.errors import ProtocolError, Unsafe
from mdl.values import value_class

_TAIL = END_RECORD.size + FULL16
_LEAST = CENTRAL_HEAD.size
_MOST = 4096
"""Bytes that a member takes in the directory: a name has 1,024 at most, and no longer comment is needed."""
_CHUNK = 2**20
_AHEAD = 64 * 2**10
"""Bytes that are read at once if fewer than half of them are wanted."""
_NOTHING = (b"", b"\x03\x00")
"""No bytes, stored and deflated."""
_HARMLESS = 100 * 2**20
"""Bytes up to which no ratio is dangerous."""


@value_class
class ArchiveLimits:
    """How much an archive may hold before it is refused as a bomb: ``members`` in all, ``ratio`` of unpacked to packed
    bytes (above 100 MiB), and ``bytes`` unpacked (None for any number)."""

    members: int = 1_000_000
    ratio: float = 200.0
    bytes: int | None = None

    def check_count(self, count: int) -> None:
        """Raises `Unsafe` for more members than allowed."""
        if count > self.members:
            hint = "--max-members allows more, if you trust its source"
            raise Unsafe(f"{count:,} members, the limit is {self.members:,}", hint=hint)

    def check_sizes(self, members: Iterable[ZipEntry]) -> None:
        """Raises `Unsafe` if a member, or all of them, unpack to more than allowed."""
        size = packed = 0
        for member in members:
            size += member.size
            packed += member.packed
            self.check_ratio(member.size, member.packed, member.shown)
        self.check_ratio(size, packed)
        self.check_bytes(size)

    def check_bytes(self, size: int) -> None:
        """Raises `Unsafe` if ``size`` bytes, unpacked, are more than allowed."""
        if self.bytes is not None and size > self.bytes:
            what = f"it unpacks to {size:,} bytes and {self.bytes:,} are allowed by --max-size"
            raise Unsafe(what, hint="nothing was written")

    def check_ratio(self, size: int, packed: int, item: str | None = None) -> None:
        """Raises `Unsafe` if ``packed`` bytes unpack to so many more that it may be a bomb."""
        if size > _HARMLESS and size > self.ratio * max(packed, 1):
            hint = "--max-ratio allows more, if you trust its source"
            raise Unsafe(f"{packed:,} bytes unpack to {size:,}, more than {self.ratio:g} to 1", item=item, hint=hint)


@value_class
class _End:
    """Where the directory is: ``count`` members, ``size`` bytes from ``at`` on; the end records begin at ``stop``."""

    count: int
    size: int
    at: int
    stop: int


def read_directory(fd: int, limits: ArchiveLimits) -> tuple[ZipEntry, ...]:
    """Every member but the folder that is unpacked into, in the order of the data.

    Raises `ProtocolError` for damage and contradictions, `Unsafe` for what must not be unpacked, `OSError`.
    """
    length = os.fstat(fd).st_size
    end = _find_end(fd, length)
    limits.check_count(end.count)
    if end.at + end.size != end.stop:
        raise ProtocolError("its directory is not where its end record says")
    if end.size < end.count * _LEAST:
        raise ProtocolError("its directory is too short for its members")
    if end.size > end.count * _MOST:
        raise Unsafe(f"a directory of {end.size:,} bytes for {end.count:,} members")
    members = headers.parse_directory(_read(fd, end.at, end.size), end.count)
    members.sort(key=lambda one: one.header_at)
    _place(ReadAhead(fd), members, end.at)
    limits.check_sizes(members)
    return tuple(member for member in members if member.path != TOP)


class ReadAhead:
    """Reads an open archive. Small pieces that lie one behind the other are read from the system together."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._at = 0
        self._data = b""

    def read(self, at: int, count: int) -> bytes:
        """``count`` bytes from ``at``; fewer at the end of the file. Raises `OSError`."""
        if count > _AHEAD // 2:
            return os.pread(self._fd, count, at)
        start = at - self._at
        if start < 0 or start + count > len(self._data):
            self._data = os.pread(self._fd, _AHEAD, at)
            self._at = at
            start = 0
        return self._data[start : start + count]


def _read(fd: int, at: int, count: int) -> bytes:
    """Exactly ``count`` bytes from ``at``."""
    pieces = []
    left = count
    while left:
        piece = os.pread(fd, min(left, 64 * _CHUNK), at)
        if not piece:
            raise ProtocolError("the archive was cut")
        pieces.append(piece)
        at = at + len(piece)
        left = left - len(piece)
    return b"".join(pieces)


def _find_end(fd: int, length: int) -> _End:
    first = max(0, length - _TAIL)
    tail = _read(fd, first, length - first)
    at = tail.rfind(END)
    if at < 0:
        raise ProtocolError("this is not a whole zip: it has no end record")
    ends = [found.start() for found in re.finditer(re.escape(END), tail) if _ends_file(tail, found.start())]
    if ends != [at]:
        why = "data follows its end record" if not ends else "it has more than one end record"
        raise ProtocolError(f"{why}; readers would disagree on what it holds")
    _, disk, start_disk, here, count, size, begin, _ = END_RECORD.unpack_from(tail, at)
    place = first + at
    end64 = _end64(fd, place)
    if end64 is None:
        if FULL16 in (disk, start_disk, here, count) or FULL32 in (size, begin):
            raise ProtocolError("its 64-bit end record is missing")
        wide: tuple[int, ...] = (disk, start_disk, here, count, size, begin)
    else:
        wide, stop = end64
        narrow = (disk, start_disk, here, count, size, begin)
        fulls = (FULL16, FULL16, FULL16, FULL16, FULL32, FULL32)
        if any(a not in (b, full) for a, b, full in zip(narrow, wide, fulls, strict=True)):
            raise ProtocolError("its two end records contradict each other")
        place = stop
    disk, start_disk, here, count, size, begin = wide
    if disk or start_disk or here != count:
        raise Unsafe("an archive of several volumes is not unpacked", hint="join it first, e.g. with 'zip -s 0'")
    return _End(count, size, begin, place)


def _ends_file(tail: bytes, at: int) -> bool:
    """Whether an end record at ``at``, with its comment, ends exactly at the end of the file."""
    if at + END_RECORD.size > len(tail):
        return False
    comment: int = END_RECORD.unpack_from(tail, at)[-1]
    return at + END_RECORD.size + comment == len(tail)


def _end64(fd: int, end: int) -> tuple[tuple[int, ...], int] | None:
    """The 64-bit end record before the end record at ``end``, and its offset; None if there is none."""
    at = end - LOCATOR_RECORD.size
    if at < 0:
        return None
    signature, disk, begin, disks = LOCATOR_RECORD.unpack(_read(fd, at, LOCATOR_RECORD.size))
    if signature != LOCATOR:
        return None
    if disk or disks != 1:
        raise Unsafe("an archive of several volumes is not unpacked", hint="join it first, e.g. with 'zip -s 0'")
    if begin + END64_RECORD.size != at:
        raise ProtocolError("its 64-bit end record is not where it should be")
    signature, size, _, _, *wide = END64_RECORD.unpack(_read(fd, begin, END64_RECORD.size))
    if signature != END64 or size != END64_RECORD.size - 12:
        raise ProtocolError("its 64-bit end record is damaged")
    return tuple(wide), begin


def _place(archive: ReadAhead, members: list[ZipEntry], stop: int) -> None:
    """Compare every local header with the directory, see that the members fill everything up to ``stop``, and set
    where the data of each begins."""

    def read(begin: int, count: int) -> bytes:
        data = archive.read(begin, count)
        if len(data) != count:
            raise ProtocolError("the archive was cut")
        return data

    at = 0
    for member, following in zip(members, [*(one.header_at for one in members[1:]), stop], strict=False):
        if member.header_at < at:
            raise Unsafe("two members overlap", item=member.shown)
        if member.header_at > at:
            raise ProtocolError(f"{member.header_at - at} bytes before it belong to no member", item=member.shown)
        if member.header_at + LOCAL_HEAD.size > stop:
            raise ProtocolError("it lies outside the archive's data", item=member.shown)
        head = read(at, min(LOCAL_HEAD.size + len(member.raw), stop - at))
        names, extras = LOCAL_HEAD.unpack_from(head)[-2:]
        data = at + LOCAL_HEAD.size + names + extras
        if data + member.packed > stop:
            raise ProtocolError("it lies outside the archive's data", item=member.shown)
        headers.check_local_header(head if data - at == len(head) else read(at, data - at), member)
        if member.is_folder and (member.packed > 2 or read(data, member.packed) not in _NOTHING):
            raise ProtocolError("a folder with content", item=member.shown)
        member.data_at = data
        at = data + member.packed
        if member.deferred:
            room = min(following, stop) - at
            if room < 0:
                raise Unsafe("two members overlap", item=member.shown)
            if room not in DESCRIPTORS:
                raise ProtocolError("its data descriptor is missing or damaged", item=member.shown)
            headers.check_descriptor(read(at, room), member)
            at += room
    if at != stop:
        raise ProtocolError(f"{stop - at} bytes before its directory belong to no member")
