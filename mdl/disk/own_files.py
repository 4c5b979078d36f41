"""mdl's own folders and files: readable by their user only, and never behind a link.

Other users may share the folder around them, so a file in them is trusted only if it belongs to the user or to root
and no other user may write it. A ``.mdl`` folder that is not so is refused; a file in it that is not so counts as
absent. Root also trusts the owner of the folder that contains ``.mdl``, who can replace the models anyway.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from mdl.disk import refuses_order, user_name
from mdl.disk.safe_open import (
    FOLDER,
    NO_LINK,
    NotRegular,
    create,
    make_folders,
    only_regular,
    open_step,
    read_start,
    trusted_owners,
)
from mdl.errors import Occupied, Unsafe
from mdl.values import value_class

_OWN = ".mdl"
"""The name of mdl's own folder in a folder of the user's."""
_CACHE_OWN = ".locks"
"""The folder of the hub's cache that contains it; any user of the cache may have made it."""
_OTHERS = stat.S_IWGRP | stat.S_IWOTH


@value_class
class _Trust:
    """The ids of the users whose files are trusted. ``has_modes`` is False on a file system that has no modes
    (FAT, some SMB)."""

    owners: frozenset[int]
    has_modes: bool = True

    def why_untrusted(self, status: os.stat_result, *, may_be_shared: bool = False) -> str:
        """Return why another user may have written the file with this status; '' if none can have."""
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
        fd = os.open(path.name, flags | NO_LINK, mode, dir_fd=folder)
        if why := trust.why_untrusted(os.fstat(fd), may_be_shared=may_be_shared):
            os.close(fd)
            raise _unsafe(path, why)
        return fd


def open_new(path: Path, flags: int, mode: int = 0o600) -> int:
    """Open an empty file of mdl's own: the existing one, emptied, or a new one in place of another user's. Raises as
    `open_own` does."""
    try:
        return _open_emptied(path, flags, mode)
    except Unsafe:
        pass
    except OSError as error:
        if not refuses_order(error):  # this mount may not take it that a file is emptied
            raise
    path.unlink(missing_ok=True)
    return open_own(path, flags | os.O_CREAT | os.O_EXCL, mode, may_be_shared=True)


def _open_emptied(path: Path, flags: int, mode: int) -> int:
    """Open a file of mdl's own, and take away what is in it. Raises as `open_own` does."""
    fd = open_own(path, flags | os.O_CREAT, mode)
    try:
        if os.fstat(fd).st_size:
            os.ftruncate(fd, 0)
    except OSError:
        os.close(fd)
        raise
    return fd


def open_own_regular(path: Path) -> int:
    """Open a regular file of mdl's own for reading. Raises as `open_own` does, and `OSError` also for a folder, pipe or
    device."""
    os.lstat(path)  # most of what is looked for is not there, and to open its folder step by step takes long
    return only_regular(open_own(path, os.O_RDONLY), path)


def read_own(path: Path, most: int) -> bytes | None:
    """Return the first ``most`` bytes of a file of mdl's own, or all; None if it is not a regular file, or if another
    user may have written it. Raises `OSError`."""
    try:
        fd = open_own_regular(path)
    except (NotRegular, Unsafe):
        return None
    return read_start(fd, most)


def is_own_folder(path: Path) -> bool:
    """Return whether ``path`` is a folder that mdl made for this user, or that root made."""
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
    """Return whether files of the user ``uid`` beside mdl's folder ``own`` are trusted like this user's own."""
    if uid in (0, os.geteuid()):
        return True
    with contextlib.suppress(OSError, Unsafe), _inside(own) as (_, trust):
        return uid in trust.owners
    return False


@contextlib.contextmanager
def _inside(path: Path, *, make: bool = False) -> Iterator[tuple[int, _Trust]]:
    """Open mdl's own folder ``path`` step by step; yields it and whose files in it to trust. Raises `Unsafe`,
    `OSError`."""
    steps, at = _split(path)
    mode = 0o700 if make else None
    with contextlib.ExitStack() as opened:
        top = fd = os.open(at, FOLDER)
        opened.callback(os.close, top)
        trust = _Trust(trusted_owners(at.parent if at.name == _CACHE_OWN else at))
        for step in steps:
            at = at / step
            try:
                fd = open_step(fd, step, at, mode)
            except Occupied as error:
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(at)) from error
            opened.callback(os.close, fd)
            if trust.why_untrusted(os.fstat(fd)):
                trust = _repair(fd, at, top, trust)
            if make and step == _OWN:
                _hide_from_git(fd)
        yield fd, trust


def _hide_from_git(folder: int) -> None:
    """Have git pass over mdl's own folder, which may stand in somebody's project (``--into .``)."""
    with contextlib.suppress(OSError):
        fd = create(".gitignore", 0o600, folder=folder)
        try:
            os.write(fd, b"*\n")
        finally:
            os.close(fd)


def _split(path: Path) -> tuple[tuple[str, ...], Path]:
    """Return the steps that must not be links, and the folder in which they begin."""
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
    """Return the same trust on a file system that shows other owners or modes than were set. A file of this user's is
    made there to find out what it shows."""
    name = f".{os.urandom(8).hex()}{_OWN}-tmp"
    try:
        fd = create(name, 0o600, folder=folder)
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
