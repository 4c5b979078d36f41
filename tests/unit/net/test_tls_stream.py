"""`TlsStream`: many records at once, and none lost."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator

import httpcore
import pytest
import trustme
from support.data import noise

from mdl.net.connection import SocketStream
from mdl.net.tls import TlsStream

RECORD = 16 * 1024
BODY = noise(7 * RECORD)
SECONDS = 10.0
BRIEF = 0.05


class CountingSocket(socket.socket):
    """Counts how often it is read into a buffer."""

    reads = 0

    def recv_into(self, *args: object) -> int:
        self.reads += 1
        return super().recv_into(*args)  # type: ignore[arg-type]


class Peer:
    """A TLS server whose records the test sends by hand, and the `TlsStream` that is connected to it."""

    def __init__(self, ca: trustme.CA) -> None:
        ours, self.wire = socket.socketpair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**20)
        self.wire.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**20)
        self.sock = CountingSocket(fileno=ours.detach())
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        accepts = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ca.issue_cert("localhost").configure_cert(accepts)
        self._tls = accepts.wrap_bio(self._incoming, self._outgoing, server_side=True)
        trusts = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        ca.configure_trust(trusts)
        greeting = threading.Thread(target=self._greet)
        greeting.start()
        self.stream = TlsStream(SocketStream(self.sock), trusts, "localhost", SECONDS)
        greeting.join()

    def _greet(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self.wire.sendall(self._outgoing.read())
                self._incoming.write(self.wire.recv(RECORD))
            else:
                return self.wire.sendall(self._outgoing.read())

    def sealed(self, data: bytes) -> bytes:
        """``data`` as records."""
        for start in range(0, len(data), RECORD):
            self._tls.write(data[start : start + RECORD])
        return self._outgoing.read()

    def goodbye(self) -> bytes:
        """A close_notify."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self._tls.unwrap()
        return self._outgoing.read()

    def close(self) -> None:
        self.wire.close()
        self.stream.close()


@pytest.fixture
def peer(ca: trustme.CA) -> Iterator[Peer]:
    it = Peer(ca)
    yield it
    it.close()


def receive(peer: Peer, size: int, seconds: float = SECONDS) -> tuple[bytes, OSError | None]:
    """What one `TlsStream.receive` brings."""
    buffer = bytearray(size)
    count, error = peer.stream.receive(memoryview(buffer), seconds)
    return bytes(buffer[:count]), error


def test_many_records_by_one_read(peer: Peer) -> None:
    """Seven records that are there take one read of the socket. (`ssl.SSLSocket` takes fourteen.)"""
    peer.wire.sendall(peer.sealed(BODY))
    assert receive(peer, len(BODY) + RECORD) == (BODY, None)
    assert peer.sock.reads == 1


@pytest.mark.parametrize("cut", [1, 4, 5, RECORD, RECORD + 21, RECORD + 23])
def test_records_in_pieces(peer: Peer, cut: int) -> None:
    """Wherever the network cuts a record, and however small the buffer is, no byte is lost or doubled."""
    wire, came = peer.sealed(BODY), b""
    for start in (0, cut, 2 * cut):
        peer.wire.sendall(wire[start : start + cut if start < 2 * cut else None])
        while part := receive(peer, 10_000, BRIEF)[0]:
            came += part
    assert came == BODY


def test_silence(peer: Peer) -> None:
    """What came is handed on although more was asked for; a silence from the start is a `TimeoutError`."""
    wire = peer.sealed(BODY)
    peer.wire.sendall(wire[: RECORD + 1000])
    assert receive(peer, len(BODY)) == (BODY[:RECORD], None)
    part, error = receive(peer, len(BODY), BRIEF)
    assert (part, type(error)) == (b"", TimeoutError)


def test_a_record_byte_by_byte(peer: Peer) -> None:
    """A record that dribbles is a silence: its bytes say nothing before it is whole, and no read waits for more than
    its own time, whoever asks."""
    wire, over = peer.sealed(BODY[:RECORD]), threading.Event()

    def dribble() -> None:
        for byte in wire:
            if over.wait(BRIEF / 20):
                return
            peer.wire.sendall(bytes([byte]))

    dribbling = threading.Thread(target=dribble)
    dribbling.start()
    part, error = receive(peer, RECORD, BRIEF)
    with pytest.raises(httpcore.ReadTimeout):
        peer.stream.read(100, BRIEF)
    over.set()
    dribbling.join()
    assert (part, type(error)) == (b"", TimeoutError)


@pytest.mark.parametrize("is_polite", [True, False], ids=["with a goodbye", "without"])
def test_end_of_the_connection(peer: Peer, is_polite: bool) -> None:
    """What came before the end is handed on, then there are no more bytes, and no error either: the length tells."""
    peer.wire.sendall(peer.sealed(BODY[:100]))
    if is_polite:
        peer.wire.sendall(peer.goodbye())
    peer.wire.shutdown(socket.SHUT_WR)
    assert receive(peer, len(BODY)) == (BODY[:100], None)
    assert receive(peer, len(BODY)) == (b"", None)
    assert peer.stream.read(100) == b""


def test_forged_record(peer: Peer) -> None:
    """Bytes before a forged record are handed on together with the error; none of it and none after it is."""
    good, bad = peer.sealed(BODY[:RECORD]), bytearray(peer.sealed(BODY[RECORD:]))
    bad[-1] ^= 1
    bad[100] ^= 1
    peer.wire.sendall(good + bad)
    part, error = receive(peer, len(BODY))
    assert part == BODY[:RECORD]
    assert isinstance(error, ssl.SSLError)


def test_more_than_was_read_is_readable(peer: Peer) -> None:
    """A connection is not used again if records are left in memory, where the socket does not show them."""
    peer.wire.sendall(peer.sealed(BODY[:100]) + peer.sealed(b"next"))
    assert peer.stream.read(100, SECONDS) == BODY[:100]
    assert peer.stream.get_extra_info("is_readable")
    assert peer.stream.read(100, SECONDS) == b"next"
    assert not peer.stream.get_extra_info("is_readable")
