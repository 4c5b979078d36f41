"""update: bring models to their newest version.

It is two steps that each may be run alone: the models are locked again, then their files are fetched. If mdl is killed
in between, the next `get` finishes, because it fetches what the lock says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from mdl.catalog.model import Model
from mdl.catalog.resolver import Resolver
from mdl.downloader.store import Store
from mdl.errors import MdlError
from mdl.ops.get import GetRequest
from mdl.ops.outdated import commits_of, is_pinned, versions_here
from mdl.reports import ModelReport, Report
from mdl.values import value_class


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
