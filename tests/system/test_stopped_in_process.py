"""A call that is stopped in a process that lives on, as in a notebook: nothing of it is at work any more when the next
call goes on, and nothing keeps other processes out."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support.data import MIB, noise
from support.faults import honest, stall_in_body
from support.faulty_server import FaultyServer
from support.homes import own_home
from support.polling import until

import mdl
from mdl.disk.mutex import HeldFile, file_lock, folder_lock, is_locked
from mdl.downloader.journal import Journal
from mdl.downloader.partial import Partial
from mdl.events import Event, Noticed, Progressed
from mdl.paths import record_name

DATA = noise(3 * MIB, 7)
HANDLER = honest(DATA)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own, which is the current folder."""
    return own_home(tmp_path, monkeypatch)


@pytest.fixture
def at_work() -> Callable[[], list[str]]:
    """The threads of mdl's engine that were begun in this test and are still there."""
    before = set(threading.enumerate())
    names = ("mdl-worker", "mdl-hasher", "mdl-syncer", "mdl-last-sync", "mdl-unlock")
    return lambda: [one.name for one in {*threading.enumerate()} - before if one.name.startswith(names)]


class Gate:
    """Stands before a method: a call waits there until `open`, after it has said that it came (``entered``)."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> None:
        self.entered, self._open = threading.Event(), threading.Event()
        right = owner.__dict__[name]
        call = right.__func__ if isinstance(right, classmethod) else right

        def wait_first(*arguments: Any, **named: Any) -> Any:
            self.entered.set()
            assert self._open.wait(60)
            return call(*arguments, **named)

        monkeypatch.setattr(owner, name, classmethod(wait_first) if isinstance(right, classmethod) else wait_first)

    def open(self) -> None:
        self._open.set()

    def cancel_there(self, token: mdl.CancelToken) -> None:
        """Set the token once a call has come."""
        assert self.entered.wait(60)
        token.set()


def is_right(report: mdl.Report) -> bool:
    """Whether the one file is here, with its bytes, by what mdl says and by what the disk says."""
    [model] = report.models
    [file] = model.files
    _, found = mdl.Client(home="m").status(model.name)
    return (Path(model.path) / file.path).read_bytes() == DATA and found.status in ("present", "unverified")


@pytest.mark.parametrize("error", [ValueError, SystemExit])
def test_a_listener_that_raises(
    server: FaultyServer, at_work: Callable[[], list[str]], error: type[BaseException]
) -> None:
    """What a listener raises, or a signal handler, comes out of the call as it is. The transfer is over then: it
    fetches nothing more, and the same call goes on from what is here."""

    def raising(event: Event) -> None:
        if isinstance(event, Progressed) and event.bytes_done:
            raise error("mine")

    server.handler = stall_in_body(DATA, MIB)
    with pytest.raises(error, match="mine"):
        mdl.get(f"{server.url}/f.bin", home="m", on_event=raising)
    until(lambda: not at_work())
    server.handler = honest(DATA)
    report = mdl.download(f"{server.url}/f.bin", home="m", lock_wait=30)
    assert is_right(report)
    assert report.bytes_fetched < len(DATA)


def test_the_next_call_waits_for_what_is_still_written(server: FaultyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that is cancelled while a file is published on a slow disk ends at once. The next one waits until that is
    done, and then finds the file: what the first one does late undoes nothing."""
    token, heard, url = mdl.CancelToken(), list[Event](), f"{server.url}/f.bin"
    gate = Gate(monkeypatch, Partial, "publish")

    with ThreadPoolExecutor(2) as pool:
        pool.submit(gate.cancel_there, token)
        with pytest.raises(mdl.Cancelled):
            mdl.download(url, home="m", cancel=token)
        again = pool.submit(mdl.download, url, home="m", on_event=heard.append, lock_wait=60)
        try:
            until(lambda: any(isinstance(one, Noticed) and "waiting for" in one.message for one in list(heard)))
        finally:
            gate.open()
        assert is_right(again.result())


def test_a_stop_while_a_file_is_begun(
    server: FaultyServer, home: Path, monkeypatch: pytest.MonkeyPatch, at_work: Callable[[], list[str]]
) -> None:
    """What a worker opens after the stop is closed as well: no thread and no descriptor is left."""
    token, gate = mdl.CancelToken(), Gate(monkeypatch, Journal, "create")

    with ThreadPoolExecutor(1) as pool:
        pool.submit(gate.cancel_there, token)
        with pytest.raises(mdl.Cancelled):
            mdl.download(f"{server.url}/f.bin", home="m", cancel=token)
    gate.open()
    until(lambda: not at_work())
    left = [os.readlink(one) for one in Path("/proc/self/fd").iterdir() if one.is_symlink()]
    assert [path for path in left if path.startswith(str(home))] == []


def test_another_process_goes_on(server: FaultyServer, home: Path, at_work: Callable[[], list[str]]) -> None:
    """A process that was stopped and lives on keeps no other out: that one goes on with what came."""
    token = mdl.CancelToken()
    server.handler = stall_in_body(DATA, MIB)

    def cancel(event: Event) -> None:
        if isinstance(event, Progressed) and event.bytes_done:
            token.set()

    with pytest.raises(mdl.Cancelled):
        mdl.get(f"{server.url}/f.bin", home="m", cancel=token, on_event=cancel)
    until(lambda: not at_work())
    server.handler = honest(DATA)
    command = [sys.executable, "-m", "mdl", "get", f"{server.url}/f.bin", "--to", "m", "--lock-wait", "20"]
    ran = subprocess.run(command, cwd=home, capture_output=True, text=True, check=False)
    assert (ran.returncode, "resumed at" in ran.stderr) == (0, True), ran.stderr


