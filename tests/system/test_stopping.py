"""A stop is never lost and never waits, whatever swallows it and whatever blocks the main thread."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.catalogs import catalog_of
from support.data import DATA
from support.faults import honest
from support.faulty_server import FaultyServer
from support.jobs import Gate, arrived, the_job
from support.polling import until
from support.shell import ExitCode, Process, Shell, beside, ended, machine, opened_by, started

from mdl.cancel import CancelToken
from mdl.errors import Cancelled, DeadlineReached, Paused

LONG = os.environ.get("MDL_LONG") == "1"
HUGE = 2**38
"""The size of a file with a hole of 256 GiB, which takes minutes to read."""
STOPS = [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 75)]


def stop_by(how: signal.Signals, *others: signal.Signals) -> pytest.MarkDecorator:
    """Give a test the signal and its exit code; with MDL_LONG=1 the other signals too."""
    tried = (how, *others) if LONG else (how,)
    return pytest.mark.parametrize(("how", "code"), [(one, code) for one, code in STOPS if one in tried])


# The flag.


@pytest.mark.fault(274)
def test_the_reason_is_what_is_raised() -> None:
    """Each check raises a new stop that tells the reason; an end replaces a pause, and nothing else does."""
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
    cancel, asleep = CancelToken(), threading.Barrier(9)

    def sleep() -> None:
        asleep.wait()
        cancel.wait(60)

    with ThreadPoolExecutor(8) as pool:
        sleeping = [pool.submit(sleep) for _ in range(8)]
        asleep.wait()
        cancel.set()
        for one in sleeping:
            with pytest.raises(Cancelled):
                one.result()


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


def huge_run(shell: Shell) -> Path:
    """A run whose weights take minutes to read."""
    run = shell.home / "run"
    run.mkdir()
    (run / "model.safetensors").touch()
    os.truncate(run / "model.safetensors", HUGE)
    return run


@pytest.mark.fault(274)
@pytest.mark.parametrize("how", ["Finalised()", "swallow()"])
@pytest.mark.parametrize("command", ["get", "pack"])
def test_a_stop_that_is_swallowed(gated: Shell, how: str, command: str) -> None:
    """SIGTERM while a destructor runs, or a library that goes on after every error, ends it with 143 all the same."""
    words = ["get", "one"] if command == "get" else ["pack", str(huge_run(gated)), "-o", "-", "--allow-incomplete"]
    script = _STOPPED_WITHIN.format(how=how, words=words)
    with beside(gated, sys.executable, "-c", script, stdout=subprocess.DEVNULL) as process:
        ended(process, 143)
    if command == "get":
        assert (the_job(gated).status, the_job(gated).exit_code) == ("cancelled", 143)


# Whatever the main thread waits for.


def stopped(process: Process, how: signal.Signals, code: int) -> str:
    """Stop it: what it waits for lasts longer than a test may, and it must end with that code. Returns what it said on
    stderr."""
    process.send_signal(how)
    return ended(process, code).err


@pytest.mark.fault(275)
@stop_by(signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
def test_while_it_asks_the_hub(tmp_path: Path, how: signal.Signals, code: int) -> None:
    """A hub that says nothing is waited for by the main thread: a stop ends that at once."""
    silent = Gate(at=None)
    with FaultyServer(silent) as server:
        shell = machine(tmp_path, endpoint=server.url)
        with started(shell, "get", "hf:org/repo", "-q", "--stall", "1h") as process:
            silent.wait()
            stopped(process, how, code)
    assert the_job(shell).exit_code == code


_NO_NAMES = """
import socket, sys, time
from mdl.cli.main import run
def look_up(*words, **more):
    print("looking up", flush=True)
    while True:
        time.sleep(0.1)
