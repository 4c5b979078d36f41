"""What a server says, made safe to repeat: its message, its name for a request, and a page that came instead of a file.
Pure."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping
from typing import Any

from mdl.bounds import LONGEST_QUOTE, parse_json
from mdl.paths import shown
from mdl.redact import redact_value

_LOOKED_AT = 4096
_PAGE = re.compile(rb"<(!doctype\s+html|html|head|title)\b", re.IGNORECASE)
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_SAYING = ("error", "errors", "message", "error_description", "detail")
"""Keys of a JSON object under which servers say what is wrong."""
_TAGGED = re.compile(r"<(message|title|h1)\b[^>]*>(.*?)</\1>", re.IGNORECASE | re.DOTALL)
"""Where XML and HTML say it."""
_QUERY = re.compile(r"(\?|%3f)[^\s?]*\w\S*", re.IGNORECASE)
"""The query in a URL that a server repeats."""
_REQUEST_IDS = ("x-request-id", "x-amzn-trace-id", "x-amz-cf-id", "x-amz-request-id")


def safe_excerpt(text: str, secrets: Iterable[str] = (), longest: int = LONGEST_QUOTE) -> str:
    """Return what a server said, in one line of at most ``longest`` characters, without ``secrets`` and without any
    query."""
    secrets = tuple(secrets)
    text = _QUERY.sub("?…", redact_value(text, secrets))
    text = _QUERY.sub("?…", redact_value(html.unescape(text), secrets))
    return shown(" ".join(text.split()))[:longest]


def server_message(headers: Mapping[str, str], body: bytes, secrets: Iterable[str] = ()) -> str:
    """Return why the server refused, in one line, from a header, JSON, XML, an HTML title or plain text; "" if it said
    nothing."""
    text = headers.get("x-error-message", "") or _message_in(headers.get("content-type", ""), body)
    return safe_excerpt(text, secrets)


def _message_in(content_type: str, body: bytes) -> str:
    text = body[:_LOOKED_AT].decode("utf-8", "replace")
    if "json" in content_type or text.lstrip().startswith("{"):
        try:
            return _message_in_json(parse_json(text, allow_nan=True))
        except ValueError:
            pass
    tagged = _TAGGED.search(text)
    if tagged:
        return tagged[2]
    return "" if "<" in text else text.strip().split("\n")[0]


def _message_in_json(data: Any) -> str:
    """Return what an answer says under the usual keys; a whole sentence rather than the one word of a code before
    it."""
    if not isinstance(data, dict):
        return ""
    sayings = [_text_in(data.get(key)) for key in _SAYING]
    return max(sayings, key=lambda saying: (" " in saying, bool(saying)))


def _text_in(value: Any) -> str:
    if isinstance(value, list):
        value = next(iter(value), "")
    if isinstance(value, dict):
        value = value.get("message") or value.get("msg")  # FastAPI writes ``msg`` of what it refuses
    return value.strip() if isinstance(value, str) else ""


def request_id(headers: Mapping[str, str], secrets: Iterable[str] = ()) -> str:
    """Return the server's own name for the request, to give to its support; "" if it has none."""
    for name in _REQUEST_IDS:
        if headers.get(name):
            return safe_excerpt(headers[name], secrets, 100)
    return ""


def impostor(body: bytes) -> tuple[str, str] | None:
    """Return what a body is, by its beginning, if it is not the file, and what to do: a web page or a git-lfs
    pointer."""
    if body.startswith(_LFS_POINTER):
        return "what came is a git-lfs pointer, not the file", "use the URL under which the file itself is served"
    if not _PAGE.search(body[:_LOOKED_AT]):
        return None
    title = server_message({}, body)
    named = f", {title!r}" if title else ""
    return (
        f"what came is a web page{named}",
        "if your network requires a sign-in, sign in first; else look at the URL in a browser",
    )