@pytest.mark.parametrize("kind", ["file", "folder", "pulse"])
def test_a_forked_process_keeps_no_lock(home: Path, kind: str) -> None:
    """A lock belongs to an open file, which a process that is forked meanwhile has too, such as one that loads data: a
    lock that is let go is free all the same."""
    place = home / ".mdl" / "locks"
    place.mkdir(parents=True)
    path = {"file": place / f"{record_name('one')}.lock", "folder": place, "pulse": place / "beat"}[kind]

    def child_of(path: Path) -> subprocess.Popen[bytes]:
        found = [int(one.name) for one in Path("/proc/self/fd").iterdir() if os.path.realpath(one) == str(path)]
        return subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=found)

    if kind == "pulse":
        beat = HeldFile(path)
        child = child_of(path)
        os.link(path, home / "name")
        beat.stop()
        path = home / "name"
    else:
        with file_lock(place, "one", 0, lambda _: None) if kind == "file" else folder_lock(place):
            child = child_of(path)
            assert is_locked(path)
    try:
        assert is_locked(path) is False
    finally:
        child.communicate()


FORKED = """
import os, sys, time
import mdl
from mdl.events import Progressed

heard, say = os.pipe()

def fork(event):
    if isinstance(event, Progressed) and event.bytes_done and (child := os.fork()) == 0:
        os.write(say, b"x")
        time.sleep(60)
        os._exit(0)
    elif isinstance(event, Progressed) and event.bytes_done:
        os.read(heard, 1)  # what the child has of its parent's locks it gives up as it begins
        print(child, flush=True)
        os.abort()

mdl.get(sys.argv[1], home="m", on_event=fork)
"""


def test_a_fork_outlives_a_killed_download(server: FaultyServer, home: Path) -> None:
    """A process that is forked during a download, such as one that loads data, may live on when the download is killed.
    It is not at work on the model: the next call does not wait for it, and goes on from what is here."""
    server.handler = stall_in_body(DATA, 2 * MIB)
    url = f"{server.url}/f.bin"
    command = [sys.executable, "-c", FORKED, url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as killed:
        assert killed.stdout
        child = int(killed.stdout.readline())
        killed.wait(60)
        try:
            server.handler = honest(DATA)
            assert is_right(mdl.download(url, home="m", lock_wait=0))
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_fork_leaves_what_its_parent_has_begun(home: Path) -> None:
    """A forked process that ends its parent's call, by an error or an exit, neither frees the lock nor takes the lease:
    both are the parent's."""
    place = home / ".mdl" / "locks"
    with contextlib.ExitStack() as stack:
        stack.enter_context(file_lock(place, "one", 0, lambda _: None))
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                stack.close()
            os._exit(0)
        os.waitpid(child, 0)
        assert is_locked(place / f"{record_name('one')}.lock")
        assert (place / f"{record_name('one')}.who").exists()


@pytest.mark.parametrize("raised", [KeyboardInterrupt, ValueError])
def test_a_stop_while_the_workers_are_started(
    server: FaultyServer, monkeypatch: pytest.MonkeyPatch, at_work: Callable[[], list[str]], raised: type[BaseException]
) -> None:
    """Ctrl-C comes at any moment, also when the first worker has just been started: it ends with the call, and what it
    has opened is closed."""
    start, gate = threading.Thread.start, Gate(monkeypatch, Partial, "open")

    def start_and_raise(thread: threading.Thread) -> None:
        start(thread)
        if thread.name == "mdl-worker-0":
            assert gate.entered.wait(60)
            raise raised

    server.handler = stall_in_body(DATA, MIB)
    url, before = f"{server.url}/f.bin#sha256={hashlib.sha256(DATA).hexdigest()}", len(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start_and_raise)
        with pytest.raises(raised):
            mdl.get(url, home="m")
    gate.open()
    until(lambda: not at_work())
    until(lambda: len(os.listdir("/proc/self/fd")) <= before)
    server.handler = honest(DATA)
    assert is_right(mdl.download(url, home="m", lock_wait=30))


@pytest.mark.parametrize("where", ["mdl.disk.mutex.try_lock", "json.dumps", "mdl.disk.mutex.write_all"])
def test_an_interrupt_while_a_lock_is_taken(home: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """Ctrl-C while a lock or its lease is taken leaves neither: the next call of the same process can have it."""
    place, before = home / ".mdl" / "locks", len(os.listdir("/proc/self/fd"))

    def interrupted(*_: Any, **_named: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(where, interrupted)
        with pytest.raises(KeyboardInterrupt), file_lock(place, "one", 0, lambda _: None):
            pass
    assert len(os.listdir("/proc/self/fd")) == before
    with file_lock(place, "one", 0, lambda _: None):
        assert is_locked(place / f"{record_name('one')}.lock")


def test_who_waits_for_its_own_process_is_told_so(home: Path) -> None:
    """A second call of a notebook or a service waits for the first: that is no other mdl, which one could end."""
    place = home / ".mdl" / "locks"
    with (
        file_lock(place, "one", 0, lambda _: None),
        pytest.raises(mdl.Busy, match="another call of this process"),
        file_lock(place, "one", 0, lambda _: None),
    ):
        pass
