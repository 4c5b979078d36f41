"""RangeSet against a plain set of ints, and the reading of the headers that speak of ranges."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mdl.http.ranges import ByteRange, RangeSet
from mdl.http.responses import content_length, parse_content_range, unsatisfied_total, validator_of

calm = settings(deadline=None)

_AT = st.integers(0, 40)
_PIECES = st.lists(st.tuples(st.booleans(), _AT, _AT), max_size=25)


def _build(pieces: list[tuple[bool, int, int]]) -> tuple[RangeSet, set[int]]:
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


def _assert_tidy(ranges: list[ByteRange]) -> None:
    for one, other in itertools.pairwise(ranges):
        assert one.stop < other.start


@calm
@given(_PIECES)
@example([(True, 0, 5), (True, 5, 9)])
@example([(True, 0, 9), (False, 3, 4), (True, 3, 4)])
def test_set_holds_what_a_plain_set_holds(pieces: list[tuple[bool, int, int]]) -> None:
    """After any additions and removals it holds the same bytes as a set of ints, sorted, disjoint, non-touching."""
    ranges, model = _build(pieces)
    assert _ints(ranges) == model
    _assert_tidy(list(ranges))
    assert ranges.total == len(model)


@calm
@given(_PIECES, _AT)
def test_gaps_are_what_is_missing(pieces: list[tuple[bool, int, int]], size: int) -> None:
    """The gaps of a size are exactly the bytes below it that are not there, as few ranges as can be."""
    ranges, model = _build(pieces)
    gaps = ranges.gaps(size)
    assert _ints(gaps) == set(range(size)) - model
    _assert_tidy(gaps)


@calm
@given(_PIECES, _PIECES)
def test_without_is_the_difference(left: list[tuple[bool, int, int]], right: list[tuple[bool, int, int]]) -> None:
    """One set without another is the plain difference."""
    (ours, our_model), (theirs, their_model) = _build(left), _build(right)
    assert _ints(ours.without(theirs)) == our_model - their_model


@calm
@given(_PIECES)
def test_front_counts_from_the_start(pieces: list[tuple[bool, int, int]]) -> None:
    """The front is the first byte that is missing."""
    ranges, model = _build(pieces)
    assert ranges.front == next(n for n in range(100) if n not in model)


@calm
@given(_PIECES, _AT, _AT)
def test_copy_is_a_twin_of_its_own(pieces: list[tuple[bool, int, int]], a: int, b: int) -> None:
    """A copy is equal, and changing it leaves the first one alone."""
    ranges, model = _build(pieces)
    twin = ranges.copy()
    assert twin == ranges
    twin.add(a, b)
    assert _ints(ranges) == model
    assert (twin == ranges) == (set(range(a, b)) <= model)


@calm
@given(_PIECES, _AT)
@example([(True, 0, 10)], 5)
def test_removing_nothing_changes_nothing(pieces: list[tuple[bool, int, int]], at: int) -> None:
    """Taking an empty range out leaves the set as it was, its front too."""
    ranges, _ = _build(pieces)
    before = ranges.copy()
    ranges.remove(at, at)
    assert ranges == before


def test_set_is_begun_from_ranges() -> None:
    """A set made of ranges in any order joins those that touch."""
    made = RangeSet([ByteRange(10, 20), ByteRange(0, 5), ByteRange(5, 10)])
    assert list(made) == [ByteRange(0, 20)]
    assert made != [ByteRange(0, 20)]


@pytest.mark.parametrize(("start", "stop"), [(0, 0), (5, 5), (6, 5), (-1, 5)])
def test_empty_or_negative_range_is_no_range(start: int, stop: int) -> None:
    """A ByteRange holds at least one byte and begins at 0 or later."""
    with pytest.raises(ValueError, match="not a byte range"):
        ByteRange(start, stop)


@pytest.mark.fault(24)
@pytest.mark.parametrize(
    ("start", "stop", "header"),
    [(0, 1, "bytes=0-0"), (5, 10, "bytes=5-9"), (2**32, 2**53 + 1, f"bytes={2**32}-{2**53}")],
)
def test_header_names_the_last_byte(start: int, stop: int, header: str) -> None:
    """A Range header's end is inclusive, also beyond 2^32 and 2^53."""
    assert ByteRange(start, stop).header == header
    assert ByteRange(start, stop).length == stop - start


