"""Zip reading: what a zip says it holds, read and checked in full before a byte of it is unpacked.

There must be one end record, at the end of the file, right after the directory. The members must fill, without gap or
overlap, all that is before the directory, and each local header must agree with the directory. So every reader sees
the same members. Limits refuse an archive that would unpack to too much; the room on the disk is another question.
"""

from __future__ import annotations

import os
import re
import stat
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import eq
from struct import Struct

from mdl.archive.base import TOP, Archive, ArchiveLimits, InflatedMember, StoredMember, member_path, refuse_collisions
from mdl.archive.zip_records import (
    CENTRAL,
    CENTRAL_HEAD,
    DEFERRED,
    DEFLATED,
    DESCRIPTOR,
    DESCRIPTORS,
    END,
    END64,
    END64_RECORD,
    END_RECORD,
    FULL16,
    FULL32,
    INFLATE_ERRORS,
    LOCAL,
    LOCAL_HEAD,
    LOCATOR,
    LOCATOR_RECORD,
    STORED,
    UTF8,
    ZIP64_EXTRA,
    crc32,
    new_inflater,
)
from mdl.errors import DigestMismatch, ProtocolError, Unsafe, storage_error
from mdl.paths import RelPath, shown
from mdl.values import value_class
from mdl.weights.end_records import ReadableFile

_BLOCK = 2**20
_READ = 256 * 2**10

# Headers

_ENCRYPTED = (1 << 0) | (1 << 6) | (1 << 13)
_PATCHED = 1 << 5
_HARMLESS = (1 << 1) | (1 << 2) | DEFERRED | UTF8
"""Flags: how hard the deflater tried, sizes behind the data, UTF-8."""
_UNICODE_PATH = 0x7075
_UNIX_LINK = 0x000D
_ASI_UNIX = 0x756E
_BELIEVED = (ZIP64_EXTRA, _UNICODE_PATH, _UNIX_LINK, _ASI_UNIX)
"""Extra fields by which a reader learns a member's size, name or kind."""
_UNIX_PLAIN = 12
"""Bytes of PKWARE's Unix field if no target of a link follows."""
_CODE_PAGE = (
    "Windows writes such names in the code page of its language: unpack it with 'unzip -O CODEPAGE', for example"
    " CP936 or CP932, and zip it again"
)
_EXTRA_HEAD = Struct("<2H")
_TWO_SIZES = Struct("<2Q")
_WIDE_FIELDS = ((FULL32, 8), (FULL32, 8), (FULL32, 8), (FULL16, 4))
"""What size, packed size, offset and disk are if they are in the extra field, and the bytes that each has there."""
_METHODS = {
    1: "shrink",
    6: "implode",
    9: "deflate64",
    12: "bzip2",
    14: "lzma",
    20: "zstd",
    93: "zstd",
    95: "xz",
    97: "wavpack",
    98: "ppmd",
    99: "AES encryption",
}


@dataclass(slots=True)
class ZipEntry:
    """One member as the directory lists it; ``path`` is `TOP` for the folder that is unpacked into.

    ``header_at`` is the offset of its local header; ``data_at`` the offset of
    its bytes, which is set once that header was read. ``packed`` and ``size`` are bytes, compressed and not."""

    raw: bytes
    path: RelPath
    is_folder: bool
    method: int
    flags: int
    crc: int
    packed: int
    size: int
    header_at: int
    executable: bool = False
    data_at: int = -1

    @property
    def deferred(self) -> bool:
        return bool(self.flags & DEFERRED)

    @property
    def shown(self) -> str:
        return shown(self.raw.decode())[:200]


def parse_directory(data: bytes, count: int) -> list[ZipEntry]:
    """The members a directory lists. Raises `ProtocolError`, and `Unsafe` for what must not be unpacked."""
    members = []
    at = 0
    for _ in range(count):
        member, at = _parse_central(data, at)
        members.append(member)
    if at != len(data):
        raise ProtocolError("its directory holds more than its members")
    refuse_collisions([(member.path, member.is_folder) for member in members])
    return members


