"""mdl's archives in other hands: unzip, 7z, bsdtar, Python; and `mdl unpack`, which gives back what was packed.

Files of a run may be more than their bytes: holes, extended attributes, access lists, sizes that lie.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.data import noise
from support.long import examples, only_long
from support.namespaces import MOUNTS, apart
from support.namespaces import tool as mount
from support.packing import MANIFEST, make_run, memory_of, planned, read_whole
from support.shell import Shell

from mdl.archive import zip_records
from mdl.archive.base import ArchiveLimits
from mdl.archive.select import Member
from mdl.archive.unpack import open_archive
from mdl.errors import ProtocolError
from mdl.ops.pack import pack, write_pack
from mdl.ops.unpack import unpack
from mdl.paths import RelPath, why_unsafe
from mdl.runs.default_excludes import why_excluded
from mdl.runs.tree import Entry
from mdl.weights.junk import is_log

Files = dict[str, tuple[bytes, bool] | None]
"""Path to bytes and x bit; None for an empty folder."""
NAMES = ("Größe.bin", "سلام.bin", "日本.bin", "a b.bin", "-rf", "'\"$(x).bin", "🦊.bin", "x" * 250)
MIB = 2**20


def tool(name: str) -> str:
    found = shutil.which(name)
    return found or pytest.skip(f"{name} is not installed: what it says of mdl's archives is not known")


def told(*command: str | Path, stdin: bytes | None = None) -> bytes:
    """What a tool prints, its exit code being 0."""
    done = subprocess.run(command, input=stdin, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive of a run with names of all kinds, stored and deflated, small and streamed, and an empty folder."""
    run = make_run(tmp_path_factory.mktemp("odd"))
    for name in NAMES:
        (run / name).write_bytes(noise(100))
    (run / "text.bin").write_bytes(b"word " * 500_000)
    (run / "empty.bin").touch()
    (run / "leer" / "Ordnung").mkdir(parents=True)
    pack(run, run.parent / "odd.zip")
    return run.parent / "odd.zip"


def test_python_reads_it(odd: Path) -> None:
    """zipfile finds every CRC right and every name as it was."""
    assert {*NAMES, "empty.bin", "leer/Ordnung/"} <= set(read_whole(odd))


def test_unzip_and_7z_read_it(odd: Path) -> None:
    """unzip -t finds no error and no warning, zipinfo shows the modes, and 7z t finds everything ok."""
    assert b"No errors detected" in told(tool("unzip"), "-t", odd)
    assert told(tool("unzip"), "-p", odd, "text.bin") == b"word " * 500_000
    assert told(tool("zipinfo"), odd, "empty.bin").startswith(b"-rw-r--r--")
    assert b"Everything is Ok" in told(tool("7z"), "t", odd)


def test_bsdtar_reads_it(odd: Path, tmp_path: Path) -> None:
    """bsdtar unpacks the same bytes from the file, and from a pipe, in which it cannot seek."""
    for place, stdin in ((tmp_path / "file", None), (tmp_path / "pipe", odd.read_bytes())):
        place.mkdir()
        told("env", "LC_ALL=C.UTF-8", tool("bsdtar"), "-xf", "-" if stdin else odd, "-C", place, stdin=stdin)
        for name, data in read_whole(odd).items():
            assert (place / name).is_dir() if name.endswith("/") else (place / name).read_bytes() == data, name


def test_a_pipe_into_bsdtar(tmp_path: Path) -> None:
    """mdl pack -o - | bsdtar -xf - is a copy of the run."""
    run, copy, shell = make_run(tmp_path), tmp_path / "copy", Shell(tmp_path)
    copy.mkdir()
    words = " ".join(shell.command("pack", "run", "--all", "-q", "-o", "-"))
    pipe = f"set -o pipefail; {words} | {tool('bsdtar')} -xf - -C copy"
    done = subprocess.run(["bash", "-c", pipe], env=shell.environ, cwd=tmp_path, check=False, capture_output=True)
    assert done.returncode == 0, done.stderr
    for path in run.rglob("*"):
        if path.is_file() and path.suffix != ".log":
            assert (copy / path.relative_to(run)).read_bytes() == path.read_bytes()


@pytest.mark.fault(211)
@only_long("65,536 members")
def test_more_members_than_16_bits_count(tmp_path: Path) -> None:
    """65,536 members and more need zip64's count: Python, unzip, 7z and mdl find them all. (Packed as folders, as that
    takes no time.)"""
    plan, count = planned(make_run(tmp_path)), 65_536
    folders = tuple(Member(RelPath(str(number)), Entry(str(number), "folder")) for number in range(count))
    members = (*plan.selection.members, *folders)
    write_pack(replace(plan, selection=replace(plan.selection, members=members)), digest=False)
    archive, count = tmp_path / "x.zip", len(members) + 1
    with zipfile.ZipFile(archive) as opened:
        assert len(opened.namelist()) == count
    assert f"{count} files" in told(tool("unzip"), "-l", archive).decode().splitlines()[-1]
    assert "Folders: 65536" in told(tool("7z"), "t", archive).decode()
    with open_archive(archive, ArchiveLimits()) as read:
        assert len(read.members) == count


