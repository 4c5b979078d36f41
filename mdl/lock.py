"""Locking: every model of a catalog resolved once, and written down beside it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mdl import staging
from mdl.catalog.lock import Lock, LockedFile, LockedModel, entry_of
from mdl.catalog.model import Model
from mdl.download.store import Store
from mdl.errors import MdlError, storage_error
from mdl.events import Report
from mdl.sources import Sources


@dataclass
class Locked:
    """A new lock, what it says differently, and which models could not be resolved and why."""

    lock: Lock
    changes: list[str] = field(default_factory=list)
    broken: dict[str, MdlError] = field(default_factory=dict)


def read_lock(path: Path) -> Lock | None:
    """The lock at ``path``; None where there is none. Raises `StateError` for a broken one, `StorageError`."""
    try:
        text = path.read_bytes().decode()
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        text = "\0"
    except OSError as error:
        raise storage_error(error, str(path)) from error
    try:
        return Lock.from_toml(text)
    except MdlError as error:
        raise error.on(str(path)) from None


def write_lock(path: Path, lock: Lock) -> None:
    """Whole or not at all. Raises `StorageError`."""
    try:
        staging.write_file(path, lock.to_toml().encode(), mode=0o666 & ~staging.umask())
    except OSError as error:
        raise storage_error(error, str(path)) from error


def resolve_lock(
    models: Sequence[Model],
    old: Lock,
    *,
    wanted: Collection[str],
    anew: Collection[str],
    sources: Sources,
    store: Store,
) -> Locked:
    """Lock the models called ``wanted``; what the old lock still covers is kept, unless it is in ``anew``.

    ``models`` are all of the catalog: what is locked and not among them is dropped. What cannot be resolved keeps
    its old block and is in ``broken``.
    """
    new = Locked(old.only(model.name for model in models if not model.gone))
    for model in models:
        if model.name not in wanted or model.gone or (old.covers(model) and model.name not in anew):
            continue
        try:
            new.lock = new.lock.with_model(_resolved(model, old, sources, store))
        except MdlError as error:
            error.item = f"{model.name}: {error.item}" if error.item else model.name
            new.broken[model.name] = error
    new.changes = old.differences(new.lock)
    return new


def with_first_digests(lock: Lock, report: Report) -> Lock:
    """The lock with the digests of what came just now, for files that nobody published one of."""
    for model in report.models:
        locked = lock.models.get(model.name)
        came = {row.path: row for row in model.files if row.sha256 and row.action in ("fetched", "kept")}
        if locked is None or not any(one.digest is None and one.path.text in came for one in locked.files):
            continue
        files = tuple(
            one.trusted(came[one.path.text].sha256 or "", came[one.path.text].size)
            if one.digest is None and one.path.text in came
            else one
            for one in locked.files
        )
        lock = lock.with_model(replace(locked, files=files))
    return lock


def _resolved(model: Model, old: Lock, sources: Sources, store: Store) -> LockedModel:
    before = {one.source: one for one in old.models[model.name].files} if model.name in old.models else {}
    files = []
    for remote in sources.resolve(model):
        receipt = store.receipts.get(model.name, remote.path)
        first = receipt.digest if receipt and receipt.url == remote.url else None
        one = LockedFile.of(remote, first=first)
        known = before.get(one.source)
        if one.digest is None and known and known.tofu and known.size == one.size:
            one = known
        files.append(one)
    return LockedModel(model.name, entry_of(model), tuple(sorted(files, key=lambda one: one.path)))
