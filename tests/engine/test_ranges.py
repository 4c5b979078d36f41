"""The engine against servers that get ranges and validators wrong (faults, group A)."""

from __future__ import annotations

import pytest
from support import faults
from support.bench import Bench, loose, pinned, stalled
from support.data import MIB, noise
from support.faulty_server import Answer, FaultyServer, Handler, Request
from support.polling import until

from mdl.events import Event
from mdl.files import RemoteFile
from mdl.http.ranges import ByteRange

pytestmark = pytest.mark.usefixtures("way")
DATA, OTHER = noise(4 * MIB), noise(4 * MIB, 1)
SIZE = len(DATA)


def good(bench: Bench, data: bytes = DATA) -> bool:
    """The final name holds the file, and nothing is left over."""
    return bench.final.read_bytes() == data and not bench.partials and not bench.strangers()


@pytest.mark.fault(1)
def test_no_ranges_on_resume(bench: Bench) -> None:
    """A server that answers 200 to a resume starts the file anew in one stream, and says what was dropped (A1)."""
    with FaultyServer(faults.honest(DATA)) as server:
        file = pinned(server.url + "/f", DATA)
        at = bench.half(file, server, DATA)
        server.handler = faults.norange(DATA)
        run = bench.run(file)
    assert (run.code, run.rewound, run.report.bytes_discarded) == (0, at, at)
    assert good(bench)


@pytest.mark.fault(2)
def test_200_to_a_later_segment(bench: Bench) -> None:
    """A 200 to segment k ends that body at once and the file comes in one stream (A2)."""
    big = noise(24 * MIB)
    with FaultyServer(faults.norange_after_start(big)) as server:
        run = bench.run(pinned(server.url + "/f", big))
        whole = [r for r in server.requests if r.status.endswith("200 OK")]
    assert run.code == 0
    assert good(bench, big)
    assert whole[0].sent < len(big) / 2 or len(whole) == 1
    assert run.rewound == run.report.bytes_discarded


@pytest.mark.fault(3, 5, 9)
@pytest.mark.parametrize(
    "handler",
    [
        faults.wrong_start(DATA),
        faults.wrong_start(DATA, shift=-1),
        faults.no_content_range(DATA),
        faults.bad_content_range(DATA),
        faults.bad_content_range(DATA, "bytes {last}-{start}/{size}"),
        faults.bad_content_range(DATA, "bytes {start}-{last}/{last}"),
        faults.multipart_206(DATA),
        faults.gzip_encoded(DATA, status=206),
    ],
    ids=["later", "earlier", "none", "garbage", "backwards", "beyond its total", "multipart", "gzip"],
)
def test_lying_206_keeps_the_part(bench: Bench, handler: Handler) -> None:
    """A 206 that does not prove what it holds is refused after a few tries, and what was here is kept (A3, A5, A9)."""
    with FaultyServer(faults.honest(DATA)) as server:
        file = pinned(server.url + "/f", DATA)
        at = bench.half(file, server, DATA)
        server.handler, before = handler, len(server.requests)
        run = bench.run(file)
        tries = len(server.requests) - before
        assert (run.code, run.error["code"], run.rewound) == (6, "PROTO", 0)
        assert not bench.final.exists()
        server.handler = faults.honest(DATA)
        again = bench.run(file)
    assert 1 < tries <= 4
    assert (again.code, again.row.resumed_at, again.report.bytes_fetched) == (0, at, SIZE - at)
    assert good(bench)


@pytest.mark.fault(4)
def test_wrong_total(bench: Bench) -> None:
    """A total that differs between two answers means another file: refused, never mixed (A4)."""
    bench.segments(MIB)
    with FaultyServer(faults.wrong_total(DATA)) as server:
        run = bench.run(pinned(server.url + "/f", DATA), connections=1)
    assert (run.code, run.error["code"]) == (6, "PROTO")
    assert not bench.final.exists()


@pytest.mark.fault(6, 7, 8)
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(
    "handler",
    [faults.star_total(DATA), faults.short_206(DATA), faults.long_206(DATA), faults.no_accept_ranges(DATA)],
    ids=["total *", "shorter", "longer", "no Accept-Ranges"],
)
def test_legal_oddities(bench: Bench, handler: Handler, known: bool) -> None:
    """A total of ``*``, a 206 shorter or longer than asked, no Accept-Ranges: all end well (A6, A7, A8)."""
    with FaultyServer(handler) as server:
        url = server.url + "/f"
        run = bench.run(pinned(url, DATA) if known else loose(url))
    assert run.code == 0
    assert good(bench)
    assert run.rewound == 0


