"""Targets of what servers say: ranges, waits, links, tags, redirects, refusals; and of addresses that people write."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from functools import cache

import httpx

from mdl.errors import MdlError
from mdl.hashing import Digest
from mdl.net.allowlist import AllowList, OriginToken, host_of
from mdl.net.client import HttpClient
from mdl.net.headers import parse_content_range, parse_size, retry_after, validator_of
from mdl.net.http_errors import Asker, error_for_status
from mdl.net.ranges import ByteRange
from mdl.net.responses import Accept, RangeIgnored, announced_size, judge
from mdl.net.server_messages import server_message
from mdl.paths import RelPath
from mdl.sources.hub_api import next_page
from mdl.sources.hub_origin import parse_page, parse_reference
from mdl.sources.url_origin import UrlOrigin, check_url

_HUB = "https://huggingface.co"
_PATTERNS = ("cdn.example", "127.0.0.1:8080", "*.wide.example")
_NOW = datetime(2026, 1, 1, tzinfo=UTC)


def text_of(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def lines_of(data: bytes) -> list[str]:
    return text_of(data).split("\n")


def headers_of(lines: list[str]) -> dict[str, str]:
    pairs = (line.partition(":") for line in lines if ":" in line)
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


def _host(url: str) -> str | None:
    """The host that httpx would ask; None if it does not accept the URL."""
    try:
        seen = httpx.URL(url)
    except (httpx.InvalidURL, ValueError):
        return None
    assert not seen.userinfo
    return seen.host.rstrip(".").lower()


def content_range(data: bytes) -> None:
    """First line: status, first and last byte requested, size. No response is accepted for bytes outside that range."""
    first, *rest = lines_of(data)
    words = [parse_size(word) for word in first.split(" ")[:4]]
    status, start, last, size = [*words, *[None] * 4][:4]
    asked = ByteRange(start, last + 1) if start is not None and last is not None and start <= last else None
    headers = headers_of(rest)
    verdict = judge(status or 206, headers, asked=asked, size=size, validator=headers.get("begun"))
    told = announced_size(status or 206, headers)
    assert told is None or 0 <= told < 2**63
    parsed = parse_content_range(headers.get("content-range", ""))
    assert parsed is None or parsed[1] is None or parsed[0].stop <= parsed[1] < 2**63
    accept = verdict.accept if isinstance(verdict, RangeIgnored) else verdict
    if not isinstance(accept, Accept):
        return
    assert accept.stop is None or 0 <= accept.start <= accept.stop < 2**63
    if accept.ranged and status != 416:
        assert asked
        assert accept.stop
        assert accept.start == asked.start
        assert status in (0, 206) or "content-range" in headers
        assert accept.stop <= asked.stop
    elif not accept.ranged:
        assert accept.start == 0
        assert isinstance(verdict, RangeIgnored) or asked is None or asked.start == 0
        assert None in (accept.stop, size) or accept.stop == size


def wait(data: bytes) -> None:
    """The wait that a server asks for is finite and at least 0, or unknown."""
    wish = retry_after(headers_of(lines_of(data)), _NOW)
    assert wish is None or (wish >= 0 and math.isfinite(wish))


def link(data: bytes) -> None:
    """The next page of a listing is on the same origin."""
    found = next_page({"link": text_of(data)}, f"{_HUB}/api/models/org/repo/tree/main?recursive=true")
    if found is not None:
        AllowList.of([]).check(found)
        assert _host(found) in ("huggingface.co", None)


def etag(data: bytes) -> None:
    """An ETag becomes a digest only if it is one, and a weak ETag is no validator."""
    headers = headers_of(lines_of(data))
    found = Digest.of_etag(headers.get("etag"))
    assert found is None or Digest.parse(found.algorithm, found.hex) == found
    validator = validator_of(headers)
    assert validator is None or not validator.startswith("W/")


class _Server:
    """Answers each request with the next redirect of a list, and checks which host is asked and what is sent."""

    def __init__(self) -> None:
        self.locations: list[bytes] = []
        self.left_home = self.was_https = False
        self.hosts = AllowList.of(_PATTERNS)
        self.http = HttpClient(self.hosts, tokens=[OriginToken(f"{_HUB}:443", "hf_secret")])
        self.http.sender.transport = httpx.MockTransport(self.answer)

    def answer(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        assert url.scheme in ("http", "https")
        assert self.hosts.allows(url.host.rstrip("."), url.port or {"http": 80, "https": 443}[url.scheme]), url
        assert not (self.was_https and url.scheme == "http"), url
        assert not url.userinfo, url
        at_home = (url.scheme, url.host.rstrip("."), url.port or 443) == ("https", "huggingface.co", 443)
        self.left_home = self.left_home or not at_home
        assert not (self.left_home and "authorization" in request.headers), url
        assert "cookie" not in request.headers
        self.was_https = self.was_https or url.scheme == "https"
        if not self.locations:
            return httpx.Response(200, content=b"x")
        location = self.locations.pop(0)
        more = [(b"set-cookie", b"a=b"), (b"content-length", b"0")]
        return httpx.Response(302, headers=[(b"location", location), *more])


@cache
def _server() -> _Server:
    return _Server()


def redirects(data: bytes) -> None:
    """Each line is a Location. No host is asked that is not allowed, and no secret leaves the hub's origin."""
    server = _server()
    server.locations, server.left_home, server.was_https = data.split(b"\n")[:12], False, False
    with server.http.open("GET", f"{_HUB}/org/repo/resolve/main/a.bin") as opened:
        assert opened.status == 200
        assert "hf_secret" not in opened.url


def hosts(data: bytes) -> None:
    """All lines but the last are patterns. A URL that is allowed is, as httpx reads it, of an allowed host too."""
    *patterns, url = lines_of(data)
    if any(ord(char) <= 32 or ord(char) == 127 for char in url):
        return  # refused before, wherever a URL comes from
    allowed = AllowList.of(patterns[:9])
    try:
        parts = allowed.check(url)
    except ValueError:
        return  # no URL at all: `HttpClient` makes one error of it
    assert parts.scheme in ("http", "https")
    host = _host(url)
    assert host is None or allowed.allows(host, parts.port or {"http": 80, "https": 443}[parts.scheme])


def references(data: bytes) -> None:
    """A text is a reference, a URL that httpx accepts as well, or refused."""
    text = text_of(data)
    for parse in (parse_reference, lambda one: parse_page(one, ["huggingface.co"])):
        try:
            parse(text)
        except MdlError:
            continue
    url = check_url(text)
    assert _host(url) == host_of(url)
    name = UrlOrigin(url).file_name
    assert RelPath.parse(name.text) == name


def refused(data: bytes) -> None:
    """First line a status, then headers, after an empty line the body. The error is one line of harmless characters."""
    head, _, body = data.partition(b"\n\n")
    first, *rest = lines_of(head)
    status, headers = int(first) if first.isascii() and first.isdigit() and len(first) == 3 else 500, headers_of(rest)
    words = server_message(headers, body)
    error = error_for_status(status, headers, body, f"{_HUB}/org/repo?sig=1", Asker("HF_TOKEN"))
    for text in (words, error.message):
        assert "\n" not in text
        assert "\x1b" not in text
        assert len(text) < 1000


TARGETS = (content_range, wait, link, etag, redirects, hosts, references, refused)
