"""outdated: what of each model is on this disk, what is locked, and what is newest at its source. Writes nothing."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Literal

from mdl.catalog.choice_of_weights import Chosen, choose
from mdl.catalog.lock import Lock
from mdl.catalog.model import CatalogFile, Model
from mdl.catalog.resolver import Resolved, Resolver
from mdl.context import Context
from mdl.downloader.plan import Item, Plan, Reason, Wanted
from mdl.downloader.store import Store
from mdl.errors import MdlError, whole_error
from mdl.files import LocalFile, Receipt, RemoteFile
from mdl.formatting import utc_time
from mdl.reports import BaseReport
from mdl.sources import Origin
from mdl.sources.hub_origin import HubOrigin
from mdl.values import value_class

State = Literal["current", "outdated", "pinned", "missing", "unknown", "failed"]
Change = Literal["new", "changed", "missing", "partial", "edited", "unread"]


@value_class
class FileChange:
    """A file that is not here as its source has it. It is ``new`` there or ``changed`` there, ``missing`` or
    ``partial`` here, ``edited`` here after mdl wrote it, or ``unread``: another program put it here.
    ``bytes_to_fetch`` is 0 if the same bytes are elsewhere on this disk."""

    path: str
    change: Change
    size: int | None
    bytes_to_fetch: int


@value_class
class ModelVersion:
    """The versions of one model. ``here``, ``locked`` and ``newest`` are commits; none for a source without commits.

    ``state`` is ``current``; ``outdated`` if its source has moved, or not all of it is here; ``pinned`` if its entry
    names commits or digests, which cannot move; ``missing`` if nothing is here; ``unknown`` if nobody can be asked, as
    for what was imported or trained; ``failed`` if its source could not be asked. ``revision`` is the branch or tag
    that it follows. ``here_at`` and ``newest_at`` are ISO 8601 in UTC: when its last file came, and when its source
    changed, if that is known. ``files`` counts those of the newest version, ``changes`` has those that differ.
    """

    name: str
    state: State
    revision: str | None = None
    here: tuple[str, ...] = ()
    here_at: str | None = None
    locked: tuple[str, ...] = ()
    newest: tuple[str, ...] = ()
    newest_at: str | None = None
    files: int | None = None
    changes: tuple[FileChange, ...] = ()
    error: MdlError | None = None

    @property
    def has_moved(self) -> bool:
        """Whether its source has something else than what is here, or than what is locked."""
        return self.state == "outdated" or bool(self.locked and self.newest and self.locked != self.newest)

    @property
    def bytes_to_fetch(self) -> int:
        """Bytes that `update` would fetch."""
        return sum(change.bytes_to_fetch for change in self.changes)


@value_class
class OutdatedReport(BaseReport):
    """The versions of each model, and the one ``error`` that stands for all that could not be asked."""

    models: tuple[ModelVersion, ...] = ()

    @property
    def error(self) -> MdlError | None:
        """The one error for all models that could not be asked; None if there is none."""
        failed = [(one.name, one.error) for one in self.models if one.error]
        if not failed:
            return None
        what = failed[0][0] if len(failed) == 1 else f"{len(failed)} of {len(self.models)} models"
        return whole_error(f"{what} could not be asked", [error for _, error in failed])


def outdated(models: Sequence[Model], context: Context, lock: Lock, *, beyond_pins: bool = False) -> OutdatedReport:
    """Ask the sources of ``models`` for what is newest; each branch takes one request or two.

    With ``beyond_pins`` a pinned commit is compared with the newest one of the default branch. The ``context`` must
    resolve past the lock. What cannot be asked is in the report. Raises `StateError`, `StorageError`, `Cancelled`.
    """
    resolver = context.resolver
    wanted = {one.name: _beyond_pins(one, resolver) if beyond_pins else one for one in models if _has_source(one)}
    answers = dict(zip(wanted, resolver.resolve_all(list(wanted.values())), strict=True))
    rows = []
    for model in models:
        row = _known(model, context, lock)
        if model.name in wanted:
            branches = dict.fromkeys(filter(None, _followed(model, resolver)))
            stays = is_pinned(model, resolver)
            row = replace(row, revision=", ".join(branches) or None)
            row = _compared(row, answers[model.name], context, stays=stays, is_beyond=stays and beyond_pins)
            row = replace(row, newest_at=resolver.modified_at(wanted[model.name]) if row.newest else None)
        rows.append(row)
    return OutdatedReport(tuple(rows))


def _known(model: Model, context: Context, lock: Lock) -> ModelVersion:
    """What is known of the versions of a model without asking anybody."""
    receipts = context.store.receipts.in_order(model.name)
    locked = lock.models.get(model.name) if model.is_of_catalog else None
    newest = max((receipt.stamp.mtime_ns for receipt in receipts), default=None)
    return ModelVersion(
        model.name,
        "unknown",
        here=versions_here(receipts),
        here_at=utc_time(None if newest is None else newest // 10**9),
        locked=_commits(one.revision for one in locked.files) if locked else (),
    )


def _compared(
    row: ModelVersion, found: Resolved | MdlError, context: Context, *, stays: bool, is_beyond: bool
) -> ModelVersion:
    """The row with what is newest, and how that differs from what is here and from what is locked."""
    try:
        if isinstance(found, MdlError):
            raise found
        found.raise_for_errors()
        files = context.store.apart(row.name, found.files)
        wanted = [Wanted(row.name, one, _local(row.name, one, context.store)) for one in files]
    except MdlError as error:
        return replace(row, state="failed", error=error.on(row.name))
    newest = _commits(one.commit for one in found.files)
    plan = Plan.of(wanted)
    changes = tuple(_change(item, context) for item in (*plan.fetch, *plan.refuse))
    if not changes:
        row = replace(row, here=newest)  # bytes that did not change belong to both commits
    state: State = "pinned" if stays else "current"
    if row.here_at is None and all(one.local.kind == "absent" for one in wanted):
        state = "missing"
    elif not is_beyond and (changes or (row.locked and row.locked != newest)):
        state = "outdated"
    changes = tuple(sorted(changes, key=lambda change: change.path))
    return replace(row, state=state, newest=newest, files=len(found.files), changes=changes)


def _local(model: str, remote: RemoteFile, store: Store) -> LocalFile:
    """What is here of a file. One that was touched since mdl wrote it is read: it is edited only if its bytes are
    others."""
    found = store.quick_check(model, remote)
    return store.check(model, remote, found=found) if found.is_edited else found


def _change(item: Item, context: Context) -> FileChange:
    """How a file differs from the one at its source."""
    remote = item.remote
    local = item.local
    copies = context.local_copies
    to_fetch = max(0, (remote.size or 0) - local.partial)
    kind: Change = "changed"
    if item.refused:
        kind = "edited" if local.receipt else "unread"
        to_fetch = 0
    elif item.reason == Reason.UNFINISHED or (local.kind == "absent" and local.partial):
        kind = "partial"
    elif local.kind == "absent":
        kind = "missing" if local.receipt else "new"
    if copies and to_fetch and copies.predict(item):
        to_fetch = 0
    return FileChange(remote.path.text, kind, remote.size, to_fetch)


def _commits(found: Iterable[str | None]) -> tuple[str, ...]:
    return tuple(sorted({commit for commit in found if commit}))


def versions_here(receipts: Iterable[Receipt]) -> tuple[str, ...]:
    """The commits that the files of a model came from."""
    return _commits(receipt.commit for receipt in receipts)


def is_pinned(model: Model, resolver: Resolver) -> bool:
    """Whether its entry names commits or digests alone, so that it cannot move."""
    return next(_followed(model, resolver), None) is None


def _has_source(model: Model) -> bool:
    return bool(model.sources or model.files)


def _followed(model: Model, resolver: Resolver) -> Iterator[str]:
    """The branch of each source that can move; '' for one that has none."""
    for origin in model.sources:
        if origin.branch or not origin.repository:
            yield origin.branch
    for file in model.files:
        origin = resolver.origin(file)
        if origin.branch or (not origin.repository and file.digest is None):
            yield origin.branch


def _beyond_pins(model: Model, resolver: Resolver) -> Model:
    """The model with the default branch in the place of each commit that its entry names."""

    def on_main(origin: Origin) -> Origin:
        return origin if origin.branch or not origin.repository else origin.at("main")

    files = []
    for file in model.files:
        origin = resolver.origin(file)
        moved = on_main(origin)
        files.append(file if moved == origin else CatalogFile(file.path, str(moved), role=file.role))
    return replace(model, sources=tuple(map(on_main, model.sources)), files=tuple(files))


def by_receipts(model: Model, receipts: Sequence[Receipt], wanted: frozenset[str], resolver: Resolver) -> Model:
    """A model that no catalog has, with the source that its receipts name; as it is if they name none.

    Of a repository of which only a part was fetched, only that part is wanted, and what the last download left: the
    paths ``wanted``. A URL with a query was not kept whole, so it cannot be asked again.
    """
    if _has_source(model) or not receipts:
        return model
    last = receipts[-1].hub
    if last is None:
        urls = ("http://", "https://", "s3://")
        files = [CatalogFile(one.path, one.url) for one in receipts if one.url.startswith(urls) and not one.asked]
        return replace(model, files=tuple(files) if len(files) == len(receipts) else ())
    branch = "" if last.branch == "main" else last.branch
    revision = branch or (None if last.branch else last.revision)
    origin = HubOrigin(last.repo, last.repo_type, revision, endpoint=last.endpoint)
    here = {one.hub.path for one in receipts if one.hub} | wanted
    listed = resolver.source(origin).known(replace(origin, revision=last.revision)) or ()
    usual = choose(listed) if origin.is_model_repository else Chosen(tuple(listed))
    is_whole = bool(listed) and {file.path.text for file in usual.files} <= here
    if is_whole:
        include: tuple[str, ...] = ("*",) if usual.quantisations else ()  # nobody has to choose: all of them are here
    else:
        include = tuple(map(glob.escape, sorted(here)))
    return replace(model, sources=(origin,), include=include)
