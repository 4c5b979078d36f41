"""Programs: whether a service, which has another user and sees no homes, can run one."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from mdl.plugins.render.work import HOMES

_LONGEST_FIRST_LINE = 4096


def is_reachable(program: str) -> bool:
    """Whether any user can run the ``program``, and the interpreter that its first line names, and neither is in a
    folder that systemd hides from a service (``ProtectHome=yes``)."""
    found = Path(program)
    if not all(_is_open(path) for path in (found, Path(os.path.realpath(found)))):
        return False
    interpreter = _interpreter_of(found)
    return interpreter is None or all(_is_open(path) for path in (interpreter, Path(os.path.realpath(interpreter))))


def _is_open(program: Path) -> bool:
    try:
        is_file = stat.S_ISREG(program.stat().st_mode) and program.stat().st_mode & stat.S_IXOTH
        is_found = all(folder.stat().st_mode & stat.S_IXOTH for folder in program.parents)
    except OSError:
        return False
    return bool(is_file) and is_found and not any(program.is_relative_to(home) for home in HOMES)


def _interpreter_of(program: Path) -> Path | None:
    """What the first line of a script names, by its full path; None for anything else."""
    with contextlib.suppress(OSError), program.open("rb") as file:
        first = file.readline(_LONGEST_FIRST_LINE)
        if first.startswith(b"#!/"):
            return Path(os.fsdecode(first[2:].split()[0]))
    return None
