"""Reading an archive's directory: pieces of the file, whatever their size and order."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from support.cases import each
from support.data import noise
from support.zip_bytes import Zip

from mdl.archive.base import ArchiveLimits
from mdl.archive.zip_read import ReadAhead, read_directory
from mdl.errors import ProtocolError

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


@each("comment", [b"", b"a comment"])
def test_a_cut_in_the_end_record(tmp_path: Path, comment: bytes) -> None:
    """A zip that lost the end of its end record, or of the comment in it, is called cut."""
    whole = Zip(comment=comment).build()
    place = tmp_path / "a.zip"
    for lost in range(1, 19 + len(comment)):
        place.write_bytes(whole[:-lost])
        with place.open("rb") as file, pytest.raises(ProtocolError, match="cut in its end record"):
            read_directory(file.fileno(), ArchiveLimits())
