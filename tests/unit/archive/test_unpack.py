"""Unpacking's own side: the target, the disk, a kill, an archive that changes meanwhile, modes, size."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.hostile_archives import BASE, USUAL, snapshot, tree
from support.partials import dead_owner
from support.shell import Shell
from support.zip_bytes import Member, Zip

from mdl.errors import MdlError, NotFound, Occupied, ProtocolError
from mdl.events import Event, Started
from mdl.operations.release import unpack

MIB = 2**20
FILES = {m.name.decode().rstrip("/"): None if m.name.endswith(b"/") else m.data for m in BASE.members}


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    place = tmp_path / "a.zip"
    place.write_bytes(BASE.build())
    return place


@pytest.fixture
def umask() -> Iterator[None]:
    """The usual one."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def archive_of(place: Path, *members: Member) -> Path:
    place.write_bytes(Zip(members=members).build())
    return place


# The target.


@pytest.mark.parametrize("depth", ["out", "new/deep/out"])
def test_absent_target_is_made(archive: Path, tmp_path: Path, depth: str) -> None:
    """A target that is not there is made, with the folders above it."""
    done = unpack(archive, tmp_path / depth, limits=USUAL)
    assert tree(tmp_path / depth) == FILES
    assert (done.files, done.path) == (4, tmp_path / depth)


def test_empty_target_is_taken(archive: Path, tmp_path: Path) -> None:
    """An empty folder is a target."""
    (tmp_path / "out").mkdir()
    unpack(archive, tmp_path / "out", limits=USUAL)
    assert tree(tmp_path / "out") == FILES


def occupied(kind: str, target: Path) -> None:
    match kind:
        case "file within":
            target.mkdir()
            (target / "mine").write_text("mine")
        case "hidden file within":
            target.mkdir()
            (target / ".mine").touch()
        case "folder within":
            (target / "mine").mkdir(parents=True)
        case "link within":
            target.mkdir()
            (target / "ckpt").symlink_to("/etc")
        case "file":
            target.write_text("mine")
        case "link to a folder":
            (target.parent / "real").mkdir()
            target.symlink_to("real")
        case "dangling link":
            target.symlink_to("nowhere")
        case "link to itself":
            target.symlink_to(target.name)
        case "FIFO":
            os.mkfifo(target)


KINDS = ["file within", "hidden file within", "folder within", "link within", "file", "link to a folder"]


@pytest.mark.fault(200)
@pytest.mark.parametrize("kind", [*KINDS, "dangling link", "link to itself", "FIFO"])
def test_occupied_target_is_left_alone(archive: Path, tmp_path: Path, kind: str) -> None:
    """Whatever is in the target's place already: 7, it is named, and everything is as before (F200)."""
    target = tmp_path / "out"
    occupied(kind, target)
    before = snapshot(tmp_path)
    with pytest.raises(Occupied) as caught:
        unpack(archive, target, limits=USUAL)
    assert caught.value.exit_code == 7
    assert str(target) in (caught.value.item or "")
    assert snapshot(tmp_path) == before


