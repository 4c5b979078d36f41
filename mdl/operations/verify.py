"""verify: read what is on disk again and compare it with what it should be; fetch what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mdl.catalog.model import Model
from mdl.catalog.resolver import Resolver
from mdl.engine.plan import Plan, Wanted
from mdl.engine.status import is_verified
from mdl.engine.store import Store
from mdl.errors import DigestMismatch, LockError, MdlError, NotFound
from mdl.events import Listener, Verifying
from mdl.files import LocalFile, Receipt, RemoteFile
from mdl.hashing import Digest
from mdl.operations.tools import Tools, adopt_kept, model_locks, wait_for_others
from mdl.reports import VerifiedFile, VerifyReport

if TYPE_CHECKING:
    from mdl.engine.transfer import Result
    from mdl.http.client import HttpClient

_WRONG = ("corrupt", "missing")
_NAMED = 5
"""How many files one error names."""


@dataclass(frozen=True)
class Checked:
    """One file with its verdict; see `VerifiedFile`."""

    model: str
    remote: RemoteFile
    local: LocalFile
    status: str
    expected: str | None
    actual: str | None

    @property
    def verdict(self) -> VerifiedFile:
        return VerifiedFile(self.remote.path.text, self.status, self.expected, self.actual)


def verify(
    models: Sequence[Model],
    tools: Tools,
    *,
    connect: Callable[[Sequence[str]], HttpClient | None] | None = None,
    force: bool = False,
    strict: bool = False,
) -> VerifyReport:
    """Read every file of ``models`` again and compare it with its digest.

    ``connect`` asks for a repair: if anything is wrong it is given the URLs that are needed, and returns the client to
    fetch them with; None if that is not possible because mdl is offline. ``force`` lets a repair replace files that
    are not mdl's; with ``strict`` a file without a published digest counts as corrupt. What fails for one file hinders
    no other. Raises `Busy`, `StorageError`, `Cancelled`.
    """
    rows: list[Checked] = []
    errors: dict[str, MdlError] = {}
    for model in models:
        try:
            rows += check(model, tools)
        except MdlError as error:
            errors[model.name] = error.on(model.name)
    wrong, fetched = sorted({row.model for row in rows if row.status in _WRONG}), None
    if connect and wrong:
        http = connect([row.remote.url for row in rows])
        if http is None:
            hint = "run it again online, without --offline and HF_HUB_OFFLINE"
            errors |= {name: LockError("wrong or missing here, and offline", item=name, hint=hint) for name in wrong}
        else:
            with http, model_locks(models, tools):
                fetched = repair(rows, tools, http, force=force, errors=errors).bytes_fetched
                again = [row for model in models if model.name in wrong for row in check(model, tools)]
                _settle(again, tools.store)
                rows = [row for row in rows if row.model not in wrong] + again
    failure = _failure(rows, strict=strict)
    found = {model.name: tuple(row.verdict for row in rows if row.model == model.name) for model in models}
    return VerifyReport(found, (*errors.values(), *([failure] if failure else [])), fetched)


def check(model: Model, tools: Tools) -> list[Checked]:
    """Hash every file of the model. A corrupt one is distrusted from now on.

    Raises `NotFound` if nothing of the model is known here, `StorageError`.
    """
    rows, store = [], tools.store
    for remote in _expected(model, tools.resolver, store):
        row = _check_one(model.name, remote, store, tools.on_event)
        if row.status == "corrupt":
            store.receipts.distrust(model.name, remote.path)
        rows.append(row)
    return rows


def _expected(model: Model, resolver: Resolver, store: Store) -> list[RemoteFile]:
    """What should be here: by the catalog and kept listings, else by the receipts alone."""
    known = resolver.known(model)
    if known is not None:
        return known
    receipts = store.receipts.of_model(model.name)
    if not receipts:
        raise NotFound("not on this disk", item=model.name, hint=f"mdl get {model.name}")
    return [_from_receipt(receipt) for receipt in receipts]


def _from_receipt(receipt: Receipt) -> RemoteFile:
    digest = receipt.digest if is_verified(receipt.verified) else None
    return replace(receipt.remote, digest=digest, validator=receipt.validator, commit=receipt.commit, probed=True)


def _check_one(model: str, remote: RemoteFile, store: Store, on_event: Listener) -> Checked:
    on_event(Verifying(model, remote.path.text, done=0, total=remote.size))
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


def repair(
    rows: Sequence[Checked], tools: Tools, http: HttpClient, *, force: bool, errors: dict[str, MdlError]
) -> Result:
    """Fetch what is wrong; of a damaged file only the blocks that are wrong, if its receipt has prefix digests. What
    fails is put into ``errors``. Raises `Busy`, `Cancelled`."""
    from mdl.engine.transfer import Transfer

    plan = _repair_plan(rows, tools.store, force=force)
    for item in plan.refuse:
        if (refused := item.refused) is not None:
            refused.item = f"{item.wanted.model}/{item.remote.path}"
            errors[refused.item] = refused
    adopt_kept(plan, tools.store)
    wait_for_others(plan.fetch, tools)
    result = Transfer(plan.fetch, tools.store, http, tools.on_event, repair=True, tuning=tools.tuning).run()
    for outcome in result.outcomes:
        if outcome.error:
            name = f"{outcome.download.model}/{outcome.download.name}"
            errors[name] = outcome.error.on(name)
    return result


def _repair_plan(rows: Sequence[Checked], store: Store, *, force: bool) -> Plan:
    """What of the corrupt and missing files is fetched, and what is refused: a stranger's file, without ``force``."""
    wanted = []
    for row in rows:
        if row.status not in _WRONG:
            continue
        receipt = store.receipts.get(row.model, row.remote.path)
        digest = row.remote.digest or (receipt.digest if receipt else None)
        size = row.remote.size if row.remote.size is not None else (receipt.stamp.size if receipt else None)
        wanted.append(Wanted(row.model, replace(row.remote, digest=digest, size=size), row.local))
    return Plan.of(wanted, force=force, repair=True)


def _settle(rows: Sequence[Checked], store: Store) -> None:
    """Note of every model that is whole that it is, after a repair. Raises `OSError`."""
    for model in {row.model for row in rows}:
        files = [row for row in rows if row.model == model]
        if all(row.status in ("ok", "unverified") for row in files):
            store.layout.mark_complete([row.remote for row in files], is_news=False)


def _failure(rows: Sequence[Checked], *, strict: bool) -> MdlError | None:
    """The one error for what is wrong: `DigestMismatch` if anything is corrupt (or, with ``strict``, unverified), else
    `NotFound` if anything is missing; None if all is well."""
    statuses = {row.status for row in rows}
    if "corrupt" in statuses or (strict and "unverified" in statuses):
        kind: type[MdlError] = DigestMismatch
    elif "missing" in statuses:
        kind = NotFound
    else:
        return None
    bad = [row for row in rows if row.status in (*_WRONG, "unverified")]
    names = ", ".join(f"{row.model}/{row.remote.path} ({row.status})" for row in bad[:_NAMED])
    more = f" and {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
    return kind(f"{names}{more}", hint="mdl verify --repair fetches what is wrong")
