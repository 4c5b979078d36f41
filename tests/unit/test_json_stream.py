"""JSON that is read as it comes: the same as json.loads says, however the bytes are cut, and no more in memory."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.cases import each
from support.long import LONG, examples

from mdl.json_stream import read_json

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def cut(data: bytes, length: int) -> list[bytes]:
    return [data[start : start + length] for start in range(0, len(data), length)]


@settings(max_examples=examples(300))
@given(VALUES, st.integers(1, 30), st.sampled_from([None, 1]))
def test_any_value_however_it_is_cut(value: Any, length: int, indent: int | None) -> None:
    """What is read is what json.loads reads, whichever characters the blocks end in."""
    data = json.dumps(value, ensure_ascii=False, indent=indent).encode("utf-8", "surrogatepass")
    try:
        expected = json.loads(data.decode())
    except UnicodeDecodeError:
        return
    assert read_json(cut(data, length), {}, 10_000) == expected


@settings(max_examples=examples(200))
@given(st.lists(VALUES, max_size=5), st.dictionaries(st.text(max_size=4), VALUES, max_size=3), st.integers(1, 30))
def test_items_of_a_list(items: list[Any], more: dict[str, Any], length: int) -> None:
    """The items of a list, or of the list under a key, are handed over one by one; an empty list stands for them."""
    taken: list[Any] = []
    assert read_json(cut(json.dumps(items).encode(), length), {"": taken.append}, 10_000) == []
    assert taken == items
    taken.clear()
    whole = {**more, "siblings": items}
    found = read_json(cut(json.dumps(whole).encode(), length), {"siblings": taken.append}, 10_000)
    assert (found, taken) == (whole | {"siblings": []}, items)


@each(
    "text",
    [
        *(
            b"",
            b" ",
            b"[",
            b"[1",
            b"[1,",
            b"[1,]",
            b"[,1]",
            b"[1 2]",
            b"[1]]",
            b"[1] x",
            b"{",
            b'{"a"',
            b'{"a":',
            b'{"a":1',
        ),
        *(
            b'{"a":1,}',
            b"{1:2}",
            b"{'a':1}",
            b'{"a" 1}',
            b"nul",
            b"NaN",
            b"[NaN]",
            b"[1e999]",
            b"[" + b"9" * 5000 + b"]",
        ),
        *(b"\xff\xfe[\x00]\x00", b'["\xff"]', b"<html>", b"[" * 100_000, b'["a\nb"]'),
    ],
    ids=lambda text: repr(text[:12]),
)
@each("length", [1, 7, 1000])
def test_what_is_no_json(text: bytes, length: int) -> None:
    """It raises ValueError or RecursionError, and ends."""
    with pytest.raises((ValueError, RecursionError)):
        read_json(cut(text, length), {"": lambda _: None, "a": lambda _: None}, 200_000)


@each("text", [b'["' + b"x" * 5000 + b'"]', b'{"k":"' + b"x" * 5000 + b'","siblings":[]}', b"[[" + b"1," * 3000])
@each("length", [100, 10_000])
def test_one_value_is_bounded(text: bytes, length: int) -> None:
    """A list may be endless, one of its items may not."""
    with pytest.raises(ValueError, match="more than 1000 characters"):
        read_json(cut(text, length), {"": lambda _: None, "siblings": lambda _: None}, 1000)


def test_a_long_list_costs_one_item() -> None:
    """Tens of thousands of items are read in the memory of a few blocks."""
    most = 40_000 if LONG else 10_000

    def blocks() -> Iterator[bytes]:
        yield b"["
        for number in range(most):
            yield b'%b{"path":"data/part-%06d.json","size":1}' % (b"," * bool(number), number)
        yield b"]"

    count = 0

    def take(item: Any) -> None:
        nonlocal count
        count += item["size"]

    tracemalloc.start()
    try:
        read_json(blocks(), {"": take}, 10_000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (count, peak < 200_000) == (most, True)
