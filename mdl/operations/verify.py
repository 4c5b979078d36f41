"""Verify: read what is on disk again and hold it against what it should be; repair what is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mdl.catalog.model import Model
from mdl.engine.plan import Plan, Wanted
from mdl.engine.store import Store
from mdl.errors import MdlError, NotFound
from mdl.events import Listener, Verifying, silence
from mdl.files import LocalFile, Receipt, RemoteFile
from mdl.hashing import Digest
from mdl.operations.course import adopt_kept, wait_for_others
from mdl.sources import Sources

if TYPE_CHECKING:
    from mdl.engine.transfer import Result
    from mdl.http.client import Http


@dataclass(frozen=True)
class Checked:
    """One file's verdict: ``ok``, ``corrupt``, ``missing`` or ``unverified`` (as it came, but no published hash
    is known to hold it against). ``expected`` and ``actual`` are digests as text."""

    model: str
    remote: RemoteFile
    local: LocalFile
    status: str
    expected: str | None
    actual: str | None


def check(model: Model, *, sources: Sources, store: Store, tell: Listener = silence) -> list[Checked]:
    """Re-hash every file of the model. A corrupt one is distrusted from now on.

    Raises `NotFound` where nothing of the model is known here, `StorageError`.
    """
    rows = []
    for remote in _expected(model, sources, store):
        row = _check_one(model.name, remote, store, tell)
        if row.status == "corrupt":
            store.receipts.distrust(model.name, remote.path)
        rows.append(row)
    return rows


def _expected(model: Model, sources: Sources, store: Store) -> list[RemoteFile]:
    """What should be here: by the catalog and kept listings, else by the receipts alone."""
    known = sources.known(model)
    if known is not None:
        return known
    receipts = store.receipts.of_model(model.name)
    if not receipts:
        raise NotFound("not on this disk", item=model.name, hint=f"mdl get {model.name}")
    return [_from_receipt(receipt) for receipt in receipts]


def _from_receipt(receipt: Receipt) -> RemoteFile:
    digest = receipt.digest if receipt.verified not in ("size", "none") else None
    return replace(receipt.remote, digest=digest, validator=receipt.validator, commit=receipt.commit, probed=True)


def _check_one(model: str, remote: RemoteFile, store: Store, tell: Listener) -> Checked:
    tell(Verifying(model, remote.path.text, done=0, total=remote.size))
    receipt = store.receipts.get(model, remote.path)
    published = remote.digest
    wanted = published or (receipt.digest if receipt else None)
    asked = replace(remote, digest=wanted)
    local = store.check(model, asked, deep=True)
    expected = str(wanted) if wanted else None
    if local.kind == "absent":
        return Checked(model, remote, local, "missing", expected, None)
    if local.fingerprint is None:
        return Checked(model, remote, local, "corrupt", expected, local.why or None)
    actual: Digest = local.fingerprint.digest
    wrong_size = remote.size is not None and local.fingerprint.size != remote.size
    if wrong_size or (wanted and actual != wanted):
        return Checked(model, remote, local, "corrupt", expected, str(actual))
    if (found := store.pointer_state(model, asked)) != "right":
        return Checked(model, remote, local, "corrupt" if found == "other" else "missing", expected, None)
    return Checked(model, remote, local, "ok" if published else "unverified", expected, str(actual))


def mending(rows: Sequence[Checked], store: Store, *, force: bool = False) -> Plan:
    """What of the corrupt and missing files is fetched, and what is refused: a stranger's file, without ``force``."""
    wanted = []
    for row in rows:
        if row.status not in ("corrupt", "missing"):
            continue
        receipt = store.receipts.get(row.model, row.remote.path)
        digest = row.remote.digest or (receipt.digest if receipt else None)
        size = row.remote.size if row.remote.size is not None else (receipt.stamp.size if receipt else None)
        wanted.append(Wanted(row.model, replace(row.remote, digest=digest, size=size), row.local))
    return Plan.of(wanted, force=force, repair=True)


def repair(plan: Plan, *, store: Store, http: Http, tell: Listener, lock_wait: float = 0.0) -> Result:
    """Fetch what a `mending` says; of a damaged file only the blocks that are wrong, where its receipt has prefix
    digests. Others that have these files in hand are waited for, ``lock_wait`` seconds. Raises `Cancelled`."""
    from mdl.engine.transfer import transfer

    adopt_kept(plan, store)
    wait_for_others(plan.fetch, store, lock_wait, tell)
    return transfer(plan.fetch, store, http, tell, repair=True)


def settle(rows: Sequence[Checked], store: Store) -> None:
    """Note of every model that is whole that it is, after a repair. Raises `OSError`."""
    for model in {row.model for row in rows}:
        files = [row for row in rows if row.model == model]
        if all(row.status in ("ok", "unverified") for row in files):
            store.mark_complete([row.remote for row in files], is_news=False)


def verdict(rows: Sequence[Checked], *, strict: bool) -> int:
    """The exit code: 6 where anything is corrupt (or, with ``strict``, unverified), else 3 where anything is
    missing, else 0."""
    statuses = {row.status for row in rows}
    if "corrupt" in statuses or (strict and "unverified" in statuses):
        return 6
    return NotFound.exit_code if "missing" in statuses else 0


def failure(rows: Sequence[Checked], code: int) -> MdlError | None:
    """The one error that stands for all, or None."""
    bad = [row for row in rows if row.status in ("corrupt", "missing", "unverified")]
    if not code or not bad:
        return None
    names = ", ".join(f"{row.model}/{row.remote.path} ({row.status})" for row in bad[:5])
    more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
    from mdl.errors import DigestMismatch

    kind = DigestMismatch if code == DigestMismatch.exit_code else NotFound
    return kind(f"{names}{more}", hint="mdl verify --repair fetches what is wrong")
