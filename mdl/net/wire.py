"""Wire: which pool of connections a request goes by.

There is one for each proxy, and one apart for requests that may reach private addresses: a connection that was
allowed for one request is never there for another that may not have it. And one apart for TLS: the trusted certificates
are read, which takes a while, when the first request needs them.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Mapping

import httpx

from mdl.cancel import Cancel
from mdl.errors import UsageError
from mdl.net.dialling import Dialler
from mdl.net.proxies import proxies_in, without_userinfo

PROXY, PRIVATE = "mdl.proxy", "mdl.private"
"""Extensions of a request: the URL of the proxy it goes through or None, and whether it may reach private addresses."""


class Wire(httpx.BaseTransport):
    """``trusting`` makes the context for TLS; ``settings`` are the proxies as `urllib.request.getproxies` tells them.
    Raises `UsageError` for what is none."""

    def __init__(
        self, trusting: Callable[[], ssl.SSLContext], limits: httpx.Limits, settings: Mapping[str, str], cancel: Cancel
    ) -> None:
        self._trusting, self._limits, self._dialler = trusting, limits, Dialler(cancel)
        self._pools: dict[tuple[str | None, bool, bool], httpx.HTTPTransport] = {}
        self._lock = threading.Lock()
        for proxy in proxies_in(settings):
            self._check(proxy)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        proxy, is_tls = request.extensions.get(PROXY), request.url.scheme == "https"
        key = proxy, bool(request.extensions.get(PRIVATE)), is_tls
        with self._lock:
            pool = self._pools.get(key)
            if pool is None:
                pool = self._pools[key] = self._opened(proxy, self._trusting() if is_tls else _nobody())
        return pool.handle_request(request)

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


def _nobody() -> ssl.SSLContext:
    """A context that trusts no certificate at all."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
