"""Remotes: where trained results are (``[remotes.NAME]`` of ``config.toml``), and what every kind of remote can do.

A kind is one module of this room with ``open_remote(settings, context) -> Remote``, and one line in `KINDS` of
`mdl.config.remotes`. The origin ``job://REMOTE/JOB`` means the results of one job; its source is `JobSource`.
"""

from __future__ import annotations

import contextlib
import importlib
import math
import re
import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from mdl.bounds import LARGEST_DOCUMENT
from mdl.config.remotes import KINDS, RemoteSettings, remote_named
from mdl.errors import LockError, MdlError, NotFinished, NotFound, UsageError, online_hint
from mdl.events import Noticed
from mdl.files import RefusedFile, RemoteFile
from mdl.formatting import counted, human_bytes
from mdl.listener import Listener
from mdl.net.locators import Body, Link
from mdl.paths import RelPath, names_for_a_hint, shown
from mdl.results.answer_keys import object_of
from mdl.results.outputs import File, error_in, litter_note, wanted_paths, without_litter
from mdl.sources import Origin, Source, SourceContext
from mdl.sources.answer_cache import keep, kept_path, read_kept
from mdl.units import total_size
from mdl.values import value_class
from mdl.weights.junk import why_junk_path

VERSION = 1
"""Of the file that keeps what a job had."""


@value_class
class JobOrigin(Origin):
    """The results of one job: all of them, those of one ``checkpoint``, or its ``logs``. With ``everything`` the
    pictures and logs beside the weights are among them, and with ``litter`` also what file systems and file managers
    left there."""

    scheme: ClassVar[str] = "job"

    remote: str
    job: str
    checkpoint: str = ""
    logs: bool = False
    everything: bool = False
    litter: bool = False

    def __str__(self) -> str:
        facts = {}
        if self.checkpoint:
            facts["checkpoint"] = self.checkpoint
        for key, is_set in (("logs", self.logs), ("all", self.everything), ("litter", self.litter)):
            if is_set:
                facts[key] = "1"
        job = f"job://{self.remote}/{quote(self.job, safe='')}"
        if not facts:
            return job
        return f"{job}?{urlencode(facts)}"

    @property
    def folder(self) -> str:
        """Where the results lie below the models folder."""
        folder = f"{self.remote}/{self.job}"
        if self.logs:
            return f"{folder}_logs"
        if self.checkpoint:
            return f"{folder}_{self.checkpoint}"
        return folder

    def url_of(self, path: RelPath) -> str:
        """The stable URL of one file of the job. `Remote.locate` finds out where the file is."""
        return f"job://{self.remote}/{quote(self.job, safe='')}/{quote(path.text)}"


def parse(text: str, page_hosts: Collection[str]) -> JobOrigin:
    """The origin that ``job://REMOTE/JOB`` means. Raises `UsageError`, `Unsafe`."""
    parts = urlsplit(text)
    query = dict(parse_qsl(parts.query))
    job = unquote(parts.path.strip("/"))
    if not parts.netloc or not job:
        raise UsageError("not a job of a remote", item=shown(text)[:200], hint="write job://REMOTE/JOB")
    checkpoint = RelPath.parse(query["checkpoint"]).text if "checkpoint" in query else ""
    remote = RelPath.parse(parts.netloc).text
    return JobOrigin(remote, check_job_id(job), checkpoint, "logs" in query, "all" in query, "litter" in query)


def job_and_path(url: str) -> tuple[str, str]:
    """The job and the path of a file in a URL that `JobOrigin.url_of` made."""
    job, _, path = urlsplit(url).path.strip("/").partition("/")
    return unquote(job), unquote(path)


def job_of_url(url: str) -> JobOrigin:
    """The job of which a URL that `JobOrigin.url_of` made is a file."""
    job, _ = job_and_path(url)
    return JobOrigin(urlsplit(url).netloc, job)