def check_local_header(head: bytes, member: ZipEntry) -> None:
    """Compare a member's local header with the directory. Raises `ProtocolError` if they differ."""
    signature, _, flags, method, _, _, crc, packed, size, names, extras = LOCAL_HEAD.unpack_from(head)
    if signature != LOCAL:
        raise ProtocolError("there is no local header at the offset that the directory gives", item=member.shown)
    raw = head[LOCAL_HEAD.size :][:names]
    extra = head[LOCAL_HEAD.size + names :][:extras]
    if extra:
        fields = _fields(extra, member.shown)
        wide = fields.get(ZIP64_EXTRA, b"")
        if wide:
            if len(wide) != 16 or (size, packed) != (FULL32, FULL32):
                raise ProtocolError("its 64-bit sizes are damaged", item=member.shown)
            size, packed = _TWO_SIZES.unpack(wide)
        _check_unicode_path(fields, raw, member.shown)
        _refuse_link_fields(fields, member.shown)
    sizes = [crc, packed, size]
    listed = [member.crc, member.packed, member.size]
    if member.deferred:  # the numbers are in its data descriptor; here they are 0, or are there as well
        listed = [number if there else 0 for number, there in zip(listed, sizes, strict=True)]
    if (raw, method, flags, sizes) != (member.raw, member.method, member.flags, listed):
        raise ProtocolError("its local header and the directory contradict each other", item=member.shown)


def check_descriptor(data: bytes, member: ZipEntry) -> None:
    """Compare a member's data descriptor with the directory. Raises `ProtocolError` if they differ."""
    facts = DESCRIPTORS[len(data)].unpack(data)
    if len(facts) == 4 and facts[0] != DESCRIPTOR:
        raise ProtocolError("its data descriptor is damaged", item=member.shown)
    if facts[-3:] != (member.crc, member.packed, member.size):
        raise ProtocolError("its data descriptor and the directory contradict each other", item=member.shown)


def _parse_central(data: bytes, at: int) -> tuple[ZipEntry, int]:
    if at + CENTRAL_HEAD.size > len(data) or not data.startswith(CENTRAL, at):
        raise ProtocolError("its directory is damaged")
    facts = CENTRAL_HEAD.unpack_from(data, at)
    flags, method, crc, packed, size = facts[5], facts[6], *facts[9:12]
    names, extras, comments, disk, _, external, begin = facts[12:]
    start = at + CENTRAL_HEAD.size
    stop = start + names + extras + comments
    if stop > len(data):
        raise ProtocolError("its directory is damaged")
    raw = data[start : start + names]
    extra = data[start + names : start + names + extras]
    text = _decoded(raw, flags)
    item = shown(text)[:200]
    fields = _fields(extra, item) if extra else {}
    size, packed, begin, disk = _widened(fields.get(ZIP64_EXTRA), (size, packed, begin, disk), item)
    if disk:
        raise Unsafe("an archive of several volumes is not unpacked", item=item)
    _check_unicode_path(fields, raw, item)
    is_folder = text.endswith("/")
    _refuse_kind(external >> 16, is_folder, size or crc, item)
    if fields:
        _refuse_link_fields(fields, item)
    _refuse_method(method, flags, packed, size, item)
    path = member_path(text)
    executable = bool(external >> 16 & stat.S_IXUSR)
    return ZipEntry(raw, path, is_folder, method, flags, crc, packed, size, begin, executable), stop