@pytest.mark.fault(211)
@only_long("4.2 GB of zeros")
@pytest.mark.timeout(600)
def test_a_member_of_more_than_32_bits(tmp_path: Path) -> None:
    """A member over 4 GiB, and one that begins behind it, are read back by unzip, 7z and Python."""
    run, size = sparse(tmp_path, 4_200_000_000 + 2**28), 4_200_000_000 + 2**28
    (run / "z.bin").write_bytes(b"behind")
    pack(run, tmp_path / "x.zip", compress="store", whole_run=True)
    with zipfile.ZipFile(tmp_path / "x.zip") as opened:
        assert (opened.read("z.bin"), opened.getinfo("hole.bin").file_size) == (b"behind", size)
    assert b"No errors detected" in told(tool("unzip"), "-t", tmp_path / "x.zip")
    assert b"Everything is Ok" in told(tool("7z"), "t", tmp_path / "x.zip")


def sparse(tmp_path: Path, size: int) -> Path:
    """A run with a file that is one hole."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "hole.bin").touch()
    os.truncate(run / "hole.bin", size)
    return run


@pytest.mark.fault(219)
def test_holes_are_packed_as_zeros_in_little_memory(tmp_path: Path) -> None:
    """A sparse file of 101 MiB is packed right, with the memory of a few buffers. What mdl
    packs with its defaults mdl unpacks with its defaults, a large tensor of zeros too."""
    code, _, grown = memory_of("pack", sparse(tmp_path, 101 * MIB), tmp_path / "x.zip")
    assert (code, grown < 24) == (0, True), f"{grown:.0f} MiB"
    unpack(tmp_path / "x.zip", tmp_path / "out")
    with (tmp_path / "out" / "hole.bin").open("rb") as hole:
        assert {*iter(lambda: hole.read(MIB), b"")} == {bytes(MIB)}
        assert hole.tell() == 101 * MIB


def test_much_that_was_left_out(tmp_path: Path) -> None:
    """An archive whose run held 16,000 files that were left out can be unpacked."""
    run = sparse(tmp_path, 10)
    (run / "0").mkdir()
    for number in range(1000):
        os.close(os.open(f"{run}/0/cache-{number:07}.lock", os.O_CREAT))
    for link in range(1, 16):
        (run / str(link)).symlink_to("0")
    pack(run, tmp_path / "x.zip")
    unpack(tmp_path / "x.zip", tmp_path / "out")


@pytest.mark.fault(220)
def test_a_half_written_checkpoint(tmp_path: Path) -> None:
    """A run with one cut file is refused (6) and named; taken all the same, it is unpacked again as it was."""
    run = make_run(tmp_path)
    (run / "checkpoint-1000" / "model.safetensors").write_bytes(b"")
    with pytest.raises(ProtocolError, match=r"checkpoint-1000/model\.safetensors"):
        pack(run, tmp_path / "x.zip", whole_run=True)
    pack(run, tmp_path / "x.zip", allow_incomplete=True, whole_run=True)
    unpack(tmp_path / "x.zip", tmp_path / "out")
    assert (tmp_path / "out" / "checkpoint-1000" / "model.safetensors").read_bytes() == b""


def with_hole(path: Path) -> None:
    """Data, a hole of 8 MiB, data."""
    with path.open("wb") as file:
        file.write(noise(5000))
        file.seek(2**23)
        file.write(noise(5000, 1))
    if path.stat().st_blocks * 512 >= 2**23:
        pytest.skip("this file system knows no holes")


def with_attributes(path: Path) -> None:
    """As much in extended attributes as the file system takes."""
    path.write_bytes(noise(5000))
    try:
        os.setxattr(path, "user.note", b"canary" * 300)
    except OSError as error:
        pytest.skip(f"no extended attributes here: {error}")
    for size in (60_000, 3000, 1000):
        try:
            os.setxattr(path, "user.more", b"x" * size)
        except OSError:
            continue
        return


def with_access_list(path: Path) -> None:
    """An access list that lets a stranger read and write."""
    path.write_bytes(noise(5000))
    entries = ((0x01, 6, 2**32 - 1), (0x02, 6, 65534), (0x04, 4, 2**32 - 1), (0x10, 6, 2**32 - 1), (0x20, 4, 2**32 - 1))
    packed = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    try:
        os.setxattr(path, "system.posix_acl_access", packed)
    except OSError as error:
        pytest.skip(f"no access lists here: {error}")


@pytest.mark.fault(219)
@pytest.mark.parametrize("make", [with_hole, with_attributes, with_access_list], ids=lambda make: make.__name__)
def test_only_bytes_are_packed(tmp_path: Path, make: Callable[[Path], None]) -> None:
    """Holes are zeros; attributes and access lists stay behind: the archive is that of a file with the same bytes."""
    for name in ("plain", "odd"):
        (tmp_path / name).mkdir()
    make(tmp_path / "odd" / "w.bin")
    (tmp_path / "plain" / "w.bin").write_bytes((tmp_path / "odd" / "w.bin").read_bytes())
    (tmp_path / "plain" / "w.bin").chmod(0o644)
    for name in ("plain", "odd"):
        pack(tmp_path / name, tmp_path / f"{name}.zip")
    odd, plain = (read_whole(tmp_path / f"{name}.zip") for name in ("odd", "plain"))
    assert odd["w.bin"] == plain["w.bin"]
    assert b"canary" not in (tmp_path / "odd.zip").read_bytes()
    unpack(tmp_path / "odd.zip", tmp_path / "out")
    assert set(os.listxattr(tmp_path / "out" / "w.bin")) <= {"security.selinux"}


def scene_of_a_proc_file(folder: Path) -> None:
    mount("mount", "--bind", "/proc/version", str(folder / "run" / "version.bin"))
    pack(folder / "run", folder / "x.zip", whole_run=True)
    held = read_whole(folder / "x.zip")
    assert (held["version.bin"], held["w.bin"]) == (b"", b"weights")


@pytest.mark.fault(209)
def test_a_file_that_says_it_is_empty(tmp_path: Path) -> None:
    """A file as in /proc, of no size and yet with bytes, hangs nothing and is as long as it says, as for tar."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "w.bin").write_bytes(b"weights")
    (tmp_path / "run" / "version.bin").touch()
    apart(scene_of_a_proc_file, tmp_path, MOUNTS)


