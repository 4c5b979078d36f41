"""Reading an archive's directory: pieces of the file, whatever their size and order."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from support.data import noise

from mdl.archive.zip_read import ReadAhead

DATA = noise(300_000)


def test_pieces_are_those_of_the_file(tmp_path: Path) -> None:
    """Each piece has the bytes of its place, in any order; only the end of the file makes one shorter."""
    place, draw = tmp_path / "a", random.Random(1)
    place.write_bytes(DATA)
    with place.open("rb") as file:
        archive = ReadAhead(file.fileno())
        for _ in range(2000):
            at, length = draw.randrange(len(DATA) + 10), draw.choice([0, 1, 30, 4096, 40_000, 100_000])
            assert archive.read(at, length) == DATA[at : at + length]


def test_neighbours_are_read_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small pieces that lie one behind the other take far fewer calls than there are pieces."""
    place, calls, real = tmp_path / "a", list[int](), os.pread
    place.write_bytes(DATA)
    monkeypatch.setattr(os, "pread", lambda fd, count, at: calls.append(count) or real(fd, count, at))
    with place.open("rb") as file:
        archive = ReadAhead(file.fileno())
        assert b"".join(archive.read(at, 100) for at in range(0, len(DATA), 100)) == DATA
    assert len(calls) <= 5
