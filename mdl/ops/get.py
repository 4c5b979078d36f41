"""get: bring every file of some models into the store: resolve, plan, carry out, report."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mdl.catalog.model import Model
from mdl.catalog.resolver import IsNew
from mdl.context import Context, adopt_kept, model_locks, tell_kept, wait_for_others
from mdl.downloader.connection_scaler import Tuning
from mdl.downloader.copies import LocalCopies, reuse, unique_by_digest
from mdl.downloader.half_files import find_half, unfinished_blobs
from mdl.downloader.plan import Item, Plan, Reason, Wanted
from mdl.downloader.store import Store
from mdl.errors import (
    AuthError,
    Cancelled,
    LockError,
    MdlError,
    NetworkError,
    NoSpace,
    StorageError,
    online_hint,
    whole_error,
)
from mdl.events import Failed, Noticed, Planned
from mdl.files import LocalFile, RefusedFile, RemoteFile
from mdl.formatting import listed, words_of_left_out
from mdl.local.hash_progress import watch_reading
from mdl.local.status import model_status
from mdl.ops.report import report_of
from mdl.paths import RelPath
from mdl.reports import LeftOutFile, PlanReport, Report
from mdl.weights.pickles import head_of, is_pickle, warning

if TYPE_CHECKING:
    from mdl.downloader.download import FileResult
    from mdl.downloader.transfer import Result


@dataclass
class _Decided:
    """What is to be done. Of the files that want the same bytes, ``plan`` fetches the first; ``repeated`` are the
    others, which get them from that one."""

    plan: Plan
    repeated: list[Item]

    @property
    def whole(self) -> Plan:
        return replace(self.plan, linked=(*self.plan.linked, *self.repeated))


def get(models: Sequence[Model], context: Context, *, force: bool = False) -> Report:
    """Bring every file of ``models`` into the store; ``force`` fetches all anew, and replaces files that are not mdl's.

    What fails for one file or model is in the report and hinders no other. Offline, what is not here is reported as
    such. Raises `NoSpace` or `Unsafe` before the first byte if the whole plan does not fit or is too large, `Busy`, and
    `Cancelled` (with the `Report` so far).
    """
    began = time.monotonic()
    store = context.store
    with model_locks(models, context):
        found = _resolve(models, context, is_new=store.is_new if context.network else None)
        wanted = found.wanted
        broken = found.broken
        sized = _with_sizes(Plan.of(wanted, force=force, unkept=found.unkept), context)
        sized.check_size(context.max_size)
        decided = _with_halves(_reuse(sized, context, force=force), context, force=force)
        context.on_event(_planned(decided.whole))
        _tell_of_left_out(found.left_out, decided.plan, context)
        for name, error in broken.items():
            context.on_event(Failed(name, "", error.code, error.message, error.advice, error.item))
        for item in decided.plan.refuse:
            if (refused := item.refused) is not None:
                about = (item.wanted.model, item.remote.path.text)
                why = refused.item
                context.on_event(Failed(*about, refused.code, refused.message, refused.advice, why))
        for name, file in decided.plan.unkept:
            error = file.error
            context.on_event(Failed(name, file.path, error.code, error.message, error.advice, error.item))
        if context.network is None:
            adopt_kept(decided.plan, store)
            tell_kept(decided.plan, context.on_event)
            report = report_of(models, store, _offline(decided, context), broken)
        else:
            free = store.free_space()
            if free is None and decided.plan.fetch:
                why = f"{store.root}: this disk does not say how much space is free, so the plan is not held against it"
                context.on_event(Noticed(message=why))
            replace(decided.plan, linked=tuple(decided.repeated)).check_space(free)
            for name in {item.wanted.model for item in (*decided.whole.fetch, *decided.whole.linked)}:
                named = [one for one in wanted if one.model == name and not one.remote.is_name_open]
                store.receipts.begin(name, [one.remote.path for one in named])
            wait_for_others(decided.plan.fetch, context)
            try:
                report, brought = _execute(models, decided, broken, context)
            except Cancelled as stopped:
                if isinstance(stopped.so_far, Report):
                    so_far = replace(stopped.so_far, seconds=time.monotonic() - began)
                    raise stopped.but(so_far=so_far) from stopped.__cause__
                raise
            wanted = [replace(one, remote=brought.get((one.model, one.remote.path), one.remote)) for one in wanted]
        names = {(name, file.path) for name, file in decided.plan.unkept}
        for model in report.models:
            if not model.error and not any(row.error for row in model.files if (model.name, row.path) not in names):
                store.receipts.finish(model.name)
                whole = [one.remote for one in wanted if one.model == model.name]
                store.layout.mark_complete(whole, is_news=context.network is not None)
        if store.layout.note:
            context.on_event(Noticed(message=store.layout.note))
        _warn_of_pickles(report, wanted, context)
        return replace(_with_left_out(report, found.left_out), seconds=time.monotonic() - began)


def plan(models: Sequence[Model], context: Context, *, force: bool = False) -> PlanReport:
    """What `get` would do. Only what sources answer is kept, and no lock is taken. Raises `MdlError`."""
    began = time.monotonic()
    store = context.store
    found = _resolve(models, context, is_new=None)
    first_plan = Plan.of(found.wanted, force=force, unkept=found.unkept)
    decided = _predict(_with_sizes(first_plan, context, is_planned=True), context, force=force)
    decided = _with_halves(decided, context, force=force)
    whole = decided.whole
    whole.check_size(context.max_size)
    context.on_event(_planned(whole))
    _tell_of_left_out(found.left_out, decided.plan, context)
    possible = whole if context.network else _offline(decided, context)
    report = _with_left_out(report_of(models, store, possible, found.broken, is_planned=True), found.left_out)
    return PlanReport(
        **{**vars(report), "seconds": time.monotonic() - began},
        bytes_to_fetch=whole.bytes_to_fetch,
        bytes_free=store.free_space(),
        bytes_total=whole.bytes_total,
        bytes_elsewhere=whole.bytes_elsewhere,
        bytes_to_copy=whole.bytes_to_copy,
    )


# Resolve: what the models are at their sources, and what of them is here.


@dataclass
class _Found:
    """The ``wanted`` files of all models; those whose names cannot be kept here (``unkept``), each with its model; why
    models are ``broken``: they could not be resolved, or not from all of their sources; and what is ``left_out`` of
    each model, as far as nothing of it is here."""

    wanted: list[Wanted]
    unkept: list[tuple[str, RefusedFile]]
    broken: dict[str, MdlError]
    left_out: dict[str, list[LeftOutFile]]


def _resolve(models: Sequence[Model], context: Context, is_new: IsNew | None) -> _Found:
    """Resolve all models, and look what of them is here. ``is_new`` is as `Resolver.resolve_each` has it."""
    wanted: list[Wanted] = []
    left_out: dict[str, list[LeftOutFile]] = {}
    unkept: list[tuple[str, RefusedFile]] = []
    broken: dict[str, MdlError] = {}
    for model, found in zip(models, context.resolver.resolve_all(models, is_new), strict=True):
        try:
            if isinstance(found, MdlError):
                raise found
            clashes = context.store.clashes(model.name, found.files)
            unkept += [(model.name, file) for file in found.refused]
            for number, remote in enumerate(found.files):
                if error := clashes.get(number) or found.failed.get(remote.path):
                    wanted.append(Wanted(model.name, remote, LocalFile(), _with_note(error, model)))
                    continue
                local = context.store.check(
                    model.name, remote, watch=watch_reading(model.name, remote, context.on_event)
                )
                wanted.append(Wanted(model.name, remote, local))
            absent = [file for file in found.left_out if _is_absent(file, model, context.store)]
            if absent:
                left_out[model.name] = [LeftOutFile(str(file.path), file.size) for file in absent]
            if found.errors:
                broken[model.name] = _joined([_with_note(error, model) for error in found.errors])
        except MdlError as error:
            wanted = [one for one in wanted if one.model != model.name]
            unkept = [one for one in unkept if one[0] != model.name]
            told = _with_note(error, model)
            if isinstance(error, NetworkError) and _is_all_here(model, context):
                told = error.but(hint="all that its source had when it was last asked is here: --offline uses that")
            broken[model.name] = told
    return _Found(wanted, unkept, broken, left_out)


def _is_absent(file: RemoteFile | RefusedFile, model: Model, store: Store) -> bool:
    return isinstance(file, RefusedFile) or store.is_new(model.name, file)


def _is_all_here(model: Model, context: Context) -> bool:
    """Whether everything is here that the model's source had when it was last asked."""
    try:
        return model_status(model, context.resolver, context.store).status == "present"
    except MdlError:
        return False


