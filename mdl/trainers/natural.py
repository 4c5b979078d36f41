"""Numbers as people read them: ``checkpoint-1000`` comes after ``checkpoint-500``. Pure."""

from __future__ import annotations

import re

_PARTS = re.compile(r"[0-9]+|[^0-9]+")
_COUNT = re.compile(r"[0-9]{1,18}")


def natural(name: str) -> tuple[tuple[int, int, str], ...]:
    """A sort key: runs of digits by their value, all else as text."""
    parts = _PARTS.findall(name)
    return tuple((0, int(part), "") if part[0] in "0123456789" else (1, 0, part) for part in parts)


def natural_path(path: str) -> list[tuple[tuple[int, int, str], ...]]:
    """The same for a path, name by name."""
    return [natural(name) for name in path.split("/")]


def count(value: object) -> int | None:
    """A whole number of steps, as a number or in digits; None for whatever else a file may hold there."""
    if isinstance(value, str) and _COUNT.fullmatch(value):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**18:
        return value
    return None
