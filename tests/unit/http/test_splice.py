"""The kernel pipe between a socket and a file: right bytes however they come, and what happens without a pipe."""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import faults
from support.bench import Bench, pinned
from support.catalogs import catalog_of
from support.data import DATA as BODY
from support.data import MIB, noise
from support.faulty_server import FaultyServer
from support.jobs import arrived
from support.long import examples
from support.namespaces import failing
from support.shell import done, machine

from mdl.http import splice as splicing
from mdl.http.splice import Pipe, Piped

if sys.platform != "linux":
    pytest.skip("no splice(2) here", allow_module_level=True)

DATA = noise(4 * MIB)


@contextmanager
def connected() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A TCP connection in this process: the sending and the receiving socket."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sender = socket.create_connection(listener.getsockname())
        sock, _ = listener.accept()
    sock.settimeout(20)
    with sender, sock:
        yield sender, sock


@contextmanager
def opened() -> Iterator[Pipe]:
    pipe = Pipe.open()
    assert pipe is not None
    with closing(pipe):
        yield pipe


@pytest.fixture
def line() -> Iterator[tuple[socket.socket, socket.socket]]:
    with connected() as sockets:
        yield sockets


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    with opened() as pipe:
        yield pipe


Line = tuple[socket.socket, socket.socket]


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def received(pipe: Pipe, sock: socket.socket, count: int) -> Piped:
    piped = pipe.receive(sock, count)
    assert len(piped) == count
    return piped


@settings(max_examples=examples(60), deadline=None)
@given(
    sent=st.lists(st.tuples(st.integers(1, 5000), st.integers(1, 6000)), min_size=1, max_size=8),
    at=st.integers(0, 9000),
)
def test_bytes_and_places(tmp_path_factory: pytest.TempPathFactory, sent: list[tuple[int, int]], at: int) -> None:
    """Whatever came, received in any portions and written at any offset: the file has those bytes and no others."""
    place, found, expected = tmp_path_factory.mktemp("pipe") / "f", at, bytearray(at)
    with connected() as (sender, sock), opened() as pipe, place.open("w+b") as file:
        for number, (count, most) in enumerate(sent):
            data = hashlib.shake_128(b"%d" % number).digest(count)
            sender.sendall(data)
            expected += data
            while found < len(expected):
                piped = pipe.receive(sock, most)
                assert 0 < len(piped) <= most
                piped.write_to(file.fileno(), found)
                found += len(piped)
    assert place.read_bytes() == expected


def test_beginning(line: Line, pipe: Pipe, tmp_path: Path) -> None:
    """If a segment ends early, only its bytes are written."""
    line[0].sendall(DATA[:5000])
    with (tmp_path / "f").open("w+b") as file:
        piped = received(pipe, line[1], 5000)
        assert len(piped[:9999]) == 5000
        assert len(piped[:1234]) == 1234
        piped[:1234].write_to(file.fileno(), 0)
    assert (tmp_path / "f").read_bytes() == DATA[:1234]


def test_file_without_splice(line: Line, pipe: Pipe, tmp_path: Path) -> None:
    """Into a file that does not support splice(2), as in append mode, all bytes go through memory."""
    sender, sock = line
    sender.sendall(DATA[:100_000])
    fd, at = os.open(tmp_path / "f", os.O_CREAT | os.O_WRONLY | os.O_APPEND), 0
    try:
        while at < 100_000:
            piped = pipe.receive(sock, 100_000 - at)
            if not at:
                with pytest.raises(OSError, match="Invalid argument"):
                    os.splice(pipe.read_end, fd, 1, offset_dst=0)
            piped.write_to(fd, at)
            at += len(piped)
    finally:
        os.close(fd)
    assert (tmp_path / "f").read_bytes() == DATA[:100_000]


def test_end_of_connection(line: Line, pipe: Pipe) -> None:
    """The last bytes come, then none."""
    line[0].sendall(b"last")
    line[0].close()
    received(pipe, line[1], 4)
    os.read(pipe.read_end, 4)
    received(pipe, line[1], 0)


def test_broken_connection(line: Line, pipe: Pipe) -> None:
    """Silence ends after the socket's own timeout, a reset is an error, and so is a closed socket: another descriptor
    of the same number is not read."""
    sender, sock = line
    sock.settimeout(0.05)
    with pytest.raises(TimeoutError):
        pipe.receive(sock, 4)
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sender.close()
    with pytest.raises(ConnectionResetError):
        pipe.receive(sock, 4)
    sock.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        pipe.receive(sock, 4)


@pytest.mark.parametrize("size", [None, splicing._WORTH // 2, 2**31], ids=["no descriptor", "small", "refused"])
def test_no_pipe(monkeypatch: pytest.MonkeyPatch, size: int | None) -> None:
    """If no descriptor is left, or the system gives only a small pipe, there is none, and no descriptor stays open."""

    def none_left() -> tuple[int, int]:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    if size is None:
        monkeypatch.setattr(os, "pipe", none_left)
    before = descriptors()
    assert Pipe.open(size or 2**20) is None
    assert descriptors() == before


def test_large_body(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """All but what the parser had read before does not enter this process."""
    real, sizes = os.pwrite, list[int]()

    def pwrite(fd: int, data: bytes | memoryview, offset: int) -> int:
        sizes.append(len(data))
        return real(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    before = descriptors()
    with FaultyServer(faults.honest(DATA)) as server:
        run = bench.run(pinned(server.url + "/f", DATA))
    assert (run.code, bench.final.read_bytes() == DATA, descriptors()) == (0, True, before)
    assert sum(sizes) <= 2 * 65536


@pytest.mark.parametrize("code", ["ENOSYS", "EINVAL", "EPERM"])
def test_system_without_splice(tmp_path: Path, code: str) -> None:
    """If every splice is refused, as in some sandboxes, the bytes go through memory, with one request."""
    with FaultyServer(faults.honest(BODY)) as server:
        shell = machine(tmp_path, catalog_of(one=server.url + "/f"))
        done(shell.run("get", "one", "-q", "--connections", "1", prefix=failing(f"splice:error={code}")))
        requests = server.requests
    assert arrived(shell)
    assert [request.method for request in requests].count("GET") == 1


def test_refused_midway(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a socket refuses after it supported splice(2), the connection counts as broken: the next try resumes."""
    real, calls = os.splice, list[int]()

    def splice(source: int, target: int, most: int, *, offset_dst: int | None = None, flags: int = 0) -> int:
        if offset_dst is None:
            calls.append(most)
            if len(calls) == 3:
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return real(source, target, min(most, 100_000), offset_dst=offset_dst, flags=flags)

    monkeypatch.setattr(os, "splice", splice)
    with FaultyServer(faults.honest(DATA)) as server:
        run = bench.run(pinned(server.url + "/f", DATA))
    assert (run.code, run.retries, run.report.bytes_fetched) == (0, 1, len(DATA))
    assert bench.final.read_bytes() == DATA
