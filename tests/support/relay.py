"""Relay: passes connections on to a server; the test chooses what is said before (TLS, CONNECT)."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import trustme

Greeting = Callable[[socket.socket], socket.socket | None]
"""Speaks to a client first; the socket to go on with, or None if there is nothing more to say."""

_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
PROXY_VARIABLES = (*_VARIABLES, *map(str.lower, _VARIABLES))


@dataclass(frozen=True)
class Relay:
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def relaying(target: int, greet: Greeting) -> Iterator[Relay]:
    """A relay to that port of 127.0.0.1. TLS ends as it does when a host dies: without a goodbye."""
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
    """Everything from one to the other, until one of them ends."""
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


def secured(certificate: trustme.LeafCert) -> Greeting:
    """TLS with that certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return lambda client: context.wrap_socket(client, server_side=True)


def tunnel(heads: list[str], answer: str | None = "200 OK", then: Greeting | None = None) -> Greeting:
    """A proxy's part of CONNECT: take the head, answer so (None: hang up), and go on with ``then``."""

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
