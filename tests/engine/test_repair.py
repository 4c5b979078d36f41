"""Verify and repair, and mirrors: only what is wrong is fetched, and from the first who has it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from support import faults
from support.bench import Bench, pinned
from support.data import MIB, noise
from support.faulty_server import Answer, FaultyServer, Request, reply
from support.loopback_hub import Generated, hex_digest

from mdl.catalog.model import CatalogFile, Model
from mdl.catalog.resolver import Resolver
from mdl.engine import adoption
from mdl.engine.download import Download, Segment
from mdl.engine.receipts import file_key
from mdl.engine.stream_hasher import StreamHasher
from mdl.engine.transfer import Result
from mdl.errors import Cancelled
from mdl.events import Event, Noticed, Progressed, silence
from mdl.fs.private import make_private_dir
from mdl.hashing import Digest
from mdl.http.allowlist import AllowList
from mdl.http.client import HttpClient
from mdl.http.policy import RetryPolicy
from mdl.operations.tools import Tools
from mdl.operations.verify import check, repair
from mdl.sources import Context
from mdl.sources.endpoint import Endpoint

BLOCK = 16 * MIB
BIG = Generated(64 * MIB, 5)
DATA, OTHER, TINY = noise(4 * MIB), noise(4 * MIB, 1), noise(1000, 2)
SIZE = len(DATA)


def big(url: str, content: Generated = BIG) -> CatalogFile:
    digest = Digest("sha256", hex_digest(content, "sha256"))
    return replace(pinned(url, b""), size=len(content), digest=digest)


def verified(bench: Bench, file: CatalogFile) -> list[str]:
    """What ``mdl verify`` says of the files."""
    return [row.status for row in check(Model("m", files=(file,)), tools(bench))]


def tools(bench: Bench, on_event: Callable[[Event], None] = silence) -> Tools:
    resolver = Resolver(Context(Endpoint("http://127.0.0.1:9"), bench.store.listings))
    return Tools(resolver, bench.store, lock_wait=60.0, on_event=on_event)


def repaired(bench: Bench, file: CatalogFile) -> tuple[Result, list[Event]]:
    """``mdl verify --repair``."""
    rows = check(Model("m", files=(file,)), tools(bench))
    events: list[Event] = []

    def listen(event: Event) -> None:
        events.append(event)
        if sum(not isinstance(one, Progressed) for one in events) > 60:
            raise Cancelled

    with HttpClient(AllowList.of(bench.allow), connections=4, policy=RetryPolicy(3)) as http:
        return repair(rows, tools(bench, listen), http, force=False, errors={}), events


def flip(path: Path, *offsets: int) -> None:
    with path.open("r+b") as file:
        for offset in offsets:
            file.seek(offset)
            byte = file.read(1)[0]
            file.seek(offset)
            file.write(bytes([byte ^ 1]))


@pytest.mark.parametrize(
    ("offsets", "blocks"),
    [((32 * MIB + 5,), 1), ((0,), 1), ((64 * MIB - 1,), 1), ((MIB, 50 * MIB), 2), ((16 * MIB - 1, 16 * MIB), 2)],
    ids=["middle", "first byte", "last byte", "two", "both sides of an edge"],
)
def test_repair_fetches_the_bad_blocks(bench: Bench, offsets: tuple[int, ...], blocks: int) -> None:
    """Of a 64 MiB file with flipped bits, only the 16 MiB blocks that hold them are fetched again (F110)."""
    with FaultyServer(faults.honest(BIG)) as server:
        file = big(server.url + "/f")
        assert bench.run(file).code == 0
        flip(bench.final, *offsets)
        assert verified(bench, file) == ["corrupt"]
        before = server.bytes_sent
        result, _ = repaired(bench, file)
        sent = server.bytes_sent - before
    assert [outcome.error for outcome in result.outcomes] == [None]
    assert sent == result.bytes_fetched == blocks * BLOCK
    assert result.bytes_discarded == blocks * BLOCK
    assert verified(bench, file) == ["ok"]
    assert not bench.partials


@pytest.mark.parametrize("length", [40 * MIB + 7, 64 * MIB + 9, 0])
def test_repair_of_another_length(bench: Bench, length: int) -> None:
    """A file that was cut short or grew is repaired, and of what is left of it nothing is fetched again."""
    with FaultyServer(faults.honest(BIG)) as server:
        file = big(server.url + "/f")
        assert bench.run(file).code == 0
        with bench.final.open("r+b") as data:
            data.truncate(length)
        assert verified(bench, file) == ["corrupt"]
        result, _ = repaired(bench, file)
    right = min(length, len(BIG)) // BLOCK * BLOCK
    assert result.outcomes[0].error is None
    assert result.bytes_fetched <= len(BIG) - right
    assert verified(bench, file) == ["ok"]


def test_repair_of_an_uneven_tail(bench: Bench) -> None:
    """The last, shorter block is repaired by itself as well."""
    content = Generated(20 * MIB + 777, 6)
    with FaultyServer(faults.honest(content)) as server:
        file = big(server.url + "/f", content)
        assert bench.run(file).code == 0
        flip(bench.final, len(content) - 1)
        result, _ = repaired(bench, file)
    assert result.bytes_fetched == len(content) - BLOCK
    assert verified(bench, file) == ["ok"]


def test_repair_of_what_is_missing(bench: Bench) -> None:
    """A file that is gone is fetched whole."""
    with FaultyServer(faults.honest(DATA)) as server:
        file = pinned(server.url + "/f", DATA)
        assert bench.run(file).code == 0
        bench.final.unlink()
        assert verified(bench, file) == ["missing"]
        result, _ = repaired(bench, file)
    assert result.outcomes[0].error is None
    assert verified(bench, file) == ["ok"]


def test_failed_repair_leaves_the_file(bench: Bench) -> None:
    """A repair that cannot fetch leaves the damaged file where it is; a later one mends it."""
    with FaultyServer(faults.honest(BIG)) as server:
        file = big(server.url + "/f")
        assert bench.run(file).code == 0
        flip(bench.final, 33 * MIB)
        server.handler = faults.answers(404)
        result, _ = repaired(bench, file)
        assert result.outcomes[0].error is not None
        assert verified(bench, file) == ["corrupt"]
        server.handler = faults.honest(BIG)
        again, _ = repaired(bench, file)
    assert again.outcomes[0].error is None
    assert verified(bench, file) == ["ok"]


def test_get_after_failed_repair(bench: Bench) -> None:
    """What a failed repair copied beside is never taken for right bytes by the next get."""
    with FaultyServer(faults.honest(BIG)) as server:
        file = big(server.url + "/f")
        assert bench.run(file).code == 0
        flip(bench.final, 33 * MIB)
        server.handler = faults.answers(404)
        repaired(bench, file)
        server.handler = faults.honest(BIG)
        assert bench.run(file, force=True).code == 0
    assert verified(bench, file) == ["ok"]


def test_repair_by_a_liar(bench: Bench) -> None:
    """A server that sends a bad block again and again is given up: 6, and the damaged file is not replaced."""
    with FaultyServer(faults.honest(BIG)) as server:
        file = big(server.url + "/f")
        assert bench.run(file).code == 0
        flip(bench.final, 33 * MIB)
        server.handler = faults.other_bytes(BIG, everywhere=True)
        result, events = repaired(bench, file)  # stopped where it goes round in circles
    error = result.outcomes[0].error
    assert error is not None
    assert error.exit_code == 6
    assert events
    assert verified(bench, file) == ["corrupt"]


@pytest.mark.parametrize("data", [DATA, TINY], ids=["large", "small"])
@pytest.mark.parametrize("status", [401, 403, 404, 410, 451, 503])
def test_mirrors_in_order(bench: Bench, status: int, data: bytes) -> None:
    """Where the first is gated, gone or down, the mirrors are asked in their order, and the next is left alone."""
    with FaultyServer(by_path(data, {"/1": status, "/2": 404})) as server:
        mirrors = [f"{server.url}/{n}" for n in (2, 3, 4)]
        run = bench.run(pinned(server.url + "/1", data, mirrors=mirrors), retries=2)
        order = list(dict.fromkeys(request.path for request in server.requests))
    assert (run.code, order) == (0, ["/1", "/2", "/3"])
    assert bench.final.read_bytes() == data


def by_path(data: bytes, statuses: dict[str, int]) -> faults.base.Handler:
    """These statuses for these paths; the file everywhere else."""
    right = faults.honest(data)

    def handler(request: Request, number: int) -> Answer:
        status = statuses.get(request.path)
        return reply(status, b"no") if status else right(request, number)

    return handler


def test_no_mirror_without_a_digest(bench: Bench) -> None:
    """Mirrors are not trusted with a file whose digest nobody knows."""
    with FaultyServer(by_path(DATA, {"/1": 404})) as server:
        file = replace(pinned(server.url + "/1", DATA, mirrors=[server.url + "/2"]), digest=None)
        run = bench.run(file)
        asked = {request.path for request in server.requests}
    assert (run.code, asked) == (3, {"/1"})


@pytest.mark.fault(10)
@pytest.mark.parametrize(
    "data",
    [DATA, TINY],
    ids=["large", "small"],
)
def test_mirror_after_wrong_bytes(bench: Bench, data: bytes) -> None:
    """Where the first has other bytes the mirror is asked, and the loss is told (A10)."""
    other = OTHER[: len(data)]
    with FaultyServer(faults.routes({"/1": faults.honest(other), "/2": faults.honest(data)})) as server:
        run = bench.run(pinned(server.url + "/1", data, mirrors=[server.url + "/2"]))
    assert run.code == 0
    assert run.report.bytes_discarded >= len(data)
    assert bench.final.read_bytes() == data


def test_mirror_goes_on_at_the_byte(bench: Bench) -> None:
    """What the first brought before it went down is kept; the mirror gives the rest."""
    first = faults.first(1, faults.short_body(DATA, SIZE // 2), faults.answers(503))
    with FaultyServer(faults.routes({"/1": first, "/2": faults.honest(DATA)})) as server:
        run = bench.run(pinned(server.url + "/1", DATA, mirrors=[server.url + "/2"]), retries=2)
        asked = [request.header("range") for request in server.requests if request.path == "/2"]
    assert (run.code, run.report.bytes_fetched, run.rewound) == (0, SIZE, 0)
    assert asked == [f"bytes={SIZE // 2}-{SIZE - 1}"]


def test_all_mirrors_fail(bench: Bench) -> None:
    """Where none has it, the first's error stands, and the others' are told with it."""
    with FaultyServer(by_path(DATA, {"/1": 403, "/2": 404})) as server:
        run = bench.run(pinned(server.url + "/1", DATA, mirrors=[server.url + "/2"]))
    assert (run.code, run.error["code"]) == (4, "AUTH")
    assert "404" in run.error["message"]


@pytest.mark.fault(221)
def test_a_wrong_block_of_a_server_without_ranges_is_no_loop(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a repair's server sends all from the start, and a block of it wrong, the whole digest decides: 6."""
    data, hashed, look = noise(20 * MIB, 5), threading.Event(), StreamHasher._at_edge
    wrong = bytearray(data)
    wrong[5] ^= 1

    def at_edge(self: StreamHasher) -> None:
        look(self)
        hashed.set()

    def handler(request: Request, number: int) -> Answer:
        body = [bytes(wrong[:-MIB]), hashed, bytes(wrong[-MIB:])]
        return Answer(200, [("Content-Length", str(len(wrong)))], body)

    with FaultyServer(faults.honest(data)) as server:
        file = pinned(server.url + "/f", data)
        assert bench.run(file).code == 0
        flip(bench.final, 100)
        server.handler, before = handler, len(server.requests)
        hashed.clear()
        monkeypatch.setattr(StreamHasher, "_at_edge", at_edge)
        result, _ = repaired(bench, file)
        assert len(server.requests) - before <= 4
    (outcome,) = result.outcomes
    assert outcome.error is not None
    assert outcome.error.exit_code == 6


