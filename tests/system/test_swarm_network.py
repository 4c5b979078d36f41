"""Eight machines in network namespaces that find each other by themselves, behind one origin of 400 Mbit/s."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.data import MIB, noise
from support.faults import honest
from support.faulty_server import FaultyServer
from support.long import only_long
from support.shell import beside, ended
from support.swarms import node, torrent_of

COUNT = 8
_WORDS = "LIBTORRENT, ROOT, IP OR TC IS NOT HERE: no network of machines is tried"
pytestmark = [
    only_long("eight machines: half a minute"),
    pytest.mark.skipif(
        not (
            importlib.util.find_spec("libtorrent") and os.geteuid() == 0 and shutil.which("ip") and shutil.which("tc")
        ),
        reason=_WORDS,
    ),
]


@pytest.fixture
def bridge() -> Iterator[str]:
    """A bridge with the address 10.78.0.1, to which namespaces ``mdlsw1`` … with 10.78.0.2 … are connected."""
    with contextlib.ExitStack() as stack:

        def ip(*words: str) -> None:
            made = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
            if made.returncode:
                pytest.skip(f"NO NETWORK OF MACHINES HERE: {made.stderr.strip()}")

        def remove(*words: str) -> None:
            stack.callback(subprocess.run, ["ip", *words], capture_output=True, check=False)

        ip("link", "add", "mdlswb", "type", "bridge")
        remove("link", "del", "mdlswb")
        ip("addr", "add", "10.78.0.1/24", "dev", "mdlswb")
        ip("link", "set", "mdlswb", "up")
        for number in range(1, COUNT + 1):
            name, link = f"mdlsw{number}", f"mdlswv{number}"
            ip("netns", "add", name)
            remove("netns", "del", name)
            ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("link", "set", link, "master", "mdlswb", "up")
            ip("-n", name, "addr", "add", f"10.78.0.{number + 1}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                ip("-n", name, "link", "set", device, "up")
            ip("-n", name, "route", "add", "224.0.0.0/4", "dev", "eth0")
        yield "10.78.0.1"


def test_eight_machines_take_one_copy(tmp_path: Path, bridge: str) -> None:
    """Nobody names a peer: all eight end with the right bytes, and the origin sends less than four of the eight
    copies: mostly one, and more if the machines see each other late."""
    data = noise(64 * MIB, 8)
    torrent = torrent_of(data, tmp_path / "made")
    with FaultyServer(honest(data), address=bridge) as server, contextlib.ExitStack() as stack:
        nodes = [node(tmp_path / str(n), f"{server.url}/{n}", data, *torrent) for n in range(1, COUNT + 1)]
        words = ("get", "one", "--swarm", "--limit-rate", "12M")
        running = [
            stack.enter_context(beside(one, "ip", "netns", "exec", f"mdlsw{number}", *one.command(*words)))
            for number, one in enumerate(nodes, 1)
        ]
        for process in running:
            ended(process, 0)
        sent = server.bytes_sent
    assert all((one.models / "one" / "f.bin").read_bytes() == data for one in nodes)
    assert sent < 4 * len(data)
