"""The one door to the network: client, redirects, allow-list, and who gets which secret.

Every hop of every request is held against the allow-list; a token goes to its own origin and nowhere
else, not even back there once a redirect has left it; https never becomes http; no cookie, netrc,
Referer or custom header follows a redirect.
"""

from __future__ import annotations

import contextlib
import json
import platform
import re
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx

from mdl import __version__
from mdl.cancel import Cancel
from mdl.errors import NetworkError, ProtocolError, Unsafe
from mdl.http.body import Reader
from mdl.http.codings import beginning
from mdl.http.hosts import Bearer, Hosts, host_of, is_private, origin_of
from mdl.http.line import Errand, within
from mdl.http.pacer import Pacer
from mdl.http.patience import Patience
from mdl.http.pipe import Piped
from mdl.http.policy import RetryPolicy
from mdl.http.proxies import proxy_of
from mdl.http.throttle import NO_LIMIT, Throttle
from mdl.http.tls import tls_context
from mdl.http.troubles import translated
from mdl.http.wire import PROXY, Wire
from mdl.http.words import refusal
from mdl.redact import Secrets

USER_AGENT = f"mdl/{__version__}; python/{platform.python_version()}"
_REDIRECTS = (301, 302, 303, 307, 308)
_PORTS = {"http": 80, "https": 443}
_MAX_HOPS = 10
_SMALL, _LITTLE = 64 * 1024, 4096
_DRAIN_SECONDS = 0.5
"""How long a redirect's body may take; after that its connection is given up."""
MAX_JSON = 10 * 2**20
"""Bytes of an API answer that are read at most, decoded: parsed they take a multiple of it."""


@dataclass(frozen=True)
class Timeouts:
    """Seconds: to connect, and of silence on an open connection."""

    connect: float = 10.0
    stall: float = 30.0


@dataclass(frozen=True)
class Opened:
    """An answer whose body is still to be read. ``url`` is where it came from in the end, ``hops`` the headers
    of the redirects on the way, lower-case keys. ``location`` is where it may be asked for directly the next time, with
    the same ``start``; None if that is the start itself, or a place there that only another host named."""

    response: httpx.Response
    url: str
    hops: tuple[Mapping[str, str], ...]
    location: str | None

    @property
    def status(self) -> int:
        return self.response.status_code

    @property
    def headers(self) -> Mapping[str, str]:
        return lower(self.response.headers)


def lower(headers: httpx.Headers) -> dict[str, str]:
    return {key.lower(): value for key, value in headers.items()}


