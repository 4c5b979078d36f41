"""A TLS server with ranges."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import trustme

BODY = bytes(range(256)) * 12_000
"""3 MB: large enough to be read straight off the TLS socket."""


class Handler(BaseHTTPRequestHandler):
    """One file with ranges at every path, and a redirect to plain http at /down."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/down":
            self.send_response(302)
            self.send_header("Location", "http://localhost:9/file.bin")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        first, last = 0, len(BODY) - 1
        asked = self.headers.get("Range")
        if asked:
            start, _, stop = asked.removeprefix("bytes=").partition("-")
            first, last = int(start), min(int(stop or last), last)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(BODY)}")
        else:
            self.send_response(200)
        self.send_header("ETag", '"v1"')
        self.send_header("Content-Length", str(last - first + 1))
        self.end_headers()
        self.wfile.write(BODY[first : last + 1])

    def log_message(self, *_: object) -> None:
        """Nothing on the test's stderr."""


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that does not trust us hangs up; that is what is tested."""


@contextmanager
def serving(certificate: trustme.LeafCert) -> Iterator[str]:
    """A TLS server with this certificate; gives its URL by name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    server = Server(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"https://localhost:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
