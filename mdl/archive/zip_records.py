"""The zip format: its records (local header, data descriptor, central header, end records) and its compression. Pure.

PKWARE's APPNOTE 6.3.10 (sections 4.3 to 4.5) is the source of every field. isal's level 1 packs weights about ten times
as fast as zlib's, and no larger; without isal, zlib is used.
"""

from __future__ import annotations

import contextlib
import stat
import zlib
from collections.abc import Callable
from struct import Struct
from typing import TYPE_CHECKING, Any, Literal

from mdl.values import value_class

if TYPE_CHECKING:
    from zlib import _Compress, _Decompress

engine: Any = zlib
with contextlib.suppress(ImportError):
    from isal import isal_zlib as engine
INFLATE_ERRORS: tuple[type[Exception], ...] = (zlib.error, engine.error)
"""What broken deflate data raises."""

LOCAL = b"PK\x03\x04"
CENTRAL = b"PK\x01\x02"
DESCRIPTOR = b"PK\x07\x08"
END = b"PK\x05\x06"
END64 = b"PK\x06\x06"
LOCATOR = b"PK\x06\x07"
LOCAL_HEAD = Struct("<4s5H3L2H")
CENTRAL_HEAD = Struct("<4s4B4HL2L5H2L")
END_RECORD = Struct("<4s4H2LH")
END64_RECORD = Struct("<4sQ2H2L4Q")
LOCATOR_RECORD = Struct("<4sLQL")
DESCRIPTORS = {12: Struct("<3L"), 16: Struct("<4s3L"), 20: Struct("<LQQ"), 24: Struct("<4sLQQ")}
"""By length in bytes: with and without the signature, with sizes of 32 and of 64 bits."""

STORED = 0
DEFLATED = 8
FULL16 = 0xFFFF
FULL32 = 0xFFFFFFFF
DEFERRED = 1 << 3
UTF8 = 1 << 11
"""Flags: sizes and CRC follow the data; the name is UTF-8."""
ZIP64_EXTRA = 0x0001
_MADE_BY = 45
_UNIX = 3
_FIRST_DAY = (1 << 5) | 1
"""1980-01-01 00:00, the same for every member, so that two packs of one tree are the same bytes."""


@value_class
class Record:
    """What an archive says of one member. ``packed`` and ``size`` are bytes, compressed and not; ``at`` is the offset
    of its local header."""

    name: str
    method: int
    at: int
    packed: int = 0
    size: int = 0
    crc: int = 0
    deferred: bool = False
    large: bool = False
    executable: bool = False

    @property
    def is_folder(self) -> bool:
        return self.name.endswith("/")

    @property
    def flags(self) -> int:
        return (DEFERRED if self.deferred else 0) | (0 if self.name.isascii() else UTF8)

    @property
    def mode(self) -> int:
        if self.is_folder:
            return stat.S_IFDIR | 0o755
        return stat.S_IFREG | (0o755 if self.executable else 0o644)


def may_be_large(size: int) -> bool:
    """Tell whether a member of ``size`` bytes may need 64-bit sizes, deflated or not; this must be known before it is
    written."""
    return size + size // 1000 + 2**20 >= FULL32


def local_header(member: Record) -> bytes:
    """The bytes before the member's data; without CRC and sizes if they are deferred."""
    name = member.name.encode()
    crc, packed, size = (0, 0, 0) if member.deferred else (member.crc, member.packed, member.size)
    extra = b""
    if member.large:
        extra = Struct("<2H2Q").pack(ZIP64_EXTRA, 16, size, packed)
        packed = size = FULL32
    head = LOCAL_HEAD.pack(
        LOCAL, _needs(member), member.flags, member.method, 0, _FIRST_DAY, crc, packed, size, len(name), len(extra)
    )
    return head + name + extra


def descriptor(member: Record) -> bytes:
    """The bytes after the data of a member whose sizes were deferred."""
    return DESCRIPTORS[24 if member.large else 16].pack(DESCRIPTOR, member.crc, member.packed, member.size)