def _with_note(error: MdlError, model: Model) -> MdlError:
    """The same error; if access is denied, its hint has the catalog's note on that too."""
    if isinstance(error, AuthError) and model.note:
        return error.but(hint=f"{error.hint}; {model.note}" if error.hint else model.note)
    return error


def _joined(errors: Sequence[MdlError]) -> MdlError:
    """One error for the sources of one model that failed, each named in it."""
    if len(errors) == 1:
        return errors[0]
    return whole_error(listed([f"{error.item}: {error.message}" for error in errors], "; "), errors)


def _with_sizes(plan: Plan, context: Context, *, is_planned: bool = False) -> Plan:
    """Ask for the sizes that are unknown, of files of which something is on this disk that is to be judged by them. (Of
    a new file, the answer that brings it tells the size.) The transfer meets what fails here again, and tells it of the
    file."""
    copies = context.local_copies

    def is_asked(item: Item) -> bool:
        if item.remote.size is not None:
            return False
        model = item.wanted.model
        remote = item.remote
        is_brought_by_hub_client = context.hub_client is not None and remote.hub is not None
        if is_planned or is_brought_by_hub_client or not context.store.is_new(model, remote):
            return True
        return copies is not None and bool(copies.candidates(model, remote))

    unknown = [item for item in plan.fetch if is_asked(item)]
    answers = zip(unknown, context.resolver.probe_all([item.remote for item in unknown]), strict=True)
    probed = {item: answer for item, answer in answers if not isinstance(answer, MdlError)}
    fetch: list[Item] = []
    refuse: list[Item] = []
    for item in plan.fetch:
        if (remote := probed.get(item)) is not None:
            if item.reason == Reason.UNFINISHED:
                again = Plan.of([replace(item.wanted, remote=remote)])
                fetch += again.fetch
                refuse += again.refuse
                continue
            local = context.store.quick_check(item.wanted.model, remote)
            item = replace(item, wanted=Wanted(item.wanted.model, remote, local))
        fetch.append(item)
    return replace(plan, fetch=tuple(fetch), refuse=(*plan.refuse, *refuse))


