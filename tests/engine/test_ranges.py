"""The engine against servers that get ranges wrong (faults, group A)."""

from __future__ import annotations

from functools import partial

import pytest
from support import faults
from support.bench import KNOWN, Bench, loose, pinned, probes, stalled
from support.data import MIB, noise
from support.faulty_server import Answer, FaultyServer, Handler, Request, reply
from support.polling import until

from mdl.downloader.connection_scaler import Tuning
from mdl.downloader.download import Download
from mdl.downloader.partial import Partial
from mdl.downloader.segment import Segment
from mdl.events import Event
from mdl.files import RemoteFile
from mdl.net.ranges import ByteRange, RangeSet

DATA = noise(4 * MIB)
TINY = noise(5_000, 1)
SIZE, HALF = len(DATA), len(DATA) // 2


@pytest.mark.fault(2)
def test_200_to_a_later_segment(bench: Bench) -> None:
    """A 200 to segment k ends that body at once and the file comes in one stream (A2)."""
    big = noise(24 * MIB)
    run = bench.fetch(faults.norange_after_start(big), big)
    whole = [request for request in run.requests if request.status.endswith("200 OK")]
    assert (run.code, run.rewound) == (0, run.report.bytes_discarded)
    assert bench.has(big)
    assert whole[0].sent < len(big) / 2 or len(whole) == 1


def asks_for_a_range(request: Request) -> bool:
    return request.header("range") is not None


def refusing(status: int) -> Handler:
    """That status for every range, and the file for a plain request."""
    return faults.choose(asks_for_a_range, faults.answers(status, body=b"no parts here"), faults.honest(DATA))


NO_USABLE_RANGE = {
    "later": faults.wrong_start(DATA),
    "earlier": faults.wrong_start(DATA, shift=-1),
    "none": faults.no_content_range(DATA),
    "garbage": faults.bad_content_range(DATA),
    "backwards": faults.bad_content_range(DATA, "bytes {last}-{start}/{size}"),
    "beyond its total": faults.bad_content_range(DATA, "bytes {start}-{last}/{last}"),
    "another total": faults.wrong_total(DATA, good=0),
    "multipart": faults.multipart_206(DATA),
    "416, none": faults.unsatisfiable(DATA, said=None),
    "416, the size": faults.unsatisfiable(DATA),
    "416, a range": faults.unsatisfiable(DATA, said="bytes 0-0/{size}"),
    "416, garbage": faults.unsatisfiable(DATA, said="rubbish", body=b"Range not satisfiable" * 1000),
    **{str(status): refusing(status) for status in (400, 401, 403, 405, 406, 409, 422, 451, 500, 501, 503)},
}


@pytest.mark.fault(3, 5, 9, 20)
@KNOWN
@pytest.mark.parametrize("kind", NO_USABLE_RANGE)
def test_no_usable_range(bench: Bench, kind: str, known: bool) -> None:
    """Whatever is wrong with an answer to a range, its body is closed unread, and the whole file is asked for on one
    connection. It comes with at most twice the bytes, and no other file of the server is asked for by ranges."""
    with FaultyServer(faults.honest(DATA)) as server:
        make = partial(pinned, data=DATA) if known else loose
        file, other = make(f"{server.url}/f"), make(f"{server.url}/other", path="other.bin")
        bench.half(file, server, DATA)
        bench.half(other, server, DATA)
        server.handler, before, sent = NO_USABLE_RANGE[kind], len(server.requests), server.bytes_sent
        run = bench.run(file, other, connections=1, retries=9)
        asked = [request for request in server.requests[before:] if not probes(request)]
        sent = server.bytes_sent - sent
    assert (run.code, run.rewound) == (0, 2 * HALF)
    assert bench.final.read_bytes() == DATA
    unread = 2 if known else 6  # MiB of the bodies that are closed, which a machine takes in before it knows
    assert sent <= 2 * SIZE + 2 * unread * MIB
    ranged = [request.path for request in asked if asks_for_a_range(request)]
    assert len(ranged) <= (6 if kind in ("500", "503") else 2)


@pytest.mark.fault(3, 5, 9, 20)
@pytest.mark.parametrize("kind", [*NO_USABLE_RANGE, "gzip"])
def test_lying_answer_keeps_the_part(bench: Bench, kind: str) -> None:
    """If the plain request is refused too, its words are the error, and what was here is kept (A3, A5, A9, A20)."""
    lie = faults.gzip_encoded(DATA, status=206) if kind == "gzip" else NO_USABLE_RANGE[kind]
    handler = faults.choose(asks_for_a_range, lie, faults.answers(403, body=b"not for you"))
    run = bench.fetch(handler, DATA, half=True, retries=9)
    assert (run.code, run.error["code"], run.rewound, bench.claimed) == (4, "AUTH", 0, HALF)
    assert "not for you" in run.error["message"]
    assert 1 < len(run.requests) <= 5
    assert bench.is_untouched
    again = bench.fetch(faults.honest(DATA), DATA)
    assert (again.code, again.row.resumed_at, again.report.bytes_fetched) == (0, HALF, SIZE - HALF)
    assert bench.has(DATA)


