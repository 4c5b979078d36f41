"""fetch: bring the results of training jobs here: wait for a job, get its files, and open what comes as one zip."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

from mdl.archive.directory import ArchiveLimits
from mdl.catalog.model import Model
from mdl.catalog.resolver import narrow
from mdl.engine.plan import Item, Plan, Wanted
from mdl.engine.store import Store
from mdl.errors import MdlError, ProtocolError, Unsafe, storage_trouble
from mdl.events import Finished, Noticed
from mdl.files import RemoteFile
from mdl.fs import staging
from mdl.hashing import Digest, Fingerprint
from mdl.operations.get import get
from mdl.operations.pack import plan_files, write_pack
from mdl.operations.release import ReleaseResult, UnpackResult, release, unpack
from mdl.operations.report import kept_and_refused, model_report, report_of
from mdl.operations.tools import Tools, adopt_kept, model_locks, verified_by
from mdl.paths import RelPath, record_name
from mdl.redact import bare_url
from mdl.reports import FileReport, ModelReport, Report
from mdl.sources.remote import JobOrigin, JobSource, Remote

_RELEASED = RelPath.parse("release.zip")
_POLLS = (2.0, 3.0, 5.0, 10.0, 20.0, 30.0)
_WHEN_FULL = "free some space, and run the same command again; the archive that was fetched is kept"


@dataclass(frozen=True)
class FetchReport(Report):
    """How fetching went; ``release`` is what is served now, if the results were put into service."""

    release: ReleaseResult | None = None


@dataclass(frozen=True)
class Service:
    """Where results are put into service: ``folder`` of the releases, of which ``keep`` stay, once ``check`` ended with
    0."""

    folder: Path
    keep: int = 3
    check: str | Sequence[str] | None = None


@dataclass(frozen=True)
class FetchOptions:
    """How jobs are fetched. ``wait`` seconds for one that still runs; None not at all. ``allow_running`` takes what is
    there of it. ``keep_archive`` keeps the zip of a training server beside its folder. ``limits`` says how much a zip
    may hold; ``force`` replaces files that are not mdl's; ``service`` puts the results of one job into service."""

    wait: float | None = None
    allow_running: bool = False
    keep_archive: bool = False
    force: bool = False
    limits: ArchiveLimits = field(default_factory=ArchiveLimits)
    service: Service | None = None


def fetch(models: Sequence[Model], tools: Tools, options: FetchOptions) -> FetchReport:
    """Bring the results of jobs into the store. Each of ``models`` has one source, a `JobOrigin` of the same remote.

    What fails for one job is in the report and hinders no other: `NotFound` for a job that is unknown, failed or was
    cancelled, `NotFinished` for one that still runs, `ProtocolError` for a zip that is cut or not what it says. Raises
    as `mdl.operations.get.get`.
    """
    began = time.monotonic()
    broken: dict[str, MdlError] = {}
    for model in models if tools.http else ():
        try:
            _wait_until_done(model, tools, options)
        except MdlError as error:
            broken[model.name] = error
    ready = [model for model in models if model.name not in broken]
    zipped = [model for model in ready if tools.http and _remote_of(model, tools).is_zipped]
    reports = [_fetch_zip(model, tools, options) for model in zipped]
    if plain := [model for model in ready if model not in zipped]:
        reports.append(get(plain, tools, force=options.force))
    failed = tuple(ModelReport(name, tools.store.folder(name), "missing", (), error) for name, error in broken.items())
    rows = {row.name: row for report in [*reports, Report(failed)] for row in report.models}
    whole = FetchReport(
        tuple(rows[model.name] for model in models),
        bytes_fetched=sum(report.bytes_fetched for report in reports),
        bytes_kept=sum(report.bytes_kept for report in reports),
        bytes_discarded=sum(report.bytes_discarded for report in reports),
    )
    if options.service and not whole.error:
        whole = replace(whole, release=_put_into_service(whole.models[0], tools, options.service))
    return replace(whole, seconds=time.monotonic() - began)


