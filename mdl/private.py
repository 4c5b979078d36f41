"""What mdl keeps for itself: folders for their user alone, never behind a link; files that are never waited for."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path

from mdl.errors import Occupied
from mdl.spots import FOLDER, step_into

OWN = ".mdl"
"""The folder of mdl's own in a folder of the user's."""


def private_folder(path: Path) -> Path:
    """Make the folder ``path``, and what is missing above it, readable by its user alone; the same path.

    From a ``.mdl`` on no part of it may be a link, elsewhere not the last: who wants mdl's files on another disk
    links a folder of their own. Raises `Unsafe` for a link, `OSError`.
    """
    steps = path.parts[path.parts.index(OWN) :] if OWN in path.parts else path.parts[-1:]
    at = Path(*path.parts[: len(path.parts) - len(steps)])
    _ancestors(at, 0o777 if OWN in path.parts else 0o700)
    fd = os.open(at, FOLDER)
    try:
        for step in steps:
            at = at / step
            below = step_into(fd, step, at, 0o700)
            os.close(fd)
            fd = below
        _shut(fd)
    except Occupied as error:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(at)) from error
    finally:
        os.close(fd)
    return path


def _shut(folder: int) -> None:
    """Take from everybody what a loose umask gave them once."""
    status = os.fstat(folder)
    if status.st_mode & stat.S_IWOTH and status.st_uid == os.geteuid():
        os.fchmod(folder, 0o700)


def _ancestors(path: Path, mode: int) -> None:
    for folder in (*reversed(path.parents), path):
        if not folder.exists():
            with contextlib.suppress(FileExistsError):
                folder.mkdir(mode)


def read_regular(path: Path, most: int, *, is_own: bool = True) -> bytes | None:
    """The first ``most`` bytes of a file; None for what is no regular file, which is not waited for.

    One of mdl's own is not followed where it is a link. Raises `OSError`.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (os.O_NOFOLLOW if is_own else 0))
    with os.fdopen(fd, "rb") as file:
        status = os.fstat(fd)
        return file.read(min(most, status.st_size)) if stat.S_ISREG(status.st_mode) else None
