"""Many machines, one folder, locks that lie: one of them downloads, the others wait; never a wrong file."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.catalogs import catalog_of
from support.data import DATA
from support.faulty_server import FaultyServer
from support.jobs import GATE, Gate
from support.long import LONG
from support.namespaces import bound_by_modes
from support.polling import until
from support.shell import Process, Ran, beside, done, machine, with_environ

from mdl.disk import mutex
from mdl.disk.process import ProcessId
from mdl.downloader.layouts import inspect_path
from mdl.errors import Busy
from mdl.paths import RelPath, record_name

TOGETHER = [(3, "estale,flock")]
KILLED = [(2, "estale,flock")]
if LONG:
    TOGETHER = [(2, "none"), (8, "flock"), (8, "enolck"), (8, "sshfs"), (32, "estale,flock")]
    KILLED = [(2, "none"), (8, "flock"), (8, "estale,enolck"), (3, "sshfs")]
SFTP = "/usr/lib/openssh/sftp-server"
STRANGER = 12345
ONE_REQUEST = ("--connections", "1", "--stall", "300", "--progress", "lines")
"""However long the server has it wait, it asks for no byte on a second connection."""
WAITS, WORKS = "waiting for another mdl", "plan: "


@contextlib.contextmanager
def mounted(folder: Path, count: int, lies: str) -> Iterator[list[Path]]:
    """The models folder as each of so many machines has it: ``sshfs`` mounts one for each, whose `flock` keeps out
    nobody who comes by another mount, and which remembers names and attributes for 20 s."""
    models = folder / "models"
    if lies != "sshfs":
        yield [models] * count
        return
    models.mkdir()
    server = folder / "sftp"
    server.write_text(f"#!/bin/sh\nexec {SFTP}\n")
    server.chmod(0o755)
    with contextlib.ExitStack() as stack:
        points = [folder / f"mounted-{number}" for number in range(count)]
        for point in points:
            point.mkdir()
            words = ("sshfs", "-o", f"ssh_command={server}", f"here:{models}", str(point))
            try:
                subprocess.run(words, check=True, capture_output=True)
            except (OSError, subprocess.CalledProcessError) as error:
                pytest.skip(f"NO SSHFS HERE: {error}")
            stack.callback(subprocess.run, ("fusermount3", "-u", str(point)), check=True)
        yield points


@contextlib.contextmanager
def nodes(folder: Path, count: int, lies: str, url: str) -> Iterator[list[tuple[Process, Path]]]:
    """So many machines on one models folder, each with a home of its own, and the file in which each says what it
    does."""
    with contextlib.ExitStack() as stack:
        found = []
        for number, models in enumerate(stack.enter_context(mounted(folder, count, lies.removesuffix(",killed"))), 1):
            shell = machine(folder / str(number), catalog_of(one=url))
            shell = with_environ(shell, MDL_HOME=str(models), PYTHONPATH=os.pathsep.join(sys.path))
            words = (sys.executable, "-m", "support.node", str(number), lies, "get", "one", *ONE_REQUEST)
            said = stack.enter_context((shell.home / "said").open("w"))
            running = stack.enter_context(beside(shell, *words, stderr=said, stdout=said))
            found.append((running, shell.home / "said"))
        yield found


def waiting(said: list[tuple[Process, Path]]) -> list[bool]:
    """Which of them wait. One that lost its turn to another for a moment, and got it, does not."""
    texts = [path.read_text() for _, path in said]
    return [WAITS in text and WORKS not in text for text in texts]


def ended(said: list[tuple[Process, Path]]) -> list[Ran]:
    return [Ran(one.wait(), "", path.read_text()) for one, path in said]


@pytest.mark.fault(112, 600)
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("count", "lies"), TOGETHER)
def test_one_downloads_for_all(tmp_path: Path, count: int, lies: str) -> None:
    """All that start together end with 0. The origin serves one copy, and nothing is left over."""
    gate = Gate()
    with FaultyServer(gate) as server, nodes(tmp_path, count, lies, server.url) as running:
        gate.wait()
        until(lambda: sum(waiting(running)) == count - 1)
        gate.opened.set()
        ran = ended(running)
    assert [one.code for one in ran] == [0] * count, ran
    assert server.bytes_sent <= 1.05 * len(DATA)
    models = tmp_path / "models"
    assert (models / "one" / "f.bin").read_bytes() == DATA
    assert list((models / ".mdl" / "partials").iterdir()) == []
    assert [path.name for path in (models / ".mdl" / "locks").iterdir()] == [f"{record_name('one')}.lock"]


@pytest.mark.fault(112, 601)
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("count", "lies"), KILLED)
def test_the_one_that_downloads_is_killed(tmp_path: Path, count: int, lies: str) -> None:
    """Another one goes on with what is there, once the dead one has been silent for long enough; all end with 0."""
    gate, models = Gate(), tmp_path / "models"
    with FaultyServer(gate) as server, nodes(tmp_path, count, f"{lies},killed", server.url) as running:
        gate.wait()
        until(lambda: sum(waiting(running)) == count - 1)
        journals = models / ".mdl" / "partials"
        until(  # for another machine only what was synced counts
            lambda: any(b'"synced"' in path.read_bytes() for path in journals.rglob("journal"))
        )
        dead = waiting(running).index(False)
        running[dead][0].kill()
        running[dead][0].wait()  # until then the server would send to it
        gate.opened.set()
        ran = ended(running)
    assert sorted(one.code for one in ran) == [-9, *[0] * (count - 1)], ran
    assert server.bytes_sent < len(DATA) + GATE
    assert (models / "one" / "f.bin").read_bytes() == DATA
    assert list((models / ".mdl" / "partials").iterdir()) == []


@contextlib.contextmanager
def turn(folder: Path) -> Iterator[mutex.HeldFile]:
    with mutex.file_lock(folder, "m", 0.0, lambda _: None) as held:
        assert held.lease
        yield held.lease


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """``flock`` keeps nobody out, and each time another machine seems to ask, whose processes cannot be seen."""
    numbers = itertools.count()
    monkeypatch.setattr(fcntl, "flock", lambda _fd, _kind: None)
    monkeypatch.setattr(mutex, "filesystem_type", lambda _path: "nfs4")
    monkeypatch.setattr(ProcessId, "current", lambda: ProcessId(f"node {next(numbers)}"))


@pytest.mark.fault(602)
@pytest.mark.usefixtures("elsewhere")
def test_a_lease_keeps_others_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So it does if the clock of this machine is wrong; without the lease the lie would let the other one in."""
    later = time.time() + 1e6
    monkeypatch.setattr(time, "time", lambda: later)
    with turn(tmp_path), pytest.raises(Busy), turn(tmp_path):
        pass
    with turn(tmp_path):
        (tmp_path / f"{record_name('m')}.who").unlink()
        with turn(tmp_path):
            pass


