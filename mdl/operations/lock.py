"""lock: resolve every model of a catalog once, and write that down beside it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mdl.catalog.lock import Lock, LockedFile, LockedModel, entry_of
from mdl.catalog.model import Catalog, Model
from mdl.catalog.resolver import Resolver
from mdl.errors import (
    LockError,
    MdlError,
    NotFound,
    PartialFailure,
    StateError,
    Unsafe,
    joint_exit_code,
    storage_error,
)
from mdl.files import Receipt
from mdl.fs import staging
from mdl.fs.private import UNREADABLE_ERRNOS, read_whole
from mdl.locks import folder_lock
from mdl.operations.get import Tools
from mdl.redact import bare_url
from mdl.reports import FileReport, LockReport, LockRow, Report

_CAME = ("fetched", "kept")
_LARGEST = 64 * 2**20


def read_lock(path: Path, catalog: Path) -> Lock | None:
    """The lock at ``path`` of a ``catalog``; None if there is none.

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


@dataclass
class Resolved:
    """A new lock, what it says differently, and which models could not be resolved and why."""

    lock: Lock
    changes: list[str] = field(default_factory=list)
    failures: dict[str, MdlError] = field(default_factory=dict)


def resolve_lock(
    models: Sequence[Model],
    old: Lock,
    tools: Tools,
    *,
    wanted: Collection[str],
    anew: Collection[str] = (),
    forget: Collection[str] = (),
) -> Resolved:
    """Lock the ``wanted`` models; what the old lock still covers is kept, unless it is to be resolved ``anew``.

    Of those to ``forget`` not even a digest that was trusted on first use is kept. ``models`` are all of the catalog:
    what is locked and not among them is dropped. What cannot be resolved keeps its old block and is in ``failures``.
    """
    new = Resolved(old.only(model.name for model in models if not model.gone))
    for model in models:
        name = model.name
        if name not in wanted or model.gone or (old.covers(model) and name not in {*anew, *forget}):
            continue
        before = old.models.get(name) if name not in forget else None
        receipts = tools.store.receipts.of_model(name) if name not in forget else []
        try:
            new.lock = new.lock.with_model(_resolved(model, before, receipts, tools.resolver))
        except MdlError as error:
            error.item = f"{name}: {error.item}" if error.item else name
            new.failures[name] = error
    new.changes = old.differences(new.lock)
    return new


def lock(
    catalog: Catalog,
    path: Path,
    tools: Tools,
    *,
    names: Sequence[str] = (),
    check: bool = False,
    upgrade: Sequence[str] = (),
) -> LockReport:
    """Resolve the models and groups of ``names`` (all of them if there are none) to commits, files, sizes and digests,
    and write them to the lock at ``path``.

    What the lock still covers is not asked for again, except for ``upgrade``. With ``check`` nothing is written, all is
    asked for anew, and a lock that is not up to date is the report's error (`LockError`). Raises `NotFound` for a name
    that the catalog does not have, `StateError` for a damaged lock, `StorageError`, `Busy`, `Cancelled`.
    """
    first = catalog.paths[0]
    old = read_lock(path, first)
    upgraded = {model.name for name in upgrade for model in catalog.find(name)}
    wanted = {one.name for name in names for one in catalog.find(name)} if names else set(catalog.models)
    models = list(catalog.models.values())
    for model in (catalog.models[name] for name in wanted if names):
        if model.gone:
            raise NotFound(f"has no data any more: {model.gone}", item=model.name)
    before = old or Lock()
    new = resolve_lock(
        models,
        before,
        tools,
        wanted=wanted | upgraded,
        anew=wanted if check and tools.http is not None else (),
        forget=() if check else upgraded,
    )
    if not check and new.lock != before:
        update_lock(path, first, lambda now: (now or Lock()).with_changes(before, new.lock))
    rows = tuple(_row(model.name, new.lock) for model in models if not model.gone)
    return LockReport(path, tuple(new.changes), rows, new.failures, _error(new, old, check=check))


def _row(name: str, lock: Lock) -> LockRow:
    locked = lock.models.get(name)
    files = locked.files if locked else ()
    return LockRow(
        name,
        locked is not None,
        len(files),
        without_digest=sum(one.digest is None for one in files),
        tofu=sum(one.tofu for one in files),
        revisions=sorted({one.revision for one in files if one.revision}),
    )


def _error(new: Resolved, old: Lock | None, *, check: bool) -> MdlError | None:
    """The one error that stands for all, or None."""
    if new.failures:
        first = next(iter(new.failures.values()))
        if len(new.failures) == 1:
            return first
        error = PartialFailure(f"{len(new.failures)} models could not be resolved", hint=first.advice)
        error.exit_code = joint_exit_code(one.exit_code for one in new.failures.values())
        if error.exit_code != PartialFailure.exit_code:
            error.code = first.code
        return error
    if check and (old is None or new.changes):
        why = "there is no lock" if old is None else "; ".join(new.changes[:5])
        return LockError(why, hint="mdl lock; --upgrade NAME for what moved at its source")
    return None


def with_first_digests(lock: Lock, models: Sequence[Model], report: Report) -> Lock:
    """The lock with the digests of what came, for files without a published digest: just now, or when mdl was killed
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


def _resolved(model: Model, before: LockedModel | None, receipts: Sequence[Receipt], resolver: Resolver) -> LockedModel:
    old = {one.source: one for one in before.files} if before else {}
    first = {receipt.path: receipt for receipt in receipts}
    mirrors = {file.path: file.mirrors for file in model.files}
    files = []
    for remote in resolver.resolve(model):
        receipt = first.get(remote.path)
        digest = receipt.digest if receipt and receipt.matches(remote) else None
        one = LockedFile.of(remote, first=digest, mirrors=mirrors.get(remote.path, ()))
        known = old.get(one.source)
        if remote.digest is None and known and known.tofu and known.size == one.size:
            one = known
        files.append(one)
    return LockedModel(model.name, entry_of(model), tuple(sorted(files, key=lambda one: one.path)))
