"""Story 1: bring every file of these models into the store, and say how it went; and check what is there."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from mdl.catalog.model import Model
from mdl.engine.adoption import remove_stale
from mdl.engine.local_copies import LocalCopies, reuse, unique_by_digest
from mdl.engine.plan import Item, Plan, Wanted
from mdl.engine.store import Store
from mdl.errors import AuthError, LockError, MdlError, NoSpace
from mdl.events import Failed, Listener, Noticed, Planned, Report, Verifying, silence
from mdl.files import RemoteFile
from mdl.locks import file_lock
from mdl.operations.course import Course, adopt_kept, wait_for_others
from mdl.operations.reports import report_of
from mdl.pickles import head_of, is_pickle, warning
from mdl.sources import Sources

if TYPE_CHECKING:
    from mdl.engine.hub_client import HubClient
    from mdl.http.client import Http


_NEW = ("fetched", "linked")


@dataclass(frozen=True)
class Wishes:
    """How ``get`` goes about it. ``lock_wait`` is in seconds; a ``carrier`` brings the hub's files; what is
    ``elsewhere`` on this disk is not fetched."""

    force: bool = False
    dry_run: bool = False
    lock_wait: float = 600.0
    carrier: HubClient | None = None
    elsewhere: LocalCopies | None = None


@dataclass
class _Resolved:
    wanted: list[Wanted] = field(default_factory=list)
    broken: dict[str, MdlError] = field(default_factory=dict)


def get(
    models: Sequence[Model],
    *,
    sources: Sources,
    store: Store,
    http: Http | None,
    wishes: Wishes = Wishes(),
    tell: Listener = silence,
) -> Report:
    """Bring every file of these models into the store, and say how it went.

    What fails for one file or model is in the report and hinders no other. Without ``http`` (offline) what is
    not here is reported as such. Raises `NoSpace` before the first
    byte where the whole plan does not fit, `Busy`, `Cancelled` (with the `Report` so far).
    """
    began = time.monotonic()
    with contextlib.nullcontext() if wishes.dry_run else locked(models, store, wishes.lock_wait, tell):
        resolved = _resolve(models, sources, store, tell)
        plan = _sized(Plan.of(resolved.wanted, force=wishes.force), sources, store, resolved)
        plan, same = _from_elsewhere(plan, wishes, store, tell, is_offline=http is None)
        whole = replace(plan, linked=(*plan.linked, *same))
        tell(_planned(whole))
        if not wishes.dry_run:
            _tell_refused(plan, resolved, tell)
        if http is None:
            report = _offline_report(models, store, plan, same, resolved, adopt=not wishes.dry_run)
        elif not wishes.dry_run:
            replace(plan, linked=tuple(same)).check_space(store.free_space())
            wait_for_others(plan.fetch, store, wishes.lock_wait, tell)
            course = Course(models, plan, same, resolved.broken, store, tell, began)
            report = course.run(http, wishes.carrier, wishes.elsewhere)
        if wishes.dry_run:
            report = report_of(models, store, whole, [], resolved.broken, planned=True) if http else report
            return replace(report, seconds=time.monotonic() - began, extra=_space(whole, store))
        _settle(report, resolved, store, is_news=http is not None)
        _warn_of_pickles(report, resolved, store, tell)
        return replace(report, seconds=time.monotonic() - began)


def _tell_refused(plan: Plan, resolved: _Resolved, tell: Listener) -> None:
    """What is not even begun, and why."""
    for model, error in resolved.broken.items():
        tell(Failed(model, "", error.code, error.message, error.advice))
    for item in plan.refuse:
        if (refused := item.refused) is not None:
            tell(Failed(item.wanted.model, item.remote.path.text, refused.code, refused.message, refused.advice))


def _settle(report: Report, resolved: _Resolved, store: Store, *, is_news: bool) -> None:
    """Note of every model that is whole that it is. Raises `OSError`."""
    for model in report.models:
        if not model.error and not any(row.error for row in model.files):
            store.mark_complete([one.remote for one in resolved.wanted if one.model == model.name], is_news=is_news)


def _from_elsewhere(
    plan: Plan, wishes: Wishes, store: Store, tell: Listener, *, is_offline: bool
) -> tuple[Plan, list[Item]]:
    """The same plan, once what is elsewhere on this disk has been taken from there (in a dry run, as if it had); and
    the files whose bytes another file of the plan fetches already. Raises `NoSpace` before anything is copied."""
    if wishes.elsewhere is None:
        return plan, []
    if wishes.force:
        return _each_once(plan, list(plan.fetch), [], wishes.elsewhere)
    foreseen = {item: wishes.elsewhere.predict(item) for item in plan.fetch}
    linked = [found for found in foreseen.values() if found]
    expected, same = _each_once(plan, [item for item, found in foreseen.items() if not found], linked, wishes.elsewhere)
    if wishes.dry_run:
        return expected, same
    whole = replace(expected, linked=(*expected.linked, *same), fetch=() if is_offline else expected.fetch)
    if whole.bytes_to_copy:
        _check_space(whole, store, tell)
    linked, left = reuse(plan.fetch, wishes.elsewhere, tell)
    return _each_once(plan, left, linked, wishes.elsewhere)


def _each_once(plan: Plan, left: list[Item], linked: list[Item], elsewhere: LocalCopies) -> tuple[Plan, list[Item]]:
    """The plan with each digest that is left fetched once; and those that want it again."""
    first, again = unique_by_digest(left)
    same = [elsewhere.predict_duplicate(item) for item in again]
    return replace(plan, fetch=tuple(first), linked=(*plan.linked, *linked)), same


def _check_space(plan: Plan, store: Store, tell: Listener) -> None:
    try:
        plan.check_space(store.free_space())
    except NoSpace:
        tell(_planned(plan))
        raise


def _warn_of_pickles(report: Report, resolved: _Resolved, store: Store, tell: Listener) -> None:
    """Say of what has just come which of it runs code when it is loaded."""
    new = {(model.name, row.path) for model in report.models for row in model.files if row.action in _NEW}
    found: dict[str, list[str]] = {}
    for one in resolved.wanted:
        name = one.remote.path.text
        if (one.model, name) in new and is_pickle(name, store.read_head(one.model, one.remote, head_of(name))):
            found.setdefault(one.model, []).append(name)
    for model, names in found.items():
        tell(Noticed(model, message=warning(names)))


def _offline_report(
    models: Sequence[Model], store: Store, plan: Plan, same: list[Item], resolved: _Resolved, *, adopt: bool
) -> Report:
    hint = "run it again without --offline"
    left = (*plan.fetch, *same)
    absent = [replace(item, refused=LockError(f"{item.reason}, and offline", hint=hint)) for item in left]
    if adopt:
        adopt_kept(plan, store)
    plan = replace(plan, fetch=(), refuse=(*plan.refuse, *absent))
    report = report_of(models, store, plan, [], resolved.broken, planned=not adopt)
    return replace(report, bytes_kept=plan.bytes_kept)


@contextlib.contextmanager
def locked(models: Sequence[Model], store: Store, wait: float, tell: Listener) -> Iterator[None]:
    """Hold every model's lock, always taken in one order so that two of us cannot wait for each other.

    Where a lock cannot even be made (a read-only folder) it is gone without: whatever must be written will say so.
    What killed processes left of these models goes then.
    Raises `Busy` after ``wait`` seconds.
    """
    names = sorted({model.name for model in models})
    with contextlib.ExitStack() as stack:
        for name in names:
            try:
                stack.enter_context(file_lock(store.locks, name, wait, _waiting(name, tell), store.cancel))
            except OSError:
                continue
        remove_stale(store.own, names)
        yield


def _waiting(name: str, tell: Listener) -> Callable[[str], None]:
    return lambda holder: tell(Noticed(name, message=f"waiting for {holder}"))


def _resolve(models: Sequence[Model], sources: Sources, store: Store, tell: Listener) -> _Resolved:
    resolved = _Resolved()
    for model, found in zip(models, sources.resolve_all(models), strict=True):
        try:
            if isinstance(found, MdlError):
                raise found
            for remote in found:
                local = store.check(model.name, remote, watch=_watch(model.name, remote, tell))
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


def _watch(model: str, remote: RemoteFile, tell: Listener) -> Callable[[int], None]:
    """Tells of the reading of a large file that was there already, ten times at most."""
    size = remote.size or 0
    step = max(size // 10, 2**28)
    told = 0

    def watch(done: int) -> None:
        nonlocal told
        if done - told >= step:
            told = done
            tell(Verifying(model, remote.path.text, done=done, total=size))

    return watch


def _sized(plan: Plan, sources: Sources, store: Store, resolved: _Resolved) -> Plan:
    """Ask for the sizes that nobody told, of files that must be fetched. What cannot be asked breaks its model."""
    unknown = [item for item in plan.fetch if item.remote.size is None]
    answers = zip(unknown, sources.probe_all([item.remote for item in unknown]), strict=True)
    probed = {
        (item.wanted.model, item.remote.path.text): answer
        for item, answer in answers
        if not isinstance(answer, MdlError)  # the transfer meets the same trouble, and tells it of the file
    }
    plan = plan.with_sizes(probed)
    fetch = tuple(
        replace(item, wanted=replace(item.wanted, local=store.quick_check(item.wanted.model, item.remote)))
        if (item.wanted.model, item.remote.path.text) in probed
        else item
        for item in plan.fetch
    )
    return replace(plan, fetch=fetch)


def _planned(plan: Plan) -> Planned:
    return Planned(
        files=len(plan.items),
        bytes_total=plan.bytes_total,
        bytes_kept=plan.bytes_kept,
        bytes_to_fetch=plan.bytes_to_fetch,
        bytes_elsewhere=plan.bytes_elsewhere,
        bytes_to_copy=plan.bytes_to_copy,
    )


def _space(plan: Plan, store: Store) -> dict[str, int]:
    """What a dry run tells of the disk."""
    return {
        "bytes_to_fetch": plan.bytes_to_fetch,
        "bytes_free": store.free_space(),
        "bytes_total": plan.bytes_total,
        "bytes_elsewhere": plan.bytes_elsewhere,
        "bytes_to_copy": plan.bytes_to_copy,
    }
