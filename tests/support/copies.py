"""A machine whose catalog has several models of the same bytes, and the places on its disk that may have them too."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.catalogs import catalog_of
from support.data import DATA
from support.faults import honest
from support.faulty_server import FaultyServer
from support.hf_cache import actions
from support.shell import Ran, Shell, done, machine, settings

NAMES = ("one", "two", "three")
JSON = ("--json", "--retries", "1")


def twins(home: Path, server: FaultyServer) -> Shell:
    """The models one, two and three have one file each, the same bytes under different URLs. The settings name the
    folder ``also``."""
    server.handler = honest(DATA)
    shell = machine(home, catalog_of(DATA, **{name: f"{server.url}/{name}" for name in NAMES}))
    also(shell).parent.mkdir()
    return shell


def place(shell: Shell, name: str = "one") -> Path:
    return shell.models / name / "f.bin"


def also(shell: Shell, *lines: str, folders: tuple[Path | str, ...] = ()) -> Path:
    """Another program's file in ``also``, after these other ``folders``; ``lines`` are further settings."""
    here = shell.home / "also"
    settings(shell, "\n".join(["[stores]", f"also = {[*map(str, folders), str(here)]}", *lines, ""]))
    return here / "f.bin"


@contextmanager
def second_file_system(shell: Shell) -> Iterator[Path]:
    """A folder on another file system than the home's."""
    home = os.stat(shell.home).st_dev
    for other in ("/dev/shm", "/var/tmp"):
        if os.access(other, os.W_OK) and os.stat(other).st_dev != home:
            with tempfile.TemporaryDirectory(dir=other) as folder:
                yield Path(folder)
            return
    pytest.skip("THERE IS NO SECOND FILE SYSTEM HERE")


def linked(ran: Ran) -> bool:
    """Every file came from this disk."""
    return set(actions(done(ran)).values()) == {"linked"}
