"""HubServer: a hub on 127.0.0.1, on two ports, since large files come from elsewhere; as slow as a real network."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer

from mdl.demo.hub import Hub, HubAnswer, HubRequest


class HubServer:
    """Serves a hub from entering its context to leaving it.

    Large files are sent with ``bytes_per_second`` on each connection, the first of which is closed after ``cut_after``
    bytes. ``requests`` counts what was asked, ``bytes_sent`` the bytes of large files that were sent.
    """

    def __init__(self, hub: Hub, *, bytes_per_second: float, cut_after: int) -> None:
        self.requests = 0
        self.bytes_sent = 0
        self.bytes_per_second = bytes_per_second
        self._cut_after = cut_after
        self._lock = threading.Lock()
        self._stack = ExitStack()
        self._origins = [_Origin(self, hub.answer, is_slow=False), _Origin(self, hub.body_answer, is_slow=True)]
        hub.url, hub.body_url = (origin.url for origin in self._origins)
        self.url = hub.url

    def __enter__(self) -> HubServer:
        for origin in self._origins:
            self._stack.enter_context(origin)
            self._stack.callback(origin.shutdown)
            threading.Thread(target=origin.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def count_request(self) -> None:
        """Count a request, of either origin."""
        with self._lock:
            self.requests += 1

    def count_bytes(self, count: int) -> None:
        """Count bytes of a large file."""
        with self._lock:
            self.bytes_sent += count

    def take_cut(self) -> int:
        """After how many bytes this connection is closed: only the first one that asks is."""
        with self._lock:
            cut_after = self._cut_after
            self._cut_after = sys.maxsize
        return cut_after


class _Origin(ThreadingTCPServer):
    """One of the two ports."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, server: HubServer, answer: Callable[[HubRequest], HubAnswer], *, is_slow: bool) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        self.server = server
        self.answer = answer
        self.is_slow = is_slow
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a broken connection: a client that is killed leaves one behind."""
        if not isinstance(sys.exception(), OSError):
            raise


class _Request(BaseHTTPRequestHandler):
    """One request; the connection is kept for the next."""

    protocol_version = "HTTP/1.1"
    server: _Origin

    def do_GET(self) -> None:
        """Answer as the hub does."""
        self.server.server.count_request()
        headers = {name.lower(): value for name, value in self.headers.items()}
        answer = self.server.answer(HubRequest("GET", self.path, headers))
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if isinstance(answer.body, bytes):
            self.wfile.write(answer.body)
        elif self.server.is_slow:
            self._send_slowly(answer.body)
        else:
            self.wfile.writelines(answer.body)

    def _send_slowly(self, pieces: Iterable[bytes]) -> None:
        """Send a large file, or a range of it, at the pace of a slow network."""
        hub = self.server.server
        cut_after = hub.take_cut()
        began = time.monotonic()
        sent = 0
        for piece in pieces:
            self.wfile.write(piece)
            hub.count_bytes(len(piece))
            sent += len(piece)
            if sent >= cut_after:
                self.close_connection = True
                return
            time.sleep(max(began + sent / hub.bytes_per_second - time.monotonic(), 0))

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing: the demo counts requests and logs none."""
