"""Verify and repair, and mirrors: only what is wrong is fetched, and from the first server that has it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from support import faults
from support.bench import Bench, pinned
from support.data import MIB, flip, noise
from support.faults.base import Data
from support.faulty_server import Answer, FaultyServer, Request, reply
from support.generated import Generated

from mdl import crc_json
from mdl.catalog.model import CatalogFile, Model
from mdl.catalog.resolver import Resolver
from mdl.context import Context
from mdl.disk import publish
from mdl.disk.own_files import make_private_dir
from mdl.downloader.connection_scaler import Tuning
from mdl.downloader.receipt_record import VERSION
from mdl.downloader.receipts import RECORD, file_key
from mdl.downloader.stream_hasher import StreamHasher
from mdl.downloader.transfer import Result
from mdl.errors import Cancelled, MdlError
from mdl.events import Event, Noticed, Progressed, silence
from mdl.hashing import Digest
from mdl.local.verify import Checked, check, check_file, repair
from mdl.sources import SourceContext
from mdl.sources.hub_endpoint import Endpoint

BLOCK = 16 * MIB
BIG = Generated(48 * MIB, 5)
DATA, OTHER, TINY = noise(4 * MIB), noise(4 * MIB, 1), noise(1000, 2)
SIZE = len(DATA)


def verified(bench: Bench, file: CatalogFile) -> list[str]:
    """What ``mdl verify`` says of the files."""
    return [row.status for row in check([Model("m", files=(file,))], tools(bench), {})]


def tools(bench: Bench, on_event: Callable[[Event], None] = silence) -> Context:
    resolver = Resolver(SourceContext(Endpoint("http://127.0.0.1:9"), bench.store.listings))
    return Context(resolver, bench.store, lock_wait=60.0, on_event=on_event, tuning=bench.tuning)


def repaired(
    bench: Bench, file: CatalogFile, tell: Callable[[Event], None] = silence, *, force: bool = False
) -> Result:
    """``mdl verify --repair``."""
    rows, events = check([Model("m", files=(file,))], tools(bench), {}), list[Event]()

    def listen(event: Event) -> None:
        tell(event)
        events.append(event)
        if sum(not isinstance(one, Progressed) for one in events) > 60:
            raise Cancelled

    with bench.http() as http:
        return repair(rows, tools(bench, listen), http, force=force, errors={})


@contextlib.contextmanager
def damaged(bench: Bench, content: Data, *offsets: int) -> Iterator[tuple[FaultyServer, CatalogFile]]:
    """The file was fetched, and bits at these offsets have flipped since; its server is still honest."""
    with FaultyServer(faults.honest(content)) as server:
        digest = Digest("sha256", hashlib.sha256(content[0 : len(content)]).hexdigest())
        file = replace(pinned(server.url + "/f", b""), size=len(content), digest=digest)
        assert bench.run(file).code == 0
        flip(bench.final, *offsets)
        yield server, file


def of_two_sizes(bench: Bench) -> Model:
    """A model of large and small files in turn, which are here; the third has another last byte."""
    files = []
    for number in range(6):
        data = noise(2 * MIB if number % 2 == 0 else 1000, number)
        files.append(pinned(f"http://127.0.0.1:8/{number}", data, path=f"{number}.bin"))
        place = bench.store.folder("m") / f"{number}.bin"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data if number != 2 else data[:-1] + bytes([data[-1] ^ 1]))
    return Model("m", files=tuple(files))


def test_large_files_are_read_by_several_threads(bench: Bench) -> None:
    """The verdicts, and what is told before each, come in the model's order, whichever file is read first."""
    told = list[Event]()
    rows = check([of_two_sizes(bench)], tools(bench, told.append), {})
    assert [row.status for row in rows] == ["ok", "ok", "corrupt", "ok", "ok", "ok"]
    names = [f"{number}.bin" for number in range(6)]
    assert [row.remote.path.text for row in rows] == names == [event.file for event in told]