# Plan: what of it comes from this disk, and what is fetched.


def _predict(plan: Plan, context: Context, *, force: bool) -> _Decided:
    """How ``plan`` will go with what seems to be elsewhere on this disk; none of it is read."""
    copies = context.local_copies
    if copies is None:
        return _Decided(plan, [])
    predicted = {item: None if force else copies.predict(item) for item in plan.fetch}
    linked = [found for found in predicted.values() if found]
    return _each_once(plan, [item for item, found in predicted.items() if not found], linked, copies)


def _reuse(plan: Plan, context: Context, *, force: bool) -> _Decided:
    """Take what is elsewhere on this disk from there; what turns out to be other bytes is left to fetch.

    Raises `NoSpace` before anything is copied.
    """
    expected = _predict(plan, context, force=force)
    copies = context.local_copies
    if copies is None or force:
        return expected
    whole = expected.whole if context.network else replace(expected.whole, fetch=())
    if whole.bytes_to_copy:
        try:
            whole.check_space(context.store.free_space())
        except NoSpace:
            context.on_event(_planned(whole))
            raise
    linked, left = reuse(plan.fetch, copies, context.on_event)
    return _each_once(plan, left, linked, copies)


def _with_halves(decided: _Decided, context: Context, *, force: bool) -> _Decided:
    """The same with the unfinished files of other programs from which bytes are borrowed. What comes in one piece is
    fetched whole."""
    if force:
        return decided
    small = (context.tuning or Tuning()).small

    def is_small(item: Item) -> bool:
        return item.remote.size is not None and item.remote.size <= small

    is_looked_for = any(item.remote.digest and not is_small(item) for item in decided.plan.fetch)
    repos = context.local_copies.repos if context.local_copies and is_looked_for else ()
    in_cache = unfinished_blobs(repos)

    def with_half(item: Item) -> Item:
        model = item.wanted.model
        remote = item.remote
        if is_small(item) or (context.hub_client and remote.hub):
            return item
        final = context.store.final_path(model, remote)
        half_final = None
        if item.reason == Reason.UNFINISHED:
            half_final = item.local
        half = find_half(final, context.store.folder(model), remote, in_cache, half_final)
        return replace(item, half=half) if half and half.size > item.local.partial else item

    plan = decided.plan
    return replace(decided, plan=replace(plan, fetch=tuple(map(with_half, plan.fetch))))


