"""What a server says, made safe to repeat: its message, its name for a request, and a page that came instead of a file.
Pure."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

from mdl.bounds import LONGEST_QUOTE, parse_json
from mdl.paths import shown
from mdl.redact import redact_value

_LOOKED_AT = 4096
_PAGE = rb"(?i)<(!doctype\s+html|html|head|title)\b"
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
"""How a git-lfs pointer begins: the small file that a clone has where git did not fetch the real one."""
LONGEST_POINTER = 1024
"""Bytes that such a pointer has at most."""
_SAYING = (
    *("error", "errors", "message", "Message", "msg", "detail", "reason", "title", "status"),
    *("error_description", "error_message"),
)
"""Keys of a JSON object under which servers say what is wrong."""
_PHRASES = {status.phrase.lower() for status in HTTPStatus}
_OF_AN_ERROR = ("error", "errors", "error_description")
_OF_A_MESSAGE = ("message", "Message", "msg", "detail")
_FEW_KEYS = 4
"""So many keys at most has a JSON object that is nothing but a message."""
LONGEST_PLAIN_ERROR = 300
"""So many characters at most has a text that is nothing but an error in plain words."""
_PLAIN_ERROR = (
    r"(?i)\s*(error( code)?(\s*:| \d|\s*\Z)|[45]\d\d[^\w\t]{1,3}[a-z]{3}|(un|not )authori[sz]ed"
    r"|forbidden|(access|permission) (is )?denied|not found"
    r"|(the )?(file|page|entry|model|repo(sitory)?|object|resource)\b.{0,60}\b(not found|does not exist|no longer)"
    r"|(invalid|expired) (user ?name|credential|token|api key|signature|link|request)|too many requests"
    r"|(rate|download|quota|bandwidth)\b.{0,20}\b(limit|exceeded)"
    r"|internal (server )?error|bad (gateway|request)|service (is )?(temporarily )?(unavailable|not available)"
    r"|gateway time-?out|upstream (connect|request|server|prematurely|timed)|no healthy upstream"
    r"|authentication (is )?(required|needed|failed|error)|(please |you (must|need to|have to) )(log|sign|try)"
    r"|you (are not|do not|don't)\b)"
)
"""How servers and proxies begin a plain text that they send in the place of a file; kept as text, as it is needed for
names that nobody knows alone."""
_XML_ERROR = r"\s*(<\?xml[^>]*>\s*)?<(Error>\s*<Code>|(ListBucketResult|EnumerationResults)\b)"
_FILTER = (
    r"(?i)\b(zscaler|forti(guard|gate|net)|forcepoint|websense|blue ?coat|netskope|mcafee web gateway|skyhigh"
    r"|cisco umbrella|palo alto|sophos|barracuda|trend ?micro|menlo security|iboss)\b"
)
"""The filters of companies and schools that put a page of their own in the place of an answer, by name."""
_TAGGED = r"(?is)<(message|title|h1)\b[^>]*>(.*?)</\1>"
"""Where XML and HTML say it."""
_QUERY = r"(?i)(\?|%3f)[^\s?]*\w\S*"
"""The query in a URL that a server repeats."""
_REQUEST_IDS = ("x-request-id", "x-amzn-trace-id", "x-amz-cf-id", "x-amz-request-id")


def safe_excerpt(text: str, secrets: Iterable[str] = (), longest: int = LONGEST_QUOTE) -> str:
    """Return what a server said, in one line of at most ``longest`` characters, without ``secrets`` and without any
    query."""
    secrets = tuple(secrets)
    text = re.sub(_QUERY, "?…", redact_value(text, secrets))
    text = re.sub(_QUERY, "?…", redact_value(html.unescape(text), secrets))
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
            return message_in_json(parse_json(text, allow_nan=True))
        except ValueError:
            pass
    tagged = re.search(_TAGGED, text)
    if tagged:
        return tagged[2]
    return "" if "<" in text else text.strip().split("\n")[0]


def message_in_json(data: Any) -> str:
    """Return what an answer says under the usual keys; a whole sentence rather than the one word of a code, or the name
    of a status, before it."""
    if not isinstance(data, dict):
        return ""
    sayings = [_text_in(data.get(key)) for key in _SAYING]
    return max(sayings, key=lambda saying: (" " in saying and saying.lower() not in _PHRASES, bool(saying)))


def _text_in(value: Any) -> str:
    if isinstance(value, list):
        value = next(iter(value), "")
    if isinstance(value, dict):
        value = value.get("message") or value.get("msg")  # FastAPI writes ``msg`` of what it refuses
    return value.strip() if isinstance(value, str) else ""


def is_error_text(text: str) -> bool:
    """Return whether a whole text is what a server says in place of a file: a JSON object with an error, or with little
    more than a message, the XML of a bucket, its list included, or one line with an error in plain words."""
    if re.match(_XML_ERROR, text):
        return True
    if not text.lstrip().startswith("{"):
        is_one_line = len(text) <= LONGEST_PLAIN_ERROR and len(text.strip().splitlines()) == 1
        return is_one_line and re.match(_PLAIN_ERROR, text) is not None
    try:
        data = parse_json(text, allow_nan=True)
    except ValueError:
        return False
    has_error = any(_text_in(data.get(key)) for key in _OF_AN_ERROR)
    has_message = any(_text_in(data.get(key)) for key in _OF_A_MESSAGE)
    return has_error or (has_message and len(data) <= _FEW_KEYS)


def request_id(headers: Mapping[str, str], secrets: Iterable[str] = ()) -> str:
    """Return the server's own name for the request, to give to its support; "" if it has none."""
    for name in _REQUEST_IDS:
        if headers.get(name):
            return safe_excerpt(headers[name], secrets, 100)
    return ""


def filter_hint(words: str, host: str) -> str:
    """Return what to do about a filter between here and ``host`` that a page of it names; '' if ``words`` name none."""
    product = re.search(_FILTER, words)
    return f"{product[0]} filters this network: have {host} allowed there, or take another source" if product else ""


def impostor(body: bytes) -> tuple[str, str] | None:
    """Return what a body is, by its beginning, if it is not the file, and what to do: a web page or a git-lfs
    pointer."""
    if body.startswith(LFS_POINTER):
        return "what came is a git-lfs pointer, not the file", "use the URL under which the file itself is served"
    if not re.search(_PAGE, body[:_LOOKED_AT]):
        return None
    title = server_message({}, body)
    named = f", {title!r}" if title else ""
    hint = "if your network requires a sign-in, sign in first; else look at the URL in a browser"
    return f"what came is a web page{named}", filter_hint(title, "its host") or hint
