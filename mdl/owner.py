"""Who holds a partial: this machine, this boot, this process. Told apart even where a process id is used again.

Correctness never rests on a file lock, which lies on Lustre, GPFS and some NFS: a leftover is taken over
only from a process that is known to be gone.
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import re
from pathlib import Path


@functools.cache
def _machine() -> str:
    """This boot of this machine, in 12 hex digits."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        boot = ""
    return hashlib.sha256(f"{platform.node()} {boot}".encode()).hexdigest()[:12]


_HIDDEN = "?"
"""When a process was started that is there and cannot be looked at."""


def _born(pid: int) -> str | None:
    """When process ``pid`` was started, in clock ticks since boot; None where there is no such process.

    Another user's process may be hidden (``hidepid``); on systems without /proc all are born at 0.
    """
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if state in "ZX" else rest[18]
    except (OSError, IndexError, ValueError):
        pass
    shows = Path("/proc/self/stat").exists()
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return None
    except OSError:
        return _HIDDEN if shows else "0"
    return None if shows else "0"


def host() -> str:
    """This machine's own name."""
    return platform.node()


def me() -> str:
    """This process, as part of a file name: ``<machine>-<pid>-<start>``."""
    return f"{_machine()}-{os.getpid()}-{_born(os.getpid()) or '0'}"


def is_alive(owner: str) -> bool | None:
    """Whether the process behind an owner's name still runs; None where that cannot be known from here."""
    machine, _, rest = owner.partition("-")
    pid, _, born = rest.partition("-")
    if machine != _machine() or not re.fullmatch(r"[0-9]+", pid):
        return None
    found = _born(int(pid))
    return None if found == _HIDDEN else found == born


def is_gone(owner: str, name: str) -> bool:
    """Whether that process is known to be over: ended, or of an earlier boot of this machine ``name``."""
    alive = is_alive(owner)
    if alive is None:
        return name == host() and owner.partition("-")[0] != _machine()
    return not alive


def process_of(owner: str) -> int:
    """The process id in an owner's name; 0 where there is none."""
    pid = owner.split("-")[1] if owner.count("-") == 2 else ""
    return int(pid) if pid.isdigit() else 0