def _decoded(raw: bytes, flags: int) -> str:
    """A member's name. Readers disagree on a name that is not UTF-8."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        item = shown(raw.decode("latin-1"))[:200]
        if flags & UTF8:
            raise Unsafe("name refused: it claims to be UTF-8 and is not", item=item) from None
        raise Unsafe("name refused: its encoding is not declared", item=item, hint=_CODE_PAGE) from None


def _fields(extra: bytes, item: str) -> dict[int, bytes]:
    """The extra fields by their number."""
    fields: dict[int, bytes] = {}
    at = 0
    while at + 4 <= len(extra):
        number, length = _EXTRA_HEAD.unpack_from(extra, at)
        if at + 4 + length > len(extra):
            raise ProtocolError("its extra field is damaged", item=item)
        if number in fields and number in _BELIEVED:
            what = f"the extra field {number:#06x} appears twice; programs disagree on which one counts"
            raise ProtocolError(what, item=item)
        fields[number] = extra[at + 4 : at + 4 + length]
        at += 4 + length
    if any(extra[at:]):
        raise ProtocolError("its extra field is damaged", item=item)
    return fields


def _widened(wide: bytes | None, narrow: tuple[int, int, int, int], item: str) -> tuple[int, ...]:
    """Size, packed size, offset and disk, with the 64-bit value of each that is full."""
    values = []
    at = 0
    for value, (full, width) in zip(narrow, _WIDE_FIELDS, strict=True):
        if value == full:
            if wide is None:
                raise ProtocolError("its 64-bit sizes are missing", item=item)
            value = int.from_bytes(wide[at : at + width], "little")
            at += width
        values.append(value)
    if wide is not None and (at == 0 or at != len(wide)):
        raise ProtocolError("its 64-bit sizes are damaged", item=item)
    return tuple(values)


def _check_unicode_path(fields: dict[int, bytes], raw: bytes, item: str) -> None:
    """Info-ZIP's second name for a member must be the same name."""
    second = fields.get(_UNICODE_PATH)
    if second is None:
        return
    is_same = len(second) >= 5 and second[0] == 1 and int.from_bytes(second[1:5], "little") == zlib.crc32(raw)
    if not is_same or second[5:] != raw:
        raise Unsafe("it has two different names", item=item)


_AS_FILES = "nothing was written; zip it again without -y, which stores the files themselves"


def _refuse_link_fields(fields: dict[int, bytes], item: str) -> None:
    """Extra fields by which other readers would make a link: PKWARE's Unix field and Info-ZIP's ASi field."""
    mode = int.from_bytes(fields.get(_ASI_UNIX, b"")[4:6], "little")
    if len(fields.get(_UNIX_LINK, b"")) > _UNIX_PLAIN or stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise Unsafe("a link is not unpacked", item=item, hint=_AS_FILES)


def _refuse_kind(mode: int, is_folder: bool, content: int, item: str) -> None:
    kind = stat.S_IFMT(mode)
    if kind == stat.S_IFLNK:
        raise Unsafe("a link is not unpacked", item=item, hint=_AS_FILES)
    says_folder = {stat.S_IFDIR: True, stat.S_IFREG: False, 0: is_folder}
    if kind not in says_folder:
        raise Unsafe("neither a file nor a folder", item=item)
    if says_folder[kind] != is_folder or (is_folder and content):
        raise Unsafe("a folder and a file at once", item=item)


def _refuse_method(method: int, flags: int, packed: int, size: int, item: str) -> None:
    if flags & _ENCRYPTED:
        raise Unsafe("it is encrypted", item=item, hint="decrypt it with the tool that made it")
    if flags & ~_HARMLESS or flags & _PATCHED:
        raise Unsafe(f"unknown flags {flags:#06x}", item=item)
    if method not in (STORED, DEFLATED):
        name = _METHODS.get(method, f"method {method}")
        message = f"packed with {name}; mdl unpacks stored and deflated members"
        raise Unsafe(message, item=item, hint="unpack it with 7z")
    if method == STORED and packed != size:
        raise ProtocolError("stored, but its two sizes differ", item=item)


# The directory

_TAIL = END_RECORD.size + FULL16
_LEAST = CENTRAL_HEAD.size
_MOST = 4096
"""Bytes that a member takes in the directory: a name has 1,024 at most, and no longer comment is needed."""
_AHEAD = 64 * 2**10
"""Bytes that are read at once if fewer than half of them are wanted."""
_JOIN = "join it first, e.g. with 'zip -s 0'"
_FULL_END = (FULL16, FULL16, FULL16, FULL16, FULL32, FULL32)
"""What the fields of the end record are if the 64-bit record has them."""
_NOTHING = (b"", b"\x03\x00")
"""No bytes, stored and deflated."""


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
    archive = ReadAhead(fd)
    end = _find_end(archive, os.fstat(fd).st_size)
    limits.check_count(end.count)
    if end.at + end.size != end.stop:
        raise ProtocolError("its directory is not where its end record says")
    if end.size < end.count * _LEAST:
        raise ProtocolError("its directory is too short for its members")
    if end.size > end.count * _MOST:
        raise Unsafe(f"a directory of {end.size:,} bytes for {end.count:,} members")
    members = parse_directory(archive.exactly(end.at, end.size), end.count)
    members.sort(key=lambda member: member.header_at)
    _place(archive, members, end.at)
    _check_sizes(members, limits)
    return tuple(member for member in members if member.path != TOP)


