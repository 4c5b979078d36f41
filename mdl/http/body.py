"""Bytes off the wire into a buffer: fast, cancellable, never past what was announced.

httpx makes the request; its own body loop parses every 64 KiB through h11, and that is where the time
of a large download goes. So for a large body of known length the first chunk is taken from
``iter_raw()``, which empties what the parser holds, and the rest is read straight off the socket: into
one reused buffer, or, for who only puts it into a file, into a pipe where that can be. Small, chunked
and encoded bodies go the ordinary way.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Generator, Iterator, Sized
from contextlib import closing
from typing import TypeVar

import httpx

from mdl.cancel import Cancel
from mdl.errors import NetworkError, ProtocolError
from mdl.http.codings import Decoder, codings_of
from mdl.http.line import within
from mdl.http.pipe import REFUSALS, Pipe, Piped
from mdl.http.throttle import Throttle

BUFFER = 768 * 1024
"""Bytes of one read: what one ``recv_into`` returns is handed on at once."""

_LARGE = 1024 * 1024
_TLS_FILL_SECONDS = 0.02
_AGAIN = "run the same command again; what was fetched is kept"
_TOO_SLOW = "the connection is too slow to go on"
_SLOWEST = 1000.0
_SLOW_WINDOW = 60.0

_Block = TypeVar("_Block", bound=Sized)
_Rest = Callable[[socket.socket, int], Generator[_Block, None, int]]
"""How the so many bytes that are left are read off a socket; tells how many still are when the connection ends."""


class _Pace:
    """Finds the trickle that never quite stalls: less than 1 kB/s over a minute of waiting for it.

    What a rate limit or the disk takes does not count.
    """

    def __init__(self) -> None:
        self._waited, self._bytes = 0.0, 0

    def came(self, size: int, seconds: float) -> None:
        """So many bytes came, after so long a wait. Raises `NetworkError`."""
        self._waited += seconds
        self._bytes += size
        if self._waited < _SLOW_WINDOW:
            return
        if self._bytes < _SLOWEST * self._waited:
            raise NetworkError(f"only {self._bytes} bytes in {self._waited:.0f} s", hint=_TOO_SLOW)
        self._waited, self._bytes = 0.0, 0


class Reader:
    """How bodies are read: ``stall`` is the longest silence in seconds, ``throttle`` holds all bodies together to a
    rate."""

    def __init__(self, cancel: Cancel, stall: float, throttle: Throttle) -> None:
        self._cancel, self._stall, self._throttle = cancel, stall, throttle

    def blocks(
        self, response: httpx.Response, length: int | None, buffer: bytearray, *, decode: bool = True
    ) -> Iterator[memoryview | bytes]:
        """The body in pieces that are valid until the next one is asked for; at most ``length`` bytes.

        ``decode`` undoes what Content-Encoding says; without it the bytes are those of the wire. Raises
        `NetworkError` where the body ends early or the line is silent or a trickle, `ProtocolError` for an encoding
        that cannot be undone, `Cancelled` on cancel; httpx's own errors pass through.
        """

        def rest(sock: socket.socket, left: int) -> Generator[memoryview, None, int]:
            return self._by_memory(sock, left, buffer)

        return self._paced(_pieces(response, length, decode, rest))

    def pourable(
        self, response: httpx.Response, length: int | None, buffer: bytearray, *, decode: bool = True
    ) -> Iterator[memoryview | bytes | Piped]:
        """As `blocks`, but what can go by a pipe does: to be poured before the next one is asked for."""

        def rest(sock: socket.socket, left: int) -> Generator[memoryview | Piped, None, int]:
            pipe = None if isinstance(sock, ssl.SSLSocket) else Pipe.open()
            if pipe:
                with closing(pipe):
                    left = yield from self._by_pipe(sock, left, pipe)
            return (yield from self._by_memory(sock, left, buffer))

        return self._paced(_pieces(response, length, decode, rest))

    def _paced(self, pieces: Iterator[_Block]) -> Iterator[_Block]:
        """Whatever the pieces are: no slower than they may come, no faster than they shall, ended by a cancel."""
        pace, longest = _Pace(), max(_SLOW_WINDOW, self._stall)
        late = NetworkError(f"the server sent nothing of the body for {longest:.0f} s", hint=_TOO_SLOW)
        while True:
            began = time.monotonic()
            with within(longest, late):
                block = next(pieces, None)
            self._cancel.check()
            if block is None:
                return
            pace.came(len(block), time.monotonic() - began)
            self._throttle.take(len(block), self._cancel)
            yield block

    def _by_memory(self, sock: socket.socket, left: int, buffer: bytearray) -> Generator[memoryview, None, int]:
        """Tells how many bytes are left when the connection ends."""
        sock.settimeout(self._stall)
        view = memoryview(buffer)
        fill = isinstance(sock, ssl.SSLSocket)
        while left:
            count, trouble = _receive(sock, view[: min(self._throttle.quantum(len(view)), left)], fill)
            if count:
                left -= count
                yield view[:count]
            if trouble:
                raise trouble
            if count == 0:
                break
        return left

    def _by_pipe(self, sock: socket.socket, left: int, pipe: Pipe) -> Generator[Piped, None, int]:
        """As `_by_memory`; nothing if the socket will not have a pipe."""
        sock.settimeout(self._stall)
        wanted = left
        while left:
            try:
                piped = pipe.draw(sock, min(self._throttle.quantum(pipe.size), left))
            except OSError as error:
                if left == wanted and error.errno in REFUSALS:
                    return left
                raise _broken(sock, error) from error
            if not piped:
                break
            left -= len(piped)
            yield piped
        return left


def _pieces(
    response: httpx.Response, length: int | None, decode: bool, rest: _Rest[_Block]
) -> Iterator[bytes | _Block]:
    codings = codings_of(response.headers) if decode else ()
    if codings:
        yield from _decoded(response, codings)
        return
    if length == 0:
        return
    got = 0
    sock = None if length is None or length < _LARGE else _raw_socket(response)
    stream = response.iter_raw()
    for chunk in stream:
        piece = chunk if length is None else chunk[: length - got]
        got += len(piece)
        if piece:
            yield piece
        if length is not None and (sock is not None or got >= length):
            break
    if length is None or got >= length:
        return
    if sock is None:
        raise _ended(got, length)
    # ``stream`` stays alive below: were it collected, the response would close under the socket.
    left = yield from rest(sock, length - got)
    if left:
        raise _ended(length - left, length)
    del stream


def _decoded(response: httpx.Response, codings: tuple[str, ...]) -> Iterator[bytes]:
    decoder = Decoder(codings)
    for chunk in response.iter_raw():
        yield from decoder.decode(chunk)
    if decoder.is_complete:
        return
    if "content-length" in response.headers or "transfer-encoding" in response.headers:
        raise ProtocolError(f"the server sent a part of a {codings[0]} encoding and called it whole")
    raise NetworkError(f"the connection ended in the middle of a {codings[0]} encoding", hint=_AGAIN)


def _ended(got: int, length: int) -> NetworkError:
    return NetworkError(f"the connection ended after {got} of {length} bytes", hint=_AGAIN)


def socket_of(response: httpx.Response) -> socket.socket | None:
    """The socket an answer comes from, where it is one."""
    stream = response.extensions.get("network_stream")
    found = stream.get_extra_info("socket") if stream is not None else None
    return found if isinstance(found, socket.socket) else None


def _raw_socket(response: httpx.Response) -> socket.socket | None:
    """The socket behind a plain HTTP/1.1 answer, or None where its bytes are not the body's own."""
    if response.http_version != "HTTP/1.1" or "transfer-encoding" in response.headers:
        return None
    sock = socket_of(response)
    secure = isinstance(sock, ssl.SSLSocket)
    return sock if secure == (response.url.scheme == "https") else None


def _receive(sock: socket.socket, view: memoryview, fill: bool) -> tuple[int, NetworkError | None]:
    """One read; on TLS, where a read gives at most 16 KiB, as many as fit in 20 ms."""
    count, began = 0, time.monotonic()
    try:
        count = sock.recv_into(view)
        while fill and 0 < count < len(view) and time.monotonic() - began < _TLS_FILL_SECONDS:
            more = sock.recv_into(view[count:])
            if more == 0:
                break
            count += more
    except OSError as error:
        return count, _broken(sock, error)
    return count, None


def _broken(sock: socket.socket, error: OSError) -> NetworkError:
    if isinstance(error, TimeoutError):
        return NetworkError(f"no byte for {sock.gettimeout():.0f} s", hint=_AGAIN)
    return NetworkError(f"the connection broke: {error.strerror or error}", hint="run the same command again")
