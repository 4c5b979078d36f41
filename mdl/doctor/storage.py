"""Checks of the folders that mdl writes to, and of the files in the models folder."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from mdl.errors import MdlError, NoSpace, StorageError
from mdl.fs.private import read_regular
from mdl.pickles import head_of, is_pickle, warning

_PROBE = bytes(4096)
_MOST_FILES = 20_000


def models_folder(place: Callable[[], Path]) -> str:
    """The models folder can be written, and has free space. Raises `MdlError`."""
    return _writable(place(), "choose another folder with --to or MDL_HOME")


def state_folder(place: Callable[[], Path]) -> str:
    """The folder of records, locks and logs can be written. Raises `StorageError`."""
    try:
        folder = place()
    except MdlError as error:
        return f"none: {error.message}"
    return _writable(folder, "choose another folder with XDG_STATE_HOME")


def _writable(folder: Path, advice: str) -> str:
    """The folder and its free space, after a file without a name has been written there. Raises `StorageError`."""
    parent = _existing(folder)
    try:
        space = os.statvfs(parent)
        free = space.f_bavail * space.f_frsize
        files = f", room for {space.f_favail:,} files" if space.f_files else ""
        detail = f"{folder}{'' if parent == folder else ' (does not exist yet)'}: {free / 1e9:.1f} GB free{files}"
        if free <= 0:
            raise NoSpace(detail, hint=f"free some space, or {advice}")
        if space.f_files and space.f_favail <= 0:
            raise NoSpace(detail, hint=f"remove files that are not needed ('df -i' shows the inodes), or {advice}")
        own = folder / ".mdl"
        if own.is_dir() and not os.access(own, os.W_OK | os.X_OK):
            raise StorageError(f"{own} cannot be written by this user", hint=advice)
        with tempfile.TemporaryFile(dir=parent) as probe:
            probe.write(_PROBE)
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        where = f"{folder}" if parent == folder else f"{folder}, to be created in {parent}"
        raise StorageError(f"{where}: {error.strerror or error}", hint=advice) from error
    return detail


def _existing(folder: Path) -> Path:
    """The folder, or the first one above it that exists. A link to nowhere exists, and cannot be written."""
    while not os.path.lexists(folder) and folder != folder.parent:
        folder = folder.parent
    return folder


def pickles(place: Callable[[], Path]) -> str | None:
    """A warning if files in the models folder run code when they are loaded. Having them is no failure."""
    try:
        folder = place()
    except MdlError:
        return None
    names = [name for name in islice(_files(folder), _MOST_FILES) if is_pickle(name, _head(folder / name))]
    return warning(sorted(names)) if names else None


def _files(folder: Path) -> Iterator[str]:
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (os.path.relpath(os.path.join(parent, name), folder) for name in names)


def _head(path: Path) -> bytes:
    with contextlib.suppress(OSError):
        return read_regular(path, head_of(path.name), is_own=False) or b""
    return b""
