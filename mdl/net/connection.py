"""Connections: how one is opened, to the first address that answers (RFC 8305), and what a request may do on it.

A connection is given the limits of each request that it carries: which address the request may reach, until when data
must have come, and what ends it from another thread.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import math
import os
import re
import select
import selectors
import socket
import ssl
import struct
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpcore

from mdl.cancel import CancelToken, wake
from mdl.disk.pool import in_thread
from mdl.errors import NetworkError, Unsafe
from mdl.net.allowlist import bracketed, is_private
from mdl.net.tls import FILL_SECONDS, ByteStream, TlsStream

_EMPTY_LINE = re.compile(rb"\n\r?\n")
"""How the head of a response ends, and a chunked body. The parser takes both kinds of line ends."""
_HEAD_START = 0.25
"""Seconds that an address has for itself before the next one is tried beside it (RFC 8305, 5)."""
_IN_PROGRESS = (0, errno.EINPROGRESS, errno.EWOULDBLOCK)

Address = tuple[int, int, int, Any]
"""Family, type, protocol and the address to connect to."""


class Interrupter:
    """Called from another thread, it ends one request, whether or not its answer has begun."""

    def __init__(self) -> None:
        self.is_set = False
        self._sock: Any = None

    def attach(self, sock: Any) -> None:
        """The request goes over this socket."""
        self._sock = sock
        if self.is_set:
            wake(sock)

    def __call__(self) -> None:
        self.is_set = True
        if self._sock is not None:
            wake(self._sock)


class Deadline:
    """The moment until which a request may be read, however many bytes come until then.

    A read that gets one byte now and then never times out by itself, nor do interim responses (1xx) without end.
    """

    def __init__(self) -> None:
        self._moment = math.inf
        self._error = NetworkError("")

    @contextlib.contextmanager
    def within(self, seconds: float, error: NetworkError) -> Iterator[None]:
        """Have ``error`` raised by a read inside the block that goes on after ``seconds``. Of two blocks, one inside
        the other, the earlier end counts."""
        before = (self._moment, self._error)
        moment = time.monotonic() + seconds
        if moment < self._moment:
            self._moment = moment
            self._error = error
        try:
            yield
        finally:
            self._moment, self._error = before

    def shortened(self, seconds: float | None) -> tuple[float | None, NetworkError | None]:
        """Return how long a read may wait that may wait for ``seconds`` itself, and the error if the deadline ends it
        first. Raises that error if the deadline is over."""
        if self._moment == math.inf:
            return seconds, None
        left = self._moment - time.monotonic()
        if seconds is not None and seconds <= left:
            return seconds, None
        if left <= 0:
            raise self._error
        return left, self._error


@dataclass
class RequestLimits:
    """What one request may do, and how it went.

    ``private_ok``: it may reach a private address. ``was_public``: the host was at a public address before.
    ``interrupter`` ends it from another thread, and ``deadline`` in time.
    `Connection` fills in ``peer``, the IP address that the request went to, and ``is_fresh``: it had a new connection.
    """

    host: str
    private_ok: bool
    was_public: bool = False
    interrupter: Interrupter = field(default_factory=Interrupter)
    deadline: Deadline = field(default_factory=Deadline)
    peer: str = ""
    is_fresh: bool = False

    def check_peer(self, peer: str) -> None:
        """Note the address that the request goes to. Raises `Unsafe` if the request may not go there."""
        if not self.private_ok and is_private(peer):
            why = ""
            hint = f"if you trust it: MDL_ALLOW_HOSTS={bracketed(self.host)}"
            if self.was_public:
                why = ", and led to a public one before"
                hint = "find out who controls the DNS records of that name"
            raise Unsafe(f"refused: {self.host} leads to the private address {peer}{why}", item=self.host, hint=hint)
        self.peer = peer

    def begin(self) -> None:
        """The request is sent now, perhaps once more."""
        self.peer = ""
        self.is_fresh = False


class SocketStream(ByteStream):
    """A connected socket for httpcore, on which a read and a write are one system call each.

    The kernel keeps the time limits. Where Python keeps them, it sets them and polls the socket before each call, and
    gives the interpreter's lock away three times instead of once: that is a tenth of the time of many small files.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._limits = dict[int, float | None]()
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        try:
            self._limit(socket.SO_RCVTIMEO, timeout)
            return self._sock.recv(max_bytes)
        except BlockingIOError:
            raise httpcore.ReadTimeout("timed out") from None
        except OSError as error:
            raise httpcore.ReadError(str(error)) from error

    def receive(self, view: memoryview, seconds: float | None) -> tuple[int, OSError | None]:
        """As that of every stream. A full buffer costs Python no more time than a small piece (ADR 87)."""
        count, error = self.receive_some(view, seconds)
        if count == 0 or count == len(view):
            return count, error
        more, error = self._receive(view[count:], FILL_SECONDS, socket.MSG_WAITALL)
        return count + more, None if isinstance(error, TimeoutError) else error

    def receive_some(self, view: memoryview, seconds: float | None) -> tuple[int, OSError | None]:
        return self._receive(view, seconds, 0)

    def _receive(self, view: memoryview, seconds: float | None, flags: int) -> tuple[int, OSError | None]:
        try:
            self._limit(socket.SO_RCVTIMEO, seconds)
            return self._sock.recv_into(view, 0, flags), None
        except BlockingIOError:
            return 0, TimeoutError("timed out")
        except OSError as error:
            return 0, error

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        try:
            self._limit(socket.SO_SNDTIMEO, timeout)
            while buffer:
                buffer = buffer[self._sock.send(buffer) :]
        except BlockingIOError:
            raise httpcore.WriteTimeout("timed out") from None
        except OSError as error:
            raise httpcore.WriteError(str(error)) from error

    def _limit(self, option: int, seconds: float | None) -> None:
        """Have the kernel end each call after ``seconds``."""
        if self._limits.get(option) != seconds:
            microseconds = 0 if seconds is None else max(1, int(seconds * 1e6))  # 0 is no limit
            timeval = struct.pack("@ll", *divmod(microseconds, 1_000_000))
            self._sock.setsockopt(socket.SOL_SOCKET, option, timeval)
            self._limits[option] = seconds

    def close(self) -> None:
        self._sock.close()

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable":
            return self._sock.fileno() < 0 or bool(self._poll.poll(0))
        return self._sock if info == "socket" else None


