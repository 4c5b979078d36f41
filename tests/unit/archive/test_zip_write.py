"""The writer's sink: what it says of the bytes is true of the file, however quick its threads are."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from mdl.archive.zip_write import ArchiveSink

MIB = 2**20


@pytest.mark.parametrize("sizes", [(16 * MIB, 9), (16 * MIB, 16 * MIB, 9), (9, 16 * MIB, MIB)])
def test_bytes_may_change_after_the_next_call(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    """The digest is that of the file when the caller fills one buffer again after each next call, which may only keep
    its few bytes for later. It was that of other bytes: a large block was still being hashed."""
    buffer = bytearray(16 * MIB)
    fd = os.open(tmp_path / "out", os.O_RDWR | os.O_CREAT)
    try:
        with ArchiveSink(fd, digest=True) as sink:
            for number, size in enumerate(sizes, 1):
                buffer[:size] = bytes([number]) * size
                sink.write(memoryview(buffer)[:size])
                sink.write(b"next")
    finally:
        os.close(fd)
    assert sink.sha256 == hashlib.sha256((tmp_path / "out").read_bytes()).hexdigest()
    assert sink.at == (tmp_path / "out").stat().st_size
