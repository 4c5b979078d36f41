"""Byte ranges, and sets of them. Pure.

Ranges are half open, ``[start, stop)``, in bytes.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

from mdl.values import value_class


@value_class
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
        for item in ranges:
            self.add(item.start, item.stop)

    def add(self, start: int, stop: int) -> None:
        """Add ``[start, stop)``. An empty range changes nothing."""
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
        """Remove ``[start, stop)``. An empty range changes nothing."""
        first = bisect_right(self._stops, start)
        last = bisect_left(self._starts, stop)
        if start >= stop or first >= last:
            return
        starts: list[int] = []
        stops: list[int] = []
        if self._starts[first] < start:
            starts.append(self._starts[first])
            stops.append(start)
        if stop < self._stops[last - 1]:
            starts.append(stop)
            stops.append(self._stops[last - 1])
        self._starts[first:last] = starts
        self._stops[first:last] = stops

    def gaps(self, size: int) -> list[ByteRange]:
        """Return the ranges that are missing from ``[0, size)``."""
        whole = RangeSet()
        whole.add(0, size)
        return whole.without(self)

    def without(self, other: RangeSet) -> list[ByteRange]:
        """Return the ranges that are in this set and not in ``other``."""
        remaining = self.copy()
        for start, stop in zip(other._starts, other._stops, strict=True):
            remaining.remove(start, stop)
        return list(remaining)

    @property
    def front(self) -> int:
        """How many bytes there are from the start to the first gap."""
        return self._stops[0] if self._starts[:1] == [0] else 0

    @property
    def end(self) -> int:
        """Where the last range ends; 0 if the set is empty."""
        return self._stops[-1] if self._stops else 0

    @property
    def total(self) -> int:
        """How many bytes the set has."""
        return sum(self._stops) - sum(self._starts)

    def copy(self) -> RangeSet:
        """Return a set of its own with the same ranges."""
        copied = RangeSet()
        copied._starts = self._starts[:]
        copied._stops = self._stops[:]
        return copied

    def __iter__(self) -> Iterator[ByteRange]:
        return (ByteRange(a, b) for a, b in zip(self._starts, self._stops, strict=True))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RangeSet) and (self._starts, self._stops) == (other._starts, other._stops)

    __hash__ = None  # type: ignore[assignment]
