"""Sending one request: how long its answer may take, and what happens if its connection was dead."""

from __future__ import annotations

import contextlib
import logging
import math
import threading
from collections.abc import Iterator

import httpx

from mdl.cancel import CancelToken
from mdl.errors import NetworkError
from mdl.net.certificates import Trust
from mdl.net.connection import Connection, Deadline, RequestLimits
from mdl.net.connection_errors import SILENCE
from mdl.net.headers import parse_size
from mdl.net.policy import Limits
from mdl.net.transport import PooledTransport

_LOGGERS = ("httpx", "httpcore.connection", "httpcore.http11", "httpcore.proxy")
_STORING_SECONDS = 600.0
"""How long a server may take to store what it was sent, before it answers."""
_DRAIN_SECONDS = 0.5
"""How long reading a redirect's body may take. After that its connection is closed."""
SMALL_BODY = 64 * 1024
"""Bytes of a refusal that are read at most, and of a redirect's body if the connection is to be kept."""
_DEAD = (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)
"""How a request fails on a connection that the server has closed meanwhile."""


class _QuietRequests(logging.Filter):
    """Keeps mdl's own requests out of the log of httpx and httpcore, which has URLs and Location headers that may be
    signed. mdl reports its requests by events. Requests that a program makes by itself are logged as ever."""

    def __init__(self) -> None:
        super().__init__()
        self._loggers = [logging.getLogger(name) for name in _LOGGERS]
        self._sending: set[int] = set()
        for logger in self._loggers:
            logger.addFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        """Return False for what is logged by a thread that sends a request of mdl's."""
        return threading.get_ident() not in self._sending

    @contextlib.contextmanager
    def sending(self) -> Iterator[None]:
        """Inside the block nothing is logged of what the calling thread does."""
        thread = threading.get_ident()
        self._sending.add(thread)
        try:
            yield
        finally:
            self._sending.discard(thread)

    def close(self) -> None:
        for logger in self._loggers:
            logger.removeFilter(self)


class Sender:
    """Sends requests, each on a connection of its own; for any number of threads. Close it when done."""

    def __init__(self, limits: Limits, cancel: CancelToken, trust: Trust) -> None:
        self.transport: httpx.BaseTransport = PooledTransport(limits.connections + 4, cancel, trust)
        self._cancel = cancel
        self._stall = limits.stall
        self._timeout = httpx.Timeout(limits.stall, connect=limits.connect).as_dict()
        self._quiet = _QuietRequests()

    def close(self) -> None:
        self.transport.close()
        self._quiet.close()

    def send(self, request: httpx.Request, limits: RequestLimits, patience: float) -> httpx.Response:
        """Return the response, its body unread. It may take ``patience`` seconds to come. A body that is sent in blocks
        may take any time, as each block has its own time limit, and then `_STORING_SECONDS`.

        If a connection that was used before has closed since, or turns out to be out of step, the request is sent again
        on another one, but not a POST. That ends, because each such connection had carried a response.
        """
        head_seconds = patience
        is_upload = not isinstance(request.stream, httpx.ByteStream)
        if is_upload:
            patience = _STORING_SECONDS
            head_seconds = math.inf
        request.extensions["timeout"] = {**self._timeout, "read": max(self._stall, patience)}
        while True:
            limits.begin()
            try:
                with self._within(limits.deadline, head_seconds), self._quiet.sending():
                    response = self.transport.handle_request(request)
            except httpx.RequestError as error:
                error.request = request
                self._cancel.check()
                if request.method == "POST" or not _may_be_stale(error, limits):
                    raise
            else:
                response.request = request
                return response

    def refusal_deadline(self, response: httpx.Response) -> contextlib.AbstractContextManager[None]:
        """Return what ends the reading of the words of a refusal after twice the longest silence."""
        return self._within(_deadline_of(response), 0.0)

    def _within(self, deadline: Deadline, patience: float) -> contextlib.AbstractContextManager[None]:
        """Return what ends the reading of a response's head after twice the longest silence, or ``patience``
        seconds."""
        seconds = max(2 * self._stall, patience)
        words = f"the server did not send its complete response headers within {seconds:.0f} s"
        return deadline.within(seconds, NetworkError(words, hint=SILENCE, is_silence=True))


def _may_be_stale(error: httpx.RequestError, limits: RequestLimits) -> bool:
    """Return whether a request may have failed because its connection was used before, and has closed since."""
    if limits.interrupter.is_set:
        return False
    was_used_before = bool(limits.peer) and not limits.is_fresh
    return was_used_before and isinstance(error, _DEAD)


def drain(response: httpx.Response) -> None:
    """Read a redirect's small body so that its connection can be used again. Leave a large or slow one unread."""
    length = parse_size(response.headers.get("content-length", ""))
    if length is not None and length <= SMALL_BODY:
        late = NetworkError("the server did not finish the body of a redirect in time")
        with contextlib.suppress(httpx.HTTPError, NetworkError), _deadline_of(response).within(_DRAIN_SECONDS, late):
            for _ in response.iter_raw():
                pass
    response.close()


def _deadline_of(response: httpx.Response) -> Deadline:
    """Return what ends the reading of a response; of one that comes over no connection it ends nothing."""
    connection = response.extensions.get("network_stream")
    return connection.limits.deadline if isinstance(connection, Connection) else Deadline()
