"""The list of jobs on a terminal: a job a line, as long as there is room for its name."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import termios
from dataclasses import replace
from pathlib import Path

import pytest
from support.jobs import records_of
from support.shell import machine

from mdl.jobs.job import Invocation, Job
from mdl.jobs.records import now
from mdl.process import ProcessId, hostname

JOB = Job(
    "0101-abcd",
    "get",
    ("bert-fa",),
    str(ProcessId.current()),
    hostname(),
    Invocation(),
    "2025-01-01T00:00:00.000Z",
    status="cancelled",
)


@pytest.mark.parametrize(("columns", "date"), [(80, "2025"), (120, "2025-01-01")])
def test_a_job_a_line(tmp_path: Path, columns: int, date: str) -> None:
    """At eighty columns nothing is folded; a wider terminal has the whole date."""
    shell = machine(tmp_path)
    fast = {"bytes_done": 123_400_000_000, "bytes_total": 987_600_000_000, "bytes_per_second": 98.7e6}
    running = replace(JOB, id="0102-abcd", status="running", started_at=now(), **fast, eta_seconds=2.5 * 3600)
    for job in (JOB, running):
        records_of(shell).put(job)
    lines = seen(shell.command("jobs"), shell.environ, columns)
    assert [line.split()[0] for line in lines] == ["ID", "0102-abcd", "0101-abcd"]
    assert all(line.rstrip().endswith("get bert-fa") for line in lines[1:])
    assert date in lines[2]


def seen(command: list[str], environ: dict[str, str], columns: int) -> list[str]:
    """The lines that a terminal gets from it."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environ = {**environ, "TERM": "xterm", "NO_COLOR": "1"}
    subprocess.run(command, env=environ, stdin=subprocess.DEVNULL, stdout=slave, check=True, timeout=60)
    os.close(slave)
    text = os.read(master, 65536).decode()
    os.close(master)
    return [line for line in text.replace("\x1b[0m", "").replace("\x1b[1m", "").splitlines() if line.strip()]
