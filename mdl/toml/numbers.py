"""Numbers of a TOML text that are too large, found before any of them is converted. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from mdl.bounds import LARGEST_NUMBER, LONGEST_NUMBER
from mdl.values import value_class

if TYPE_CHECKING:
    from mdl.toml.positions import Key

_LARGE = re.compile(
    r"(?:[=\[,]|^)[ \t]*+(?P<number>[+-]?[0-9](?:[0-9A-Za-z_.+-]{17,}+|[0-9_.]*+[eE][+-]?[0-9_]{3,}+))(?![ \t]*+=)",
    re.MULTILINE,
)
"""What may be a number beyond 64 bits: at least 18 characters (``0x8000000000000000``), or an exponent of 3 digits."""
_SHOWN = 20


@value_class
class LargeNumber:
    """One number that is too large: its key, where it stands, and what to say of it."""

    key: Key
    line: int
    column: int
    words: str


def large_numbers(text: str) -> Iterator[LargeNumber]:
    """Every number in ``text`` that is no 64-bit integer and no finite float, or has over 100 characters."""
    candidates = [match for match in _LARGE.finditer(text) if _is_too_large(match["number"])]
    if not candidates:
        return
    from mdl.toml.positions import spans, unquoted

    outside = unquoted(text)
    keys = spans(text)
    for match in candidates:
        at = match.start("number")
        if not any(start <= at < stop for start, stop in outside):
            continue
        key = next((key for key, start, stop in reversed(keys) if start <= at < stop), ())
        line = text.count("\n", 0, at) + 1
        yield LargeNumber(key, line, at - text.rfind("\n", 0, at), _words(match["number"]))


def _is_too_large(number: str) -> bool:
    """False as well for what is no number: that is for the TOML reader to say."""
    if len(number) > LONGEST_NUMBER:
        return re.fullmatch(r"[+-]?(0[xob])?[0-9A-Fa-f_]+|[+-]?[0-9_.]+([eE][+-]?[0-9_]+)?", number) is not None
    try:
        return not -LARGEST_NUMBER - 1 <= int(number, 0) <= LARGEST_NUMBER
    except ValueError:
        pass
    try:
        return not math.isfinite(float(number))
    except ValueError:
        return False


def _words(number: str) -> str:
    if len(number) > _SHOWN:
        return f"the number {number[:_SHOWN]}… ({len(number):,} characters) is too large"
    return f"the number {number} is too large"
