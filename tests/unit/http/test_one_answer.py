"""One connection, one answer: what comes behind an answer's end is nobody's (faults, group N)."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable

import pytest
from support import faults
from support.bench import Bench, loose, pinned
from support.data import MIB, noise
from support.faulty_server import Answer, FaultyServer, Handler, Request, reply

from mdl.errors import NetworkError, NotFound
from mdl.http.allowlist import AllowList
from mdl.http.client import HttpClient, Timeouts
from mdl.http.connection import Connection
from mdl.sources.hub_origin import HubOrigin

DATA, TINY, OTHER = noise(2 * MIB), noise(5_000, 1), noise(5_000, 2)
COMMIT = HubOrigin("org/repo", revision="a" * 40)
PAGE = b"<html><title>moved</title>secret</html>\r\n\r\n"
TREE = [{"type": "file", "path": "model.bin", "size": len(TINY), "oid": "1" * 40}]


def whole(answer: Answer) -> bytes:
    """An answer as it stands on the wire."""
    assert isinstance(answer.body, bytes)
    return answer.head() + answer.body


SMUGGLED = whole(reply(200, OTHER, ("ETag", faults.ETAG)))


def behind(answer: Answer, more: bytes) -> Handler:
    """The answer, with so many more bytes behind its end, in one piece."""
    return lambda request, number: Answer(None, body=whole(answer) + more)


@pytest.mark.fault(230, 231)
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("more", [PAGE, SMUGGLED, b"\r\n"], ids=["page", "answer", "line"])
def test_bytes_behind_a_redirect(bench: Bench, more: bytes, known: bool) -> None:
    """A redirect with more body than it announces is followed, and what came behind it is not the next answer."""
    away = behind(reply(302, b"", ("Location", "/moved")), more)
    with FaultyServer(faults.routes({"/moved": faults.honest(TINY), "/f": away})) as server:
        run = bench.run(pinned(server.url + "/f", TINY) if known else loose(server.url + "/f"))
    assert (run.code, run.retries) == (0, 0)
    assert bench.final.read_bytes() == TINY


@pytest.mark.fault(231)
def test_late_bytes_behind_a_redirect(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same if they come when the next request is on its way already: it is asked again on another connection."""
    asked = threading.Event()

    def away(request: Request, number: int) -> Answer:
        return Answer(302, [("Location", "/moved"), ("Content-Length", "1")], [b"x", asked, PAGE])

    handler = faults.routes({"/moved": faults.honest(TINY), "/f": away})
    with FaultyServer(handler) as server, HttpClient(AllowList.of(["127.0.0.1"])) as http:
        monkeypatch.setattr("mdl.http.connection.Connection.write", _telling(asked))
        with http.open("GET", server.url + "/f") as opened:
            body = b"".join(bytes(block) for block in http.body(opened))
    assert (opened.status, body, server.connections) == (200, TINY, 2)


def _telling(second: threading.Event) -> Callable[..., None]:
    """Writes as ever, and tells when the second request is about to be sent: the pool has chosen its connection."""
    write, requests = Connection.write, []

    def wrote(line: Connection, buffer: bytes, timeout: float | None = None) -> None:
        requests.extend([buffer] if buffer else [])
        if len(requests) == 2:
            second.set()
        write(line, buffer, timeout)

    return wrote


@pytest.mark.fault(231)
def test_a_message_quotes_no_bytes(bench: Bench) -> None:
    """A server that does not speak HTTP is said to do so in words, not by a dump of its bytes."""
    with FaultyServer(lambda request, number: Answer(None, body=PAGE * 3, end="close")) as server:
        run = bench.run(pinned(server.url + "/f", TINY), retries=1)
    assert run.code == 6
    assert "does not speak HTTP" in run.error["message"]
    assert "bytearray" not in run.error["message"]
    assert "secret" not in run.error["message"]


@pytest.mark.fault(230)
@pytest.mark.parametrize("more", [b"{}\n", SMUGGLED], ids=["three bytes", "answer"])
def test_bytes_behind_a_listing(bench: Bench, more: bytes) -> None:
    """An API answer with bytes behind it is taken, and they are not the next answer."""
    listing = json.dumps(TREE[:1]).encode()

    def handler(request: Request, number: int) -> Answer:
        return reply(200, TINY) if "/api/" not in request.path else behind(reply(200, listing), more)(request, number)

    with FaultyServer(handler) as server:
        with HttpClient(AllowList.of(["127.0.0.1"])) as http:
            answers = [http.get_json(f"{server.url}/api/{n}")[0] for n in range(3)]
        connections = server.connections
    assert answers == [TREE] * 3
    assert connections == 3


