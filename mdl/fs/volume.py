"""Volumes: the type of a file system, the space that it has left, and hints for its errors."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

from mdl.errors import StorageError, storage_error

_MOUNTS = Path("/proc/self/mountinfo")
_NOT_ALLOWED = {errno.EACCES, errno.EPERM, errno.EROFS}


def filesystem_type(folder: Path) -> str:
    """``ext4``, ``nfs4`` …; '' if the system does not tell."""
    here, found, longest = os.path.realpath(folder), "", 0
    try:
        lines = os.fsdecode(_MOUNTS.read_bytes()).splitlines()
    except OSError:
        return ""
    for line in lines:
        front, _, back = line.partition(" - ")
        point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), (front.split(" ") + [""] * 5)[4])
        if len(point) >= longest and f"{here}/".startswith(point.rstrip("/") + "/"):
            found, longest = back.split(" ")[0], len(point)
    return found


def free_space(folder: Path) -> int:
    """Bytes that an ordinary user can still write on the file system of a folder, which may not exist yet."""
    space = os.statvfs(nearest_existing(folder))
    return space.f_bavail * space.f_frsize


def nearest_existing(path: Path) -> Path:
    """The path itself, or the first folder above it that exists."""
    while not os.path.exists(path) and path != path.parent:
        path = path.parent
    return path


def explain_oserror(error: OSError, item: str, root: Path) -> StorageError:
    """As `storage_error`, for a file below ``root``. The hint also tells whether only inodes are missing, and the
    permissions of which folder to check."""
    found = storage_error(error, item)
    if error.errno == errno.ENOSPC and _lacks_inodes(root):
        found.hint = "the disk has bytes but no inodes left: remove some files, and run the same command again"
    if error.errno in _NOT_ALLOWED:
        found.hint = f"check the permissions of {_refusing(error, root)} and the disk"
    return found


def _lacks_inodes(root: Path) -> bool:
    """A file system that does not count inodes reports that it has none at all: that is not a lack."""
    try:
        space = os.statvfs(nearest_existing(root))
    except OSError:
        return False
    return space.f_files > 0 and space.f_favail == 0


def _refusing(error: OSError, root: Path) -> Path:
    """The file or folder that cannot be written or entered, as far as the system's error tells."""
    named = Path(os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else "")
    path = nearest_existing(named)
    return path if path.is_relative_to(root) else root
