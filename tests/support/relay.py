"""Relay: passes connections on to a server of the test, after a greeting (TLS, CONNECT) that the test chooses."""

from __future__ import annotations

import contextlib
import ipaddress
import math
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import trustme

from support import faults
from support.faulty_server import FaultyServer

Greeting = Callable[[socket.socket], socket.socket | None]
"""Speaks to a client first. Returns the socket to go on with, or None to end the connection."""

PROXY_VARIABLES = tuple(
    name for upper in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY") for name in (upper, upper.lower())
)
BODY = bytes(range(256)) * 12_000
"""3 MB: large enough to be read straight off the TLS socket."""


_BUFFER = 2**16


@dataclass(frozen=True)
class Relay:
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def relaying(target: int, greet: Greeting) -> Iterator[Relay]:
    """A relay to that port of 127.0.0.1. It ends TLS without a close_notify, like a host that dies."""
    listener = socket.create_server(("127.0.0.1", 0))
    opened: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def start(work: Callable[..., None], *args: object) -> None:
        threads.append(threading.Thread(target=work, args=args, name="relay", daemon=True))
        threads[-1].start()

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                opened.append(client)
                start(serve, client)

    def serve(client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            near = greet(client)
            if near is None:
                end(client)
                return
            far = socket.create_connection(("127.0.0.1", target))
            opened.extend((near, far))
            start(carry, near, far)
            carry(far, near)

    accepting = threading.Thread(target=accept, name="relay", daemon=True)
    accepting.start()
    try:
        yield Relay(listener.getsockname()[1])
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        accepting.join(10)
        for sock in list(opened):
            end(sock)
        for thread in list(threads):
            thread.join(10)


def carry(source: socket.socket, target: socket.socket) -> None:
    """Pass everything on until one of the two ends."""
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    end(source)
    end(target)


def end(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
    with contextlib.suppress(OSError):
        sock.close()


@dataclass
class Meter:
    """How many bytes a server sent to its clients. The first ``cuts`` connections break after ``at`` bytes; each brings
    at most ``rate`` bytes a second."""

    cuts: int = 0
    at: int = 0
    rate: float = math.inf
    sent: int = 0
    connections: int = 0

    def greet(self, client: socket.socket) -> socket.socket:
        """Each connection is one `Metered`. It has a small buffer: else megabytes that no client got would count as
        sent."""
        self.connections += 1
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
        return Metered(client, self, self.at if self.connections <= self.cuts else None)


class Metered(socket.socket):
    """A client's socket, which counts what is sent to it."""

    def __init__(self, client: socket.socket, meter: Meter, limit: int | None) -> None:
        super().__init__(fileno=client.detach())
        self._meter, self._left, self._pause = meter, limit, threading.Event()

    def sendall(self, data: Any, flags: int = 0) -> None:
        if self._left is not None:
            data = data[: self._left]
            self._left -= len(data)
        super().sendall(data, flags)
        self._meter.sent += len(data)
        self._pause.wait(len(data) / self._meter.rate)
        if self._left == 0:
            raise ConnectionResetError


def secured(certificate: trustme.LeafCert) -> Greeting:
    """TLS with that certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return lambda client: context.wrap_socket(client, server_side=True)


def tunnel(heads: list[str], answer: str | None = "200 OK", then: Greeting | None = None) -> Greeting:
    """What a proxy does for CONNECT: read the head, send this answer (None: hang up), and go on with ``then``."""

    def greet(client: socket.socket) -> socket.socket | None:
        head = b""
        while b"\r\n\r\n" not in head and (data := client.recv(4096)):
            head += data
        heads.append(head.decode("latin-1"))
        if answer is None:
            return None
        more = "" if answer.startswith("200") else "Content-Length: 0\r\n"
        client.sendall(f"HTTP/1.1 {answer}\r\n{more}\r\n".encode())
        if more:
            return None
        return then(client) if then else client

    return greet


def socks5(asked: list[str], login: tuple[str, str] | None = None, reply: int = 0) -> Greeting:
    """What a SOCKS5 proxy does (RFC 1928, 1929): note which host and port it is ``asked`` for, demand the ``login`` if
    there is one, answer ``reply``, and go on if that is 0."""

    def exactly(client: socket.socket, count: int) -> bytes:
        return client.recv(count, socket.MSG_WAITALL)

    def greet(client: socket.socket) -> socket.socket | None:
        methods = exactly(client, exactly(client, 2)[1])
        wanted = 2 if login else 0
        client.sendall(bytes([5, wanted if wanted in methods else 255]))
        if wanted not in methods:
            return None
        if login:
            user = exactly(client, exactly(client, 2)[1]).decode()
            is_right = (user, exactly(client, exactly(client, 1)[0]).decode()) == login
            client.sendall(bytes([1, 0 if is_right else 1]))
            if not is_right:
                return None
        kind = exactly(client, 4)[3]
        length = {1: 4, 4: 16}.get(kind) or exactly(client, 1)[0]
        place = exactly(client, length)
        host = place.decode() if kind == 3 else str(ipaddress.ip_address(place))
        asked.append(f"{host}:{int.from_bytes(exactly(client, 2), 'big')}")
        client.sendall(bytes([5, reply, 0, 1, 0, 0, 0, 0, 0, 0]))
        return None if reply else client

    return greet


@contextmanager
def serving(certificate: trustme.LeafCert) -> Iterator[str]:
    """The URL of a TLS server: `BODY` with ranges at every path, and a redirect to plain http at /down."""
    away = faults.redirects("http://localhost:9/file.bin")
    handler = faults.choose(lambda request: request.path == "/down", away, faults.honest(BODY))
    with FaultyServer(handler) as server, relaying(server.port, secured(certificate)) as relay:
        yield f"https://localhost:{relay.port}"
