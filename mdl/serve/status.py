"""Status: the page, one HTML document with all that it needs in it, and the facts that it asks for and draws: models of
the catalog, repositories that are served, jobs, releases, runs."""

from __future__ import annotations

import base64
import hashlib
import re
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mdl.errors import MdlError
from mdl.jobs.job import Job
from mdl.operations.releases import releases
from mdl.serve.jobs import Jobs
from mdl.serve.options import ServeOptions
from mdl.serve.repositories import Repositories
from mdl.serve.runs import TrainedRuns

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

_KEPT_SECONDS, _SHARE = 1.0, 5.0
"""How long a document is good: so many seconds, and so many times as long as it took to make it."""
_JOBS = 12
"""How many jobs that are over are shown."""


class StatusPage:
    """The document of the page. However many look, it is made at most once a second, less often if that takes long."""

    def __init__(
        self,
        client: Callable[[], Client],
        repositories: Repositories,
        runs: TrainedRuns,
        options: ServeOptions,
        jobs: Jobs,
    ) -> None:
        self._client, self._repositories, self._runs = client, repositories, runs
        self._options, self._jobs = options, jobs
        self._lock, self._good_until = threading.Lock(), float("-inf")
        self._document: dict[str, Any] = {}
        self._bytes = 0

    def document(self) -> dict[str, Any]:
        """What stands here now. What cannot be read is told in ``problems``."""
        if self._lock.acquire(blocking=not self._document):  # while a new one is made, the old one is good enough
            try:
                began = time.monotonic()
                if began >= self._good_until:
                    self._document = self._make()
                    now = time.monotonic()
                    self._good_until = now + max(_KEPT_SECONDS, _SHARE * (now - began))
            finally:
                self._lock.release()
        return self._document

    def _make(self) -> dict[str, Any]:
        problems: list[str] = []

        def part(make: Callable[[], Iterable[dict[str, Any]]]) -> list[dict[str, Any]]:
            try:
                return list(make())
            except (MdlError, OSError) as error:
                problems.append(str(error))
                return []

        return {
            "schema": "mdl.serve.status/1",
            "models": part(self._models),
            "bytes": self._bytes,
            "repositories": part(self._served),
            "jobs": part(self._recent_jobs),
            "releases": [row for folder in self._options.releases for row in part(partial(_released, folder))],
            "runs": part(self._runs.all),
            "needs_token": self._options.token is not None,
            "problems": problems,
        }

    def _models(self) -> Iterable[dict[str, Any]]:
        client = self._client()
        of_catalog, inventory = client.statuses(), client.inventory()
        names = {model.name for model, _ in of_catalog}
        others = [row for row in inventory.models if row[0].name not in names]
        self._bytes = inventory.bytes
        for model, found in (*of_catalog, *others):
            yield {
                "name": model.name,
                "title": model.title,
                "kind": model.kind,
                "status": found.status,
                "files": found.files,
                "files_present": found.files_present,
                "bytes": found.bytes,
                "bytes_present": found.bytes_present,
            }

    def _served(self) -> Iterable[dict[str, Any]]:
        for (repo_type, name), (repo, *_) in self._repositories.table().items():
            head = repo.head
            yield {
                "id": name if repo_type == "model" else f"{repo_type}s/{name}",
                "commit": head.commit,
                "files": len(head.files),
                "files_at_hub": head.total,
                "bytes": sum(one.size for one in head.files.values()),
                "is_served": True,
            }

    def _recent_jobs(self) -> Iterable[dict[str, Any]]:
        over = 0
        for job in self._jobs.all():
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
