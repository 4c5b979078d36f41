"""mdl pack and what it stands on: a disk that fails, a process that is stopped, a reader that goes away.

Whatever happens: under the final name is a whole archive or what was there before, and nothing is left beside it.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import threading
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support.data import noise
from support.namespaces import MOUNTS, apart, failing, small_disk
from support.packing import BEFORE, make_run, read_whole, staged_in
from support.schemas import document_of
from support.shell import Shell

from mdl.errors import NoSpace
from mdl.ops import pack as operation

LONG = bool(os.environ.get("MDL_LONG"))
KILLS = 8 if LONG else 4
SIZE = 16 * 2**20
CALLS = ["rename", "fsync", "unlink", "write"] if LONG else ["rename"]


@pytest.fixture
def large(tmp_path: Path) -> Shell:
    """A run that takes a while, and yesterday's archive of it."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "weights.bin").write_bytes(noise(SIZE))
    (tmp_path / "model_run.zip").write_bytes(BEFORE)
    return Shell(tmp_path, extra={"MDL_LOG_FILE": ""})


def start(shell: Shell, *words: str) -> Any:
    """mdl pack, with its stdout and stderr in pipes."""
    command = shell.command("pack", "run", *words)
    return subprocess.Popen(command, env=shell.environ, cwd=shell.home, stdout=-1, stderr=-1, bufsize=0)


def start_and(shell: Shell, size: int, act: Callable[[Any], object], *words: str) -> tuple[int, bytes, str]:
    """Pack, and act on the child when the staged archive has ``size`` bytes; exit code, stdout and stderr."""
    child = start(shell, "--compress", "deflate", *words)
    until = time.monotonic() + 60
    while child.poll() is None and time.monotonic() < until:
        with contextlib.suppress(OSError):
            if any((shell.home / name).stat().st_size >= size for name in staged_in(shell.home)):
                act(child)
                break
    out, error = child.communicate()
    return child.returncode, out, error.decode()


@pytest.mark.fault(215)
def test_killed_at_any_moment(large: Shell) -> None:
    """SIGKILL leaves yesterday's archive or a whole one under the name, and the next pack clears up."""
    chance, killed = random.Random(8), 0
    archive = large.home / "model_run.zip"
    for _ in range(KILLS):
        size = chance.choice((0, 1, chance.randrange(SIZE)))
        code, _, _ = start_and(large, size, lambda child: child.kill())
        killed += code == -signal.SIGKILL
        if archive.read_bytes() != BEFORE:
            read_whole(archive)
        archive.write_bytes(BEFORE)
    assert killed
    assert large.run("pack", "run").code == 0
    assert staged_in(large.home) == []
    read_whole(archive)


@pytest.mark.fault(215)
@pytest.mark.parametrize("call", CALLS)
def test_killed_at_every_call(tmp_path: Path, call: str) -> None:
    """SIGKILL at the first, second, … such call until one pack comes through; then nothing is left of the others."""
    shell = Shell(tmp_path, extra={"MDL_LOG_FILE": ""})
    archive, killed = tmp_path / "model_run.zip", 0
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "w.bin").write_bytes(noise(2**21))
    for number in range(1, 200):
        archive.write_bytes(BEFORE)
        ran = shell.run("pack", "run", "-q", prefix=failing(f"{call}:signal=KILL:when={number}"))
        if ran.code == 0:
            break
        killed += 1
        assert ran.code in (-9, 137)
        if archive.read_bytes() != BEFORE:
            read_whole(archive)
    assert killed
    read_whole(archive)
    assert sorted(os.listdir(tmp_path)) == ["model_run.zip", "run"]


@pytest.mark.fault(215)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_in_order(large: Shell, number: int, code: int) -> None:
    """SIGINT is 130 and SIGTERM 143; nothing is left, yesterday's archive is, and stderr says so."""
    got, error = 0, ""
    for _ in range(5):
        if got == 0:
            (large.home / "model_run.zip").write_bytes(BEFORE)
            got, _, error = start_and(large, 1, lambda child: child.send_signal(number))
    assert got == code, error
    assert "nothing was written" in error
    assert (large.home / "model_run.zip").read_bytes() == BEFORE
    assert staged_in(large.home) == []


def test_two_processes_at_once(large: Shell) -> None:
    """Two packs to one name do not get in each other's way: both 0, and the archive is whole."""
    two = [start(large, "-q") for _ in "ab"]
    outs = [child.communicate()[0] for child in two]
    assert ([child.returncode for child in two], len(set(outs))) == ([0, 0], 1)
    read_whole(large.home / "model_run.zip")
    assert staged_in(large.home) == []


