"""Faults of bodies, framing and headers (catalogue B): functions that return a handler."""

from __future__ import annotations

import gzip
import io
import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

from support.faults.base import ETAG, PIECE, Data, choose, ending, honest, pieces, with_headers
from support.faults.wire import Answer, Handler, Piece, Request, reply

Drop = Literal["close", "reset"]


def upto(body: Iterator[bytes], count: int) -> Iterator[bytes]:
    """The first ``count`` bytes of a body."""
    for piece in body:
        if count <= 0:
            return
        yield piece[:count]
        count -= len(piece)


def cut(handler: Handler, at: int, *, end: Drop = "close") -> Handler:
    """The same answers, but every body ends (by close or reset) after ``at`` of its bytes."""

    def shortened(request: Request, number: int) -> Answer:
        answer = handler(request, number)
        whole = (piece for piece in answer.pieces() if isinstance(piece, bytes))
        return replace(answer, body=upto(whole, at), end=end)

    return shortened


def short_body(data: Data, at: int, *, end: Drop = "close") -> Handler:
    """An honest server whose every answer is cut after ``at`` bytes, its Content-Length unchanged."""
    return cut(honest(data), at, end=end)


def no_length(data: Data) -> Handler:
    """200 without Content-Length, ended by closing, which cannot be told from a cut."""
    return lambda request, number: Answer(200, [("ETag", ETAG)], pieces(data), "close")


def no_length_cut(data: Data, at: int) -> Handler:
    """200 without Content-Length, closed after ``at`` bytes."""
    return cut(no_length(data), at)


def chunked_pieces(body: Iterator[bytes], *, extension: bytes = b"") -> Iterator[bytes]:
    """Each piece as a chunk, without the last, empty chunk."""
    for piece in body:
        yield b"%x%b\r\n%b\r\n" % (len(piece), extension, piece)


def chunked(data: Data, *, chunk: int = PIECE, extension: bytes = b"") -> Handler:
    """200, chunked, whole. ``chunk=1`` makes a million chunks of a megabyte; ``extension`` goes on each."""

    def body() -> Iterator[bytes]:
        cuts = (data[at : at + chunk] for at in range(0, len(data), chunk))
        yield from chunked_pieces(cuts, extension=extension)
        yield b"0\r\n\r\n"

    return lambda request, number: Answer(200, [("ETag", ETAG), ("Transfer-Encoding", "chunked")], body())


def chunked_cut(data: Data, at: int | None = None) -> Handler:
    """200, chunked, closed after ``at`` bytes of the file (None: all of them) and without the last chunk."""

    def handler(request: Request, number: int) -> Answer:
        body = chunked_pieces(pieces(data, 0, at))
        return Answer(200, [("ETag", ETAG), ("Transfer-Encoding", "chunked")], body, "close")

    return handler


def extra_bytes(data: Data, *, extra: bytes = b"surplus" * 100) -> Handler:
    """More bytes after the announced Content-Length, then closed."""
    right = honest(data)

    def handler(request: Request, number: int) -> Answer:
        answer = right(request, number)
        return replace(answer, body=itertools.chain(answer.pieces(), [extra]), end="close")

    return handler


def wrong_length(data: Data, by: int) -> Handler:
    """A complete, well-framed 200 of another length: ``by`` bytes more (zeros) or fewer."""
    size = max(len(data) + by, 0)

    def body() -> Iterator[bytes]:
        yield from pieces(data, 0, min(size, len(data)))
        yield bytes(max(by, 0))

    return lambda request, number: Answer(200, [("Content-Length", str(size)), ("ETag", ETAG)], body())


def endless(data: Data = b"x" * PIECE, *, framing: Literal["close", "chunked", "length"] = "close") -> Handler:
    """``data`` over and over without end; ``length`` announces 2**60 bytes."""

    def handler(request: Request, number: int) -> Answer:
        body: Iterator[Piece] = (piece for _ in itertools.count() for piece in pieces(data))
        headers = {
            "close": [],
            "chunked": [("Transfer-Encoding", "chunked")],
            "length": [("Content-Length", str(2**60))],
        }
        if framing == "chunked":
            body = chunked_pieces(piece for _ in itertools.count() for piece in pieces(data))
        return Answer(200, headers[framing], body, "close")

    return handler


def gzip_encoded(data: Data, *, status: int = 200) -> Handler:
    """An unrequested Content-Encoding: gzip; with ``status=206`` as a range of the encoded file."""
    coded = gzip.compress(data[0 : len(data)], mtime=0)
    said = [("Content-Range", f"bytes 0-{len(coded) - 1}/{len(coded)}")] if status == 206 else []
    return lambda request, number: reply(status, coded, ("ETag", ETAG), ("Content-Encoding", "gzip"), *said)


def gzip_bomb(size: int) -> Handler:
    """A small gzip body of a JSON answer that inflates to ``size`` blanks."""
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as file:
        for _ in range(0, size, 2**20):
            file.write(b" " * 2**20)
    headers = [("Content-Encoding", "gzip"), ("Content-Type", "application/json")]
    return lambda request, number: reply(200, packed.getvalue(), *headers)


