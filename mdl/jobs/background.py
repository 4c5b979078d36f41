"""Background: going on without the terminal, and giving way to everybody else on the machine."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path


def detach(errors: Path) -> Callable[[], None] | None:
    """Fork. The child lives on in a session of its own, reads nothing and writes to ``errors`` only.

    To be called before there is any thread. The child gets a function that lets the parent go, to be called once
    what the parent promises is true; the parent gets None then, or when the child is gone.
    """
    hears, says = os.pipe()
    first = os.fork()
    if first:
        os.close(says)
        os.waitpid(first, 0)
        os.read(hears, 1)
        os.close(hears)
        return None
    os.close(hears)
    os.setsid()
    if os.fork():
        os._exit(0)
    nothing = os.open(os.devnull, os.O_RDWR)
    log = os.open(errors, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    for descriptor, target in ((nothing, 0), (nothing, 1), (log, 2)):
        os.dup2(descriptor, target)
    for descriptor in {nothing, log} - {0, 1, 2}:
        os.close(descriptor)
    return lambda: os.close(says)


def give_way() -> None:
    """Take processor and disk only when nobody else wants them, as far as the system knows how."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, 19)
    with contextlib.suppress(OSError, AttributeError):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
