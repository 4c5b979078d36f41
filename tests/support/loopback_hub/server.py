"""LoopbackHub: the server, with the hub on one port of 127.0.0.1 and its CDN on another.

    with LoopbackHub([Repo("demo/tiny", {"config.json": b"{}", "model.bin": Generated(2**25)})]) as hub:
        …                                 # HF_ENDPOINT=hub.url
    hub.requests                          # what both were asked, and how much they sent

The two ports are two origins, so whatever leaks from one to the other shows in `LoopbackHub.requests`.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Literal

from support.loopback_hub.answers import Reply, Request
from support.loopback_hub.api import HubApi
from support.loopback_hub.cdn import Cdn
from support.loopback_hub.content import blocks
from support.loopback_hub.repos import Repo

_STEP = 256 * 1024
_BEATS = 20
"""How often a second a throttled connection sends."""


@dataclass
class Recorded:
    """A request and what became of it. ``path`` has its query; header names are in lower case.

    ``body_bytes_sent`` grows while the answer goes out and stays short when the client leaves.
    """

    method: str
    origin: Literal["hub", "cdn"]
    path: str
    headers: dict[str, str]
    status: int = 0
    body_bytes_sent: int = 0


class LoopbackHub:
    """The hub, a context manager: it serves, and its urls are known, until the context is left.

    ``bytes_per_second`` limits every connection while it sends a file.
    """

    def __init__(self, repos: Iterable[Repo], *, bytes_per_second: float | None = None) -> None:
        self.bytes_per_second = bytes_per_second
        self.stopping = threading.Event()
        self._cdn = Cdn()
        self._api = HubApi(repos, self._cdn)
        self._lock = threading.Lock()
        self._recorded: list[Recorded] = []
        self._servers: list[_Server] = []

    @property
    def url(self) -> str:
        """The hub's origin: what HF_ENDPOINT should be."""
        return self._api.origin

    @property
    def requests(self) -> list[Recorded]:
        """All requests so far, of both origins, in the order they came in."""
        with self._lock:
            return list(self._recorded)

    def publish(self, repo: Repo) -> None:
        """Move a branch to another commit, or add a repository, while the hub serves."""
        self._api.publish(repo)

    def expire_links(self) -> None:
        """Make every signed link handed out so far invalid."""
        self._cdn.expire_links()

    def __enter__(self) -> LoopbackHub:
        self._servers = [_Server(self, "hub", self._api.answer), _Server(self, "cdn", self._cdn.answer)]
        self._api.origin, self._cdn.origin = (server.origin for server in self._servers)
        for server in self._servers:
            server.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stopping.set()
        for server in self._servers:
            server.stop()

    def record(self, request: Request, origin: Literal["hub", "cdn"]) -> Recorded:
        entry = Recorded(request.method, origin, request.target, dict(request.headers))
        with self._lock:
            self._recorded.append(entry)
        return entry


class _Server(ThreadingHTTPServer):
    """One origin: a listening socket, a thread for it, and one for each connection."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, hub: LoopbackHub, name: Literal["hub", "cdn"], answer: Callable[[Request], Reply]) -> None:
        self.hub, self.name, self.answer = hub, name, answer
        self._open: dict[socket.socket, threading.Thread] = {}
        self._lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), _Handler)
        self.origin = f"http://127.0.0.1:{self.server_address[1]}"
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,), name=f"loopback-{name}", daemon=True)

    def server_bind(self) -> None:
        """Bind without asking the name service for the machine's name."""
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = "127.0.0.1", self.server_address[1]

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Take no more connections, cut those that are open, and wait for their threads."""
        self.shutdown()
        self._thread.join()
        self.server_close()
        with self._lock:
            left = dict(self._open)
        for sock, thread in left.items():
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            thread.join(10)

    def process_request(self, request: Any, client_address: Any) -> None:
        thread = threading.Thread(target=self._converse, args=(request, client_address), daemon=True)
        with self._lock:
            self._open[request] = thread
        thread.start()

    def _converse(self, request: socket.socket, client_address: Any) -> None:
        try:
            with suppress(OSError):
                self.finish_request(request, client_address)
        finally:
            with self._lock:
                self._open.pop(request, None)
            self.shutdown_request(request)


class _Handler(BaseHTTPRequestHandler):
    """Speaks HTTP/1.1 with keep-alive for one connection; what to say is the server's ``answer``."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def version_string(self) -> str:
        return "loopback-hub"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing: requests are recorded."""

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, self.path, headers, self.rfile.read(length))
        entry = self.server.hub.record(request, self.server.name)
        reply = self.server.answer(request)
        entry.status = reply.status
        self._send_head(reply, headers)
        if self.command != "HEAD":
            self._send_body(reply, entry)

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815

    def _send_head(self, reply: Reply, headers: dict[str, str]) -> None:
        self.send_response(reply.status)
        for name, value in reply.headers:
            self.send_header(name, value)
        if self.server.name == "hub":
            self.send_header("X-Request-Id", headers.get("x-amzn-trace-id", "loopback"))
        if reply.sized:
            self.send_header("Content-Length", str(reply.end - reply.start))
        else:
            self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def _send_body(self, reply: Reply, entry: Recorded) -> None:
        pace = self.server.hub.bytes_per_second if reply.paced else None
        step = _STEP if pace is None else max(min(int(pace / _BEATS), _STEP), 1)
        for piece in self._in_time(blocks(reply.content, reply.start, reply.end, step), pace):
            self._send(piece if reply.sized else b"%x\r\n%b\r\n" % (len(piece), piece), entry)
        if not reply.sized:
            self._send(b"0\r\n\r\n", entry)

    def _send(self, data: bytes, entry: Recorded) -> None:
        """Count first, so that a client that has the bytes finds them counted; subtract what was not sent."""
        view = memoryview(data)
        entry.body_bytes_sent += len(data)
        try:
            while view:
                view = view[self.connection.send(view) :]
        finally:
            entry.body_bytes_sent -= len(view)

    def _in_time(self, pieces: Iterator[bytes], pace: float | None) -> Iterator[bytes]:
        """The pieces, each at its time for this pace, and no more once the hub stops."""
        stopping, began, sent = self.server.hub.stopping, time.monotonic(), 0
        for piece in pieces:
            sent += len(piece)
            yield piece
            early = 0.0 if pace is None else began + sent / pace - time.monotonic()
            if stopping.wait(early) if early > 0 else stopping.is_set():
                self.close_connection = True
                return
