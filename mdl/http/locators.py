"""Locators: what stands for a stable URL of another scheme, such as ``s3://…``, at this moment.

A signed link expires, and the results of some endpoints come in an answer and have no link at all. So a file keeps a
URL that never changes, and a locator of its scheme is asked for the link, or the body, each time that one is needed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import httpx


@dataclass(frozen=True)
class Link:
    """An http(s) URL. Its server may take ``patience`` seconds until it answers; 0 for the usual time. ``authorized``
    if the token of its origin is sent, and the locator is asked for each request: a signed link has all that it needs,
    and S3 refuses one that comes with more."""

    url: str = field(repr=False)
    patience: float = 0.0
    authorized: bool = False


@dataclass(frozen=True)
class Body:
    """A body of ``size`` bytes that mdl does not ask a URL for. ``read(start, stop)`` yields the bytes of that range;
    ``etag`` is a strong validator, '' if there is none."""

    size: int
    read: Callable[[int, int], Iterable[bytes]] = field(repr=False)
    content_type: str = ""
    etag: str = ""

    @classmethod
    def of(cls, data: bytes, content_type: str = "") -> Body:
        """The body that is at hand already."""
        return cls(len(data), lambda start, stop: iter((data[start:stop],)), content_type)

    def response(self, headers: Mapping[str, str]) -> httpx.Response:
        """The answer of a server that has this body, to a request with these headers."""
        size, asked = self.size, re.fullmatch(r"bytes=(\d+)-(\d*)", headers.get("Range", ""))
        start, stop = (int(asked[1]), min(int(asked[2] or size), size - 1) + 1) if asked else (0, size)
        told = {"Content-Type": self.content_type or "application/octet-stream"}
        if self.etag:
            told["ETag"] = self.etag
        if asked and start >= size:
            return httpx.Response(416, headers={**told, "Content-Range": f"bytes */{size}", "Content-Length": "0"})
        if asked:
            told["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
        told["Content-Length"] = str(stop - start)
        return httpx.Response(206 if asked else 200, headers=told, content=iter(self.read(start, stop)))


Locate = Callable[[str], Link | Body]
"""Makes a link or a body of a stable URL. May ask the network; raises `MdlError`."""
