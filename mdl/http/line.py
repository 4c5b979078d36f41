"""Line: one connection, and the limits of the request that uses it.

httpx does not tell which connection of its pool a request goes by. So each connection asks, when it is written to or
read, what the calling thread's request may do: which address it may reach, and by when something must have come. A
read that brings one byte now and then never times out by itself, nor do interim answers (1xx) without end.
"""

from __future__ import annotations

import contextlib
import ssl
import time
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import httpcore

from mdl.cancel import Cancel
from mdl.errors import NetworkError, Unsafe
from mdl.http.hosts import is_private


@dataclass
class Errand:
    """One request of the calling thread. ``private_ok`` says that it may reach a private address, ``was_public`` that
    the host was at a public one before. ``peer`` is the address it went to, ``is_fresh`` whether by a connection of its
    own; these two are told by the `Line`."""

    host: str
    private_ok: bool
    was_public: bool = False
    peer: str = ""
    is_fresh: bool = False

    def goes_to(self, peer: str) -> None:
        """Raises `Unsafe` if the request may not go there."""
        if not self.private_ok and is_private(peer):
            why, hint = "", f"if you trust it: MDL_ALLOW_HOSTS={self.host}"
            if self.was_public:
                why, hint = ", and led to a public one before", "find out who controls the DNS records of that name"
            raise Unsafe(f"refused: {self.host} leads to the private address {peer}{why}", item=self.host, hint=hint)
        self.peer = peer

    @contextlib.contextmanager
    def begun(self) -> Iterator[None]:
        """What the calling thread sends meanwhile belongs to this request."""
        self.peer, self.is_fresh = "", False
        token = _errand.set(self)
        try:
            yield
        finally:
            _errand.reset(token)


@dataclass(frozen=True)
class _Due:
    moment: float
    late: NetworkError


_errand: ContextVar[Errand | None] = ContextVar("errand", default=None)
_due: ContextVar[_Due | None] = ContextVar("due", default=None)


@contextlib.contextmanager
def within(seconds: float, late: NetworkError) -> Iterator[None]:
    """However busily bytes trickle in: what the calling thread reads meanwhile by a `Line` comes within ``seconds``, or
    ``late`` is raised."""
    token = _due.set(_Due(time.monotonic() + seconds, late))
    try:
        yield
    finally:
        _due.reset(token)


class Line(httpcore.NetworkStream):
    """A connection of httpcore's. Shut down on cancel. Raises `httpcore.ConnectError` if it is dead already."""

    def __init__(self, stream: httpcore.NetworkStream, cancel: Cancel) -> None:
        self._stream, self._cancel = stream, cancel
        sock = stream.get_extra_info("socket")
        cancel.register(sock)
        try:
            peer = sock.getpeername()
        except OSError as error:
            stream.close()
            raise httpcore.ConnectError(str(error)) from error
        self._peer = str(peer[0]) if isinstance(peer, tuple) else ""

    def opened(self) -> Line:
        """The same, just connected for the calling thread's request. Raises `Unsafe`."""
        if errand := _errand.get():
            errand.is_fresh = True
            try:
                errand.goes_to(self._peer)
            except Unsafe:
                self.close()
                raise
        return self

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        due = _due.get()
        left = due.moment - time.monotonic() if due else None
        if due is None or left is None or (timeout is not None and timeout <= left):
            return self._stream.read(max_bytes, timeout)
        if left <= 0:
            raise due.late
        try:
            return self._stream.read(max_bytes, left)
        except httpcore.ReadTimeout:
            raise due.late from None

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if errand := _errand.get():
            errand.goes_to(self._peer)
        self._stream.write(buffer, timeout)

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return Line(self._stream.start_tls(ssl_context, server_hostname, timeout), self._cancel)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
