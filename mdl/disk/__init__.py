"""File systems: their types, the space left on them, and hints for their errors.

The modules of this room: `safe_open` opens files, `own_files` those of mdl itself, `publish` gives files their final
names, `copy` shares the bytes of a file that is already on the disk, `mutex` keeps other processes out, `process` names
and starts processes, `pool` has the threads.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from pathlib import Path

from mdl.errors import StorageError, storage_error
from mdl.values import value_class

_UNSUPPORTED = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})
_ORDERED = frozenset({errno.EINVAL, errno.ESPIPE})


def filesystem_type(folder: Path) -> str:
    """``ext4``, ``nfs4`` …; '' if the system does not tell."""
    here = os.path.realpath(folder)
    name = ""
    longest = 0
    try:
        lines = os.fsdecode(Path("/proc/self/mountinfo").read_bytes()).splitlines()
    except OSError:
        return ""
    for line in lines:
        front, _, back = line.partition(" - ")
        point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), (front.split(" ") + [""] * 5)[4])
        if len(point) >= longest and f"{here}/".startswith(point.rstrip("/") + "/"):
            name = back.split(" ")[0]
            longest = len(point)
    return name


def look_anew(folder: str | Path) -> None:
    """Have a network file system ask its server what is in ``folder``: it does when a folder is opened. Until then it
    may say from its cache, for half a minute, that a file is missing which another machine has put there."""
    with contextlib.suppress(OSError):
        os.close(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))


@value_class
class DiskSpace:
    """How many bytes and files an ordinary user can still write on a file system; None for what it does not tell."""

    free_bytes: int | None
    free_files: int | None


def disk_space(folder: Path) -> DiskSpace:
    """Return the room on the file system of ``folder``, which may not exist yet.

    Some FUSE mounts, buckets and shares have no answer, or say that they have 0 blocks in all: they do not know.
    """
    try:
        status = os.statvfs(nearest_existing(folder))
    except OSError:
        return DiskSpace(None, None)
    free_bytes = status.f_bavail * status.f_frsize if status.f_blocks > 0 else None
    free_files = status.f_favail if status.f_files > 0 else None
    return DiskSpace(free_bytes, free_files)


def free_space(folder: Path) -> int | None:
    """Bytes that an ordinary user can still write on the file system of ``folder``, which may not exist yet; None if
    it does not tell."""
    return disk_space(folder).free_bytes


def is_unsupported(error: OSError) -> bool:
    """Return whether a file system says that it does not have what was asked of it: links, modes, locks or syncing.
    FAT, exFAT, buckets and shares lack some of them, and each says so in its own way."""
    return error.errno in _UNSUPPORTED


def refuses_order(error: OSError) -> bool:
    """Return whether an error may mean that a mount takes writes in order alone, into a file that is open from its
    first byte to its last, as those of buckets do: it refuses another offset, to go on with a file, to cut one, or to
    link one."""
    return is_unsupported(error) or error.errno in _ORDERED


def sync(fd: int, *, data_only: bool = False) -> None:
    """Bring an open file or folder to the disk; ``data_only`` leaves out its times. A file system that cannot sync is
    left alone: it has no better way. Raises `OSError`."""
    bring = os.fdatasync if data_only else os.fsync
    try:
        bring(fd)
    except OSError as error:
        if error.errno != errno.EINVAL and not is_unsupported(error):
            raise


def write_all(fd: int, data: bytes | bytearray | memoryview) -> None:
    """Write all of ``data``, however little of it one call writes. Raises `OSError`."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def nearest_existing(path: Path) -> Path:
    """Return the path itself, or the first folder above it that exists."""
    while not os.path.exists(path) and path != path.parent:
        path = path.parent
    return path


def explain_oserror(error: OSError, item: str, root: Path) -> StorageError:
    """As `storage_error`, for a file below ``root``. The hint also says if only inodes are missing, and which folder's
    permissions to check, or whose folder it is."""
    explained = storage_error(error, item)
    if error.errno in (errno.EACCES, errno.EPERM):
        return explained.but(hint=_hint_on_refusal(error, root))
    if error.errno == errno.EROFS:
        return explained.but(hint=f"the disk of {root} is read-only: take another folder with --to")
    if error.errno == errno.EFBIG and _has_limit_of_size():
        return explained.but(hint="raise the limit of the size of files (ulimit -f)")
    if error.errno == errno.ENOENT:
        for folder in (root, *root.parents):
            if folder.is_symlink() and not folder.exists():
                hint = f"{folder} is a link to {os.readlink(folder)}, which is not there: is that disk mounted?"
                return explained.but(hint=hint)
    if error.errno == errno.ENOTDIR and (root / ".mdl").is_file():
        hint = f"{root}/.mdl is a file of another program (ModelScope makes one), and mdl's records need that name: "
        return explained.but(hint=hint + "take another folder, and 'mdl import' takes over what is in this one")
    if refuses_order(error):
        hint = f"{root} does not take what was asked of it: take a folder on a local disk with --to"
        return explained.but(hint=hint)
    if error.errno == errno.ENOSPC and disk_space(root).free_files == 0:
        hint = "the disk has bytes but no inodes left: remove some files, and run the same command again"
        return explained.but(hint=hint)
    return explained


def _has_limit_of_size() -> bool:
    """Return whether the files of this process may have a certain size at most."""
    with contextlib.suppress(ImportError):
        import resource

        return resource.getrlimit(resource.RLIMIT_FSIZE)[0] != resource.RLIM_INFINITY
    return False


def _hint_on_refusal(error: OSError, root: Path) -> str:
    """Return what to do if this user may not write below ``root``."""
    named = error.filename if isinstance(error.filename, str | bytes) else ""
    refusing = nearest_existing(Path(os.fsdecode(named)))
    if not refusing.is_relative_to(root):
        refusing = root
    if refusing.name in (".mdl", ".locks"):
        with contextlib.suppress(OSError):
            owner = refusing.stat().st_uid
            if owner != os.geteuid():
                whose = f"{user_name(owner)} downloads into this folder, and {refusing} is closed to others"
                return f"{whose}: have it downloaded there, or take a folder of your own with --to"
    return f"check the permissions of {refusing} and the disk"


def user_name(uid: int) -> str:
    """Return the name of a user, for messages."""
    with contextlib.suppress(ImportError, KeyError):
        import pwd

        return pwd.getpwuid(uid).pw_name
    return f"user {uid}"


def reading_error(error: OSError, path: Path, closed: Path) -> StorageError:
    """As `storage_error`, for a ``path`` that could not be looked at or read. If ``closed``, the path itself or its
    folder, is closed to this account, the hint says who can open it."""
    explained = storage_error(error, str(path))
    if isinstance(error, PermissionError):
        with contextlib.suppress(OSError):
            whose = f"{user_name(closed.lstat().st_uid)} keeps {closed} closed to others"
            return explained.but(hint=f"{whose}: 'chmod -R go+rX' by its owner lets them read it")
    return explained
