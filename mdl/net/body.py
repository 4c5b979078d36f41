"""Bodies off the wire: fast, cancellable, within the rate limit, and never more bytes than were announced.

httpx makes the request. Its own body loop parses every 64 KiB through h11, which takes most of the time of a large
download. So a body whose length the server announces is read from the connection (`Connection.receive`) into one reused
buffer, off the socket or through `mdl.net.tls`. Chunked and encoded bodies are read the ordinary way.
"""

from __future__ import annotations

import ssl
import threading
import time
import zlib
from collections.abc import Generator, Iterable, Iterator

import httpx

from mdl.cancel import CancelToken
from mdl.errors import MdlError, NetworkError, ProtocolError
from mdl.net.connection import Connection
from mdl.net.connection_errors import AGAIN, SILENCE, broken_tls
from mdl.net.responses import codings_of, is_readable, unreadable
from mdl.net.throttle import Throttle

STEP = 256 * 1024
"""Bytes of one decoded piece, at most."""

_BUFFER = 768 * 1024
"""Bytes of a read buffer. What one ``recv_into`` returns is handed on at once."""
_TLS_BUFFER = 512 * 1024
"""Bytes of it that are used under TLS, which needs memory of its own beside it."""
_TOO_SLOW = "the connection is too slow to continue"
_SLOWEST = 1000.0
"""Bytes a second that a body must bring, on average while it is waited for."""

Block = memoryview | bytes


class BodyReader:
    """Reads bodies. ``stall`` is the longest silence in seconds. A body that is too slow is given up after ``slow``
    seconds of waiting for it. ``throttle`` is the rate limit of all bodies together."""

    def __init__(self, cancel: CancelToken, stall: float, slow: float, throttle: Throttle) -> None:
        self._cancel = cancel
        self._stall = stall
        self._slow = slow
        self._throttle = throttle
        self._buffers = threading.local()

    def blocks(
        self, response: httpx.Response, length: int | None, *, decode: bool, first_byte: float = 0.0
    ) -> Iterator[Block]:
        """Yield the body in blocks, at most ``length`` bytes. Each block is valid until the thread asks for the next
        one. The first may take ``first_byte`` seconds, if that is more than the longest silence.

        ``decode``: undo what Content-Encoding says; otherwise the bytes are those on the wire. Raises `NetworkError`
        if the body ends early, or if the connection is silent or brings less than 1 kB/s; `ProtocolError` for an
        encoding that cannot be decoded; `Cancelled`. httpx's own errors pass through.
        """
        pieces = self._pieces(response, length, first_byte, decode=decode)
        waited = 0.0
        count = 0
        block = next(pieces, None)
        self._cancel.check()
        while block is not None:
            if waited >= self._slow:
                if count < _SLOWEST * waited:
                    raise NetworkError(f"only {count} bytes in {waited:.0f} s", hint=_TOO_SLOW)
                waited = 0.0
                count = 0
            self._throttle.take(len(block), self._cancel)
            yield block
            began = time.monotonic()
            block = next(pieces, None)
            self._cancel.check()
            if block is not None:
                waited += time.monotonic() - began
                count += len(block)

    def _pieces(
        self, response: httpx.Response, length: int | None, first_byte: float, *, decode: bool
    ) -> Iterator[Block]:
        """Return the body as it comes: past the parser if the server announced its length, and it need not be
        decoded."""
        connection = response.extensions.get("network_stream")
        is_coded = decode and len(codings_of(response.headers)) > 0
        if not isinstance(connection, Connection):  # a locator's own
            return _decoded(response) if is_coded else _parsed(response, length)
        if connection.left is not None and not is_coded:
            return self._straight(response, connection, length, first_byte)
        pieces = _decoded(response) if is_coded else _parsed(response, length)
        return self._in_time(pieces, connection, first_byte)

    def _in_time(self, pieces: Iterator[Block], connection: Connection, first_byte: float) -> Iterator[Block]:
        """Yield the ``pieces``, each of which may take many reads: raises `NetworkError` for one that takes too
        long."""
        longest = max(self._slow, self._stall)
        first = max(longest, first_byte)
        deadline = connection.limits.deadline
        with deadline.within(first, _nothing_after_head(first)):
            piece = next(pieces, None)
        silent = NetworkError(f"the server sent nothing of the body for {longest:.0f} s", hint=_TOO_SLOW)
        while piece is not None:
            yield piece
            with deadline.within(longest, silent):
                piece = next(pieces, None)

    def _straight(
        self, response: httpx.Response, connection: Connection, length: int | None, first_byte: float
    ) -> Iterator[Block]:
        """Yield a body that the server announced the length of, past httpx and its parser."""
        if not hasattr(self._buffers, "data"):
            self._buffers.data = bytearray(_BUFFER)
        is_tls = connection.get_extra_info("ssl_object") is not None
        view = memoryview(self._buffers.data)[: _TLS_BUFFER if is_tls else None]
        size = connection.left or 0
        if length is not None:
            size = length
        left = size
        seconds = max(self._stall, first_byte)
        while left:
            count, error = connection.receive(view[: min(self._throttle.quantum(len(view)), left)], seconds)
            if count:
                left -= count
                seconds = self._stall
                yield view[:count]
            if error:
                raise self._broken(error, response, seconds, is_begun=left < size) from error
            if count == 0:
                raise _cut_off(size - left, size)
        response.close()

    def _broken(self, error: OSError, response: httpx.Response, seconds: float, *, is_begun: bool) -> MdlError:
        """Return the error for a body that ended by ``error``."""
        if isinstance(error, ssl.SSLError):
            return broken_tls(error, response.request, is_open=True)
        if isinstance(error, TimeoutError) and not is_begun:
            return _nothing_after_head(seconds)
        if isinstance(error, TimeoutError):
            return NetworkError(f"no byte for {seconds:.0f} s", hint=AGAIN)
        why = f"the connection broke: {error.strerror or error}"
        return NetworkError(why, hint="run the same command again")


