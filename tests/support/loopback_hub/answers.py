"""Requests and replies of the hub and its CDN, as values: no sockets here."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import parse_qs, quote

from support.loopback_hub.content import Content

Headers = tuple[tuple[str, str], ...]

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


@dataclass(frozen=True)
class Request:
    """A request. ``target`` is path and query as they came; header names are in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes = b""

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @cached_property
    def query(self) -> dict[str, list[str]]:
        return parse_qs(self.target.partition("?")[2], keep_blank_values=True)

    def flag(self, name: str) -> bool:
        """Whether ``?name=true`` (the Python client spells it ``True``)."""
        return self.query.get(name, [""])[0].lower() in ("true", "1")


@dataclass(frozen=True)
class Reply:
    """An answer: the bytes ``[start, stop)`` of a content.

    ``sized`` is False for a body sent in chunks; ``paced`` is True for files, which a slow hub sends slowly.
    """

    status: int
    headers: Headers = ()
    content: Content = b""
    start: int = 0
    stop: int | None = None
    sized: bool = True
    paced: bool = False

    @property
    def end(self) -> int:
        return len(self.content) if self.stop is None else self.stop


def json_reply(value: Any, *headers: tuple[str, str], status: int = 200) -> Reply:
    body = json.dumps(value, separators=(",", ":")).encode()
    return Reply(status, (("Content-Type", "application/json; charset=utf-8"), *headers), body)


def error_reply(status: int, code: str | None, message: str, *headers: tuple[str, str]) -> Reply:
    """A refusal as the hub sends it: the code that clients read, and the message in a header and as JSON."""
    coded = (("X-Error-Code", code),) if code else ()
    return json_reply({"error": message}, *coded, ("X-Error-Message", message), *headers, status=status)


def redirect_reply(status: int, location: str, *headers: tuple[str, str]) -> Reply:
    """A redirect. It has a body, as the hub's redirects have, so its Content-Length is not the file's."""
    text = f"Redirecting to {location}".encode()
    return Reply(status, (("Location", location), ("Content-Type", "text/plain; charset=utf-8"), *headers), text)


def file_reply(request: Request, content: Content, etag: str, *headers: tuple[str, str]) -> Reply:
    """A file or a range of it: 200, 206 or 416. A range may be closed, open or a suffix. Several ranges at
    once, or an If-Range with another ETag, get the whole file (RFC 9110, 13.1.5 and 14.2)."""
    size = len(content)
    usual = (("Accept-Ranges", "bytes"), ("ETag", etag), *headers)
    found = _RANGE.fullmatch(request.headers.get("range", "").strip())
    if not found or not any(found.groups()) or request.headers.get("if-range", etag) != etag:
        return Reply(200, usual, content, paced=True)
    first, last = found.groups()
    start = int(first) if first else max(size - int(last), 0)
    stop = min(int(last) + 1, size) if first and last else size
    if start >= size:
        return Reply(416, (*usual, ("Content-Range", f"bytes */{size}")))
    if start >= stop:
        return Reply(200, usual, content, paced=True)
    return Reply(206, (*usual, ("Content-Range", f"bytes {start}-{stop - 1}/{size}")), content, start, stop, paced=True)


def segment(text: str) -> str:
    """A text as one segment of a URL path."""
    return quote(text, safe="")
