"""The one door to the network: client, redirects, allow-list, and who gets which secret.

Every hop of every request is held against the allow-list; a token goes to its own origin and nowhere
else, not even back there once a redirect has left it; https never becomes http; no cookie, netrc,
Referer or custom header follows a redirect.
"""

from __future__ import annotations

import contextlib
import functools
import json
import platform
import re
import time
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
from mdl.net.body import Reader, socket_of
from mdl.net.codings import beginning
from mdl.net.heads import Heads
from mdl.net.hosts import Bearer, Hosts, host_of, is_private, origin_of
from mdl.net.pipe import Piped
from mdl.net.proxies import proxy_of
from mdl.net.throttle import NO_LIMIT, Throttle
from mdl.net.tls import tls_context
from mdl.net.troubles import translated
from mdl.net.wire import PRIVATE, PROXY, Wire
from mdl.net.words import refusal

USER_AGENT = f"mdl/{__version__}; python/{platform.python_version()}"
_REDIRECTS = (301, 302, 303, 307, 308)
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
    of the redirects on the way, lower-case keys."""

    response: httpx.Response
    url: str
    hops: tuple[Mapping[str, str], ...]

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
    ) -> None:
        self.hosts, self.bearer, self.timeouts = hosts, bearer, timeouts
        self.cancel = cancel or Cancel()
        self._heads = Heads(2 * timeouts.stall)
        self._reader = Reader(self.cancel, timeouts.stall, throttle, self._heads)
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
        self, method: str, url: str, headers: Mapping[str, str] | None = None, *, allow: tuple[int, ...] = ()
    ) -> Iterator[Opened]:
        """Ask ``url``, following redirects, and hand over the answer with its body unread.

        A status of 400 or more that is not in ``allow`` raises the error it means (`AuthError`, `NotFound`,
        `NetworkError`); a refused hop raises `Unsafe`; trouble on the wire `NetworkError`, `ProtocolError` or
        `TlsError`. httpx's errors from reading the body inside the block are translated too.
        """
        response: httpx.Response | None = None
        with translated(url):
            try:
                response, final, hops, token_sent = self._ask(method, url, headers or {})
                if response.status_code >= 400 and response.status_code not in allow:
                    with self._heads.awaited():
                        body, seen = _peek(response), lower(response.headers)
                    error = refusal(response.status_code, seen, body, final, token_sent=token_sent)
                    error.redirected = bool(hops)
                    raise error
                with self._heads.body(socket_of(response)):
                    yield Opened(response, final, hops)
            except Exception:
                self.cancel.check()  # it shut the connection: that is all the trouble there is
                raise
            finally:
                if response is not None:
                    response.close()

    def body(
        self, opened: Opened, length: int | None, buffer: bytearray, *, decode: bool = True
    ) -> Iterator[memoryview | bytes]:
        """The body of an answer, ``length`` bytes of it if that is known; see `mdl.net.body.Reader`."""
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
        self, method: str, url: str, headers: Mapping[str, str]
    ) -> tuple[httpx.Response, str, tuple[Mapping[str, str], ...], bool]:
        try:
            return self._follow(method, url, headers)
        except (httpx.InvalidURL, UnicodeError, ValueError) as error:
            raise Unsafe(f"refused: {host_of(url)} leads to an unusable URL: {error}", item=host_of(url)) from error

    def _follow(
        self, method: str, url: str, headers: Mapping[str, str]
    ) -> tuple[httpx.Response, str, tuple[Mapping[str, str], ...], bool]:
        hops: list[Mapping[str, str]] = []
        start_private, at_home, current = self._starts_private(url), True, url
        for _ in range(_MAX_HOPS + 1):
            self.cancel.check()
            parts = self.hosts.check(current)
            at_home = at_home and origin_of(current) == origin_of(url)
            token = self._token_for(current) if at_home else None
            proxy = proxy_of(current, self._proxies)
            private_ok = start_private or self.hosts.names(host_of(current), parts.port or 0) or proxy is not None
            request = self._client.build_request(method, current, headers={**headers, **(token or {})})
            request.extensions["trace"] = functools.partial(self._on_trace, private_ok, host_of(current))
            request.extensions |= {PROXY: proxy, PRIVATE: private_ok}
            with self._heads.awaited():
                response = self._client.send(request, stream=True)
            if response.status_code not in _REDIRECTS:
                return response, current, tuple(hops), token is not None
            hops.append({**lower(response.headers), ":url": current})
            current = self._next_hop(response, current)
        raise NetworkError(f"more than {_MAX_HOPS} redirects, the last to {host_of(current)}", final=True)

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

    def _starts_private(self, url: str) -> bool:
        host = host_of(url)
        return is_private(host) or host == "localhost"

    def _on_trace(self, private_ok: bool, host: str, name: str, info: Mapping[str, Any]) -> None:
        """httpcore's trace extension: every fresh connection comes by here before a byte is sent on it."""
        if not name.endswith(("connect_tcp.complete", "start_tls.complete")):
            return
        sock = info["return_value"].get_extra_info("socket")
        self.cancel.register(sock)
        self._heads.opened(sock)
        if private_ok or not name.endswith("connect_tcp.complete"):
            return
        try:
            peer = sock.getpeername()
        except OSError as error:
            sock.close()
            raise NetworkError(f"{host}: {error.strerror}") from error
        if isinstance(peer, tuple) and is_private(str(peer[0])):
            sock.close()
            raise Unsafe(f"refused: {host} leads to the private address {peer[0]}", item=host)

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


def _peek(response: httpx.Response) -> bytes:
    """The first 64 KiB of an error's body; trouble while reading it is no new trouble."""
    body = b""
    with contextlib.suppress(httpx.HTTPError, httpx.StreamError):
        for chunk in response.iter_raw():
            body += chunk
            if len(body) >= _SMALL:
                break
    return beginning(response.headers, body[:_SMALL])


def _drain(response: httpx.Response) -> None:
    """Read a redirect's small body so that the connection lives on; leave one that is large or late unread."""
    length = response.headers.get("content-length", "")
    response.request.extensions["timeout"]["read"] = _DRAIN_SECONDS
    if length.isdigit() and int(length) <= _SMALL:
        until = time.monotonic() + _DRAIN_SECONDS
        with contextlib.suppress(httpx.HTTPError):
            for _ in response.iter_raw():
                if time.monotonic() > until:
                    break
    response.close()