@pytest.mark.fault(509)
@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("hours", [-1, 1])
def test_a_clock_that_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hours: int) -> None:
    """Who works on a partial of another machine counts as dead after a minute by the clock of the file server, whatever
    the clock of this machine shows."""
    folder = tmp_path / "partial"
    folder.mkdir()
    (data := folder / "data").touch()
    now = data.stat().st_mtime
    monkeypatch.setattr(time, "time", lambda: now + hours * 3600.0)
    monkeypatch.setattr(tempfile, "_O_TMPFILE_WORKS", False)  # as on NFS
    for age, is_alive in ((0.0, True), (90.0, False)):
        for path in (data, folder):
            os.utime(path, (now, now - age))
        assert [mutex.may_be_alive(data, [folder]) for _ in range(2)] == [is_alive, is_alive]


@pytest.mark.usefixtures("elsewhere")
def test_a_lease_that_is_not_touched(tmp_path: Path) -> None:
    """A minute after its last touch a lease keeps nobody out; the process that made it does not remove that of its
    successor."""
    with turn(tmp_path):
        for age in (30.0, 90.0):
            os.utime(tmp_path / f"{record_name('m')}.who", (0.0, time.time() - age))
            refused = pytest.raises(Busy) if age < 60 else contextlib.nullcontext()
            with refused, turn(tmp_path):
                pass
    with contextlib.ExitStack() as successor:
        with turn(tmp_path):
            os.utime(tmp_path / f"{record_name('m')}.who", (0.0, 0.0))
            successor.enter_context(turn(tmp_path))
        assert json.loads((tmp_path / f"{record_name('m')}.who").read_bytes())["pid"] == os.getpid()
    assert not (tmp_path / f"{record_name('m')}.who").exists()


