"""A stop is never lost and never waits: whatever swallows it, whatever the main thread is blocked in."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.catalogs import catalog_of
from support.data import DATA
from support.faults import honest
from support.faulty_server import FaultyServer
from support.jobs import Gate, arrived, the_job
from support.polling import PATIENCE, until
from support.shell import ExitCode, Shell, ended, machine, started, with_environ

from mdl.cancel import CancelToken
from mdl.errors import Cancelled, DeadlineReached, Paused

SOON = 5.0
"""Seconds within which a stopped process is gone, also on a machine that has much else to do."""


@pytest.fixture
def server(gate: Gate) -> Iterator[FaultyServer]:
    with FaultyServer(gate) as server:
        yield server
        gate.opened.set()


@pytest.fixture
def shell(tmp_path: Path, server: FaultyServer) -> Shell:
    return machine(tmp_path, catalog_of(one=server.url + "/f"))


# The flag.


@pytest.mark.fault(274)
def test_the_reason_is_what_is_raised() -> None:
    """Each check raises a stop of its own that tells the reason; a pause gives way to an end, and to nothing else."""
    cancel = CancelToken()
    cancel.check()
    cancel.set(Paused("paused"))
    cancel.set(DeadlineReached("over"))
    with pytest.raises(Paused) as first:
        cancel.check()
    with pytest.raises(Paused) as second:
        cancel.wait(60)
    assert first.value is not second.value
    cancel.set(Cancelled("terminated", terminated=True))
    cancel.set(Cancelled())
    with pytest.raises(Cancelled, match="terminated") as last:
        cancel.check()
    assert (last.value.code, last.value.exit_code) == ("CANCELLED", 143)


@pytest.mark.fault(274)
def test_all_who_sleep_are_woken() -> None:
    """Every thread that waits is let through by one `set`, which no lock of theirs can hold up."""
    cancel, woken, sleeping = CancelToken(), [], threading.Barrier(9)

    def sleep() -> None:
        sleeping.wait()
        with pytest.raises(Cancelled):
            cancel.wait(60)
        woken.append(1)

    threads = [threading.Thread(target=sleep) for _ in range(8)]
    for thread in threads:
        thread.start()
    sleeping.wait()
    cancel.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert len(woken) == 8


@pytest.mark.fault(274)
def test_no_library_takes_it_for_an_error() -> None:
    """A stop passes through ``except Exception``."""
    cancel = CancelToken()
    cancel.set()
    with pytest.raises(Cancelled):
        try:
            cancel.check()
        except Exception:  # as a library does
            pytest.fail("it was caught")


# Where Python or a library swallows what a handler raises.

_STOPPED_WITHIN = """
import os, signal, sys, time
from mdl.cli.main import run
from mdl.console.session import ReportSession
from mdl.events import Progressed

def stop():
    os.kill(os.getpid(), signal.SIGTERM)
    for _ in range(100):
        time.sleep(0.001)

class Finalised:
    def __del__(self):
        stop()

def swallow():
    try:
        stop()
    except Exception:
        pass

original, told = ReportSession.__call__, []
def listen(self, event):
    original(self, event)
    if isinstance(event, Progressed) and event.bytes_done and not told:
        told.append(event)
        {how}
ReportSession.__call__ = listen
sys.exit(run({words}))
"""
_WAYS = {"destructor": "Finalised()", "library": "swallow()"}


@pytest.mark.fault(274)
@pytest.mark.parametrize("how", _WAYS)
@pytest.mark.parametrize("command", ["get", "pack"])
def test_a_stop_that_is_swallowed(shell: Shell, how: str, command: str) -> None:
    """SIGTERM while a destructor runs, or a library that goes on after every error, ends it with 143 all the same."""
    run = shell.home / "run"
    run.mkdir()
    with (run / "model.safetensors").open("wb") as file:
        file.truncate(2**38)  # a hole of 256 GiB takes minutes to read
    words = ["get", "one"] if command == "get" else ["pack", str(run), "-o", "-", "--allow-incomplete"]
    script = _STOPPED_WITHIN.format(how=_WAYS[how], words=words)
    with subprocess.Popen(
        [sys.executable, "-c", script],
        env=shell.environ,
        cwd=shell.home,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            _, err = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    assert process.returncode == 143, err
    assert "Traceback" not in err
    if command == "get":
        assert (the_job(shell).status, the_job(shell).exit_code) == ("cancelled", 143)


# Whatever the main thread waits for.


def stopped(process: subprocess.Popen[str], how: signal.Signals, code: int) -> str:
    """Stop it: it must be gone soon, with that code; what it said on stderr."""
    began = time.monotonic()
    process.send_signal(how)
    err = ended(process, code).err
    assert time.monotonic() - began < SOON
    return err


_HOWS = [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 75)]


@pytest.mark.fault(275)
@pytest.mark.parametrize(("how", "code"), _HOWS)
def test_while_it_asks_the_hub(tmp_path: Path, how: signal.Signals, code: int) -> None:
    """A hub that says nothing is waited for by the main thread: a stop ends that at once."""
    silent = Gate(at=None)
    with FaultyServer(silent) as server:
        shell = machine(tmp_path, endpoint=server.url)
        with started(shell, "get", "hf:org/repo", "-q") as process:
            silent.wait()
            stopped(process, how, code)
        silent.opened.set()
    assert the_job(shell).exit_code == code


_NO_NAMES = """
import socket, sys, time
from mdl.cli.main import run
def look_up(*words, **more):
    print("looking up", flush=True)
    until = time.monotonic() + 60
    while time.monotonic() < until:
        time.sleep(0.1)
