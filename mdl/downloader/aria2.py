"""aria2's control file, ``NAME.aria2`` beside an unfinished NAME: which pieces of it are there. The file itself may
have its whole length from the start, so that neither its size nor its holes tell.

The format is in aria2's manual, "Control file": a version, a bitfield of the pieces of one length that are complete,
then the pieces that are being fetched, each with a bitfield of its blocks of 16 KiB.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from mdl.bounds import LARGEST_SMALL_FILE
from mdl.disk.safe_open import read_regular
from mdl.net.ranges import RangeSet

_ENDING = ".aria2"
_BLOCK = 16 * 1024
_VERSION = 1
"""The one in network byte order, which aria2 has written since 2009."""


def pieces_there(final: Path) -> tuple[tuple[int, int], ...] | None:
    """The ranges of an unfinished file that aria2 noted as there, each from a first byte to before a last one; None if
    it noted nothing, or nothing that can be read."""
    try:
        data = read_regular(final.with_name(final.name + _ENDING), LARGEST_SMALL_FILE)
        if data is None:
            return None
        found = RangeSet()
        for start, stop in _ranges(data):
            found.add(start, stop)
    except (OSError, struct.error, ValueError):
        return None
    return tuple((part.start, part.stop) for part in found)


def _ranges(data: bytes) -> Iterator[tuple[int, int]]:
    """Raises `struct.error` and `ValueError` for what is no control file."""
    version, _, hash_length = struct.unpack_from(">HII", data)
    at = struct.calcsize(">HII") + hash_length
    piece, total, _, field_length = struct.unpack_from(">IQQI", data, at)
    at += struct.calcsize(">IQQI")
    if version != _VERSION or not piece or field_length != (-(-total // piece) + 7) // 8:
        raise ValueError("no control file of aria2")
    for number in _bits(data[at : at + field_length]):
        if number * piece < total:
            yield number * piece, min(total, (number + 1) * piece)
    at += field_length
    (count,) = struct.unpack_from(">I", data, at)
    at += 4
    for _ in range(count):
        number, length, field_length = struct.unpack_from(">III", data, at)
        at += struct.calcsize(">III")
        end = number * piece + length
        for block in _bits(data[at : at + field_length]):
            start = number * piece + block * _BLOCK
            if start < min(end, total):
                yield start, min(start + _BLOCK, end, total)
        at += field_length


def _bits(field: bytes) -> Iterator[int]:
    """The numbers of the bits that are set, of which the first is the highest one of the first byte."""
    for place, byte in enumerate(field):
        for bit in range(8):
            if byte & (0x80 >> bit):
                yield place * 8 + bit
