"""Background: going on without the terminal, and at a low priority.

A job in the background is mdl started anew. Every user of the machine may read the arguments of a process, and a URL
among them may be signed: the words of the command go there over a socket, which is its stdin until it has them.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket

FLAG = "--background"
"""Before the job's id: all the arguments that such a process has."""
_foreground: socket.socket | None = None
"""In the background: the socket on which the command in the foreground waits to hear that the job has begun."""


def start(job: str, words: Sequence[str], environ: Mapping[str, str], errors: Path) -> int | None:
    """Start mdl with ``words`` in a session of its own, which reads nothing and writes to ``errors`` only.

    None once it says that it has `begun`, or the exit code with which it ended before. Raises `OSError`.
    """
    import json
    import socket
    import subprocess

    ours, theirs = socket.socketpair()
    with ours:
        log = os.open(errors, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with theirs, os.fdopen(log, "ab") as file:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "mdl", FLAG, job],
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
    """In the background: let the command in the foreground go, for what it promises is true."""
    assert _foreground is not None
    with contextlib.suppress(ConnectionError):
        _foreground.send(b"1")


def lower_priority() -> None:
    """Run at idle CPU and I/O priority, as far as the system can."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, 19)
    with contextlib.suppress(OSError, AttributeError):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
