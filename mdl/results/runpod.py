"""RunPod Serverless: an endpoint whose workers train, and tell of it when they are asked.

Every question to a worker is a job of the endpoint's queue, which costs money and time; so the bucket that the workers
write to is read first, if the remote names one. Workers share no memory: if one does not know a process, another
one may, and is asked.

Protocol: https://docs.runpod.io/serverless/endpoints/operation-reference. Limits are MiB: 10 for ``/run``, 20 for
``/runsync``, for the request and for the result. A result is kept for 1 minute after ``/runsync``, 30 after ``/run``.
What a worker understands (``{"type": "process_status", "process_id": …}`` and so on) is up to its handler.
"""

from __future__ import annotations

import contextlib
import random
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain, repeat
from typing import Any
from urllib.parse import quote

from mdl.bounds import LARGEST_RESULT
from mdl.errors import MdlError, NetworkError, NotFinished, NotFound, ProtocolError
from mdl.net.allowlist import host_of
from mdl.net.pagination import paged
from mdl.paths import refuse_twins, shown
from mdl.results.answer_keys import first_text, object_of, path_of
from mdl.results.answers import judge
from mdl.results.base import Check, RemoteJob, check_job_id, status_of
from mdl.results.http import HttpRemote, Missed
from mdl.results.outputs import ASK_FOR_URL, NoDownload, Output, checked_path, told_size_in

_LONGEST_WAIT = 90.0
"""Seconds that ``/runsync`` may wait for a worker's answer, if the connection may be silent for so long."""
_MOST_PIECES = 64
"""Answers of a stream, each of which may be as large as any answer."""
_TRIES = 3
"""So many workers are asked for a process, for the next one may know it."""
POLLS = (1.0, 2.0, 3.0, 5.0)
POLL_SECONDS = 600.0
"""How long a question may stay in the queue: a cold start takes minutes."""
_JOB_ID = re.compile(r"(sync-)?[0-9a-f]{8}-[0-9a-f-]{20,40}-[a-z]\d+", re.IGNORECASE)
"""The endpoint's own ids. What else names a job is a process, which only workers and the bucket know."""
_UNKNOWN = re.compile(
    r"(?i)\b(process|job|task|run)\b[^.:]{0,80}\bnot[ _]found\b|\bnot_found\b|\b(unknown|no such) (process|job)\b"
)
_UNFINISHED = re.compile(r"(?i)\bnot (yet )?(completed|finished|done)\b|still running|in progress")
_TOO_LARGE = re.compile(r"(?i)too large|exceed\w* (the )?max|body size|payload size")
_FINAL = {"COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"}
_LIMITS = f"an endpoint carries 20 MiB at most, about 15 MiB of a file in base64: {ASK_FOR_URL}"
_MOST_COUNTED = 2**53
"""No count of jobs or workers is as large as this; one that is cannot be written as a metric."""
_KEY_LISTS = ("files", "keys", "objects")
"""Keys under which a worker lists the keys of its files."""
_KEYS = ("key", "s3_key", "path", "name")
_JOB_IN_PATH = re.compile(r"/results/([^/]+)/")
_WORKERS = "workers"
_QUEUE = "the endpoint's queue"


class NoResult(ProtocolError):
    """The endpoint finished a request and has no result of it: it was too large, or is lost."""


class UnknownProcess(NotFound):
    """The worker that was asked does not know the process; another one may."""


class WorkerFailed(NetworkError):
    """The worker failed, or does not understand the question. ``record`` is the record of a process that it gave beside
    its error; empty if it gave none."""

    def __init__(self, message: str, *, item: str | None = None, record: Mapping[str, Any] | None = None) -> None:
        super().__init__(message, item=item, hint="look at the endpoint's log", final=True)
        self.record = record or {}


class _Forgotten(NetworkError):
    """The queue has forgotten a question before its answer was read."""


_MEANINGS: tuple[tuple[re.Pattern[str], type[MdlError], str | None], ...] = (
    (_TOO_LARGE, NoResult, _LIMITS),
    (_UNKNOWN, UnknownProcess, None),
    (_UNFINISHED, NotFinished, "--wait 2h waits for it"),
)
"""What the words of a worker mean: the error that they are, and its hint."""


