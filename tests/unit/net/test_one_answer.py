"""One connection, one answer: bytes that come after a response's end belong to no response (faults, group N)."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import trustme
from support import faults
from support.bench import Bench, loose, pinned
from support.data import MIB, noise
from support.faulty_server import Answer, FaultyServer, Handler, Piece, Request, reply
from support.relay import relaying, secured

from mdl.errors import NetworkError, NotFound
from mdl.net.allowlist import AllowList
from mdl.net.client import HttpClient
from mdl.net.connection import Connection
from mdl.net.locators import Link
from mdl.net.policy import Limits

DATA, TINY, OTHER = noise(2 * MIB), noise(5_000, 1), noise(5_000, 2)
LOOPBACK = AllowList.of(["127.0.0.1"])
PAGE = b"<html><title>moved</title>secret</html>\r\n\r\n"
LISTING = [{"type": "file", "path": "model.bin", "size": len(TINY), "oid": "1" * 40}]


def whole(answer: Answer) -> bytes:
    """An answer as it is sent."""
    assert isinstance(answer.body, bytes)
    return answer.head() + answer.body


BRIEF = whole(reply(200, b"smuggled"))
SMUGGLED = whole(reply(200, OTHER, ("ETag", faults.ETAG)))


def followed(answer: Answer, more: bytes) -> Handler:
    """The answer, and in the same piece more bytes after its end."""
    return lambda request, number: Answer(None, body=whole(answer) + more)


@pytest.mark.fault(230, 231)
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("more", [PAGE, SMUGGLED, b"\r\n"], ids=["page", "answer", "line"])
def test_bytes_after_a_redirect(bench: Bench, more: bytes, known: bool) -> None:
    """A redirect with more body than it announces is followed, and the surplus is not the next answer."""
    away = followed(reply(302, b"", ("Location", "/moved")), more)
    with FaultyServer(faults.routes({"/moved": faults.honest(TINY), "/f": away})) as server:
        run = bench.run(pinned(server.url + "/f", TINY) if known else loose(server.url + "/f"))
    assert (run.code, run.retries) == (0, 0)
    assert bench.final.read_bytes() == TINY


@pytest.mark.fault(231)
def test_late_bytes_after_a_redirect(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same if the bytes come when the next request is about to be sent: it is repeated on another connection."""
    asked = threading.Event()

    def away(request: Request, number: int) -> Answer:
        return Answer(302, [("Location", "/moved"), ("Content-Length", "1")], [b"x", asked, PAGE])

    handler = faults.routes({"/moved": faults.honest(TINY), "/f": away})
    with FaultyServer(handler) as server, HttpClient(LOOPBACK) as http:
        monkeypatch.setattr("mdl.net.connection.Connection.write", _sets_before_second(asked))
        with http.open("GET", server.url + "/f") as opened:
            body = b"".join(bytes(block) for block in http.body(opened))
    assert (opened.status, body, server.connections) == (200, TINY, 2)


def _sets_before_second(event: threading.Event) -> Callable[..., None]:
    """`Connection.write` that sets the event before the second request: the pool has chosen its connection then."""
    write, requests = Connection.write, []

    def wrote(connection: Connection, buffer: bytes, timeout: float | None = None) -> None:
        requests.extend([buffer] if buffer else [])
        if len(requests) == 2:
            event.set()
        write(connection, buffer, timeout)

    return wrote


@pytest.mark.fault(231)
def test_message_quotes_no_bytes(bench: Bench) -> None:
    """The error for a server that does not speak HTTP says so in words, without a dump of its bytes."""
    with FaultyServer(lambda request, number: Answer(None, body=PAGE * 3, end="close")) as server:
        run = bench.run(pinned(server.url + "/f", TINY), retries=1)
    assert run.code == 6
    assert "does not speak HTTP" in run.error["message"]
    assert not any(word in run.error["message"] for word in ("bytearray", "secret"))


@pytest.mark.fault(230)
@pytest.mark.parametrize("more", [b"", b"{}\n", SMUGGLED], ids=["none", "three bytes", "answer"])
def test_bytes_after_an_answer(more: bytes) -> None:
    """Answers that end where they say share a connection, redirects included. After one with more bytes the connection
    is closed, and the bytes are not the next answer."""
    listing = followed(reply(200, json.dumps(LISTING).encode()), more)
    away = faults.redirects("/api/1")
    handler = faults.choose(lambda request: request.path == "/f", away, listing)
    with FaultyServer(handler) as server, HttpClient(LOOPBACK) as http:
        for path in ("/f", "/api/2", "/api/3"):
            assert http.json("GET", server.url + path)[0] == LISTING
        assert (server.connections, len(server.requests)) == (3 if more else 1, 4)


