"""get: download every file of some models into the store: find, plan, carry out, report."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from mdl.catalog.model import Model
from mdl.catalog.resolver import nothing_is_new
from mdl.context import Context, adopt_kept, model_locks, tell_kept, verified_by, wait_for_others
from mdl.downloader.copies import reuse
from mdl.downloader.plan import Item, Plan, Wanted
from mdl.downloader.store import Store
from mdl.errors import STOPPED, Cancelled, MdlError, StorageError
from mdl.events import Failed, Noticed
from mdl.files import RemoteFile, is_verified
from mdl.formatting import words_of_code, words_of_left_out
from mdl.hashing import Digest
from mdl.local.status import can_run_code, joint_status
from mdl.ops.get_plan import (
    Found,
    find_files,
    planned_event,
    predict_local_copies,
    take_local_copies,
    with_sizes,
    with_unfinished_files,
    without_network,
)
from mdl.paths import RelPath
from mdl.redact import bare_url
from mdl.reports import FileReport, ModelReport, PlanReport, Report
from mdl.values import value_class

if TYPE_CHECKING:
    from mdl.downloader.download import FileResult
    from mdl.downloader.transfer import Result


@value_class
class GetRequest:
    """Which models are downloaded. ``force`` fetches every file again, and replaces files that are not mdl's."""

    models: tuple[Model, ...]
    force: bool = False


def get(context: Context, request: GetRequest) -> Report:
    """Download every file of the models into the store, and return how it went.

    What fails for one file or model is in the report and hinders no other. Offline, what is not here is reported as
    such. Raises `NoSpace` or `Unsafe` before the first byte if the plan does not fit or is too large, `Busy`, and
    `Cancelled` (with the `Report` so far).
    """
    store = context.store
    with model_locks(request.models, context):
        found = find_files(request.models, context, store.is_new if context.network else nothing_is_new)
        plan = with_sizes(Plan.of(found.wanted, force=request.force, unkept=found.unkept), context)
        plan.check_size(context.max_size)
        plan = take_local_copies(plan, context, force=request.force)
        plan = with_unfinished_files(plan, context, force=request.force)
        _announce(found, plan, context)
        if context.network:
            _check_space(plan, context)
            _note_wanted(found, plan, context)
            wait_for_others(plan.fetch, context)
        adopt_kept(plan, store)
        tell_kept(plan, context.on_event)
        results: list[Result] = []
        if context.network is None:
            plan = without_network(plan, context)
        elif plan.fetch:
            plan, results = _fetch(found, plan, context)
        report = _report(found, plan, context, results)
        wanted = _as_fetched(found.wanted, results)
        _finish(report, wanted, plan, context)
        report = _with_code(report, wanted, context)
        _warn_of_code(report, context)
        return replace(report, seconds=time.monotonic() - found.began)


def plan(context: Context, request: GetRequest) -> PlanReport:
    """Return what `get` would do. Only what sources answer is kept, and no lock is taken. Raises `MdlError`."""
    found = find_files(request.models, context)
    plan = with_sizes(Plan.of(found.wanted, force=request.force, unkept=found.unkept), context, is_planned=True)
    plan.check_size(context.max_size)
    plan = predict_local_copies(plan, context, force=request.force)
    plan = with_unfinished_files(plan, context, force=request.force)
    context.on_event(planned_event(plan))
    _tell_left_out(found, plan, context)
    possible = plan if context.network else without_network(plan, context)
    report = _with_code(_report(found, possible, context, is_planned=True), found.wanted, context)
    return PlanReport(
        **vars(report),
        bytes_to_fetch=plan.bytes_to_fetch,
        bytes_free=context.store.free_space(),
        bytes_total=plan.bytes_total,
        bytes_elsewhere=plan.bytes_elsewhere,
        bytes_to_copy=plan.bytes_to_copy,
    )


# Before the transfer.