def is_plain(name: str) -> bool:
    left_out = why_excluded(name, is_folder=True) or why_excluded(name, is_folder=False)
    clash = name.casefold() in (MANIFEST, "model") or name.endswith(".safetensors")
    return "/" not in name and not (why_unsafe(name) or left_out or is_log(name) or clash)


SEGMENT = st.one_of(
    st.sampled_from(["a", "b", "unet", "w.bin", "config.json", "ä", "é.pt"]), st.text(min_size=1, max_size=12)
).filter(is_plain)
SIZE = st.sampled_from([0, 1, 17, 65_536, 2**20 - 1, 2**20, 2**20 + 1, 2**21 + 3])
CONTENT = st.tuples(
    st.builds(lambda size, kind: (noise(size), b"ab" * size)[kind][:size], SIZE, st.integers(0, 1)), st.booleans()
)
TREES = st.dictionaries(st.lists(SEGMENT, min_size=1, max_size=3).map("/".join), st.none() | CONTENT, max_size=6)


def settle(tree: Files) -> Files:
    """Without twins, without what is below a file, and without folders that are not empty."""
    spelt: dict[str, str] = {}
    kept: Files = {}
    for path in sorted(tree):
        steps = [*(path[:at] for at, char in enumerate(path) if char == "/"), path]
        is_one = all(spelt.setdefault(RelPath.parse(step).folded, step) == step for step in steps)
        if is_one and not any(tree.get(step) for step in steps[:-1]):
            kept[path] = tree[path]
    return {path: held for path, held in kept.items() if held or not any(o.startswith(f"{path}/") for o in kept)}


def tree_of(folder: Path) -> Files:
    found: Files = {}
    for at, folders, files in os.walk(folder):
        place = Path(at)
        for name in files:
            path = place / name
            found[path.relative_to(folder).as_posix()] = (path.read_bytes(), bool(path.stat().st_mode & 0o100))
        if not folders and not files:
            found[place.relative_to(folder).as_posix()] = None
    return found


@pytest.mark.fault(212)
@pytest.mark.parametrize("engine", ["fast", "zlib"])
@settings(max_examples=examples(75), deadline=None, suppress_health_check=list(HealthCheck))
@given(tree=TREES)
def test_unpacking_undoes_packing(monkeypatch: pytest.MonkeyPatch, engine: str, tree: Files) -> None:
    """unpack(pack(tree)) is the tree and the manifest: names, bytes, x bits, empty folders; with isal and without."""
    if engine == "zlib":
        monkeypatch.setattr(zip_records, "engine", zlib)
    tree = settle({**tree, "zz.bin": (b"at least one", False)})
    with tempfile.TemporaryDirectory() as home:
        run, archive, back = Path(home, "run"), Path(home, "x.zip"), Path(home, "back")
        for path, held in tree.items():
            place = run / path
            place.parent.mkdir(parents=True, exist_ok=True)
            if held is None:
                place.mkdir(exist_ok=True)
            else:
                place.write_bytes(held[0])
                place.chmod(0o755 if held[1] else 0o644)
        manifest = pack(run, archive, whole_run=True, allow_incomplete=True).manifest  # of weights without a byte
        assert unpack(archive, back).manifest == manifest
        found = tree_of(back)
        assert found.pop(MANIFEST) == (manifest.to_json(), False)
        assert found == tree
