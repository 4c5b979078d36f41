"""Connections: opened to the first address of a host that answers, and read with a deadline."""

from __future__ import annotations

import contextlib
import math
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpcore
import pytest

from mdl.cancel import CancelToken
from mdl.errors import Cancelled, NetworkError
from mdl.net.connection import Address, Connection, RequestLimits, SocketStream, connect_first, resolve
from mdl.net.tls import ByteStream


def at(port: int) -> Address:
    return socket.AF_INET, socket.SOCK_STREAM, 6, ("127.0.0.1", port)


@pytest.fixture
def listening() -> Iterator[Address]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield at(server.getsockname()[1])


@pytest.fixture
def refusing() -> Address:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return at(server.getsockname()[1])


@pytest.fixture
def silent() -> Iterator[Address]:
    """An address that neither accepts nor refuses a connection, because its queue is full."""
    with contextlib.ExitStack() as stack:
        server, *fillers = (stack.enter_context(socket.socket()) for _ in range(4))
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(server.getsockname())
        yield at(server.getsockname()[1])


def test_first_address_that_answers(listening: Address, refusing: Address, silent: Address) -> None:
    """An address that refuses and one that is silent are passed over; the socket blocks as usual."""
    for places, seconds in (([refusing, silent, listening], 100.0), ([listening], math.inf)):
        with connect_first(places, seconds, CancelToken()) as sock:
            assert sock.getpeername() == listening[3]
            assert sock.getblocking()


def test_no_address_answers(refusing: Address, silent: Address) -> None:
    """If all refuse, the first refusal is raised. If one is silent, the timeout is, once for all, and the next
    address does not end the wait for it."""
    with pytest.raises(ConnectionRefusedError):
        connect_first([refusing, refusing], 100.0, CancelToken())
    for places in ([silent] * 5, [silent, refusing]):
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            connect_first(places, 0.3, CancelToken())
        assert time.monotonic() - began >= 0.3
    with pytest.raises(OSError, match="no address"):
        connect_first([], 1.0, CancelToken())


def test_cancel(silent: Address) -> None:
    """A cancel ends the wait for a connection."""
    cancel = CancelToken()
    cancel.set()
    with pytest.raises(Cancelled):
        connect_first([silent], 5.0, cancel)


def test_families_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many addresses of one family and one of the other, the other comes second."""
    six, four = (socket.AF_INET6, 1, 6, "", ("::1", 1, 0, 0)), (socket.AF_INET, 1, 6, "", ("127.0.0.1", 1))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: [six, six, six, four])
    families = [socket.AF_INET6, socket.AF_INET, socket.AF_INET6, socket.AF_INET6]
    assert [place[0] for place in resolve("two.example", 1)] == families


class Silent(ByteStream):
    """A stream on which no byte comes until the timeout."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock, self.waits = sock, list[float | None]()

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        self.waits.append(timeout)
        raise httpcore.ReadTimeout

    def get_extra_info(self, info: str) -> Any:
        return self.sock


@pytest.mark.parametrize(("outer", "inner"), [(5.0, 50.0), (50.0, 5.0)])
def test_earlier_deadline_counts(listening: Address, outer: float, inner: float) -> None:
    """A deadline inside another one never prolongs it; outside both the connection's own timeout holds again."""
    with connect_first([listening], 5.0, CancelToken()) as sock:
        stream = Silent(sock)
        limits = RequestLimits("host", private_ok=True)
        connection = Connection(stream, CancelToken(), limits)
        with (
            limits.deadline.within(outer, NetworkError("outer")),
            limits.deadline.within(inner, NetworkError("inner")),
            pytest.raises(NetworkError, match="outer" if outer < inner else "inner"),
        ):
            connection.read(1, timeout=100.0)
        with pytest.raises(httpcore.ReadTimeout):
            connection.read(1, timeout=100.0)
    assert stream.waits == [pytest.approx(5.0, abs=1.0), 100.0]


@pytest.fixture
def pair() -> Iterator[tuple[SocketStream, socket.socket]]:
    """A stream, and the socket at its other end."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield SocketStream(ours), theirs


def test_a_read_of_a_body_fills_its_buffer(pair: tuple[SocketStream, socket.socket]) -> None:
    """What comes in two pieces comes by one read; what is all that came is returned, with the error behind it."""
    stream, theirs = pair
    view = memoryview(bytearray(1000))
    theirs.sendall(b"x" * 400)
    assert stream.receive(view[:400], 5.0) == (400, None)
    theirs.sendall(b"x" * 400)
    sender = threading.Timer(0.0, theirs.sendall, [b"y" * 600])
    sender.start()
    assert stream.receive(view, 5.0) in [(1000, None), (400, None)]  # the latter on a machine that is very busy
    sender.join()
    theirs.sendall(b"z" * 10)
    theirs.close()
    count, error = stream.receive(view, 5.0)
    assert (count > 0, error) == (True, None)


def test_a_read_ends_at_its_time_limit(pair: tuple[SocketStream, socket.socket]) -> None:
    """A read of silence ends after the seconds of that call, also after another limit and after a read into memory;
    bytes that are there come at once."""
    stream, theirs = pair
    room = bytearray(10)
    for seconds in (0.05, 0.1):
        began = time.monotonic()
        with pytest.raises(httpcore.ReadTimeout):
            stream.read(10, seconds)
        assert time.monotonic() - began >= seconds * 0.9
        count, error = stream.receive(memoryview(room), seconds / 2)
        assert (count, type(error)) == (0, TimeoutError)
    theirs.sendall(b"abc")
    assert stream.get_extra_info("is_readable")
    assert stream.read(10, 20) == b"abc"
    assert not stream.get_extra_info("is_readable")


def test_a_write_ends_at_its_time_limit(pair: tuple[SocketStream, socket.socket]) -> None:
    """A write that nobody reads ends after its seconds; after a close, the error is one of writing."""
    stream, theirs = pair
    with pytest.raises(httpcore.WriteTimeout):
        stream.write(bytes(2**24), 0.05)
    theirs.close()
    with pytest.raises(httpcore.WriteError):
        stream.write(b"x", 1)
    stream.close()
    assert stream.get_extra_info("is_readable")  # as httpcore has it: the next read would end at once
