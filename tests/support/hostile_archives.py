"""The hostile corpus: every trick of faults.md, group K, alone and in pairs; and how one is tried out.

A trick is a function from an honest archive to a hostile one, so that two of them can be played on one archive.
What must come of it follows from contract.md: 11 for what is unsafe, 6 for what is damaged or contradicts itself;
where a trick is both, either.
"""

from __future__ import annotations

import functools
import json
import os
import stat
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import combinations, product
from pathlib import Path
from struct import pack
from typing import Any

from mdl.archive.directory import ArchiveLimits
from mdl.errors import MdlError
from mdl.operations.release import unpack
from support.zip_bytes import DEFERRED, DEFLATED, END, FULL16, FULL32, UTF8, Member, Zip, deflated, extra, wide

Mutation = Callable[[Zip], Zip]
Tricks = dict[str, Mutation]
MIB, USUAL = 2**20, ArchiveLimits()
UNSAFE, BAD, EITHER, NEWER = frozenset({11}), frozenset({6}), frozenset({6, 11}), frozenset({12})
ESCAPES = ("/tmp/mdl-hostile-escape", "/mdl-hostile-escape")

BASE = Zip(
    members=(
        Member(name=b"config.json", data=b'{"layers": 12}\n' * 9, method=DEFLATED),
        Member(name=b"weights.bin", data=bytes(range(256))),
        Member(name=b"vocab.txt", data=b"a\nb\n", descriptor={}),
        Member(name=b"logs/", data=b""),
        Member(name=b"logs/train.txt", data=b"loss 0.1\n" * 9, method=DEFLATED, descriptor={}),
    )
)
"""What every trick is played on; it is accepted as it is."""


@dataclass(frozen=True)
class Case:
    """One hostile archive. ``row`` is its row in faults.md, 0 where only the contract speaks of it."""

    name: str
    row: int
    mutate: Mutation
    codes: frozenset[int]
    limits: ArchiveLimits = USUAL
    whole: bool = False
    """True where the trick is played on the archive as a whole, not with members of its own."""
    heavy: bool = False
    """True where a reader that believes it writes 100 MiB."""

    def build(self) -> bytes:
        return self.mutate(BASE).build()

    def __add__(self, other: Case) -> Case:
        def both(archive: Zip) -> Zip:
            return other.mutate(self.mutate(archive))

        limits = self.limits if other.limits == USUAL else other.limits
        codes, heavy = self.codes | other.codes, self.heavy or other.heavy
        return Case(f"{self.name} + {other.name}", self.row, both, codes, limits, self.whole or other.whole, heavy)


def add(*members: Member) -> Mutation:
    return lambda archive: archive.adding(*members)


def but(**changes: Any) -> Mutation:
    return lambda archive: archive.but(**changes)


def both(**facts: Any) -> dict[str, Any]:
    """The same lie in the local header and in the directory."""
    return {"local": facts, "central": facts}


def cases(row: int, codes: frozenset[int], tricks: Tricks, **more: Any) -> list[Case]:
    return [Case(name, row, mutate, codes, **more) for name, mutate in tricks.items()]


# Names (184, 185, 190, and what the contract adds).

NAMES: dict[int, dict[str, bytes]] = {
    184: {
        "climbs": b"../x",
        "climbs from within": b"a/../../x",
        "climbs and comes back": b"a/../x",
        "two dots": b"..",
        "folder climbs": b"../d/",
        "backslash climbs": b"..\\x",
        "dots and a space": b".. /x",
        "three dots": b"...",
        "three dots folder": b".../x",
        "encoded climb": b"..%2fx",
        "dot": b".",
        "dot first": b"./x",
        "dot in": b"a/./x",
        "dots last": b"a/..",
        "empty": b"",
        "doubled slash": b"a//x",
        "home": b"~/x",
        "home of root": b"~root",
        "mdl's own": b".mdl/x",
        "mdl's own, loud": b".MDL/x",
        "trailing dot": b"x.",
        "trailing space": b"x ",
        "reserved": b"CON",
        "reserved with suffix": b"aux.txt",
        "reserved deep": b"a/lpt1.bin",
        "port": b"com\xc2\xb9",
        "long segment": b"x" * 256,
        "long path": b"/".join([b"y" * 200] * 6),
        "longest": b"z" * 65535,
    },
    185: {
        "absolute": ESCAPES[0].encode(),
        "absolute at root": ESCAPES[1].encode(),
        "double slash": b"//x",
        "UNC": b"\\\\srv\\share\\x",
        "UNC slashes": b"//srv/share/x",
        "slash": b"/",
        "absolute folder": b"/d/",
        "drive": b"C:\\x",
        "drive slash": b"C:/x",
        "drive relative": b"C:x",
        "drive alone": b"c:",
        "drive deep": b"a/d:/x",
        "verbatim": b"\\\\?\\C:\\x",
        "device": b"\\\\.\\COM1",
        "root backslash": b"\\x",
        "stream": b"a\\b:c",
    },
    190: {
        "NUL": b"a\0.txt",
        "NUL hides a suffix": b"a.txt\0.sh",
        "ESC": b"a\x1b[2J",
        "newline": b"a\nb",
        "return": b"a\rb",
        "bell": b"a\7",
        "DEL": b"a\x7f",
        "C1": "a\x9b31m".encode(),
        "right to left": "a\u202etxt.exe".encode(),
        "zero width": "a\u200bb".encode(),
        "byte order mark": "\ufeffa".encode(),
        "line separator": "a\u2028b".encode(),
        "private use": "a\ue000".encode(),
        "surrogate": b"a\xed\xa0\x80",
        "not UTF-8": b"a\xff",
        "overlong slash": b"..\xc0\xafx",
    },
}
CP437 = {
    "CP437": add(Member(name=b"\x82t\x82.txt", **both(flags=0))),
    "bit 11 lies": add(Member(name=b"\x82t\x82.txt", **both(flags=UTF8))),
}