BAD_LENGTHS: dict[str, tuple[str, ...]] = {
    "negative": ("-1",),
    "plus": ("+{size}",),
    "two numbers": ("{size} {size}",),
    "list": ("{size}, {size}",),
    "list of two": ("{size}, 5",),
    "repeated": ("{size}", "{size}"),
    "two headers": ("{size}", "5"),
    "not a number": ("many",),
    "hex": ("0x10",),
    "empty": ("",),
    "fraction": ("{size}.0",),
    "underscore": ("1_0",),
    "huge": ("9" * 400,),
    "chunked too": ("{size}", "chunked"),
}
"""Values of Content-Length headers by name; {size} is filled in. "chunked too" also says Transfer-Encoding."""


def bad_length(data: Data, name: str) -> Handler:
    """200 with the Content-Length headers `BAD_LENGTHS` has under ``name``; the right bytes, then closed."""
    values = [value.format(size=len(data)) for value in BAD_LENGTHS[name]]
    if values[-1] == "chunked":
        headers = [("Content-Length", values[0]), ("Transfer-Encoding", "chunked")]
        body = [*chunked_pieces(pieces(data)), b"0\r\n\r\n"]
        return lambda request, number: Answer(200, headers, body, "close")
    lengths = [("Content-Length", value) for value in values]
    return lambda request, number: Answer(200, lengths, pieces(data), "close")


def many_headers(data: Data, *, count: int = 1_000_000, length: int = 10) -> Handler:
    """``count`` headers of ``length`` bytes before the rest. One of 2**30 bytes is a very long line."""

    def handler(request: Request, number: int) -> Answer:
        def body() -> Iterator[bytes]:
            yield b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n" % len(data)
            for at in range(count):
                yield b"X-%d: " % at
                yield from (b"h" * min(PIECE, length - done) for done in range(0, length, PIECE))
                yield b"\r\n"
            yield b"\r\n"
            yield from pieces(data)

        return Answer(None, body=body(), end="close")

    return handler


def continues(data: Data, *, count: int | None = None, status: int = 100) -> Handler:
    """Interim answers (100 or 103) before the final one; without ``count``, for ever."""

    def handler(request: Request, number: int) -> Answer:
        interim = b"HTTP/1.1 %d Wait\r\n\r\n" % status
        many = itertools.repeat(interim) if count is None else itertools.repeat(interim, count)
        final = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(data)
        return Answer(None, body=itertools.chain(many, [final], pieces(data)), end="close")

    return handler


def old_http(data: Data) -> Handler:
    """HTTP/1.0 with a Content-Length, closed after each answer."""
    headers = [("Content-Length", str(len(data)))]
    return lambda request, number: Answer("HTTP/1.0 200 OK", headers, pieces(data), "close")


def no_head(data: Data) -> Handler:
    """HTTP/0.9: the bytes and nothing else."""
    return lambda request, number: Answer(None, body=pieces(data), end="close")


def garbage_status(data: Data) -> Handler:
    """A malformed status line."""
    return lambda request, number: Answer(
        "HTTP/x.y twohundred", [("Content-Length", str(len(data)))], pieces(data), "close"
    )


def portal(title: str = "Hotel Wi-Fi: please log in") -> Handler:
    """A captive portal: 200 text/html to everything."""
    page = f"<html><head><title>{title}</title></head><body>{'welcome ' * 100}</body></html>".encode()
    return lambda request, number: reply(200, page, ("Content-Type", "text/html; charset=utf-8"))


def page_of_right_length(data: Data) -> Handler:
    """200 text/html padded to the very length of the file."""
    page = b"<html><title>Sorry</title></html>".ljust(len(data))[: len(data)]
    return lambda request, number: reply(200, page, ("Content-Type", "text/html"))


def lfs_pointer(sha256: str, size: int) -> Handler:
    """The git-lfs pointer text in place of the file."""
    text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()
    return lambda request, number: reply(200, text, ("Content-Type", "text/plain; charset=utf-8"))


def _heads(head: Handler, other: Handler) -> Handler:
    return choose(lambda request: request.method == "HEAD", head, other)


def head_refused(data: Data, status: int = 405) -> Handler:
    """HEAD gets ``status`` (403, 405, 501); GET is served."""
    return _heads(lambda request, number: reply(status, b""), honest(data))


def head_hangs(data: Data) -> Handler:
    """HEAD is never answered; GET is served."""
    return _heads(lambda request, number: Answer(None, end="hang"), honest(data))


def head_lies(data: Data, *, size: int = 913) -> Handler:
    """HEAD tells another Content-Length than GET."""
    return _heads(with_headers(honest(data), ("Content-Length", str(size))), honest(data))


def names_itself(data: Data, disposition: str | bytes) -> Handler:
    """A Content-Disposition of the server's choosing: ../../x, C:\\x, NUL, 5 kB …"""
    return with_headers(honest(data), ("Content-Disposition", disposition))


def reset_at_end(data: Data) -> Handler:
    """Whole answers, each followed by a reset once the last byte has arrived."""
    return ending(honest(data), "reset")


def keepalive_dies(data: Data, *, end: Drop = "close") -> Handler:
    """Every connection serves one answer; at the next request it is closed or reset without a word."""
    is_first = lambda request: request.on_connection == 0  # noqa: E731
    return choose(is_first, honest(data), lambda request, number: Answer(None, end=end))


def closes_idle(data: Data) -> Handler:
    """Closes after each answer without having said so."""
    return ending(honest(data), "close")
