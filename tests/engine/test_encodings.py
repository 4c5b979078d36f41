"""The engine against encodings that nobody asked for: cut, doubled, unknown, and bombs in them (faults, group B)."""

from __future__ import annotations

import gzip
import tracemalloc
from collections.abc import Callable

import pytest
from support import faults
from support.bench import KNOWN, Bench, loose, pinned
from support.data import MIB, noise
from support.faults import always
from support.faulty_server import Answer, FaultyServer, Handler, reply

from mdl.sources.hub_origin import HubOrigin

DATA, TINY = noise(2 * MIB), noise(100_000, 1)
CODED, CODED_TINY = gzip.compress(DATA, mtime=0), gzip.compress(TINY, mtime=0)
GZIP = ("Content-Encoding", "gzip")
COMMIT = HubOrigin("org/repo", revision="a" * 40)
Make = Callable[[bytes], Handler]
BOTH_SIZES = pytest.mark.parametrize("data", [CODED, CODED_TINY], ids=["large", "small"])


def in_chunks(data: bytes) -> Answer:
    body = [*faults.chunked_pieces(iter([data])), b"0\r\n\r\n"]
    return Answer(200, [GZIP, ("Transfer-Encoding", "chunked")], body)


CUT = {
    "closed early": Answer(200, [GZIP], CODED[: MIB // 2], "close"),
    "chunks of half of it": in_chunks(CODED[: MIB // 2]),
    "half of it, announced": reply(200, CODED[: MIB // 2], GZIP),
}


@pytest.mark.fault(26, 31)
@pytest.mark.parametrize("how", CUT)
@KNOWN
def test_a_cut_encoding_is_not_the_file(bench: Bench, how: str, known: bool) -> None:
    """A gzip body that ends before its own end is never taken for whole, also if no digest is known."""
    assert bench.fetch(always(CUT[how]), DATA, known=known).code in (5, 6)
    assert bench.is_untouched


@pytest.mark.fault(31)
@KNOWN
def test_members_of_an_encoding(bench: Bench, known: bool) -> None:
    """A gzip body of several members (RFC 1952, 2.2) is all of them, never the first alone."""
    body = gzip.compress(DATA[:MIB], mtime=0) + gzip.compress(DATA[MIB:], mtime=0)
    assert bench.fetch(always(reply(200, body, GZIP)), DATA, known=known).code == 0
    assert bench.has(DATA)


@pytest.mark.fault(31)
@KNOWN
@pytest.mark.parametrize("coding", ["br", "zstd", "compress"])
def test_an_unknown_encoding(bench: Bench, coding: str, known: bool) -> None:
    """Bytes in an encoding that mdl cannot decode are not stored as if they were the file's."""
    run = bench.fetch(always(reply(200, CODED, ("Content-Encoding", coding))), DATA, known=known)
    assert (run.code, bench.is_untouched) == (6, True)


@pytest.mark.fault(31)
@pytest.mark.parametrize("coding", ["gzip", "x-gzip", "aws-chunked", "in chunks"])
@BOTH_SIZES
def test_an_encoding_that_is_the_file(bench: Bench, coding: str, data: bytes) -> None:
    """A file whose own bytes have the digest arrives, though the server calls its compression an encoding, and also if
    no length tells where it ends."""
    handler = faults.with_headers(faults.honest(data), ("Content-Encoding", coding))
    with FaultyServer(always(in_chunks(data)) if coding == "in chunks" else handler) as server:
        assert bench.run(pinned(server.url + "/model.tar.gz", data)).code == 0
    assert bench.has(data)


@pytest.mark.fault(31, 237)
@KNOWN
@pytest.mark.parametrize("make", [faults.honest, faults.norange], ids=["ranges", "no ranges"])
@BOTH_SIZES
def test_an_archive_as_apache_serves_it(bench: Bench, data: bytes, known: bool, make: Make) -> None:
    """A .tar.gz with an encoding of x-gzip is stored as it is served, also in segments, with a digest or without."""
    bench.segments(MIB)
    handler = faults.with_headers(make(data), ("Content-Encoding", "x-gzip"))
    with FaultyServer(handler) as server:
        url = server.url + "/m.tar.gz"
        run = bench.run(pinned(url, data) if known else loose(url))
    assert (run.code, run.rewound, run.retries) == (0, 0, 0)
    assert bench.has(data)


@pytest.mark.fault(31)
@pytest.mark.parametrize("make", [faults.honest, faults.norange], ids=["ranges", "no ranges"])
def test_an_encoding_of_a_file_without_a_digest(bench: Bench, make: Make) -> None:
    """Another file that comes in an encoding that nobody asked for is decoded; its length is not the file's size."""
    assert bench.fetch(faults.with_headers(make(CODED_TINY), GZIP), TINY, known=False).code == 0
    assert bench.has(TINY)


@pytest.mark.fault(31)
def test_an_encoding_of_nothing(bench: Bench) -> None:
    """An encoded body that decodes to nothing is not the file."""
    start, empty_blocks, end = b"\x1f\x8b\x08\0\0\0\0\0\0\xff", b"\0\0\0\xff\xff" * 1000, b"\x03\0" + bytes(8)
    nothing = Answer(200, [GZIP], [start, *[empty_blocks] * 400, end], "close")
    assert bench.fetch(always(nothing), DATA, retries=1).code == 6
    assert bench.is_untouched


TWICE = ("Content-Encoding", "gzip, gzip")
INFLATED = 32 * MIB
BOMB = gzip.compress(gzip.compress(b" " * INFLATED, 1))
MOVED = always(reply(302, BOMB, ("Location", "/moved"), TWICE))
WHERE: dict[str, tuple[Handler, int]] = {
    "redirect": (faults.routes({"/moved": faults.honest(TINY), "/f": MOVED}), 0),
    "refusal": (always(reply(404, BOMB, TWICE)), 3),
    "file": (always(reply(200, BOMB, TWICE)), 6),
    "listing": (always(reply(200, BOMB, TWICE)), 6),
}


@pytest.mark.fault(32)
@pytest.mark.parametrize("where", WHERE)
def test_an_encoding_twice_over(bench: Bench, where: str) -> None:
    """A few hundred bytes that inflate to any size, gzip in gzip, cost no memory, wherever they come."""
    handler, code = WHERE[where]
    with FaultyServer(handler) as server:
        tracemalloc.start()
        try:
            if where == "listing":
                run = bench.run(source=COMMIT, hub=server.url, retries=1)
            else:
                run = bench.run(pinned(server.url + "/f", TINY), retries=1)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert run.code == code
    assert peak < INFLATED // 2
