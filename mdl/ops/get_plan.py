"""Get's plan: which files the models have at their sources, what of them is on this disk, and what is to be fetched.

`mdl.ops.get` carries it out. Nothing is written here but what `take_local_copies` says.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mdl.catalog.model import COMMAND_LINE, Model
from mdl.catalog.resolver import IsNew, Resolved, nothing_is_new
from mdl.context import Context
from mdl.downloader.connection_scaler import Tuning
from mdl.downloader.copies import reuse, unique_by_digest
from mdl.downloader.plan import Item, Plan, Reason, Wanted
from mdl.downloader.store import Store
from mdl.errors import AuthError, LockError, MdlError, NetworkError, NoSpace, NotFound, online_hint, whole_error
from mdl.events import Planned
from mdl.files import LocalFile, RefusedFile, RemoteFile
from mdl.formatting import listed
from mdl.local.hash_progress import watch_reading
from mdl.local.status import model_status
from mdl.reports import LeftOutFile
from mdl.sources.hub_origin import HubOrigin


@dataclass(eq=False, repr=False)
class Found:
    """The files of ``models`` at their sources, and what of them is here.

    ``wanted`` are the files to have. ``unkept`` are files whose names cannot be kept here, each with its model.
    ``broken`` says why a model could not be resolved, or not from all of its sources. ``left_out`` are the same weights
    in other formats, as far as they are not here. ``began`` is the moment of the monotonic clock at which the search
    began.
    """

    models: Sequence[Model]
    wanted: list[Wanted] = field(default_factory=list)
    unkept: list[tuple[str, RefusedFile]] = field(default_factory=list)
    broken: dict[str, MdlError] = field(default_factory=dict)
    left_out: dict[str, list[LeftOutFile]] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)


def find_files(models: Sequence[Model], context: Context, is_new: IsNew = nothing_is_new) -> Found:
    """Ask the sources of all models for their files, and look what of them is here. ``is_new`` is as
    `Resolver.resolve_each` has it."""
    found = Found(models)
    store = context.store
    models_before = [None, *models][: len(models)]
    resolved_models = context.resolver.resolve_all(models, is_new)
    for before, model, resolved in zip(models_before, models, resolved_models, strict=True):
        try:
            if isinstance(resolved, MdlError):
                raise resolved
            wanted = _look_at(model, resolved, context)
            absent = [file for file in resolved.left_out if _is_absent(file, model, store)]
        except MdlError as error:
            found.broken[model.name] = _with_advice(error, model, before, context)
            continue
        found.wanted += wanted
        found.unkept += [(model.name, file) for file in resolved.refused]
        if absent:
            found.left_out[model.name] = [LeftOutFile(str(file.path), file.size) for file in absent]
        if resolved.errors:
            found.broken[model.name] = _joined([_with_note(error, model) for error in resolved.errors])
    return found


def _look_at(model: Model, resolved: Resolved, context: Context) -> list[Wanted]:
    """The files of a model, each with what is on this disk of it."""
    store = context.store
    clashes = store.clashes(model.name, resolved.files)
    wanted = []
    for number, remote in enumerate(resolved.files):
        error = clashes.get(number) or resolved.failed.get(remote.path)
        if error:
            wanted.append(Wanted(model.name, remote, LocalFile(), _with_note(error, model)))
            continue
        local = store.check(model.name, remote, watch=watch_reading(model.name, remote, context.on_event))
        wanted.append(Wanted(model.name, remote, local))
    return wanted


def _is_absent(file: RemoteFile | RefusedFile, model: Model, store: Store) -> bool:
    return isinstance(file, RefusedFile) or store.is_new(model.name, file)


def _with_advice(error: MdlError, model: Model, before: Model | None, context: Context) -> MdlError:
    """The error of a model that could not be resolved, with what its user can do. ``before`` is the model that was
    named before it."""
    if isinstance(error, NetworkError) and _is_all_here(model, context):
        return error.but(hint="all that its source had when it was last asked is here: --offline uses that")
    if isinstance(error, NotFound | AuthError) and before is not None:
        repository = _repository_typed(before)
        folder = _repository_typed(model)
        if repository and folder:  # 'mdl get org/repo sub/dir': two repositories, unless a slash follows (ADR 101)
            hint = f"for the folder {folder} of {repository}: mdl get {repository} {folder}/"
            return error.but(hint="; else ".join(filter(None, (hint, error.hint))))
    return _with_note(error, model)


def _repository_typed(model: Model) -> str:
    """The ``org/repo`` that somebody typed for a model; '' if the model is something else."""
    if model.origin == COMMAND_LINE and model.sources:
        origin = model.sources[0]
        if isinstance(origin, HubOrigin) and origin.is_model_repository and not origin.revision:
            return origin.repo
    return ""


def _is_all_here(model: Model, context: Context) -> bool:
    """Whether everything is here that the model's source had when it was last asked."""
    try:
        return model_status(model, context.resolver, context.store).status == "present"
    except MdlError:
        return False


def _with_note(error: MdlError, model: Model) -> MdlError:
    """The same error; if access is denied, its hint has the catalog's note on that too."""
    if not isinstance(error, AuthError) or not model.note:
        return error
    return error.but(hint="; ".join(filter(None, (error.hint, model.note))))


def _joined(errors: Sequence[MdlError]) -> MdlError:
    """One error for the sources of one model that failed, each named in it."""
    if len(errors) == 1:
        return errors[0]
    return whole_error(listed([f"{error.item}: {error.message}" for error in errors], "; "), errors)


