"""fetch: bring the results of training jobs here: wait for a job, get its files, and open what comes as one zip."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import field, replace
from itertools import chain, repeat
from pathlib import Path
from typing import cast

from mdl.archive.directory import ArchiveLimits
from mdl.catalog.model import Model
from mdl.catalog.resolver import narrow
from mdl.engine.plan import Item, Plan, Wanted
from mdl.engine.store import Ready, Store
from mdl.errors import MdlError, NetworkError, ProtocolError, storage_trouble
from mdl.events import Failed, Noticed
from mdl.files import RemoteFile
from mdl.fs import staging
from mdl.hashing import Digest, Fingerprint
from mdl.operations.get import get, plan
from mdl.operations.pack import plan_files, write_pack
from mdl.operations.release import ReleaseResult, UnpackResult, release, unpack
from mdl.operations.report import kept_and_refused, model_report, report_of
from mdl.operations.tools import Tools, adopt_kept, model_locks, tell_kept
from mdl.paths import RelPath
from mdl.redact import bare_url
from mdl.remotes import JobOrigin, JobSource, Remote, of_remote
from mdl.reports import Failure, FileReport, ModelReport, PlanReport, Report
from mdl.values import value_class

_POLLS = (2.0, 3.0, 5.0, 10.0, 20.0, 30.0)
"""Seconds between two questions about a job that runs; the last one again and again."""
_WHEN_FULL = "free some space, and run the same command again; the archive that was fetched is kept"


@value_class
class FetchReport(Report):
    """How fetching went; ``release`` is what is served now, if the results were put into service, and
    ``release_error`` why that failed."""

    release: ReleaseResult | None = None
    release_error: MdlError | None = None

    @property
    def failed(self) -> list[Failure]:
        return super().failed + ([Failure("release", self.release_error)] if self.release_error else [])


@value_class
class Service:
    """Where results are put into service: ``folder`` of the releases, of which ``keep`` stay, once ``check`` ended with
    0."""

    folder: Path
    keep: int = 3
    check: str | Sequence[str] | None = None


@value_class
class FetchOptions:
    """How jobs are fetched. ``wait`` seconds in all for those that still run; ``allow_running`` takes what is there of
    them. ``keep_archive`` keeps the zip of a training server beside its folder, and ``limits`` says how much it may
    hold. ``force`` replaces files that are not mdl's; ``service`` puts the results of one job into service."""

    wait: float = 0.0
    allow_running: bool = False
    keep_archive: bool = False
    force: bool = False
    limits: ArchiveLimits = field(default_factory=ArchiveLimits)
    service: Service | None = None


def fetch(models: Sequence[Model], tools: Tools, options: FetchOptions) -> FetchReport:
    """Bring the results of jobs into the store. Each of ``models`` has one source, a `JobOrigin` of the same remote.

    What fails for one job is in the report and hinders no other: `NotFound` for a job that is unknown, failed or was
    cancelled, `NotFinished` for one that still runs, `ProtocolError` for a zip that is cut or not what it says, and
    what `release` raises. Raises as `mdl.operations.get.get`.
    """
    began = time.monotonic()
    ready, broken = _done(models, tools, options)
    zipped = [model for model in ready if _is_zipped(model, tools)]
    reports = [*broken, *(_fetch_zip(model, tools, options) for model in zipped)]
    if plain := [model for model in ready if model not in zipped]:
        reports.append(get(plain, tools, force=options.force))
    whole = FetchReport(
        _in_order(models, reports),
        bytes_fetched=sum(report.bytes_fetched for report in reports),
        bytes_kept=sum(report.bytes_kept for report in reports),
        bytes_discarded=sum(report.bytes_discarded for report in reports),
    )
    if options.service and not whole.error:
        try:
            whole = replace(whole, release=_put_into_service(whole.models[0], tools, options.service))
        except MdlError as error:
            whole = replace(whole, release_error=error)
    return replace(whole, seconds=time.monotonic() - began)


def plan_fetch(models: Sequence[Model], tools: Tools, options: FetchOptions) -> PlanReport:
    """What `fetch` would do now. Nothing is written, and no job is waited for: one that still runs is `NotFinished`.

    The zip of a training server is one row, unless what it holds is here: what is in it is known once it is fetched.
    Raises as `mdl.operations.get.plan`.
    """
    ready, broken = _done(models, tools, replace(options, wait=0.0))
    zipped = [model for model in ready if _is_zipped(model, tools)]
    kept = {}
    for model in zipped if not options.force else ():
        [archive] = _source_of(model, tools).resolve(_origin_of(model))
        if found := _kept(model, archive, tools):
            kept[model.name] = report_of([model], tools.store, found, {}, is_planned=True)
    rest = [replace(model, include=(), exclude=()) if model in zipped else model for model in ready]
    report = plan([model for model in rest if model.name not in kept], tools, force=options.force)
    return replace(
        report,
        models=_in_order(models, [*broken, *kept.values(), report]),
        bytes_kept=report.bytes_kept + sum(one.bytes_kept for one in kept.values()),
        bytes_total=report.bytes_total + sum(one.bytes_kept for one in kept.values()),
    )


