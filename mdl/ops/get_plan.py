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
from mdl.downloader.copies import LocalCopies, reuse, unique_by_digest
from mdl.downloader.plan import Item, Plan, Reason, Wanted
from mdl.downloader.store import Store
from mdl.errors import AuthError, LockError, MdlError, NetworkError, NoSpace, NotFound, online_hint, whole_error
from mdl.events import Planned
from mdl.files import LocalFile, RefusedFile, RemoteFile
from mdl.formatting import listed
from mdl.local.hash_progress import watch_reading
from mdl.local.status import model_status
from mdl.paths import RelPath
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
    typed_before: Model | None = None
    for model, resolved in zip(models, context.resolver.resolve_all(models, is_new), strict=True):
        before = typed_before
        typed_before = model
        try:
            if isinstance(resolved, MdlError):
                raise resolved
            wanted = _look_at(model, resolved, context)
            left_out = _absent_ones(resolved.left_out, model, context.store)
        except MdlError as error:
            found.broken[model.name] = _with_advice(error, model, before, context)
            continue
        found.wanted += wanted
        found.unkept += [(model.name, file) for file in resolved.refused]
        if left_out:
            found.left_out[model.name] = left_out
        if resolved.errors:
            found.broken[model.name] = _joined([_with_note(error, model) for error in resolved.errors])
    return found


def _look_at(model: Model, resolved: Resolved, context: Context) -> list[Wanted]:
    """The files of a model, each with what is on this disk of it."""
    store = context.store
    files = list(resolved.files)
    failed = dict(resolved.failed)
    if store.layout.is_by_digest and context.network:
        _ask_for_digests(files, failed, context)
    clashes = store.clashes(model.name, files)
    wanted = []
    for number, remote in enumerate(files):
        error = clashes.get(number) or failed.get(remote.path)
        if error:
            wanted.append(Wanted(model.name, remote, LocalFile(), _with_note(error, model)))
            continue
        local = store.check(model.name, remote, watch=watch_reading(model.name, remote, context.on_event))
        wanted.append(Wanted(model.name, remote, local))
    return wanted


def _ask_for_digests(files: list[RemoteFile], failed: dict[RelPath, MdlError], context: Context) -> None:
    """Ask for the missing digests and add them to ``files``: this layout names files by digest, and a hub without lists
    gives none. A file whose server cannot be asked is added to ``failed``."""
    numbers = [number for number, file in enumerate(files) if file.digest is None and not file.probed]
    answers = context.resolver.probe_all([files[number] for number in numbers])
    for number, answer in zip(numbers, answers, strict=True):
        if isinstance(answer, MdlError):
            failed[files[number].path] = answer
        else:
            files[number] = answer


def _absent_ones(files: Sequence[RemoteFile | RefusedFile], model: Model, store: Store) -> list[LeftOutFile]:
    """Those of the files that were left out of which nothing is here."""
    absent: list[LeftOutFile] = []
    for file in files:
        if isinstance(file, RefusedFile) or store.is_new(model.name, file):
            absent.append(LeftOutFile(str(file.path), file.size))
    return absent


def _with_advice(error: MdlError, model: Model, before: Model | None, context: Context) -> MdlError:
    """The error of a model that could not be resolved, with what its user can do. ``before`` is the model that was
    named before it."""
    if isinstance(error, NetworkError) and _is_all_here(model, context):
        return error.but(hint="all that its source had when it was last asked is here: --offline uses that")
    if isinstance(error, NotFound | AuthError):
        repository = _repository_typed(before)
        folder = _repository_typed(model)
        if repository and folder:  # 'mdl get org/repo sub/dir': two repositories, unless a slash follows (ADR 101)
            hint = f"for the folder {folder} of {repository}: mdl get {repository} {folder}/"
            if error.hint:
                hint += f"; else {error.hint}"
            return error.but(hint=hint)
    return _with_note(error, model)


def _repository_typed(model: Model | None) -> str:
    """The ``org/repo`` that somebody typed for a model; '' if the model is something else."""
    if model is None or model.origin != COMMAND_LINE or not model.sources:
        return ""
    origin = model.sources[0]
    if not isinstance(origin, HubOrigin) or not origin.is_model_repository or origin.revision:
        return ""
    return origin.repo


