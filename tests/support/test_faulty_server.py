"""The faulty server does what its modes say: checked over plain sockets, so that no client smooths anything out."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from support import faults
from support.faulty_server import Answer, FaultyServer, Handler, Request

DATA = bytes(range(256)) * 1000
SIZE = len(DATA)
RESETS = (ConnectionResetError, BrokenPipeError)


@dataclass
class Reply:
    """What came back, read until the server closed; ``reset`` if it ended with RST."""

    line: str
    headers: dict[str, str]
    body: bytes
    reset: bool = False

    @property
    def status(self) -> int:
        return int(self.line.split(" ")[1])


def connect(server: FaultyServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=30)


def write(sock: socket.socket, path: str = "/file", method: str = "GET", **headers: str) -> None:
    lines = [f"{method} {path} HTTP/1.1", "Host: x", *(f"{name.replace('_', '-')}: {v}" for name, v in headers.items())]
    sock.sendall("\r\n".join([*lines, "", ""]).encode())


def read(sock: socket.socket, stop: Callable[[bytes], bool] = lambda got: False) -> tuple[bytes, bool]:
    """Everything up to EOF (or until ``stop`` is content), and whether a reset ended it."""
    got = bytearray()
    while not stop(got):
        try:
            piece = sock.recv(65536)
        except RESETS:
            return bytes(got), True
        if not piece:
            break
        got += piece
    return bytes(got), False


def ask(server: FaultyServer, path: str = "/file", method: str = "GET", **headers: str) -> Reply:
    with connect(server) as sock:
        write(sock, path, method, **{"Connection": "close", **headers})
        raw, reset = read(sock)
    head, _, body = raw.partition(b"\r\n\r\n")
    line, *rest = head.decode("latin-1").split("\r\n")
    fields = {name.lower(): value.strip() for name, _, value in (item.partition(":") for item in rest)}
    return Reply(line, fields, body, reset)


def test_honest_head_and_keep_alive() -> None:
    """HEAD has a GET's headers and no body, and the connection serves the next request."""
    with FaultyServer(faults.honest(DATA)) as server:
        client = http.client.HTTPConnection("127.0.0.1", server.port)
        for method, body in (("HEAD", b""), ("GET", DATA)):
            client.request(method, "/file")
            answer = client.getresponse()
            assert (answer.headers["Content-Length"], answer.read()) == (str(SIZE), body)
        client.close()
        assert server.connections == 1
        assert [request.on_connection for request in server.requests] == [0, 1]


def test_records() -> None:
    """Requests are recorded in order with headers, path, query, count and what was sent."""
    with FaultyServer(faults.honest(DATA)) as server:
        ask(server, "/a?x=1", Range="bytes=0-9", X_Secret="s")
        ask(server, "/a", "HEAD")
        ask(server, "/a")
        first, head, second = server.requests
    assert (first.path, first.query, first.header("x-secret"), first.sent) == ("/a", "x=1", "s", 10)
    assert (head.method, head.sent, head.status) == ("HEAD", 0, "HTTP/1.1 200 OK")
    assert (first.nth, second.nth, second.connection) == (0, 1, 2)
    assert (server.bytes_sent, server.connections) == (SIZE + 10, 3)


def test_handler_error_comes_out() -> None:
    """An exception in a handler fails the test that uses it."""

    def broken(request: Request, number: int) -> Answer:
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"), FaultyServer(broken) as server:
        ask(server)


ABC = b"0123456789" * 20000
HONEST = faults.honest(ABC)
RANGE_MODES: dict[str, tuple[Handler, int, str | None, bytes]] = {
    "honest": (HONEST, 206, "bytes 100-199/200000", ABC[100:200]),
    "norange": (faults.norange(ABC), 200, None, ABC),
    "wrong start": (faults.wrong_start(ABC, shift=1), 206, "bytes 101-200/200000", ABC[101:201]),
    "wrong total": (faults.wrong_total(ABC, good=0), 206, "bytes 100-199/200001", ABC[100:200]),
    "no content-range": (faults.no_content_range(ABC), 206, None, ABC[100:200]),
    "bad content-range": (faults.bad_content_range(ABC), 206, "bytes x-y/z", ABC[100:200]),
    "short": (faults.short_206(ABC, cap=10), 206, "bytes 100-109/200000", ABC[100:110]),
    "long": (faults.long_206(ABC, extra=5), 206, "bytes 100-204/200000", ABC[100:205]),
    "other bytes": (faults.other_bytes(ABC), 206, "bytes 100-199/200000", faults.Flipped(ABC)[100:200]),
    "416": (faults.unsatisfiable(ABC), 416, "bytes */200000", b""),
}


