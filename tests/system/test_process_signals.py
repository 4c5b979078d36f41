"""Signals at inconvenient moments: twice, during the last step, while it verifies, or none for a while (group G)."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import faults
from support.catalogs import catalog_of
from support.data import DATA
from support.faulty_server import FaultyServer
from support.jobs import Gate, arrived, the_job
from support.namespaces import failing
from support.polling import until
from support.shell import ExitCode, Shell, ended, machine, started

PLACE = "models/one/f.bin"


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def server(gate: Gate) -> Iterator[FaultyServer]:
    with FaultyServer(gate) as server:
        yield server
        gate.opened.set()


@pytest.fixture
def shell(tmp_path: Path, server: FaultyServer) -> Shell:
    return machine(tmp_path, catalog_of(one=server.url + "/f"))


def again(shell: Shell, gate: Gate, exit_code: ExitCode) -> None:
    gate.opened.set()
    assert exit_code(shell, "get", "one", "-q") == 0
    assert arrived(shell)


@pytest.mark.fault(122)
def test_told_three_times(shell: Shell, gate: Gate, exit_code: ExitCode) -> None:
    """Three Ctrl-C in a row end it at once, without a traceback; the next run goes on."""
    with started(shell, "get", "one", "-q") as process:
        gate.wait()
        for _ in range(3):
            process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert (process.returncode in (130, -signal.SIGINT), out, "Traceback" in err) == (True, "", False), err
    assert not (shell.home / PLACE).exists()
    again(shell, gate, exit_code)


@pytest.mark.fault(123)
def test_the_terminal_goes(shell: Shell, gate: Gate, exit_code: ExitCode) -> None:
    """SIGHUP is 143, what is there is kept, and the next run goes on."""
    with started(shell, "get", "one", "-q") as process:
        gate.wait()
        process.send_signal(signal.SIGHUP)
        ended(process, 143)
    assert the_job(shell).status == "cancelled"
    again(shell, gate, exit_code)


@pytest.mark.fault(123)
def test_ended_without_a_word(shell: Shell, gate: Gate, exit_code: ExitCode) -> None:
    """SIGQUIT is left to the system; its job is dead, and the next run takes over what it had."""
    with started(shell, "get", "one", "-q") as process:
        gate.wait()
        process.send_signal(signal.SIGQUIT)
        assert process.wait(20) == -signal.SIGQUIT
    assert the_job(shell).status == "dead"
    again(shell, gate, exit_code)


@pytest.mark.fault(123)
def test_nobody_hangs_up_on_nohup(shell: Shell, gate: Gate) -> None:
    """A SIGHUP that was ignored when it was started stays ignored."""
    process = subprocess.Popen(
        ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", *shell.command("get", "one", "-q")],
        env=shell.environ,
        cwd=shell.home,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    gate.wait()
    process.send_signal(signal.SIGHUP)
    gate.opened.set()
    ended(process, 0)
    assert arrived(shell)


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.mark.fault(123)
def test_stopped_and_continued(shell: Shell, server: FaultyServer, gate: Gate) -> None:
    """Stopped for longer than a silence may last, and by its terminal; continued it goes on, asking anew if it must."""
    with started(shell, "get", "one", "-q", "--stall", "1s") as process:
        gate.wait()
        process.send_signal(signal.SIGTSTP)
        until(lambda: state_of(process.pid) == "T", "it is not stopped")
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1.2)
        gate.opened.set()
        process.send_signal(signal.SIGCONT)
        ended(process, 0)
    assert arrived(shell)
    assert len(server.requests) <= 2


@contextlib.contextmanager
def held_at(shell: Shell, call: str, which: Path, *words: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """mdl held for a second in a system call on that path; the tracer, and mdl's own process."""
    words = (*failing(f"{call}:delay_enter=1000000"), "-P", str(which), *shell.command(*words))
    pipe, null = subprocess.PIPE, subprocess.DEVNULL
    with subprocess.Popen(
        words, env=shell.environ, cwd=shell.home, stdin=null, stdout=pipe, stderr=pipe, text=True
    ) as p:
        yield p, p.pid
        p.kill()


def child_of(pid: int) -> int:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(children[0]) if children else 0


@pytest.mark.fault(122)
def test_in_the_middle_of_the_last_step(tmp_path: Path, exit_code: ExitCode) -> None:
    """A signal while the file gets its final name: the name has the whole file or is not there, whatever the code."""
    with FaultyServer(faults.honest(DATA)) as server:
        shell = machine(tmp_path, catalog_of(one=server.url + "/f"))
        place = shell.home / PLACE
        place.parent.mkdir(parents=True)
        with held_at(shell, "link,linkat", place.parent, "get", "one", "-q") as (tracer, pid):
            until(lambda: server.bytes_sent >= len(DATA), "nothing came")
            os.kill(child_of(pid), signal.SIGINT)
            _, err = tracer.communicate(timeout=30)
        assert tracer.returncode in (0, 130), err
        assert "Traceback" not in err
        assert not place.exists() or place.read_bytes() == DATA
        assert exit_code(shell, "get", "one", "-q") == 0
    assert place.read_bytes() == DATA


@pytest.mark.fault(122)
def test_while_it_verifies(tmp_path: Path, exit_code: ExitCode) -> None:
    """Ctrl-C in the middle of a long hash is 130 within two seconds, and says so."""
    with FaultyServer(faults.honest(DATA)) as server:
        shell = machine(tmp_path, catalog_of(one=server.url + "/f"))
        assert exit_code(shell, "get", "one", "-q") == 0
    place = shell.home / PLACE
    os.truncate(place, 2**38)  # a hole of 256 GiB takes minutes to read
    (tmp_path / "catalog.toml").write_text(catalog_of(one=server.url + "/f").replace(str(len(DATA)), str(2**38)))
    with started(shell, "verify", "one") as process:
        until(lambda: str(place) in opened_by(process.pid), "not read")
        process.send_signal(signal.SIGINT)
        ran = ended(process, 130)
    assert "interrupted" in ran.err


def opened_by(pid: int) -> set[str]:
    """What a process has open now."""
    found = set()
    with contextlib.suppress(OSError):
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                found.add(os.readlink(entry.path))
    return found
