"""The hostile corpus: every trick of faults.md, group K, alone and in pairs; and how one is tried out.

A trick is a function from an honest archive to a hostile one, so that two of them can be played on one archive.
The exit codes are the documented ones: 11 for what is unsafe, 6 for what is damaged or contradicts itself, either if a
trick is both.
"""

from __future__ import annotations

import functools
import json
import os
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import combinations, product
from pathlib import Path
from struct import pack
from typing import Any

from mdl.archive.base import ArchiveLimits
from mdl.errors import MdlError
from mdl.ops.unpack import unpack
from support.zip_bytes import DEFERRED, DEFLATED, END, FULL16, FULL32, UTF8, Member, Zip, deflated, extra, wide

Facts = dict[str, Any]
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
"""Every trick is played on this archive, which is accepted as it is."""


@dataclass(frozen=True)
class Case:
    """One hostile archive, of a ``kind`` of contradiction. ``row`` is its row in faults.md, 0 if only the contract
    speaks of it. ``whole`` is True if the trick changes the archive as a whole, ``heavy`` if a reader that believes it
    writes 100 MiB."""

    kind: str
    name: str
    row: int
    mutate: Mutation
    codes: frozenset[int]
    limits: ArchiveLimits = USUAL
    whole: bool = False
    heavy: bool = False

    def build(self) -> bytes:
        return self.mutate(BASE).build()

    def __add__(self, other: Case) -> Case:
        def both(archive: Zip) -> Zip:
            return other.mutate(self.mutate(archive))

        limits = self.limits if other.limits == USUAL else other.limits
        codes, heavy = self.codes | other.codes, self.heavy or other.heavy
        kind, name = f"{self.kind}, with another", f"{self.name} + {other.name}"
        return Case(kind, name, self.row, both, codes, limits, self.whole or other.whole, heavy)


ALONE: list[Case] = []
"""Each trick alone."""


def tricks(kind: str, row: int, codes: frozenset[int], *tables: Tricks, **more: Any) -> None:
    """Take tricks of one kind into the corpus."""
    for table in tables:
        for name, mutate in table.items():
            ALONE.append(Case(kind, name, row, mutate, codes, **more))


def add(*members: Member) -> Mutation:
    return lambda archive: archive.adding(*members)


def but(**changes: Any) -> Mutation:
    return lambda archive: archive.but(**changes)


def both(**facts: Any) -> Facts:
    """The same lie in the local header and in the directory."""
    return {"local": facts, "central": facts}


def one_member(raw: bytes, table: dict[str, Facts]) -> Tricks:
    """Archives with one more member of that name, which has the facts of the table."""
    return {name: add(Member(**{"name": raw, **facts})) for name, facts in table.items()}


def whole(table: dict[str, Facts]) -> Tricks:
    """Archives of which the facts of the table are told."""
    return {name: but(**facts) for name, facts in table.items()}


# Names (184, 185, 190, and what the contract adds).

NAMES: dict[int, list[bytes]] = {
    184: [
        *(b"../x", b"a/../../x", b"a/../x", b"..", b"../d/", b"..\\x", b".. /x", b"...", b".../x", b"..%2fx", b"."),
        *(
            b"a/./..",
            b"./../x",
            b"././",
            b"./.",
            b".//x",
            b"./~x",
            b"./.mdl/x",
            b"a/..",
            b"",
            b"a//x",
            b"~/x",
            b"~root",
            b".mdl/x",
            b".MDL/x",
            b"x.",
            b"x ",
            b"CON",
        ),
        *(b"aux.txt", b"a/lpt1.bin", b"com\xc2\xb9", b"x" * 256, b"/".join([b"y" * 200] * 6), b"z" * 65535),
    ],
    185: [
        *(*map(str.encode, ESCAPES), b"//x", b"\\\\srv\\share\\x", b"//srv/share/x", b"/", b"/d/", b"C:\\x", b"C:/x"),
        *(b"C:x", b"c:", b"a/d:/x", b"\\\\?\\C:\\x", b"\\\\.\\COM1", b"\\x", b"a\\b:c"),
    ],
    190: [
        *(b"a\0.txt", b"a.txt\0.sh", b"a\x1b[2J", b"a\nb", b"a\rb", b"a\7", b"a\x7f"),
        *map(str.encode, ("a\x9b31m", "a\u202etxt.exe", "a\u200bb", "\ufeffa", "a\u2028b", "a\ue000")),
        *(b"a\xed\xa0\x80", b"a\xff", b"..\xc0\xafx"),
    ],
}
_KINDS_OF_NAMES = {184: "names that climb", 185: "absolute names", 190: "names of odd bytes"}
for _row, _names in NAMES.items():
    _kind = _KINDS_OF_NAMES[_row]
    tricks(_kind, _row, UNSAFE, {f"{name!r:.40}": add(Member(name=name)) for name in _names})
