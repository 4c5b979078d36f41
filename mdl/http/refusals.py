"""Refusals: which error a response with a status of 400 or more is, in the server's own words. Pure.

Header names and codes of the hub: https://huggingface.co/docs (X-Error-Code, X-Error-Message).
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

from mdl.errors import AuthError, MdlError, NetworkError, NotFound
from mdl.http.allowlist import host_of
from mdl.http.policy import is_temporary, retry_after
from mdl.paths import shown
from mdl.redact import bare_url, redact_value

PROXY_PASSWORD = "check the user name and password of the proxy variable"
_LONGEST = 300
_LOOKED_AT = 4096
_PAGE = re.compile(rb"<(!doctype\s+html|html|head|title)\b", re.IGNORECASE)
_CLOCK = re.compile(r"not yet valid|TimeTooSkewed|request time and the (current|server)", re.IGNORECASE)
"""How S3 and others say that the time of a signature differs from their own clock."""
_QUERY = re.compile(r"(\?|%3f)[^\s?]*\w\S*", re.IGNORECASE)
"""The query in a URL that a server repeats."""


def safe_excerpt(text: str, secrets: Iterable[str] = (), longest: int = _LONGEST) -> str:
    """What a server said, in one line of at most ``longest`` characters, without ``secrets`` and without any query."""
    for form in (str, html.unescape):
        text = _QUERY.sub("?…", redact_value(form(text), secrets))
    return shown(" ".join(text.split()))[:longest]


def server_message(headers: Mapping[str, str], body: bytes, secrets: Iterable[str] = ()) -> str:
    """Why the server refused, in one line, from a header, JSON, XML, an HTML title or plain text; "" if it said
    nothing."""
    text = headers.get("x-error-message", "") or _message_in(headers.get("content-type", ""), body)
    return safe_excerpt(text, secrets)


def _message_in(kind: str, body: bytes) -> str:
    text = body[:_LOOKED_AT].decode("utf-8", "replace")
    if "json" in kind or text.lstrip().startswith("{"):
        try:
            return _message_in_json(json.loads(text))
        except (ValueError, RecursionError):
            pass
    for tag in ("Message", "title", "h1"):
        match = re.search(rf"<{tag}[^>]*>(.*?)</{tag}>", text, re.IGNORECASE | re.DOTALL)
        if match:
            return match[1]
    return "" if "<" in text else text.strip().split("\n")[0]


def _message_in_json(data: Any) -> str:
    if not isinstance(data, dict):
        return ""
    for key in ("error", "errors", "message", "error_description", "detail"):
        value = data.get(key)
        if isinstance(value, list) and value:
            value = value[0]
        if isinstance(value, dict):
            value = value.get("message") or value.get("msg")  # FastAPI writes ``msg`` of what it refuses
        if isinstance(value, str) and value:
            return value
    return ""


def impostor(body: bytes) -> tuple[str, str] | None:
    """What a body is, by its beginning, if it is not the file, and what to do: a web page or a git-lfs pointer."""
    if body.startswith(b"version https://git-lfs.github.com/spec/"):
        return "what came is a git-lfs pointer, not the file", "use the URL under which the file itself is served"
    if not _PAGE.search(body[:_LOOKED_AT]):
        return None
    title = server_message({}, body)
    what = "what came is a web page" + (f", {title!r}" if title else "")
    return what, "if your network requires a sign-in, sign in first; else look at the URL in a browser"


def request_id(headers: Mapping[str, str], secrets: Iterable[str] = ()) -> str:
    """The server's own name for the request, to give to its support; "" if it has none."""
    for name in ("x-request-id", "x-amzn-trace-id", "x-amz-cf-id", "x-amz-request-id"):
        if headers.get(name):
            return safe_excerpt(headers[name], secrets, 100)
    return ""


def error_for_status(
    status: int, headers: Mapping[str, str], body: bytes, url: str, *, token_sent: bool, secrets: Iterable[str] = ()
) -> MdlError:
    """The error that an HTTP status of 400 or more is. The message names the host and path of ``url``.

    ``secrets`` were sent to the server. The message does not contain them, even if the server repeated them.
    """
    host = host_of(url)
    words = server_message(headers, body, secrets)
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    ident = request_id(headers, secrets)
    answer = f"{status} {phrase}".rstrip()
    says_more = words.lower().strip(". ") not in ("", str(status), phrase.lower(), answer.lower())
    message = f"{host} answered {answer}" + (f": {words}" if says_more else "")
    message += f" (request {ident})" if ident else ""
    code = headers.get("x-error-code", "")
    if status == 407:
        return AuthError(f"the proxy answered {message}", hint=PROXY_PASSWORD)
    if status in (401, 403):
        return AuthError(message, hint=_auth_hint(code, words, url, token_sent))
    if status in (404, 410):
        hint = {"RevisionNotFound": "check the revision", "EntryNotFound": "check the file's path in the repository"}
        return NotFound(message, hint=hint.get(code, "check the name; a private repository needs HF_TOKEN"))
    if not is_temporary(status, None):
        return NetworkError(message, hint="the server will not serve this as asked", final=True)
    asked = retry_after(headers)
    if asked is not None and not is_temporary(status, asked):
        return NetworkError(
            f"{message}; it asks to wait {asked:.0f} s", hint="run the same command again later", final=True
        )
    return NetworkError(message, hint="run the same command again later; what was fetched is kept", retry_after=asked)


def _auth_hint(code: str, words: str, url: str, token_sent: bool) -> str:
    if _CLOCK.search(words):
        return "check this machine's clock, its date and time zone: the server checks the time of a request"
    page = re.sub(r"/(resolve|api|raw)/.*", "", bare_url(url).replace("/api/models/", "/").replace("/api/", "/"))
    page = re.sub(r"/(tree|revision)/.*", "", page)
    if code == "GatedRepo":
        need = "with an account that has access, then set HF_TOKEN" if not token_sent else "with the token's account"
        return f"gated: accept the licence at {page} {need}"
    if "Invalid credentials" in words:
        return "HF_TOKEN is wrong or has expired; make a new one"
    if token_sent:
        return "the token has no access, or the repository does not exist: the server does not say which"
    return "absent, private or gated: the server does not say which; if it exists, set HF_TOKEN"
