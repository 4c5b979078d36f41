"""A private network that loses packets or breaks, and a system without free ports or descriptors (faults, group E)."""

from __future__ import annotations

import os
import resource
import socket
import struct
from pathlib import Path

import pytest
from support import faults
from support.bench import Bench, pinned
from support.data import MIB, noise, sha256
from support.faulty_server import FaultyServer
from support.long import LONG
from support.namespaces import NETWORK, apart, loopback, tool
from support.shell import done, machine

from mdl.events import Event, Planned, Retrying

DATA, SMALL = noise(4 * MIB), noise(1500 * 1000, 1)


def bench_in(folder: Path) -> Bench:
    loopback()
    return Bench(folder, pytest.MonkeyPatch())


def lossy(folder: Path) -> None:
    """8 Mbit/s, every twentieth packet lost."""
    bench = bench_in(folder)
    tool("ip", "link", "set", "lo", "mtu", "1500")
    with FaultyServer(faults.honest(SMALL)) as server:
        tool("nft", "add table ip t; add chain ip t i { type filter hook input priority 0; }")
        tool("nft", f"add rule ip t i tcp sport {server.port} numgen random mod 100 < 5 drop")
        tool("tc", *["qdisc", "replace", "dev", "lo", "root", "tbf", "rate", "8mbit", "burst", "32k", "limit", "1m"])
        run = bench.run(pinned(server.url + "/f", SMALL), retries=1)
    assert (run.code, run.retries, run.rewound) == (0, 0, 0), run
    assert bench.final.read_bytes() == SMALL


@pytest.mark.fault(95)
def test_a_bad_line(tmp_path: Path) -> None:
    """Over a slow line that loses packets a file takes its time and comes whole, and no request fails."""
    apart(lossy, tmp_path, NETWORK)


def drop_packets(port: int) -> None:
    """From now on every packet to and from the port is lost."""
    tool("nft", "add table ip t; add chain ip t in { type filter hook input priority 0; }")
    tool("nft", f"add rule ip t in tcp dport {port} drop; add rule ip t in tcp sport {port} drop")


BREAKS = {
    "interface": (lambda _: tool("ip", "link", "set", "lo", "down"), loopback),
    "packets": (drop_packets, lambda: tool("nft", "flush ruleset")),
}
"""What breaks the network and what mends it."""


def broken(folder: Path, how: str) -> None:
    """The network breaks in the middle of a body and is mended after two tries in vain."""
    bench, why = bench_in(folder), list[str]()
    breaks, mends = BREAKS[how]
    mends()  # what is not installed is found here, where it skips the test; in the server's thread it would fail it
    breaking = faults.acting_at(lambda: breaks(server.port), DATA, 2 * MIB)

    def listen(event: Event) -> None:
        if isinstance(event, Retrying):
            why.append(event.why)
            if len(why) == 2:
                mends()

    with FaultyServer(faults.first(1, breaking, faults.honest(DATA))) as server:
        file = pinned(server.url + "/f", DATA)
        run = bench.run(file, stall=0.5, retries=9, tell=listen, connections=1)
        asked = [request.header("range") for request in server.requests]
    assert (run.code, run.rewound, run.report and run.report.bytes_fetched) == (0, 0, len(DATA)), (run, why)
    assert len(asked) == 2, asked
    assert bench.final.read_bytes() == DATA
    assert how != "packets" or ("no byte" in why[0] and "in time" in why[1]), why


@pytest.mark.parametrize(
    "how",
    [
        pytest.param("interface", marks=pytest.mark.fault(96)),
        pytest.param("packets", marks=pytest.mark.fault(63, 64)),
    ],
)
def test_the_network_breaks(tmp_path: Path, how: str) -> None:
    """While the interface is down or every packet is lost, mdl tries again; once mended, it goes on at the byte."""
    apart(broken, tmp_path, NETWORK, how)


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
    """If every local port is taken it is 5, in the system's words; with a free one it goes."""
    apart(no_ports, tmp_path, NETWORK)


@pytest.mark.fault(97)
def test_no_descriptor_left(bench: Bench) -> None:
    """If no file and no socket can be opened any more it ends soon, with 5 or 7; then it goes on."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    def none_left(event: Event) -> None:
        if isinstance(event, Planned):
            os.close(lowest := os.open(os.devnull, os.O_RDONLY))
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))

    with FaultyServer(faults.honest(DATA)) as server:
        file = pinned(server.url + "/f", DATA)
        at = bench.half(file, server, DATA)
        server.handler = faults.honest(DATA)
        try:
            run = bench.run(file, retries=2, tell=none_left)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert run.code in (5, 7), run.report
        assert os.strerror(24) in run.error["message"]
        assert bench.run(file).row.resumed_at == at
    assert bench.final.read_bytes() == DATA


@pytest.mark.parametrize("descriptors", [32, 48, 64, 128] if LONG else [32, 128])
def test_few_descriptors(tmp_path: Path, descriptors: int) -> None:
    """With few files and sockets to open (ulimit -n) mdl fetches fewer files at once, and all of them, small and large,
    from a host that redirects each to another one."""
    files = {f"/{number}": noise(2 * MIB if number % 4 == 0 else 20_000, number) for number in range(100)}
    with FaultyServer(faults.routes({path: faults.honest(data) for path, data in files.items()})) as far:
        hops = {path: faults.redirects(far.url + path) for path in files}
        with FaultyServer(faults.routes(hops)) as server:
            text = "schema = 1\n[models.one]\n"
            for path, data in files.items():
                facts = f'size = {len(data)}\nsha256 = "{sha256(data)}"\n'
                text += f'[[models.one.files]]\npath = "{path[1:]}"\nurl = "{server.url}{path}"\n{facts}'
            shell = machine(tmp_path / "home", text, MDL_CONNECTIONS="64")
            done(shell.run("get", "one", prefix=("prlimit", f"--nofile={descriptors}")))
    assert len(list((shell.models / "one").iterdir())) == len(files)
