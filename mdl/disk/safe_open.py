"""Private files: what mdl keeps for itself, and which of it may be trusted.

mdl's own folders are readable by their user only and never behind a link, and opening a file never blocks on a pipe.
mdl may share the folder around its own with other users. So what mdl keeps is trusted only if it belongs to the user or
to root and no other user may write it. A ``.mdl`` folder that is not so is refused; a file in it that is not so counts
as absent. Root also trusts the owner of the folder that contains ``.mdl``, who can replace the models anyway.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

from mdl.disk import refuses_order
from mdl.disk.entries import OPEN_FOLDER, make_folders, open_step, trusted_owners, user_name
from mdl.errors import Occupied, ProtocolError, Unsafe
from mdl.paths import shown
from mdl.values import value_class

UNREADABLE_ERRNOS = (errno.EINVAL, errno.EFBIG)
"""The errors of `read_whole` for a pipe or device, and for a file that is too large."""
_OWN = ".mdl"
"""The name of mdl's own folder in a folder of the user's."""
_CACHE_OWN = ".locks"
"""The folder of the hub's cache that contains it; any user of the cache may have made it."""
_OTHERS = stat.S_IWGRP | stat.S_IWOTH
_OPEN = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@value_class
class _Trust:
    """The ids of the users whose files are trusted. ``has_modes`` is False on a file system that has no modes
    (FAT, some SMB)."""

    owners: frozenset[int]
    has_modes: bool = True

    def why_untrusted(self, status: os.stat_result, *, may_be_shared: bool = False) -> str:
        """Why another user may have written the file with this status; '' if none can have."""
        if status.st_uid not in self.owners:
            return f"belongs to {user_name(status.st_uid)}"
        if status.st_mode & _OTHERS and self.has_modes and not may_be_shared:
            return "can be written by other users"
        return ""


def make_private_dir(path: Path) -> Path:
    """Make the folder ``path``, and what is missing above it, readable by its user only; returns ``path``.

    From ``.mdl`` on no part of the path may be a link; without ``.mdl`` in it, the last part may not. To have mdl's
    files on another disk, a user can link a folder further up. Raises `Unsafe` for a link and for another user's
    ``.mdl``, `OSError`.
    """
    _, above = _split(path)
    mode = 0o777 if _OWN in path.parts else 0o700
    make_folders(above, mode)
    with _inside(path, make=True):
        return path


def open_own(path: Path, flags: int, mode: int = 0o600, *, may_be_shared: bool = False) -> int:
    """Open a file of mdl's own. Raises `Unsafe` if another user made the file or its folder, or may write to it;
    `OSError`. With ``may_be_shared`` other users may have the right to write the file itself: they cannot enter its
    folder."""
    with _inside(path.parent) as (folder, trust):
        fd = os.open(path.name, flags | _OPEN, mode, dir_fd=folder)
        if why := trust.why_untrusted(os.fstat(fd), may_be_shared=may_be_shared):
            os.close(fd)
            raise _unsafe(path, why)
        return fd


def open_new(path: Path, flags: int, mode: int = 0o600) -> int:
    """Open an empty file of mdl's own: the existing one, emptied, or a new one in place of another user's. Raises as
    `open_own` does."""
    try:
        fd = open_own(path, flags | os.O_CREAT, mode)
    except Unsafe:
        return _made_anew(path, flags, mode)
    except OSError as error:
        if error.errno != errno.EACCES and refuses_order(error):  # it would be emptied, which this mount may not take
            return _made_anew(path, flags, mode)
        raise
    try:
        if os.fstat(fd).st_size:
            os.ftruncate(fd, 0)
    except OSError as error:
        os.close(fd)
        if not refuses_order(error):
            raise
        return _made_anew(path, flags, mode)
    return fd


def _made_anew(path: Path, flags: int, mode: int) -> int:
    path.unlink(missing_ok=True)
    return open_own(path, flags | os.O_CREAT | os.O_EXCL, mode, may_be_shared=True)


def is_own_folder(path: Path) -> bool:
    """Whether ``path`` is a folder that mdl made for this user, or that root made."""
    try:
        check_own_folder(path)
    except (OSError, Unsafe):
        return False
    return True


def check_own_folder(path: Path) -> None:
    """Raises `Unsafe` for a link and for another user's folder, `OSError`, as `make_private_dir` would."""
    with _inside(path):
        pass


def is_trusted_owner(uid: int, own: Path) -> bool:
    """Whether files of the user ``uid`` beside mdl's folder ``own`` are trusted like this user's own."""
    if uid in (0, os.geteuid()):
        return True
    with contextlib.suppress(OSError, Unsafe), _inside(own) as (_, trust):
        return uid in trust.owners
    return False


def open_regular(path: Path, *, is_own: bool = True) -> int:
    """Open a regular file for reading, with `open_own` if it is one of mdl's own.

    Raises `OSError`, also for a folder, pipe or device; `Unsafe`.
    """
    if is_own:
        os.lstat(path)  # most of what is looked for is not there, and to open its folder step by step takes long
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
    """The first ``most`` bytes of a file, or all; None if it is not a regular file, or if it is one of mdl's own that
    another user may have written. Raises `OSError`."""
    try:
        fd = open_regular(path, is_own=is_own)
    except (_NotRegular, Unsafe):
        return None
    with os.fdopen(fd, "rb") as file:
        return file.read(min(most, os.fstat(fd).st_size))


