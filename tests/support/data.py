"""Bytes for files, and their digests."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from support.generated import Generated

MIB = 2**20

DATA = Generated(3 * MIB, "jobs")[0 : 3 * MIB]
SMALL = b"\0small enough to be held in memory"


@lru_cache(maxsize=16)
def noise(size: int, seed: int = 0) -> bytes:
    """Bytes that look random, the same for the same seed."""
    return hashlib.shake_128(f"engine {seed}".encode()).digest(size)


@lru_cache(maxsize=16)
def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """These files, by their paths below a folder."""
    for path, data in files.items():
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)


def files_below(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def spoil(path: Path, data: bytes) -> None:
    """Other bytes under the old times, as of a disk that is failing: no program wrote them."""
    times = path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def flip(path: Path, *offsets: int) -> None:
    """Flip one bit of the file at each of these offsets, under the old times: no program did it."""
    times = path.stat()
    with path.open("r+b") as file:
        for offset in offsets:
            file.seek(offset)
            byte = file.read(1)[0]
            file.seek(offset)
            file.write(bytes([byte ^ 1]))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
