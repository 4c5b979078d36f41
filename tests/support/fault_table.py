"""The fault matrix: which rows of faults.toml were tried by which tests, and how that went."""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROWS = Path(__file__).parents[1] / "faults.toml"


@dataclass
class Row:
    """One fault. ``outcomes`` counts its tests: passed, failed, skipped; ``tests`` are their files."""

    number: int
    group: str
    fault: str
    expected: str
    not_run: str = ""
    outcomes: Counter[str] = field(default_factory=Counter)
    tests: set[str] = field(default_factory=set)

    @property
    def result(self) -> str:
        """``failed`` where any test failed, ``passed`` where some did and none failed, else why it was not run."""
        if self.outcomes["failed"]:
            return "failed"
        if self.outcomes["passed"]:
            return "passed"
        return "not run"


class Matrix:
    """All rows, by number."""

    def __init__(self) -> None:
        self.groups: dict[str, str] = {}
        self.rows: dict[int, Row] = {}
        for letter, group in tomllib.loads(ROWS.read_text("utf-8")).items():
            self.groups[letter] = group.pop("name")
            for number, facts in group.items():
                self.rows[int(number)] = Row(int(number), letter, **facts)

    def note(self, number: int, file: str, outcome: str) -> None:
        """A test of that row ended so. Raises `KeyError` for a row that is not there."""
        self.rows[number].outcomes[outcome] += 1
        self.rows[number].tests.add(file)

    def summary(self) -> Iterator[str]:
        """How many rows were run, and every one that was not, with the reason."""
        count = Counter(row.result for row in self.rows.values())
        results = ", ".join(f"{count[result]} {result}" for result in ("passed", "failed", "not run"))
        yield f"faults: {len(self.rows)} rows, {results}"
        for row in self.rows.values():
            if row.result == "not run":
                yield f"  not run: {row.group}{row.number} {row.fault}: {_why(row)}"

    def table(self) -> str:
        """The document: one table a group."""
        lines = [
            "# The fault matrix",
            "",
            "Written by `python -m pytest --fault-table=docs/faults.md`, not by hand.",
            "",
        ]
        lines += [next(self.summary()) + ".", ""]
        for letter, name in self.groups.items():
            lines += [f"## {letter}. {name}", "", "| # | fault | expected | result | tests |", "|---|---|---|---|---|"]
            lines += [_line(row) for row in self.rows.values() if row.group == letter]
            lines.append("")
        return "\n".join(lines)


def _line(row: Row) -> str:
    passed = row.outcomes["passed"]
    result = f"passed ({passed})" if row.result == "passed" else row.result
    cells = (row.fault, row.expected, result, ", ".join(sorted(row.tests)) if row.tests else _why(row))
    return f"| {row.group}{row.number} | {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


def _why(row: Row) -> str:
    if row.not_run:
        return row.not_run
    return "skipped here" if row.outcomes["skipped"] else "no test yet"
