"""fetch: bring the results of training jobs here: wait for a job, get its files, and unpack its archives.

What comes as an archive is fetched beside the models, unpacked, and published file by file.
"""

from __future__ import annotations

import math
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, repeat
from pathlib import Path
from typing import get_args

from mdl.archive.base import ArchiveLimits
from mdl.archive.unpack import check_not_packed, is_to_be_unpacked
from mdl.catalog.model import Model
from mdl.catalog.resolver import narrow
from mdl.context import Context, adopt_kept, model_locks, tell_kept
from mdl.disk import publish
from mdl.downloader.plan import Item, Plan, Wanted
from mdl.downloader.store import Ready, Store
from mdl.errors import MdlError, NetworkError, ProtocolError, Unsafe, storage_trouble
from mdl.events import Failed, Noticed
from mdl.files import RemoteFile
from mdl.hashing import Digest, Fingerprint
from mdl.ops.get import GetRequest, get, kept_and_refused, model_report, plan, report_of
from mdl.ops.job_files import FetchRequest, JobFiles, Service, files_of_job, origin_of, picked, picking, source_of
from mdl.ops.pack import plan_files, write_pack
from mdl.ops.release import ReleaseRequest, ReleaseResult, release
from mdl.ops.unpack import UnpackRequest, unpack
from mdl.paths import RelPath, refuse_twins
from mdl.redact import bare_url
from mdl.reports import Failure, FileReport, ModelReport, PlanReport, Report
from mdl.results.base import JobOrigin, JobSource, of_remote
from mdl.results.outputs import is_archive_name
from mdl.values import value_class
from mdl.weights.known_formats import BEGINNING, ArchiveKind, stem_of

_WHEN_FULL = "free some space, and run the same command again; the archive that was fetched is kept"
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
    archives = _ArchiveFetch(context, request)
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
    archives = _ArchiveFetch(context, request)
    kept: list[Report] = []
    still_needed: list[Model] = []
    for job in jobs:
        here, needed = archives.split(job)
        if here.members:
            kept.append(report_of([job.model], context.store, here.plan, {}, is_planned=True))
        if needed.archives:
            still_needed.append(picking(job.model, (*needed.archives, *job.others, *job.refused)))
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
    """Release the files of a model, and nothing else that is in its folder, as `release` does with an archive. Raises
    `ProtocolError` for an archive that mdl does not unpack, which nobody could load, and as `release`."""
    store = context.store  # two threads may do that
    archive = RelPath.parse(f"release-{threading.get_native_id()}.zip")
    with store.scratch_folder(model.name, RemoteFile(archive, "")) as scratch:
        packed = archive.under(scratch)
        files = [file.path for file in model.files]
        check_not_packed(model.path, files)
        write_pack(plan_files(model.path, files, packed), on_event=context.on_event, cancel=store.cancel)
        limits = ArchiveLimits(ratio=math.inf)  # mdl packed it itself: it is not a bomb
        request = ReleaseRequest(packed, service.folder, service.keep, service.check, limits, context.lock_wait)
        return release(request, cancel=store.cancel, on_event=context.on_event)


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


def _fetch_archives(job: JobFiles, archives: _ArchiveFetch) -> Report:
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
    origin = origin_of(model)
    remote = source_of(model, context).remote(origin.remote)
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


# Archives.


@value_class
class _Member:
    """One file of a job as it came: ``place`` is where its bytes are now, of this fingerprint."""

    remote: RemoteFile
    place: Path
    print_: Fingerprint
    verified: str


@dataclass
class _Opened:
    """What the archives of a job became: the ``members``, of which those are that no archive had; the ``archives`` that
    were unpacked; and a row for each that ``failed``."""

    members: list[_Member] = field(default_factory=list)
    archives: list[RemoteFile] = field(default_factory=list)
    failed: list[FileReport] = field(default_factory=list)


@value_class
class _Kept:
    """What is here of a job, as it came with its archives: these ``members``; ``plan`` has those that are wanted."""

    members: tuple[RemoteFile, ...]
    plan: Plan


