"""The pipe: right bytes into a file however they come, silence and ends found, and what if there is none."""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import faults
from support.bench import Bench, pinned
from support.catalogs import catalog_of
from support.data import DATA as BODY
from support.data import MIB, noise
from support.faulty_server import Answer, FaultyServer, Request
from support.jobs import arrived
from support.namespaces import failing
from support.shell import done, machine

from mdl.http import splice as splicing
from mdl.http.splice import Pipe, Piped

if sys.platform != "linux":
    pytest.skip("no splice(2) here", allow_module_level=True)

DATA = noise(4 * MIB)


class Line:
    """A TCP connection to ourselves, the receiving end as the engine has it."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.sender = socket.create_connection(listener.getsockname())
            self.sock, _ = listener.accept()
        self.sock.settimeout(20)

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *_: object) -> None:
        self.sender.close()
        self.sock.close()


@pytest.fixture
def line() -> Iterator[Line]:
    with Line() as opened:
        yield opened


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    opened = Pipe.open()
    assert opened is not None
    with closing(opened):
        yield opened


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def drawn(pipe: Pipe, sock: socket.socket, count: int) -> Piped:
    piped = pipe.receive(sock, count)
    assert len(piped) == count
    return piped


_SENT = st.lists(st.tuples(st.integers(1, 5000), st.integers(1, 6000)), min_size=1, max_size=8)


@settings(max_examples=60, deadline=None)
@given(sent=_SENT, at=st.integers(0, 9000))
def test_the_bytes_that_came_stand_where_they_belong(
    tmp_path_factory: pytest.TempPathFactory, sent: list[tuple[int, int]], at: int
) -> None:
    """Whatever came, in whatever portions it is drawn, at whatever place: the file has those bytes and no others."""
    place, found, expected = tmp_path_factory.mktemp("pipe") / "f", at, bytearray(at)
    pipe = Pipe.open()
    assert pipe is not None
    with Line() as line, closing(pipe), place.open("w+b") as file:
        for number, (count, most) in enumerate(sent):
            data = hashlib.shake_128(b"%d" % number).digest(count)
            line.sender.sendall(data)
            expected += data
            while found < len(expected):
                piped = pipe.receive(line.sock, most)
                assert 0 < len(piped) <= most
                piped.write_to(file.fileno(), found)
                found += len(piped)
    assert place.read_bytes() == expected


def test_a_beginning_of_it(line: Line, pipe: Pipe, tmp_path: Path) -> None:
    """Where a segment ends sooner only what belongs to it is written."""
    line.sender.sendall(DATA[:5000])
    with (tmp_path / "f").open("w+b") as file:
        piece = drawn(pipe, line.sock, 5000)[:1234]
        assert len(piece) == 1234
        piece.write_to(file.fileno(), 0)
    assert (tmp_path / "f").read_bytes() == DATA[:1234]


def test_no_more_than_there_is(line: Line, pipe: Pipe) -> None:
    line.sender.sendall(DATA[:10])
    assert len(drawn(pipe, line.sock, 10)[:99]) == 10


def test_a_file_that_takes_no_splice(line: Line, pipe: Pipe, tmp_path: Path) -> None:
    """What is in the pipe then goes by memory; nothing of it is lost. (Into a file in append mode none can be done.)"""
    line.sender.sendall(DATA[:100_000])
    fd = os.open(tmp_path / "f", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    try:
        at = 0
        while at < 100_000:
            piped = pipe.receive(line.sock, 100_000 - at)
            if not at:
                with pytest.raises(OSError, match="Invalid argument"):
                    os.splice(pipe.read_end, fd, 1, offset_dst=0)
            piped.write_to(fd, at)
            at += len(piped)
    finally:
        os.close(fd)
    assert (tmp_path / "f").read_bytes() == DATA[:100_000]


def test_the_end(line: Line, pipe: Pipe) -> None:
    line.sender.sendall(b"last")
    line.sender.close()
    drawn(pipe, line.sock, 4)
    os.read(pipe.read_end, 4)
    assert len(pipe.receive(line.sock, 4)) == 0


def test_silence(line: Line, pipe: Pipe) -> None:
    """As long as the socket's own time-out, no longer."""
    line.sock.settimeout(0.05)
    with pytest.raises(TimeoutError):
        pipe.receive(line.sock, 4)


def test_a_reset(line: Line, pipe: Pipe) -> None:
    line.sender.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    line.sender.close()
    with pytest.raises(ConnectionResetError):
        pipe.receive(line.sock, 4)


def test_a_socket_that_was_closed(line: Line, pipe: Pipe) -> None:
    """No descriptor of the same number is read instead."""
    line.sock.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        pipe.receive(line.sock, 4)


@pytest.mark.parametrize("name", ["_SIZE", "pipe"])
def test_none_worth_it(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Where only a small one is to be had, or no descriptor is left, there is none, and none is left open."""

    def none_left() -> tuple[int, int]:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    if name == "pipe":
        monkeypatch.setattr(os, "pipe", none_left)
    else:
        monkeypatch.setattr(splicing, name, splicing._WORTH // 2)
    before = descriptors()
    assert Pipe.open() is None
    assert descriptors() == before


def test_a_size_that_is_not_granted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that refuses so large a pipe leaves one of its own size: none that is worth it."""
    monkeypatch.setattr(splicing, "_SIZE", 2**31)
    before = descriptors()
    assert Pipe.open() is None
    assert descriptors() == before


def test_a_large_body_goes_by_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """All but what the parser had read before does not come into this process."""
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


@pytest.mark.parametrize("way", ["splice:error=ENOSYS", "splice:error=EINVAL", "splice:error=EPERM"])
def test_a_system_that_refuses_it(tmp_path: Path, way: str) -> None:
    """Where every splice is refused, as some sandboxes do, the bytes come by memory, at the first try."""
    asked: list[Request] = []

    def handler(request: Request, number: int) -> Answer:
        asked.append(request)
        return faults.honest(BODY)(request, number)

    with FaultyServer(handler) as server:
        shell = machine(tmp_path, catalog_of(one=server.url + "/f"))
        done(shell.run("get", "one", "-q", prefix=failing(way)))
    assert arrived(shell)
    assert len([one for one in asked if one.method == "GET"]) == 1


def test_refused_midway(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket that took part and then refuses is trouble on the line: another try goes on where it stopped."""
    real, drawn = os.splice, list[int]()

    def splice(source: int, target: int, most: int, *, offset_dst: int | None = None, flags: int = 0) -> int:
        if offset_dst is None:
            drawn.append(most)
            if len(drawn) == 3:
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return real(source, target, min(most, 100_000), offset_dst=offset_dst, flags=flags)

    monkeypatch.setattr(os, "splice", splice)
    with FaultyServer(faults.honest(DATA)) as server:
        run = bench.run(pinned(server.url + "/f", DATA))
    assert (run.code, run.retries, run.report.bytes_fetched) == (0, 1, len(DATA))
    assert bench.final.read_bytes() == DATA