class Runpod(HttpRemote):
    """One endpoint."""

    # What a remote does.

    def check(self) -> list[Check]:
        """The endpoint, its workers and its queue by its own account, and its bucket. No worker is asked."""
        try:
            health = self.health()
        except MdlError as error:
            return [Check("endpoint", False, str(error), error), *self.check_bucket()]
        workers = _counts(health.get("workers"))
        jobs = _counts(health.get("jobs"))
        there_are = ", ".join(f"{count} {state}" for state, count in sorted(workers.items()) if count) or "none now"
        ill = workers["throttled"] + workers["unhealthy"]
        well = workers["idle"] + workers["ready"] + workers["running"] + workers["initializing"]
        failure = None
        if ill and not well:
            failure = NetworkError(f"no worker can take a job: {there_are}", item=self.name)
        return [
            Check("endpoint", True, f"{host_of(self.base)} answers"),
            Check("workers", failure is None, there_are, failure),
            Check("queue", True, f"{jobs['inQueue']} waiting, {jobs['inProgress']} running"),
            Check("jobs", True, f"{jobs['completed']} completed, {jobs['failed']} failed"),
            *self.check_bucket(),
        ]

    def health(self) -> Mapping[str, Any]:
        """Return what ``/health`` answers: counts of workers and jobs by state."""
        return self._ask("GET", "health")

    def _ask(self, method: str, path: str, content: Any = None, item: str = "") -> dict[str, Any]:
        """The JSON object that a path of the endpoint answers. ``item`` is what an error is about."""
        answer = self.ask(method, f"{self.base}/{path}", content, most=LARGEST_RESULT, item=item)
        return self._object(answer, item)

    def _object(self, answer: Any, item: str) -> dict[str, Any]:
        """The answer if it is a JSON object. Raises `ProtocolError`."""
        if not isinstance(answer, dict):
            raise ProtocolError("the endpoint's answer is not a JSON object", item=item or self.name)
        return answer

    def metrics(self) -> Mapping[str, float]:
        """``workers_idle``, ``jobs_in_queue`` and so on: every count of ``/health``."""
        health = self.health()
        metrics = {}
        for part in ("workers", "jobs"):
            for state, count in _counts(health.get(part)).items():
                metrics[f"{part}_{_snake(state)}"] = float(count)
        return metrics

    def jobs(self) -> list[RemoteJob]:
        """Those in the bucket; without one, those that the worker knows that happens to answer."""
        if self.bucket:
            return self.bucket.jobs()
        return self.jobs_in(self.call({"type": "processes"}), "processes", "the worker's list of processes")

    def status(self, job: str) -> RemoteJob:
        """From the bucket, from the endpoint's queue if ``job`` is an id of it, and from a worker, in this order."""
        missed = Missed()
        recorded = self.status_in_bucket(check_job_id(job), missed)
        if recorded:
            return recorded
        facts = self._in_queue(job, missed)
        if not facts:
            facts = self._of_process("process_status", job, missed)
        return self.job(facts, job)

    def cancel(self, job: str) -> RemoteJob:
        """Asked by the queue for one of its own ids, else by a worker. One that knows the process is asked once."""
        missed = Missed()
        if _JOB_ID.fullmatch(check_job_id(job)):
            try:
                answer = self.post_once(f"{self.base}/cancel/{quote(job, safe='')}", {}, item=job)
            except NotFound as error:
                missed[_QUEUE] += 1
                raise self.not_found(job, missed, error.message) from error
            return self.cancelled(job, answer)
        try:
            answer = self._of_process("cancel", job, missed, once=True)
        except NotFound as error:
            recorded = self.status_in_bucket(job, missed)
            if recorded is None:
                raise
            message = f"{error.message}; the bucket says that it is {recorded.status}"
            raise self.not_cancelled(job, message) from error
        return self.cancelled(job, answer)

    # The results of one job.

    def outputs(self, job: str) -> Sequence[Output]:
        """Return what the result of a job holds. A link in it may be good for a short time only."""
        missed = self._missed.get(job, Missed()).copy()
        facts = self._in_queue(job, missed)
        if facts is None:
            return self._outputs_of_process(job, missed)
        self.job(facts, job).check_is_done(has_files=False)
        output = facts.get("output") or self._streamed(job) or facts.get("output")
        if output is None:
            raise _no_result(job)
        return self.outputs_of(judge(output, job), job)

    def _streamed(self, job: str) -> list[Any] | None:
        """Return what a job gave piece by piece, which stands in its stream alone; None if there is nothing in it."""

        def ask(page: int) -> tuple[list[Any], int | None]:
            rows = self._ask("GET", f"stream/{quote(job, safe='')}", item=job).get("stream") or []
            if not rows:
                return [], None
            return [object_of(row, "output").get("output", row) for row in rows], page + 1

        pieces: list[Any] = []
        # The endpoint may have no stream of it, or go on to give the same pieces.
        with contextlib.suppress(NotFound, ProtocolError):
            for piece in paged(0, ask, repr, "the stream of the job", most_pages=_MOST_PIECES):
                if piece is not None:
                    pieces.append(piece)
        return pieces or None

    def _outputs_of_process(self, job: str, missed: Missed) -> Sequence[Output]:
        """As links, which may be of any size; else by their keys, to be asked for one by one; else the one file that
        the worker gives."""
        for ask in (self._linked, self._keyed):
            # without a bucket a worker names no URLs; or it does not understand the question
            with contextlib.suppress(NoDownload, WorkerFailed):
                outputs = ask(job, missed)
                if outputs:
                    return outputs
        return self.outputs_of(judge(self._of_process("download", job, missed), job), job)

    def _linked(self, job: str, missed: Missed) -> Sequence[Output]:
        items = self._items(job, missed)
        if not items:
            return ()
        outputs = self.outputs_of(judge(items, job), job)
        for output in outputs:
            if isinstance(output.error, NoDownload):
                raise output.error
        return outputs

    def _keyed(self, job: str, missed: Missed) -> Sequence[Output]:
        return keyed_outputs(self._of_process("list_files", job, missed), job)

    def _items(self, job: str, missed: Missed) -> list[Any]:
        """The rows of a bulk answer. A worker leaves out the processes that it does not know, without a word."""
        given = {"type": "bulk_download", "process_ids": [job], "include_images": True, "include_loras": True}
        for _ in range(_TRIES):
            with contextlib.suppress(UnknownProcess):
                items = items_of(self.call(given), job)
                if items:
                    return items
            missed[_WORKERS] += 1
        return []

    def complete(self, job: str, output: Output) -> Output:
        """An output that is known by its key, with its bytes or its link."""
        answer = self._of_process("download", job, Missed(), s3_key=output.key)
        complete = self.outputs_of(judge(answer, job), job)[0]
        return complete if output.size is None else replace(complete, size=output.size)

    def _in_queue(self, job: str, missed: Missed) -> Mapping[str, Any] | None:
        """Return what the queue says of one of its own jobs; None if it never had it, or has forgotten it."""
        if not _JOB_ID.fullmatch(job):
            return None
        try:
            answer = self._ask("GET", f"status/{quote(job, safe='')}", item=job)
        except NotFound:
            missed[f"{_QUEUE} (it keeps a result for 30 minutes at most)"] += 1
            return None
        if _state_of(answer) == "TIMED_OUT" and not answer.get("error"):
            answer["error"] = "it ran longer than the endpoint allows (TIMED_OUT)"
        return answer

    def _of_process(self, kind: str, process: str, missed: Missed, *, once: bool = False, **more: str) -> Any:
        """Return what a worker says of a process. One that does not know it did nothing, so the next one may be asked.

        Raises `NotFound` with every place that was asked if none knows it.
        """
        words = ""
        for _ in range(_TRIES):
            try:
                return self.call({"type": kind, "process_id": process, **more}, once=once)
            except UnknownProcess as error:
                missed[_WORKERS] += 1
                words = error.message
            except WorkerFailed as error:
                if kind == "process_status" and error.record:
                    return error.record
                raise
        raise self.not_found(process, missed, words)

    # Questions to workers.

    def call(self, given: Mapping[str, Any], *, once: bool = False) -> Any:
        """The output of a worker for this input. If ``once``, the question is not idempotent and is not sent again.

        Raises `UnknownProcess`, `NotFinished`, `NoResult`, `WorkerFailed`, and what `ask` raises.
        """
        item = str(given.get("process_id") or self.name)
        wait = max(1.0, min(_LONGEST_WAIT, self.http.stall - 5.0))
        runsync = f"runsync?wait={wait * 1000:.0f}"
        content = {"input": dict(given)}
        if once:
            return self._call_once(runsync, content, item)
        words = ""
        for path in (runsync, "run"):  # /runsync keeps a result for a minute, /run for 30
            try:
                return self._output(self._finished(self._ask("POST", path, content, item)), item)
            except _Forgotten as error:
                words = error.message
        raise NoResult(words, item=item)

    def _call_once(self, path: str, content: Any, item: str) -> Any:
        """As `call`, of a question that must not be sent again."""
        try:
            answer = self._object(self.post_once(f"{self.base}/{path}", content, item=item), item)
            return self._output(self._finished(answer), item)
        except NetworkError as error:
            raise self.unanswered(error, item) from error

    def _finished(self, answer: dict[str, Any]) -> Mapping[str, Any]:
        """The answer in its final state. It is polled for if a worker has still to take the question."""
        if "status" not in answer:  # of a gateway that leaves the envelope out
            return {"status": "COMPLETED", "output": answer.get("output", answer)}
        latest = answer
        began = time.monotonic()
        pauses = chain(POLLS, repeat(POLLS[-1]))
        while _state_of(latest) not in _FINAL:
            question = first_text(latest, ["id"])
            if not question:
                raise ProtocolError("the endpoint's answer has no id", item=self.name)
            if time.monotonic() - began > POLL_SECONDS:
                raise self._given_up(question)
            self.http.cancel.wait(next(pauses) * random.uniform(0.8, 1.2))
            try:
                latest = self._ask("GET", f"status/{quote(question, safe='')}")
            except NotFound as error:
                raise _Forgotten("the endpoint no longer has the request", item=self.name) from error
        return latest

    def _given_up(self, question: str) -> NetworkError:
        """The error of a question that no worker takes. It is cancelled: a worker that took it later would cost."""
        with contextlib.suppress(MdlError):
            self.post_once(f"{self.base}/cancel/{quote(question, safe='')}", {})
        hint = f"'mdl remote check {self.name}' shows its workers"
        message = f"no worker answered within {POLL_SECONDS / 60:.0f} minutes"
        return NetworkError(message, item=self.name, hint=hint, final=True)

    def _output(self, answer: Mapping[str, Any], item: str) -> Any:
        """The worker's output in a final answer. Raises as `call`."""
        state = _state_of(answer)
        output = answer.get("output")
        question = first_text(answer, ["id"])
        if state == "FAILED":
            raise self._failure(answer.get("error") or output, item, output)
        if state != "COMPLETED":
            raise WorkerFailed(f"the endpoint reports {state} for the request", item=item)
        if output is None and question:
            output = self._streamed(question)
        if output is None:
            raise _no_result(item)
        words = _error_of(output)
        if words:
            raise self._failure(words, item)
        return output

    def _failure(self, words: Any, item: str, output: Any = None) -> MdlError:
        """The error that the words of a worker mean. The SDK takes ``error`` out of the record of a process that
        failed, and gives the rest as its output."""
        text = self.words(words) or "the worker failed, and does not say why"
        facts = object_of(output)
        if status_of(facts.get("status")) in ("failed", "cancelled"):
            return WorkerFailed(text, item=item, record={**facts, "error": text})
        for pattern, kind, hint in _MEANINGS:
            if pattern.search(text):
                return kind(text, item=item, hint=hint)
        text = f"the worker says: {text}"
        if not facts.get("status"):
            return WorkerFailed(text, item=item)
        return WorkerFailed(text, item=item, record={**facts, "error": text})

    def explained(self, error: MdlError) -> MdlError:
        """400, 413 and 502 are all answered to what is too large; only the words tell."""
        if isinstance(error, NetworkError) and _TOO_LARGE.search(error.message):
            return NoResult(error.message, item=error.item, hint=_LIMITS)
        return super().explained(error)


