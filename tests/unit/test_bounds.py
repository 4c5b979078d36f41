"""Things from outside are measured before they are converted."""

from __future__ import annotations

import math
from typing import Any

import pytest
from support.cases import each

from mdl.bounds import (
    LARGEST_NUMBER,
    OutOfBounds,
    at_most,
    brief,
    finite_number,
    parse_json,
    parse_number,
    parse_whole_number,
    whole_number,
)

LONG = "9" * 6000
HUGE = 1 << 24_000
"""A number that Python does not write."""


@pytest.mark.parametrize("value", [0, 1, LARGEST_NUMBER])
def test_whole_numbers(value: int) -> None:
    """What fits into 63 bits is a count or a size, as a number and as text."""
    assert whole_number(value) == value
    assert parse_whole_number(str(value)) == value
    assert parse_whole_number("00" + str(value)) == value


@each("value", [-1, LARGEST_NUMBER + 1, HUGE, True, 1.0, math.inf, math.nan, "1", None, []], ids=brief)
def test_what_is_no_whole_number(value: object) -> None:
    """Anything else is refused in words that can be printed, also for a number that Python cannot write."""
    with pytest.raises(OutOfBounds) as caught:
        whole_number(value)
    assert len(str(caught.value)) < 120


@each("text", ["", "-1", "+1", " 1", "1.0", "1_0", "٣", "²", "0x10", str(2**63), LONG, "0" * 6000], ids=brief)
def test_what_is_no_text_of_a_whole_number(text: str) -> None:
    """Only the digits 0 to 9 count, and not thousands of them."""
    with pytest.raises(OutOfBounds) as caught:
        parse_whole_number(text)
    assert len(str(caught.value)) < 120


@each("value", [math.inf, math.nan, -1, HUGE, True, "1"], ids=brief)
def test_what_is_no_finite_number(value: object) -> None:
    """A number of seconds or bytes is one that a clock and a disk can have."""
    with pytest.raises(OutOfBounds):
        finite_number(value)


@each("text", ["nan", "inf", "1e999", "-1", LONG, "1e", "", "0x1"], ids=brief)
def test_what_is_no_text_of_a_number(text: str) -> None:
    """The same as text."""
    with pytest.raises(OutOfBounds):
        parse_number(text)


def test_numbers_of_a_json_document() -> None:
    """What is beyond 64 bits is a float, and so no size; what stands beside it is read all the same."""
    facts = parse_json('{"inode": 18446744073709551615, "model_max_length": 1000000000000000019884624838656}')
    assert facts == {"inode": 2**64 - 1, "model_max_length": 1e30}
    assert type(facts["model_max_length"]) is float


@each("text", [LONG, f"-{LONG}", f"0.{LONG}", f"[{LONG}]", "NaN", "Infinity", "1e999", "[" * 100_000])
def test_documents_that_are_refused(text: str) -> None:
    """Numbers of thousands of digits, numbers that are none, and brackets without end."""
    with pytest.raises(OutOfBounds) as caught:
        parse_json(text)
    assert len(str(caught.value)) < 120


@pytest.mark.parametrize(("text", "value"), [("NaN", "nan"), ("-Infinity", "-inf"), ("1e999", "inf")])
def test_numbers_of_trainers(text: str, value: str) -> None:
    """A loss that is NaN is no reason to refuse a trainer's record."""
    assert str(parse_json(text, allow_nan=True)) == value
    with pytest.raises(OutOfBounds):
        parse_json(LONG, allow_nan=True)


def test_sizes_are_checked_first() -> None:
    """Too many things are refused before one of them is looked at."""
    assert at_most([1, 2], 2, "things") == [1, 2]
    with pytest.raises(OutOfBounds, match="more than 2 things"):
        at_most([1, 2, 3], 2, "things")
    with pytest.raises(OutOfBounds, match="more than 3 bytes of JSON"):
        parse_json(b"[12]", most=3)


@each(
    ("value", "words"),
    [(None, "null"), (True, "true"), (1, "1"), (1.5, "1.5"), ("a\n", r"'a\n'"), ({}, "a table"), ([], "a list")],
)
def test_values_in_a_message(value: Any, words: str) -> None:
    """A value is named in a few harmless characters."""
    assert brief(value) == words
    assert brief("é" * 1000) == r"'\xe9\xe9\xe9\xe9\xe9\xe9\xe9\xe9\xe9\xe9\xe9\xe9\xe9\xe9\xe9\xe9\xe9\xe9\xe9\xe9...'"
