"""Globs: which paths a user means by ``--include`` and ``--exclude``. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase


def matches(path: str, patterns: Iterable[str]) -> bool:
    """Glob as ``hf download`` means it: ``*`` crosses ``/``, case counts, a trailing ``/`` means the folder."""
    return any(fnmatchcase(path, pattern + "*" if pattern.endswith("/") else pattern) for pattern in patterns)
