"""lock: resolve the models of a catalog once, and write that down beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field, replace
from pathlib import Path

from mdl.catalog.lock import Lock, LockedFile, LockedModel, entry_of
from mdl.catalog.lock_changes import words_of_changes
from mdl.catalog.lock_file import read_lock, update_lock
from mdl.catalog.model import Catalog, Model
from mdl.context import Context
from mdl.errors import LockError, MdlError, NotFound, whole_error
from mdl.files import Receipt
from mdl.formatting import counted
from mdl.reports import BaseReport, LeftOutFile
from mdl.values import value_class


@value_class
class LockRequest:
    """Which models and groups of a ``catalog`` are locked in the file ``path``: those of ``names``, or the catalog's
    own if that is None. Those of ``upgrade`` are asked for again even if the lock covers them. With ``check`` nothing
    is asked or written: catalog and lock are compared."""

    catalog: Catalog
    path: Path
    names: tuple[str, ...] | None = None
    upgrade: tuple[str, ...] = ()
    check: bool = False


@value_class
class LockRow:
    """A model in the lock: how many files, how many without any digest, how many with one that was
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


def lock(context: Context, request: LockRequest) -> LockReport:
    """Resolve models to commits, files, sizes and digests, and write them to the lock.

    What the lock still covers is not asked for again, except for an upgrade and for what only a bundle says; what is
    locked and no longer in the catalog is dropped; what cannot be resolved keeps its old block. A lock that does not
    fit is the error of a check's report (`LockError`); what moved at the sources is for `outdated` to find. Raises
    `NotFound` for a name that the catalog does not have, `StateError` for a damaged lock, `StorageError`, `Busy`,
    `Cancelled`.
    """
    catalog = request.catalog
    upgraded = {model.name for model in catalog.meant(request.upgrade)}
    wanted = _wanted_names(request)
    present = [model for model in catalog.models.values() if not model.gone]
    written = read_lock(request.path, catalog.paths[0])
    if request.check:
        return _compare(request.path, written, [model for model in present if model.name in wanted], present)
    before = written or Lock()
    after = before.only(model.name for model in present)
    failures: dict[str, MdlError] = {}
    for model in present:
        try:
            if model.name in upgraded:
                after = after.with_model(_resolve(model, context))
            elif model.name in wanted:
                after = after.with_model(_locked_anew(model, before, context))
        except MdlError as error:
            failures[model.name] = error.on(model.name)
    if after != before:
        update_lock(request.path, catalog.paths[0], lambda now: now.with_changes(before, after))
    return LockReport(
        request.path,
        words_of_changes(before, after),
        tuple(_row(model.name, after) for model in present if model.name in wanted or model.name in after.models),
        failures,
        _one_error(failures),
    )


def _wanted_names(request: LockRequest) -> set[str]:
    """The names of the models that are to be locked. Raises `NotFound` for one that has no data any more."""
    wanted = {model.name: model for model in request.catalog.meant(request.names)}
    if request.names is not None:
        for name, model in wanted.items():
            if model.gone:
                raise NotFound(f"has no data any more: {model.gone}", item=name)
    return set(wanted)


def _compare(path: Path, written: Lock | None, models: Sequence[Model], present: Sequence[Model]) -> LockReport:
    """Compare catalog and lock; ``written`` is None if there is no lock."""
    current = written or Lock()
    misfits = current.misfits(models, present)
    error = None
    if written is None:
        error = LockError("there is no lock", hint="'mdl lock' writes it")
    elif misfits:
        reason = f"out of date: {counted(len(misfits), 'change')}"
        error = LockError(reason, item=path.name, hint="'mdl lock' writes what the catalog says now")
    return LockReport(path, misfits, tuple(_row(model.name, current) for model in models), error=error)


def _locked_anew(model: Model, before: Lock, context: Context) -> LockedModel:
    """A wanted model as it is to be locked: what the lock says, if it covers it and more than a bundle vouches for
    that; else what its sources say now. Raises what they raise."""
    locked = before.models.get(model.name)
    asked = model
    if locked is not None and before.covers(model):
        if not locked.is_doubtful or context.network is None:
            return locked
        asked = before.without_bundled_facts(model)
    receipts = context.store.receipts.of_model(model.name)
    resolved = _resolve(asked, context, receipts, locked.files if locked else ())
    return replace(resolved, entry=entry_of(model))


def _resolve(
    model: Model, context: Context, receipts: Sequence[Receipt] = (), locked: Sequence[LockedFile] = ()
) -> LockedModel:
    """The model as its sources have it now. Where nobody publishes a digest, it is that of what came first, by the
    ``receipts`` or by what is ``locked``."""
    receipt_of = {receipt.path: receipt for receipt in receipts}
    locked_of = {file.source: file for file in locked}
    mirrors = {file.path: file.mirrors for file in model.files}
    resolved = context.resolver.resolve(model)
    files = []
    for remote in resolved.files:
        receipt = receipt_of.get(remote.path)
        first = receipt.digest if receipt and receipt.matches(remote) else None
        file = LockedFile.of(remote, first=first, mirrors=mirrors.get(remote.path, ()))
        known = locked_of.get(file.source)
        if remote.digest is None and known and _is_unpublished(known) and known.size == file.size:
            file = known
        files.append(file)
    left_out = [LeftOutFile(str(file.path), file.size) for file in resolved.left_out]
    return LockedModel(model.name, entry_of(model), tuple(files), tuple(left_out))


def _is_unpublished(file: LockedFile) -> bool:
    """Whether its source does not say which digest it has."""
    return file.tofu or file.bundled


def _one_error(failures: dict[str, MdlError]) -> MdlError | None:
    """The error that stands for all; None if there is none."""
    errors = list(failures.values())
    if len(errors) > 1:
        return whole_error(f"{len(errors)} models could not be resolved", errors)
    return errors[0] if errors else None


def _row(name: str, lock: Lock) -> LockRow:
    locked = lock.models.get(name)
    if locked is None:
        return LockRow(name, locked=False, files=0, without_digest=0, tofu=0)
    return LockRow(
        name,
        locked=True,
        files=len(locked.files),
        without_digest=sum(file.digest is None for file in locked.files),
        tofu=sum(file.tofu for file in locked.files),
        revisions=locked.commits,
        left_out=locked.left_out,
    )
