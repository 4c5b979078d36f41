"""Bucket: a remote that workers write to, one record and one folder of results a job."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial

from mdl.bounds import LARGEST_FOREIGN_FILE, MOST_JOBS, parse_json
from mdl.errors import MdlError, NotFound, ProtocolError, UsageError
from mdl.files import RemoteFile
from mdl.http.allowlist import host_of
from mdl.http.locators import Body, Link
from mdl.remote_tables import RemoteSettings
from mdl.remotes import Check, JobOrigin, RemoteJob, check_job_id, job_and_path, job_of, newest_first
from mdl.remotes.bucket_lock import bucket_lock
from mdl.remotes.outputs import select
from mdl.sources import Context
from mdl.sources.s3 import S3Origin, S3Source, parse
from mdl.threads import in_parallel


class BucketRemote:
    """A bucket that workers write to: ``PREFIX/processes/ID.json`` says how job ID stands, and its results are below
    ``PREFIX/results/ID/``."""

    is_zipped = False

    def __init__(self, settings: RemoteSettings, context: Context) -> None:
        origin = parse(settings.get("url"), ())
        self.settings, self._context = settings, context
        self._source = S3Source(replace(context, remotes={settings.name: settings}))
        self._bucket = self._source.bucket(origin.bucket)
        self._prefix = f"{origin.key.strip('/')}/" if origin.key.strip("/") else ""

    def check(self) -> list[Check]:
        found = list(self._bucket.list(f"{self._prefix}processes"))
        return [Check("bucket", True, f"{self._bucket} lists {len(found)} processes")]

    def metrics(self) -> Mapping[str, float]:
        return {}

    def jobs(self) -> list[RemoteJob]:
        sizes = Counter[str]()
        for one in self._bucket.list(f"{self._prefix}results"):
            name = one.key.removeprefix(f"{self._prefix}results/").partition("/")[0]
            sizes[name] += one.size
        keys = [
            one.key.removeprefix(f"{self._prefix}processes/") for one in self._bucket.list(f"{self._prefix}processes")
        ]
        names = [key.removesuffix(".json") for key in keys if re.fullmatch(r"[^/]+\.json", key)]
        if len(names) > MOST_JOBS:
            why = f"the bucket has {len(names):,} jobs, and mdl asks for {MOST_JOBS:,} of them at most"
            hint = f"'mdl remote status {self.settings.name} JOB' asks for one"
            raise ProtocolError(why, item=self.settings.name, hint=hint)
        calls = [partial(self._read, name, sizes[name]) for name in names]
        http = self._context.http
        assert http is not None
        rows = [
            RemoteJob(name, "running", error=found.message) if isinstance(found, MdlError) else found
            for name, found in zip(names, in_parallel(calls, http.connections, http.cancel.check), strict=True)
        ]
        return newest_first(rows)

    def status(self, job: str) -> RemoteJob:
        prefix = f"{self._prefix}results/{check_job_id(job)}"
        size = sum(one.size for one in self._bucket.list(prefix))
        try:
            return self._read(job, size)
        except NotFound:
            if not size:
                raise NotFound(
                    "the bucket knows no such job", item=job, hint=f"'mdl remote jobs {self.settings.name}' lists them"
                ) from None
        return RemoteJob(job, "done", bytes=size)

    def cancel(self, job: str) -> RemoteJob:
        raise UsageError("a bucket cannot cancel a job", item=job, hint="ask the endpoint that runs it")

    def delete(self, job: str) -> None:
        """Delete the results of a job, then its record."""
        self._bucket.delete([one.key for one in self._bucket.list(f"{self._prefix}results/{check_job_id(job)}")])
        self._bucket.delete([f"{self._prefix}processes/{job}.json"])

    def lock(self) -> AbstractContextManager[Callable[[], None]]:
        """Held by the one who cleans; see `bucket_lock`."""
        return bucket_lock(self._bucket, f"{self._prefix}.mdl-clean")

    def files(self, origin: JobOrigin) -> list[RemoteFile]:
        job = check_job_id(origin.job)
        found = self._source.resolve(S3Origin(self._bucket.name, f"{self._prefix}results/{job}/"))
        chosen = select(found, checkpoint=origin.checkpoint, logs=origin.logs, everything=origin.everything)
        own = JobOrigin(self.settings.name, job)
        return [replace(one, url=own.url_of(one.path)) for one in chosen]

    def locate(self, url: str) -> Link | Body:
        job, path = job_and_path(url)
        return self._bucket.locate(f"{self._prefix}results/{job}/{path}")

    def hosts(self) -> tuple[str, ...]:
        return (host_of(self._bucket.access.url),)

    def _read(self, job: str, size: int) -> RemoteJob:
        data = self._bucket.read(f"{self._prefix}processes/{job}.json", LARGEST_FOREIGN_FILE)
        try:
            return replace(job_of(parse_json(data, allow_nan=True), job), bytes=size)
        except ValueError as error:
            raise ProtocolError("the record of this job is not JSON", item=job) from error


open_remote = BucketRemote