JobStatus = Literal["queued", "running", "done", "failed", "cancelled"]
_STATUS: dict[str, JobStatus] = {
    **dict.fromkeys(("queued", "pending", "starting", "inqueue", "created", "waiting"), "queued"),
    **dict.fromkeys(("submitted", "scheduled", "accepted", "notstarted", "provisioning", "preparing"), "queued"),
    **dict.fromkeys(("running", "inprogress", "processing", "active", "started", "training", "executing"), "running"),
    **dict.fromkeys(("initializing", "configuring", "validatingfiles", "received", "deferred", "new"), "queued"),
    **dict.fromkeys(("requeued", "restarting", "retrying", "retry"), "queued"),
    **dict.fromkeys(("compressing", "saving", "cancelrequested", "working", "busy", "evaluating"), "running"),
    **dict.fromkeys(("finalizing", "completing", "uploading", "stopping", "cancelling", "canceling"), "running"),
    **dict.fromkeys(("completed", "complete", "done", "success", "succeeded", "finished"), "done"),
    **dict.fromkeys(("succeed", "successful", "finish"), "done"),
    **dict.fromkeys(("failed", "failure", "error", "crashed", "timedout", "timeout"), "failed"),
    **dict.fromkeys(("errored", "usererror", "expired", "killed", "dead", "deadline"), "failed"),
    **dict.fromkeys(("outofmemory", "oomkilled", "nodefail", "bootfail", "evicted", "rejected"), "failed"),
    **dict.fromkeys(("fail", "exception", "preempted", "systemerror"), "failed"),
    **dict.fromkeys(("cancelled", "canceled", "stopped", "aborted", "revoked", "cancelledby"), "cancelled"),
}
"""What the words of remotes mean, in small letters and without anything between them."""
_MOST_SECONDS = 1e11
"""A time since 1970 that is greater is in milliseconds."""
_NO_LETTER = re.compile(r"[^a-z]+")
_LONGEST_WORD = 60


@value_class
class RemoteJob:
    """One training job. Times are ISO 8601 in UTC; ``bytes`` are those of its results, if they are known. ``error`` is
    what went wrong; of a job that counts as ``running``, since mdl does not know the remote's word for how it stands,
    it is that word."""

    id: str
    status: JobStatus
    created_at: str | None = None
    updated_at: str | None = None
    bytes: int | None = None
    error: str | None = None

    @property
    def is_over(self) -> bool:
        return self.status in ("done", "failed", "cancelled")

    @property
    def standing(self) -> str:
        """How it stands, in words."""
        return f"{self.status} ({self.error})" if self.error else self.status

    def age(self, now: float) -> float:
        """Seconds from the last time that its record tells until ``now``, in seconds since 1970; -inf if it tells
        none."""
        moment = self.updated_at or self.created_at
        if not moment:
            return -math.inf
        return now - datetime.fromisoformat(moment).timestamp()

    def check_is_done(self, *, allow_running: bool = False, logs: bool = False, has_files: bool = True) -> None:
        """Raises `NotFinished` for a job that still runs, `NotFound` for one that ended without a result; its ``logs``
        can be had of such a one too. One that runs may have files already, unless ``has_files`` is false."""
        messages = {"failed": "the job failed", "cancelled": "the job was cancelled"}
        if self.status in messages and not logs:
            hint = "if it wrote logs: run the command again with --logs"
            reason = ", and does not say why"
            if self.error:
                reason = f": {self.error}"
            raise NotFound(messages[self.status] + reason, item=self.id, hint=hint)
        if not self.is_over and not allow_running:
            hint = "--wait 2h waits for it"
            if has_files:
                hint += "; --allow-running takes what is there"
            raise NotFinished(f"the job is still {self.standing}", item=self.id, hint=hint)


@value_class
class Check:
    """One thing that `Remote.check` looked at. ``error`` is what failed if it is not ``ok``."""

    name: str
    ok: bool
    detail: str
    error: MdlError | None = None


