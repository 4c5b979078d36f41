"""TOML from an untrusted file, read in bounded time and without a traceback. Pure."""

from __future__ import annotations

import math
import re
import tomllib
from bisect import bisect_right
from collections.abc import Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from mdl.bounds import LARGEST_NUMBER, LONGEST_NUMBER, LONGEST_QUOTE
from mdl.values import value_class

if TYPE_CHECKING:
    from mdl.toml.positions import Key, Span

_LARGE_NUMBER = re.compile(
    r"(?:[=\[,]|^)[ \t]*+(?P<number>[+-]?[0-9](?:[0-9A-Za-z_.+-]{17,}+|[0-9_.]*+[eE][+-]?[0-9_]{3,}+))(?![ \t]*+=)",
    re.MULTILINE,
)
"""A text that may be a number beyond 64 bits: at least 18 characters (``0x8000000000000000``), or an exponent of 3
digits."""
_LONG_NUMBER = r"[+-]?(0[xob])?[0-9A-Fa-f_]+|[+-]?[0-9_.]+([eE][+-]?[0-9_]+)?"
_SHOWN_DIGITS = 20
_MOST_DOTS = 200
_DOTTED_KEY = rf"""(?<![\w-])(?:(?:[\w-]++|"[^"]*+"|'[^']*+')[ \t]*+\.[ \t]*+){{{_MOST_DOTS}}}"""
_PLACE = r" \(at (?:line (\d+), column (\d+)|end of document)\)$"
"""How tomllib says where a text is wrong."""


@value_class
class TomlProblem:
    """A mistake at one place of a text. ``key`` is () if it belongs to none; ``line`` and ``column`` count from
    1, and are 0 if they are not known."""

    words: str
    key: Key = ()
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        if not self.line:
            return self.words
        if not self.column:
            return f"{self.words} (at line {self.line})"
        return f"{self.words} (at line {self.line}, column {self.column})"


class TomlError(ValueError):
    """A text cannot be read as TOML, for each of these ``problems``."""

    def __init__(self, problems: Sequence[TomlProblem]) -> None:
        super().__init__(str(problems[0]))
        self.problems = problems


def parse_toml(text: str) -> dict[str, Any]:
    """Raises `TomlError` for what is no TOML, has numbers beyond 64 bits, or is nested too deeply."""
    problems = _large_numbers(text) or _long_keys(text)
    if problems:
        raise TomlError(problems)
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise TomlError([TomlProblem("nested too deeply")]) from None
    except ValueError as error:
        raise TomlError([_syntax_problem(text, str(error))]) from None


def _long_keys(text: str) -> list[TomlProblem]:
    """Find the first key of so many parts that tomllib would overflow the stack."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.count(".") < _MOST_DOTS:
            continue
        key = re.search(_DOTTED_KEY, line)
        if key:
            return [TomlProblem(f"not TOML: a key of over {_MOST_DOTS} parts", (), number, key.start() + 1)]
    return []


def _syntax_problem(text: str, message: str) -> TomlProblem:
    """Make a problem of tomllib's message, with its place as numbers."""
    last_line = text.count("\n") + 1
    place = re.search(_PLACE, message)
    if place is None:
        return TomlProblem(f"not TOML: {message[:LONGEST_QUOTE]}", (), last_line)
    reason = f"not TOML: {message[: place.start()]}"
    if place[1] is None:
        return TomlProblem(reason, (), last_line)
    return TomlProblem(reason, (), int(place[1]), int(place[2]))


# Numbers are measured before any of them is converted.


def _large_numbers(text: str) -> list[TomlProblem]:
    """Find every number that is no 64-bit integer and no finite float, or has over 100 characters."""
    candidates = [match for match in _LARGE_NUMBER.finditer(text) if _is_too_large(match["number"])]
    if not candidates:
        return []
    from mdl.toml.positions import spans, unquoted

    values = unquoted(text)
    keys = spans(text)
    problems = []
    for match in candidates:
        at = match.start("number")
        if _span_at(values, at) is None:
            continue  # it is in quotes or in a comment
        key_span = _span_at(keys, at)
        key = key_span[0] if key_span else ()
        line = text.count("\n", 0, at) + 1
        column = at - text.rfind("\n", 0, at)
        problems.append(TomlProblem(_reason(match["number"]), key, line, column))
    return problems


def _span_at(sorted_spans: Sequence[Span], at: int) -> Span | None:
    """The span that holds the character ``at``; None if none does."""
    index = bisect_right(sorted_spans, at, key=itemgetter(1)) - 1
    if index < 0:
        return None
    span = sorted_spans[index]
    return span if at < span[2] else None


def _is_too_large(number: str) -> bool:
    """False as well for what is no number: that is for the TOML reader to say."""
    if len(number) > LONGEST_NUMBER:
        return re.fullmatch(_LONG_NUMBER, number) is not None
    try:
        return not -LARGEST_NUMBER - 1 <= int(number, 0) <= LARGEST_NUMBER
    except ValueError:
        pass
    try:
        return not math.isfinite(float(number))
    except ValueError:
        return False


def _reason(number: str) -> str:
    if len(number) > _SHOWN_DIGITS:
        return f"the number {number[:_SHOWN_DIGITS]}… ({len(number):,} characters) is too large"
    return f"the number {number} is too large"