@pytest.mark.fault(603)
@pytest.mark.usefixtures("elsewhere")
def test_a_lease_taken_away_by_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If two find a dead lease, and the faster one has made its own meanwhile, the slower one gives that back."""
    really = mutex.may_be_held

    def overtaken(lease: Path, lock: int) -> bool:
        monkeypatch.setattr(mutex, "may_be_held", really)
        lease.write_text(json.dumps({"process": "another", "pid": 7, "host": "n7", "since": "12:00:00"}))
        return False

    (tmp_path / f"{record_name('m')}.who").write_text("{}")
    monkeypatch.setattr(mutex, "may_be_held", overtaken)
    with pytest.raises(Busy, match="process 7 on n7, since 12:00:00"), turn(tmp_path):
        pass
    assert [path.name for path in sorted(tmp_path.iterdir())] == [f"{record_name('m')}.lock", f"{record_name('m')}.who"]


@pytest.mark.usefixtures("elsewhere")
def test_work_that_shows_that_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease that its owner touches keeps others out for as long as the work takes, without a thread of its own; that
    of a successor is not touched."""
    monkeypatch.setattr(mutex, "TOUCH_SECONDS", 0.0)
    place = tmp_path / f"{record_name('m')}.who"
    threads = set(threading.enumerate())
    with turn(tmp_path) as held:
        os.utime(place, (0.0, 0.0))
        held.touch()
        with pytest.raises(Busy), turn(tmp_path):
            pass
        assert set(threading.enumerate()) == threads
        os.utime(place, (0.0, 0.0))
        with turn(tmp_path):
            os.utime(place, (0.0, 0.0))
            held.touch()
            assert place.stat().st_mtime == 0.0


@pytest.mark.fault(604)
def test_a_name_that_is_seen_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that another machine has brought is found, though the cache says that it is missing until its folder is
    opened."""
    place = tmp_path / "one" / "f.bin"
    place.parent.mkdir()
    place.write_bytes(DATA)
    opened, look, open_ = set[Path](), Path.lstat, os.open

    def late(path: Path) -> os.stat_result:
        if path == place and place.parent not in opened:
            raise FileNotFoundError
        return look(path)

    def noted(path: Path, *words: int, **more: int) -> int:
        opened.add(Path(path))
        return open_(path, *words, **more)

    monkeypatch.setattr(Path, "lstat", late)
    monkeypatch.setattr(os, "open", noted)
    assert inspect_path(tmp_path, RelPath.parse("one/f.bin"), tmp_path / ".mdl").kind == "file"


@pytest.mark.fault(508)
@pytest.mark.fault(605)
@pytest.mark.skipif(os.geteuid() != 0, reason="NO SECOND USER: only root can make files of others")
def test_what_another_account_downloads(tmp_path: Path) -> None:
    """Its `.mdl` cannot be entered: whole files are verified and kept, and what is missing, or what nobody else can
    judge, is 7, naming the account; nothing is fetched twice, and nothing deleted. So is what a umask of 077 closed,
    which hides no other model from the list."""
    with FaultyServer(gate := Gate()) as server:
        gate.opened.set()
        shell = machine(tmp_path, catalog_of(one=server.url))
        done(shell.run("get", "one"))
        shell.models.chmod(0o1777)
        for path in (shell.models, *shell.models.rglob("*")):
            os.chown(path, STRANGER, STRANGER)
        mine = replace(shell, extra={"HOME": str(tmp_path / "mine")})
        modes = bound_by_modes()
        assert done(mine.run("get", "one", "--json", prefix=modes)).document["bytes_kept"] == len(DATA)
        assert "1 file ok" in done(mine.run("verify", "one", prefix=modes)).err
        for words in ((), ("--yes",), ("--yes", "--force")):
            kept = done(mine.run("rm", "one", *words, prefix=modes), 7).err
            assert f"user {STRANGER} downloads into this folder" in kept
            assert "not mdl's" not in kept
        unlisted = shell.models / "org--m"
        unlisted.mkdir()
        (unlisted / "model.bin").write_bytes(DATA)
        for command in ("path", "verify"):
            refused = done(mine.run(command, "org/m", prefix=modes), 7)
            assert f"user {STRANGER} downloads into this folder" in refused.err
            assert "not on this disk" not in refused.err
        (shell.models / "one" / "f.bin").unlink()
        refused = done(mine.run("get", "one", prefix=modes), 7)
        (shell.models / "one" / "f.bin").write_bytes(DATA)
        for closed, status in ((shell.models / "one/f.bin", "unverified"), (shell.models / "one", "missing")):
            os.chown(closed, STRANGER, STRANGER)
            closed.chmod(0o700)
            said = done(mine.run("get", "one", prefix=modes), 7).err
            assert f"user {STRANGER} keeps {closed} closed to others" in said
            listed = done(mine.run("list", "--json", prefix=modes)).document["models"]
            assert {row["name"]: row["status"] for row in listed}["one"] == status
    assert f"user {STRANGER} downloads into this folder" in refused.err
    assert server.bytes_sent <= 1.05 * len(DATA)
