"""Safe opening: how mdl opens files and folders that others may have put there, or may change meanwhile.

- Nothing waits for a pipe, and no descriptor goes to a child.
- A name below a folder is reached step by step without following a link (``openat``). If a folder is replaced
  meanwhile, the work still happens in the folders that were checked.
- A link that the user named is followed if the user or root made it.

mdl's own folders and files are in `mdl.disk.own_files`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from mdl.disk import user_name
from mdl.errors import Occupied, ProtocolError, Unsafe
from mdl.paths import RelPath, shown
from mdl.values import value_class

UNREADABLE_ERRNOS = (errno.EINVAL, errno.EFBIG)
"""The errors of `read_whole` for a pipe or device, and for a file that is too large."""
NO_LINK = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""Flags of `os.open` for a name that may not be a link."""
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
"""Flags of `os.open` for a folder."""
_MOST_LINKS = 40
"""How many links, one behind the other, Linux follows."""


# Files of the user's, or of another program.


@contextlib.contextmanager
def open_for_reading(path: Path, flags: int = 0) -> Iterator[int]:
    """Open a file for reading, with further ``flags`` of `os.open`. A pipe does not block. Raises `OSError`."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | flags)
    try:
        yield fd
    finally:
        os.close(fd)


def create(
    path: str | os.PathLike[str], mode: int = 0o666, *, flags: int = os.O_WRONLY, folder: int | None = None
) -> int:
    """Make a file that is not there yet, and open it. ``path`` is relative to the open ``folder``, if that is given.
    Raises `OSError`."""
    return os.open(path, flags | os.O_CREAT | os.O_EXCL | NO_LINK, mode, dir_fd=folder)


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


class NotRegular(OSError):
    """A pipe, a device or a socket lies where a regular file was expected."""


def only_regular(fd: int, path: Path) -> int:
    """Return an open file if it is a regular one. Else it is closed, and raises `NotRegular` or `IsADirectoryError`,
    with ``path`` for the message."""
    mode = os.fstat(fd).st_mode
    if stat.S_ISREG(mode):
        return fd
    os.close(fd)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise NotRegular(errno.EINVAL, "not a regular file", str(path))


def open_regular(path: Path) -> int:
    """Open a regular file for reading. Raises `OSError`, also for a folder, pipe or device."""
    return only_regular(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), path)


def read_start(fd: int, most: int) -> bytes:
    """Return the first ``most`` bytes of an open regular file, or all, and close it. Raises `OSError`."""
    with os.fdopen(fd, "rb") as file:
        return file.read(min(most, os.fstat(fd).st_size))


def read_regular(path: Path, most: int) -> bytes | None:
    """Return the first ``most`` bytes of a file, or all; None if it is not a regular file. Raises `OSError`."""
    try:
        fd = open_regular(path)
    except NotRegular:
        return None
    return read_start(fd, most)


def read_whole(path: Path, most: int, *, owners: Collection[int] | None = None) -> bytes:
    """Return all bytes of a regular file of the user's or of another program; a link is followed.

    Raises `Unsafe` if the file, or a link to it, belongs to none of ``owners``; `OSError`, also if it has more than
    ``most`` bytes or is not a regular file.
    """
    with os.fdopen(open_regular(path), "rb") as file:
        status = os.fstat(file.fileno())
        if owners is not None:
            for owner in (status.st_uid, os.lstat(path).st_uid):
                if owner not in owners:
                    raise Unsafe(f"refused: it belongs to {user_name(owner)}", item=str(path))
        data = file.read(min(most, max(status.st_size, 2**12)) + 1)
    if len(data) > most:
        raise OSError(errno.EFBIG, f"the file has more than {most:,} bytes, the most that mdl reads here", str(path))
    return data


def read_left(path: Path, most: int, owners: Collection[int]) -> bytes:
    """Return all bytes of a file that another program left in a folder in which others may write too: a regular file
    of one of the ``owners`` and of at most ``most`` bytes. No link is followed, and nothing is waited for.

    Raises `ProtocolError`, which says what lies there instead, and `OSError`.
    """
    try:
        fd = os.open(path, os.O_RDONLY | NO_LINK)
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


# Names below a folder, reached without following a link.


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
        """Return the same entry, at which no file may be replaced."""
        return EntryAt(self.folder, self.name, self.parent, is_new=True)

    def beside(self, name: str) -> EntryAt:
        """Return the entry of another name in the same folder."""
        return EntryAt(self.folder, name, self.parent)

    def stat(self) -> os.stat_result | None:
        """Return the status of the entry, of a link itself; None if there is nothing."""
        try:
            return os.stat(self.name, dir_fd=self.folder, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def file_stat(self) -> os.stat_result | None:
        """Return the status of the file; None if there is nothing. Raises `Unsafe` for a link or a special file,
        `Occupied` for a folder."""
        status = self.stat()
        if status is None or stat.S_ISREG(status.st_mode):
            return status
        if stat.S_ISDIR(status.st_mode):
            raise Occupied(f"{self.path} is a folder", item=str(self.path))
        what = "a symbolic link" if stat.S_ISLNK(status.st_mode) else "a device, pipe or socket"
        raise Unsafe(f"refused: {self.path} is {what}", item=str(self.path), hint=Occupied.default_hint)

    def read(self, most: int) -> bytes | None:
        """Return the first ``most`` bytes of the file; None if there is no regular file. Raises `OSError`."""
        status = self.stat()
        if status is None or not stat.S_ISREG(status.st_mode):
            return None
        fd = os.open(self.name, os.O_RDONLY | NO_LINK, dir_fd=self.folder)
        try:
            return os.read(fd, most)
        finally:
            os.close(fd)


@contextlib.contextmanager
def open_parent(root: Path, path: RelPath, *, make: bool = True) -> Iterator[EntryAt]:
    """Yield the entry of ``path`` below ``root``, in its open folder. Missing folders are made, unless ``make`` is
    False. ``root`` itself may be a link that the user or root made.

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


def _open_root(root: Path, *, make: bool) -> int:
    """Open a folder, or the target of a link that `is_untrusted_link` accepts: of the very link that was checked."""
    try:
        return os.open(root, FOLDER | os.O_NOFOLLOW)
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
    return os.open(root.parent / target, FOLDER)


def open_step(folder: int, name: str, path: Path, mode: int | None = 0o777) -> int:
    """Open the folder ``name`` in an open folder. If it is missing it is made with ``mode``, unless that is None.
    ``path`` is for messages. Raises as `open_parent` does."""
    try:
        return os.open(name, FOLDER | os.O_NOFOLLOW, dir_fd=folder)
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


def names_below(folder: Path, is_left_out: Callable[[Path], bool] = lambda _: False) -> Iterator[Path]:
    """Yield everything below a folder that is no folder itself, in order, without following a link; of a link or a file
    only itself, and nothing if nothing is there. ``is_left_out`` is asked of each folder below it."""
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


# Whose files are trusted.


def trusted_owners(folder: Path) -> frozenset[int]:
    """Return the ids of users whose files in a folder are trusted: this user and root. Root also trusts the owner of
    the folder, who can put anything there anyway. Raises `OSError`."""
    me = os.geteuid()
    return frozenset({0, me} if me else {0, os.stat(folder).st_uid})


def is_untrusted_link(path: Path, status: os.stat_result) -> bool:
    """Return whether this is a link that another user made; see `trusted_owners`."""
    return stat.S_ISLNK(status.st_mode) and status.st_uid not in trusted_owners(path.parent)