def test_two_threads_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor do two threads of one process that both have begun to write."""
    run, both, real = make_run(tmp_path), threading.Barrier(2, timeout=120), operation.write_archive

    def write(*args: Any, **options: Any) -> Any:
        both.wait()
        return real(*args, **options)

    monkeypatch.setattr(operation, "write_archive", write)
    with ThreadPoolExecutor(2) as pool:
        done = [pool.submit(operation.pack, run, tmp_path / "x.zip") for _ in range(2)]
        assert len({one.result(60).sha256 for one in done}) == 1
    read_whole(tmp_path / "x.zip")
    assert sorted(os.listdir(tmp_path)) == ["run", "x.zip"]


@pytest.mark.fault(205)
@pytest.mark.parametrize("words", [(), ("--allow-changing",)])
def test_a_pipe_gets_no_end_of_what_failed(large: Shell, words: tuple[str, ...]) -> None:
    """-o - of a run that changes: 6, and what came through is no archive; with --allow-changing 0 and a whole one."""
    child, taken, got = start(large, "-o", "-", *words), b"", large.home / "got.zip"
    while len(taken) < 1000:
        taken += child.stdout.read(1000)
    os.truncate(large.home / "run" / "weights.bin", 10)
    rest, error = child.communicate()
    got.write_bytes(taken + rest)
    assert (b"weights.bin" in error, b" changed while it was read" in error) == (True, True)
    assert (child.returncode, zipfile.is_zipfile(got)) == ((0, True) if words else (6, False))
    if words:
        assert 10 < len(read_whole(got)["weights.bin"]) < SIZE


@pytest.mark.fault(205)
def test_the_document_tells_what_changed(large: Shell) -> None:
    """--allow-changing --json is 0 and lists under ``changed`` what was cut while it was read."""

    def cut(child: Any) -> None:
        child.send_signal(signal.SIGSTOP)
        os.truncate(large.home / "run" / "weights.bin", 10)
        child.send_signal(signal.SIGCONT)

    changed: list[str] = []
    for _ in range(5):
        if not changed:
            (large.home / "run" / "weights.bin").write_bytes(noise(SIZE))
            code, out, error = start_and(large, 1, cut, "--allow-changing", "--json")
            assert code == 0, error
            changed = document_of(out)["changed"]
    assert changed == ["weights.bin"]
    read_whole(large.home / "model_run.zip")


def scene_of_a_small_disk(folder: Path) -> None:
    disk = small_disk(folder / "small", "size=1m")
    with pytest.raises(NoSpace, match="No space left on device") as caught:
        operation.pack(folder / "run", disk / "x.zip")
    assert (caught.value.exit_code, os.listdir(disk)) == (7, [])


@pytest.mark.fault(215)
@pytest.mark.usefixtures("large")
def test_a_disk_that_fills(tmp_path: Path) -> None:
    """ENOSPC: 7, in the system's words, and nothing is left on the full disk."""
    apart(scene_of_a_small_disk, tmp_path, MOUNTS)


@pytest.mark.fault(215)
def test_a_limit_on_files(large: Shell) -> None:
    """A file size limit is 7 as well, and nothing is left. The archive is named; the hint is not one for downloads."""
    ran = large.run("pack", "run", "-o", "x.zip", prefix=("sh", "-c", 'ulimit -f 64; exec "$@"', "-"))
    assert (ran.code, "x.zip: File too large" in ran.err, "fetched" in ran.err) == (7, True, False)
    assert sorted(os.listdir(large.home)) == ["model_run.zip", "run"]


@pytest.mark.fault(215)
@pytest.mark.parametrize("calls", ["read pread64 preadv", "fsync", "rename renameat renameat2"])
def test_a_disk_that_errs(large: Shell, calls: str) -> None:
    """EIO on reading, on writing and on the last sync: 7, yesterday's archive stays, nothing is left. A file that
    cannot be read is named."""
    only = ("-P", str(large.home / "run" / "weights.bin")) if "read" in calls else ()
    fault = "error=EIO" if only else "error=EIO:when=1"
    ran = large.run("pack", "run", prefix=(*failing(*(f"{call}:{fault}" for call in calls.split())), *only))
    assert (ran.code, "Input/output error" in ran.err) == (7, True)
    assert "weights.bin" in ran.err or not only
    assert (large.home / "model_run.zip").read_bytes() == BEFORE
    assert staged_in(large.home) == []


def test_a_reader_that_goes_away(large: Shell) -> None:
    """-o - into a pipe that is closed half-way is 141 as everywhere else in mdl, not trouble with a folder or a disk,
    and without a traceback."""
    child = start(large, "-o", "-")
    child.stdout.read(10)
    child.stdout.close()
    error = child.stderr.read().decode()
    child.stderr.close()
    assert (child.wait(60), "Traceback" in error, "folder" in error) == (141, False, False)