def _announce(found: Found, plan: Plan, context: Context) -> None:
    """Tell the plan: its bytes, what is left out of it, and what of it has failed already."""
    context.on_event(planned_event(plan))
    _tell_left_out(found, plan, context)
    for name, error in found.broken.items():
        context.on_event(_failure_event(name, "", error))
    for item in plan.refuse:
        if item.refused:
            context.on_event(_failure_event(item.wanted.model, item.remote.path.text, item.refused))
    for name, file in plan.unkept:
        context.on_event(_failure_event(name, file.path, file.error))


def _failure_event(model: str, file: str, error: MdlError) -> Failed:
    return Failed(model, file, error.code, error.message, error.advice, error.item)


def _tell_left_out(found: Found, plan: Plan, context: Context) -> None:
    """Say what is not fetched of a model, because it is the same in another format, if anything else of it is."""
    incoming = _incoming(plan)
    for name, files in found.left_out.items():
        if name in incoming:
            context.on_event(Noticed(name, message=words_of_left_out([file.size for file in files])))


def _incoming(plan: Plan) -> set[str]:
    """The names of the models of which something comes, from a source or from elsewhere on this disk."""
    return {item.wanted.model for item in (*plan.fetch, *plan.linked, *plan.repeated)}


def _check_space(plan: Plan, context: Context) -> None:
    """Raise `NoSpace` if what is left to do needs more room than there is. What is linked is here already."""
    store = context.store
    free = store.free_space()
    if free is None and plan.fetch:
        why = f"{store.root}: this disk does not say how much space is free, so mdl cannot compare the plan with it"
        context.on_event(Noticed(message=why))
    replace(plan, linked=()).check_space(free)


def _note_wanted(found: Found, plan: Plan, context: Context) -> None:
    """Write down which files are wanted of each model of which something comes, so that a later run knows what is
    missing."""
    for name in _incoming(plan):
        paths = []
        for wanted in found.wanted:
            if wanted.model == name and not wanted.remote.is_name_open:
                paths.append(wanted.remote.path)
        context.store.receipts.begin(name, paths)


# The transfer.


def _fetch(found: Found, plan: Plan, context: Context) -> tuple[Plan, list[Result]]:
    """Fetch what is left to fetch, each digest once; the files that want the same bytes get them from the first.

    Returns the plan as it was carried out, and the results. Raises `Cancelled` with the `Report` so far.
    """
    results: list[Result] = []
    bytes_kept = plan.bytes_whole
    waiting: Sequence[Item] = plan.fetch
    try:
        while waiting:
            fetching = waiting
            waiting = ()
            results.append(_transfer(fetching, bytes_kept, context))
            if plan.repeated and context.local_copies:
                # What was fetched is found anew; a first file that failed leaves its bytes to the next that wants them.
                linked, waiting = reuse(plan.repeated, replace(context.local_copies), context.on_event)
                plan = replace(plan, linked=(*plan.linked, *linked), repeated=())
    except Cancelled as stopped:
        if stopped.so_far is not None:
            results.append(stopped.so_far)
        not_reached = [replace(item, refused=stopped.as_error()) for item in (*plan.repeated, *waiting)]
        plan = replace(plan, repeated=(), refuse=(*plan.refuse, *not_reached))
        raise stopped.but(so_far=_report(found, plan, context, results)) from stopped.__cause__
    return _without_lost(plan, results, context)


def _transfer(items: Sequence[Item], bytes_kept: int, context: Context) -> Result:
    from mdl.downloader.transfer import Transfer

    assert context.network is not None
    return Transfer(
        tuple(items),
        context.store,
        context.network.http,
        context.on_event,
        context.resolver.met,
        bytes_kept=bytes_kept,
        hub_client=context.hub_client,
        most=context.max_size,
        tuning=context.tuning,
    ).run()


