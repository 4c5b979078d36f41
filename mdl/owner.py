"""Owner: which process something belongs to: this boot, this PID name space, this process. Told apart even if a process
id is used again.

A process of another machine, and one in another PID name space of this machine (a container), cannot be seen from
here: whether it lives is then asked of what it keeps locked and touches (`mdl.pulse`).
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import platform
import re
from pathlib import Path

NAME = r"[0-9a-f]{12}-[0-9]+-[0-9]+(?:-[0-9]+)?"
"""An owner's name, as a pattern: machine, process id, start in clock ticks, PID name space. Earlier mdls left the last
part out."""
_NAME = re.compile(r"([0-9a-f]{12})-([0-9]+)-([0-9]+)(?:-([0-9]+))?")


@functools.cache
def _machine() -> str:
    """This boot of this machine, in 12 hex digits; by its host name if the system does not tell boots apart."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        boot = ""
    return hashlib.sha256((boot or platform.node()).encode()).hexdigest()[:12]


def _space() -> str:
    """The PID name space that this process is in; 0 if the system has none."""
    with contextlib.suppress(OSError):
        return str(os.stat("/proc/self/ns/pid").st_ino)
    return "0"


_HIDDEN = "?"
"""When a process was started that is there and cannot be looked at."""
_UNTOLD = "0"
"""When a process was started that is there, if /proc tells nothing of this PID name space."""


def _born(pid: int) -> str | None:
    """When process ``pid`` was started, in clock ticks since boot; None if there is no such process.

    Another user's process may be hidden (``hidepid``).
    """
    shows = _shows_processes()
    if shows:
        with contextlib.suppress(OSError, IndexError, ValueError):
            state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            return None if state in "ZX" else rest[18]
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return None
    except OSError:
        return _HIDDEN if shows else _UNTOLD
    return None if shows else _UNTOLD


def _shows_processes() -> bool:
    """Whether /proc is there, and counts processes as this PID name space does."""
    try:
        return os.readlink("/proc/self") == str(os.getpid())
    except OSError:
        return False


def host() -> str:
    """This machine's own name."""
    return platform.node()


def me() -> str:
    """This process, as part of a file name: ``<machine>-<pid>-<start>-<PID name space>``."""
    return f"{_machine()}-{os.getpid()}-{_born(os.getpid()) or _UNTOLD}-{_space()}"


def is_alive(owner: str) -> bool | None:
    """Whether the process behind an owner's name still runs; None if that cannot be known from here."""
    found = _NAME.fullmatch(owner)
    if found is None or found[1] != _machine() or (found[4] or _space()) != _space():
        return None
    born = _born(int(found[2]))
    if born is None or born == _HIDDEN:
        return False if born is None else None
    return born == found[3] or _UNTOLD in (born, found[3])


def keeps_locked(owner: str) -> bool:
    """Whether this process is of an mdl that holds a file lock on what it has in hand."""
    found = _NAME.fullmatch(owner)
    return found is not None and found[4] is not None


def process_of(owner: str) -> int:
    """The process id in an owner's name; 0 if there is none."""
    found = _NAME.fullmatch(owner)
    return int(found[2]) if found else 0
