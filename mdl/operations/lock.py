"""Locking: every model of a catalog resolved once, and written down beside it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mdl.catalog.lock import Lock, LockedFile, LockedModel, entry_of
from mdl.catalog.model import Model
from mdl.engine.store import Store
from mdl.errors import MdlError, StateError, Unsafe, storage_error
from mdl.events import FileReport, Report
from mdl.files import Receipt
from mdl.fs import staging
from mdl.fs.private import UNREADABLE_ERRNOS, read_whole
from mdl.locks import folder_lock
from mdl.redact import bare_url
from mdl.sources import Sources

_CAME = ("fetched", "kept")
_LARGEST = 64 * 2**20


@dataclass
class Locked:
    """A new lock, what it says differently, and which models could not be resolved and why."""

    lock: Lock
    changes: list[str] = field(default_factory=list)
    broken: dict[str, MdlError] = field(default_factory=dict)


def read_lock(path: Path, catalog: Path) -> Lock | None:
    """The lock at ``path`` of a ``catalog``; None where there is none.

    Raises `StateError` for a broken one, `Unsafe` for one that belongs to neither the user nor root nor the catalog's
    owner, `StorageError`.
    """
    try:
        text = read_whole(path, _LARGEST, owners=_believed(catalog)).decode()
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        text = "\0"
    except Unsafe as error:
        error.hint = "look at it; if it is right, replace it with a copy of your own, else remove it and run 'mdl lock'"
        raise
    except OSError as error:
        if error.errno in UNREADABLE_ERRNOS:
            raise StateError(f"the lock cannot be read: {error.strerror}", item=str(path)) from error
        raise storage_error(error, str(path)) from error
    try:
        return Lock.from_toml(text)
    except MdlError as error:
        raise error.on(str(path)) from None


def _believed(catalog: Path) -> set[int]:
    found = {os.geteuid(), 0}
    with contextlib.suppress(OSError):
        found.add(catalog.stat().st_uid)
    return found


def write_lock(path: Path, lock: Lock) -> None:
    """Whole or not at all. Raises `StorageError`."""
    try:
        staging.write_file(path, lock.to_toml().encode(), mode=0o666 & ~staging.umask(), sweep_first=True)
    except OSError as error:
        raise storage_error(error, str(path)) from error


def update_lock(path: Path, catalog: Path, change: Callable[[Lock | None], Lock | None]) -> None:
    """Change the lock at ``path`` of a ``catalog`` as it is now, which may have been written since it was read; None
    changes nothing. Raises `StateError`, `StorageError`, `Busy`."""
    with folder_lock(path.parent):
        now = read_lock(path, catalog)
        while True:
            before, new = now, change(now)
            if new is None or new == before:
                return
            now = read_lock(path, catalog)
            if now == before:
                write_lock(path, new)
                return


@dataclass(frozen=True)
class Asked:
    """Which models to lock, which of them to resolve ``anew`` although they are covered, and which to ``forget``
    first: of these not even a digest that was trusted on first use is kept."""

    wanted: Collection[str]
    anew: Collection[str] = ()
    forget: Collection[str] = ()


def resolve_lock(models: Sequence[Model], old: Lock, asked: Asked, *, sources: Sources, store: Store) -> Locked:
    """Lock what is asked; what the old lock still covers is kept.

    ``models`` are all of the catalog: what is locked and not among them is dropped. What cannot be resolved keeps
    its old block and is in ``broken``.
    """
    new = Locked(old.only(model.name for model in models if not model.gone))
    for model in models:
        name = model.name
        if name not in asked.wanted or model.gone or (old.covers(model) and name not in {*asked.anew, *asked.forget}):
            continue
        before = old.models.get(name) if name not in asked.forget else None
        receipts = store.receipts.of_model(name) if name not in asked.forget else []
        try:
            new.lock = new.lock.with_model(_resolved(model, before, receipts, sources))
        except MdlError as error:
            error.item = f"{name}: {error.item}" if error.item else name
            new.broken[name] = error
    new.changes = old.differences(new.lock)
    return new


def with_first_digests(lock: Lock, models: Sequence[Model], report: Report) -> Lock:
    """The lock with the digests of what came, for files that nobody published one of: just now, or when mdl was killed
    before it could write them down."""
    covered = {model.name for model in models if lock.covers(model)}
    for model in report.models:
        if model.name not in covered:
            continue
        locked = lock.models[model.name]
        came = {(row.path, row.url): row for row in model.files if row.sha256 and row.action in _CAME}
        files = tuple(_trusted(one, came.get((one.path.text, bare_url(one.source)))) for one in locked.files)
        lock = lock.with_model(replace(locked, files=files))
    return lock


def _trusted(one: LockedFile, row: FileReport | None) -> LockedFile:
    return one.trusted(row.sha256, row.size) if row and row.sha256 and one.digest is None else one


def _resolved(model: Model, before: LockedModel | None, receipts: Sequence[Receipt], sources: Sources) -> LockedModel:
    old = {one.source: one for one in before.files} if before else {}
    first = {receipt.path: receipt for receipt in receipts}
    mirrors = {file.path: file.mirrors for file in model.files}
    files = []
    for remote in sources.resolve(model):
        receipt = first.get(remote.path)
        digest = receipt.digest if receipt and receipt.matches(remote) else None
        one = LockedFile.of(remote, first=digest, mirrors=mirrors.get(remote.path, ()))
        known = old.get(one.source)
        if remote.digest is None and known and known.tofu and known.size == one.size:
            one = known
        files.append(one)
    return LockedModel(model.name, entry_of(model), tuple(sorted(files, key=lambda one: one.path)))
