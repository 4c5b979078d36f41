"""Reports: how a plan was carried out, as values: file by file, model by model. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from mdl.catalog.model import Model
from mdl.engine.plan import Item, Plan
from mdl.engine.store import Store
from mdl.errors import MdlError, joint_exit_code
from mdl.events import FileReport, ModelReport, Report
from mdl.files import RemoteFile
from mdl.redact import bare_url

if TYPE_CHECKING:
    from mdl.engine.transfer import Outcome


def kept_verified(item: Item) -> str:
    """What a file that was there already is held against."""
    if item.remote.digest:
        return item.remote.digest.algorithm
    return item.local.receipt.verified if item.local.receipt else "none"


def report_of(
    models: Sequence[Model],
    store: Store,
    plan: Plan,
    outcomes: Sequence[Outcome],
    broken: dict[str, MdlError],
    *,
    planned: bool = False,
) -> Report:
    """The whole as it stands: what was kept, refused and fetched of ``plan``; ``broken`` models failed before it.

    ``planned`` reports what would be fetched instead.
    """
    files: dict[str, list[FileReport]] = {model.name: [] for model in models}
    for item in plan.keep:
        files[item.wanted.model].append(_kept_report(item))
    for item in plan.linked:
        row = replace(_planned_report(item), elsewhere=True, way=item.way) if planned else _linked_report(item)
        files[item.wanted.model].append(row)
    for item in plan.refuse:
        files[item.wanted.model].append(_failed_report(item, item.refused))
    if planned:
        for item in plan.fetch:
            files[item.wanted.model].append(_planned_report(item))
    for outcome in outcomes:
        files[outcome.download.model].append(_outcome_report(outcome))
    reports, codes = [], []
    for model in models:
        rows = tuple(sorted(files[model.name], key=lambda row: row.path))
        error = broken.get(model.name)
        codes += [row.error["exit_code"] for row in rows if row.error] + ([error.exit_code] if error else [])
        reports.append(
            ModelReport(
                model.name,
                str(store.folder(model.name)),
                _status(rows, error),
                rows,
                error.facts() if error else None,
            )
        )
    return Report(tuple(reports), exit_code=joint_exit_code(codes))


def _status(rows: Sequence[FileReport], error: MdlError | None) -> str:
    """present, partial, missing or unverified, of one model as it stands now."""
    here = [row for row in rows if row.action in ("fetched", "kept", "linked")]
    if error or not here:
        return "missing"
    if len(here) < len(rows):
        return "partial"
    return "unverified" if any(row.verified in ("size", "none") for row in here) else "present"


def _row(remote: RemoteFile, size: int | None, sha256: str | None, action: str, verified: str) -> FileReport:
    return FileReport(remote.path.text, size, sha256, action, verified, url=bare_url(remote.url))


def _sha256(remote: RemoteFile) -> str | None:
    return remote.digest.hex if remote.digest and remote.digest.algorithm == "sha256" else None


def _kept_report(item: Item) -> FileReport:
    size = item.local.stamp.size if item.local.stamp else None
    receipt = item.local.receipt
    sha256 = _sha256(item.remote)
    if sha256 is None and receipt and receipt.digest.algorithm == "sha256":
        sha256 = receipt.digest.hex
    return _row(item.remote, size, sha256, "kept", kept_verified(item))


def _linked_report(item: Item) -> FileReport:
    assert item.remote.digest is not None
    row = _row(item.remote, item.remote.size, _sha256(item.remote), "linked", item.remote.digest.algorithm)
    return replace(row, way=item.way)


def _planned_report(item: Item) -> FileReport:
    row = _row(item.remote, item.remote.size, _sha256(item.remote), "planned", "none")
    return replace(row, resumed_at=item.local.partial)


def _failed_report(item: Item, error: MdlError | None) -> FileReport:
    row = _row(item.remote, item.remote.size, _sha256(item.remote), "failed", "none")
    return replace(row, error=error.facts() if error else None)


def _outcome_report(outcome: Outcome) -> FileReport:
    download = outcome.download
    if outcome.error:
        row = _failed_report(download.item, outcome.error)
        return replace(row, resumed_at=download.resumed_at)
    print_ = download.fingerprint
    assert print_ is not None
    sha256 = print_.digest.hex if print_.digest.algorithm == "sha256" else None
    row = _row(download.remote, print_.size, sha256, "fetched", outcome.verified)
    return replace(row, resumed_at=download.resumed_at)
