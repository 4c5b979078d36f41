"""Limits: how much an archive may hold before it is taken for a bomb. Pure; the disk's room is another question."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mdl.archive.headers import Listed
from mdl.errors import Unsafe

_HARMLESS = 100 * 2**20
"""Bytes that no ratio makes dangerous."""


@dataclass(frozen=True)
class Limits:
    """``members`` in all; ``ratio`` of unpacked to packed bytes above 100 MiB; ``bytes`` unpacked, None for any."""

    members: int = 1_000_000
    ratio: float = 200.0
    bytes: int | None = None

    def check_count(self, count: int) -> None:
        """Raises `Unsafe` for more members than allowed."""
        if count > self.members:
            hint = "--max-members allows more, where you trust its source"
            raise Unsafe(f"{count:,} members, the limit is {self.members:,}", hint=hint)

    def check(self, members: Iterable[Listed]) -> None:
        """Hold the sizes against the limits. Raises `Unsafe`."""
        size = packed = 0
        for member in members:
            size, packed = size + member.size, packed + member.packed
            self._check_ratio(member.size, member.packed, member.shown)
        self._check_ratio(size, packed, None)
        if self.bytes is not None and size > self.bytes:
            what = f"it unpacks to {size:,} bytes and {self.bytes:,} are allowed by --max-size"
            raise Unsafe(what, hint="nothing was written")

    def _check_ratio(self, size: int, packed: int, item: str | None) -> None:
        if size > _HARMLESS and size > self.ratio * max(packed, 1):
            hint = "--max-ratio allows more, where you trust its source"
            raise Unsafe(f"{packed:,} bytes unpack to {size:,}, more than {self.ratio:g} to 1", item=item, hint=hint)
