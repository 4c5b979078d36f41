"""Unpacking's own side: the target, the disk, a kill, an archive that changes meanwhile, modes, size."""

from __future__ import annotations

import hashlib
import os
import subprocess
import threading
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from support.hostile_archives import BASE, USUAL, snapshot, tree
from support.namespaces import MOUNTS, apart, bound_by_modes, small_disk
from support.packing import memory_of
from support.partials import dead_owner
from support.shell import Inside, Shell
from support.weights import torch_file, whole_file, zipped
from support.zip_bytes import Member, Zip

from mdl.archive.base import ArchiveLimits
from mdl.archive.unpack import check_not_packed
from mdl.cancel import CancelToken
from mdl.disk.process import ProcessId
from mdl.errors import Cancelled, NotFound, Occupied, ProtocolError, StorageError
from mdl.events import Event, Finished, Listener, Started
from mdl.ops.release import release
from mdl.ops.unpack import unpack, verify_archive

MIB = 2**20
FILES = {m.name.decode().rstrip("/"): None if m.name.endswith(b"/") else m.data for m in BASE.members}
BIG = Member(name=b"big.bin", data=bytes(3 * MIB))
MANY = [Member(name=b"part%d/%d.bin" % (n % 7, n), data=b"%d" % n) for n in range(600)]
PARTS = [Member(name=b"%d.bin" % n, data=bytes([n % 256]) * 100_000) for n in range(200)]


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    place = tmp_path / "a.zip"
    place.write_bytes(BASE.build())
    return place


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def archive_of(place: Path, *members: Member) -> Path:
    place.write_bytes(Zip(members=members).build())
    return place


def at_start(act: Callable[[], object]) -> Listener:
    """Does something once the archive was checked and before its first byte is unpacked."""
    return lambda event: act() and None if isinstance(event, Started) else None


# The target.


@pytest.mark.parametrize("place", ["absent", "new/deep", "empty", "link/out"])
def test_targets_that_are_taken(archive: Path, tmp_path: Path, place: str) -> None:
    """A target that is absent is made, with the folders above it; an empty folder is one; a link above it is the
    user's own."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    done = unpack(archive, tmp_path / place, limits=USUAL)
    assert tree(tmp_path / place) == FILES
    assert (done.files, done.path) == (4, tmp_path / place)


def filled(target: Path, name: str = "mine") -> None:
    target.mkdir()
    (target / name).write_text("mine")


OCCUPIED: dict[str, Callable[[Path], object]] = {
    "file within": filled,
    "hidden file within": lambda target: filled(target, ".mine"),
    "folder within": lambda target: (target / "mine").mkdir(parents=True),
    "dangling link within": lambda target: (target.mkdir(), (target / "ckpt").symlink_to("/nowhere")),
    "file": lambda target: target.write_text("mine"),
    "link to a folder": lambda target: ((target.parent / "real").mkdir(), target.symlink_to("real")),
    "dangling link": lambda target: target.symlink_to("nowhere"),
    "link to itself": lambda target: target.symlink_to(target.name),
    "FIFO": os.mkfifo,
    "the working folder": lambda target: (target.mkdir(), os.chdir(target)),
}


@pytest.mark.fault(200)
@pytest.mark.parametrize("make", OCCUPIED.values(), ids=OCCUPIED)
def test_occupied_target_is_left_alone(
    archive: Path, out: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], object]
) -> None:
    """Whatever is in the target's place already: 7, it is named, and everything is as before (F200)."""
    monkeypatch.chdir(out.parent)
    make(out)
    before = snapshot(out.parent)
    with pytest.raises(Occupied) as caught:
        unpack(archive, out, limits=USUAL)
    assert (caught.value.exit_code, str(out) in (caught.value.item or "")) == (7, True)
    assert snapshot(out.parent) == before


@pytest.mark.fault(200)
def test_target_filled_meanwhile(archive: Path, out: Path) -> None:
    """If another program puts a file into the target while it is unpacked: 7, that file stays, nothing else does."""
    with pytest.raises(Occupied):
        unpack(archive, out, limits=USUAL, on_event=at_start(lambda: filled(out)))
    assert tree(out.parent) == {"a.zip": archive.read_bytes(), "out": None, "out/mine": b"mine"}


