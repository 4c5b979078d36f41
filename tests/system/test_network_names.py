"""The network below mdl, in one of its own: names, lost packets, an interface that goes, ports and descriptors that
are used up (faults, group E)."""

from __future__ import annotations

import os
import resource
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support import faults
from support.bench import Bench, pinned
from support.data import MIB, noise
from support.faulty_server import Answer, FaultyServer, Request
from support.namespaces import NETWORK, apart, loopback, tool

from mdl.events import Event, Planned, Retrying
from mdl.http.allowlist import AllowList

DATA, SMALL = noise(4 * MIB), noise(1500 * 1000, 1)
HOST = "models.example.org"
NAMED = AllowList.of([HOST])


def bench_in(folder: Path) -> Bench:
    loopback()
    return Bench(folder, pytest.MonkeyPatch())


@contextmanager
def resolver(code: int | None) -> Iterator[None]:
    """A name server that answers everything with that code, or nothing with anything; the only one that is asked."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 53))

        def serve() -> None:
            while True:
                query, client = sock.recvfrom(4096)
                if not query:
                    return
                if code is not None:
                    head = query[:2] + struct.pack(">H", 0x8180 | code) + query[4:6] + bytes(6)
                    sock.sendto(head + query[12:], client)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield
        sock.sendto(b"", ("127.0.0.1", 53))
        thread.join()


def names(folder: Path) -> None:
    """No such name, a name server that fails, none that answers, none at all."""
    bench = bench_in(folder)
    (folder / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
    tool("mount", "--bind", str(folder / "resolv.conf"), "/etc/resolv.conf")
    file = pinned(f"http://{HOST}/f", DATA)
    for code in (3, 2, None):
        with resolver(code):
            check_name(bench.run(file, hosts=NAMED, retries=2), code)
    check_name(bench.run(file, hosts=NAMED, retries=2), "nobody")


def check_name(run: Any, why: object) -> None:
    assert (run.code, run.error["code"], run.retries) == (5, "NET", 1), (why, run.report)
    assert HOST in run.error["message"], (why, run.error)


@pytest.mark.fault(83)
def test_names_that_cannot_be_resolved(tmp_path: Path) -> None:
    """NXDOMAIN, SERVFAIL, a silent and an absent name server: 5 after the last try, with the host's name."""
    apart(names, tmp_path, NETWORK)


def lossy(folder: Path) -> None:
    """8 Mbit/s, every twentieth packet lost."""
    bench = bench_in(folder)
    tool("ip", "link", "set", "lo", "mtu", "1500")
    with FaultyServer(faults.honest(SMALL)) as server:
        tool("nft", "add table ip t; add chain ip t i { type filter hook input priority 0; }")
        tool("nft", f"add rule ip t i tcp sport {server.port} numgen random mod 100 < 5 drop")
        tool("tc", *["qdisc", "replace", "dev", "lo", "root", "tbf", "rate", "8mbit", "burst", "32k", "limit", "1m"])
        run = bench.run(pinned(server.url + "/f", SMALL), retries=1)
        asked = len(server.requests)
    assert (run.code, asked, run.rewound) == (0, 1, 0), run
    assert bench.final.read_bytes() == SMALL


@pytest.mark.fault(95)
def test_a_bad_line(tmp_path: Path) -> None:
    """Over a slow line that loses packets it takes its time and comes whole, in one request."""
    apart(lossy, tmp_path, NETWORK)


def down_and_up(folder: Path) -> None:
    """The interface goes down in the middle of a body and comes back after two tries in vain."""
    bench = bench_in(folder)
    told: list[str] = []
    right = faults.honest(DATA)

    def handler(request: Request, number: int) -> Answer:
        def body() -> Iterator[bytes]:
            yield DATA[: 2 * MIB]
            tool("ip", "link", "set", "lo", "down")
            yield DATA[2 * MIB :]

        return replace(right(request, number), body=body())

    def listen(event: Event) -> None:
        if isinstance(event, Retrying):
            told.append(event.why)
            if len(told) == 2:
                loopback()

    with FaultyServer(faults.first(1, handler, right)) as server:
        run = bench.run(pinned(server.url + "/f", DATA), stall=0.5, retries=9, tell=listen, connections=1)
        ranges = [request.header("range") for request in server.requests]
    assert (run.code, run.rewound, run.report and run.report.bytes_fetched) == (0, 0, len(DATA)), (run, told)
    assert len(ranges) == 2, ranges
    assert bench.final.read_bytes() == DATA


