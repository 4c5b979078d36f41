"""Byte ranges and sets of them. Pure.

Ranges are half open, ``[start, stop)``, in bytes.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class ByteRange:
    """``[start, stop)``; ``stop > start >= 0``."""

    start: int
    stop: int

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.stop:
            raise ValueError(f"not a byte range: [{self.start}, {self.stop})")

    @property
    def length(self) -> int:
        return self.stop - self.start

    @property
    def header(self) -> str:
        """The value of a ``Range`` header."""
        return f"bytes={self.start}-{self.stop - 1}"


class RangeSet:
    """A growing set of bytes, kept as sorted, disjoint, non-touching ranges."""

    def __init__(self, ranges: Iterable[ByteRange] = ()) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []
        for item in sorted(ranges):
            self.add(item.start, item.stop)

    def add(self, start: int, stop: int) -> None:
        """Put ``[start, stop)`` in; an empty one changes nothing."""
        if start >= stop:
            return
        first = bisect_left(self._stops, start)
        last = bisect_right(self._starts, stop)
        if first < last:
            start = min(start, self._starts[first])
            stop = max(stop, self._stops[last - 1])
        self._starts[first:last] = [start]
        self._stops[first:last] = [stop]

    def remove(self, start: int, stop: int) -> None:
        """Take ``[start, stop)`` out; an empty one changes nothing."""
        first, last = bisect_right(self._stops, start), bisect_left(self._starts, stop)
        if start >= stop or first >= last:
            return
        left, right = (self._starts[first], start), (stop, self._stops[last - 1])
        kept = [(a, b) for a, b in (left, right) if a < b]
        self._starts[first:last] = [a for a, _ in kept]
        self._stops[first:last] = [b for _, b in kept]

    def gaps(self, size: int) -> list[ByteRange]:
        """What is missing of ``[0, size)``."""
        missing, at = [], 0
        for item in self:
            if item.start >= size:
                break
            if item.start > at:
                missing.append(ByteRange(at, item.start))
            at = item.stop
        if at < size:
            missing.append(ByteRange(at, size))
        return missing

    def without(self, other: RangeSet) -> list[ByteRange]:
        """What is here and not in ``other``."""
        found, at = [], 0
        for start, stop in zip(self._starts, self._stops, strict=True):
            while at < len(other._stops) and other._stops[at] <= start:
                at += 1
            while at < len(other._stops) and other._starts[at] < stop:
                if start < other._starts[at]:
                    found.append(ByteRange(start, other._starts[at]))
                start = other._stops[at]
                if start >= stop:
                    break
                at += 1
            if start < stop:
                found.append(ByteRange(start, stop))
        return found

    @property
    def front(self) -> int:
        """How many bytes are here without a gap from the start."""
        return self._stops[0] if self._starts and self._starts[0] == 0 else 0

    @property
    def end(self) -> int:
        """Where the last of the bytes ends; 0 where there are none."""
        return self._stops[-1] if self._stops else 0

    @property
    def total(self) -> int:
        return sum(self._stops) - sum(self._starts)

    def copy(self) -> RangeSet:
        twin = RangeSet()
        twin._starts, twin._stops = self._starts[:], self._stops[:]
        return twin

    def __iter__(self) -> Iterator[ByteRange]:
        return (ByteRange(a, b) for a, b in zip(self._starts, self._stops, strict=True))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RangeSet) and (self._starts, self._stops) == (other._starts, other._stops)

    __hash__ = None  # type: ignore[assignment]
