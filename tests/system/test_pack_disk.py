"""mdl pack and what it stands on: a disk that fails, a process that is stopped, a reader that goes away.

Whatever happens: under the final name is a whole archive or what was there before, and nothing is left beside it.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.data import noise
from support.packing import read_whole
from support.schemas import document_of
from support.shell import Shell

BEFORE = b"the archive of yesterday"


def beside(home: Path) -> list[str]:
    return [name for name in os.listdir(home) if name.endswith(".mdl-tmp")]


@pytest.fixture
def large(tmp_path: Path) -> Shell:
    """A run that takes a while, and yesterday's archive of it."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "weights.bin").write_bytes(noise(24 * 2**20))
    (tmp_path / "model_run.zip").write_bytes(BEFORE)
    return Shell(tmp_path)


def start_and(shell: Shell, size: int, act: Callable[[Any], object], *words: str) -> tuple[int, bytes, str]:
    """Pack, and act on the child when the staged archive has ``size`` bytes; exit code, stdout and stderr."""
    command = shell.command("pack", "run", "--compress", "deflate", *words)
    child: Any = subprocess.Popen(command, env=shell.environ, cwd=shell.home, stdout=-1, stderr=-1)
    until = time.monotonic() + 60
    while child.poll() is None and time.monotonic() < until:
        with contextlib.suppress(OSError):
            if any((shell.home / name).stat().st_size >= size for name in beside(shell.home)):
                act(child)
                break
    out, error = child.communicate(timeout=60)
    return child.returncode, out, error.decode()


@pytest.mark.fault(215)
def test_killed_at_any_moment(large: Shell) -> None:
    """SIGKILL leaves yesterday's archive or a whole one under the name, and the next pack clears up."""
    chance, killed = random.Random(8), 0
    archive = large.home / "model_run.zip"
    for _ in range(8):
        size = chance.choice((0, 1, chance.randrange(24 * 2**20)))
        code, _, _ = start_and(large, size, lambda child: child.kill())
        killed += code == -signal.SIGKILL
        if archive.read_bytes() != BEFORE:
            read_whole(archive)
        archive.write_bytes(BEFORE)
    assert killed
    assert large.run("pack", "run").code == 0
    assert beside(large.home) == []
    read_whole(archive)


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
    assert beside(large.home) == []


def test_two_at_once(large: Shell) -> None:
    """Two packs to one name do not get in each other's way: both 0, and the archive is whole."""
    command = large.command("pack", "run", "-q")
    two = [subprocess.Popen(command, env=large.environ, cwd=large.home, stdout=-1) for _ in "ab"]
    outs = [child.communicate(timeout=60)[0] for child in two]
    assert ([child.returncode for child in two], len(set(outs))) == ([0, 0], 1)
    read_whole(large.home / "model_run.zip")
    assert beside(large.home) == []


@pytest.mark.fault(205)
@pytest.mark.parametrize("words", [(), ("--allow-changing",)])
def test_a_pipe_gets_no_end_of_what_failed(large: Shell, words: tuple[str, ...]) -> None:
    """-o - of a run that changes: 6, and what came through is no archive; with --allow-changing 0 and a whole one."""
    command = large.command("pack", "run", "-o", "-", *words)
    child: Any = subprocess.Popen(command, env=large.environ, cwd=large.home, stdout=-1, stderr=-1, bufsize=0)
    taken = b""
    while len(taken) < 1000:
        taken += child.stdout.read(1000)
    os.truncate(large.home / "run" / "weights.bin", 10)
    rest, error = child.communicate(timeout=60)
    (large.home / "got.zip").write_bytes(taken + rest)
    assert b"weights.bin" in error
    assert b" changed while it was read" in error
    if words:
        assert child.returncode == 0
        assert 10 < len(read_whole(large.home / "got.zip")["weights.bin"]) < 24 * 2**20
    else:
        assert child.returncode == 6
        assert not zipfile.is_zipfile(large.home / "got.zip")


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
            (large.home / "run" / "weights.bin").write_bytes(noise(24 * 2**20))
            code, out, error = start_and(large, 1, cut, "--allow-changing", "--json")
            assert code == 0, error
            changed = document_of(out)["changed"]
    assert changed == ["weights.bin"]
    read_whole(large.home / "model_run.zip")


