"""get: bring every file of some models into the store: resolve, plan, carry out, report."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from mdl.catalog.model import Model
from mdl.catalog.resolver import Resolver
from mdl.engine.adoption import remove_stale, wait_for_owners
from mdl.engine.local_copies import LocalCopies, reuse, unique_by_digest
from mdl.engine.plan import Item, Plan, Wanted
from mdl.engine.receipts import file_key, new_receipt
from mdl.engine.status import is_verified, joint_status
from mdl.engine.store import Store
from mdl.errors import AuthError, Cancelled, LockError, MdlError, NetworkError, NoSpace
from mdl.events import Failed, Finished, Listener, Noticed, Planned, Verifying, silence
from mdl.files import RemoteFile
from mdl.locks import file_lock
from mdl.pickles import head_of, is_pickle, warning
from mdl.redact import bare_url
from mdl.reports import FileReport, ModelReport, PlanReport, Report

if TYPE_CHECKING:
    from mdl.engine.download import Tuning
    from mdl.engine.hub_client import HubClient
    from mdl.engine.transfer import Outcome, Result
    from mdl.http.client import HttpClient


@dataclass(frozen=True)
class Tools:
    """What an operation works with. Without ``http`` (offline) nothing is contacted. ``lock_wait`` seconds it waits for
    another process that is at work on the same models; ``hub_client`` brings the hub's files, if one is given; what is
    among the ``local_copies`` is not fetched. ``tuning`` has the sizes and speeds of the transfer, if not the usual
    ones."""

    resolver: Resolver
    store: Store
    http: HttpClient | None = None
    lock_wait: float = 600.0
    hub_client: HubClient | None = None
    local_copies: LocalCopies | None = None
    on_event: Listener = silence
    tuning: Tuning | None = None


@dataclass
class _Resolved:
    """The files of all models, and the models that could not be resolved."""

    wanted: list[Wanted] = field(default_factory=list)
    broken: dict[str, MdlError] = field(default_factory=dict)


@dataclass
class _Decided:
    """What is to be done. Of the files that want the same bytes, ``plan`` fetches the first; ``repeated`` are the
    others, which get them from that one."""

    plan: Plan
    repeated: list[Item]

    @property
    def whole(self) -> Plan:
        return replace(self.plan, linked=(*self.plan.linked, *self.repeated))


def get(models: Sequence[Model], tools: Tools, *, force: bool = False) -> Report:
    """Bring every file of ``models`` into the store; ``force`` fetches all anew, and replaces files that are not mdl's.

    What fails for one file or model is in the report and hinders no other. Offline, what is not here is reported as
    such. Raises `NoSpace` before the first byte if the whole plan does not fit, `Busy`, and `Cancelled` (with the
    `Report` so far).
    """
    began, store = time.monotonic(), tools.store
    with model_locks(models, tools):
        resolved = _resolve(models, tools)
        decided = _reuse(_sized(Plan.of(resolved.wanted, force=force), tools), tools, force=force)
        tools.on_event(_planned(decided.whole))
        _tell_refused(decided.plan, resolved, tools.on_event)
        if tools.http is None:
            adopt_kept(decided.plan, store)
            report = _offline_report(models, decided, resolved, store)
        else:
            replace(decided.plan, linked=tuple(decided.repeated)).check_space(store.free_space())
            wait_for_others(decided.plan.fetch, tools)
            report = _Execution(models, decided, resolved.broken, tools, tools.http).run()
        _settle(report, resolved, store, is_news=tools.http is not None)
        _warn_of_pickles(report, resolved, tools)
        return replace(report, seconds=time.monotonic() - began)


def plan(models: Sequence[Model], tools: Tools, *, force: bool = False) -> PlanReport:
    """What `get` would do. Nothing is written, and no lock is taken. Raises `MdlError`."""
    began, store = time.monotonic(), tools.store
    resolved = _resolve(models, tools)
    decided = _foresee(_sized(Plan.of(resolved.wanted, force=force), tools), tools, force=force)
    whole = decided.whole
    tools.on_event(_planned(whole))
    if tools.http is None:
        report = _offline_report(models, decided, resolved, store, is_planned=True)
    else:
        report = _report(models, store, whole, [], resolved.broken, is_planned=True)
    return PlanReport(
        **{**vars(report), "seconds": time.monotonic() - began},
        bytes_to_fetch=whole.bytes_to_fetch,
        bytes_free=store.free_space(),
        bytes_total=whole.bytes_total,
        bytes_elsewhere=whole.bytes_elsewhere,
        bytes_to_copy=whole.bytes_to_copy,
    )


@contextlib.contextmanager
def model_locks(models: Sequence[Model], tools: Tools) -> Iterator[None]:
    """Hold every model's lock, always taken in one order so that two processes cannot wait for each other.

    If a lock cannot even be made (a read-only folder) the work goes on without it: whatever must be written will say
    so. What killed processes left of these models is removed. Raises `Busy` after ``tools.lock_wait`` seconds.
    """
    store, names = tools.store, sorted({model.name for model in models})
    with contextlib.ExitStack() as stack:
        for name in names:
            try:
                waiting = _waiting(tools.on_event, name)
                stack.enter_context(file_lock(store.locks, name, tools.lock_wait, waiting, store.cancel))
            except OSError:
                continue
        remove_stale(store.own, names)
        yield


def wait_for_others(items: Sequence[Item], tools: Tools) -> None:
    """Wait up to ``tools.lock_wait`` seconds for processes, also of other machines and containers, that are fetching
    these files. Raises `Busy`."""
    keys = [file_key(item.wanted.model, item.remote.path) for item in items]
    wait_for_owners(tools.store.partials, keys, tools.lock_wait, _waiting(tools.on_event), tools.store.cancel)


def _waiting(on_event: Listener, model: str = "") -> Callable[[str], None]:
    return lambda holder: on_event(Noticed(model, message=f"waiting for {holder}"))


def _resolve(models: Sequence[Model], tools: Tools) -> _Resolved:
    resolved = _Resolved()
    for model, found in zip(models, tools.resolver.resolve_all(models), strict=True):
        try:
            if isinstance(found, MdlError):
                raise found
            for remote in found:
                local = tools.store.check(model.name, remote, watch=_watch(model.name, remote, tools.on_event))
                resolved.wanted.append(Wanted(model.name, remote, local))
        except MdlError as error:
            resolved.wanted = [one for one in resolved.wanted if one.model != model.name]
            resolved.broken[model.name] = _with_note(error, model)
    return resolved


def _with_note(error: MdlError, model: Model) -> MdlError:
    """A refusal is easier to understand with what the catalog says of the model."""
    if isinstance(error, AuthError) and model.note:
        error.hint = f"{error.hint}; {model.note}" if error.hint else model.note
    return error


def _watch(model: str, remote: RemoteFile, on_event: Listener) -> Callable[[int], None]:
    """Tells of the reading of a large file that was there already, ten times at most."""
    size = remote.size or 0
    step = max(size // 10, 2**28)
    told = 0

    def watch(done: int) -> None:
        nonlocal told
        if done - told >= step:
            told = done
            on_event(Verifying(model, remote.path.text, done=done, total=size))

    return watch


def _foresee(plan: Plan, tools: Tools, *, force: bool) -> _Decided:
    """How ``plan`` will go with what seems to be elsewhere on this disk; none of it is read."""
    copies = tools.local_copies
    if copies is None:
        return _Decided(plan, [])
    foreseen = {item: None if force else copies.predict(item) for item in plan.fetch}
    linked = [found for found in foreseen.values() if found]
    return _each_once(plan, [item for item, found in foreseen.items() if not found], linked, copies)


def _sized(plan: Plan, tools: Tools) -> Plan:
    """Ask for the sizes that are unknown, of files that must be fetched. The transfer meets what fails here again, and
    tells it of the file."""
    unknown = [item for item in plan.fetch if item.remote.size is None]
    answers = zip(unknown, tools.resolver.probe_all([item.remote for item in unknown]), strict=True)
    probed = {
        (item.wanted.model, item.remote.path.text): answer
        for item, answer in answers
        if not isinstance(answer, MdlError)
    }
    plan = plan.with_sizes(probed)
    fetch = tuple(
        replace(item, wanted=replace(item.wanted, local=tools.store.quick_check(item.wanted.model, item.remote)))
        if (item.wanted.model, item.remote.path.text) in probed
        else item
        for item in plan.fetch
    )
    return replace(plan, fetch=fetch)


def _reuse(plan: Plan, tools: Tools, *, force: bool) -> _Decided:
    """Take what is elsewhere on this disk from there; what turns out to be other bytes is left to fetch.

    Raises `NoSpace` before anything is copied.
    """
    expected, copies = _foresee(plan, tools, force=force), tools.local_copies
    if copies is None or force:
        return expected
    whole = expected.whole if tools.http else replace(expected.whole, fetch=())
    if whole.bytes_to_copy:
        _check_space(whole, tools)
    linked, left = reuse(plan.fetch, copies, tools.on_event)
    return _each_once(plan, left, linked, copies)


def _each_once(plan: Plan, left: list[Item], linked: list[Item], copies: LocalCopies) -> _Decided:
    """Each digest that is ``left`` is fetched once; the items that want it again are repeated."""
    first, again = unique_by_digest(left)
    fetched = replace(plan, fetch=tuple(first), linked=(*plan.linked, *linked))
    return _Decided(fetched, [copies.predict_duplicate(item) for item in again])


def _check_space(plan: Plan, tools: Tools) -> None:
    try:
        plan.check_space(tools.store.free_space())
    except NoSpace:
        tools.on_event(_planned(plan))
        raise


class _Execution:
    """A plan being carried out, and how far it is."""

    def __init__(
        self, models: Sequence[Model], decided: _Decided, broken: dict[str, MdlError], tools: Tools, http: HttpClient
    ) -> None:
        self._models, self._plan, self._repeated, self._broken = models, decided.plan, decided.repeated, broken
        self._tools, self._http = tools, http
        self._outcomes: list[Outcome] = []
        self._fetched = self._discarded = 0

    def run(self) -> Report:
        """Fetch what is left to fetch, each digest once; what wants the same bytes gets them from the first.

        Raises `Cancelled` with the `Report` so far.
        """
        from mdl.engine.transfer import Result, Transfer

        tools, store = self._tools, self._tools.store
        adopt_kept(self._plan, store)
        for item in self._plan.keep:
            size = item.local.stamp.size if item.local.stamp else 0
            tools.on_event(Finished(item.wanted.model, item.remote.path.text, size, "kept", kept_verified(item)))
        whole, waiting = self._plan.bytes_whole, list(self._plan.fetch)
        try:
            while waiting:
                fetching, waiting = tuple(waiting), []
                transfer = Transfer(
                    fetching,
                    store,
                    self._http,
                    tools.on_event,
                    bytes_kept=whole,
                    hub_client=tools.hub_client,
                    tuning=tools.tuning,
                )
                self._add(transfer.run())
                if self._repeated and tools.local_copies:
                    linked, waiting = reuse(self._repeated, replace(tools.local_copies), tools.on_event)
                    self._repeated, self._plan = [], replace(self._plan, linked=(*self._plan.linked, *linked))
        except Cancelled as error:
            if isinstance(error.so_far, Result):
                self._add(error.so_far)
            lost = [replace(item, refused=NetworkError("not reached")) for item in (*self._repeated, *waiting)]
            self._plan = replace(self._plan, refuse=(*self._plan.refuse, *lost))
            error.so_far = self._report()
            raise
        return self._report()

    def _add(self, result: Result) -> None:
        self._outcomes += result.outcomes
        self._fetched += result.bytes_fetched
        self._discarded += result.bytes_discarded

    def _report(self) -> Report:
        report = _report(self._models, self._tools.store, self._plan, self._outcomes, self._broken)
        kept = self._plan.bytes_kept
        return replace(report, bytes_fetched=self._fetched, bytes_kept=kept, bytes_discarded=self._discarded)


def adopt_kept(plan: Plan, store: Store) -> None:
    """Right bytes without a receipt get one; those that another catalog brought belong to both."""
    for item in plan.keep:
        if item.adopt and item.local.fingerprint and item.local.stamp:
            verified = item.remote.digest.algorithm if item.remote.digest else kept_verified(item)
            with contextlib.suppress(OSError):
                strange = item.local.receipt is None or item.local.receipt.adopted
                print_, stamp = item.local.fingerprint, item.local.stamp
                store.receipts.put(
                    new_receipt(item.wanted.model, item.remote, print_, verified, stamp, adopted=strange)
                )
        elif item.local.receipt and item.local.receipt.catalog != store.catalog:
            with contextlib.suppress(OSError):
                store.receipts.mark_shared(item.wanted.model, item.remote.path, store.catalog)
        with contextlib.suppress(OSError):
            store.expose(item.wanted.model, item.remote)


def _tell_refused(plan: Plan, resolved: _Resolved, on_event: Listener) -> None:
    """What is not even begun, and why."""
    for model, error in resolved.broken.items():
        on_event(Failed(model, "", error.code, error.message, error.advice))
    for item in plan.refuse:
        if (refused := item.refused) is not None:
            on_event(Failed(item.wanted.model, item.remote.path.text, refused.code, refused.message, refused.advice))


def _settle(report: Report, resolved: _Resolved, store: Store, *, is_news: bool) -> None:
    """Note of every model that is whole that it is. Raises `OSError`."""
    for model in report.models:
        if model.is_whole:
            store.mark_complete([one.remote for one in resolved.wanted if one.model == model.name], is_news=is_news)


def _warn_of_pickles(report: Report, resolved: _Resolved, tools: Tools) -> None:
    """Say of what has just come which of it runs code when it is loaded."""
    new = {(model.name, row.path) for model in report.models for row in model.files if row.action in _NEW}
    found: dict[str, list[str]] = {}
    for one in resolved.wanted:
        name = one.remote.path.text
        if (one.model, name) in new and is_pickle(name, tools.store.read_head(one.model, one.remote, head_of(name))):
            found.setdefault(one.model, []).append(name)
    for model, names in found.items():
        tools.on_event(Noticed(model, message=warning(names)))


_NEW = ("fetched", "linked")


def _planned(plan: Plan) -> Planned:
    return Planned(
        files=len(plan.items),
        bytes_total=plan.bytes_total,
        bytes_kept=plan.bytes_kept,
        bytes_to_fetch=plan.bytes_to_fetch,
        bytes_elsewhere=plan.bytes_elsewhere,
        bytes_to_copy=plan.bytes_to_copy,
    )


def _offline_report(
    models: Sequence[Model], decided: _Decided, resolved: _Resolved, store: Store, *, is_planned: bool = False
) -> Report:
    hint = "run it again without --offline"
    missing = (*decided.plan.fetch, *decided.repeated)
    absent = [replace(item, refused=LockError(f"{item.reason}, and offline", hint=hint)) for item in missing]
    plan = replace(decided.plan, fetch=(), refuse=(*decided.plan.refuse, *absent))
    report = _report(models, store, plan, [], resolved.broken, is_planned=is_planned)
    return replace(report, bytes_kept=plan.bytes_kept)


def _report(
    models: Sequence[Model],
    store: Store,
    plan: Plan,
    outcomes: Sequence[Outcome],
    broken: dict[str, MdlError],
    *,
    is_planned: bool = False,
) -> Report:
    """The whole as it stands: what was kept, linked, refused and fetched; ``broken`` models failed before it."""
    rows: dict[str, list[FileReport]] = {model.name: [] for model in models}
    for item in plan.keep:
        rows[item.wanted.model].append(_kept_report(item))
    for item in plan.linked:
        row = replace(_planned_report(item), elsewhere=True, way=item.way) if is_planned else _linked_report(item)
        rows[item.wanted.model].append(row)
    for item in plan.refuse:
        rows[item.wanted.model].append(replace(_row(item.remote, "failed"), error=item.refused))
    for item in plan.fetch if is_planned else ():
        rows[item.wanted.model].append(_planned_report(item))
    for outcome in outcomes:
        rows[outcome.download.model].append(_outcome_report(outcome))
    reports = []
    for model in models:
        files, error = tuple(sorted(rows[model.name], key=lambda row: row.path)), broken.get(model.name)
        reports.append(ModelReport(model.name, store.folder(model.name), _status(files, error), files, error))
    return Report(tuple(reports))


def _status(rows: Sequence[FileReport], error: MdlError | None) -> str:
    """present, partial, missing or unverified, of one model as it stands now."""
    if error:
        return "missing"
    is_here = ("fetched", "kept", "linked")
    return joint_status(
        "missing" if row.action not in is_here else "present" if is_verified(row.verified) else "unverified"
        for row in rows
    )


def kept_verified(item: Item) -> str:
    """What the bytes of a file that was here already were compared with."""
    if item.remote.digest:
        return item.remote.digest.algorithm
    return item.local.receipt.verified if item.local.receipt else "none"


def _row(remote: RemoteFile, action: str, verified: str = "none") -> FileReport:
    sha256 = remote.digest.hex if remote.digest and remote.digest.algorithm == "sha256" else None
    return FileReport(remote.path.text, remote.size, sha256, action, verified, url=bare_url(remote.url))


def _kept_report(item: Item) -> FileReport:
    row, receipt = _row(item.remote, "kept", kept_verified(item)), item.local.receipt
    if row.sha256 is None and receipt and receipt.digest.algorithm == "sha256":
        row = replace(row, sha256=receipt.digest.hex)
    return replace(row, size=item.local.stamp.size if item.local.stamp else None)


def _linked_report(item: Item) -> FileReport:
    assert item.remote.digest is not None
    return replace(_row(item.remote, "linked", item.remote.digest.algorithm), way=item.way)


def _planned_report(item: Item) -> FileReport:
    return replace(_row(item.remote, "planned"), resumed_at=item.local.partial)


def _outcome_report(outcome: Outcome) -> FileReport:
    download = outcome.download
    if outcome.error:
        row = replace(_row(download.item.remote, "failed"), error=outcome.error)
    else:
        print_ = download.fingerprint
        assert print_ is not None
        sha256 = print_.digest.hex if print_.digest.algorithm == "sha256" else None
        row = replace(_row(download.remote, "fetched", outcome.verified), size=print_.size, sha256=sha256)
    return replace(row, resumed_at=download.resumed_at)
