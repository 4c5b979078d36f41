"""Reading: one file read ahead of whoever uses it, its CRC-32 and sha256 made on the way.

A thread fills one buffer while the other is used; both `readinto` and the digests release the GIL.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from mdl.archive.compression import crc32

BLOCK = 2**19
"""Bytes a block has at most."""


class Reading:
    """``size`` bytes of ``fd`` from its start. ``count``, ``crc`` and ``sha256`` hold when `blocks` is through."""

    def __init__(self, fd: int, size: int, buffers: tuple[bytearray, bytearray], pool: ThreadPoolExecutor) -> None:
        self._fd, self._left, self._buffers, self._pool = fd, size, buffers, pool
        self._hasher = hashlib.sha256()
        self.count = self.crc = 0

    @property
    def sha256(self) -> str:
        return self._hasher.hexdigest()

    def blocks(self) -> Iterator[memoryview]:
        """The bytes, a block at a time; each is good until the next is asked for. Raises `OSError`."""
        turn, filled = 0, self._pool.submit(self._fill, self._buffers[0])
        try:
            while count := filled.result():
                block = memoryview(self._buffers[turn])[:count]
                turn = 1 - turn
                filled = self._pool.submit(self._fill, self._buffers[turn])
                yield block
        finally:
            filled.exception()

    def _fill(self, buffer: bytearray) -> int:
        view = memoryview(buffer)[: min(len(buffer), self._left)]
        count = os.preadv(self._fd, [view], self.count) if view else 0
        if count:
            self._hasher.update(view[:count])
            self.crc = crc32(view[:count], self.crc)
            self.count += count
            self._left -= count
        return count
