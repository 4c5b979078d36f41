"""Generated: bytes of any size that look random, where any range is cheap to make."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

BLOCK = 2**20
_STAMP = 32


@dataclass(frozen=True)
class Generated:
    """``size`` bytes that look random and are the same for the same ``seed`` everywhere.

    One pseudo-random block is repeated, each time under another stamp, so that no two blocks are equal
    and a block in the wrong place shows. Length and slices are as of bytes.
    """

    size: int
    seed: int | str = 0

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, span: slice) -> bytes:
        start, stop, step = span.indices(self.size)
        if step != 1:
            raise ValueError("generated content is sliced in steps of one")
        pieces = []
        while start < stop:
            index, begin = divmod(start, BLOCK)
            end = min(begin + stop - start, BLOCK)
            pieces.append(self._within(index, begin, end))
            start += end - begin
        return b"".join(pieces)

    def _within(self, index: int, start: int, stop: int) -> bytes:
        """A part of one block."""
        filling = self._filling[max(start - _STAMP, 0) : max(stop - _STAMP, 0)]
        if start >= _STAMP:
            return filling
        stamp = hashlib.blake2b(f"{self.seed}/{index}".encode(), digest_size=_STAMP).digest()
        return stamp[start:stop] + filling

    @cached_property
    def _filling(self) -> bytes:
        return hashlib.shake_128(f"mdl/{self.seed}".encode()).digest(BLOCK - _STAMP)