def _check_sizes(members: Iterable[ZipEntry], limits: ArchiveLimits) -> None:
    """Raises `Unsafe` if a member, or all of them, unpack to more than allowed."""
    size = 0
    packed = 0
    for member in members:
        size += member.size
        packed += member.packed
        limits.check_ratio(member.size, member.packed, member.shown)
    limits.check_ratio(size, packed)
    limits.check_bytes(size)


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

    def exactly(self, at: int, count: int) -> bytes:
        """``count`` bytes from ``at``. Raises `ProtocolError` at the end of the file, `OSError`."""
        data = self.read(at, count)
        while len(data) < count:  # the system reads 2 GiB at most at once
            more = self.read(at + len(data), count - len(data))
            if not more:
                raise ProtocolError("the archive was cut")
            data += more
        return data


def _find_end(archive: ReadAhead, length: int) -> _End:
    first = max(0, length - _TAIL)
    tail = archive.exactly(first, length - first)
    at = tail.rfind(END)
    if at < 0:
        raise ProtocolError("this is no complete zip: it has no end record")
    if _end_of_record(tail, at) > len(tail):
        raise ProtocolError("the archive was cut in its end record")
    ends = [end.start() for end in re.finditer(re.escape(END), tail) if _end_of_record(tail, end.start()) == len(tail)]
    if ends != [at]:
        message = "it has more than one end record" if ends else "data follows its end record"
        raise ProtocolError(f"{message}; readers would disagree on what it holds")
    narrow = END_RECORD.unpack_from(tail, at)[1:7]
    wide = narrow
    stop = _end64_at(archive, first + at)
    if stop < first + at:
        wide = _end64(archive, stop)
    elif any(map(eq, narrow, _FULL_END)):
        raise ProtocolError("its 64-bit end record is missing")
    for value, wide_value, full in zip(narrow, wide, _FULL_END, strict=True):
        if value not in (wide_value, full):
            raise ProtocolError("its two end records contradict each other")
    disk, start_disk, here, count, size, begin = wide
    if disk or start_disk or here != count:
        raise Unsafe("an archive of several volumes is not unpacked", hint=_JOIN)
    return _End(count, size, begin, stop)


def _end_of_record(tail: bytes, at: int) -> int:
    """Return where an end record at ``at`` ends, with its comment as far as that is told: perhaps beyond ``tail``."""
    end = at + END_RECORD.size
    if end > len(tail):
        return end
    comment: int = END_RECORD.unpack_from(tail, at)[-1]
    return end + comment


def _end64_at(archive: ReadAhead, end: int) -> int:
    """Return where the 64-bit end record before the end record at ``end`` begins, as its locator says; ``end`` if there
    is no locator."""
    at = end - LOCATOR_RECORD.size
    if at < 0:
        return end
    signature, disk, begin, disks = LOCATOR_RECORD.unpack(archive.exactly(at, LOCATOR_RECORD.size))
    if signature != LOCATOR:
        return end
    if disk or disks != 1:
        raise Unsafe("an archive of several volumes is not unpacked", hint=_JOIN)
    if begin + END64_RECORD.size != at:
        raise ProtocolError("its 64-bit end record is not where it should be")
    return int(begin)


def _end64(archive: ReadAhead, at: int) -> tuple[int, ...]:
    """Return what the 64-bit end record at ``at`` says."""
    signature, size, _, _, *wide = END64_RECORD.unpack(archive.exactly(at, END64_RECORD.size))
    if signature != END64 or size != END64_RECORD.size - 12:
        raise ProtocolError("its 64-bit end record is damaged")
    return tuple(wide)


