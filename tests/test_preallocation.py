"""Preallocation: blocks a little ahead of what is written, never more file, and no word where the disk knows none."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mdl.download import preallocation
from mdl.download.preallocation import AHEAD, LEAST, Preallocation
from mdl.net.ranges import ByteRange, RangeSet

SIZE = 2 * AHEAD + 5


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    number = os.open(tmp_path / "data", os.O_RDWR | os.O_CREAT)
    os.ftruncate(number, SIZE)
    yield number
    os.close(number)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """What the disk is asked for: where, and how many bytes."""
    calls: list[tuple[int, int]] = []

    def reserve(fd: int, start: int, count: int) -> int:
        calls.append((start, count))
        return 0

    monkeypatch.setattr(preallocation, "_reserve", reserve)
    return calls


def test_blocks_are_there_before_the_bytes(fd: int) -> None:
    """After a few bytes a stretch has blocks, no more than that, and the file is as long as before."""
    if preallocation._reserve(fd, 0, 4096):
        pytest.skip("this file system does not know fallocate")
    Preallocation(fd, SIZE, RangeSet()).cover(AHEAD, AHEAD + 10)
    found = os.fstat(fd)
    assert found.st_size == SIZE
    assert AHEAD <= found.st_blocks * 512 <= AHEAD + 2**20


def test_a_file_that_was_cut_is_not_made_whole(fd: int) -> None:
    """Else nobody would see that somebody cut it."""
    os.ftruncate(fd, 100)
    Preallocation(fd, SIZE, RangeSet()).cover(0, 10)
    assert os.fstat(fd).st_size == 100


def test_a_stretch_is_asked_for_once(fd: int, asked: list[tuple[int, int]]) -> None:
    """Not for each write, not past the end, and not where bytes were before."""
    blocks = Preallocation(fd, SIZE, RangeSet([ByteRange(0, 1000)]))
    for start in (0, 1000, 5000, AHEAD - 10, 2 * AHEAD):
        blocks.cover(start, min(start + 1000, SIZE))
    assert asked == [(1000, AHEAD), (2 * AHEAD, 5)]


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.ENOSPC, errno.ENOSYS])
def test_a_disk_that_cannot_is_not_asked_again(fd: int, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the write that fails, if anything does."""
    calls: list[int] = []
    monkeypatch.setattr(preallocation, "_reserve", lambda fd, start, count: calls.append(start) or number)
    blocks = Preallocation(fd, SIZE, RangeSet())
    blocks.cover(0, 10)
    blocks.cover(AHEAD, AHEAD + 10)
    assert calls == [0]


def test_a_small_file_is_left_alone(fd: int, asked: list[tuple[int, int]]) -> None:
    Preallocation(fd, LEAST - 1, RangeSet()).cover(0, 10)
    assert asked == []


def test_a_system_without_the_call_says_so(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preallocation, "_call", lambda: None)
    assert preallocation._reserve(fd, 0, 10) == errno.ENOSYS
