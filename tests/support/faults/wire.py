"""What goes over the wire of a `faulty.FaultyServer`: the request it took, the answer it gives."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Literal

Ending = Literal["keep", "close", "reset", "hang"]
Piece = bytes | float | threading.Event
Handler = Callable[["Request", int], "Answer"]

CHUNK = 64 * 1024


@dataclass
class Request:
    """What a client sent, and (``status``, ``sent``: filled in while answering) what it got.

    ``nth`` counts requests of this method and path, ``connection`` the connections, ``on_connection`` the
    requests of that connection, all from 0. ``active`` is how many answers were under way, this one included.
    """

    method: str
    target: str
    version: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    origin: str
    connection: int
    on_connection: int
    nth: int = 0
    active: int = 1
    status: str = ""
    sent: int = 0

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        return self.target.partition("?")[2]

    def header(self, name: str) -> str | None:
        """The first header of that name, in any case; None if there is none."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    def range(self, size: int) -> tuple[int, int] | None:
        """The one byte range asked for, as start and stop within ``size``; None without a (usable) Range header."""
        unit, _, spec = (self.header("range") or "").partition("=")
        first, dash, last = spec.strip().partition("-")
        if unit.strip() != "bytes" or not dash or not (first + last).isdecimal():
            return None
        if not first:
            return max(size - int(last), 0), size
        return int(first), min(int(last) + 1, size) if last else size


@dataclass
class Answer:
    """What goes over the wire, to the letter.

    ``status``: a number, a whole status line, or None for no head at all (``body`` is then all that is sent).
    ``body``: bytes, or pieces: bytes are sent, a float is a pause in seconds, an Event is waited for.
    ``end``: keep the connection, close it, reset it once everything is out, or say nothing until the client goes.
    The body is left out for HEAD. Content-Length is the handler's business: see `reply`.
    """

    status: int | str | None = 200
    headers: Sequence[tuple[str, str | bytes]] = ()
    body: bytes | Iterable[Piece] = b""
    end: Ending = "keep"

    def head(self) -> bytes:
        if self.status is None:
            return b""
        lines = [_status_line(self.status).encode()]
        for name, value in self.headers:
            lines.append(name.encode() + b": " + (value if isinstance(value, bytes) else value.encode()))
        return b"\r\n".join(lines) + b"\r\n\r\n"

    def pieces(self) -> Iterator[Piece]:
        for piece in [self.body] if isinstance(self.body, bytes) else self.body:
            if not isinstance(piece, bytes):
                yield piece
                continue
            for start in range(0, len(piece), CHUNK):
                yield piece[start : start + CHUNK]


def reply(status: int | str, body: bytes = b"", *headers: tuple[str, str], end: Ending = "keep") -> Answer:
    """An answer with a right Content-Length."""
    return Answer(status, [*headers, ("Content-Length", str(len(body)))], body, end)


def json_reply(value: object, *headers: tuple[str, str], status: int = 200) -> Answer:
    """The value as JSON."""
    return reply(status, json.dumps(value).encode(), ("Content-Type", "application/json"), *headers)


def _status_line(status: int | str) -> str:
    if isinstance(status, str):
        return status
    known = {code.value: code.phrase for code in HTTPStatus}
    return f"HTTP/1.1 {status} {known.get(status, 'Unknown')}"
