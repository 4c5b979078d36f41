"""fetch: bring the results of training jobs here: wait for a job, get its files, and unpack its archives."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import field, replace
from itertools import chain, repeat
from pathlib import Path

from mdl.archive.base import ArchiveLimits
from mdl.catalog.model import Model
from mdl.context import Context
from mdl.errors import MdlError, NetworkError
from mdl.events import Failed, Noticed
from mdl.files import RemoteFile
from mdl.ops.get import get, plan
from mdl.ops.job_archives import ArchiveFetch, JobFiles, files_of_job, picking
from mdl.ops.job_choice import origin_of, source_of
from mdl.ops.pack import plan_files, write_pack
from mdl.ops.release import ReleaseRequest, ReleaseResult, release
from mdl.ops.report import model_report, report_of
from mdl.paths import RelPath
from mdl.reports import Failure, ModelReport, PlanReport, Report
from mdl.results.base import Remote, of_remote
from mdl.values import value_class

_POLLS = (2.0, 3.0, 5.0, 10.0, 20.0, 30.0)
"""Seconds between two questions about a job that runs; the last one again and again."""


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
    them. ``keep_archive`` keeps an archive beside the folder of the job, and ``limits`` says how much one may hold.
    ``force`` replaces files that are not mdl's; ``service`` puts the results of one job into service.
    """

    wait: float = 0.0
    allow_running: bool = False
    keep_archive: bool = False
    force: bool = False
    limits: ArchiveLimits = field(default_factory=ArchiveLimits)
    service: Service | None = None

    def of_archives(self, tools: Context) -> ArchiveFetch:
        """How archives are fetched."""
        return ArchiveFetch(tools, self.limits, self.keep_archive, self.allow_running, self.force)


