"""lock: resolve the models of a catalog once, and write that down beside it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import field, replace
from pathlib import Path
from types import MappingProxyType

from mdl.catalog.lock import Lock, LockedFile, LockedModel, entry_of, words_of_changes
from mdl.catalog.lock_file import read_lock, update_lock
from mdl.catalog.model import Catalog, Model
from mdl.context import Context
from mdl.errors import LockError, MdlError, NotFound, one_error
from mdl.files import Receipt, RemoteFile
from mdl.formatting import counted
from mdl.paths import RelPath
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
    files: int = 0
    without_digest: int = 0
    tofu: int = 0
    revisions: Sequence[str] = ()
    left_out: Sequence[LeftOutFile] = ()

    @classmethod
    def of(cls, locked: LockedModel) -> LockRow:
        """Return the row of a model that is in the lock."""
        return cls(
            locked.name,
            locked=True,
            files=len(locked.files),
            without_digest=sum(file.digest is None for file in locked.files),
            tofu=sum(file.tofu for file in locked.files),
            revisions=locked.commits,
            left_out=locked.left_out,
        )


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
    wanted = _wanted(request)
    present = [model for model in catalog.models.values() if not model.gone]
    written = read_lock(request.path, catalog.paths[0])
    if request.check:
        return _compare(request.path, written, wanted.values(), present)
    before = written or Lock()
    after = before.only(model.name for model in present)
    failures: dict[str, MdlError] = {}
    for model in present:
        try:
            if model.name in upgraded:
                after = after.with_model(_resolve(model, context))
            elif model.name in wanted:
                after = after.with_model(_lock_again(model, before, context))
        except MdlError as error:
            failures[model.name] = error.on(model.name)
    if after != before:
        update_lock(request.path, catalog.paths[0], lambda now: now.with_changes(before, after))
    changes = words_of_changes(before, after)
    names = after.models.keys() | wanted.keys()
    rows = [_row(model.name, after) for model in present if model.name in names]
    failed = one_error(f"{len(failures)} models could not be resolved", list(failures.values()))
    return LockReport(request.path, changes, tuple(rows), failures, failed)


def _wanted(request: LockRequest) -> dict[str, Model]:
    """The models that are to be locked, by name. Raises `NotFound` for one that is named and has no data any more."""
    wanted: dict[str, Model] = {}
    for model in request.catalog.meant(request.names):
        if not model.gone:
            wanted[model.name] = model
        elif request.names is not None:
            raise NotFound(f"has no data any more: {model.gone}", item=model.name)
    return wanted


def _compare(path: Path, written: Lock | None, models: Collection[Model], present: Sequence[Model]) -> LockReport:
    """Compare catalog and lock; ``written`` is None if there is no lock."""
    current = written or Lock()
    misfits = current.misfits(models, present)
    error = None
    if written is None and models:
        error = LockError("there is no lock", hint="'mdl lock' writes it")
    elif misfits:
        reason = f"out of date: {counted(len(misfits), 'change')}"
        error = LockError(reason, item=path.name, hint="'mdl lock' writes what the catalog says now")
    rows = [_row(model.name, current) for model in models]
    return LockReport(path, misfits, tuple(rows), error=error)


def _row(name: str, lock: Lock) -> LockRow:
    locked = lock.models.get(name)
    return LockRow.of(locked) if locked else LockRow(name, locked=False)


def _lock_again(model: Model, before: Lock, context: Context) -> LockedModel:
    """A wanted model as it is to be locked: what the lock says, if it covers it and more than a bundle vouches for
    that; else what its sources say now. Raises what they raise."""
    locked = before.models.get(model.name, LockedModel(model.name, "", ()))
    asked = model
    if before.covers(model):
        if not locked.is_doubtful or context.network is None:
            return locked
        asked = before.without_bundled_facts(model)
    receipts = {receipt.path: receipt for receipt in context.store.receipts.of_model(model.name)}
    known = {file.source: file for file in locked.files}
    return replace(_resolve(asked, context, receipts, known), entry=entry_of(model))


def _resolve(
    model: Model,
    context: Context,
    receipts: Mapping[RelPath, Receipt] = MappingProxyType({}),
    known: Mapping[str, LockedFile] = MappingProxyType({}),
) -> LockedModel:
    """The model as its sources have it now. A file whose digest nobody publishes has that of what came first: by its
    receipt, or by what is ``known`` of it, by its source. Raises what the sources raise."""
    mirrors = {file.path: file.mirrors for file in model.files}
    resolved = context.resolver.resolve(model)
    files = []
    for remote in resolved.files:
        file = LockedFile.of(remote, mirrors.get(remote.path, ()))
        if remote.digest is None:
            file = _trusted_first(file, remote, known.get(file.source), receipts.get(file.path))
        files.append(file)
    left_out = [LeftOutFile(str(file.path), file.size) for file in resolved.left_out]
    return LockedModel(model.name, entry_of(model), tuple(files), tuple(left_out))


def _trusted_first(
    file: LockedFile, remote: RemoteFile, known: LockedFile | None, receipt: Receipt | None
) -> LockedFile:
    """The file with the digest that came first, as the lock knows it or else its receipt."""
    if known is not None and known.vouched_by != "lock" and known.size == file.size:
        return known
    if receipt is not None and receipt.matches(remote):
        return file.trusted_first(receipt.digest, file.size)
    return file