class Connection(httpcore.NetworkStream):
    """A connection for httpcore that hands over one response (`detach` makes it one for the next), keeps the limits of
    the request and is shut down on cancel.

    A parser gets no byte that comes after the end of its response. Each head ends with an empty line, and so does each
    chunked body: so a parser gets the bytes up to the next empty line, and of a body whose length is known (``left``)
    just that many. If more came, it is still here when the response is over, and the connection is readable.

    While a chunked body comes so fast that a read brings all that fits, nobody looks for its end, which would take half
    as long again as reading it. If it ends in such a read, the connection counts as readable.
    """

    def __init__(
        self,
        stream: ByteStream,
        cancel: CancelToken,
        limits: RequestLimits,
        peer: str | None = None,
        silence: float | None = None,
    ) -> None:
        """``limits`` are those of the request that it carries, or carried last. ``silence`` is the seconds that a read
        may wait if httpcore gives it no limit, as in the handshake of SOCKS. ``peer`` is the address if it is known: a
        server that has ended the connection right after the handshake may have said why, which is still to be read.
        Raises `httpcore.ConnectError` if the connection is already dead."""
        self._stream = stream
        self._cancel = cancel
        self._came = b""
        self._line_end = b""  # what was handed over last, if an empty line may have begun in it
        self._is_detached = False
        self._is_in_body = False
        self._is_end_unseen = False
        self.limits = limits
        self._silence = silence
        self.left: int | None = None
        """Bytes of the response's body that are still to come; None if that is not known, or if the head is read."""
        self.is_broken = False
        """Whether a request could not be sent whole."""
        sock = stream.get_extra_info("socket")
        cancel.register(sock)
        if peer is None:
            try:
                place = sock.getpeername()
            except OSError as error:
                stream.close()
                raise httpcore.ConnectError(str(error)) from error
            peer = str(place[0]) if isinstance(place, tuple) else ""
        self.peer = peer

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Return what the parser of the response gets next."""
        if not self._came:
            seconds, late = self.limits.deadline.shortened(self._silence if timeout is None else timeout)
            try:
                self._came = self._stream.read(max_bytes, seconds)
            except httpcore.ReadTimeout:
                if late:
                    raise late from None
                raise
        if self.left is not None:
            return self._take(self.left)
        self._is_end_unseen = self._is_in_body and len(self._came) == max_bytes
        if self._is_end_unseen:
            self._line_end = self._came[-2:].replace(b"\n\n", b"\n")
            return self._take(max_bytes)
        return self._take(self._up_to_empty_line())

    def begin_body(self, length: int | None) -> None:
        """The head of the response was read. Its body has so many bytes, if that is known."""
        self._is_in_body = True
        self.left = length

    def receive(self, view: memoryview, seconds: float) -> tuple[int, OSError | None]:
        """Read a body whose length is known into ``view``, past the parser. Returns how many bytes came (0 at the end
        of the body or the connection) and the error that ended it: a `TimeoutError` if nothing came for ``seconds``."""
        assert self.left is not None
        view = view[: self.left]
        if self._came or not view:
            data = self._take(len(view))
            view[: len(data)] = data
            return len(data), None
        patience, late = self.limits.deadline.shortened(seconds)
        count, error = self._stream.receive(view, patience)
        if late and isinstance(error, TimeoutError):
            raise late
        self.left -= count
        return count, error

    def _up_to_empty_line(self) -> int:
        """Return how many of the bytes that came belong to what ends with the next empty line."""
        before = len(self._line_end)
        if empty_line := _EMPTY_LINE.search(self._line_end + self._came[:2]):
            count = empty_line.end() - before
        elif empty_line := _EMPTY_LINE.search(self._came):
            count = empty_line.end()
        else:
            self._line_end = (self._line_end + self._came[-2:])[-2:]
            return len(self._came)
        self._line_end = b""
        return count

    def _take(self, count: int) -> bytes:
        """Return the next ``count`` of the bytes that came, or all."""
        data = self._came[:count]
        self._came = self._came[count:]
        if self.left is not None:
            self.left -= len(data)
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if not buffer:  # of a request without content httpcore writes two of these
            return
        self.limits.check_peer(self.peer)
        self.limits.interrupter.attach(self._stream.get_extra_info("socket"))
        self.is_broken = True
        self._stream.write(buffer, timeout)
        self.is_broken = False

    @property
    def has_more(self) -> bool:
        """Whether bytes came that no parser got."""
        return bool(self._came) or self._is_end_unseen

    def detach(self) -> Connection:
        """Return the same connection for another parser. From now on this one is not closed by closing it here."""
        self._is_detached = True
        return Connection(self._stream, self._cancel, self.limits, self.peer)

    def close(self) -> None:
        if not self._is_detached:
            self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        name = server_hostname and server_hostname.strip("[]")  # of a host behind a proxy
        return Connection(TlsStream(self._stream, ssl_context, name, timeout), self._cancel, self.limits, self.peer)

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable" and self.has_more:
            return True
        return self._stream.get_extra_info(info)


class HappyEyeballs(httpcore.SyncBackend):
    """Opens the connection for one request of httpcore, to the first address of a host that answers."""

    def __init__(self, cancel: CancelToken, limits: RequestLimits, silence: float | None = None) -> None:
        """``silence``: see `Connection`."""
        self._cancel = cancel
        self._limits = limits
        self._silence = silence
        self._opened: Connection | None = None

    def close(self) -> None:
        """Close the connection that was opened, if one was."""
        if self._opened:
            self._opened.close()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Raises `httpcore.ConnectTimeout`, `httpcore.ConnectError`, `Cancelled`, `Unsafe`."""
        try:
            places = _resolve(host, port, self._cancel)
            sock = connect_first(places, math.inf if timeout is None else timeout, self._cancel)
            for option in (*(socket_options or ()), (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)):
                sock.setsockopt(*option)
        except TimeoutError as error:
            raise httpcore.ConnectTimeout(str(error)) from error
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from error
        connection = Connection(SocketStream(sock), self._cancel, self._limits, silence=self._silence)
        self._opened = connection
        self._limits.is_fresh = True
        try:
            self._limits.check_peer(connection.peer)  # before anything is sent, a TLS handshake included
        except Unsafe:
            connection.close()
            raise
        return connection


