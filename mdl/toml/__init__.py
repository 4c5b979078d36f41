"""TOML from an untrusted file, read in bounded time and without a traceback. Pure."""

from __future__ import annotations

import re
import tomllib
from typing import Any

from mdl.toml.numbers import LargeNumber, large_numbers

_MOST_DOTS = 200
_DOTTED_KEY = re.compile(rf"""(?<![\w-])(?:(?:[\w-]++|"[^"]*+"|'[^']*+')[ \t]*+\.[ \t]*+){{{_MOST_DOTS}}}""")


def parse_toml(text: str) -> dict[str, Any]:
    """Raises `ValueError` for what is no TOML, has numbers of thousands of digits, or is nested too deeply."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.count(".") >= _MOST_DOTS and (key := _DOTTED_KEY.search(line)):
            raise ValueError(f"a key of over {_MOST_DOTS} parts (at line {number}, column {key.start() + 1})")
    numbers = tuple(large_numbers(text))
    if numbers:
        raise NumbersTooLarge(numbers)
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise NestedTooDeeply("nested too deeply") from None


class NumbersTooLarge(ValueError):
    """There are ``numbers`` that are no 64-bit integers and no finite floats."""

    def __init__(self, numbers: tuple[LargeNumber, ...]) -> None:
        first = numbers[0]
        super().__init__(f"{first.words} (at line {first.line}, column {first.column})")
        self.numbers = numbers


class NestedTooDeeply(ValueError):
    """There are more brackets in one another than Python can read."""