def _place(archive: ReadAhead, members: list[ZipEntry], stop: int) -> None:
    """Compare every local header with the directory, see that the members fill everything up to ``stop``, and set
    where the data of each begins."""
    at = 0
    for number, member in enumerate(members, 1):
        following = members[number].header_at if number < len(members) else stop
        if member.header_at < at:
            raise Unsafe("two members overlap", item=member.shown)
        if member.header_at > at:
            raise ProtocolError(f"{member.header_at - at} bytes before it belong to no member", item=member.shown)
        header = _local_header(archive, member, stop)
        check_local_header(header, member)
        member.data_at = at + len(header)
        if member.is_folder and (member.packed > 2 or archive.exactly(member.data_at, member.packed) not in _NOTHING):
            raise ProtocolError("a folder with content", item=member.shown)
        at = member.data_at + member.packed
        if member.deferred:
            room = min(following, stop) - at
            if room < 0:
                raise Unsafe("two members overlap", item=member.shown)
            if room not in DESCRIPTORS:
                raise ProtocolError("its data descriptor is missing or damaged", item=member.shown)
            check_descriptor(archive.exactly(at, room), member)
            at += room
    if at != stop:
        raise ProtocolError(f"{stop - at} bytes before its directory belong to no member")


def _local_header(archive: ReadAhead, member: ZipEntry, stop: int) -> bytes:
    """The local header of a member with its name and its extra fields. Raises `ProtocolError` if the header or the
    data behind it would lie beyond ``stop``."""
    at = member.header_at
    room = stop - at
    if room < LOCAL_HEAD.size:
        raise ProtocolError("it lies outside the archive's data", item=member.shown)
    head = archive.exactly(at, min(LOCAL_HEAD.size + len(member.raw), room))
    names, extras = LOCAL_HEAD.unpack_from(head)[-2:]
    length = LOCAL_HEAD.size + names + extras
    if length + member.packed > room:
        raise ProtocolError("it lies outside the archive's data", item=member.shown)
    return head if length == len(head) else archive.exactly(at, length)


# An open zip


class ZipArchive(Archive[ZipEntry]):
    """An open zip. The bytes of each member are compared with its CRC-32."""

    checked_by = "crc32"

    def _read_members(self, limits: ArchiveLimits) -> Sequence[ZipEntry]:
        self._ahead = ReadAhead(self._fd)
        return read_directory(self._fd, limits)

    def _blocks(self, member: ZipEntry) -> Iterator[bytes]:
        crc = count = 0
        blocks = self._inflated(member)
        if member.method == STORED:
            blocks = self._stored(member)
        for block in blocks:
            crc = crc32(block, crc)
            count += len(block)
            yield block
        if count != member.size:
            raise ProtocolError(f"{count} bytes, the directory says {member.size}", item=member.shown)
        if crc != member.crc:
            raise DigestMismatch(f"damaged: CRC {crc:08x}, the archive says {member.crc:08x}", item=member.shown)

    def open(self, member: ZipEntry) -> ReadableFile:
        if member.method == STORED:
            return StoredMember(self._read, member.data_at, member.packed)
        return InflatedMember(lambda: self._inflated(member))

    def _read(self, count: int, at: int) -> bytes:
        try:
            return self._ahead.read(at, count)
        except OSError as error:
            raise storage_error(error, str(self.path), "") from error

    def _stored(self, member: ZipEntry) -> Iterator[bytes]:
        at = member.data_at
        stop = member.data_at + member.packed
        while at < stop:
            block = self._read(min(_BLOCK, stop - at), at)
            if not block:
                raise ProtocolError("the archive was cut", item=member.shown)
            at += len(block)
            yield block

    def _inflated(self, member: ZipEntry) -> Iterator[bytes]:
        """Inflates at most one byte more than the directory announces."""
        inflater = new_inflater()
        at = member.data_at
        stop = member.data_at + member.packed
        left = member.size
        data = b""
        while not inflater.eof:
            if not data:
                data = self._read(min(_READ, stop - at), at)
                at += len(data)
            try:
                block = inflater.decompress(data, min(_BLOCK, left + 1))
            except INFLATE_ERRORS as error:
                raise ProtocolError(f"damaged: {error}", item=member.shown) from error
            if not data and not block and not inflater.eof:
                raise ProtocolError("damaged: its data ends too early", item=member.shown)
            data = inflater.unconsumed_tail
            left -= len(block)
            if left < 0:
                raise ProtocolError(f"it unpacks to more than the {member.size} bytes announced", item=member.shown)
            if block:
                yield block
        if at != stop or data or inflater.unused_data:
            raise ProtocolError("data follows its end", item=member.shown)
