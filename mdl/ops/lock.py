"""lock: resolve every model of a catalog once, and write that down beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field, replace
from pathlib import Path

from mdl.catalog.lock import Lock, LockedFile, LockedModel, entry_of
from mdl.catalog.lock_changes import words_of_changes
from mdl.catalog.lock_file import read_lock, update_lock
from mdl.catalog.model import Catalog, Model
from mdl.catalog.resolver import Resolver
from mdl.context import Context
from mdl.errors import LockError, MdlError, NotFound, whole_error
from mdl.files import Receipt
from mdl.formatting import counted
from mdl.reports import BaseReport, LeftOutFile
from mdl.values import value_class


@value_class
class LockRow:
    """What the lock says of one model: how many files, how many without any digest, how many with one that was
    trusted on first use, the commits of its repositories, and what is left out: the same weights in other formats."""

    name: str
    locked: bool
    files: int
    without_digest: int
    tofu: int
    revisions: Sequence[str] = ()
    left_out: Sequence[LeftOutFile] = ()


@value_class
class LockReport(BaseReport):
    """The lock as it is now: where it is, what changed (a line each), what it says of each model, which models could
    not be resolved and why, and the one ``error`` that stands for all."""

    path: Path
    changes: Sequence[str] = ()
    models: tuple[LockRow, ...] = ()
    failures: dict[str, MdlError] = field(default_factory=dict)
    error: MdlError | None = None


def lock(
    catalog: Catalog,
    path: Path,
    context: Context,
    *,
    names: Sequence[str] | None = None,
    check: bool = False,
    upgrade: Sequence[str] = (),
) -> LockReport:
    """Resolve the models and groups of ``names`` (the catalog's own if it is None) to commits, files, sizes and
    digests, and write them to the lock at ``path``.

    What the lock still covers is not asked for again, except for ``upgrade`` and for what only a bundle says; what is
    locked and no longer in the catalog is dropped; what cannot be resolved keeps its old block.
    With ``check`` nothing is asked or written: catalog and lock are compared, and a lock that does not fit is the
    report's error (`LockError`). What moved at the sources is for `outdated` to find. Raises `NotFound` for a name that
    the catalog does not have, `StateError` for a damaged lock, `StorageError`, `Busy`, `Cancelled`.
    """
    upgraded = {model.name for model in catalog.meant(upgrade)}
    wanted = {model.name for model in catalog.meant(names)}
    for name in wanted if names is not None else ():
        if why := catalog.models[name].gone:
            raise NotFound(f"has no data any more: {why}", item=name)
    old = read_lock(path, catalog.paths[0])
    before = old or Lock()
    kept = [model for model in catalog.models.values() if not model.gone]
    if check:
        compared = [model for model in kept if model.name in wanted]
        return _checked(path, old, before.misfits(compared, kept), [_row(one.name, before) for one in compared])
    new = before.only(model.name for model in kept)
    failures = dict[str, MdlError]()
    for model in kept:
        name = model.name
        is_upgraded = model.name in upgraded
        is_covered = before.covers(model) and not is_upgraded
        is_doubtful = is_covered and context.network is not None and before.models[name].is_doubtful
        if name not in wanted | upgraded or (is_covered and not is_doubtful):
            continue
        try:
            # an upgrade forgets even a digest that was trusted on first use
            receipts = [] if is_upgraded else context.store.receipts.of_model(name)
            locked = None if is_upgraded else before.models.get(name)
            asked = before.without_bundled_facts(model) if is_doubtful else model
            resolved = replace(_resolved(asked, locked, receipts, context.resolver), entry=entry_of(model))
            new = new.with_model(resolved)
        except MdlError as error:
            failures[name] = error.on(name)
    if new != before:
        update_lock(path, catalog.paths[0], lambda now: now.with_changes(before, new))
    failure = None
    if len(failures) > 1:
        failure = whole_error(f"{len(failures)} models could not be resolved", list(failures.values()))
    elif failures:
        [failure] = failures.values()
    rows = tuple(_row(model.name, new) for model in kept if model.name in wanted or model.name in new.models)
    return LockReport(path, tuple(words_of_changes(before, new)), rows, failures, failure)


def _checked(path: Path, old: Lock | None, changes: Sequence[str], rows: Sequence[LockRow]) -> LockReport:
    """What a comparison of catalog and lock found; ``old`` is None if there is no lock."""
    error: LockError | None = None
    if old is None:
        error = LockError("there is no lock", hint="'mdl lock' writes it")
    elif changes:
        why = f"out of date: {counted(len(changes), 'change')}"
        error = LockError(why, item=path.name, hint="'mdl lock' writes what the catalog says now")
    return LockReport(path, tuple(changes), tuple(rows), error=error)


def _resolved(model: Model, before: LockedModel | None, receipts: Sequence[Receipt], resolver: Resolver) -> LockedModel:
    """The model as its sources have it now; digests that were trusted on first use are kept."""
    old = {one.source: one for one in before.files} if before else {}
    first = {receipt.path: receipt for receipt in receipts}
    mirrors = {file.path: file.mirrors for file in model.files}
    files = []
    found = resolver.resolve(model)
    for remote in found.files:
        receipt = first.get(remote.path)
        digest = receipt.digest if receipt and receipt.matches(remote) else None
        one = LockedFile.of(remote, first=digest, mirrors=mirrors.get(remote.path, ()))
        known = old.get(one.source)
        if remote.digest is None and known and (known.tofu or known.bundled) and known.size == one.size:
            one = known
        files.append(one)
    left_out = tuple(LeftOutFile(str(file.path), file.size) for file in found.left_out)
    return LockedModel(model.name, entry_of(model), tuple(files), left_out)


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
        left_out=locked.left_out if locked else (),
    )
