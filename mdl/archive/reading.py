"""Reading: one file read block by block, its CRC-32 and sha256 made on the way.

The sha256, which takes longest, is made in a thread of its own while the block is packed and written.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from mdl.archive.compression import crc32

BLOCK = 2**20
"""Bytes a block has at most."""
BUFFERS, LAG = 6, 3
"""Blocks in memory, and how many of them the user of a `Reading` may hold on to at a time."""


class Reading:
    """``size`` bytes of ``fd`` from its start. ``count``, ``crc`` and ``sha256`` hold when `blocks` is through."""

    def __init__(self, fd: int, size: int, buffers: Sequence[bytearray], hashers: ThreadPoolExecutor) -> None:
        self._fd, self._size, self._buffers, self._hashers = fd, size, buffers, hashers
        self._hasher = hashlib.sha256()
        self.count = self.crc = 0

    @property
    def sha256(self) -> str:
        return self._hasher.hexdigest()

    def blocks(self) -> Iterator[memoryview]:
        """The bytes, a block at a time; each is good until `LAG` more were asked for. Raises `OSError`."""
        hashing: list[Future[None] | None] = [None] * len(self._buffers)
        turn = 0
        try:
            while self.count < self._size:
                _wait(hashing[turn])
                view = memoryview(self._buffers[turn])[: self._size - self.count]
                view = view[: os.preadv(self._fd, [view], self.count)]
                if not view:
                    break
                hashing[turn] = self._hashers.submit(self._hasher.update, view)
                self.crc = crc32(view, self.crc)
                self.count += len(view)
                turn = (turn + 1) % len(self._buffers)
                yield view
        finally:
            for future in hashing:
                _wait(future)


def _wait(future: Future[None] | None) -> None:
    if future is not None:
        future.result()