def _each_once(plan: Plan, left: list[Item], linked: list[Item], copies: LocalCopies) -> _Decided:
    """Each digest that is ``left`` is fetched once; the items that want it again are repeated."""
    first, again = unique_by_digest(left)
    fetched = replace(plan, fetch=tuple(first), linked=(*plan.linked, *linked))
    return _Decided(fetched, [copies.predict_duplicate(item) for item in again])


def _offline(decided: _Decided, context: Context) -> Plan:
    """The plan of which nothing can be fetched."""
    hint = online_hint(context.offline_by)
    missing = (*decided.plan.fetch, *decided.repeated)
    absent = [replace(item, refused=LockError(f"{item.reason}, and offline", hint=hint)) for item in missing]
    return replace(decided.plan, fetch=(), refuse=(*decided.plan.refuse, *absent))


def _planned(plan: Plan) -> Planned:
    names = [*(item.wanted.model for item in plan.items), *(name for name, _ in plan.unkept)]
    return Planned(
        models=tuple(Counter(names).items()),
        files=len(names),
        bytes_total=plan.bytes_total,
        bytes_kept=plan.bytes_kept,
        bytes_to_fetch=plan.bytes_to_fetch,
        bytes_elsewhere=plan.bytes_elsewhere,
        bytes_to_copy=plan.bytes_to_copy,
    )


# Carry out.