def test_reading_of_large_files_is_cancelled(bench: Bench) -> None:
    """Once it is cancelled no further file is begun."""
    model, told = of_two_sizes(bench), list[Event]()

    def tell(event: Event) -> None:
        told.append(event)
        bench.store.cancel.set()

    with pytest.raises(Cancelled):
        check([model], tools(bench, tell), {})
    assert len(told) == 1


def test_large_files_of_several_models_are_read_at_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two models of one large file each: two threads read them."""
    names, both = ("one", "two"), threading.Barrier(2, timeout=120)
    models = [Model(name, files=(pinned("http://127.0.0.1:8/f", DATA),)) for name in names]
    for model in models:
        put(bench, model.name, DATA)

    def together(*asked: Any) -> Checked:
        both.wait()
        return check_file(*asked)

    monkeypatch.setattr("mdl.local.verify.READERS", 2)
    monkeypatch.setattr("mdl.local.verify.check_file", together)
    assert [(row.model, row.status) for row in check(models, tools(bench), {})] == [(name, "ok") for name in names]


def test_a_model_that_cannot_be_looked_at_moves_no_verdict(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three models of one large file each the second has a receipt of a newer mdl, and the third is damaged: each
    gets its own verdict, and of the second there is none."""
    names, errors = ("one", "two", "three"), dict[str, MdlError]()
    models = [Model(name, files=(pinned("http://127.0.0.1:8/f", DATA),)) for name in names]
    for model in models:
        put(bench, model.name, OTHER if model.name == "three" else DATA)
    newer = crc_json.dumps({"mdl-receipt": VERSION + 1, "path": "f"})
    publish.write_file(make_private_dir(bench.store.receipts.place("two")) / RECORD, newer, durable=False)
    rows = check(models, tools(bench), errors)
    assert [(row.model, row.status) for row in rows] == [("one", "ok"), ("three", "corrupt")]
    assert [(name, error.code) for name, error in errors.items()] == [("two", "STATE")]


def put(bench: Bench, model: str, data: bytes) -> None:
    """The file is there, and mdl does not know of it."""
    place = bench.store.folder(model) / bench.final.name
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(data)


@pytest.mark.parametrize(
    ("offsets", "blocks"),
    [((32 * MIB + 5,), 1), ((0,), 1), ((48 * MIB - 1,), 1), ((MIB, 40 * MIB), 2), ((16 * MIB - 1, 16 * MIB), 2)],
    ids=["middle", "first byte", "last byte", "two", "both sides of an edge"],
)
def test_repair_fetches_the_bad_blocks(bench: Bench, offsets: tuple[int, ...], blocks: int) -> None:
    """Of a 48 MiB file with flipped bits, only the 16 MiB blocks that hold them are fetched again (F110)."""
    with damaged(bench, BIG, *offsets) as (server, file):
        assert verified(bench, file) == ["corrupt"]
        before = server.bytes_sent
        result = repaired(bench, file)
        sent = server.bytes_sent - before
    assert result.files[0].error is None
    assert sent == result.bytes_fetched == result.bytes_discarded == blocks * BLOCK
    assert verified(bench, file) == ["ok"]
    assert not bench.partials


@pytest.mark.parametrize("length", [24 * MIB + 7, 48 * MIB + 9, 0])
def test_repair_of_another_length(bench: Bench, length: int) -> None:
    """A file that another program cut short or made longer is repaired with force alone, and the whole blocks that are
    left of it are not fetched again."""
    with damaged(bench, BIG) as (_, file):
        os.truncate(bench.final, length)
        assert verified(bench, file) == ["changed"]
        assert repaired(bench, file).files == ()
        result = repaired(bench, file, force=True)
    assert result.files[0].error is None
    assert result.bytes_fetched <= len(BIG) - min(length, len(BIG)) // BLOCK * BLOCK
    assert verified(bench, file) == ["ok"]


def test_repair_of_an_uneven_tail(bench: Bench) -> None:
    """The last, shorter block is repaired by itself as well."""
    content = Generated(20 * MIB + 777, 6)
    with damaged(bench, content, len(content) - 1) as (_, file):
        assert repaired(bench, file).bytes_fetched == len(content) - BLOCK
    assert verified(bench, file) == ["ok"]