@pytest.mark.fault(200)
def test_two_threads_with_one_target(archive: Path, out: Path) -> None:
    """Two threads that unpack into one folder: the first to end has it, the other one is told that it is not empty."""
    both = threading.Barrier(2, timeout=120)
    with ThreadPoolExecutor(2) as pool:
        done = [pool.submit(unpack, archive, out, limits=USUAL, on_event=at_start(both.wait)) for _ in range(2)]
        errors = [one.exception(60) for one in done]
    assert [type(error) for error in errors if error] == [Occupied]
    assert (tree(out), sorted(os.listdir(out.parent))) == (FILES, ["a.zip", "out"])


# The archive.


@pytest.mark.parametrize(("kind", "code"), [("nothing", 3), ("folder", 6), ("FIFO", 6), ("device", 6)])
def test_archive_that_is_no_file(tmp_path: Path, out: Path, kind: str, code: int) -> None:
    """No archive is 3; a folder, a FIFO without a writer, a device: 6 at once, never waiting. No folder is made."""
    place = Path("/dev/zero") if kind == "device" else tmp_path / "a.zip"
    if kind == "folder":
        place.mkdir()
    elif kind == "FIFO":
        os.mkfifo(place)
    with pytest.raises(NotFound if code == 3 else ProtocolError) as caught:
        unpack(place, out / "deep", limits=USUAL)
    assert (caught.value.exit_code, str(place) in (caught.value.item or ""), out.exists()) == (code, True, False)


def test_unreadable_archive(archive: Path, out: Path) -> None:
    """An archive that may not be read: 7 in the system's words, named, and no traceback."""
    archive.chmod(0)
    ran = Shell(out.parent).run("unpack", str(archive), "--to", str(out), prefix=bound_by_modes())
    assert (ran.code, "Permission denied" in ran.err, str(archive) in ran.err) == (7, True, True)
    assert ("Traceback" in ran.err, out.exists()) == (False, False)