@pytest.mark.fault(4)
def test_wrong_total(bench: Bench) -> None:
    """A total that differs between two answers means another file: never mixed. The whole is asked for (A4)."""
    bench.segments(MIB)
    run = bench.fetch(faults.wrong_total(DATA), DATA, connections=1)
    assert (run.code, bench.has(DATA)) == (0, True)
    whole = [request for request in run.requests if request.header("range") is None]
    assert (run.rewound > 0, len(whole)) == (True, 1)


@pytest.mark.fault(6, 7, 8)
@KNOWN
@pytest.mark.parametrize(
    "handler",
    [faults.star_total(DATA), faults.short_206(DATA), faults.long_206(DATA), faults.no_accept_ranges(DATA)],
    ids=["total *", "shorter", "longer", "no Accept-Ranges"],
)
def test_legal_oddities(bench: Bench, handler: Handler, known: bool) -> None:
    """A total of ``*``, a 206 shorter or longer than requested, no Accept-Ranges: all end well (A6, A7, A8)."""
    run = bench.fetch(handler, DATA, known=known)
    assert (run.code, run.rewound) == (0, 0)
    assert bench.has(DATA)


@pytest.mark.fault(8)
@pytest.mark.parametrize("connections", [1, 4])
def test_long_206_ends_with_its_segment(bench: Bench, connections: int) -> None:
    """What a 206 brings beyond its segment is not read: no byte is counted twice or written."""
    bench.segments_in_turn(MIB)
    run = bench.fetch(faults.long_206(DATA, extra=MIB // 2), DATA, connections=connections)
    assert (run.code, run.report.bytes_fetched, run.rewound, len(run.requests)) == (0, SIZE, 0, 4)
    assert bench.has(DATA)


def test_segment_cut_behind_what_is_written(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A segment may be cut while a block is written: it ends behind that, and no byte is written twice. The second time
    would be after its hash."""
    start, write = Download.start, Partial.write
    running: list[tuple[Download, Segment]] = []
    cuts: list[int] = []
    written = RangeSet()

    def started(download: Download, segment: Segment, now: float) -> None:
        start(download, segment, now)
        running.append((download, segment))

    def cutting(partial: Partial, offset: int, data: memoryview | bytes) -> None:
        write(partial, offset, data)
        before = written.total
        written.add(offset, offset + len(data))
        assert written.total == before + len(data)
        download, segment = running[-1]
        if not cuts and segment.left > 2 * len(data):
            rest = segment.cut(offset + len(data) // 2)
            assert rest is not None
            cuts.append(rest.start)
            download.pending.add(rest.start, rest.stop)

    monkeypatch.setattr(Download, "start", started)
    monkeypatch.setattr(Partial, "write", cutting)
    run = bench.fetch(faults.honest(DATA), DATA, connections=1)
    assert (run.code, run.retries, len(cuts), len(run.requests)) == (0, 0, 1, 2)
    assert run.report.bytes_fetched == SIZE
    assert bench.has(DATA)


@pytest.mark.fault(7)
def test_short_206_is_no_restart(bench: Bench) -> None:
    """After a shorter 206 the remainder is requested; no byte comes twice (A7)."""
    run = bench.fetch(faults.short_206(DATA, cap=300_000), DATA)
    assert (run.code, run.retries, run.report.bytes_fetched) == (0, 0, SIZE)
    assert sum(request.sent for request in run.requests) == SIZE


@pytest.mark.fault(10)
def test_other_bytes_always(bench: Bench) -> None:
    """Other bytes again after the clean retry: HASH, nothing under the final name, nothing of it resumed (A10)."""
    run = bench.fetch(faults.other_bytes(DATA, everywhere=True), DATA, half=True)
    assert (run.code, run.error["code"]) == (6, "HASH")
    assert run.rewound == run.report.bytes_discarded == 2 * SIZE
    again = bench.fetch(faults.honest(DATA), DATA)
    assert (again.code, again.row.resumed_at) == (0, 0)
    assert bench.has(DATA)


@pytest.mark.fault(18)
@KNOWN
def test_complete_part(bench: Bench, known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part that is complete is verified and published without fetching a byte, whatever a 416 would say (A18)."""

    def broken(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    with FaultyServer(faults.honest(DATA)) as server:
        file = pinned(server.url + "/f", DATA) if known else loose(server.url + "/f")
        with monkeypatch.context() as patch:
            patch.setattr("os.link", broken)
            patch.setattr("os.replace", broken)
            assert bench.run(file).code == 7
        server.handler = faults.choose(probes, faults.honest(DATA), faults.unsatisfiable(DATA))
        before = len(server.requests)
        run = bench.run(file)
        bodies = [request for request in server.requests[before:] if not probes(request)]
    assert (run.code, run.report.bytes_fetched, run.rewound, bodies) == (0, 0, 0, [])
    assert bench.has(DATA)


@pytest.mark.fault(19)
@pytest.mark.parametrize("length", [SIZE + 1, HALF + 1, SIZE // 4, 0])
def test_part_of_wrong_length(bench: Bench, length: int) -> None:
    """A part that another program made longer or shorter ends as the right file, never as one of that length (A19)."""
    with FaultyServer(faults.honest(DATA)) as server:
        file = pinned(server.url + "/f", DATA)
        bench.half(file, server, DATA)
        with bench.partials[0].open("r+b") as data:
            data.truncate(length)
        server.handler = faults.honest(DATA)
        run = bench.run(file)
    assert (run.code, run.row.resumed_at) == (0, min(length, HALF))
    assert bench.has(DATA)


@pytest.mark.fault(21)
@KNOWN
@pytest.mark.parametrize("size", [0, 1, MIB, MIB + 1, 2 * MIB, 4 * MIB])
def test_sizes_at_the_edges(bench: Bench, size: int, known: bool) -> None:
    """No byte, one byte, a whole number of segments and one more: all arrive (A21)."""
    bench.segments(MIB)
    data = (b"\0" + DATA)[:size]
    run = bench.fetch(faults.honest(data), data, known=known)
    assert (run.code, run.report.bytes_fetched) == (0, size)
    assert bench.has(data)


@pytest.mark.fault(22)
@pytest.mark.parametrize("refusal", [429, 503, "reset"])
def test_one_connection_allowed(bench: Bench, refusal: int | str) -> None:
    """A server that turns a second connection away is used with one, and the file arrives (A22)."""
    bench.segments(MIB)
    run = bench.fetch(faults.one_at_a_time(faults.honest(DATA), refusal=refusal), DATA, connections=8)
    assert run.code == 0
    assert sum("429" in r.status or "503" in r.status or not r.status for r in run.requests) < 8
    assert bench.has(DATA)


@pytest.mark.fault(22)
def test_one_connection_for_several_files(bench: Bench) -> None:
    """A file that is turned away while another is served waits for it instead of using up its attempts (A22)."""
    events: list[Event] = []

    def is_turned_away() -> bool:
        """Whether the other file was turned away, and either waits, while the engine's clock ticks, or has failed."""
        names = [type(event).__name__ for event in events]
        since = names[names.index("Retrying") :] if "Retrying" in names else []
        return "Failed" in since or since.count("Progressed") > 3

    def handler(request: Request, number: int) -> Answer:
        if number == 0:
            until(is_turned_away)
        return one(request, number)

    one = faults.one_at_a_time(faults.honest(DATA))
    with FaultyServer(handler) as server:
        files = [pinned(f"{server.url}/{name}", DATA, path=name) for name in ("a", "b")]
        run = bench.run(*files, connections=2, tell=events.append)
    assert run.code == 0


@pytest.mark.fault(24)
def test_beyond_4_gib(bench: Bench) -> None:
    """A range beyond 2**32 is requested and written where it belongs (A24)."""
    at, tail = 2**32 + 5, noise(MIB, 3)
    sparse = faults.Sparse(at + len(tail), {at: tail})
    right = faults.honest(sparse)
    later = faults.choose(faults.resumes, right, stalled(right, 10))
    bench.segments(MIB)
    with FaultyServer(faults.choose(probes, right, later)) as server:
        file = loose(server.url + "/f")
        part = bench.store.open_partial("m", RemoteFile(file.path, file.url, len(sparse), validator=faults.ETAG))
        part.set_length(len(sparse))
        part.mark_present(ByteRange(1000, at))
        part.sync()
        part.close()
        run = bench.run(file, stop_at=at - 1000 + len(tail) + 10)
        asked = [request.header("range") for request in server.requests]
    assert run.code == 130
    assert f"bytes={at}-{at + len(tail) - 1}" in asked
    with bench.partials[0].open("rb") as data:
        data.seek(at)
        assert data.read(len(tail)) == tail


def test_the_last_missing_bytes_are_progress(bench: Bench) -> None:
    """If ranges end at the last few bytes and all comes anew in one good answer, that costs no attempt."""
    bench.segments(MIB)
    data = DATA[: 2 * MIB + 1000]
    is_last = lambda request: (request.range(len(data)) or (0, 0))[1] == len(data)  # noqa: E731
    last = faults.choose(is_last, faults.norange(data), faults.honest(data))
    run = bench.fetch(last, data, connections=1, retries=1)
    assert (run.code, run.retries, bench.has(data)) == (0, 0, True)


def beside_others(status: int) -> Handler:
    """That status for a request beside another one of the same file, or of another file."""
    refuse = faults.answers(status, body=b"one at a time")
    return faults.choose(lambda request: request.active > 1, refuse, slow(faults.honest(DATA)))


def slow(handler: Handler) -> Handler:
    """Its bodies in small pieces with a pause between them, so that there is time for a second connection."""

    def paced(request: Request, number: int) -> Answer:
        answer = handler(request, number)
        pieces = [piece for piece in answer.pieces() if isinstance(piece, bytes)]
        data = b"".join(pieces)
        step = 128 * 1024
        body = [part for at in range(0, len(data), step) for part in (data[at : at + step], 0.02)]
        return Answer(answer.status, answer.headers, body, answer.end)

    return paced


@pytest.mark.fault(22)
@pytest.mark.parametrize(
    ("files", "status"),
    [
        *((1, status) for status in (400, 401, 403, 406, 409, 416, 429, 451, 500, 503, 509)),
        *((3, status) for status in (403, 416, 503)),
    ],
)
def test_a_second_connection_is_refused(bench: Bench, status: int, files: int) -> None:
    """By whatever status a server refuses one connection too many, what runs goes on, and every file comes."""
    bench.tuning = Tuning(probe_after=0.0, fast_enough=1e99)
    with FaultyServer(beside_others(status)) as server:
        wanted = [pinned(f"{server.url}/{name}", DATA, path=f"{name}.bin") for name in range(files)]
        run = bench.run(*wanted, connections=3, retries=9)
        refused = [request for request in server.requests if str(status) in request.status]
    assert run.code == 0, run.error
    assert run.rewound == 0
    assert 0 < len(refused) <= 3 * files + 2


@pytest.mark.fault(22)
def test_a_forbidden_file_beside_others(bench: Bench) -> None:
    """A file that is really forbidden fails with the words of the plain answer, and no other one with it."""
    forbidden = faults.answers(403, body=b"not this one")
    handler = faults.choose(lambda request: request.path == "/f1", forbidden, slow(faults.honest(DATA)))
    with FaultyServer(handler) as server:
        wanted = [pinned(f"{server.url}/f{number}", DATA, path=f"{number}.bin") for number in range(3)]
        run = bench.run(*wanted, connections=3)
        asked = [request for request in server.requests if request.path == "/f1"]
    assert run.code == 4
    assert "not this one" in run.error["message"]
    assert [row.action for row in run.report.models[0].files] == ["fetched", "failed", "fetched"]  # type: ignore[union-attr]
    assert len(asked) <= 3


@pytest.mark.fault(232)
@pytest.mark.parametrize("said", ["bytes */0", "none"])
def test_416_without_a_range(bench: Bench, said: str) -> None:
    """A 416 to a request for the whole file is a refusal; its page is never the file."""

    def handler(request: Request, number: int) -> Answer:
        return reply(416, b"<html>moved</html>", ("Content-Range", said if request.header("range") else "bytes */0"))

    with FaultyServer(handler) as server:
        run = bench.run(loose(server.url + "/f"), retries=1)
    assert run.code in (5, 6)
    assert not bench.final.exists()


@pytest.mark.fault(233)
@pytest.mark.parametrize("data", [DATA, TINY], ids=["large", "small"])
@pytest.mark.parametrize("known", [True, False])
def test_ranges_with_status_200(bench: Bench, data: bytes, known: bool) -> None:
    """A file is fetched, in segments too, from a server that answers a range with 200, as rclone's S3 does."""
    right = faults.honest(data)

    def handler(request: Request, number: int) -> Answer:
        answer = right(request, number)
        return Answer(200 if answer.status == 206 else answer.status, answer.headers, answer.body)

    bench.segments(MIB // 2)
    with FaultyServer(handler) as server:
        url = server.url + "/f"
        run = bench.run(pinned(url, data) if known else loose(url))
    assert (run.code, run.retries, run.rewound) == (0, 0, 0)
    assert bench.final.read_bytes() == data


@pytest.mark.fault(233)
@pytest.mark.parametrize("size", [None, 100])
def test_part_without_a_range(bench: Bench, size: int | None) -> None:
    """A 200 with the Content-Range of a part is not the whole file, even if its length is right."""
    part = reply(200, TINY[:100], ("Content-Range", f"bytes 0-99/{len(TINY)}"))
    with FaultyServer(lambda request, number: part) as server:
        run = bench.run(loose(server.url + "/f", size=size), retries=1)
    assert run.code == 6
    assert not bench.final.exists()