def _execute(
    models: Sequence[Model], decided: _Decided, broken: dict[str, MdlError], context: Context
) -> tuple[Report, dict[tuple[str, RelPath], RemoteFile]]:
    """Fetch what is left to fetch, each digest once; what wants the same bytes gets them from the first. Returns also
    the files that were fetched, as their servers described them, by model and the path that was planned.

    Raises `Cancelled` with the `Report` so far.
    """
    store = context.store
    plan = decided.plan
    repeated = decided.repeated
    on_event = context.on_event
    adopt_kept(plan, store)
    tell_kept(plan, on_event)
    if not plan.fetch:
        return report_of(models, store, plan, broken), {}
    from mdl.downloader.transfer import Result, Transfer

    assert context.network is not None
    results: list[Result] = []
    whole = plan.bytes_whole
    waiting = list(plan.fetch)
    try:
        while waiting:
            fetching = tuple(waiting)
            waiting = []
            transfer = Transfer(
                fetching,
                store,
                context.network.http,
                on_event,
                context.resolver.met,
                bytes_kept=whole,
                hub_client=context.hub_client,
                most=context.max_size,
                tuning=context.tuning,
            )
            results.append(transfer.run())
            if repeated and context.local_copies:
                linked, waiting = reuse(repeated, replace(context.local_copies), on_event)
                plan = replace(plan, linked=(*plan.linked, *linked))
                repeated = []
    except Cancelled as error:
        if isinstance(error.so_far, Result):
            results.append(error.so_far)
        not_reached = [replace(item, refused=error.as_error()) for item in (*repeated, *waiting)]
        plan = replace(plan, refuse=(*plan.refuse, *not_reached))
        raise error.but(so_far=report_of(models, store, plan, broken, results)) from error.__cause__
    plan, results = _without_lost(plan, results, context)
    brought: dict[tuple[str, RelPath], RemoteFile] = {}
    for result in results:
        for file in result.files:
            brought[file.item.wanted.model, file.item.remote.path] = file.remote
    return report_of(models, store, plan, broken, results), brought


def _without_lost(plan: Plan, results: list[Result], context: Context) -> tuple[Plan, list[Result]]:
    """The same plan and results, with an error for each file that is no longer under its name: a download may take
    hours, and another program may have moved or removed the file, or the models folder, since."""

    def why_lost(model: str, remote: RemoteFile) -> StorageError | None:
        if context.store.is_named(model, remote):
            return None
        why = "another program moved or removed it during the download"
        hint = "run the same command again"
        error = StorageError(why, item=f"{model}/{remote.path}", hint=hint)
        context.on_event(Failed(model, remote.path.text, error.code, error.message, error.advice, error.item))
        return error

    def planned(item: Item) -> Item:
        error = why_lost(item.wanted.model, item.remote)
        return replace(item, refused=error) if error else item

    def fetched(one: FileResult) -> FileResult:
        error = None if one.error else why_lost(one.item.wanted.model, one.remote)
        return replace(one, error=error) if error else one

    keep, linked = (list(map(planned, items)) for items in (plan.keep, plan.linked))
    plan = replace(
        plan,
        keep=tuple(item for item in keep if not item.refused),
        linked=tuple(item for item in linked if not item.refused),
        refuse=(*plan.refuse, *(item for item in (*keep, *linked) if item.refused)),
    )
    return plan, [replace(result, files=tuple(map(fetched, result.files))) for result in results]


def _tell_of_left_out(left_out: Mapping[str, Sequence[LeftOutFile]], plan: Plan, context: Context) -> None:
    """Say what is not fetched of the models of which something is, because it is the same in other formats."""
    fetched = {item.wanted.model for item in plan.fetch}
    for name, files in left_out.items():
        if name in fetched:
            context.on_event(Noticed(name, message=words_of_left_out([file.size for file in files])))


def _with_left_out(report: Report, left_out: Mapping[str, Sequence[LeftOutFile]]) -> Report:
    """The report with the files that are left out of each model."""
    models = [replace(model, left_out=tuple(left_out.get(model.name, ()))) for model in report.models]
    return replace(report, models=tuple(models))


def _warn_of_pickles(report: Report, wanted: Sequence[Wanted], context: Context) -> None:
    """Say of what has just come which of it runs code when it is loaded."""
    new = {
        model.name: {row.path for row in model.files if row.action in ("fetched", "linked")} for model in report.models
    }
    found: dict[str, list[str]] = {}
    for one in wanted:
        name = one.remote.path.text
        if name in new.get(one.model, ()) and is_pickle(
            name, context.store.read_head(one.model, one.remote, head_of(name))
        ):
            found.setdefault(one.model, []).append(name)
    for model, names in found.items():
        context.on_event(Noticed(model, message=warning(names)))