def test_working_folder_is_no_target(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The empty folder that one stands in is not replaced under one's feet."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(Occupied):
        unpack(archive, Path(), limits=USUAL)
    assert os.listdir(tmp_path / "here") == []


@pytest.mark.fault(200)
def test_target_filled_meanwhile(archive: Path, tmp_path: Path) -> None:
    """Where somebody puts a file into the target while it is unpacked: 7, that file stays, nothing else does."""

    def intrude(event: Event) -> None:
        if isinstance(event, Started):
            (tmp_path / "out").mkdir()
            (tmp_path / "out" / "mine").write_text("mine")

    with pytest.raises(Occupied):
        unpack(archive, tmp_path / "out", limits=USUAL, on_event=intrude)
    assert tree(tmp_path) == {"a.zip": archive.read_bytes(), "out": None, "out/mine": b"mine"}


def test_link_above_the_target_is_the_users_own(archive: Path, tmp_path: Path) -> None:
    """A link among the folders above the target is where its user wants it."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "way").symlink_to("disk")
    unpack(archive, tmp_path / "way" / "out", limits=USUAL)
    assert tree(tmp_path / "disk" / "out") == FILES


# The archive.


def test_no_archive(tmp_path: Path) -> None:
    """An archive that is not there: 3, and no folder is made for it."""
    with pytest.raises(NotFound) as caught:
        unpack(tmp_path / "none.zip", tmp_path / "new" / "out", limits=USUAL)
    assert (caught.value.exit_code, os.listdir(tmp_path)) == (3, [])


@pytest.mark.parametrize("kind", ["folder", "FIFO", "device"])
def test_archive_that_is_no_file(tmp_path: Path, kind: str) -> None:
    """A folder, a FIFO nobody writes to, a device: 6 at once, never waiting."""
    place = Path("/dev/zero") if kind == "device" else tmp_path / "a.zip"
    if kind == "folder":
        place.mkdir()
    elif kind == "FIFO":
        os.mkfifo(place)
    with pytest.raises(ProtocolError) as caught:
        unpack(place, tmp_path / "out", limits=USUAL)
    assert str(place) in (caught.value.item or "")
    assert not (tmp_path / "out").exists()


def test_unreadable_archive(archive: Path, tmp_path: Path) -> None:
    """An archive that may not be read: 7 in the system's words, named, and no traceback."""
    archive.chmod(0)
    if os.geteuid() == 0 and not shutil.which("setpriv"):
        pytest.skip("root can read everything, and setpriv is not here")
    prefix = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search") if os.geteuid() == 0 else ()
    ran = Shell(tmp_path).run("unpack", str(archive), "--to", str(tmp_path / "out"), prefix=prefix)
    assert not (tmp_path / "out").exists()
    assert str(archive) in ran.err
    assert "Traceback" not in ran.err
    assert (ran.code, "Permission denied" in ran.err) == (7, True)


def test_unreadable_archive_below_the_command(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system refuses to open the archive, its own error names it."""

    def refuse(path: Path, *_: object) -> int:
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        with pytest.raises((PermissionError, MdlError)) as caught:
            unpack(archive, tmp_path / "out", limits=USUAL)
    assert str(archive) in str(caught.value) + str(getattr(caught.value, "item", ""))


BIG = Member(name=b"big.bin", data=bytes(3 * MIB))


def grown(place: Path) -> None:
    with place.open("ab") as file:
        file.write(b"more")


def rewritten(place: Path) -> None:
    """Other bytes of the same size, and the time put back."""
    facts, data = place.stat(), bytearray(place.read_bytes())
    data[len(data) // 2] ^= 1
    place.write_bytes(data)
    os.utime(place, ns=(facts.st_atime_ns, facts.st_mtime_ns))


CHANGES = {
    "grows": grown,
    "is cut": lambda place: os.truncate(place, 100),
    "is emptied": lambda place: os.truncate(place, 0),
    "is cut in the data": lambda place: os.truncate(place, 2 * MIB),
    "is touched": lambda place: os.utime(place, ns=(1, 1)),
    "gets other bytes": rewritten,
}


@pytest.mark.fault(202)
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_archive_changes_while_it_is_read(tmp_path: Path, change: object) -> None:
    """An archive that is written to after it was checked: 6, named, and nothing is left (F202)."""
    place = archive_of(tmp_path / "a.zip", BIG)

    def tell(event: Event) -> None:
        if isinstance(event, Started):
            change(place)  # type: ignore[operator]

    with pytest.raises(ProtocolError) as caught:
        unpack(place, tmp_path / "out", limits=USUAL, on_event=tell)
    assert str(place) in (caught.value.item or "")
    assert os.listdir(tmp_path) == ["a.zip"]


@pytest.mark.fault(202)
def test_archive_replaced_while_it_is_read(tmp_path: Path) -> None:
    """Another archive under the same name is not this one: the one that was opened and checked is unpacked (F202)."""
    place = archive_of(tmp_path / "a.zip", BIG)

    def tell(event: Event) -> None:
        if isinstance(event, Started):
            os.replace(archive_of(tmp_path / "b.zip", Member(name=b"../evil")), place)

    unpack(place, tmp_path / "out", limits=USUAL, on_event=tell)
    assert tree(tmp_path / "out") == {"big.bin": BIG.data}


@pytest.mark.fault(202)
def test_archive_removed_while_it_is_read(tmp_path: Path) -> None:
    """An archive that is opened is read to its end, whatever becomes of its name."""
    place = archive_of(tmp_path / "a.zip", BIG)
    unpack(place, tmp_path / "out", limits=USUAL, on_event=lambda event: place.unlink(missing_ok=True))
    assert tree(tmp_path / "out") == {"big.bin": BIG.data}


@pytest.mark.fault(201)
def test_interrupted_by_the_listener(archive: Path, tmp_path: Path) -> None:
    """A Ctrl-C in the middle leaves nothing."""

    def tell(event: Event) -> None:
        if isinstance(event, Started):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        unpack(archive, tmp_path / "out", limits=USUAL, on_event=tell)
    assert os.listdir(tmp_path) == ["a.zip"]


# Modes.


@pytest.mark.fault(187)
@pytest.mark.usefixtures("umask")
@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        *((0o100644, 0o644), (0o100600, 0o644), (0o100666, 0o644), (0o100000, 0o644), (0, 0o644), (0o100444, 0o644)),
        *((0o100755, 0o755), (0o100777, 0o755), (0o100700, 0o755), (0o104755, 0o755), (0o102755, 0o755)),
        *((0o101777, 0o755), (0o106644, 0o644), (0o107777, 0o755)),
    ],
    ids=lambda mode: f"{mode:o}",
)
def test_modes(tmp_path: Path, mode: int, expected: int) -> None:
    """A file is 0644, an executable one 0755; setuid, setgid and sticky bits are never given (F187)."""
    place = archive_of(tmp_path / "a.zip", Member(name=b"d/", data=b"", mode=0o047777), Member(name=b"x", mode=mode))
    unpack(place, tmp_path / "out", limits=USUAL)
    assert (tmp_path / "out" / "x").stat().st_mode & 0o7777 == expected
    assert (tmp_path / "out" / "d").stat().st_mode & 0o7777 == 0o755
    assert (tmp_path / "out").stat().st_mode & 0o7777 == 0o755


def test_umask_is_honoured(archive: Path, tmp_path: Path) -> None:
    """Whoever wants privacy by umask gets it."""
    before = os.umask(0o077)
    try:
        unpack(archive, tmp_path / "out", limits=USUAL)
    finally:
        os.umask(before)
    modes = {place.stat().st_mode & 0o777 for place in [tmp_path / "out", *(tmp_path / "out").rglob("*")]}
    assert modes == {0o700, 0o600}


# Kill, and a full disk.


@pytest.mark.fault(201)
def test_killed_then_run_again(tmp_path: Path) -> None:
    """Killed while it unpacks: no target; the next run sweeps what was left and ends right (F201)."""
    shell, out = Shell(tmp_path), tmp_path / "place" / "out"
    members = [Member(name=b"%d.bin" % n, data=bytes([n % 256]) * 100_000) for n in range(200)]
    place = archive_of(tmp_path / "a.zip", *members)
    out.parent.mkdir()
    command = shell.command("unpack", str(place), "--to", str(out))
    child = subprocess.Popen(command, env=shell.environ, cwd=tmp_path, stdout=-3, stderr=-3)
    while child.poll() is None and not os.listdir(out.parent):
        os.sched_yield()
    child.kill()
    assert child.wait() == -9
    [left] = out.parent.iterdir()
    assert left.name.startswith(".out.")
    assert left.name.endswith(".mdl-tmp")
    assert shell.run("unpack", str(place), "--to", str(out)).code == 0
    assert os.listdir(out.parent) == ["out"]
    assert tree(out) == {member.name.decode(): member.data for member in members}


@pytest.mark.fault(201)
def test_only_the_dead_are_swept(archive: Path, tmp_path: Path) -> None:
    """What a living process, another machine or the user has beside the target stays; what the dead left goes."""
    from mdl.process import ProcessId

    out = tmp_path / "place" / "out"
    names = {
        "living": f".other.{ProcessId.current()}.mdl-tmp",
        "elsewhere": f".out.{'0' * 12}-1-1.mdl-tmp",
        "users": ".mine.mdl-tmp",
    }
    for name in (*names.values(), f".out.{dead_owner()}.mdl-tmp"):
        (out.parent / name / "within").mkdir(parents=True)
    unpack(archive, out, limits=USUAL)
    assert set(os.listdir(out.parent)) == {"out", *names.values()}


@pytest.fixture(scope="module")
def namespace() -> None:
    if not shutil.which("unshare") or subprocess.run(["unshare", "-rm", "true"], check=False).returncode:
        pytest.skip("no user namespaces here: a full disk cannot be had")


FULL = """
mount -t tmpfs -o "$1" tmpfs "$2" || exit 99
shift
place=$1; shift
"$@"
code=$?
ls -A "$place"
exit $code
"""


@pytest.mark.fault(201, 287)
@pytest.mark.usefixtures("namespace")
@pytest.mark.parametrize(
    ("size", "flags", "words"),
    [
        ("size=1m", [], "short"),
        ("size=1m", ["--max-size", "1G"], "short"),
        ("size=64m,nr_inodes=9", [], "inodes"),
        ("size=1m", ["--release"], "short"),
    ],
    ids=["bytes", "bytes allowed", "inodes", "release"],
)
def test_no_room(tmp_path: Path, size: str, flags: list[str], words: str) -> None:
    """More than the disk has room for: 7 with need and have, before even a folder is made (F201)."""
    shell, disk = Shell(tmp_path), tmp_path / "disk"
    disk.mkdir()
    members = [Member(name=b"%d.bin" % n, data=bytes(200_000)) for n in range(20)]
    place = archive_of(tmp_path / "a.zip", *members)
    command = shell.command("unpack", str(place), "--to", str(disk / "out"), *flags)
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", FULL, "sh", size, str(disk), *command],
        env=shell.environ,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (7, ""), done.stderr
    assert words in done.stderr
    assert "nothing was written" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.fault(201)
@pytest.mark.usefixtures("namespace")
def test_full_disk(tmp_path: Path) -> None:
    """A disk that somebody else fills meanwhile: 7, in the system's words, and nothing is left (F201)."""
    disk, place = tmp_path / "disk", archive_of(tmp_path / "a.zip", Member(data=bytes(2 * MIB)))
    disk.mkdir()
    command = [sys.executable, "-c", _FILLING, str(place), str(disk)]
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", FULL, "sh", "size=4m", str(disk), *command],
        env=Shell(tmp_path).environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (7, "filler\n"), done.stderr
    assert "No space left on device" in done.stderr


_FILLING = """
import sys
from pathlib import Path
from mdl.archive.directory import ArchiveLimits
from mdl.errors import MdlError
from mdl.events import Started
from mdl.operations.release import unpack

disk = Path(sys.argv[2])
fill = lambda event: isinstance(event, Started) and (disk / "filler").write_bytes(bytes(3 * 2**20))
try:
    unpack(Path(sys.argv[1]), disk / "out", limits=ArchiveLimits(), on_event=fill)
except MdlError as error:
    print(error.message, file=sys.stderr)
    sys.exit(error.exit_code)
"""
MOUNTED = """
mount -t tmpfs tmpfs "$1" || exit 99
place=$1; shift
"$@" && ls -A "$place"
"""


@pytest.mark.usefixtures("namespace")
def test_an_empty_mount_point_is_refused_by_name(archive: Path, tmp_path: Path) -> None:
    """An empty volume cannot be replaced in one step: 7, it is said so and what to do, and nothing is left in it."""
    shell, out = Shell(tmp_path), tmp_path / "out"
    out.mkdir()
    command = ["unshare", "-rm", "sh", "-c", MOUNTED, "sh", str(out)]
    ran = shell.run("unpack", str(archive), "--to", str(out), prefix=tuple(command))
    assert ran.code != 99, "the test's own mount failed"
    assert (ran.code, "mount point" in ran.err, "--to" in ran.err) == (7, True, True)
    assert ran.out == ""


@pytest.mark.fault(201)
def test_file_too_large_for_the_system(tmp_path: Path) -> None:
    """A file over the process's limit: 7, and nothing is left (F201)."""
    shell, place = Shell(tmp_path), archive_of(tmp_path / "a.zip", BIG)
    limit = ("sh", "-c", 'ulimit -f 2048; "$@"', "sh")
    ran = shell.run("unpack", str(place), "--to", str(tmp_path / "out"), prefix=limit)
    assert ran.code == 7, ran.err
    assert "File too large" in ran.err
    assert "Traceback" not in ran.err
    assert not [name for name in os.listdir(tmp_path) if "out" in name]


@pytest.mark.fault(201)
@pytest.mark.parametrize("call", ["write", "fsync", "replace", "mkdir", "open"])
def test_disk_error(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """Whichever call the disk fails, the error is the system's, and nothing is left (F201)."""
    real, out = getattr(os, call), tmp_path / "out"

    def fails(*args: object, **more: object) -> object:
        if call == "open" and "weights.bin" not in str(args[0]):
            return real(*args, **more)
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fails)
        with pytest.raises((OSError, MdlError)) as caught:
            unpack(archive, out, limits=USUAL)
    assert getattr(caught.value, "exit_code", 7) == 7
    assert os.listdir(tmp_path) == ["a.zip"]


def test_short_writes(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that takes a part of the bytes is gone on with."""
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:7]))
    unpack(archive, tmp_path / "out", limits=USUAL)
    assert tree(tmp_path / "out") == FILES


# As a user runs it.


@pytest.mark.parametrize(
    ("members", "code"),
    [
        pytest.param((Member(name=b"../x"),), 11, marks=pytest.mark.fault(184)),
        pytest.param((Member(name=b"x", local={"crc": 1}),), 6, marks=pytest.mark.fault(192)),
        pytest.param((Member(name=b"x\x1b[2J"),), 11, marks=pytest.mark.fault(190)),
        ((Member(name=b"mdl-manifest.json", data=b'{"schema": "mdl.manifest/2"}'),), 12),
    ],
    ids=["climbing", "damaged", "escape", "newer"],
)
def test_command_refuses(tmp_path: Path, members: tuple[Member, ...], code: int) -> None:
    """The command's exit code, its two lines on stderr, nothing on stdout, nothing on disk."""
    shell, place = Shell(tmp_path), archive_of(tmp_path / "a.zip", *members)
    ran = shell.run("unpack", str(place), "--to", str(tmp_path / "out"))
    assert (ran.code, ran.out) == (code, "")
    assert "a.zip" in ran.err
    assert "\x1b" not in ran.err
    assert len(ran.err.splitlines()) == 2
    assert not (tmp_path / "out").exists()


# Large.

RSS = """
import sys
from pathlib import Path
from mdl.archive.directory import ArchiveLimits
from mdl.operations.release import unpack
unpack(Path(sys.argv[1]), Path(sys.argv[2]), limits=ArchiveLimits())
[line] = [one for one in open("/proc/self/status") if one.startswith("VmHWM")]
print(int(line.split()[1]) // 1024)
"""


def rss_of_unpacking(place: Path, out: Path) -> int:
    """The peak memory of a process that unpacks, in MiB; by /proc, as ru_maxrss may be what the parent had."""
    done = subprocess.run([sys.executable, "-c", RSS, place, out], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.fault(203)
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "deflated"])
def test_memory_is_flat(tmp_path: Path, method: int) -> None:
    """A member of 90 MiB takes less than 100 MiB of memory, and no more than 40 above that of a small one (F203)."""
    peaks = []
    for size in (1, 90):
        place, out = tmp_path / f"{size}.zip", tmp_path / f"{size}"
        with zipfile.ZipFile(place, "w", method, compresslevel=1) as made:
            made.writestr("big.bin", bytes(size * MIB))
        peaks.append(rss_of_unpacking(place, out))
        assert (out / "big.bin").stat().st_size == size * MIB
    assert peaks[1] < 100
    assert peaks[1] - peaks[0] < 40


@pytest.mark.fault(203)
@pytest.mark.skipif(not os.environ.get("MDL_LONG"), reason="writes 8 GiB; asked for with MDL_LONG=1")
def test_more_than_4_gib(tmp_path: Path) -> None:
    """A stored member over 4 GiB and one behind it, at an offset over 4 GiB, within 100 MiB of memory (F203)."""
    place, size = tmp_path / "a.zip", 2**32 + MIB
    with zipfile.ZipFile(place, "w") as made:
        with made.open("big.bin", "w", force_zip64=True) as member:
            for _ in range(size // MIB):
                member.write(bytes(MIB))
        made.writestr("behind.txt", b"behind")
    assert rss_of_unpacking(place, tmp_path / "out") < 100
    assert (tmp_path / "out" / "big.bin").stat().st_size == size
    assert (tmp_path / "out" / "behind.txt").read_bytes() == b"behind"
