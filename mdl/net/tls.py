"""TLS that reads many records at once.

`ssl.SSLSocket` asks the kernel twice for each record of 16 KiB and is woken for each one. Here a large piece of what
came is moved into memory first, and its records are decrypted there.
"""

from __future__ import annotations

import math
import ssl
import time
from collections.abc import Callable
from typing import Any, TypeVar

import httpcore

from mdl.bounds import LARGEST_NOTE
from mdl.net.connection_errors import CertificateWanted, asks_for_certificate

_PIECE = 64 * 1024
"""Bytes that a read of headers or of a small body takes from the connection, at most."""
_LARGE_PIECE = 128 * 1024
"""Bytes that a read of a large body takes from the socket, at most. They pass through the buffer of the body."""
_REST_SECONDS = 0.0005
"""If a read brought little, the next one waits for so long: then it brings many records instead of one."""
FILL_SECONDS = 0.02
"""Seconds that a read of a large body which has brought some bytes waits for more, until its buffer is full."""

Result = TypeVar("Result")


class ByteStream(httpcore.NetworkStream):
    """A stream for httpcore that can also be read into memory."""

    def receive(self, view: memoryview, seconds: float | None) -> tuple[int, OSError | None]:
        """Fill ``view``, or take as much as comes in 20 ms after the first byte. Returns how many bytes came (0 at the
        end of the connection) and the error that ended it: a `TimeoutError` if nothing came for ``seconds``."""
        raise NotImplementedError

    def receive_some(self, view: memoryview, seconds: float | None) -> tuple[int, OSError | None]:
        """As `receive`, but what has come first suffices."""
        return self.receive(view, seconds)


class TlsStream(ByteStream):
    """TLS over ``carrier``: a connection, or TLS to a proxy. ``timeout`` in seconds is that of each step.

    Raises `httpcore.ConnectTimeout`, `httpcore.ConnectError` if the handshake fails.
    """

    def __init__(
        self,
        carrier: ByteStream,
        context: ssl.SSLContext,
        server_hostname: str | None,
        timeout: float | None,
    ) -> None:
        self._carrier = carrier
        self._is_short = False
        self._hello: bytearray | None = bytearray()
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        try:
            self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_hostname)
            self._shake_hands(timeout)
        except BaseException as error:
            carrier.close()
            if isinstance(error, (httpcore.ReadTimeout, httpcore.WriteTimeout)):
                raise httpcore.ConnectTimeout(str(error)) from error
            if isinstance(error, (httpcore.ReadError, httpcore.WriteError, OSError)):
                raise httpcore.ConnectError(str(error)) from error
            raise

    def _shake_hands(self, timeout: float | None) -> None:
        """Raises `CertificateWanted` if the other side asked for a certificate and then ended the handshake."""
        try:
            self._perform(self._tls.do_handshake, timeout)
        except ssl.SSLError as error:
            if "ALERT" in (error.reason or "") and asks_for_certificate(bytes(self._hello or b"")):
                raise CertificateWanted(*error.args) from error
            raise
        self._hello = None

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        try:
            return self._perform(lambda: self._tls.read(max_bytes), timeout)
        except ssl.SSLEOFError:
            return b""  # as `ssl.SSLSocket` does: the length of the body tells whether it is whole
        except OSError as error:
            raise httpcore.ReadError(str(error)) from error

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        try:
            if buffer:
                self._perform(lambda: self._tls.write(buffer), timeout)
        except OSError as error:
            raise httpcore.WriteError(str(error)) from error

    def close(self) -> None:
        self._carrier.close()

    def get_extra_info(self, info: str) -> Any:
        if info == "ssl_object":
            return self._tls
        if info == "is_readable" and (self._incoming.pending or self._tls.pending()):
            return True
        return self._carrier.get_extra_info(info)

    def _perform(self, call: Callable[[], Result], timeout: float | None) -> Result:
        """Return what ``call`` returns, once enough has come. All its steps together have ``timeout`` seconds."""
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            try:
                result = call()
            except ssl.SSLWantReadError:
                broken = self._flush(timeout)
            except ssl.SSLError:
                self._flush(timeout)  # if that fails too, what the other side said is still what happened
                raise
            else:
                broken = self._flush(timeout)
                if broken:
                    raise broken
                return result
            left = None if until is None else max(0.001, until - time.monotonic())
            try:
                data = self._carrier.read(_PIECE, left)
            except httpcore.ReadError:
                if broken:
                    raise broken from None
                raise
            self._add(data)

    def _flush(self, timeout: float | None) -> httpcore.NetworkError | httpcore.TimeoutException | None:
        """Send what TLS has to say. Returns the error if that fails: the other side may have said before why it ended
        the connection."""
        data = self._outgoing.read()
        try:
            if data:
                self._carrier.write(data, timeout)
        except (httpcore.WriteError, httpcore.WriteTimeout) as error:
            return error
        return None

    def _add(self, data: bytes | memoryview) -> None:
        if data:
            self._incoming.write(data)
            if self._hello is not None and len(self._hello) < LARGEST_NOTE:
                self._hello += data
        else:
            self._incoming.write_eof()

    def receive(self, view: memoryview, seconds: float | None) -> tuple[int, OSError | None]:
        read = self._tls.read
        size = len(view)
        count = 0
        began = time.monotonic()
        patience = math.inf if seconds is None else seconds
        while count < size:
            try:
                while more := read(size - count, view[count:]):  # a record at a time
                    count += more  # type: ignore[operator]  # with a buffer it is a number
                return count, None
            except ssl.SSLWantReadError:
                left = began + (FILL_SECONDS if count else patience) - time.monotonic()
                if not count and left <= 0:
                    return 0, TimeoutError("timed out")
                if left <= 0 or (count and size - count < _PIECE):
                    return count, None
            except ssl.SSLEOFError:
                return count, None
            except OSError as error:
                return count, error
            broken = self._take(view[count:][:_LARGE_PIECE], left)
            if broken:
                return count, None if count and isinstance(broken, TimeoutError) else broken
        return count, None

    def _take(self, room: memoryview, seconds: float) -> OSError | None:
        """Take from the carrier what came, or what comes first, by way of ``room``. Returns the error that ended it."""
        self._flush(seconds)
        if self._is_short:
            time.sleep(_REST_SECONDS)
        count, error = self._carrier.receive_some(room, None if seconds == math.inf else seconds)
        if error is None:
            self._is_short = count < len(room) // 2
            self._add(room[:count])
        return error