def bad_names() -> Iterator[Case]:
    for row, names in NAMES.items():
        yield from cases(row, UNSAFE, {name: add(Member(name=raw)) for name, raw in names.items()})
    yield from cases(190, UNSAFE, CP437)


# Kinds of member (186, 187).


def link(name: bytes, target: bytes) -> Member:
    return Member(name=name, data=target, mode=stat.S_IFLNK | 0o777)


def asi(mode: int, target: bytes) -> bytes:
    """Info-ZIP's old Unix field, whose mode and link unzip obeys where the directory has no mode."""
    body = pack("<HLHH", mode, len(target), 0, 0) + target
    return extra(0x756E, pack("<L", zlib.crc32(body)) + body)


HARD = extra(0x000D, bytes(12) + b"weights.bin")
LINKS: Tricks = {
    "link out": add(link(b"l", b"/etc/passwd")),
    "link up": add(link(b"l", b"../..")),
    "link inside": add(link(b"l", b"weights.bin")),
    "link, then a file through it": add(link(b"l", b".."), Member(name=b"l/x")),
    "link chain": add(link(b"l1", b"l2"), link(b"l2", b"/etc")),
    "dangling link": add(link(b"l", b"nowhere")),
    "link made by DOS": add(Member(name=b"l", data=b"/etc", mode=stat.S_IFLNK | 0o777, central={"system": 0})),
    "link as a folder": add(Member(name=b"l/", data=b"", mode=stat.S_IFLNK | 0o777)),
    "link, packed": add(Member(name=b"l", data=b"/etc", mode=stat.S_IFLNK | 0o777, method=DEFLATED)),
    "link by Info-ZIP's old field": add(Member(name=b"l", data=b"/etc", mode=0, extra=asi(0o120777, b"/etc"))),
    "PKWARE link": add(Member(name=b"l", data=b"", mode=0o120777, extra=HARD)),
}
PLAIN = extra(0x000D, bytes(12))
TWO_KINDS: Tricks = {
    **{
        f"{name}{where}": add(Member(name=b"l", data=b"/etc", mode=mode, **facts))
        for name, mode, fields in (
            ("a link, then a file, by Info-ZIP's old field", 0, asi(0o120777, b"/etc") + asi(0o100644, b"")),
            ("a file, then a link, by Info-ZIP's old field", 0, asi(0o100644, b"") + asi(0o120777, b"/etc")),
            ("two modes by Info-ZIP's old field", 0, asi(0o100644, b"") + asi(0o100755, b"")),
            ("a link, then a file, by PKWARE's field", None, HARD + PLAIN),
            ("a file, then a link, by PKWARE's field", None, PLAIN + HARD),
        )
        for where, facts in (("", {"extra": fields}), (", told locally", {"local": {"extra": fields}}))
    }
}
KINDS: Tricks = {
    "hard link": add(Member(name=b"h", data=b"", extra=HARD)),
    "hard link, told locally": add(Member(name=b"h", data=b"", local={"extra": HARD})),
    "hard link of two files": add(Member(name=b"h1", data=b"", extra=HARD), Member(name=b"h2", data=b"", extra=HARD)),
    **{
        f"{kind} {name}": add(Member(name=b"n" + b"/" * (name == "folder"), data=b"", mode=mode | 0o644))
        for kind, mode in {
            "character device": stat.S_IFCHR,
            "block device": stat.S_IFBLK,
            "FIFO": stat.S_IFIFO,
            "socket": stat.S_IFSOCK,
            "whiteout": 0o160000,
            "door": 0o150000,
        }.items()
        for name in ("member", "folder")
    },
    "file that says folder": add(Member(name=b"n", mode=stat.S_IFDIR | 0o755)),
    "folder that says file": add(Member(name=b"n/", data=b"", mode=stat.S_IFREG | 0o644)),
    "folder with data": add(Member(name=b"n/")),
}


# Two of one name, a file that is a folder (188, 189).


def twins(*names: str) -> Mutation:
    """Members of these names; what they hold differs."""
    return add(*(Member(name=one.encode(), data=b"" if one[-1] == "/" else b"%d" % n) for n, one in enumerate(names)))


TWINS: Tricks = {
    "same name": twins("t", "t"),
    "same name, same bytes": add(Member(name=b"t"), Member(name=b"t")),
    "name of the base": twins("weights.bin"),
    "three times": twins("t", "t", "t"),
    "same folder": twins("t/", "t/"),
    "by case": twins("Model.bin", "model.bin"),
    "by case, deep": twins("a/b/C", "a/b/c"),
    "folders by case": twins("A/x", "a/y"),
    "folder lines by case": twins("A/", "a/"),
    "NFC and NFD": twins("caf\u00e9", "cafe\u0301"),
    "folders NFC and NFD": twins("caf\u00e9/x", "cafe\u0301/y"),
    "sharp s": twins("stra\u00dfe", "strasse"),
    "Kelvin": twins("\u212a", "k"),
    "ligature": twins("\ufb01le", "file"),
    "file and folder": twins("t", "t/"),
    "folder and file": twins("t/", "t"),
    "file and folder by case": twins("T", "t/"),
    "with a dot segment": twins("t", "t/."),
    "with a trailing dot": twins("t", "t."),
    "with a trailing space": twins("t", "t "),
}
FILE_AS_FOLDER: Tricks = {
    "file, then in it": twins("d", "d/x"),
    "in it, then file": twins("d/x", "d"),
    "by case": twins("D", "d/x"),
    "in it by case, then file": twins("d/x", "D"),
    "far below": twins("d", "d/e/f/g"),
    "NFD": twins("caf\u00e9", "cafe\u0301/x"),
    "file of the base": twins("weights.bin/x"),
    "folder of the base": twins("logs"),
}


# The second name (191).


def second_name(raw: bytes, text: bytes, version: int = 1, crc: int | None = None) -> bytes:
    return extra(0x7075, pack("<BL", version, zlib.crc32(raw) if crc is None else crc) + text)