class Http:
    """A client for any number of threads. Close it when done."""

    def __init__(
        self,
        hosts: Hosts,
        *,
        bearer: Bearer | None = None,
        timeouts: Timeouts = Timeouts(),
        cancel: Cancel | None = None,
        connections: int = 16,
        throttle: Throttle = NO_LIMIT,
        policy: RetryPolicy = RetryPolicy(),  # noqa: B008 - frozen
    ) -> None:
        self.hosts, self.bearer, self.timeouts = hosts, bearer, timeouts
        self.cancel = cancel or Cancel()
        self.policy, self.connections = policy, connections
        self.pacer = Pacer(connections, policy)
        self.patience = Patience(policy, self.pacer, self.cancel)
        self._reader = Reader(self.cancel, timeouts.stall, throttle)
        self._public: set[str] = set()
        self._proxies = urllib.request.getproxies()
        limits = httpx.Limits(max_connections=connections * 2 + 8, max_keepalive_connections=connections + 4)
        self._client = httpx.Client(
            transport=Wire(tls_context, limits, self._proxies, self.cancel),
            trust_env=False,
            timeout=httpx.Timeout(timeouts.stall, connect=timeouts.connect),
            headers={"User-Agent": USER_AGENT, "Accept": "*/*", "Accept-Encoding": "identity"},
        )
        self._client.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=[]))

    def close(self) -> None:
        self._client.close()

    def __enter__(self) -> Http:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def open(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        *,
        start: str | None = None,
        allow: tuple[int, ...] = (),
    ) -> Iterator[Opened]:
        """Ask ``url``, following redirects, and hand over the answer with its body unread.

        ``start`` is the URL that somebody named, if ``url`` is only where that once led to (`Opened.location`): what
        a redirect named gets no more when it is asked by itself than it got then.

        A status of 400 or more that is not in ``allow`` raises the error it means (`AuthError`, `NotFound`,
        `NetworkError`); a refused hop raises `Unsafe`; trouble on the wire `NetworkError`, `ProtocolError` or
        `TlsError`. httpx's errors from reading the body inside the block are translated too.
        """
        response: httpx.Response | None = None
        secrets = Secrets([self.bearer.token if self.bearer else None])
        with translated(url, secrets):
            try:
                response, opened, token_sent = self._ask(method, url, start or url, headers or {}, secrets)
                if response.status_code >= 400 and response.status_code not in allow:
                    with contextlib.suppress(httpx.HTTPError, httpx.StreamError, NetworkError), self._in_time():
                        _peek(response, body := bytearray())
                    words = beginning(response.headers, bytes(body[:_SMALL]))
                    status, seen = response.status_code, opened.headers
                    error = refusal(status, seen, words, opened.url, token_sent=token_sent, secrets=secrets)
                    error.redirected = bool(opened.hops)
                    raise error
                yield opened
            except Exception:
                self.cancel.check()  # it shut the connection: that is all the trouble there is
                raise
            finally:
                if response is not None:
                    response.close()

    def body(
        self, opened: Opened, length: int | None, buffer: bytearray, *, decode: bool = True
    ) -> Iterator[memoryview | bytes]:
        """The body of an answer, ``length`` bytes of it if that is known; see `mdl.http.body.Reader`."""
        return self._reader.blocks(opened.response, length, buffer, decode=decode)

    def pourable(
        self, opened: Opened, length: int | None, buffer: bytearray, *, decode: bool = True
    ) -> Iterator[memoryview | bytes | Piped]:
        """As `body`, for who puts it into a file: some of it may be in a pipe."""
        return self._reader.pourable(opened.response, length, buffer, decode=decode)

    def beginning(self, opened: Opened) -> bytes:
        """Some 4 KiB of a body, to tell what it is; less or nothing where it cannot be had."""
        text = bytearray()
        with contextlib.suppress(httpx.HTTPError, httpx.StreamError, NetworkError, ProtocolError):
            for block in self.body(opened, None, bytearray()):
                text += block
                if len(text) >= _LITTLE:
                    break
        return bytes(text)

    def _ask(
        self, method: str, url: str, start: str, headers: Mapping[str, str], secrets: Secrets
    ) -> tuple[httpx.Response, Opened, bool]:
        try:
            return self._follow(method, url, start, headers, secrets)
        except (httpx.InvalidURL, UnicodeError, ValueError) as error:
            raise Unsafe(f"refused: {host_of(url)} leads to an unusable URL: {error}", item=host_of(url)) from error

    def _follow(
        self, method: str, url: str, start: str, headers: Mapping[str, str], secrets: Secrets
    ) -> tuple[httpx.Response, Opened, bool]:
        """The answer at the end of the redirects, and whether the token was sent for it. Every URL that is asked adds
        what stands behind its path to ``secrets``."""
        hops: list[Mapping[str, str]] = []
        home, at_home, current = origin_of(start), True, url
        met_public = url != start and host_of(start) in self._public
        for _ in range(_MAX_HOPS + 1):
            self.cancel.check()
            secrets.add_query(current)
            self.hosts.check(current)
            at_home = at_home and origin_of(current) == home
            token = self._token_for(current) if at_home else None
            proxy = proxy_of(current, self._proxies)
            private_ok = proxy is not None or self._may_be_private(current, start, met_public)
            request = self._client.build_request(method, current, headers={**headers, **(token or {})})
            request.extensions |= {PROXY: proxy}
            errand = Errand(host_of(current), private_ok, was_public=host_of(current) in self._public)
            response = self._send(request, errand)
            if proxy is None and errand.peer and not is_private(errand.peer):
                met_public = True
                self._public.add(errand.host)
            if response.status_code not in _REDIRECTS:
                is_back = not at_home and origin_of(current) == home
                location = None if is_back or current == start else current
                return response, Opened(response, current, tuple(hops), location), token is not None
            hops.append({**lower(response.headers), ":url": current})
            current = self._next_hop(response, current)
        raise NetworkError(f"more than {_MAX_HOPS} redirects, the last to {host_of(current)}", final=True)

    def _send(self, request: httpx.Request, errand: Errand) -> httpx.Response:
        """The answer, its body unread. If a connection that was used before has died since or turns out to be out of
        step, the request is asked again on another: each of them had carried an answer, so there is an end to it."""
        while True:
            try:
                with self._in_time(), errand.begun():
                    return self._client.send(request, stream=True)
            except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
                self.cancel.check()
                if errand.is_fresh or not errand.peer:
                    raise

    def _in_time(self) -> contextlib.AbstractContextManager[None]:
        """A status line and headers, or the words of a refusal, must be there after twice the longest silence."""
        seconds = 2 * self.timeouts.stall
        return within(
            seconds, NetworkError(f"the server did not send its whole response headers within {seconds:.0f} s")
        )

    def _may_be_private(self, url: str, start: str, met_public: bool) -> bool:
        """Whether a request for ``url``, on the way from ``start``, may reach a private address: a host that was named
        or follows on a start at such an address may, unless a public address was on the way; one that the user's
        settings allow may always. None may that was at a public address before."""
        host, port = host_of(url), urlsplit(url).port or _PORTS[urlsplit(url).scheme]
        if host in self._public:
            return False
        follows = is_private(host_of(start)) or host_of(start) == "localhost" or self.hosts.names(host, port)
        return self.hosts.trusts(host, port) or (follows and not met_public)

    def _next_hop(self, response: httpx.Response, current: str) -> str:
        location = str(response.headers.get("location", ""))
        _drain(response)
        scheme = re.match(r"([a-z][a-z0-9+.-]*):", location, re.IGNORECASE)
        if scheme and scheme[1].lower() not in ("http", "https"):
            raise Unsafe(f"refused: {host_of(current)} redirects to a {scheme[1].lower()}: URL", item=host_of(current))
        if not location or any(ord(char) <= 32 or ord(char) == 127 for char in location):
            raise ProtocolError(f"{host_of(current)} redirects without a usable Location")
        target = urljoin(current, location)
        if urlsplit(current).scheme == "https" and urlsplit(target).scheme == "http":
            raise Unsafe(f"refused: a redirect from https to http, to {host_of(target)}", item=host_of(target))
        return target.split("#")[0]

    def _token_for(self, url: str) -> dict[str, str] | None:
        if self.bearer and origin_of(url) == self.bearer.origin:
            return {"Authorization": f"Bearer {self.bearer.token}"}
        return None

    def get_json(self, url: str) -> tuple[Any, Mapping[str, str], str]:
        """A bounded JSON answer, its headers and the URL it came from in the end.

        Raises `ProtocolError` for anything that is not JSON or too large, and what `open` raises.
        """
        with self.open("GET", url, {"Accept": "application/json"}) as opened:
            text = bytearray()
            for block in self.body(opened, None, bytearray()):
                text += block
                if len(text) > MAX_JSON:
                    raise ProtocolError(f"{host_of(url)} sent an API answer of over {MAX_JSON} bytes")
            try:
                return json.loads(text), opened.headers, opened.url
            except (ValueError, RecursionError) as error:
                raise ProtocolError(f"{host_of(url)} did not answer in JSON") from error


def _peek(response: httpx.Response, body: bytearray) -> None:
    """Put the first 64 KiB of an error's body into ``body``."""
    for chunk in response.iter_raw():
        body += chunk
        if len(body) >= _SMALL:
            return


def _drain(response: httpx.Response) -> None:
    """Read a redirect's small body so that the connection lives on; leave one that is large or late unread."""
    length = response.headers.get("content-length", "")
    if length.isdigit() and int(length) <= _SMALL:
        late = NetworkError("the server did not finish the body of a redirect in time")
        with contextlib.suppress(httpx.HTTPError, NetworkError), within(_DRAIN_SECONDS, late):
            for _ in response.iter_raw():
                pass
    response.close()
