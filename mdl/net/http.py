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
import socket
import ssl
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx

from mdl import __version__
from mdl.errors import MdlError, NetworkError, ProtocolError, TlsError, Unsafe, UsageError
from mdl.net.body import blocks
from mdl.net.cancel import Cancel
from mdl.net.heads import Heads
from mdl.net.hosts import Bearer, Hosts, host_of, is_private, origin_of
from mdl.net.proxies import proxy_of
from mdl.net.throttle import NO_LIMIT, Throttle
from mdl.net.tls import tls_context
from mdl.net.words import refusal

USER_AGENT = f"mdl/{__version__}; python/{platform.python_version()}"
_REDIRECTS = (301, 302, 303, 307, 308)
_MAX_HOPS = 10
_SMALL = 64 * 1024
MAX_JSON = 64 * 2**20
"""Bytes of an API answer that are read at most."""


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
        self.hosts, self.bearer, self.timeouts, self.throttle = hosts, bearer, timeouts, throttle
        self.cancel = cancel or Cancel()
        self._heads = Heads(2 * timeouts.stall)
        limits = httpx.Limits(max_connections=connections * 2 + 8, max_keepalive_connections=connections + 4)
        try:
            self._client = httpx.Client(
                verify=tls_context(),
                timeout=httpx.Timeout(timeouts.stall, connect=timeouts.connect),
                limits=limits,
                headers={"User-Agent": USER_AGENT, "Accept": "*/*", "Accept-Encoding": "identity"},
            )
        except (ImportError, ValueError, httpx.InvalidURL) as error:
            words = "not a URL" if isinstance(error, httpx.InvalidURL) else str(error)  # it may quote a password
            raise UsageError(
                f"unusable proxy setting: {words}", hint="check HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY"
            ) from None
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
                with self._heads.body(_socket(response)):
                    yield Opened(response, final, hops)
            finally:
                if response is not None:
                    response.close()

    def body(self, opened: Opened, length: int | None, buffer: bytearray) -> Iterator[memoryview | bytes]:
        """The body of an answer, ``length`` bytes of it if that is known; see `mdl.net.body.blocks`."""
        return blocks(opened.response, length, self.cancel, self.timeouts.stall, buffer, self.throttle)

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
            private_ok = start_private or self.hosts.names(host_of(current), parts.port or 0)
            private_ok = private_ok or proxy_of(current, urllib.request.getproxies()) is not None
            request = self._client.build_request(method, current, headers={**headers, **(token or {})})
            request.extensions["trace"] = functools.partial(self._on_trace, private_ok, host_of(current))
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
            chunks, size = [], 0
            for chunk in opened.response.iter_bytes():
                size += len(chunk)
                if size > MAX_JSON:
                    raise ProtocolError(f"{host_of(url)} sent an API answer of over {MAX_JSON} bytes")
                chunks.append(chunk)
            try:
                return json.loads(b"".join(chunks)), opened.headers, opened.url
            except (ValueError, RecursionError) as error:
                raise ProtocolError(f"{host_of(url)} did not answer in JSON") from error


def _socket(response: httpx.Response) -> socket.socket | None:
    stream = response.extensions.get("network_stream")
    found = stream.get_extra_info("socket") if stream is not None else None
    return found if isinstance(found, socket.socket) else None


def _peek(response: httpx.Response) -> bytes:
    """The first 64 KiB of an error's body; trouble while reading it is no new trouble."""
    body = b""
    with contextlib.suppress(httpx.HTTPError, httpx.StreamError):
        for chunk in response.iter_bytes():
            body += chunk
            if len(body) >= _SMALL:
                break
    return body


def _drain(response: httpx.Response) -> None:
    """Read a redirect's small body so that the connection lives on; leave a large one unread."""
    length = response.headers.get("content-length", "")
    if length.isdigit() and int(length) <= _SMALL:
        with contextlib.suppress(httpx.HTTPError):
            response.read()
    response.close()


@contextlib.contextmanager
def translated(url: str) -> Iterator[None]:
    """httpx's errors as mdl's own, with the host and without the URL's query."""
    try:
        yield
    except httpx.HTTPError as error:
        raise _translate(error, host_of(url)) from error
    except httpx.StreamError as error:
        raise NetworkError(f"{host_of(url)}: {error}") from error


def _translate(error: httpx.HTTPError, host: str) -> MdlError:
    again = "run the same command again; what was fetched is kept"
    words = str(error) or type(error).__name__
    cause = _cause(error, ssl.SSLError)
    if isinstance(error, httpx.ConnectError) and cause is not None:
        return TlsError(f"{host}: {cause}", hint="check the clock, SSL_CERT_FILE and the proxy; mdl doctor tells more")
    if isinstance(error, httpx.ConnectTimeout):
        return NetworkError(f"{host} did not take the connection in time", hint=again)
    if isinstance(error, httpx.TimeoutException):
        return NetworkError(f"{host} was silent for too long", hint=again)
    if isinstance(error, httpx.ProxyError):
        return NetworkError(f"the proxy for {host}: {words}", hint="check the proxy; mdl doctor shows the variables")
    if isinstance(error, httpx.ConnectError):
        return NetworkError(
            f"no connection to {host}: {words}", hint="check the network, the host's name and the proxy"
        )
    if isinstance(error, httpx.UnsupportedProtocol):
        return Unsafe(f"refused: {words}", item=host)
    if isinstance(error, (httpx.RemoteProtocolError, httpx.DecodingError)):
        dropped = ("peer closed", "Server disconnected")
        if "location header" in words:
            return Unsafe(f"refused: {host} redirects to an unusable URL", item=host)
        if words.startswith(dropped):
            return NetworkError(f"{host} dropped the connection: {words}", hint=again)
        return ProtocolError(f"{host} does not speak HTTP properly: {words}")
    return NetworkError(f"{host}: {words}", hint=again)


def _cause(error: BaseException, kind: type[BaseException]) -> BaseException | None:
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, kind):
            return seen
        seen = seen.__cause__ or seen.__context__
    return None