def rewrite(place: Path) -> None:
    """Other bytes of the same size, and the time put back."""
    facts, data = place.stat(), bytearray(place.read_bytes())
    data[len(data) // 2] ^= 1
    place.write_bytes(data)
    os.utime(place, ns=(facts.st_atime_ns, facts.st_mtime_ns))


CHANGES: dict[str, Callable[[Path], object]] = {
    "grows": lambda place: place.write_bytes(place.read_bytes() + b"more"),
    "is cut": lambda place: os.truncate(place, 100),
    "is emptied": lambda place: os.truncate(place, 0),
    "is cut in the data": lambda place: os.truncate(place, 2 * MIB),
    "is touched": lambda place: os.utime(place, ns=(1, 1)),
    "gets other bytes": rewrite,
}


@pytest.mark.fault(202)
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_archive_changes_while_it_is_read(tmp_path: Path, out: Path, change: Callable[[Path], object]) -> None:
    """An archive that is written to after it was checked: 6, named, and nothing is left (F202)."""
    place = archive_of(tmp_path / "a.zip", BIG)
    with pytest.raises(ProtocolError) as caught:
        unpack(place, out, limits=USUAL, on_event=at_start(lambda: change(place)))
    assert str(place) in (caught.value.item or "")
    assert os.listdir(tmp_path) == ["a.zip"]


@pytest.mark.fault(202)
@pytest.mark.parametrize("change", ["replaced", "removed"])
def test_archive_whose_name_goes_while_it_is_read(tmp_path: Path, out: Path, change: str) -> None:
    """The archive that was opened and checked is unpacked to its end, whatever becomes of its name (F202)."""
    place, evil = archive_of(tmp_path / "a.zip", BIG), archive_of(tmp_path / "b.zip", Member(name=b"../evil"))
    act = place.unlink if change == "removed" else lambda: os.replace(evil, place)
    unpack(place, out, limits=USUAL, on_event=at_start(act))
    assert tree(out) == {"big.bin": BIG.data}


@pytest.mark.fault(201)
def test_interrupted_by_the_listener(archive: Path, out: Path) -> None:
    """A Ctrl-C in the middle leaves nothing."""

    def interrupt(event: Event) -> None:
        if isinstance(event, Started):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        unpack(archive, out, limits=USUAL, on_event=interrupt)
    assert os.listdir(out.parent) == ["a.zip"]


# Modes.

PLAIN = (0o100644, 0o100600, 0o100666, 0o100000, 0, 0o100444, 0o106644)
EXECUTABLE = (0o100755, 0o100777, 0o100700, 0o104755, 0o102755, 0o101777, 0o107777)


@pytest.mark.fault(187)
@pytest.mark.parametrize("umask", [0o022, 0o077], ids=oct)
def test_modes(tmp_path: Path, out: Path, umask: int) -> None:
    """A file is 0644, an executable one 0755, less what the umask takes; setuid, setgid and sticky bits are never given
    (F187)."""
    files = [Member(name=b"%o" % mode, mode=mode) for mode in (*PLAIN, *EXECUTABLE)]
    place, before = archive_of(tmp_path / "a.zip", Member(name=b"d/", data=b"", mode=0o047777), *files), os.umask(umask)
    try:
        unpack(place, out, limits=USUAL)
    finally:
        os.umask(before)
    wanted = {out: 0o755, out / "d": 0o755}
    wanted |= {out / f"{mode:o}": 0o644 for mode in PLAIN} | {out / f"{mode:o}": 0o755 for mode in EXECUTABLE}
    assert {path: path.stat().st_mode & 0o7777 for path in wanted} == {
        path: mode & ~umask for path, mode in wanted.items()
    }


# Kill, and a full disk.


@pytest.mark.fault(201)
def test_killed_then_run_again(tmp_path: Path) -> None:
    """Killed while it unpacks: no target; the next run sweeps what was left and ends right (F201)."""
    shell, out = Shell(tmp_path), tmp_path / "place" / "out"
    place = archive_of(tmp_path / "a.zip", *PARTS)
    out.parent.mkdir()
    command = shell.command("unpack", str(place), "--to", str(out))
    child = subprocess.Popen(command, env=shell.environ, cwd=tmp_path, stdout=-3, stderr=-3)
    while child.poll() is None and not os.listdir(out.parent):
        os.sched_yield()
    child.kill()
    assert child.wait() == -9
    [left] = out.parent.iterdir()
    assert left.name.endswith(".mdl-tmp")
    unpack(place, out, limits=USUAL)
    assert os.listdir(out.parent) == ["out"]
    assert tree(out) == {member.name.decode(): member.data for member in PARTS}


@pytest.mark.fault(201)
def test_only_the_dead_are_swept(archive: Path, tmp_path: Path) -> None:
    """What a living process, another machine or the user has beside the target stays; what the dead left goes."""
    out = tmp_path / "place" / "out"
    names = {f".other.{ProcessId.current()}.mdl-tmp", f".out.{'0' * 12}-1-1.mdl-tmp", ".mine.mdl-tmp"}
    for name in (*names, f".out.{dead_owner()}.mdl-tmp"):
        (out.parent / name / "within").mkdir(parents=True)
    unpack(archive, out, limits=USUAL)
    assert set(os.listdir(out.parent)) == {"out", *names}


NO_ROOM: list[tuple[str, Callable[[Path, Path], object], str]] = [
    ("size=1m", lambda archive, disk: unpack(archive, disk / "out"), "short"),
    ("size=1m", lambda archive, disk: unpack(archive, disk / "out", limits=ArchiveLimits(bytes=10**9)), "short"),
    ("size=64m,nr_inodes=9", lambda archive, disk: unpack(archive, disk / "out"), "inodes"),
    ("size=1m", lambda archive, disk: release(archive, disk / "srv"), "short"),
    ("size=64m", unpack, "mount point"),
]


def scene_of_small_disks(folder: Path) -> None:
    archive = archive_of(folder / "a.zip", *PARTS[:40])
    for number, (options, act, word) in enumerate(NO_ROOM):
        disk = small_disk(folder / str(number), options)
        with pytest.raises(StorageError, match=word) as caught:
            act(archive, disk)
        assert (caught.value.exit_code, os.listdir(disk)) == (7, [])
        hint = caught.value.hint or ""
        assert ("--to" if word == "mount point" else "nothing was written") in hint
    disk = small_disk(folder / "filled", "size=4m")
    with pytest.raises(StorageError, match="No space left on device") as caught:
        fill = at_start(lambda: (disk / "filler").write_bytes(bytes(3 * MIB)))
        unpack(archive_of(folder / "b.zip", Member(data=bytes(2 * MIB))), disk / "out", on_event=fill)
    assert (caught.value.exit_code, os.listdir(disk)) == (7, ["filler"])


@pytest.mark.fault(201, 287)
def test_no_room(tmp_path: Path) -> None:
    """More than the disk has room for: 7 with need and have, before even a folder is made (F201). An empty volume,
    which cannot be replaced in one step: 7, with what to do. A disk that another program fills meanwhile: 7, in the
    system's words, and nothing is left."""
    apart(scene_of_small_disks, tmp_path, MOUNTS)


@pytest.mark.fault(201)
def test_file_too_large_for_the_system(tmp_path: Path, out: Path) -> None:
    """A file over the process's limit: 7, and nothing is left (F201)."""
    place, limit = archive_of(tmp_path / "a.zip", BIG), ("sh", "-c", 'ulimit -f 2048; "$@"', "sh")
    ran = Shell(tmp_path).run("unpack", str(place), "--to", str(out), prefix=limit)
    assert (ran.code, "File too large" in ran.err, "Traceback" in ran.err) == (7, True, False), ran.err
    assert not [name for name in os.listdir(tmp_path) if "out" in name]


@pytest.mark.fault(201)
@pytest.mark.parametrize("call", ["write", "fsync", "replace", "mkdir", "open a.zip", "open weights.bin", "pread"])
def test_disk_error(archive: Path, out: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """Whichever call the disk fails, the error is the system's and names the archive or the target, and nothing is left
    (F201)."""
    name, _, only = call.partition(" ")
    real = getattr(os, name)

    def fails(*args: Any, **more: Any) -> Any:
        if only not in str(args[0]):
            return real(*args, **more)
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        fail = at_start(lambda: patch.setattr(os, name, fails))
        if only == "a.zip":
            patch.setattr(os, name, fails)
        with pytest.raises(StorageError, match="Input/output error") as caught:
            unpack(archive, out, limits=USUAL, on_event=fail)
    place = archive if name == "pread" or only == "a.zip" else out
    assert (caught.value.exit_code, caught.value.item) == (7, str(place))
    assert os.listdir(out.parent) == ["a.zip"]


def test_all_is_synced_before_the_folder_has_its_name(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the folder gets its name, every file of every batch is on the disk, and every folder."""
    synced, unsynced = set[int](), list[str]()
    sync, replace = os.fsync, os.replace

    def syncs(fd: int) -> None:
        sync(fd)
        synced.add(os.fstat(fd).st_ino)

    def replaces(staged: Any, final: Any) -> None:
        unsynced.extend(str(one) for one in (staged, *staged.rglob("*")) if one.stat().st_ino not in synced)
        replace(staged, final)

    monkeypatch.setattr(os, "fsync", syncs)
    monkeypatch.setattr(os, "replace", replaces)
    unpack(archive_of(tmp_path / "a.zip", *MANY), out, limits=USUAL)
    assert len(synced) > len(MANY)
    assert unsynced == []


def test_sync_of_an_early_batch_fails(tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sync fails while the next files are written: 7, and nothing is left."""
    place, calls, real = archive_of(tmp_path / "a.zip", *MANY), count(), os.fsync

    def fails_once(fd: int) -> None:
        if next(calls) == 0:
            raise OSError(5, "Input/output error")
        real(fd)

    monkeypatch.setattr(os, "fsync", fails_once)
    with pytest.raises(StorageError, match="Input/output error"):
        unpack(place, out, limits=USUAL)
    assert os.listdir(tmp_path) == ["a.zip"]


def test_few_files_may_be_open(tmp_path: Path, out: Path) -> None:
    """A system that allows a process 40 open files is enough for an archive of any number."""
    place, limit = archive_of(tmp_path / "a.zip", *MANY), ("sh", "-c", 'ulimit -n 40; "$@"', "sh")
    ran = Shell(tmp_path).run("unpack", str(place), "--to", str(out), prefix=limit)
    assert ran.code == 0, ran.err
    assert len(list(out.rglob("*.bin"))) == len(MANY)


def test_short_writes(archive: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that takes a part of the bytes is gone on with."""
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:7]))
    unpack(archive, out, limits=USUAL)
    assert tree(out) == FILES


# Tested, not unpacked.


def test_verify_archive_reads_all_and_writes_nothing(archive: Path) -> None:
    """It returns every file with the SHA-256 of what was read, tells its progress, and leaves the folder as it was."""
    before, events = snapshot(archive.parent), list[Event]()
    rows = verify_archive(archive, limits=USUAL, on_event=events.append)
    read = {path: data for path, data in FILES.items() if data is not None}
    assert {row.path: (row.size, row.sha256) for row in rows} == {
        path: (len(data), hashlib.sha256(data).hexdigest()) for path, data in read.items()
    }
    assert snapshot(archive.parent) == before
    finish = events[-1]
    assert isinstance(finish, Finished)
    assert (finish.action, finish.verified, finish.size) == ("checked", "crc32", sum(map(len, read.values())))


def test_verify_archive_is_stopped_and_sees_changes(tmp_path: Path) -> None:
    """A token stops it; an archive that changes while it is read is 6, as for unpack."""
    place, stop = archive_of(tmp_path / "a.zip", BIG), CancelToken()
    stop.set()
    with pytest.raises(Cancelled):
        verify_archive(place, cancel=stop)
    with pytest.raises(ProtocolError, match="changed while it was read"):
        verify_archive(place, on_event=at_start(lambda: os.utime(place, ns=(1, 1))))


def test_command_tests_an_archive(mdl: Inside, tmp_path: Path) -> None:
    """unpack --test prints the files, and with --json as `members`; damage that --list cannot see is 6; nothing is
    written. It is not joined with --release or --list: 2."""
    shell, place = Shell(tmp_path), archive_of(tmp_path / "a.zip", Member(name=b"x.bin", data=b"right"))
    before = snapshot(tmp_path)
    document = mdl(shell, "unpack", "a.zip", "--test", "--json").document
    [row] = document["members"]
    assert (row["path"], row["sha256"]) == ("x.bin", hashlib.sha256(b"right").hexdigest())
    assert (document["path"], document["files"], document["bytes"]) == (None, 1, 5)
    ran = mdl(shell, "unpack", "a.zip", "--test")
    assert (ran.code, "x.bin" in ran.out, "crc32 ok" in ran.err) == (0, True, True), ran.err
    assert [
        mdl(shell, "unpack", "a.zip", "--test", *more).code for more in (["--release", "--to", "s"], ["--list"])
    ] == [2, 2]
    assert snapshot(tmp_path) == before
    place.write_bytes(place.read_bytes().replace(b"right", b"wrong"))
    assert mdl(shell, "unpack", "a.zip", "--list").code == 0
    damaged = mdl(shell, "unpack", "a.zip", "--test")
    assert (damaged.code, damaged.out, "x.bin" in damaged.err) == (6, "", True)


@pytest.mark.parametrize("how", [["--list"], ["--list", "--json"], ["--test"], ["--to", "out"]], ids=" ".join)
@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("net.pt", torch_file(), "a torch file"),
        ("x.bin", torch_file(), "a torch file"),
        ("model.keras", whole_file("model.keras"), "a Keras model"),
        ("policy.zip", zipped({"data": b"{}", "policy.pth": b"PK"}), "stable-baselines3"),
        ("x.nemo", whole_file("x.nemo"), "a NeMo file"),
        ("a.zip", zipped({"data/x": b"1"}), ""),
        ("a.pt", zipped({"data/x": b"1"}), ""),
    ],
    ids=["torch", "called bin", "Keras", "a policy", "NeMo", "files", "files called pt"],
)
def test_command_says_what_a_model_is(
    mdl: Inside, tmp_path: Path, how: list[str], name: str, data: bytes, told: str
) -> None:
    """A file that programs load as it is gets one line that says what it is, however the command looks into it."""
    shell = Shell(tmp_path)
    (shell.home / name).write_bytes(data)
    ran = mdl(shell, "unpack", name, *how)
    assert ran.code == 0, ran.err
    lines = [line for line in ran.err.splitlines() if "programs load it as it is" in line]
    assert [told in line for line in lines] == ([True] if told else []), ran.err


# As a user runs it.


@pytest.mark.parametrize(
    ("member", "code"),
    [
        pytest.param(Member(name=b"../x"), 11, marks=pytest.mark.fault(184)),
        pytest.param(Member(name=b"x", local={"crc": 1}), 6, marks=pytest.mark.fault(192)),
        pytest.param(Member(name=b"x\x1b[2J"), 11, marks=pytest.mark.fault(190)),
        (Member(name=b"mdl-manifest.json", data=b'{"schema": "mdl.manifest/2"}'), 12),
    ],
    ids=["climbing", "damaged", "escape", "newer"],
)
def test_command_refuses(mdl: Inside, tmp_path: Path, out: Path, member: Member, code: int) -> None:
    """The command's exit code, its two lines on stderr, nothing on stdout, nothing on disk."""
    place = archive_of(tmp_path / "a.zip", member)
    ran = mdl(Shell(tmp_path), "unpack", str(place), "--to", str(out))
    assert (ran.code, ran.out, out.exists()) == (code, "", False)
    assert ("a.zip" in ran.err, "\x1b" in ran.err, len(ran.err.splitlines())) == (True, False, 2)


# Large.


@pytest.mark.fault(203)
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "deflated"])
def test_memory_is_flat(tmp_path: Path, out: Path, method: int) -> None:
    """A member of 90 MiB takes less than 100 MiB of memory, of which the unpacking takes less than 40 (F203)."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w", method, compresslevel=1) as made:
        made.writestr("big.bin", bytes(90 * MIB))
    code, peak, grown = memory_of("unpack", tmp_path / "a.zip", out)
    assert (code, (out / "big.bin").stat().st_size) == (0, 90 * MIB)
    assert (peak < 100, grown < 40) == (True, True), f"{peak:.0f} MiB, {grown:.0f} of it while unpacking"


@pytest.mark.fault(203)
@pytest.mark.skipif(not os.environ.get("MDL_LONG"), reason="writes 8 GiB; asked for with MDL_LONG=1")
def test_more_than_4_gib(tmp_path: Path, out: Path) -> None:
    """A stored member over 4 GiB and one behind it, at an offset over 4 GiB, within 100 MiB of memory (F203)."""
    place, size = tmp_path / "a.zip", 2**32 + MIB
    with zipfile.ZipFile(place, "w") as made:
        with made.open("big.bin", "w", force_zip64=True) as member:
            for _ in range(size // MIB):
                member.write(bytes(MIB))
        made.writestr("behind.txt", b"behind")
    code, peak, _ = memory_of("unpack", place, out)
    assert (code, peak < 100, (out / "big.bin").stat().st_size) == (0, True, size)
    assert (out / "behind.txt").read_bytes() == b"behind"


def test_a_compressed_pickle_is_no_archive(tmp_path: Path) -> None:
    """joblib chooses the compression by a second suffix."""
    (tmp_path / "model.pkl.bz2").write_bytes(b"BZh9")
    check_not_packed(tmp_path, ["model.pkl.bz2"])
    (tmp_path / "model.tar.bz2").write_bytes(b"BZh9")
    with pytest.raises(ProtocolError, match="packed with bzip2"):
        check_not_packed(tmp_path, ["model.tar.bz2"])


def test_a_disk_that_fails_while_it_is_asked_what_is_packed() -> None:
    with pytest.raises(StorageError, match=r"/proc/self/mem"):
        check_not_packed(Path("/proc/self"), ["mem"])  # no page is at its beginning: EIO