tricks(
    "names of another code page",
    190,
    UNSAFE,
    one_member(b"\x82t\x82.txt", {"CP437": both(flags=0), "bit 11 lies": both(flags=UTF8)}),
)


# Kinds of member (186, 187).


def link(name: bytes, target: bytes, **facts: Any) -> Member:
    return Member(name=name, data=target, mode=stat.S_IFLNK | 0o777, **facts)


def asi(mode: int, target: bytes) -> bytes:
    """Info-ZIP's old Unix field, whose mode and link unzip obeys if the directory has no mode."""
    body = pack("<HLHH", mode, len(target), 0, 0) + target
    return extra(0x756E, pack("<L", zlib.crc32(body)) + body)


HARD, PLAIN = extra(0x000D, bytes(12) + b"weights.bin"), extra(0x000D, bytes(12))
ASI_LINK, ASI_FILE = asi(0o120777, b"/etc"), asi(0o100644, b"")
LINKS = {
    "out": [link(b"l", b"/etc/passwd")],
    "up": [link(b"l", b"../..")],
    "inside": [link(b"l", b"weights.bin")],
    "and then a file through it": [link(b"l", b".."), Member(name=b"l/x")],
    "chain": [link(b"l1", b"l2"), link(b"l2", b"/etc")],
    "dangling": [link(b"l", b"nowhere")],
    "made by DOS": [link(b"l", b"/etc", central={"system": 0})],
    "as a folder": [link(b"l/", b"")],
    "packed": [link(b"l", b"/etc", method=DEFLATED)],
    "by Info-ZIP's old field": [Member(name=b"l", data=b"/etc", mode=0, extra=ASI_LINK)],
    "by PKWARE's field": [Member(name=b"l", data=b"", mode=0o120777, extra=HARD)],
}
tricks("links", 186, UNSAFE, {f"link {name}": add(*members) for name, members in LINKS.items()})
ODD_KINDS = {
    "character device": stat.S_IFCHR,
    "block device": stat.S_IFBLK,
    "FIFO": stat.S_IFIFO,
    "socket": stat.S_IFSOCK,
    "whiteout": 0o160000,
    "door": 0o150000,
}
HARD_LINK = {"data": b"", "extra": HARD}
KINDS: dict[str, list[Member]] = {
    "hard link": [Member(name=b"h", **HARD_LINK)],
    "hard link, told locally": [Member(name=b"h", data=b"", local={"extra": HARD})],
    "hard link of two files": [Member(name=name, **HARD_LINK) for name in (b"h1", b"h2")],
    **{
        f"{kind} {name!r}": [Member(name=name, data=b"", mode=mode | 0o644)]
        for kind, mode in ODD_KINDS.items()
        for name in (b"n", b"n/")
    },
    "file that says folder": [Member(name=b"n", mode=stat.S_IFDIR | 0o755)],
    "folder that says file": [Member(name=b"n/", data=b"", mode=stat.S_IFREG | 0o644)],
    "folder with data": [Member(name=b"n/")],
}
tricks("special files", 187, UNSAFE, {name: add(*members) for name, members in KINDS.items()})
TWO_KINDS: dict[str, tuple[int | None, bytes]] = {
    "a link, then a file, by Info-ZIP's old field": (0, ASI_LINK + ASI_FILE),
    "a file, then a link, by Info-ZIP's old field": (0, ASI_FILE + ASI_LINK),
    "two modes by Info-ZIP's old field": (0, ASI_FILE + asi(0o100755, b"")),
    "a link, then a file, by PKWARE's field": (None, HARD + PLAIN),
    "a file, then a link, by PKWARE's field": (None, PLAIN + HARD),
}
for _where in ("extra", "local"):
    _told = {
        f"{name}, {_where}": {"mode": mode, _where: fields if _where == "extra" else {"extra": fields}}
        for name, (mode, fields) in TWO_KINDS.items()
    }
    tricks(
        f"two kinds, {_where}",
        282,
        EITHER,
        one_member(b"l", {name: {"data": b"/etc", **facts} for name, facts in _told.items()}),
    )


# Two of one name, a file that is a folder (188, 189).


def twins(*groups: str) -> Tricks:
    """Members of the names in each group, divided by ``|``; what they hold differs."""

    def members(group: str) -> Iterator[Member]:
        for n, name in enumerate(group.split("|")):
            yield Member(name=name.encode(), data=b"" if name.endswith("/") else b"%d" % n)

    return {ascii(group): add(*members(group)) for group in groups}


