"""The honest server every fault is a change of, and ways to put handlers together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from email.utils import formatdate
from typing import Protocol

from support.faults.wire import Answer, Ending, Handler, Request, reply

PIECE = 64 * 1024
ETAG = '"v1"'


class Data(Protocol):
    """What is served: bytes, or anything with a length whose slices are bytes."""

    def __len__(self) -> int: ...
    def __getitem__(self, span: slice, /) -> bytes: ...


class Sparse:
    """A file of any size that is zero but for a few islands: {offset: bytes}. Nothing is held but these."""

    def __init__(self, size: int, islands: Mapping[int, bytes]) -> None:
        self._size, self._islands = size, dict(islands)

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, span: slice) -> bytes:
        start, stop, _ = span.indices(self._size)
        out = bytearray(max(stop - start, 0))
        for offset, data in self._islands.items():
            first, last = max(offset, start), min(offset + len(data), stop)
            if first < last:
                out[first - start : last - start] = data[first - offset : last - offset]
        return bytes(out)


def pieces(data: Data, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
    """The bytes [start, stop) a piece at a time."""
    stop = len(data) if stop is None else stop
    for at in range(start, stop, PIECE):
        yield data[at : min(at + PIECE, stop)]


def if_range_holds(request: Request, etag: str | None, modified: str | None) -> bool:
    """RFC 9110, 13.1.5: an absent If-Range, the same strong ETag, or the very same date."""
    asked = request.header("if-range")
    if asked is None:
        return True
    return asked == modified or (asked == etag and not asked.startswith("W/"))


def honest(
    data: Data,
    *,
    etag: str | None = ETAG,
    modified: str | None = None,
    content_type: str = "application/octet-stream",
) -> Handler:
    """A static file server that does everything right: ranges, If-Range, 416, HEAD, keep-alive."""

    def handler(request: Request, number: int) -> Answer:
        size = len(data)
        headers = [("Date", formatdate(usegmt=True)), ("Content-Type", content_type), ("Accept-Ranges", "bytes")]
        headers += [("ETag", etag)] if etag else []
        headers += [("Last-Modified", modified)] if modified else []
        span = request.range(size) if if_range_holds(request, etag, modified) else None
        if span is None:
            return Answer(200, [*headers, ("Content-Length", str(size))], pieces(data))
        start, stop = span
        if start >= size or start >= stop:
            return reply(416, b"", *headers, ("Content-Range", f"bytes */{size}"))
        headers += [("Content-Range", f"bytes {start}-{stop - 1}/{size}"), ("Content-Length", str(stop - start))]
        return Answer(206, headers, pieces(data, start, stop))

    return handler


def with_headers(handler: Handler, *extra: tuple[str, str | bytes], drop: tuple[str, ...] = ()) -> Handler:
    """The same answers with headers dropped and others added."""

    def changed(request: Request, number: int) -> Answer:
        answer = handler(request, number)
        gone = {name.lower() for name in (*drop, *(name for name, _ in extra))}
        return replace(answer, headers=[*(h for h in answer.headers if h[0].lower() not in gone), *extra])

    return changed


class Counter:
    """Counts 0, 1, 2, … for many threads."""

    def __init__(self) -> None:
        self._lock, self._next = threading.Lock(), 0

    def __call__(self) -> int:
        with self._lock:
            self._next += 1
            return self._next - 1


def first(count: int, bad: Handler, then: Handler) -> Handler:
    """The first ``count`` requests other than HEAD go to ``bad``, all others to ``then``."""
    gets = Counter()

    def handler(request: Request, number: int) -> Answer:
        spoilt = request.method != "HEAD" and gets() < count
        return (bad if spoilt else then)(request, number)

    return handler


def alternate(*handlers: Handler) -> Handler:
    """Requests other than HEAD take turns among the handlers; HEAD asks the first."""
    gets = Counter()

    def handler(request: Request, number: int) -> Answer:
        turn = 0 if request.method == "HEAD" else gets() % len(handlers)
        return handlers[turn](request, number)

    return handler


def per_connection(*handlers: Handler) -> Handler:
    """Each new connection meets another of the machines behind one name."""
    return lambda request, number: handlers[request.connection % len(handlers)](request, number)


def choose(test: Callable[[Request], bool], yes: Handler, no: Handler) -> Handler:
    """``yes`` for the requests the test picks, else ``no``."""
    return lambda request, number: (yes if test(request) else no)(request, number)


def resumes(request: Request) -> bool:
    """Whether this request asks for a range that begins behind byte 0."""
    spec = (request.header("range") or "").partition("=")[2]
    return spec.partition("-")[0].strip() not in ("", "0")


def always(answer: Answer) -> Handler:
    """This answer, whatever is asked for."""
    return lambda request, number: answer


nothing_here = always(reply(404, b"not here\n"))


def ending(handler: Handler, end: Ending) -> Handler:
    """The same answers, ended so."""
    return lambda request, number: replace(handler(request, number), end=end)


def routes(by_path: Mapping[str, Handler], other: Handler = nothing_here) -> Handler:
    """One handler a path; ``other`` for all others."""
    return lambda request, number: by_path.get(request.path, other)(request, number)


def acting(act: Callable[[], object], then: Handler) -> Handler:
    """The handler's answers, before each of which something is done."""

    def handler(request: Request, number: int) -> Answer:
        act()
        return then(request, number)

    return handler
