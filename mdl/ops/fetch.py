"""fetch: bring the results of training jobs here: wait for a job, get its files, and unpack its archives."""

from __future__ import annotations

import math
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain, repeat

from mdl.archive.base import ArchiveLimits
from mdl.catalog.model import Model
from mdl.context import Context
from mdl.errors import MdlError, NetworkError
from mdl.events import Failed, Noticed
from mdl.files import RemoteFile
from mdl.ops.get import GetRequest, get, model_report, plan, report_of
from mdl.ops.job_archives import ArchiveFetch
from mdl.ops.job_files import FetchRequest, JobFiles, Service, files_of_job, origin_of, picking, source_of
from mdl.ops.pack import plan_files, write_pack
from mdl.ops.release import ReleaseRequest, ReleaseResult, release
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
        if self.release_error is None:
            return super().failed
        return [*super().failed, Failure("release", self.release_error)]


def fetch(context: Context, request: FetchRequest) -> FetchReport:
    """Bring the results of jobs into the store.

    What fails for one job is in the report and hinders no other: `NotFound` for a job that is unknown, failed or was
    cancelled, `NotFinished` for one that still runs, `ProtocolError` for a zip that is cut or not what it says, and
    what `release` raises. Raises as `mdl.ops.get.get`.
    """
    began = time.monotonic()
    models = request.models
    ready, reports = _finished_jobs(context, request)
    jobs, failed = _files_of_jobs(ready, context)
    reports += failed
    archives = ArchiveFetch(context, request)
    plain: list[Model] = []
    for job in jobs:
        if job.archives:
            reports.append(_fetch_archives(job, archives))
        if job.without_archives:
            plain.append(job.without_archives)
    if plain:
        reports.append(get(context, GetRequest(tuple(plain), request.force)))
    report = FetchReport(
        _in_order(models, reports, context),
        bytes_fetched=sum(part.bytes_fetched for part in reports),
        bytes_kept=sum(part.bytes_kept for part in reports),
        bytes_discarded=sum(part.bytes_discarded for part in reports),
    )
    if request.service and not report.error:
        try:
            report = replace(report, release=_put_into_service(report.models[0], context, request.service))
        except MdlError as error:
            report = replace(report, release_error=error)
    return replace(report, seconds=time.monotonic() - began)


def plan_fetch(context: Context, request: FetchRequest) -> PlanReport:
    """Return what `fetch` would do now. Nothing is written, and no job is waited for: one that still runs is
    `NotFinished`.

    An archive is one row, unless what it holds is here: what is in it is known once it is fetched. Raises as
    `mdl.ops.get.plan`.
    """
    ready, unfinished = _finished_jobs(context, replace(request, wait=0.0))
    jobs, failed = _files_of_jobs(ready, context)
    archives = ArchiveFetch(context, request)
    kept: list[Report] = []
    still_needed: list[Model] = []
    for job in jobs:
        here, needed = archives.split(job)
        if here.members:
            kept.append(report_of([job.model], context.store, here.plan, {}, is_planned=True))
        if needed.archives:
            still_needed.append(picking(job.model, (*needed.archives, *job.others)))
        elif job.without_archives:
            still_needed.append(job.without_archives)
    report = plan(context, GetRequest(tuple(still_needed), request.force))
    bytes_kept = sum(part.bytes_kept for part in kept)
    return replace(
        report,
        models=_in_order(request.models, [*unfinished, *failed, *kept, report], context),
        bytes_kept=report.bytes_kept + bytes_kept,
        bytes_total=report.bytes_total + bytes_kept,
    )


def _in_order(models: Sequence[Model], reports: Iterable[Report], context: Context) -> tuple[ModelReport, ...]:
    """Return what the reports say of the models, one row each."""
    rows: defaultdict[str, list[ModelReport]] = defaultdict(list)
    for report in reports:
        for row in report.models:
            rows[row.name].append(row)
    return tuple(_joined(model, rows[model.name], context) for model in models)


