"""Killed before every call that changes the disk, in a first life and in every later one (faults, group G).

A driver in a separate process forks for each life, so that a life costs no start of Python. Calls are counted over
all threads, by patching the few functions that mdl changes the disk with; strace does the same from outside with
MDL_LONG=1.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support import faults
from support.bench import Bench, pinned
from support.catalogs import catalog_of
from support.data import DATA as BODY
from support.data import MIB, noise
from support.faulty_server import Answer, FaultyServer, Piece, Request
from support.jobs import records_of
from support.namespaces import apart, failing
from support.polling import until
from support.shell import beside, done, machine

from mdl.cli import main
from mdl.downloader import journal
from mdl.downloader.store import Store
from mdl.net.certificates import make_context
from mdl.paths import RelPath

LONG = os.environ.get("MDL_LONG") == "1"
LARGE, TINY = noise(MIB + 1000, 7), noise(1000, 8)
FILES = {"sub/large": LARGE, "tiny": TINY, "second": TINY[::-1], "sub/third": TINY[500:]}
CALLS = (
    *("open", "mkdir", "pwrite", "write", "fsync", "fdatasync", "ftruncate", "replace", "rename", "unlink", "rmdir"),
    *("link", "symlink", "chmod"),
)
MOST = 400
STEP = 1 if LONG else 6
"""Every sixth call; every one with MDL_LONG=1."""
KILLED = -signal.SIGKILL
_OPEN = os.open


class Fuse:
    """Kills the process before the ``last``-th call of those that change the disk, in whatever thread."""

    def __init__(self, last: int) -> None:
        self._left, self._lock = last, threading.Lock()
        for name in CALLS:
            setattr(os, name, self._guarded(getattr(os, name)))

    def _guarded(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*what: Any, **where: Any) -> Any:
            if real is not _OPEN or (what[1] & (os.O_CREAT | os.O_TRUNC)):
                with self._lock:
                    self._left -= 1
                    if self._left == 0:
                        os.kill(os.getpid(), signal.SIGKILL)
            return real(*what, **where)

        return call


def get(folder: Path, url: str) -> int:
    """Get all files: a large one, and small ones that are published together."""
    files = [pinned(f"{url}/{path}", data, path=path) for path, data in FILES.items()]
    return Bench(folder, pytest.MonkeyPatch()).run(*files, connections=2).code


def life(folder: Path, url: str, last: int) -> int:
    """Fork; the child gets the files, killed before its ``last``-th call (0: never). Its exit code."""
    child = os.fork()
    if child == 0:
        code = 99
        with contextlib.suppress(BaseException):
            if last:
                Fuse(last)
            code = get(folder, url)
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def check(folder: Path, at: int) -> None:
    """Nothing wrong is under a final name, and nothing without a receipt."""
    store = Store(folder / "models")
    for name, data in FILES.items():
        place = folder / "models" / "m" / name
        assert not place.exists() or place.read_bytes() == data, f"{name} is wrong, killed at {at}"
        receipt = store.receipts.get("m", RelPath.parse(name))
        assert not place.exists() or receipt, f"{name} has no receipt, killed at {at}"


def left(folder: Path) -> list[str]:
    """What lies about besides the files, receipts and locks, and what hides these from git."""
    root = folder / "models"
    found = [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()]
    usual = (*(f"m/{name}" for name in FILES), ".mdl/locks/", ".mdl/.gitignore")
    return [name for name in found if not name.startswith(usual) and not name.endswith(".receipts")]


def prepare(folder: Path, url: str) -> None:
    """Live once without a fork, so that all that is imported and made late is there for every child."""
    os.environ["HOME"] = str(folder)
    context = make_context(os.environ)
    pytest.MonkeyPatch().setattr("mdl.net.certificates.make_context", lambda *_: context)
    assert get(folder / "before", url) == 0
    until(lambda: gc.collect() >= 0 and threading.active_count() == 1)


def in_one_life(folder: Path, url: str) -> None:
    """A first life killed at each call in turn, then one that is left in peace, then a cleaning."""
    prepare(folder, url)
    for at in range(1, MOST, STEP):
        place = folder / str(at)
        place.mkdir()
        code = life(place, url, at)
        check(place, at)
        assert life(place, url, 0) == 0, at
        check(place, at)
        assert not left(place) or main.run(["clean", "--yes", "--quiet", "--to", str(place / "models")]) == 0, at
        check(place, at)
        assert left(place) == [], (at, left(place))
        if code != KILLED:
            break
    assert (code, at >= 20) == (0, True)


def in_every_life(folder: Path, url: str) -> None:
    """One folder; each life is killed one call later than the one before, until one comes through."""
    prepare(folder, url)
    for at in range(1, MOST):
        code = life(folder, url, at)
        check(folder, at)
        if code != KILLED:
            break
    assert (code, at >= 10) == (0, True)


@pytest.mark.parametrize(
    "driver",
    [
        pytest.param(in_one_life, marks=pytest.mark.fault(125, 155)),
        pytest.param(in_every_life, marks=pytest.mark.fault(127)),
    ],
)
def test_killed_before_a_call(tmp_path: Path, driver: Callable[[Path, str], None]) -> None:
    """Before whichever call SIGKILL comes: no wrong file under a final name, the same command again ends well, and
    after 'mdl clean' nothing is left over. Killed while it recovers, each time a call later, it gets through too."""
    with FaultyServer(faults.routes({f"/{path}": faults.honest(data) for path, data in FILES.items()})) as server:
        apart(driver, tmp_path, (), server.url)


class Ration:
    """Serves a file until ``left`` bytes were sent; what was asked then waits until its client has gone."""

    def __init__(self, body: bytes) -> None:
        self._honest = faults.honest(body)
        self._lock = threading.Lock()
        self.left = 0

    def __call__(self, request: Request, number: int) -> Answer:
        answer = self._honest(request, number)

        def pieces() -> Iterator[Piece]:
            for piece in answer.pieces():
                with self._lock:
                    is_allowed = self.left > 0
                    self.left -= faults.PIECE * is_allowed
                if not is_allowed:
                    yield threading.Event()
                yield piece

        return replace(answer, body=pieces())


NEVER_SYNCED = "import os, threading; os.fdatasync = lambda _fd: threading.Event().wait(); "


def claimed_in(models: Path) -> int:
    """What the journals claim in this boot."""
    records = [journal.load(place) for place in models.glob(".mdl/partials/*/journal")]
    return sum(record.have.total for record in records if record)


@pytest.mark.fault(124)
@pytest.mark.parametrize("connections", [1, 4])
def test_a_kill_costs_what_was_in_flight(tmp_path: Path, connections: int) -> None:
    """Killed four times on its way, a file of 16 MiB is served 1.05 times at most: what was written stays, although
    none of it could be synced, and although nothing but an ETag vouches for its bytes."""
    body = noise(16 * MIB, 9)
    ration = Ration(body)
    with FaultyServer(ration) as server:
        shell = machine(tmp_path)
        words = ("get", server.url + "/f.bin", "-q", "--connections", str(connections))
        code = "from mdl.__main__ import main; main()"
        for _ in range(4):
            before = claimed_in(shell.models)
            ration.left = len(body) // 5
            with beside(shell, sys.executable, "-c", NEVER_SYNCED + code, *words) as process:
                until(lambda before=before: claimed_in(shell.models) >= before + len(body) // 5 - 2 * faults.PIECE)
                process.kill()
        ration.left = len(body)
        done(shell.run(*words))
    (place,) = shell.models.rglob("f.bin")
    assert place.read_bytes() == body
    assert server.bytes_sent <= 1.05 * len(body)


@pytest.mark.fault(125)
@pytest.mark.skipif(not LONG, reason="a minute of kills by strace; asked for with MDL_LONG=1")
@pytest.mark.timeout(600)
def test_killed_by_the_system(tmp_path: Path) -> None:
    """The same from outside, for the whole command with its job, record and log; a killed job is told as dead."""
    kills = 0
    names = "fsync fdatasync ftruncate rename renameat linkat unlink unlinkat mkdir mkdirat rmdir"
    for name in names.split():
        for at in range(1, 20):
            with FaultyServer(faults.honest(BODY)) as server:
                shell = machine(tmp_path / f"{name}-{at}", catalog_of(one=server.url + "/f"))
                ran = shell.run("get", "one", "-q", prefix=failing(f"{name}:signal=KILL:when={at}"))
                if ran.code == 0:
                    break
                kills += 1
                assert ran.code in (137, -9), (name, at, ran)
                assert {job.status for job in records_of(shell).all()} <= {"dead", "done"}, (name, at)
                done(shell.run("get", "one", "-q"))
            assert (shell.models / "one" / "f.bin").read_bytes() == BODY, (name, at)
    assert kills >= 20