def _resolve(host: str, port: int, cancel: CancelToken) -> list[Address]:
    """`resolve`, but the main thread does not wait for it past a cancel, because no signal ends a look-up.

    Raises `OSError`, `Cancelled`.
    """
    if threading.current_thread() is not threading.main_thread():
        return resolve(host, port)
    return in_thread(lambda: resolve(host, port), cancel.check)


def resolve(host: str, port: int) -> list[Address]:
    """Return the addresses of ``host``, its two families in turn (RFC 8305, 4). Raises `OSError`."""
    by_family: dict[int, list[Address]] = {}
    for family, kind, proto, _, place in socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM):
        by_family.setdefault(family, []).append((family, kind, proto, place))
    in_turn = itertools.chain.from_iterable(itertools.zip_longest(*by_family.values()))
    return list(filter(None, in_turn))


def connect_first(places: list[Address], seconds: float, cancel: CancelToken) -> socket.socket:
    """Return a connection to the first of ``places`` that accepts one (RFC 8305).

    A silent address costs a quarter of a second, not ``seconds``: then the next one is tried beside it. All of them
    together have ``seconds``. Raises `TimeoutError`, `OSError`, `Cancelled`.
    """
    until = time.monotonic() + seconds
    head_start = min(_HEAD_START, seconds / (len(places) + 1))
    queue = deque(places)
    errors = list[OSError]()
    with selectors.DefaultSelector() as race:
        try:
            while queue or race.get_map():
                try:
                    if queue:
                        race.register(_start_connecting(queue.popleft()), selectors.EVENT_WRITE)
                    ready = race.select(max(0.0, min(head_start, until - time.monotonic())))
                    cancel.check()
                    if ready:
                        return _finish_connecting(ready[0][0].fileobj, race)
                except OSError as error:
                    errors.append(error)
                if time.monotonic() >= until:
                    raise TimeoutError("timed out")
        finally:
            for key in list(race.get_map().values()):
                key.fileobj.close()  # type: ignore[union-attr]
    raise errors[0] if errors else OSError("the name has no address")


def _start_connecting(place: Address) -> socket.socket:
    """Return a socket that has begun to connect. Raises `OSError` if that fails at once."""
    sock = socket.socket(*place[:3])
    sock.setblocking(False)
    _check_connecting(sock, sock.connect_ex(place[3]))
    return sock


def _finish_connecting(sock: Any, race: selectors.BaseSelector) -> socket.socket:
    """Return a socket of the race that has connected, blocking again. Raises `OSError` if it could not connect."""
    assert isinstance(sock, socket.socket)
    race.unregister(sock)
    _check_connecting(sock, sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
    sock.setblocking(True)
    return sock


def _check_connecting(sock: socket.socket, code: int) -> None:
    if code not in _IN_PROGRESS:
        sock.close()
        raise OSError(code, os.strerror(code))
