"""What mdl keeps for itself: folders for their user alone, never behind a link; files that are never waited for.

The rule, at every door: what mdl keeps in a folder that others may use too is believed if it belongs to the user or to
root and nobody else may write it. A ``.mdl`` that is not so is refused; a file in it that is not so counts as absent.
Root also believes the owner of the folder that the ``.mdl`` is in: he can replace the models themselves anyway.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from mdl.errors import Occupied, Unsafe
from mdl.spots import FOLDER, owners_in, step_into, user_name

ODD = (errno.EINVAL, errno.EFBIG)
"""What `read_whole` says of a pipe or device, and of a file that is too large."""
OWN = ".mdl"
"""The folder of mdl's own in a folder of the user's."""
_CACHE_OWN = ".locks"
"""Where in the hub's cache that folder is; it may be made by anybody who uses the cache."""
_OTHERS = stat.S_IWGRP | stat.S_IWOTH
_OPEN = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True)
class _Rule:
    """Whose files are believed. ``has_modes`` is False on a file system that has none of its own (FAT, some SMB)."""

    owners: frozenset[int]
    has_modes: bool = True

    def doubt(self, status: os.stat_result, *, may_be_shared: bool = False) -> str:
        """Why what bears this status may be somebody else's work; '' if it cannot."""
        if status.st_uid not in self.owners:
            return f"belongs to {user_name(status.st_uid)}"
        if status.st_mode & _OTHERS and self.has_modes and not may_be_shared:
            return "can be written by other users"
        return ""


def private_folder(path: Path) -> Path:
    """Make the folder ``path``, and what is missing above it, readable by its user alone; the same path.

    From a ``.mdl`` on no part of it may be a link, elsewhere not the last: who wants mdl's files on another disk
    links a folder of their own. Raises `Unsafe` for a link and for another user's ``.mdl``, `OSError`.
    """
    _ancestors(_split(path)[1], 0o777 if OWN in path.parts else 0o700)
    with _inside(path, make=True):
        return path


def open_own(path: Path, flags: int, mode: int = 0o600, *, may_be_shared: bool = False) -> int:
    """Open a file of mdl's own. Raises `Unsafe` for one that another user made or may write, and in a folder of such;
    `OSError`. ``may_be_shared``: that others may write it is no harm, as they cannot come to it."""
    with _inside(path.parent) as (folder, rule):
        fd = os.open(path.name, flags | _OPEN, mode, dir_fd=folder)
        if doubt := rule.doubt(os.fstat(fd), may_be_shared=may_be_shared):
            os.close(fd)
            raise _unsafe(path, doubt)
        return fd


def open_new(path: Path, flags: int, mode: int = 0o600) -> int:
    """Open an empty file of mdl's own: the one there, or a new one in place of somebody else's. As `open_own`."""
    try:
        fd = open_own(path, flags | os.O_CREAT, mode)
    except Unsafe:
        path.unlink()
        fd = open_own(path, flags | os.O_CREAT | os.O_EXCL, mode, may_be_shared=True)
    try:
        os.ftruncate(fd, 0)
    except OSError:
        os.close(fd)
        raise
    return fd


def is_own_folder(path: Path) -> bool:
    """Whether a folder is there that mdl made for this user, or root did."""
    try:
        with _inside(path):
            return True
    except (OSError, Unsafe):
        return False


def is_believed(uid: int, own: Path) -> bool:
    """Whether files of this user, beside the folder ``own`` of mdl's, are as good as those of who runs it."""
    if uid in (0, os.geteuid()):
        return True
    with contextlib.suppress(OSError, Unsafe), _inside(own) as (_, rule):
        return uid in rule.owners
    return False


def open_regular(path: Path, *, is_own: bool = True) -> int:
    """Open a regular file for reading. One of mdl's own is opened as by `open_own`.

    Raises `OSError`, also for a folder, pipe or device, which is not waited for; `Unsafe`.
    """
    fd = open_own(path, os.O_RDONLY) if is_own else os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
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
    """The first ``most`` bytes of a file; None if it is no regular file, or one of mdl's own that another user may have
    written. Raises `OSError`."""
    try:
        fd = open_regular(path, is_own=is_own)
    except (_NotRegular, Unsafe):
        return None
    with os.fdopen(fd, "rb") as file:
        return file.read(min(most, os.fstat(fd).st_size))


