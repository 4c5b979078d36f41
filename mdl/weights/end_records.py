"""End records: what in a file shows that its end is there, format by format. Nothing is unpickled, inflated or loaded.
Pure.

Each function takes an open file and its size in bytes, and returns what is missing, or None if nothing shows that
anything is. They read a bounded part of the file, whatever it holds.

Formats: APPNOTE 4.3 of PKWARE for zip, https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, "HDF5 File Format
Specification" III.A (superblocks), POSIX pax for tar.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from mdl.bounds import LARGEST_DOCUMENT


class ReadableFile(Protocol):
    """An open binary file, of which ``read`` gives up to ``count`` bytes from where ``seek`` moved to."""

    def seek(self, at: int, /) -> int: ...
    def read(self, count: int, /) -> bytes: ...


def read_at(file: ReadableFile, start: int, count: int) -> bytes:
    """``count`` bytes from ``start``, or what there is of them."""
    file.seek(max(0, start))
    return file.read(count)


# Zip, and what is one: torch since 1.6, Keras 3, .npz

ZIP_MEMBER = b"PK\x03\x04"
_DIRECTORY_ENTRY = b"PK\x01\x02"
_ENTRY = struct.Struct("<4s16xI4xHHH8xI")
"""Of an entry: signature, bytes packed; the lengths of name, extra field and comment; offset of the local header."""
_END = b"PK\x05\x06"
_END_SIZE = 22
LONGEST_ZIP_END = _END_SIZE + 2**16 - 1
"""The end record with the longest comment."""
_ZIP64_LOCATOR = b"PK\x06\x07"
_ZIP64_LOCATOR_SIZE = 20
_ZIP64_END = b"PK\x06\x06"
_ZIP64_END_SIZE = 56
_LOCAL_HEADER_SIZE = 30


def zip_lacks(file: ReadableFile, size: int) -> str | None:
    """Return what a zip that begins with its first member lacks."""
    directory = _zip_directory(file, size)
    if directory is None:
        return "a zip without its end record"
    start = directory.start
    length = directory.length
    if not directory.is_where_said:
        return "a zip whose directory is not where its end record says"
    if length > LARGEST_DOCUMENT:
        return None
    read = 0
    for entry in _entries(read_at(file, start, length)):
        if not entry.is_far and entry.data_end > start:
            return "a zip with a member that continues behind the directory"
        read += entry.length
    return None if read == length else "a zip whose directory cannot be read"


def last_zip_lacks(file: ReadableFile, size: int) -> str | None:
    """Return what the last zip of several lacks that stand one behind the other, or one behind a program."""
    directory = _zip_directory(file, size)
    if directory is None or directory.behind_end:
        return "a zip without its end record"
    return None


def zip_names(file: ReadableFile, size: int) -> frozenset[str]:
    """The names in a zip's directory; none if it is no whole zip, or has too many."""
    directory = _zip_directory(file, size)
    if directory is None or not directory.is_where_said or directory.length > LARGEST_DOCUMENT:
        return frozenset()
    entries = _entries(read_at(file, directory.start, directory.length))
    return frozenset(entry.name.decode("utf-8", "replace") for entry in entries)


class _Entry(NamedTuple):
    """One member as a zip's directory lists it: the ``length`` of its entry, its ``name``, and the least offset at
    which its data ends, unless zip64's extra field has the numbers: then ``is_far``."""

    length: int
    name: bytes
    data_end: int
    is_far: bool


def _entries(directory: bytes) -> Iterator[_Entry]:
    """Each entry of a zip's directory, up to the first that cannot be read."""
    at = 0
    while at + _ENTRY.size <= len(directory):
        signature, packed, name_length, extra_length, comment_length, member = _ENTRY.unpack_from(directory, at)
        if signature != _DIRECTORY_ENTRY:
            return
        name = directory[at + _ENTRY.size : at + _ENTRY.size + name_length]
        length = _ENTRY.size + name_length + extra_length + comment_length
        is_far = 0xFFFFFFFF in (member, packed)
        yield _Entry(length, name, member + _LOCAL_HEADER_SIZE + name_length + packed, is_far)
        at += length