def test_repair_of_what_is_missing(bench: Bench) -> None:
    """A file that is gone is fetched whole."""
    with damaged(bench, DATA) as (_, file):
        bench.final.unlink()
        assert verified(bench, file) == ["missing"]
        assert repaired(bench, file).files[0].error is None
    assert verified(bench, file) == ["ok"]


@pytest.mark.parametrize("then", ["repair", "get"])
def test_failed_repair_leaves_the_file(bench: Bench, then: str) -> None:
    """A repair that cannot fetch leaves the damaged file as it is. A later one, or a get, mends it, and does not take
    what the first one copied for right bytes."""
    with damaged(bench, BIG, 33 * MIB) as (server, file):
        server.handler = faults.answers(404)
        assert repaired(bench, file).files[0].error is not None
        assert verified(bench, file) == ["corrupt"]
        server.handler = faults.honest(BIG)
        if then == "get":
            assert bench.run(file, force=True).code == 0
        else:
            assert repaired(bench, file).files[0].error is None
    assert verified(bench, file) == ["ok"]


def test_repair_by_a_liar(bench: Bench) -> None:
    """A server that sends a bad block again and again is given up: 6, and the damaged file is not replaced."""
    with damaged(bench, BIG, 33 * MIB) as (server, file):
        server.handler = faults.other_bytes(BIG, everywhere=True)
        error = repaired(bench, file).files[0].error  # it is stopped if it goes round in circles
    assert error is not None
    assert error.exit_code == 6
    assert verified(bench, file) == ["corrupt"]


BOTH_SIZES = pytest.mark.parametrize("data", [DATA, TINY], ids=["large", "small"])


@BOTH_SIZES
@pytest.mark.parametrize("status", [401, 403, 404, 410, 451, 503])
def test_mirrors_in_order(bench: Bench, status: int, data: bytes) -> None:
    """If the first is gated, gone or down, the mirrors are tried in their order, and the last is not needed."""
    refusals = {"/1": faults.answers(status), "/2": faults.answers(404)}
    with FaultyServer(faults.routes(refusals, faults.honest(data))) as server:
        mirrors = [f"{server.url}/{n}" for n in (2, 3, 4)]
        run = bench.run(pinned(server.url + "/1", data, mirrors=mirrors), retries=2)
        order = list(dict.fromkeys(request.path for request in server.requests))
    assert (run.code, order) == (0, ["/1", "/2", "/3"])
    assert bench.has(data)


def test_no_mirror_without_a_digest(bench: Bench) -> None:
    """Mirrors are not trusted with a file whose digest is not known."""
    with FaultyServer(faults.routes({"/1": faults.answers(404)}, faults.honest(DATA))) as server:
        run = bench.run(replace(pinned(server.url + "/1", DATA, mirrors=[server.url + "/2"]), digest=None))
        assert (run.code, {request.path for request in server.requests}) == (3, {"/1"})


@pytest.mark.fault(10)
@BOTH_SIZES
def test_mirror_after_wrong_bytes(bench: Bench, data: bytes) -> None:
    """If the first has other bytes the mirror is tried, and the loss is reported (A10)."""
    with FaultyServer(faults.honest(data)) as mirror:
        run = bench.fetch(faults.honest(OTHER[: len(data)]), data, mirrors=[mirror.url + "/f"])
    assert run.code == 0
    assert run.report.bytes_discarded >= len(data)
    assert bench.has(data)


