"""The lock file: how ``mdl.lock`` is read, and replaced as a whole while other processes may change it as well."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mdl.bounds import LARGEST_DOCUMENT
from mdl.disk import publish
from mdl.disk.mutex import folder_lock
from mdl.disk.safe_open import UNREADABLE_ERRNOS, read_whole
from mdl.errors import MdlError, StateError, Unsafe, storage_error
from mdl.hashing import Digest
from mdl.redact import bare_url

if TYPE_CHECKING:
    from mdl.catalog.lock import Lock
    from mdl.catalog.model import Model
    from mdl.reports import Report

_CAME = ("fetched", "kept")
"""What was done with a file whose bytes were hashed in this run."""


def read_lock(path: Path, catalog: Path) -> Lock | None:
    """The lock at ``path`` of a ``catalog``; None if there is none.

    Raises `StateError` for a broken one, `Unsafe` for one that belongs to neither the user nor root nor the catalog's
    owner, `StorageError`.
    """
    try:
        owners = {os.geteuid(), 0}
        with contextlib.suppress(OSError):
            owners.add(catalog.stat().st_uid)
        text = read_whole(path, LARGEST_DOCUMENT, owners=owners).decode()
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        text = "\0"
    except Unsafe as error:
        hint = "look at it; if it is right, replace it with a copy of your own, else remove it and run 'mdl lock'"
        raise error.but(hint=hint) from error
    except OSError as error:
        if error.errno in UNREADABLE_ERRNOS:
            raise StateError(f"the lock cannot be read: {error.strerror}", item=str(path)) from error
        raise storage_error(error, str(path)) from error
    from mdl.catalog.lock import Lock

    try:
        return Lock.from_toml(text)
    except MdlError as error:
        raise error.on(str(path)) from None


def write_lock(path: Path, lock: Lock) -> None:
    """Whole or not at all. Raises `StorageError`."""
    try:
        publish.write_file(path, lock.to_toml().encode(), mode=0o666 & ~publish.umask(), sweep_first=True)
    except OSError as error:
        raise storage_error(error, str(path)) from error


def update_lock(path: Path, catalog: Path, change: Callable[[Lock], Lock]) -> None:
    """Change the lock at ``path`` of a ``catalog`` as it is now, which may have been written since it was read; it is
    empty if there is none. Raises `StateError`, `StorageError`, `Busy`."""
    from mdl.catalog.lock import Lock

    with folder_lock(path.parent):
        now = read_lock(path, catalog) or Lock()
        while (new := change(now)) != now:
            before = now
            now = read_lock(path, catalog) or Lock()
            if now == before:
                write_lock(path, new)
                return


def with_first_digests(lock: Lock, models: Sequence[Model], report: Report) -> Lock:
    """The lock with the digests of what came, for files without a published digest: just now, or when mdl was killed
    before it could write them down."""
    covered = {model.name for model in models if lock.covers(model)}
    for model in report.models:
        if model.name not in covered:
            continue
        locked = lock.models[model.name]
        came = {(row.path, row.url): row for row in model.files if row.sha256 and row.action in _CAME}
        files = []
        for one in locked.files:
            row = came.get((one.path.text, bare_url(one.source)))
            if row and row.sha256 and one.digest is None:
                one = replace(one, digest=Digest("sha256", row.sha256), size=row.size, tofu=True)
            files.append(one)
        lock = lock.with_model(replace(locked, files=tuple(files)))
    return lock
