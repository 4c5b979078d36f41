"""Copies: the bytes of one file under a second name: on the same blocks, as the same file, or written again."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

_FICLONE = 0x40049409
"""Linux, ``linux/fs.h``: let one file share the blocks of another until one of them is written."""
_PIECE = 2**26
"""Bytes that the kernel is asked to copy at a time."""

Watch = Callable[[int], None]


def same_bytes(fd: int, source: Path, target: Path, room: int, watch: Watch) -> str:
    """Make ``target`` hold what the open file ``source`` holds: ``clone``, ``link`` or ``copy``; a copy only where it
    takes no more than ``room`` bytes, with ``watch`` told how many are written. Raises `OSError`, and what ``watch``
    does."""
    if _clone(fd, target):
        return "clone"
    if _link(fd, source, target):
        return "link"
    if os.fstat(fd).st_size > room:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
    with _new(target) as out:
        copy(fd, out, os.fstat(fd).st_size, watch)
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


def copy(source: int, target: int, size: int, watch: Watch) -> int:
    """Copy up to ``size`` bytes between open files, inside the kernel where it can be done; tells how many. ``watch``
    is told so meanwhile, and may raise."""
    done = 0
    while done < size:
        try:
            count = os.copy_file_range(source, target, min(size - done, _PIECE), done, done)
        except OSError:
            count = os.pwrite(target, os.pread(source, 2**20, done), done)
        if count == 0:
            break
        done += count
        watch(done)
    return done
