"""The figures of docs/many-machines.md: written by docs/scale.py, whose figures are worked out here once more."""

from __future__ import annotations

import runpy
from pathlib import Path

from support.cases import each

import mdl

ROOT = Path(mdl.__file__).parents[1]
SCRIPT = runpy.run_path(str(ROOT / "docs" / "scale.py"))
PAGE = (ROOT / "docs" / "many-machines.md").read_text("utf-8")


def test_it_is_up_to_date() -> None:
    """The tables are what `python docs/scale.py` writes; --check says so."""
    assert SCRIPT["page"](PAGE) == PAGE
    assert SCRIPT["main"](["--check"]) == 0


@each(
    ("row", "figures"),
    [
        ("| 100 | 7 TB | 4,000 |", ["5 min", "200", "none"]),  # 4,000 links are two windows of 3,000: one is waited for
        ("| 10,000 | 700 TB | 400,000 |", ["11 h", "20,000", "3.2 h"]),  # 134 windows; 40 of 500 calls
        ("| each from the hub |", ["nodes × 70 GB", "56 s", "5.9 min", "11 h"]),  # 5 min and 70 GB over 1.25 GB/s
        ("| one server, `mdl serve` |", ["70 GB", "1.9 min", "1.6 h", "6.5 days"]),  # 2, 101 and 10,001 copies
        ("| a shared folder |", ["70 GB", "1.9 min", "6.8 min", "9.7 h"]),  # 7 TB and 700 TB at 20 GB/s, and a copy
        (
            "| an object store, `mdl mirror` |",
            ["70 GB", "2.8 min", "2.8 min", "35 min"],
        ),  # 10.8 million GETs at 5,500/s
        ("| 10,000 | 700 TB | 10,800,000 |", ["33 min", "$4.32", "$14,000"]),  # 27 GETs for each of 40 files
    ],
)
def test_its_figures(row: str, figures: list[str]) -> None:
    """Each of these rows is on the page, and ends with the figures that were worked out by hand."""
    [line] = [line for line in PAGE.splitlines() if line.startswith(row)]
    assert line == f"{row} {' | '.join(figures)} |"
