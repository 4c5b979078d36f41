"""Report: a plan, and what became of it, as the `Report` that the caller gets."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from mdl.catalog.model import Model
from mdl.context import verified_by
from mdl.downloader.plan import Item, Plan
from mdl.downloader.store import Store
from mdl.errors import STOPPED, MdlError
from mdl.files import RemoteFile, is_verified
from mdl.hashing import Digest
from mdl.local.status import joint_status
from mdl.paths import RelPath
from mdl.redact import bare_url
from mdl.reports import FileReport, ModelReport, Report

if TYPE_CHECKING:
    from mdl.downloader.download import FileResult
    from mdl.downloader.transfer import Result


def report_of(
    models: Sequence[Model],
    store: Store,
    plan: Plan,
    broken: Mapping[str, MdlError],
    results: Sequence[Result] = (),
    *,
    is_planned: bool = False,
) -> Report:
    """What was kept, linked, refused and fetched, by model; ``broken`` models failed before, or some of their
    sources did.

    With ``is_planned`` nothing was done: what the plan would fetch and link is in the report too.
    """
    rows: defaultdict[str, list[FileReport]] = defaultdict(list)
    for item, row in kept_and_refused(plan):
        rows[item.wanted.model].append(row)
    linked = plan.linked + plan.repeated if is_planned else plan.linked
    for item in linked:
        row = _row(item.remote, "linked", item.remote.hash_algorithm)
        if is_planned:
            row = replace(_planned(item), elsewhere=True)
        rows[item.wanted.model].append(replace(row, way=item.way))
    if is_planned:
        for item in plan.fetch:
            rows[item.wanted.model].append(_planned(item))
    for name, refused in plan.unkept:
        row = FileReport(refused.path, refused.size, None, "failed", "none", url=refused.url, error=refused.error)
        rows[name].append(row)
    for result in results:
        for file in result.files:
            rows[file.item.wanted.model].append(_fetched(file))
    return Report(
        tuple(model_report(model, store, rows[model.name], broken.get(model.name)) for model in models),
        bytes_fetched=sum(result.bytes_fetched for result in results),
        bytes_kept=plan.bytes_kept,
        bytes_discarded=sum(result.bytes_discarded for result in results),
    )


def model_report(model: Model, store: Store, rows: Iterable[FileReport], error: MdlError | None = None) -> ModelReport:
    """How one model went, from how its files went; ``error`` if it failed before any of them."""
    files = tuple(sorted(rows, key=attrgetter("path")))
    status = joint_status(map(_status, files), is_complete=error is None)
    folder = store.folder(model.name)
    file = None
    if model.is_one_file([row.path for row in files]) and not files[0].error:
        file = RelPath(files[0].path).under(folder)
    return ModelReport(model.name, folder, status, files, error, file)


def kept_and_refused(plan: Plan) -> Iterator[tuple[Item, FileReport]]:
    """The files of which nothing is fetched, and how they went."""
    for item in plan.keep:
        yield item, _kept(item)
    for item in plan.refuse:
        yield item, _failed(item.remote, item.refused)


def _status(row: FileReport) -> str:
    if row.action not in ("fetched", "kept", "linked"):
        return "missing"
    return "present" if is_verified(row.verified) else "unverified"


def _row(remote: RemoteFile, action: str, verified: str = "none", **more: Any) -> FileReport:
    """``more`` are further fields, and those of which something else is known than what the source says."""
    known = {"size": remote.size, "sha256": _sha256(remote.digest), "commit": remote.commit}
    return FileReport(remote.path.text, action=action, verified=verified, url=bare_url(remote.url), **known | more)


def _kept(item: Item) -> FileReport:
    sha256 = _sha256(item.remote.digest)
    if sha256 is None and item.local.receipt:
        sha256 = item.local.receipt.digest.sha256
    return _row(item.remote, "kept", verified_by(item), size=item.local.size, sha256=sha256)


def _planned(item: Item) -> FileReport:
    return _row(item.remote, "planned", resumed_at=item.bytes_here)


def _failed(remote: RemoteFile, error: MdlError | None, resumed_at: int = 0) -> FileReport:
    """A file that did not come. One that a stop came before has not failed: the next run fetches it."""
    if error and error.exit_code in STOPPED:
        return _row(remote, "planned", resumed_at=resumed_at)
    return _row(remote, "failed", error=error, resumed_at=resumed_at)


def _fetched(file: FileResult) -> FileReport:
    if file.error:
        return _failed(file.remote, file.error, file.resumed_at)
    known: dict[str, Any] = {"size": file.size, "sha256": _sha256(file.digest), "resumed_at": file.resumed_at}
    return _row(file.remote, "fetched", file.verified, **known)


def _sha256(digest: Digest | None) -> str | None:
    return digest.sha256 if digest else None