def central_header(member: Record) -> bytes:
    """The member's entry in the directory at the end of the archive."""
    name = member.name.encode()
    needs = _needs(member)
    extra = b""
    packed = member.packed
    size = member.size
    at = member.at
    if max(packed, size, at) >= FULL32:
        wide = [value for value in (size, packed, at) if value >= FULL32]
        needs = 45
        extra = Struct(f"<2H{len(wide)}Q").pack(ZIP64_EXTRA, 8 * len(wide), *wide)
        packed = min(packed, FULL32)
        size = min(size, FULL32)
        at = min(at, FULL32)
    kind = member.mode << 16 | (0x10 if member.is_folder else 0)
    head = CENTRAL_HEAD.pack(
        *(CENTRAL, _MADE_BY, _UNIX, needs, 0, member.flags, member.method, 0, _FIRST_DAY, member.crc, packed, size),
        *(len(name), len(extra), 0, 0, 0, kind, at),
    )
    return head + name + extra


def end_records(count: int, size: int, at: int) -> bytes:
    """The end of the archive: a directory of ``count`` members and ``size`` bytes begins at ``at``."""
    end = END_RECORD.pack(END, 0, 0, *(min(count, FULL16),) * 2, min(size, FULL32), min(at, FULL32), 0)
    if count < FULL16 and size < FULL32 and at < FULL32:
        return end
    end64 = END64_RECORD.pack(END64, END64_RECORD.size - 12, _UNIX << 8 | _MADE_BY, 45, 0, 0, count, count, size, at)
    return end64 + LOCATOR_RECORD.pack(LOCATOR, 0, at + size, 1) + end


def _needs(member: Record) -> int:
    """The version that is needed to extract: 4.5 for 64-bit sizes, 2.0 for deflate and folders, else 1.0."""
    if member.large:
        return 45
    return 20 if member.method == DEFLATED or member.is_folder else 10


Compression = Literal["auto", "store", "deflate"]
"""``auto`` deflates a member if a sample of it becomes smaller."""
_WORTH = 0.97
_LARGE = 50 * 2**20
_BOMB = 150
"""A member larger than this that shrinks below a 150th is stored: a careful reader would refuse it as a bomb."""
_SAMPLES = 16
_SAMPLE = 64 * 2**10
_RAW = -15
_GZIP = 31
END_OF_PIECES = b"\x03\x00"
"""A last, empty block (RFC 1951, 3.2.6)."""


def new_inflater() -> _Decompress:
    """The decompression of a raw deflate stream."""
    stream: _Decompress = engine.decompressobj(_RAW)
    return stream


def new_gunzipper() -> _Decompress:
    """The decompression of one gzip stream, whose checksum and size are checked at its end."""
    stream: _Decompress = engine.decompressobj(_GZIP)
    return stream


def crc32(data: bytes | memoryview, before: int = 0) -> int:
    checksum: int = engine.crc32(data, before)
    return checksum


def compressed(compress: Compression, data: bytes) -> tuple[int, bytes]:
    """The method for a member that is in memory, and what is written of it."""
    if compress == "store" or not data:
        return STORED, data
    packed = deflated(data)
    return (DEFLATED, packed) if compress == "deflate" or _is_worth(len(packed), len(data)) else (STORED, data)


def choose_method(compress: Compression, size: int, read_at: Callable[[int, int], bytes]) -> int:
    """The method for a larger member, by ``compress`` or by what 16 samples of 64 KiB would save.
    ``read_at(offset, count)``.

    The answer is always the same for the same bytes.
    """
    if compress != "auto":
        return DEFLATED if compress == "deflate" else STORED
    taken = packed = 0
    for start in (n * (size - _SAMPLE) // (_SAMPLES - 1) for n in range(_SAMPLES)):
        sample = read_at(start, _SAMPLE)
        taken += len(sample)
        packed += len(deflated(sample))
    if size > _LARGE and packed * _BOMB < taken:
        return STORED
    return DEFLATED if _is_worth(packed, taken) else STORED


def _is_worth(packed: int, size: int) -> bool:
    """Tell whether so many bytes are saved that a member is deflated."""
    return packed <= size * _WORTH


def deflated_piece(data: bytes | memoryview) -> bytes:
    """A piece of a stream, made independently of the others: pieces and `END_OF_PIECES` are one deflate stream."""
    return deflated(data, zlib.Z_SYNC_FLUSH)


def deflated(data: bytes | memoryview, flush: int = zlib.Z_FINISH) -> bytes:
    """A raw deflate stream of ``data`` at level 1, which ends as ``flush`` says."""
    stream: _Compress = engine.compressobj(1, zlib.DEFLATED, _RAW)
    return stream.compress(data) + stream.flush(flush)
