"""A training server: lists its jobs and checkpoints, and zips a model when it is asked for it.

Such a server has no length for a zip, no ranges, and minutes of silence before the first byte. Its routes are those of
``/api/training/…``; a server that describes itself (``/openapi.json``, as every FastAPI application does) may have
others.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any
from urllib.parse import parse_qs, quote, urlencode, urlsplit

from mdl.errors import MdlError, NetworkError, NotFound, ProtocolError
from mdl.files import RemoteFile
from mdl.net.allowlist import host_of
from mdl.net.locators import Link
from mdl.paths import RelPath, names_for_a_hint
from mdl.results import Check, JobOrigin, RemoteJob, check_checkpoint, check_job_id, job_and_path
from mdl.results.http_remote import HttpRemote
from mdl.results.outputs import first_text
from mdl.values import value_class

_PATIENCE = 900.0
"""Seconds that a server may take to zip a model before it sends the first byte."""
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
"""The method and the path by which a route of another server is recognized."""
_PATH = re.compile(r"/[^?#\s]{0,500}")
"""What stands behind the host in a route. Any other text could change the host itself, as ``@other/jobs`` does."""


@value_class
class TrainerCheckpoint:
    """One checkpoint as the server lists it."""

    name: str
    step: int | None
    is_best: bool = False
    is_latest: bool = False


class Trainer(HttpRemote):
    """One training server."""

    is_archived = True

    def check(self) -> list[Check]:
        """Whether the server answers, where it has its models, and how many jobs it knows."""
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
        """Those that the server lists under ``jobs``, or in several lists: ``running_jobs``, ``queued_jobs`` …"""
        answer = self.ask("GET", self.base + self._routes["jobs"])
        if isinstance(answer, dict) and not isinstance(answer.get("jobs"), list | dict):
            listed = []
            for key, rows in answer.items():
                if key.endswith("jobs") and isinstance(rows, list):
                    listed += rows
            answer = listed
        return self.jobs_in(answer, "jobs", "the server's list of jobs")

    def status(self, job: str) -> RemoteJob:
        return self.job(self.ask("GET", self._url("job", job), item=job), job)

    def cancel(self, job: str) -> RemoteJob:
        """Asked once."""
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
        facts = answer if isinstance(answer, dict) else {"checkpoints": answer}
        rows = facts.get("checkpoints")
        if not isinstance(rows, list):
            raise ProtocolError("the server's list of checkpoints is not a list", item=job)
        best = facts.get("best_checkpoint")
        if isinstance(best, dict):
            best = best.get("name", best.get("path"))
        found = [_checkpoint(row) for row in rows if isinstance(row, dict)]
        return [replace(one, is_best=one.is_best or one.name == best) for one in found if one.name]

    def files(self, origin: JobOrigin) -> list[RemoteFile]:
        """The one zip, of a size that is not known. Its URL differs if the job has changed: ask again when the zip is
        here, and compare. Raises `NotFound` for a checkpoint that the server does not list, with those that it
        does; `Unsafe` for a name that leads elsewhere, before anything is asked."""
        job = check_job_id(origin.job)
        name = f"model_{job}"
        query: dict[str, str] = {}
        row = None
        if origin.logs:
            name = f"logs_{job}"
            query = {"logs": "1"}
        elif origin.checkpoint:
            row = self._chosen(job, origin.checkpoint)
            name = f"model_{job}_{row.name}"
            query = {"checkpoint": row.name}
        stands = self.status(job)
        facts = json.dumps([stands.status, stands.updated_at, repr(row)])
        version = hashlib.sha256(facts.encode()).hexdigest()[:12]
        path = RelPath.parse(f"{name}.zip")
        url = f"{origin.url_of(path)}?{urlencode(query | {'v': version})}"
        return [RemoteFile(path, url, probed=True, is_archive=True)]

    def locate(self, url: str) -> Link:
        """Where the zip of a URL of `files` is."""
        job, _ = job_and_path(url)
        query = parse_qs(urlsplit(url).query)
        if "logs" in query:
            return Link(self._url("logs", job), _PATIENCE, authorized=True)
        of_one = f"?{urlencode({'checkpoint': query['checkpoint'][0]})}" if "checkpoint" in query else ""
        return Link(self._url("model", job) + of_one, _PATIENCE, authorized=True)

    def _chosen(self, job: str, name: str) -> TrainerCheckpoint:
        """The checkpoint that is meant: ``latest``, ``best``, a name or a step."""
        check_checkpoint(name)
        rows = self.checkpoints(job)
        meant = [row for row in rows if name in (row.name, str(row.step))]
        if name == "latest":
            meant = [row for row in rows if row.is_latest] or _of_the_highest_step(rows)
        elif name == "best":
            meant = [row for row in rows if row.is_best] or meant
        if not meant:
            what = f"has no checkpoint {name!r}"
            if name == "best":
                what = "does not say which checkpoint is the best"
            names = names_for_a_hint(row.name for row in rows) or "none yet"
            raise NotFound(f"the server {what}", item=job, hint=f"available: {names}")
        check_checkpoint(meant[0].name)
        return meant[0]

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
        paths = described.get("paths") if isinstance(described, dict) else None
        return _ROUTES | routes_in(paths) if isinstance(paths, dict) else _ROUTES


open_remote = Trainer


def routes_in(paths: Mapping[str, Any]) -> dict[str, str]:
    """The routes among the paths of an OpenAPI description, ``{}`` for their one parameter."""
    found: dict[str, str] = {}
    for path, methods in paths.items():
        plain = re.sub(r"\{[^{}]*\}", "{}", str(path))
        if not _PATH.fullmatch(plain):
            continue
        for route, (method, pattern) in _LOOKS_LIKE.items():
            fits = re.fullmatch(pattern, plain) and plain.count("{}") == ("{}" in _ROUTES[route])
            if fits and isinstance(methods, dict) and method in methods:
                usual = plain == _ROUTES[route] or "download" in plain
                found[route] = plain if usual or route not in found else found[route]
    return found


def _of_the_highest_step(rows: Sequence[TrainerCheckpoint]) -> list[TrainerCheckpoint]:
    """Those with the most steps; all if none tells its step."""
    highest = max((row.step or -1 for row in rows), default=-1)
    return [row for row in rows if (row.step or -1) == highest]


def _checkpoint(row: Mapping[str, Any]) -> TrainerCheckpoint:
    name = first_text(row, ("name", "checkpoint", "path")).rstrip("/").rpartition("/")[2]
    told = row.get("step")
    step = told if type(told) is int else None
    return TrainerCheckpoint(name, step, row.get("is_best") is True, row.get("is_latest") is True)
