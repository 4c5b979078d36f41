"""outdated and update: what of each model is here, what is locked, and what is newest at its source; and bringing that.

An update is two steps that each may be run alone: the models are locked again, then their files are fetched. If mdl is
killed in between, the next `get` finishes, because it fetches what the lock says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import field, replace
from operator import attrgetter
from typing import Literal

from mdl.catalog.lock import Lock
from mdl.catalog.model import Model
from mdl.catalog.resolver import Resolved, Resolver
from mdl.context import Context
from mdl.downloader.plan import Item, Plan, Reason, Wanted
from mdl.downloader.store import Store
from mdl.errors import MdlError, whole_error
from mdl.files import Receipt
from mdl.formatting import utc_time
from mdl.local.on_disk import cached_commits, look_at
from mdl.notebook import Tabular
from mdl.ops.get import GetRequest
from mdl.reports import BaseReport, ModelReport, Report
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
class ModelVersion(Tabular):
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
        """Whether its source has something else than what is here, or than what is locked. What was removed or edited
        here is no move of the source."""
        if self.newest:
            return self.is_lock_behind or (self.state == "outdated" and self.here != self.newest)
        return any(change.change in ("new", "changed") for change in self.changes) and self.state == "outdated"

    @property
    def is_lock_behind(self) -> bool:
        """Whether the lock has other commits than its source."""
        return () not in (self.locked, self.newest) and self.locked != self.newest

    @property
    def is_only_edited(self) -> bool:
        """Whether it has what its source has, but for files that were edited here."""
        return bool(self.changes) and not self.has_moved and all(change.change == "edited" for change in self.changes)

    @property
    def bytes_to_fetch(self) -> int:
        """Bytes that `update` would fetch."""
        return sum(change.bytes_to_fetch for change in self.changes)


@value_class
class OutdatedReport(BaseReport):
    """The versions of each model, and the one ``error`` that stands for all that could not be asked. ``labels`` are the
    names of models as people write them."""

    models: tuple[ModelVersion, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    @property
    def error(self) -> MdlError | None:
        """The one error for all models that could not be asked; None if there is none."""
        failed = [version for version in self.models if version.error is not None]
        errors = [version.error for version in failed if version.error is not None]
        if not errors:
            return None
        if len(errors) == 1:
            return errors[0].but(item=failed[0].name)
        return whole_error(f"{len(errors)} of {len(self.models)} models: mdl cannot know what is newest", errors)


# What is newest.


def outdated(context: Context, models: Sequence[Model], lock: Lock) -> OutdatedReport:
    """Ask the sources of ``models`` for what is newest; each branch takes one request or two. Nothing is written.

    The ``context`` must resolve past the lock. What cannot be asked is in the report. Raises `StateError`,
    `StorageError`, `Cancelled`.
    """
    asked = {model.name: model for model in models if model.has_source}
    answers = dict(zip(asked, context.resolver.resolve_all(list(asked.values())), strict=True))
    versions: list[ModelVersion] = []
    for model in models:
        version = _known_version(model, context, lock)
        if model.name in answers:
            version = _asked_version(version, model, answers[model.name], context)
        versions.append(version)
    return OutdatedReport(tuple(versions), {model.name: _label(model) for model in models})


def _label(model: Model) -> str:
    """The name of a model as people write it, with the revision if it does not follow the usual branch: so `update`
    means the same."""
    if model.is_of_catalog or model.target == f"hf:{model.label}":
        return model.label
    return model.target


def _known_version(model: Model, context: Context, lock: Lock) -> ModelVersion:
    """The versions of a model as far as they are known without asking anybody."""
    receipts = context.store.receipts.in_order(model.name)
    here_at = None
    if receipts:
        here_at = utc_time(max(receipt.stamp.mtime_ns for receipt in receipts) // 10**9)
    locked: tuple[str, ...] = ()
    if model.is_of_catalog and model.name in lock.models:
        locked = tuple(lock.models[model.name].commits)
    here = versions_here(receipts) or commits_of(cached_commits(model, context.store))
    return ModelVersion(model.name, "unknown", here=here, here_at=here_at, locked=locked)


def _asked_version(version: ModelVersion, model: Model, answer: Resolved | MdlError, context: Context) -> ModelVersion:
    """The version with what is newest, and how that differs from what is here and from what is locked."""
    branches = _followed_branches(model, context.resolver)
    revision = ", ".join(dict.fromkeys(filter(None, branches)))
    version = replace(version, revision=revision or None)
    store = context.store
    wanted: list[Wanted] = []
    try:
        if isinstance(answer, MdlError):
            raise answer
        answer.raise_for_errors()
        for remote in store.apart(model.name, answer.files):
            wanted.append(Wanted(model.name, remote, look_at(store, model.name, remote)))
    except MdlError as error:
        return replace(version, state="failed", error=error.on(model.name))
    plan = Plan.of(wanted)
    changes: list[FileChange] = []
    for item in (*plan.fetch, *plan.refuse):
        if not _is_named_by_version(item, store):
            changes.append(_change(item, context))
    changes.sort(key=attrgetter("path"))
    newest = commits_of(remote.commit for remote in answer.files)
    is_known_here = bool(version.here or version.here_at)
    is_any_here = is_known_here or any(file.local.kind != "absent" for file in wanted)
    state: State = "current"
    if not is_any_here:
        state = "missing"
    elif changes or version.locked not in ((), newest):
        state = "outdated"
    elif not branches:
        state = "pinned"
    return replace(
        version,
        state=state,
        here=version.here if changes else newest,  # bytes that did not change belong to both commits
        newest=newest,
        newest_at=context.resolver.modified_at(model) if newest else None,
        files=len(answer.files),
        changes=tuple(changes),
    )


def _is_named_by_version(item: Item, store: Store) -> bool:
    """Whether another program put this version of a file into the hub's cache, where a name says which version it has:
    that of the blob, or that of the commit's folder. `verify` reads it."""
    is_strange = item.reason is Reason.OCCUPIED and item.local.kind == "file" and item.local.receipt is None
    return store.layout.is_by_digest and is_strange and item.remote.size in (None, item.local.size)


