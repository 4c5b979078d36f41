"""Numbers, times and tables as people read them."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdl.formatting import cells, clip, human_bytes, human_duration, human_rate, is_number, pad, shorten, table


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (999.7, "1.0 kB"),
        (1000, "1.0 kB"),
        (1_234_567_890, "1.2 GB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (999_999_999_999, "1.0 TB"),
        (-1500, "-1.5 kB"),
        (math.inf, "?"),
        (math.nan, "?"),
    ],
)
def test_bytes(count: float, words: str) -> None:
    """Sizes are in powers of 1000 with one decimal, and never read 1000.0 of a unit."""
    assert human_bytes(count) == words


@given(st.integers(min_value=0, max_value=10**18))
def test_bytes_fit_eight_columns(count: int) -> None:
    """No size up to an exabyte is wider than the column that bars keep for it."""
    assert len(human_bytes(count)) <= 8


def test_rate() -> None:
    """A rate is a size a second."""
    assert human_rate(85_230_000.0) == "85.2 MB/s"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, "?"),
        (math.inf, "?"),
        (-3, "0 s"),
        (12, "12 s"),
        (59.6, "1m 00s"),
        (245, "4m 05s"),
        (3599.7, "1h 00m"),
        (7380, "2h 03m"),
        (48 * 3600, "2d 00h"),
        (446_400, "5d 04h"),
    ],
)
def test_duration(seconds: float | None, words: str) -> None:
    """A duration has its two largest units, and rounding never shows 60 of one."""
    assert human_duration(seconds) == words


@pytest.mark.parametrize(("text", "columns"), [("abc", 3), ("مدل", 3), ("模型", 4), ("e\u0301", 1), ("a\u200cb", 2)])
def test_cells(text: str, columns: int) -> None:
    """Wide characters count two columns, combining and joining ones none."""
    assert cells(text) == columns


@given(st.text(max_size=60), st.integers(min_value=1, max_value=40))
def test_cut_text_fits(text: str, width: int) -> None:
    """Whatever is cut is no wider than asked, and what fits is left alone."""
    for cut in (shorten, clip):
        assert cells(cut(text, width)) <= width
        if cells(text) <= width:
            assert cut(text, width) == text


def test_shorten_keeps_the_end_and_clip_the_start() -> None:
    """A name keeps its number and suffix, a sentence its beginning."""
    assert shorten("model-00007-of-00012.safetensors", 26) == "…0007-of-00012.safetensors"
    assert clip("connection reset by peer", 11) == "connection…"


def test_pad_counts_columns() -> None:
    """Padding counts columns of the terminal, not characters."""
    assert pad("模型", 6) == "模型  "
    assert pad("12", 4, right=True) == "  12"


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


def test_table_of_nothing() -> None:
    """No rows and no headers make no text; ragged rows are filled up."""
    assert table([]) == ""
    assert table([["a"], ["b", "c"]]) == "a  -\nb  c\n"


@pytest.mark.parametrize(
    ("text", "is_one"), [("12", True), ("1.2 GB", True), ("85.2 MB/s", True), ("-", True), ("v1", False), ("", False)]
)
def test_numbers_are_told_from_words(text: str, is_one: bool) -> None:
    """Sizes, rates and counts go to the right of their column, words do not."""
    assert is_number(text) is is_one
