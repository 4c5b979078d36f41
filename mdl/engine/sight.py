"""Sight: what stands under a name, found without following a link, and what is in it."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from mdl.errors import StorageError, storage_error
from mdl.files import LocalFile, Stamp
from mdl.fs.entries import is_untrusted_link, user_name
from mdl.fs.private import is_trusted_owner
from mdl.hashing import Fingerprint, fingerprint
from mdl.paths import RelPath


def standing(at: Path, path: RelPath, own: Path) -> LocalFile:
    """What stands at ``path`` below the folder ``at``: a file with its stamp, or in words what is in the way; nothing
    on the way may be a link. A file is foreign if its owner is not believed beside mdl's ``own`` folder.

    Raises `StorageError`.
    """
    final = path.under(at)
    for segment in ("", *path.text.split("/")):
        at = at / segment if segment else at
        last = at == final
        try:
            status = at.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return _absent(final)
        except OSError as error:
            raise storage_error(error, str(at)) from error
        if stat.S_ISLNK(status.st_mode) and (last or segment):
            return LocalFile("link", why=f"{at} is a symbolic link")
        if is_untrusted_link(at, status):
            return LocalFile("link", why=f"{at} is a symbolic link of {user_name(status.st_uid)}")
        if not last and segment and not stat.S_ISDIR(status.st_mode):
            return LocalFile("folder", why=f"{at} is a file where a folder is needed")
    if stat.S_ISREG(status.st_mode):
        return LocalFile("file", Stamp.of(status), foreign=not is_trusted_owner(status.st_uid, own))
    if stat.S_ISDIR(status.st_mode):
        return LocalFile("folder", why=f"{at} is a folder")
    return LocalFile("special", why=f"{at} is a device, pipe or socket")


def _absent(final: Path) -> LocalFile:
    """Nothing is there, and it could be: what system or locale has no name for is found out before a download."""
    try:
        os.lstat(final)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise storage_error(error, str(final)) from error
    except UnicodeEncodeError as error:
        hint = "set PYTHONUTF8=1, or a locale of UTF-8 (LC_ALL=C.UTF-8)"
        raise StorageError(f"file names are {error.encoding} here, which has no such letters", hint=hint) from error
    return LocalFile()


@contextlib.contextmanager
def opened(path: Path, more: int = 0) -> Iterator[int]:
    """The file open for reading, with ``more`` flags; a pipe does not block. Raises `OSError`."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | more)
    try:
        yield fd
    finally:
        os.close(fd)


def hashed(path: Path, algorithm: str, watch: Callable[[int], None] | None = None) -> tuple[Fingerprint, Stamp]:
    """What is in a file, and the stamp it bore before it was read. Raises `StorageError`."""
    try:
        with opened(path, os.O_NOFOLLOW) as fd:
            stamp = Stamp.of(os.fstat(fd))
            return fingerprint(fd, algorithm, watch=watch), stamp
    except OSError as error:
        raise storage_error(error, str(path)) from error