@pytest.mark.parametrize("name", RANGE_MODES)
def test_range_modes(name: str) -> None:
    """Each way to answer a range wrongly has its status, Content-Range and bytes."""
    handler, status, said, body = RANGE_MODES[name]
    with FaultyServer(handler) as server:
        got = ask(server, Range="bytes=100-199")
    assert (got.status, got.headers.get("content-range"), got.body) == (status, said, body)
    assert got.headers["content-length"] == str(len(body))


@pytest.mark.parametrize(("refusal", "line"), [(429, "429"), ("reset", "")])
def test_one_at_a_time(refusal: int | str, line: str) -> None:
    """While one answer is under way another is refused; once the first is over or its client gone, it is served."""
    gate = threading.Event()
    slow = faults.stall_in_body(DATA, 1000, gate=gate)
    with FaultyServer(faults.one_at_a_time(slow, refusal=refusal)) as server, connect(server) as sock:
        write(sock)
        begun, _ = read(sock, lambda got: b"\r\n\r\n" in got)
        refused = ask(server)
        assert refused.line.partition(" ")[2][:3] == line
        assert refused.reset == (refusal == "reset")
        gate.set()
        rest, _ = read(sock, lambda got: len(begun) + len(got) >= begun.index(b"\r\n\r\n") + 4 + SIZE)
        assert (begun + rest).endswith(DATA)
        assert ask(server).body == DATA
        gate.clear()
        with connect(server) as other:
            write(other)
            read(other, lambda got: b"\r\n\r\n" in got)
        gate.set()
        assert ask(server).body == DATA


BODY_MODES: dict[str, tuple[Handler, str | None, bytes]] = {
    "honest": (faults.honest(DATA), str(SIZE), DATA),
    "short": (faults.short_body(DATA, 1000), str(SIZE), DATA[:1000]),
    "no length, cut": (faults.no_length_cut(DATA, 70000), None, DATA[:70000]),
    "chunked": (faults.chunked(b"0123456789", chunk=8), None, b"8\r\n01234567\r\n2\r\n89\r\n0\r\n\r\n"),
    "chunked cut": (faults.chunked_cut(b"abcdef", 3), None, b"3\r\nabc\r\n"),
    "extra": (faults.extra_bytes(DATA, extra=b"more"), str(SIZE), DATA + b"more"),
    "longer": (faults.wrong_length(DATA, 2), str(SIZE + 2), DATA + b"\0\0"),
    "other bytes": (faults.other_bytes(DATA, everywhere=True), str(SIZE), faults.Flipped(DATA)[0:SIZE]),
}


@pytest.mark.parametrize("name", BODY_MODES)
def test_body_modes(name: str) -> None:
    """Each wrong body has exactly its bytes on the wire and the Content-Length it claims."""
    handler, length, body = BODY_MODES[name]
    with FaultyServer(handler) as server:
        got = ask(server)
        assert server.bytes_sent == len(body)
    assert (got.status, got.headers.get("content-length"), got.body, got.reset) == (200, length, body, False)


@pytest.mark.parametrize(
    ("handler", "count"), [(faults.short_body(DATA, 1000, end="reset"), 1000), (faults.reset_at_end(DATA), SIZE)]
)
def test_reset(handler: Handler, count: int) -> None:
    """A reset comes after all bytes that were sent before it, in the middle and at the end of a body."""
    with FaultyServer(handler) as server:
        got = ask(server)
    assert (got.body, got.reset) == (DATA[:count], True)


@pytest.mark.parametrize("name", ["negative", "repeated", "chunked too"])
def test_bad_lengths(name: str) -> None:
    """Each bad Content-Length is on the wire to the letter, and the bytes follow."""
    with FaultyServer(faults.bad_length(DATA, name)) as server, connect(server) as sock:
        write(sock)
        raw, _ = read(sock)
    head, _, body = raw.partition(b"\r\n\r\n")
    for value in faults.BAD_LENGTHS[name]:
        assert value.format(size=SIZE).encode() in head
    assert (b"Transfer-Encoding: chunked" in head) == (name == "chunked too")
    assert body == DATA or name == "chunked too"


