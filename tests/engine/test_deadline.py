"""Time limits against servers that let a client wait: 75 in every phase, and what is there is kept."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from support import faults
from support.catalogs import catalog_of, unpinned
from support.clocks import faked
from support.data import DATA
from support.faulty_server import FaultyServer, Handler
from support.jobs import Gate, arrived, waits
from support.shell import NOBODY, Inside, done, ended, machine, started, with_environ


@pytest.mark.fault(58, 82)
@pytest.mark.parametrize(
    ("target", "handler"),
    [("hf:org/repo", faults.stall_before_headers()), ("one", faults.answers(503, ("Retry-After", "300")))],
    ids=["listing, silent", "size, busy"],
)
def test_the_time_is_over_before_the_first_byte(tmp_path: Path, mdl: Inside, target: str, handler: Handler) -> None:
    """--max-duration ends a run with 75 if a server is silent or asks to wait, whatever was requested."""
    with FaultyServer(handler) as server:
        shell = machine(tmp_path, unpinned(f"{server.url}/f"), server.url if target != "one" else NOBODY)
        ran = done(mdl(shell, "get", target, "--max-duration", "1s"), 75)
        assert len(server.requests) <= 1  # none, if a busy machine took that second to start
    assert "the time limit (--max-duration) is over" in ran.err


def test_outside_of_the_window(tmp_path: Path, mdl: Inside) -> None:
    """The message names the window, and does not speak of bytes: none came."""
    hour = time.localtime().tm_hour
    closed = f"{(hour + 2) % 24}:00-{(hour + 3) % 24}:00"
    ran = done(mdl(machine(tmp_path), "get", "org/repo", "--window", closed), 75)
    assert "outside the download window" in ran.err
    assert "again within the window" in ran.err
    assert "kept" not in ran.err


@pytest.mark.fault(62, 82)
def test_the_time_is_over_in_a_body(tmp_path: Path, mdl: Inside, gate: Gate) -> None:
    """What had come when the time was over is kept, and resumed."""
    with FaultyServer(gate) as server:
        shell = machine(tmp_path, catalog_of(one=f"{server.url}/f"))
        done(mdl(shell, "get", "one", "--max-duration", "1s"), 75)
        gate.opened.set()
        before = server.bytes_sent
        done(mdl(shell, "get", "one"))
        assert server.bytes_sent - before < len(DATA) // 2
    assert arrived(shell)


@pytest.mark.fault(270)
def test_a_get_that_slept(tmp_path: Path, gate: Gate) -> None:
    """A real get in the night whose clock on the wall jumps into the day, as after a suspend, ends with 75."""
    with FaultyServer(gate) as server:
        shell = machine(tmp_path / "home", catalog_of(one=server.url))
        stamp = tmp_path / "clock"
        stamp.write_text("@2025-06-01 03:00:00\n")
        clock = faked(FAKETIME_TIMESTAMP_FILE=str(stamp), FAKETIME_NO_CACHE="1", FAKETIME_DONT_RESET="1", TZ="UTC")
        with started(with_environ(shell, **clock), "get", "one", "--window", "22:00-06:00") as process:
            waits(shell, gate)
            stamp.write_text("@2025-06-01 10:00:00\n")
            ended(process, 75)
