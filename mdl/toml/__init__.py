"""TOML from an untrusted file, read in bounded time and without a traceback. Pure."""

from __future__ import annotations

import re
import tomllib
from typing import Any

_MOST_DOTS = 200
_DOTTED_KEY = re.compile(rf"""(?<![\w-])(?:(?:[\w-]++|"[^"]*+"|'[^']*+')[ \t]*+\.[ \t]*+){{{_MOST_DOTS}}}""")


def parse_toml(text: str) -> dict[str, Any]:
    """Raises `ValueError` for what is no TOML, has numbers of thousands of digits, or is nested too deeply."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.count(".") >= _MOST_DOTS and (key := _DOTTED_KEY.search(line)):
            raise ValueError(f"a key of over {_MOST_DOTS} parts (at line {number}, column {key.start() + 1})")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise NestedTooDeeply("nested too deeply") from None


class NestedTooDeeply(ValueError):
    """There are more brackets in one another than Python can read."""