def _in_order(models: Sequence[Model], reports: Iterable[Report]) -> tuple[ModelReport, ...]:
    """What the reports say of the models, one row each."""
    rows = {row.name: row for report in reports for row in report.models}
    return tuple(rows[model.name] for model in models)


def _put_into_service(model: ModelReport, tools: Tools, service: Service) -> ReleaseResult:
    """Release the files of a model, and nothing else that is in its folder, as `release` does with an archive."""
    store, archive = tools.store, RelPath.parse(f"release-{threading.get_native_id()}.zip")  # two threads may do that
    with store.scratch_folder(model.name, RemoteFile(archive, "")) as scratch:
        packed = archive.under(scratch)
        files = [one.path for one in model.files]
        write_pack(plan_files(model.path, files, packed), on_event=tools.on_event, cancel=store.cancel)
        return release(
            packed,
            service.folder,
            keep=service.keep,
            check=service.check,
            limits=ArchiveLimits(ratio=math.inf),  # mdl packed it itself: it is not a bomb
            lock_wait=tools.lock_wait,
            cancel=store.cancel,
            on_event=tools.on_event,
        )


def _origin_of(model: Model) -> JobOrigin:
    [origin] = model.sources
    return cast(JobOrigin, origin)


def _source_of(model: Model, tools: Tools) -> JobSource:
    return cast(JobSource, tools.resolver.source(_origin_of(model)))


def _remote_of(model: Model, tools: Tools) -> Remote:
    return _source_of(model, tools).remote(_origin_of(model).remote)


def _is_zipped(model: Model, tools: Tools) -> bool:
    return tools.network is not None and _remote_of(model, tools).is_zipped


def _done(models: Sequence[Model], tools: Tools, options: FetchOptions) -> tuple[list[Model], list[Report]]:
    """The models whose jobs are done, after ``options.wait`` seconds in all, and the reports of those that are not.
    Offline nobody is asked."""
    until = time.monotonic() + options.wait
    ready: list[Model] = []
    broken: list[Report] = []
    for model in models:
        try:
            if tools.network:
                _wait_until_done(model, tools, until, allow_running=options.allow_running)
            ready.append(model)
        except MdlError as error:
            broken.append(_failed(model, error, tools))
    return ready, broken


def _wait_until_done(model: Model, tools: Tools, until: float, *, allow_running: bool) -> None:
    """Raises `NotFinished` if the job still runs at the moment ``until`` of the monotonic clock, `NotFound` if it has
    no result. Once the remote has answered, trouble with the network is waited out as well."""
    remote, origin, has_answered = _remote_of(model, tools), _origin_of(model), False
    for delay in chain(_POLLS, repeat(_POLLS[-1])):
        left = until - time.monotonic()
        try:
            found = remote.status(origin.job)
            if found.is_over or allow_running or left <= 0:
                found.check_is_done(allow_running=allow_running, logs=origin.logs)
                return
            if not has_answered:
                tools.on_event(Noticed(model.name, message=f"waiting for the job, which is still {found.status}"))
            has_answered = True
        except NetworkError as error:
            if not has_answered or left <= 0:
                raise
            tools.on_event(Noticed(model.name, message=f"waiting on: {error.message}"))
        tools.store.cancel.wait(min(delay, left))


def _failed(model: Model, error: MdlError, tools: Tools) -> Report:
    """Tell that a job could not be fetched, and return the report of it."""
    of_remote(error.on(model.name), _origin_of(model).remote)
    tools.on_event(Failed(model.name, "", error.code, error.message, error.advice, error.item))
    return Report((ModelReport(model.name, tools.store.folder(model.name), "missing", (), error),))


# What comes as one zip.


