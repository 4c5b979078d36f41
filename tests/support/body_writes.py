"""Standing in the way of a body's bytes into a file, by whichever of the two ways they come."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

Verdict = Callable[[int, int], int]
"""From where a write goes and how many bytes it has: how many of them are really written. May raise `OSError`."""


def judge_writes(patch: pytest.MonkeyPatch, verdict: Verdict) -> None:
    """Ask before each write into a file at a place, by either way; what is not written is claimed where the verdict is
    0, else not."""
    pwrite, splice = os.pwrite, os.splice

    def written(fd: int, data: bytes | memoryview, offset: int) -> int:
        count = verdict(offset, len(data))
        return pwrite(fd, data[:count], offset) if count else len(data)

    def spliced(source: int, target: int, most: int, *, offset_dst: int | None = None, flags: int = 0) -> int:
        if offset_dst is None:
            return splice(source, target, most, flags=flags)
        count = verdict(offset_dst, most)
        return (
            splice(source, target, count, offset_dst=offset_dst, flags=flags) if count else len(os.read(source, most))
        )

    patch.setattr(os, "pwrite", written)
    patch.setattr(os, "splice", spliced)
