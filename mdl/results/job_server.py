"""A server that is asked by HTTP, in one of two forms of answer: a training server, and an ordinary API.

A training server (``kind = "trainer"``) lists its jobs and checkpoints, and packs a model when it is asked for it. It
has no length for the archive, no ranges, and minutes of silence before the first byte. Its routes are those of
``/api/training/…``; a server that describes itself (``/openapi.json``, as every FastAPI application does) may have
others.

An API (``kind = "api"``) has one URL for each job, whose answer names the job's files, has them in it, or is the one
file. ``url = "https://host/results/{job}"`` is asked with GET; without ``{job}`` the job becomes the last part of its
path. If the API tells elsewhere how a job stands, ``status_url`` says where.
"""

from __future__ import annotations

import hashlib
import json
import mimetypes
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from itertools import chain
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlencode, urljoin, urlsplit

from mdl.bounds import LARGEST_RESULT, LARGEST_SMALL_FILE, parse_json
from mdl.config.remotes import RemoteSettings
from mdl.errors import MdlError, NetworkError, NotFound, ProtocolError, UsageError
from mdl.files import RemoteFile
from mdl.net.allowlist import host_of, origin_of
from mdl.net.follower import OpenResponse
from mdl.net.headers import attached_name, content_length
from mdl.net.locators import Link
from mdl.net.pagination import paged
from mdl.paths import RelPath, names_for_a_hint
from mdl.redact import bare_url
from mdl.results.answer_keys import first_text, object_of
from mdl.results.answers import judge
from mdl.results.base import (
    Check,
    JobOrigin,
    RemoteJob,
    check_checkpoint,
    check_job_id,
    job_and_path,
    newest_first,
    tells_status,
)
from mdl.results.http import HttpRemote, Missed
from mdl.results.outputs import Output, is_web_url, safe_name
from mdl.sources import SourceContext
from mdl.values import value_class

# A training server

_PREFIX = "/api/training"
_PATIENCE = 900.0
"""Seconds that a server may take to pack a model before it sends the first byte."""
_ROUTES = {
    "jobs": f"{_PREFIX}/jobs",
    "job": f"{_PREFIX}/jobs/{{}}",
    "checkpoints": f"{_PREFIX}/jobs/{{}}/checkpoints",
    "model": f"{_PREFIX}/{{}}/download/model",
    "logs": f"{_PREFIX}/{{}}/download/logs",
    "cancel": f"{_PREFIX}/cancel/{{}}",
}
"""The usual routes; ``{}`` is the job."""
_LOOKS_LIKE = {
    "jobs": ("get", r"[^{]*/jobs/?"),
    "job": ("get", r"[^{]*/((jobs|status)/\{\}/?(status)?|\{\}/status)"),
    "checkpoints": ("get", r"(?!.*filesystem)[^{]*/(checkpoints/\{\}|\{\}/checkpoints)/?"),
    "model": ("get", r"[^{]*/(\{\}/(download(/model)?|model(/download|\.zip)?)/?|(download|models?)/\{\})"),
    "logs": ("get", r"[^{]*/(\{\}/(download/logs|logs/download|logs\.zip)/?|download/logs/\{\}|\{\}/logs/?)"),
    "cancel": ("post", r"[^{]*/(cancel/\{\}|\{\}/cancel)"),
}
"""The method and the path by which a route of another server is recognized. Its only parameter is the job."""
_NEXT = ("next", "next_page_url", "next_url")
_COUNT = re.compile(r"[0-9]{1,18}")
_LISTS = ("data", "result", "items", "results", "runs", "tasks", "trainings")
"""Keys under which a server has its list of jobs, if not under one for jobs."""
_PATH = re.compile(r"/[^?#\s]{0,500}")
"""What stands behind the host in a route. Any other text could change the host itself, as ``@other/jobs`` does."""


@value_class
class TrainerCheckpoint:
    """One checkpoint as the server lists it."""

    name: str
    step: int | None
    is_best: bool = False
    is_latest: bool = False

    def is_called(self, name: str) -> bool:
        """Tell whether a user may mean it by ``latest``, ``best``, its name or its step."""
        marks = {"latest": self.is_latest, "best": self.is_best}
        return marks.get(name, False) or name in (self.name, str(self.step))


