"""The engine against bodies and framing that are wrong (faults, group B)."""

from __future__ import annotations

from typing import Literal

import pytest
from support import faults
from support.bench import Bench, loose, pinned
from support.data import MIB, noise
from support.faulty_server import FaultyServer, Handler

from mdl.events import Event, Progressed
from mdl.sources.hub_origin import HubOrigin

pytestmark = pytest.mark.usefixtures("way")
DATA, TINY = noise(4 * MIB), noise(100_000, 1)
SIZE = len(DATA)
Framing = Literal["close", "chunked"]


def untouched(bench: Bench) -> bool:
    return not bench.final.exists() and not bench.strangers()


@pytest.mark.fault(25)
@pytest.mark.parametrize("end", ["close", "reset"])
@pytest.mark.parametrize("known", [True, False])
def test_cut_bodies_go_on_at_the_byte(bench: Bench, end: faults.bodies.Drop, known: bool) -> None:
    """A body that ends early is gone on with at the very byte; no byte is fetched twice (B25)."""
    with FaultyServer(faults.short_body(DATA, 700_000, end=end)) as server:
        url = server.url + "/f"
        run = bench.run(pinned(url, DATA) if known else loose(url))
    assert (run.code, run.report.bytes_fetched, run.rewound) == (0, SIZE, 0)
    assert bench.final.read_bytes() == DATA


@pytest.mark.fault(25)
@pytest.mark.parametrize("data", [DATA, TINY], ids=["large", "small"])
def test_no_body_at_all(bench: Bench, data: bytes) -> None:
    """A server that never brings a byte is given up after the attempts allowed: 5 (B25)."""
    with FaultyServer(faults.short_body(data, 0)) as server:
        run = bench.run(pinned(server.url + "/f", data), retries=3)
        tries = len(server.requests)
    assert (run.code, run.error["code"], tries) == (5, "NET", 3)
    assert untouched(bench)


@pytest.mark.fault(35)
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("extension", [b"", b";x=" + b"y" * 500], ids=["plain", "extensions"])
def test_chunked(bench: Bench, extension: bytes, known: bool) -> None:
    """A chunked body, its extensions passed over, arrives whole (B26, B35)."""
    with FaultyServer(faults.chunked(DATA, extension=extension)) as server:
        url = server.url + "/f"
        run = bench.run(pinned(url, DATA) if known else loose(url))
    assert run.code == 0
    assert bench.final.read_bytes() == DATA


@pytest.mark.fault(26)
def test_ended_by_closing(bench: Bench) -> None:
    """A body that ends by closing is taken where size and digest say that it is whole (B26)."""
    with FaultyServer(faults.no_length(DATA)) as server:
        run = bench.run(pinned(server.url + "/f", DATA))
    assert run.code == 0
    assert bench.final.read_bytes() == DATA


@pytest.mark.fault(26)
def test_ended_by_closing_and_nothing_known(bench: Bench) -> None:
    """A body that ends by closing is refused, once and for all, where nothing tells that it is whole (B26)."""
    with FaultyServer(faults.no_length(DATA)) as server:
        run = bench.run(loose(server.url + "/f"))
    assert run.code == 6
    assert untouched(bench)