AGREES = second_name(b"u", b"u")
SECOND_NAMES: Tricks = {
    "differs": add(Member(name=b"u", extra=second_name(b"u", b"v"))),
    "climbs": add(Member(name=b"u", extra=second_name(b"u", b"../u"))),
    "twice": add(Member(name=b"u", extra=AGREES + AGREES)),
    "twice, the second differs": add(Member(name=b"u", extra=AGREES + second_name(b"u", b"v"))),
    "bad CRC": add(Member(name=b"u", extra=second_name(b"u", b"u", crc=1))),
    "bad CRC and differs": add(Member(name=b"u", extra=second_name(b"u", b"v", crc=1))),
    "unknown version": add(Member(name=b"u", extra=second_name(b"u", b"u", version=2))),
    "too short": add(Member(name=b"u", extra=extra(0x7075, b"\1"))),
    "empty": add(Member(name=b"u", extra=second_name(b"u", b""))),
    "not UTF-8": add(Member(name=b"u", extra=second_name(b"u", b"\xff"))),
    "NUL": add(Member(name=b"u", extra=second_name(b"u", b"u\0"))),
    "differs, local header only": add(Member(name=b"u", local={"extra": second_name(b"u", b"v")})),
    "differs, directory only": add(Member(name=b"u", central={"extra": second_name(b"u", b"v")})),
    "chain": add(
        Member(name=b"u1", extra=second_name(b"u1", b"u2")), Member(name=b"u2", extra=second_name(b"u2", b"u3"))
    ),
    "makes twins": add(Member(name=b"u1", extra=second_name(b"u1", b"u2")), Member(name=b"u2")),
    "makes a folder": add(Member(name=b"u", extra=second_name(b"u", b"u/"))),
    "hidden behind a torn field": add(Member(name=b"u", extra=second_name(b"u", b"v") + b"\1\0\xff\xff")),
}


# Local header against directory (192).

TEXT = b"some text\n"
LIES: dict[str, dict[str, Any]] = {
    "name": {"name": b"n"},
    "name of the same length": {"name": b"x/escape"},
    "name climbs": {"name": b"../m.txt"},
    "name by case": {"name": b"MEMBERS1"},
    "name longer": {"name": b"members1.more"},
    "size": {"size": 3},
    "size larger": {"size": 300},
    "packed": {"packed": 3},
    "packed larger": {"packed": 300},
    "both sizes": {"size": 3, "packed": 3},
    "CRC": {"crc": 1},
    "method": {"method": DEFLATED},
    "unknown method": {"method": 99},
    "encrypted": {"flags": 1},
    "bit 3": {"flags": DEFERRED},
    "bit 11": {"flags": UTF8},
    "effort bits": {"flags": 2},
    "signature": {"signature": b"PK\3\5"},
    "zero sizes": {"size": 0, "packed": 0, "crc": 0},
}
DISAGREEING: Tricks = {
    **{f"local {name}": add(Member(name=b"members1", local=lie)) for name, lie in LIES.items()},
    **{
        f"local {name}, deferred": add(
            Member(
                name=b"members1", descriptor={}, local=lie if "flags" not in lie else {"flags": lie["flags"] ^ DEFERRED}
            )
        )
        for name, lie in LIES.items()
        if name not in ("bit 3", "zero sizes")
    },
    "directory size": add(Member(name=b"m", central={"size": 3})),
    "directory packed": add(Member(name=b"m", central={"packed": 3})),
    "directory CRC": add(Member(name=b"m", central={"crc": 1})),
    "directory name": add(Member(name=b"m", central={"name": b"n"})),
    "directory method": add(Member(name=b"m", central={"method": DEFLATED})),
    "extra field torn": add(Member(name=b"m", extra=b"\1\0\x10\0abc")),
    "extra field torn, local header": add(Member(name=b"m", local={"extra": b"\1\0\x10\0abc"})),
    "extra field of one byte": add(Member(name=b"m", extra=b"x")),
    "not in the directory, last": add(Member(name=b"hidden", listed=False)),
    "not in the directory, between": add(Member(name=b"hidden", listed=False), Member(name=b"after")),
    "gap before a member": add(Member(name=b"m", before=b"gap")),
    "gap of zeros before a member": add(Member(name=b"m", before=bytes(16))),
}
GHOSTS: Tricks = {
    "in the directory alone": add(Member(name=b"ghost", written=False)),
    "in the directory alone, between": add(Member(name=b"ghost", written=False), Member(name=b"after")),
    "in the directory alone, empty": add(Member(name=b"ghost", data=b"", written=False)),
    "in the directory alone, beyond": add(Member(name=b"ghost", written=False, central={"at": 2**31})),
    "in the directory alone, a folder": add(Member(name=b"ghost/", data=b"", written=False)),
}


def counted(step: int) -> Mutation:
    def lie(archive: Zip) -> Zip:
        count = sum(member.listed for member in archive.members) + step
        return archive.but(end={**(archive.end or {}), "here": count, "count": count})

    return lie


COUNTS: Tricks = {
    "no member told": but(end={"here": 0, "count": 0}),
    "a thousand members told": but(end={"here": 1000, "count": 1000}),
    "10^12 members told": but(
        end64={"here": 10**12, "count": 10**12}, locator={}, end={"here": FULL16, "count": FULL16}
    ),
}
WHOLE_DISAGREEING: Tricks = {
    "one member more told": counted(1),
    "one member fewer told": counted(-1),
    "directory longer": lambda archive: archive.but(lost=b"PK"),
    "a record behind the directory's members": but(lost=b"PK\5\5\0\0"),
    "gap before the directory": but(gap=b"gap"),
    "archive extra data record": but(gap=b"PK\6\x08\4\0\0\0gaps"),
    "gap behind the directory": but(gap_end=b"gap"),
    "directory size too small": but(end={"size": 46}),
    "directory size zero": but(end={"size": 0}),
    "directory size huge": but(end={"size": FULL32 - 1}),
    "directory at zero": but(end={"at": 0}),
    "directory beyond": but(end={"at": FULL32 - 1}),
}