def test_mirror_goes_on_at_the_byte(bench: Bench) -> None:
    """What the first brought before it went down is kept; the mirror gives the rest."""
    first = faults.first(1, faults.short_body(DATA, SIZE // 2), faults.answers(503))
    with FaultyServer(faults.honest(DATA)) as mirror:
        run = bench.fetch(first, DATA, mirrors=[mirror.url + "/f"], retries=2)
        asked = [request.header("range") for request in mirror.requests]
    assert (run.code, run.report.bytes_fetched, run.rewound) == (0, SIZE, 0)
    assert asked == [f"bytes={SIZE // 2}-{SIZE - 1}"]


def test_mirror_has_an_etag_of_its_own(bench: Bench) -> None:
    """Where the digest is known and the size is not, the ETag of the first server says nothing of what a mirror has:
    nothing is discarded."""
    first = faults.first(1, faults.short_body(DATA, SIZE // 2), faults.answers(503))
    with FaultyServer(first) as server, FaultyServer(faults.honest(DATA, etag='"of the mirror"')) as mirror:
        file = replace(pinned(server.url + "/f", DATA, mirrors=[mirror.url + "/f"]), size=None)
        run = bench.run(file, retries=2)
    assert (run.code, run.report.bytes_fetched, run.rewound) == (0, SIZE, 0)
    assert bench.has(DATA)


def test_all_mirrors_fail(bench: Bench) -> None:
    """If none has it, the first's error stands, with those of the others."""
    with FaultyServer(faults.answers(404)) as mirror:
        run = bench.fetch(faults.answers(403), DATA, mirrors=[mirror.url + "/f"])
    assert (run.code, run.error["code"]) == (4, "AUTH")
    assert "404" in run.error["message"]


@pytest.mark.fault(221)
def test_a_wrong_block_of_a_server_without_ranges_is_no_loop(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a repair's server sends all from the start, and a block of it wrong, the digest of the whole decides: 6."""
    data, hashed, look = noise(20 * MIB, 5), threading.Event(), StreamHasher.end_block
    wrong = bytearray(data)
    wrong[5] ^= 1

    def end_block(self: StreamHasher) -> None:
        look(self)
        hashed.set()

    def handler(request: Request, number: int) -> Answer:
        body = [bytes(wrong[:-MIB]), hashed, bytes(wrong[-MIB:])]
        return Answer(200, [("Content-Length", str(len(wrong)))], body)

    with damaged(bench, data, 100) as (server, file):
        server.handler, before = handler, len(server.requests)
        monkeypatch.setattr(StreamHasher, "end_block", end_block)
        (failed,) = repaired(bench, file).files
        assert len(server.requests) - before <= 4
    assert failed.error is not None
    assert failed.error.exit_code == 6


@pytest.mark.fault(222)
def test_several_refusals_at_once_pass_over_one_mirror_only(bench: Bench) -> None:
    """If two connections are refused for good at once, the mirror is tried once, and not given up for each of them."""
    bench.tuning = Tuning(least_segment=256 * 1024, probe_after=0.0, fast_enough=1e99)
    bench.serves_parallel = True
    together, right = threading.Barrier(2), faults.honest(DATA)

    def handler(request: Request, number: int) -> Answer:
        if number == 0:
            return right(request, number)
        with contextlib.suppress(threading.BrokenBarrierError):
            together.wait(2)
        return reply(429, b"slow down", ("Retry-After", "7200"))

    with FaultyServer(right) as mirror:
        run = bench.fetch(handler, DATA, mirrors=[mirror.url + "/f"], connections=2, retries=5)
    assert (run.code, bench.has(DATA), together.broken) == (0, True, False)


def test_a_guessed_size_does_not_bind_the_mirror(bench: Bench) -> None:
    """How far a stream without a length came is not the file's size: the mirror brings all of it."""
    with FaultyServer(faults.no_length_cut(DATA, SIZE // 2)) as server, FaultyServer(faults.honest(DATA)) as mirror:
        file = replace(pinned(server.url + "/f", DATA, mirrors=[mirror.url + "/f"]), size=None)
        run = bench.run(file, connections=2)
    assert (run.code, bench.has(DATA)) == (0, True)


def test_a_repair_waits_for_an_owner_that_cannot_be_seen(bench: Bench) -> None:
    """If another container works on the file, the repair waits for it as a get does, says so, and goes on."""
    told: list[str] = []
    with damaged(bench, DATA, 100) as (_, file):
        theirs = make_private_dir(bench.store.partials / f"{file_key('m', file.path)}.elsewhere")

        def tell(event: Event) -> None:
            if isinstance(event, Noticed) and "waiting for" in event.message:
                told.append(event.message)
                os.utime(theirs, (0, 0))  # it has been quiet for long

        assert repaired(bench, file, tell).files[0].error is None
    assert len(told) == 1
