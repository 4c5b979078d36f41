"""Bucket: a remote that workers write to, one record and one folder of results a job."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from mdl.bounds import LARGEST_SMALL_FILE, MOST_JOBS, parse_json
from mdl.config.remotes import RemoteSettings
from mdl.disk.pool import in_parallel
from mdl.errors import MdlError, NotFound, ProtocolError, UsageError
from mdl.files import RefusedFile, RemoteFile
from mdl.net.locators import Link
from mdl.results.base import (
    Check,
    JobOrigin,
    Notices,
    RemoteJob,
    check_job_id,
    job_and_path,
    job_of,
    newest_first,
    wanted_by,
)
from mdl.sources import SourceContext
from mdl.sources.s3 import S3Origin, S3Source, parse

_RECORD = re.compile(r"([^/]+)\.json")
_OWN = ("processes", "results")
"""Folders of the bucket that are no jobs."""


class BucketRemote:
    """A bucket that workers write to: ``PREFIX/processes/ID.json`` says how job ID stands, and its results are below
    ``PREFIX/results/ID/``; or, of a job without either, below ``PREFIX/ID/``, as managed training services write them.
    """

    is_archived = False

    def __init__(self, settings: RemoteSettings, context: SourceContext) -> None:
        origin = parse(settings.get("url"), ())
        self.settings = settings
        self._context = context
        self._folders: dict[str, str] = {}
        self._refused: dict[JobOrigin, list[RefusedFile]] = {}
        self._notices = Notices(settings.name, context.on_event)
        self._source = S3Source(replace(context, remotes={settings.name: settings}))
        self._bucket = self._source.bucket(origin.bucket)
        self._prefix = f"{origin.key.strip('/')}/" if origin.key.strip("/") else ""

    def check(self) -> list[Check]:
        records = list(self._bucket.list(f"{self._prefix}processes"))
        return [Check("bucket", True, f"{self._bucket} lists {len(records)} processes")]

    def metrics(self) -> Mapping[str, float]:
        return {}

    def jobs(self) -> list[RemoteJob]:
        sizes = Counter[str]()
        results = f"{self._prefix}results"
        for result in self._bucket.list(results):
            job, _, _ = result.key.removeprefix(f"{results}/").partition("/")
            sizes[job] += result.size
        names = []
        records = f"{self._prefix}processes"
        for entry in self._bucket.list(records):
            match = _RECORD.fullmatch(entry.key.removeprefix(f"{records}/"))
            if match:
                names.append(match[1])
        if len(names) > MOST_JOBS:
            message = f"the bucket has {len(names):,} jobs, and mdl asks for {MOST_JOBS:,} of them at most"
            hint = f"'mdl remote status {self.settings.name} JOB' asks for one"
            raise ProtocolError(message, item=self.settings.name, hint=hint)
        http = self._context.http
        assert http is not None
        calls = [partial(self._read, name, sizes[name]) for name in names]
        read = in_parallel(calls, http.connections, http.cancel.check)
        jobs = []
        for name, record in zip(names, read, strict=True):
            if isinstance(record, MdlError):
                record = RemoteJob(name, "running", error=record.message)
            jobs.append(record)
        return newest_first(jobs)

    def is_synced(self, job: str) -> bool:
        return True

    def status(self, job: str) -> RemoteJob:
        """Return what its record says; a job without one that has results is done. Raises `NotFound`, naming the places
        that were looked in, if there is nothing of it."""
        size = self._size_of(f"{self._prefix}results/{check_job_id(job)}")
        try:
            return self._read(job, size)
        except NotFound:
            if size:
                return RemoteJob(job, "done", bytes=size)
        if job not in _OWN:
            size = self._size_of(f"{self._prefix}{job}")
        if not size:
            raise self._unknown(job)
        place = f"{self._prefix}{job}/"
        message = f"the bucket has no record of it, so its status is unknown; what is below {place} is taken"
        self._notices.tell(job, message)
        return RemoteJob(job, "done", bytes=size)

    def _size_of(self, folder: str) -> int:
        return sum(entry.size for entry in self._bucket.list(folder))

    def _unknown(self, job: str) -> NotFound:
        places = f"below {self._prefix}results/{job}/ or {self._prefix}{job}/"
        message = (
            f"the bucket knows no such job: there is neither {self._prefix}processes/{job}.json nor anything {places}"
        )
        return NotFound(message, item=job, hint=f"'mdl remote jobs {self.settings.name}' lists them")

    def cancel(self, job: str) -> RemoteJob:
        raise UsageError("a bucket cannot cancel a job", item=job, hint="ask the endpoint that runs it")

    def delete(self, job: str) -> None:
        """Delete the results of a job, then its record."""
        self._bucket.delete([result.key for result in self._bucket.list(f"{self._prefix}results/{check_job_id(job)}")])
        self._bucket.delete([f"{self._prefix}processes/{job}.json"])

    def files(self, origin: JobOrigin) -> list[RemoteFile]:
        job = check_job_id(origin.job)
        place = S3Origin(self._bucket.name, f"{self._folder_of(job)}/")
        listed = self._source.resolve(place)
        wanted, self._refused[origin] = wanted_by(origin, listed, self._notices, self._source.refused(place))
        own = JobOrigin(self.settings.name, job)
        return [replace(file, url=own.url_of(file.path)) for file in wanted]

    def refused(self, origin: JobOrigin) -> list[RefusedFile]:
        return self._refused.get(origin, [])

    def locate(self, url: str) -> Link:
        job, path = job_and_path(url)
        return self._bucket.locate(f"{self._folder_of(job)}/{path}")

    def _folder_of(self, job: str) -> str:
        """Return where the results of a job are. One that has a record, or results beside it, is not looked for
        elsewhere."""
        if job not in self._folders:
            usual = f"{self._prefix}results/{job}"
            own = f"{self._prefix}{job}"
            is_own = job not in _OWN and not self._has(usual) and self._has(own)
            self._folders[job] = own if is_own else usual
        return self._folders[job]

    def _has(self, folder: str) -> bool:
        return next(iter(self._bucket.list(folder)), None) is not None

    def hosts(self) -> tuple[str, ...]:
        return (self._bucket.host,)

    def _read(self, job: str, size: int) -> RemoteJob:
        data = self._bucket.read(f"{self._prefix}processes/{job}.json", LARGEST_SMALL_FILE)
        try:
            return replace(job_of(parse_json(data, allow_nan=True), job), bytes=size)
        except ValueError as error:
            raise ProtocolError("the record of this job is not JSON", item=job) from error


open_remote = BucketRemote
