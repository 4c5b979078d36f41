"""A machine that knows one model, ``one``, whose only file is `SMALL`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.faults import honest
from support.faulty_server import FaultyServer
from support.job_machine import SMALL, entry_of, machine
from support.shell import Shell


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with FaultyServer(honest(SMALL)) as server:
        yield server


@pytest.fixture
def shell(tmp_path: Path, server: FaultyServer) -> Shell:
    return machine(tmp_path / "home", "schema = 1\n" + entry_of("one", f"{server.url}/f", SMALL))