socket.getaddrinfo = look_up
sys.exit(run(["get", "hf:org/repo", "-q"]))
"""


@pytest.mark.fault(275)
def test_while_it_looks_a_name_up(tmp_path: Path) -> None:
    """A name server that says nothing, which no signal can interrupt, holds up no stop."""
    shell = machine(tmp_path, endpoint="https://hub.example", MDL_ALLOW_HOSTS="hub.example")
    with beside(shell, sys.executable, "-c", _NO_NAMES) as process:
        assert process.stdout.readline() == "looking up\n"
        stopped(process, signal.SIGTERM, 143)


@pytest.mark.fault(275)
@stop_by(signal.SIGUSR1, signal.SIGINT, signal.SIGTERM)
def test_while_it_waits_for_another(gated: Shell, gate: Gate, how: signal.Signals, code: int) -> None:
    """One that waits for its turn is stopped alone; the one that is at work goes on."""
    with started(gated, "get", "one", "-q") as first:
        gate.wait()
        with started(gated, "get", "one", "--progress", "lines") as second:
            until(lambda: "waiting for" in second.stderr.readline())
            stopped(second, how, code)
        gate.opened.set()
        ended(first, 0)
    assert arrived(gated)


@pytest.mark.fault(122, 275)
@pytest.mark.parametrize("command", ["get", "verify"])
@stop_by(signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
def test_while_it_hashes(tmp_path: Path, exit_code: ExitCode, command: str, how: signal.Signals, code: int) -> None:
    """In the middle of a file that takes minutes to read it stops and says so; the file stays as it is."""
    with FaultyServer(honest(DATA)) as server:
        catalog = catalog_of(one=server.url + "/f")
        shell = machine(tmp_path, catalog)
        assert exit_code(shell, "get", "one", "-q") == 0
        place = shell.models / "one" / "f.bin"
        os.truncate(place, HUGE)
        (tmp_path / "catalog.toml").write_text(catalog.replace(str(len(DATA)), str(HUGE)))
        with started(shell, command, "one") as process:
            until(lambda: str(place) in opened_by(process.pid))
            said = stopped(process, how, code)
    assert place.stat().st_size == HUGE
    assert how != signal.SIGINT or "interrupted" in said


@pytest.mark.fault(123, 275)
@pytest.mark.parametrize(
    ("how", "code", "status"),
    [
        *((how, code, "paused" if code == 75 else "cancelled") for how, code in STOPS),
        (signal.SIGHUP, 143, "cancelled"),
        (signal.SIGQUIT, -signal.SIGQUIT, "dead"),
    ],
)
def test_while_it_fetches(
    gated: Shell, gate: Gate, exit_code: ExitCode, how: signal.Signals, code: int, status: str
) -> None:
    """A stalled download ends at once, keeps what it has, and goes on the next time. SIGQUIT is left to the system."""
    with started(gated, "get", "one", "-q", "--stall", "1h") as process:
        gate.wait()
        stopped(process, how, code)
    assert (the_job(gated).status, the_job(gated).exit_code) == (status, None if status == "dead" else code)
    assert not (gated.models / "one" / "f.bin").exists()
    gate.opened.set()
    assert exit_code(gated, "get", "one", "-q") == 0
    assert arrived(gated)


@pytest.mark.fault(275)
@stop_by(signal.SIGTERM, signal.SIGINT)
def test_while_nobody_reads_what_it_says(gated: Shell, gate: Gate, how: signal.Signals, code: int) -> None:
    """A full pipe at stderr is not waited for once it is told to stop."""
    source, sink = os.pipe()
    os.set_blocking(sink, False)
    with pytest.raises(BlockingIOError):
        while True:
            os.write(sink, b"x" * 4096)
    os.set_blocking(sink, True)
    words = gated.command("get", "one", "--progress", "lines")
    with beside(gated, *words, stdout=subprocess.DEVNULL, stderr=sink) as process:
        gate.wait()
        gate.opened.set()
        until((gated.models / "one" / "f.bin").exists)
        process.send_signal(how)
        assert process.wait() in (0, code)
    os.close(source)
    os.close(sink)


@pytest.mark.fault(275)
@stop_by(signal.SIGINT, signal.SIGTERM)
def test_while_it_packs(tmp_path: Path, how: signal.Signals, code: int) -> None:
    """In the middle of a file that takes minutes to pack; no archive, and nothing unfinished, is left."""
    shell = machine(tmp_path)
    place = huge_run(shell) / "model.safetensors"
    with started(shell, "pack", "run", "--allow-incomplete") as process:
        until(lambda: str(place) in opened_by(process.pid))
        stopped(process, how, code)
    assert sorted(path.name for path in tmp_path.iterdir() if "run" in path.name) == ["run"]


@pytest.mark.fault(275)
@pytest.mark.parametrize("is_of_terminal", [False, True])
@stop_by(signal.SIGTERM, signal.SIGINT)
def test_while_a_release_is_checked(
    tmp_path: Path, exit_code: ExitCode, how: signal.Signals, code: int, is_of_terminal: bool
) -> None:
    """The check is ended with it, and nothing is switched; also where Ctrl-C in a terminal ends the check first."""
    shell, run = machine(tmp_path), tmp_path / "run"
    run.mkdir()
    (run / "model.bin").write_bytes(b"weights")
    assert exit_code(shell, "pack", str(run), "-o", "a.zip", "-q") == 0
    check = f"sh -c 'echo $$ > {tmp_path}/pid; mv {tmp_path}/pid {tmp_path}/checking; exec sleep 1000'"
    words = ("unpack", "a.zip", "--to", str(tmp_path / "srv"), "--release", "--check", check)
    with started(shell, *words) as process:
        until((tmp_path / "checking").exists)
        if is_of_terminal:
            process.send_signal(signal.SIGSTOP)
            os.kill(int((tmp_path / "checking").read_text()), how)
            process.send_signal(how)
            how = signal.SIGCONT
        stopped(process, how, code)
    assert not (tmp_path / "srv" / "current").exists()
    assert not Path(f"/proc/{int((tmp_path / 'checking').read_text())}").exists()