@pytest.mark.fault(96)
def test_the_interface_goes_and_comes(tmp_path: Path) -> None:
    """While there is no network it is tried again; once there is one it goes on at the byte."""
    apart(down_and_up, tmp_path, NETWORK)


def no_ports(folder: Path) -> None:
    """Two ports to go out by, both taken; then one is free again."""
    bench = bench_in(folder)
    with FaultyServer(faults.honest(DATA)) as server:
        Path("/proc/sys/net/ipv4/ip_local_port_range").write_text("61000 61001")
        taken = [socket.socket() for _ in range(2)]
        for sock, port in zip(taken, (61000, 61001), strict=True):
            sock.bind(("127.0.0.1", port))
            sock.connect(("127.0.0.1", server.port))
        file = pinned(server.url + "/f", DATA)
        run = bench.run(file, retries=2)
        assert (run.code, run.error["code"], run.retries) == (5, "NET", 1), run
        assert os.strerror(99) in run.error["message"], run.error
        for sock in taken:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()
        assert bench.run(file, connections=1).code == 0


@pytest.mark.fault(97)
def test_no_port_to_go_out_by(tmp_path: Path) -> None:
    """Where every local port is taken it is 5, in the system's words; with a free one it goes."""
    apart(no_ports, tmp_path, NETWORK)


@pytest.mark.fault(97)
def test_no_descriptor_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no file and no socket can be opened any more it ends soon, with 5 or 7; then it goes on."""
    bench = Bench(tmp_path, monkeypatch)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with FaultyServer(faults.honest(DATA)) as server:
        file = pinned(server.url + "/f", DATA)
        at = bench.half(file, server, DATA)
        server.handler = faults.honest(DATA)

        def none_left(event: Event) -> None:
            if isinstance(event, Planned):
                os.close(lowest := os.open(os.devnull, os.O_RDONLY))
                resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))

        try:
            run = bench.run(file, retries=2, tell=none_left)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert run.code in (5, 7), run.report
        assert os.strerror(24) in run.error["message"]
        assert bench.run(file).row.resumed_at == at
    assert bench.final.read_bytes() == DATA


def two_families(folder: Path) -> None:
    """A name of two addresses; packets to the first, of the new kind, are lost."""
    bench = bench_in(folder)
    (folder / "hosts").write_text(f"fd00::1 {HOST}\n127.0.0.1 {HOST}\n")
    tool("mount", "--bind", str(folder / "hosts"), "/etc/hosts")
    tool("ip", "-6", "addr", "add", "fd00::2/64", "dev", "lo")
    tool("nft", "add table ip6 t; add chain ip6 t o { type filter hook output priority 0; }")
    tool("nft", "add rule ip6 t o ip6 daddr fd00::1 drop")
    stall = float((folder / "stall").read_text())
    with FaultyServer(faults.honest(DATA)) as server:
        began = time.monotonic()
        run = bench.run(pinned(f"http://{HOST}:{server.port}/f", DATA), hosts=NAMED, stall=stall, retries=1)
        took = time.monotonic() - began
    assert (run.code, run.retries, bench.final.read_bytes() == DATA) == (0, 0, True), run
    assert took <= 5.0, took


@pytest.mark.fault(94)
def test_a_dead_first_address(tmp_path: Path) -> None:
    """Where IPv6 comes first and leads nowhere, IPv4 is asked soon, within the same try."""
    (tmp_path / "stall").write_text("1")
    apart(two_families, tmp_path, NETWORK)


@pytest.mark.fault(94)
@pytest.mark.skipif(os.environ.get("MDL_LONG") != "1", reason="waits ten seconds; asked for with MDL_LONG=1")
def test_a_dead_first_address_costs_little(tmp_path: Path) -> None:
    """With the usual timeouts that takes five seconds at most."""
    (tmp_path / "stall").write_text("30")
    apart(two_families, tmp_path, NETWORK)
