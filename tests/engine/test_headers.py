"""The engine against headers, pages in a file's place, dead and silent connections (faults, groups B and C)."""

from __future__ import annotations

import pytest
from support import faults
from support.bench import Bench, loose, pinned
from support.data import MIB, noise, sha256
from support.faulty_server import FaultyServer, Handler

DATA, TINY = noise(4 * MIB), noise(100_000, 1)
SIZE = len(DATA)


def untouched(bench: Bench) -> bool:
    return not bench.final.exists() and not bench.strangers()


@pytest.mark.fault(33)
@pytest.mark.parametrize("name", faults.BAD_LENGTHS)
@pytest.mark.parametrize("data", [noise(3 * MIB, 4), TINY], ids=["large", "small"])
def test_bad_content_length(bench: Bench, data: bytes, name: str) -> None:
    """A Content-Length that is none, or two, brings the right file or a refusal; never other bytes (B33)."""
    with FaultyServer(faults.bad_length(data, name)) as server:
        run = bench.run(pinned(server.url + "/f", data))
    if name in ("repeated", "list", "chunked too"):
        assert run.code in (0, 6)
    else:
        assert run.code == 6
    assert bench.final.read_bytes() == data if run.code == 0 else untouched(bench)


@pytest.mark.fault(34)
@pytest.mark.parametrize(("count", "length"), [(200_000, 10), (1, 50 * MIB)], ids=["many", "long"])
def test_heavy_headers(bench: Bench, count: int, length: int) -> None:
    """Headers without measure are refused before they are read to their end (B34)."""
    with FaultyServer(faults.many_headers(TINY, count=count, length=length)) as server:
        run = bench.run(pinned(server.url + "/f", TINY))
        sent = server.bytes_sent
    assert (run.code, run.error["code"]) == (6, "PROTO")
    assert sent < 3 * 2 * MIB + 16 * MIB


@pytest.mark.fault(35)
def test_chunks_of_one_byte(bench: Bench) -> None:
    """Twenty thousand chunks of one byte are a file as any other (B35)."""
    with FaultyServer(faults.chunked(TINY[:20_000], chunk=1)) as server:
        run = bench.run(pinned(server.url + "/f", TINY[:20_000]))
    assert run.code == 0
    assert bench.final.read_bytes() == TINY[:20_000]


@pytest.mark.fault(36)
@pytest.mark.parametrize("status", [100, 103])
@pytest.mark.parametrize(
    "count",
    [3, None],
    ids=["three", "endless"],
)
def test_interim_answers(bench: Bench, count: int | None, status: int) -> None:
    """A few interim answers are passed over; an endless row of them is given up (B36)."""
    bench.patience = 15.0
    with FaultyServer(faults.continues(TINY, count=count, status=status)) as server:
        run = bench.run(pinned(server.url + "/f", TINY), retries=1, stall=0.5)
    assert run.code == (0 if count else 6) or (run.code == 5 and not count)


@pytest.mark.fault(37)
def test_old_http(bench: Bench) -> None:
    """HTTP/1.0 is good enough (B37)."""
    with FaultyServer(faults.old_http(DATA)) as server:
        run = bench.run(pinned(server.url + "/f", DATA))
    assert run.code == 0
    assert bench.final.read_bytes() == DATA


@pytest.mark.fault(37)
@pytest.mark.parametrize("handler", [faults.no_head(TINY), faults.garbage_status(TINY)], ids=["0.9", "garbage"])
def test_not_http(bench: Bench, handler: Handler) -> None:
    """What is not HTTP/1 is an error, soon, and reaches no file (B37)."""
    with FaultyServer(handler) as server:
        run = bench.run(pinned(server.url + "/f", TINY))
        tries = len(server.requests)
    assert run.code in (5, 6)
    assert tries <= 4
    assert untouched(bench)


@pytest.mark.fault(38, 39)
@pytest.mark.parametrize("data", [DATA, TINY], ids=["large", "small"])
@pytest.mark.parametrize("what", ["portal", "pointer"])
def test_something_else_instead(bench: Bench, data: bytes, what: str) -> None:
    """A login page or an LFS pointer in place of the file is refused by its size (B38, B39)."""
    handler = faults.portal() if what == "portal" else faults.lfs_pointer(sha256(data), len(data))
    with FaultyServer(handler) as server:
        run = bench.run(pinned(server.url + "/f", data))
        tries = len(server.requests)
    assert (run.code, run.error["code"]) == (6, "PROTO")
    assert tries <= 4
    assert untouched(bench)