class Remote(Protocol):
    """One place where results are. Its methods ask the network.

    All raise `AuthError`, `NetworkError`, `ProtocolError`; those with a job raise `NotFound` for one that is unknown.
    """

    is_archived: bool
    """Whether the results of a job come as one archive, whose format its bytes tell."""

    def is_synced(self, job: str) -> bool:
        """Tell whether the files of a job that were listed are a folder that was copied as it was, and not what
        somebody named as the results."""

    def check(self) -> list[Check]:
        """Tell whether it can be reached and used, part by part. A part that fails is a row with ``ok`` False."""

    def metrics(self) -> Mapping[str, float]:
        """Numbers for a monitoring system, by name, such as ``workers_idle``; empty if the remote tells none."""

    def jobs(self) -> list[RemoteJob]:
        """Every job, the newest first."""

    def status(self, job: str) -> RemoteJob:
        """One job."""

    def cancel(self, job: str) -> RemoteJob:
        """Cancel a job, asked once. Raises `MdlError` in the remote's words if it says that it did not."""

    def files(self, origin: JobOrigin) -> list[RemoteFile]:
        """The results of a job that ``origin`` means."""

    def refused(self, origin: JobOrigin) -> list[RefusedFile]:
        """Those of the results that `files` found, and whose names cannot be kept on this system."""

    def locate(self, url: str) -> Link | Body:
        """Return where the file of a URL that `JobOrigin.url_of` made is at this moment."""

    def hosts(self) -> tuple[str, ...]:
        """The hosts that it is asked at."""


class Notices:
    """What a user is told about the jobs of one remote, each message of a job once."""

    def __init__(self, remote: str, listener: Listener) -> None:
        self._remote = remote
        self._listener = listener
        self._told: set[tuple[str, str]] = set()

    def tell(self, job: str, message: str) -> None:
        if (job, message) not in self._told:
            self._told.add((job, message))
            self._listener(Noticed(f"{self._remote}/{job}", message=message))


def wanted_by(
    origin: JobOrigin, files: Sequence[File], notices: Notices, refused: Sequence[RefusedFile] = ()
) -> tuple[list[File], list[RefusedFile]]:
    """Return those of a job's files that an origin means, of whichever checkpoint, and those of the ``refused`` ones.
    Raises `NotFound` if it means none."""
    if not origin.litter:
        files, litter = without_litter(files)
        sizes = {file.path.text: file.size for file in litter}
        sizes.update({file.path: file.size for file in refused if why_junk_path(file.path)})
        refused = [file for file in refused if file.path not in sizes]
        if sizes:
            notices.tell(origin.job, litter_note(sizes))
    names = {file.path.text for file in files} | {file.path for file in refused}
    wanted = wanted_paths(names, logs=origin.logs, everything=origin.everything)
    chosen = [file for file in files if file.path.text in wanted]
    wanted_refused = [file for file in refused if file.path in wanted]
    if not chosen and not wanted_refused:
        missing = "log" if origin.logs else "file"
        available = names_for_a_hint(file.path.text for file in files) or "nothing"
        raise NotFound(f"no {missing} is among its results", hint=f"available: {available}")
    is_default = not (origin.logs or origin.everything or origin.checkpoint)
    if is_default and len(wanted) < len(names):
        left = [file.size for file in files if file.path.text not in wanted]
        left += [file.size for file in refused if file.path not in wanted]
        size = total_size(left)
        amount = "" if size is None else f", {human_bytes(size)}"
        notices.tell(origin.job, f"left out: {counted(len(left), 'file')}{amount}: logs and pictures; --all takes all")
    return chosen, wanted_refused


def newest_first(jobs: Iterable[RemoteJob]) -> list[RemoteJob]:
    """These jobs by the time at which they began."""
    return sorted(jobs, key=lambda job: job.created_at or "", reverse=True)


def status_of(word: object) -> JobStatus | None:
    """The status that a remote's own word means; None for one that mdl does not know."""
    last = str(word).lower().rpartition(".")[2]
    return _STATUS.get(_NO_LETTER.sub("", last).removeprefix("jobstate"))


def moment_of(value: object) -> str | None:
    """A time in ISO 8601 or in seconds (or milliseconds) since 1970, as ISO 8601 in UTC; None for anything else. A
    time without a zone is one in UTC."""
    if isinstance(value, bool):
        return None
    try:
        moment = _moment(value).astimezone(UTC)
    except (ValueError, TypeError, OverflowError, OSError):
        return None
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


