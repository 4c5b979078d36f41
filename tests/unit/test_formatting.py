"""Numbers, times and tables as people read them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdl.formatting import (
    cells,
    clip,
    human_age,
    human_bytes,
    human_duration,
    human_rate,
    is_number,
    pad,
    shorten,
    table,
)

SIZES = {0: "0 B", 999: "999 B", 999.7: "1.0 kB", 1000: "1.0 kB", 1_234_567_890: "1.2 GB", 999_949: "999.9 kB"}
SIZES |= {999_950: "1.0 MB", 999_999_999_999: "1.0 TB", -1500: "-1.5 kB", math.inf: "?", math.nan: "?"}
"""Powers of 1000 with one decimal; never 1000.0 of a unit."""
TIMES = {None: "?", math.inf: "?", -3: "0 s", 12: "12 s", 59.6: "1m 00s", 245: "4m 05s", 3599.7: "1h 00m"}
TIMES |= {7380: "2h 03m", 48 * 3600: "2d 00h", 446_400: "5d 04h"}
"""The two largest units; rounding never shows 60 of one."""
AGES = {-math.inf: "?", -5: "just now", 59: "just now", 60: "1 min ago", 3599: "59 min ago", 10_800: "3 h ago"}
AGES |= {86_400: "1 day ago", 30 * 86_400 + 5: "30 days ago"}
"""The largest unit, rounded down; a time that lies ahead is of a clock that differs."""
COLUMNS = {"abc": 3, "مدل": 3, "模型": 4, "e\u0301": 1, "a\u200cb": 2}
"""Wide characters count two columns of a terminal, combining and joining ones none."""
NUMBERS = {"12": True, "1.2 GB": True, "85.2 MB/s": True, "-": True, "v1": False, "": False}
"""Sizes, rates and counts go to the right of their column, words do not."""
NAME, SENTENCE = "model-00007-of-00012.safetensors", "connection reset by peer"


@pytest.mark.parametrize(
    ("function", "value", "found"),
    [
        *((human_bytes, value, words) for value, words in SIZES.items()),
        *((human_duration, value, words) for value, words in TIMES.items()),
        *((human_age, value, words) for value, words in AGES.items()),
        *((cells, value, columns) for value, columns in COLUMNS.items()),
        *((is_number, value, is_one) for value, is_one in NUMBERS.items()),
        (human_rate, 85_230_000.0, "85.2 MB/s"),
        (partial(shorten, width=26), NAME, "…0007-of-00012.safetensors"),
        (partial(clip, width=11), SENTENCE, "connection…"),
        (partial(pad, width=6), "模型", "模型  "),
        (partial(pad, width=4, right=True), "12", "  12"),
        (table, [], ""),
        (table, [["a"], ["b", "c"]], "a  -\nb  c\n"),
    ],
)
def test_what_people_read(function: Callable[[Any], Any], value: Any, found: Any) -> None:
    """Each value has this text: a name keeps its end, a sentence its start, and ragged rows are filled up."""
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