# End records, what stands before and behind them (193).


def plain_end(**facts: int) -> bytes:
    none = {"disk": 0, "start": 0, "here": 0, "count": 0, "size": 0, "at": 0, "comments": 0}
    return END.pack(none | facts)


OTHER = Zip(members=(Member(name=b"other.txt", data=b"the other archive"),))


def two_ends(archive: Zip) -> Zip:
    """Two end records, each with a comment that reaches to the end of the file."""
    second = plain_end()
    return archive.but(comment=second)


def appended(archive: Zip) -> Zip:
    return archive.but(suffix=OTHER.build())


def appended_moved(archive: Zip) -> Zip:
    """Another whole archive behind this one, its offsets counting what stands before it."""
    return archive.but(suffix=OTHER.but(prefix=archive.build(), moved=True).build()[len(archive.build()) :])


ENDS: Tricks = {
    "end record twice": lambda archive: archive.but(suffix=list(archive.pieces())[-3]),
    "empty end record behind": but(suffix=plain_end()),
    "end record in the comment": two_ends,
    "end record in the comment, not last": but(comment=plain_end() + b"more"),
    "end record in the comment, of another directory": lambda archive: archive.but(comment=OTHER.build()),
    "signature in the comment": but(comment=b"see PK\5\6 there"),
    "comment shorter than told": but(comment=b"hi", end={"comments": 9}),
    "comment longer than told": but(comment=b"comment", end={"comments": 2}),
    "comment told as none": but(comment=b"comment", end={"comments": 0}),
    "comment told, none there": but(end={"comments": 4}),
    "prefix": but(prefix=b"#!/bin/sh\nexit\n"),
    "prefix, offsets moved": but(prefix=b"#!/bin/sh\nexit\n", moved=True),
    "prefix of zeros": but(prefix=bytes(512), moved=True),
    "prefix that is a split mark": but(prefix=b"PK\7\10", moved=True),
    "prefix that is a mark of one volume": but(prefix=b"PK00", moved=True),
    "prefix that is an archive": but(prefix=OTHER.build()),
    "prefix that is an archive, moved": but(prefix=OTHER.build(), moved=True),
    "suffix": but(suffix=b"suffix"),
    "suffix of one byte": but(suffix=b"\0"),
    "suffix of zeros": but(suffix=bytes(1024)),
    "suffix longer than any comment": but(suffix=b"x" * 70000),
    "archive appended": appended,
    "archive appended, moved": appended_moved,
    "end record's signature broken": but(end={"signature": b"PK\5\7"}),
    "no end record": but(end=None),
}


# 64-bit records (194).

WIDE: Tricks = {
    "sizes without the field": add(Member(name=b"w", central={"size": FULL32, "packed": FULL32})),
    "offset without the field": add(Member(name=b"w", central={"at": FULL32})),
    "field too short": add(Member(name=b"w", central={"size": FULL32, "packed": FULL32, "extra": wide(10)})),
    "field empty": add(Member(name=b"w", central={"size": FULL32, "packed": FULL32, "extra": wide()})),
    "field too long": add(Member(name=b"w", central={"size": FULL32, "packed": FULL32, "extra": wide(10, 10, 0)})),
    "field of seven bytes": add(Member(name=b"w", central={"size": FULL32, "extra": extra(1, bytes(7))})),
    "field where none is due": add(Member(name=b"w", central={"extra": wide(10, 10)})),
    "field twice": add(Member(name=b"w", central={"size": FULL32, "extra": wide(10) + wide(10)})),
    "field twice, the second lies": add(Member(name=b"w", central={"size": FULL32, "extra": wide(10) + wide(99)})),
    "field lies": add(Member(name=b"w", central={"size": FULL32, "packed": FULL32, "extra": wide(99, 99)})),
    "field lies in both": add(Member(name=b"w", **both(size=FULL32, packed=FULL32, extra=wide(99, 99)))),
    "local sizes without the field": add(Member(name=b"w", local={"size": FULL32, "packed": FULL32})),
    "local field of one size": add(Member(name=b"w", local={"size": FULL32, "extra": wide(10)})),
    "local field where none is due": add(Member(name=b"w", local={"extra": wide(10, 10)})),
    "local field lies where none is due": add(Member(name=b"w", local={"extra": wide(99, 99)})),
    "local field lies": add(Member(name=b"w", local={"size": FULL32, "packed": FULL32, "extra": wide(10, 99)})),
    "local field twice": add(
        Member(name=b"w", local={"size": FULL32, "packed": FULL32, "extra": wide(10, 10) + wide(10, 10)})
    ),
}
HUGE: Tricks = {
    "stored beyond the end": add(Member(name=b"w", **both(size=FULL32, packed=FULL32, extra=wide(2**40, 2**40)))),
    "offset beyond 2^63": add(Member(name=b"w", central={"at": FULL32, "extra": wide(2**64 - 1)})),
}
ENDS64: Tricks = {
    "locator elsewhere": but(end64={}, locator={"at": 0}),
    "locator beyond the end": but(end64={}, locator={"at": 2**63}),
    "locator at the directory": lambda archive: archive.but(end64={}, locator={"at": archive.boundaries()[0]}),
    "locator without its record": but(locator={}),
    "locator before the end record": lambda archive: archive.but(end64={}, gap_end64=bytes(56), locator={}),
    "record without a locator": but(end64={}),
    "record without an end record": but(end64={}, locator={}, end=None),
    "gap before the record": but(gap_end=b"gap", end64={}, locator={}),
    "gap behind the record": but(end64={}, gap_end64=b"gap", locator={}),
    "record's signature broken": but(end64={"signature": b"PK\6\5"}, locator={}),
    "record longer": but(end64={"length": 60}, gap_end64=b"more", locator={}),
    "record shorter": but(end64={"length": 4}, locator={}),
    "count contradicts": but(end64={"here": 1, "count": 1}, locator={}),
    "size contradicts": but(end64={"size": 99}, locator={}),
    "offset contradicts": but(end64={"at": 1}, locator={}),
    "end record full, no record": but(end={"here": FULL16, "count": FULL16, "size": FULL32, "at": FULL32}),
    "count full, no record": but(end={"here": FULL16, "count": FULL16}),
    "offset full, no record": but(end={"at": FULL32}),
    "record lies behind a full end record": but(
        end64={"here": 1, "count": 1}, locator={}, end={"here": FULL16, "count": FULL16}
    ),
    "record's directory beyond": but(end64={"at": 2**64 - 1}, locator={}, end={"at": FULL32}),
}


