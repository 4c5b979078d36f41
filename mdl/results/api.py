"""An ordinary HTTP API: one URL for each job, whose answer names the job's files, has them in it, or is the one file.

``url = "https://host/results/{job}"`` is asked with GET; without ``{job}`` the job becomes the last part of its path.
If the API tells elsewhere how a job stands, ``status_url`` says where.
"""

from __future__ import annotations

import mimetypes
from dataclasses import replace
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from mdl.bounds import parse_json
from mdl.config.remotes import RemoteSettings
from mdl.errors import MdlError, NetworkError, NotFound, ProtocolError, UsageError
from mdl.files import RemoteFile
from mdl.net.allowlist import host_of, origin_of
from mdl.net.attachment import attached_name
from mdl.net.client import OpenResponse
from mdl.net.locators import Body, Link
from mdl.net.responses import content_length
from mdl.paths import RelPath
from mdl.redact import bare_url
from mdl.results import Check, JobOrigin, RemoteJob, check_job_id
from mdl.results.answers import Judged, judge
from mdl.results.http_remote import HttpRemote, Missed
from mdl.results.outputs import Output, safe_name
from mdl.results.results import Results
from mdl.sources import Context

_LARGEST = 32 * 2**20
"""Bytes of an answer in JSON, which may have files in it."""
_LARGEST_TEXT = 2**20
"""Bytes of an answer in plain text that may be a URL, or JSON, and no file."""
_JOB = "{job}"
_CHECK = "mdl-check"
"""A job that is asked for to see whether the API answers; that it is not there is an answer too."""


class Api(HttpRemote):
    """One API."""

    def __init__(self, settings: RemoteSettings, context: Context) -> None:
        super().__init__(settings, context)
        self._results = Results(self._outputs, self.tell)

    def hosts(self) -> tuple[str, ...]:
        status_url = self.settings.get("status_url")
        return (*super().hosts(), *([host_of(status_url)] if status_url else []))

    def check(self) -> list[Check]:
        """Whether the API answers at all, and its bucket."""
        try:
            self._asked(self._status_url(_CHECK))
        except MdlError as error:
            is_refusal = isinstance(error, NetworkError) and error.final  # 400, 422: ids have another form there
            if not is_refusal and not isinstance(error, NotFound | ProtocolError):
                return [Check("api", False, str(error), error), *self.check_bucket()]
        return [Check("api", True, f"{host_of(self.base)} answers"), *self.check_bucket()]

    def jobs(self) -> list[RemoteJob]:
        if self.bucket is None:
            hint = f"name its bucket in [remotes.{self.name}], or ask for one job by its id"
            raise UsageError("an API of this kind does not list its jobs", item=self.name, hint=hint)
        return self.bucket.jobs()

    def status(self, job: str) -> RemoteJob:
        """From the bucket, else from the ``status_url``, else by what the answer itself says. A job whose answer has
        files and no status is done."""
        missed = Missed()
        if found := self.status_in_bucket(check_job_id(job), missed):
            return found
        try:
            answer = self._asked(self._status_url(job))
        except NotFound as error:
            missed[host_of(self.base)] += 1
            raise self.not_found(job, missed, error.message) from error
        if isinstance(answer, dict) and "status" in answer:
            return self.job(answer, job)
        return RemoteJob(job, "done")

    def cancel(self, job: str) -> RemoteJob:
        raise UsageError("an API of this kind cannot cancel a job", item=job, hint="cancel it where it was started")

    def files(self, origin: JobOrigin) -> list[RemoteFile]:
        check_job_id(origin.job)
        found = self.files_in_bucket(origin, Missed())
        return self._results.files(origin) if found is None else found

    def locate(self, url: str) -> Link | Body:
        return self._results.locate(url)

    def _status_url(self, job: str) -> str:
        return _with_job(self.settings.get("status_url") or self.settings.get("url"), job)

    def _outputs(self, job: str) -> Judged:
        """What the answer names, has in it, or is. Raises `NotFinished` for a job that has no files yet."""
        url = _with_job(self.settings.get("url"), job)
        answer = self._asked(url)
        if isinstance(answer, Output):
            return Judged((answer,))
        judged = judge(answer, job, base=url)
        if not judged.outputs and isinstance(answer, dict) and "status" in answer:
            self.job(answer, job).check_is_done()
        judged.raise_for_nothing(job, self._secrets)
        outputs = [replace(output, is_stable=_is_own(output.url, url)) for output in judged.outputs]
        return replace(judged, outputs=tuple(outputs))

    def _asked(self, url: str) -> Any:
        """The JSON, or the text, that is answered; an `Output` if the answer is a file itself."""

        def ask() -> Any:
            try:
                with self.http.open("GET", url, {"Accept": "application/json, */*"}) as opened:
                    return self._read(opened, url)
            except MdlError as error:
                raise self.explained(error).on(self.name) from None

        return self.http.retry(url, ask)

    def _read(self, opened: OpenResponse, url: str) -> Any:
        kind = opened.headers.get("content-type", "").partition(";")[0].strip().lower()
        is_attached = opened.headers.get("content-disposition", "").lower().startswith("attachment")
        is_json = kind.endswith(("/json", "+json"))
        length = content_length(opened.headers)
        is_text = kind == "text/plain" and length is not None and length <= _LARGEST_TEXT
        if is_attached or not (is_json or is_text):
            return Output(_name_of(opened, kind), url, content_type=kind, is_stable=True)
        text = self.http.read(opened, _LARGEST)
        if is_json:
            try:
                return parse_json(text, allow_nan=True)
            except ValueError as error:
                raise ProtocolError(f"{host_of(url)} did not answer in JSON") from error
        words = text.decode("utf-8", "replace").strip()
        if words.startswith(("http://", "https://")) or judge(words, "").outputs:
            return words
        return Output(_name_of(opened, kind), url, content_type=kind, is_stable=True)


open_remote = Api


def _with_job(url: str, job: str) -> str:
    name = quote(job, safe="")
    return url.replace(_JOB, name) if _JOB in url else f"{url.rstrip('/')}/{name}"


def _is_own(url: str, api: str) -> bool:
    """Whether a URL is of the API itself, and not signed: then it takes the API's key, and does not expire."""
    return bool(url) and origin_of(url) == origin_of(api) and not urlsplit(url).query


def _name_of(opened: OpenResponse, kind: str) -> RelPath:
    """The name of a file that is answered: from Content-Disposition (RFC 6266), else the last part of its URL. Raises
    `Unsafe`."""
    if name := attached_name(opened.headers):
        return safe_name(name)
    name = unquote(urlsplit(bare_url(opened.url)).path).rstrip("/").rpartition("/")[2]
    return safe_name(name if "." in name else name + (mimetypes.guess_extension(kind) or ".bin"))