def fetch(models: Sequence[Model], tools: Context, options: FetchOptions) -> FetchReport:
    """Bring the results of jobs into the store. Each of ``models`` has one source, a `JobOrigin` of the same remote.

    What fails for one job is in the report and hinders no other: `NotFound` for a job that is unknown, failed or was
    cancelled, `NotFinished` for one that still runs, `ProtocolError` for a zip that is cut or not what it says, and
    what `release` raises. Raises as `mdl.ops.get.get`.
    """
    began = time.monotonic()
    ready, broken = _done(models, tools, options)
    work = options.of_archives(tools)
    jobs, failed = _files_of_jobs(ready, tools)
    reports = [*broken, *failed, *(_fetch_archives(job, work) for job in jobs if job.archives)]
    plain = [job.without_archives for job in jobs]
    if rest := [model for model in plain if model]:
        reports.append(get(rest, tools, force=options.force))
    whole = FetchReport(
        _in_order(models, reports, tools),
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


def plan_fetch(models: Sequence[Model], tools: Context, options: FetchOptions) -> PlanReport:
    """What `fetch` would do now. Nothing is written, and no job is waited for: one that still runs is `NotFinished`.

    An archive is one row, unless what it holds is here: what is in it is known once it is fetched. Raises as
    `mdl.ops.get.plan`.
    """
    ready, broken = _done(models, tools, replace(options, wait=0.0))
    work = options.of_archives(tools)
    jobs, failed = _files_of_jobs(ready, tools)
    kept: list[Report] = []
    rest: list[Model] = []
    for job in jobs:
        here, needed = work.split(job)
        if here.members:
            kept.append(report_of([job.model], tools.store, here.plan, {}, is_planned=True))
        if needed.archives:
            rest.append(picking(job.model, (*needed.archives, *job.others)))
        elif job.without_archives:
            rest.append(job.without_archives)
    report = plan(rest, tools, force=options.force)
    bytes_kept = sum(one.bytes_kept for one in kept)
    return replace(
        report,
        models=_in_order(models, [*broken, *failed, *kept, report], tools),
        bytes_kept=report.bytes_kept + bytes_kept,
        bytes_total=report.bytes_total + bytes_kept,
    )


def _in_order(models: Sequence[Model], reports: Iterable[Report], tools: Context) -> tuple[ModelReport, ...]:
    """What the reports say of the models, one row each."""
    rows: dict[str, list[ModelReport]] = {model.name: [] for model in models}
    for row in chain.from_iterable(report.models for report in reports):
        rows[row.name].append(row)
    return tuple(_joined(model, rows[model.name], tools) for model in models)


def _joined(model: Model, rows: Sequence[ModelReport], tools: Context) -> ModelReport:
    """The one row of a model: its archives and its other files have one each."""
    if len(rows) == 1:
        return rows[0]
    errors = [row.error for row in rows if row.error]
    files = chain.from_iterable(row.files for row in rows)
    return model_report(model, tools.store, files, errors[0] if errors else None)


def _put_into_service(model: ModelReport, tools: Context, service: Service) -> ReleaseResult:
    """Release the files of a model, and nothing else that is in its folder, as `release` does with an archive."""
    store = tools.store  # two threads may do that
    archive = RelPath.parse(f"release-{threading.get_native_id()}.zip")
    with store.scratch_folder(model.name, RemoteFile(archive, "")) as scratch:
        packed = archive.under(scratch)
        files = [one.path for one in model.files]
        write_pack(plan_files(model.path, files, packed), on_event=tools.on_event, cancel=store.cancel)
        limits = ArchiveLimits(ratio=math.inf)  # mdl packed it itself: it is not a bomb
        request = ReleaseRequest(packed, service.folder, service.keep, service.check, limits, tools.lock_wait)
        return release(request, cancel=store.cancel, on_event=tools.on_event)


def _remote_of(model: Model, tools: Context) -> Remote:
    return source_of(model, tools).remote(origin_of(model).remote)


def _files_of_jobs(models: Sequence[Model], tools: Context) -> tuple[list[JobFiles], list[Report]]:
    """The files of each job, and the reports of those that could not be listed."""
    jobs: list[JobFiles] = []
    failed: list[Report] = []
    for model in models:
        try:
            jobs.append(files_of_job(model, tools))
        except MdlError as error:
            failed.append(_failed(model, error, tools))
    return jobs, failed


def _fetch_archives(job: JobFiles, work: ArchiveFetch) -> Report:
    try:
        return work.fetch(job)
    except MdlError as error:
        return _failed(job.model, error, work.tools)


def _done(models: Sequence[Model], tools: Context, options: FetchOptions) -> tuple[list[Model], list[Report]]:
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


def _wait_until_done(model: Model, tools: Context, until: float, *, allow_running: bool) -> None:
    """Raises `NotFinished` if the job still runs at the moment ``until`` of the monotonic clock, `NotFound` if it has
    no result. Once the remote has answered, trouble with the network is waited out as well."""
    remote = _remote_of(model, tools)
    origin = origin_of(model)
    has_answered = False
    for delay in chain(_POLLS, repeat(_POLLS[-1])):
        left = until - time.monotonic()
        try:
            found = remote.status(origin.job)
            if found.is_over or allow_running or left <= 0:
                found.check_is_done(allow_running=allow_running, logs=origin.logs)
                return
            if not has_answered:
                tools.on_event(Noticed(model.name, message=f"waiting for the job, which is still {found.standing}"))
            has_answered = True
        except NetworkError as error:
            if not has_answered or left <= 0:
                raise
            tools.on_event(Noticed(model.name, message=f"waiting on: {error.message}"))
        tools.store.cancel.wait(min(delay, left))


def _failed(model: Model, error: MdlError, tools: Context) -> Report:
    """Tell that a job could not be fetched, and return the report of it."""
    error = of_remote(error.on(model.name), origin_of(model).remote)
    tools.on_event(Failed(model.name, "", error.code, error.message, error.advice, error.item))
    return Report((ModelReport(model.name, tools.store.folder(model.name), "missing", (), error),))