open_remote = Runpod


def _state_of(answer: Mapping[str, Any]) -> str:
    return str(answer.get("status")).upper()


def _error_of(output: Any) -> Any:
    """Return what a worker's output says in place of a result; nothing if it is one."""
    facts = object_of(output)
    status = facts.get("status")
    if status in ("not_found", "error"):
        return facts.get("error") or facts.get("message") or status
    if status:
        return None
    return facts.get("error")


def _no_result(item: str) -> NoResult:
    message = "it is completed, but the endpoint has no result of it: it was larger than 20 MiB, or is lost"
    return NoResult(message, item=item, hint=_LIMITS)


def _counts(value: Any) -> Counter[str]:
    """Return the counts of workers or jobs by their states."""
    counts = Counter[str]()
    if isinstance(value, dict):
        for state, count in value.items():
            if type(count) is int and abs(count) < _MOST_COUNTED:
                counts[shown(str(state))[:40]] = count
    return counts


def _snake(name: str) -> str:
    """``inQueue`` as ``in_queue``."""
    return re.sub(r"\W+", "_", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name)).lower()


def items_of(answer: Any, job: str) -> list[Any]:
    """Return the rows of ``download_items`` that are of ``job``. They carry no id, but the path of their URL has it:
    ``…/results/ID/…``. A row whose path names no job counts as one of it."""
    rows = object_of(answer).get("download_items")
    if not isinstance(rows, list):
        return []
    items = []
    for row in rows:
        url = first_text(object_of(row, "url"), ["url"])
        match = _JOB_IN_PATH.search(path_of(url))
        if match is None or match[1] == job:
            items.append(row)
    return items


def keyed_outputs(answer: Any, job: str) -> list[Output]:
    """Return the files in a worker's list of keys (``{"files": [{"key", "size"}]}``, or texts), which can be asked for
    one by one. Raises `Unsafe` for a key that leaves the folder."""
    rows = answer
    if isinstance(answer, dict):
        rows = next((answer[key] for key in _KEY_LISTS if key in answer), None)
    if not isinstance(rows, list):
        return []
    outputs = []
    for row in rows:
        facts = object_of(row, "key")
        key = first_text(facts, _KEYS)
        if not key or key.endswith("/"):
            continue
        below = key.rpartition(f"results/{job}/")[2] or key
        outputs.append(Output(checked_path(below.lstrip("/")), size=told_size_in(facts), key=key))
    refuse_twins(output.path for output in outputs)
    return outputs
