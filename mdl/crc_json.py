"""JSON lines with checksums: one fact a line after its own CRC-32, so that damage is noticed and a torn line says
nothing.

``<8 hex> <json>\\n``. mdl's own records (journals, receipts, listings, jobs) are written this way. Pure.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

from mdl.bounds import parse_json

_AT_ONCE = 1000
"""Items of a list that are made text together."""


def dumps(fact: Any) -> bytes:
    """One line, with its newline."""
    body = _text(fact)
    return b"%08x %s\n" % (zlib.crc32(body), body)


def dumps_with_list(facts: Mapping[str, Any], key: str, items: Iterable[Any]) -> bytes:
    """As `dumps` of the facts with one more, a list, whose items need not be in memory together."""
    parts = [_text(facts)[:-1] + b"," * bool(facts) + _text(key) + b":["]
    rest = iter(items)
    comma = b""
    while some := list(islice(rest, _AT_ONCE)):
        parts.append(comma + _text(some)[1:-1])
        comma = b","
    parts.append(b"]}")
    check = 0
    for part in parts:
        check = zlib.crc32(part, check)
    return b"".join([b"%08x " % check, *parts, b"\n"])


def loads(line: bytes) -> Any | None:
    """Return the fact in one line without its newline; None if the line is torn or damaged."""
    body = checked(line)
    if body is None:
        return None
    try:
        return parse_json(bytes(body))
    except ValueError:
        return None


def facts_in(line: bytes) -> dict[str, Any]:
    """Return the facts in one line without its newline, by their names; none if it has no such thing."""
    facts = loads(line)
    return facts if isinstance(facts, dict) else {}


def are_of_types(facts: Mapping[str, Any], types: Mapping[str, tuple[type, ...]]) -> bool:
    """Return whether each fact of these names is of a type that it may have, and not of a subclass. Raises `KeyError`
    if one is missing."""
    for name, allowed in types.items():  # noqa: SIM110 - there may be 100,000 lines, and a generator takes longer
        if type(facts[name]) not in allowed:
            return False
    return True


def checked(line: bytes) -> memoryview | None:
    """Return the JSON of one line without its newline; None if the line is torn or damaged."""
    body = memoryview(line)[9:]
    try:
        is_whole = line[8:9] == b" " and int(line[:8], 16) == zlib.crc32(body)
    except ValueError:
        return None
    return body if is_whole else None


def _text(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=True).encode()