class Trainer(HttpRemote):
    """One training server."""

    is_archived = True

    def check(self) -> list[Check]:
        """Tell whether the server answers, where it has its models, and how many jobs it knows."""
        try:
            jobs = self.jobs()
        except MdlError as error:
            return [Check("server", False, str(error), error)]
        running = sum(not job.is_over for job in jobs)
        return [
            Check("server", True, f"{host_of(self.base)} answers"),
            Check("routes", True, f"models are at {self._routes['model'].replace('{}', '{job}')}"),
            Check("jobs", True, f"{len(jobs)} known, {running} not over"),
        ]

    def jobs(self) -> list[RemoteJob]:
        """The jobs that the server lists under ``jobs``, or in several lists: ``running_jobs``, ``queued_jobs`` …, on
        all pages that its answers name; one without a job is the last."""
        what = "the server's list of jobs"

        def ask(url: str) -> tuple[list[RemoteJob], str | None]:
            answer = self.ask("GET", url)
            jobs = self.jobs_in(_rows_of(answer), "jobs", what)
            return jobs, _next_page(answer, url) if jobs else None

        return newest_first(paged(self.base + self._routes["jobs"], ask, lambda job: job.id, what, noun="jobs"))

    def status(self, job: str) -> RemoteJob:
        return self.job(self.ask("GET", self._url("job", job), item=job), job)

    def cancel(self, job: str) -> RemoteJob:
        """Cancel a job. The server is asked once. Raises `UsageError` in its words if it refuses."""
        try:
            answer = self.post_once(self._url("cancel", job), {}, item=job)
        except NetworkError as error:
            if not error.final:
                raise
            raise self.not_cancelled(job, error.message) from error  # 400, 409: the server refuses
        return self.cancelled(job, answer, unless_told=True)

    def checkpoints(self, job: str) -> list[TrainerCheckpoint]:
        """The checkpoints of a job, as the server orders them."""
        answer = self.ask("GET", self._url("checkpoints", job), item=job)
        facts = object_of(answer, "checkpoints")
        if "checkpoints" not in facts:
            facts = object_of(facts.get("data"), "checkpoints")
        rows = facts.get("checkpoints")
        if not isinstance(rows, list):
            raise ProtocolError("the server's list of checkpoints is not a list", item=job)
        best = facts.get("best_checkpoint")
        if isinstance(best, dict):
            best = best.get("name", best.get("path"))
        checkpoints = [_checkpoint(row, best) for row in rows]
        return [checkpoint for checkpoint in checkpoints if checkpoint.name]

    def files(self, origin: JobOrigin) -> list[RemoteFile]:
        """The one archive, of a size and a format that are not known: its bytes tell. Its URL differs if the job has
        changed: ask again when the archive is here, and compare. Raises `NotFound` for a checkpoint that the server
        does not list, with those that it does; `Unsafe` for a name that leads elsewhere, before anything is asked."""
        job = check_job_id(origin.job)
        name = f"model_{job}"
        query: dict[str, str] = {}
        checkpoint = None
        if origin.logs:
            name = f"logs_{job}"
            query = {"logs": "1"}
        elif origin.checkpoint:
            checkpoint = self._chosen(job, origin.checkpoint)
            name = f"model_{job}_{checkpoint.name}"
            query = {"checkpoint": checkpoint.name}
        now = self.status(job)
        facts = json.dumps([now.status, now.updated_at, repr(checkpoint)])
        version = hashlib.sha256(facts.encode()).hexdigest()[:12]
        path = RelPath.parse(f"{name}.zip")
        url = f"{origin.url_of(path)}?{urlencode(query | {'v': version})}"
        return [RemoteFile(path, url, probed=True, is_archive=True)]

    def locate(self, url: str) -> Link:
        """Return where the archive of a URL of `files` is."""
        job, _ = job_and_path(url)
        query = parse_qs(urlsplit(url).query)
        if "logs" in query:
            place = self._url("logs", job)
        elif "checkpoint" in query:
            place = f"{self._url('model', job)}?{urlencode({'checkpoint': query['checkpoint'][0]})}"
        else:
            place = self._url("model", job)
        return Link(place, _PATIENCE, authorized=True)

    def _chosen(self, job: str, name: str) -> TrainerCheckpoint:
        """The checkpoint that is meant: ``latest``, ``best``, a name or a step. Which is the latest, the server says;
        else the steps tell, if all but a finished model have one."""
        check_checkpoint(name)
        checkpoints = self.checkpoints(job)
        meant = [checkpoint for checkpoint in checkpoints if checkpoint.is_called(name)]
        message = f"the server has no checkpoint {name!r}"
        if name == "best":
            message = "the server does not say which checkpoint is the best"
        if name == "latest" and not meant:
            message = "the server does not say which checkpoint is the latest"
            meant = _furthest(checkpoints)
        if len(meant) > 1:
            message = f"several checkpoints of the server are called {name!r}"
            meant = [checkpoint for checkpoint in meant if checkpoint.name == name]
        if meant:
            check_checkpoint(meant[0].name)
            return meant[0]
        names = names_for_a_hint(checkpoint.name for checkpoint in checkpoints) or "none yet"
        raise NotFound(message, item=job, hint=f"available: {names}")

    def _url(self, route: str, job: str) -> str:
        name = quote(check_job_id(job), safe="")
        return self.base + self._routes[route].replace("{}", name)

    @cached_property
    def _routes(self) -> Mapping[str, str]:
        """The path of each route: the usual ones, unless the server describes others. It need not describe itself."""
        try:
            described = self.http.json("GET", f"{self.base}/openapi.json")[0]
        except MdlError:
            return _ROUTES
        paths = object_of(described).get("paths")
        if not isinstance(paths, dict):
            return _ROUTES
        return _ROUTES | routes_in(paths)