def read_whole(path: Path, most: int, *, owners: Collection[int] | None = None) -> bytes:
    """All bytes of a regular file of the user's or of another program; a link is followed.

    Raises `Unsafe` if the file, or a link to it, belongs to none of ``owners``; `OSError`, also if it has more than
    ``most`` bytes or is not a regular file.
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


def read_left(path: Path, most: int, owners: Collection[int]) -> bytes:
    """All bytes of a file that another program left in a folder in which others may write too: a regular file of one of
    the ``owners`` and of at most ``most`` bytes. No link is followed, and nothing is waited for.

    Raises `ProtocolError`, which says what lies there instead, and `OSError`.
    """
    try:
        fd = os.open(path, os.O_RDONLY | _OPEN)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENXIO):
            raise
        raise _left_wrong(path, "a link" if error.errno == errno.ELOOP else "a socket") from error
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise _left_wrong(path, _KINDS.get(stat.S_IFMT(status.st_mode), "no regular file"))
        if status.st_uid not in owners:
            raise _left_wrong(path, f"a file of {user_name(status.st_uid)}")
        with os.fdopen(fd, "rb", closefd=False) as file:
            data = file.read(min(most, status.st_size) + 1)
    finally:
        os.close(fd)
    if len(data) > most:
        raise _left_wrong(path, f"a file of more than {most:,} bytes")
    return data


_KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}


def _left_wrong(path: Path, what: str) -> ProtocolError:
    return ProtocolError(f"{shown(path.name)} is {what}, and is not read")


@contextlib.contextmanager
def _inside(path: Path, *, make: bool = False) -> Iterator[tuple[int, _Trust]]:
    """Open mdl's own folder ``path`` step by step; yields it and whose files in it to trust. Raises `Unsafe`,
    `OSError`."""
    steps, at = _split(path)
    top = fd = os.open(at, OPEN_FOLDER)
    try:
        trust = _Trust(trusted_owners(at.parent if at.name == _CACHE_OWN else at))
        for step in steps:
            at = at / step
            below = open_step(fd, step, at, 0o700 if make else None)
            if fd != top:
                os.close(fd)
            fd = below
            if trust.why_untrusted(os.fstat(fd)):
                trust = _repair(fd, at, top, trust)
            if make and step == _OWN:
                _hide_from_git(fd)
        yield fd, trust
    except Occupied as error:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(at)) from error
    finally:
        if fd != top:
            os.close(fd)
        os.close(top)


def _hide_from_git(folder: int) -> None:
    """Have git pass over mdl's own folder, which may stand in somebody's project (``--into .``)."""
    with contextlib.suppress(OSError):
        if os.stat(".gitignore", dir_fd=folder, follow_symlinks=False).st_size:
            return  # to open it for writing would copy it out of an image's layer
    with contextlib.suppress(OSError):
        fd = os.open(".gitignore", os.O_WRONLY | os.O_CREAT | _OPEN, 0o600, dir_fd=folder)
        try:
            if not os.fstat(fd).st_size:
                os.write(fd, b"*\n")
        finally:
            os.close(fd)


def _split(path: Path) -> tuple[tuple[str, ...], Path]:
    """The steps that must not be links, and the folder in which they begin."""
    at = path.parts.index(_OWN) if _OWN in path.parts else len(path.parts) - 1
    return path.parts[at:], Path(*path.parts[:at])


def _repair(folder: int, path: Path, top: int, trust: _Trust) -> _Trust:
    """Take from other users what a loose umask or a chmod allowed them in a folder; returns whose files in it to trust.
    Raises `Unsafe` if the folder is still another user's."""
    if os.fstat(folder).st_uid in trust.owners:
        with contextlib.suppress(OSError):
            os.fchmod(folder, 0o700)
    if _OWN in path.parts and trust.why_untrusted(os.fstat(folder)):
        trust = _as_shown_by(top, trust)
        if why := trust.why_untrusted(os.fstat(folder)):
            raise _unsafe(path, why)
    return trust


def _as_shown_by(folder: int, trust: _Trust) -> _Trust:
    """The same trust on a file system that shows other owners or modes than were set. A file of this user's is made
    there to find out what it shows."""
    name = f".{os.urandom(8).hex()}{_OWN}-tmp"
    try:
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _OPEN, 0o600, dir_fd=folder)
    except OSError:
        return trust
    try:
        shown = os.fstat(fd)
        os.unlink(name, dir_fd=folder)
    finally:
        os.close(fd)
    return replace(trust, owners=trust.owners | {shown.st_uid}, has_modes=not shown.st_mode & _OTHERS)


def _unsafe(path: Path, why: str) -> Unsafe:
    owner = user_name(path.lstat().st_uid)
    hint = f"take a models folder of your own with --to, or ask {owner} to remove {path.name}"
    return Unsafe(f"refused: {path} {why}; mdl's records in it could be forged", item=str(path), hint=hint)