@pytest.mark.fault(230)
@pytest.mark.parametrize("more", [b"", b"unasked", SMUGGLED], ids=["none", "body", "answer"])
@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("HEAD", Answer(200, [("Content-Length", "5000")])),
        ("GET", Answer(204)),
        ("GET", Answer(304, [("Content-Length", "5000")])),
        ("GET", Answer(200, [("Transfer-Encoding", "chunked")], b"1388\r\n" + TINY + b"\r\n0\r\n\r\n")),
    ],
    ids=["head", "204", "304", "chunked"],
)
def test_bytes_after_an_answer_without_a_length(method: str, answer: Answer, more: bytes) -> None:
    """The same for answers without a body, whatever length they tell, and for one in chunks."""
    with FaultyServer(lambda request, number: Answer(None, body=whole(answer) + more)) as server:
        with HttpClient(LOOPBACK) as http:
            for _ in range(3):
                with http.open(method, server.url + "/f") as opened:
                    body = b"".join(map(bytes, http.body(opened)))
                assert (opened.status, body) == (answer.status, TINY if answer.body else b"")
        assert server.connections == (3 if more else 1)


@pytest.mark.fault(230)
@pytest.mark.parametrize("how", ["plain", "tls"])
@pytest.mark.parametrize("more", [b"", BRIEF, SMUGGLED * 100], ids=["none", "answer", "answers"])
def test_bytes_after_a_large_body(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ca: trustme.CA, how: str, more: bytes
) -> None:
    """Large bodies are read past the parser. If one was read to its end, its connection is used again; after one with
    more bytes, or one that was left before its end, it is closed."""
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    with FaultyServer(followed(reply(200, DATA), more)) as server, contextlib.ExitStack() as stack:
        url = server.url
        if how == "tls":
            relay = stack.enter_context(relaying(server.port, secured(ca.issue_cert("localhost"))))
            url = f"https://localhost:{relay.port}"
        http = stack.enter_context(HttpClient(AllowList.of(["127.0.0.1", "localhost"])))
        for _ in range(3):
            with http.open("GET", url + "/f") as opened:
                assert b"".join(map(bytes, http.body(opened, len(DATA)))) == DATA
        assert server.connections == (3 if more else 1)
        for _ in range(2):
            with http.open("GET", url + "/f") as opened:
                assert DATA.startswith(bytes(next(http.body(opened, len(DATA)))))
        assert server.connections == (5 if more else 2)


@pytest.mark.fault(230)
def test_bytes_after_a_refusal() -> None:
    """The bytes after a 404 are not the next answer."""
    missing = followed(reply(404, b"none"), whole(reply(200, b'["smuggled"]')))
    handler = faults.routes({"/f": missing, "/g": faults.honest(b"[]")})
    with FaultyServer(handler) as server, HttpClient(LOOPBACK) as http:
        with pytest.raises(NotFound):
            http.json("GET", server.url + "/f")
        assert http.json("GET", server.url + "/g")[0] == []


@pytest.mark.fault(238)
def test_late_head_ends_its_own_request_alone() -> None:
    """Response headers trickle in from two hosts. The request that may not wait so long ends; the other goes on."""
    asked, late = threading.Event(), threading.Event()

    def trickling(*, until_late: bool) -> Iterator[Piece]:
        yield b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nX-Fill: "
        while not (until_late and late.is_set()):
            yield b"x"
            yield 0.05
        yield b"\r\n\r\n[1]"

    def endless(request: Request, number: int) -> Answer:
        return Answer(None, body=trickling(until_late=False))

    def patient(request: Request, number: int) -> Answer:
        asked.set()
        return Answer(None, body=trickling(until_late=True))

    with FaultyServer(endless) as bad, FaultyServer(patient) as good, ThreadPoolExecutor(1) as pool:
        with HttpClient(LOOPBACK, limits=Limits(stall=1.0)) as http:
            http.follower.locate = lambda url: Link(f"{good.url}/f", patience=1000.0, authorized=True)
            asking = pool.submit(http.json, "GET", "job://box/j1/f")
            try:
                assert asked.wait(60)
                with pytest.raises(NetworkError), http.open("GET", bad.url):
                    pass
                assert not asking.done()
            finally:
                late.set()
            assert asking.result()[0] == [1]
        assert len(good.requests) == 1
