"""FaultyServer: an HTTP server of plain sockets on 127.0.0.1 that misbehaves exactly as a test asks.

A handler gets each request and returns an `Answer`. Nothing is added to the answer, so it may have broken framing or
lying headers, end with a reset, or fall silent. Ready-made handlers are in the package `faults`.

    with FaultyServer(honest(data)) as server:
        get(server.url + "/file")
    assert server.requests[0].header("range") is None

A handler may be exchanged at any time (``server.handler = …``), which is how a file changes between two runs.
"""

from __future__ import annotations

import contextlib
import fcntl
import select
import socket
import struct
import termios
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType

from support.faults.wire import CHUNK, Answer, Ending, Handler, Piece, Request, json_reply, reply

__all__ = ["Answer", "Ending", "FaultyServer", "Handler", "Piece", "Request", "json_reply", "reply"]

_TICK = 0.01


class _Gone(Exception):
    """The client went away, or the server stops."""


@dataclass(eq=False)
class _Connection:
    sock: socket.socket
    number: int
    served: int = 0
    active: bool = False
    buffer: bytearray = field(default_factory=bytearray)

    def read_until(self, mark: bytes) -> bytes:
        while mark not in self.buffer:
            self._more()
        return self.take(self.buffer.index(mark) + len(mark))

    def take(self, count: int) -> bytes:
        while len(self.buffer) < count:
            self._more()
        taken = bytes(self.buffer[:count])
        del self.buffer[:count]
        return taken

    def _more(self) -> None:
        data = self.sock.recv(CHUNK)
        if not data:
            raise _Gone
        self.buffer += data

    def peer_left(self) -> bool:
        """Whether the other side has closed, found without taking anything from the socket."""
        try:
            if not select.select([self.sock], [], [], 0)[0]:
                return False
            return self.sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:  # the connection's own thread has taken what was there
            return False
        except (OSError, ValueError):
            return True

    def reset(self, stop: threading.Event) -> None:
        """Have the socket closed with RST, after all that was sent has been received."""
        with contextlib.suppress(OSError):
            while struct.unpack("i", fcntl.ioctl(self.sock, termios.TIOCOUTQ, b"\0" * 4))[0]:
                if stop.wait(_TICK / 10):
                    break
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class FaultyServer:
    """The server, a context manager. Leaving it lets every stalled connection go and waits for the threads;
    an exception raised by the handler comes out there, unless the test fails for another reason."""

    def __init__(self, handler: Handler, *, address: str = "127.0.0.1", port: int = 0) -> None:
        self.handler = handler
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._requests: list[Request] = []
        self._open: set[_Connection] = set()
        self._threads: list[threading.Thread] = []
        self._connections = 0
        self._bytes_sent = 0
        self._errors: list[Exception] = []
        self._listener = socket.create_server((address, port), backlog=128)
        self._wake, self._waker = socket.socketpair()
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://{address}:{self.port}"

    @property
    def requests(self) -> list[Request]:
        """All requests so far, in the order they came in."""
        with self._lock:
            return list(self._requests)

    @property
    def connections(self) -> int:
        """Connections accepted so far."""
        with self._lock:
            return self._connections

    @property
    def bytes_sent(self) -> int:
        """Body bytes handed to the system so far, headers not counted."""
        with self._lock:
            return self._bytes_sent

    def __enter__(self) -> FaultyServer:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _tb: TracebackType | None
    ) -> None:
        self._stop.set()
        self._waker.send(b"x")
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.sock.shutdown(socket.SHUT_RDWR)
        self._threads[0].join(10)
        for thread in self._threads:
            thread.join(10)
        for sock in (self._listener, self._wake, self._waker):
            sock.close()
        if self._errors and kind is None:
            raise self._errors[0]

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, name="faulty", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            ready, _, _ = select.select([self._listener, self._wake], [], [])
            if self._stop.is_set():
                return
            if self._listener not in ready:
                continue
            with contextlib.suppress(OSError):
                sock, _ = self._listener.accept()
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with self._lock:
                    connection = _Connection(sock, self._connections)
                    self._connections += 1
                    self._open.add(connection)
                self._start(self._serve, connection)

    def _serve(self, connection: _Connection) -> None:
        try:
            while not self._stop.is_set() and self._exchange(connection):
                pass
        except (OSError, _Gone):
            pass
        except Exception as error:
            self._errors.append(error)
        finally:
            with self._lock:
                self._open.discard(connection)
                connection.sock.close()

    def _exchange(self, connection: _Connection) -> bool:
        """Answer one request; False ends the connection."""
        request, number = self._receive(connection)
        try:
            answer = self.handler(request, number)
            head = answer.head()
            request.status = head.partition(b"\r\n")[0].decode(errors="replace")
            self._send(connection, request, answer, head)
        finally:
            connection.active = False
        if answer.end == "reset":
            connection.reset(self._stop)
        last = request.version == "HTTP/1.0" or (request.header("connection") or "").lower() == "close"
        return answer.end == "keep" and not last

    def _receive(self, connection: _Connection) -> tuple[Request, int]:
        head = connection.read_until(b"\r\n\r\n").decode("latin-1")
        first, *lines = head.rstrip("\r\n").split("\r\n")
        method, target, version = first.split(" ", 2)
        headers = tuple((name, value.strip()) for name, _, value in (line.partition(":") for line in lines))
        served = connection.served
        request = Request(method, target, version, headers, b"", self.url, connection.number, served)
        request.body = connection.take(int(request.header("content-length") or 0))
        connection.served += 1
        with self._lock:
            connection.active = True
            request.active = sum(c.active and (c is connection or not c.peer_left()) for c in self._open)
            request.nth = sum((r.method, r.path) == (method, request.path) for r in self._requests)
            self._requests.append(request)
            return request, len(self._requests) - 1

    def _send(self, connection: _Connection, request: Request, answer: Answer, head: bytes) -> None:
        """Head and pieces. The last byte leaves when the answer no longer counts as active, so that
        a client that has it all may ask again at once."""
        pieces = iter(()) if request.method == "HEAD" and head else answer.pieces()
        self._put(connection, head[:-1])
        held = head[-1:]
        owner: Request | None = None
        for piece in pieces:
            self._put(connection, held, owner)
            held, owner = b"", request
            if isinstance(piece, bytes):
                self._put(connection, piece[:-1], request)
                held = piece[-1:]
            else:
                self._hold(connection, piece)
        if answer.end == "hang":
            self._put(connection, held, owner)
            self._hold(connection, threading.Event())
        connection.active = False
        self._put(connection, held, owner)

    def _put(self, connection: _Connection, data: bytes, request: Request | None = None) -> None:
        view = memoryview(data)
        while view:
            if request:
                self._count(request, len(view))  # before, so that who has received them sees them counted
            left = len(view)
            try:
                view = view[connection.sock.send(view) :]
                left = len(view)
            finally:
                if request:
                    self._count(request, -left)

    def _count(self, request: Request, count: int) -> None:
        with self._lock:
            request.sent += count
            self._bytes_sent += count

    def _hold(self, connection: _Connection, until: float | threading.Event) -> None:
        """Wait for the time or the event; raise when the client leaves or the server stops first."""
        deadline = None if isinstance(until, threading.Event) else time.monotonic() + until
        while not self._stop.is_set():
            if isinstance(until, threading.Event) and until.wait(_TICK):
                return
            if deadline is not None:
                left = deadline - time.monotonic()
                if left <= 0:
                    return
                self._stop.wait(min(left, _TICK))
            if connection.peer_left():
                break
        raise _Gone
