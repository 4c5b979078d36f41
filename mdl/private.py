"""What mdl keeps for itself: folders for their user alone, never behind a link; files that are never waited for."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path

from mdl.errors import Occupied
from mdl.spots import FOLDER, step_into

ODD = (errno.EINVAL, errno.EFBIG)
"""What `read_whole` says of a pipe or device, and of a file that is too large."""
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


def open_regular(path: Path, *, is_own: bool = True) -> int:
    """Open a regular file for reading. One of mdl's own is not followed if it is a link.

    Raises `OSError`, also for a folder, pipe or device, which is not waited for.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (os.O_NOFOLLOW if is_own else 0))
    mode = os.fstat(fd).st_mode
    if stat.S_ISREG(mode):
        return fd
    os.close(fd)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise _NotRegular(errno.EINVAL, "not a regular file", str(path))


class _NotRegular(OSError):
    pass


def read_regular(path: Path, most: int, *, is_own: bool = True) -> bytes | None:
    """The first ``most`` bytes of a file; None for what is no regular file. As `open_regular`."""
    try:
        fd = open_regular(path, is_own=is_own)
    except _NotRegular:
        return None
    with os.fdopen(fd, "rb") as file:
        return file.read(min(most, os.fstat(fd).st_size))


def read_whole(path: Path, most: int) -> bytes:
    """All of a regular file of the user's or another program's, which has at most ``most`` bytes; a link is followed.

    Raises `OSError`, also for a larger file. As `open_regular`.
    """
    with os.fdopen(open_regular(path, is_own=False), "rb") as file:
        data = file.read(min(most, max(os.fstat(file.fileno()).st_size, 2**12)) + 1)
    if len(data) > most:
        size = f"{most // 2**20} MiB" if most >= 2**20 else f"{most // 2**10} KiB"
        raise OSError(errno.EFBIG, f"over {size}, which cannot be meant", str(path))
    return data
