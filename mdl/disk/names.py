"""Names: how long a name the disk of a folder takes, and which names a folder does not tell apart.

Only a call tells either. ``statvfs`` may say 255 where 143 bytes are taken (eCryptfs, ADR 52). One file system may have
folders of both kinds, and its type says nothing about a network's other side (ADR 49).
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import unicodedata
from pathlib import Path

from mdl.disk import nearest_existing
from mdl.disk.publish import hidden_name
from mdl.disk.safe_open import create
from mdl.errors import StorageError
from mdl.paths import shown
from mdl.values import value_class

_SHORT = 64
"""Bytes of a name that every disk takes."""
_SHOWN = 60
"""Characters of a long name that its error has."""
_PROBE = "\u00e9"
"""Stands in the name of a probe: it has two Unicode forms."""
_HINT = "--exclude leaves it out; -o NAME gives one file a shorter name, and --to takes a folder on another disk"


def name_too_long(path: Path) -> StorageError:
    """Return the error for a final ``path`` that its disk calls too long. It says how many bytes the disk takes, if a
    name in the path has more."""
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


def is_name_too_long(path: str) -> bool:
    """Return whether the disk calls a name in ``path`` too long, also if the folder that is to have it is not there
    yet. Raises `UnicodeEncodeError` if the locale cannot encode it."""
    long = [name for name in os.fsencode(path).split(b"/") if len(name) > _SHORT]
    if _is_too_long(path):
        return True
    if not long:
        return False
    folder = _nearest_existing_folder(Path(path))
    return any(_is_too_long(folder / os.fsdecode(name)) for name in long)


def _is_too_long(path: str | Path) -> bool:
    try:
        os.lstat(path)
    except OSError as error:
        return error.errno == errno.ENAMETOOLONG
    return False


def _nearest_existing_folder(path: Path) -> Path:
    """Return the first folder above ``path`` that is there."""
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
    """Return whether an open folder takes a name of that many bytes."""
    probe = hidden_name("-" * (1 + length - len(hidden_name("-"))))
    try:
        os.close(create(probe, 0o600, folder=folder))
    except OSError as error:
        return error.errno == errno.EEXIST
    os.unlink(probe, dir_fd=folder)
    return True


@value_class
class NameFolding:
    """Whether names that differ only by case, or only by Unicode form, are one name in a folder."""

    case: bool = False
    form: bool = False

    def key(self, name: str) -> str:
        """Return the same for two names that are one there."""
        if name.isascii():
            return name.lower() if self.case else name
        if self.form:
            name = unicodedata.normalize("NFC", name)
        if self.case:
            name = name.casefold()
        return unicodedata.normalize("NFC", name) if self.form else name


def name_folding(folder: Path) -> NameFolding:
    """Ask ``folder``, or the nearest one above it that is there, with a file of our own that is gone afterwards. A
    folder that takes no file tells names apart: whatever must be written there will say what is wrong."""
    staged = nearest_existing(folder) / hidden_name(f"{os.urandom(3).hex()}{_PROBE}")
    with contextlib.suppress(OSError, UnicodeEncodeError):
        os.close(create(staged, 0o600))
        try:
            other_case = staged.with_name(staged.name.replace(".mdl-tmp", ".MDL-TMP"))
            other_form = staged.with_name(unicodedata.normalize("NFD", staged.name))
            return NameFolding(case=os.path.lexists(other_case), form=os.path.lexists(other_form))
        finally:
            staged.unlink(missing_ok=True)
    return NameFolding()