@pytest.mark.fault(8)
@pytest.mark.parametrize("connections", [1, 4])
def test_long_206_ends_with_its_segment(bench: Bench, connections: int) -> None:
    """What a 206 brings beyond its segment is left alone: no byte comes to be counted twice, and none lands there."""
    bench.segments(MIB)
    with FaultyServer(faults.long_206(DATA, extra=MIB // 2)) as server:
        run = bench.run(pinned(server.url + "/f", DATA), connections=connections)
    assert (run.code, run.report.bytes_fetched, run.rewound, len(server.requests)) == (0, SIZE, 0, 4)
    assert good(bench)


@pytest.mark.fault(7)
def test_short_206_is_no_restart(bench: Bench) -> None:
    """After a shorter 206 the remainder is asked for; no byte comes twice (A7)."""
    with FaultyServer(faults.short_206(DATA, cap=300_000)) as server:
        run = bench.run(pinned(server.url + "/f", DATA))
        sent = server.bytes_sent
    assert (run.code, run.retries, sent, run.report.bytes_fetched) == (0, 0, SIZE, SIZE)


@pytest.mark.fault(10)
def test_other_bytes_once(bench: Bench) -> None:
    """Right headers over other bytes: one clean retry from the start, announced, brings the file (A10)."""
    with FaultyServer(faults.honest(DATA)) as server:
        file = pinned(server.url + "/f", DATA)
        bench.half(file, server, DATA)
        server.handler = faults.first(1, faults.other_bytes(DATA), faults.honest(DATA))
        run = bench.run(file)
    assert (run.code, run.rewound) == (0, SIZE)
    assert good(bench)


@pytest.mark.fault(10)
def test_other_bytes_always(bench: Bench) -> None:
    """Other bytes again after the clean retry: HASH, nothing under the final name, nothing of it resumed (A10)."""
    with FaultyServer(faults.honest(DATA)) as server:
        file = pinned(server.url + "/f", DATA)
        bench.half(file, server, DATA)
        server.handler = faults.other_bytes(DATA, everywhere=True)
        run = bench.run(file)
        assert (run.code, run.error["code"]) == (6, "HASH")
        assert run.rewound == run.report.bytes_discarded == 2 * SIZE
        server.handler = faults.honest(DATA)
        again = bench.run(file)
    assert (again.code, again.row.resumed_at) == (0, 0)
    assert good(bench)


@pytest.mark.fault(18)
@pytest.mark.parametrize("known", [True, False])
def test_complete_part(bench: Bench, known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part that is complete is verified and published without fetching a byte, whatever 416 would say (A18)."""
    with FaultyServer(faults.honest(DATA)) as server:
        url = server.url + "/f"
        file = pinned(url, DATA) if known else loose(url)
        with monkeypatch.context() as patch:
            patch.setattr("mdl.engine.store.Store.publish", _power_cut)
            assert bench.run(file).code == 7
        server.handler = faults.choose(probes, faults.honest(DATA), faults.unsatisfiable(DATA))
        before = len(server.requests)
        run = bench.run(file)
        bodies = [r for r in server.requests[before:] if r.header("range") != "bytes=0-0"]
    assert (run.code, run.report.bytes_fetched, run.rewound, bodies) == (0, 0, 0, [])
    assert good(bench)


def probes(request: Request) -> bool:
    return request.header("range") == "bytes=0-0"


def _power_cut(*_: object, **__: object) -> None:
    raise OSError(5, "Input/output error")


@pytest.mark.fault(19)
@pytest.mark.parametrize("length", [SIZE + 1, SIZE // 2 + 1, SIZE // 4, 0])
def test_part_of_wrong_length(bench: Bench, length: int) -> None:
    """A part made longer or shorter behind mdl's back brings the right file, and never one of that length (A19)."""
    with FaultyServer(faults.honest(DATA)) as server:
        file = pinned(server.url + "/f", DATA)
        bench.half(file, server, DATA)
        [part] = bench.partials
        with part.open("r+b") as data:
            data.truncate(length)
        server.handler = faults.honest(DATA)
        run = bench.run(file)
    assert run.code == 0
    assert run.row.resumed_at == min(length, SIZE // 2)
    assert good(bench)


@pytest.mark.fault(20)
@pytest.mark.parametrize("said", [None, "bytes */{size}", "bytes 0-0/{size}", "rubbish"])
def test_416_inside_the_file(bench: Bench, said: str | None) -> None:
    """A 416 for a range inside the file, with a body, is refused; its body reaches no file, the part is kept (A20)."""
    body = b"Range not satisfiable" * 1000
    with FaultyServer(faults.honest(DATA)) as server:
        file = pinned(server.url + "/f", DATA)
        at = bench.half(file, server, DATA)
        server.handler = faults.unsatisfiable(DATA, said=said, body=body)
        run = bench.run(file)
        assert (run.code, run.rewound, bench.claimed) == (6, 0, at)
        server.handler = faults.honest(DATA)
        assert bench.run(file).row.resumed_at == at
    assert good(bench)


@pytest.mark.fault(19, 20)
def test_416_of_a_smaller_file(bench: Bench) -> None:
    """A 416 that tells a smaller size means another file than the pinned one: 6, nothing mixed (A19, A20)."""
    with FaultyServer(faults.honest(DATA)) as server:
        file = pinned(server.url + "/f", DATA)
        bench.half(file, server, DATA)
        server.handler = faults.honest(DATA[:MIB])
        run = bench.run(file)
    assert (run.code, bench.final.exists()) == (6, False)


@pytest.mark.fault(21)
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("size", [0, 1, MIB, MIB + 1, 2 * MIB, 4 * MIB])
def test_sizes_at_the_edges(bench: Bench, size: int, known: bool) -> None:
    """No byte, one byte, a whole number of segments and one more: all arrive (A21)."""
    bench.segments(MIB)
    data = DATA[:size]
    with FaultyServer(faults.honest(data)) as server:
        url = server.url + "/f"
        run = bench.run(pinned(url, data) if known else loose(url))
    assert (run.code, run.report.bytes_fetched) == (0, size)
    assert good(bench, data)


@pytest.mark.fault(22)
@pytest.mark.parametrize("refusal", [429, 503, "reset"])
def test_one_connection_allowed(bench: Bench, refusal: int | str) -> None:
    """A server that turns a second connection away is used with one, and the file arrives (A22)."""
    bench.segments(MIB)
    with FaultyServer(faults.one_at_a_time(faults.honest(DATA), refusal=refusal)) as server:
        run = bench.run(pinned(server.url + "/f", DATA), connections=8)
        turned_away = sum("429" in r.status or "503" in r.status or not r.status for r in server.requests)
    assert run.code == 0
    assert turned_away < 8
    assert good(bench)


@pytest.mark.fault(22)
def test_one_connection_for_several_files(bench: Bench) -> None:
    """A file that is turned away while another is served waits for it instead of using up its attempts (A22)."""
    events: list[Event] = []

    def handler(request: Request, number: int) -> Answer:
        if number == 0:
            until(lambda: len(server.requests) > 12 or "Failed" in map(name_of, events), seconds=0.5, must=False)
        return one(request, number)

    def name_of(event: Event) -> str:
        return type(event).__name__

    one = faults.one_at_a_time(faults.honest(DATA))
    with FaultyServer(handler) as server:
        files = [pinned(f"{server.url}/{name}", DATA, path=name) for name in ("a", "b")]
        run = bench.run(*files, connections=2, tell=events.append)
    assert run.code == 0


@pytest.mark.fault(24)
def test_beyond_4_gib(bench: Bench) -> None:
    """A range beyond 2**32 is asked for, and lands, where it belongs (A24)."""
    at, tail = 2**32 + 5, noise(MIB, 3)
    sparse = faults.Sparse(at + len(tail), {at: tail})
    right = faults.honest(sparse)
    later = faults.choose(faults.resumes, right, stalled(right, 10))
    with FaultyServer(faults.choose(probes, right, later)) as server:
        file = loose(server.url + "/f")
        part = bench.store.open_partial("m", RemoteFile(file.path, file.url, len(sparse), validator=faults.ETAG))
        part.set_length(len(sparse))
        part.mark_present(ByteRange(MIB, at))
        part.sync_and_claim()
        part.close()
        run = bench.run(file, stop_at=at - MIB + len(tail) + 10)
        asked = [r.header("range") for r in server.requests]
    assert run.code == 130
    assert f"bytes={at}-{at + len(tail) - 1}" in asked
    with bench.partials[0].open("rb") as data:
        data.seek(at)
        assert data.read() == tail


def test_the_last_missing_bytes_are_progress(bench: Bench) -> None:
    """All comes anew in one good answer, because ranges ended at the last few bytes: it costs no try, and is done."""
    bench.segments(MIB)
    data = DATA[: 2 * MIB + 1000]
    size = len(data)
    is_last = lambda request: (request.range(size) or (0, 0))[1] == size  # noqa: E731
    last = faults.choose(is_last, faults.norange(data), faults.honest(data))
    with FaultyServer(last) as server:
        run = bench.run(pinned(server.url + "/f", data), connections=1, retries=1)
    assert (run.code, run.retries, bench.final.read_bytes() == data) == (0, 0, True)
