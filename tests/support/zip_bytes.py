"""Zips byte by byte, every field of every record open to a lie. Knows nothing of mdl, so that no mistake is shared.

A `Zip` describes an archive; `pieces` spells it out record by record, `build` joins them. What a description leaves
open is filled in honestly; ``local``, ``central``, ``descriptor``, ``end``, ``end64`` and ``locator`` override single
fields by the names in the layouts below, and also ``signature``, ``name``, ``extra`` and ``comment``.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from struct import Struct
from typing import Any

Fields = Mapping[str, Any]
STORED, DEFLATED = 0, 8
DEFERRED, UTF8 = 1 << 3, 1 << 11
FULL16, FULL32 = 0xFFFF, 0xFFFFFFFF


class Layout:
    """One record: its signature, then fields as ``name:format``."""

    def __init__(self, signature: bytes, fields: str) -> None:
        pairs = [one.split(":") for one in fields.split()]
        self.signature, self.names = signature, [name for name, _ in pairs]
        self._struct = Struct(f"<{len(signature)}s" + "".join(letter for _, letter in pairs))
        self.size = self._struct.size

    def pack(self, facts: Fields) -> bytes:
        return self._struct.pack(facts.get("signature", self.signature), *(facts[name] for name in self.names))


_COMMON = "needs:H flags:H method:H time:H date:H crc:L packed:L size:L names:H extras:H"
LOCAL = Layout(b"PK\3\4", _COMMON)
CENTRAL = Layout(b"PK\1\2", f"made:B system:B {_COMMON} comments:H disk:H internal:H external:L at:L")
DESCRIPTORS = {
    12: Layout(b"", "crc:L packed:L size:L"),
    16: Layout(b"PK\7\10", "crc:L packed:L size:L"),
    20: Layout(b"", "crc:L packed:Q size:Q"),
    24: Layout(b"PK\7\10", "crc:L packed:Q size:Q"),
}
END64 = Layout(b"PK\6\6", "length:Q made:H needs:H disk:L start:L here:Q count:Q size:Q at:Q")
LOCATOR = Layout(b"PK\6\7", "disk:L at:Q disks:L")
END = Layout(b"PK\5\6", "disk:H start:H here:H count:H size:L at:L comments:H")


def extra(number: int, data: bytes) -> bytes:
    """One extra field."""
    return Struct("<2H").pack(number, len(data)) + data


def wide(*values: int) -> bytes:
    """The extra field of 64-bit sizes."""
    return extra(1, Struct(f"<{len(values)}Q").pack(*values))


def deflated(data: bytes, level: int = 9) -> bytes:
    stream = zlib.compressobj(level, zlib.DEFLATED, -15)
    return stream.compress(data) + stream.flush()


@dataclass(frozen=True, kw_only=True)
class Member:
    """One member. ``data`` is what is in it; ``body`` the packed bytes, if they are not simply made of it."""

    name: bytes = b"a.txt"
    data: bytes = b"some text\n"
    method: int = STORED
    body: bytes | None = None
    flags: int = 0
    mode: int | None = None
    extra: bytes = b""
    before: bytes = b""
    """Bytes between the record before and the local header."""
    descriptor: Fields | None = None
    """Not None: sizes follow the data, and the local header has zeros."""
    width: int = 16
    """Bytes of the descriptor."""
    local: Fields = field(default_factory=dict)
    central: Fields = field(default_factory=dict)
    written: bool = True
    listed: bool = True

    @cached_property
    def packed(self) -> bytes:
        if self.body is not None:
            return self.body
        return deflated(self.data) if self.method == DEFLATED else self.data

    @property
    def _facts(self) -> dict[str, Any]:
        folder = self.name.endswith(b"/")
        mode = self.mode if self.mode is not None else (0o040755 if folder else 0o100644)
        flags = self.flags | (0 if self.name.isascii() else UTF8) | (0 if self.descriptor is None else DEFERRED)
        facts = {"made": 45, "system": 3, "needs": 20, "flags": flags, "method": self.method, "time": 0, "date": 33}
        sizes = {"crc": zlib.crc32(self.data), "packed": len(self.packed), "size": len(self.data)}
        rest = {"disk": 0, "internal": 0, "external": mode << 16 | 16 * folder}
        return facts | sizes | rest | {"name": self.name, "extra": self.extra, "comment": b""}

    def local_header(self) -> bytes:
        facts = self._facts
        if self.descriptor is not None:
            facts |= {"crc": 0, "packed": 0, "size": 0}
        facts |= self.local
        return LOCAL.pack(_measured(facts)) + facts["name"] + facts["extra"]

    def trailer(self) -> bytes:
        """The data descriptor, or nothing."""
        if self.descriptor is None:
            return b""
        return DESCRIPTORS[self.width].pack(self._facts | self.descriptor)

    def parts(self) -> tuple[bytes, ...]:
        """All that stands before the directory."""
        return (self.before, self.local_header(), self.packed, self.trailer()) if self.written else (self.before,)

    def central_header(self, at: int) -> bytes:
        facts = self._facts | {"at": at} | self.central
        return CENTRAL.pack(_measured(facts)) + facts["name"] + facts["extra"] + facts["comment"]


@dataclass(frozen=True, kw_only=True)
class Zip:
    """An archive. ``end64`` and ``locator`` are None if there are none; ``moved``: offsets count the prefix."""

    members: tuple[Member, ...] = ()
    prefix: bytes = b""
    moved: bool = False
    gap: bytes = b""
    """Between the last member and the directory."""
    lost: bytes = b""
    """In the directory, behind its members."""
    gap_end: bytes = b""
    """Between the directory and its end records."""
    end64: Fields | None = None
    gap_end64: bytes = b""
    locator: Fields | None = None
    end: Fields | None = field(default_factory=dict)
    comment: bytes = b""
    suffix: bytes = b""

    def adding(self, *members: Member) -> Zip:
        return self.but(members=(*self.members, *members))

    def but(self, **changes: Any) -> Zip:
        return replace(self, **changes)

    @property
    def data_end(self) -> int:
        """Where the next member's local header will be."""
        data = sum(len(part) for member in self.members for part in member.parts())
        return data + (len(self.prefix) if self.moved else 0)

    def pieces(self) -> Iterator[bytes]:
        """Every record, and the bytes between records, in the order of the file."""
        at, lines = len(self.prefix) if self.moved else 0, []
        yield self.prefix
        for member in self.members:
            parts = member.parts()
            yield from parts
            if member.listed:
                lines.append(member.central_header(at + len(member.before)))
            at += sum(map(len, parts))
        yield self.gap
        yield from lines
        yield self.lost
        yield self.gap_end
        begin, size = at + len(self.gap), sum(map(len, lines)) + len(self.lost)
        yield from self._ends(begin, size, len(lines))

    def _ends(self, at: int, size: int, count: int) -> Iterator[bytes]:
        facts = {"disk": 0, "start": 0, "here": count, "count": count, "size": size, "at": at}
        if self.end64 is not None:
            yield END64.pack(facts | {"length": END64.size - 12, "made": 45, "needs": 45} | self.end64)
            yield self.gap_end64
        if self.locator is not None:
            yield LOCATOR.pack({"disk": 0, "at": at + size + len(self.gap_end), "disks": 1} | self.locator)
        if self.end is not None:
            narrow = {key: min(value, FULL16 if key in ("here", "count") else FULL32) for key, value in facts.items()}
            yield END.pack(narrow | {"comments": len(self.comment)} | self.end)
            yield self.comment
        yield self.suffix

    def build(self) -> bytes:
        return b"".join(self.pieces())

    def boundaries(self) -> list[int]:
        """The offsets at which a record begins, from the second on."""
        found, at = set(), 0
        for piece in self.pieces():
            at += len(piece)
            found.add(at)
        return sorted(found - {0, at})


def _measured(facts: dict[str, Any]) -> dict[str, Any]:
    """With the lengths of name, extra fields and comment, unless they are told otherwise."""
    lengths = {"names": "name", "extras": "extra", "comments": "comment"}
    return {key: len(facts[part]) for key, part in lengths.items()} | facts