def _moment(value: Any) -> datetime:
    """As `moment_of`. Raises ``ValueError``, ``TypeError``, ``OverflowError``, ``OSError`` for what is no time."""
    if isinstance(value, str) and not value.replace(".", "", 1).isdigit():
        moment = datetime.fromisoformat(value.strip().replace("Z", "+00:00"))
        if moment.tzinfo is None:
            return moment.replace(tzinfo=UTC)
        return moment
    seconds = float(value)
    if seconds > _MOST_SECONDS:
        seconds /= 1000
    return datetime.fromtimestamp(seconds, UTC)


_IDS = ("id", "job_id", "process_id", "jobId", "run_id", "task_id", "uuid")
_STATES = ("status", "state", "phase", "stage", "job_status", "jobStatus", "run_status")
_BEGAN = ("created_at", "started_at", "createdAt", "startedAt", "created")
_CHANGED = ("updated_at", "completed_at", "finished_at", "updatedAt", "completedAt", "finishedAt")
_ERRORS = ("error", "error_message")
_RECORDS = ("job", "data", "result", "process", "task", "run")
"""Keys under which a server has the record of the one job that it was asked for."""


def job_of(record: Any, name: str = "") -> RemoteJob:
    """The job that a record describes: ``id`` (or ``job_id``, ``process_id`` …), ``status`` (or ``state`` …),
    ``created_at``, ``updated_at``, ``error``. Nothing is known about a job whose record is not an object."""
    answer = object_of(record)
    facts = _record_in(answer)
    job_id = name or str(_first(facts, *_IDS) or _first(answer, *_IDS) or "")
    created = _first(facts, *_BEGAN) or _first(answer, *_BEGAN)
    updated = _first(facts, *_CHANGED) or _first(answer, *_CHANGED)
    error = error_in(_first(facts, *_ERRORS) or _first(answer, *_ERRORS))
    stated = _first(facts, *_STATES)
    word = _word_in(facts)
    status = status_of(word)
    if isinstance(stated, dict):
        goes_well = status in ("queued", "running", "done")
        keys = ("error",) if goes_well else ("error", "message")
        error = error or error_in(_first(stated, *keys))
    if status == "failed" and not error:
        error = _words_inside(answer)
    if status is None:
        status = "running"
        error = _unknown(word, error)
    size = facts.get("size_bytes")
    if type(size) is not int or size < 0:
        size = None
    return RemoteJob(job_id, status, moment_of(created), moment_of(updated), size, error or None)