def with_sizes(plan: Plan, context: Context, *, is_planned: bool = False) -> Plan:
    """Ask for the sizes that are unknown, of files of which something is on this disk that is to be judged by its size.
    (Of a new file, the answer that brings it tells the size.) What fails here fails again in the transfer, which
    reports it with the file."""
    unknown = [item for item in plan.fetch if _needs_size(item, context, is_planned=is_planned)]
    if not unknown:
        return plan
    answers = context.resolver.probe_all([item.remote for item in unknown])
    probed: dict[Item, RemoteFile] = {}
    for item, answer in zip(unknown, answers, strict=True):
        if not isinstance(answer, MdlError):
            probed[item] = answer
    fetch: list[Item] = []
    refuse = list(plan.refuse)
    for item in plan.fetch:
        if item not in probed:
            fetch.append(item)
        elif item.reason == Reason.UNFINISHED:
            decided_again = Plan.of([replace(item.wanted, remote=probed[item])])
            fetch += decided_again.fetch
            refuse += decided_again.refuse
        else:
            model = item.wanted.model
            local = context.store.quick_check(model, probed[item])
            fetch.append(replace(item, wanted=Wanted(model, probed[item], local)))
    return replace(plan, fetch=tuple(fetch), refuse=tuple(refuse))


def _needs_size(item: Item, context: Context, *, is_planned: bool) -> bool:
    remote = item.remote
    if remote.size is not None:
        return False
    is_of_hub_client = context.hub_client is not None and remote.hub is not None
    if is_planned or is_of_hub_client or not context.store.is_new(item.wanted.model, remote):
        return True
    copies = context.local_copies
    return copies is not None and bool(copies.candidates(item.wanted.model, remote))


def predict_local_copies(plan: Plan, context: Context, *, force: bool) -> Plan:
    """The plan with what seems to be elsewhere on this disk; none of it is read. Of the files that want the same bytes,
    one is fetched."""
    copies = context.local_copies
    if copies is None:
        return plan
    left: list[Item] = []
    linked: list[Item] = []
    for item in plan.fetch:
        predicted = None if force else copies.predict(item)
        if predicted:
            linked.append(predicted)
        else:
            left.append(item)
    return _fetch_each_once(plan, left, linked, context)


def take_local_copies(plan: Plan, context: Context, *, force: bool) -> Plan:
    """Take the files that are elsewhere on this disk from there; what turns out to be other bytes is left to fetch.

    Raises `NoSpace` before anything is copied.
    """
    predicted = predict_local_copies(plan, context, force=force)
    copies = context.local_copies
    if copies is None or force:
        return predicted
    if predicted.bytes_to_copy:
        needed = predicted if context.network else replace(predicted, fetch=())
        try:
            needed.check_space(context.store.free_space())
        except NoSpace:
            context.on_event(planned_event(predicted))
            raise
    linked, left = reuse(plan.fetch, copies, context.on_event)
    return _fetch_each_once(plan, left, linked, context)


def _fetch_each_once(plan: Plan, left: list[Item], linked: list[Item], context: Context) -> Plan:
    """The plan that links ``linked`` and fetches each digest that is ``left`` once."""
    assert context.local_copies is not None
    first, again = unique_by_digest(left)
    repeated = [context.local_copies.predict_duplicate(item) for item in again]
    return replace(plan, fetch=tuple(first), linked=(*plan.linked, *linked), repeated=tuple(repeated))


def with_unfinished_files(plan: Plan, context: Context, *, force: bool) -> Plan:
    """The plan with the unfinished files of other programs from which the first bytes are borrowed. A small file is
    fetched in one piece and borrows nothing."""
    borrowers = {item for item in plan.fetch if not force and _may_borrow(item, context)}
    if not borrowers:
        return plan
    from mdl.downloader.foreign_partials import unfinished_blobs

    in_cache = unfinished_blobs(context.local_copies.repos if context.local_copies else ())
    fetch: list[Item] = []
    for item in plan.fetch:
        fetch.append(_borrowing(item, context, in_cache) if item in borrowers else item)
    return replace(plan, fetch=tuple(fetch))


def _may_borrow(item: Item, context: Context) -> bool:
    """Whether an unfinished file is looked for: the digest of a large one tells whether it was the right one."""
    remote = item.remote
    if remote.digest is None or (context.hub_client and remote.hub):
        return False
    return remote.size is None or remote.size > (context.tuning or Tuning()).small


def _borrowing(item: Item, context: Context, in_cache: Mapping[str, Sequence[Path]]) -> Item:
    """The item with the unfinished file that has more of it than mdl's own partial, if there is one."""
    from mdl.downloader.foreign_partials import find_half

    model = item.wanted.model
    store = context.store
    final = store.final_path(model, item.remote)
    half_final = item.local if item.reason == Reason.UNFINISHED else None
    half = find_half(final, store.folder(model), item.remote, in_cache, half_final)
    if half is None or half.size <= item.local.partial:
        return item
    return replace(item, half=half)


def without_network(plan: Plan, context: Context) -> Plan:
    """The plan of which nothing can be fetched: what is missing is refused."""
    hint = online_hint(context.offline_by)
    absent = []
    for item in (*plan.fetch, *plan.repeated):
        absent.append(replace(item, refused=LockError(f"{item.reason}; mdl is offline", hint=hint)))
    return replace(plan, fetch=(), repeated=(), refuse=(*plan.refuse, *absent))


def planned_event(plan: Plan) -> Planned:
    """The event that announces the plan."""
    names = [item.wanted.model for item in plan.items]
    names += [name for name, _ in plan.unkept]
    return Planned(
        models=tuple(Counter(names).items()),
        files=len(names),
        bytes_total=plan.bytes_total,
        bytes_kept=plan.bytes_kept,
        bytes_to_fetch=plan.bytes_to_fetch,
        bytes_elsewhere=plan.bytes_elsewhere,
        bytes_to_copy=plan.bytes_to_copy,
    )
