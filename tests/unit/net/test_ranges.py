"""RangeSet compared with a plain set of ints, and the parsing of the headers about ranges and versions."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.cases import each

from mdl.net.headers import content_length, parse_content_range, unsatisfied_total, validator_of
from mdl.net.ranges import ByteRange, RangeSet

calm = settings(deadline=None)

_AT = st.integers(0, 40)
_PIECES = st.lists(st.tuples(st.booleans(), _AT, _AT), max_size=25)
Pieces = list[tuple[bool, int, int]]


def _build(pieces: Pieces) -> tuple[RangeSet, set[int]]:
    """The same additions and removals done to a RangeSet and to a plain set."""
    ranges, model = RangeSet(), set[int]()
    for adding, a, b in pieces:
        if adding:
            ranges.add(a, b)
            model |= set(range(a, b))
        elif a < b:
            ranges.remove(a, b)
            model -= set(range(a, b))
    return ranges, model


def _ints(ranges: list[ByteRange] | RangeSet) -> set[int]:
    return {n for item in ranges for n in range(item.start, item.stop)}


def _is_tidy(ranges: list[ByteRange]) -> bool:
    return all(one.stop < other.start for one, other in itertools.pairwise(ranges))


@calm
@given(_PIECES, _PIECES, _AT)
@example([(True, 0, 5), (True, 5, 9)], [], 7)
@example([(True, 0, 9), (False, 3, 4), (True, 3, 4)], [(True, 3, 4)], 12)
def test_set_is_a_set_of_ints(pieces: Pieces, others: Pieces, size: int) -> None:
    """After any additions and removals it has the bytes, gaps, front and differences of a set of ints, as few sorted,
    disjoint, non-touching ranges."""
    ranges, model = _build(pieces)
    assert (_ints(ranges), ranges.total) == (model, len(model))
    assert _ints(ranges.gaps(size)) == set(range(size)) - model
    assert _is_tidy(list(ranges))
    assert _is_tidy(ranges.gaps(size))
    assert ranges.front == next(n for n in range(100) if n not in model)
    assert ranges.end == max(model, default=-1) + 1
    other, other_model = _build(others)
    assert _ints(ranges.without(other)) == model - other_model


@calm
@given(_PIECES, _AT, _AT)
@example([(True, 0, 10)], 5, 5)
def test_copy_is_independent(pieces: Pieces, a: int, b: int) -> None:
    """A copy is equal, and a change of the copy does not change the original. To remove nothing changes nothing."""
    ranges, model = _build(pieces)
    twin = ranges.copy()
    ranges.remove(a, a)
    assert twin == ranges
    twin.add(a, b)
    assert _ints(ranges) == model
    assert (twin == ranges) == (set(range(a, b)) <= model)


def test_set_of_given_ranges() -> None:
    """A set made of ranges in any order joins those that touch."""
    made = RangeSet([ByteRange(10, 20), ByteRange(0, 5), ByteRange(5, 10)])
    assert list(made) == [ByteRange(0, 20)]
    assert made != [ByteRange(0, 20)]


@pytest.mark.parametrize(("start", "stop"), [(0, 0), (5, 5), (6, 5), (-1, 5)])
def test_no_byte_range(start: int, stop: int) -> None:
    """A ByteRange holds at least one byte and begins at 0 or later."""
    with pytest.raises(ValueError, match="not a byte range"):
        ByteRange(start, stop)


@pytest.mark.fault(24)
@pytest.mark.parametrize(
    ("start", "stop", "header"),
    [(0, 1, "bytes=0-0"), (5, 10, "bytes=5-9"), (2**32, 2**53 + 1, f"bytes={2**32}-{2**53}")],
)
def test_range_header(start: int, stop: int, header: str) -> None:
    """The end of a Range header is inclusive, also beyond 2^32 and 2^53."""
    found = ByteRange(start, stop)
    assert (found.header, found.length) == (header, stop - start)


@calm
@given(st.integers(0, 2**60), st.integers(1, 2**40), st.none() | st.integers(0, 2**40))
def test_content_range(start: int, length: int, beyond: int | None) -> None:
    """A Content-Range with or without a total is parsed as it was written."""
    total = None if beyond is None else start + length + beyond
    text = f"bytes {start}-{start + length - 1}/{'*' if total is None else total}"
    assert parse_content_range(text) == (ByteRange(start, start + length), total)


@pytest.mark.fault(5)
@each(
    "text",
    [
        *("", "bytes", "bytes */10", "bytes 5-4/10", "bytes 0-10/10", "bytes 0-9/9", "bytes -5/10", "bytes 5-/10"),
        *("items 0-4/10", "bytes 0-4", "bytes 0-4/x", "bytes=0-4/10", "bytes 0-4/10, bytes 5-9/10", "bytes +0-4/10"),
        *(f"bytes 0-4/{2**63}", f"bytes 0-{2**63}/*"),
        *("bytes 0-4/-1", "bytes 0x0-4/10", "bytes 0-99999999999999999999/*", "bytes 0 - 4 / 10", "bytes 0-4/1 0"),
    ],
)
def test_no_content_range(text: str) -> None:
    """Anything but exactly one range of a possible file is refused."""
    assert parse_content_range(text) is None


def test_the_largest_file() -> None:
    """No file has more bytes than 63 bits can count, and one of just as many is a file."""
    assert parse_content_range(f"bytes 0-4/{2**63 - 1}") == (ByteRange(0, 5), 2**63 - 1)


@pytest.mark.fault(33)
@each(
    ("headers", "total", "length"),
    [
        ({"content-range": "bytes */10", "content-length": " 5 "}, 10, 5),
        *(({"content-range": text}, None, None) for text in ("bytes 0-4/10", "bytes */*", "*/10", "bytes */-1", "")),
        *(({"content-length": text}, None, None) for text in ("-5", "+5", "5 5", "5,5", "0x5", "٥", "²", "")),
        ({}, None, None),
    ],
)
def test_sizes(headers: dict[str, str], total: int | None, length: int | None) -> None:
    """The size in ``bytes */N`` and in a Content-Length is plain digits. Any other text is unknown, never guessed."""
    assert (unsatisfied_total(headers), content_length(headers)) == (total, length)


_NOW, _OLD = "Wed, 21 Oct 2026 07:28:00 GMT", "Wed, 21 Oct 2020 07:28:00 GMT"
_FAR = "Fri, 31 Dec 99999999999999999999 23:59:59 GMT"


@pytest.mark.fault(14, 15)
@each(
    ("headers", "validator"),
    [
        ({"etag": '"a"'}, '"a"'),
        ({"etag": '"a"', "last-modified": _OLD, "date": _NOW}, '"a"'),
        ({"etag": 'W/"a"'}, None),
        ({"last-modified": "Wed, 21 Oct 2026 07:27:00 GMT", "date": _NOW}, "Wed, 21 Oct 2026 07:27:00 GMT"),
        ({"last-modified": "Wed, 21 Oct 2026 07:27:01 GMT", "date": _NOW}, None),
        ({"last-modified": "Wed, 21 Oct 2027 07:27:01 GMT", "date": _NOW}, None),
        ({"last-modified": _OLD}, None),
        ({"last-modified": "yesterday", "date": _NOW}, None),
        ({"last-modified": "Wed, 21 Oct 2020 07:28:00 -0000", "date": _NOW}, "Wed, 21 Oct 2020 07:28:00 -0000"),
        ({"last-modified": _FAR, "date": _NOW}, None),
        ({"last-modified": "Fri, 31 Dec 2020 23:59:59 +99999999999999", "date": _NOW}, None),
        ({}, None),
    ],
)
def test_validator(headers: dict[str, str], validator: str | None) -> None:
    """A strong ETag counts, else a Last-Modified that is at least a minute older than the response. A weak ETag and an
    impossible date do not."""
    assert validator_of(headers) == validator


@calm
@given(st.text(max_size=40), st.text(max_size=40))
@example("", "0\x1f")
def test_any_header_is_survived(one: str, other: str) -> None:
    """Whatever text a server sends, parsing it never raises."""
    headers = {"etag": one, "last-modified": other, "date": one, "content-length": other, "content-range": one}
    validator_of(headers)
    content_length(headers)
    unsatisfied_total(headers)
    parse_content_range(other)
