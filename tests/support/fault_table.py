"""The fault matrix: which tests tried which rows of faults.toml, and how they ended."""

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
        """``failed`` if any test failed, ``passed`` if some did and none failed, else ``not run``."""
        return next((one for one in ("failed", "passed") if self.outcomes[one]), "not run")

    @property
    def why(self) -> str:
        """Why it was not run."""
        return self.not_run or ("left to the long run, or skipped here" if self.outcomes["skipped"] else "no test yet")

    @property
    def line(self) -> str:
        """Its line of the table."""
        cells = (self.fault, self.expected, self.result, ", ".join(sorted(self.tests)) or self.why)
        return f"| {self.group}{self.number} | {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


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
                yield f"  not run: {row.group}{row.number} {row.fault}: {row.why}"

    def table(self) -> str:
        """The document: one table a group."""
        command = "python -m pytest tests --fault-table=docs/faults.md"
        lines = ["# The fault matrix", "", f"Written by `{command}`, not by hand."]
        lines += ["", next(self.summary()) + ".", ""]
        for letter, name in self.groups.items():
            lines += [f"## {letter}. {name}", "", "| # | fault | expected | result | tests |", "|---|---|---|---|---|"]
            lines += [row.line for row in self.rows.values() if row.group == letter]
            lines.append("")
        return "\n".join(lines)