class _Directory(NamedTuple):
    """Where a zip's directory begins, and its bytes; whether that is where the end record says; and how many bytes
    stand behind the end record and its comment."""

    start: int
    length: int
    is_where_said: bool
    behind_end: int


def _zip_directory(file: ReadableFile, size: int) -> _Directory | None:
    """The directory before the last end record that has one; None if there is none."""
    tail_start = max(0, size - LONGEST_ZIP_END - _ZIP64_LOCATOR_SIZE)
    tail = read_at(file, tail_start, size - tail_start)
    at = tail.rfind(_END)
    while at >= 0:
        comment = int.from_bytes(tail[at + 20 : at + 22], "little")
        if at + _END_SIZE + comment <= len(tail):
            directory = _directory_of_end(file, tail, tail_start, at)
            if directory:
                return directory
        at = tail.rfind(_END, 0, at)
    return None


def _directory_of_end(file: ReadableFile, tail: bytes, tail_start: int, at: int) -> _Directory | None:
    count, length, offset = struct.unpack_from("<HII", tail, at + 10)
    end = tail_start + at
    locator = tail[max(0, at - _ZIP64_LOCATOR_SIZE) : at]
    if locator.startswith(_ZIP64_LOCATOR):
        zip64_at = int.from_bytes(locator[8:16], "little")
        for place in (zip64_at, end - _ZIP64_LOCATOR_SIZE - _ZIP64_END_SIZE):
            record = read_at(file, place, _ZIP64_END_SIZE) if 0 <= place < end else b""
            if len(record) == _ZIP64_END_SIZE and record.startswith(_ZIP64_END):
                count, length, offset = struct.unpack_from("<QQQ", record, 32)
                end = place
                break
    start = end - length
    if start < 0:
        return None
    if count and read_at(file, start, 4) != _DIRECTORY_ENTRY:
        return None
    behind_end = len(tail) - at - _END_SIZE - int.from_bytes(tail[at + 20 : at + 22], "little")
    return _Directory(start, length, start == offset or not count, behind_end)


# GGUF

_GGUF_VALUE_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_GGUF_STRING = 8
_GGUF_ARRAY = 9
_GGUF_UINT32 = 4
_MOST_NESTED = 4
_MOST_DIMENSIONS = 8
_GGUF_BLOCKS = {
    0: (1, 4),
    1: (1, 2),
    2: (32, 18),
    3: (32, 20),
    6: (32, 22),
    7: (32, 24),
    8: (32, 34),
    9: (32, 36),
    10: (256, 84),
    11: (256, 110),
    12: (256, 144),
    13: (256, 176),
    14: (256, 210),
    15: (256, 292),
    16: (256, 66),
    17: (256, 74),
    18: (256, 98),
    19: (256, 50),
    20: (32, 18),
    21: (256, 110),
    22: (256, 82),
    23: (256, 136),
    24: (1, 1),
    25: (1, 2),
    26: (1, 4),
    27: (1, 8),
    28: (1, 8),
    29: (256, 56),
    30: (1, 2),
    34: (256, 54),
    35: (256, 66),
    39: (32, 17),
}
"""For each type of a tensor: how many numbers a block has, and how many bytes."""


class _TooLong(Exception):
    """The header goes on behind the end of the file, or behind what is read of it."""


class _GgufHeader:
    """Reads a GGUF header from front to back."""

    def __init__(self, file: ReadableFile, size: int) -> None:
        self.file = file
        self.left = min(size, LARGEST_DOCUMENT)
        self.at = 0
        self.order = "<"
        self.wide = "Q"
        file.seek(0)

    def take(self, count: int) -> bytes:
        if count > self.left:
            raise _TooLong
        data = self.file.read(count)
        self.left -= count
        self.at += count
        if len(data) < count:
            raise _TooLong
        return data

    def skip(self, count: int) -> None:
        if count > self.left:
            raise _TooLong
        self.left -= count
        self.at += count
        self.file.seek(self.at)

    def number(self, code: str) -> int:
        [number] = struct.unpack(self.order + code, self.take(struct.calcsize(f"={code}")))
        return int(number)

    def text(self) -> bytes:
        return self.take(self.number(self.wide))

    def skip_value(self, kind: int, depth: int = 0) -> None:
        if kind in _GGUF_VALUE_SIZES:
            self.skip(_GGUF_VALUE_SIZES[kind])
        elif kind == _GGUF_STRING:
            self.skip(self.number(self.wide))
        elif kind == _GGUF_ARRAY and depth < _MOST_NESTED:
            inner = self.number("I")
            count = self.number(self.wide)
            if inner in _GGUF_VALUE_SIZES:
                self.skip(count * _GGUF_VALUE_SIZES[inner])
                return
            for _ in range(count):
                self.skip_value(inner, depth + 1)
        else:
            raise ValueError(kind)


