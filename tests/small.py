"""A machine that knows one model, ``one``, whose only file is `SMALL`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from faults import honest
from faulty import FaultyServer
from jobbing import SMALL, entry_of, machine
from shell import Shell


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with FaultyServer(honest(SMALL)) as server:
        yield server


@pytest.fixture
def shell(tmp_path: Path, server: FaultyServer) -> Shell:
    return machine(tmp_path / "home", "schema = 1\n" + entry_of("one", f"{server.url}/f", SMALL))
