"""The gateway of Xet: all that hf_xet asks of the network, mdl's own client asks for it.

hf_xet connects to a Unix socket and speaks HTTP there. It learns no token, no URL and no host: of the storage's API it
knows one made-up address, and the signed URLs in the API's answers are replaced by numbers. So the allow-list, the
proxy, the certificates, the rate limit and the cancel token hold for every byte, on every redirect.

Protocol: https://huggingface.co/docs/xet, "Download Protocol": ``GET /v1/reconstructions/{hash}`` and ``/v2/…``.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler
from itertools import count
from pathlib import Path
from typing import Any

from mdl.errors import Cancelled, MdlError, NetworkError, ProtocolError, internal_error
from mdl.http.allowlist import host_of
from mdl.http.client import HttpClient, OpenResponse, redirect_target
from mdl.http.responses import content_length
from mdl.threads import start_threads

ADDRESS = "http://mdl"
"""The address of the storage's API as hf_xet knows it."""
_PASSED = (401, 403, 404, 416, 501)
"""Statuses that hf_xet draws a conclusion from: another version of the API, an expired URL, the end of a file."""
_WAITING = 128
"""Connections that may wait to be accepted."""
_LARGEST_ANSWER = 16 * 2**20
_LARGEST_BLOCK = 256 * 2**20
"""Bytes of one answer of the storage. A block of it has 64 MiB."""


class Channel:
    """What one stream of hf_xet may ask for: the API below ``base``, and the URLs that the API's answers name.

    ``bearer(refused)`` gives the API's token, another one than the ``refused``. ``start`` is the URL of the hub that
    named the storage. ``error`` is why a request failed. ``moved_at`` is when the last byte came.
    """

    def __init__(self, base: str, start: str, bearer: Callable[[str], str]) -> None:
        self.base, self.start, self.bearer = base, start, bearer
        self.error: MdlError | None = None
        self.moved_at, self.under_way = time.monotonic(), 0
        self._urls: list[str] = []

    def is_silent(self, seconds: float) -> bool:
        """Whether nothing has come for so long, though no request is under way: those are timed by the client."""
        return not self.under_way and time.monotonic() - self.moved_at > seconds

    def url(self, number: str) -> str | None:
        """The URL that stands behind a number; None if there is no such number."""
        return self._urls[int(number)] if number.isdecimal() and int(number) < len(self._urls) else None

    def hide(self, answer: Any, key: str) -> Any:
        """An answer of the API with a made-up address in the place of each URL. Raises `ProtocolError`, `Unsafe`."""
        try:
            for group in ("fetch_info", "xorbs"):
                for entries in answer.get(group, {}).values():
                    for entry in entries:
                        entry["url"] = f"{ADDRESS}/{key}/{self._number(redirect_target(entry['url'], self.base))}"
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ProtocolError(f"{host_of(self.base)} did not answer as Xet's storage does") from error
        return answer

    def _number(self, url: str) -> int:
        if url not in self._urls:
            self._urls.append(url)
        return self._urls.index(url)


