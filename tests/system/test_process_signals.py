"""Signals at inconvenient moments: three at once, during the last step, ignored from the start, or none for a while."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path

import pytest
from support.catalogs import catalog_of
from support.data import DATA
from support.faults import honest
from support.faulty_server import FaultyServer
from support.jobs import Gate, arrived
from support.namespaces import failing
from support.polling import until
from support.shell import ExitCode, Shell, beside, ended, machine, started, with_environ
from support.terminal import Screen, Terminal


@pytest.mark.fault(122)
def test_told_three_times(gated: Shell, gate: Gate, exit_code: ExitCode) -> None:
    """Three Ctrl-C in a row end it at once, without a traceback; the next run goes on."""
    with started(gated, "get", "one", "-q") as process:
        gate.wait()
        for _ in range(3):
            process.send_signal(signal.SIGINT)
        out, err = process.communicate()
    assert (process.returncode in (130, -signal.SIGINT), out, "Traceback" in err) == (True, "", False), err
    assert not (gated.models / "one" / "f.bin").exists()
    gate.opened.set()
    assert exit_code(gated, "get", "one", "-q") == 0
    assert arrived(gated)


@pytest.mark.fault(123)
def test_nohup_is_respected(gated: Shell, gate: Gate) -> None:
    """A SIGHUP that was ignored when it was started stays ignored."""
    words = ("sh", "-c", 'trap "" HUP; exec "$@"', "sh", *gated.command("get", "one", "-q"))
    with beside(gated, *words) as process:
        gate.wait()
        process.send_signal(signal.SIGHUP)
        gate.opened.set()
        ended(process, 0)
    assert arrived(gated)


@pytest.mark.fault(123)
def test_stopped_and_continued(gated: Shell, gate: Gate) -> None:
    """Stopped for longer than a silence may last, and by its terminal; continued it goes on, asking anew if it must."""
    with started(gated, "get", "one", "-q", "--stall", "1s") as process:
        gate.wait()
        process.send_signal(signal.SIGTSTP)
        status = Path(f"/proc/{process.pid}/stat")
        until(lambda: status.read_text().rpartition(")")[2].split()[0] == "T")
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1.2)
        gate.opened.set()
        process.send_signal(signal.SIGCONT)
        ended(process, 0)
    assert arrived(gated)
    assert gate.requests <= 2


@pytest.mark.fault(123)
def test_a_stopped_one_leaves_the_terminal_to_the_shell(gated: Shell, gate: Gate) -> None:
    """After Ctrl-Z no bar is left and the cursor is to be seen; continued it draws again, a second time too."""
    seen, shell = Terminal(is_read=False), with_environ(gated, TERM="xterm")
    with beside(shell, *shell.command("get", "one", "--stall", "1m"), stderr=seen.file) as process:
        gate.wait()
        status = Path(f"/proc/{process.pid}/stat")
        screen = Screen("")
        for _ in range(2):
            until(lambda: screen.feed(seen.seen()) or not screen.cursor)
            process.send_signal(signal.SIGTSTP)
            until(lambda: status.read_text().rpartition(")")[2].split()[0] == "T")
            screen.feed(seen.seen())
            assert (screen.text, screen.cursor) == ([], True)
            process.send_signal(signal.SIGCONT)
        gate.opened.set()
        seen.reader.start()
        process.communicate()
    seen.text()
    assert (process.returncode, arrived(gated)) == (0, True)


def child_of(pid: int) -> int:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(children[0]) if children else 0


@pytest.mark.fault(122)
def test_in_the_middle_of_the_last_step(tmp_path: Path, exit_code: ExitCode) -> None:
    """A signal while the file gets its final name: the name has the whole file or is not there, whatever the code."""
    with FaultyServer(honest(DATA)) as server:
        shell = machine(tmp_path, catalog_of(one=server.url + "/f"))
        place = shell.models / "one" / "f.bin"
        place.parent.mkdir(parents=True)
        held = (*failing("link,linkat:delay_enter=1000000"), "-P", str(place.parent))
        with beside(shell, *held, *shell.command("get", "one", "-q")) as tracer:
            until(lambda: server.bytes_sent >= len(DATA))
            os.kill(child_of(tracer.pid), signal.SIGINT)
            _, err = tracer.communicate()
        assert tracer.returncode in (0, 130), err
        assert "Traceback" not in err
        assert not place.exists() or place.read_bytes() == DATA
        assert exit_code(shell, "get", "one", "-q") == 0
    assert place.read_bytes() == DATA
