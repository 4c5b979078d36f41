"""Programs: whether a service, which has another user and sees no homes, can run one."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from mdl.plugins.render.work import HOMES

_LONGEST_FIRST_LINE = 4096


def is_reachable(program: str) -> bool:
    """Whether any user can run the ``program``, and neither it nor its interpreter is in a folder that systemd hides
    from a service (``ProtectHome=yes``)."""
    hidden = [path for path in _files_of(program) if any(path.is_relative_to(home) for home in HOMES)]
    return not hidden and not why_closed(program)


def why_closed(program: str) -> str:
    """Why another user than this one cannot run the ``program``: one of its folders, or the interpreter that its first
    line names, is closed to others or is not there. '' if anybody can."""
    for path in _files_of(program):
        try:
            closed = [folder for folder in reversed(path.parents) if not folder.stat().st_mode & stat.S_IXOTH]
            status = path.stat()
        except OSError:
            return f"{path} is not there, or cannot be seen"
        if closed:
            return f"only its owner may enter {closed[0]}"
        if not stat.S_ISREG(status.st_mode) or not status.st_mode & stat.S_IXOTH:
            return f"others may not run {path}"
    return ""


def _files_of(program: str) -> list[Path]:
    """The program and its interpreter, each under its name and where that leads."""
    named = [Path(program)]
    interpreter = _interpreter_of(named[0])
    if interpreter:
        named.append(interpreter)
    return [path for name in named for path in (name, Path(os.path.realpath(name)))]


def _interpreter_of(program: Path) -> Path | None:
    """What the first line of a script names, by its full path; None for anything else."""
    with contextlib.suppress(OSError), program.open("rb") as file:
        first = file.readline(_LONGEST_FIRST_LINE)
        if first.startswith(b"#!/"):
            return Path(os.fsdecode(first[2:].split()[0]))
    return None