def _is_all_here(model: Model, context: Context) -> bool:
    """Return whether everything is here that the model's source had when it was last asked."""
    try:
        return model_status(model, context.resolver, context.store).status == "present"
    except MdlError:
        return False


def _with_note(error: MdlError, model: Model) -> MdlError:
    """The same error; if access is denied, its hint has the catalog's note on that too."""
    if not isinstance(error, AuthError) or not model.note:
        return error
    hint = model.note
    if error.hint:
        hint = f"{error.hint}; {hint}"
    return error.but(hint=hint)


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
    answers = dict(zip(unknown, context.resolver.probe_all([item.remote for item in unknown]), strict=True))
    fetch: list[Item] = []
    refuse = list(plan.refuse)
    for item in plan.fetch:
        remote = answers.get(item)
        if remote is None or isinstance(remote, MdlError):
            fetch.append(item)
        elif item.reason == Reason.UNFINISHED:
            decided_again = Plan.of([replace(item.wanted, remote=remote)])
            fetch += decided_again.fetch
            refuse += decided_again.refuse
        else:
            model = item.wanted.model
            local = context.store.quick_check(model, remote)
            fetch.append(replace(item, wanted=Wanted(model, remote, local)))
    return replace(plan, fetch=tuple(fetch), refuse=tuple(refuse))


def _needs_size(item: Item, context: Context, *, is_planned: bool) -> bool:
    remote = item.remote
    if remote.size is not None:
        return False
    if is_planned or _is_of_hub_client(item, context):
        return True
    if not context.store.is_new(item.wanted.model, remote):
        return True
    copies = context.local_copies
    return copies is not None and bool(copies.candidates(item.wanted.model, remote))


def _is_of_hub_client(item: Item, context: Context) -> bool:
    """Return whether the hub's own client fetches the file."""
    return context.hub_client is not None and item.remote.hub is not None


def predict_local_copies(plan: Plan, context: Context, *, force: bool) -> Plan:
    """The plan with what seems to be elsewhere on this disk; none of it is read. Of the files that want the same bytes,
    one is fetched."""
    copies = context.local_copies
    if copies is None:
        return plan
    if force:
        return _fetch_each_once(plan, plan.fetch, [], copies)
    left: list[Item] = []
    linked: list[Item] = []
    for item in plan.fetch:
        predicted = copies.predict(item)
        if predicted is None:
            left.append(item)
        else:
            linked.append(predicted)
    return _fetch_each_once(plan, left, linked, copies)


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
    return _fetch_each_once(plan, left, linked, copies)


def _fetch_each_once(plan: Plan, left: Sequence[Item], linked: Sequence[Item], copies: LocalCopies) -> Plan:
    """The plan that links ``linked`` and fetches each digest that is ``left`` once."""
    first, again = unique_by_digest(left)
    repeated = [copies.predict_duplicate(item) for item in again]
    return replace(plan, fetch=tuple(first), linked=(*plan.linked, *linked), repeated=tuple(repeated))


def with_unfinished_files(plan: Plan, context: Context, *, force: bool) -> Plan:
    """The plan with the unfinished files of other programs from which the first bytes are borrowed. A small file is
    fetched in one piece and borrows nothing."""
    if force:
        return plan
    borrowers = {item for item in plan.fetch if _may_borrow(item, context)}
    if not borrowers:
        return plan
    from mdl.downloader.foreign_partials import unfinished_blobs

    repos = context.local_copies.repos if context.local_copies else ()
    in_cache = unfinished_blobs(repos)
    fetch: list[Item] = []
    for item in plan.fetch:
        if item in borrowers:
            item = _borrowing(item, context, in_cache)
        fetch.append(item)
    return replace(plan, fetch=tuple(fetch))


def _may_borrow(item: Item, context: Context) -> bool:
    """Return whether an unfinished file is looked for: the digest of a large one tells whether it was the right one."""
    remote = item.remote
    if remote.digest is None or _is_of_hub_client(item, context):
        return False
    if remote.size is None:
        return True
    tuning = context.tuning or Tuning()
    return remote.size > tuning.small


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