TWINS = [
    *("t|t", "weights.bin", "t|t|t", "t/|t/", "Model.bin|model.bin", "a/b/C|a/b/c", "A/x|a/y", "A/|a/"),
    *("caf\u00e9|cafe\u0301", "caf\u00e9/x|cafe\u0301/y", "stra\u00dfe|strasse", "\u212a|k", "\ufb01le|file"),
    *("t|./t", "./t|t/", "d/t|d/./t", "./t/|t/", "./|./"),
    *("t|t/", "t/|t", "T|t/", "t|t/.", "t|t.", "t|t "),
]
INSIDE = ["d|d/x", "d/x|d", "D|d/x", "d/x|D", "d|d/e/f/g", "caf\u00e9|cafe\u0301/x", "weights.bin/x", "logs"]
tricks("twins", 188, UNSAFE, {"same name, same bytes": add(Member(name=b"t"), Member(name=b"t"))}, twins(*TWINS))
tricks("a file that is a folder", 189, UNSAFE, twins(*INSIDE))


# The second name (191).


def second_name(raw: bytes, text: bytes, version: int = 1, crc: int | None = None) -> bytes:
    return extra(0x7075, pack("<BL", version, zlib.crc32(raw) if crc is None else crc) + text)


AGREES, DIFFERS = second_name(b"u", b"u"), second_name(b"u", b"v")
SECOND_NAMES = {
    "differs": DIFFERS,
    "climbs": second_name(b"u", b"../u"),
    "twice": AGREES + AGREES,
    "twice, the second differs": AGREES + DIFFERS,
    "bad CRC": second_name(b"u", b"u", crc=1),
    "bad CRC and differs": second_name(b"u", b"v", crc=1),
    "unknown version": second_name(b"u", b"u", version=2),
    "too short": extra(0x7075, b"\1"),
    "empty": second_name(b"u", b""),
    "not UTF-8": second_name(b"u", b"\xff"),
    "NUL": second_name(b"u", b"u\0"),
    "makes a folder": second_name(b"u", b"u/"),
}
U1_IS_U2 = Member(name=b"u1", extra=second_name(b"u1", b"u2"))
tricks(
    "second names",
    191,
    EITHER,
    one_member(b"u", {name: {"extra": field} for name, field in SECOND_NAMES.items()}),
    one_member(b"u", {f"differs, only in the {where}": {where: {"extra": DIFFERS}} for where in ("local", "central")}),
    {"chain": add(U1_IS_U2, Member(name=b"u2", extra=second_name(b"u2", b"u3")))},
    {"makes twins": add(U1_IS_U2, Member(name=b"u2"))},
    one_member(b"u", {"hidden behind a torn field": {"extra": DIFFERS + b"\1\0\xff\xff"}}),
)


# Local header against directory (192).

LIES: list[Facts] = [
    *({"name": name} for name in (b"n", b"x/escape", b"../m.txt", b"MEMBERS1", b"members1.more")),
    *({"size": 3}, {"size": 300}, {"packed": 3}, {"packed": 300}, {"size": 3, "packed": 3}, {"crc": 1}),
    *({"method": DEFLATED}, {"method": 99}, {"flags": 1}, {"flags": UTF8}, {"flags": 2}, {"signature": b"PK\3\5"}),
]
ONLY_PLAIN: list[Facts] = [{"flags": DEFERRED}, {"size": 0, "packed": 0, "crc": 0}]
"""A member whose sizes are deferred may say these."""
TORN = b"\1\0\x10\0abc"


def told(lies: Iterable[Facts], **facts: Any) -> dict[str, Facts]:
    return {f"local {lie}, {sorted(facts)}": {"local": lie, **facts} for lie in lies}


def deferred(lie: Facts) -> Facts:
    return {"flags": lie["flags"] ^ DEFERRED} if "flags" in lie else lie


DIRECTORY_LIES: list[Facts] = [{"size": 3}, {"packed": 3}, {"crc": 1}, {"name": b"n"}, {"method": DEFLATED}]
DISAGREEING: dict[str, Facts] = {
    **{f"directory {lie}": {"central": lie} for lie in DIRECTORY_LIES},
    "extra field torn": {"extra": TORN},
    "extra field torn, local header": {"local": {"extra": TORN}},
    "extra field of one byte": {"extra": b"x"},
    "gap before a member": {"before": b"gap"},
    "gap of zeros before a member": {"before": bytes(16)},
}
HIDDEN, GHOST, AFTER = Member(name=b"hidden", listed=False), {"name": b"ghost", "written": False}, Member(name=b"after")
GHOSTS: dict[str, list[Member]] = {
    "not in the directory, last": [HIDDEN],
    "not in the directory, between": [HIDDEN, AFTER],
    "in the directory alone": [Member(**GHOST)],
    "in the directory alone, between": [Member(**GHOST), AFTER],
    "in the directory alone, empty": [Member(**GHOST, data=b"")],
    "in the directory alone, beyond": [Member(**GHOST, central={"at": 2**31})],
    "in the directory alone, a folder": [Member(name=b"ghost/", data=b"", written=False)],
}
tricks(
    "local header",
    192,
    EITHER,
    one_member(b"members1", told([*LIES, *ONLY_PLAIN]) | told(map(deferred, LIES), descriptor={})),
)
tricks("directory line", 192, EITHER, one_member(b"m", DISAGREEING))
tricks("ghosts", 192, EITHER, {name: add(*members) for name, members in GHOSTS.items()})


