"""Reading: one file read ahead of whoever uses it, its CRC-32 and sha256 made on the way.

A thread fills buffers while others are used; reading and both digests release the GIL. It is always a few blocks
ahead, so that neither side waits to be woken.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from mdl.archive.compression import crc32

BLOCK = 2**20
"""Bytes a block has at most."""
BUFFERS, LAG = 6, 3
"""Blocks in memory, and how many of them are good at a time."""


class Reading:
    """``size`` bytes of ``fd`` from its start. ``count``, ``crc`` and ``sha256`` hold when `blocks` is through."""

    def __init__(self, fd: int, size: int, buffers: Sequence[bytearray], pool: ThreadPoolExecutor) -> None:
        self._fd, self._left, self._buffers, self._pool = fd, size, buffers, pool
        self._hasher = hashlib.sha256()
        self.count = self.crc = 0

    @property
    def sha256(self) -> str:
        return self._hasher.hexdigest()

    def blocks(self) -> Iterator[memoryview]:
        """The bytes, a block at a time; each is good until `LAG` more were asked for. Raises `OSError`."""
        filled: deque[Future[memoryview]] = deque(self._pool.submit(self._fill, one) for one in self._buffers)
        used: deque[bytearray] = deque()
        turn = 0
        try:
            while block := filled.popleft().result():
                used.append(self._buffers[turn])
                turn = (turn + 1) % len(self._buffers)
                yield block
                if len(used) >= LAG:
                    filled.append(self._pool.submit(self._fill, used.popleft()))
        finally:
            for future in filled:
                future.exception()

    def _fill(self, buffer: bytearray) -> memoryview:
        view = memoryview(buffer)[: min(len(buffer), self._left)]
        count = os.preadv(self._fd, [view], self.count) if view else 0
        view = view[:count]
        if count:
            self._hasher.update(view)
            self.crc = crc32(view, self.crc)
            self.count += count
            self._left -= count
        return view
