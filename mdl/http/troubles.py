"""Troubles: httpx's errors as mdl's own, with the host that was asked and without what was sent to it in secret."""

from __future__ import annotations

import contextlib
import re
import ssl
from collections.abc import Iterator

import httpx

from mdl.errors import AuthError, MdlError, NetworkError, ProtocolError, TlsError, Unsafe
from mdl.http.hosts import host_of
from mdl.http.proxies import without_userinfo
from mdl.http.wire import PROXY
from mdl.http.words import PROXY_PASSWORD, quoted
from mdl.redact import Secrets, redact_error

_DUMP = re.compile(r"\W*\b(bytearray\()?b(['\"]).*", re.DOTALL)
"""The bytes that the parser quotes."""
_AGAIN = "run the same command again; what was fetched is kept"


@contextlib.contextmanager
def translated(url: str, secrets: Secrets) -> Iterator[None]:
    """httpx's errors as mdl's own, with the host. No error that comes out holds one of the ``secrets`` that were sent,
    whatever the server repeated."""
    try:
        try:
            yield
        except httpx.HTTPError as error:
            raise _translate(error, url, secrets) from error
        except httpx.StreamError as error:
            raise NetworkError(f"{host_of(url)}: {error}") from error
    except Exception as error:
        redact_error(error, secrets)
        raise


def _translate(error: httpx.HTTPError, url: str, secrets: Secrets) -> MdlError:
    host, proxy = _whereabouts(error, url)
    words = quoted(str(error), secrets) or type(error).__name__
    if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError)):
        return _unconnected(error, host, proxy, words)
    if isinstance(error, httpx.TimeoutException):
        return NetworkError(f"{host} was silent for too long", hint=_AGAIN)
    if isinstance(error, httpx.UnsupportedProtocol):
        return Unsafe(f"refused: {words}", item=host)
    if isinstance(error, httpx.RemoteProtocolError):
        dropped = ("peer closed", "Server disconnected")
        if "location header" in words:
            return Unsafe(f"refused: {host} redirects to an unusable URL", item=host)
        if words.startswith(dropped):
            return NetworkError(f"{host} dropped the connection: {words}", hint=_AGAIN)
        return ProtocolError(f"{host} does not speak HTTP properly: {_DUMP.sub('', words)}")
    return NetworkError(f"{host}: {words}", hint=_AGAIN)


def _unconnected(error: httpx.TransportError, host: str, proxy: str | None, words: str) -> MdlError:
    """There was no way to the host: its TLS, its proxy, or the network between."""
    cause = _cause(error, ssl.SSLError)
    if isinstance(error, httpx.ProxyError):
        if words.startswith("407"):
            return AuthError(f"the proxy for {host} answered {words}", hint=PROXY_PASSWORD)
        return NetworkError(f"the proxy for {host}: {words}", hint="check the proxy; mdl doctor shows the variables")
    if isinstance(cause, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        return NetworkError(f"{host} hung up during the TLS handshake", hint=_AGAIN)
    if cause is not None and isinstance(error, httpx.ConnectError):
        return TlsError(f"{host}: {cause}", hint="check the clock, SSL_CERT_FILE and the proxy; mdl doctor tells more")
    where = f"the proxy {proxy} for {host}" if proxy else host
    if isinstance(error, httpx.ConnectTimeout):
        return NetworkError(f"{where} did not take the connection in time", hint=_AGAIN)
    return NetworkError(f"no connection to {where}: {words}", hint="check the network, the host's name and the proxy")


def _whereabouts(error: httpx.HTTPError, url: str) -> tuple[str, str | None]:
    """The host that was asked, a redirect's where one was followed, and the proxy between, without its secret."""
    try:
        request = error.request
    except RuntimeError:
        return host_of(url), None
    proxy = request.extensions.get(PROXY)
    return host_of(str(request.url)), without_userinfo(proxy) if proxy else None


def _cause(error: BaseException, kind: type[BaseException]) -> BaseException | None:
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, kind):
            return seen
        seen = seen.__cause__ or seen.__context__
    return None
