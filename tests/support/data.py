"""Bytes for files, and their digests."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from support.loopback_hub import Generated

MIB = 2**20

DATA = Generated(3 * MIB, "jobs")[0 : 3 * MIB]
SMALL = b"small enough to be held in memory"


@lru_cache(maxsize=16)
def noise(size: int, seed: int = 0) -> bytes:
    """Bytes that look random, the same for the same seed."""
    return hashlib.shake_128(f"engine {seed}".encode()).digest(size)


@lru_cache(maxsize=16)
def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def flip(path: Path, *offsets: int) -> None:
    """Flip one bit of the file at each of these offsets."""
    with path.open("r+b") as file:
        for offset in offsets:
            file.seek(offset)
            byte = file.read(1)[0]
            file.seek(offset)
            file.write(bytes([byte ^ 1]))