def _record_in(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    """The record of a job in an answer: the whole of it if that has an id and a status; else the one under a key, if
    that tells how the job stands; else the whole of it."""
    own = _word_in(answer)
    if own and _first(answer, *_IDS):
        return answer
    for key in _RECORDS:
        inner = answer.get(key)
        if isinstance(inner, dict) and _comes_first(_word_in(inner), own):
            return inner
    return answer


def _comes_first(word: object, own: object) -> bool:
    """Tell whether the ``word`` of a record in an answer is the job's, and not the answer's ``own``. mdl must know it,
    and the answer's own may be of the asking: it is unknown (``ok``, ``200``), or ``success``. A job that is said to be
    done in another word may have a result that says it failed, but none that says it runs."""
    if not own:
        return bool(word)
    inner = status_of(word)
    outer = status_of(own)
    if outer == "done" and str(own).lower() != "success":
        return inner in ("done", "failed", "cancelled")
    return inner is not None and outer in (None, "done")


def _word_in(record: Mapping[str, Any]) -> Any:
    """Return a record's word for the status of its job. Of an object, as ``{"status": {"phase": "Succeeded"}}``, it is
    the word in it."""
    word = _first(record, *_STATES)
    if isinstance(word, dict):
        return _first(word, *_STATES) or word
    return word


def _words_inside(answer: Mapping[str, Any]) -> str:
    """What the records under the keys of an answer say of an error; '' if they say nothing."""
    inside = (error_in(answer[key]) for key in _RECORDS if isinstance(answer.get(key), dict))
    return next(filter(None, inside), "")


def tells_status(answer: Any) -> bool:
    """Return whether an answer has a job status: under ``status``, or a word that mdl knows under another key."""
    facts = object_of(answer)
    return "status" in facts or status_of(_word_in(_record_in(facts))) is not None


def _first(facts: Mapping[str, Any], *keys: str) -> Any:
    """The first value under these keys that says something; None if there is none."""
    for key in keys:
        if facts.get(key):
            return facts[key]
    return None


def _unknown(word: object, error: str) -> str:
    """Return what is told of a job with this word for how it stands, which mdl does not know."""
    message = "its remote does not say its status"
    if word:
        message = f"its remote says {error_in(str(word))[:_LONGEST_WORD]!r}, which mdl does not know"
    return f"{message}: {error}" if error else message


def of_remote(error: MdlError, name: str) -> MdlError:
    """The same error, naming the remote too if it did not yet."""
    item = error.item or name
    return error.but(item=item if name in re.split(r"[:/\s]+", item) else f"{name}: {item}")


def check_checkpoint(name: str) -> str:
    """``name`` if it can be one part of a path. Raises `Unsafe`, for a slash as for a backslash."""
    return RelPath.parse(name.replace("/", "\\")).text


def check_job_id(job: str) -> str:
    """``job`` if it can be a part of a path and of a URL. Raises `UsageError`, `Unsafe`."""
    if not job or "/" in job:
        raise UsageError("not a job id", item=shown(job)[:100])
    return RelPath.parse(job).text


class JobSource(Source):
    """The results of jobs as a source of files, whatever kind their remote is of."""

    def __init__(self, context: SourceContext) -> None:
        self._context = context
        self._opened: dict[str, Remote] = {}
        self._lock = threading.Lock()

    def remote(self, name: str) -> Remote:
        """The remote of that name, the same one for all threads: it knows what was asked. Raises `UsageError`."""
        with self._lock:
            if name not in self._opened:
                self._opened[name] = open_remote(remote_named(name, self._context.remotes), self._context)
            return self._opened[name]

    def resolve(self, origin: JobOrigin) -> list[RemoteFile]:
        if self._context.http is None:
            known = self.known(origin)
            if known is None:
                hint = online_hint(self._context.offline_by)
                raise LockError("offline, and it was never fetched", item=str(origin), hint=hint)
            return known
        remote = self.remote(origin.remote)
        return remote.files(origin)

    def refused(self, origin: JobOrigin) -> list[RefusedFile]:
        if self._context.http is None:
            return []
        return self.remote(origin.remote).refused(origin)

    def known(self, origin: JobOrigin) -> list[RemoteFile] | None:
        """The files that a job had when it was fetched."""
        data = read_kept(self._path(origin), "mdl-job", VERSION, LARGEST_DOCUMENT)
        try:
            if data is None or data["source"] != str(origin):
                return None
            return [RemoteFile(RelPath.of_repository(path), str(url), size) for path, url, size in data["files"]]
        except (KeyError, TypeError, ValueError, MdlError):
            return None

    def keep(self, origin: JobOrigin, files: Sequence[RemoteFile]) -> None:
        """Keep which ``files`` a job has. Those of an archive have its URL. What cannot be kept is asked for
        again."""
        rows = [[file.path.text, file.url, file.size] for file in files]
        with contextlib.suppress(OSError, MdlError):
            keep(self._path(origin), "mdl-job", VERSION, {"source": str(origin), "files": rows})

    def _path(self, origin: JobOrigin) -> Path:
        return kept_path(self._context.folder, str(origin), ".job")

    def file(self, origin: JobOrigin, path: RelPath) -> RemoteFile:
        raise UsageError("names a job, not a file", item=str(origin))

    def complete(self, origin: JobOrigin, stated: RemoteFile) -> RemoteFile:
        raise UsageError("names a job, not a file", item=str(origin))

    def hosts(self, origin: JobOrigin) -> tuple[str, ...]:
        settings = remote_named(origin.remote, self._context.remotes)
        return (*self.remote(origin.remote).hosts(), *settings.values.get("allow_hosts", ()))

    def locate(self, url: str) -> Link | Body:
        """Return where the file of a ``job://REMOTE/JOB/PATH`` is at this moment."""
        return self.remote(urlsplit(url).netloc).locate(url)


open_source = JobSource


def open_remote(settings: RemoteSettings, context: SourceContext) -> Remote:
    """The remote that these settings mean. Raises `UsageError` if they are wrong."""
    remote: Remote = importlib.import_module(KINDS[settings.kind]).open_remote(settings, context)
    return remote