@value_class
class _ArchiveFetch:
    """The archives of the jobs of a request."""

    context: Context
    request: FetchRequest

    def fetch(self, job: JobFiles) -> Report:
        """Fetch the archives of a job, open each as `unpack` does, and publish what they hold, file by file.

        An archive is kept if that was stopped, or did not work on this disk: the same command again goes on with it.
        Raises `MdlError`.
        """
        context = self.context
        model = job.model
        store = context.store
        source = source_of(model, context)
        origin = origin_of(model)
        archives = Store(store.archives, cancel=store.cancel)
        with model_locks([model], context):
            for archive in job.archives:
                store.final_path(model.name, archive)  # raises at once if this layout cannot hold it
            here, job = self.split(job)
            if here.members:
                adopt_kept(here.plan, store)
            tell_kept(here.plan, context.on_event)
            if not job.archives:
                return report_of([model], store, here.plan, {})
            if job.is_archived:
                message = "waiting for the server, which makes the archive before it sends"
                context.on_event(Noticed(model.name, message=message))
            report = get(
                replace(context, store=archives, local_copies=None, hub_client=None),
                GetRequest((picking(model, job.archives),)),
            )
            [came] = report.models
            if came.error or (job.is_archived and not came.is_whole):
                row = replace(came, path=store.folder(model.name), files=(), error=report.error)
                return replace(report, models=(row,))
            rows = [row for _, row in kept_and_refused(here.plan)]
            try:
                if job.is_archived:
                    self._check_unchanged(source, origin, job.archives)
                rows += self._publish(job, here, came, archives)
            except (ProtocolError, Unsafe):
                _discard(model, archives)
                raise
            row = model_report(model, store, rows)
            if row.is_whole:
                _discard(model, archives)
            return replace(report, models=(row,), bytes_kept=report.bytes_kept + here.plan.bytes_kept)

    def split(self, job: JobFiles) -> tuple[_Kept, JobFiles]:
        """Return what is here of a job, as it came with these very archives, and the job with the archives to fetch."""
        nothing = _Kept((), Plan())
        if self.request.force:
            return nothing, job
        known = source_of(job.model, self.context).known(origin_of(job.model)) or []
        kept: list[RemoteFile] = []
        needed: list[RemoteFile] = []
        for archive in job.archives:
            urls = (archive.url, _without_version(archive))
            members = [file for file in known if file.url in urls]
            if self._is_here(job, archive, members):
                kept += members
            elif self._is_settled(job, archive):
                kept.append(replace(archive, url=_without_version(archive)))
            else:
                needed.append(archive)
        if needed and (job.include or job.exclude):  # what the patterns name is known once all members are
            return nothing, job
        return _Kept(tuple(kept), self._plan_of_asked(job, kept)), replace(job, archives=tuple(needed))

    def _plan_of_asked(self, job: JobFiles, files: list[RemoteFile]) -> Plan:
        """Plan those files of a job that the patterns name."""
        if not files:
            return Plan()
        asked = narrow(files, job.include, job.exclude, job.model.name)
        return self._plan(job.model.name, asked, force=self.request.force)

    def _plan(self, model: str, files: Iterable[RemoteFile], *, force: bool = False) -> Plan:
        store = self.context.store
        wanted = [Wanted(model, file, store.check(model, file)) for file in files]
        return Plan.of(wanted, force=force)

    def _is_settled(self, job: JobFiles, archive: RemoteFile) -> bool:
        """Tell whether a file that need be no archive has its own bytes in its place already, as its digest tells, or
        is refused since another file is there that must stay."""
        if job.is_archived or is_archive_name(archive.path.name):
            return False
        plan = self._plan(job.model.name, [replace(archive, url=_without_version(archive))])
        if plan.refuse:
            return True
        return archive.digest is not None and bool(plan.keep)

    def _is_here(self, job: JobFiles, archive: RemoteFile, members: Sequence[RemoteFile]) -> bool:
        """Tell whether the ``members`` that came with an archive are all that is wanted of it, and are here."""
        may_have_changed = self.request.allow_running and archive.size is None and not job.is_archived
        if not members or may_have_changed:
            return False
        by_name = {file.path.text: file for file in members}
        wanted = picked(by_name, job.include, job.exclude)
        if not self._are_here(job.model.name, [by_name[name] for name in wanted]):
            return False
        was_unpacked = archive.url in [file.url for file in members]
        if not self.request.keep_archive or not was_unpacked:
            return True
        remote = origin_of(job.model).remote
        return any(self._are_here(remote, [kept]) for kept in _places_beside(job, archive))

    def _are_here(self, model: str, files: Iterable[RemoteFile]) -> bool:
        plan = self._plan(model, files)
        return not plan.fetch and not plan.refuse

    def _check_unchanged(self, source: JobSource, origin: JobOrigin, archives: Sequence[RemoteFile]) -> None:
        """Raises `ProtocolError` if the job is not what it was before its zip was fetched: its URL would be another."""
        if self.request.allow_running:
            return
        after = [file.url for file in source.resolve(origin)]
        if after != [file.url for file in archives]:
            hint = "run the same command again; --allow-running takes what there is"
            raise ProtocolError("the job changed while its files were fetched", item=origin.job, hint=hint)

    def _publish(self, job: JobFiles, here: _Kept, came: ModelReport, archives: Store) -> list[FileReport]:
        """Unpack the archives that came beside the models, and give every file its final name; returns how each went.
        One that cannot be unpacked hinders no other."""
        model = job.model
        store = self.context.store
        with (
            storage_trouble(store.root, _WHEN_FULL),
            store.scratch_folder(model.name, job.archives[0]) as scratch,
        ):
            opened = self._open(job, came, archives, scratch)
            by_path = {member.remote.path: member for member in opened.members}
            files = [member.remote for member in opened.members]
            everything = [*here.members, *files, *job.others]
            refuse_twins(file.path for file in everything)
            source_of(model, self.context).keep(origin_of(model), everything)
            plan = self._plan_of_asked(job, files)
            adopt_kept(plan, store)
            rows = opened.failed
            for item in plan.fetch:
                rows.append(_published(item, by_path[item.remote.path], store))
            if self.request.keep_archive:
                for archive in opened.archives:
                    self._keep_beside(job, archive, archives.final_path(model.name, archive))
        return [*rows, *(row for _, row in kept_and_refused(plan))]

    def _open(self, job: JobFiles, came: ModelReport, archives: Store, scratch: Path) -> _Opened:
        """Unpack each archive that came into a folder of ``scratch``; what is none stays a file. Raises `ProtocolError`
        and `Unsafe` for a job that is one archive."""
        model = job.model
        rows = {row.path: row for row in came.files}
        opened = _Opened()
        for number, archive in enumerate(job.archives):
            row = rows[archive.path.text]
            if row.error:
                opened.failed.append(row)
                continue
            path = archives.final_path(model.name, archive)
            try:
                if job.is_archived or is_to_be_unpacked(path, is_called_so=is_archive_name(path.name)):
                    opened.members += self._unpacked(archive, path, scratch / f"{number}")
                    opened.archives.append(archive)
                else:
                    opened.members.append(_as_it_is(archive, path, row, archives))
            except (ProtocolError, Unsafe) as error:
                if job.is_archived:
                    raise
                publish.remove(path)
                opened.failed.append(replace(row, action="failed", verified="none", error=error))
                event = Failed(model.name, row.path, error.code, error.message, error.advice, error.item)
                self.context.on_event(event)
        return opened

    def _keep_beside(self, job: JobFiles, archive: RemoteFile, path: Path) -> None:
        """Publish the archive that came to ``path`` beside the folder of its job."""
        store = self.context.store
        print_ = store.fingerprint(path, archive)
        beside = replace(_beside(job, archive, path), size=print_.size)
        store.publish(Ready(origin_of(job.model).remote, beside, path, print_, "size"))

    def _unpacked(self, archive: RemoteFile, path: Path, folder: Path) -> list[_Member]:
        """The files in an archive, each where the archive lies in the job."""
        context = self.context
        limits = replace(self.request.limits, bytes=self.request.limits.bytes or context.max_size)
        request = UnpackRequest(path, folder, limits)
        unpacked = unpack(request, cancel=context.store.cancel, on_event=context.on_event)
        verified = "sha256" if unpacked.verified == "sha256" else "size"
        above, slash, _ = archive.path.text.rpartition("/")
        members = []
        for file in unpacked.manifest.files:
            path_in_job = RelPath.parse(f"{above}{slash}{file.path}")
            print_ = Fingerprint(Digest("sha256", file.sha256), file.size)
            remote = RemoteFile(path_in_job, archive.url, print_.size, print_.digest)
            members.append(_Member(remote, RelPath.parse(file.path).under(unpacked.path), print_, verified))
        return members


