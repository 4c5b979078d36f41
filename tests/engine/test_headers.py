"""The engine against headers, pages in a file's place, dead and silent connections (faults, groups B and C)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support import faults
from support.bench import Bench, pinned
from support.data import MIB, noise, sha256
from support.faulty_server import FaultyServer, Handler

DATA, TINY = noise(4 * MIB), noise(100_000, 1)
SIZE = len(DATA)
BOTH_SIZES = pytest.mark.parametrize("data", [DATA, TINY], ids=["large", "small"])


@pytest.mark.fault(34)
@pytest.mark.parametrize(("count", "length"), [(200_000, 10), (1, 50 * MIB)], ids=["many", "long"])
def test_heavy_headers(bench: Bench, count: int, length: int) -> None:
    """Headers without end are refused before they are read to their end (B34)."""
    run = bench.fetch(faults.many_headers(TINY, count=count, length=length), TINY)
    assert (run.code, run.error["code"]) == (6, "PROTO")
    assert sum(request.sent for request in run.requests) < 3 * 2 * MIB + 16 * MIB


@pytest.mark.fault(36)
@pytest.mark.parametrize("status", [100, 103])
def test_endless_interim_answers(bench: Bench, status: int) -> None:
    """An endless row of interim answers is given up (B36)."""
    assert bench.fetch(faults.continues(TINY, count=None, status=status), TINY, retries=1, stall=0.2).code in (5, 6)


@pytest.mark.fault(38, 39)
@BOTH_SIZES
@pytest.mark.parametrize("what", ["portal", "pointer"])
def test_something_else_instead(bench: Bench, data: bytes, what: str) -> None:
    """A login page or an LFS pointer in place of the file is refused by its size (B38, B39)."""
    run = bench.fetch(faults.portal() if what == "portal" else faults.lfs_pointer(sha256(data), len(data)), data)
    assert (run.code, run.error["code"]) == (6, "PROTO")
    assert len(run.requests) <= 4
    assert bench.is_untouched


@pytest.mark.fault(40)
@BOTH_SIZES
def test_page_of_the_right_length(bench: Bench, data: bytes) -> None:
    """Other bytes of the right length are found by the digest, discarded with a report, and soon given up (B40)."""
    run = bench.fetch(faults.page_of_right_length(data), data)
    assert (run.code, run.error["code"]) == (6, "HASH")
    assert run.report.bytes_discarded == run.rewound == len(run.requests) * len(data)
    assert len(run.requests) <= 3
    assert bench.is_untouched


@pytest.mark.fault(41)
@pytest.mark.parametrize("make", [faults.head_refused, faults.head_hangs, faults.head_lies])
def test_head_is_never_asked(bench: Bench, make: Callable[[bytes], Handler]) -> None:
    """What a server does with HEAD does not matter: a GET tells the size (B41)."""
    run = bench.fetch(make(DATA), DATA, known=False)
    assert (run.code, run.row.size, {request.method for request in run.requests}) == (0, SIZE, {"GET"})


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
    """A name that the server gives the file is ignored (B42)."""
    assert bench.fetch(faults.names_itself(TINY, name), TINY, known=False).code == 0
    assert bench.has(TINY)


@pytest.mark.fault(44)
@pytest.mark.parametrize(
    "handler",
    [faults.keepalive_dies(TINY), faults.keepalive_dies(TINY, end="reset"), faults.closes_idle(TINY)],
    ids=["closed", "reset", "idle"],
)
def test_dead_keepalive(bench: Bench, handler: Handler) -> None:
    """A kept connection that died meanwhile is replaced, and no file fails (B44)."""
    with FaultyServer(handler) as server:
        files = [pinned(f"{server.url}/{n}", TINY, path=f"{n}.bin") for n in range(12)]
        run = bench.run(*files, connections=2)
    assert (run.code, run.report.bytes_fetched) == (0, 12 * len(TINY))


@pytest.mark.fault(62, 63)
@pytest.mark.parametrize("how", ["silence", "trickle"])
def test_a_body_that_stops(bench: Bench, how: str) -> None:
    """Silence in a body is a stall, and so is next to nothing: the connection is given up and the rest is requested
    (C62, C63)."""
    bad, limit = faults.trickle(faults.honest(DATA), piece=10, pause=0.05), "slow"
    if how == "silence":
        bad, limit = faults.stall_in_body(DATA, SIZE // 2), "stall"
    run = bench.fetch(faults.first(1, bad, faults.honest(DATA)), DATA, **{limit: 0.3, "retries": 9})
    assert (run.code, run.report.bytes_fetched, run.retries > 0) == (0, SIZE, True)  # a busy machine is silent, too
    assert not (run.requests[1].header("range") or "bytes=0-").startswith("bytes=0-")


@pytest.mark.fault(63)
def test_silence_before_the_headers(bench: Bench) -> None:
    """A server that takes the request and says nothing is given up after the attempts allowed (C63)."""
    run = bench.fetch(faults.stall_before_headers(), DATA, stall=0.2, retries=2)
    assert (run.code, len(run.requests)) == (5, 2)


@pytest.mark.fault(65)
def test_trickled_headers(bench: Bench) -> None:
    """Headers that come a byte at a time are given up after a while (C65)."""
    assert bench.fetch(faults.slow_headers(faults.honest(TINY), pause=0.1), TINY, stall=0.3, retries=1).code == 5
