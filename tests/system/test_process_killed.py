"""Killed before every call that changes the disk, in a first life and in every later one (faults, group G).

A driver in a process of its own forks for each life, so that a life costs no start of Python. Calls are counted over
all threads, by patching the few functions that mdl changes the disk with; strace does the same from outside with
MDL_LONG=1.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import faults
from support.bench import Bench, pinned
from support.catalogs import catalog_of
from support.data import DATA as BODY
from support.data import MIB, noise
from support.faulty_server import FaultyServer
from support.jobs import records_of
from support.namespaces import failing
from support.polling import until
from support.shell import done, machine

from mdl.cli import main
from mdl.http.transport import tls_context

LARGE, TINY = noise(MIB + 1000, 7), noise(1000, 8)
CALLS = (
    *("open", "mkdir", "pwrite", "write", "fsync", "fdatasync", "ftruncate", "replace", "rename", "unlink", "rmdir"),
    *("link", "symlink", "chmod", "splice"),
)
MOST = 400
STEP = 1 if os.environ.get("MDL_LONG") == "1" else 3
"""Every third call; every one with MDL_LONG=1."""


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


_OPEN = os.open


def get(folder: Path, url: str) -> int:
    """Get both files."""
    files = [pinned(f"{url}/large", LARGE, path="sub/large"), pinned(f"{url}/tiny", TINY, path="tiny")]
    return Bench(folder, pytest.MonkeyPatch()).run(*files, connections=2).code


def life(folder: Path, url: str, last: int) -> int:
    """Fork; the child gets both files, killed before its ``last``-th call (0: never). How it ended, as by `waitpid`."""
    child = os.fork()
    if child == 0:
        code = 99
        with contextlib.suppress(BaseException):
            if last:
                Fuse(last)
            code = get(folder, url)
        os._exit(code)
    return os.waitpid(child, 0)[1]


def wrong(folder: Path) -> str:
    """What is under the final names and is not right."""
    for name, data in (("sub/large", LARGE), ("tiny", TINY)):
        place = folder / "models" / "m" / name
        if place.exists() and place.read_bytes() != data:
            return f"{name} is wrong"
    return ""


def left(folder: Path) -> list[str]:
    """What lies about besides the two files, receipts and locks."""
    root = folder / "models"
    found = [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()]
    usual = ("m/sub/large", "m/tiny", ".mdl/locks/")
    return [name for name in found if not name.startswith(usual) and not name.endswith(".receipt")]


def prepare(folder: str, url: str) -> None:
    """Live once without a fork, so that all that is imported and made late is there for every child."""
    context = tls_context()
    pytest.MonkeyPatch().setattr("mdl.http.transport.tls_context", lambda: context)
    assert get(Path(folder) / "before", url) == 0
    until(lambda: gc.collect() >= 0 and threading.active_count() == 1)


def clean(folder: Path) -> int:
    return main.run(["clean", "--yes", "--quiet", "--to", str(folder / "models")])


def sweep(folder: str, url: str) -> None:
    """A first life killed at each call in turn, then one that is left in peace, then a cleaning."""
    prepare(folder, url)
    found = []
    for at in range(1, MOST, STEP):
        place = Path(folder) / str(at)
        place.mkdir()
        status = life(place, url, at)
        story = {"at": at, "killed": os.WIFSIGNALED(status), "wrong": wrong(place)}
        again = life(place, url, 0)
        story |= {"again": again, "wrong then": wrong(place)}
        assert not left(place) or clean(place) == 0
        found.append(story | {"cleaned": wrong(place), "left": left(place)})
        if not os.WIFSIGNALED(status):
            break
    print(json.dumps(found))


def lives(folder: str, url: str) -> None:
    """One folder; each life is killed one call later than the one before, until one comes through."""
    prepare(folder, url)
    found, place = [], Path(folder)
    for at in range(1, MOST):
        status = life(place, url, at)
        found.append({"at": at, "killed": os.WIFSIGNALED(status), "code": status, "wrong": wrong(place)})
        if not os.WIFSIGNALED(status):
            break
    print(json.dumps(found))


def driven(what: str, folder: Path) -> list[dict[str, Any]]:
    """What the driver found."""
    tests = Path(__file__).parents[1]
    with FaultyServer(faults.routes({"/large": faults.honest(LARGE), "/tiny": faults.honest(TINY)})) as server:
        code = f"from system import test_process_killed as here; here.{what}({str(folder)!r}, {server.url!r})"
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={
                **os.environ,
                "HOME": str(folder),
                "PYTHONPATH": os.pathsep.join((str(tests), str(tests.parent))),
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=110,
        )
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.fault(125, 155)
def test_killed_before_a_call(tmp_path: Path) -> None:
    """Before whichever call SIGKILL comes: no wrong file under a final name, the same command again ends well, and
    after 'mdl clean' nothing is left over."""
    found = driven("sweep", tmp_path)
    assert [one for one in found if one["wrong"] or one["wrong then"] or one["again"]] == []
    assert [one for one in found if one["left"] or one["cleaned"]] == []
    assert sum(one["killed"] for one in found) >= len(found) - STEP
    assert found[-1]["at"] >= 20


@pytest.mark.fault(127)
def test_killed_in_every_life(tmp_path: Path) -> None:
    """Killed again and again while it recovers, each time a call later, it gets through in the end."""
    found = driven("lives", tmp_path)
    assert [one for one in found if one["wrong"]] == []
    assert (found[-1]["killed"], found[-1]["code"]) == (False, 0)
    assert len(found) >= 10


NAMES = (
    "fsync",
    "fdatasync",
    "ftruncate",
    "rename",
    "renameat",
    "linkat",
    "unlink",
    "unlinkat",
    "mkdir",
    "mkdirat",
    "rmdir",
    "splice",
)


@pytest.mark.fault(125)
@pytest.mark.skipif(os.environ.get("MDL_LONG") != "1", reason="a minute of kills by strace; asked for with MDL_LONG=1")
@pytest.mark.timeout(600)
def test_killed_by_the_system(tmp_path: Path) -> None:
    """The same from outside, for the whole command with its job, record and log; a killed job is told as dead."""
    kills = 0
    for name in NAMES:
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
