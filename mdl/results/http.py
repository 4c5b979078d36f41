"""HttpRemote: what all remotes that answer in JSON over HTTP have in common: requests, errors, perhaps a bucket.

The results may also be in a bucket that the remote's workers write to. To read it costs nothing and starts no worker,
so it is asked first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mdl.bounds import LARGEST_ANSWER, MOST_JOBS
from mdl.config.remotes import RemoteSettings
from mdl.errors import (
    AuthError,
    LockError,
    MdlError,
    NetworkError,
    NotFound,
    ProtocolError,
    UsageError,
    online_hint,
)
from mdl.files import RefusedFile, RemoteFile
from mdl.net.allowlist import host_of
from mdl.net.client import HttpClient
from mdl.net.locators import Body, Link
from mdl.paths import shown
from mdl.redact import Secrets
from mdl.results.answer_keys import object_of
from mdl.results.answers import Judged
from mdl.results.base import (
    Check,
    JobOrigin,
    Notices,
    Remote,
    RemoteJob,
    check_job_id,
    job_of,
    newest_first,
    open_remote,
    status_of,
)
from mdl.results.links import JobLinks
from mdl.results.outputs import Output, error_in
from mdl.sources import SourceContext
from mdl.units import is_sendable

_CANCELLED = ("success", "ok", "cancelling", "canceling", "stopping", "cancel_requested", "terminated")
"""What answers to a cancel say beside the words for a job that is cancelled."""
Missed = Counter[str]
"""Where a job was looked for and not found: the place, and how often it was asked."""


class HttpRemote:
    """A remote with a URL. ``bucket`` is the remote that its workers write to, if one is named."""

    is_archived = False
    lists_jobs = True
    """Whether `jobs` knows them without a bucket."""

    def __init__(self, settings: RemoteSettings, context: SourceContext) -> None:
        self.settings = settings
        self._context = context
        self.base = settings.address
        self.name = settings.name
        self._in_bucket: set[str] = set()
        self.notices = Notices(settings.name, context.on_event)
        self.bucket: Remote | None = None
        bucket = settings.get("bucket")
        if bucket:
            self.bucket = open_remote(context.remotes[bucket], context)
        self._links = JobLinks(self.outputs, self.notices, self.complete)
        self._missed: dict[str, Missed] = {}
        self._secrets = Secrets.of(context.environ)
        token = settings.token(context.environ)
        if token:
            self._secrets.add(token.token)
            if not is_sendable(token.token):
                message = "the key in it has a character that cannot be sent"
                hint = "set it again without blanks and line breaks"
                raise UsageError(message, item=settings.key_variable, hint=hint)

    def metrics(self) -> Mapping[str, float]:
        return {}

    def is_synced(self, job: str) -> bool:
        return job in self._in_bucket

    def hosts(self) -> tuple[str, ...]:
        own = (host_of(self.base),)
        if self.bucket is None:
            return own
        return own + self.bucket.hosts()

    def files(self, origin: JobOrigin) -> list[RemoteFile]:
        """The results: from the bucket, else as the remote answers."""
        missed = self._missed[check_job_id(origin.job)] = Missed()
        files = self.files_in_bucket(origin, missed)
        if files is None:
            return self._links.files(origin)
        return files

    def refused(self, origin: JobOrigin) -> list[RefusedFile]:
        if self.bucket is None or origin.job not in self._in_bucket:
            return []
        return self.bucket.refused(origin)

    def locate(self, url: str) -> Link | Body:
        return self._links.locate(url)

    def outputs(self, job: str) -> Sequence[Output]:
        """The files that the remote's answer for a job holds. A link among them may be good for a short time only.
        Raises `NotFinished` for a job that has no files yet, `NotFound`."""
        raise NotImplementedError

    def complete(self, job: str, output: Output) -> Output:
        """An output that is known by its key, with its bytes or its link."""
        return output

    # Requests.

    def ask(self, method: str, url: str, content: Any = None, *, most: int = LARGEST_ANSWER, item: str = "") -> Any:
        """The JSON answer to a request that may be repeated. It may have ``most`` bytes; ``item`` is what an error is
        about. Raises `AuthError`, `NotFound`, `NetworkError`, `ProtocolError`."""
        return self.http.retry(url, lambda: self._send(method, url, content, most, item))

    def post_once(self, url: str, content: Any, *, item: str = "") -> Any:
        """The JSON answer to a POST that must not be carried out twice: it is sent once, whatever happens to it. Raises
        as `ask`."""
        try:
            return self._send("POST", url, content, LARGEST_ANSWER, item)
        except NetworkError as error:
            raise self.unanswered(error, item) from None

    def unanswered(self, error: NetworkError, item: str) -> NetworkError:
        """The error of a request that must not be sent again, and was perhaps carried out."""
        if not error.final:
            return error.but(hint=f"it may have been carried out: 'mdl remote status {self.name} {item}' shows that")
        return error

    def _send(self, method: str, url: str, content: Any, most: int, item: str) -> Any:
        try:
            return self.http.json(method, url, content, most=most)[0]
        except MdlError as error:
            raise self.explained(error).on(item or self.name) from None

    def explained(self, error: MdlError) -> MdlError:
        """The error of a request with a hint that names the remote's own settings."""
        table = f"[remotes.{self.name}]"
        if isinstance(error, NotFound):
            return error.but(hint=f"check the URL of {table} in config.toml, and the id of the job")
        if not isinstance(error, AuthError):
            return error
        variable = self.settings.key_variable
        if not variable:
            return error.but(hint=f"name the variable that has its key: api_key_env in {table}")
        state = "set" if self.settings.token(self._context.environ) else "not set"
        return error.but(hint=f"set {variable} to a valid key of {table}; it is {state}")

    @property
    def http(self) -> HttpClient:
        """Raises `LockError` offline, and `AuthError` without the key that it needs."""
        if self._context.http is None:
            hint = online_hint(self._context.offline_by)
            raise LockError("offline: no remote can be asked", item=self.name, hint=hint)
        if self.settings.needs_key and not self.settings.token(self._context.environ):
            raise self.explained(AuthError("it needs a key, and there is none", item=self.name))
        return self._context.http

    # What answers say.

    def words(self, value: Any) -> str:
        """Return what a worker says went wrong, without secrets."""
        return error_in(value, self._secrets)

    def outputs_of(self, judged: Judged, job: str) -> tuple[Output, ...]:
        """Return the files of an answer, and say what else it holds. Raises `NotFound` if there is no file, and the
        error of the first if none can be had."""
        judged.raise_for_nothing(job, self._secrets)
        for note in judged.notes(self._secrets):
            self.notices.tell(job, note)
        return judged.outputs

    def job(self, record: Any, name: str = "") -> RemoteJob:
        """As `job_of`, with an error without secrets."""
        job = job_of(record, name)
        return replace(job, error=self.words(job.error) or None)

    def jobs_in(self, answer: Any, key: str, what: str) -> list[RemoteJob]:
        """The jobs that an answer lists, the newest first: a list, or an object that has them under ``key``, as a list
        or by their ids. Raises `ProtocolError` for anything else; ``what`` is what was asked for."""
        rows = object_of(answer, key).get(key)
        if isinstance(rows, dict):
            rows = [{"id": name, **row} for name, row in rows.items() if isinstance(row, dict)]
        if not isinstance(rows, list):
            raise ProtocolError(f"{what} is not a list", item=self.name)
        if len(rows) > MOST_JOBS:
            raise ProtocolError(f"{what} has more than {MOST_JOBS:,} entries", item=self.name)
        return newest_first(map(self.job, rows))

    def cancelled(self, job: str, answer: Any, *, unless_told: bool = False) -> RemoteJob:
        """The job, which ``answer`` says to be cancelled. ``unless_told``: an answer that says nothing means it too.

        Raises `UsageError` in the remote's words if it is not.
        """
        facts = object_of(answer)
        is_cancelled = _says_cancelled(facts)
        if is_cancelled or (is_cancelled is None and unless_told):
            return RemoteJob(job, "cancelled")
        words = self.words(facts) or shown(_word_of(facts))[:40] or "it does not say why"
        raise self.not_cancelled(job, words)

    def not_cancelled(self, job: str, words: str) -> UsageError:
        """The error for a job that goes on, or was over already."""
        hint = f"'mdl remote status {self.name} {job}' shows its status"
        return UsageError(f"it was not cancelled: {words}", item=job, hint=hint)

    # The bucket.

    def check_bucket(self) -> list[Check]:
        """The rows of the bucket, if there is one; its failure is a row."""
        if self.bucket is None:
            return []
        try:
            return self.bucket.check()
        except MdlError as error:
            return [Check("bucket", False, str(error), error)]

    def status_in_bucket(self, job: str, missed: Missed) -> RemoteJob | None:
        """Return what the bucket says of a job; None if it knows nothing of it, or may not be read with the credentials
        that there are. Then it is noted in ``missed``."""
        if self.bucket is None:
            return None
        try:
            return self.bucket.status(job)
        except NotFound:
            missed["the bucket"] += 1
        except AuthError as error:
            missed[f"the bucket ({error.message})"] += 1
        return None

    def files_in_bucket(self, origin: JobOrigin, missed: Missed) -> list[RemoteFile] | None:
        """The results that the bucket has; None as in `status_in_bucket`, and if it has a record of the job but no
        result. Raises `NotFinished` or `NotFound` for a job that has none yet, or never will."""
        recorded = self.status_in_bucket(origin.job, missed)
        if self.bucket is None or recorded is None:
            return None
        if recorded.bytes:
            self._in_bucket.add(origin.job)
            return self.bucket.files(origin)
        recorded.check_is_done(has_files=False)
        missed["the bucket (it has a record, but no result)"] += 1
        return None

    def not_found(self, job: str, missed: Missed, words: str = "") -> NotFound:
        """The error that names every place that was asked, and how often."""
        times = {1: "once", 2: "twice"}
        asked = ", ".join(f"{place} {times.get(count, f'{count} times')}" for place, count in missed.items())
        table = f"[remotes.{self.name}]"
        hint = f"'mdl remote jobs {self.name}' lists the jobs"
        if self.bucket is None:
            if self.lists_jobs:
                hint += f"; name its bucket in {table} to find the results of every worker"
            else:
                hint = f"check the id of the job, and the URL of {table} in config.toml"
        last = f"; the last answer: {words}" if words else ""
        return NotFound(f"not found on {self.name}; asked: {asked}{last}", item=job, hint=hint)


def _says_cancelled(facts: Mapping[str, Any]) -> bool | None:
    """Return whether the answer to a cancel says that the job is cancelled; None if it says nothing."""
    if facts.get("error"):
        return False
    success = facts.get("success")
    if isinstance(success, bool):
        return success
    word = _word_of(facts)
    if word:
        return word in _CANCELLED or status_of(word) == "cancelled"
    if facts.get("message"):
        return True
    return None


def _word_of(facts: Mapping[str, Any]) -> str:
    return str(facts.get("status") or "").lower()