@calm
@given(st.integers(0, 2**60), st.integers(1, 2**40), st.none() | st.integers(0, 2**40))
def test_content_range_is_read_back(start: int, length: int, beyond: int | None) -> None:
    """A Content-Range with or without a total is read as it was written."""
    total = None if beyond is None else start + length + beyond
    text = f"bytes {start}-{start + length - 1}/{'*' if total is None else total}"
    assert parse_content_range(text) == (ByteRange(start, start + length), total)


@pytest.mark.fault(5)
@pytest.mark.parametrize(
    "text",
    [
        *("", "bytes", "bytes */10", "bytes 5-4/10", "bytes 0-10/10", "bytes 0-9/9", "bytes -5/10", "bytes 5-/10"),
        *("items 0-4/10", "bytes 0-4", "bytes 0-4/x", "bytes=0-4/10", "bytes 0-4/10, bytes 5-9/10", "bytes +0-4/10"),
        *("bytes 0-4/-1", "bytes 0x0-4/10", "bytes 0-99999999999999999999/*", "bytes 0 - 4 / 10", "bytes 0-4/1 0"),
    ],
)
def test_nonsense_is_no_content_range(text: str) -> None:
    """What is not exactly one range of a possible file is not taken for one."""
    assert parse_content_range(text) is None


def test_unsatisfied_total_is_the_size_of_a_416() -> None:
    """``bytes */N`` tells the file's size; anything else tells nothing."""
    assert unsatisfied_total({"content-range": "bytes */10"}) == 10
    for text in ("bytes 0-4/10", "bytes */*", "*/10", "bytes */-1", ""):
        assert unsatisfied_total({"content-range": text}) is None
    assert unsatisfied_total({}) is None


@pytest.mark.fault(33)
def test_content_length_is_plain_digits() -> None:
    """A Content-Length that is signed, doubled or not ASCII is unknown, never guessed."""
    assert content_length({"content-length": " 5 "}) == 5
    for text in ("-5", "+5", "5 5", "5,5", "0x5", "٥", "²", ""):
        assert content_length({"content-length": text}) is None
    assert content_length({}) is None


_NOW = "Wed, 21 Oct 2026 07:28:00 GMT"


@pytest.mark.fault(14, 15)
@pytest.mark.parametrize(
    ("headers", "validator"),
    [
        ({"etag": '"a"'}, '"a"'),
        ({"etag": '"a"', "last-modified": "Wed, 21 Oct 2020 07:28:00 GMT", "date": _NOW}, '"a"'),
        ({"etag": 'W/"a"'}, None),
        ({"last-modified": "Wed, 21 Oct 2026 07:27:00 GMT", "date": _NOW}, "Wed, 21 Oct 2026 07:27:00 GMT"),
        ({"last-modified": "Wed, 21 Oct 2026 07:27:01 GMT", "date": _NOW}, None),
        ({"last-modified": "Wed, 21 Oct 2027 07:27:01 GMT", "date": _NOW}, None),
        ({"last-modified": "Wed, 21 Oct 2020 07:28:00 GMT"}, None),
        ({"last-modified": "yesterday", "date": _NOW}, None),
        ({"last-modified": "Wed, 21 Oct 2020 07:28:00 -0000", "date": _NOW}, None),
        ({}, None),
    ],
)
def test_only_a_strong_validator_counts(headers: dict[str, str], validator: str | None) -> None:
    """A strong ETag counts, else a Last-Modified a full minute older than the answer; a weak tag never."""
    assert validator_of(headers) == validator


_FAR = "Fri, 31 Dec 99999999999999999999 23:59:59 GMT"


@pytest.mark.parametrize("text", [_FAR, "Fri, 31 Dec 2020 23:59:59 +99999999999999"])
def test_an_impossible_date_is_no_validator(text: str) -> None:
    """A date no calendar has is no validator and no fault of mdl's."""
    assert validator_of({"last-modified": text, "date": _NOW}) is None


@calm
@given(st.text(max_size=40), st.text(max_size=40))
@example("", "0\x1f")
def test_header_readers_never_fail(one: str, other: str) -> None:
    """Whatever text a server sends, reading it tells something or nothing, and never raises."""
    headers = {"etag": one, "last-modified": other, "date": one, "content-length": other, "content-range": one}
    validator_of(headers)
    content_length(headers)
    unsatisfied_total(headers)
    parse_content_range(other)