def _without_lost(plan: Plan, results: Sequence[Result], context: Context) -> tuple[Plan, list[Result]]:
    """The same plan and results, with an error for each file that is no longer under its name: a download may take
    hours, and another program may have moved or removed the file, or the models folder, since."""
    refuse = list(plan.refuse)
    keep: list[Item] = []
    linked: list[Item] = []
    for items, still_here in ((plan.keep, keep), (plan.linked, linked)):
        for item in items:
            error = _lost(item.wanted.model, item.remote, context)
            if error:
                refuse.append(replace(item, refused=error))
            else:
                still_here.append(item)
    checked: list[Result] = []
    for result in results:
        files: list[FileResult] = []
        for file in result.files:
            lost = None if file.error else _lost(file.item.wanted.model, file.remote, context)
            files.append(replace(file, error=lost) if lost else file)
        checked.append(replace(result, files=tuple(files)))
    return replace(plan, keep=tuple(keep), linked=tuple(linked), refuse=tuple(refuse)), checked


def _lost(model: str, remote: RemoteFile, context: Context) -> StorageError | None:
    """The error of a file that is no longer under its name, which is told; None if it is there."""
    if context.store.is_named(model, remote):
        return None
    why = "another program moved or removed it during the download"
    error = StorageError(why, item=f"{model}/{remote.path}", hint="run the same command again")
    context.on_event(_failure_event(model, remote.path.text, error))
    return error


# After the transfer.


def _report(
    found: Found, plan: Plan, context: Context, results: Sequence[Result] = (), *, is_planned: bool = False
) -> Report:
    """The report of a plan, and of what became of it."""
    report = report_of(found.models, context.store, plan, found.broken, results, is_planned=is_planned)
    models = []
    for model in report.models:
        left_out = tuple(found.left_out.get(model.name, ()))
        models.append(replace(model, left_out=left_out))
    return replace(report, models=tuple(models), seconds=time.monotonic() - found.began)


def _as_fetched(wanted: Sequence[Wanted], results: Sequence[Result]) -> list[Wanted]:
    """The wanted files, those that were fetched as their servers described them."""
    fetched: dict[tuple[str, RelPath], RemoteFile] = {}
    for result in results:
        for file in result.files:
            fetched[file.item.wanted.model, file.item.remote.path] = file.remote
    described = []
    for wanted_file in wanted:
        remote = fetched.get((wanted_file.model, wanted_file.remote.path), wanted_file.remote)
        is_as_planned = remote is wanted_file.remote
        described.append(wanted_file if is_as_planned else replace(wanted_file, remote=remote))
    return described


def _finish(report: Report, wanted: Sequence[Wanted], plan: Plan, context: Context) -> None:
    """Write down which models are complete."""
    store = context.store
    unkept = {(name, file.path) for name, file in plan.unkept}
    for model in report.models:
        if _has_failed(model, unkept):
            continue
        store.receipts.finish(model.name)
        files = [file.remote for file in wanted if file.model == model.name]
        store.layout.mark_complete(files, is_news=context.network is not None)
    if store.layout.note:
        context.on_event(Noticed(message=store.layout.note))


def _has_failed(model: ModelReport, unkept: set[tuple[str, str]]) -> bool:
    """Whether anything of a model is missing that could be here."""
    if model.error:
        return True
    return any(file.error for file in model.files if (model.name, file.path) not in unkept)


def _with_code(report: Report, wanted: Sequence[Wanted], context: Context) -> Report:
    """The report that says of each file whether it can run code when it is loaded."""
    remotes = {(file.model, file.remote.path.text): file.remote for file in wanted}
    models: list[ModelReport] = []
    for model in report.models:
        files: list[FileReport] = []
        for file in model.files:
            remote = remotes.get((model.name, file.path))
            if remote is not None and not file.error:
                path = context.store.final_path(model.name, remote)
                file = replace(file, runs_code=can_run_code(path, file.path))
            files.append(file)
        models.append(replace(model, files=tuple(files)))
    return replace(report, models=tuple(models))


def _warn_of_code(report: Report, context: Context) -> None:
    """Say which of the files that have just come can run code when they are loaded."""
    for model in report.models:
        names = [file.path for file in model.files if file.runs_code and file.action in ("fetched", "linked")]
        if names:
            context.on_event(Noticed(model.name, message=words_of_code(names)))


# How it went.


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
        row = _row(item.remote, "linked", item.remote.verified)
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
        labels={model.name: model.label for model in models},
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