@pytest.mark.fault(38)
@pytest.mark.parametrize("start", [0, SIZE // 2])
def test_portal_leaves_the_part(bench: Bench, start: int) -> None:
    """A login page costs nothing of what is here already (B38)."""
    with FaultyServer(faults.honest(DATA)) as server:
        file = pinned(server.url + "/f", DATA)
        if start:
            bench.half(file, server, DATA)
        server.handler = faults.portal()
        assert bench.run(file).code == 6
        server.handler = faults.honest(DATA)
        again = bench.run(file)
    assert (again.code, again.row.resumed_at) == (0, start)


@pytest.mark.fault(40)
@pytest.mark.parametrize("data", [DATA, TINY], ids=["large", "small"])
def test_page_of_the_right_length(bench: Bench, data: bytes) -> None:
    """Other bytes of the very length are found by the digest, thrown away aloud, and not asked for for ever (B40)."""
    with FaultyServer(faults.page_of_right_length(data)) as server:
        run = bench.run(pinned(server.url + "/f", data))
        tries = len(server.requests)
    assert (run.code, run.error["code"]) == (6, "HASH")
    assert run.report.bytes_discarded == run.rewound == tries * len(data)
    assert tries <= 3
    assert untouched(bench)


@pytest.mark.fault(41)
@pytest.mark.parametrize(
    "handler",
    [faults.head_refused(DATA), faults.head_hangs(DATA), faults.head_lies(DATA)],
    ids=["405", "hangs", "lies"],
)
def test_head_is_never_asked(bench: Bench, handler: Handler) -> None:
    """What a server does with HEAD does not matter: sizes come from a GET of the first byte (B41)."""
    with FaultyServer(handler) as server:
        run = bench.run(loose(server.url + "/f"))
        methods = {request.method for request in server.requests}
    assert (run.code, run.row.size, methods) == (0, SIZE, {"GET"})


@pytest.mark.fault(42)
@pytest.mark.parametrize(
    "name",
    [
        b'attachment; filename="../../x"',
        b"attachment; filename=C:\\x",
        b"attachment; filename*=UTF-8''..%2Fx",
        b"a" * 5000,
    ],
)
def test_content_disposition(bench: Bench, name: bytes) -> None:
    """A name that the server gives the file is not looked at (B42)."""
    with FaultyServer(faults.names_itself(TINY, name)) as server:
        run = bench.run(loose(server.url + "/f"))
    assert run.code == 0
    assert bench.final.read_bytes() == TINY
    assert not bench.strangers()


@pytest.mark.fault(43)
@pytest.mark.parametrize("data", [DATA, TINY], ids=["large", "small"])
def test_reset_after_the_last_byte(bench: Bench, data: bytes) -> None:
    """A reset behind the last byte is no trouble (B43)."""
    with FaultyServer(faults.reset_at_end(data)) as server:
        run = bench.run(pinned(server.url + "/f", data))
    assert (run.code, run.rewound) == (0, 0)
    assert bench.final.read_bytes() == data


@pytest.mark.fault(44)
@pytest.mark.parametrize(
    "make", [faults.keepalive_dies, lambda d: faults.keepalive_dies(d, end="reset"), faults.closes_idle]
)
def test_dead_keepalive(bench: Bench, make: object) -> None:
    """A kept connection that died meanwhile is replaced without a word to the user's cost (B44)."""
    data = noise(50_000, 5)
    with FaultyServer(make(data)) as server:  # type: ignore[operator]
        files = [pinned(f"{server.url}/{n}", data, path=f"{n}.bin") for n in range(12)]
        run = bench.run(*files, connections=2)
    assert run.code == 0
    assert run.report.bytes_fetched == 12 * len(data)


@pytest.mark.fault(63)
def test_silence_is_a_stall(bench: Bench) -> None:
    """Silence in a body is a stall: the connection is given up and the rest is asked for (C63)."""
    with FaultyServer(faults.first(1, faults.stall_in_body(DATA, SIZE // 2), faults.honest(DATA))) as server:
        run = bench.run(pinned(server.url + "/f", DATA), stall=0.3)
    assert (run.code, run.report.bytes_fetched, run.retries) == (0, SIZE, 1)


@pytest.mark.fault(63)
def test_silence_before_the_headers(bench: Bench) -> None:
    """A server that takes the request and says nothing is given up after the attempts allowed (C63)."""
    with FaultyServer(faults.stall_before_headers()) as server:
        run = bench.run(pinned(server.url + "/f", DATA), stall=0.2, retries=2)
        tries = len(server.requests)
    assert (run.code, tries) == (5, 2)


@pytest.mark.fault(62)
def test_trickle(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that never quite stalls but brings next to nothing is given up, and gone on with elsewhere (C62)."""
    monkeypatch.setattr("mdl.http.body._SLOW_WINDOW", 0.3)
    slow = faults.trickle(faults.honest(DATA), piece=10, pause=0.05)
    with FaultyServer(faults.first(1, slow, faults.honest(DATA))) as server:
        run = bench.run(pinned(server.url + "/f", DATA))
        asked = server.requests[1].header("range")
    assert (run.code, run.retries) == (0, 1)
    assert asked
    assert not asked.startswith("bytes=0-")


@pytest.mark.fault(65)
def test_trickled_headers(bench: Bench) -> None:
    """Headers that come a byte at a time are given up after a while (C65)."""
    bench.patience = 15.0
    with FaultyServer(faults.slow_headers(faults.honest(TINY), pause=0.1)) as server:
        run = bench.run(pinned(server.url + "/f", TINY), stall=0.3, retries=1)
    assert run.code == 5