def _as_it_is(archive: RemoteFile, path: Path, came: FileReport, archives: Store) -> _Member:
    """A file that is no archive, or is itself weights."""
    if came.sha256 is not None and came.size is not None:
        print_ = Fingerprint(Digest("sha256", came.sha256), came.size)
    else:
        print_ = archives.fingerprint(path, archive)
    verified = print_.digest.algorithm if archive.digest else "size"
    remote = replace(archive, url=_without_version(archive), size=print_.size, digest=print_.digest)
    return _Member(remote, path, print_, verified)


def _without_version(archive: RemoteFile) -> str:
    return archive.url.partition("?")[0]


def _beside(job: JobFiles, archive: RemoteFile, place: Path) -> RemoteFile:
    """The archive, which is at ``place``, under the name that it is kept by in the folder of its remote."""
    if not job.is_archived:
        return _places_beside(job, archive)[0]
    with place.open("rb") as file:
        return replace(archive, path=RelPath.parse(archive.name_by_content(file.read(BEGINNING))))


def _places_beside(job: JobFiles, archive: RemoteFile) -> list[RemoteFile]:
    """The archive under each name that it may be kept by: what its remote gave no name has the suffix of its format."""
    if not job.is_archived:
        return [replace(archive, path=RelPath.parse(f"{origin_of(job.model).job}_{archive.path.name}"))]
    stem = stem_of(archive.path.text)
    return [replace(archive, path=RelPath.parse(f"{stem}.{kind}")) for kind in get_args(ArchiveKind)]


def _discard(model: Model, archives: Store) -> None:
    """Remove the archives of a job, and their receipts."""
    for place in (archives.folder(model.name), archives.receipts.place(model.name)):
        publish.remove(place)


def _published(item: Item, member: _Member, store: Store) -> FileReport:
    store.cancel.check()
    remote = item.remote
    print_ = member.print_
    verified = member.verified
    row = FileReport(remote.path.text, print_.size, print_.digest.hex, "fetched", verified, url=bare_url(remote.url))
    try:
        with storage_trouble(remote.path, _WHEN_FULL):
            store.publish(Ready(item.wanted.model, remote, member.place, print_, verified, item.seen))
    except MdlError as error:
        return replace(row, action="failed", verified="none", error=error)
    return row
