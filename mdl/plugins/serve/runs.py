"""Runs: trained runs of this disk, with the routes and the answers of a training server, so that ``mdl fetch`` of
another machine takes them. A run is found in a table by its name, and packed while it is sent."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from mdl.disk.pool import start_threads
from mdl.errors import MdlError, NotFound, as_problem
from mdl.formatting import utc_time
from mdl.ops.pack import PackPlan, plan_pack, write_pack
from mdl.paths import RelPath, shown
from mdl.plugins.serve.connection import KEY, Connection
from mdl.plugins.serve.responses import Address, Refusal, answer_with
from mdl.plugins.serve.work import Check, Work
from mdl.runs import find_run
from mdl.runs.tree import Tree

_PREFIX = "/api/training"
AT_ONCE = 4
"""How many zips are made at a time: each takes a core."""
MOST_OPEN = 16
"""How many zips are on their way at a time, those for clients that take nothing for the moment among them."""
IDLE_SECONDS = 1.0
"""A client that has taken nothing for so long gives way to another one, if too many zips are on their way."""
STALL_SECONDS = 15.0
"""In which time a client has to take something of a zip."""
_CHUNK = 2**20
_NO_OUTPUT = -1
_RUNNING = ("queued", "pending", "starting", "running")


class TrainedRuns:
    """The runs in ``folders``: each folder in one of them is a run."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = folders
        self.packing = asyncio.Semaphore(AT_ONCE)
        self.on_their_way: list[SentZip] = []

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

    def all(self, check: Check) -> list[dict[str, Any]]:
        """The facts of every run; one that cannot be read is left out."""
        found = []
        for name, folder in self.names().items():
            check()
            with contextlib.suppress(MdlError, OSError):
                found.append(_facts(name, Tree.scan(folder)))
        return found

    def one(self, _check: Check, name: str) -> dict[str, Any]:
        """The facts of one run. Raises `NotFound`."""
        return _facts(name, Tree.scan(self.folder(name)))

    def checkpoints(self, _check: Check, name: str) -> dict[str, Any]:
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


def run_addresses(runs: TrainedRuns, work: Work) -> list[Address]:
    """The addresses of a training server."""

    async def model(request: Request) -> Response:
        return await sent(request, request.query_params.get("checkpoint"), logs=False)

    async def logs(request: Request) -> Response:
        return await sent(request, None, logs=True)

    async def sent(request: Request, checkpoint: str | None, *, logs: bool) -> Response:
        name = request.path_params["name"]
        connection = request.scope[KEY]
        key = f"{request.scope['path']}?{checkpoint}"
        plan = await work.do(key, lambda _check: runs.plan(name, checkpoint, logs=logs), connection)
        return SentZip(plan, runs)

    return [
        Address(f"{_PREFIX}/jobs", work.told(lambda check: {"jobs": runs.all(check)})),
        Address(f"{_PREFIX}/jobs/{{name}}", work.told(runs.one)),
        Address(f"{_PREFIX}/jobs/{{name}}/checkpoints", work.told(runs.checkpoints)),
        Address(f"{_PREFIX}/{{name}}/download/model", model),
        Address(f"{_PREFIX}/{{name}}/download/logs", logs),
    ]


class SentZip(Response):
    """The zip of a plan, sent while a thread writes it to a pipe: its length is not known before.

    A zip has one of the few places for packing while bytes of it are made, and gives it back while its client takes
    none: then the pipe fills up, and the thread waits."""

    def __init__(self, plan: PackPlan, runs: TrainedRuns) -> None:
        name = plan.name.encode("ascii", "replace").decode().replace('"', "_")
        named = f"attachment; filename=\"{name}\"; filename*=UTF-8''{quote(plan.name)}"
        super().__init__(headers={"Content-Disposition": named, "Content-Type": "application/zip"})
        self.raw_headers = [pair for pair in self.raw_headers if pair[0] != b"content-length"]
        self._plan = plan
        self._runs = runs
        self._packing = runs.packing
        self._error: BaseException | None = None
        self._connection: Connection | None = None
        self.waits_since: float | None = None
        self._has_place = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        if scope["method"] == "HEAD":
            await send(start)
            await send({"type": "http.response.body"})
            return
        if self._packing.locked() or not _make_room(self._runs.on_their_way):
            refusal: Refusal | None = Refusal(503, "", "several runs are being packed already", {"Retry-After": "10"})
        else:
            self._connection = scope[KEY]
            self._runs.on_their_way.append(self)
            try:
                refusal = await self._send(scope[KEY], start, send)
            finally:
                self._runs.on_their_way.remove(self)
        if refusal:
            await answer_with(refusal)(scope, receive, send)

    async def _send(self, connection: Connection, start: Any, send: Any) -> Refusal | None:
        """Send what comes out of the pipe; returns why nothing does. If the run cannot be read to its end the
        connection is cut, so that nobody takes what came for a whole zip."""
        end, writing = os.pipe()
        if not start_threads("mdl-zip", [partial(self._pack, writing)]):
            os.close(writing)
            os.close(end)
            return Refusal(503, "", "the system refuses to start a thread", {"Retry-After": "10"})
        connection.stall_seconds = STALL_SECONDS
        await self._take_place()
        try:
            piece = await _read(end)
            if not piece:
                return Refusal.of(as_problem(self._error or NotFound("there is nothing to be packed")))
            await send(start)
            while piece and not connection.is_closing:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
                await self._taken(connection)
                piece = await _read(end)
            if self._error is not None:
                connection.abort()
            await send({"type": "http.response.body"})
        finally:
            self._give_place()
            os.close(end)
        return None

    async def _take_place(self) -> None:
        await self._packing.acquire()
        self._has_place = True

    def _give_place(self) -> None:
        if self._has_place:
            self._has_place = False
            self._packing.release()

    async def _taken(self, connection: Connection) -> None:
        """Wait until the client has taken what was sent, without the place for packing."""
        if not connection.flow.write_paused:
            return
        self._give_place()
        self.waits_since = time.monotonic()
        await connection.flow.drain()
        self.waits_since = None
        if not connection.is_closing:
            await self._take_place()

    def _pack(self, writing: int) -> None:
        try:
            write_pack(replace(self._plan, output=writing), digest=False)
        except Exception as error:
            self._error = error
        finally:
            os.close(writing)

    @property
    def idle_seconds(self) -> float:
        """How long its client has taken nothing."""
        return 0.0 if self.waits_since is None else time.monotonic() - self.waits_since

    def abort(self) -> None:
        """End it for a client that takes nothing."""
        if self._connection is not None:
            self._connection.abort()


def _make_room(on_their_way: Sequence[SentZip]) -> bool:
    """Whether one more zip can be sent. If too many are, the one goes whose client has taken nothing for longest."""
    if len(on_their_way) < MOST_OPEN:
        return True
    idlest = max(on_their_way, key=lambda one: one.idle_seconds)
    if idlest.idle_seconds < IDLE_SECONDS:
        return False
    idlest.abort()
    return True


async def _read(end: int) -> bytes:
    """What the pipe has, once it has anything; nothing at its end."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(end, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(end)
    return os.read(end, _CHUNK)