def test_old_and_broken_http() -> None:
    """HTTP/1.0, HTTP/0.9 and a garbage status line are sent as they are."""
    for handler, start in (
        (faults.old_http(b"file"), b"HTTP/1.0 200 OK\r\n"),
        (faults.no_head(b"file"), b"file"),
        (faults.garbage_status(b"file"), b"HTTP/x.y twohundred\r\n"),
    ):
        with FaultyServer(handler) as server, connect(server) as sock:
            write(sock)
            raw, _ = read(sock)
        assert raw.startswith(start)
        assert raw.endswith(b"file")


@pytest.mark.parametrize("end", ["close", "reset"])
def test_keepalive_dies(end: str) -> None:
    """The second request on a connection gets no answer; one on a new connection does."""
    with FaultyServer(faults.keepalive_dies(b"file", end=end)) as server, connect(server) as sock:  # type: ignore[arg-type]
        write(sock)
        assert read(sock, lambda got: got.endswith(b"file"))[0].startswith(b"HTTP/1.1 200")
        write(sock)
        assert read(sock) == (b"", end == "reset")
        assert ask(server).body == b"file"
        assert server.connections == 2


def test_signed_by_count() -> None:
    """A signed URL serves its number of GETs and is then refused; the stable URL gives a fresh one."""
    signed = faults.Signed(DATA, requests=1)
    with FaultyServer(signed) as server:
        first = ask(server).headers["location"]
        assert ask(server, first, "HEAD").status == 200
        assert [ask(server, first).status for _ in range(2)] == [200, 403]
        second = ask(server).headers["location"]
        assert (second != first, ask(server, second).body) == (True, DATA)
    assert (signed.minted, signed.refused) == (2, 1)


HONEST_RANGES: list[tuple[dict[str, str], int, int, int]] = [
    ({"Range": "bytes=0-0"}, 206, 0, 1),
    ({"Range": "bytes=255000-"}, 206, 255000, SIZE),
    ({"Range": "bytes=255000-999999"}, 206, 255000, SIZE),
    ({"Range": "bytes=-7"}, 206, SIZE - 7, SIZE),
    ({"Range": "bytes=0-1,5-6"}, 200, 0, SIZE),
    ({"Range": f"bytes={SIZE}-"}, 416, 0, 0),
    ({"Range": "bytes=5-", "If_Range": '"v1"'}, 206, 5, SIZE),
    ({"Range": "bytes=5-", "If_Range": '"old"'}, 200, 0, SIZE),
    ({"Range": "bytes=5-", "If_Range": 'W/"v1"'}, 200, 0, SIZE),
]


@pytest.mark.parametrize(("headers", "status", "start", "stop"), HONEST_RANGES)
def test_honest_ranges(headers: dict[str, str], status: int, start: int, stop: int) -> None:
    """Closed, open and suffix ranges get exactly their bytes; If-Range holds for the same strong ETag only."""
    with FaultyServer(faults.honest(DATA)) as server:
        got = ask(server, **headers)
    assert (got.status, got.body) == (status, DATA[start:stop])


STALLS: dict[str, tuple[Handler, str, int]] = {
    "before headers": (faults.stall_before_headers(), "GET", -1),
    "head hangs": (faults.head_hangs(DATA), "HEAD", -1),
    "in body": (faults.stall_in_body(DATA, 70001), "GET", 70001),
    "a pause of an hour": (faults.trickle(faults.honest(DATA), pause=3600), "GET", 1),
}


@pytest.mark.parametrize("name", STALLS)
def test_stalls(name: str) -> None:
    """A stalled answer has the right bytes and no more, and ends when the server stops."""
    handler, method, count = STALLS[name]
    with FaultyServer(handler) as server:
        sock = connect(server)
        write(sock, method=method)
        got = read(sock, lambda got: got.partition(b"\r\n\r\n")[2] == DATA[:count])[0] if count >= 0 else b""
    with sock:
        rest, _ = read(sock)
    assert (got + rest).partition(b"\r\n\r\n")[2] == DATA[: max(count, 0)]
    assert bool(got + rest) == (count >= 0)


def test_client_that_does_not_read() -> None:
    """A server that is blocked in sending still stops."""
    with FaultyServer(faults.endless()) as server, connect(server) as sock:
        write(sock)
        read(sock, lambda got: len(got) > 0)
