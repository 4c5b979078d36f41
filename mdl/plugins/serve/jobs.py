"""Jobs over HTTP: what runs and what ran on this machine; start the download of a model of the catalog; cancel one.

Only with a token. Nothing but a name of the catalog can be asked for: no URL, no reference, no flag.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from mdl.bounds import parse_json
from mdl.config import places
from mdl.disk.child_output import output_of
from mdl.disk.process import python_command
from mdl.errors import Busy, MdlError, NotFound, UsageError
from mdl.jobs import processes
from mdl.jobs.job import Job, shown_facts
from mdl.jobs.records import Records
from mdl.paths import shown
from mdl.plugins.serve.refusals import Refusal
from mdl.plugins.serve.responses import Address, JsonResponse, body_of, told

if TYPE_CHECKING:
    from mdl.client import Client

_START_SECONDS = 120.0


class Jobs:
    """The jobs of this user. Each one that is started gets the flags ``words``, which say where the models go, and does
    not get the ``token``."""

    def __init__(self, client: Callable[[], Client], words: Sequence[str], token: str | None) -> None:
        self._client = client
        self._words = words
        self._token = token

    def records(self) -> Records | None:
        """None if this user has no home folder, and so no records."""
        try:
            return Records(places.state_dir() / "jobs")
        except UsageError:
            return None

    def all(self) -> list[Job]:
        """The newest first."""
        records = self.records()
        return records.all() if records else []

    def find(self, name: str) -> tuple[Job, Records]:
        """The job of exactly this id. Raises `NotFound`."""
        records = self.records()
        if records is not None:
            for job in records.all():
                if job.id == name:
                    return job, records
        raise NotFound(f"there is no job {shown(name)[:100]}", hint="GET /api/jobs lists them")

    def cancel(self, name: str) -> Job:
        """Raises `NotFound`, `UsageError` if it is over already, `Busy`."""
        return processes.cancel(*self.find(name))

    def start(self, name: str) -> str:
        """Begin to download a model or a group of the catalog; returns the id of the job. Raises `NotFound` for any
        other text, `Busy` if a job of that name is running, `MdlError` in the words of the job if it cannot begin."""
        names = {name}
        for model in self._client().catalog.find(name):
            names.add(model.name)
            if model.gone:
                raise NotFound(f"{name} cannot be fetched any more: {model.gone}")
        for job in self.all():
            if job.status == "running" and names.intersection(job.models):
                raise Busy(f"{name} is being downloaded already, by the job {job.id}")
        command = [*python_command(), "get", *self._words, "--detach", "--json", "--", name]
        environ = {key: value for key, value in os.environ.items() if value.strip() != self._token}
        ran = output_of(command, environ=environ, seconds=_START_SECONDS)
        if ran.is_late:
            raise MdlError(f"the job did not begin within {_START_SECONDS:.0f} seconds")
        try:
            document = parse_json(ran.out)
        except ValueError:
            document = {}
        job_id = document.get("job")
        if ran.code == 0 and isinstance(job_id, str):
            return job_id
        error = document.get("error") or {}
        raise MdlError(error.get("message") or f"mdl get ended with {ran.code}", hint=error.get("hint"))


def job_addresses(jobs: Jobs) -> list[Address]:
    """List, show, start, cancel. One job begins at a time, however many are asked for: each takes a process, and a
    thread of those that answer."""
    beginning = asyncio.Lock()

    async def start(request: Request) -> Response:
        name = await _model_in(request)
        async with beginning:
            started = await run_in_threadpool(jobs.start, name)
        return JsonResponse({"job": started}, 202, {"Location": f"/api/jobs/{started}"})

    return [
        Address("/api/jobs", told(lambda: _rows(jobs.all())), changes=True),
        Address("/api/jobs", start, changes=True, post=True),
        Address("/api/jobs/{name}", told(lambda name: _rows(jobs.find(name)[:1])), changes=True),
        Address("/api/jobs/{name}/cancel", told(lambda name: _rows([jobs.cancel(name)])), changes=True, post=True),
    ]


def _rows(jobs: Sequence[Job]) -> dict[str, Any]:
    return {"jobs": [shown_facts(job) for job in jobs]}


async def _model_in(request: Request) -> str:
    """The name in ``{"model": NAME}``. Raises `Refusal`. A form of another site cannot send this type."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Refusal(415, "", "send JSON: Content-Type: application/json")
    try:
        found: Any = parse_json(await body_of(request))
    except ValueError:
        raise Refusal(400, "", "the body is not JSON") from None
    if not isinstance(found, dict) or not isinstance(found.get("model"), str) or set(found) != {"model"}:
        raise Refusal(400, "", 'the body must be {"model": NAME}, with a name of the catalog')
    return str(found["model"])