def _change(item: Item, context: Context) -> FileChange:
    """How a file differs from the one at its source."""
    path = item.remote.path.text
    size = item.remote.size
    if item.refused:
        return FileChange(path, "edited" if item.local.receipt else "unread", size, 0)
    change: Change = "changed"
    if item.reason in (Reason.UNFINISHED, Reason.PARTIAL):
        change = "partial"
    elif item.local.kind == "absent":
        change = "missing" if item.local.receipt else "new"
    to_fetch = item.bytes_missing
    if to_fetch and context.local_copies and context.local_copies.predict(item):
        to_fetch = 0
    return FileChange(path, change, size, to_fetch)


def commits_of(commits: Iterable[str | None]) -> tuple[str, ...]:
    """Return the commits in order, each once; None is no commit."""
    return tuple(sorted({commit for commit in commits if commit}))


def versions_here(receipts: Iterable[Receipt]) -> tuple[str, ...]:
    """The commits that the files of a model came from."""
    return commits_of(receipt.commit for receipt in receipts)


# What a model follows.


def is_pinned(model: Model, resolver: Resolver) -> bool:
    """Whether its entry names commits or digests alone, so that it cannot move."""
    return not _followed_branches(model, resolver)


def _followed_branches(model: Model, resolver: Resolver) -> list[str]:
    """The branch of each source that can move; '' for one that has none."""
    branches: list[str] = []
    for origin in model.sources:
        if origin.branch or not origin.repository:
            branches.append(origin.branch)
    for file in model.files:
        origin = resolver.origin(file)
        if origin.branch or not (origin.repository or file.digest):
            branches.append(origin.branch)
    return branches


# Bringing what is newest.


@value_class
class UpdateRequest:
    """Which models are updated. ``force`` fetches every file again, and replaces files that are not mdl's."""

    models: tuple[Model, ...]
    force: bool = False


@value_class
class Move:
    """How one model was updated: its commits ``before`` and ``after``, none if its source has none; how many of its
    ``files`` are new, and their ``bytes``. A model that is ``pinned`` stays at the commit that the catalog names."""

    name: str
    before: tuple[str, ...]
    after: tuple[str, ...]
    files: int
    files_changed: int
    bytes: int
    pinned: bool


@value_class
class UpdateReport(Report):
    """How an update went: as a download, and how each model moved."""

    moves: tuple[Move, ...] = ()


def update(
    store: Store,
    resolver: Resolver,
    request: UpdateRequest,
    *,
    lock: Callable[[Sequence[str]], Mapping[str, MdlError]],
    download: Callable[[GetRequest], Report],
) -> UpdateReport:
    """Lock the models again and download what changed; return how it went.

    ``lock`` locks the models of the catalog that it is given, and returns the errors of those that cannot be resolved,
    by their names; these are not downloaded. Raises what ``lock`` and ``download`` raise.
    """
    before: dict[str, tuple[str, ...]] = {}
    pinned: set[str] = set()
    names: list[str] = []
    for model in request.models:
        before[model.name] = versions_here(store.receipts.in_order(model.name))
        if is_pinned(model, resolver):
            pinned.add(model.name)
        if model.is_of_catalog:
            names.append(model.name)
    failed = lock(names)
    models = [model for model in request.models if model.name not in failed]
    report = download(GetRequest(tuple(models), request.force))
    moves: list[Move] = []
    for row in report.models:
        if row.is_whole:
            moves.append(_move(row, before[row.name], row.name in pinned))
    broken = [ModelReport(name, store.folder(name), "missing", error=error) for name, error in failed.items()]
    return UpdateReport(**{**vars(report), "models": (*report.models, *broken)}, moves=tuple(moves))


def _move(model: ModelReport, before: tuple[str, ...], pinned: bool) -> Move:
    changed = [file for file in model.files if file.action in ("fetched", "linked")]
    return Move(
        model.name,
        before=before,
        after=commits_of(file.commit for file in model.files),
        files=len(model.files),
        files_changed=len(changed),
        bytes=sum(file.size or 0 for file in changed),
        pinned=pinned,
    )
