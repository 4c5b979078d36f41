"""Where logs are: switched off, in another place, in a place that cannot be written; and those of detached jobs."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path

import pytest
from support.catalogs import entry_of
from support.data import SMALL
from support.faulty_server import FaultyServer, reply
from support.jobs import arrived, state_of, the_job
from support.polling import until
from support.shell import ExitCode, Shell, done, machine, settings, with_environ


@pytest.mark.parametrize("how", ["MDL_LOG_FILE", "--log-file=", "[defaults]", "MDL_LOG_FILE over [defaults]"])
def test_switched_off(shell: Shell, exit_code: ExitCode, how: str) -> None:
    """With an empty name nothing is logged anywhere; the job still has a record, and its log is 3."""
    if "[defaults]" in how:
        settings(shell, f'[defaults]\nlog_file = "{"all.log" if "over" in how else ""}"')
    asked = with_environ(shell, MDL_LOG_FILE="") if how.startswith("MDL") else shell
    assert exit_code(asked, "get", "one", *([how] if how.startswith("--") else [])) == 0
    assert the_job(shell).log is None
    files = [path.name for path in state_of(shell).rglob("*") if path.is_file() and path.stat().st_size]
    assert (files, (shell.home / "all.log").exists()) == ([f"{the_job(shell).id}.job"], False)
    assert exit_code(shell, "jobs", "log", the_job(shell).id) == 3


def test_a_log_in_another_place(shell: Shell, exit_code: ExitCode, capfd: pytest.CaptureFixture[str]) -> None:
    """--log-file names another place for all downloads, made if it is missing; each job still has its own log."""
    assert exit_code(shell, "get", "one", "--log-file", "var/log/mdl.log") == 0
    lines = (shell.home / "var" / "log" / "mdl.log").read_text().splitlines()
    assert lines[-1].split()[2] == "ended"
    assert exit_code(shell, "jobs", "log", "--raw") == 0
    assert capfd.readouterr().out.splitlines()[-len(lines) :] == lines
    assert not (state_of(shell) / "downloads.log").exists()


@pytest.mark.parametrize("kind", ["full", "no reader", "stuck reader", "folder", "below a file"])
def test_a_log_that_cannot_be_written(
    shell: Shell, exit_code: ExitCode, capfd: pytest.CaptureFixture[str], kind: str
) -> None:
    """A full device, a FIFO without a reader, a folder: one warning that names it; the download is right."""
    place, reader = odd_place(shell, kind)
    assert exit_code(shell, "get", "one", "--log-file", str(place)) == 0
    assert arrived(shell, SMALL)
    assert Path(the_job(shell).log or "").stat().st_size > 0
    if reader is not None:
        os.close(reader)
    warnings = [line for line in capfd.readouterr().err.splitlines() if line.startswith("mdl: warning: ")]
    assert [str(place) in line for line in warnings] == [True]


def odd_place(shell: Shell, kind: str) -> tuple[Path, int | None]:
    """A log file that cannot be written, and a reader that has it open without ever reading."""
    place, reader = shell.home / "log", None
    if kind == "full":
        return Path("/dev/full"), None
    if kind == "folder":
        place.mkdir()
    elif kind == "below a file":
        place.touch()
        place = place / "log"
    else:
        os.mkfifo(place)
        if kind == "stuck reader":
            reader = os.open(place, os.O_RDWR | os.O_NONBLOCK)
            fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)
            with suppress(BlockingIOError):
                while os.write(reader, b"x" * 4096):
                    pass
    return place, reader


def test_in_the_background_the_log_has_the_words(tmp_path: Path) -> None:
    """What a detached job has to say is in its own log: the server's words, its request id and what to do."""
    with FaultyServer(lambda _request, _number: reply(404, b"moved to the moon", ("X-Request-Id", "req-19"))) as server:
        shell = machine(tmp_path / "home", "schema = 1\n" + entry_of("one", f"{server.url}/f", SMALL))
        name = done(shell.run("get", "one", "--detach")).out.strip()
        until(lambda: the_job(shell).status == "failed")
        until(lambda: "hint: " in done(shell.run("jobs", "log", name)).out)
    assert "moved to the moon (request req-19)" in done(shell.run("jobs", "log", name)).out
    assert (the_job(shell).exit_code, (the_job(shell).error or {})["item"]) == (3, "one/f.bin")
