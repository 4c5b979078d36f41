"""Entries: a name in an open folder, which was reached step by step without following a link (``openat``).

If a folder is replaced meanwhile, the work still happens in the folders that were checked.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from mdl.errors import Occupied, Unsafe
from mdl.paths import RelPath
from mdl.values import value_class

_MOST_LINKS = 40
"""How many links, one behind the other, Linux follows."""
OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@value_class
class EntryAt:
    """The name ``name`` in the open folder ``folder``, whose path is ``parent``. If ``is_new``, no other file may be
    replaced there."""

    folder: int
    name: str
    parent: Path
    is_new: bool = False

    @property
    def path(self) -> Path:
        """The path of the entry, for messages."""
        return self.parent / self.name

    def as_new(self) -> EntryAt:
        """The same entry, at which no file may be replaced."""
        return EntryAt(self.folder, self.name, self.parent, is_new=True)

    def beside(self, name: str) -> EntryAt:
        """The entry of another name in the same folder."""
        return EntryAt(self.folder, name, self.parent)

    def stat(self) -> os.stat_result | None:
        """The status of the entry, of a link itself; None if there is nothing."""
        try:
            return os.stat(self.name, dir_fd=self.folder, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def file_stat(self) -> os.stat_result | None:
        """The status of the file; None if there is nothing. Raises `Unsafe` for a link or a special file, `Occupied`
        for a folder."""
        found = self.stat()
        if found is None or stat.S_ISREG(found.st_mode):
            return found
        if stat.S_ISDIR(found.st_mode):
            raise Occupied(f"{self.path} is a folder", item=str(self.path))
        what = "a symbolic link" if stat.S_ISLNK(found.st_mode) else "a device, pipe or socket"
        raise Unsafe(f"refused: {self.path} is {what}", item=str(self.path))

    def read(self, most: int) -> bytes | None:
        """The first ``most`` bytes of the file; None if there is no regular file. Raises `OSError`."""
        found = self.stat()
        if found is None or not stat.S_ISREG(found.st_mode):
            return None
        fd = os.open(self.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self.folder)
        try:
            return os.read(fd, most)
        finally:
            os.close(fd)


@contextlib.contextmanager
def open_parent(root: Path, path: RelPath, *, make: bool = True) -> Iterator[EntryAt]:
    """The entry of ``path`` below ``root``, in its open folder. Missing folders are made, unless ``make`` is False.
    ``root`` itself may be a link that the user or root made.

    Raises `Unsafe` if a step is a link, `Occupied` if it is a file, `OSError`.
    """
    *steps, name = path.text.split("/")
    at = root
    fd = _open_root(root, make=make)
    try:
        for step in steps:
            at = at / step
            below = open_step(fd, step, at, 0o777 if make else None)
            os.close(fd)
            fd = below
        yield EntryAt(fd, name, at)
    finally:
        os.close(fd)


def names_below(folder: Path, is_left_out: Callable[[Path], bool] = lambda _: False) -> Iterator[Path]:
    """Everything below a folder that is no folder itself, in order, without following a link; of a link or a file only
    itself, and nothing if nothing is there. ``is_left_out`` is asked of each folder below it."""
    if folder.is_symlink() or folder.is_file():
        yield folder
        return
    for at, folders, names in os.walk(folder):
        links = [name for name in folders if Path(at, name).is_symlink()]
        folders[:] = sorted(name for name in folders if not is_left_out(Path(at, name)))
        yield from (Path(at, name) for name in sorted([*names, *links]))


def make_folders(folder: Path, mode: int = 0o700) -> None:
    """Make ``folder`` and what is missing above it, each with ``mode``; what is there is left as it is. Raises
    `OSError`. (``Path.mkdir`` with ``parents`` gives the mode to the last one only.)"""
    for path in (*reversed(folder.parents), folder):
        if not path.exists():
            with contextlib.suppress(FileExistsError):
                path.mkdir(mode)


def _open_root(root: Path, *, make: bool) -> int:
    """Open a folder, or the target of a link that `is_untrusted_link` accepts: of the very link that was checked."""
    try:
        return os.open(root, OPEN_FOLDER | os.O_NOFOLLOW)
    except FileNotFoundError:
        if not make:
            raise
        root.mkdir(parents=True, exist_ok=True)
        return _open_root(root, make=False)
    except OSError:
        link = os.lstat(root)
        if not stat.S_ISLNK(link.st_mode):
            raise
        target = os.readlink(root)
        now = os.lstat(root)
        is_other = not os.path.samestat(link, now) or link.st_ctime_ns != now.st_ctime_ns
        if is_untrusted_link(root, link) or is_other:
            raise Unsafe(f"refused: {root} is a symbolic link of {user_name(link.st_uid)}", item=str(root)) from None
    return os.open(root.parent / target, OPEN_FOLDER)


def is_untrusted_link(path: Path, status: os.stat_result) -> bool:
    """Whether this is a link that another user made; see `trusted_owners`."""
    return stat.S_ISLNK(status.st_mode) and status.st_uid not in trusted_owners(path.parent)


def open_named(path: Path, flags: int, mode: int = 0o600) -> int:
    """Open a file that the user named, to be written. A link there is followed if `is_untrusted_link` trusts it: of a
    folder that others can write, another user could lead it to any file of this one. Raises `OSError`."""
    for _ in range(_MOST_LINKS):
        try:
            return os.open(path, flags | os.O_NOFOLLOW, mode)
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
        link = os.lstat(path)
        target = path.parent / os.readlink(path)
        if is_untrusted_link(path, link) or not os.path.samestat(link, os.lstat(path)):
            raise OSError(errno.ELOOP, f"it is a symbolic link of {user_name(link.st_uid)}", str(path))
        path = target
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))


def trusted_owners(folder: Path) -> frozenset[int]:
    """The ids of users whose files in a folder are trusted: this user and root. Root also trusts the owner of the
    folder, who can put anything there anyway. Raises `OSError`."""
    me = os.geteuid()
    return frozenset({0, me} if me else {0, os.stat(folder).st_uid})


def user_name(uid: int) -> str:
    """The name of a user, for messages."""
    with contextlib.suppress(ImportError, KeyError):
        import pwd

        return pwd.getpwuid(uid).pw_name
    return f"user {uid}"


def open_step(folder: int, name: str, path: Path, mode: int | None = 0o777) -> int:
    """Open the folder ``name`` in an open folder. If it is missing it is made with ``mode``, unless that is None.
    ``path`` is for messages. Raises as `open_parent` does."""
    try:
        return os.open(name, OPEN_FOLDER | os.O_NOFOLLOW, dir_fd=folder)
    except FileNotFoundError:
        if mode is None:
            raise
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, mode, dir_fd=folder)
        return open_step(folder, name, path, None)
    except NotADirectoryError:
        EntryAt(folder, name, path.parent).file_stat()
        raise Occupied(f"{path} is a file where a folder is needed", item=str(path)) from None
    except PermissionError as error:
        error.filename = str(path)
        raise


@contextlib.contextmanager
def open_for_reading(path: Path, flags: int = 0) -> Iterator[int]:
    """The file open for reading, with further ``flags`` of `os.open`; a pipe does not block. Raises `OSError`."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | flags)
    try:
        yield fd
    finally:
        os.close(fd)