def routes_in(paths: Mapping[str, Any]) -> dict[str, str]:
    """The routes among the paths of an OpenAPI description, ``{}`` for their one parameter."""
    routes: dict[str, str] = {}
    for path, methods in paths.items():
        template = re.sub(r"\{[^{}]*\}", "{}", str(path))
        if not _PATH.fullmatch(template):
            continue
        for route, (method, pattern) in _LOOKS_LIKE.items():
            if method not in object_of(methods) or not re.fullmatch(pattern, template):
                continue
            is_preferred = template == _ROUTES[route] or "download" in template
            if is_preferred or route not in routes:
                routes[route] = template
    return routes


def _rows_of(answer: Any) -> Any:
    """Return what has the jobs of an answer, as `HttpRemote.jobs_in` reads it: a list, or an object with ``jobs``; it
    may be in one envelope. None if nothing has them."""
    if not isinstance(answer, dict):
        return answer
    envelopes = [answer[key] for key in _LISTS if isinstance(answer.get(key), dict)]
    levels = (answer, *envelopes)
    for facts in levels:
        rows = _rows_in(facts)
        if rows is not None:
            return rows
    return [] if any(map(_has_no_rows, levels)) else None


def _rows_in(facts: Mapping[str, Any]) -> Any:
    """Return what has the jobs of an object: itself, a list for each status, or a list under another key; None if
    nothing has."""
    if isinstance(facts.get("jobs"), list | dict):
        return facts
    lists = [value for key, value in facts.items() if key.endswith("jobs") and isinstance(value, list)]
    if lists:
        return list(chain.from_iterable(lists))
    return next((facts[key] for key in _LISTS if isinstance(facts.get(key), list)), None)


def _has_no_rows(facts: Mapping[str, Any]) -> bool:
    """Tell whether an object has ``null`` for a list, which is how Go writes an empty one, or is empty itself."""
    lists = [key for key in facts if key.endswith("jobs") or key in _LISTS]
    return not facts or any(facts[key] is None for key in lists)


def _next_page(answer: Any, url: str) -> str | None:
    """Return the URL of the page after the one that ``url`` answered, if the answer names one of the same server."""
    facts = object_of(answer)
    link = first_text(facts, _NEXT) or first_text(object_of(facts.get("links")), _NEXT)
    if not link.startswith(("http", "/", "?")):
        return None
    try:
        following = urljoin(url, link)
        return following if origin_of(following) == origin_of(url) else None
    except ValueError:
        return None


def _furthest(checkpoints: Iterable[TrainerCheckpoint]) -> list[TrainerCheckpoint]:
    """Return the checkpoints of the highest step; none if one beside the finished model has no step."""
    steps: dict[int, list[TrainerCheckpoint]] = {}
    for checkpoint in checkpoints:
        if checkpoint.step is not None:
            steps.setdefault(checkpoint.step, []).append(checkpoint)
        elif checkpoint.name != "final":
            return []
    return steps[max(steps)] if steps else []


