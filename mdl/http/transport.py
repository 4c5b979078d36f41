"""The transport: which connection carries a request, through which proxy, which certificates it trusts, and
what its errors mean.

Each connection is in a pool of its own, which carries one request at a time. One large pool would look at all of its
connections for every request, and the number of them decides how soon small files come. The one used last is used next.
Reading the trusted certificates takes a while: it is done when the first request needs them. If more bytes came on a
connection than its response, the connection is closed: the next response must not begin with them.
"""

from __future__ import annotations

import contextlib
import platform
import re
import ssl
import threading
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx
from socksio import SOCKSError

from mdl.cancel import CancelToken
from mdl.errors import AuthError, MdlError, NetworkError, ProtocolError, Unsafe
from mdl.http.allowlist import DEFAULT_PORTS, bracketed, host_of, port_of
from mdl.http.connection import HappyEyeballs, RequestLimits
from mdl.http.hints import not_http_hint, proxy_login_hint, proxy_trouble_hint
from mdl.http.proxies import Proxy
from mdl.http.refusals import safe_excerpt
from mdl.http.tls_errors import AGAIN, SILENCE, tls_error
from mdl.http.trust import Trust, empty_context
from mdl.redact import Secrets, redact_error

SKIP_BODY = "mdl.skip_body"
"""An extension of a response: `_OneResponse.skip`."""
PROXY = "mdl.proxy"
"""An extension of a request: the `Proxy` that it goes through, or None."""
PROXY_OFFERS = "mdl.proxy_offers"
"""An extension of a request: the ways to sign in that its proxy named when it refused a tunnel."""
TRUST = "mdl.trust"
"""An extension of a request: the `Trust` that makes its TLS context."""
_ONE = httpx.Limits(max_connections=1, max_keepalive_connections=1)
_PARSER_DUMP = re.compile(r"\W*\b(bytearray\()?b(['\"]).*", re.DOTALL)
"""The received bytes, as the parser quotes them in its errors."""
_DROPPED = ("peer closed", "Server disconnected")
"""How errors begin that mean a connection that ended, not a server that breaks the protocol."""
_REFUSED_BY_PROXY = ("407", "Invalid username/password", "Requested ")
"""How the errors of a proxy begin that wants another user or password: those of HTTP and of SOCKS5."""
_ERRNO = re.compile(r"\[Errno (-?\d+)\] (.*)")
"""How the system's errors begin; the numbers of a failed look-up of a name are negative."""


class PooledTransport(httpx.BaseTransport):
    """Sends requests over connections that are kept, each through the proxy that its extension `PROXY` names. At most
    ``most_idle`` connections are kept.
    """

    def __init__(self, most_idle: int, cancel: CancelToken, trust: Trust) -> None:
        self._most_idle, self._backend, self._trust = most_idle, HappyEyeballs(cancel), trust
        self._idle: list[tuple[tuple[object, ...], httpx.HTTPTransport]] = []
        self._lock = threading.Lock()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        proxy: Proxy | None = request.extensions.get(PROXY)
        request.extensions[TRUST] = self._trust
        if proxy and request.url.scheme == "https":
            request.extensions["trace"] = _offers_listener(request)
        place = (proxy.url if proxy else None, request.url.scheme, request.url.host, request.url.port)
        pool = self._take(*place)
        if ":" in request.url.host and proxy and not proxy.is_socks:
            request.url = _AddressForProxy(request.url)
        try:
            with _socks_errors(request, proxy):
                response = pool.handle_request(request)
        except BaseException:
            pool.close()
            raise
        connection = response.extensions.get("network_stream")
        response.stream = one = _OneResponse(response.stream, connection, lambda: self._give_back(place, pool))
        response.extensions[SKIP_BODY] = one.skip
        return response

    def close(self) -> None:
        with self._lock:
            idle, self._idle, self._most_idle = self._idle, [], 0
        for _, pool in idle:
            pool.close()

    def _take(self, proxy: str | None, scheme: str, host: str, port: int | None) -> httpx.HTTPTransport:
        with self._lock:
            for at in reversed(range(len(self._idle))):
                if self._idle[at][0] == (proxy, scheme, host, port):
                    return self._idle.pop(at)[1]
        context = self._trust.context(_plain(host), port or DEFAULT_PORTS["https"]) if scheme == "https" else None
        return self._open_pool(proxy, context or empty_context())

    def _give_back(self, place: tuple[object, ...], pool: httpx.HTTPTransport) -> None:
        """Keep the connection, and close the one that was idle for longest if there are too many."""
        with self._lock:
            if pool._pool.connections:
                self._idle.append((place, pool))
            dead = [self._idle.pop(0)[1]] if len(self._idle) > self._most_idle else []
        for one in dead:
            one.close()

    def _open_pool(self, proxy: str | None, context: ssl.SSLContext) -> httpx.HTTPTransport:
        through = httpx.Proxy(proxy) if proxy else None
        if through and through.url.scheme == "https":
            through.ssl_context = self._trust.context(_plain(through.url.host), port_of(str(through.url)))
        pool = httpx.HTTPTransport(verify=context, limits=_ONE, proxy=through, trust_env=False)
        # httpcore accepts a backend, but httpx has no parameter for it. Without ours no address would be checked.
        if not hasattr(pool._pool, "_network_backend"):
            raise AssertionError("this version of httpcore has no network backend to replace")
        pool._pool._network_backend = self._backend
        return pool


