"""mdl pack under fire: a run that changes while it is packed.

Whatever happens: under the final name is a whole archive or what was there before, and nothing is left beside it.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.data import noise
from support.long import LONG
from support.packing import BEFORE, MANIFEST, make_run, planned, read_whole, staged_in

from mdl.archive.zip_write import ArchiveSink
from mdl.errors import MdlError, ProtocolError
from mdl.ops.pack import write_pack

OUTSIDE = "/etc/passwd"
ROUNDS = 80 if LONG else 25


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def to_fifo(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def to_link(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(OUTSIDE)


def overwrite(path: Path) -> None:
    path.write_bytes(b"\0" * path.stat().st_size)
    os.utime(path, (1, 1))


def swap(path: Path) -> None:
    other = path.with_name("other.tmp")
    other.write_bytes(noise(path.stat().st_size))
    other.replace(path)


CHANGES: dict[str, Callable[[Path], None]] = {
    "append": append,
    "truncate": lambda path: os.truncate(path, 5),
    "empty": lambda path: os.truncate(path, 0),
    "overwrite": overwrite,
    "swap": swap,
    "delete": lambda path: path.unlink(),
    "fifo": to_fifo,
    "link": to_link,
    "touch": lambda path: os.utime(path, (7, 7)),
}
MOMENTS = {"before": 1, "within": 3, "after": 6}
"""Writes: the first file; header, three blocks and descriptor of the middle one; the last file."""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    run = tmp_path / "run"
    run.mkdir()
    for name, size in (("a.bin", 10), ("m.bin", 3 * 2**20 - 9), ("z.bin", 10)):
        (run / name).write_bytes(noise(size))
    (tmp_path / "x.zip").write_bytes(BEFORE)
    return run


def at_write(monkeypatch: pytest.MonkeyPatch, number: int, act: Callable[[], object]) -> None:
    """Do something when the archive's ``number``-th write is asked for."""
    real, count = ArchiveSink.write, 0

    def write(self: ArchiveSink, data: bytes | memoryview) -> None:
        nonlocal count
        count += 1
        if count == number:
            act()
        real(self, data)

    monkeypatch.setattr(ArchiveSink, "write", write)


@pytest.mark.fault(205, 206)
@pytest.mark.parametrize("allow", [False, True])
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_changes(run: Path, monkeypatch: pytest.MonkeyPatch, change: str, moment: str, allow: bool) -> None:
    """Before, within or after its reading: the file is named, 6, and what was under the final name is there still.

    With allow_changing the archive is whole, says what changed, and holds nothing of outside the run. A file that was
    gone when its turn came is listed as left out.
    """
    at_write(monkeypatch, MOMENTS[moment], lambda: CHANGES[change](run / "m.bin"))
    if not allow:
        with pytest.raises(ProtocolError) as caught:
            write_pack(planned(run, whole_run=True))
        assert (caught.value.exit_code, caught.value.item) == (6, "m.bin")
        assert ((run.parent / "x.zip").read_bytes(), staged_in(run.parent)) == (BEFORE, [])
        return
    written = write_pack(planned(run, whole_run=True), allow_changing=True)
    held, skipped = read_whole(run.parent / "x.zip"), [one.path for one in written.skipped]
    assert [*written.changed, *skipped] == ["m.bin"]
    assert skipped or (change, moment) != ("delete", "before")
    assert held["a.bin"] == held["z.bin"] == noise(10)
    assert held.get("m.bin", b"")[:4] in (noise(8)[:4], bytes(4), b"")
    assert json.loads(held[MANIFEST])["changed"] == list(written.changed)


@pytest.mark.fault(206, 208)
@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_link_swapped_in_is_not_followed(tmp_path: Path, what: str) -> None:
    """A file, or the folder it is in, that became a link after the look is 6; nothing of outside gets in."""
    run = make_run(tmp_path)
    plan = planned(run, whole_run=True)
    swapped = run / "checkpoint-500" if what == "folder" else run / "checkpoint-500" / "config.json"
    swapped.rename(tmp_path / "outside")
    swapped.symlink_to(tmp_path / "outside")
    with pytest.raises(ProtocolError):
        write_pack(plan)
    write_pack(plan, allow_changing=True)
    held = read_whole(tmp_path / "x.zip")
    assert ("checkpoint-500/model.safetensors" in held) == (what == "file")
    assert "checkpoint-500/config.json" not in held


