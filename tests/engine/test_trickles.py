"""The engine against answers that never quite stall and never end: heads, bodies and framing (faults, group C)."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import pytest
from support import faults
from support.bench import KNOWN, Bench, probes
from support.data import MIB, noise
from support.faulty_server import Answer, FaultyServer, Handler, Piece

from mdl.net.throttle import Throttle
from mdl.sources.hub_origin import HubOrigin
from mdl.units import Timetable

DATA, TINY = noise(4 * MIB), noise(20_000, 1)
LIMITS = {"stall": 0.2, "slow": 0.2, "retries": 1}
"""Seconds of silence, seconds in which a body must bring a thousand bytes a second, and attempts."""
PAUSES, LONG, PAUSE = 30, 3000, 0.04
"""Trickles have an end, so that a client that waits for it comes back."""


def slowly(piece: bytes, count: int = PAUSES) -> Iterator[Piece]:
    """The piece again and again, with pauses that are no stall."""
    for _ in range(count):
        yield piece
        yield PAUSE


def framed(before: bytes, piece: bytes, after: bytes, *headers: tuple[str, str]) -> Answer:
    """A chunked answer, its framing to the letter: ``piece`` trickles in between."""

    def body() -> Iterator[Piece]:
        yield before
        yield from slowly(piece)
        yield after

    return Answer(200, [("Transfer-Encoding", "chunked"), *headers], body(), "close")


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def gzip_of_nothing(data: bytes) -> tuple[bytes, bytes, bytes]:
    """The start of a gzip stream, what may come in it any number of times and means nothing, and the data."""
    coder = zlib.compressobj(wbits=31)
    start = coder.compress(b"") + coder.flush(zlib.Z_FULL_FLUSH)
    empty = coder.compress(b"") + coder.flush(zlib.Z_FULL_FLUSH)
    return start, empty or b"\0\0\0\xff\xff", coder.compress(data) + coder.flush()


START, EMPTY, REST = gzip_of_nothing(TINY)
FRAMES: dict[str, tuple[bytes, bytes, bytes, *tuple[tuple[str, str], ...]]] = {
    "a chunk's extension": (b"%x;" % len(TINY), b"x", b"\r\n" + TINY + b"\r\n0\r\n\r\n"),
    "a trailer": (chunk(TINY) + b"0\r\nX: ", b"x", b"\r\n\r\n"),
    "gzip of nothing": (chunk(START), chunk(EMPTY), chunk(REST) + b"0\r\n\r\n", ("Content-Encoding", "gzip")),
}
"""What comes before, what trickles, what comes after, and headers."""


@pytest.mark.fault(62)
@pytest.mark.parametrize("what", FRAMES)
def test_trickles_around_a_file(bench: Bench, what: str) -> None:
    """What trickles around a file's bytes is not waited for to its end, though each byte comes in time."""
    before, piece, *_ = FRAMES[what]
    run = bench.fetch(lambda request, number: framed(*FRAMES[what]), TINY, **LIMITS)
    assert run.code in (0, 5)
    assert run.requests[0].sent < len(before) + PAUSES * len(piece)


@pytest.mark.fault(62)
def test_trickled_redirect(bench: Bench) -> None:
    """The body of a redirect that trickles in is not waited for."""
    away = Answer(302, [("Location", "/moved"), ("Content-Length", str(PAUSES))], slowly(b" "))
    handler = faults.routes({"/moved": faults.honest(TINY), "/f": lambda request, number: away})
    run = bench.fetch(handler, TINY, **LIMITS)
    assert run.code in (0, 5)
    assert run.requests[0].sent < PAUSES


@pytest.mark.fault(62)
def test_trickled_listing(bench: Bench) -> None:
    """An API answer that trickles is given up: 5."""
    with FaultyServer(lambda request, number: framed(b"", chunk(b" "), chunk(b"[]") + b"0\r\n\r\n")) as server:
        run = bench.run(source=HubOrigin("org/repo", revision="a" * 40), hub=server.url, **LIMITS)
    assert (run.code, run.error["code"]) == (5, "NET")


@pytest.mark.fault(62)
def test_trickled_refusal(bench: Bench) -> None:
    """A refusal whose words trickle in is the refusal, after a while, without them."""
    refusal = Answer(404, [("Content-Length", str(LONG))], slowly(b" ", LONG))
    run = bench.fetch(lambda request, number: refusal, TINY, **LIMITS)
    assert run.code == 3
    assert run.requests[0].sent < LONG


@pytest.mark.fault(62)
@KNOWN
@pytest.mark.parametrize(
    "handler", [faults.chunked(TINY, chunk=20), faults.gzip_encoded(TINY)], ids=["chunked", "gzip"]
)
def test_trickle_of_every_framing(bench: Bench, handler: Handler, known: bool) -> None:
    """A body that trickles is given up however it is framed, also of a file in memory: 5."""
    slow = faults.choose(probes, faults.honest(TINY), faults.trickle(handler, piece=20, pause=PAUSE))
    run = bench.fetch(slow, TINY, known=known, **LIMITS)
    assert (run.code, run.error["code"]) == (5, "NET")


@pytest.mark.fault(62)
def test_trickle_below_a_limit(bench: Bench) -> None:
    """A rate limit far above a trickle is no reason to wait for its end."""
    headers = [("ETag", faults.ETAG), ("Content-Length", str(len(DATA)))]
    slow = Answer(200, headers, slowly(DATA[:10]), "close")
    handler = faults.first(1, lambda request, number: slow, faults.honest(DATA))
    run = bench.fetch(handler, DATA, slow=0.2, throttle=Throttle(Timetable(((0, 20e6),))))
    assert run.code == 0
    assert run.requests[0].sent < 10 * PAUSES