def _put_into_service(model: ModelReport, tools: Tools, service: Service) -> ReleaseResult:
    """Release what was fetched of a model, as `release` does with an archive of it. What else is in its folder, as the
    files of an earlier result, is not served."""
    store = tools.store
    with store.scratch_folder(model.name, RemoteFile(_RELEASED, "")) as scratch:
        packed = _RELEASED.under(scratch)
        files = [file.path for file in model.files]
        write_pack(plan_files(model.path, files, packed), on_event=tools.on_event, cancel=store.cancel)
        return release(
            packed,
            service.folder,
            keep=service.keep,
            check=service.check,
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


def _wait_until_done(model: Model, tools: Tools, options: FetchOptions) -> None:
    """Raises `NotFinished` if the job still runs after ``options.wait`` seconds, `NotFound` if it has no result."""
    remote, job = _remote_of(model, tools), _origin_of(model).job
    until = None if options.wait is None else time.monotonic() + options.wait
    for delay in _delays():
        found = remote.status(job)
        left = 0.0 if until is None else until - time.monotonic()
        if found.is_over or options.allow_running or left <= 0:
            found.check_is_done(allow_running=options.allow_running)
            return
        if delay == _POLLS[0]:
            tools.on_event(Noticed(model.name, message=f"waiting for the job, which is still {found.status}"))
        tools.store.cancel.wait(min(delay, left))


def _delays() -> Iterator[float]:
    yield from _POLLS
    while True:
        yield _POLLS[-1]


# What comes as one zip.


def _fetch_zip(model: Model, tools: Tools, options: FetchOptions) -> Report:
    """Fetch the zip of a job, open it as `unpack` does, and publish what it holds, file by file."""
    source, origin, store = _source_of(model, tools), _origin_of(model), tools.store
    try:
        with model_locks([model], tools):
            [archive] = source.resolve(origin)
            if not options.force and (kept := _kept(model, archive, source, tools)):
                return kept
            archives = Store(store.archives, cancel=store.cancel)
            tools.on_event(Noticed(model.name, message="the server packs it before the first byte comes; wait"))
            one = replace(model, include=(), exclude=())
            report = get([one], replace(tools, store=archives, local_copies=None, hub_client=None))
            report.raise_for_errors()
            try:
                _check_unchanged(source, origin, archive, options)
                row = _publish(model, archive, archives, source, tools, options)
            except (ProtocolError, Unsafe):
                _discard(model, archives)
                raise
            _discard(model, archives)  # what else is raised, as by a full disk or a stop, leaves it to the next run
            return replace(report, models=(row,))
    except MdlError as error:
        return Report((ModelReport(model.name, store.folder(model.name), "missing", (), error),))


def _discard(model: Model, archives: Store) -> None:
    """Delete the zip of a job."""
    for place in (archives.folder(model.name), archives.own / "receipts" / record_name(model.name)):
        staging.remove(place)


def _kept(model: Model, archive: RemoteFile, source: JobSource, tools: Tools) -> Report | None:
    """The report of a job whose files are all here, as they came with this very zip; None if they are not."""
    known = source.known(_origin_of(model)) or []
    if not known or any(one.url != archive.url for one in known):
        return None
    asked = narrow(known, model.include, model.exclude, model.name)
    plan = Plan.of(Wanted(model.name, one, tools.store.quick_check(model.name, one)) for one in asked)
    if plan.fetch or plan.refuse:
        return None
    for item in plan.keep:
        size = item.local.stamp.size if item.local.stamp else 0
        tools.on_event(Finished(model.name, item.remote.path.text, size, "kept", verified_by(item)))
    return report_of([model], tools.store, plan, {})


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
        plan = Plan.of((Wanted(model.name, file, store.check(model.name, file)) for file in asked), force=options.force)
        adopt_kept(plan, store)
        rows = [_published(item, done, store) for item in plan.fetch]
        if options.keep_archive:
            whole = store.fingerprint(path, archive)
            store.publish(_origin_of(model).remote, replace(archive, size=whole.size), path, whole, "size")
    return model_report(model, store, [*rows, *(row for _, row in kept_and_refused(plan))])


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
            store.publish(item.wanted.model, remote, place, Fingerprint(digest, remote.size), verified, item.seen)
    except MdlError as error:
        return replace(row, action="failed", verified="none", error=error)
    return row
