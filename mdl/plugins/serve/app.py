"""The application: what the options ask for, put together; who may ask, and where each answer is made."""

from __future__ import annotations

import asyncio
import base64
import binascii
import functools
import hmac
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from mdl.errors import MdlError
from mdl.net.credentials import is_loopback
from mdl.net.ranges import answer_to
from mdl.plugins.serve import hub_api
from mdl.plugins.serve.connection import KEY, App
from mdl.plugins.serve.options import ServeOptions
from mdl.plugins.serve.repositories import Repositories
from mdl.plugins.serve.responses import Address, Handler, JsonResponse, Refusal, SentFile, answer_with, body_of
from mdl.plugins.serve.runs import TrainedRuns, run_addresses
from mdl.plugins.serve.status import HEADERS, PAGE, StatusPage
from mdl.plugins.serve.traffic import WARN_AT, Traffic
from mdl.plugins.serve.work import AT_ONCE, Work
from mdl.sources.hub_protocol import HubCall, asked_paths, etag, is_asked, paths_info, refs, tree
from mdl.values import value_class

if TYPE_CHECKING:
    from mdl.client import Client


def application(
    client: Callable[[], Client],
    options: ServeOptions,
    traffic: Traffic,
    warn: Callable[[str], None],
    *,
    is_local: bool,
) -> App:
    """The ASGI application; it ``is_local`` if only this machine can reach it."""
    own = client()
    runs = TrainedRuns(options.runs)
    repositories = Repositories(own.stores.all(), own.network.endpoint.url, gated=options.gated)
    everything = repositories
    if options.token is not None and not options.gated:
        everything = Repositories(own.stores.all(), own.network.endpoint.url, gated=True)
    status = StatusPage(client, repositories, everything, runs, options)
    access = Access(options.token, loopback=is_local)
    work = Work()
    server = _Server(repositories, access, traffic, status, work, warn, options.gated)
    return server.application(run_addresses(runs, work))


@value_class
class _Server:
    """What the routes answer from. ``warn`` is told what should never happen, and who guesses tokens. ``gated``:
    repositories that are not known to be public are served too."""

    repositories: Repositories
    access: Access
    traffic: Traffic
    status: StatusPage
    work: Work
    warn: Callable[[str], None]
    gated: bool
    listing: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))
    """Held while a listing is made, so that many of large repositories keep no file waiting."""

    def application(self, others: Sequence[Address]) -> App:
        """The ASGI application; the ``others`` are looked at before the hub's protocol."""
        own = [
            Address("/", self._page),
            Address("/api/status", self.work.told(self.status.document, {"Cache-Control": "no-store"})),
            Address("/metrics", self._metrics),
        ]
        routes = []
        for address in (*own, *others):
            routes.append(Route(address.path, self._guarded(address.handler), methods=["GET", "HEAD"]))
        routes.append(Route("/{path:path}", self._guarded(self._hub), methods=["GET", "HEAD", "POST"]))
        return self.traffic.observed(Starlette(routes=routes))

    def _guarded(self, handler: Handler) -> Handler:
        """The handler, for those who may ask; what it raises becomes an answer."""

        @functools.wraps(handler)
        async def run(request: Request) -> Response:
            try:
                self._check(request)
                return await handler(request)
            except MdlError as error:
                refusal = Refusal.of(error)
            except Refusal as error:
                refusal = error
            except Exception as error:
                self.warn(f"a request failed: {type(error).__name__}: {error}")
                refusal = Refusal(500, "", "a fault in mdl itself; the server's own output says more")
            return answer_with(refusal)

        return run

    def _check(self, request: Request) -> None:
        """Raises `Refusal` for a request that must not be answered."""
        try:
            self.access.check(request.headers)
        except WrongTokenError as error:
            address = request.client.host if request.client else "an unknown address"
            if self.traffic.count_wrong_token(address):
                self.warn(f"{WARN_AT} wrong tokens came from {address}: somebody may be guessing; mdl locks nobody out")
            raise error.refusal from None
        if request.scope[KEY].is_beyond and not self.access.has_token:
            raise Refusal(503, "", "too many connections are open", {"Retry-After": "5", "Connection": "close"})
        if request.scope["path"].startswith("/api/"):
            self.access.check_site(request.headers)

    async def _page(self, _request: Request) -> Response:
        return HTMLResponse(PAGE, headers=HEADERS)

    async def _metrics(self, _request: Request) -> Response:
        return PlainTextResponse(self.traffic.metrics(), media_type="text/plain; version=0.0.4")

    async def _hub(self, request: Request) -> Response:
        """A file of a repository, or what the hub's API says about one."""
        asked = hub_api.call_of(request.scope["raw_path"].decode("latin-1"))
        if (request.method == "POST") != (asked.call == "paths-info"):
            raise Refusal(405, "", "this address is read, not written to", {"Allow": "GET, HEAD"})
        if asked.call == "resolve":
            return await run_in_threadpool(self._file, asked, request.headers)
        body = await body_of(request) if request.method == "POST" else b""
        async with self.listing:
            return await run_in_threadpool(self._api, asked, request, body)

    def _file(self, asked: HubCall, headers: Mapping[str, str]) -> Response:
        repo = hub_api.repository(self.repositories.table(), asked, gated=self.gated)
        at = hub_api.revision(repo, asked)
        found = hub_api.file(repo, at, asked.path)
        opened = found.open()
        if opened is None:
            raise Refusal(404, "EntryNotFound", f"{asked.path} was changed or removed", {"X-Repo-Commit": at.commit})
        file, stamp = opened
        answer = answer_to(headers, found.size, etag(found))
        return SentFile(file, stamp, answer, hub_api.headers_of(at, found), self.traffic)

    def _api(self, asked: HubCall, request: Request, body: bytes) -> Response:
        repo = hub_api.repository(self.repositories.table(), asked, gated=self.gated)
        if asked.call == "refs":
            return JsonResponse(refs(repo.refs))
        at = hub_api.revision(repo, asked)
        if asked.call == "info":
            return JsonResponse(hub_api.info(repo, at), headers=hub_api.warning(repo, at))
        if asked.call == "paths-info":
            return JsonResponse(paths_info(at.files, asked_paths(body)))
        items = tree(at.files, asked.path, recursive=is_asked(request.url.query, "recursive"))
        if items is None:
            raise Refusal(404, "EntryNotFound", f"{asked.path} is not on this disk", {"X-Repo-Commit": at.commit})
        return JsonResponse(items, headers=hub_api.warning(repo, at))


