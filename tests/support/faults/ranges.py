"""Faults of ranges and validators (catalogue A): functions that return a handler."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from support.faults.base import ETAG, Data, alternate, choose, first, honest, pieces, resumes, with_headers
from support.faults.wire import Answer, Handler, Request, reply


def norange(data: Data) -> Handler:
    """Answers every Range with 200 and the whole file, and does not claim to know ranges."""
    headers = [("Content-Length", str(len(data))), ("ETag", ETAG)]
    return lambda request, number: Answer(200, headers, pieces(data))


def norange_after_start(data: Data) -> Handler:
    """206 for a range from byte 0, but 200 and the whole file for one that begins later."""
    return choose(resumes, norange(data), honest(data))


def _claiming(data: Data, claim: str, *, drop: bool = False) -> Handler:
    """Right bytes of the range under a Content-Range made from ``claim`` ({start}, {last}, {size})."""
    right = honest(data)

    def handler(request: Request, number: int) -> Answer:
        answer = right(request, number)
        span = request.range(len(data))
        if answer.status != 206 or span is None:
            return answer
        kept = [header for header in answer.headers if header[0] != "Content-Range"]
        said = claim.format(start=span[0], last=span[1] - 1, size=len(data))
        return replace(answer, headers=kept if drop else [*kept, ("Content-Range", said)])

    return handler


def wrong_start(data: Data, *, shift: int = 1) -> Handler:
    """206 for another range, ``shift`` bytes further on (or back); bytes and header agree."""

    def shifted(start: int, stop: int) -> tuple[int, int]:
        at = min(max(start + shift, 0), len(data) - 1)
        return at, at + stop - start

    return _other_span(data, shifted)


def wrong_total(data: Data, *, good: int = 1) -> Handler:
    """206 whose total is one byte too many, after the first ``good`` right answers."""
    return first(good, honest(data), _claiming(data, f"bytes {{start}}-{{last}}/{len(data) + 1}"))


def no_content_range(data: Data) -> Handler:
    """206 without a Content-Range."""
    return _claiming(data, "", drop=True)


def bad_content_range(data: Data, text: str = "bytes x-y/z") -> Handler:
    """206 with a Content-Range that is ``text``; {start}, {last} and {size} are filled in."""
    return _claiming(data, text)


def star_total(data: Data) -> Handler:
    """206 whose total is ``*``: legal, of unknown length."""
    return _claiming(data, "bytes {start}-{last}/*")


def short_206(data: Data, *, cap: int = 64 * 1024) -> Handler:
    """206 of at most ``cap`` bytes, with headers that say so: legal, less than asked."""
    return _other_span(data, lambda start, stop: (start, min(stop, start + cap)))


def long_206(data: Data, *, extra: int = 1000) -> Handler:
    """206 that goes ``extra`` bytes beyond the range asked for (but not beyond the file), and says so."""
    return _other_span(data, lambda start, stop: (start, stop + extra))


def _other_span(data: Data, span_of: Callable[[int, int], tuple[int, int]]) -> Handler:
    """206 of other bytes than requested, as the headers say."""
    right = honest(data)

    def handler(request: Request, number: int) -> Answer:
        span = request.range(len(data))
        if span is None or span[0] >= len(data):
            return right(request, number)
        start, stop = span_of(*span)
        stop = min(stop, len(data))
        said = f"bytes {start}-{stop - 1}/{len(data)}"
        headers = [("ETag", ETAG), ("Content-Range", said), ("Content-Length", str(stop - start))]
        return Answer(206, headers, pieces(data, start, stop))

    return handler


def multipart_206(data: Data) -> Handler:
    """206 as multipart/byteranges, one part, though one range was asked for."""
    right = honest(data)

    def handler(request: Request, number: int) -> Answer:
        span = request.range(len(data))
        if span is None:
            return right(request, number)
        start, stop = span
        head = f"--cut\r\nContent-Type: x/y\r\nContent-Range: bytes {start}-{stop - 1}/{len(data)}\r\n\r\n".encode()
        body = head + data[start:stop] + b"\r\n--cut--\r\n"
        return reply(206, body, ("Content-Type", "multipart/byteranges; boundary=cut"), ("ETag", ETAG))

    return handler


def other_bytes(data: Data, *, everywhere: bool = False) -> Handler:
    """Ranges after byte 0 come from another file of the same length and ETag (``everywhere``: all answers do)."""
    other = honest(Flipped(data))
    return other if everywhere else choose(resumes, other, honest(data))


class Flipped:
    """The same length, every byte another."""

    def __init__(self, data: Data) -> None:
        self._data = data

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, span: slice) -> bytes:
        return bytes(self._data[span]).translate(bytes(255 - value for value in range(256)))


def flaps(old: Data, new: Data) -> Handler:
    """Old and new file, each with its ETag, by turns: two versions behind one name."""
    return alternate(honest(old), honest(new, etag='"v2"'))


def ignores_if_range(data: Data) -> Handler:
    """206 of the present version, ETag "v2", whatever If-Range says."""
    right = honest(data, etag='"v2"')

    def handler(request: Request, number: int) -> Answer:
        kept = tuple(header for header in request.headers if header[0].lower() != "if-range")
        return right(replace(request, headers=kept), number)

    return handler


def unsatisfiable(data: Data, *, said: str | None = "bytes */{size}", body: bytes = b"") -> Handler:
    """416 to every Range, with or without a Content-Range, with a body if wanted; 200 to a plain GET."""
    headers = [("Content-Range", said.format(size=len(data)))] if said else []
    refuse: Handler = lambda request, number: reply(416, body, *headers)  # noqa: E731
    return choose(lambda request: request.header("range") is not None, refuse, honest(data))


def one_at_a_time(handler: Handler, *, refusal: int | str = 429) -> Handler:
    """Serves one answer at once; one more gets ``refusal``: a status, or "reset"."""

    def guarded(request: Request, number: int) -> Answer:
        if request.active <= 1:
            return handler(request, number)
        if refusal == "reset":
            return Answer(None, end="reset")
        return reply(refusal, b"one connection, please\n")

    return guarded


def no_accept_ranges(data: Data) -> Handler:
    """Knows ranges but does not say so."""
    return with_headers(honest(data), drop=("Accept-Ranges",))
