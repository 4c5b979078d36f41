"""The engine against bodies and framing that are wrong (faults, group B)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support import faults
from support.bench import KNOWN, Bench
from support.body_writes import free_bytes
from support.data import MIB, noise
from support.faulty_server import Answer, FaultyServer, Handler

from mdl.events import Event, Progressed
from mdl.sources.hub_origin import HubOrigin

DATA, TINY = noise(2 * MIB), noise(100_000, 1)
SIZE = len(DATA)
BOTH_SIZES = pytest.mark.parametrize("data", [DATA, TINY], ids=["large", "small"])


@pytest.mark.fault(25)
@pytest.mark.parametrize("end", ["close", "reset"])
@KNOWN
def test_cut_bodies_are_resumed_at_the_byte(bench: Bench, end: faults.bodies.Drop, known: bool) -> None:
    """A body that ends early is resumed at the very byte; no byte is fetched twice (B25)."""
    run = bench.fetch(faults.short_body(DATA, 700_000, end=end), DATA, known=known)
    assert (run.code, run.report.bytes_fetched, run.rewound) == (0, SIZE, 0)
    assert bench.has(DATA)


def chunks_of_one_byte(data: bytes) -> Handler:
    """The first five thousand bytes come one by one."""
    cuts = [*(data[at : at + 1] for at in range(5_000)), data[5_000:]]
    body = [*faults.chunked_pieces(iter(cuts)), b"0\r\n\r\n"]
    return lambda request, number: Answer(200, [("Transfer-Encoding", "chunked")], body)


Codes = set[int]
NEVER: Codes = {5, 6}
BODIES: dict[str, tuple[Callable[[bytes], Handler], Codes, Codes | None]] = {
    "chunked": (faults.chunked, {0}, {0}),
    "chunk extensions": (lambda data: faults.chunked(data, extension=b";x=" + b"y" * 500), {0}, {0}),
    "chunks of one byte": (chunks_of_one_byte, {0}, None),
    "chunked, cut": (lambda data: faults.chunked_cut(data, len(data) // 2), NEVER, {5}),
    "until it closes": (faults.no_length, {0}, {6}),
    "until it closes, cut": (lambda data: faults.no_length_cut(data, len(data) // 2), NEVER, {6}),
    "surplus bytes": (faults.extra_bytes, {0}, None),
    "endless until it closes": (lambda data: faults.endless(noise(MIB - 1000)), {6}, None),
    "endless, chunked": (lambda data: faults.endless(noise(MIB - 1000), framing="chunked"), {6}, None),
    "gzip": (faults.gzip_encoded, {0}, {0}),
    "a reset after the last byte": (faults.reset_at_end, {0}, {0}),
    "HTTP/1.0": (faults.old_http, {0}, {0}),
    "HTTP/0.9": (faults.no_head, NEVER, None),
    "a garbled status line": (faults.garbage_status, NEVER, None),
    "three times 100": (lambda data: faults.continues(data, count=3, status=100), {0}, None),
    "three times 103": (lambda data: faults.continues(data, count=3, status=103), {0}, None),
    **{
        f"Content-Length, {name}": (
            lambda data, name=name: faults.bad_length(data, name),
            {0, 6} if name in ("repeated", "list", "chunked too") else {6},
            None,
        )
        for name in faults.BAD_LENGTHS
    },
}
"""Each with the exit codes that are right if the file is known, and, if that is tried, with its URL alone."""
CASES = [(what, known) for what, row in BODIES.items() for known in (True, False) if row[1 if known else 2]]


@pytest.mark.fault(26, 27, 28, 29, 30, 31, 33, 35, 36, 37, 43)
@BOTH_SIZES
@pytest.mark.parametrize(("what", "known"), CASES)
def test_whole_or_refused(bench: Bench, what: str, data: bytes, known: bool) -> None:
    """However a body is framed, cut, encoded or continued without end: the whole file, or a refusal that leaves nothing
    (B26 to B31, B33, B35 to B37, B43). Without a length or a digest nothing tells that a body is whole."""
    make, *codes = BODIES[what]
    run = bench.fetch(make(data), data, known=known)
    assert run.code in codes[0 if known else 1]
    assert len(run.requests) <= 6  # three that break the protocol; twice that, if one of them ends just at the size
    if run.code == 0:
        assert (run.rewound, bench.has(data)) == (0, True)
    else:
        assert bench.is_untouched


@pytest.mark.fault(27)
@KNOWN
def test_no_last_chunk(bench: Bench, known: bool) -> None:
    """Chunks without the last, empty one: whole if size and digest say so, else cut and given up (B27)."""
    assert bench.fetch(faults.chunked_cut(DATA), DATA, known=known).code == (0 if known else 5)
    assert bench.has(DATA) if known else bench.is_untouched


@pytest.mark.fault(25)
@BOTH_SIZES
def test_no_body_at_all(bench: Bench, data: bytes) -> None:
    """A server that never sends a byte is given up after the attempts allowed: 5 (B25)."""
    run = bench.fetch(faults.short_body(data, 0), data, retries=3)
    assert (run.code, run.error["code"], len(run.requests)) == (5, "NET", 3)
    assert bench.is_untouched


@pytest.mark.fault(1, 25)
def test_cut_without_ranges(bench: Bench) -> None:
    """A server without ranges that always cuts the body at the same byte is given up in the end: 5 (A1, B25)."""
    run = bench.fetch(faults.cut(faults.norange(DATA), SIZE // 2), DATA)
    assert (run.code, run.error["code"]) == (5, "NET")


@pytest.mark.fault(29)
@pytest.mark.parametrize("by", [1, -1, 10**6])
@BOTH_SIZES
def test_length_unlike_the_catalogs(bench: Bench, data: bytes, by: int) -> None:
    """Another Content-Length than the catalog's size is refused before a byte is written (B29)."""
    run = bench.fetch(faults.wrong_length(data, max(by, -len(data))), data)
    assert (run.code, run.error["code"], run.report.bytes_fetched) == (6, "PROTO", 0)
    assert bench.is_untouched


@pytest.mark.fault(30)
def test_endless_body_of_unknown_size(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """An endless body of unknown size ends in SPACE or PROTO before the disk is full (B30)."""
    free_bytes(monkeypatch, lambda: 8 * MIB)

    def full(event: Event) -> None:
        if isinstance(event, Progressed) and any(file.done > 64 * MIB for file in event.files):
            raise KeyboardInterrupt

    assert bench.fetch(faults.endless(framing="chunked"), DATA, known=False, tell=full).code in (6, 7)


@pytest.mark.fault(32)
def test_gzip_bomb_from_the_hub(bench: Bench) -> None:
    """An API answer that inflates without end is cut off: PROTO (B32)."""
    with FaultyServer(faults.gzip_bomb(2**27)) as server:
        run = bench.run(source=HubOrigin("org/repo"), hub=server.url)
        tries = len(server.requests)
    assert (run.code, run.error["code"], tries) == (6, "PROTO", 1)
