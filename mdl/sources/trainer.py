"""A training server: lists its jobs and checkpoints, and zips a model when it is asked for it.

Such a server has no length for a zip, no ranges, and minutes of silence before the first byte. Its routes are those of
``/api/training/…``; a server that describes itself (``/openapi.json``, as every FastAPI application does) may have
others.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from mdl.errors import MdlError, NotFound, ProtocolError, UsageError
from mdl.files import RemoteFile
from mdl.http.allowlist import host_of
from mdl.http.client import HttpClient
from mdl.http.locators import Link
from mdl.paths import RelPath, shown
from mdl.sources import Context
from mdl.sources.remote import Check, JobOrigin, RemoteJob, check_job_id, job_of
from mdl.sources.remote_tables import RemoteSettings

_PREFIX = "/api/training"
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
    "jobs": ("get", r".*/jobs/?"),
    "job": ("get", r".*/(?:jobs|status)/\{\}/?(?:status)?|.*/\{\}/status"),
    "checkpoints": ("get", r"(?!.*filesystem).*(?:/checkpoints/\{\}|/\{\}/checkpoints)/?"),
    "model": ("get", r".*/\{\}/(?:download(?:/model)?|model(?:/download|\.zip)?)/?|.*/(?:download|models?)/\{\}"),
    "logs": ("get", r".*/\{\}/(?:download/logs|logs/download|logs\.zip)/?|.*/download/logs/\{\}|.*/\{\}/logs/?"),
    "cancel": ("post", r".*/cancel/\{\}|.*/\{\}/cancel"),
}
"""The method and the path by which a route of another server is known."""


def open_remote(settings: RemoteSettings, context: Context) -> Trainer:
    return Trainer(settings, context)


@dataclass(frozen=True)
class TrainerCheckpoint:
    """One checkpoint as the server lists it; ``bytes`` before they are zipped."""

    name: str
    step: int | None
    bytes: int | None
    is_best: bool = False
    is_latest: bool = False


class Trainer:
    """One training server."""

    is_zipped = True

    def __init__(self, settings: RemoteSettings, context: Context) -> None:
        self.settings, self._context = settings, context
        self.base = settings.get("url").rstrip("/")
        if urlsplit(self.base).scheme not in ("http", "https") or not host_of(self.base):
            raise UsageError(f"[remotes.{settings.name}] url is not an http(s) URL", item="config.toml")

    def check(self) -> list[Check]:
        rows = [Check("server", True, f"{host_of(self.base)} answers"), Check("routes", True, self._routes["model"])]
        jobs = self.jobs()
        running = sum(job.status in ("queued", "running") for job in jobs)
        return [*rows, Check("jobs", True, f"{len(jobs)} known, {running} not over")]

    def metrics(self) -> Mapping[str, float]:
        return {}

    def jobs(self) -> list[RemoteJob]:
        answer = self._ask("GET", self._routes["jobs"])
        rows = answer if isinstance(answer, list) else _rows(answer)
        return sorted((job_of(row) for row in rows), key=lambda job: job.created_at or "", reverse=True)

    def status(self, job: str) -> RemoteJob:
        return job_of(self._ask("GET", self._path("job", job), job), job)

    def cancel(self, job: str) -> RemoteJob:
        answer = self._ask("POST", self._path("cancel", job), job, {})
        if isinstance(answer, dict) and answer.get("success") is False:
            raise UsageError(f"the server did not cancel it: {shown(str(answer.get('message', '')))[:200]}", item=job)
        return RemoteJob(job, "cancelled")

    def delete(self, job: str) -> int:
        raise UsageError("only a bucket can be cleaned", item=self.settings.name)

    def checkpoints(self, job: str) -> list[TrainerCheckpoint]:
        """The checkpoints of a job, as the server orders them."""
        answer = self._ask("GET", self._path("checkpoints", job), job)
        rows = answer.get("checkpoints") if isinstance(answer, dict) else answer
        if not isinstance(rows, list):
            raise ProtocolError("the list of checkpoints is no list", item=job)
        return [_checkpoint(row) for row in rows if isinstance(row, dict)]

    def files(self, origin: JobOrigin) -> list[RemoteFile]:
        """The one zip. Raises `NotFound` for a checkpoint that the server does not list, with those that it does."""
        job = check_job_id(origin.job)
        if origin.logs:
            return [RemoteFile(RelPath.parse(f"logs_{job}.zip"), self.base + self._path("logs", job))]
        name, query = f"model_{job}", ""
        if origin.checkpoint:
            found = self._chosen(job, origin.checkpoint)
            name, query = f"model_{job}_{found.name}", "?" + urlencode({"checkpoint": found.name})
        return [RemoteFile(RelPath.parse(f"{name}.zip"), self.base + self._path("model", job) + query)]

    def locate(self, url: str) -> Link:
        return Link(url, 900.0, authorized=True)

    def hosts(self) -> tuple[str, ...]:
        return (host_of(self.base),)

    def _chosen(self, job: str, name: str) -> TrainerCheckpoint:
        RelPath.parse(name)
        found = self.checkpoints(job)
        for one in found:
            if name in (one.name, str(one.step)):
                return one
        if name == "latest" and found:
            return next((one for one in found if one.is_latest), max(found, key=lambda one: one.step or -1))
        if name == "best" and any(one.is_best for one in found):
            return next(one for one in found if one.is_best)
        names = ", ".join(one.name for one in found[:10]) or "none"
        raise NotFound(f"no checkpoint {shown(name)!r}", item=job, hint=f"there is {names}")

    @cached_property
    def _routes(self) -> Mapping[str, str]:
        """The path of each route: the usual ones, unless the server describes others."""
        try:
            described = self._ask("GET", "/openapi.json")
        except MdlError:
            return _ROUTES
        paths = described.get("paths") if isinstance(described, dict) else None
        return _ROUTES | routes_in(paths) if isinstance(paths, dict) else _ROUTES

    def _path(self, route: str, job: str) -> str:
        return self._routes[route].replace("{}", quote(job, safe=""))

    def _ask(self, method: str, path: str, job: str = "", content: Any = None) -> Any:
        http, url = self._http, self.base + path

        def ask() -> Any:
            try:
                return http.json(method, url, content)[0]
            except MdlError as error:
                raise error.on(job or self.settings.name) from None

        return ask() if method == "POST" else http.retry(url, ask)

    @property
    def _http(self) -> HttpClient:
        if self._context.http is None:
            raise UsageError("offline: no server can be asked", item=self.settings.name)
        return self._context.http


def routes_in(paths: Mapping[str, Any]) -> dict[str, str]:
    """The routes among the paths of an OpenAPI description, ``{}`` for their one parameter."""
    found: dict[str, str] = {}
    for path, methods in paths.items():
        plain = re.sub(r"\{[^{}]*\}", "{}", str(path))
        for route, (method, pattern) in _LOOKS_LIKE.items():
            fits = re.fullmatch(pattern, plain) and plain.count("{}") == ("{}" in _ROUTES[route])
            if fits and isinstance(methods, dict) and method in methods:
                usual = plain == _ROUTES[route] or "download" in plain
                found[route] = plain if usual or route not in found else found[route]
    return found


def _rows(answer: Any) -> list[Any]:
    """The jobs in an answer: a list under ``jobs``, or several lists (``running_jobs``, ``queued_jobs`` …)."""
    if not isinstance(answer, dict):
        raise ProtocolError("the server's list of jobs is no list")
    if isinstance(answer.get("jobs"), dict):
        return [{"job_id": name, **row} for name, row in answer["jobs"].items() if isinstance(row, dict)]
    return [row for key, rows in answer.items() if key.endswith("jobs") and isinstance(rows, list) for row in rows]


def _checkpoint(row: Mapping[str, Any]) -> TrainerCheckpoint:
    name = next((row[key] for key in ("name", "path", "checkpoint") if isinstance(row.get(key), str)), "")
    step, size = row.get("step"), row.get("size_bytes", row.get("bytes"))
    number = step if isinstance(step, int) and not isinstance(step, bool) else None
    count = size if isinstance(size, int) and not isinstance(size, bool) else None
    return TrainerCheckpoint(name, number, count, row.get("is_best") is True, row.get("is_latest") is True)