class Gateway:
    """Listens at ``path``, where only this user may connect. At most ``http.connections`` requests run at once."""

    def __init__(self, http: HttpClient, path: Path) -> None:
        """Raises `OSError`, also if ``path`` is too long for a socket."""
        self._http, self._channels, self._keys = http, dict[str, Channel](), count(1)
        self._room = threading.BoundedSemaphore(http.connections)
        self._listener = socket.socket(socket.AF_UNIX)
        try:
            self._listener.bind(str(path))
            self._listener.listen(_WAITING)
            if not start_threads("mdl-xet", [self._accept]):
                raise OSError("the system refuses to start a thread")
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        self._channels.clear()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    @contextlib.contextmanager
    def channel(self, base: str, start: str, bearer: Callable[[str], str]) -> Iterator[tuple[str, Channel]]:
        """A `Channel`, and the key that hf_xet uses as its token. It is closed after the block."""
        key, channel = str(next(self._keys)), Channel(base, start, bearer)
        self._channels[key] = channel
        try:
            yield key, channel
        finally:
            self._channels.pop(key, None)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                connection.settimeout(self._http.stall)
                if not start_threads("mdl-xet-request", [partial(self._serve, connection)]):
                    connection.close()

    def _serve(self, connection: socket.socket) -> None:
        """Answer the one request of a connection."""
        with connection, contextlib.suppress(OSError, ValueError, Cancelled):
            _Handler(connection, ("", 0), self)  # type: ignore[arg-type]

    def answer(self, handler: _Handler) -> None:
        """Ask for what hf_xet asks for, and pass the answer on. Raises `OSError` if hf_xet has left."""
        bearer = (handler.headers.get("Authorization") or "").removeprefix("Bearer ")
        _, key, number = (*handler.path.split("/", 2), "", "")[:3]
        is_api = key in ("v1", "v2")
        channel, url = self._channels.get(bearer if is_api else key), None
        if channel:
            url = channel.base + handler.path if is_api else channel.url(number)
        if channel is None or url is None:
            handler.refuse(410)
            return
        while not self._room.acquire(timeout=0.1):
            self._http.cancel.check()
        channel.under_way += 1
        try:
            self._ask(handler, channel, url, bearer if is_api else "")
        except OSError:
            raise  # hf_xet has left
        except Exception as error:
            channel.error = error if isinstance(error, MdlError) else internal_error(error)
            handler.refuse(502)
        finally:
            channel.under_way -= 1
            channel.moved_at = time.monotonic()
            self._room.release()

    def _ask(self, handler: _Handler, channel: Channel, url: str, key: str) -> None:
        """Ask ``url`` and pass the answer on; with a ``key`` it is the API's, which has a token."""
        asked = handler.headers.get("Range")
        headers, token = {"Range": asked} if asked else {}, ""
        for _ in range(2):
            token = channel.bearer(token) if key else ""
            opening = self._http.open("GET", url, headers, start=channel.start, allow=_PASSED, bearer=token)
            with opening as opened:
                if opened.status == 401 and key and token:
                    continue
                if opened.status >= 400:
                    channel.error = NetworkError(f"{host_of(url)} answered {opened.status}", final=True)
                    handler.refuse(opened.status)
                elif key:
                    text = self._answer(opened, channel, key)
                    handler.begin(200, len(text))
                    handler.wfile.write(text)
                else:
                    self._pass_on(handler, channel, opened)
            return
        raise NetworkError(f"{host_of(url)} refuses the token that the hub gave for it", final=True)

    def _answer(self, opened: OpenResponse, channel: Channel, key: str) -> bytes:
        """An answer of the API as hf_xet may see it."""
        text = self._http.read(opened, _LARGEST_ANSWER)
        try:
            found = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ProtocolError(f"{host_of(channel.base)} did not answer in JSON") from error
        channel.error = None
        return json.dumps(channel.hide(found, key)).encode()

    def _pass_on(self, handler: _Handler, channel: Channel, opened: OpenResponse) -> None:
        """The bytes of a block as they come."""
        length = content_length(opened.headers)
        if length is None or length > _LARGEST_BLOCK:
            raise ProtocolError(f"{host_of(opened.url)} sent a block of no usable length")
        handler.begin(opened.status, length, opened.headers.get("content-range"))
        for block in self._http.body(opened, length):
            handler.wfile.write(block)
            channel.moved_at = time.monotonic()


class _Handler(BaseHTTPRequestHandler):
    """One connection of hf_xet."""

    server: Gateway  # type: ignore[assignment]
    protocol_version = "HTTP/1.1"
    has_begun = False

    def do_GET(self) -> None:
        self.server.answer(self)

    def begin(self, status: int, length: int, content_range: str | None = None) -> None:
        """Send the head of an answer, whose body has ``length`` bytes."""
        self.has_begun = True
        self.send_response_only(status)
        self.send_header("Content-Length", str(length))
        self.send_header("Connection", "close")
        if content_range:
            self.send_header("Content-Range", content_range)
        self.end_headers()

    def refuse(self, status: int) -> None:
        """Send a status alone; what has begun already is cut instead."""
        self.close_connection = True
        if not self.has_begun:
            self.begin(status, 0)

    def log_message(self, *_: Any) -> None:
        """Nothing of it is for anybody to read."""