# Overlaps and bombs (195, 196).


def overlapping(archive: Zip) -> Zip:
    """A second line of the directory for a local header that is there once."""
    at = archive.data_end
    return archive.adding(Member(name=b"o1"), Member(name=b"o2", written=False, central={"at": at}))


def overlapping_same_name(archive: Zip) -> Zip:
    at = archive.data_end
    return archive.adding(Member(name=b"o"), Member(name=b"o", written=False, central={"at": at}))


def overlapping_tail(archive: Zip) -> Zip:
    """A stored member that says it reaches over the next one."""
    inner = Member(name=b"o2")
    data = b"start" + inner.local_header() + inner.packed
    outer = Member(name=b"o1", data=data)
    at = archive.data_end + len(outer.local_header()) + 5
    return archive.adding(outer, Member(name=b"o2", written=False, central={"at": at}))


def safe_excerpt(depth: int, kernel: bytes) -> Mutation:
    """Fifield's: each member's deflate stream quotes the next one's local header and goes on into its data."""

    def mutate(archive: Zip) -> Zip:
        body, data = deflated(kernel), kernel
        inner = Member(name=b"q0", data=data, body=body, method=DEFLATED)
        chain, offsets = [inner], [0]
        for n in range(1, depth):
            head = chain[-1].local_header()
            body = pack("<BHH", 0, len(head), len(head) ^ FULL16) + head + chain[-1].packed
            data = head + chain[-1].data
            chain.append(Member(name=b"q%d" % n, data=data, body=body, method=DEFLATED))
            offsets.append(len(chain[-1].local_header()) + 5)
        outer, at = chain[-1], archive.data_end
        lines = []
        for member, step in zip(reversed(chain[:-1]), reversed(offsets[1:]), strict=True):
            at += step
            lines.append(replace(member, written=False, central={"at": at}))
        return archive.adding(outer, *lines)

    return mutate


OVERLAPS: Tricks = {
    "one local header, two lines": overlapping,
    "one local header, two lines of one name": overlapping_same_name,
    "member within a member": overlapping_tail,
    "quoted": safe_excerpt(2, b"kernel" * 500),
    "quoted bomb": safe_excerpt(30, bytes(100_000)),
    "line at the base's first member": add(Member(name=b"o", written=False, central={"at": 0})),
    "line amid the base's data": add(Member(name=b"o", written=False, central={"at": 40})),
    "packed size reaches over the next": add(Member(name=b"o1", **both(size=20, packed=20)), Member(name=b"o2")),
}


@functools.cache
def zeros(size: int) -> tuple[bytes, int]:
    """That many zeros, deflated about 1000:1, and their CRC."""
    data = bytes(size)
    return deflated(data), zlib.crc32(data)


def bomb(name: bytes, size: int, told: int | None = None) -> Member:
    body, crc = zeros(size)
    told = size if told is None else told
    return Member(name=name, data=b"", body=body, method=DEFLATED, **both(size=told, crc=crc))


def told_wide(size: int) -> Member:
    """A MiB that is said to be ``size`` bytes, in 64 bits."""
    one = bomb(b"t", MIB)
    return replace(one, **both(**{**one.local, "size": FULL32}, packed=FULL32, extra=wide(size, len(one.packed))))


BOMBS: Tricks = {
    "flat": lambda archive: archive.adding(bomb(b"flat", 101 * MIB)),
    "of many members": lambda archive: archive.adding(*(bomb(b"part-%02d" % n, 10 * MIB) for n in range(11))),
}
TOLD_BOMBS: Tricks = {
    "told as a terabyte": lambda archive: archive.adding(told_wide(2**40)),
    "told as 2^64": lambda archive: archive.adding(told_wide(2**64 - 1)),
    "told as 4 GiB": lambda archive: archive.adding(bomb(b"t", MIB, FULL32 - 1)),
}
CROWDS: Tricks = {
    "too many empty files": add(*(Member(name=b"%d" % n, data=b"") for n in range(100))),
    "too many folders": add(*(Member(name=b"%d/" % n, data=b"") for n in range(100))),
}


# Sizes, sums, descriptors, streams (197).

LONG = b"0123456789" * 1000
SHORT_CRC = zlib.crc32(LONG[:10])


def unpacked_as(**facts: Any) -> Mutation:
    return add(Member(name=b"s", data=LONG, method=DEFLATED, **both(**facts)))


def streaming(body: bytes, **facts: Any) -> Mutation:
    return add(Member(name=b"s", data=LONG, method=DEFLATED, body=body, **both(**facts)))


