"""docs/benchmarks.md, its chart and the README's lines: drawn by benchmarks/page.py from benchmarks/results.json."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

import mdl

BENCHMARKS = Path(mdl.__file__).parents[1] / "benchmarks"
SVG = "{http://www.w3.org/2000/svg}"
COMMANDS = """
import harness as bench
bench.table(("case", "s"), [("mdl", "1.0")], "Two rounds")
bench.claim("one is one", True)
bench.claim("one is two", False)
run = bench.Run(2.0, 0.0, 0.0, 0, 0)
bench.compare("work", {"mdl": [run, run], "slow": [bench.Run(4.0, 0.0, 0.0, 0, 0)] * 2}, "mdl", alike=("slow",))
raise SystemExit(bench.verdict())
"""


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("page")


def record(**more: Any) -> Any:
    peers = [
        {"name": "quick & small", "seconds": 0.5, "times": 0.25, "alike": False},
        {"name": "level", "seconds": 2.0, "times": 1.0, "alike": True},
        {"name": "slow", "seconds": 16.0, "times": 8.0, "alike": True},
    ]
    found = {
        "command": "python benchmarks/download.py",
        "day": "2026-11-24",
        "machine": "2 cores",
        "versions": "curl 8",
        "seconds": 1.0,
        "code": 1,
        "skipped": "",
        "tables": [{"head": ["case", "s"], "rows": [["a|b", "1"]], "caption": "Two rounds"}],
        "claims": [{"text": "mdl is quick", "holds": True}, {"text": "mdl is quicker", "holds": False}],
        "comparisons": [{"work": "One file of 1 GiB", "seconds": 2.0, "peers": peers}],
    }
    return found | more


def test_it_is_up_to_date() -> None:
    """What stands on the page, in the chart and in the README is what the last results give; --check says so."""
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "all.py", "--check"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "the page is up to date"), done.stderr


def test_a_benchmark_records_what_it_found(tmp_path: Path) -> None:
    """Its tables, claims and comparisons go to the file that the variable names, and a claim that fails is its exit
    code."""
    env = {**os.environ, "PYTHONPATH": str(BENCHMARKS), "MDL_BENCHMARK_RECORD": str(tmp_path / "found.json")}
    done = subprocess.run([sys.executable, "-c", COMMANDS], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["tables"] == [{"head": ["case", "s"], "rows": [["mdl", "1.0"]], "caption": "Two rounds"}]
    assert [(one["text"], one["holds"]) for one in found["claims"]] == [("one is one", True), ("one is two", False)]
    peers = [{"name": "slow", "seconds": 4.0, "times": 2.0, "alike": True}]
    assert found["comparisons"] == [{"work": "work", "seconds": 2.0, "peers": peers}]


def test_the_page_tells_where_mdl_is_slower(page: Any) -> None:
    """A case in which mdl is slower, and a claim that does not hold, stand at the top as well as in their section."""
    text = page.drawn({"large": record()})[page.PAGE]
    behind, section = text.split("## Where mdl is slower")[1].split("## One large file\n")
    assert "- One file of 1 GiB: mdl takes 4.0 times as long as `quick & small`." in behind
    assert "- mdl is quicker." in behind
    assert "mdl is quick." not in behind
    assert "| a\\|b | 1 |" in section
    assert "1 of 2 claims hold." in section
    assert "| One file of 1 GiB | 2.00 | `quick & small` 0.50 (4.0); **`level`** 2.00 (1.00); **`slow`**" in text


def test_a_benchmark_that_did_not_run_is_told(page: Any) -> None:
    text = page.drawn({"large": record(skipped="curl is not on PATH", tables=[], claims=[], comparisons=[])})[page.PAGE]
    assert "Not run here: curl is not on PATH." in text


def test_the_chart_has_a_dot_for_each_program(page: Any) -> None:
    """Left of the line are those that take longer than mdl, right of it the quicker ones. Filled: those that verify."""
    root = ElementTree.fromstring(page.drawn({"large": record()})[page.CHART])
    (line,) = [float(one.attrib["x1"]) for one in root.iter(f"{SVG}line") if one.attrib["class"] == "one"]
    dots = [(float(one.attrib["cx"]), one.attrib.get("class")) for one in root.iter(f"{SVG}circle")]
    names = [one.text for one in root.iter(f"{SVG}text")]
    (slow, _), (level, filled), (quick, hollow) = dots
    assert (hollow, filled) == (None, "alike")
    assert slow < line - 10
    assert level == pytest.approx(line, abs=1)
    assert quick > line + 10
    assert {"quick & small 4.0", "level 1.00", "slow 0.12"} <= set(names)


def test_names_in_the_chart_do_not_overlap(page: Any) -> None:
    """Two programs that are as fast as each other stand on two lines."""
    peers = [{"name": f"program {n}", "seconds": 1.0, "times": 1.0 + n / 100, "alike": False} for n in range(4)]
    work = {"work": "w", "seconds": 1.0, "peers": peers}
    root = ElementTree.fromstring(page.drawn({"large": record(comparisons=[work])})[page.CHART])
    heights = [one.attrib["cy"] for one in root.iter(f"{SVG}circle")]
    assert len(set(heights)) == 4


def test_the_readme_has_three_lines(page: Any) -> None:
    text = page.drawn({"large": record()})[page.README]
    block = text.split("<!-- benchmarks -->\n")[1].split("\n<!-- end -->")[0]
    assert "docs/pictures/benchmarks.svg" in block
    assert len([line for line in block.splitlines() if line.startswith("- ")]) == 3