@pytest.mark.fault(222)
def test_what_the_first_server_still_says_is_not_the_mirror_s(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four connections are refused for good at once: the mirror is asked once, and not passed over for each of them."""
    monkeypatch.setattr(Download, "next_segment", _four_at_once(Download.next_segment))
    bench.segments(256 * 1024)
    together, right = threading.Barrier(4), faults.honest(DATA)

    def handler(request: Request, number: int) -> Answer:
        if number == 0:
            return right(request, number)
        with contextlib.suppress(threading.BrokenBarrierError):
            together.wait(2)
        return reply(429, b"slow down", ("Retry-After", "7200"))

    with FaultyServer(handler) as server, FaultyServer(right) as mirror:
        run = bench.run(pinned(server.url + "/f", DATA, mirrors=[mirror.url + "/f"]), connections=4, retries=5)
    assert (run.code, bench.final.read_bytes() == DATA) == (0, True)


def _four_at_once(cut: Callable[[Download], Segment | None]) -> Callable[[Download], Segment | None]:
    def wide(self: Download) -> Segment | None:
        self.scaler.width = 4
        return cut(self)

    return wide


def test_a_size_that_was_guessed_is_not_held_against_the_mirror(bench: Bench) -> None:
    """How far a stream without a length came is not the file's size: the mirror brings all of it."""
    with (
        FaultyServer(faults.no_length_cut(DATA, len(DATA) // 2)) as server,
        FaultyServer(faults.honest(DATA)) as mirror,
    ):
        file = replace(pinned(server.url + "/f", DATA, mirrors=[mirror.url + "/f"]), size=None)
        run = bench.run(file, connections=2)
    assert (run.code, bench.final.read_bytes() == DATA) == (0, True)


def test_a_repair_waits_for_an_owner_that_cannot_be_seen(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another container has the file in hand: the repair waits for it as a get does, says so, and goes on."""
    with FaultyServer(faults.honest(DATA)) as server:
        file = pinned(server.url + "/f", DATA)
        assert bench.run(file).code == 0
        flip(bench.final, 100)
        make_private_dir(bench.store.partials / f"{file_key('m', file.path)}.elsewhere")
        looks = iter([True, True])
        monkeypatch.setattr(adoption, "is_held", lambda folder: next(looks, False))
        monkeypatch.setattr(bench.store.cancel, "wait", lambda seconds: None)
        result, events = repaired(bench, file)
    assert [outcome.error for outcome in result.outcomes] == [None]
    assert any("waiting for" in event.message for event in events if isinstance(event, Noticed))