def _checkpoint(row: Any, best: object) -> TrainerCheckpoint:
    """Return the checkpoint that a row of the server's list describes, which may have no name. ``best`` is what the
    server says of all: the name of the best, or its path."""
    facts = object_of(row, "name")
    name = _last_part(first_text(facts, ("name", "checkpoint", "path")))
    step = facts.get("step", facts.get("global_step"))
    if isinstance(step, str) and _COUNT.fullmatch(step):
        step = int(step)
    if type(step) is not int:
        step = None
    is_best = facts.get("is_best") is True or (isinstance(best, str) and name == _last_part(best))
    return TrainerCheckpoint(name, step, is_best, facts.get("is_latest") is True)


def _last_part(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]


# An ordinary API


_JOB = "{job}"
_CHECK = "mdl-check"
"""A job that is asked for to see whether the API answers; that it is not there is an answer too."""


class Api(HttpRemote):
    """One API."""

    lists_jobs = False

    def hosts(self) -> tuple[str, ...]:
        return (*super().hosts(), host_of(self._status_url(_CHECK)))

    def check(self) -> list[Check]:
        """Tell whether the API answers at all, and its bucket."""
        try:
            self._asked(self._status_url(_CHECK))
        except (NotFound, ProtocolError):
            pass
        except MdlError as error:
            is_refusal = isinstance(error, NetworkError) and error.final  # 400, 422: ids have another form there
            if not is_refusal:
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
        recorded = self.status_in_bucket(check_job_id(job), missed)
        if recorded:
            return recorded
        try:
            answer = self._asked(self._status_url(job))
        except NotFound as error:
            missed[host_of(self.base)] += 1
            raise self.not_found(job, missed, error.message) from error
        if tells_status(answer):
            return self.job(answer, job)
        return RemoteJob(job, "done")

    def cancel(self, job: str) -> RemoteJob:
        raise UsageError("an API of this kind cannot cancel a job", item=job, hint="cancel it where it was started")

    def _status_url(self, job: str) -> str:
        return _with_job(self.settings.get("status_url") or self.settings.get("url"), job)

    def outputs(self, job: str) -> list[Output]:
        """Return what the answer names, has in it, or is. Raises `NotFinished` for a job that has no files yet."""
        url = _with_job(self.settings.get("url"), job)
        answer = self._asked(url)
        if isinstance(answer, Output):
            return [answer]
        judged = judge(answer, job, base=url)
        if not judged.outputs and tells_status(answer):
            self.job(answer, job).check_is_done(has_files=False)
        return [replace(output, is_stable=_is_own(output.url, url)) for output in self.outputs_of(judged, job)]

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
        if opened.headers.get("content-disposition", "").lower().startswith("attachment"):
            return _file_of(opened, url, kind)
        if kind.endswith(("/json", "+json")):
            try:
                return parse_json(self.http.read(opened, LARGEST_RESULT), allow_nan=True)
            except ValueError as error:
                raise ProtocolError(f"{host_of(url)} did not answer in JSON") from error
        length = content_length(opened.headers)
        if kind != "text/plain" or length is None or length > LARGEST_SMALL_FILE:
            return _file_of(opened, url, kind)
        text = self.http.read(opened, LARGEST_SMALL_FILE).decode("utf-8", "replace").strip()
        if is_web_url(text) or judge(text, "").outputs:
            return text
        return _file_of(opened, url, kind)


def _with_job(url: str, job: str) -> str:
    name = quote(job, safe="")
    if _JOB in url:
        return url.replace(_JOB, name)
    return f"{url.rstrip('/')}/{name}"


def _is_own(url: str, api: str) -> bool:
    """Tell whether a URL is of the API itself, and not signed: then it takes the API's key, and does not expire."""
    return bool(url) and origin_of(url) == origin_of(api) and not urlsplit(url).query


def _file_of(opened: OpenResponse, url: str, kind: str) -> Output:
    return Output(_name_of(opened, kind), url, content_type=kind, is_stable=True)


def _name_of(opened: OpenResponse, kind: str) -> RelPath:
    """The name of a file that is answered: from Content-Disposition (RFC 6266), else the last part of its URL. Raises
    `Unsafe`."""
    name = attached_name(opened.headers)
    if not name:
        name = unquote(urlsplit(bare_url(opened.url)).path).rstrip("/").rpartition("/")[2]
        if "." not in name:
            name += mimetypes.guess_extension(kind) or ".bin"
    return safe_name(name)


def open_remote(settings: RemoteSettings, context: SourceContext) -> HttpRemote:
    """The server that these settings mean, by its form of answer."""
    if settings.kind == "trainer":
        return Trainer(settings, context)
    return Api(settings, context)
