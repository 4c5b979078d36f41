"""Room: what the file system of a models folder has left, and what to do where it takes nothing more."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from mdl.errors import StorageError, storage_error

_NOT_ALLOWED = {errno.EACCES, errno.EPERM, errno.EROFS}


def free_bytes(root: Path) -> int:
    """Bytes an ordinary user can still write on the file system of a folder, which need not be there yet."""
    space = os.statvfs(nearest(root))
    return space.f_bavail * space.f_frsize


def trouble(error: OSError, item: str, root: Path) -> StorageError:
    """As `storage_error`, of a file below ``root``: says where it is inodes that are missing, and which folder's
    permissions are to be looked at."""
    found = storage_error(error, item)
    if error.errno == errno.ENOSPC and _lacks_inodes(root):
        found.hint = "the disk has bytes but no inodes left: remove some files, and run the same command again"
    if error.errno in _NOT_ALLOWED:
        found.hint = f"check the permissions of {_refusing(error, root)} and the disk"
    return found


def _lacks_inodes(root: Path) -> bool:
    """A file system that does not count inodes says that it has none at all."""
    try:
        space = os.statvfs(nearest(root))
    except OSError:
        return False
    return space.f_files > 0 and space.f_favail == 0


def _refusing(error: OSError, root: Path) -> Path:
    """The file or folder that may not be written or entered, as far as the system's error tells."""
    named = Path(os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else "")
    path = nearest(named)
    return path if path.is_relative_to(root) else root


def nearest(path: Path) -> Path:
    """The path itself, or the first folder above it that is there."""
    while not os.path.exists(path) and path != path.parent:
        path = path.parent
    return path