@pytest.mark.fault(215)
def test_a_disk_that_fills(large: Shell) -> None:
    """ENOSPC: 7, in the system's words, and nothing is left on the full disk."""
    small, seen = large.home / "small", large.home / "seen"
    small.mkdir()
    script = 'mount -t tmpfs -o size=1m none "$0" || exit 99; "$@"; code=$?; ls -A "$0" > "$SEEN"; exit $code'
    prefix = ("env", f"SEEN={seen}", "unshare", "-rm", "sh", "-c", script, str(small))
    ran = large.run("pack", "run", "-o", str(small / "x.zip"), prefix=prefix)
    if ran.code == 99 or "unshare" in ran.err:
        pytest.skip(f"no tmpfs of one's own here: {ran.err}")
    assert (ran.code, ran.out) == (7, "")
    assert "No space left on device" in ran.err
    assert seen.read_text() == ""


@pytest.mark.fault(215)
def test_a_limit_on_files(large: Shell) -> None:
    """A file size limit is 7 as well, and nothing is left."""
    ran = large.run("pack", "run", "-o", "x.zip", prefix=("sh", "-c", 'ulimit -f 64; exec "$@"', "-"))
    assert ran.code == 7
    assert "File too large" in ran.err
    assert sorted(os.listdir(large.home)) == ["model_run.zip", "run"]


def test_the_advice_is_for_packing(large: Shell) -> None:
    """Who packed is not told of what was fetched, and is told which archive found no room."""
    ran = large.run("pack", "run", "-o", "x.zip", prefix=("sh", "-c", 'ulimit -f 64; exec "$@"', "-"))
    assert "fetched" not in ran.err
    assert "x.zip: File too large" in ran.err


def failing(shell: Shell, what: str, *only: str) -> tuple[int, str]:
    """Pack with system calls that fail."""
    strace = shutil.which("strace")
    if not strace or subprocess.run([strace, "-o", "/dev/null", "true"], capture_output=True, check=False).returncode:
        pytest.skip("no strace that may trace: EIO cannot be injected")
    ran = shell.run("pack", "run", prefix=(strace, "-f", "-qq", "-o", "/dev/null", *only, "-e", f"inject={what}"))
    return ran.code, ran.err


def reading(shell: Shell) -> tuple[str, ...]:
    return "read,pread64,preadv:error=EIO", "-P", str(shell.home / "run" / "weights.bin")


@pytest.mark.fault(215)
def test_a_disk_that_errs(large: Shell) -> None:
    """EIO on reading, on writing and on the last sync: 7, yesterday's archive stays, nothing is left."""
    for call in (reading(large), ("fsync:error=EIO:when=1",), ("rename,renameat,renameat2:error=EIO:when=1",)):
        code, error = failing(large, *call)
        assert (code, "Input/output error" in error) == (7, True), call
        assert (large.home / "model_run.zip").read_bytes() == BEFORE
        assert beside(large.home) == []


@pytest.mark.fault(215)
def test_a_disk_that_errs_is_named(large: Shell) -> None:
    """Whoever reads of EIO is told of the file that cannot be read."""
    assert "weights.bin" in failing(large, *reading(large))[1]


def pack_into_closed_pipe(shell: Shell) -> tuple[int, str]:
    command = shell.command("pack", "run", "-o", "-")
    child: Any = subprocess.Popen(command, env=shell.environ, cwd=shell.home, stdout=-1, stderr=-1)
    child.stdout.read(10)
    child.stdout.close()
    error = child.stderr.read().decode()
    child.stderr.close()
    return child.wait(60), error


def test_a_reader_that_goes_away(large: Shell) -> None:
    """-o - into a pipe that is closed half-way ends soon, not with 0, and without a traceback."""
    code, error = pack_into_closed_pipe(large)
    assert code in (7, 141)
    assert "Traceback" not in error


def test_a_reader_that_goes_away_is_no_fault_of_the_disk(large: Shell) -> None:
    """A closed pipe is 141 as everywhere else in mdl, not trouble with a folder or a disk."""
    code, error = pack_into_closed_pipe(large)
    assert code == 141
    assert "folder" not in error
