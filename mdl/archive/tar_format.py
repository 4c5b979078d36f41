"""Tar: the headers of a plain tar, and the members of one that others may have made. Opens nothing.

What is written is ustar; a pax header comes before a member whose name or size ustar cannot hold. Read as well are
GNU's long names and large numbers, which ``tar`` writes by default. Every other kind of member is refused. `tarfile`
reads single headers here, and not whole archives: to it, one that is damaged or cut behind its first member has simply
ended (ADR 0055).
https://pubs.opengroup.org/onlinepubs/9699919799/utilities/pax.html
"""

from __future__ import annotations

import re
import stat
import tarfile
from collections.abc import Callable, Iterator
from typing import Protocol

from mdl.archive.member_names import member_path
from mdl.errors import ProtocolError, Unsafe
from mdl.paths import RelPath, shown
from mdl.values import value_class

BLOCK = 512
GZIP = b"\x1f\x8b\x08"
"""How a gzip stream begins: its mark, and its one method."""
END = bytes(2 * BLOCK)
"""What comes after the last member."""
_TIME = 315532800
"""1980-01-01 00:00 UTC, the time of every member, so that the same files make the same bytes."""
_LONGEST_EXTRA = 2**16
"""Bytes that a long name, or the pax header of one member, may have."""
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


def is_header(block: bytes) -> bool:
    """Whether these 512 bytes are the header of a tar's member: it has the sum of its own bytes."""
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError):
        return False
    return True


def header(path: str, size: int) -> bytes:
    """What comes before the bytes of a file. They are followed by `padding`."""
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
                found = _records(self._extra(info))
                if info.type == tarfile.XGLTYPE and found:
                    raise Unsafe("refused: a header for all members sets their names or sizes", item=shown(info.name))
                extra |= found
                continue
            if info.type == tarfile.GNUTYPE_LONGNAME:
                extra["path"] = self._extra(info).rstrip(b"\0").decode("utf-8", "surrogateescape")
                continue
            text = extra.get("path", info.name)
            size = int(extra.get("size", info.size))
            extra = {}
            item = shown(text)[:200]
            if not info.isdir() and info.type not in _FILES:
                what = _KINDS.get(info.type, "an unknown kind of member")
                raise Unsafe(f"refused: it is {what}, and not a file or a folder", item=item)
            if info.isdir() and size:
                raise ProtocolError("a folder with content", item=item)
            name = f"{text.rstrip('/')}/" if info.isdir() else text
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
        """What a header says that belongs to the next member."""
        if info.size > _LONGEST_EXTRA:
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
    found: dict[str, str] = {}
    at = 0
    while at < len(data):
        length = _RECORD.match(data, at)
        stop = at + int(length[1]) if length else 0
        key, equals, value = data[length.end() : stop - 1].partition(b"=") if length else (b"", b"", b"")
        if not equals or stop > len(data) or data[stop - 1 : stop] != b"\n":
            raise ProtocolError("a header of it is damaged", hint=_AGAIN)
        name = key.decode("utf-8", "replace")
        at = stop
        if name == "linkpath" or name.startswith("GNU.sparse"):
            raise Unsafe(f"refused: a header with {shown(name)[:40]}, and a bundle has plain files only")
        if name == "size" and not re.fullmatch(rb"[0-9]{1,18}", value):
            raise ProtocolError("a header of it has a wrong size", hint=_AGAIN)
        if name in ("path", "size"):
            found[name] = value.decode("utf-8", "surrogateescape")
    return found
