"""Mutation: given bytes cut, doubled, spliced, or with odd numbers, letters and JSON values put in."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from random import Random
from typing import Any

from hypothesis import strategies as st

_NUMBERS = [
    *("0", "-1", "+1", "1e999", "nan", "inf", "0x10", "٣", "²", "9" * 25, "9223372036854775808"),
    *("18446744073709551615", "4294967295", "65535", "1.5", ""),
    *("9" * 6000, "-" + "9" * 6000, "0x" + "f" * 6000, "0b" + "1" * 6000, "0." + "1" * 6000, "1e" + "9" * 6000),
    *("9" * 90, "9223372036854775807", "1e308", "-1e999", "NaN", "-Infinity"),
]
_TEXTS = [
    *(" ", "\t", "\0", "\x7f", "\r\n", "\n", "\x1b[2J", "\\", '"', "'", "/", "//", "..", "/../", "%2e%2e", "%00", "%"),
    *("~", ":", "@", "#", "?", "&", "=", ";", ",", "[", "]", "{", "}", "[" * 99, "{}", "[]", "null", "true", "\ufeff"),
    *("\u00e9", "e\u0301", "İ", "ﬁ", "\u202e", "\u200b", "\ud800", "CON", "aux.txt", ".mdl", "*", "localhost", "127.1"),
    *("[::1]", "[::ffff:127.0.0.1]", "A" * 300, "a/" * 70, "PK\1\2", "PK\5\6", "PK\6\6", "\0\0"),
]
_ODD_NUMBERS = [text.encode() for text in _NUMBERS]
_ODD = [*_ODD_NUMBERS, *(text.encode("utf-8", "surrogatepass") for text in _TEXTS), b"\xff", b"\xc3", b"\xff" * 4]
_VALUES: list[Any] = [
    *(None, True, False, 0, -1, 2**63, 2**70, -(2**70), 1.5, 1e300, "", "x", "\0", "..", "/etc", "a/../b", "\ud800"),
    *([], {}, [[]], [None], {"": None}, [1, 2, 3], {"a": {"a": {}}}, "9" * 30, "A" * 300, ["x"] * 9, float("inf")),
    *(float("nan"), 10**90, 2**63 - 1, "9" * 6000, "0x" + "f" * 6000, [[[[[[[[]]]]]]]], ["x"] * 999, "\udcff\ud83d"),
]


def examples(seeds: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """Bytes near the seeds, now and then far from them; hypothesis can make them smaller."""
    near = st.randoms(use_true_random=False).map(lambda draw: _mutated(draw, seeds))
    return st.one_of(near, near, near, st.binary(max_size=300))


def _mutated(draw: Random, seeds: Sequence[bytes]) -> bytes:
    data = draw.choice(seeds) if seeds and draw.random() < 0.95 else draw.randbytes(draw.randrange(40))
    for _ in range(1 + draw.randrange(5)):
        data = _WAYS[draw.randrange(len(_WAYS))](draw, data, seeds)
    return data[:100_000]


def _cut(draw: Random, data: bytes, _seeds: Sequence[bytes]) -> bytes:
    at = draw.randrange(len(data) + 1)
    return data[:at] + data[at + draw.randrange(1, 9) :]


def _flip(draw: Random, data: bytes, _seeds: Sequence[bytes]) -> bytes:
    at = draw.randrange(len(data) + 1)
    return data[:at] + bytes([draw.randrange(256)]) + data[at + 1 :]


def _put(draw: Random, data: bytes, _seeds: Sequence[bytes]) -> bytes:
    at = draw.randrange(len(data) + 1)
    return data[:at] + draw.choice(_ODD) + data[at + draw.randrange(3) :]


def _number(draw: Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    """One of its numbers becomes an odd one."""
    found = list(re.finditer(rb"\d+", data))
    if not found:
        return _put(draw, data, seeds)
    one = draw.choice(found)
    return data[: one.start()] + draw.choice(_ODD_NUMBERS) + data[one.end() :]


def _double(draw: Random, data: bytes, _seeds: Sequence[bytes]) -> bytes:
    start = draw.randrange(len(data) + 1)
    piece = data[start : start + draw.randrange(1, 40)]
    return data[:start] + piece * (1 + draw.randrange(3)) + data[start:]


def _splice(draw: Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    other = draw.choice(seeds) if seeds else b""
    return data[: draw.randrange(len(data) + 1)] + other[draw.randrange(len(other) + 1) :]


def _lines(draw: Random, data: bytes, _seeds: Sequence[bytes]) -> bytes:
    """A line is doubled, moved or gone."""
    lines = data.split(b"\n")
    line = lines.pop(draw.randrange(len(lines)))
    for _ in range(draw.randrange(3)):
        lines.insert(draw.randrange(len(lines) + 1), line)
    return b"\n".join(lines)


def _graft(draw: Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    """A value within one of its lines of JSON becomes another one."""
    lines = data.split(b"\n")
    number = draw.randrange(len(lines))
    head, mark, body = lines[number].partition(b"=")
    head, body = (head + mark, body) if mark and not head else (b"", lines[number])
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return _put(draw, data, seeds)
    lines[number] = head + json.dumps(_grafted(draw, value)).encode()
    return b"\n".join(lines)


def _grafted(draw: Random, value: Any) -> Any:
    if draw.random() < 0.2 or not isinstance(value, dict | list) or not value:
        return draw.choice(_VALUES)
    if isinstance(value, dict):
        key = draw.choice(list(value))
        if draw.random() < 0.1:
            return {name: one for name, one in value.items() if name != key}
        return value | {key: _grafted(draw, value[key])}
    at = draw.randrange(len(value))
    return [*value[:at], _grafted(draw, value[at]), *value[at + 1 :]]


_WAYS = (_cut, _flip, _put, _put, _number, _double, _splice, _lines, _graft, _graft)