def _fetch_zip(model: Model, tools: Tools, options: FetchOptions) -> Report:
    """Fetch the zip of a job, open it as `unpack` does, and publish what it holds, file by file.

    The zip is kept if that was stopped, or did not work on this disk: the same command again goes on with it.
    """
    source, origin, store = _source_of(model, tools), _origin_of(model), tools.store
    archives, report = Store(store.archives, cancel=store.cancel), Report()
    try:
        with model_locks([model], tools):
            [archive] = source.resolve(origin)
            store.final_path(model.name, archive)  # raises at once if this layout cannot hold it
            is_wanted = options.keep_archive and not _is_here(origin.remote, archive, store)
            if not is_wanted and not options.force and (kept := _kept(model, archive, tools)):
                tell_kept(kept, tools.on_event)
                return report_of([model], store, kept, {})
            tools.on_event(Noticed(model.name, message="waiting for the server, which makes the zip before it sends"))
            one = replace(model, include=(), exclude=())
            report = get([one], replace(tools, store=archives, local_copies=None, hub_client=None))
            if error := report.error:
                row = replace(report.models[0], path=store.folder(model.name), files=(), error=error)
                return replace(report, models=(row,))
            try:
                _check_unchanged(source, origin, archive, options)
                row = _publish(model, archive, archives, source, tools, options)
            except ProtocolError:
                _discard(model, archives)
                raise
            if row.is_whole:
                _discard(model, archives)
            return replace(report, models=(row,))
    except MdlError as error:
        return replace(report, models=_failed(model, error, tools).models)


def _discard(model: Model, archives: Store) -> None:
    """Remove the zip of a job, and its receipt."""
    for place in (archives.folder(model.name), archives.receipts.place(model.name)):
        staging.remove(place)


def _kept(model: Model, archive: RemoteFile, tools: Tools) -> Plan | None:
    """The files of a job if all are here, as they came with this very zip; None if they are not."""
    known = _source_of(model, tools).known(_origin_of(model)) or []
    if not known or any(one.url != archive.url for one in known):
        return None
    asked = narrow(known, model.include, model.exclude, model.name)
    found = Plan.of(Wanted(model.name, one, tools.store.quick_check(model.name, one)) for one in asked)
    return None if found.fetch or found.refuse else found


def _is_here(folder: str, archive: RemoteFile, store: Store) -> bool:
    """Whether this very zip was kept in that folder."""
    return bool(Plan.of([Wanted(folder, archive, store.quick_check(folder, archive))]).keep)


def _check_unchanged(source: JobSource, origin: JobOrigin, archive: RemoteFile, options: FetchOptions) -> None:
    """Raises `ProtocolError` if the job is not what it was before its zip was fetched: its URL would be another."""
    [after] = source.resolve(origin)
    if after.url != archive.url and not options.allow_running:
        hint = "run the same command again; --allow-running takes what is there"
        raise ProtocolError("the job changed while its files were fetched", item=origin.job, hint=hint)


def _publish(
    model: Model, archive: RemoteFile, archives: Store, source: JobSource, tools: Tools, options: FetchOptions
) -> ModelReport:
    """Unpack the zip beside the models, and give every file its final name; returns how each went."""
    store, path = tools.store, archives.final_path(model.name, archive)
    with storage_trouble(store.root, _WHEN_FULL), store.scratch_folder(model.name, archive) as scratch:
        limits = replace(options.limits, bytes=options.limits.bytes or tools.max_size)
        done = unpack(path, scratch / "files", limits=limits, cancel=store.cancel, on_event=tools.on_event)
        files = [
            RemoteFile(RelPath.parse(one.path), archive.url, one.size, Digest("sha256", one.sha256))
            for one in done.manifest.files
        ]
        source.keep(_origin_of(model), files)
        asked = narrow(files, model.include, model.exclude, model.name)
        found = Plan.of(
            (Wanted(model.name, file, store.check(model.name, file)) for file in asked), force=options.force
        )
        adopt_kept(found, store)
        rows = [_published(item, done, store) for item in found.fetch]
        if options.keep_archive:
            whole = store.fingerprint(path, archive)
            store.publish(Ready(_origin_of(model).remote, replace(archive, size=whole.size), path, whole, "size"))
    return model_report(model, store, [*rows, *(row for _, row in kept_and_refused(found))])


def _published(item: Item, done: UnpackResult, store: Store) -> FileReport:
    store.cancel.check()
    remote, digest = item.remote, item.remote.digest
    assert digest is not None
    assert remote.size is not None
    verified = "sha256" if done.verified == "sha256" else "size"
    row = FileReport(remote.path.text, remote.size, digest.hex, "fetched", verified, url=bare_url(remote.url))
    try:
        with storage_trouble(remote.path, _WHEN_FULL):
            place = remote.path.under(done.path)
            print_ = Fingerprint(digest, remote.size)
            store.publish(Ready(item.wanted.model, remote, place, print_, verified, item.seen))
    except MdlError as error:
        return replace(row, action="failed", verified="none", error=error)
    return row