socket.getaddrinfo = look_up
sys.exit(run(["get", "hf:org/repo", "-q"]))
"""


@pytest.mark.fault(275)
def test_while_it_looks_a_name_up(tmp_path: Path) -> None:
    """A name server that says nothing, which no signal can interrupt, holds up no stop."""
    shell = machine(tmp_path, endpoint="https://hub.example")
    shell = with_environ(shell, MDL_ALLOW_HOSTS="hub.example")
    with subprocess.Popen(
        [sys.executable, "-c", _NO_NAMES],
        env=shell.environ,
        cwd=shell.home,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "looking up\n"
        stopped(process, signal.SIGTERM, 143)


@pytest.mark.fault(275)
@pytest.mark.parametrize(("how", "code"), _HOWS)
def test_while_it_waits_for_another(shell: Shell, gate: Gate, how: signal.Signals, code: int) -> None:
    """One that waits for its turn is stopped alone; the one that is at work goes on."""
    with started(shell, "get", "one", "-q") as first:
        gate.wait()
        with started(shell, "get", "one", "--progress", "lines") as second:
            assert second.stderr is not None
            until(lambda: "waiting for" in second.stderr.readline(), "it does not wait")  # type: ignore[union-attr]
            stopped(second, how, code)
        gate.opened.set()
        ended(first, 0)
    assert arrived(shell)


@pytest.mark.fault(275)
@pytest.mark.parametrize("command", ["get", "verify"])
@pytest.mark.parametrize(("how", "code"), _HOWS)
def test_while_it_hashes(tmp_path: Path, exit_code: ExitCode, command: str, how: signal.Signals, code: int) -> None:
    """In the middle of a file that takes minutes to read; the file stays as it is."""
    with FaultyServer(honest(DATA)) as server:
        shell = machine(tmp_path, catalog_of(one=server.url + "/f"))
        assert exit_code(shell, "get", "one", "-q") == 0
        place = shell.models / "one" / "f.bin"
        os.truncate(place, 2**38)
        (tmp_path / "catalog.toml").write_text(catalog_of(one=server.url + "/f").replace(str(len(DATA)), str(2**38)))
        with started(shell, command, "one", "-q") as process:
            until(lambda: str(place) in opened_by(process.pid), "not read")
            stopped(process, how, code)
    assert place.stat().st_size == 2**38


def opened_by(pid: int) -> set[str]:
    """What a process has open now."""
    try:
        return {str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()}
    except OSError:
        return set()


@pytest.mark.fault(275)
@pytest.mark.parametrize(("how", "code"), _HOWS)
def test_while_it_fetches(shell: Shell, gate: Gate, exit_code: ExitCode, how: signal.Signals, code: int) -> None:
    """A stalled download ends at once, keeps what it has, and goes on the next time."""
    with started(shell, "get", "one", "-q") as process:
        gate.wait()
        stopped(process, how, code)
    assert (the_job(shell).exit_code, (shell.models / "one" / "f.bin").exists()) == (code, False)
    gate.opened.set()
    assert exit_code(shell, "get", "one", "-q") == 0
    assert arrived(shell)


@pytest.mark.fault(275)
@pytest.mark.parametrize(("how", "code"), _HOWS[:2])
def test_while_nobody_reads_what_it_says(shell: Shell, gate: Gate, how: signal.Signals, code: int) -> None:
    """A full pipe at stderr is not waited for once it is told to stop."""
    source, sink = os.pipe()
    os.set_blocking(sink, False)
    while True:
        try:
            os.write(sink, b"x" * 4096)
        except BlockingIOError:
            break
    os.set_blocking(sink, True)
    words = shell.command("get", "one", "--progress", "lines")
    with subprocess.Popen(words, env=shell.environ, cwd=shell.home, stdout=subprocess.DEVNULL, stderr=sink) as process:
        gate.wait()
        gate.opened.set()
        until(lambda: (shell.models / "one" / "f.bin").exists(), "it does not arrive")
        process.send_signal(how)
        assert process.wait(SOON) in (0, code)
    os.close(source)
    os.close(sink)


@pytest.mark.fault(275)
@pytest.mark.parametrize(("how", "code"), _HOWS[:2])
def test_while_it_packs(tmp_path: Path, how: signal.Signals, code: int) -> None:
    """In the middle of a file that takes minutes to pack; no archive, and nothing unfinished, is left."""
    shell, run = machine(tmp_path), tmp_path / "run"
    run.mkdir()
    with (run / "model.safetensors").open("wb") as file:
        file.truncate(2**36)
    place = run / "model.safetensors"
    with started(shell, "pack", str(run), "--allow-incomplete") as process:
        until(lambda: str(place) in opened_by(process.pid), "not read")
        stopped(process, how, code)
    assert sorted(path.name for path in tmp_path.iterdir() if "run" in path.name) == ["run"]


@pytest.mark.fault(275)
@pytest.mark.parametrize(("how", "code"), _HOWS[:2])
def test_while_a_release_is_checked(tmp_path: Path, exit_code: ExitCode, how: signal.Signals, code: int) -> None:
    """The check is ended with it, and nothing is switched."""
    shell, run = machine(tmp_path), tmp_path / "run"
    run.mkdir()
    (run / "model.bin").write_bytes(b"weights")
    assert exit_code(shell, "pack", str(run), "-o", "a.zip", "-q") == 0
    check = f"sh -c 'echo $$ > {tmp_path}/pid; mv {tmp_path}/pid {tmp_path}/checking; exec sleep 60'"
    words = ("unpack", "a.zip", "--to", str(tmp_path / "srv"), "--release", "--check", check)
    with started(shell, *words) as process:
        until((tmp_path / "checking").exists, "it is not checked")
        stopped(process, how, code)
    assert not (tmp_path / "srv" / "current").exists()
    assert not Path(f"/proc/{int((tmp_path / 'checking').read_text())}").exists()