def _joined(model: Model, rows: Sequence[ModelReport], context: Context) -> ModelReport:
    """The one row of a model: its archives and its other files have one each."""
    if len(rows) == 1:
        return rows[0]
    error = next((row.error for row in rows if row.error), None)
    files = chain.from_iterable(row.files for row in rows)
    return model_report(model, context.store, files, error)


def _put_into_service(model: ModelReport, context: Context, service: Service) -> ReleaseResult:
    """Release the files of a model, and nothing else that is in its folder, as `release` does with an archive."""
    store = context.store  # two threads may do that
    archive = RelPath.parse(f"release-{threading.get_native_id()}.zip")
    with store.scratch_folder(model.name, RemoteFile(archive, "")) as scratch:
        packed = archive.under(scratch)
        files = [file.path for file in model.files]
        write_pack(plan_files(model.path, files, packed), on_event=context.on_event, cancel=store.cancel)
        limits = ArchiveLimits(ratio=math.inf)  # mdl packed it itself: it is not a bomb
        request = ReleaseRequest(packed, service.folder, service.keep, service.check, limits, context.lock_wait)
        return release(request, cancel=store.cancel, on_event=context.on_event)


def _remote_of(model: Model, context: Context) -> Remote:
    return source_of(model, context).remote(origin_of(model).remote)


def _files_of_jobs(models: Sequence[Model], context: Context) -> tuple[list[JobFiles], list[Report]]:
    """The files of each job, and the reports of those that could not be listed."""
    jobs: list[JobFiles] = []
    failed: list[Report] = []
    for model in models:
        try:
            jobs.append(files_of_job(model, context))
        except MdlError as error:
            failed.append(_failed(model, error, context))
    return jobs, failed


def _fetch_archives(job: JobFiles, archives: ArchiveFetch) -> Report:
    try:
        return archives.fetch(job)
    except MdlError as error:
        return _failed(job.model, error, archives.context)


def _finished_jobs(context: Context, request: FetchRequest) -> tuple[list[Model], list[Report]]:
    """The models whose jobs are done, after ``wait`` seconds in all, and the reports of those that are not. Offline
    nobody is asked."""
    until = time.monotonic() + request.wait
    ready: list[Model] = []
    unfinished: list[Report] = []
    for model in request.models:
        try:
            if context.network:
                _wait_until_done(model, context, until, allow_running=request.allow_running)
            ready.append(model)
        except MdlError as error:
            unfinished.append(_failed(model, error, context))
    return ready, unfinished


def _wait_until_done(model: Model, context: Context, until: float, *, allow_running: bool) -> None:
    """Raises `NotFinished` if the job still runs at the moment ``until`` of the monotonic clock, `NotFound` if it has
    no result. Once the remote has answered, trouble with the network is waited out as well."""
    remote = _remote_of(model, context)
    origin = origin_of(model)
    has_answered = False
    for delay in chain(_POLLS, repeat(_POLLS[-1])):
        left = until - time.monotonic()
        try:
            job = remote.status(origin.job)
            if job.is_over or allow_running or left <= 0:
                job.check_is_done(allow_running=allow_running, logs=origin.logs)
                return
            if not has_answered:
                context.on_event(Noticed(model.name, message=f"waiting for the job, which is still {job.standing}"))
            has_answered = True
        except NetworkError as error:
            if not has_answered or left <= 0:
                raise
            context.on_event(Noticed(model.name, message=f"waiting on: {error.message}"))
        context.store.cancel.wait(min(delay, left))


def _failed(model: Model, error: MdlError, context: Context) -> Report:
    """Tell that a job could not be fetched, and return the report of it."""
    error = of_remote(error.on(model.name), origin_of(model).remote)
    context.on_event(Failed(model.name, "", error.code, error.message, error.advice, error.item))
    return Report((ModelReport(model.name, context.store.folder(model.name), "missing", (), error),))
