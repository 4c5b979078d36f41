"""Copies: the bytes of one file under a second name: on the same blocks, as the same file, or written again."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

_FICLONE = 0x40049409
"""Linux, ``linux/fs.h``: let one file share the blocks of another until one of them is written."""


def same_bytes(fd: int, source: Path, target: Path, room: int) -> str:
    """Make ``target`` hold what the open file ``source`` holds: ``clone``, ``link`` or ``copy``; a copy only where it
    takes no more than ``room`` bytes. Raises `OSError`."""
    if _clone(fd, target):
        return "clone"
    if _link(fd, source, target):
        return "link"
    if os.fstat(fd).st_size > room:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
    with _new(target) as out:
        copy(fd, out, os.fstat(fd).st_size)
    return "copy"


def _clone(fd: int, target: Path) -> bool:
    try:
        import fcntl

        with _new(target) as out:
            fcntl.ioctl(out, _FICLONE, fd)
        return True
    except (ImportError, OSError):
        target.unlink(missing_ok=True)
        return False


def _link(fd: int, source: Path, target: Path) -> bool:
    """A hard link, if it leads to the very file that is open."""
    with contextlib.suppress(OSError):
        os.link(source, target)
        if os.path.samestat(os.lstat(target), os.fstat(fd)):
            return True
        target.unlink()
    return False


@contextlib.contextmanager
def _new(target: Path) -> Iterator[int]:
    fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        yield fd
    finally:
        os.close(fd)


def copy(source: int, target: int, size: int, start: int = 0) -> int:
    """Copy up to ``size`` bytes from ``start`` on between open files, inside the kernel where it can be done; tells how
    many. Raises `OSError`."""
    done = 0
    while done < size:
        at, left = start + done, size - done
        try:
            count = os.copy_file_range(source, target, min(left, 2**30), at, at)
        except OSError:
            count = os.pwrite(target, os.pread(source, min(left, 2**20), at), at)
        if count == 0:
            break
        done += count
    return done
