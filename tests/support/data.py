"""Bytes for files, and what they are known by."""

from __future__ import annotations

import hashlib

from support.loopback_hub import Generated

MIB = 2**20

DATA = Generated(3 * MIB, "jobs")[0 : 3 * MIB]
SMALL = b"small enough to be held in memory"


def noise(size: int, seed: int = 0) -> bytes:
    """Bytes that look random, the same for the same seed."""
    return hashlib.shake_128(f"engine {seed}".encode()).digest(size)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
