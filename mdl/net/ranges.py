"""Byte ranges, sets of them, and which bytes of a file a request asks for. Pure.

Ranges are half open, ``[start, stop)``, in bytes.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping
from http import HTTPStatus

from mdl.values import value_class

_RANGE = re.compile(r"bytes=[ \t]*(?=-?[0-9])([0-9]{0,18})-([0-9]{0,18})[ \t]*", re.IGNORECASE)
_WEAK = re.compile(r'\bW/(?=")')
"""What marks a weak validator."""


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


# What a server answers to a conditional or ranged request (RFC 9110, 13 and 14).


@value_class
class Answer:
    """The status of an answer, and the bytes ``[start, stop)`` of the file that are its body."""

    status: HTTPStatus
    start: int = 0
    stop: int = 0


def answer_to(headers: Mapping[str, str], size: int, etag: str) -> Answer:
    """How to answer a GET or HEAD for a file of ``size`` bytes with this strong ``etag``.

    ``headers`` are the request's, with lower-case names. A Range that is malformed, or names several ranges, is
    ignored, as a server may: then the whole file is the answer.
    """
    if not _matches(headers.get("if-match", "*"), etag):
        return Answer(HTTPStatus.PRECONDITION_FAILED)
    if _matches(_WEAK.sub("", headers.get("if-none-match", "")), etag):
        return Answer(HTTPStatus.NOT_MODIFIED)
    whole = Answer(HTTPStatus.OK, 0, size)
    asked = _RANGE.fullmatch(headers.get("range", ""))
    if asked is None or headers.get("if-range", etag) != etag:
        return whole
    first, last = asked.groups()
    if not first:
        return _part(max(0, size - int(last)), size)
    if not last:
        return _part(int(first), size)
    if int(last) < int(first):
        return whole
    return _part(int(first), min(int(last) + 1, size))


def _part(start: int, stop: int) -> Answer:
    if start >= stop:
        return Answer(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
    return Answer(HTTPStatus.PARTIAL_CONTENT, start, stop)


def _matches(validators: str, etag: str) -> bool:
    """Return whether a list of validators has this strong one, or is ``*``."""
    listed = [validator.strip() for validator in validators.split(",")]
    return "*" in listed or etag in listed
