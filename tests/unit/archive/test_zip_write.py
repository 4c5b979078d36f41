"""The writer's sink: what it says of the bytes is true of the file, however quick its threads are."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator

import pytest

from mdl.archive.zip_write import ArchiveSink

MIB = 2**20


@pytest.fixture
def fd() -> Iterator[int]:
    """Takes bytes at once, so that hashing is what lasts."""
    fd = os.open(os.devnull, os.O_WRONLY)
    yield fd
    os.close(fd)


@pytest.mark.parametrize("following", [9, MIB])
def test_bytes_may_change_after_the_next_call(fd: int, following: int) -> None:
    """The digest is that of what was written, also if the next call has so few bytes that they are kept for later. It
    was that of other bytes: a large block was still being hashed when its buffer was filled again."""
    large = bytearray(64 * MIB)
    expected = hashlib.sha256()
    with ArchiveSink(fd, digest=True) as sink:
        for number in range(3):
            large[-9:] = b"%09d" % number
            for data in (large, bytes(following)):
                sink.write(data)
                expected.update(data)
    assert sink.sha256 == expected.hexdigest()
    assert sink.at == 3 * (len(large) + following)
