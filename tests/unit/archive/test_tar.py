"""Tars, plain and packed with gzip: unpacked as zips are, by the same rules; and what is no archive is named."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.cases import each
from support.hostile_archives import USUAL, tree, try_out
from support.packing import make_run, memory_of
from support.runs import put

from mdl.archive.base import ArchiveLimits
from mdl.cancel import CancelToken
from mdl.errors import Cancelled, MdlError, ProtocolError, Unsafe
from mdl.events import Event, Noticed
from mdl.ops.pack import pack
from mdl.ops.release import release
from mdl.ops.unpack import contents, unpack, verify_archive

MIB = 2**20
FILES = {"a.txt": b"text\n", "d/w.bin": bytes(range(256)) * 5000, "d/e/empty.txt": b"", "e": None, "مدل/é.txt": b"x"}
LONG = "/".join(["folder" * 20] * 3) + "/" + "n" * 200


def info(name: str, **facts: object) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    for key, value in facts.items():
        setattr(member, key, value)
    return member


def tar_of(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.GNU_FORMAT) -> bytes:
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w", format=form) as tar:
        for member, data in members:
            if not member.size:
                member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return whole.getvalue()


def files(*names: str) -> list[tuple[tarfile.TarInfo, bytes]]:
    return [(info(name), b"data") for name in names]


def whole(held: dict[str, bytes | None], prefix: str = "", form: int = tarfile.GNU_FORMAT) -> bytes:
    members = [
        (info(prefix + name, type=tarfile.DIRTYPE, mode=0o755), b"") if data is None else (info(prefix + name), data)
        for name, data in held.items()
    ]
    if prefix:
        members.insert(0, (info(prefix, type=tarfile.DIRTYPE), b""))
    return tar_of(*members, form=form)


def expected(held: dict[str, bytes | None]) -> dict[str, bytes | None]:
    parents = {str(parent): None for name in held for parent in Path(name).parents if str(parent) != "."}
    return {**parents, **held}


FORMS = {"GNU": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT, "ustar": tarfile.USTAR_FORMAT}
PACKED: dict[str, Callable[[bytes], bytes]] = {
    "tar": lambda data: data,
    "tar.gz": gzip.compress,
    "tar.gz in two streams": lambda data: gzip.compress(data[:1000]) + gzip.compress(data[1000:]),
    "tar.gz with zeros behind": lambda data: gzip.compress(data) + bytes(700_000),
    "tar.gz, uncompressed": lambda data: gzip.compress(data, 0),
}


@pytest.mark.parametrize(
    ("packed", "form", "prefix"),
    list(zip(PACKED, ["GNU", "pax", "ustar", "GNU", "pax"], ["", "./", "", "./", ""], strict=True)),
)
def test_a_tar_is_unpacked(tmp_path: Path, packed: str, form: str, prefix: str) -> None:
    """Whatever its name is: every file, empty folders too; names that begin with ./ are those without it."""
    held = FILES if form == "ustar" else FILES | {LONG: b"long"}
    place = tmp_path / "archive.bin"
    place.write_bytes(PACKED[packed](whole(held, prefix, FORMS[form])))
    done = unpack(place, tmp_path / "out", limits=USUAL)
    assert tree(tmp_path / "out") == expected(held)
    assert (done.files, done.verified) == (len(held) - 1, "size" if packed == "tar" else "crc32")
    rows = contents(place)
    assert [row.path for row in rows] == sorted(name for name, data in held.items() if data is not None)
    tested = verify_archive(place)
    assert [(row.path, row.size) for row in tested] == [(row.path, row.size) for row in rows]
    assert {row.path: row.sha256 for row in tested} == done.manifest.digests
    assert {row.packed is None for row in rows} == {packed != "tar"}


TOOLS = {
    "tar of a folder": "tar -czf $OUT -C $IN .",
    "tar in pax": "tar --format=pax -czf $OUT -C $IN .",
    "tar of v7": "tar --format=v7 -cf $OUT -C $IN a.txt d",
    "bsdtar": "bsdtar -czf $OUT -C $IN .",
    "7z": "cd $IN && 7z a -ttar $OUT . > $OUT.said",
    "git": "cd $IN && git init -q && git add . && git commit -qm a && git archive -o $OUT HEAD",
}


@pytest.mark.parametrize("tool", TOOLS)
def test_what_tools_make(tmp_path: Path, tool: str) -> None:
    """Tars of the usual tools come out byte for byte."""
    if not shutil.which(TOOLS[tool].split("&& ")[-1].split()[0]):
        pytest.skip("that tool is not installed")
    held = {"a.txt": b"text\n", "d/w.bin": bytes(range(256)) * 5000, "d/x" * 40: b"deep"}
    if "v7" in tool:
        del held["d/x" * 40]
    for name, data in held.items():
        put(tmp_path / "in" / name, data)
    (tmp_path / "in" / "a.txt").chmod(0o755)
    place = tmp_path / ("a.tar.gz" if "z" in tool else "a.tar")
    author = {f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    environ = os.environ | {"IN": str(tmp_path / "in"), "OUT": str(place)} | author
    subprocess.run(["sh", "-c", TOOLS[tool]], env=environ, check=True, capture_output=True)
    unpack(place, tmp_path / "out")
    assert tree(tmp_path / "out") == expected(dict(held))
    assert (tmp_path / "out" / "a.txt").stat().st_mode & 0o100


def link(kind: bytes, target: str = "a.txt") -> bytes:
    return tar_of(*files("a.txt"), (info("l", type=kind, linkname=target), b""))


UNSAFE_NAMES = (
    "../x",
    "/x",
    "a/../../x",
    "C:/x",
    "a\\b",
    "~x",
    ".mdl/x",
    "./.mdl/x",
    "con",
    "a\nb",
    "./../x",
    "a//b",
)
TWINS = (("x", "x"), ("x", "./x"), ("x", "X"), ("d/x", "d/./x"), ("x", "x/y"), ("é", "e\u0301"))
UNSAFE: dict[str, bytes] = {
    **{f"name {name!r}": tar_of(*files(name)) for name in UNSAFE_NAMES},
    **{f"twins {names}": tar_of(*files(*names)) for names in TWINS},
    "symbolic link": link(tarfile.SYMTYPE),
    "symbolic link out": link(tarfile.SYMTYPE, "/etc/passwd"),
    "hard link": link(tarfile.LNKTYPE),
    "character device": link(tarfile.CHRTYPE),
    "FIFO": link(tarfile.FIFOTYPE),
    "block device": link(tarfile.BLKTYPE),
    "sparse file": link(tarfile.GNUTYPE_SPARSE),
    "unknown kind": link(b"Q"),
    "volume": link(b"M"),
    "name that is no UTF-8": tar_of((info("a\udcff"), b"x")),
    "folder of that name": tar_of((info("x/", type=tarfile.DIRTYPE), b""), *files("x")),
}


WAYS_OUT = {"symbolic link": "--dereference", "hard link": "--hard-dereference", "sparse file": "without -S"}


@each(("number", "case"), enumerate(UNSAFE))
def test_what_is_unsafe(tmp_path: Path, number: int, case: str) -> None:
    """Names that lead elsewhere, twins, links and devices: 11, and nothing is written. Who packed a link or a sparse
    file is told how to pack it as mdl unpacks it."""
    for packing in ("tar", "tar.gz"):
        outcome = try_out(tmp_path / f"{number} {packing}", PACKED[packing](UNSAFE[case]))
        assert (outcome.code, outcome.traces) == (11, frozenset()), outcome.error
        assert WAYS_OUT.get(case, "") in str(outcome.error and outcome.error.advice)


def test_the_limits_hold_while_it_is_inflated(tmp_path: Path) -> None:
    """Members, bytes and the ratio are those of a zip, each with its flag: 11, and nothing is written."""
    bomb = gzip.compress(tar_of((info("zeros"), bytes(101 * MIB))), 1)
    for data, limits, word in (
        (bomb, USUAL, "--max-ratio"),
        (gzip.compress(tar_of(*files(*map(str, range(50))))), replace(USUAL, members=49), "--max-members"),
        (gzip.compress(tar_of((info("w"), os.urandom(MIB)))), replace(USUAL, bytes=MIB - 1), "--max-size"),
    ):
        outcome = try_out(tmp_path / word, data, limits)
        assert outcome.error is not None
        assert (outcome.code, outcome.traces) == (11, frozenset()), outcome.error
        assert word in f"{outcome.error.message} {outcome.error.advice}"
    generous = ArchiveLimits(ratio=10_000)
    (tmp_path / "a.tgz").write_bytes(bomb)
    assert unpack(tmp_path / "a.tgz", tmp_path / "out", limits=generous).bytes == 101 * MIB


def test_a_long_header_is_not_read_into_memory(tmp_path: Path) -> None:
    """A name of gigabytes is refused by its length, before it is read."""
    header = info("././@LongLink", type=tarfile.GNUTYPE_LONGNAME, size=8 * 2**30).tobuf(tarfile.GNU_FORMAT)
    with (tmp_path / "a.tar").open("wb") as file:
        file.write(header)
        file.truncate(9 * 2**30)
    with pytest.raises(Unsafe):
        contents(tmp_path / "a.tar")


SMALL = tar_of(*files("a", "b"), (info("d/", type=tarfile.DIRTYPE), b""), *files("d/c"))


def cuts() -> Iterator[tuple[str, bytes]]:
    packed = gzip.compress(SMALL)
    end = len(SMALL.rstrip(b"\0")) // 512 * 512 + 512
    for at in (*range(512, end + 1024, 256), 700):
        yield f"tar at {at}", SMALL[:at]
    for at in range(12, len(packed)):
        yield f"tar.gz at {at}", packed[:at]


def damaged() -> Iterator[tuple[str, bytes]]:
    packed = gzip.compress(SMALL)
    yield "data follows", SMALL + b"x"
    yield "another tar follows", SMALL + SMALL
    yield "data follows gzip", packed + b"junk"
    yield "a header is wrong", SMALL[:1024] + b"?" + SMALL[1025:]
    yield "a folder with content", tar_of((info("d", type=tarfile.DIRTYPE, size=4), b"data"))
    for at in range(len(packed) - 8, len(packed)):
        yield f"byte {at}", packed[:at] + bytes([packed[at] ^ 1]) + packed[at + 1 :]


@pytest.mark.parametrize("cases", [cuts, damaged])
def test_what_is_damaged(tmp_path: Path, cases: Callable[[], Iterator[tuple[str, bytes]]]) -> None:
    """A tar that is cut anywhere, or not what its sums say: 6, and nothing is written."""
    for number, (name, data) in enumerate(cases()):
        outcome = try_out(tmp_path / str(number), data)
        assert (outcome.code, outcome.traces) == (6, frozenset()), (name, outcome.error)


def test_the_manifest_counts_in_a_tar_too(tmp_path: Path) -> None:
    """A folder that mdl unpacked, and tar packed: its digests are compared (6 if a file differs)."""
    make_run(tmp_path)
    pack(tmp_path / "run", tmp_path / "a.zip")
    unpack(tmp_path / "a.zip", tmp_path / "once")
    subprocess.run(["tar", "-czf", tmp_path / "a.tar.gz", "-C", tmp_path / "once", "."], check=True)
    done = unpack(tmp_path / "a.tar.gz", tmp_path / "twice")
    assert (done.verified, done.manifest.run) == ("sha256", "run")
    (tmp_path / "once" / "config.json").write_text('{"a": 2}')
    subprocess.run(["tar", "-czf", tmp_path / "b.tar.gz", "-C", tmp_path / "once", "."], check=True)
    with pytest.raises(ProtocolError, match="the manifest says"):
        unpack(tmp_path / "b.tar.gz", tmp_path / "thrice")


def test_release_of_a_tar(tmp_path: Path) -> None:
    """The same content from a zip, a tar and a tar.gz is one release."""
    versions = set()
    make_run(tmp_path)
    for name in ("a.tar", "a.tar.gz", "a.zip"):
        place = shutil.make_archive(
            str(tmp_path / name.partition(".")[0]), {"a.tar": "tar", "a.tar.gz": "gztar", "a.zip": "zip"}[name],
            tmp_path / "run",
        )  # fmt: skip
        versions.add(release(place, tmp_path / "service").version)
    assert len(versions) == 1


def test_a_cancelled_look(tmp_path: Path) -> None:
    """The first reading of a tar can be cancelled."""
    (tmp_path / "a.tgz").write_bytes(gzip.compress(whole(dict(FILES))))
    cancel = CancelToken()
    cancel.set()
    with pytest.raises(Cancelled):
        contents(tmp_path / "a.tgz", cancel=cancel)


def test_memory_stays_flat(tmp_path: Path) -> None:
    """Unpacking a tar.gz of a large file takes much less memory than the file has bytes."""
    (tmp_path / "large.tgz").write_bytes(gzip.compress(tar_of((info("w"), bytes(56 * MIB))), 0))
    assert memory_of("unpack", tmp_path / "large.tgz", tmp_path / "large")[2] < 40


OTHERS = {
    "7z": (b"7z\xbc\xaf\x27\x1c" + bytes(50), "7z x"),
    "rar": (b"Rar!\x1a\x07\1\0" + bytes(50), "unrar x"),
    "zst": (b"\x28\xb5\x2f\xfd" + bytes(50), "zstd"),
    "xz": (lzma.compress(b"x"), "tar -xJf"),
    "bz2": (bz2.compress(b"x"), "tar -xjf"),
    "gz": (gzip.compress(b"x"), "gunzip"),
    "safetensors": (b"\x40\0\0\0\0\0\0\0{" + b" " * 70, "as it is"),
    "gguf": (b"GGUF\3\0\0\0" + bytes(50), "as it is"),
    "h5": (b"\x89HDF\r\n\x1a\n" + bytes(50), "as it is"),
    "pt": (b"\x80\2}q\0." + bytes(50), "as it is"),
    "html": (b"<!DOCTYPE html><html>", "a login"),
    "empty": (b"", "again"),
    "zeros": (bytes(4096), "again"),
    "text": (b"hello\n", "again"),
}


@each("kind", OTHERS)
def test_what_is_no_archive(tmp_path: Path, kind: str) -> None:
    """Any other file: 6, with what it is by its first bytes, and the command that makes an archive of it."""
    data, word = OTHERS[kind]
    outcome = try_out(tmp_path / kind, data)
    assert outcome.error is not None
    assert (outcome.code, outcome.traces) == (6, frozenset())
    assert word in f"{outcome.error.advice}"


def test_a_file_that_is_a_model_is_named(tmp_path: Path) -> None:
    """A torch file is a zip too: it is unpacked, with one line that says what it is. An ordinary zip is none."""
    for top, name in (("net/", "net.pt"), ("", "other.zip")):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr(f"{top}data.pkl", b"x")
            archive.writestr(f"{top}version", b"3\n")
        events: list[Event] = []
        unpack(tmp_path / name, tmp_path / f"{name}.out", on_event=events.append)
        said = [event.message for event in events if isinstance(event, Noticed)]
        assert [("torch file" in one) for one in said] == ([True] if top else []), said


def test_hints_of_names_that_readers_disagree_on(tmp_path: Path) -> None:
    """A name in a code page, and backslashes: 11, saying who writes such zips and the way out."""
    for raw, word in ((b"caf\x82.txt", "unzip -O CODEPAGE"), (b"a\\b.txt", "7z x")):
        whole = io.BytesIO()
        with zipfile.ZipFile(whole, "w") as archive:
            archive.writestr("x" * len(raw), b"data")
        outcome = try_out(tmp_path / word[:2], whole.getvalue().replace(b"x" * len(raw), raw))
        error = outcome.error
        assert isinstance(error, MdlError)
        assert (outcome.code, word in (error.hint or "")) == (11, True), error


def test_weights_that_are_cut(tmp_path: Path) -> None:
    """Weights without their end in a tar: unpacked or tested, it is 6, whole ones are taken."""
    torch = io.BytesIO()
    with zipfile.ZipFile(torch, "w") as archive:
        archive.writestr("net/data.pkl", b"x" * 100)
        archive.writestr("net/data/0", os.urandom(5 * MIB))
    whole_size = len(torch.getvalue())
    for packing, size, code in (("tar", whole_size, 0), ("tar.gz", 4 * MIB, 6), ("tar", 2000, 6)):
        member = (info("net.pt"), torch.getvalue()[:size])
        data = PACKED[packing](tar_of(*files("a.txt"), member, *files("z.txt")))
        assert try_out(tmp_path / str(size), data).code == code
        (tmp_path / "a.bin").write_bytes(data)
        if code:
            with pytest.raises(ProtocolError, match="cut"):
                verify_archive(tmp_path / "a.bin")
        else:
            assert len(verify_archive(tmp_path / "a.bin")) == 3
