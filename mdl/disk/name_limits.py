"""Name limits: how long a name the disk of a folder takes. statvfs may say 255 where 143 bytes are taken (eCryptfs), so
only a call tells. (ADR 52)"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
from pathlib import Path

from mdl.disk import nearest_existing
from mdl.disk.publish import hidden_name
from mdl.errors import StorageError
from mdl.paths import shown

_SHORT = 64
"""Bytes of a name that every disk takes."""
_SHOWN = 60
"""Characters of a long name that its error has."""


def name_too_long(path: Path) -> StorageError:
    """The error for a final ``path`` that its disk calls too long. It says how many bytes the disk takes, if a name in
    the path has more."""
    words = os.strerror(errno.ENAMETOOLONG)
    most = _longest_name(_nearest_existing_folder(path))
    for name in path.parts:
        length = len(os.fsencode(name))
        if length > most > 0:
            text = shown(name)
            text = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
            words = f"{words}: this disk takes names of up to {most} bytes, and {text} has {length}"
            break
    return StorageError(words, item=str(path), hint=_HINT)


def is_name_too_long(path: Path) -> bool:
    """Whether the disk calls a name in ``path`` too long, also if the folder that is to have it is not there yet."""
    long = [name for name in path.parts if len(os.fsencode(name)) > _SHORT]
    folder = _nearest_existing_folder(path) if long else path
    return any(_is_too_long(place) for place in (path, *(folder / name for name in long)))


def _is_too_long(path: Path) -> bool:
    try:
        os.lstat(path)
    except OSError as error:
        return error.errno == errno.ENAMETOOLONG
    return False


_HINT = "--exclude leaves it out; -o NAME gives one file a shorter name, and --to takes a folder on another disk"


def _nearest_existing_folder(path: Path) -> Path:
    """The first folder above ``path`` that is there."""
    return nearest_existing(path.parent)


@functools.lru_cache(maxsize=64)
def _longest_name(folder: Path) -> int:
    """Bytes of the longest name that a folder takes, found out with files of our own that are gone afterwards; 0 if it
    takes none."""
    takes = 0
    refuses = 256
    with contextlib.suppress(OSError):
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            while refuses - takes > 1:
                length = max((takes + refuses) // 2, len(hidden_name("-")))
                if length >= refuses:
                    break
                if _takes(opened, length):
                    takes = length
                else:
                    refuses = length
        finally:
            os.close(opened)
    return takes


def _takes(folder: int, length: int) -> bool:
    """Whether an open folder takes a name of that many bytes."""
    probe = hidden_name("-" * (1 + length - len(hidden_name("-"))))
    try:
        os.close(
            os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
        )
    except OSError as error:
        return error.errno == errno.EEXIST
    os.unlink(probe, dir_fd=folder)
    return True