def counted(step: int) -> Mutation:
    def lie(archive: Zip) -> Zip:
        count = sum(member.listed for member in archive.members) + step
        return archive.but(end={**(archive.end or {}), "here": count, "count": count})

    return lie


FULL_COUNT = {"here": FULL16, "count": FULL16}
tricks(
    "count of members", 192, BAD, {"one member more told": counted(1), "one member fewer told": counted(-1)}, whole=True
)
WHOLE_LIES: dict[str, Facts] = {
    "directory longer": {"lost": b"PK"},
    "a record behind the directory's members": {"lost": b"PK\5\5\0\0"},
    "gap before the directory": {"gap": b"gap"},
    "archive extra data record": {"gap": b"PK\6\x08\4\0\0\0gaps"},
    "gap behind the directory": {"gap_end": b"gap"},
    **{f"directory told as {end}": {"end": end} for end in ({"size": 46}, {"size": 0}, {"size": FULL32 - 1})},
    **{f"directory told at {at}": {"end": {"at": at}} for at in (0, FULL32 - 1)},
}
COUNTS: dict[str, Facts] = {
    **{f"{count} members told": {"end": {"here": count, "count": count}} for count in (0, 1000)},
    "10^12 members told": {"end64": {"here": 10**12, "count": 10**12}, "locator": {}, "end": FULL_COUNT},
}
tricks("place of the directory", 192, BAD, whole(WHOLE_LIES), whole=True)
tricks("absurd counts", 192, EITHER, whole(COUNTS), whole=True)


# End records, what stands before and behind them (193).

_NO_MEMBERS = {"disk": 0, "start": 0, "here": 0, "count": 0, "size": 0, "at": 0, "comments": 0}
PLAIN_END = END.pack(_NO_MEMBERS)
OTHER = Zip(members=(Member(name=b"other.txt", data=b"the other archive"),))
SCRIPT = b"#!/bin/sh\nexit\n"


def appended_moved(archive: Zip) -> Zip:
    """Another whole archive behind this one, its offsets counting the bytes before it."""
    return archive.but(suffix=OTHER.but(prefix=archive.build(), moved=True).build()[len(archive.build()) :])


COMMENTS: list[tuple[bytes, Facts]] = [
    *((PLAIN_END, {}), (PLAIN_END + b"more", {}), (OTHER.build(), {}), (b"see PK\5\6 there", {})),
    *((b"hi", {"comments": 9}), (b"comment", {"comments": 2}), (b"comment", {"comments": 0}), (b"", {"comments": 4})),
]
PREFIXES = [
    *((SCRIPT, False), (SCRIPT, True), (bytes(512), True), (b"PK\7\10", True), (b"PK00", True)),
    *((OTHER.build(), False), (OTHER.build(), True)),
]
ENDS: dict[str, Facts] = {
    **{f"comment of {len(text)}, {text!r:.20}, {end}": {"comment": text, "end": end} for text, end in COMMENTS},
    **{f"prefix {text!r:.40}, {moved}": {"prefix": text, "moved": moved} for text, moved in PREFIXES},
    **{
        f"suffix of {len(text)}, {text!r:.20}": {"suffix": text}
        for text in (PLAIN_END, b"suffix", b"\0", bytes(1024), b"x" * 70000, OTHER.build())
    },
    "end record's signature broken": {"end": {"signature": b"PK\5\7"}},
    "no end record": {"end": None},
}
tricks(
    "end record twice",
    193,
    BAD,
    {"end record twice": lambda archive: archive.but(suffix=list(archive.pieces())[-3])},
    whole=True,
)
tricks("end record", 193, BAD, {"archive appended, moved": appended_moved}, whole(ENDS), whole=True)


# 64-bit records (194).

FULL_SIZES = {"size": FULL32, "packed": FULL32}
WIDE: dict[str, Facts] = {
    "sizes without the field": {"central": FULL_SIZES},
    "offset without the field": {"central": {"at": FULL32}},
    **{
        f"field of {len(values)} values {values}": {"central": FULL_SIZES | {"extra": wide(*values)}}
        for values in ((10,), (), (10, 10, 0), (99, 99))
    },
    "field of seven bytes": {"central": {"size": FULL32, "extra": extra(1, bytes(7))}},
    "field that is not due": {"central": {"extra": wide(10, 10)}},
    "field twice": {"central": {"size": FULL32, "extra": wide(10) + wide(10)}},
    "field twice, the second lies": {"central": {"size": FULL32, "extra": wide(10) + wide(99)}},
    "field lies in both": both(**FULL_SIZES, extra=wide(99, 99)),
    "local sizes without the field": {"local": FULL_SIZES},
    "local field of one size": {"local": {"size": FULL32, "extra": wide(10)}},
    "local field that is not due": {"local": {"extra": wide(10, 10)}},
    "local field lies and is not due": {"local": {"extra": wide(99, 99)}},
    "local field lies": {"local": FULL_SIZES | {"extra": wide(10, 99)}},
    "local field twice": {"local": FULL_SIZES | {"extra": wide(10, 10) + wide(10, 10)}},
}
HUGE: dict[str, Facts] = {
    "stored beyond the end": both(**FULL_SIZES, extra=wide(2**40, 2**40)),
    "offset beyond 2^63": {"central": {"at": FULL32, "extra": wide(2**64 - 1)}},
}
tricks("64-bit fields", 194, BAD, one_member(b"w", WIDE))
tricks("huge fields", 194, EITHER, one_member(b"w", HUGE))
FULL_AT = {"at": FULL32}


