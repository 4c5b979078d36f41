"""Compression: whether a member becomes smaller by it, and the fastest deflate there is.

isal's level 1 packs weights about ten times as fast as zlib's, and no larger; without isal, zlib is used.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from mdl.archive.records import DEFLATED, STORED

if TYPE_CHECKING:
    from zlib import _Compress, _Decompress

_fast: Any = zlib
with contextlib.suppress(ImportError):
    from isal import isal_zlib as _fast

Compression = Literal["auto", "store", "deflate"]
"""``auto`` deflates a member if a sample of it becomes smaller."""
_WORTH = 0.97
_LARGE, _BOMB = 50 * 2**20, 150
"""A member larger than this that shrinks below a 150th is stored: a careful reader would refuse it as a bomb."""
_SAMPLES, _SAMPLE = 16, 64 * 2**10
_RAW = -15
END_OF_PIECES = b"\x03\x00"
"""A last, empty block (RFC 1951, 3.2.6)."""


def new_deflater() -> _Compress:
    """A raw deflate stream at level 1."""
    stream: _Compress = _fast.compressobj(1, zlib.DEFLATED, _RAW)
    return stream


def new_inflater() -> _Decompress:
    """The decompression of a raw deflate stream."""
    stream: _Decompress = _fast.decompressobj(_RAW)
    return stream


def crc32(data: bytes | memoryview, before: int = 0) -> int:
    checksum: int = _fast.crc32(data, before)
    return checksum


def inflate_errors() -> tuple[type[Exception], ...]:
    """What broken deflate data raises."""
    return zlib.error, _fast.error


def choose_method(compress: Compression, size: int, read_at: Callable[[int, int], bytes]) -> int:
    """Stored or deflated, by ``compress`` or by what 16 samples of 64 KiB would save. ``read_at(offset, count)``.

    The answer is always the same for the same bytes.
    """
    if compress == "store" or size == 0:
        return STORED
    if compress == "deflate":
        return DEFLATED
    if size <= _SAMPLES * _SAMPLE:
        starts, count = [0], size
    else:
        starts, count = [n * (size - _SAMPLE) // (_SAMPLES - 1) for n in range(_SAMPLES)], _SAMPLE
    taken = packed = 0
    for start in starts:
        sample = read_at(start, count)
        taken += len(sample)
        packed += len(deflated(sample))
    if size > _LARGE and packed * _BOMB < taken:
        return STORED
    return DEFLATED if packed <= taken * _WORTH else STORED


def deflated_piece(data: bytes | memoryview) -> bytes:
    """A piece of a stream, made independently of the others: pieces and `END_OF_PIECES` are one deflate stream."""
    stream = new_deflater()
    return stream.compress(data) + stream.flush(zlib.Z_SYNC_FLUSH)


def deflated(data: bytes) -> bytes:
    """All of ``data`` in one go."""
    stream = new_deflater()
    return stream.compress(data) + stream.flush()
