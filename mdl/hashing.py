"""Hashing: digests, which are an algorithm and its hex, and the hashing of files.

Two algorithms verify hub files: ``sha256`` for large ones, ``git-sha1`` (the git blob id,
``sha1("blob <size>\\0" + bytes)``) for the small ones that live in git itself.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Callable, Iterator

from mdl.errors import ProtocolError
from mdl.values import small_value_class

PREFIX_STEP = 16 * 2**20
"""Bytes between two prefix digests: the running digest is copied at every multiple of this."""

_READ = 2**20
_HEX = {"sha256": "[0-9a-f]{64}", "git-sha1": "[0-9a-f]{40}"}
_OF_LENGTH = {64: "sha256", 40: "git-sha1"}
"""Algorithms by the number of hex digits of what they give."""


@small_value_class
class Digest:
    """``algorithm`` is ``sha256`` or ``git-sha1``; ``hex`` is lower case and of the right length."""

    algorithm: str
    hex: str

    @classmethod
    def parse(cls, algorithm: str, text: str) -> Digest:
        """Strict: anything but lower-case hex of the right length raises `ProtocolError`."""
        pattern = _HEX.get(algorithm)
        if pattern is None or not re.fullmatch(pattern, text):
            raise ProtocolError(f"not a {algorithm} digest: {text[:80]!r}")
        return cls(sys.intern(algorithm), text)

    @classmethod
    def of_etag(cls, etag: str | None) -> Digest | None:
        """Return the digest that a hub's ETag is: a sha256 if it has 64 hex digits, a git blob id if it has 40, else
        None."""
        text = (etag or "").removeprefix("W/").strip('"')
        algorithm = _OF_LENGTH.get(len(text))
        if algorithm is None or not re.fullmatch(_HEX[algorithm], text):
            return None
        return cls(algorithm, text)

    @property
    def sha256(self) -> str | None:
        """Its hex if it is a sha256; else None."""
        return self.hex if self.algorithm == "sha256" else None

    def contradicts(self, other: Digest) -> bool:
        """Return whether the two are of different bytes: digests of two algorithms may be of the same."""
        return self.algorithm == other.algorithm and self.hex != other.hex

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"


def new_hasher(algorithm: str, size: int) -> hashlib._Hash:
    """Return a running hash; ``size`` (bytes of the whole file) is part of a git blob id."""
    if algorithm == "git-sha1":
        return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    return hashlib.sha256()


def read_blocks(fd: int, start: int, stop: int, buffer: bytearray | None = None) -> Iterator[memoryview]:
    """Yield the bytes ``[start, stop)`` of an open file in views of one reused buffer; ends early at end of file."""
    view = memoryview(buffer if buffer is not None else bytearray(min(_READ, max(0, stop - start))))
    while start < stop:
        count = os.preadv(fd, [view[: min(len(view), stop - start)]], start)
        if count == 0:
            return
        yield view[:count]
        start += count


@small_value_class
class Fingerprint:
    """The digest of a whole file, its size in bytes, and the hex of a prefix digest every `PREFIX_STEP` bytes."""

    digest: Digest
    size: int
    prefixes: tuple[str, ...] = ()


def fingerprint(fd: int, algorithm: str, *, watch: Callable[[int], None] | None = None) -> Fingerprint:
    """Hash an open file from its start. ``watch`` is called with the bytes read so far and may raise to stop."""
    size = os.fstat(fd).st_size
    hasher = new_hasher(algorithm, size)
    done = 0
    prefixes = []
    for edge in (*range(PREFIX_STEP, size, PREFIX_STEP), size):
        for block in read_blocks(fd, done, edge):
            hasher.update(block)
            done += len(block)
            if watch:
                watch(done)
        if done % PREFIX_STEP == 0 and done:
            prefixes.append(hasher.copy().hexdigest())
    return Fingerprint(Digest(algorithm, hasher.hexdigest()), done, tuple(prefixes))
