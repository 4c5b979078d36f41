"""Bytes off the wire into a buffer: fast, cancellable, never past what was announced.

httpx makes the request; its own body loop parses every 64 KiB through h11, and that is where the time
of a large download goes. So for a large body of known length the first chunk is taken from
``iter_raw()``, which empties what the parser holds, and the rest is read straight off the socket into
one reused buffer. Small, chunked and encoded bodies go the ordinary way.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator

import httpx

from mdl.errors import NetworkError
from mdl.net.cancel import Cancel
from mdl.net.throttle import NO_LIMIT, Throttle

BUFFER = 512 * 1024
"""Bytes of one read: what one ``recv_into`` returns is handed on at once."""

_LARGE = 1024 * 1024
_TLS_FILL_SECONDS = 0.02
_AGAIN = "run the same command again; what was fetched is kept"
_SLOWEST = 1000.0
_SLOW_WINDOW = 60.0


class _Pace:
    """Finds the trickle that never quite stalls: less than 1 kB/s over a minute."""

    def __init__(self) -> None:
        self._since, self._bytes = time.monotonic(), 0

    def count(self, size: int, limit: float | None) -> None:
        self._bytes += size
        elapsed = time.monotonic() - self._since
        if elapsed < _SLOW_WINDOW:
            return
        if limit is None and self._bytes < _SLOWEST * elapsed:
            raise NetworkError(
                f"only {self._bytes} bytes in {elapsed:.0f} s", hint="the connection is too slow to go on"
            )
        self._since, self._bytes = time.monotonic(), 0


def blocks(
    response: httpx.Response,
    length: int | None,
    cancel: Cancel,
    stall: float,
    buffer: bytearray,
    throttle: Throttle = NO_LIMIT,
) -> Iterator[memoryview | bytes]:
    """The body in pieces that are valid until the next one is asked for; at most ``length`` bytes.

    ``stall`` is the longest silence in seconds; ``throttle`` holds all bodies together to a rate. Raises
    `NetworkError` where the body ends early or the line is silent, `Cancelled` on cancel; httpx's own errors pass
    through.
    """
    pace = _Pace()
    for block in _pieces(response, length, stall, buffer, throttle):
        cancel.check()
        pace.count(len(block), throttle.rate)
        throttle.take(len(block), cancel)
        yield block
    cancel.check()


def _pieces(
    response: httpx.Response, length: int | None, stall: float, buffer: bytearray, throttle: Throttle
) -> Iterator[memoryview | bytes]:
    encoded = response.headers.get("content-encoding", "identity").lower() not in ("", "identity")
    stream = response.iter_bytes() if encoded else response.iter_raw()
    if length == 0:
        return
    got = 0
    sock = None if length is None or length < _LARGE else _raw_socket(response)
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
    yield from _off_the_socket(sock, length - got, stall, buffer, throttle)
    del stream


def _ended(got: int, length: int) -> NetworkError:
    return NetworkError(f"the connection ended after {got} of {length} bytes", hint=_AGAIN)


def _raw_socket(response: httpx.Response) -> socket.socket | None:
    """The socket behind a plain HTTP/1.1 answer, or None where its bytes are not the body's own."""
    if response.http_version != "HTTP/1.1" or "transfer-encoding" in response.headers:
        return None
    stream = response.extensions.get("network_stream")
    sock = stream.get_extra_info("socket") if stream is not None else None
    if not isinstance(sock, socket.socket):
        return None
    secure = isinstance(sock, ssl.SSLSocket)
    return sock if secure == (response.url.scheme == "https") else None


def _off_the_socket(
    sock: socket.socket, left: int, stall: float, buffer: bytearray, throttle: Throttle
) -> Iterator[memoryview]:
    sock.settimeout(stall)
    view = memoryview(buffer)
    fill = isinstance(sock, ssl.SSLSocket)
    wanted = left
    while left:
        count, trouble = _receive(sock, view[: min(throttle.quantum(len(view)), left)], fill)
        if count:
            left -= count
            yield view[:count]
        if trouble:
            raise trouble
        if count == 0:
            raise _ended(wanted - left, wanted)


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
    except TimeoutError:
        return count, NetworkError(f"no byte for {sock.gettimeout():.0f} s", hint=_AGAIN)
    except OSError as error:
        return count, NetworkError(
            f"the connection broke: {error.strerror or error}", hint="run the same command again"
        )
    return count, None
