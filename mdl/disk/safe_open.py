"""Safe opening: how mdl opens files and folders that others may have put there, or may change meanwhile.

- Nothing waits for a pipe, and no descriptor goes to a child.
- A name below a folder is reached step by step without following a link (``openat``). If a folder is replaced
  meanwhile, the work still happens in the folders that were checked.
- A link that the user named is followed if the user or root made it.
- mdl's own folders are readable by their user only and never behind a link. Other users may share the folder around
  them, so a file in them is trusted only if it belongs to the user or to root and no other user may write it. A
  ``.mdl`` folder that is not so is refused; a file in it that is not so counts as absent. Root also trusts the owner of
  the folder that contains ``.mdl``, who can replace the models anyway.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from pathlib import Path

from mdl.disk import refuses_order, user_name
from mdl.errors import Occupied, ProtocolError, Unsafe
from mdl.paths import RelPath, shown
from mdl.values import value_class

UNREADABLE_ERRNOS = (errno.EINVAL, errno.EFBIG)
"""The errors of `read_whole` for a pipe or device, and for a file that is too large."""
NO_LINK = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""Flags of `os.open` for a name that may not be a link."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_MOST_LINKS = 40
"""How many links, one behind the other, Linux follows."""
_OWN = ".mdl"
"""The name of mdl's own folder in a folder of the user's."""
_CACHE_OWN = ".locks"
"""The folder of the hub's cache that contains it; any user of the cache may have made it."""
_OTHERS = stat.S_IWGRP | stat.S_IWOTH


# Files of the user's, or of another program.


@contextlib.contextmanager
def open_for_reading(path: Path, flags: int = 0) -> Iterator[int]:
    """The file open for reading, with further ``flags`` of `os.open`; a pipe does not block. Raises `OSError`."""
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


def open_regular(path: Path, *, is_own: bool = True) -> int:
    """Open a regular file for reading, with `open_own` if it is one of mdl's own.

    Raises `OSError`, also for a folder, pipe or device; `Unsafe`.
    """
    if is_own:
        os.lstat(path)  # most of what is looked for is not there, and to open its folder step by step takes long
        fd = open_own(path, os.O_RDONLY)
    else:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
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
    """Return the first ``most`` bytes of a file, or all; None if it is not a regular file, or if it is one of mdl's own
    that another user may have written. Raises `OSError`."""
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
        if owners is not None:
            for owner in (status.st_uid, os.lstat(path).st_uid):
                if owner not in owners:
                    raise Unsafe(f"refused: it belongs to {user_name(owner)}", item=str(path))
        data = file.read(min(most, max(status.st_size, 2**12)) + 1)
    if len(data) > most:
        raise OSError(errno.EFBIG, f"the file has more than {most:,} bytes, the most that mdl reads here", str(path))
    return data


def read_left(path: Path, most: int, owners: Collection[int]) -> bytes:
    """All bytes of a file that another program left in a folder in which others may write too: a regular file of one of
    the ``owners`` and of at most ``most`` bytes. No link is followed, and nothing is waited for.

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
        found = self.stat()
        if found is None or stat.S_ISREG(found.st_mode):
            return found
        if stat.S_ISDIR(found.st_mode):
            raise Occupied(f"{self.path} is a folder", item=str(self.path))
        what = "a symbolic link" if stat.S_ISLNK(found.st_mode) else "a device, pipe or socket"
        raise Unsafe(f"refused: {self.path} is {what}", item=str(self.path), hint=Occupied.default_hint)

    def read(self, most: int) -> bytes | None:
        """Return the first ``most`` bytes of the file; None if there is no regular file. Raises `OSError`."""
        found = self.stat()
        if found is None or not stat.S_ISREG(found.st_mode):
            return None
        fd = os.open(self.name, os.O_RDONLY | NO_LINK, dir_fd=self.folder)
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


def _open_root(root: Path, *, make: bool) -> int:
    """Open a folder, or the target of a link that `is_untrusted_link` accepts: of the very link that was checked."""
    try:
        return os.open(root, _FOLDER | os.O_NOFOLLOW)
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
    return os.open(root.parent / target, _FOLDER)


def open_step(folder: int, name: str, path: Path, mode: int | None = 0o777) -> int:
    """Open the folder ``name`` in an open folder. If it is missing it is made with ``mode``, unless that is None.
    ``path`` is for messages. Raises as `open_parent` does."""
    try:
        return os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
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


# Whose files are trusted.


def trusted_owners(folder: Path) -> frozenset[int]:
    """Return the ids of users whose files in a folder are trusted: this user and root. Root also trusts the owner of
    the folder, who can put anything there anyway. Raises `OSError`."""
    me = os.geteuid()
    return frozenset({0, me} if me else {0, os.stat(folder).st_uid})


def is_untrusted_link(path: Path, status: os.stat_result) -> bool:
    """Return whether this is a link that another user made; see `trusted_owners`."""
    return stat.S_ISLNK(status.st_mode) and status.st_uid not in trusted_owners(path.parent)


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


# mdl's own folders and files.


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
        top = fd = os.open(at, _FOLDER)
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