def gguf_lacks(file: ReadableFile, size: int) -> str | None:
    """Return what a GGUF file lacks: a part of its header, or of its last tensor."""
    try:
        wanted = _gguf_size(_GgufHeader(file, size))
    except _TooLong:
        return "it ends within its header" if size <= LARGEST_DOCUMENT else None
    except ValueError:
        return "its header cannot be read"
    if wanted > size:
        return f"its header says {wanted:,} bytes and it has {size:,}"
    return None


def _gguf_size(header: _GgufHeader) -> int:
    """The bytes that the file must have at least. Raises `_TooLong`, ``ValueError`` for what is no header."""
    header.take(4)
    version = header.number("I")
    if version and version & 0xFFFF == 0:  # written in the other byte order
        header.order = ">"
        version >>= 24
    if version == 1:
        header.wide = "I"
    tensors = header.number(header.wide)
    alignment = 32
    for _ in range(header.number(header.wide)):
        key = header.text()
        kind = header.number("I")
        if key == b"general.alignment" and kind == _GGUF_UINT32:
            alignment = header.number("I") or 32
        else:
            header.skip_value(kind)
    last = 0
    for _ in range(tensors):
        header.skip(header.number(header.wide))
        dimensions = header.number("I")
        if dimensions > _MOST_DIMENSIONS:
            raise ValueError(dimensions)
        numbers = 1
        for _ in range(dimensions):
            numbers *= header.number(header.wide)
        numbers_a_block, bytes_a_block = _GGUF_BLOCKS.get(header.number("I"), (1, 0))
        last = max(last, header.number("Q") + numbers // numbers_a_block * bytes_a_block)
    if not tensors:
        return header.at
    return -(-header.at // alignment) * alignment + last


# HDF5

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_LONGEST_SUPERBLOCK = 96


def _hdf5_superblock(file: ReadableFile, size: int) -> bytes:
    """The first bytes of the superblock, which is at 0, 512, 1024, 2048 and so on; none if there is none."""
    at = 0
    while at < size:
        block = read_at(file, at, _LONGEST_SUPERBLOCK)
        if block.startswith(HDF5_SIGNATURE):
            return block
        at = at * 2 or 512
    return b""


def hdf5_lacks(file: ReadableFile, size: int) -> str | None:
    """Return what an HDF5 file lacks: the superblock says where the whole of it ends."""
    block = _hdf5_superblock(file, size)
    if not block:
        return "it has no HDF5 signature"
    facts = block.ljust(_LONGEST_SUPERBLOCK, b"\0")
    version = facts[8]
    if version <= 1:
        width = facts[13]
        end_at = 24 + 4 * version + 2 * width
    else:
        width = facts[9]
        end_at = 12 + 2 * width
    if width not in (2, 4, 8) or len(block) < end_at + width:
        return "it ends within its header"
    wanted = int.from_bytes(facts[end_at : end_at + width], "little")  # from the file's first byte
    if size > wanted:
        return f"it was never closed: its header says {wanted:,} bytes and it has {size:,}"
    if size < wanted:
        return f"its header says {wanted:,} bytes and it has {size:,}"
    return None


# Tar

_TAR_BLOCK = 512
TAR_MAGIC = b"ustar"
TAR_MAGIC_AT = 257


def tar_lacks(file: ReadableFile, size: int) -> str | None:
    """Return what a tar lacks: it ends with two blocks of zeros."""
    if size % _TAR_BLOCK or size < 2 * _TAR_BLOCK or any(read_at(file, size - 2 * _TAR_BLOCK, 2 * _TAR_BLOCK)):
        return "a tar without the two empty blocks at its end"
    return None