def read_whole(path: Path, most: int, *, owners: Collection[int] | None = None) -> bytes:
    """All of a regular file of the user's or another program's, which has at most ``most`` bytes; a link is followed.

    Raises `Unsafe` for a file, or a link to one, that belongs to none of ``owners``; `OSError`, also for a larger file.
    As `open_regular`.
    """
    with os.fdopen(open_regular(path, is_own=False), "rb") as file:
        status = os.fstat(file.fileno())
        if owners is not None and (strangers := {status.st_uid, os.lstat(path).st_uid}.difference(owners)):
            raise Unsafe(f"refused: it belongs to {user_name(strangers.pop())}", item=str(path))
        data = file.read(min(most, max(status.st_size, 2**12)) + 1)
    if len(data) > most:
        size = f"{most // 2**20} MiB" if most >= 2**20 else f"{most // 2**10} KiB"
        raise OSError(errno.EFBIG, f"the file is larger than {size}, the most that mdl reads here", str(path))
    return data


@contextlib.contextmanager
def _inside(path: Path, *, make: bool = False) -> Iterator[tuple[int, _Rule]]:
    """The folder ``path`` of mdl's own, opened step by step, and whom to believe in it. Raises `Unsafe`, `OSError`."""
    steps, at = _split(path)
    top = fd = os.open(at, FOLDER)
    try:
        rule = _Rule(owners_in(at.parent if at.name == _CACHE_OWN else at))
        for step in steps:
            at = at / step
            below = step_into(fd, step, at, 0o700 if make else None)
            if fd != top:
                os.close(fd)
            fd = below
            if rule.doubt(os.fstat(fd)):
                rule = _mended(fd, at, top, rule)
        yield fd, rule
    except Occupied as error:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(at)) from error
    finally:
        if fd != top:
            os.close(fd)
        os.close(top)


def _split(path: Path) -> tuple[tuple[str, ...], Path]:
    """The steps that may be no links, and the folder they begin in."""
    at = path.parts.index(OWN) if OWN in path.parts else len(path.parts) - 1
    return path.parts[at:], Path(*path.parts[:at])


def _mended(folder: int, path: Path, top: int, rule: _Rule) -> _Rule:
    """Take from everybody what a loose umask, or a chmod, gave them in a folder; the rule for what is in it. Raises
    `Unsafe` where it is another user's all the same."""
    if os.fstat(folder).st_uid in rule.owners:
        with contextlib.suppress(OSError):
            os.fchmod(folder, 0o700)
    if OWN in path.parts and rule.doubt(os.fstat(folder)):
        rule = _as_shown_here(top, rule)
        if doubt := rule.doubt(os.fstat(folder)):
            raise _unsafe(path, doubt)
    return rule


def _as_shown_here(folder: int, rule: _Rule) -> _Rule:
    """The same rule for a file system that shows other owners or modes than it was told: what a file of this user's
    looks like there, which is found out by making one."""
    name = f".{secrets.token_hex(8)}{OWN}-tmp"
    try:
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _OPEN, 0o600, dir_fd=folder)
    except OSError:
        return rule
    try:
        shown = os.fstat(fd)
        os.unlink(name, dir_fd=folder)
    finally:
        os.close(fd)
    return replace(rule, owners=rule.owners | {shown.st_uid}, has_modes=not shown.st_mode & _OTHERS)


def _unsafe(path: Path, doubt: str) -> Unsafe:
    owner = user_name(path.lstat().st_uid)
    hint = f"take a models folder of your own with --to, or ask {owner} to remove {path.name}"
    return Unsafe(f"refused: {path} {doubt}; mdl's records in it could be forged", item=str(path), hint=hint)


def _ancestors(path: Path, mode: int) -> None:
    for folder in (*reversed(path.parents), path):
        if not folder.exists():
            with contextlib.suppress(FileExistsError):
                folder.mkdir(mode)