STREAMS: Tricks = {
    "told smaller": unpacked_as(size=10),
    "told smaller, the CRC fits": unpacked_as(size=10, crc=SHORT_CRC),
    "told empty, the CRC fits": unpacked_as(size=0, crc=0),
    "told one byte smaller": unpacked_as(size=len(LONG) - 1, crc=zlib.crc32(LONG[:-1])),
    "told larger": unpacked_as(size=len(LONG) + 1),
    "told much larger": unpacked_as(size=10**7),
    "bad CRC, deflated": unpacked_as(crc=1),
    "bad CRC, stored": add(Member(name=b"s", **both(crc=1))),
    "bad CRC, empty": add(Member(name=b"s", data=b"", **both(crc=1))),
    "stream cut": streaming(deflated(LONG)[:-3]),
    "stream empty": streaming(b""),
    "stream is garbage": streaming(b"\xff" * 50),
    "stream never ends": streaming(b"\0\1\0\xfe\xffx" * 10),
    "bytes behind the stream": streaming(deflated(LONG) + b"payload"),
    "a second stream behind": streaming(deflated(LONG) + deflated(b"payload")),
    "zlib instead of deflate": streaming(zlib.compress(LONG)),
    "stored with two sizes": add(Member(name=b"s", **both(size=3))),
    "stored with two sizes, larger": add(Member(name=b"s", **both(size=300))),
    "a folder's CRC": add(Member(name=b"s/", data=b"", **both(crc=1))),
    "a payload in a folder": add(Member(name=b"s/", data=b"", body=deflated(LONG), method=DEFLATED)),
    **{
        f"descriptor's {name}, {width}": add(Member(name=b"s", descriptor=lie, width=width))
        for name, lie in {"CRC": {"crc": 1}, "size": {"size": 3}, "packed": {"packed": 3}}.items()
        for width in (12, 16, 20, 24)
    },
    "descriptor of zeros": add(Member(name=b"s", descriptor={"crc": 0, "size": 0, "packed": 0})),
    "descriptor's signature": add(Member(name=b"s", descriptor={"signature": b"PK\7\7"})),
    "descriptor missing": add(Member(name=b"s", flags=DEFERRED, local={"crc": 0, "size": 0, "packed": 0})),
    "descriptor cut": add(
        Member(name=b"s", flags=DEFERRED, local={"crc": 0, "size": 0, "packed": 0}),
        Member(name=b"after", before=b"PK\7\10" + pack("<LL", zlib.crc32(TEXT), 10)),
    ),
    "descriptor not due": add(
        Member(name=b"s"), Member(name=b"after", before=b"PK\7\10" + pack("<3L", zlib.crc32(TEXT), 10, 10))
    ),
    "descriptor and more": add(Member(name=b"s", descriptor={}), Member(name=b"after", before=b"more")),
}


# What nobody here opens, and volumes (198, 199).

AES = extra(0x9901, b"\2\0AE\3\x08\0")
CLOSED: Tricks = {
    **{
        f"flag {bit}": add(Member(name=b"e", **both(flags=1 << bit)))
        for bit in (0, 4, 5, 6, 7, 8, 9, 10, 12, 13, 14, 15)
    },
    "encrypted, deferred": add(Member(name=b"e", descriptor={}, **both(flags=9))),
    "AES": add(Member(name=b"e", extra=AES, **both(method=99, flags=1))),
    "AES without its flag": add(Member(name=b"e", extra=AES, **both(method=99))),
    "headers masked": add(Member(name=b"e", flags=1 | 1 << 6 | 1 << 13, local={"crc": 0, "size": 0, "packed": 0})),
    **{
        f"method {number}": add(Member(name=b"e", **both(method=number)))
        for number in (1, 2, 6, 7, 9, 10, 12, 14, 18, 20, 93, 95, 96, 97, 98, 255, 65535)
    },
    "another volume": add(Member(name=b"e", central={"disk": 1})),
    "another volume, wide": add(Member(name=b"e", central={"disk": FULL16, "extra": extra(1, pack("<L", 7))})),
}
VOLUMES: Tricks = {
    "volume told": but(end={"disk": 1}),
    "first volume told": but(end={"start": 1}),
    "last of three": but(end={"disk": 2, "start": 2}),
    "members elsewhere": but(end={"here": 1}),
    "locator of two volumes": but(end64={}, locator={"disks": 2}),
    "locator of none": but(end64={}, locator={"disks": 0}),
    "locator on another": but(end64={}, locator={"disk": 1}),
    "record on another": but(end64={"disk": 1, "start": 1}, locator={}, end={"disk": FULL16, "start": FULL16}),
}
BEYOND: Tricks = {
    "size beyond the archive": add(Member(name=b"b", **both(size=10**6, packed=10**6))),
    "size beyond the archive, deflated": add(Member(name=b"b", method=DEFLATED, **both(packed=10**6))),
    "names beyond the archive": add(Member(name=b"b", local={"names": FULL16})),
    "extra fields beyond the archive": add(Member(name=b"b", local={"extras": FULL16})),
    "names beyond the directory": add(Member(name=b"b", central={"names": FULL16})),
    "comment beyond the directory": add(Member(name=b"b", central={"comments": FULL16})),
    "directory's signature": add(Member(name=b"b", central={"signature": b"PK\1\3"})),
}


# The manifest and safetensors (contract: a digest that does not match is damage; a newer schema is 12).


def facts_of(archive: Zip) -> dict[str, Any]:
    """What an honest manifest of these members says."""
    files = [
        {"path": one.name.decode(errors="replace"), "size": len(one.data), "sha256": sha256(one.data).hexdigest()}
        for one in archive.members
        if not one.name.endswith(b"/")
    ]
    none = {
        "run": "",
        "checkpoint": "",
        "step": None,
        "layout": "",
        "inference_only": False,
        "changed": [],
        "skipped": [],
    }
    return {"schema": "mdl.manifest/1", **none, "files": files}


def with_manifest(archive: Zip, text: bytes | None = None) -> Zip:
    data = json.dumps(facts_of(archive)).encode() if text is None else text
    return archive.adding(Member(name=b"mdl-manifest.json", data=data, method=DEFLATED))


def manifest(lie: Callable[[dict[str, Any]], object]) -> Mutation:
    """A manifest that is right but for one lie, told by changing its facts or by other ones altogether."""

    def mutate(archive: Zip) -> Zip:
        facts = facts_of(archive)
        told = lie(facts)
        return with_manifest(archive, told if isinstance(told, bytes) else json.dumps(facts).encode())

    return mutate


