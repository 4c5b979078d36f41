"""The transport: which connection carries a request, through which proxy, which certificates it trusts.

httpcore opens connections, speaks with proxies and has the parser of responses; `mdl.net.connection` is its network. A
pool of httpcore opens one connection and is dropped: it would look at all of its connections for every request, and
their number decides how soon small files come. Here the one used last is used next. Each request on a connection that
is kept has a parser of its own, and a connection on which more came than its response is closed: so no response begins
with bytes that came with the one before.

Reading the trusted certificates takes a while: it is done when the first request needs them.
"""

from __future__ import annotations

import base64
import contextlib
import platform
import ssl
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpcore
import httpx
from socksio import SOCKSError

from mdl.cancel import CancelToken
from mdl.net.allowlist import DEFAULT_PORTS, port_of
from mdl.net.certificates import Trust
from mdl.net.connection import Connection, HappyEyeballs, RequestLimits
from mdl.net.connection_errors import PROXY, PROXY_OFFERS, TRUST
from mdl.net.headers import parse_size
from mdl.net.proxies import Proxy

LIMITS = "mdl.limits"
"""An extension of a request: its `RequestLimits`."""
_KEEP_SECONDS = 5.0
"""How long a connection is kept that nobody uses."""
_TROUBLE = (
    httpcore.NetworkError,
    httpcore.TimeoutException,
    httpcore.ProtocolError,
    httpcore.ProxyError,
    httpcore.UnsupportedProtocol,
)
"""httpcore's errors. Each has a namesake in httpx."""

Headers = list[tuple[bytes, bytes]]
"""Names in lower case, each with its value."""
Place = tuple[str | None, str, str, int | None]
"""What a connection leads to: the URL of the proxy, and the scheme, host and port of the server."""


@dataclass(eq=False)
class _Idle:
    """A connection that nobody uses, since the ``moment``."""

    place: Place
    connection: Connection
    moment: float

    @property
    def is_usable(self) -> bool:
        """Whether another request may go over it. It is readable if more came than the last response, or its end."""
        is_old = time.monotonic() - self.moment > _KEEP_SECONDS
        return not is_old and not self.connection.get_extra_info("is_readable")


class PooledTransport(httpx.BaseTransport):
    """Sends requests over connections that are kept, each through the proxy that its extension `PROXY` names. At most
    ``most_idle`` connections are kept.
    """

    def __init__(self, most_idle: int, cancel: CancelToken, trust: Trust) -> None:
        self._most_idle = most_idle
        self._cancel = cancel
        self._trust = trust
        self._idle: list[_Idle] = []
        self._lock = threading.Lock()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        proxy: Proxy | None = request.extensions.get(PROXY)
        request.extensions[TRUST] = self._trust
        place = (proxy.url if proxy else None, request.url.scheme, request.url.host, request.url.port)
        sent = _for_httpcore(request, proxy)
        origin = sent.url.origin
        limits: RequestLimits = request.extensions[LIMITS]
        network = HappyEyeballs(self._cancel, limits, request.extensions.get("timeout", {}).get("read"))
        kept = self._take(place)
        sender: httpcore.ConnectionInterface
        if kept:
            kept.limits = limits
            sender = httpcore.HTTP11Connection(origin, kept)
        else:
            sender = self._pool(request, proxy, network).create_connection(origin)
            if proxy and request.url.scheme == "https":
                request.extensions["trace"] = _offers_listener(request)
        try:
            with _httpx_errors(request, proxy):
                answer = sender.handle_request(sent)
        except BaseException:
            sender.close()
            network.close()  # httpcore leaves open what a SOCKS proxy refused
            raise
        body = _Body(request, sender, answer, lambda unused: self._give_back(place, unused))
        return httpx.Response(answer.status, headers=answer.headers, stream=body, extensions=answer.extensions)

    def close(self) -> None:
        with self._lock:
            idle = self._idle
            self._idle = []
            self._most_idle = 0
        for unused in idle:
            unused.connection.close()

    def _take(self, place: Place) -> Connection | None:
        """Of the connections to ``place`` that can be used again, the one that was used last."""
        while True:
            with self._lock:
                matching = [idle for idle in self._idle if idle.place == place]
                if not matching:
                    return None
                last = matching[-1]
                self._idle.remove(last)
            if last.is_usable:
                return last.connection
            last.connection.close()

    def _give_back(self, place: Place, connection: Connection) -> None:
        """Keep the connection, and close the one that was idle for longest if there are too many."""
        unused = _Idle(place, connection, time.monotonic())
        surplus: _Idle | None = None
        with self._lock:
            self._idle.append(unused)
            if len(self._idle) > self._most_idle:
                surplus = self._idle.pop(0)
        if surplus:
            surplus.connection.close()

    def _pool(self, request: httpx.Request, proxy: Proxy | None, network: HappyEyeballs) -> httpcore.ConnectionPool:
        """Return what opens a connection for this request."""
        is_secure = request.url.scheme == "https"
        context = self._context(request.url, DEFAULT_PORTS["https"]) if is_secure else None
        if proxy is None:
            return httpcore.ConnectionPool(context, network_backend=network)
        through = httpx.Proxy(proxy.url)
        address = _core_url(through.url)
        if proxy.is_socks:
            login = through.raw_auth
            return httpcore.SOCKSProxy(address, login, ssl_context=context, network_backend=network)
        to_proxy = self._context(through.url, port_of(proxy.url)) if through.url.scheme == "https" else None
        if not is_secure:  # the request says by itself where it goes
            return httpcore.ConnectionPool(to_proxy, network_backend=network)
        return httpcore.HTTPProxy(
            address,
            through.raw_auth,
            ssl_context=context,
            proxy_ssl_context=to_proxy,
            network_backend=network,
        )

    def _context(self, url: httpx.URL, port: int) -> ssl.SSLContext:
        """Return the TLS context for the server of ``url``, whose port is ``port`` if the URL has none."""
        return self._trust.context(url.host.rstrip(".").lower(), url.port or port)


