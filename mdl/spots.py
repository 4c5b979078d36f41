"""Spots: a name in an open folder, reached step by step without following a link.

What is done at a spot happens in the very folders that were looked at, whatever is put in their place meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from mdl.errors import Occupied, Unsafe
from mdl.paths import RelPath

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@dataclass(frozen=True)
class Spot:
    """``name`` in the open ``folder``; ``path`` is for messages. ``is_new``: nothing may be replaced there."""

    folder: int
    name: str
    path: Path
    is_new: bool = False

    def fresh(self) -> Spot:
        """The same spot, where nothing may be replaced."""
        return replace(self, is_new=True)

    def stat(self) -> os.stat_result | None:
        """What stands there, a link itself and not what it leads to; None where nothing does."""
        try:
            return os.stat(self.name, dir_fd=self.folder, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def refuse_strange(self) -> None:
        """Raises `Unsafe` for a link or a special file, `Occupied` for a folder; a file or nothing is well."""
        found = self.stat()
        if found is None or stat.S_ISREG(found.st_mode):
            return
        if stat.S_ISDIR(found.st_mode):
            raise Occupied(f"{self.path} is a folder", item=str(self.path))
        what = "a symbolic link" if stat.S_ISLNK(found.st_mode) else "a device, pipe or socket"
        raise Unsafe(f"refused: {self.path} is {what}", item=str(self.path))

    def read(self, most: int) -> bytes | None:
        """The first bytes of the file there; None where there is no file. Raises `OSError`."""
        found = self.stat()
        if found is None or not stat.S_ISREG(found.st_mode):
            return None
        fd = os.open(self.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self.folder)
        try:
            return os.read(fd, most)
        finally:
            os.close(fd)


@contextlib.contextmanager
def spot(root: Path, path: RelPath) -> Iterator[Spot]:
    """The spot of ``path`` below ``root``; folders that are missing are made. ``root`` itself may be a link of the
    user's own or root's.

    Raises `Unsafe` where a step is a link, `Occupied` where it is no folder, `OSError`.
    """
    root.mkdir(parents=True, exist_ok=True)
    *steps, name = path.text.split("/")
    at, fd = root, _enter(root)
    try:
        for step in steps:
            at = at / step
            below = step_into(fd, step, at)
            os.close(fd)
            fd = below
        yield Spot(fd, name, at / name)
    finally:
        os.close(fd)


def _enter(root: Path) -> int:
    """Open a folder; of a link there is one that `is_strange_link` does not call so, and where that very link leads."""
    try:
        return os.open(root, FOLDER | os.O_NOFOLLOW)
    except OSError:
        link = os.lstat(root)
        if not stat.S_ISLNK(link.st_mode):
            raise
        target = os.readlink(root)
        now = os.lstat(root)
        is_other = not os.path.samestat(link, now) or link.st_ctime_ns != now.st_ctime_ns
        if is_strange_link(root, link) or is_other:
            raise Unsafe(f"refused: {root} is a symbolic link of {user_name(link.st_uid)}", item=str(root)) from None
    return os.open(root.parent / target, FOLDER)


def is_strange_link(path: Path, status: os.stat_result) -> bool:
    """A link that neither the user nor root made, nor, where root asks, the owner of the folder it is in."""
    return stat.S_ISLNK(status.st_mode) and status.st_uid not in owners_in(path.parent)


def owners_in(folder: Path) -> frozenset[int]:
    """Whose work in a folder is believed: the user's own and root's; by root also that of the folder's owner, who can
    put there what he likes anyway. Raises `OSError`."""
    me = os.geteuid()
    return frozenset({0, me} if me else {0, os.stat(folder).st_uid})


def user_name(uid: int) -> str:
    """Who that is, for messages."""
    with contextlib.suppress(ImportError, KeyError):
        import pwd

        return pwd.getpwuid(uid).pw_name
    return f"user {uid}"


def step_into(folder: int, name: str, path: Path, mode: int | None = 0o777) -> int:
    """Open the folder ``name`` in an open one, made with ``mode`` (if any) where it is missing; ``path`` is for
    messages. As `spot`."""
    if mode is not None:
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, mode, dir_fd=folder)
    try:
        return os.open(name, FOLDER | os.O_NOFOLLOW, dir_fd=folder)
    except NotADirectoryError:
        Spot(folder, name, path).refuse_strange()
        raise Occupied(f"{path} is a file where a folder is needed", item=str(path)) from None
    except PermissionError as error:
        error.filename = str(path)
        raise