@pytest.mark.fault(26, 27)
@pytest.mark.parametrize(
    "handler",
    [faults.no_length_cut(DATA, SIZE // 2), faults.chunked_cut(DATA, SIZE // 2)],
    ids=["until close", "chunked"],
)
def test_cut_without_a_length(bench: Bench, handler: Handler) -> None:
    """A body without a length that is cut, time after time, is given up and never taken for whole (B26, B27)."""
    with FaultyServer(handler) as server:
        run = bench.run(pinned(server.url + "/f", DATA))
    assert run.code in (5, 6)
    assert untouched(bench)


@pytest.mark.fault(27)
@pytest.mark.parametrize("known", [True, False])
def test_no_last_chunk(bench: Bench, known: bool) -> None:
    """Chunks without the last, empty one: whole where size and digest say so, else cut and given up (B27)."""
    with FaultyServer(faults.chunked_cut(DATA)) as server:
        url = server.url + "/f"
        run = bench.run(pinned(url, DATA) if known else loose(url))
    assert run.code == (0 if known else 5)
    assert bench.final.read_bytes() == DATA if known else untouched(bench)


@pytest.mark.fault(1, 25)
def test_cut_without_ranges(bench: Bench) -> None:
    """A server without ranges that always cuts the body at the same byte is given up in the end: 5 (A1, B25)."""
    with FaultyServer(faults.cut(faults.norange(DATA), SIZE // 2)) as server:
        run = bench.run(pinned(server.url + "/f", DATA))
    assert (run.code, run.error["code"]) == (5, "NET")


@pytest.mark.fault(26, 27)
@pytest.mark.parametrize("handler", [faults.no_length_cut(TINY, 5000), faults.chunked_cut(TINY, 5000)])
def test_small_cut_without_a_length(bench: Bench, handler: Handler) -> None:
    """As above for a file held in memory (B26, B27)."""
    with FaultyServer(handler) as server:
        run = bench.run(pinned(server.url + "/f", TINY))
    assert run.code in (5, 6)
    assert untouched(bench)


@pytest.mark.fault(28)
@pytest.mark.parametrize("data", [DATA, TINY], ids=["large", "small"])
def test_surplus_bytes(bench: Bench, data: bytes) -> None:
    """Bytes beyond Content-Length are ignored (B28)."""
    with FaultyServer(faults.extra_bytes(data)) as server:
        run = bench.run(pinned(server.url + "/f", data))
    assert run.code == 0
    assert bench.final.read_bytes() == data


@pytest.mark.fault(29)
@pytest.mark.parametrize("by", [1, -1, 10**6])
@pytest.mark.parametrize("data", [DATA, TINY], ids=["large", "small"])
def test_length_unlike_the_catalogs(bench: Bench, data: bytes, by: int) -> None:
    """Another Content-Length than the catalog's size is refused before a byte is written (B29)."""
    with FaultyServer(faults.wrong_length(data, max(by, -len(data)))) as server:
        run = bench.run(pinned(server.url + "/f", data))
    assert (run.code, run.error["code"], run.report.bytes_fetched) == (6, "PROTO", 0)
    assert untouched(bench)


@pytest.mark.fault(29, 30)
@pytest.mark.parametrize("framing", ["close", "chunked"])
def test_endless_body(bench: Bench, framing: Framing) -> None:
    """An endless body is cut at the known size, and not asked for again and again (B30)."""
    with FaultyServer(faults.endless(noise(MIB), framing=framing)) as server:
        run = bench.run(pinned(server.url + "/f", DATA[:-1000]))
    assert run.code == 6
    assert untouched(bench)


@pytest.mark.fault(29, 30)
@pytest.mark.parametrize("framing", ["close", "chunked"])
def test_small_endless_body(bench: Bench, framing: Framing) -> None:
    """As above for a file held in memory (B30)."""
    with FaultyServer(faults.endless(framing=framing)) as server:
        run = bench.run(pinned(server.url + "/f", TINY))
    assert run.code == 6
    assert untouched(bench)


@pytest.mark.fault(30)
def test_endless_body_of_unknown_size(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """An endless body whose size nobody knows ends in SPACE or PROTO before the disk is full (B30)."""
    monkeypatch.setattr(bench.store, "free_space", lambda: 8 * MIB)

    def full(event: Event) -> None:
        if isinstance(event, Progressed) and any(file.done > 64 * MIB for file in event.files):
            raise KeyboardInterrupt

    with FaultyServer(faults.endless(framing="chunked")) as server:
        run = bench.run(loose(server.url + "/f"), tell=full)
    assert run.code in (6, 7)


@pytest.mark.fault(31)
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("data", [DATA, TINY], ids=["large", "small"])
def test_gzip_unasked(bench: Bench, data: bytes, known: bool) -> None:
    """A body that comes gzipped, unasked, is stored decoded and held against the file's digest (B31)."""
    with FaultyServer(faults.gzip_encoded(data)) as server:
        url = server.url + "/f"
        run = bench.run(pinned(url, data) if known else loose(url))
    assert run.code == 0
    assert bench.final.read_bytes() == data


@pytest.mark.fault(32)
def test_gzip_bomb_from_the_hub(bench: Bench) -> None:
    """An API answer that inflates without end is cut off: PROTO (B32)."""
    with FaultyServer(faults.gzip_bomb(2**27)) as server:
        run = bench.run(source=HubOrigin("org/repo"), hub=server.url)
        tries = len(server.requests)
    assert (run.code, run.error["code"], tries) == (6, "PROTO", 1)
