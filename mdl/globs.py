"""Globs: the patterns of ``--include`` and ``--exclude``. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase


def matches(path: str, patterns: Iterable[str]) -> bool:
    """Whether a path matches one of the patterns, as in ``hf download``: ``*`` matches ``/`` too, case matters, and a
    trailing ``/`` means everything in that folder."""
    return any(fnmatchcase(path, pattern + "*" if pattern.endswith("/") else pattern) for pattern in patterns)


def texts(value: str | Iterable[str]) -> tuple[str, ...]:
    """One text, or several: a single string is never taken for a list of its letters."""
    return (value,) if isinstance(value, str) else tuple(value)
