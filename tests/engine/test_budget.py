"""Servers that bring next to nothing are given up on after a few requests, and the good mirror is asked."""

from __future__ import annotations

import pytest
from support import faults
from support.bench import Bench, pinned
from support.data import MIB, noise
from support.faults.stingy import STINGY
from support.faulty_server import FaultyServer

DATA = noise(3 * MIB)
MOST = 40
"""Requests that eight connections may spend on a server that brings nothing: five tries, or three lies, of each."""


@pytest.mark.fault(221)
@pytest.mark.parametrize("connections", [1, 8])
@pytest.mark.parametrize("name", STINGY)
def test_it_is_given_up(bench: Bench, name: str, connections: int) -> None:
    """A few requests, then the server's fault (4, 5 or 6), whatever it brings a byte at a time."""
    bench.segments(256 * 1024)
    with FaultyServer(STINGY[name](DATA)) as server:
        run = bench.run(pinned(server.url + "/f", DATA), connections=connections, retries=5)
        requests = len(server.requests)
    assert run.code in (4, 5, 6)
    assert requests <= MOST
    assert not bench.final.exists()


@pytest.mark.fault(221)
@pytest.mark.parametrize("name", STINGY)
def test_the_mirror_is_asked(bench: Bench, name: str) -> None:
    """A mirror that the catalog names brings the file, after a few requests to the server that does not."""
    with FaultyServer(STINGY[name](DATA)) as server, FaultyServer(faults.honest(DATA)) as mirror:
        run = bench.run(pinned(server.url + "/f", DATA, mirrors=[mirror.url + "/f"]), retries=5)
        requests = len(server.requests)
    assert (run.code, bench.final.read_bytes() == DATA) == (0, True)
    assert requests <= MOST


def test_what_came_is_counted(bench: Bench) -> None:
    """The message of a cut connection counts every byte that came, those read with the answer's head too."""
    with FaultyServer(STINGY["one byte, then cut"](DATA)) as server:
        run = bench.run(pinned(server.url + "/f", DATA), connections=1, retries=1)
    assert f"ended after 1 of {len(DATA)} bytes" in run.error["message"]