def _parsed(response: httpx.Response, length: int | None) -> Iterator[Block]:
    """Yield a body in chunks, or one that ends with the connection."""
    if length == 0:
        return
    got = 0
    for chunk in response.iter_raw():  # to its end, so that its connection can be used again
        piece = chunk if length is None else chunk[: length - got]
        got += len(piece)
        if piece:
            yield piece
    if length is not None and got < length:
        raise _cut_off(got, length)


def _nothing_after_head(seconds: float) -> NetworkError:
    words = f"the server sent its head, and nothing of the body for {seconds:.0f} s"
    return NetworkError(words, hint=SILENCE, is_silence=True)


def _cut_off(got: int, size: int) -> NetworkError:
    return NetworkError(f"the connection ended after {got:,} of {size:,} bytes", hint=AGAIN)


def _decoded(response: httpx.Response) -> Iterator[bytes]:
    """Yield the decoded body, up to its own end and not only that of the connection."""
    codings = codings_of(response.headers)
    if not is_readable(codings):
        raise unreadable(codings)
    try:
        is_complete = yield from gunzip(response.iter_raw())
    except zlib.error as error:
        raise ProtocolError(f"the server's encoding is damaged: {error}") from error
    if is_complete:
        return
    if "content-length" in response.headers or "transfer-encoding" in response.headers:
        raise ProtocolError(f"the server's response ended in the middle of its {codings[0]} encoding")
    raise NetworkError(f"the connection ended in the middle of a {codings[0]} encoding", hint=AGAIN)


def gunzip(chunks: Iterable[bytes]) -> Generator[bytes, None, bool]:
    """Decode gzip with any number of members (RFC 1952, 2.2) into pieces of at most `STEP` bytes.

    Returns whether ``chunks`` end where a member ends; that of no bytes at all counts as such. Raises `zlib.error`.
    httpx's decoder drops all members but the first, does not notice a cut, and returns pieces of any size.
    """
    member: zlib._Decompress | None = None
    for chunk in chunks:
        data = chunk
        while data:
            if member is None or member.eof:
                member = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
            if piece := member.decompress(data, STEP):
                yield piece
            data = member.unused_data if member.eof else member.unconsumed_tail
    return member is None or member.eof
