"""The engine against encodings nobody asked for: cut, doubled, unknown, and bombs in them (faults, group B)."""

from __future__ import annotations

import gzip
import itertools
import tracemalloc
from collections.abc import Iterator

import pytest
from support import faults
from support.bench import Bench, loose, pinned
from support.data import MIB, noise
from support.faulty_server import Answer, FaultyServer, Handler, reply

from mdl.sources.hub_origin import HubOrigin

DATA, TINY = noise(2 * MIB), noise(100_000, 1)
CODED = gzip.compress(DATA, mtime=0)
GZIP = ("Content-Encoding", "gzip")
COMMIT = HubOrigin("org/repo", revision="a" * 40)


def always(answer: Answer) -> Handler:
    return lambda request, number: answer


CUT = {
    "closed early": Answer(200, [GZIP], CODED[: MIB // 2], "close"),
    "chunks of half of it": Answer(
        200,
        [GZIP, ("Transfer-Encoding", "chunked")],
        [*faults.chunked_pieces(iter([CODED[: MIB // 2]])), b"0\r\n\r\n"],
    ),
    "half of it, announced": reply(200, CODED[: MIB // 2], GZIP),
}


@pytest.mark.fault(26, 31)
@pytest.mark.parametrize("how", CUT)
@pytest.mark.parametrize("known", [True, False])
def test_a_cut_encoding_is_not_the_file(bench: Bench, how: str, known: bool) -> None:
    """A gzip body that ends before its own end is never taken for whole, also where no digest is known."""
    with FaultyServer(always(CUT[how])) as server:
        url = server.url + "/f"
        run = bench.run(pinned(url, DATA) if known else loose(url))
    assert run.code in (5, 6)
    assert not bench.final.exists()


@pytest.mark.fault(31)
@pytest.mark.parametrize("known", [True, False])
def test_members_of_an_encoding(bench: Bench, known: bool) -> None:
    """A gzip body of several members (RFC 1952, 2.2) is all of them, or refused; never the first alone."""
    body = gzip.compress(DATA[:MIB], mtime=0) + gzip.compress(DATA[MIB:], mtime=0)
    with FaultyServer(always(reply(200, body, GZIP))) as server:
        url = server.url + "/f"
        run = bench.run(pinned(url, DATA) if known else loose(url))
    assert run.code == 0
    assert bench.final.read_bytes() == DATA


@pytest.mark.fault(31)
@pytest.mark.parametrize("coding", ["br", "zstd", "compress"])
@pytest.mark.parametrize("known", [True, False])
def test_an_encoding_nobody_can_read(bench: Bench, coding: str, known: bool) -> None:
    """Bytes in an encoding that mdl cannot decode are not stored as if they were the file's."""
    with FaultyServer(always(reply(200, CODED, ("Content-Encoding", coding)))) as server:
        url = server.url + "/f"
        run = bench.run(pinned(url, DATA) if known else loose(url))
    assert run.code == 6
    assert not bench.final.exists()


@pytest.mark.fault(31)
@pytest.mark.parametrize(
    ("coding", "data"),
    [
        ("gzip", CODED),
        ("gzip", gzip.compress(TINY, mtime=0)),
        ("x-gzip", CODED),
        ("x-gzip", gzip.compress(TINY, mtime=0)),
        ("aws-chunked", CODED),
        ("aws-chunked", TINY),
    ],
    ids=["gzip, large", "gzip, small", "x-gzip, large", "x-gzip, small", "aws-chunked, large", "aws-chunked, small"],
)
def test_a_coding_that_is_the_file(bench: Bench, coding: str, data: bytes) -> None:
    """A file whose own bytes the digest is of arrives, though the server calls its compression an encoding."""
    with FaultyServer(faults.with_headers(faults.honest(data), ("Content-Encoding", coding))) as server:
        run = bench.run(pinned(server.url + "/model.tar.gz", data))
    assert run.code == 0
    assert bench.final.read_bytes() == data


@pytest.mark.fault(31)
@pytest.mark.parametrize("data", [CODED, gzip.compress(TINY, mtime=0)], ids=["large", "small"])
def test_a_coding_that_is_the_file_in_chunks(bench: Bench, data: bytes) -> None:
    """The same where no length tells: what is not the file once decoded is looked at as it came."""
    headers = [GZIP, ("Transfer-Encoding", "chunked")]
    with FaultyServer(
        lambda request, number: Answer(200, headers, [*faults.chunked_pieces(iter([data])), b"0\r\n\r\n"])
    ) as server:
        run = bench.run(pinned(server.url + "/model.tar.gz", data))
    assert run.code == 0
    assert bench.final.read_bytes() == data


@pytest.mark.fault(31, 237)
@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("data", [CODED, gzip.compress(TINY, mtime=0)], ids=["large", "small"])
def test_an_archive_as_apache_serves_it(bench: Bench, data: bytes, known: bool, ranges: bool) -> None:
    """A .tar.gz with an encoding of x-gzip is stored as it is served, also in segments, with a digest or without."""
    bench.segments(MIB)
    right = faults.honest(data) if ranges else faults.norange(data)
    with FaultyServer(faults.with_headers(right, ("Content-Encoding", "x-gzip"))) as server:
        url = server.url + "/m.tar.gz"
        run = bench.run(pinned(url, data) if known else loose(url))
    assert (run.code, run.rewound, run.retries) == (0, 0, 0)
    assert bench.final.read_bytes() == data


@pytest.mark.fault(31)
@pytest.mark.parametrize("ranges", [True, False])
def test_an_encoding_of_a_file_without_a_digest(bench: Bench, ranges: bool) -> None:
    """Another file that comes in an encoding nobody asked for is decoded; its length is not the file's size."""
    packed = gzip.compress(TINY, mtime=0)
    right = faults.honest(packed) if ranges else faults.norange(packed)
    with FaultyServer(faults.with_headers(right, GZIP)) as server:
        run = bench.run(loose(server.url + "/config.json"))
    assert run.code == 0
    assert bench.final.read_bytes() == TINY


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


@pytest.mark.fault(32)
def test_a_listing_of_more_than_ten_mib(bench: Bench) -> None:
    """An API answer of more than 10 MiB is a lie, however few bytes it was on the wire."""
    body = gzip.compress(b" " * (11 * MIB) + b"[]", 1, mtime=0)
    with FaultyServer(always(reply(200, body, GZIP))) as server:
        run = bench.run(source=COMMIT, hub=server.url)
        tries = len(server.requests)
    assert (run.code, run.error["code"], tries) == (6, "PROTO", 1)


def nothing() -> Iterator[bytes]:
    """Two megabytes of a gzip stream that holds nothing, then its end."""
    coder = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
    yield coder
    yield from itertools.repeat(b"\0\0\0\xff\xff" * 1000, 400)
    yield b"\x03\0" + bytes(8)


@pytest.mark.fault(31)
def test_an_encoding_of_nothing(bench: Bench) -> None:
    """An encoded body that decodes to nothing is not the file."""
    with FaultyServer(always(Answer(200, [GZIP], nothing(), "close"))) as server:
        run = bench.run(pinned(server.url + "/f", DATA), retries=1)
    assert run.code == 6
    assert not bench.final.exists()
