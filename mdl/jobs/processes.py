"""The process of a job: started without the terminal, at a low priority, paused or cancelled from another process.

A job in the background is mdl started anew. Every user of the machine may read the arguments of a process, and a URL
among them may be signed: the words of the command are sent over a socket, which is the new process's stdin until then.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mdl.disk.process import ProcessId, hostname, python_command, users_core_limit
from mdl.errors import Busy, UsageError
from mdl.formatting import utc_now
from mdl.jobs.job import Job, resume_command
from mdl.jobs.records import Records

if TYPE_CHECKING:
    import socket

FLAG = "--background"
"""The option before the job's id; such a process has no other arguments."""
_CANCELLED = 143
"""The exit code of a job that was ended by another process."""
_BY_COMMAND = {
    "code": "CANCELLED",
    "message": "cancelled",
    "hint": "what was fetched is kept; run the same command again to continue",
    "item": None,
}
"""The error of a job that was paused or dead when it was cancelled."""
_STOP_WAIT_SECONDS = 15.0
_POLL_SECONDS = 0.05
_foreground: socket.socket | None = None
"""In the background: the socket on which the command in the foreground waits to hear that the job has begun."""


def start(job: str, words: Sequence[str], environ: Mapping[str, str], errors: Path) -> int | None:
    """Start mdl with ``words`` in a new session; it reads nothing and writes to ``errors`` only.

    Returns None once it says that it has `begun`, or the exit code with which it ended before. Raises `OSError`.
    """
    import json
    import socket
    import subprocess

    ours, theirs = socket.socketpair()
    with ours:
        log = os.open(errors, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with theirs, os.fdopen(log, "ab") as file, users_core_limit():
            process = subprocess.Popen(
                [*python_command(), FLAG, job],
                env=environ,
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=file,
                start_new_session=True,
            )
        with contextlib.suppress(ConnectionError):
            ours.sendall(json.dumps(words).encode())
            ours.shutdown(socket.SHUT_WR)
            if ours.recv(1):
                return None
    code = process.wait()
    return code if code >= 0 else 128 - code


def words_from_foreground() -> list[str]:
    """In the background: the words to carry out. From then on there is nothing to read.

    Raises `OSError` or `ValueError` if they were not sent, or not all of them.
    """
    import json
    import socket

    global _foreground
    _foreground = socket.socket(fileno=os.dup(0))
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    data = b""
    while piece := _foreground.recv(2**16):
        data += piece
    words: list[str] = json.loads(data)
    return words


def is_background() -> bool:
    """Whether this process was started by `start`."""
    return _foreground is not None


def begun() -> None:
    """In the background, tell the command in the foreground that the job has begun; elsewhere do nothing."""
    if _foreground is not None:
        with contextlib.suppress(ConnectionError):
            _foreground.send(b"1")


def lower_priority() -> None:
    """Run at idle CPU and I/O priority, as far as the system can."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, 19)
    with contextlib.suppress(OSError, AttributeError):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def pause(job: Job, records: Records) -> Job:
    """Stop a running job so that it can be resumed. Raises `UsageError` if it is not running, `Busy`."""
    while job.status == "running":
        job = _stopped(job, signal.SIGUSR1, records)
    if job.status != "paused":
        hint = resume_command(job) or "'mdl jobs --status running' shows what can be paused"
        raise UsageError(f"there is nothing to pause: its status is {job.status}", item=job.id, hint=hint)
    return job


def cancel(job: Job, records: Records) -> Job:
    """End a job; what it fetched stays. Raises `UsageError` if it is over already, `Busy`."""
    while job.status in ("running", "paused", "dead"):
        if job.status == "running":
            job = _stopped(job, signal.SIGTERM, records)
            continue
        ended = replace(
            job, status="cancelled", finished_at=job.finished_at or utc_now(), exit_code=_CANCELLED, error=_BY_COMMAND
        )
        job = ended if records.replace(ended, job.stamp) else records.find(job.id)
    if job.status != "cancelled":
        hint = "'mdl jobs --status running' shows what can be cancelled"
        raise UsageError(f"there is nothing to cancel: its status is {job.status}", item=job.id, hint=hint)
    return job


def _stopped(job: Job, how: signal.Signals, records: Records) -> Job:
    """Send ``how`` to the job's process and wait until its record says what became of it, or that another process has
    resumed it meanwhile."""
    owner = ProcessId(job.owner)
    if owner.is_alive() is None:
        where = job.host if job.host != hostname() else "this machine, in a container"
        why = f"the job runs on {where}; mdl cannot signal it from here"
        raise UsageError(why, item=job.id, hint="run the same command there")
    _send(owner, how)
    until = time.monotonic() + _STOP_WAIT_SECONDS
    while time.monotonic() < until:
        stopped = records.find(job.id)
        if stopped.owner != job.owner or (stopped.status != "running" and owner.is_alive() is False):
            return stopped
        time.sleep(_POLL_SECONDS)
    raise Busy(f"process {owner.pid} was asked to stop and is still running", item=job.id, hint="look again later")


def _send(owner: ProcessId, how: signal.Signals) -> None:
    """Signal this very process, never another one that has its process id now."""
    with contextlib.suppress(ProcessLookupError):
        if not hasattr(os, "pidfd_open"):
            if owner.is_alive():
                os.kill(owner.pid, how)
            return
        handle = os.pidfd_open(owner.pid)
        try:
            if owner.is_alive():
                signal.pidfd_send_signal(handle, how)
        finally:
            os.close(handle)
