"""The engine and the wire below HTTP: dead addresses, peers that vanish, sockets dead at birth (faults, group C)."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support import faults
from support.bench import Bench, pinned
from support.data import MIB, noise
from support.faulty_server import Answer, FaultyServer, Request

from mdl.events import Event, Retrying
from mdl.http.allowlist import AllowList

DATA, TINY = noise(4 * MIB), noise(50_000, 1)
SIZE = len(DATA)
NAME = "many.example"
linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all of 127.0.0.0/8 on the loopback")
DEAD = [f"127.0.0.{last}" for last in range(2, 11)]


def resolved_to(addresses: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every name below .example be these addresses."""
    real = socket.getaddrinfo

    def resolver(host: str, port: int, *rest: Any, **more: Any) -> Any:
        if not str(host).endswith(".example"):
            return real(host, port, *rest, **more)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", resolver)


@contextmanager
def blackholes(addresses: Sequence[str], port: int) -> Iterator[None]:
    """Nobody answers there, neither yes nor no: listening sockets whose queues are full."""
    with ExitStack() as stack:
        for address in addresses:
            listener = stack.enter_context(socket.socket())
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((address, port))
            listener.listen(0)
            for _ in range(3):
                filler = stack.enter_context(socket.socket())
                filler.setblocking(False)
                filler.connect_ex((address, port))
        yield


@pytest.mark.fault(66)
@linux
def test_nine_of_ten_addresses_refuse(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of ten addresses the one that works is found, without an attempt being used up."""
    resolved_to([*DEAD, "127.0.0.1"], monkeypatch)
    with FaultyServer(faults.honest(DATA)) as server:
        run = bench.run(pinned(f"http://{NAME}:{server.port}/f", DATA), hosts=AllowList.of([NAME]), retries=1)
    assert (run.code, run.retries) == (0, 0)
    assert bench.final.read_bytes() == DATA


@pytest.mark.fault(66)
@linux
def test_addresses_that_say_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Addresses that do not answer at all cost one connect timeout together, and the one that works is found."""
    waited: list[float] = []
    real = socket.socket.connect

    def connect(sock: socket.socket, address: Any) -> None:
        try:
            real(sock, address)
        except TimeoutError:
            waited.append(sock.gettimeout() or 0.0)
            raise

    resolved_to([*DEAD[:3], "127.0.0.1"], monkeypatch)
    with FaultyServer(faults.honest(TINY)) as server, blackholes(DEAD[:3], server.port):
        monkeypatch.setattr(socket.socket, "connect", connect)
        url = f"http://{NAME}:{server.port}/f"
        run = bench.run(pinned(url, TINY), hosts=AllowList.of([NAME]), retries=1, stall=0.3)
    assert run.code == 0
    assert sum(waited) <= 0.31


@pytest.mark.fault(51)
def test_reset_before_it_is_looked_at(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that is reset before mdl has looked where it leads is the network's trouble: tried again, then 5."""

    def gone(_: socket.socket) -> None:
        raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))

    resolved_to(["127.0.0.1"], monkeypatch)
    monkeypatch.setattr(socket.socket, "getpeername", gone)
    with FaultyServer(faults.honest(TINY)) as server:
        hosts = AllowList(frozenset(), general=("*.cdn.example",))
        run = bench.run(pinned(f"http://a.cdn.example:{server.port}/f", TINY), hosts=hosts, retries=2)
    assert (run.code, run.error["code"], run.retries) == (5, "NET", 1)


RULES = (
    "add table ip t; add chain ip t in {{ type filter hook input priority 0; }}; add rule ip t in tcp dport {0} drop; \
add rule ip t in tcp sport {0} drop"
)


@pytest.mark.fault(63, 64)
def test_the_peer_vanishes(tmp_path: Path) -> None:
    """Where every packet of a connection is lost from one moment on, it is a stall; once the net is back it goes on."""
    inside = [sys.executable, "-c", f"from system import test_networks as here; here.vanish({str(tmp_path)!r})"]
    if not shutil.which("nft") or not shutil.which("unshare"):
        pytest.skip("no nft or unshare: packets cannot be dropped")
    tests = Path(__file__).parents[1]
    done = subprocess.run(
        ["unshare", "-Urn", "sh", "-c", 'ip link set lo up && nft list ruleset && exec "$@" || exit 99', "sh", *inside],
        env={**os.environ, "PYTHONPATH": f"{tests}{os.pathsep}{tests.parent}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if done.returncode == 99:
        pytest.skip(f"packets cannot be dropped here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "right"


def vanish(folder: str) -> None:
    """In a network of its own: drop all packets in the middle of a body; let them through again after two retries."""
    told: list[Retrying] = []
    right = faults.honest(DATA)

    def nft(text: str) -> None:
        subprocess.run(["nft", text], check=True)

    def lost(request: Request, number: int) -> Answer:
        def body() -> Iterator[bytes]:
            yield DATA[: SIZE // 2]
            nft(RULES.format(server.port))
            yield DATA[SIZE // 2 :]

        return replace(right(request, number), body=body())

    def listen(event: Event) -> None:
        if isinstance(event, Retrying):
            told.append(event)
            if len(told) == 2:
                nft("flush ruleset")

    with FaultyServer(faults.first(1, lost, right)) as server:
        file = pinned(server.url + "/f", DATA)
        bench = Bench(Path(folder), pytest.MonkeyPatch())
        run = bench.run(file, stall=0.5, retries=9, tell=listen, connections=1)
        asked = [request.header("range") for request in server.requests]
    assert (run.code, run.report.bytes_fetched, run.rewound, len(asked)) == (0, SIZE, 0, 2), (run, asked)
    assert "no byte" in told[0].why, told
    assert "in time" in told[1].why, told
    print("right" if bench.final.read_bytes() == DATA else "wrong")
