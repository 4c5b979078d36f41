"""Copies: the bytes of one file under a second name: on the same blocks, as the same file, or written again.

A clone shares its blocks until one of the two files is written to. A hard link is one file with two names: what is
written through one is read through the other. So only a file of the user's own is hard-linked, and both names are made
read-only. Modes do not bind root, so root gets a copy, unless root's own settings ask for hard links.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

_FICLONE = 0x40049409
"""Linux, ``linux/fs.h``: let one file share the blocks of another until one of them is written."""
_PIECE = 2**26
"""Bytes that the kernel is asked to copy at a time."""
_SMALL = 2**20
"""Below this a hard link saves nothing worth a read-only file."""

Watch = Callable[[int], None]


def _unwatched(_done: int) -> None:
    """Nobody looks."""


Way = Literal["clone", "link", "copy"]
RULES = ("auto", "reflink", "hard", "copy", "none")
"""How bytes are taken from elsewhere on the disk: ``auto`` clones, else hard-links large files that nobody may write
to afterwards, else copies; ``reflink`` clones or copies; ``hard`` links whatever is the user's own, or copies; ``none``
takes nothing from elsewhere."""


@dataclass(frozen=True)
class Rule:
    """How bytes may be shared. ``name`` is one of `RULES`; ``may_lock``: the file is mdl's own or one that its program
    never rewrites, so that its mode may be changed."""

    name: str = "auto"
    may_lock: bool = True

    def clones(self) -> bool:
        return self.name in ("auto", "reflink")

    def links(self, status: os.stat_result, size: int | None = None) -> bool:
        """Whether a file with this status may get a second name; ``size`` is what it will have, if not its own."""
        if status.st_uid != os.geteuid():
            return False
        if self.name == "hard":
            return True
        is_large = (status.st_size if size is None else size) >= _SMALL
        is_safe = self.may_lock or not status.st_mode & _WRITE
        return self.name == "auto" and is_large and is_safe and os.geteuid() != 0


_WRITE = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH


def way_of(fd: int, folder: Path, rule: Rule, size: int | None = None) -> Way:
    """How `same_bytes` will give the bytes of an open file a name in ``folder``, which is there. Writes nothing that
    has a name. ``size`` is what the file will have, if not its own."""
    if rule.clones() and _can_clone(fd, folder):
        return "clone"
    return "link" if rule.links(os.fstat(fd), size) and _is_same_mount(fd, folder) else "copy"


def same_bytes(fd: int, source: Path, target: Path, rule: Rule, room: int, watch: Watch) -> Way:
    """Make ``target`` hold what the open file ``source`` holds, and tell how; a copy only if it takes no more than
    ``room`` bytes, with ``watch`` told how many are written. What was linked must go through `lock`. Raises `OSError`,
    and what ``watch`` does."""
    if rule.clones() and _clone(fd, target):
        return "clone"
    if rule.links(os.fstat(fd)) and _link(fd, source, target):
        return "link"
    if os.fstat(fd).st_size > room:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
    with _new(target) as out:
        copy(fd, out, os.fstat(fd).st_size, watch)
    return "copy"


def lock(path: Path) -> None:
    """Take the right to write from everybody, under every name of the file. Raises `OSError`."""
    mode = stat.S_IMODE(path.lstat().st_mode)
    if mode & _WRITE:
        path.chmod(mode & ~_WRITE)


def _can_clone(fd: int, folder: Path) -> bool:
    try:
        import fcntl

        with tempfile.TemporaryFile(dir=folder) as nameless:
            fcntl.ioctl(nameless, _FICLONE, fd)
        return True
    except (ImportError, OSError):
        return False


def _is_same_mount(fd: int, folder: Path) -> bool:
    """A hard link cannot lead from one mount to another, not even of one file system (a container's volumes)."""
    try:
        there = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.fstat(fd).st_dev == os.fstat(there).st_dev and _mount(fd) == _mount(there)
    finally:
        os.close(there)


def _mount(fd: int) -> str:
    """The number of the mount that an open file is on; '' if the system does not tell."""
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines()
        return next((line for line in lines if line.startswith("mnt_id:")), "")
    return ""


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


def copy(source: int, target: int, size: int, watch: Watch = _unwatched, start: int = 0) -> int:
    """Copy up to ``size`` bytes from ``start`` on between open files, inside the kernel where it can be done; tells how
    many. ``watch`` is told so meanwhile, and may raise. Raises `OSError`."""
    done = 0
    while done < size:
        at, left = start + done, size - done
        try:
            count = os.copy_file_range(source, target, min(left, _PIECE), at, at)
        except OSError:
            count = os.pwrite(target, os.pread(source, min(left, 2**20), at), at)
        if count == 0:
            break
        done += count
        watch(done)
    return done
