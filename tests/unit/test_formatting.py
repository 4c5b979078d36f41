"""Numbers, times and tables as people read them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.cases import each

from mdl.bounds import MOST_LISTED
from mdl.formatting import (
    cells,
    clip,
    counted,
    first_of,
    human_age,
    human_bytes,
    human_duration,
    human_elapsed,
    human_rate,
    is_number,
    listed,
    pad,
    shorten,
    shorten_all,
    table,
    utc_time,
    wrap,
)

SIZES = {0: "0 B", 999: "999 B", 999.7: "1.0 kB", 1000: "1.0 kB", 1_234_567_890: "1.2 GB", 999_949: "999.9 kB"}
SIZES |= {999_950: "1.0 MB", 999_999_999_999: "1.0 TB", -1500: "-1.5 kB", math.inf: "?", math.nan: "?", None: "?"}
"""Powers of 1000 with one decimal; never 1000.0 of a unit."""
TIMES = {None: "?", math.inf: "?", -3: "0 s", 12: "12 s", 59.6: "1m 00s", 245: "4m 05s", 3599.7: "1h 00m"}
TIMES |= {7380: "2h 03m", 48 * 3600: "2d 00h", 446_400: "5d 04h"}
"""The two largest units; rounding never shows 60 of one."""
AGES = {-math.inf: "?", -5: "just now", 59: "just now", 60: "1 min ago", 3599: "59 min ago", 10_800: "3 h ago"}
AGES |= {86_400: "1 day ago", 30 * 86_400 + 5: "30 days ago"}
"""The largest unit, rounded down; a time that lies ahead is of a clock that differs."""
MOMENTS = {0: "1970-01-01T00:00:00Z", 1_795_000_000.9: "2026-11-18T11:06:40Z", None: None, 1e18: None, -1e18: None}
"""Whole seconds in UTC; nothing for a time that no calendar has."""
COLUMNS = {"abc": 3, "مدل": 3, "模型": 4, "e\u0301": 1, "a\u200cb": 2}
"""Wide characters count two columns of a terminal, combining and joining ones none."""
NUMBERS = {"12": True, "1.2 GB": True, "85.2 MB/s": True, "-": True, "v1": False, "": False}
"""Sizes, rates and counts go to the right of their column, words do not."""
COUNTS = {0: "0 files", 1: "1 file", 2000: "2,000 files"}
NAME, SENTENCE = "model-00007-of-00012.safetensors", "connection reset by peer"


@each(
    ("function", "value", "found"),
    [
        *((human_bytes, value, words) for value, words in SIZES.items()),
        *((human_duration, value, words) for value, words in TIMES.items()),
        *((human_age, value, words) for value, words in AGES.items()),
        *((utc_time, value, words) for value, words in MOMENTS.items()),
        *((cells, value, columns) for value, columns in COLUMNS.items()),
        *((is_number, value, is_one) for value, is_one in NUMBERS.items()),
        *((human_elapsed, value, words) for value, words in {0.04: "0.0 s", 9.94: "9.9 s", 9.95: "10 s"}.items()),
        *((partial(counted, noun="file"), value, words) for value, words in COUNTS.items()),
        (human_rate, 85_230_000.0, "85.2 MB/s"),
        (partial(shorten, width=26), NAME, "model-00…00012.safetensors"),
        (partial(wrap, width=12), "no two words fit", ["no two words", "fit"]),
        (partial(wrap, width=9, indent="  "), "see /a/long/path now", ["see /a/long/path", "  now"]),
        (partial(clip, width=11), SENTENCE, "connection…"),
        (partial(pad, width=6), "模型", "模型  "),
        (partial(pad, width=4, right=True), "12", "  12"),
    ],
)
def test_what_people_read(function: Callable[[Any], Any], value: Any, found: Any) -> None:
    """Each value has this text: a name keeps its start and end, a sentence its start, and ragged rows are filled up."""
    assert function(value) == found


@given(st.integers(min_value=0, max_value=10**18))
def test_bytes_fit_eight_columns(count: int) -> None:
    """No size up to an exabyte is wider than the column that bars keep for it."""
    assert len(human_bytes(count)) <= 8


@given(st.text(max_size=60), st.integers(min_value=1, max_value=40))
def test_cut_text_fits(text: str, width: int) -> None:
    """Whatever is cut is no wider than asked, and what fits is left alone."""
    for cut in (shorten, clip):
        assert cells(cut(text, width)) <= width
        if cells(text) <= width:
            assert cut(text, width) == text


@pytest.mark.parametrize(
    "pattern",
    [
        "model-0000{}-of-00008.safetensors",
        "part{}-of-8-Qwen3-235B-A22B-UD-Q8_K_XL.gguf",
        "Qwen3-UD-Q8_K_XL-part{}-of-8.gguf",
    ],
)
def test_what_names_differ_in_stays_visible(pattern: str) -> None:
    """Names below one another are never cut to the same text, at any width that a row has."""
    names = [pattern.format(number) for number in range(1, 9)]
    for width in range(12, 60):
        short = shorten_all(names, width)
        assert len(set(short)) == len(names), (width, short)
        assert max(map(cells, short)) <= width


@given(st.lists(st.text(max_size=30), max_size=8), st.integers(min_value=1, max_value=40))
def test_cut_names_fit(names: list[str], width: int) -> None:
    """However alike or different names are, each fits, and one that fits is left alone."""
    for name, short in zip(names, shorten_all(names, width), strict=True):
        assert cells(short) <= width
        assert short == name or cells(name) > width


@given(st.text("ab  模", max_size=60), st.integers(min_value=8, max_value=30))
@example("aaaaaaaa  aaaa模", 8)
def test_wrapped_text_loses_nothing(text: str, width: int) -> None:
    """Lines that were broken are, put together again, the same words; only one word alone may be longer than a line."""
    lines = wrap(text, width, "  ")
    assert " ".join(lines).split() == text.split()
    assert all(cells(line) <= width or max(map(cells, line.split())) > width - 2 for line in lines)


def test_table_can_be_split_again() -> None:
    """Every cell comes back when the lines are split at two or more spaces, also an empty one."""
    rows = [["bert-fa", "654.2 MB", "two  spaces"], ["z", "1.2 kB", ""]]
    lines = table(rows, ["NAME", "SIZE", "TITLE"]).splitlines()
    assert [re.split(r" {2,}", line) for line in lines] == [
        ["NAME", "SIZE", "TITLE"],
        ["bert-fa", "654.2 MB", "two spaces"],
        ["z", "1.2 kB", "-"],
    ]
    assert lines[1].index("654.2 MB") + 8 == lines[2].index("1.2 kB") + 6


@pytest.mark.parametrize(("count", "told"), [(0, ""), (2, "1, 2"), (3, "1, 2, 3"), (4, "1, 2, 3 and 1 more")])
def test_a_message_names_the_first(count: int, told: str) -> None:
    """Of many items a message has the first, and says how many more there are."""
    assert listed([str(number) for number in range(1, count + 1)], most=3) == told


def test_sentences_and_lines() -> None:
    """Sentences end with their number and what they are, lines with one that says it."""
    assert listed(["a", "b", "c"], "; ", most=1, noun="reasons") == "a; and 2 more reasons"
    many = [str(number) for number in range(1_234_567)]
    assert (len(first_of(many)), first_of(many)[-1]) == (MOST_LISTED + 1, "and 1,234,547 more")
    assert first_of(["a"]) == ["a"]