def _plain(host: str) -> str:
    """A host as `host_of` writes it."""
    return host.rstrip(".").lower()


@contextlib.contextmanager
def _socks_errors(request: httpx.Request, proxy: Proxy | None) -> Iterator[None]:
    """Inside the block the errors of a server that does not speak SOCKS5 are `httpx.ProxyError`. httpcore lets those of
    socksio through, asserts that the answers are of the right kind, and leaves the connection open."""
    try:
        yield
    except httpx.ProxyError:
        _close_opened()
        raise
    except (AssertionError, ValueError, IndexError, KeyError, SOCKSError) as error:
        if proxy is None or not proxy.is_socks or isinstance(error, httpx.InvalidURL):
            raise
        _close_opened()
        raise httpx.ProxyError("it does not speak SOCKS5", request=request) from error


def _offers_listener(request: httpx.Request) -> Callable[[str, Mapping[str, Any]], None]:
    """Listens to what httpcore does for a request, and notes how a proxy that refuses a tunnel wants to be signed in
    to: the error has its status alone."""

    def listen(name: str, facts: Mapping[str, Any]) -> None:
        if name == "http11.receive_response_headers.complete" and facts["return_value"][1] == 407:
            headers = facts["return_value"][3]
            offers = [value.decode("latin-1") for key, value in headers if key.lower() == b"proxy-authenticate"]
            request.extensions[PROXY_OFFERS] = ", ".join(offers)

    return listen


def _close_opened() -> None:
    """Close the connection that was opened for the calling thread's request."""
    limits = RequestLimits.current.get()
    if limits and limits.opened:
        limits.opened.close()


class _AddressForProxy(httpx.URL):
    """A URL with an IPv6 address. httpcore writes the host as it gets it into what it asks a proxy for, and gets it
    without the brackets that it needs there."""

    @property
    def raw_host(self) -> bytes:
        return b"[" + super().raw_host + b"]"


class _OneResponse(httpx.SyncByteStream):
    """A response's body. When it is closed and more bytes than the response have come, the connection is closed too.

    Bytes that come later make the idle connection readable, and httpcore does not use a readable connection again.
    """

    def __init__(self, stream: Any, connection: Any, give_back: Callable[[], None]) -> None:
        self._stream, self._connection, self._give_back = stream, connection, give_back
        self._is_closed = False

    def __iter__(self) -> Iterator[bytes]:
        yield from self._stream

    def skip(self, count: int) -> bool:
        """Tell the parser that the last ``count`` bytes of the body were read straight off the socket. Returns whether
        the rest of the stream can be read now, which is nothing but the end, and the connection be used again."""
        if self._connection.get_extra_info("is_readable"):
            return False  # there are more bytes than the response, or the connection has ended
        try:
            reader = self._stream._httpcore_stream._stream._connection._h11_state._reader
            if reader._remaining != count:
                return False
        except AttributeError:
            return False
        reader._remaining = 0
        return True

    def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        # Neither httpx nor httpcore has a public way to ask the parser what it holds after the response. If the parser
        # is not found where it is expected, no connection is used twice.
        try:
            has_more = bool(self._stream._httpcore_stream._stream._connection._h11_state.trailing_data[0])
        except AttributeError:
            has_more = True
        if has_more and self._connection is not None:
            self._connection.close()
        try:
            self._stream.close()
        finally:
            self._give_back()


def system_settings(environ: Mapping[str, str]) -> Mapping[str, str]:
    """``environ``; on macOS and Windows with the proxies of the system's settings, unless it names one itself."""
    has_own = any(environ.get(name) for name in environ if name.lower().endswith("_proxy"))
    if has_own or platform.system() not in ("Darwin", "Windows"):
        return environ
    return {**environ, **{f"{scheme}_proxy": value for scheme, value in urllib.request.getproxies().items()}}


