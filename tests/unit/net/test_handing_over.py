"""`Connection` hands a parser the bytes of one response, however they come, and none after it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import httpcore
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.cases import each

from mdl.cancel import CancelToken
from mdl.net.connection import Connection, RequestLimits
from mdl.net.tls import ByteStream

LINES = b"first\n\nsecond\r\n\r\n\r\n0\r\n\r\n" * 3
SURPLUS = (b"", b"\n", b"\r\n", b"x", b"0\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad")


class Scripted(ByteStream):
    """A stream that brings one of the pieces with each read."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self.pieces = deque(piece for piece in pieces if piece)
        self.is_closed = False

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        piece = self.pieces.popleft() if self.pieces else b""
        if piece[max_bytes:]:
            self.pieces.appendleft(piece[max_bytes:])
        return piece[:max_bytes]

    def receive(self, view: memoryview, seconds: float | None) -> tuple[int, OSError | None]:
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data), None

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        pass

    def close(self) -> None:
        self.is_closed = True

    def get_extra_info(self, info: str) -> Any:
        return bool(self.pieces) if info == "is_readable" else self


class Watched(Connection):
    """A connection that notes what it hands over."""

    def __init__(self, stream: Scripted) -> None:
        super().__init__(stream, CancelToken(), LIMITS, "127.0.0.1")
        self.handed = b""

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        data = super().read(max_bytes, timeout)
        self.handed += data
        return data


def chunked(body: bytes, sizes: Sequence[int], extension: bytes, trailer: bytes) -> bytes:
    """A body in chunks of these sizes, and one of the rest."""
    wire, at = b"", 0
    for size in (*sizes, len(body)):
        chunk = body[at : at + size]
        if chunk:
            wire += b"%x%s\r\n%s\r\n" % (len(chunk), extension, chunk)
        at += size
    return wire + b"0" + extension + b"\r\n" + trailer


def pieces_of(wire: bytes, cuts: Sequence[int]) -> list[bytes]:
    """The bytes in pieces of these lengths, the rest in one."""
    pieces = []
    for cut in cuts:
        pieces.append(wire[:cut])
        wire = wire[cut:]
    return [*pieces, wire]


CUTS = st.lists(st.integers(1, 70), max_size=12)
HEADS = st.sampled_from([b"HTTP/1.1 200 OK\r\nX: 1\r\n%s: %s\r\n\r\n", b"HTTP/1.1 200 OK\n%s: %s\n\n"])
INTERIM = st.sampled_from(
    [b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 2]
)
BODIES = st.sampled_from([b"", b"a", LINES, LINES[:-1], LINES[1:], b"\n\n", b"\n\r\n\n", bytes(range(256)) * 2])
READ = httpcore.HTTP11Connection.READ_NUM_BYTES
LIMITS = RequestLimits("host", private_ok=True)
REQUEST = httpcore.Request("GET", "http://host/", headers={"Host": "host"})


def asked(connection: Connection) -> tuple[httpcore.HTTP11Connection, httpcore.Response]:
    sender = httpcore.HTTP11Connection(REQUEST.url.origin, connection)
    return sender, sender.handle_request(REQUEST)


@given(
    HEADS,
    INTERIM,
    BODIES,
    st.lists(st.integers(1, 40), max_size=4),
    st.sampled_from([b"", b";x=1"]),
    st.sampled_from([b"\r\n", b"\n", b"X-Sum: 1\r\n\r\n", b"X-Sum: 1\nY: 2\n\n"]),
    CUTS,
    st.sampled_from(SURPLUS),
)
def test_a_chunked_response(
    head: bytes,
    interim: bytes,
    body: bytes,
    sizes: list[int],
    extension: bytes,
    trailer: bytes,
    cuts: list[int],
    surplus: bytes,
) -> None:
    """The parser gets the response and nothing else; the connection is readable just if more came."""
    wire = interim + head % (b"Transfer-Encoding", b"chunked") + chunked(body, sizes, extension, trailer)
    connection = Watched(Scripted(pieces_of(wire + surplus, cuts)))
    sender, response = asked(connection)
    connection.begin_body(None)
    assert response.read() == body
    response.close()
    assert connection.handed == wire
    assert connection.get_extra_info("is_readable") == bool(surplus)
    assert sender.is_idle()


@given(HEADS, INTERIM, BODIES, CUTS, st.sampled_from(SURPLUS), st.sampled_from(["parser", "memory"]))
def test_a_response_with_a_length(
    head: bytes, interim: bytes, body: bytes, cuts: list[int], surplus: bytes, way: str
) -> None:
    """The same, whether the parser reads the body or it is read past the parser."""
    start = interim + head % (b"Content-Length", b"%d" % len(body))
    connection = Watched(Scripted(pieces_of(start + body + surplus, cuts)))
    _, response = asked(connection)
    assert connection.handed == start
    connection.begin_body(len(body))
    if way == "parser":
        assert response.read() == body
        assert connection.handed == start + body
    else:
        room, came = memoryview(bytearray(50)), b""
        while count := connection.receive(room, 1.0)[0]:
            came += room[:count]
        assert (came, connection.handed) == (body, start)
    assert connection.left == 0
    assert connection.get_extra_info("is_readable") == bool(surplus)


@each("surplus", SURPLUS)
@each("last", [b"x", b"\n", b"\n\n", b"\n\r", b"\n\r\n"])
@each("beyond", range(-2, 12))
def test_a_chunked_body_that_fills_reads(beyond: int, last: bytes, surplus: bytes) -> None:
    """If reads bring all that fits, the end is looked for in the last one alone: wherever the body is cut, the parser
    gets nothing after its end, or the connection counts as readable."""
    framed = len(chunked(bytes(2 * READ), [], b"", b"\r\n")) - 2 * READ
    body = bytes(2 * READ + beyond - framed - len(last)) + last
    wire = chunked(body, [], b"", b"\r\n")
    assert len(wire) == 2 * READ + beyond
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    connection = Watched(Scripted([head, wire + surplus]))
    _, response = asked(connection)
    connection.begin_body(None)
    assert response.read() == body
    is_right = connection.handed == head + wire
    is_readable = connection.get_extra_info("is_readable")
    if beyond > 0:
        assert (is_right, is_readable) == (True, bool(surplus))
    else:
        assert is_readable or (is_right and not surplus)


@pytest.mark.parametrize("is_detached", [True, False])
def test_whose_close_counts(is_detached: bool) -> None:
    """A connection that was handed to the next request is not closed with the last one's parser."""
    stream = Scripted([])
    first = Connection(stream, CancelToken(), LIMITS, "127.0.0.1")
    second = first.detach() if is_detached else first
    first.close()
    assert stream.is_closed != is_detached
    second.close()
    assert stream.is_closed


def test_a_request_that_is_not_sent_whole() -> None:
    """A connection on which a write failed is known as broken until another one succeeds."""

    class Broken(Scripted):
        def write(self, buffer: bytes, timeout: float | None = None) -> None:
            raise httpcore.WriteError

    connection = Connection(Broken([]), CancelToken(), LIMITS, "127.0.0.1")
    with pytest.raises(httpcore.WriteError):
        connection.write(b"x")
    assert connection.is_broken
