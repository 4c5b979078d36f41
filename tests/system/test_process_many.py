"""Several mdl at once on one target, with locks that work and with locks that lie: never a wrong file (group G)."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import faults
from support.bench import Bench, pinned
from support.catalogs import catalog_of
from support.data import DATA, MIB, noise
from support.faulty_server import FaultyServer
from support.namespaces import MOUNTS, apart, failing, tool
from support.partials import dead_owner
from support.shell import Ran, Shell, beside, machine

from mdl.disk import mutex
from mdl.disk.process import ProcessId
from mdl.downloader.store import Store
from mdl.errors import Busy
from mdl.paths import record_name

LONG = os.environ.get("MDL_LONG") == "1"
MANY, ROUNDS = (8, 4) if LONG else (2, 1)
SLOW = faults.trickle(faults.honest(DATA), piece=faults.PIECE, pause=0.005)
"""A body takes a while, so that the others come into it."""


def at_once(shell: Shell, count: int, prefix: tuple[str, ...], *words: str) -> tuple[list[Ran], int]:
    """Start that many of them; how each ended, and how often the final name was seen with wrong bytes meanwhile."""
    place, wrong = shell.models / "one" / "f.bin", 0
    with contextlib.ExitStack() as stack:
        command = (*prefix, *shell.command("get", "one", *words))
        processes = [stack.enter_context(beside(shell, *command)) for _ in range(count)]
        while living := [process for process in processes if process.poll() is None]:
            with contextlib.suppress(FileNotFoundError):
                wrong += place.read_bytes() != DATA
            with contextlib.suppress(subprocess.TimeoutExpired):
                living[0].wait(0.01)
        said = [process.communicate() for process in processes]
    return [Ran(p.returncode, *both) for p, both in zip(processes, said, strict=True)], wrong


@pytest.mark.fault(130)
@pytest.mark.timeout(600)
def test_all_at_once(tmp_path: Path) -> None:
    """With locks that work every one of them ends with 0, the bytes are fetched once, and nothing is left over. One
    connection each: a second one, as a slow machine opens it, costs what was in flight on the first."""
    for turn in range(ROUNDS):
        with FaultyServer(SLOW) as server:
            shell = machine(tmp_path / str(turn), catalog_of(one=server.url + "/f"))
            ran, wrong = at_once(shell, MANY, (), "-q", "--connections", "1")
            assert ([one.code for one in ran], wrong) == ([0] * MANY, 0), ran
            assert server.bytes_sent == len(DATA)
        assert (shell.models / "one" / "f.bin").read_bytes() == DATA
        assert list((shell.models / ".mdl" / "partials").iterdir()) == []


@pytest.mark.fault(112, 130)
@pytest.mark.timeout(600)
@pytest.mark.parametrize("lie", ["retval=0", *(["error=ENOLCK", "error=ENOSYS"] if LONG else [])])
def test_all_at_once_with_locks_that_lie(tmp_path: Path, lie: str) -> None:
    """With locks that keep no process out each ends with 0 or 9; the final name never has a wrong byte."""
    codes = []
    for turn in range(ROUNDS):
        with FaultyServer(SLOW) as server:
            shell = machine(tmp_path / str(turn), catalog_of(one=server.url + "/f"))
            ran, wrong = at_once(shell, MANY, failing(f"flock:{lie}"), "-q", "--retries", "2")
            codes += [one.code for one in ran]
            assert (wrong, [one.err for one in ran if "Traceback" in one.err]) == (0, [])
        assert (shell.models / "one" / "f.bin").read_bytes() == DATA
    assert set(codes) <= {0, 9}
    assert 0 in codes


@contextlib.contextmanager
def turn(folder: Path, name: str = "m") -> Iterator[None]:
    with mutex.file_lock(folder, name, 0.0, lambda _: None):
        yield


@pytest.mark.fault(131)
def test_one_folder_by_two_paths(tmp_path: Path) -> None:
    """A process that comes by a link to the models folder meets the same lock."""
    (tmp_path / "models").mkdir()
    (tmp_path / "link").symlink_to("models")
    one, other = Store(tmp_path / "models").locks, Store(tmp_path / "link").locks
    with turn(one), pytest.raises(Busy, match=str(os.getpid())), turn(other):
        pass


def bound(folder: Path) -> None:
    """The models folder once more, mounted elsewhere."""
    (folder / "models").mkdir()
    (folder / "other").mkdir()
    tool("mount", "--bind", str(folder / "models"), str(folder / "other"))
    with turn(folder / "models"), pytest.raises(Busy), turn(folder / "other"):
        pass
    bench = Bench(folder, pytest.MonkeyPatch())
    data = noise(2 * MIB)
    with FaultyServer(faults.honest(data)) as server:
        assert bench.run(pinned(server.url + "/f", data)).code == 0
        there = Bench(folder, pytest.MonkeyPatch())
        there.store = type(bench.store)(folder / "other")
        assert there.run(pinned(server.url + "/f", data)).row.action == "kept"


@pytest.mark.fault(131)
def test_one_folder_mounted_twice(tmp_path: Path) -> None:
    """A process that comes by another mount of the models folder meets the same lock, and the same files."""
    apart(bound, tmp_path, MOUNTS)


def test_a_lock_that_is_removed_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock on a file that was removed just before keeps no process out: it is taken once more, under its name."""
    real = mutex.try_lock

    def removed(fd: int, patience: float = 0.5) -> bool | None:
        monkeypatch.setattr(mutex, "try_lock", real)
        (tmp_path / f"{record_name('m')}.lock").unlink()
        return real(fd, patience)

    monkeypatch.setattr(mutex, "try_lock", removed)
    with turn(tmp_path), pytest.raises(Busy), turn(tmp_path):
        pass


@pytest.mark.fault(132)
def test_a_lock_of_a_dead_process(tmp_path: Path) -> None:
    """A lock file that a dead process left delays no process, whatever process has its id now."""
    for pid in (ProcessId(dead_owner()).pid, os.getpid(), 1):
        (tmp_path / f"{record_name('m')}.lock").write_text(f"{pid}\n")
        (tmp_path / f"{record_name('m')}.who").write_text(json.dumps({"pid": pid, "since": "00:00:00"}))
        with turn(tmp_path):
            assert json.loads((tmp_path / f"{record_name('m')}.who").read_text())["pid"] == os.getpid()
        assert not (tmp_path / f"{record_name('m')}.who").exists()


@pytest.mark.fault(133)
@pytest.mark.parametrize("name", [f"{record_name('m')}.{end}" for end in ("lock", "who")])
def test_a_link_in_place_of_a_lock(tmp_path: Path, name: str) -> None:
    """A link in place of a lock, or of its holder's record, is not followed: its target keeps bytes and mode."""
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "precious").chmod(0o644)
    (tmp_path / "locks").mkdir()
    (tmp_path / "locks" / name).symlink_to(tmp_path / "precious")
    with contextlib.suppress(OSError), turn(tmp_path / "locks"):
        pass
    assert (tmp_path / "precious").read_text() == "mine"
    assert (tmp_path / "precious").stat().st_mode & 0o777 == 0o644