_ASK = {"WWW-Authenticate": 'Basic realm="mdl serve: any name, and the token as password", charset="UTF-8"'}
_HOST = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([^:\[\]]+))(?::[0-9]*)?")


class WrongTokenError(Exception):
    """A request came with a token that is not the right one. ``refusal`` is what its client is told."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


class Access:
    """What a request must bring. Without a ``token``, everybody who can reach the server may ask."""

    def __init__(self, token: str | None, *, loopback: bool) -> None:
        self.has_token = token is not None
        self._token = (token or "").encode()
        self._loopback = loopback

    def check(self, headers: Mapping[str, str]) -> None:
        """Raises `Refusal` for a request that must not be answered, and `WrongTokenError` for one with a wrong token.
        ``headers`` have lower-case names.

        A page of another site can have its own name lead to 127.0.0.1 (DNS rebinding). The browser still sends that
        name as the Host, and has no token for it. A proxy before this server may find another end of a
        request that states two lengths.
        """
        if "transfer-encoding" in headers and "content-length" in headers:
            why = "a request has a Content-Length or a Transfer-Encoding, not both"
            raise Refusal(400, "", why, {"Connection": "close"})
        if self._loopback and not self.has_token and not is_loopback(_host(headers.get("host", ""))):
            raise Refusal(421, "", "this server answers to localhost and 127.0.0.1 only, not to the name in Host")
        if self.has_token and not hmac.compare_digest(_token_in(headers.get("authorization", "")), self._token):
            refusal = Refusal(401, "", "Invalid credentials in Authorization header", _ASK)
            raise WrongTokenError(refusal) if "authorization" in headers else refusal

    def check_site(self, headers: Mapping[str, str]) -> None:
        """Raises `Refusal` for what a page of another site has a browser ask for, with which the browser sends the
        token too. Such a page cannot read the answer, but it could make this server work."""
        site = headers.get("sec-fetch-site")
        origin = headers.get("origin")
        is_strange = origin is not None and origin.partition("://")[2].lower() != headers.get("host", "").lower()
        if is_strange or site not in (None, "same-origin", "none"):
            raise Refusal(403, "", "a page of another site may not ask for this")


def _host(header: str) -> str:
    """The host without its port and brackets; empty if the header is malformed."""
    found = _HOST.fullmatch(header)
    return (found[1] or found[2]).lower() if found else ""


def _token_in(authorization: str) -> bytes:
    """The token of a program (``Bearer``), or what a person typed as the password (``Basic``)."""
    scheme, _, value = authorization.partition(" ")
    value = value.strip()
    if scheme.lower() == "bearer":
        return value.encode()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).partition(b":")[2]
        except (binascii.Error, ValueError):
            return b""
    return b""
