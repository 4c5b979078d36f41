"""Wire: which pool of connections a request goes by, and which connection may carry another one.

There is one pool for each proxy, and one apart for TLS: the trusted certificates are read, which takes a while, when
the first request needs them. One connection, one answer: where anything came behind an answer's end, the connection
is closed.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import httpx

from mdl.cancel import Cancel
from mdl.errors import UsageError
from mdl.http.dialling import Dialler
from mdl.http.proxies import proxies_in, without_userinfo

PROXY = "mdl.proxy"
"""An extension of a request: the URL of the proxy it goes through, or None."""


class Wire(httpx.BaseTransport):
    """``trusting`` makes the context for TLS; ``settings`` are the proxies as `urllib.request.getproxies` tells them.
    Raises `UsageError` for what is none."""

    def __init__(
        self, trusting: Callable[[], ssl.SSLContext], limits: httpx.Limits, settings: Mapping[str, str], cancel: Cancel
    ) -> None:
        self._trusting, self._limits, self._dialler = trusting, limits, Dialler(cancel)
        self._pools: dict[tuple[str | None, bool], httpx.HTTPTransport] = {}
        self._lock = threading.Lock()
        for proxy in proxies_in(settings):
            self._check(proxy)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        proxy, is_tls = request.extensions.get(PROXY), request.url.scheme == "https"
        with self._lock:
            pool = self._pools.get((proxy, is_tls))
            if pool is None:
                pool = self._pools[proxy, is_tls] = self._opened(proxy, self._trusting() if is_tls else _nobody())
        response = pool.handle_request(request)
        if (connection := response.extensions.get("network_stream")) is not None:
            response.stream = _OneAnswer(response.stream, connection)
        return response

    def close(self) -> None:
        for pool in self._pools.values():
            pool.close()

    def _opened(self, proxy: str | None, context: ssl.SSLContext) -> httpx.HTTPTransport:
        pool = httpx.HTTPTransport(verify=context, limits=self._limits, proxy=proxy, trust_env=False)
        pool._pool._network_backend = self._dialler  # httpcore takes one, httpx hands none on
        return pool

    def _check(self, proxy: str) -> None:
        try:
            self._opened(proxy, _nobody()).close()
            without_userinfo(proxy)
        except (ImportError, ValueError, httpx.InvalidURL) as error:
            words = "not a URL" if isinstance(error, httpx.InvalidURL) else str(error)  # it may quote a password
            raise UsageError(
                f"unusable proxy setting: {words}", hint="check HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY"
            ) from None


class _OneAnswer(httpx.SyncByteStream):
    """An answer's body. In the end its connection is closed if more than the answer has come on it; what comes later
    still makes an idle connection readable, and httpcore uses none that is."""

    def __init__(self, stream: Any, connection: Any) -> None:
        self._stream, self._connection = stream, connection

    def __iter__(self) -> Iterator[bytes]:
        yield from self._stream

    def close(self) -> None:
        if _has_more(self._stream):
            self._connection.close()
        self._stream.close()


def _has_more(stream: Any) -> bool:
    """Whether bytes are left that the parser took off the wire. Neither httpx nor httpcore tells, so the parser itself
    is asked; where it is no longer found there, the answer is yes: no connection is used twice."""
    try:
        return bool(stream._httpcore_stream._stream._connection._h11_state.trailing_data[0])
    except AttributeError:
        return True


def _nobody() -> ssl.SSLContext:
    """A context that trusts no certificate at all."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