@contextlib.contextmanager
def map_httpx_errors(url: str, secrets: Secrets) -> Iterator[None]:
    """Inside the block httpx's errors become mdl's own, with the name of the host.

    No error that leaves the block contains one of the ``secrets`` that were sent, whatever the server repeated.
    """
    try:
        try:
            yield
        except httpx.HTTPError as error:
            raise _map_error(error, url, secrets) from error
        except httpx.StreamError as error:
            raise NetworkError(f"{host_of(url)}: {error}") from error
    except Exception as error:
        redact_error(error, secrets)
        raise


def _map_error(error: httpx.HTTPError, url: str, secrets: Secrets) -> MdlError:
    proxy: Proxy | None = None
    with contextlib.suppress(RuntimeError):  # an error that belongs to no request
        url, proxy = str(error.request.url), error.request.extensions.get(PROXY)
    host = host_of(url)
    words = safe_excerpt(str(error), secrets) or type(error).__name__
    if not isinstance(error, httpx.TimeoutException) and (broken := _tls_cause(error)):
        return broken_tls(broken, error.request, is_open=not isinstance(error, httpx.ConnectError))
    if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError)):
        return _map_connect_error(error, url, proxy, words)
    where = f"{host} (through the proxy {proxy.shown})" if proxy else host
    if isinstance(error, httpx.TimeoutException):
        return NetworkError(f"{where} was silent for too long", hint=SILENCE, is_silence=True)
    if isinstance(error, httpx.UnsupportedProtocol):
        return Unsafe(f"refused: {words}", item=host)
    if isinstance(error, httpx.RemoteProtocolError):
        if "location header" in words:
            return Unsafe(f"refused: {host} redirects to an unusable URL", item=host)
        if words.startswith(_DROPPED):
            return NetworkError(f"{where} dropped the connection: {words}", hint=AGAIN)
        message = f"{where} does not speak HTTP properly: {_PARSER_DUMP.sub('', words)}"
        return ProtocolError(message, hint=not_http_hint(words, url))
    return NetworkError(f"{where}: {words}", hint=AGAIN)


def _tls_cause(error: httpx.HTTPError) -> ssl.SSLError | None:
    """The error of TLS that an error of httpx comes from."""
    cause: BaseException | None = error
    while cause is not None and (not isinstance(cause, ssl.SSLError) or isinstance(cause, ssl.SSLWantReadError)):
        cause = cause.__cause__ or cause.__context__
    return cause


def broken_tls(cause: ssl.SSLError, request: httpx.Request, *, is_open: bool) -> MdlError:
    """The error for a request whose TLS connection failed by ``cause``; ``is_open``: after the handshake."""
    trust: Trust = request.extensions[TRUST]
    proxy: Proxy | None = request.extensions.get(PROXY)
    url = str(request.url)
    settings = trust.settings_of(host_of(url), port_of(url))
    shown = settings.cert if settings else None
    error = tls_error(cause, url, certificate=str(shown or ""), unread=trust.unread, is_open=is_open)
    if proxy and proxy.url.startswith("https:"):
        error.message += f" (the TLS may be that of the proxy {proxy.shown}, which {proxy.variable} names)"
    return error


def _map_connect_error(error: httpx.TransportError, url: str, proxy: Proxy | None, words: str) -> MdlError:
    """The error for a host that could not be reached: because of its TLS, its proxy, or the network between."""
    host = host_of(url)
    if isinstance(error, httpx.ProxyError):
        if words.startswith(_REFUSED_BY_PROXY):
            hint = proxy_login_hint(proxy, error.request.extensions.get(PROXY_OFFERS, ""))
            return AuthError(f"the proxy for {host} answered: {words}", hint=hint)
        hint = proxy_trouble_hint(url, proxy) if proxy else "check the proxy; mdl doctor shows the variables"
        return NetworkError(f"the proxy for {host}: {words}", hint=hint)
    numbered = _ERRNO.fullmatch(words)
    has_address = not numbered or numbered[1] >= "0"
    port = urlsplit(url).port if has_address else None  # a name has none
    place = f"{bracketed(host)}:{port}" if port else host
    where = f"the proxy {proxy.shown} for {place}" if proxy else place
    if isinstance(error, httpx.ConnectTimeout):
        return NetworkError(f"{where} did not accept the connection in time", hint=AGAIN)
    problem = f"no connection to {where}" if has_address else f"cannot resolve {where}"
    reason = numbered[2] if numbered else words
    hint = proxy_trouble_hint(url, proxy) if proxy else "check the network and the host's name"
    return NetworkError(f"{problem}: {reason}", hint=hint)