@pytest.mark.fault(206, 208)
@pytest.mark.parametrize("what", ["link", "folder"])
def test_the_run_itself_swapped(tmp_path: Path, what: str) -> None:
    """Also with allow_changing, nothing is read of another folder that came into the run's place, or of one that a link
    in its place leads to."""
    run, out = make_run(tmp_path), tmp_path / "x.zip"
    plan = planned(run, whole_run=True)
    run.rename(tmp_path / "moved")
    other = make_run(tmp_path, "other")
    other.rename(run) if what == "folder" else run.symlink_to("other")
    with contextlib.suppress(MdlError, OSError):
        write_pack(plan, allow_changing=True)
    assert not out.exists() or set(read_whole(out)) == {MANIFEST}


def to_outside(folder: Path) -> None:
    """A folder that is a link out of the run for a moment."""
    aside = folder.with_name("aside")
    folder.rename(aside)
    folder.symlink_to("/etc")
    folder.unlink()
    aside.rename(folder)


def to_another(path: Path) -> None:
    """A link within the run, or one that leads nowhere."""
    path.unlink()
    path.symlink_to("../z.bin" if path.name == "m.bin" else "nothing")


def vandalise(run: Path) -> None:
    """Never stop changing the run."""
    chance, files = random.Random(5), [run / name for name in ("a.bin", "d/m.bin", "z.bin")]
    for path in files:
        path.write_bytes(b"as it was")
    print(flush=True)
    while True:
        with contextlib.suppress(OSError):
            for path in files:
                if path.is_symlink() or not path.is_file():
                    path.unlink(missing_ok=True)
                    path.write_bytes(chance.randbytes(chance.choice((3, 2**20, 3_000_000))))
            change = chance.choice([*CHANGES.values(), to_another, to_outside])
            change(run / "d" if change is to_outside else chance.choice(files))
            for _ in range(chance.choice((0, 0, 20000))):
                os.getppid()


@contextlib.contextmanager
def vandal(run: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that never stops changing the run."""
    code = f"import {__name__} as here, pathlib; here.vandalise(pathlib.Path({str(run)!r}))"
    tests = str(Path(__file__).parents[1])
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join((tests, str(Path(tests).parent)))}
    with subprocess.Popen([sys.executable, "-c", code], env=environ, stdout=subprocess.PIPE) as child:
        assert child.stdout
        assert child.stdout.readline()
        try:
            yield child
        finally:
            child.kill()


def attempt(run: Path, allow: bool) -> int:
    """Pack once, as the command line would see it: the exit code."""
    try:
        write_pack(planned(run, whole_run=True), allow_changing=allow)
    except OSError:
        return 7
    except MdlError as error:
        return error.exit_code
    return 0


@pytest.mark.fault(205, 208)
@pytest.mark.parametrize("allow", [False, True])
def test_a_run_under_fire(tmp_path: Path, allow: bool) -> None:
    """While others write, cut, replace, delete and link: refused with nothing written, or packed whole and true."""
    run, out = tmp_path / "run", tmp_path / "x.zip"
    (run / "d").mkdir(parents=True)
    out.write_bytes(BEFORE)
    outside, kept, codes = Path(OUTSIDE).read_bytes(), BEFORE, set()
    with vandal(run) as child:
        for number in range(5000):
            if number >= ROUNDS and codes > {0}:
                break
            code = attempt(run, allow)
            codes.add(code)
            assert code in ((0, 3, 7, 11) if allow else (0, 3, 6, 7, 11))
            if code == 0:
                assert outside not in read_whole(out).values()
                kept = out.read_bytes()
            assert out.read_bytes() == kept
            assert staged_in(tmp_path) == []
        assert child.poll() is None
    assert codes > {0}