def first(**lie: Any) -> Mutation:
    return manifest(lambda facts: facts["files"][0].update(lie))


NOBODYS = {"path": "ghost.bin", "size": 1, "sha256": "0" * 64}
MANIFESTS: Tricks = {
    "lists a file that is not there": manifest(lambda facts: facts["files"].append(NOBODYS)),
    "lists a climbing file": manifest(lambda facts: facts["files"].append(NOBODYS | {"path": "../x\x1b[2J"})),
    "lists a surrogate": manifest(lambda facts: facts["files"].append(NOBODYS | {"path": "\ud800"})),
    "lists a folder": manifest(lambda facts: facts["files"].append(NOBODYS | {"path": "logs/"})),
    "lists itself": manifest(lambda facts: facts["files"].append(NOBODYS | {"path": "mdl-manifest.json"})),
    "leaves a file out": manifest(lambda facts: facts["files"].pop()),
    "lists nothing": manifest(lambda facts: facts["files"].clear()),
    "lists a file twice, once wrongly": manifest(
        lambda facts: facts["files"].insert(0, facts["files"][0] | {"sha256": "0" * 64, "size": 7})
    ),
    "wrong size": first(size=1),
    "wrong digest": first(sha256="0" * 64),
    "digest in capitals": first(sha256=sha256(BASE.members[0].data).hexdigest().upper()),
    "digest too short": first(sha256="00"),
    "digest is a number": first(sha256=0),
    "size below zero": first(size=-1),
    "size is a word": first(size="135"),
    "size is true": first(size=True),
    "size of 4300 digits": manifest(lambda facts: json.dumps(facts).replace("135", "9" * 4300, 1).encode()),
    "size of 9999 digits": manifest(lambda facts: json.dumps(facts).replace("135", "9" * 9999, 1).encode()),
    "size is infinite": manifest(lambda facts: json.dumps(facts).replace("135", "1e999", 1).encode()),
    "path is a list": first(path=["x"]),
    "files is null": manifest(lambda facts: facts.update(files=None)),
    "files is a word": manifest(lambda facts: facts.update(files="files")),
    "no files": manifest(lambda facts: facts.pop("files") and None),
    "no schema": manifest(lambda facts: facts.pop("schema") and None),
    "not JSON": manifest(lambda _: b"hello"),
    "cut": manifest(lambda facts: json.dumps(facts).encode()[:-20]),
    "empty": manifest(lambda _: b""),
    "not UTF-8": manifest(lambda _: b'{"schema": "\xff"}'),
    "a list": manifest(lambda _: b"[]"),
    "a word": manifest(lambda _: b'"mdl.manifest/1"'),
    "null": manifest(lambda _: b"null"),
    "nested without end": manifest(lambda _: b"[" * 200_000),
    "huge": manifest(lambda _: b" " * (3 * MIB)),
    "wrong CRC": lambda archive: archive.adding(
        Member(name=b"mdl-manifest.json", data=json.dumps(facts_of(archive)).encode(), **both(crc=1))
    ),
}
STEPS: Tricks = {
    "step of 300 digits": manifest(lambda facts: facts.update(step=10**300)),
    "step past 64 bits": manifest(lambda facts: facts.update(step=2**63)),
    "step below zero": manifest(lambda facts: facts.update(step=-1)),
    "step is true": manifest(lambda facts: facts.update(step=True)),
    "step is a word": manifest(lambda facts: facts.update(step="1500")),
}
NEWER_MANIFESTS: Tricks = {
    "of a newer mdl": manifest(lambda facts: facts.update(schema="mdl.manifest/2")),
    "of a far newer mdl": manifest(lambda _: b'{"schema": "mdl.manifest/99", "what": "ever"}'),
    "of something else": manifest(lambda facts: facts.update(schema="\x1b[2J")),
}


def safetensors(header: bytes, tensors: bytes = b"", told: int | None = None) -> Mutation:
    data = pack("<Q", len(header) if told is None else told) + header + tensors
    return add(Member(name=b"m.safetensors", data=data, method=DEFLATED))


def tensor(end: str) -> bytes:
    return b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,%s]}}' % end.encode()


SAFETENSORS: Tricks = {
    "tensors cut": safetensors(tensor("1000"), bytes(999)),
    "no tensors": safetensors(tensor("4")),
    "header cut": safetensors(tensor("4")[:20], told=200),
    "empty": add(Member(name=b"m.safetensors", data=b"")),
}


def every_case() -> Iterator[Case]:
    """Each trick alone."""
    few, small = ArchiveLimits(members=50), ArchiveLimits(bytes=200)
    yield from bad_names()
    yield from cases(186, UNSAFE, LINKS)
    yield from cases(187, UNSAFE, KINDS)
    yield from cases(282, EITHER, TWO_KINDS)
    yield from cases(188, UNSAFE, TWINS)
    yield from cases(189, UNSAFE, FILE_AS_FOLDER)
    yield from cases(191, EITHER, SECOND_NAMES)
    yield from cases(192, EITHER, DISAGREEING)
    yield from cases(192, EITHER, GHOSTS)
    yield from cases(192, BAD, WHOLE_DISAGREEING, whole=True)
    yield from cases(192, EITHER, COUNTS, whole=True)
    yield from cases(193, BAD, ENDS, whole=True)
    yield from cases(194, BAD, WIDE)
    yield from cases(194, EITHER, HUGE)
    yield from cases(194, BAD, ENDS64, whole=True)
    yield from cases(195, EITHER, OVERLAPS)
    yield from cases(196, UNSAFE, BOMBS, heavy=True)
    yield from cases(196, UNSAFE, TOLD_BOMBS)
    yield from cases(196, UNSAFE, CROWDS, limits=few)
    yield from cases(196, UNSAFE, {"more than --max-size": add(Member(name=b"b", data=bytes(500)))}, limits=small)
    yield from cases(197, EITHER, STREAMS)
    yield from cases(198, UNSAFE, CLOSED)
    yield from cases(198, UNSAFE, VOLUMES, whole=True)
    yield from cases(199, BAD, BEYOND)
    yield from cases(0, BAD, {f"manifest {name}": trick for name, trick in MANIFESTS.items()}, whole=True)
    yield from cases(284, BAD, {f"manifest {name}": trick for name, trick in STEPS.items()}, whole=True)
    yield from cases(0, NEWER, {f"manifest {name}": trick for name, trick in NEWER_MANIFESTS.items()}, whole=True)
    yield from cases(0, BAD, {f"safetensors {name}": trick for name, trick in SAFETENSORS.items()})


