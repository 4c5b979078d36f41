"""DemoHub: one repository on 127.0.0.1, served as Hugging Face serves it, with a CDN on a second port."""

from __future__ import annotations

import hashlib
import json
import re
import sys
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from types import TracebackType
from urllib.parse import unquote

_LARGE = 2**20
"""Bytes from which a file is a large one: known by its sha256, and sent by the CDN."""

_PIECES_PER_SECOND = 20
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


class DemoHub:
    """A hub with one repository, at one commit. It serves from entering its context to leaving it.

    ``files`` are the contents by path. The CDN sends ``bytes_per_second`` on each connection, and closes its first
    connection after ``cut_after`` bytes. ``requests`` counts what both ports were asked, ``bytes_sent`` the bytes
    that the CDN has sent.
    """

    def __init__(self, repo: str, files: Mapping[str, bytes], *, bytes_per_second: float, cut_after: int) -> None:
        self.commit = hashlib.sha1(repo.encode(), usedforsecurity=False).hexdigest()
        self.requests = self.bytes_sent = 0
        self._bytes_per_second, self._cut_after = bytes_per_second, cut_after
        self._list_path = f"/api/models/{repo}/tree/{self.commit}"
        self._files = {f"/{repo}/resolve/{self.commit}/{path}": (body, _etag(body)) for path, body in files.items()}
        self._list = []
        for path, (body, etag) in zip(files, self._files.values(), strict=True):
            item = {"type": "file", "path": path, "size": len(body), "oid": etag[:40]}
            is_large = len(body) >= _LARGE  # then git holds a pointer, and the oid is that of the pointer
            self._list.append({**item, "lfs": {"oid": etag, "size": len(body)}} if is_large else item)
        self._large = {f"/{etag}": (body, etag) for body, etag in self._files.values() if len(body) >= _LARGE}
        self._is_cut = False
        self._lock = threading.Lock()
        self._servers = (_Server(self._answer), _Server(self._answer_as_cdn))
        self.url, self.cdn_url = (server.url for server in self._servers)

    def __enter__(self) -> DemoHub:
        for server in self._servers:
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def _answer(self, request: _Request) -> None:
        """The hub's port: the list of files, small files themselves, and redirects for large ones."""
        with self._lock:
            self.requests += 1
        path = unquote(request.path.partition("?")[0])
        body, etag = self._files.get(path, (b"", ""))
        facts = {"X-Repo-Commit": self.commit, "X-Linked-Size": str(len(body)), "X-Linked-Etag": f'"{etag}"'}
        if path == self._list_path:
            request.reply(200, json.dumps(self._list).encode(), {"Content-Type": "application/json"})
        elif not etag:
            request.reply(404, b"", {"X-Error-Code": "EntryNotFound"})
        elif len(body) >= _LARGE:
            request.reply(302, b"", {**facts, "Location": f"{self.cdn_url}/{etag}"})
        else:
            request.reply(200, body, {**facts, "ETag": f'"{etag}"'})

    def _answer_as_cdn(self, request: _Request) -> None:
        """The CDN's port: a large file, or one range of it, at the pace of a slow network."""
        with self._lock:
            self.requests += 1
            cut_after, self._is_cut = None if self._is_cut else self._cut_after, True
        body, etag = self._large[request.path]
        span = _RANGE.fullmatch(request.headers.get("Range", ""))
        start = int(span[1]) if span else 0
        stop = min(int(span[2]) + 1, len(body)) if span and span[2] else len(body)
        headers = {"Content-Range": f"bytes {start}-{stop - 1}/{len(body)}"} if span else {}
        request.start(206 if span else 200, stop - start, {**headers, "ETag": f'"{etag}"', "Accept-Ranges": "bytes"})
        began, step = time.monotonic(), int(self._bytes_per_second / _PIECES_PER_SECOND)
        for at in range(start, stop, step):
            piece = body[at : min(at + step, stop)]
            request.wfile.write(piece)
            with self._lock:
                self.bytes_sent += len(piece)
            sent = at + len(piece) - start
            if cut_after is not None and sent >= cut_after:
                request.close_connection = True
                return
            time.sleep(max(began + sent / self._bytes_per_second - time.monotonic(), 0))


def _etag(body: bytes) -> str:
    """The digest by which the hub names a file: sha256 for a large one, the git blob id for a small one."""
    if len(body) >= _LARGE:
        return hashlib.sha256(body).hexdigest()
    return hashlib.sha1(b"blob %d\0%b" % (len(body), body), usedforsecurity=False).hexdigest()


class _Server(ThreadingTCPServer):
    """One port, with a thread for each connection. ``answer`` is called for each request."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, answer: Callable[[_Request], None]) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        self.answer = answer
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a broken connection: a client that is killed leaves one behind."""
        if not isinstance(sys.exception(), OSError):
            raise


class _Request(BaseHTTPRequestHandler):
    """One request; the connection is kept for the next."""

    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        self.server.answer(self)

    def reply(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        """Send a whole answer."""
        self.start(status, len(body), headers)
        self.wfile.write(body)

    def start(self, status: int, length: int, headers: Mapping[str, str]) -> None:
        """Send the head of an answer whose body has ``length`` bytes."""
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(length)}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing: the demo counts requests and logs none."""