def ends64(*lies: Facts) -> Tricks:
    """Archives with 64-bit end records that lie."""
    return {f"64-bit records, {lie}": but(**{"end64": {}, "locator": {}, **lie}) for lie in lies}


tricks(
    "64-bit end records",
    194,
    BAD,
    ends64({"locator": {"at": 0}}, {"locator": {"at": 2**63}}),
    {"locator at the directory": lambda archive: archive.but(end64={}, locator={"at": archive.boundaries()[0]})},
    ends64({"end64": None}, {"locator": None}, {"end": None}),
    ends64({"gap_end": b"gap"}, {"gap_end64": b"gap"}, {"gap_end64": bytes(56)}),
    ends64({"end64": {"signature": b"PK\6\5"}}, {"end64": {"length": 60}, "gap_end64": b"more"}),
    ends64(*({"end64": lie} for lie in ({"length": 4}, {"here": 1, "count": 1}, {"size": 99}, {"at": 1}))),
    whole({f"no 64-bit record, {end}": {"end": end} for end in (FULL_COUNT, FULL_AT)}),
    whole({"no 64-bit record, all full": {"end": FULL_COUNT | FULL_AT | {"size": FULL32}}}),
    ends64({"end64": {"here": 1, "count": 1}, "end": FULL_COUNT}, {"end64": {"at": 2**64 - 1}, "end": FULL_AT}),
    whole=True,
)


# Overlaps and bombs (195, 196).


def quoted_at(at: int, *names: bytes) -> tuple[Member, ...]:
    """Lines of the directory for a local header that is there once already."""
    return tuple(Member(name=name, written=False, central={"at": at}) for name in names)


def overlapping(first: bytes, second: bytes) -> Mutation:
    return lambda archive: archive.adding(Member(name=first), *quoted_at(archive.data_end, second))


def overlapping_tail(archive: Zip) -> Zip:
    """A stored member that says it reaches over the next one."""
    inner = Member(name=b"o2")
    outer = Member(name=b"o1", data=b"start" + inner.local_header() + inner.packed)
    return archive.adding(outer, *quoted_at(archive.data_end + len(outer.local_header()) + 5, b"o2"))


def safe_excerpt(depth: int, kernel: bytes) -> Mutation:
    """Fifield's: each member's deflate stream quotes the next one's local header and goes on into its data."""

    def mutate(archive: Zip) -> Zip:
        chain, offsets = [Member(name=b"q0", data=kernel, body=deflated(kernel), method=DEFLATED)], [0]
        for n in range(1, depth):
            head = chain[-1].local_header()
            body = pack("<BHH", 0, len(head), len(head) ^ FULL16) + head + chain[-1].packed
            chain.append(Member(name=b"q%d" % n, data=head + chain[-1].data, body=body, method=DEFLATED))
            offsets.append(len(chain[-1].local_header()) + 5)
        at, lines = archive.data_end, []
        for member, step in zip(reversed(chain[:-1]), reversed(offsets[1:]), strict=True):
            at += step
            lines.append(replace(member, written=False, central={"at": at}))
        return archive.adding(chain[-1], *lines)

    return mutate


OVERLAPS: Tricks = {
    "one local header, two lines": overlapping(b"o1", b"o2"),
    "one local header, two lines of one name": overlapping(b"o", b"o"),
    "member within a member": overlapping_tail,
    "quoted": safe_excerpt(2, b"kernel" * 500),
    "quoted bomb": safe_excerpt(30, bytes(100_000)),
    "line at the base's first member": add(*quoted_at(0, b"o")),
    "line amid the base's data": add(*quoted_at(40, b"o")),
    "packed size reaches over the next": add(Member(name=b"o1", **both(size=20, packed=20)), Member(name=b"o2")),
}
tricks("overlaps", 195, EITHER, OVERLAPS)


@functools.cache
def zeros(size: int) -> tuple[bytes, int]:
    """That many zeros, deflated about 1000:1, and their CRC."""
    data = bytes(size)
    return deflated(data), zlib.crc32(data)


def bomb(name: bytes, size: int, told: int | None = None) -> Member:
    body, crc = zeros(size)
    return Member(name=name, data=b"", body=body, method=DEFLATED, **both(size=size if told is None else told, crc=crc))


