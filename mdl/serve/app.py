"""The routes: who may ask, and where each answer is made."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from mdl.errors import MdlError
from mdl.serve import hub_api
from mdl.serve.access import Access
from mdl.serve.answers import SentFile, answer_with, body_of
from mdl.serve.conditions import answer_to
from mdl.serve.connection import App
from mdl.serve.hub_api import Asked
from mdl.serve.page import HEADERS, PAGE
from mdl.serve.refusals import Refusal
from mdl.serve.repositories import Repositories
from mdl.serve.traffic import Traffic

Handler = Callable[[Request], Awaitable[Response]]


class Server:
    """What the routes answer from."""

    def __init__(
        self,
        repositories: Repositories,
        access: Access,
        traffic: Traffic,
        status: Callable[[], Any],
        on_fault: Callable[[Exception], None],
        *,
        gated: bool,
    ) -> None:
        """``status`` makes the document of the status page; ``on_fault`` is told what should never happen. ``gated``:
        repositories that are not known to be open are served too."""
        self._repositories, self._access, self._traffic = repositories, access, traffic
        self._status, self._on_fault, self._gated = status, on_fault, gated

    def application(self, routes: list[Route]) -> App:
        """The ASGI application; ``routes`` are looked at before those of the hub's protocol."""
        own = [
            Route("/", self._guarded(self._page)),
            Route("/api/status", self._guarded(self._status_document)),
            Route("/metrics", self._guarded(self._metrics)),
            *routes,
            Route("/{path:path}", self._guarded(self._hub), methods=["GET", "HEAD", "POST"]),
        ]
        return self._traffic.observed(Starlette(routes=own))

    def route(self, path: str, handler: Handler, *, changes: bool = False, post: bool = False) -> Route:
        """A route of GET and HEAD, or of POST; one that ``changes`` something, or tells of what does, needs the
        token."""
        return Route(path, self._guarded(handler, changes=changes), methods=["POST"] if post else ["GET", "HEAD"])

    def _guarded(self, handler: Handler, *, changes: bool = False) -> Handler:
        """The handler, for those who may ask; what it raises becomes an answer."""

        @functools.wraps(handler)
        async def run(request: Request) -> Response:
            try:
                self._access.check(request.headers)
                if changes:
                    self._access.check_change(request.headers)
                return await handler(request)
            except MdlError as error:
                refusal = Refusal.of(error)
            except Refusal as error:
                refusal = error
            except Exception as error:
                self._on_fault(error)
                refusal = Refusal(500, "", "a fault in mdl itself; the server's own output says more")
            return answer_with(refusal)

        return run

    async def _page(self, _request: Request) -> Response:
        return HTMLResponse(PAGE, headers=HEADERS)

    async def _status_document(self, _request: Request) -> Response:
        return JSONResponse(await run_in_threadpool(self._status), headers={"Cache-Control": "no-store"})

    async def _metrics(self, _request: Request) -> Response:
        return PlainTextResponse(self._traffic.metrics(), media_type="text/plain; version=0.0.4")

    async def _hub(self, request: Request) -> Response:
        """A file of a repository, or what the hub's API tells of one."""
        asked = hub_api.asked_by(request.scope["raw_path"].decode("latin-1"))
        if (request.method == "POST") != (asked.call == "paths-info"):
            raise Refusal(405, "", "this address is read, not written to", {"Allow": "GET, HEAD"})
        if asked.call == "resolve":
            return await run_in_threadpool(self._file, asked, request.headers)
        body = await body_of(request) if request.method == "POST" else b""
        return await run_in_threadpool(self._told, asked, request, body)

    def _file(self, asked: Asked, headers: Mapping[str, str]) -> Response:
        repo = hub_api.repository(self._repositories.table(), asked, gated=self._gated)
        at = hub_api.revision(repo, asked)
        found = hub_api.file(repo, at, asked.path)
        file = found.open()
        if file is None:
            raise Refusal(404, "EntryNotFound", f"{asked.path} was changed, or is gone", {"X-Repo-Commit": at.commit})
        answer = answer_to(headers, found.size, found.etag)
        return SentFile(file, found.receipt.stamp, answer, hub_api.file_headers(at, found), self._traffic)

    def _told(self, asked: Asked, request: Request, body: bytes) -> Response:
        repo = hub_api.repository(self._repositories.table(), asked, gated=self._gated)
        if asked.call == "refs":
            return JSONResponse(hub_api.refs(repo))
        at = hub_api.revision(repo, asked)
        if asked.call == "info":
            return JSONResponse(hub_api.info(repo, at), headers=hub_api.warning(repo, at))
        if asked.call == "paths-info":
            return JSONResponse(hub_api.paths_info(at, _paths_in(body)))
        recursive = request.query_params.get("recursive", "").lower() in ("1", "true")
        items = hub_api.tree(at, asked.path, recursive=recursive)
        if items is None:
            raise Refusal(404, "EntryNotFound", f"{asked.path} is not on this disk", {"X-Repo-Commit": at.commit})
        return JSONResponse(items, headers=hub_api.warning(repo, at))


def _paths_in(body: bytes) -> list[str]:
    """The paths that a form, or a JSON object, asks for."""
    import json

    if body.lstrip().startswith(b"{"):
        with contextlib.suppress(ValueError, RecursionError):
            named = json.loads(body).get("paths", [])
            return [str(one) for one in named] if isinstance(named, list) else [str(named)]
    return parse_qs(body.decode("utf-8", "replace"), max_num_fields=100_000).get("paths", [])
