"""Status: the page, one HTML document with all that it needs in it, and the facts that it asks for and draws: models of
the catalog, repositories that are served, jobs, releases, runs."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mdl.config import places
from mdl.errors import MdlError, UsageError
from mdl.jobs.job import Job
from mdl.jobs.records import Records
from mdl.ops.release import releases
from mdl.plugins.serve.options import ServeOptions
from mdl.plugins.serve.repositories import Repositories
from mdl.plugins.serve.runs import TrainedRuns
from mdl.plugins.serve.work import Check

if TYPE_CHECKING:
    from mdl.client import Client

PAGE: Final = Path(__file__).with_name("page.html").read_text("utf-8")


def _hash_of(tag: str) -> str:
    """The one element ``tag`` of the page, as a content security policy names it."""
    (inner,) = re.findall(f"<{tag}>(.*?)</{tag}>", PAGE, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(inner.encode()).digest()).decode()}'"


_POLICY = f"default-src 'none'; script-src {_hash_of('script')}; style-src {_hash_of('style')}; connect-src 'self'"
HEADERS: Final = {
    "Content-Security-Policy": f"{_POLICY}; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
"""Nothing but the page's own script and style may run, and it may ask this server only."""

_JOBS = 12
"""How many jobs that are over are shown."""


class StatusPage:
    """The document of the page. Without a token it names only what is offered without one."""

    def __init__(
        self,
        client: Callable[[], Client],
        repositories: Repositories,
        everything: Repositories,
        runs: TrainedRuns,
        options: ServeOptions,
    ) -> None:
        """``repositories`` are offered, and ``everything`` is what only ``gated`` offers."""
        self._client = client
        self._repositories = repositories
        self._everything = everything
        self._runs = runs
        self._options = options
        self._bytes = 0

    def document(self, check: Check) -> dict[str, Any]:
        """What stands here now. What cannot be read is told in ``problems``."""
        problems: list[str] = []

        def part(make: Callable[[], Iterable[dict[str, Any]]]) -> list[dict[str, Any]]:
            check()
            try:
                return list(make())
            except (MdlError, OSError) as error:
                problems.append(str(error))
                return []

        offered = self._repositories.offered() if self._options.token is None else None
        document = {
            "schema": "mdl.plugins.serve.status/1",
            "models": part(partial(self._models, offered)),
            "bytes": self._bytes,
            "repositories": part(self.served_repositories),
            "jobs": part(partial(self._recent_jobs, offered)),
            "releases": [row for folder in self._options.releases for row in part(partial(_released, folder))],
            "runs": part(partial(self._runs.all, check)),
            "needs_token": self._options.token is not None,
            "problems": problems,
        }
        if problems and offered is not None:
            document["problems"] = ["some of what is here cannot be read; a server with a token says what"]
        return document

    def _models(self, offered: frozenset[str] | None) -> Iterable[dict[str, Any]]:
        """The models, or those that are ``offered``."""
        client = self._client()
        of_catalog = client.statuses()
        inventory = client.inventory()
        names = {model.name for model, _ in of_catalog}
        rows = [*of_catalog, *(row for row in inventory.models if row[0].name not in names)]
        self._bytes = inventory.bytes
        if offered is not None:
            rows = [(model, found) for model, found in rows if model.name in offered]
            self._bytes = sum(found.bytes_present for _, found in rows)
        for model, found in rows:
            yield {
                "name": model.name,
                "title": model.label if model.title == model.name else model.title,
                "kind": model.kind,
                "status": found.status,
                "files": found.files,
                "files_present": found.files_present,
                "bytes": found.bytes,
                "bytes_present": found.bytes_present,
            }

    def served_repositories(self) -> Iterable[dict[str, Any]]:
        table = self._everything.table() if self._options.token is not None else self._repositories.table()
        for (repo_type, name), (repo, *_) in table.items():
            served = self._repositories.table().get((repo_type, name))
            head = served[0].head if served else repo.head
            yield {
                "id": name if repo_type == "model" else f"{repo_type}s/{name}",
                "commit": head.commit,
                "files": len(head.files),
                "files_at_hub": head.total,
                "bytes": sum(one.size for one in head.files.values()),
                "is_served": served is not None,
            }

    def _recent_jobs(self, offered: frozenset[str] | None) -> Iterable[dict[str, Any]]:
        """The newest jobs, or those of models that are ``offered``."""
        over = 0
        try:
            records = Records(places.state_dir() / "jobs")
        except UsageError:  # this user has no home folder, and so no jobs
            return
        for job in records.all():
            if offered is not None and not offered.issuperset(job.models):
                continue
            over += job.status != "running"
            if job.status == "running" or over <= _JOBS:
                yield _told(job)


def _told(job: Job) -> dict[str, Any]:
    names = ("id", "command", "models", "status", "percent", "bytes_done", "bytes_total", "bytes_per_second")
    others = ("eta_seconds", "file", "started_at", "finished_at")
    error = (job.error or {}).get("message")
    return {name: getattr(job, name) for name in (*names, *others)} | {"error": error}


def _released(folder: Path) -> Iterable[dict[str, Any]]:
    for one in reversed(releases(folder).versions):
        yield {
            "folder": folder.name,
            "version": one.version,
            "state": one.state,
            "released_at": one.released_at,
            "bytes": one.bytes,
            "is_complete": one.is_complete,
        }