def told_wide(size: int) -> Member:
    """A MiB that is said to be ``size`` bytes, in 64 bits."""
    one = bomb(b"t", MIB)
    return replace(one, **both(**{**one.local, **FULL_SIZES}, extra=wide(size, len(one.packed))))


BOMBS: Tricks = {
    "flat": lambda archive: archive.adding(bomb(b"flat", 101 * MIB)),
    "of many members": lambda archive: archive.adding(*(bomb(b"part-%02d" % n, 10 * MIB) for n in range(11))),
}
TOLD_BOMBS: Tricks = {
    "told as a terabyte": add(told_wide(2**40)),
    "told as 2^64": add(told_wide(2**64 - 1)),
    "told as 4 GiB": add(bomb(b"t", MIB, FULL32 - 1)),
}
CROWDS: Tricks = {
    f"too many {kind}": add(*(Member(name=name % n, data=b"") for n in range(100)))
    for kind, name in {"files": b"%d", "folders": b"%d/"}.items()
}
TOO_LARGE = one_member(b"b", {"more than --max-size": {"data": bytes(500)}})
tricks("bombs", 196, UNSAFE, BOMBS, heavy=True)
tricks("sizes beyond the limit", 196, UNSAFE, TOLD_BOMBS)
tricks("too many members", 196, UNSAFE, CROWDS, limits=ArchiveLimits(members=50))
tricks("too many bytes", 196, UNSAFE, TOO_LARGE, limits=ArchiveLimits(bytes=200))


# Sizes, sums, descriptors, streams (197).

TEXT, LONG = b"some text\n", b"0123456789" * 1000
TOLD_SIZES: list[Facts] = [
    *({"size": 10}, {"size": 10, "crc": zlib.crc32(LONG[:10])}, {"size": 0, "crc": 0}),
    *({"size": len(LONG) - 1, "crc": zlib.crc32(LONG[:-1])}, {"size": len(LONG) + 1}, {"size": 10**7}, {"crc": 1}),
]
STREAMS = {
    "cut": deflated(LONG)[:-3],
    "empty": b"",
    "garbage": b"\xff" * 50,
    "without end": b"\0\1\0\xfe\xffx" * 10,
    "and bytes behind it": deflated(LONG) + b"payload",
    "and a second stream behind it": deflated(LONG) + deflated(b"payload"),
    "of zlib": zlib.compress(LONG),
}
DESCRIPTOR_LIES = ({"crc": 1}, {"size": 3}, {"packed": 3})
NO_DESCRIPTOR = {"flags": DEFERRED, "local": {"crc": 0, "size": 0, "packed": 0}}
BEHIND: dict[str, tuple[Facts, bytes]] = {
    "descriptor cut": (NO_DESCRIPTOR, b"PK\7\10" + pack("<LL", zlib.crc32(TEXT), 10)),
    "descriptor not due": ({}, b"PK\7\10" + pack("<3L", zlib.crc32(TEXT), 10, 10)),
    "descriptor and more": ({"descriptor": {}}, b"more"),
}
LONG_MEMBER = {"data": LONG, "method": DEFLATED}
SUMS: dict[str, Facts] = {
    **{f"told {lie}": LONG_MEMBER | both(**lie) for lie in TOLD_SIZES},
    "bad CRC, stored": both(crc=1),
    "bad CRC, empty": {"data": b"", **both(crc=1)},
    **{f"stream {name}": LONG_MEMBER | {"body": body} for name, body in STREAMS.items()},
    **{f"stored, told as {size}": both(size=size) for size in (3, 300)},
    "a folder's CRC": {"name": b"s/", "data": b"", **both(crc=1)},
    "a payload in a folder": {"name": b"s/", "data": b"", "body": deflated(LONG), "method": DEFLATED},
    **{
        f"descriptor of {width}, {lie}": {"descriptor": lie, "width": width}
        for lie, width in product(DESCRIPTOR_LIES, (12, 16, 20, 24))
    },
    "descriptor of zeros": {"descriptor": {"crc": 0, "size": 0, "packed": 0}},
    "descriptor's signature": {"descriptor": {"signature": b"PK\7\7"}},
    "descriptor missing": NO_DESCRIPTOR,
}
tricks("sums and streams", 197, EITHER, one_member(b"s", SUMS))
for _name, (_facts, _bytes) in BEHIND.items():
    tricks(
        "behind a member",
        197,
        EITHER,
        {_name: add(Member(**{"name": b"s", **_facts}), Member(name=b"after", before=_bytes))},
    )


# Methods and flags that mdl does not read, and volumes (198, 199).

