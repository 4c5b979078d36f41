"""RunPod Serverless: an endpoint whose workers train, and tell of it when they are asked.

Every question to a worker is a job of the endpoint's queue, which costs money and time; so the bucket that the workers
write to is read first, if the remote names one. Workers share no memory: one that does not know a process is no proof
that there is none.

Protocol: https://docs.runpod.io/serverless/endpoints/operation-reference. Limits are MiB: 10 for ``/run``, 20 for
``/runsync``, for the request and for the result. A result is kept for 1 minute after ``/runsync``, 30 after ``/run``.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from mdl.errors import AuthError, MdlError, NetworkError, NotFound, ProtocolError, UsageError
from mdl.files import RemoteFile
from mdl.http.allowlist import host_of
from mdl.http.client import HttpClient
from mdl.http.locators import Body, Link
from mdl.paths import shown
from mdl.sources import Context
from mdl.sources.outputs import Output, error_in, outputs_of, select
from mdl.sources.remote import Check, JobOrigin, Remote, RemoteJob, check_job_id, job_of, status_of
from mdl.sources.remote_tables import RemoteSettings

_WAIT_MS = 90_000
"""How long ``/runsync`` waits for a worker before it answers that the job is still queued."""
_LARGEST = 32 * 2**20
"""Bytes of an answer: a result of 20 MiB, and room."""
_TRIES = 3
"""So often a worker is asked for a process, for the next one may know it."""
_POLLS = (1.0, 2.0, 3.0, 5.0)
_POLL_SECONDS = 600.0
"""How long a question may stay in the queue: a cold start takes minutes."""
_JOB_ID = re.compile(r"(sync-)?[0-9a-f]{8}-[0-9a-f-]{20,40}-[a-z]\d+", re.IGNORECASE)
_UNKNOWN = re.compile(r"(?i)process not found|not[ _]found|unknown process|no such process")
_TOO_LARGE = re.compile(r"(?i)too large|exceeded max|body size|payload")
_FINAL = {"COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"}
_ASK_FOR_URL = (
    "a result may have 20 MiB, about 15 MiB of a file: have the worker upload it and answer with a presigned URL, or "
    "give the remote its bucket"
)


def open_remote(settings: RemoteSettings, context: Context) -> Runpod:
    return Runpod(settings, context)


class NoResult(ProtocolError):
    """The endpoint finished a request and has no result of it: it was too large, or has expired."""


class Runpod:
    """One endpoint. ``bucket`` is the remote that its workers write to, if one is named."""

    is_zipped = False

    def __init__(self, settings: RemoteSettings, context: Context) -> None:
        if not settings.get("base_url") and not settings.get("endpoint"):
            raise UsageError(f"[remotes.{settings.name}] has neither endpoint nor base_url", item="config.toml")
        self.settings, self._context = settings, context
        self.base = settings.address
        self.bucket: Remote | None = None
        if name := settings.get("bucket"):
            from mdl.sources.remote import open_remote as opened

            self.bucket = opened(context.remotes[name], context)
        self._outputs: dict[str, tuple[float, list[Output]]] = {}

    # What a remote does.

    def check(self) -> list[Check]:
        """The endpoint's workers and queue, and its bucket."""
        health = self.health()
        workers, jobs = _counts(health.get("workers")), _counts(health.get("jobs"))
        total = sum(workers.get(state, 0) for state in ("idle", "running", "ready", "initializing"))
        told = ", ".join(f"{count} {state}" for state, count in sorted(workers.items()) if count) or "none"
        checks = [
            Check("endpoint", True, f"{host_of(self.base)} answers"),
            Check("workers", total > 0, told),
            Check("queue", True, f"{jobs.get('inQueue', 0)} waiting, {jobs.get('inProgress', 0)} running"),
            Check("jobs", True, f"{jobs.get('completed', 0)} completed, {jobs.get('failed', 0)} failed"),
        ]
        return checks + (self.bucket.check() if self.bucket else [])

    def health(self) -> Mapping[str, Any]:
        """What ``/health`` answers: counts of workers and jobs by state."""
        answer = self._ask("GET", "health")
        if not isinstance(answer, dict):
            raise ProtocolError("the endpoint's health is no JSON object", item=self.settings.name)
        return answer

    def metrics(self) -> Mapping[str, float]:
        return {}

    def jobs(self) -> list[RemoteJob]:
        if self.bucket:
            return self.bucket.jobs()
        output = self.call({"type": "processes"})
        rows = output.get("processes") if isinstance(output, dict) else output
        if not isinstance(rows, list):
            raise ProtocolError("the worker's list of processes is no list", item=self.settings.name)
        return sorted((job_of(row) for row in rows), key=lambda job: job.created_at or "", reverse=True)

    def status(self, job: str) -> RemoteJob:
        """From the bucket, the endpoint's own queue if ``job`` is an id of it, and the workers, in this order."""
        asked = []
        if self.bucket:
            try:
                return self.bucket.status(job)
            except NotFound:
                asked.append("the bucket")
        if _JOB_ID.fullmatch(job):
            try:
                return job_of({"error": None, **self._queued(job)}, job)
            except NotFound:
                asked.append("the endpoint's queue")
        try:
            return job_of(self._of_process("process_status", job), job)
        except NotFound as error:
            raise self._nowhere(job, [*asked, f"{_TRIES} workers"], error) from error

    def cancel(self, job: str) -> RemoteJob:
        """Asked once: by the queue for one of its own ids, else by a worker, if one knows the process."""
        if _JOB_ID.fullmatch(job):
            answer = self._ask("POST", f"cancel/{quote(job, safe='')}", {})
            word = answer.get("status") if isinstance(answer, dict) else None
            if str(word).upper() != "CANCELLED":
                raise MdlErrorOf(f"the endpoint did not cancel it: it is {word}", job)
            return RemoteJob(job, "cancelled")
        answer = self.call({"type": "cancel", "process_id": job}, once=True)
        if isinstance(answer, dict) and (answer.get("success") is False or answer.get("status") in ("error", "failed")):
            raise MdlErrorOf(f"the worker did not cancel it: {error_in(answer)}", job)
        return RemoteJob(job, "cancelled")

    def delete(self, job: str) -> int:
        if self.bucket is None:
            raise UsageError("only a bucket can be cleaned", item=self.settings.name, hint="give the remote its bucket")
        return self.bucket.delete(job)

    def files(self, origin: JobOrigin) -> list[RemoteFile]:
        """The results: from the bucket, from the queue's own result, or by a worker."""
        if self.bucket:
            try:
                return self.bucket.files(origin)
            except NotFound:
                pass
        found = self.outputs(origin.job)
        return [
            RemoteFile(one.path, origin.url_of(one.path), one.size, probed=one.size is not None)
            for one in select(found, checkpoint=origin.checkpoint, logs=origin.logs, everything=origin.everything)
        ]

    def locate(self, url: str) -> Link | Body:
        """The link to a file, asked for anew if that which is known was not made just now; or its bytes."""
        job, _, path = unquote(urlsplit(url).path).strip("/").partition("/")
        known = self._outputs.pop(job, None)
        outputs = known[1] if known else self.outputs(job)
        self._outputs.pop(job, None)
        for one in outputs:
            if one.path.text == path:
                return Link(one.url) if one.url else Body.of(one.data or b"", one.content_type)
        raise NotFound("the endpoint's answer does not name this file any more", item=f"{job}/{path}")

    def hosts(self) -> tuple[str, ...]:
        return (host_of(self.base), *(self.bucket.hosts() if self.bucket else ()))

    # The results of one job.

    def outputs(self, job: str) -> list[Output]:
        """Every file in the result of a job. A link in it may be good for a short time only."""
        answer: Any = None
        if _JOB_ID.fullmatch(job):
            facts = self._queued(job)
            if "output" not in facts and status_of(facts.get("status")) == "done":
                raise _no_result(job)
            answer = facts.get("output")
        else:
            answer = self._of_process("bulk_download", job, many=True)
            if not (isinstance(answer, dict) and answer.get("download_items")):
                answer = self._of_process("download", job)
        found = outputs_of(answer, job)
        self._outputs[job] = (time.monotonic(), found)
        return found

    def _of_process(self, kind: str, process: str, *, many: bool = False) -> Any:
        """What a worker says of a process. Raises `NotFound` if no worker that was asked knows it."""
        check_job_id(process)
        given = {"type": kind} | ({"process_ids": [process]} if many else {"process_id": process})
        for attempt in range(_TRIES):
            try:
                return self.call(given)
            except NotFound:
                if attempt == _TRIES - 1:
                    raise
        raise AssertionError

    def _nowhere(self, job: str, asked: list[str], error: NotFound) -> NotFound:
        places = f"{', '.join(asked[:-1])} and {asked[-1]}" if len(asked) > 1 else asked[0]
        hint = "" if self.bucket else "give the remote the bucket that its workers write to; "
        return NotFound(
            f"not found: {places} of {self.settings.name} were asked ({error.message})",
            item=job,
            hint=f"{hint}'mdl remote jobs {self.settings.name}' lists what there is",
        )

    # Questions.

    def call(self, given: Mapping[str, Any], *, once: bool = False) -> Any:
        """The output of a worker for this input. ``once``: it is not idempotent, and is not sent again.

        Raises `NotFound` if the worker does not know the process, `NoResult`, `MdlError` in the worker's words.
        """
        lost: MdlError | None = None
        for _ in range(1 if once else 2):
            try:
                answer = self._ask("POST", f"runsync?wait={_WAIT_MS}", {"input": dict(given)}, once=once)
                return self._result(self._finished(answer), str(given.get("process_id", given.get("type", ""))))
            except NotFound as error:
                if _UNKNOWN.search(error.message) and not error.redirected:
                    raise
                lost = error  # the queue forgot the question before it was asked for the answer
        assert lost is not None
        raise lost

    def _finished(self, answer: Any) -> Mapping[str, Any]:
        """The answer in a final state, polled for if a worker has still to take the question."""
        began, http = time.monotonic(), self._http
        for number in range(10**6):
            if not isinstance(answer, dict):
                raise ProtocolError("the endpoint's answer is no JSON object", item=self.settings.name)
            if str(answer.get("status")).upper() in _FINAL or "status" not in answer:
                return answer
            name = str(answer.get("id", ""))
            if not name:
                raise ProtocolError("the endpoint's answer has no id", item=self.settings.name)
            if time.monotonic() - began > _POLL_SECONDS:
                hint = f"'mdl remote check {self.settings.name}' tells of its workers"
                raise NetworkError("no worker took the question within 10 minutes", item=self.settings.name, hint=hint)
            http.cancel.wait(_POLLS[min(number, len(_POLLS) - 1)])
            answer = self._ask("GET", f"status/{quote(name, safe='')}")
        raise AssertionError

    def _result(self, answer: Mapping[str, Any], item: str) -> Any:
        status = str(answer.get("status", "COMPLETED")).upper()
        if status == "COMPLETED":
            if "output" not in answer and "status" in answer:
                raise _no_result(item)
            output = answer.get("output", answer)
            word = output.get("status") if isinstance(output, dict) else None
            if isinstance(output, dict) and (output.get("error") or word in ("not_found", "error")):
                raise _worker_error(output.get("error") or output.get("message") or word, item)
            return output
        if status == "FAILED":
            raise _worker_error(answer.get("error") or answer.get("output"), item)
        raise NetworkError(f"the endpoint says {status} of the question", item=item)

    def _queued(self, job: str) -> Mapping[str, Any]:
        """What the queue says of one of its own jobs. Raises `NotFound` if it never had it, or has forgotten it."""
        answer = self._ask("GET", f"status/{quote(job, safe='')}")
        if not isinstance(answer, dict):
            raise ProtocolError("the endpoint's answer is no JSON object", item=job)
        return answer

    def _ask(self, method: str, path: str, content: Any = None, *, once: bool = False) -> Any:
        http, url = self._http, f"{self.base}/{path}"

        def ask() -> Any:
            try:
                return http.json(method, url, content, most=_LARGEST)[0]
            except AuthError as error:
                variable = self.settings.key_variable
                why = "" if self.settings.token(self._context.environ) else f" ({variable} is not set)"
                error.message, error.hint = f"{error.message}{why}", f"set {variable} to a key of this endpoint"
                raise error.on(self.settings.name) from None
            except MdlError as error:
                if _TOO_LARGE.search(error.message):
                    raise UsageError(error.message, item=self.settings.name, hint=_ASK_FOR_URL) from error
                raise error.on(self.settings.name) from None

        return ask() if once else http.retry(url, ask)

    @property
    def _http(self) -> HttpClient:
        if self._context.http is None:
            raise UsageError("offline: no endpoint can be asked", item=self.settings.name)
        return self._context.http


def MdlErrorOf(message: str, item: str) -> MdlError:  # noqa: N802
    return UsageError(message, item=item, hint="'mdl remote status' tells how it stands")


def _no_result(item: str) -> NoResult:
    return NoResult("it is completed, but its result is not there: too large, or expired", item=item, hint=_ASK_FOR_URL)


def _worker_error(words: Any, item: str) -> MdlError:
    text = error_in(words) or "the worker failed and says no more"
    if _UNKNOWN.search(text):
        return NotFound(text, item=item)
    if _TOO_LARGE.search(text):
        return NoResult(text, item=item, hint=_ASK_FOR_URL)
    if re.search(r"(?i)not completed|still running|in progress", text):
        from mdl.errors import NotFinished

        return NotFinished(text, item=item, hint="--wait waits for it")
    return ProtocolError(f"the worker says: {text}", item=item, hint="look at the endpoint's log")


def _counts(value: Any) -> dict[str, int]:
    if not isinstance(value, dict):
        return {}
    return {shown(str(key)): n for key, n in value.items() if isinstance(n, int) and not isinstance(n, bool)}
