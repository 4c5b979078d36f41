"""The engine against bodies and framing that are wrong (faults, group B)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import pytest
from support import faults
from support.bench import Bench
from support.data import MIB, noise
from support.faulty_server import FaultyServer, Handler

from mdl.events import Event, Progressed
from mdl.sources.hub_origin import HubOrigin

pytestmark = pytest.mark.usefixtures("way")
DATA, TINY = noise(4 * MIB), noise(100_000, 1)
SIZE = len(DATA)
KNOWN = pytest.mark.parametrize("known", [True, False])
BOTH_SIZES = pytest.mark.parametrize("data", [DATA, TINY], ids=["large", "small"])


@pytest.mark.fault(25)
@pytest.mark.parametrize("end", ["close", "reset"])
@KNOWN
def test_cut_bodies_are_resumed_at_the_byte(bench: Bench, end: faults.bodies.Drop, known: bool) -> None:
    """A body that ends early is resumed at the very byte; no byte is fetched twice (B25)."""
    run = bench.fetch(faults.short_body(DATA, 700_000, end=end), DATA, known=known)
    assert (run.code, run.report.bytes_fetched, run.rewound) == (0, SIZE, 0)
    assert bench.has(DATA)


@pytest.mark.fault(25)
@BOTH_SIZES
def test_no_body_at_all(bench: Bench, data: bytes) -> None:
    """A server that never sends a byte is given up after the attempts allowed: 5 (B25)."""
    run = bench.fetch(faults.short_body(data, 0), data, retries=3)
    assert (run.code, run.error["code"], len(run.requests)) == (5, "NET", 3)
    assert bench.is_untouched


@pytest.mark.fault(35)
@pytest.mark.parametrize("extension", [b"", b";x=" + b"y" * 500], ids=["plain", "extensions"])
@KNOWN
def test_chunked(bench: Bench, extension: bytes, known: bool) -> None:
    """A chunked body, whose extensions are ignored, arrives whole (B26, B35)."""
    assert bench.fetch(faults.chunked(DATA, extension=extension), DATA, known=known).code == 0
    assert bench.has(DATA)


@pytest.mark.fault(26)
@KNOWN
def test_ended_by_closing(bench: Bench, known: bool) -> None:
    """A body that ends by closing is taken if size and digest say that it is whole, and refused if nothing does
    (B26)."""
    assert bench.fetch(faults.no_length(DATA), DATA, known=known).code == (0 if known else 6)
    assert bench.has(DATA) if known else bench.is_untouched


@pytest.mark.fault(26, 27)
@pytest.mark.parametrize("cut", [faults.no_length_cut, faults.chunked_cut], ids=["until close", "chunked"])
@BOTH_SIZES
def test_cut_without_a_length(bench: Bench, cut: Callable[[bytes, int], Handler], data: bytes) -> None:
    """A body without a length that is cut every time is given up and never taken for whole (B26, B27)."""
    assert bench.fetch(cut(data, len(data) // 2), data).code in (5, 6)
    assert bench.is_untouched


@pytest.mark.fault(27)
@KNOWN
def test_no_last_chunk(bench: Bench, known: bool) -> None:
    """Chunks without the last, empty one: whole if size and digest say so, else cut and given up (B27)."""
    assert bench.fetch(faults.chunked_cut(DATA), DATA, known=known).code == (0 if known else 5)
    assert bench.has(DATA) if known else bench.is_untouched


@pytest.mark.fault(1, 25)
def test_cut_without_ranges(bench: Bench) -> None:
    """A server without ranges that always cuts the body at the same byte is given up in the end: 5 (A1, B25)."""
    run = bench.fetch(faults.cut(faults.norange(DATA), SIZE // 2), DATA)
    assert (run.code, run.error["code"]) == (5, "NET")


@pytest.mark.fault(28)
@BOTH_SIZES
def test_surplus_bytes(bench: Bench, data: bytes) -> None:
    """Bytes beyond Content-Length are ignored (B28)."""
    assert bench.fetch(faults.extra_bytes(data), data).code == 0
    assert bench.has(data)


@pytest.mark.fault(29)
@pytest.mark.parametrize("by", [1, -1, 10**6])
@BOTH_SIZES
def test_length_unlike_the_catalogs(bench: Bench, data: bytes, by: int) -> None:
    """Another Content-Length than the catalog's size is refused before a byte is written (B29)."""
    run = bench.fetch(faults.wrong_length(data, max(by, -len(data))), data)
    assert (run.code, run.error["code"], run.report.bytes_fetched) == (6, "PROTO", 0)
    assert bench.is_untouched


@pytest.mark.fault(29, 30)
@pytest.mark.parametrize("framing", ["close", "chunked"])
@BOTH_SIZES
def test_endless_body(bench: Bench, framing: Literal["close", "chunked"], data: bytes) -> None:
    """An endless body is cut at the known size, and not requested again and again (B30)."""
    assert bench.fetch(faults.endless(noise(MIB), framing=framing), data[:-1000]).code == 6
    assert bench.is_untouched


@pytest.mark.fault(30)
def test_endless_body_of_unknown_size(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """An endless body of unknown size ends in SPACE or PROTO before the disk is full (B30)."""
    monkeypatch.setattr(bench.store, "free_space", lambda: 8 * MIB)

    def full(event: Event) -> None:
        if isinstance(event, Progressed) and any(file.done > 64 * MIB for file in event.files):
            raise KeyboardInterrupt

    assert bench.fetch(faults.endless(framing="chunked"), DATA, known=False, tell=full).code in (6, 7)


@pytest.mark.fault(31)
@KNOWN
@BOTH_SIZES
def test_gzip_unasked(bench: Bench, data: bytes, known: bool) -> None:
    """A body that comes gzipped although nobody asked for that is stored decoded and compared with the digest
    (B31)."""
    assert bench.fetch(faults.gzip_encoded(data), data, known=known).code == 0
    assert bench.has(data)


@pytest.mark.fault(32)
def test_gzip_bomb_from_the_hub(bench: Bench) -> None:
    """An API answer that inflates without end is cut off: PROTO (B32)."""
    with FaultyServer(faults.gzip_bomb(2**27)) as server:
        run = bench.run(source=HubOrigin("org/repo"), hub=server.url)
        tries = len(server.requests)
    assert (run.code, run.error["code"], tries) == (6, "PROTO", 1)