AES = extra(0x9901, b"\2\0AE\3\x08\0")
FLAGS = (0, 4, 5, 6, 7, 8, 9, 10, 12, 13, 14, 15)
METHODS = (1, 2, 6, 7, 9, 10, 12, 14, 18, 20, 93, 95, 96, 97, 98, 255, 65535)
CLOSED: dict[str, Facts] = {
    **{f"flag {bit}": both(flags=1 << bit) for bit in FLAGS},
    "encrypted, deferred": {"descriptor": {}, **both(flags=9)},
    "AES": {"extra": AES, **both(method=99, flags=1)},
    "AES without its flag": {"extra": AES, **both(method=99)},
    "headers masked": {"flags": 1 | 1 << 6 | 1 << 13, "local": {"crc": 0, "size": 0, "packed": 0}},
    **{f"method {number}": both(method=number) for number in METHODS},
    "another volume": {"central": {"disk": 1}},
    "another volume, wide": {"central": {"disk": FULL16, "extra": extra(1, pack("<L", 7))}},
}
BEYOND: dict[str, Facts] = {
    "size beyond the archive": both(size=10**6, packed=10**6),
    "size beyond the archive, deflated": {"method": DEFLATED, **both(packed=10**6)},
    **{f"{length} beyond the archive": {"local": {length: FULL16}} for length in ("names", "extras")},
    **{f"{length} beyond the directory": {"central": {length: FULL16}} for length in ("names", "comments")},
    "directory's signature": {"central": {"signature": b"PK\1\3"}},
}
VOLUMES: list[Facts] = [{"disk": 1}, {"start": 1}, {"disk": 2, "start": 2}, {"here": 1}]
VOLUMES64: list[Facts] = [
    *({"locator": lie} for lie in ({"disks": 2}, {"disks": 0}, {"disk": 1})),
    {"end64": {"disk": 1, "start": 1}, "end": {"disk": FULL16, "start": FULL16}},
]
tricks("closed members", 198, UNSAFE, one_member(b"e", CLOSED))
tricks(
    "volumes", 198, UNSAFE, whole({f"volumes, {end}": {"end": end} for end in VOLUMES}), ends64(*VOLUMES64), whole=True
)
tricks("beyond the archive", 199, BAD, one_member(b"b", BEYOND))


# The manifest and safetensors (contract: a digest that does not match is damage; a newer schema is 12).


def facts_of(archive: Zip) -> Facts:
    """What an honest manifest of these members says."""
    files = [
        {"path": one.name.decode(errors="replace"), "size": len(one.data), "sha256": sha256(one.data).hexdigest()}
        for one in archive.members
        if not one.name.endswith(b"/")
    ]
    origin = {"run": "", "checkpoint": "", "step": None, "layout": "", "inference_only": False}
    return {"schema": "mdl.manifest/1", **origin, "changed": [], "skipped": [], "files": files}


def with_manifest(archive: Zip, text: bytes | None = None, **facts: Any) -> Zip:
    data = json.dumps(facts_of(archive)).encode() if text is None else text
    return archive.adding(Member(name=b"mdl-manifest.json", data=data, method=DEFLATED, **facts))


def manifest(lie: Callable[[Facts], object]) -> Mutation:
    """A manifest that is right but for one lie: ``lie`` changes its facts, or returns other bytes altogether."""

    def mutate(archive: Zip) -> Zip:
        facts = facts_of(archive)
        text = lie(facts)
        return with_manifest(archive, text if isinstance(text, bytes) else json.dumps(facts).encode())

    return mutate


NOBODYS = {"path": "ghost.bin", "size": 1, "sha256": "0" * 64}
LISTED = ("ghost.bin", "../x\x1b[2J", "\ud800", "logs/", "mdl-manifest.json")
FIRST: list[Facts] = [
    *({"size": 1}, {"size": -1}, {"size": "135"}, {"size": True}, {"path": ["x"]}, {"sha256": "0" * 64}),
    *({"sha256": sha256(BASE.members[0].data).hexdigest().upper()}, {"sha256": "00"}, {"sha256": 0}),
]
TEXTS = [
    *(b"hello", b"", b'{"schema": "\xff"}', b"[]", b'"mdl.manifest/1"', b"null", b"[" * 200_000, b" " * (3 * MIB)),
]
NEWER_LIES: list[Facts | bytes] = [
    *({"schema": "mdl.manifest/2"}, b'{"schema": "mdl.manifest/99", "what": "ever"}', {"schema": "\x1b[2J"}),
]


def manifests(*lies: Facts | bytes) -> Tricks:
    """Manifests with other facts, or other bytes altogether."""
    return {
        f"manifest {lie!r:.60}": manifest(lambda facts, lie=lie: lie if isinstance(lie, bytes) else facts.update(lie))
        for lie in lies
    }