@dataclass(frozen=True)
class Cut:
    """An honest archive that ends too early."""

    stop: int

    def __call__(self, archive: Zip) -> Zip:
        return Zip(prefix=archive.build()[: self.stop], end=None)


def cut_cases() -> Iterator[Case]:
    """Cut before, at and behind the start of every record; and what was never an archive."""
    whole = len(BASE.build())
    stops = {0, 1, 21, whole - 1, *(at + step for at in BASE.boundaries() for step in (-1, 0, 1))}
    yield from cases(193, BAD, {f"cut at {at}": Cut(at) for at in sorted(stops)}, whole=True)
    strange = {
        "text": b"this is no archive, " * 9,
        "zeros": bytes(22),
        "zeros, long": bytes(100_000),
        "gzip": b"\x1f\x8b\x08" + bytes(99),
        "html": b"<!doctype html><title>404</title>",
        "signature": b"PK\5\6",
        "signatures": b"PK\5\6" * 20_000,
        "tar": b"x".ljust(257, b"\0") + b"ustar".ljust(10_000, b"\0"),
    }
    yield from cases(
        193, BAD, {f"not a zip: {name}": but(members=(), prefix=raw, end=None) for name, raw in strange.items()}
    )


def pairs(alone: list[Case]) -> Iterator[Case]:
    """Two tricks on one archive: the first and the last of every table, each with each of another table."""
    tables: dict[tuple[int, frozenset[int], bool], list[Case]] = {}
    for case in alone:
        tables.setdefault((case.row, case.codes, case.whole), []).append(case)
    chosen = [case for table in tables.values() for case in dict.fromkeys((table[0], table[-1]))]
    own, whole = [one for one in chosen if not one.whole], [one for one in chosen if one.whole]
    yield from (one + other for one, other in combinations(own, 2) if one.row != other.row)
    yield from (one + other for one, other in product(own, whole))


ALONE = [*every_case()]
CUTS = [*cut_cases()]
PAIRS = [*pairs(ALONE)]
CORPUS = [*ALONE, *CUTS, *PAIRS]


# Trying one out.


@dataclass(frozen=True)
class Outcome:
    """``code`` is 0 where it was accepted; ``traces`` are what is there afterwards and was not, or is changed."""

    code: int
    traces: frozenset[str]
    seconds: float
    error: MdlError | None = None


def snapshot(folder: Path) -> dict[str, tuple[int, int, int, int]]:
    """Everything below ``folder``, and it itself: kind, inode, and of files size and time."""
    found = {}
    for place in (folder, *folder.rglob("*")):
        facts = place.lstat()
        is_folder = stat.S_ISDIR(facts.st_mode)
        size, moment = (0, 0) if is_folder else (facts.st_size, facts.st_mtime_ns)
        found[str(place)] = (facts.st_mode, facts.st_ino, size, moment)
    return found


def tree(folder: Path) -> dict[str, bytes | None]:
    """Every file below ``folder`` with its bytes, every folder with None."""
    found: dict[str, bytes | None] = {}
    for place, folders, files in os.walk(folder):
        within = os.path.relpath(place, folder)
        prefix = "" if within == "." else f"{within}/"
        found |= dict.fromkeys(prefix + name for name in folders)
        found |= {prefix + name: Path(place, name).read_bytes() for name in files}
    return found


def try_out(folder: Path, data: bytes, limits: ArchiveLimits = USUAL) -> Outcome:
    """Unpack ``data`` in the midst of ``folder``, where there is room around to escape into."""
    near = folder / "far" / "near"
    near.mkdir(parents=True, exist_ok=True)
    archive = near / "archive.zip"
    archive.write_bytes(data)
    (near / "bystander").touch()
    before, began, error = snapshot(folder), time.perf_counter(), None
    try:
        unpack(archive, near / "out", limits=limits)
    except MdlError as caught:
        error = caught
    seconds, after = time.perf_counter() - began, snapshot(folder)
    traces = {place for place in before.keys() | after.keys() if before.get(place) != after.get(place)}
    traces |= {place for place in ESCAPES if os.path.lexists(place)}
    return Outcome(error.exit_code if error else 0, frozenset(traces), seconds, error)


@dataclass(frozen=True)
class Control:
    """What Python's own zipfile does with the same bytes; ``renamed``: under other names than the archive's."""

    accepted: bool
    renamed: bool = False
    outside: bool = False


def control(folder: Path, data: bytes) -> Control:
    near = folder / "far" / "near"
    near.mkdir(parents=True)
    archive, target = near / "archive.zip", near / "out"
    archive.write_bytes(data)
    before = snapshot(folder)
    try:
        with zipfile.ZipFile(archive) as opened:
            opened.extractall(target)
            names = {info.orig_filename.rstrip("/") for info in opened.infolist()}
    except Exception:  # whatever it is, it was refused
        return Control(False)
    wrote = tree(target) if target.exists() else {}
    parents = {name[:at] for name in names for at, char in enumerate(name) if char == "/"}
    strange = set(snapshot(folder)) - set(before)
    outside = any(not Path(place).is_relative_to(target) for place in strange)
    return Control(True, names | parents != set(wrote), outside or any(map(os.path.lexists, ESCAPES)))