def _for_httpcore(request: httpx.Request, proxy: Proxy | None) -> httpcore.Request:
    """Return the request as httpcore sends it. A proxy without a tunnel is asked itself, for the whole URL."""
    url = _core_url(request.url)
    headers = request.headers.raw
    if proxy and not proxy.is_socks:
        if request.url.scheme == "http":
            through = httpx.Proxy(proxy.url)
            url = _core_url(through.url)
            url.target = b"http://" + request.url.netloc + request.url.raw_path
            if through.raw_auth:
                login = base64.b64encode(b":".join(through.raw_auth))
                headers = [(b"Proxy-Authorization", b"Basic " + login), *headers]
        elif ":" in request.url.host:
            url.host = b"[" + url.host + b"]"  # httpcore writes it as it is into what it asks a proxy for
    return httpcore.Request(request.method, url, headers=headers, content=request.stream, extensions=request.extensions)


def _core_url(url: httpx.URL) -> httpcore.URL:
    return httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)


def _announced_length(method: str, status: int, headers: Headers) -> int | None:
    """Return how many bytes the body of an answer has; None if only its parser can tell."""
    if method == "HEAD" or status in (204, 304):
        return 0
    if _value_of(b"transfer-encoding", headers):
        return None
    return parse_size(_value_of(b"content-length", headers))


def _lowered(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    return [(name.lower(), value) for name, value in headers]


def _value_of(name: bytes, headers: Headers) -> str:
    """Return the value of the header with this ``name``; '' if there is none. If there are several, their values are
    joined by commas."""
    return ", ".join([value.decode("latin-1") for key, value in headers if key == name])


@contextlib.contextmanager
def _httpx_errors(request: httpx.Request, proxy: Proxy | None) -> Iterator[None]:
    """Inside the block httpcore's errors become those of httpx. So do those for a server that does not speak SOCKS5:
    httpcore lets the errors of socksio through, and asserts that the answers are of the right kind."""
    try:
        yield
    except _TROUBLE as error:
        raise getattr(httpx, type(error).__name__)(str(error), request=request) from error
    except (AssertionError, ValueError, IndexError, KeyError, SOCKSError) as error:
        if proxy is None or not proxy.is_socks or isinstance(error, httpx.InvalidURL):
            raise
        raise httpx.ProxyError("it does not speak SOCKS5", request=request) from error


def _offers_listener(request: httpx.Request) -> Callable[[str, Mapping[str, Any]], None]:
    """Listens to what httpcore does for a request, and notes how a proxy that refuses a tunnel wants to be signed in
    to: the error has its status alone."""

    def listen(name: str, facts: Mapping[str, Any]) -> None:
        if name == "http11.receive_response_headers.complete" and facts["return_value"][1] == 407:
            request.extensions[PROXY_OFFERS] = _value_of(b"proxy-authenticate", _lowered(facts["return_value"][3]))

    return listen


class _Body(httpx.SyncByteStream):
    """The body of a response, as its parser reads it. When it is closed, the connection is given back if it was read to
    its end, whether by the parser or past it, and nothing more came.

    Bytes that come later make the idle connection readable, and then it is not used again.
    """

    def __init__(
        self,
        request: httpx.Request,
        sender: httpcore.ConnectionInterface,
        answer: httpcore.Response,
        give_back: Callable[[Connection], None],
    ) -> None:
        self._request = request
        self._sender = sender
        self._answer = answer
        self._give_back = give_back
        self._is_closed = False
        headers = _lowered(answer.headers)
        is_last = "close" in _value_of(b"connection", headers).lower()
        self._may_stay = answer.extensions["http_version"] == b"HTTP/1.1" and not is_last
        self._connection: Connection = answer.extensions["network_stream"]
        self._connection.begin_body(_announced_length(request.method, answer.status, headers))

    def __iter__(self) -> Iterator[bytes]:
        with _httpx_errors(self._request, None):
            yield from self._answer.iter_stream()

    def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        unused = self._connection.detach()
        self._answer.close()
        is_read = self._sender.is_idle() or (self._connection.left == 0 and self._may_stay)
        if is_read and not self._connection.is_broken and not self._connection.has_more:
            self._give_back(unused)
        else:
            unused.close()


def system_settings(environ: Mapping[str, str]) -> Mapping[str, str]:
    """``environ``; on macOS and Windows with the proxies of the system's settings, unless it names one itself."""
    has_own = any(environ.get(name) for name in environ if name.lower().endswith("_proxy"))
    if has_own or platform.system() not in ("Darwin", "Windows"):
        return environ
    return {**environ, **{f"{scheme}_proxy": value for scheme, value in urllib.request.getproxies().items()}}