MANIFESTS: dict[str, Callable[[Facts], object]] = {
    **{f"lists {path!r}": lambda facts, at=path: facts["files"].append(NOBODYS | {"path": at}) for path in LISTED},
    "leaves a file out": lambda facts: facts["files"].pop(),
    "lists nothing": lambda facts: facts["files"].clear(),
    "lists a file twice, once wrongly": lambda facts: facts["files"].insert(
        0, facts["files"][0] | {"sha256": "0" * 64, "size": 7}
    ),
    "without files": lambda facts: facts.pop("files") and None,
    "without a schema": lambda facts: facts.pop("schema") and None,
    "cut": lambda facts: json.dumps(facts).encode()[:-20],
    **{f"file {lie!r:.60}": lambda facts, new=lie: facts["files"][0].update(new) for lie in FIRST},
    **{
        f"size {size:.9}": lambda facts, size=size: json.dumps(facts).replace("135", size, 1).encode()
        for size in ("9" * 4300, "8" + "9" * 9998, "1e999")
    },
}
tricks("manifest", 0, BAD, {f"manifest {name}": manifest(lie) for name, lie in MANIFESTS.items()}, whole=True)
tricks("manifest of other bytes", 0, BAD, manifests({"files": None}, {"files": "files"}, *TEXTS), whole=True)
tricks(
    "manifest with a wrong CRC",
    0,
    BAD,
    {"manifest with a wrong CRC": lambda archive: with_manifest(archive, **both(crc=1))},
    whole=True,
)
tricks(
    "steps in a manifest",
    284,
    BAD,
    manifests(*({"step": step} for step in (10**300, 2**63, -1, True, "1500"))),
    whole=True,
)
tricks("newer manifest", 0, NEWER, manifests(*NEWER_LIES), whole=True)


def safetensors(header: bytes, tensors: bytes = b"", told: int | None = None) -> Mutation:
    data = pack("<Q", len(header) if told is None else told) + header + tensors
    return add(Member(name=b"m.safetensors", data=data, method=DEFLATED))


def tensor(end: str) -> bytes:
    return b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,%s]}}' % end.encode()


SAFETENSORS: Tricks = {
    "safetensors: tensors cut": safetensors(tensor("1000"), bytes(999)),
    "safetensors: no tensors": safetensors(tensor("4")),
    "safetensors: header cut": safetensors(tensor("4")[:20], told=200),
    "safetensors: empty": add(Member(name=b"m.safetensors", data=b"")),
}
tricks("safetensors", 0, BAD, SAFETENSORS)


# Archives that end too early, and what was never an archive; and pairs of tricks.

STRANGE = {
    "text": b"this is no archive, " * 9,
    "zeros": bytes(22),
    "zeros, long": bytes(100_000),
    "gzip": b"\x1f\x8b\x08" + bytes(99),
    "html": b"<!doctype html><title>404</title>",
    "signature": b"PK\5\6",
    "signatures": b"PK\5\6" * 20_000,
    "tar": b"x".ljust(257, b"\0") + b"ustar".ljust(10_000, b"\0"),
}


def raw_cases() -> Iterator[Case]:
    """The base cut before, at and behind the start of every record; and the strange ones."""
    whole = BASE.build()
    stops = {0, 1, 21, len(whole) - 1, *(at + step for at in BASE.boundaries() for step in (-1, 0, 1))}
    for at in sorted(stops):
        yield Case("cut", f"cut at {at}", 193, but(members=(), prefix=whole[:at], end=None), BAD, whole=True)
    for name, data in STRANGE.items():
        yield Case("not a zip", name, 193, but(members=(), prefix=data, end=None), BAD, whole=True)


def pairs(alone: list[Case]) -> Iterator[Case]:
    """Two tricks on one archive: the first and the last of every table, each with each of another table."""
    tables: dict[tuple[int, frozenset[int], bool], list[Case]] = {}
    for case in alone:
        tables.setdefault((case.row, case.codes, case.whole), []).append(case)
    chosen = [case for table in tables.values() for case in dict.fromkeys((table[0], table[-1]))]
    own, whole = [one for one in chosen if not one.whole], [one for one in chosen if one.whole]
    yield from (one + other for one, other in combinations(own, 2) if one.row != other.row)
    yield from (one + other for one, other in product(own, whole))


CUTS = [*raw_cases()]
PAIRS = [*pairs(ALONE)]
CORPUS = [*ALONE, *CUTS, *PAIRS]


# Trying one out.


@dataclass(frozen=True)
class Outcome:
    """``code`` is 0 if it was accepted; ``traces`` are the paths that were added or changed."""

    code: int
    traces: frozenset[str]
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
    """Unpack ``data`` deep in ``folder``, which has room around it to escape into."""
    near = folder / "far" / "near"
    near.mkdir(parents=True, exist_ok=True)
    archive = near / "archive.zip"
    archive.write_bytes(data)
    (near / "bystander").touch()
    before, error = snapshot(folder), None
    try:
        unpack(archive, near / "out", limits=limits)
    except MdlError as caught:
        error = caught
    after = snapshot(folder)
    traces = {place for place in before.keys() | after.keys() if before.get(place) != after.get(place)}
    traces |= {place for place in ESCAPES if os.path.lexists(place)}
    return Outcome(error.exit_code if error else 0, frozenset(traces), error)


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
