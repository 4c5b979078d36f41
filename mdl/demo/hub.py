"""DemoHub: one repository on 127.0.0.1, served as Hugging Face serves it: large files come from elsewhere."""

from __future__ import annotations

import hashlib
import json
import re
import sys
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from urllib.parse import unquote

_LARGE = 2**20
"""Bytes from which a file is a large one: known by its sha256, and sent after a redirect."""
_CDN = "/cdn/"
_PIECES_PER_SECOND = 20
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


class DemoHub(ThreadingTCPServer):
    """A hub with one repository, at one commit. It serves from entering its context to leaving it.

    ``files`` are the contents by path. Large ones are sent with ``bytes_per_second`` on each connection, the first of
    which is closed after ``cut_after`` bytes. ``requests`` counts what was asked, ``bytes_sent`` the bytes of large
    files that were sent.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, repo: str, files: Mapping[str, bytes], *, bytes_per_second: float, cut_after: int) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.commit = hashlib.sha1(repo.encode(), usedforsecurity=False).hexdigest()
        self.requests = self.bytes_sent = 0
        self.bytes_per_second = bytes_per_second
        self.cut_after = cut_after
        self.lock = threading.Lock()
        self.files: dict[str, tuple[bytes, str]] = {}
        listed = []
        for path, body in files.items():
            is_large = len(body) >= _LARGE  # then git holds a pointer, and the oid is that of the pointer
            blob_id = hashlib.sha1(b"blob %d\0%b" % (len(body), body), usedforsecurity=False).hexdigest()
            etag = hashlib.sha256(body).hexdigest() if is_large else blob_id
            item = {"type": "file", "path": path, "size": len(body), "oid": etag[:40]}
            listed.append({**item, "lfs": {"oid": etag, "size": len(body)}} if is_large else item)
            self.files[f"/{repo}/resolve/{self.commit}/{path}"] = body, etag
            self.files[_CDN + etag] = body, etag
        self.list_path = f"/api/models/{repo}/tree/{self.commit}"
        self.list = json.dumps(listed).encode()

    def __enter__(self) -> DemoHub:
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a broken connection: a client that is killed leaves one behind."""
        if not isinstance(sys.exception(), OSError):
            raise


class _Request(BaseHTTPRequestHandler):
    """One request; the connection is kept for the next."""

    protocol_version = "HTTP/1.1"
    server: DemoHub

    def do_GET(self) -> None:
        """The list of files, a small file, a redirect for a large one, or that one itself."""
        hub = self.server
        path = unquote(self.path.partition("?")[0])
        with hub.lock:
            hub.requests += 1
        body, etag = hub.files.get(path, (b"", ""))
        facts = {"X-Repo-Commit": hub.commit, "X-Linked-Size": str(len(body)), "X-Linked-Etag": f'"{etag}"'}
        if path == hub.list_path:
            self._reply(200, hub.list, {"Content-Type": "application/json"})
        elif not etag:
            self._reply(404, b"", {"X-Error-Code": "EntryNotFound"})
        elif path.startswith(_CDN):
            self._send_slowly(body, etag)
        elif len(body) >= _LARGE:
            self._reply(302, b"", {**facts, "Location": hub.url + _CDN + etag})
        else:
            self._reply(200, body, {**facts, "ETag": f'"{etag}"'})

    def _send_slowly(self, body: bytes, etag: str) -> None:
        """A large file, or one range of it, at the pace of a slow network."""
        hub = self.server
        with hub.lock:
            cut_after = hub.cut_after
            hub.cut_after = sys.maxsize
        span = _RANGE.fullmatch(self.headers.get("Range", ""))
        start = int(span[1]) if span else 0
        stop = min(int(span[2]) + 1, len(body)) if span and span[2] else len(body)
        headers = {"Content-Range": f"bytes {start}-{stop - 1}/{len(body)}"} if span else {}
        self._start(206 if span else 200, stop - start, {**headers, "ETag": f'"{etag}"', "Accept-Ranges": "bytes"})
        began = time.monotonic()
        step = int(hub.bytes_per_second / _PIECES_PER_SECOND)
        for at in range(start, stop, step):
            piece = body[at : min(at + step, stop)]
            self.wfile.write(piece)
            with hub.lock:
                hub.bytes_sent += len(piece)
            sent = at + len(piece) - start
            if sent >= cut_after:
                self.close_connection = True
                return
            time.sleep(max(began + sent / hub.bytes_per_second - time.monotonic(), 0))

    def _reply(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self._start(status, len(body), headers)
        self.wfile.write(body)

    def _start(self, status: int, length: int, headers: Mapping[str, str]) -> None:
        """Send the head of an answer whose body has ``length`` bytes."""
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(length)}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing: the demo counts requests and logs none."""
