"""Runs: trained runs of this disk, with the routes and the answers of a training server, so that ``mdl fetch`` of
another machine takes them. A run is found in a table by its name, and packed while it is sent."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from mdl.errors import MdlError, NotFound, as_problem
from mdl.formatting import utc_time
from mdl.operations.pack import PackPlan, plan_pack, write_pack
from mdl.paths import RelPath, shown
from mdl.serve.answers import Address, answer_with, told
from mdl.serve.connection import KEY, Connection
from mdl.serve.refusals import Refusal
from mdl.threads import start_threads
from mdl.trainers import find_run
from mdl.trainers.tree import Tree

_PREFIX = "/api/training"
_AT_ONCE = 4
"""How many zips are made at a time: each takes a core."""
_CHUNK = 2**20
_NO_OUTPUT = -1
_RUNNING = ("queued", "pending", "starting", "running")


class TrainedRuns:
    """The runs in ``folders``: each folder in one of them is a run."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = folders
        self.packing = threading.BoundedSemaphore(_AT_ONCE)

    def names(self) -> dict[str, Path]:
        """The folder of each run, by its name. If two have the same name, the first counts. A link is not a run."""
        found: dict[str, Path] = {}
        for folder in self._folders:
            with contextlib.suppress(OSError):
                for entry in sorted(os.scandir(folder), key=lambda one: one.name):
                    if entry.is_dir(follow_symlinks=False) and _is_name(entry.name):
                        found.setdefault(entry.name, Path(entry.path))
        return found

    def folder(self, name: str) -> Path:
        """The folder of one run. Raises `NotFound`."""
        found = self.names().get(name)
        if found is None:
            raise NotFound(f"there is no run {shown(name)[:200]}", hint=f"GET {_PREFIX}/jobs lists them")
        return found

    def all(self) -> list[dict[str, Any]]:
        """The facts of every run; one that cannot be read is left out."""
        found = []
        for name, folder in self.names().items():
            with contextlib.suppress(MdlError, OSError):
                found.append(_facts(name, Tree.scan(folder)))
        return found

    def one(self, name: str) -> dict[str, Any]:
        """The facts of one run. Raises `NotFound`."""
        return _facts(name, Tree.scan(self.folder(name)))

    def checkpoints(self, name: str) -> dict[str, Any]:
        """The checkpoints of a run, oldest first. Raises `NotFound`."""
        run = find_run(self.folder(name))
        rows = [
            {
                "name": one.name,
                "path": one.name,
                "step": one.step,
                "size_bytes": one.bytes,
                "is_latest": one.latest,
                "is_best": one.best,
                "is_complete": one.complete,
            }
            for one in run.checkpoints
        ]
        best = next((one.name for one in run.checkpoints if one.best), None)
        return {"job_id": name, "checkpoints": rows, "best_checkpoint": best}

    def plan(self, name: str, checkpoint: str | None, *, logs: bool) -> PackPlan:
        """What of a run is packed. Raises `MdlError`."""
        return plan_pack(self.folder(name), _NO_OUTPUT, checkpoint=checkpoint, logs=logs)


def _is_name(name: str) -> bool:
    with contextlib.suppress(MdlError):
        return not name.startswith(".") and RelPath.parse(name).text == name
    return False


def _facts(name: str, tree: Tree) -> dict[str, Any]:
    """A run as a training server describes it. Its own ``progress.json`` says if it is still running."""
    files = [entry for entry in tree.entries if entry.kind == "file"]
    newest = max((entry.stamp.mtime_ns for entry in files), default=0)
    status = str(tree.json("progress.json").get("status", "completed")).lower()
    return {
        "job_id": name,
        "status": status if status in (*_RUNNING, "failed", "cancelled") else "completed",
        "updated_at": utc_time(newest / 1e9, "microseconds"),
        "size_bytes": sum(entry.stamp.size for entry in files),
    }


def run_addresses(runs: TrainedRuns) -> list[Address]:
    """The addresses of a training server."""

    async def model(request: Request) -> Response:
        name, checkpoint = request.path_params["name"], request.query_params.get("checkpoint")
        return SentZip(await run_in_threadpool(runs.plan, name, checkpoint, logs=False), runs.packing)

    async def logs(request: Request) -> Response:
        return SentZip(await run_in_threadpool(runs.plan, request.path_params["name"], None, logs=True), runs.packing)

    return [
        Address(f"{_PREFIX}/jobs", told(lambda: {"jobs": runs.all()})),
        Address(f"{_PREFIX}/jobs/{{name}}", told(runs.one)),
        Address(f"{_PREFIX}/jobs/{{name}}/checkpoints", told(runs.checkpoints)),
        Address(f"{_PREFIX}/{{name}}/download/model", model),
        Address(f"{_PREFIX}/{{name}}/download/logs", logs),
    ]


class SentZip(Response):
    """The zip of a plan, sent while a thread writes it to a pipe: its length is not known before."""

    def __init__(self, plan: PackPlan, packing: threading.BoundedSemaphore) -> None:
        name = plan.name.encode("ascii", "replace").decode().replace('"', "_")
        named = f"attachment; filename=\"{name}\"; filename*=UTF-8''{quote(plan.name)}"
        super().__init__(headers={"Content-Disposition": named, "Content-Type": "application/zip"})
        self.raw_headers = [pair for pair in self.raw_headers if pair[0] != b"content-length"]
        self._plan, self._packing = plan, packing
        self._error: BaseException | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        if scope["method"] == "HEAD":
            await send(start)
            await send({"type": "http.response.body"})
        elif self._packing.acquire(blocking=False):
            if refusal := await self._send(scope[KEY], start, send):
                await answer_with(refusal)(scope, receive, send)
        else:
            refusal = Refusal(503, "", "several runs are being packed already", {"Retry-After": "10"})
            await answer_with(refusal)(scope, receive, send)

    async def _send(self, connection: Connection, start: Any, send: Any) -> Refusal | None:
        """Send what comes out of the pipe; returns why nothing does. If the run cannot be read to its end the
        connection is cut, so that nobody takes what came for a whole zip."""
        try:
            end, writing = os.pipe()
        except OSError:
            self._packing.release()
            raise
        if not start_threads("mdl-zip", [partial(self._pack, writing)]):
            self._packing.release()
            os.close(writing)
            os.close(end)
            return Refusal(503, "", "the system refuses to start a thread", {"Retry-After": "10"})
        try:
            piece = await run_in_threadpool(os.read, end, _CHUNK)
            if not piece:
                return Refusal.of(as_problem(self._error or NotFound("there is nothing to be packed")))
            await send(start)
            while piece and not connection.is_closing:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
                piece = await run_in_threadpool(os.read, end, _CHUNK)
            if self._error is not None:
                connection.abort()
            await send({"type": "http.response.body"})
        finally:
            os.close(end)
        return None

    def _pack(self, writing: int) -> None:
        try:
            write_pack(replace(self._plan, output=writing), digest=False)
        except Exception as error:
            self._error = error
        finally:
            self._packing.release()
            os.close(writing)
