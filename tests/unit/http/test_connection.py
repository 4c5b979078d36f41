"""Connections: to the first address of a host that answers, its families in turn, and with deadlines for reading."""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpcore
import pytest

from mdl.cancel import CancelToken
from mdl.errors import Cancelled, NetworkError
from mdl.http.connection import Address, Connection, connect_first, deadline, resolve


def at(port: int, host: str = "127.0.0.1") -> Address:
    return socket.AF_INET, socket.SOCK_STREAM, 6, (host, port)


@contextmanager
def listening() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@contextmanager
def silent() -> Iterator[int]:
    """Somebody who neither takes nor refuses a connection: the queue is full."""
    with socket.socket() as server, socket.socket() as one, socket.socket() as two, socket.socket() as three:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for filler in (one, two, three):
            filler.setblocking(False)
            filler.connect_ex(server.getsockname())
        yield server.getsockname()[1]


def free_port() -> int:
    with listening() as port:
        return port


def test_the_first_that_answers() -> None:
    """One that refuses and one that says nothing are passed by, and what comes back blocks as sockets do."""
    with listening() as port, silent() as hole:
        with connect_first([at(free_port()), at(hole), at(port)], 5.0, CancelToken()) as sock:
            assert sock.getpeername()[1] == port
            assert sock.getblocking()
        with connect_first([at(port)], math.inf, CancelToken()) as sock:
            assert sock.getpeername()[1] == port


def test_nobody_answers() -> None:
    """All refuse: the first refusal. One says nothing: the timeout, once for all."""
    with pytest.raises(ConnectionRefusedError):
        connect_first([at(free_port()), at(free_port())], 5.0, CancelToken())
    began = time.monotonic()
    with silent() as hole, pytest.raises(TimeoutError):
        connect_first([at(hole)] * 5, 0.3, CancelToken())
    assert time.monotonic() - began < 3.0
    with pytest.raises(OSError, match="no address"):
        connect_first([], 1.0, CancelToken())


def test_a_slow_one_is_waited_for() -> None:
    """The head start of the next is not the end of the one before."""
    with silent() as hole:
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            connect_first([at(hole), at(free_port())], 0.6, CancelToken())
        assert time.monotonic() - began >= 0.6


def test_cancel_ends_it() -> None:
    """Whoever waits for a connection does not go on after a cancel."""
    cancel = CancelToken()
    cancel.set()
    with silent() as hole, pytest.raises(Cancelled):
        connect_first([at(hole)], 5.0, cancel)


def test_families_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many addresses of one family and one of the other, the other comes second."""
    six, four = (socket.AF_INET6, 1, 6, "", ("::1", 1, 0, 0)), (socket.AF_INET, 1, 6, "", ("127.0.0.1", 1))

    def resolver(*_: Any) -> list[Any]:
        return [six, six, six, four]

    monkeypatch.setattr(socket, "getaddrinfo", resolver)
    families = [socket.AF_INET6, socket.AF_INET, socket.AF_INET6, socket.AF_INET6]
    assert [place[0] for place in resolve("two.example", 1)] == families


class Silent(httpcore.NetworkStream):
    """A stream that is silent for as long as it is waited for."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock, self.waits = sock, list[float | None]()

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        self.waits.append(timeout)
        raise httpcore.ReadTimeout

    def get_extra_info(self, info: str) -> Any:
        return self.sock


@pytest.mark.parametrize(("outer", "inner"), [(5.0, 50.0), (50.0, 5.0)])
def test_the_earlier_of_two_deadlines_counts(outer: float, inner: float) -> None:
    """A deadline inside another one never prolongs it, and outside both the connection's own timeout holds again."""
    with listening() as port, connect_first([at(port)], 5.0, CancelToken()) as sock:
        stream = Silent(sock)
        connection = Connection(stream, CancelToken())
        with (
            deadline(outer, NetworkError("outer")),
            deadline(inner, NetworkError("inner")),
            pytest.raises(NetworkError, match="outer" if outer < inner else "inner"),
        ):
            connection.read(1, timeout=100.0)
        with pytest.raises(httpcore.ReadTimeout):
            connection.read(1, timeout=100.0)
    assert stream.waits == [pytest.approx(5.0, abs=1.0), 100.0]
