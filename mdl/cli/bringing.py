"""Bringing: what get and prefetch have in common: an order carried out as a job."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field

from mdl.catalog.model import Model
from mdl.cli.flags import Choice, Locking, Network, Unattended, Where
from mdl.cli.session import Session
from mdl.console.session import ReportSession
from mdl.deadline import TimeLimit, time_limit
from mdl.describe import ended_by
from mdl.engine.plan import no_space
from mdl.engine.store import Store
from mdl.errors import Busy, Cancelled, MdlError, PartialFailure
from mdl.events import Report
from mdl.units import parse_duration


@dataclass(frozen=True)
class Order:
    """What is to be brought, and how."""

    targets: list[str]
    where: Where
    choice: Choice
    network: Network
    locking: Locking
    unattended: Unattended
    dry_run: bool = False
    force: bool = False
    turn: Callable[[], AbstractContextManager[object]] = nullcontext
    """What is held while it runs, in the process that runs it."""
    replaces: bool = False
    """It goes on with what an earlier one of the same targets left when its time was over."""


@dataclass(frozen=True)
class Brought:
    """How it went. ``is_elsewhere``: it goes on in the background as ``job``, and nothing is known yet."""

    job: str = ""
    report: Report = field(default_factory=Report)
    error: MdlError | None = None
    is_elsewhere: bool = False


def bring(session: Session, order: Order) -> Brought:
    """Carry the order out. Raises `MdlError` where nothing could be begun, `Cancelled` with the `Report` so far."""
    models = session.models(order.targets, order.choice)
    store = session.store(order.where, models, order.targets)
    limit = session.time_limit(order.network)
    parse_duration(order.network.lock_wait, "--lock-wait", least=0)
    session.signals.poll()
    method = order.network.via.value
    if order.dry_run:
        with session.console.watch(method=method) as tell:
            return _brought(session, order, models, store, limit, tell, "")
    from mdl.cli.working import Work
    from mdl.jobs.background import is_background

    with ExitStack() as stack:
        stack.enter_context(order.turn())
        work = Work(session, [model.name for model in models], store.folder, order.unattended, method)
        if order.unattended.detach and not is_background():
            stack.close()
        try:
            if work.leaves():
                return Brought(work.id, is_elsewhere=True)
        except Busy:
            with order.turn():  # which says so where another prefetch was quicker
                raise
        session.empty = session.empty | {"job": work.id or None}
        brought = Brought(work.id)
        try:
            with work as tell:
                if order.replaces:
                    work.replace_earlier()
                brought = _brought(session, order, models, store, limit, tell, work.id)
        except Cancelled as stopped:
            stopped.so_far = stopped.so_far or brought.report
            raise
        return brought


def _brought(
    session: Session,
    order: Order,
    models: list[Model],
    store: Store,
    limit: TimeLimit,
    tell: ReportSession,
    job: str,
) -> Brought:
    from mdl.operations.get import Wishes, get

    network, wait = order.network, parse_duration(order.network.lock_wait, "--lock-wait", least=0)
    wishes = Wishes(order.force, order.dry_run, wait, session.carrier(network, models), session.elsewhere(store))
    http = None if session.is_offline(network) else session.http(network, models, session.locked_urls(models))
    try:
        sources = session.sources(store, http=http, tell=tell, choice=order.choice, locking=order.locking)
        with time_limit(limit, session.cancel):
            report = get(models, sources=sources, store=store, http=http, wishes=wishes, tell=tell)
        error = _joint_error(report)
        if error:
            tell(ended_by(error))
    finally:
        if http is not None:
            http.close()
    if not order.dry_run and not order.locking.frozen:
        session.remember_first(models, report)
    return Brought(job, report, error)


def _joint_error(report: Report) -> MdlError | None:
    """The one error that stands for a report's failures, or None."""
    space = report.extra
    if space and (short := no_space(space["bytes_to_fetch"], space["bytes_to_copy"], space["bytes_free"])):
        return short
    failed = [(model.name, model.error) for model in report.models if model.error]
    failed += [(f"{m.name}/{f.path}", f.error) for m in report.models for f in m.files if f.error]
    if not failed:
        return None
    item, facts = failed[0]
    assert facts is not None
    if len(failed) == 1:
        error = MdlError(facts["message"], item=facts["item"] or item, hint=facts["hint"])
        error.code, error.exit_code = facts["code"], facts["exit_code"]
        return error
    reasons = sorted({f["code"] for _, f in failed if f})
    total = sum(len(model.files) or 1 for model in report.models)
    error = PartialFailure(f"{len(failed)} of {total} failed ({', '.join(reasons)})", hint=facts["hint"])
    if report.exit_code != PartialFailure.exit_code:
        error.code, error.exit_code = facts["code"], report.exit_code
    return error