@pytest.mark.fault(230)
def test_a_connection_in_step_is_used_again() -> None:
    """Answers that end where they say share one connection, redirects and refusals among them."""

    def handler(request: Request, number: int) -> Answer:
        return reply(302, b"moved", ("Location", "/x")) if request.path == "/f" else reply(200, b"[]")

    with FaultyServer(handler) as server, HttpClient(AllowList.of(["127.0.0.1"])) as http:
        for path in ("/f", "/a", "/b"):
            assert http.get_json(server.url + path)[0] == []
        assert (server.connections, len(server.requests)) == (1, 4)


@pytest.mark.fault(230)
def test_bytes_behind_a_refusal() -> None:
    """What comes behind a 404 is not the answer to the next question."""
    missing = behind(reply(404, b"none"), whole(reply(200, b'["smuggled"]')))
    handler = faults.routes({"/f": missing, "/g": faults.honest(b"[]")})
    with FaultyServer(handler) as server, HttpClient(AllowList.of(["127.0.0.1"])) as http:
        with pytest.raises(NotFound):
            http.get_json(server.url + "/f")
        assert http.get_json(server.url + "/g")[0] == []


@pytest.mark.fault(232)
@pytest.mark.parametrize("told", ["bytes */0", "none"])
def test_416_to_a_request_without_a_range(bench: Bench, told: str) -> None:
    """A 416 to a request for the whole file is a refusal; its page is never the file."""
    page = reply(416, PAGE, ("Content-Range", "bytes */0"))

    def handler(request: Request, number: int) -> Answer:
        return reply(416, PAGE, ("Content-Range", told)) if request.header("range") else page

    with FaultyServer(handler) as server:
        run = bench.run(loose(server.url + "/f"), retries=1)
    assert run.code in (5, 6)
    assert not bench.final.exists()


def parts_of_200(data: bytes, etag: str | None = faults.ETAG) -> Handler:
    """Ranges as rclone's S3 serves them: right, but for the status."""
    right = faults.honest(data, etag=etag)

    def handler(request: Request, number: int) -> Answer:
        answer = right(request, number)
        return Answer(200 if answer.status == 206 else answer.status, answer.headers, answer.body)

    return handler


@pytest.mark.fault(233)
@pytest.mark.parametrize("data", [DATA, TINY], ids=["large", "small"])
@pytest.mark.parametrize("known", [True, False])
def test_ranges_of_status_200(bench: Bench, data: bytes, known: bool) -> None:
    """A server that answers a range with 200 and a Content-Range is fetched from, in segments too."""
    bench.segments(MIB // 2)
    with FaultyServer(parts_of_200(data)) as server:
        url = server.url + "/f"
        run = bench.run(pinned(url, data) if known else loose(url))
    assert (run.code, run.retries, run.rewound) == (0, 0, 0)
    assert bench.final.read_bytes() == data


@pytest.mark.fault(233)
@pytest.mark.parametrize("size", [None, 100])
def test_a_part_that_nobody_asked_for(bench: Bench, size: int | None) -> None:
    """A 200 with the Content-Range of a part is not the whole file, though its length is right."""
    part = reply(200, TINY[:100], ("Content-Range", f"bytes 0-99/{len(TINY)}"))
    with FaultyServer(lambda request, number: part) as server:
        run = bench.run(loose(server.url + "/f", size=size), retries=1)
    assert run.code == 6
    assert not bench.final.exists()


@pytest.mark.fault(238)
def test_a_late_head_ends_its_own_request_alone() -> None:
    """A host whose head trickles in without end costs no other host's request its connection."""
    half, late = threading.Event(), threading.Event()

    def trickle() -> object:
        for count in range(400):
            if count == 15:
                half.set()
            yield b"X"
            yield 0.05

    def slowly(request: Request, number: int) -> Answer:
        return Answer(None, body=trickle(), end="close")  # type: ignore[arg-type]

    def patient(request: Request, number: int) -> Answer:
        late.wait(10)
        return reply(200, b"[1]")

    answers: list[object] = []
    with FaultyServer(slowly) as bad, FaultyServer(patient) as good:
        with HttpClient(AllowList.of(["127.0.0.1"]), timeouts=Timeouts(stall=0.5)) as http:

            def ask() -> None:
                assert half.wait(10)
                answers.append(http.get_json(good.url)[0])

            asking = threading.Thread(target=ask)
            asking.start()
            with pytest.raises(NetworkError, match="head"), http.open("GET", bad.url):
                pass
            late.set()
            asking.join(10)
        assert len(good.requests) == 1
    assert answers == [[1]]
