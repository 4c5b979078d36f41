"""Copying: give the bytes of a file a second name: by a clone, by a hard link, or by writing them again.

A clone (reflink) shares its blocks until one of the two files is written to. A hard link is one file with two names:
what is written through one is read through the other. So only a file of the user's own is hard-linked, and is then made
read-only under both names. Modes do not bind root, so root gets a copy, unless root's own settings ask for hard links.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import stat
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

from mdl.disk.safe_open import create, open_for_reading
from mdl.values import value_class

_FICLONE = 0x40049409
"""Linux, ``linux/fs.h``: let one file share the blocks of another until one of them is written."""
_PIECE = 2**26
"""Bytes that the kernel is asked to copy at a time."""
_EDGE = 2**16
"""Bytes of the largest block that a file system is likely to have."""
_COMPARED = 2**20
"""Bytes that are compared at a time."""
_SMALL = 2**20
"""Below this size in bytes a hard link saves nothing that is worth a read-only file."""
_WRITE = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH

OnBytes = Callable[[int], None]
"""Is called with the bytes done so far, and may raise to stop."""
Way = Literal["clone", "link", "copy"]
RULES = ("auto", "reflink", "hard", "copy", "none")
"""How bytes that are elsewhere on the disk are used: ``auto`` clones them, else hard-links large files that no program
may write to afterwards, else copies them; ``reflink`` clones or copies; ``hard`` links any file of the user's own, or
copies; ``none`` uses no other file."""


@value_class
class SharingRule:
    """How bytes may be shared. ``name`` is one of `RULES`; ``may_make_read_only`` if the file is mdl's own, or one that
    its program never rewrites."""

    name: str = "auto"
    may_make_read_only: bool = True

    def clones(self) -> bool:
        return self.name in ("auto", "reflink")

    def links(self, status: os.stat_result, size: int | None = None) -> bool:
        """Return whether a file with this status may get a second name. ``size`` is its future size, if not that of
        now."""
        if status.st_uid != os.geteuid():
            return False
        if self.name == "hard":
            return True
        if self.name != "auto" or os.geteuid() == 0:
            return False
        future_size = status.st_size if size is None else size
        is_read_only = not status.st_mode & _WRITE
        return future_size >= _SMALL and (self.may_make_read_only or is_read_only)


def predict_way(fd: int, folder: Path, rule: SharingRule, size: int | None = None) -> Way:
    """Return what `clone_link_or_copy` will do with an open file for a target in ``folder``, which exists; leaves
    nothing behind. ``size`` is the future size of the file in bytes, if not that of now."""
    if rule.clones():
        with contextlib.suppress(OSError), tempfile.TemporaryFile(dir=folder) as nameless:
            fcntl.ioctl(nameless, _FICLONE, fd)
            return "clone"
    if rule.links(os.fstat(fd), size):
        with contextlib.suppress(OSError), open_for_reading(folder, os.O_DIRECTORY) as there:
            return "link" if _mount_of(fd) == _mount_of(there) else "copy"
    return "copy"


def is_same_mount(one: Path, other: Path) -> bool:
    """Return whether a file can be renamed from ``one`` to ``other``, both of which exist. Raises `OSError`."""
    with open_for_reading(one) as first, open_for_reading(other) as second:
        return _mount_of(first) == _mount_of(second)


def clone_link_or_copy(
    fd: int, source: Path, target: Path, rule: SharingRule, room: int | None, on_bytes: OnBytes
) -> Way:
    """Make a file ``target`` with the bytes of the open file ``source``, and return how.

    A copy is made only if it takes at most ``room`` bytes (None: the disk does not tell), and reports to ``on_bytes``.
    The caller has to pass a linked file to `make_read_only`. Raises `OSError`, and what ``on_bytes`` raises.
    """
    if rule.clones():
        try:
            out = create(target)
            try:
                fcntl.ioctl(out, _FICLONE, fd)
                return "clone"
            finally:
                os.close(out)
        except OSError:
            target.unlink(missing_ok=True)
    if rule.links(os.fstat(fd)):
        with contextlib.suppress(OSError):
            os.link(source, target)
            if os.path.samestat(os.lstat(target), os.fstat(fd)):
                return "link"
            target.unlink()  # meanwhile another file has the name of the open one
    size = os.fstat(fd).st_size
    if room is not None and size > room:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
    out = create(target)
    try:
        copy_range(fd, out, size, on_bytes)
    finally:
        os.close(out)
    return "copy"


def make_read_only(path: Path) -> None:
    """Take the right to write from everyone, under every name of the file. Raises `OSError`."""
    mode = stat.S_IMODE(path.lstat().st_mode)
    if mode & _WRITE:
        path.chmod(mode & ~_WRITE)


def copy_range(source: int, target: int, size: int, on_bytes: OnBytes = lambda _done: None, start: int = 0) -> int:
    """Copy up to ``size`` bytes, from the offset ``start`` on, between open files; inside the kernel if it can do that.

    Returns how many were copied, and reports the same to ``on_bytes`` meanwhile. Raises `OSError`, and what
    ``on_bytes`` raises.
    """
    done = 0
    while done < size:
        at = start + done
        left = size - done
        try:
            count = os.copy_file_range(source, target, min(left, _PIECE), at, at)
        except (AttributeError, OSError):  # macOS has no such call
            count = os.pwrite(target, os.pread(source, min(left, 2**20), at), at)
        if count == 0:
            break
        done += count
        on_bytes(done)
    return done


def data_ranges(fd: int) -> list[tuple[int, int]]:
    """Return the ranges of an open file that were written, each from a first byte to before a last one. In a file with
    holes their edges are left out, for the system only tells whole blocks, parts of which may not have been written. To
    be asked before the file is read: what was reserved and then read counts as written."""
    size = os.fstat(fd).st_size
    ranges: list[tuple[int, int]] = []
    at = 0
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
            stop = min(size, os.lseek(fd, start, os.SEEK_HOLE))
        except OSError as error:
            if error.errno == errno.ENXIO:
                break  # the rest is a hole
            return [(0, size)]  # the file system does not tell holes
        first = 0 if start == 0 else start + _EDGE
        last = size if stop == size else stop - _EDGE
        if first < last:
            ranges.append((first, last))
        at = stop
    return ranges


def holds(whole: int, part: int, ranges: Iterable[tuple[int, int]]) -> bool:
    """Return whether an open file has the same bytes as another one in these ranges."""
    for start, stop in ranges:
        for at in range(start, stop, _COMPARED):
            count = min(_COMPARED, stop - at)
            if os.pread(part, count, at) != os.pread(whole, count, at):
                return False
    return True


def drop_what_was_read(path: Path) -> None:
    """Have the system forget what was read of a file: see `data_ranges`."""
    if hasattr(os, "posix_fadvise"):
        with contextlib.suppress(OSError), open_for_reading(path, os.O_NOFOLLOW) as fd:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)


def read_no_further(fd: int) -> None:
    """Have the system read of an open file only what is asked for: see `data_ranges`."""
    if hasattr(os, "posix_fadvise"):
        with contextlib.suppress(OSError):
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)


def _mount_of(fd: int) -> tuple[int, str]:
    """Return the device and the mount of an open file. A hard link cannot cross mounts, not even those of one file
    system (a container's volumes)."""
    facts = ""
    with contextlib.suppress(OSError):  # not every system tells the mount
        facts = Path(f"/proc/self/fdinfo/{fd}").read_text()
    mount = re.search(r"^mnt_id:.*", facts, re.MULTILINE)
    return os.fstat(fd).st_dev, mount[0] if mount else ""
