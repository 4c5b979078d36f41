"""Locators: what stands for a stable URL of another scheme, such as ``s3://…``, at this moment.

A signed link expires, and the results of some endpoints come in an answer and have no link at all. So a file keeps a
URL that never changes, and a locator of its scheme is asked for the link, or the body, each time that one is needed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import field

import httpx

from mdl.values import value_class


@value_class
class Link:
    """An http(s) URL. Its server may take ``patience`` seconds until it answers; 0 for the usual time. ``authorized``
    if the token of its origin is sent, and the locator is asked for each request: a signed link has all that it needs,
    and S3 refuses one that comes with more. ``is_fresh`` if mdl signed it just now: what is not there
    by this link will not be there by another one. ``headers`` go to this URL alone, and with each request anew: of a
    bucket that takes no signed URLs they have the signature."""

    url: str = field(repr=False)
    patience: float = 0.0
    authorized: bool = False
    is_fresh: bool = False
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


@value_class
class Part:
    """The bytes of a range of a body that has ``total`` bytes, block by block; ``blocks.close`` is called, if there is
    one, when no more are needed. ``headers`` are as a server sends them: Content-Type, ETag and the like."""

    total: int
    blocks: Iterable[bytes] = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)


@value_class
class Body:
    """A body that does not come by HTTP. ``read(start, stop)`` gives the part from byte ``start`` up to ``stop``, or to
    the end if that is None; a part behind the end has no blocks. It gives a link if the bytes come from there now."""

    read: Callable[[int, int | None], Part | Link] = field(repr=False)

    @classmethod
    def of(cls, data: bytes, content_type: str = "application/octet-stream") -> Body:
        """Return the body that is at hand already."""
        headers = {"Content-Type": content_type}
        return cls(lambda start, stop: Part(len(data), (data[start:stop],), headers))

    def response(self, headers: Mapping[str, str]) -> httpx.Response | Link:
        """Return the answer of a server that has this body, to a request with these headers."""
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", headers.get("Range", ""))
        start = int(asked[1]) if asked else 0
        stop = int(asked[2]) + 1 if asked and asked[2] else None
        part = self.read(start, stop)
        if isinstance(part, Link):
            return part
        stop = part.total if stop is None else min(stop, part.total)
        if asked and start >= part.total:
            answer_headers = {"Content-Range": f"bytes */{part.total}", "Content-Length": "0"}
            return httpx.Response(416, headers=answer_headers)
        answer_headers = {**part.headers, "Content-Length": str(stop - start)}
        if asked:
            answer_headers["Content-Range"] = f"bytes {start}-{stop - 1}/{part.total}"
        return httpx.Response(206 if asked else 200, headers=answer_headers, stream=_Stream(part.blocks))


class _Stream(httpx.SyncByteStream):
    """Blocks as httpx takes them."""

    def __init__(self, blocks: Iterable[bytes]) -> None:
        self._blocks = blocks

    def __iter__(self) -> Iterator[bytes]:
        yield from self._blocks

    def close(self) -> None:
        if close := getattr(self._blocks, "close", None):
            close()


Locate = Callable[[str], Link | Body]
"""Makes a link or a body of a stable URL. May ask the network; raises `MdlError`."""
