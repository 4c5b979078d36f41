"""Archives that must be accepted: as the tools of this machine make them, and odd ones byte by byte."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from struct import pack
from typing import Any

from support.hostile_archives import AGREES, BASE, MIB, bomb, second_name, with_manifest
from support.zip_bytes import DEFLATED, FULL16, FULL32, Member, Zip, extra, wide

Tree = dict[str, bytes | None]
"""Paths and bytes; a folder has None."""

SOURCE: Tree = {
    "config.json": b'{"layers": 12}\n' * 99,
    "weights.bin": bytes(range(256)) * 300,
    "empty.txt": b"",
    "a b/c d.txt": b"spaces\n",
    "مدل/وزن.bin": b"Persian\n" * 20,
    "café.txt": b"composed\n",
    "none here": None,
    "deep/er/and/deeper.txt": b"down\n",
}


FILES: Tree = {path: data for path, data in SOURCE.items() if data is not None}


@dataclass(frozen=True)
class Harmless:
    """``make(source, archive)`` packs a folder; ``tool`` is the program that it needs, if any; ``row`` its row of the
    fault matrix, 0 if it has none."""

    name: str
    make: Callable[[Path, Path], None]
    tree: Tree
    tool: str = ""
    row: int = 0

    @property
    def kind(self) -> str:
        """By what it was made."""
        return self.tool or ("zipfile" if self.name.startswith("zipfile") else "byte by byte")

    @property
    def is_here(self) -> bool:
        return not self.tool or shutil.which(self.tool) is not None


def whole(tree: Tree) -> Tree:
    """With the folders that its files need."""
    parents = {str(parent): None for path in tree for parent in Path(path).parents if str(parent) != "."}
    return {**parents, **tree}


def lay_out(tree: Tree, folder: Path) -> None:
    for path, data in tree.items():
        place = folder / path
        (place if data is None else place.parent).mkdir(parents=True, exist_ok=True)
        if data is not None:
            place.write_bytes(data)


def by_tool(name: str, command: str, tree: Tree = SOURCE, **environ: str) -> Harmless:
    """``command`` for the shell, run in the source folder; ``$OUT`` is the archive."""

    def make(source: Path, archive: Path) -> None:
        lay_out(tree, source)
        env = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "OUT": str(archive), **environ}
        done = subprocess.run(["sh", "-c", command], cwd=source, env=env, capture_output=True, check=False)
        assert archive.exists(), done.stderr

    return Harmless(name, make, tree, command.split()[0])


class Unseekable(io.RawIOBase):
    """A pipe, as zipfile sees it."""

    def __init__(self, file: io.BufferedWriter) -> None:
        self._file = file

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        return self._file.write(data)


def by_python(
    name: str, method: int, tree: Tree = SOURCE, *, pipe: bool = False, force: bool = False, comment: bytes = b""
) -> Harmless:
    def make(_: Path, archive: Path) -> None:
        with archive.open("wb") as file, zipfile.ZipFile(Unseekable(file) if pipe else file, "w", method) as made:
            made.comment = comment
            for path, data in tree.items():
                if data is None:
                    made.mkdir(path)
                else:
                    with made.open(path, "w", force_zip64=force) as member:
                        member.write(data)

    return Harmless(f"zipfile: {name}", make, tree)


def by_hand(name: str, archive: Zip, row: int = 0) -> Harmless:
    """Byte by byte."""
    tree: Tree = {}
    for one in archive.members:
        text = one.name.decode()
        tree[text.rstrip("/")] = None if text.endswith("/") else one.data
    return Harmless(name, lambda _, place: place.write_bytes(archive.build()) and None, tree, row=row)


def one(**facts: object) -> Zip:
    return Zip(members=(Member(**{"name": b"m.txt", **facts}),))  # type: ignore[arg-type]


def named(*names: bytes) -> Zip:
    return Zip(members=tuple(Member(name=name, data=b"" if name.endswith(b"/") else b"text") for name in names))


def dated(date: int, moment: int = 0) -> dict[str, object]:
    return {"local": {"date": date, "time": moment}, "central": {"date": date, "time": moment}}


TIMES = extra(0x5455, pack("<B3L", 7, 1, 2, 3))
TIMES_CENTRAL = extra(0x5455, pack("<BL", 7, 1))
OWNER = extra(0x7875, b"\1\4\xe8\3\0\0\4\xe8\3\0\0")
NTFS = extra(0x000A, bytes(4) + pack("<2H", 1, 24) + bytes(24))
JAR = {"extra": extra(0xCAFE, b"")}
NAME = "نام.txt".encode()
INNER = Zip(members=(Member(name=b"../../evil", data=b"inside"),)).build()
WIDE: dict[str, Any] = {"size": FULL32, "packed": FULL32, "extra": wide(10, 10)}
FULL_END = {"here": FULL16, "count": FULL16, "size": FULL32, "at": FULL32}
TOLD_TWICE: dict[str, Any] = {"crc": zlib.crc32(b"x"), "packed": 1, "size": 1}

TOOLS = [
    by_tool("zip to a file", "zip -qr $OUT ."),
    by_tool("zip to a pipe", "zip -qr - . | cat > $OUT"),
    by_tool("zip stored", "zip -qr0 $OUT ."),
    by_tool("zip at its best, without extra fields", "zip -qrX9 $OUT ."),
    by_tool("zip without folders", "zip -qrD $OUT .", FILES),
    by_tool("zip, 64 bits forced", "zip -qr -fz $OUT ."),
    by_tool("zip with a comment", "echo remark | zip -qrz $OUT ."),
    by_tool("zip, then one member replaced", "zip -qr $OUT . && zip -q $OUT config.json"),
    by_tool("zip, then one deleted", "touch extra; zip -qr $OUT . && zip -qd $OUT extra && rm extra"),
    by_tool("zip in the locale C", "zip -qr $OUT .", LC_ALL="C"),
    by_tool("zip of empty folders", "zip -qr $OUT .", {"a/b": None, "c": None}),
    by_tool("7z", "7z a -bd -tzip $OUT ."),
    by_tool("7z stored", "7z a -bd -tzip -mx=0 $OUT ."),
    by_tool("7z with UTF-8 names", "7z a -bd -tzip -mcu=on $OUT ."),
    by_tool("bsdtar", "bsdtar -acf $OUT *"),
    by_tool("bsdtar of the folder itself", "bsdtar -acf $OUT ."),
    by_tool("bsdtar stored", "bsdtar -cf $OUT --format zip --options zip:compression=store *"),
]
PYTHONS = [
    by_python("stored", zipfile.ZIP_STORED),
    by_python("deflated", zipfile.ZIP_DEFLATED),
    by_python("stored to a pipe", zipfile.ZIP_STORED, pipe=True),
    by_python("deflated to a pipe", zipfile.ZIP_DEFLATED, pipe=True),
    by_python("64 bits forced", zipfile.ZIP_DEFLATED, force=True),
    by_python("64 bits forced to a pipe", zipfile.ZIP_STORED, pipe=True, force=True),
    by_python("empty", zipfile.ZIP_STORED, {}),
    by_python("empty with a comment", zipfile.ZIP_STORED, {}, comment=b"nothing"),
    by_python("longest comment", zipfile.ZIP_STORED, comment=b"x" * 65535),
]
DOTS = named(b"./", b"./d/", b"./d/a.txt", b"e/./b.txt", b"./c.txt", b"f/./")
DOTTED: Tree = {"d": None, "d/a.txt": b"text", "e/b.txt": b"text", "c.txt": b"text", "f": None}
BYTE_BY_BYTE = [
    Harmless("names that begin with a dot", lambda _, place: place.write_bytes(DOTS.build()) and None, DOTTED),
    by_hand("the base of the hostile ones", BASE),
    by_hand("with a manifest", with_manifest(BASE)),
    by_hand("year 1980", one(**dated(0x21)), 204),
    by_hand("year 2107", one(**dated(0xFF9F, 0xBF7D)), 204),
    by_hand("day 0, month 0", one(**dated(0)), 204),
    by_hand("month 15, hour 31", one(**dated(0xFFFF, 0xFFFF)), 204),
    by_hand("date differs", one(central={"date": 99, "time": 9}), 204),
    by_hand("comment on the archive", one().but(comment="توضیح".encode())),
    by_hand("comment on a member", one(central={"comment": b"remark\x1b[2J"})),
    by_hand("nested archive, stored", one(data=INNER)),
    by_hand("nested archive, with a comment", one(data=Zip(comment=b"hi" * 50).build())),
    by_hand("end record amid the data", one(data=b"before PK\5\6" + bytes(18) + b"after")),
    by_hand("end record at the data's end", one(data=b"before PK\5\6" + bytes(18))),
    by_hand("headers amid the data", one(data=b"PK\3\4 PK\1\2 PK\6\6 PK\6\7 PK\7\10" * 9, descriptor={})),
    by_hand("extended times and owner", one(local={"extra": TIMES + OWNER}, central={"extra": TIMES_CENTRAL + OWNER})),
    by_hand("old Unix field", one(extra=extra(0x5855, bytes(12)))),
    by_hand("NTFS times", one(central={"extra": NTFS})),
    by_hand("PKWARE's Unix field", one(extra=extra(0x000D, bytes(12)))),
    by_hand("a jar's mark", one(local=JAR, central=JAR)),
    by_hand("aligned by Android", one(local={"extra": extra(0xD935, b"\4\0" + bytes(5))})),
    by_hand("aligned by zeros", one(local={"extra": bytes(3)})),
    by_hand("second name that agrees", one(name=b"u", extra=AGREES)),
    by_hand("second name that agrees, in another script", one(name=NAME, extra=second_name(NAME, NAME))),
    by_hand("second comment", one(extra=extra(0x6375, b"\1" + pack("<L", zlib.crc32(b"")) + b"x"))),
    by_hand("UTF-8 without its bit", one(name=NAME, local={"flags": 0}, central={"flags": 0})),
    by_hand("UTF-8 bit on plain ASCII", one(flags=1 << 11)),
    by_hand("effort bits", one(method=DEFLATED, flags=6)),
    *(by_hand(f"descriptor of {width}", one(descriptor={}, width=width)) for width in (12, 16, 20, 24)),
    by_hand("descriptor, deflated", one(descriptor={}, method=DEFLATED)),
    by_hand("descriptor, sizes told as well", one(descriptor={}, local=TOLD_TWICE, data=b"x")),
    by_hand("descriptor of an empty member", one(descriptor={}, data=b"")),
    by_hand("folder with an empty stream", one(name=b"d/", data=b"", method=DEFLATED, descriptor={})),
    by_hand("empty member, deflated", one(data=b"", method=DEFLATED)),
    by_hand("64-bit sizes in both", one(local=WIDE, central=WIDE)),
    by_hand("64-bit sizes, told locally", one(local=WIDE)),
    by_hand("64-bit offset", one(central={"at": FULL32, "extra": wide(0)})),
    by_hand("64-bit end record not needed", one().but(end64={}, locator={})),
    by_hand("64-bit end record alone", one().but(end64={}, locator={}, end=FULL_END)),
    by_hand("64-bit end record, half", one().but(end64={}, locator={}, end={"count": FULL16, "here": FULL16})),
    by_hand("made by DOS", one(central={"system": 0, "external": 0x20})),
    by_hand("no mode at all", one(mode=0)),
    by_hand("setuid, setgid, sticky", one(mode=0o107777), 187),
    by_hand("unreadable mode", one(mode=0o100000)),
    by_hand("folders told after what is in them", named(b"d/e/x", b"d/e/", b"d/")),
    by_hand("directory in another order", named(b"z", b"a", b"m")),
    by_hand("names that only look odd", named(b"-rf", b"a..b", b"$(x)", b"x'\"", b"..a", b"[red]", b"a/.mdl")),
    by_hand("longest segment", one(name=b"x" * 255)),
    by_hand("deepest path", one(name=b"/".join([b"d"] * 64))),
    by_hand("every byte there is", one(data=bytes(range(256)) * 9, method=DEFLATED)),
    by_hand("a text called safetensors", one(name=b"m.safetensors", data=b"just some text, no tensors")),
]
FLAT = Harmless(
    "20 MiB of zeros, 1000:1: below 100 MiB no ratio is too much",
    lambda _, place: place.write_bytes(Zip(members=(bomb(b"zeros.bin", 20 * MIB),)).build()) and None,
    {"zeros.bin": bytes(20 * MIB)},
    row=196,
)
ACCEPTED = [*TOOLS, *PYTHONS, *BYTE_BY_BYTE, FLAT]
_MOST_FOLDERS: Tree = {f"{n % 70}/{n}": b"%d" % n if n % 20 == 0 else None for n in range(70_000)}
_ALL_FILES: Tree = {f"{n % 70}/{n}.txt": b"%d" % n for n in range(70_000)}
CROWDS = [
    replace(by_python(f"70,000 members, {name}", zipfile.ZIP_STORED, tree), row=203)
    for name, tree in (("most of them folders", _MOST_FOLDERS), ("all of them files", _ALL_FILES))
]
"""More members than a plain end record can count; unpacking them takes 10 s and more."""
